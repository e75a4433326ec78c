//! What the model remembers. Fields are for reading; the model's calls change them.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use serde_json::Value;

use super::{index::Index, scheduler::Todo};

/// A cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// False once deleted; it can still be described.
    pub active: bool,
    /// Container instances by ARN.
    pub instances: BTreeMap<String, ContainerInstance>,
    /// Tasks by ARN, stopped ones for an hour.
    pub tasks: BTreeMap<String, Task>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Names of attached capacity providers.
    pub providers: Vec<String>,
    pub(super) default_strategy: Vec<Value>,
    pub(super) settings: Vec<Value>,
    pub(super) configuration: Option<Value>,
    /// When the change of attachments under way is complete.
    pub(super) attached_at: Option<Timestamp>,
    pub(super) index: Index,
    pub(super) todo: Todo,
}

/// A capacity provider on an Auto Scaling group.
#[derive(Debug, Clone)]
pub struct CapacityProvider {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// ARN of its group.
    pub group_arn: String,
    pub(super) group: String,
    pub(super) managed_scaling: Value,
    pub(super) managed_termination_protection: String,
    pub(super) managed_draining: String,
    pub(super) update_status: &'static str,
    /// When the deletion under way is complete.
    pub(super) deleted_at: Option<Timestamp>,
    pub(super) active: bool,
}

/// `status` of a container instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceStatus {
    /// Takes tasks.
    Active,
    /// Loses its service tasks and takes none.
    Draining,
    /// Deregistered.
    Inactive,
}

impl InstanceStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// A container instance.
#[derive(Debug, Clone)]
pub struct ContainerInstance {
    /// ARN.
    pub arn: String,
    /// EC2 instance id.
    pub ec2_instance_id: String,
    /// Status.
    pub status: InstanceStatus,
    /// Whether its agent has been heard of lately.
    pub connected: bool,
    /// Attributes; `None` for a name without a value.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Rises with every change of its orders.
    pub orders_version: u64,
    /// Rises with every change that describe calls show.
    pub(super) version: u64,
    pub(super) registered_at: Timestamp,
    pub(super) last_sync: Option<Timestamp>,
    pub(super) inactive_at: Option<Timestamp>,
    pub(super) resources: Vec<Value>,
    /// CPU units and MiB in `resources`.
    pub(super) cpu: i64,
    pub(super) memory: i64,
    pub(super) version_info: Option<Value>,
}

/// `lastStatus` of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// Placed; its containers do not run yet.
    Pending,
    /// Its containers run.
    Running,
    /// Its containers run, but are to stop.
    Deactivating,
    /// Over.
    Stopped,
}

impl TaskStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// A task.
#[derive(Debug, Clone)]
pub struct Task {
    /// ARN.
    pub arn: String,
    /// ARN of the container instance it is on.
    pub instance_arn: String,
    /// Task definition family.
    pub family: String,
    /// Task definition revision.
    pub revision: u32,
    /// Name of its service, if it has one.
    pub service: Option<String>,
    /// Where it is.
    pub last_status: TaskStatus,
    /// Whether it is wanted no more.
    pub stopping: bool,
    /// Why it stopped or is to stop.
    pub stopped_reason: Option<String>,
    pub(super) stop_code: Option<&'static str>,
    /// `service:NAME`, `family:NAME`, or what RunTask asked for.
    pub group: String,
    pub(super) started_by: Option<String>,
    pub(super) containers: Vec<Container>,
    pub(super) cpu: i64,
    pub(super) memory: i64,
    pub(super) version: u64,
    /// The node's orders from this version on say that it is to stop.
    pub(super) stop_ordered: u64,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) stopping_at: Option<Timestamp>,
    pub(super) stopped_at: Option<Timestamp>,
}

impl Task {
    /// `desiredStatus`.
    pub fn desired_status(&self) -> &'static str {
        if self.is_live() { "RUNNING" } else { "STOPPED" }
    }

    /// Wanted, and not over.
    pub fn is_live(&self) -> bool {
        !self.stopping && self.last_status != TaskStatus::Stopped
    }
}

/// One container of a task definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Arguments.
    pub command: Vec<String>,
    /// Environment.
    pub environment: BTreeMap<String, String>,
    /// Seconds between stop signal and kill.
    pub stop_timeout: Option<u32>,
}

/// A revision of a task definition.
#[derive(Debug, Clone)]
pub struct TaskDefinition {
    /// ARN.
    pub arn: String,
    /// Family.
    pub family: String,
    /// Revision, from 1.
    pub revision: u32,
    /// What runs in it.
    pub containers: Vec<Container>,
    pub(super) active: bool,
    /// CPU units and MiB that placement reckons with.
    pub(super) cpu: i64,
    pub(super) memory: i64,
    /// As registered.
    pub(super) document: serde_json::Map<String, Value>,
    pub(super) registered_at: Timestamp,
}

/// `status` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceStatus {
    /// Keeps its tasks running.
    Active,
    /// Deleted; its tasks are stopping.
    Draining,
    /// Gone; can still be described.
    Inactive,
}

impl ServiceStatus {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// A replica service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Status.
    pub status: ServiceStatus,
    /// Tasks wanted.
    pub desired: u32,
    /// Lower bound of running tasks while they are replaced, percent of `desired`.
    pub minimum_healthy_percent: u32,
    /// Upper bound of tasks while they are replaced, percent of `desired`.
    pub maximum_percent: u32,
    pub(super) family: String,
    pub(super) revision: u32,
    pub(super) constraints: Vec<Value>,
    pub(super) strategy: Vec<Value>,
    pub(super) placement_strategy: Vec<Value>,
    pub(super) deployment_id: String,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Newest first.
    pub(super) events: VecDeque<(Timestamp, String)>,
    /// Tasks that stopped before they ran, since one last ran.
    pub(super) failures: u32,
    pub(super) start_not_before: Option<Timestamp>,
}
