//! The writes a plan can consist of, each with everything it needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    desired::{Drain, Hook, scaling_policy},
    inventory::{
        AlarmSettings, ClusterSettings, GroupTag, Ingress, Mix, Policies, PolicySettings,
        ProviderSettings, Schedule, StrategyItem, Tags, Template, WarmPool,
    },
    spec::Direction,
};

/// One write, or one wait, against AWS.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Iam(IamStep),
    Ec2(Ec2Step),
    AutoScaling(AutoScalingStep),
    Ecs(EcsStep),
    Parameter(ParameterStep),
    Alarm(AlarmStep),
    Bucket(BucketStep),
    /// Adds tags, or sets their values; never removes one.
    Tag {
        resource: Taggable,
        tags: BTreeMap<String, GroupTag>,
    },
}

/// Roles and instance profiles.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum IamStep {
    /// One for the account, which stays.
    CreateServiceLinkedRole {
        service: String,
    },
    CreateRole {
        name: String,
        trust_policy: Value,
        permissions_boundary: Option<String>,
        tags: Tags,
    },
    UpdateTrustPolicy {
        role: String,
        trust_policy: Value,
    },
    /// Lifts it if there is no ARN.
    SetPermissionsBoundary {
        role: String,
        arn: Option<String>,
    },
    AttachRolePolicy {
        role: String,
        arn: String,
    },
    PutRolePolicy {
        role: String,
        policy: String,
        document: Value,
    },
    DeleteRolePolicy {
        role: String,
        policy: String,
    },
    DetachRolePolicy {
        role: String,
        arn: String,
    },
    DeleteRole {
        name: String,
    },
    CreateInstanceProfile {
        name: String,
        tags: Tags,
    },
    AddRoleToInstanceProfile {
        profile: String,
        role: String,
    },
    RemoveRoleFromInstanceProfile {
        profile: String,
        role: String,
    },
    DeleteInstanceProfile {
        name: String,
    },
}

/// Security groups and launch templates.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Ec2Step {
    CreateSecurityGroup {
        name: String,
        description: String,
        vpc_id: String,
        tags: Tags,
    },
    RevokeIngress {
        name: String,
        id: String,
        rules: Vec<Ingress>,
    },
    DeleteSecurityGroup {
        name: String,
        id: String,
    },
    CreateLaunchTemplate {
        name: String,
        template: Box<Template>,
        tags: Tags,
    },
    CreateLaunchTemplateVersion {
        name: String,
        template: Box<Template>,
    },
    DeleteLaunchTemplate {
        name: String,
    },
}

/// Auto Scaling groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum AutoScalingStep {
    Create(Box<NewGroup>),
    Update {
        name: String,
        change: GroupChange,
    },
    PutHook {
        group: String,
        hook: Hook,
    },
    /// Whether the group's own metrics go to CloudWatch, each minute.
    CollectMetrics {
        group: String,
        is_on: bool,
    },
    PutWarmPool {
        group: String,
        pool: WarmPool,
    },
    /// Deletes what is in it, too, and waits until all of it is gone.
    DeleteWarmPool {
        group: String,
    },
    PutSchedule {
        group: String,
        name: String,
        schedule: Schedule,
    },
    DeleteSchedule {
        group: String,
        name: String,
    },
    PutScalingPolicy {
        group: String,
        direction: Direction,
        settings: PolicySettings,
    },
    DeleteScalingPolicy {
        group: String,
        direction: Direction,
    },
    /// Whether Auto Scaling may take these when it makes a group smaller.
    SetProtection {
        group: String,
        instances: Vec<String>,
        is_on: bool,
    },
    /// Sets the desired capacity of a group that has never run to one.
    StartFirstNode {
        group: String,
    },
    /// Waits until that node has proven itself.
    AwaitFirstNode {
        group: String,
    },
    /// Has one node of this version of the launch template take newer live settings, one that serves
    /// when it comes to that, and waits until all its sidecars are up with them.
    TryRevision {
        group: String,
        version: i64,
        revision: u64,
    },
    /// Has every node of this version of the launch template take them, and waits for those that serve.
    SpreadRevision {
        group: String,
        version: i64,
        revision: u64,
    },
    /// Clears protection, of the group and its instances, sets every size to zero and waits until the last instance is gone,
    /// answering the hooks of those whose tasks are.
    Empty {
        group: String,
        cluster: String,
        drain: Drain,
    },
    Delete {
        name: String,
    },
}

/// Clusters, capacity providers and what runs on them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum EcsStep {
    CreateCluster {
        name: String,
        settings: ClusterSettings,
        tags: Tags,
    },
    UpdateCluster {
        name: String,
        settings: ClusterSettings,
    },
    /// The call replaces the whole list, and knows no condition: what else is on it is read right before,
    /// and stays.
    PutClusterCapacityProviders {
        cluster: String,
        add: Vec<String>,
        remove: Vec<String>,
        /// `None` leaves it as it is.
        default_strategy: Option<Vec<StrategyItem>>,
    },
    /// Deletes with force, which needs no scaling to zero first: a DAEMON service has no count to
    /// set, and its tasks are stopped all the same.
    DeleteService {
        cluster: String,
        service: String,
    },
    StopTasks {
        cluster: String,
        tasks: Vec<String>,
    },
    /// Whatever is still registered, its instance being gone.
    DeregisterContainerInstances {
        cluster: String,
    },
    DeleteCluster {
        name: String,
    },
    CreateCapacityProvider {
        name: String,
        auto_scaling_group: String,
        settings: ProviderSettings,
        tags: Tags,
    },
    UpdateCapacityProvider {
        name: String,
        settings: ProviderSettings,
    },
    /// Deletes, and waits until it is gone.
    DeleteCapacityProvider {
        name: String,
    },
}

/// SSM parameters.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum ParameterStep {
    /// With tags when it is created: SSM refuses tags together with an overwrite.
    Put {
        name: String,
        value: String,
        tags: Option<Tags>,
    },
    Delete {
        name: String,
    },
}

/// CloudWatch alarms.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum AlarmStep {
    /// With tags when it is created: CloudWatch ignores those of a change.
    Put {
        name: String,
        settings: AlarmSettings,
        sets_off: PolicyUse,
        tags: Option<Tags>,
    },
    Delete {
        name: String,
    },
}

/// The bucket that the agent is installed from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum BucketStep {
    /// With tags from the first: one without would be nobody's.
    Create {
        name: String,
        region: String,
        tags: Tags,
    },
    BlockPublicAccess {
        name: String,
    },
    /// Never overwrites.
    Upload {
        bucket: String,
        key: String,
        sha256: String,
        file: PathBuf,
    },
    /// With what is in it.
    Delete {
        name: String,
    },
}

/// The scaling policy that an alarm has carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyUse {
    Arn(String),
    /// The one that the same plan creates.
    Created {
        group: String,
        direction: Direction,
    },
}

impl From<AlarmStep> for Step {
    fn from(step: AlarmStep) -> Self {
        Self::Alarm(step)
    }
}

impl From<BucketStep> for Step {
    fn from(step: BucketStep) -> Self {
        Self::Bucket(step)
    }
}

impl From<IamStep> for Step {
    fn from(step: IamStep) -> Self {
        Self::Iam(step)
    }
}

impl From<Ec2Step> for Step {
    fn from(step: Ec2Step) -> Self {
        Self::Ec2(step)
    }
}

impl From<AutoScalingStep> for Step {
    fn from(step: AutoScalingStep) -> Self {
        Self::AutoScaling(step)
    }
}

impl From<EcsStep> for Step {
    fn from(step: EcsStep) -> Self {
        Self::Ecs(step)
    }
}

impl From<ParameterStep> for Step {
    fn from(step: ParameterStep) -> Self {
        Self::Parameter(step)
    }
}

/// A resource that takes tags after its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Taggable {
    /// ARN of a cluster or capacity provider.
    Ecs(String),
    Role(String),
    InstanceProfile(String),
    /// Id of a security group.
    SecurityGroup(String),
    /// Name; EC2 tags it by an id that the edge looks up.
    LaunchTemplate(String),
    AutoScalingGroup(String),
    Parameter(String),
    /// ARN.
    Alarm(String),
    Bucket(String),
}

impl Taggable {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Ecs(name)
            | Self::Role(name)
            | Self::InstanceProfile(name)
            | Self::SecurityGroup(name)
            | Self::LaunchTemplate(name)
            | Self::AutoScalingGroup(name)
            | Self::Parameter(name)
            | Self::Alarm(name)
            | Self::Bucket(name) => name,
        }
    }
}

/// An Auto Scaling group to create: empty, so that nothing launches before it can be answered for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NewGroup {
    pub(crate) name: String,
    pub(crate) max: u32,
    pub(crate) template: TemplateUse,
    pub(crate) subnets: Vec<String>,
    pub(crate) new_instances_protected: bool,
    pub(crate) policies: Policies,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) tags: BTreeMap<String, GroupTag>,
}

/// Which version of which launch template a group uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TemplateUse {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Absent for one type on demand, which the template names.
    pub(crate) mix: Option<Mix>,
}

/// A version of a launch template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Version {
    Number(i64),
    /// The one that the same plan creates.
    Created,
}

/// What to change of an Auto Scaling group; `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct GroupChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) desired: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) template: Option<TemplateUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subnets: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) new_instances_protected: Option<bool>,
    #[serde(skip_serializing_if = "Policies::says_nothing")]
    pub(crate) policies: Policies,
}

impl Step {
    /// What it does, as a fragment that fits after "failed to": `create role shop-dev-web`.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Iam(step) => step.title(),
            Self::Ec2(step) => step.title(),
            Self::AutoScaling(step) => step.title(),
            Self::Ecs(step) => step.title(),
            Self::Parameter(step) => step.title(),
            Self::Alarm(step) => step.title(),
            Self::Bucket(step) => step.title(),
            Self::Tag { resource, .. } => format!("tag {}", resource.name()),
        }
    }

    /// The group whose first node it waits for. Such a step has no effect of its own, so that a
    /// stop need not wait for it.
    pub(crate) fn awaited(&self) -> Option<&str> {
        if let Self::AutoScaling(AutoScalingStep::AwaitFirstNode { group }) = self {
            Some(group)
        } else {
            None
        }
    }
}

impl IamStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::CreateServiceLinkedRole { service } => {
                format!("create the service-linked role of {service}")
            }
            Self::CreateRole { name, .. } => format!("create role {name}"),
            Self::UpdateTrustPolicy { role, .. } => format!("set trust policy of role {role}"),
            Self::SetPermissionsBoundary { role, .. } => {
                format!("set permissions boundary of role {role}")
            }
            Self::AttachRolePolicy { role, arn } => format!("attach {arn} to role {role}"),
            Self::PutRolePolicy { role, .. } => format!("set policy of role {role}"),
            Self::DeleteRolePolicy { role, policy } => {
                format!("delete policy {policy} of role {role}")
            }
            Self::DetachRolePolicy { role, arn } => format!("detach {arn} from role {role}"),
            Self::DeleteRole { name } => format!("delete role {name}"),
            Self::CreateInstanceProfile { name, .. } => format!("create instance profile {name}"),
            Self::AddRoleToInstanceProfile { profile, .. } => {
                format!("put role into instance profile {profile}")
            }
            Self::RemoveRoleFromInstanceProfile { profile, role } => {
                format!("take role {role} out of instance profile {profile}")
            }
            Self::DeleteInstanceProfile { name } => format!("delete instance profile {name}"),
        }
    }
}

impl Ec2Step {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::CreateSecurityGroup { name, .. } => format!("create security group {name}"),
            Self::RevokeIngress { name, .. } => format!("close security group {name}"),
            Self::DeleteSecurityGroup { name, .. } => format!("delete security group {name}"),
            Self::CreateLaunchTemplate { name, .. } => format!("create launch template {name}"),
            Self::CreateLaunchTemplateVersion { name, .. } => {
                format!("add a version to launch template {name}")
            }
            Self::DeleteLaunchTemplate { name } => format!("delete launch template {name}"),
        }
    }
}

impl AutoScalingStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Create(group) => {
                format!("create auto scaling group {}", group.name)
            }
            Self::Update { name, .. } => {
                format!("update auto scaling group {name}")
            }
            Self::PutHook { group, hook } => {
                format!("set lifecycle hook {} of {group}", hook.name)
            }
            Self::CollectMetrics { group, is_on: true } => format!("collect metrics of {group}"),
            Self::CollectMetrics { group, .. } => format!("stop collecting metrics of {group}"),
            Self::PutWarmPool { group, .. } => format!("set warm pool of {group}"),
            Self::DeleteWarmPool { group } => format!("remove warm pool of {group}"),
            Self::PutSchedule { group, name, .. } => format!("set schedule {name} of {group}"),
            Self::DeleteSchedule { group, name } => format!("remove schedule {name} of {group}"),
            Self::PutScalingPolicy {
                group, direction, ..
            } => format!(
                "set scaling policy {} of {group}",
                scaling_policy(*direction)
            ),
            Self::DeleteScalingPolicy { group, direction } => {
                format!(
                    "remove scaling policy {} of {group}",
                    scaling_policy(*direction)
                )
            }
            Self::SetProtection {
                group, is_on: true, ..
            } => format!("protect nodes of {group} from scale-in"),
            Self::SetProtection { group, .. } => format!("let scale-in take nodes of {group}"),
            Self::StartFirstNode { group } => format!("start the first node of {group}"),
            Self::AwaitFirstNode { group } => format!("see the first node of {group} ready"),
            Self::TryRevision {
                group, revision, ..
            } => format!("try revision {revision} on a node of {group}"),
            Self::SpreadRevision {
                group, revision, ..
            } => format!("spread revision {revision} over {group}"),
            Self::Empty { group, .. } => format!("empty auto scaling group {group}"),
            Self::Delete { name } => format!("delete auto scaling group {name}"),
        }
    }
}

impl EcsStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::CreateCluster { name, .. } => format!("create cluster {name}"),
            Self::UpdateCluster { name, .. } => format!("update cluster {name}"),
            Self::PutClusterCapacityProviders { cluster, .. } => {
                format!("set capacity providers of cluster {cluster}")
            }
            Self::DeleteService { service, .. } => format!("delete service {service}"),
            Self::StopTasks { tasks, .. } => format!("stop {} standalone tasks", tasks.len()),
            Self::DeregisterContainerInstances { cluster } => {
                format!("deregister what is left in cluster {cluster}")
            }
            Self::DeleteCluster { name } => format!("delete cluster {name}"),
            Self::CreateCapacityProvider { name, .. } => {
                format!("create capacity provider {name}")
            }
            Self::UpdateCapacityProvider { name, .. } => {
                format!("update capacity provider {name}")
            }
            Self::DeleteCapacityProvider { name } => format!("delete capacity provider {name}"),
        }
    }
}

impl AlarmStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Put { name, .. } => format!("set alarm {name}"),
            Self::Delete { name } => format!("remove alarm {name}"),
        }
    }
}

impl BucketStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Create { name, .. } => format!("create bucket {name}"),
            Self::BlockPublicAccess { name } => format!("block public access to bucket {name}"),
            Self::Upload { bucket, file, .. } => {
                format!("send {} to bucket {bucket}", file.display())
            }
            Self::Delete { name } => format!("delete bucket {name}"),
        }
    }
}

impl ParameterStep {
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Put { name, .. } => format!("write parameter {name}"),
            Self::Delete { name } => format!("delete parameter {name}"),
        }
    }
}
