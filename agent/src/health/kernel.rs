//! What the kernel's log says of Docker's well-being. Pure.

/// A complaint, and what stands for it in `fleet.reason`'s detail.
const SIGNS: &[(&str, &str)] = &[
    (
        "Remounting filesystem read-only",
        "a file system was remounted read-only",
    ),
    ("EXT4-fs error", "ext4 reports errors"),
    ("XFS (", "xfs reports corruption"),
    ("I/O error, dev ", "a disk reports I/O errors"),
    (
        "unregister_netdevice: waiting for",
        "a network namespace cannot be removed",
    ),
    (
        "blocked for more than",
        "a process of Docker hangs in the kernel",
    ),
    (
        "Out of memory: Killed process",
        "the kernel ran out of memory and killed a process of Docker",
    ),
];
/// Whose troubles are the node's, and not a task's own.
const DAEMONS: &[&str] = &["dockerd", "containerd", "fleet-agent", "runc"];

/// What a record complains of, if it is something that a node does not get over by itself. A task
/// that is killed for memory is that task's affair.
///
/// A record of `/dev/kmsg` is `priority,sequence,microseconds,flags;text` (kernel,
/// "Documentation/ABI/testing/dev-kmsg"); a bare line is taken as it is.
pub(crate) fn complaint(record: &str) -> Option<&'static str> {
    let text = match record.split_once(';') {
        Some((head, text)) if head.starts_with(|c: char| c.is_ascii_digit()) => text,
        _ => record,
    };
    let (sign, meaning) = SIGNS.iter().find(|(sign, _)| text.contains(sign))?;
    let names_daemon = DAEMONS.iter().any(|daemon| text.contains(daemon));
    let is_meant = match *sign {
        "XFS (" => text.contains("orruption"),
        "blocked for more than" | "Out of memory: Killed process" => names_daemon,
        _ => true,
    };
    is_meant.then_some(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_about_docker_are_told_from_those_about_tasks() {
        for (record, part) in [
            (
                "4,1,2,-;task dockerd:871 blocked for more than 120 seconds.",
                Some("hangs"),
            ),
            (
                "6,1,2,-;task java:9 blocked for more than 120 seconds.",
                None,
            ),
            (
                "3,7,8,-;Out of memory: Killed process 12 (containerd) total-vm:1kB",
                Some("memory"),
            ),
            (
                "3,7,8,-;Out of memory: Killed process 12 (java) total-vm:1kB",
                None,
            ),
            (
                "Memory cgroup out of memory: Killed process 12 (dockerd-like)",
                None,
            ),
            (
                "2,1,1,-;EXT4-fs (nvme0n1p1): Remounting filesystem read-only",
                Some("read-only"),
            ),
            (
                "2,1,1,-;EXT4-fs error (device nvme1n1): ext4_find_entry:1455",
                Some("ext4"),
            ),
            (
                "2,1,1,-;XFS (nvme0n1): Metadata corruption detected at xfs_agf",
                Some("xfs"),
            ),
            ("6,1,1,-;XFS (nvme0n1): Mounting V5 Filesystem", None),
            (
                "1,1,1,-;blk_update_request: I/O error, dev nvme1n1, sector 8",
                Some("I/O"),
            ),
            (
                "0,1,1,-;unregister_netdevice: waiting for veth1 to become free.",
                Some("namespace"),
            ),
            (
                "6,1,1,-;docker0: port 1(veth1) entered forwarding state",
                None,
            ),
            ("", None),
        ] {
            let found = complaint(record);
            match part {
                Some(part) => assert!(
                    found.is_some_and(|text| text.contains(part)),
                    "{record}: {found:?}"
                ),
                None => assert_eq!(found, None, "{record}"),
            }
        }
    }
}
