//! What exists, as pure data. [`collect`](crate::collect) fills it; a read that failed is an error
//! there and never "absent" here.

use std::collections::{BTreeMap, BTreeSet};

use fleet_agent_config::names::tag;
use serde::Serialize;
use serde_json::Value;

use crate::{
    desired::{self, BUCKET_TAG, Hook, Identity, ServiceRole},
    spec::{Direction, ExecuteCommandLogging},
};

pub(crate) use crate::desired::StrategyItem;

/// Resource tags.
pub(crate) type Tags = BTreeMap<String, String>;

/// Everything one environment could consist of, as AWS holds it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Inventory {
    /// Account id, 12 digits.
    pub(crate) account: String,
    /// Those of the file's subnets that exist, by id.
    pub(crate) subnets: BTreeMap<String, Subnet>,
    /// What the images that the file asks for come to today; one that there is not is left out.
    pub(crate) images: BTreeMap<desired::Image, Image>,
    /// Those that the account lacks of the roles that services have; read only where something is to be
    /// made that needs them.
    pub(crate) missing_service_roles: Vec<ServiceRole>,
    /// ECS cluster of the environment's own.
    pub(crate) cluster: Presence<Cluster>,
    /// The one that the file names in its place, if that is there, whosever it is.
    pub(crate) given_cluster: Option<Cluster>,
    /// What of the given cluster depends on our nodes; read only on the way down.
    pub(crate) tenancy: Tenancy,
    /// The environment's own bucket; read only where the file asks for one, and on the way down where
    /// something tells of one.
    pub(crate) bucket: Presence<Bucket>,
    /// By the group's key in the file; one entry for each, and on the way down one for each of
    /// `removed`.
    pub(crate) groups: BTreeMap<String, Group>,
    /// Groups of ours that are attached to the cluster and not in the file any more, by their
    /// names alone: what they were made from is not known.
    pub(crate) removed: Vec<desired::Group>,
}

impl Inventory {
    /// No group has anything that nodes could be launched from.
    pub(crate) fn is_bare(&self) -> bool {
        self.groups.values().all(|group| {
            matches!(group.launch_template, Presence::Absent)
                && matches!(group.auto_scaling_group, Presence::Absent)
        })
    }

    /// A launch template has the tag of the environment's bucket, whatever the file asks for now.
    pub(crate) fn tells_of_bucket(&self) -> bool {
        let mut groups = self.groups.values();
        groups.any(|group| {
            let template = group.launch_template.owned();
            template.is_some_and(|template| template.tags.contains_key(BUCKET_TAG))
        })
    }

    /// The cluster that nodes are in, if it is there.
    pub(crate) fn standing_cluster(&self) -> Option<&Cluster> {
        self.given_cluster.as_ref().or_else(|| self.cluster.owned())
    }
}

/// Whether a resource of a deterministic name is there, and whose it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Presence<T> {
    /// Read, and not there.
    #[default]
    Absent,
    /// There, with our tags.
    Owned(T),
    /// Ours, and AWS has not finished deleting it.
    Leaving,
    /// There without our tags: never changed, never deleted. Says whose it seems to be.
    Foreign(String),
}

impl<T> Presence<T> {
    /// Judges by the tags: the owner id, the environment and, if given, the group must be ours.
    /// The name alone proves nothing: `a-b` in `dev` and `b` in `dev-a` share theirs.
    pub(crate) fn judge(
        tags: &Tags,
        identity: &Identity,
        group: Option<&str>,
        resource: impl FnOnce() -> T,
    ) -> Self {
        let has = |key: &str, value: &str| tags.get(key).is_some_and(|found| found == value);
        let ours = has(tag::OWNER, &identity.owner)
            && has(tag::ENVIRONMENT, &identity.environment)
            && group.is_none_or(|group| has(tag::GROUP, group));
        if ours {
            return Self::Owned(resource());
        }
        Self::Foreign(whose(tags))
    }

    /// The resource, if it is ours.
    pub(crate) fn owned(&self) -> Option<&T> {
        match self {
            Self::Owned(resource) => Some(resource),
            Self::Absent | Self::Leaving | Self::Foreign(_) => None,
        }
    }

    /// Whether something of ours is there, be it on its way out.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Owned(_) | Self::Leaving)
    }
}

/// What the tags of something that is not ours say of its owner.
pub(crate) fn whose(tags: &Tags) -> String {
    let part = |key| tags.get(key).map_or("?", String::as_str);
    match tags.get(tag::OWNER) {
        None => format!("it carries no {} tag", tag::OWNER),
        Some(owner) => format!(
            "it is owned by {owner} (fleet {}, environment {}, group {})",
            part(tag::NAME),
            part(tag::ENVIRONMENT),
            part(tag::GROUP),
        ),
    }
}

/// A subnet of the adopted network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) vpc_id: String,
    pub(crate) availability_zone: String,
    /// Addresses that nothing has yet.
    pub(crate) free_addresses: u32,
    /// Whether instances in it get a public address.
    pub(crate) gives_public_addresses: bool,
}

/// An AMI.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// As EC2 writes it; not read of images that Amazon publishes for x86_64.
    pub(crate) architecture: Option<String>,
    /// Its owner has withdrawn it: it launches, and should not be taken any more.
    pub(crate) is_deprecated: bool,
    /// The fleet-agent on it, as [`AGENT_VERSION`](crate::desired::AGENT_VERSION) says. Tags of an image that
    /// another account shares are seen by that account alone (EC2 user guide, "Share an AMI").
    pub(crate) agent_version: Option<String>,
}

/// An ECS cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Cluster {
    pub(crate) arn: String,
    /// `ACTIVE`, `PROVISIONING`...; never `INACTIVE`.
    pub(crate) status: String,
    pub(crate) tags: Tags,
    pub(crate) settings: ClusterSettings,
    /// Names of all attached capacity providers.
    pub(crate) providers: Vec<String>,
    /// Default capacity-provider strategy.
    pub(crate) default_strategy: Vec<StrategyItem>,
    /// What runs in it; read only when it is to be deleted.
    pub(crate) workload: Workload,
}

/// What ECS tells and keeps of a cluster. In a change, `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct ClusterSettings {
    /// `enabled`, `enhanced` or `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) container_insights: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execute_command_logging: Option<ExecuteCommandLogging>,
}

impl ClusterSettings {
    /// What has to change to come from `found` to this.
    pub(crate) fn changed_from(&self, found: &Self) -> Self {
        Self {
            container_insights: changed(&self.container_insights, &found.container_insights),
            execute_command_logging: changed(
                &self.execute_command_logging,
                &found.execute_command_logging,
            ),
        }
    }
}

/// What is wanted, where it is not what was found.
fn changed<T: Clone + PartialEq>(wanted: &Option<T>, found: &Option<T>) -> Option<T> {
    wanted.clone().filter(|_| wanted != found)
}

/// What runs in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Workload {
    /// Names of services that are not yet inactive.
    pub(crate) services: Vec<String>,
    /// ARNs of tasks that no service keeps.
    pub(crate) standalone_tasks: Vec<String>,
    /// All running tasks, services' included.
    pub(crate) tasks: usize,
    /// Registered container instances, ours or not.
    pub(crate) container_instances: usize,
}

/// What of somebody else's cluster depends on our nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tenancy {
    /// Tasks on our nodes by the service that keeps them.
    pub(crate) service_tasks: BTreeMap<String, usize>,
    /// Tasks on our nodes that no service keeps.
    pub(crate) standalone_tasks: usize,
    /// Services whose strategy names one of our capacity providers, by its name.
    pub(crate) bound: BTreeMap<String, BTreeSet<String>>,
}

/// The bucket that the agent is installed from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bucket {
    pub(crate) tags: Tags,
    /// All four ways to make any of it public; read only on the way up, as what follows.
    pub(crate) is_public_access_blocked: bool,
    /// The SHA-256 of what is there of the key that the file's binary has, in hexadecimal digits; empty if
    /// S3 does not know it.
    pub(crate) object: Option<String>,
}

/// What exists of one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Group {
    pub(crate) role: Presence<Role>,
    /// The one that the file names in its place, if that is there.
    pub(crate) given_role: Option<Role>,
    pub(crate) instance_profile: Presence<InstanceProfile>,
    pub(crate) security_group: Presence<SecurityGroup>,
    pub(crate) launch_template: Presence<LaunchTemplate>,
    pub(crate) auto_scaling_group: Presence<AutoScalingGroup>,
    pub(crate) capacity_provider: Presence<CapacityProvider>,
    pub(crate) parameter: Presence<Parameter>,
    /// Read only where there could be any; none of a direction is absent.
    pub(crate) alarms: BTreeMap<Direction, Presence<Alarm>>,
}

impl Group {
    /// The alarm that scales it this way.
    pub(crate) fn alarm(&self, direction: Direction) -> &Presence<Alarm> {
        self.alarms.get(&direction).unwrap_or(&Presence::Absent)
    }

    /// Whether ECS scales it, so that nothing else was made to.
    pub(crate) fn is_scaled_by_ecs(&self) -> bool {
        let provider = self.capacity_provider.owned();
        provider.is_some_and(|provider| provider.settings.managed_scaling)
    }
}

/// An IAM role.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Role {
    pub(crate) tags: Tags,
    pub(crate) trust_policy: serde_json::Value,
    /// ARN of the policy that bounds it.
    pub(crate) permissions_boundary: Option<String>,
    /// Inline policies by name; the document is only read of the one we write.
    pub(crate) inline_policies: BTreeMap<String, Option<serde_json::Value>>,
    /// ARNs of attached managed policies.
    pub(crate) attached_policies: Vec<String>,
    /// Whether its policies were read with it.
    pub(crate) is_whole: bool,
}

impl Role {
    /// Whether its trust policy has a statement by which an instance gets it. Conditions are not judged.
    pub(crate) fn lets_ec2_assume(&self) -> bool {
        let has = |value: &Value, fits: fn(&str) -> bool| {
            each(value).iter().filter_map(Value::as_str).any(fits)
        };
        let allows = |statement: &Value| {
            statement["Effect"] == "Allow"
                && has(&statement["Principal"]["Service"], |service| {
                    // China has its own.
                    matches!(service, "ec2.amazonaws.com" | "ec2.amazonaws.com.cn")
                })
                && has(&statement["Action"], |action| {
                    matches!(action, "sts:AssumeRole" | "sts:*" | "*")
                })
        };
        each(&self.trust_policy["Statement"]).iter().any(allows)
    }
}

/// A policy may have one thing in the place of a list of it.
fn each(value: &Value) -> &[Value] {
    let list = value.as_array().map(Vec::as_slice);
    list.unwrap_or(std::slice::from_ref(value))
}

/// An IAM instance profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct InstanceProfile {
    pub(crate) tags: Tags,
    /// Names of the roles in it, at most one on AWS.
    pub(crate) roles: Vec<String>,
}

/// An EC2 security group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SecurityGroup {
    pub(crate) id: String,
    pub(crate) tags: Tags,
    /// Every way in; we make none.
    pub(crate) ingress: Vec<Ingress>,
}

/// One way into a security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ingress {
    /// `tcp`, `udp`, `icmp`, a number, or `-1` for all.
    pub(crate) protocol: String,
    pub(crate) from_port: Option<i32>,
    pub(crate) to_port: Option<i32>,
    pub(crate) source: Source,
}

/// Who an ingress rule lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Source {
    Ipv4(String),
    Ipv6(String),
    PrefixList(String),
    SecurityGroup(String),
}

/// An EC2 launch template with its newest version.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LaunchTemplate {
    pub(crate) tags: Tags,
    pub(crate) latest_version: i64,
    pub(crate) latest: Template,
}

/// The data of one version of a launch template: what is compared, and what is sent.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Template {
    pub(crate) image_id: String,
    pub(crate) instance_type: String,
    pub(crate) instance_profile: String,
    pub(crate) security_groups: Vec<SecurityGroupRef>,
    /// By the device they are attached as.
    pub(crate) volumes: BTreeMap<String, Volume>,
    /// `standard` or `unlimited`; EC2's default when absent.
    pub(crate) cpu_credits: Option<String>,
    pub(crate) detailed_monitoring: bool,
    pub(crate) key_pair: Option<String>,
    pub(crate) metadata: MetadataOptions,
    /// `terminate` or `stop`.
    pub(crate) shutdown_behavior: String,
    /// Not base64.
    #[serde(serialize_with = "digest")]
    pub(crate) user_data: Vec<u8>,
    /// Tags by the kind of resource that gets them at launch.
    pub(crate) tags: BTreeMap<String, Tags>,
}

/// A security group by id, or one that the same plan creates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum SecurityGroupRef {
    Id(String),
    /// Its name.
    Created(String),
}

/// An EBS volume that goes with its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Volume {
    pub(crate) gib: u32,
    pub(crate) kind: String,
    pub(crate) iops: Option<u32>,
    pub(crate) throughput_mib: Option<u32>,
    pub(crate) encrypted: bool,
    pub(crate) kms_key: Option<String>,
}

/// Instance metadata options.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct MetadataOptions {
    pub(crate) tokens_required: bool,
    pub(crate) hop_limit: u32,
    pub(crate) instance_tags: bool,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct AutoScalingGroup {
    pub(crate) arn: String,
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) desired: u32,
    /// Version of its launch template; `None` for `$Latest`, `$Default` or another template.
    pub(crate) template_version: Option<i64>,
    /// Its mixed-instances policy.
    pub(crate) mix: Option<Mix>,
    /// All of them known.
    pub(crate) policies: Policies,
    /// Its own metrics are in CloudWatch.
    pub(crate) metrics: bool,
    /// One that is being deleted is [`Leaving`](Presence::Leaving).
    pub(crate) warm_pool: Presence<WarmPool>,
    /// Scheduled actions by name.
    pub(crate) schedules: BTreeMap<String, Schedule>,
    /// Those that are called as ours are; read only where there could be any.
    pub(crate) scaling_policies: BTreeMap<Direction, ScalingPolicy>,
    pub(crate) subnets: BTreeSet<String>,
    pub(crate) new_instances_protected: bool,
    pub(crate) tags: BTreeMap<String, GroupTag>,
    /// All hooks, ECS's own included.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) instances: Vec<Instance>,
}

/// A mixed-instances policy: which types, and how much of it is on demand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Mix {
    /// The preferred one first.
    pub(crate) instance_types: Vec<String>,
    pub(crate) on_demand_base: u32,
    /// Beyond the base.
    pub(crate) on_demand_percent: u32,
    pub(crate) spot_allocation: String,
}

/// What an Auto Scaling group does of its own accord. In a change, `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Policies {
    /// 0 for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_lifetime_seconds: Option<u32>,
    /// `none`, `prevent-force-deletion`...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_protection: Option<String>,
    /// `balanced-best-effort`...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) zone_distribution: Option<String>,
}

impl Policies {
    /// What has to change to come from `found` to this.
    pub(crate) fn changed_from(&self, found: &Self) -> Self {
        Self {
            max_lifetime_seconds: changed(&self.max_lifetime_seconds, &found.max_lifetime_seconds),
            deletion_protection: changed(&self.deletion_protection, &found.deletion_protection),
            zone_distribution: changed(&self.zone_distribution, &found.zone_distribution),
        }
    }

    pub(crate) fn says_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Against the group's deletion, if anything is.
    pub(crate) fn protection(&self) -> Option<&str> {
        let protection = self.deletion_protection.as_deref();
        protection.filter(|protection| *protection != "none")
    }
}

/// A warm pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WarmPool {
    pub(crate) min: u32,
    pub(crate) max_prepared: Option<u32>,
    /// `Stopped`, `Running` or `Hibernated`.
    pub(crate) state: String,
}

/// A scheduled action. In a change, `None` leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Schedule {
    /// Five fields; empty for one that happens once.
    pub(crate) cron: String,
    pub(crate) time_zone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) desired: Option<u32>,
}

impl Schedule {
    /// Whether `other` has a size that this has not.
    pub(crate) fn says_less_than(&self, other: &Self) -> bool {
        let sizes = |schedule: &Self| [schedule.min, schedule.max, schedule.desired];
        let pairs = sizes(self).into_iter().zip(sizes(other));
        pairs
            .into_iter()
            .any(|(mine, others)| mine.is_none() && others.is_some())
    }
}

/// A step scaling policy.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct ScalingPolicy {
    pub(crate) arn: String,
    pub(crate) settings: PolicySettings,
}

/// What we decide about a scaling policy.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct PolicySettings {
    /// `ChangeInCapacity`...
    pub(crate) adjustment_type: String,
    /// The nearest to the alarm's threshold first.
    pub(crate) steps: Vec<StepAdjustment>,
    /// `None` for the group's own.
    pub(crate) warmup_seconds: Option<u32>,
    pub(crate) is_enabled: bool,
}

/// What happens where the metric is between two bounds, which are relative to the alarm's threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct StepAdjustment {
    pub(crate) lower: Option<f64>,
    pub(crate) upper: Option<f64>,
    /// Nodes, fewer if negative.
    pub(crate) change: i32,
}

/// A CloudWatch alarm that has a scaling policy carried out.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Alarm {
    pub(crate) arn: String,
    pub(crate) tags: Tags,
    pub(crate) settings: AlarmSettings,
    /// ARNs of what it sets off.
    pub(crate) actions: Vec<String>,
}

/// What we decide about an alarm.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct AlarmSettings {
    /// Of which cluster it watches what is reserved, the greater of CPU and memory, each minute; `None`
    /// where it watches anything else.
    pub(crate) cluster: Option<String>,
    /// `GreaterThanThreshold`...
    pub(crate) comparison: String,
    /// Per cent.
    pub(crate) threshold: f64,
    /// So many minutes are looked at...
    pub(crate) minutes: u32,
    /// ... of which so many have to be beyond the threshold.
    pub(crate) minutes_beyond: u32,
    /// `missing`...
    pub(crate) missing_data: String,
    pub(crate) is_enabled: bool,
}

/// A tag of an Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct GroupTag {
    pub(crate) value: String,
    pub(crate) propagate: bool,
}

/// An instance, as Auto Scaling sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) availability_zone: String,
    /// `InService`, `Terminating:Wait`...
    pub(crate) state: String,
    pub(crate) protected: bool,
    /// Version of the launch template it was made from.
    pub(crate) template_version: Option<i64>,
}

impl Instance {
    /// On its way out, and replaced already.
    pub(crate) fn is_leaving(&self) -> bool {
        ["Terminat", "Detach"]
            .iter()
            .any(|leaving| self.state.starts_with(leaving))
    }

    /// It stays, and new ones would be made from another version of the launch template; `None` is one
    /// that is yet to be made.
    pub(crate) fn is_stale(&self, version: Option<i64>) -> bool {
        !self.is_leaving() && (version.is_none() || self.template_version != version)
    }
}

/// An ECS capacity provider on an Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CapacityProvider {
    pub(crate) arn: String,
    pub(crate) tags: Tags,
    /// ARN, or name, of its Auto Scaling group.
    pub(crate) auto_scaling_group: String,
    pub(crate) settings: ProviderSettings,
}

/// What we decide about a capacity provider. Without managed scaling its numbers are 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct ProviderSettings {
    pub(crate) managed_scaling: bool,
    pub(crate) target_capacity: u32,
    pub(crate) instance_warmup_seconds: u32,
    pub(crate) termination_protection: bool,
    pub(crate) managed_draining: bool,
}

/// An SSM parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Parameter {
    pub(crate) tags: Tags,
    pub(crate) value: String,
}

/// A plan says which user data it writes, not all of it.
fn digest<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{} bytes, sha256 {}", bytes.len(), sha256(bytes)))
}

/// The first 12 hex digits of the SHA-256, enough to tell versions apart.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity() -> Identity {
        Identity {
            fleet: "shop".into(),
            environment: "dev".into(),
            owner: "f-1".into(),
            region: "eu-central-1".into(),
        }
    }

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_trust_policy_is_read_in_all_its_spellings() {
        let trusts = |statement: Value| {
            let role = Role {
                trust_policy: json!({ "Statement": statement }),
                ..Role::default()
            };
            role.lets_ec2_assume()
        };
        let statement = |effect: &str, service: Value, action: Value| json!({ "Effect": effect, "Principal": { "Service": service }, "Action": action });
        let (ec2, assume) = (json!("ec2.amazonaws.com"), json!("sts:AssumeRole"));
        assert!(trusts(statement("Allow", ec2.clone(), assume.clone())));
        assert!(trusts(json!([
            statement("Allow", json!("ecs.amazonaws.com"), assume.clone()),
            statement(
                "Allow",
                json!(["ssm.amazonaws.com", "ec2.amazonaws.com"]),
                json!(["sts:AssumeRole"])
            ),
        ])));
        assert!(!trusts(statement("Deny", ec2.clone(), assume.clone())));
        assert!(!trusts(statement(
            "Allow",
            json!("ecs.amazonaws.com"),
            assume
        )));
        assert!(!trusts(statement("Allow", ec2, json!("sts:TagSession"))));
        assert!(!Role::default().lets_ec2_assume());
    }

    #[test]
    fn only_owner_environment_and_group_together_make_a_thing_ours() {
        let ours = tags(&[
            (tag::OWNER, "f-1"),
            (tag::ENVIRONMENT, "dev"),
            (tag::GROUP, "web"),
        ]);
        let judge = |tags: &Tags| Presence::judge(tags, &identity(), Some("web"), || ());
        assert_eq!(judge(&ours), Presence::Owned(()));
        for key in [tag::OWNER, tag::ENVIRONMENT, tag::GROUP] {
            let mut tags = ours.clone();
            tags.insert(key.into(), "other".into());
            assert!(matches!(judge(&tags), Presence::Foreign(_)), "{key}");
            tags.remove(key);
            assert!(matches!(judge(&tags), Presence::Foreign(_)), "no {key}");
        }
    }
}
