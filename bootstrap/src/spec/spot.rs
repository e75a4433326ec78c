//! `[groups.NAME.spot]`: how much of a group EC2 may take back.

use fleet_agent_config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    rules::{NODES_MAX, outside},
    wire,
};

/// `[groups.NAME.spot]`; none of it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spot {
    /// Of the nodes beyond the base, 0 to 100; Auto Scaling rounds in favour of on demand.
    pub percent: u32,
    /// So many nodes are on demand before any is Spot.
    pub on_demand_base: u32,
    /// How the pool of a node is chosen.
    pub allocation: SpotAllocation,
}

/// From which of the pools that a group's types and zones make a Spot node is taken (Auto Scaling
/// guide, "Allocation strategies for multiple instance types").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpotAllocation {
    /// The least likely to be interrupted, and of these the cheapest: what AWS recommends.
    #[default]
    PriceCapacityOptimized,
    /// The one with the most to spare.
    CapacityOptimized,
    /// The same, with the order of types where it makes little difference.
    CapacityOptimizedPrioritized,
    /// The cheapest, and the first to be interrupted.
    LowestPrice,
}

impl SpotAllocation {
    /// As Auto Scaling writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PriceCapacityOptimized => "price-capacity-optimized",
            Self::CapacityOptimized => "capacity-optimized",
            Self::CapacityOptimizedPrioritized => "capacity-optimized-prioritized",
            Self::LowestPrice => "lowest-price",
        }
    }
}

impl From<wire::Spot> for Spot {
    fn from(spot: wire::Spot) -> Self {
        Self {
            percent: spot.percent.unwrap_or_default(),
            on_demand_base: spot.on_demand_base,
            allocation: spot.allocation,
        }
    }
}

/// What is wrong with the table at `key`.
pub(super) fn problems(key: &str, spot: &wire::Spot) -> Vec<Problem> {
    let percent = match spot.percent {
        None => Some(
            "is missing: how many of a hundred nodes beyond `on_demand_base` are Spot".to_owned(),
        ),
        Some(percent) => {
            let why = "it is the share of Spot among the nodes beyond `on_demand_base`";
            outside(percent, 0, 100, why)
        }
    };
    let base = outside(spot.on_demand_base, 0, NODES_MAX, "it is a number of nodes");
    let found = [("percent", percent), ("on_demand_base", base)];
    let found = found.into_iter();
    found
        .filter_map(|(field, wrong)| Some(Problem::new(format!("{key}.{field}"), wrong?)))
        .collect()
}

/// One kind of node is interrupted all at once.
pub(super) fn warning(key: &str, instance_types: &[String]) -> Option<Problem> {
    (instance_types.len() == 1).then(|| {
        Problem::new(
            key,
            "has one instance type to choose from: its nodes may all be interrupted at once; name several in `instance_types`",
        )
    })
}
