//! Compiles CRI's published protobuf to Rust with protox, so that no `protoc` is needed on the machine that builds.
//! Reads `proto/api.proto`, writes `runtime.v1.rs` to OUT_DIR.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/api.proto");
    let descriptors = protox::compile(["proto/api.proto"], ["proto"])?;
    // comments are left out: rustdoc takes their indentation for code
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .btree_map(".")
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
