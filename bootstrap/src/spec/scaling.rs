//! What a group's Auto Scaling group does of its own accord, as the file says it.

use fleet_agent_config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    rules::{NODES_MAX, outside},
    wire,
};

/// What keeps an Auto Scaling group from being deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeletionProtection {
    /// Nothing.
    #[default]
    None,
    /// It cannot be deleted with instances in it, which would go without a drain.
    PreventForceDeletion,
    /// It cannot be deleted at all.
    PreventAllDeletion,
}

impl DeletionProtection {
    /// As Auto Scaling writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PreventForceDeletion => "prevent-force-deletion",
            Self::PreventAllDeletion => "prevent-all-deletion",
        }
    }
}

/// What becomes of nodes that an availability zone has no capacity for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ZoneDistribution {
    /// Another zone has them.
    #[default]
    BalancedBestEffort,
    /// They are waited for in that zone.
    BalancedOnly,
}

impl ZoneDistribution {
    /// As Auto Scaling writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BalancedBestEffort => "balanced-best-effort",
            Self::BalancedOnly => "balanced-only",
        }
    }
}

/// `[groups.NAME.warm_pool]`: nodes that are prepared beside the group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarmPool {
    /// At least so many.
    pub min: u32,
    /// Bound of the group's nodes and those of the pool together; the group's maximum when absent.
    pub max_prepared: Option<u32>,
    /// What they do while they wait.
    pub state: WarmPoolState,
}

/// What nodes in a warm pool do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WarmPoolState {
    /// They are powered off: only their volumes cost.
    #[default]
    Stopped,
    /// They run.
    Running,
    /// Refused, with what stands against it.
    #[schemars(skip)]
    Hibernated,
}

impl WarmPoolState {
    /// As Auto Scaling writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Running => "Running",
            Self::Hibernated => "Hibernated",
        }
    }
}

impl From<&wire::WarmPool> for WarmPool {
    fn from(pool: &wire::WarmPool) -> Self {
        Self {
            min: pool.min,
            max_prepared: pool.max_prepared,
            state: pool.state,
        }
    }
}

/// What is wrong with the pool at `key` of a group.
pub(super) fn warm_pool(key: &str, group: &wire::Group) -> Vec<Problem> {
    let Some(pool) = &group.warm_pool else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let mut wrong = |field: &str, why: Option<String>| {
        problems.extend(why.map(|why| Problem::new(format!("{key}{field}"), why)));
    };
    let has_spot = group.spot.as_ref().and_then(|spot| spot.percent) > Some(0);
    let why = "does not go with `spot`: Auto Scaling keeps no Spot nodes in a pool";
    wrong("", has_spot.then(|| why.to_owned()));
    // EC2 guide, "Hibernation prerequisites": images of Amazon Linux 2023, of which the ECS-optimized ones
    // are made from the minimal one; ECS guide, "Configuring pre-initialized instances", speaks of
    // `Stopped` alone.
    let why = "cannot be \"hibernated\": AWS does not say that ECS-optimized images hibernate, and a node that wakes goes on within the boot in which it was proven; take \"stopped\" or \"running\"";
    let hibernates = pool.state == WarmPoolState::Hibernated;
    wrong(".state", hibernates.then(|| why.to_owned()));
    let why = "it is a number of nodes";
    wrong(".min", outside(pool.min, 0, NODES_MAX, why));
    if let Some(most) = pool.max_prepared {
        let why = "it bounds the group's nodes, at least `min`, and the pool's together";
        let least = group.min.unwrap_or(0).max(pool.min);
        wrong(".max_prepared", outside(most, least, NODES_MAX, why));
    }
    problems
}

/// What is wrong with how long a node may live.
pub(super) fn lifetime(days: u32) -> Option<String> {
    outside(
        days,
        1,
        365,
        "Auto Scaling replaces a node after a day to a year",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    #[test]
    fn a_pool_has_room_for_the_group_and_no_spot() {
        let pool = |text: &str| {
            let group: wire::Group = toml::from_str(&format!("min = 3\n{text}")).expect("a group");
            told(&warm_pool("p", &group))
        };
        for text in [
            "",
            "warm_pool = {}",
            "warm_pool = { min = 2, max_prepared = 3, state = \"running\" }",
            "warm_pool = {}\nspot = { percent = 0 }",
        ] {
            assert_eq!(pool(text), "", "{text}");
        }
        assert!(pool("warm_pool = {}\nspot = { percent = 1 }").contains("p: does not go with"));
        assert!(
            pool("warm_pool = { max_prepared = 2 }").contains("p.max_prepared: 2 is outside 3")
        );
        assert!(pool("warm_pool = { min = 4, max_prepared = 3 }").contains("3 is outside 4"));
        assert!(pool("warm_pool = { state = \"hibernated\" }").contains("p.state: cannot be"));
        assert!(pool("warm_pool = { min = 5001 }").contains("p.min: 5001 is outside"));
    }
}
