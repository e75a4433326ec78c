//! What the ECS stand-in in a node and the gateway say to each other, in place of ECS's private
//! agent channel. The stand-in registers through the real `RegisterContainerInstance` call; from
//! then on it posts a [`Sync`] to `/_node/sync` again and again. The gateway answers with a
//! [`Reply`] as soon as there is news, or after [`HOLD_SECONDS`]. An instance counts as connected
//! while its last sync is younger than twice that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long the gateway holds a sync that has no news, seconds.
pub const HOLD_SECONDS: u64 = 5;

/// What the node knows. Posted at once when a task's known status has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sync {
    /// From RegisterContainerInstance.
    pub container_instance_arn: String,
    /// The `version` of the last reply; 0 at first. The gateway holds the call while its own is not newer.
    pub version: u64,
    /// Every task the node still knows.
    pub tasks: Vec<TaskReport>,
}

/// One task as it is on the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskReport {
    /// Task ARN.
    pub task_arn: String,
    /// `PENDING`, `RUNNING` or `STOPPED`.
    pub known_status: String,
    /// Why it stopped, if it did by itself.
    pub reason: Option<String>,
}

/// What the control plane wants of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// Rises with every change to this instance's tasks.
    pub version: u64,
    /// Every task of this instance that is not known to be STOPPED.
    pub tasks: Vec<TaskOrder>,
}

/// One task to bring to its desired status.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOrder {
    /// Task ARN.
    pub task_arn: String,
    /// `RUNNING` or `STOPPED`.
    pub desired_status: String,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub revision: u32,
    /// What runs in it.
    pub containers: Vec<ContainerOrder>,
}

/// One container of a task definition.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerOrder {
    /// Name in the task definition.
    pub name: String,
    /// Image; must already be in the node's Docker.
    pub image: String,
    /// Arguments.
    pub command: Vec<String>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// `stopTimeout`, seconds; the agent's own default if absent.
    pub stop_timeout: Option<u32>,
}
