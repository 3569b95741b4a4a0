//! Compiles the part of etcd's protobuf that is used to Rust with protox, so that no `protoc` is needed on the machine that builds.
//! Reads `proto/etcd.proto`, writes `etcdserverpb.rs` to OUT_DIR.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/etcd.proto");
    let descriptors = protox::compile(["proto/etcd.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).bytes(".").disable_comments(["."]).compile_fds(descriptors)?;
    Ok(())
}
