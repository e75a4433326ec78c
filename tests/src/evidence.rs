//! Sidecars that write down what they do, and when.

use std::time::Duration;

use anyhow::Result;

use crate::{Follower, Sandbox};

/// A sidecar of `fleet.toml` that writes what it does into /var/log/evidence/story of its node. It
/// takes `seconds` to write out what it holds; `more` is further lines of its table.
pub fn sidecar(name: &str, seconds: u32, more: &str) -> String {
    let script = format!(
        "note() {{ echo \\\"$(date +%s) {name} $1\\\" >> /evidence/story; }}; \
         trap 'note flushing; sleep {seconds}; note flushed' USR1; \
         trap 'note stopped; exit 0' TERM; \
         note started; while :; do sleep 3600 & wait $!; done"
    );
    format!(
        "[environments.dev.sidecars.{name}]\nimage = \"fleet-sandbox/busybox:1\"\n\
         command = [\"sh\", \"-c\", \"{script}\"]\nvolumes = [\"/var/log/evidence:/evidence\"]\n\
         memory_mib = 16\nflush_signal = \"SIGUSR1\"\nstop_timeout_seconds = 5\n{more}\n"
    )
}

/// Follows what such sidecars write.
///
/// # Errors
/// When the node cannot be followed.
pub fn follow_evidence(sandbox: &Sandbox, node: &str) -> Result<Follower> {
    sandbox.follow(node, "exec tail -n +1 -F /var/log/evidence/story")
}

/// When a sidecar did something last, if it did; in whole seconds since 1970.
pub fn did(evidence: &str, what: &str) -> Option<Duration> {
    let last = evidence.lines().rfind(|line| line.ends_with(what))?;
    let seconds = last.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
