//! `fleet.toml` as it stands in the file, one environment laid over it. Every field has a default,
//! so that all problems can be reported at once; what is required is a rule in `rules`.
//!
//! What is said of a key here is what editors show: the [`schema`](super::schema) is made from these
//! types, and [`full`](super::full) writes them.

use std::collections::BTreeMap;

use fleet_agent_config::{DiskConfig, DrainConfig, HealthConfig, SidecarConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    ContainerInsights, CpuCredits, DeletionProtection, ExecuteCommandLogging, SpotAllocation,
    VolumeKind, WarmPoolState, ZoneDistribution, ami,
};

/// A fleet: Amazon ECS clusters on EC2 instances of your own, one for each environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    /// The fleet.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) fleet: Fleet,
    /// Yours already and only used: never changed, never deleted.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) network: Network,
    /// The ECS cluster.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) cluster: Cluster,
    /// Tags of everything, nodes included: keys of letters, digits and + - = . , _ : @.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) tags: BTreeMap<String, String>,
    /// How nodes come by fleet-agent, and how long Auto Scaling waits for it.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) agent: Agent,
    /// What nodes are allowed.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) iam: Iam,
    /// How nodes leave; every group inherits it, key by key.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) drain: DrainConfig,
    /// When a node's disk is low or full; every group inherits it, key by key.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) disk: DiskConfig,
    /// What becomes of a node that stays impaired; every group inherits it, key by key.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) health: HealthConfig,
    /// Groups of like nodes: each an Auto Scaling group with its own role, launch template and capacity
    /// provider.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) groups: BTreeMap<String, Group>,
    /// Containers that run on every node beside ECS, started before its tasks and stopped after them.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) sidecars: BTreeMap<String, SidecarConfig>,
    /// Environments, each with tables of the names above that override them. By the time this is read
    /// one of them has been laid over it and there are none.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(
        description = "Environments, each with tables of the names above that override them."
    )]
    pub(super) environments: BTreeMap<String, File>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fleet {
    /// Begins the name of every AWS resource: letters, digits, - and _. Cannot be changed later.
    pub(super) name: String,
    /// The AWS region.
    pub(super) region: String,
    /// Whose resources these are; `init` draws it once. Only what carries this id is ever changed or
    /// deleted.
    pub(super) id: String,
    /// The only account this may be applied to; default: the account of your credentials.
    pub(super) account: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Network {
    /// The VPC's id.
    pub(super) vpc: String,
    /// Ids of its subnets for nodes, best one per availability zone. Nodes need a way out.
    pub(super) subnets: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cluster {
    /// Name or ARN of a cluster of your own in this region that the groups join, instead of one that is
    /// made. It keeps its settings, tags, services and other capacity providers, so that none of the keys
    /// below goes with this one; default: one is made.
    pub(super) adopt: Option<String>,
    /// What CloudWatch is told of it, at a price; default: what the account has set.
    pub(super) container_insights: Option<ContainerInsights>,
    /// Where sessions of ECS Exec are written down: a log group, a bucket, or both.
    pub(super) execute_command_logging: Option<ExecuteCommandLogging>,
    /// Whether tasks may run on Fargate beside the groups. `false` takes nothing away that is on the
    /// cluster already.
    pub(super) fargate: Option<bool>,
    /// Where tasks go that name neither a launch type nor a strategy: groups, or Fargate; default: all
    /// groups alike.
    pub(super) default_strategy: Option<Vec<StrategyItem>>,
    /// More tags of the cluster.
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StrategyItem {
    /// The nodes of this group.
    pub(super) group: Option<String>,
    /// In the place of a group: FARGATE or FARGATE_SPOT.
    pub(super) provider: Option<String>,
    /// Its share of the tasks beyond the base (0 to 1000).
    pub(super) weight: Option<u32>,
    /// So many tasks go there first; of one item alone.
    pub(super) base: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Agent {
    /// Where nodes download fleet-agent on their first boot; default: the groups' `ami` carries it.
    pub(super) source: Option<Source>,
    /// How long a node has to prove itself ready before it is replaced, seconds (30 to 7200).
    pub(super) launch_timeout_seconds: Option<u32>,
    /// How long a node that is leaving may be silent before it is terminated, seconds (30 to 7200).
    pub(super) drain_timeout_seconds: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Iam {
    /// Which container instances a node's role may act on. Nodes that joined with "cluster" cannot drain
    /// once it is "instance": replace them at once.
    pub(super) scope: Option<IamScope>,
}

/// Which container instances a node's role may act on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum IamScope {
    /// Those of its cluster.
    #[default]
    Cluster,
    /// Its own.
    Instance,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Source {
    /// Address of the agent's binary, https:// or within a private network http://.
    pub(super) url: Option<String>,
    /// In the place of `url`: s3://BUCKET/KEY, an object in the fleet's region, which nodes read with
    /// their role.
    pub(super) s3: Option<String>,
    /// In the place of `url`: a file beside this one, which `up` sends to a bucket of the environment's
    /// own.
    pub(super) file: Option<String>,
    /// The binary's SHA-256, 64 hexadecimal digits; default of a `file`: that of what it holds.
    pub(super) sha256: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Group {
    /// x86_64 instance types, the preferred one first.
    pub(super) instance_types: Vec<String>,
    /// The least number of nodes.
    pub(super) min: Option<u32>,
    /// The greatest number of nodes; ECS scales between `min` and this.
    pub(super) max: Option<u32>,
    /// The number of nodes at creation, afterwards it is ECS's; default: `min`.
    pub(super) desired: Option<u32>,
    /// The image: an id, or a table; default: the ECS-optimized one of Amazon Linux 2023 of the day the
    /// group is created.
    pub(super) ami: Option<ami::Wire>,
    /// The root volume, at least 30 GiB.
    pub(super) root_volume: Volume,
    /// A volume of Docker's own for images, containers and their volumes, at least 8 GiB.
    pub(super) docker_volume: Option<Volume>,
    /// What burstable types do without credits; default: EC2's own.
    pub(super) cpu_credits: Option<CpuCredits>,
    /// Metrics of the instance each minute, at a price, instead of each five.
    pub(super) detailed_monitoring: bool,
    /// Name of an EC2 key pair for SSH; one of `security_groups` has to let port 22 in.
    pub(super) key_pair: Option<String>,
    /// Ids of more security groups of its nodes, used and never changed.
    pub(super) security_groups: Vec<String>,
    /// Name of a role of your own that its nodes have, used and never changed; default: one is made.
    pub(super) role: Option<String>,
    /// ARN of the policy that bounds whatever the role that is made may do.
    pub(super) permissions_boundary: Option<String>,
    /// ARNs of managed policies that the role that is made has beside the fleet's own.
    pub(super) policies: Vec<String>,
    /// How much of the group is Spot; default: nothing.
    pub(super) spot: Option<Spot>,
    /// Metrics of the group itself, as how many nodes are in service, each minute.
    pub(super) metrics: bool,
    /// A node is replaced after so many days (1 to 365), once ECS no longer protects it; default: never.
    pub(super) max_lifetime_days: Option<u32>,
    /// Whether the Auto Scaling group can be deleted by others than `down`.
    pub(super) deletion_protection: DeletionProtection,
    /// What an availability zone without capacity does.
    pub(super) zone_distribution: ZoneDistribution,
    /// Nodes prepared beside the group, so that more are there sooner. Not beside Spot.
    pub(super) warm_pool: Option<WarmPool>,
    /// Bounds that change by the clock.
    pub(super) schedules: BTreeMap<String, Schedule>,
    /// How full ECS keeps the nodes before it adds one, per cent (1 to 100).
    pub(super) target_capacity: Option<u32>,
    /// In the place of that, for the only group of a cluster: Auto Scaling adds and takes nodes by how much
    /// of the cluster's CPU or memory, whichever is more, its tasks reserve. Needs a `min` of 1 or more.
    pub(super) step_scaling: Option<StepScaling>,
    /// Memory that tasks are not offered, for Docker and the agents, MiB; sidecars' comes on top.
    pub(super) system_memory_mib: Option<u32>,
    /// Whether tasks are kept from the instance metadata service, and so from the node's own role.
    pub(super) block_metadata_service: Option<bool>,
    /// A file beside this one that its nodes run after fleet's own user data: a script, or a
    /// `#cloud-config` whose lists are appended.
    pub(super) user_data: Option<String>,
    /// How its nodes leave: its own settings over [drain].
    #[serde(skip_serializing_if = "is_default")]
    pub(super) drain: DrainConfig,
    /// When its nodes' disks are low or full: its own settings over [disk].
    #[serde(skip_serializing_if = "is_default")]
    pub(super) disk: DiskConfig,
    /// What becomes of its nodes that stay impaired: its own settings over [health].
    #[serde(skip_serializing_if = "is_default")]
    pub(super) health: HealthConfig,
    /// The sidecars its nodes run; default: all of this file.
    pub(super) sidecars: Option<Vec<String>>,
    /// Settings of the ECS agent, as strings.
    pub(super) ecs: BTreeMap<String, String>,
    /// More tags, as in [tags].
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Volume {
    /// GiB.
    pub(super) size_gib: Option<u32>,
    /// EBS's type.
    #[serde(rename = "type")]
    pub(super) kind: VolumeKind,
    /// I/O operations a second; default: the type's own.
    pub(super) iops: Option<u32>,
    /// MiB a second, of gp3 alone; default: 125.
    pub(super) throughput_mib: Option<u32>,
    /// Whether EBS encrypts it.
    pub(super) encrypted: Option<bool>,
    /// With this KMS key (id, ARN or alias), which Auto Scaling's service-linked role must be allowed to
    /// use; default: EBS's own of the account.
    pub(super) kms_key: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spot {
    /// So many of a hundred nodes beyond `on_demand_base` are Spot.
    pub(super) percent: Option<u32>,
    /// So many nodes are on demand before any is Spot.
    pub(super) on_demand_base: u32,
    /// How the pool of a node is chosen.
    pub(super) allocation: SpotAllocation,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WarmPool {
    /// At least so many.
    pub(super) min: u32,
    /// Bound of the group's nodes and those of the pool together; default: the group's `max`.
    pub(super) max_prepared: Option<u32>,
    /// What they do while they wait.
    pub(super) state: WarmPoolState,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StepScaling {
    /// When nodes are added, and how many; default: one above 75 %.
    pub(super) out: Option<Vec<StepOut>>,
    /// After so many minutes on end above the lowest of these.
    pub(super) out_minutes: Option<u32>,
    /// When nodes are taken away, and how many; default: one below 30 %.
    #[serde(rename = "in")]
    pub(super) inward: Option<Vec<StepIn>>,
    /// After so many minutes on end below the highest of these.
    pub(super) in_minutes: Option<u32>,
    /// How long a new node takes to show in the metrics, seconds (1 to 3600): until then it counts as
    /// on its way.
    pub(super) warmup_seconds: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StepOut {
    /// While more than this is reserved, per cent (1 to 99), up to where the next step begins.
    pub(super) above: Option<u32>,
    /// So many nodes are added.
    pub(super) nodes: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct StepIn {
    /// While less than this is reserved, per cent (1 to 99), down to where the next step begins.
    pub(super) below: Option<u32>,
    /// So many nodes are taken away.
    pub(super) nodes: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Schedule {
    /// When: minute, hour, day of the month, month, day of the week (0 or 7 is Sunday).
    pub(super) cron: String,
    /// The IANA's name of a time zone.
    pub(super) time_zone: Option<String>,
    /// The least number of nodes from then on.
    pub(super) min: Option<u32>,
    /// The greatest.
    pub(super) max: Option<u32>,
    /// The number of nodes, which ECS then goes on scaling.
    pub(super) desired: Option<u32>,
}
