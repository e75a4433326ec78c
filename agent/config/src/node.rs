//! What a node keeps for itself, and from its tasks.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// dockerd, containerd and their shims, the ECS agent, systemd and this agent, MiB. ECS offers all of
/// a machine's memory to tasks otherwise (containers-roadmap #536).
const SYSTEM_MEMORY_DEFAULT: u32 = 128;
/// The ECS agent counts in 16 bits.
const SYSTEM_MEMORY_MAX: u32 = 32_768;

/// `[node]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Memory that tasks are not offered, MiB; what sidecars may use comes on top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_memory_mib: Option<u32>,
    /// Whether tasks are kept from the instance metadata service, and so from the node's own role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_metadata_service: Option<bool>,
    /// Whether it registers with the tag [`crate::names::tag::INSTANCE`], which its role's policy asks
    /// for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_tag: Option<bool>,
}

/// [`NodeConfig`], checked and complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Memory that tasks are not offered, MiB.
    pub system_memory_mib: u32,
    /// Whether tasks are kept from the instance metadata service.
    pub block_metadata_service: bool,
    /// Whether it registers with the tag [`crate::names::tag::INSTANCE`].
    pub instance_tag: bool,
}

impl NodeConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same with every default filled in: what it comes to does not change.
    #[must_use]
    pub fn completed(self) -> Self {
        let node = self.validate(&mut Vec::new());
        Self {
            system_memory_mib: Some(node.system_memory_mib),
            block_metadata_service: Some(node.block_metadata_service),
            instance_tag: Some(node.instance_tag),
        }
    }

    /// Checks every rule; what is wrong is added to `problems`.
    pub fn validate(self, problems: &mut Vec<Problem>) -> Node {
        let system_memory_mib = self.system_memory_mib.unwrap_or(SYSTEM_MEMORY_DEFAULT);
        if system_memory_mib > SYSTEM_MEMORY_MAX {
            problems.push(Problem::new(
                "node.system_memory_mib",
                format!("{system_memory_mib} is more than {SYSTEM_MEMORY_MAX}"),
            ));
        }
        Node {
            system_memory_mib,
            block_metadata_service: self.block_metadata_service.unwrap_or(true),
            instance_tag: self.instance_tag.unwrap_or(false),
        }
    }
}
