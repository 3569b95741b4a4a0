//! Everything that asks the kernel directly: mounts, safe opening, kernel parameters. The only crate where `unsafe` may be
//! written. Reads and writes /proc and the mount table; every error names what it was about.

pub mod beneath;
pub mod disk;
pub mod mount;
pub mod nft;
pub mod process;
pub mod sysctl;
