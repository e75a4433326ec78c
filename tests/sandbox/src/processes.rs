//! The processes of a sandbox, found by the mark in their environment: also those that a killed
//! daemon has left behind.

#![allow(
    clippy::disallowed_methods,
    reason = "ending processes takes time, and this waits for it with a deadline"
)]

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::paths::PROCESS_MARK;

/// How long a daemon may take to remove its machines before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// How long the kernel may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(50);

/// The living processes of a sandbox.
pub(crate) fn of(sandbox: &str) -> anyhow::Result<Vec<Pid>> {
    let mark = format!("{PROCESS_MARK}={sandbox}").into_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else {
            continue;
        };
        // A process that has just ended, or belongs to somebody else, is none of ours.
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|pair| pair == mark)
        {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// Ends a sandbox's processes, gently first; how many there were.
pub(crate) async fn end(sandbox: &str) -> anyhow::Result<usize> {
    let found = of(sandbox)?;
    signal_all(&found, Signal::SIGTERM)?;
    if !all_gone_within(sandbox, GRACE).await? {
        signal_all(&of(sandbox)?, Signal::SIGKILL)?;
        if !all_gone_within(sandbox, BURIAL).await? {
            bail!("processes {:?} survived SIGKILL", of(sandbox)?);
        }
    }
    Ok(found.len())
}

fn signal_all(pids: &[Pid], signal: Signal) -> anyhow::Result<()> {
    for pid in pids {
        match kill(*pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("send {signal} to process {pid}"));
            }
        }
    }
    Ok(())
}

async fn all_gone_within(sandbox: &str, limit: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + limit;
    while !of(sandbox)?.is_empty() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}
