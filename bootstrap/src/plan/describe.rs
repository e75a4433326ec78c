//! Plans in words.

mod scaling;

use std::collections::{BTreeMap, BTreeSet};

use fleet_agent_config::{Problem, names::tag};

use super::{
    Effect, GroupChange, Line, Mark, Plan, Version,
    wanted::{self, DAY_SECONDS, ROOT_DEVICE},
};
use crate::{
    desired::{self, DOCKER_DEVICE},
    inventory::{
        AutoScalingGroup, Cluster, ClusterSettings, GroupTag, Ingress, Instance, Inventory, Mix,
        Policies, ProviderSettings, Schedule, SecurityGroupRef, Source, Template, Tenancy,
        WarmPool, sha256, whose,
    },
    spec::{Scaling, ZoneDistribution},
};

pub(super) use scaling::{alarm, alarm_changes, policy, scaling_policy_changes};

/// Width of the longest kind of resource, `auto-scaling-group`.
const KIND_WIDTH: usize = 18;

impl Mark {
    /// `+ ~ ! - = x`
    pub(crate) fn symbol(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Correct => '!',
            Self::Delete => '-',
            Self::Keep => '=',
            Self::Adopted => 'x',
        }
    }
}

impl Line {
    /// `  ~ launch-template     shop-dev-web  v1 -> v2  user data ...`, names padded to `width`.
    pub(crate) fn render(&self, width: usize) -> String {
        let line = format!(
            "  {} {:KIND_WIDTH$}  {:width$}  {}",
            self.mark.symbol(),
            self.kind,
            self.name,
            [self.details.join(", "), self.consequence()].concat()
        );
        line.trim_end().to_owned()
    }

    /// `  [no disruption]`; nothing for what no node can notice.
    fn consequence(&self) -> String {
        match (self.effect, self.mark) {
            (Effect::Roll { stale, of }, _) => {
                format!("  [{stale} of {of} nodes stale: `roll` replaces them]")
            }
            (Effect::Live, _) => "  [applied live]".to_owned(),
            (Effect::None, Mark::Change) => "  [no disruption]".to_owned(),
            (Effect::None, _) => String::new(),
        }
    }
}

impl Plan {
    /// The longest name, for [`Line::render`].
    pub(crate) fn name_width(&self) -> usize {
        let names = self.lines.iter().map(|line| line.name.chars().count());
        names.max().unwrap_or(0)
    }

    /// How many resources have this mark.
    pub(crate) fn count(&self, mark: Mark) -> usize {
        self.lines.iter().filter(|line| line.mark == mark).count()
    }

    /// `1 create, 2 change, 0 correct, 0 delete; 5 steps`
    pub(crate) fn totals(&self) -> String {
        format!(
            "{} create, {} change, {} correct, {} delete; {} steps",
            self.count(Mark::Create),
            self.count(Mark::Change),
            self.count(Mark::Correct),
            self.count(Mark::Delete),
            self.steps.len()
        )
    }
}

pub(super) fn tagged(steps: &[usize]) -> Vec<String> {
    if steps.is_empty() {
        Vec::new()
    } else {
        vec!["tags".to_owned()]
    }
}

/// The agent by its SHA-256, as long as people tell one from another.
pub(super) fn agent(sha256: &str) -> String {
    format!("fleet-agent {}", sha256.get(..12).unwrap_or(sha256))
}

pub(super) fn keys(tags: &BTreeMap<String, GroupTag>) -> String {
    let keys: Vec<&str> = tags.keys().map(String::as_str).collect();
    keys.join(" ")
}

/// `+22/tcp 0.0.0.0/0`
pub(super) fn ingress(rule: &Ingress) -> String {
    let ports = match (rule.from_port, rule.to_port) {
        (Some(from), Some(to)) if from == to => format!("{from}/"),
        (Some(from), Some(to)) => format!("{from}-{to}/"),
        _ => String::new(),
    };
    let protocol = match rule.protocol.as_str() {
        "-1" => "all",
        other => other,
    };
    let source = match &rule.source {
        Source::Ipv4(source)
        | Source::Ipv6(source)
        | Source::PrefixList(source)
        | Source::SecurityGroup(source) => source,
    };
    format!("+{ports}{protocol} {source}")
}

/// `container insights enhanced, exec logs to /shop/exec s3://shop-logs/exec/`
pub(super) fn cluster_changes(change: &ClusterSettings) -> Vec<String> {
    let insights = change.container_insights.as_ref();
    let insights = insights.map(|insights| format!("container insights {insights}"));
    let logging = change.execute_command_logging.as_ref().map(|logging| {
        let prefix = logging.s3_prefix.as_deref().unwrap_or_default();
        let bucket = logging.s3_bucket.as_ref();
        let parts = [
            logging.log_group.clone(),
            bucket.map(|bucket| format!("s3://{bucket}/{prefix}")),
            logging.kms_key.as_ref().map(|key| format!("key {key}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("exec logs {}", parts.join(" "))
    });
    insights.into_iter().chain(logging).collect()
}

/// `kept, never changed, with FARGATE others` and whose it is, if it is another fleet's.
pub(super) fn kept_cluster(
    cluster: &Cluster,
    never: &str,
    is_ours: impl Fn(&str) -> bool,
) -> String {
    let mut text = format!("kept, {never}");
    let providers = cluster.providers.iter().map(String::as_str);
    let others: Vec<&str> = providers.filter(|name| !is_ours(name)).collect();
    if !others.is_empty() {
        text += &format!(", with {}", others.join(" "));
    }
    if cluster.tags.contains_key(tag::OWNER) {
        text += &format!(", though {}", whose(&cluster.tags));
    }
    text
}

/// `3 of api, 1 of no service`
pub(super) fn tenants(tenancy: &Tenancy) -> Option<String> {
    let services = tenancy.service_tasks.iter();
    let mut parts: Vec<String> = services
        .map(|(service, tasks)| format!("{tasks} of {service}"))
        .collect();
    if tenancy.standalone_tasks > 0 {
        parts.push(format!("{} of no service", tenancy.standalone_tasks));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

pub(super) fn template_changes(found: &Template, wanted: &Template) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |name: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{name} {old} -> {new}"));
        }
    };
    differs("image", found.image_id.clone(), wanted.image_id.clone());
    differs(
        "type",
        found.instance_type.clone(),
        wanted.instance_type.clone(),
    );
    differs(
        "profile",
        found.instance_profile.clone(),
        wanted.instance_profile.clone(),
    );
    differs(
        "security group",
        security_groups(found),
        security_groups(wanted),
    );
    let devices = found.volumes.keys().chain(wanted.volumes.keys());
    for device in devices.collect::<BTreeSet<_>>() {
        let of = |template| volume(template, device).unwrap_or_else(|| "none".to_owned());
        differs(volume_name(device), of(found), of(wanted));
    }
    let or_default =
        |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    differs(
        "cpu credits",
        or_default(&found.cpu_credits, "EC2's default"),
        or_default(&wanted.cpu_credits, "EC2's default"),
    );
    let minutes = |detailed: bool| if detailed { "1 min" } else { "5 min" }.to_owned();
    differs(
        "monitoring",
        minutes(found.detailed_monitoring),
        minutes(wanted.detailed_monitoring),
    );
    differs(
        "key pair",
        or_default(&found.key_pair, "none"),
        or_default(&wanted.key_pair, "none"),
    );
    differs("metadata", metadata(found), metadata(wanted));
    differs(
        "shutdown",
        found.shutdown_behavior.clone(),
        wanted.shutdown_behavior.clone(),
    );
    differs(
        "user data",
        sha256(&found.user_data),
        sha256(&wanted.user_data),
    );
    if found.tags != wanted.tags {
        changes.push("instance tags".to_owned());
    }
    changes
}

fn security_groups(template: &Template) -> String {
    let names: Vec<&str> = template
        .security_groups
        .iter()
        .map(|group| match group {
            SecurityGroupRef::Id(id) => id.as_str(),
            SecurityGroupRef::Created(_) => "(new)",
        })
        .collect();
    names.join("+")
}

fn volume_name(device: &str) -> &'static str {
    match device {
        ROOT_DEVICE => "root volume",
        DOCKER_DEVICE => "docker volume",
        _ => "volume",
    }
}

/// `encrypted gp3 30 GiB at /dev/xvda 4000 iops`
fn volume(template: &Template, device: &str) -> Option<String> {
    let volume = template.volumes.get(device)?;
    let encrypted = if volume.encrypted { "encrypted " } else { "" };
    let mut text = format!("{encrypted}{} {} GiB at {device}", volume.kind, volume.gib);
    let details = [
        volume.iops.map(|iops| format!(" {iops} iops")),
        volume.throughput_mib.map(|mib| format!(" {mib} MiB/s")),
        volume.kms_key.as_ref().map(|key| format!(" key {key}")),
    ];
    text.extend(details.into_iter().flatten());
    Some(text)
}

/// `root volume encrypted gp3 30 GiB at /dev/xvda, key pair ops`
pub(super) fn made_of(template: &Template) -> String {
    let volumes = template.volumes.keys();
    let mut parts: Vec<String> = volumes
        .filter_map(|device| {
            let volume = volume(template, device)?;
            Some(format!("{} {volume}", volume_name(device)))
        })
        .collect();
    parts.extend(
        template
            .security_groups
            .iter()
            .filter_map(|group| match group {
                SecurityGroupRef::Id(id) => Some(format!("security group {id}")),
                SecurityGroupRef::Created(_) => None,
            }),
    );
    parts.extend(
        template
            .key_pair
            .iter()
            .map(|key| format!("key pair {key}")),
    );
    let credits = template.cpu_credits.iter();
    parts.extend(credits.map(|credits| format!("cpu credits {credits}")));
    if template.detailed_monitoring {
        parts.push("monitoring 1 min".to_owned());
    }
    parts.join(", ")
}

fn metadata(template: &Template) -> String {
    let options = &template.metadata;
    format!(
        "{}hops {}{}",
        if options.tokens_required {
            "v2 "
        } else {
            "v1 "
        },
        options.hop_limit,
        if options.instance_tags { " tags" } else { "" }
    )
}

/// Says that a newer image exists; nothing when the template's is the newest or was given.
pub(super) fn newer_image(
    group: &desired::Group,
    template: &Template,
    inventory: &Inventory,
) -> String {
    let image = &group.launch_template.image;
    match inventory.images.get(image).filter(|_| image.is_kept()) {
        Some(newest) if newest.id != template.image_id => {
            format!("image {} kept, newer is {}", template.image_id, newest.id)
        }
        Some(_) | None => String::new(),
    }
}

/// Why live settings do not do.
pub(super) fn needs_a_roll(problem: &Problem) -> String {
    format!("{}: {}", problem.key, problem.message)
}

/// `revision 3 to 40 nodes, one first`
pub(super) fn spreads(found: &AutoScalingGroup, version: i64, revision: u64) -> String {
    let nodes = found.instances.iter();
    let nodes = nodes.filter(|instance| instance.template_version == Some(version));
    match nodes.count() {
        0 => format!("revision {revision} to new nodes"),
        1 => format!("revision {revision} to 1 node"),
        nodes => format!("revision {revision} to {nodes} nodes, one first"),
    }
}

pub(super) fn group_changes(found: &AutoScalingGroup, change: &GroupChange) -> Vec<String> {
    let mut changes = Vec::new();
    if let Some(min) = change.min {
        changes.push(format!("min {} -> {min}", found.min));
    }
    if let Some(max) = change.max {
        changes.push(format!("max {} -> {max}", found.max));
    }
    if let Some(template) = &change.template {
        changes.push(match template.version {
            Version::Number(number) => format!("template v{number}"),
            Version::Created => "new template version".to_owned(),
        });
        if template.mix != found.mix {
            changes.push(mix(template.mix.as_ref()));
        }
    }
    if let Some(subnets) = &change.subnets {
        let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
        changes.push(format!("subnets {}", subnets.join(" ")));
    }
    if let Some(is_protected) = change.new_instances_protected {
        let protection = if is_protected { "on" } else { "off" };
        changes.push(format!("scale-in protection {protection}"));
    }
    changes.extend(policy_changes(&found.policies, &change.policies));
    changes
}

fn policy_changes(found: &Policies, change: &Policies) -> Vec<String> {
    let mut changes = Vec::new();
    if let Some(seconds) = change.max_lifetime_seconds {
        let (old, new) = (
            lifetime(found.max_lifetime_seconds.unwrap_or(0)),
            lifetime(seconds),
        );
        changes.push(format!("max lifetime {old} -> {new}"));
    }
    for (name, old, new) in [
        (
            "deletion protection",
            &found.deletion_protection,
            &change.deletion_protection,
        ),
        ("zones", &found.zone_distribution, &change.zone_distribution),
    ] {
        if let Some(new) = new {
            let old = old.as_deref().unwrap_or("?");
            changes.push(format!("{name} {old} -> {new}"));
        }
    }
    changes
}

fn lifetime(seconds: u32) -> String {
    match seconds {
        0 => "none".to_owned(),
        seconds if seconds % DAY_SECONDS == 0 => format!("{} days", seconds / DAY_SECONDS),
        seconds => format!("{seconds} s"),
    }
}

/// `at least 2, running, 12 nodes with the group's`
pub(super) fn warm_pool(pool: &WarmPool) -> String {
    let most = pool.max_prepared.map_or_else(String::new, |most| {
        format!(", {most} nodes with the group's")
    });
    let state = pool.state.to_lowercase();
    format!("at least {}, {state}{most}", pool.min)
}

/// `0 7 * * 1-5 Europe/Berlin: min 4, desired 6`
pub(super) fn schedule(schedule: &Schedule) -> String {
    let sizes = [
        ("min", schedule.min),
        ("max", schedule.max),
        ("desired", schedule.desired),
    ];
    let sizes = sizes.into_iter();
    let sizes: Vec<String> = sizes
        .filter_map(|(name, size)| Some(format!("{name} {}", size?)))
        .collect();
    let (cron, zone) = (&schedule.cron, &schedule.time_zone);
    format!("{cron} {zone}: {}", sizes.join(", "))
}

/// What the file says of a new group that Auto Scaling does not do anyway.
pub(super) fn own_accord(group: &desired::AutoScalingGroup) -> Vec<String> {
    let wanted = wanted::policies(group);
    let mut parts = Vec::new();
    if let Some(days) = group.max_lifetime_days {
        parts.push(format!("max lifetime {}", lifetime(days * DAY_SECONDS)));
    }
    let protection = wanted.protection();
    parts.extend(protection.map(|protection| format!("deletion protection {protection}")));
    if group.zone_distribution != ZoneDistribution::default() {
        parts.push(format!("zones {}", group.zone_distribution.as_str()));
    }
    if group.metrics {
        parts.push("metrics".to_owned());
    }
    parts
}

/// `types m7i.large m7a.large, 70 % Spot beyond 2 on demand (capacity-optimized)`
pub(super) fn mix(mix: Option<&Mix>) -> String {
    let Some(mix) = mix else {
        return "one type on demand, the template's".to_owned();
    };
    let types = mix.instance_types.join(" ");
    match 100_u32.saturating_sub(mix.on_demand_percent) {
        0 => format!("types {types}, on demand"),
        spot => format!(
            "types {types}, {spot} % Spot beyond {} on demand ({})",
            mix.on_demand_base, mix.spot_allocation
        ),
    }
}

/// What is not compared.
pub(super) fn controller_owned(group: &desired::Group, found: &AutoScalingGroup) -> String {
    let whose = match group.scaling {
        Scaling::Managed { .. } => "ECS's",
        Scaling::Steps(_) => "Auto Scaling's",
    };
    format!("desired {} is {whose} to set, ignored", found.desired)
}

/// Nodes of a group that stay and are not made from this version.
pub(super) fn stale(found: &AutoScalingGroup, version: Version) -> Effect {
    let version = match version {
        Version::Number(number) => Some(number),
        Version::Created => None,
    };
    let count = |is_it: &dyn Fn(&Instance) -> bool| {
        found.instances.iter().filter(|node| is_it(node)).count()
    };
    match count(&|node| node.is_stale(version)) {
        0 => Effect::None,
        stale => Effect::Roll {
            stale,
            of: count(&|node| !node.is_leaving()),
        },
    }
}

pub(super) fn provider_changes(found: &ProviderSettings, wanted: &ProviderSettings) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |name: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{name} {old} -> {new}"));
        }
    };
    differs(
        "managed scaling",
        on(found.managed_scaling),
        on(wanted.managed_scaling),
    );
    if wanted.managed_scaling {
        differs(
            "target capacity",
            found.target_capacity.to_string(),
            wanted.target_capacity.to_string(),
        );
        differs(
            "instance warmup",
            found.instance_warmup_seconds.to_string(),
            wanted.instance_warmup_seconds.to_string(),
        );
    }
    differs(
        "termination protection",
        on(found.termination_protection),
        on(wanted.termination_protection),
    );
    differs(
        "managed draining",
        on(found.managed_draining),
        on(wanted.managed_draining),
    );
    changes
}

fn on(is_on: bool) -> String {
    if is_on { "on" } else { "off" }.to_owned()
}
