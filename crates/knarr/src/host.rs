//! What this machine is: its name, its address, who we are on it, and the signals that end us.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The host's name as a node's: lower case, nothing but what a name may have.
pub fn node_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect();
    let name = name.trim_matches(|c| c == '-' || c == '.');
    if name.is_empty() { "localhost".into() } else { name.into() }
}

/// The address this machine reaches others from. Nothing is sent: connecting a UDP socket only asks for the route.
pub fn address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket
        .connect((Ipv4Addr::new(203, 0, 113, 1), 9))
        .context("this machine has no default route: name its address with --node-ip")?;
    Ok(socket.local_addr()?.ip())
}

pub fn require_root(what: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("{what} needs root: run it with sudo");
    }
    Ok(())
}

/// Cancelled by the first Ctrl-C or SIGTERM.
pub fn shutdown_on_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}
