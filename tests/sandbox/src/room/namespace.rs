//! Listeners inside the pause container's network namespace.
//!
//! A namespace belongs to a thread, so a thread of its own enters it, binds, and hands the socket
//! back; a socket stays where it was made, whoever then serves it.

#![allow(
    clippy::disallowed_methods,
    reason = "`ip` gives the namespace the metadata service's address"
)]

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};
use tokio::{net::TcpListener, sync::oneshot};

/// Binds `address` in the network namespace of process `pid`. A link-local address is given to the
/// namespace first.
pub(super) async fn listen(pid: u32, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let (hand_over, handed) = oneshot::channel();
    thread::Builder::new()
        .name(format!("bind {address}"))
        .spawn(move || hand_over.send(bind_in(pid, address)))
        .context("start a thread")?;
    let listener = handed
        .await
        .context("the binding thread died")?
        .with_context(|| format!("listen on {address} in the nodes' network"))?;
    TcpListener::from_std(listener).context("hand a listener to tokio")
}

fn bind_in(pid: u32, address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter {path} (needs root)"))?;
    if let IpAddr::V4(link_local) = address.ip()
        && link_local.is_link_local()
    {
        add_address(&format!("{link_local}/32"))?;
    }
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The child inherits the namespace of the thread that starts it.
fn add_address(address: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(["address", "add", address, "dev", "eth0"])
        .output()
        .context("run ip (Debian's iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip address add {address}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
