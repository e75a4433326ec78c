//! The resources an environment should have, as pure data made from a [`Spec`](crate::spec::Spec).

mod agent;
mod build;
mod launched;
mod names;
mod policy;
mod user_data;

use std::collections::BTreeMap;

use fleet_agent_config::Live;

use crate::spec;

pub(crate) use build::removed;
pub use build::{Documents, build, documents};
pub(crate) use launched::Settings;

/// Everything one environment should consist of.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Who owns it.
    pub identity: Identity,
    /// Adopted, never changed.
    pub network: Network,
    /// ECS cluster.
    pub cluster: Cluster,
    /// One entry per `[groups.NAME]`.
    pub groups: Vec<Group>,
}

/// What tells this environment's resources from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `fleet.name`.
    pub fleet: String,
    /// The environment.
    pub environment: String,
    /// `fleet.id`, drawn once by `init`: only what carries it is ever changed or deleted.
    pub owner: String,
    /// AWS region.
    pub region: String,
}

/// The adopted network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// VPC id.
    pub vpc_id: String,
    /// Subnet ids, at least one.
    pub subnet_ids: Vec<String>,
}

/// The ECS cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// `NAME-ENVIRONMENT`.
    pub name: String,
    /// Ownership and the file's own tags.
    pub tags: BTreeMap<String, String>,
}

/// Everything of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its key in the file.
    pub name: String,
    /// Ownership, group and the file's own tags, for every resource of the group.
    pub tags: BTreeMap<String, String>,
    /// Role for the instances, with its one inline policy.
    pub role: Role,
    /// Name of the instance profile that holds the role.
    pub instance_profile: String,
    /// The nodes' security group: no way in, every way out.
    pub security_group: SecurityGroup,
    /// Launch template.
    pub launch_template: LaunchTemplate,
    /// Auto Scaling group.
    pub auto_scaling_group: AutoScalingGroup,
    /// Capacity provider on the group.
    pub capacity_provider: CapacityProvider,
    /// Live settings.
    pub parameter: Parameter,
    /// How long its nodes may take to go.
    pub drain: Drain,
}

/// How long a node may take to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Drain {
    /// Bound of the wait for tasks, seconds.
    pub deadline_seconds: u32,
    /// What the sidecars may take to flush and stop once the last task is gone, seconds.
    pub sidecars_seconds: u32,
}

/// An IAM role.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Cut to IAM's 64 characters with a hash.
    pub name: String,
    /// Who may assume it.
    pub trust_policy: serde_json::Value,
    /// Name of the inline policy.
    pub policy_name: String,
    /// Scoped to this cluster and group. `ACCOUNT` stands where the account id belongs, which is
    /// only known once credentials have been used: see [`Role::policy`].
    pub policy_template: serde_json::Value,
}

/// A security group in the adopted VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Group name.
    pub name: String,
    /// Description, fixed at creation.
    pub description: String,
}

/// A launch template; each change of its data is a new version.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchTemplate {
    /// Its name.
    pub name: String,
    /// Which image.
    pub image: Image,
    /// The group's first instance type.
    pub instance_type: String,
    /// Root volume.
    pub root_volume: spec::Volume,
    /// EC2's default when absent.
    pub cpu_credits: Option<spec::CpuCredits>,
    /// CloudWatch's metrics each minute.
    pub detailed_monitoring: bool,
    /// Name of the EC2 key pair.
    pub key_pair: Option<String>,
    /// Ids of security groups beside the group's own, adopted.
    pub security_groups: Vec<String>,
    /// As sent: `#cloud-config`, gzipped if that is smaller, not base64.
    pub user_data: Vec<u8>,
    /// What that is made from.
    pub(crate) settings: Settings,
    /// Tags of instances, volumes and network interfaces, legal in instance metadata.
    pub instance_tags: BTreeMap<String, String>,
}

/// Where a group's image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// Looked up once through this public SSM parameter, then pinned: an existing launch template
    /// keeps the image it has.
    Parameter(String),
    /// Given in the file.
    Pinned(String),
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoScalingGroup {
    /// Its name.
    pub name: String,
    /// All of the group's instance types; with more than one, or with Spot, a mixed-instances policy is
    /// used.
    pub instance_types: Vec<String>,
    /// How much of it is Spot.
    pub spot: Option<spec::Spot>,
    /// Lower bound, set once the first node has proven itself.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Written at creation only; ECS owns it afterwards.
    pub desired: u32,
    /// Both hooks, in place from birth.
    pub hooks: Vec<Hook>,
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Which way it holds instances.
    pub transition: Transition,
    /// Heartbeat time-out, seconds.
    pub timeout_seconds: u32,
}

/// What a hook holds, with the result it has when nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Transition {
    /// `autoscaling:EC2_INSTANCE_LAUNCHING`, ABANDON.
    Launching,
    /// `autoscaling:EC2_INSTANCE_TERMINATING`, CONTINUE.
    Terminating,
}

/// A capacity provider: managed scaling and managed termination protection on, managed draining off
/// since the agent drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityProvider {
    /// Its name.
    pub name: String,
    /// 1 to 100.
    pub target_capacity: u32,
    /// The launch hook's time-out, seconds: with less, ECS would count on nodes that have not
    /// proven themselves and scale as if they served.
    pub instance_warmup_seconds: u32,
}

/// An SSM parameter of type String.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// `/fleet/NAME/ENVIRONMENT/GROUP/agent`.
    pub name: String,
    /// Its value, but for the revision's number.
    pub live: Live,
}
