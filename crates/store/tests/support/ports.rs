//! Ports of loopback for servers that cannot be told to take a free one and say which.
//!
//! Invariant: nobody is given such a port by the kernel, neither as "any free port" nor for a connection that goes out,
//! so it is still free when the server takes it, and when it comes back after its end. Of the tests that run at once each
//! process has ports of its own.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Above the ports of Kubernetes (to 10259), below those of Services (from 30000) and what the kernel gives out (from 32768).
const FIRST: u16 = 12_000;
const PORTS: u16 = 16_000;
/// As many as a process may want, so that processes whose ids are near each other share none.
const OF_ONE: u32 = 20;

/// Another one each time.
pub fn own() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id().wrapping_mul(OF_ONE) % u32::from(PORTS)) as u16;
    (0..PORTS)
        .map(|_| FIRST + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("one of so many is free")
}
