//! Compiles `pause.c`, the one program of the sandbox image, with the system's C compiler.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=pause.c");
    println!("cargo:rerun-if-env-changed=CC");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("pause");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args([
            "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
        ])
        .args(["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-s", "-o"])
        .arg(&out)
        .arg("pause.c")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{compiler} could not compile pause.c ({status})"),
        Err(e) => panic!("cannot run the C compiler {compiler}: {e}; install gcc, or set CC"),
    }
}
