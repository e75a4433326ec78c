//! The resources an environment should have, as pure data made from a [`Spec`](crate::spec::Spec).

mod agent;
mod build;
mod docker_volume;
mod launched;
mod multipart;
mod names;
mod operator;
mod policy;
mod service_roles;
#[cfg(test)]
mod shellcheck;
mod source;
mod user_data;

use std::{collections::BTreeMap, fmt, time::Duration};

use fleet_agent_config::Live;
use serde::Serialize;

use crate::spec;

pub(crate) use build::removed;
pub use build::{Documents, build, documents};
pub(crate) use docker_volume::DEVICE as DOCKER_DEVICE;
pub(crate) use launched::{Settings, cluster as launched_cluster};
pub(crate) use names::{BUCKET_TAG, scaling_policy};
pub use service_roles::ServiceRole;
pub use source::{Bucket, Download, S3Object, Source, Upload};

/// Everything one environment should consist of.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Who owns it.
    pub identity: Identity,
    /// Adopted, never changed.
    pub network: Network,
    /// ECS cluster.
    pub cluster: Cluster,
    /// How nodes come by the agent; their image carries it when absent.
    pub source: Option<Source>,
    /// The environment's own, for the agent's binary.
    pub bucket: Bucket,
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
    /// `NAME-ENVIRONMENT`, or that of an adopted one.
    pub name: String,
    /// Somebody else's: of all that it holds only the list of its capacity providers is written, and there
    /// only our own are put on and taken off.
    pub is_adopted: bool,
    /// `NAME-ENVIRONMENT`, what the one is called that is made.
    pub own_name: String,
    /// Ownership and the file's own tags.
    pub tags: BTreeMap<String, String>,
    /// CloudWatch's Container Insights; the account's default when absent.
    pub container_insights: Option<spec::ContainerInsights>,
    /// Where sessions of ECS Exec are written down.
    pub execute_command_logging: Option<spec::ExecuteCommandLogging>,
    /// Capacity providers on it beside the groups'.
    pub more_providers: Vec<String>,
    /// Its default strategy; all groups alike when absent and ECS has none.
    pub default_strategy: Option<Vec<StrategyItem>>,
}

/// One item of a capacity-provider strategy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StrategyItem {
    /// The capacity provider's name.
    pub provider: String,
    /// Its share.
    pub weight: u32,
    /// So many tasks first.
    pub base: u32,
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
    /// Name of an adopted role that they have in the place of that one, which is then not made.
    pub given_role: Option<String>,
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
    /// Who sizes it.
    pub scaling: spec::Scaling,
    /// Names of the alarms that have Auto Scaling size it, which there are with steps.
    pub alarms: BTreeMap<spec::Direction, String>,
    /// Live settings.
    pub parameter: Parameter,
    /// How long its nodes may take to go.
    pub drain: Drain,
}

impl Group {
    /// Name of the alarm that scales it this way.
    pub(crate) fn alarm(&self, direction: spec::Direction) -> &str {
        self.alarms.get(&direction).map_or("", String::as_str)
    }

    /// Name of the role that its nodes have.
    pub(crate) fn node_role(&self) -> &str {
        self.given_role.as_deref().unwrap_or(&self.role.name)
    }
}

/// How long a node may take to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Drain {
    /// Bound of the wait for tasks, seconds.
    pub deadline_seconds: u32,
    /// What the sidecars may take to flush and stop once the last task is gone, seconds.
    pub sidecars_seconds: u32,
}

impl Drain {
    /// What a node gets to go, beyond the wait for its tasks: EC2's own time, and its hooks'.
    const GONE: Duration = Duration::from_secs(15 * 60);

    /// What a node gets to go in all.
    pub(crate) fn gone_limit(self) -> Duration {
        Self::GONE + Duration::from_secs(self.deadline_seconds.into())
    }
}

/// An IAM role.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Cut to IAM's 64 characters with a hash.
    pub name: String,
    /// Who may assume it.
    pub trust_policy: serde_json::Value,
    /// ARN of the policy that bounds it.
    pub permissions_boundary: Option<String>,
    /// ARNs of managed policies attached to it.
    pub managed_policies: Vec<String>,
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
    /// Whether the newest such image is wanted even where the launch template has an older one.
    pub newest_image: bool,
    /// The group's first instance type.
    pub instance_type: String,
    /// Root volume.
    pub root_volume: spec::Volume,
    /// Docker's own volume.
    pub docker_volume: Option<spec::Volume>,
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// Looked up once through this public SSM parameter, then pinned: an existing launch template
    /// keeps the image it has.
    Parameter(String),
    /// Likewise, the newest that its owner gave these tags.
    Tagged {
        /// Account id, or `self`.
        owner: String,
        /// All of them.
        tags: BTreeMap<String, String>,
    },
    /// A public SSM parameter that always names the same image.
    Release(String),
    /// Given in the file.
    Pinned(String),
}

/// Tag of an image that carries fleet-agent: its version. `packer/` sets it.
pub(crate) const AGENT_VERSION: &str = "fleet:agent-version";

impl Image {
    /// Whether an existing launch template keeps the image it has when there is a newer one.
    pub(crate) fn is_kept(&self) -> bool {
        match self {
            Self::Parameter(_) | Self::Tagged { .. } => true,
            Self::Release(_) | Self::Pinned(_) => false,
        }
    }

    /// The SSM parameter that names it.
    pub(crate) fn parameter(&self) -> Option<&String> {
        match self {
            Self::Parameter(name) | Self::Release(name) => Some(name),
            Self::Tagged { .. } | Self::Pinned(_) => None,
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(name) | Self::Release(name) => f.write_str(name),
            Self::Pinned(id) => f.write_str(id),
            Self::Tagged { owner, tags } => {
                let tags: Vec<String> = tags.iter().map(|(key, v)| format!("{key}={v}")).collect();
                write!(f, "{} of {owner}", tags.join(" "))
            }
        }
    }
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
    /// Its own metrics in CloudWatch.
    pub metrics: bool,
    /// Days until a node is replaced.
    pub max_lifetime_days: Option<u32>,
    /// Against its deletion.
    pub deletion_protection: spec::DeletionProtection,
    /// Over zones.
    pub zone_distribution: spec::ZoneDistribution,
    /// Nodes prepared beside it.
    pub warm_pool: Option<spec::WarmPool>,
    /// How its bounds change by the clock.
    pub schedules: BTreeMap<String, spec::Schedule>,
    /// Lower bound, set once the first node has proven itself.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Written at creation only; whoever scales the group owns it afterwards.
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

/// A capacity provider: managed scaling and managed termination protection on unless the group goes by
/// steps, managed draining off since the agent drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityProvider {
    /// Its name.
    pub name: String,
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
