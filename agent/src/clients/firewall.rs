//! The kernel's packet filter, through the same programs as dockerd uses.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

use super::program;
use crate::metadata_block::{Family, TASKS_CGROUP, Wanted, plan};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long iptables waits for another that holds its lock, seconds.
const LOCK: &str = "5";

/// What holds once a call has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guarded {
    /// Rules were missing, or in the way.
    pub(crate) changed: bool,
    /// Tasks in the node's own network are kept out as well.
    pub(crate) host_tasks: bool,
}

/// iptables and ip6tables.
#[derive(Debug)]
pub(crate) struct Iptables {
    /// Below any other directory than `/` this is a test, and the packet filter is that of whoever
    /// runs it.
    is_node: bool,
    /// There when the kernel has IPv6 at all.
    ipv6: PathBuf,
    /// The tasks' cgroup, there when cgroups are v2 and a task has run.
    tasks: PathBuf,
}

impl Iptables {
    pub(crate) fn new(root: &std::path::Path) -> Self {
        Self {
            is_node: root == std::path::Path::new("/"),
            ipv6: root.join("proc/net/if_inet6"),
            tasks: root.join("sys/fs/cgroup").join(TASKS_CGROUP),
        }
    }

    /// Keeps containers from the instance metadata service, or lets them.
    pub(crate) async fn guard_metadata(&self, blocked: bool) -> Result<Guarded> {
        ensure!(
            self.is_node,
            "the packet filter of this machine is not this agent's"
        );
        let mut guarded = Guarded {
            changed: false,
            host_tasks: blocked && self.tasks.exists(),
        };
        for family in Family::ALL {
            if family == Family::V6 && !self.ipv6.exists() {
                continue;
            }
            let wanted = |host_tasks| match blocked {
                true => Wanted::Blocked { host_tasks },
                false => Wanted::Open,
            };
            let mut held = self.hold(family, wanted(guarded.host_tasks)).await;
            if held.is_err() && guarded.host_tasks {
                // A kernel without the cgroup match must not cost everybody else the block.
                guarded.host_tasks = false;
                held = self.hold(family, wanted(false)).await;
            }
            guarded.changed |= held.context("keep containers from the metadata service")?;
        }
        Ok(guarded)
    }

    async fn hold(&self, family: Family, wanted: Wanted) -> Result<bool> {
        let commands = plan(family, &list(family).await?, wanted);
        if commands.is_empty() {
            return Ok(false);
        }
        for command in &commands {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            run(family, &words).await?;
        }
        let left = plan(family, &list(family).await?, wanted);
        ensure!(
            left.is_empty(),
            "{}: what was set reads back different, `{}` is still to do: does another program write the same table?",
            family.program(),
            left[0].join(" ")
        );
        Ok(true)
    }
}

async fn list(family: Family) -> Result<String> {
    run(family, &["-S"]).await
}

async fn run(family: Family, arguments: &[&str]) -> Result<String> {
    let words = [&["-w", LOCK][..], arguments].concat();
    program::run(family.program(), &words, TIMEOUT).await
}
