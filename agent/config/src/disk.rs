//! When a disk counts as low or full, and what is done then.

use serde::{Deserialize, Serialize};

use crate::{Problem, Reaction};

const SOFT_DEFAULT: u8 = 80;
const HARD_DEFAULT: u8 = 95;

/// `[disk]`, as it stands in both files. Shares are of bytes and of inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// From this share in use, per cent, what nobody uses is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_percent: Option<u8>,
    /// From this share in use, per cent, the node counts as impaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard_percent: Option<u8>,
    /// Whether a node past the hard limit drains until there is room again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<Reaction>,
    /// Whether Docker volumes that no container refers to are removed as well, with their data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_volumes: Option<bool>,
}

/// [`DiskConfig`], checked and complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Share in use, per cent, from which what nobody uses is removed.
    pub soft_percent: u8,
    /// Share in use, per cent, from which the node counts as impaired.
    pub hard_percent: u8,
    /// What a node past the hard limit does.
    pub full: Reaction,
    /// Whether volumes that no container refers to are removed as well.
    pub prune_volumes: bool,
}

impl DiskConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A group's own settings over those of all groups.
    #[must_use]
    pub fn or(self, shared: Self) -> Self {
        Self {
            soft_percent: self.soft_percent.or(shared.soft_percent),
            hard_percent: self.hard_percent.or(shared.hard_percent),
            full: self.full.or(shared.full),
            prune_volumes: self.prune_volumes.or(shared.prune_volumes),
        }
    }

    /// The same with every default filled in: what it comes to does not change.
    #[must_use]
    pub fn completed(self) -> Self {
        let disk = self.validate(&mut Vec::new());
        Self {
            soft_percent: Some(disk.soft_percent),
            hard_percent: Some(disk.hard_percent),
            full: Some(disk.full),
            prune_volumes: Some(disk.prune_volumes),
        }
    }

    /// Checks every rule; what is wrong is added to `problems`.
    pub fn validate(self, problems: &mut Vec<Problem>) -> Disk {
        let disk = Disk {
            soft_percent: self.soft_percent.unwrap_or(SOFT_DEFAULT),
            hard_percent: self.hard_percent.unwrap_or(HARD_DEFAULT),
            full: self.full.unwrap_or(Reaction::Drain),
            prune_volumes: self.prune_volumes.unwrap_or(false),
        };
        let mut limit = |key: &str, percent: u8| {
            if !(1..=99).contains(&percent) {
                let message = format!("{percent} is not a percentage from 1 to 99");
                problems.push(Problem::new(format!("disk.{key}"), message));
            }
        };
        limit("soft_percent", disk.soft_percent);
        limit("hard_percent", disk.hard_percent);
        if disk.soft_percent >= disk.hard_percent {
            let message = format!(
                "{} is not below disk.hard_percent, {}: a node would drain before anything is removed",
                disk.soft_percent, disk.hard_percent
            );
            problems.push(Problem::new("disk.soft_percent", message));
        }
        disk
    }
}
