//! Room on disk, and what may go to make more. Pure.

use std::collections::BTreeSet;

use fleet_agent_config::Disk;
use jiff::Timestamp;

/// One file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Where it was looked at.
    pub(crate) path: String,
    /// Share of bytes in use, per cent, as `df` has it.
    pub(crate) bytes_percent: u8,
    /// Share of inodes in use, per cent; 0 where they are made as needed.
    pub(crate) inodes_percent: u8,
    pub(crate) read_only: bool,
}

/// What file systems look like together: `Err` tells where and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) full: Result<(), String>,
    pub(crate) low: Result<(), String>,
    pub(crate) read_only: Result<(), String>,
}

/// A share of a whole of which nobody but root may have the last part, as `df` rounds it: up.
pub(crate) fn percent(used: u64, available: u64) -> u8 {
    let whole = u128::from(used) + u128::from(available);
    let share = (u128::from(used) * 100).div_ceil(whole.max(1));
    u8::try_from(share).unwrap_or(100)
}

/// Whether there is room.
pub(crate) fn judge(usages: &[Usage], disk: &Disk) -> Room {
    let past = |limit: u8| {
        let found = usages.iter().flat_map(|usage| {
            [
                (usage.bytes_percent, "of its bytes"),
                (usage.inodes_percent, "of its inodes"),
            ]
            .into_iter()
            .filter(|(percent, _)| *percent >= limit)
            .map(|(percent, what)| format!("{} has {percent} % {what} in use", usage.path))
        });
        fails(found)
    };
    let read_only = usages.iter().filter(|usage| usage.read_only);
    Room {
        full: past(disk.hard_percent),
        low: past(disk.soft_percent),
        read_only: fails(read_only.map(|usage| format!("{} is mounted read-only", usage.path))),
    }
}

/// Whether what holds `path` takes no writes, from a `mountinfo` (proc_pid_mountinfo(5)): by the mount
/// itself, or by its file system, which the kernel sets read-only after errors.
pub(crate) fn is_read_only(mounts: &str, path: &str) -> bool {
    let holds = |point: &str| {
        let rest = path.strip_prefix(point.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mounted = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        let super_options = file_system.split(' ').nth(2)?;
        holds(point).then_some((point.len(), options, super_options))
    });
    // Of two on the same place the later covers the earlier.
    let holder = mounted.max_by_key(|(length, ..)| *length);
    let is_ro = |options: &str| options.split(',').any(|option| option == "ro");
    holder.is_some_and(|(_, options, super_options)| is_ro(options) || is_ro(super_options))
}

fn fails(found: impl Iterator<Item = String>) -> Result<(), String> {
    let found: Vec<String> = found.collect();
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.join(", "))
    }
}

/// An image as Docker lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// Names with tags or digests.
    pub(crate) names: Vec<String>,
    /// When it came to this node, or was made, whichever is later.
    pub(crate) since: Timestamp,
}

/// The images that may go, the oldest first: no container refers to them, they came before `oldest`, so
/// that nobody has just pulled them for a task, and neither the ECS agent, whose own are never pulled
/// again, nor a sidecar needs them.
pub(crate) fn unused<'i>(
    images: &'i [Image],
    used: &BTreeSet<String>,
    kept: &BTreeSet<String>,
    oldest: Timestamp,
) -> Vec<&'i Image> {
    let is_kept = |image: &&Image| {
        used.contains(&image.id)
            || image
                .names
                .iter()
                .any(|name| kept.contains(name) || is_of_ecs(name))
            || image.since > oldest
    };
    let mut unused: Vec<&Image> = images.iter().filter(|image| !is_kept(image)).collect();
    unused.sort_by_key(|image| image.since);
    unused
}

/// `amazon/amazon-ecs-agent`, `amazon/amazon-ecs-pause`, `ecs-service-connect-agent`: loaded from
/// files of the AMI.
fn is_of_ecs(name: &str) -> bool {
    name.starts_with("amazon/amazon-ecs-") || name.starts_with("ecs-service-connect-agent:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk {
        soft_percent: 80,
        hard_percent: 95,
        full: fleet_agent_config::Reaction::Drain,
        prune_volumes: false,
    };

    fn usage(path: &str, bytes_percent: u8, inodes_percent: u8) -> Usage {
        Usage {
            path: path.into(),
            bytes_percent,
            inodes_percent,
            read_only: false,
        }
    }

    #[test]
    fn bytes_and_inodes_count_alike_and_every_place_is_named() {
        let room = judge(&[usage("/", 79, 0), usage("/data", 80, 96)], &DISK);
        assert_eq!(room.full, Err("/data has 96 % of its inodes in use".into()));
        let low = "/data has 80 % of its bytes in use, /data has 96 % of its inodes in use";
        assert_eq!(room.low, Err(low.into()));
        assert_eq!(room.read_only, Ok(()));
        let mut broken = usage("/var/log", 1, 1);
        broken.read_only = true;
        let room = judge(&[broken], &DISK);
        assert_eq!(room.read_only, Err("/var/log is mounted read-only".into()));
    }

    #[test]
    fn a_share_is_rounded_up_and_nothing_is_no_share() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(1, 999), 1);
        assert_eq!(percent(95, 5), 95);
        assert_eq!(percent(u64::MAX, 0), 100);
    }

    #[test]
    fn a_file_system_that_takes_no_writes_is_known_by_its_mount() {
        const MOUNTS: &str = "\
            29 1 259:1 / / rw,noatime shared:1 - xfs /dev/nvme0n1p1 rw,attr2\n\
            30 29 259:2 / /var/lib/docker rw,noatime shared:2 - ext4 /dev/nvme1n1 ro,errors=remount-ro\n\
            31 29 0:5 / /var/lib/dockerish ro,nosuid - tmpfs tmpfs rw\n\
            32 29 0:5 / /proc rw - proc proc rw\n";
        for (path, expected) in [
            ("/", false),
            ("/var/log", false),
            ("/var/lib/docker", true),
            ("/var/lib/docker/overlay2", true),
            ("/var/lib/dockerish", true),
            ("/var/lib/dockers", false),
        ] {
            assert_eq!(is_read_only(MOUNTS, path), expected, "{path}");
        }
        let again = format!("{MOUNTS}33 30 259:3 / /var/lib/docker rw - ext4 /dev/sdb rw\n");
        assert!(!is_read_only(&again, "/var/lib/docker"));
        assert!(!is_read_only("nonsense\n - \n", "/"));
    }

    #[test]
    fn only_what_nobody_needs_goes_and_the_oldest_first() {
        let at = |hours: i64| Timestamp::from_second(hours * 3_600).expect("in range");
        let image = |id: &str, name: &str, hours| Image {
            id: id.into(),
            names: vec![name.into()],
            since: at(hours),
        };
        let images = [
            image("young", "web:9", 100),
            image("newer", "web:2", 50),
            image("older", "web:1", 10),
            image("used", "db:1", 1),
            image("sidecar", "logs:1", 2),
            image("ecs", "amazon/amazon-ecs-pause:0.1.0", 3),
        ];
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let unused = unused(&images, &set(&["used"]), &set(&["logs:1"]), at(99));
        let ids: Vec<&str> = unused.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["older", "newer"]);
    }
}
