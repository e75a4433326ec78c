//! Plans in words.

use std::{collections::BTreeMap, fmt::Write};

use fleet_agent_config::Problem;

use super::{GroupChange, Line, Mark, Plan, Version};
use crate::{
    desired::{self, Image},
    inventory::{
        AutoScalingGroup, GroupTag, Ingress, Inventory, Mix, ProviderSettings, SecurityGroupRef,
        Source, Template, sha256,
    },
};

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
            self.detail
        );
        line.trim_end().to_owned()
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
    differs("root volume", root_volume(found), root_volume(wanted));
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

fn root_volume(template: &Template) -> String {
    template.root_volume.as_ref().map_or_else(
        || "none".to_owned(),
        |volume| {
            let encrypted = if volume.encrypted { "encrypted " } else { "" };
            let mut text = format!(
                "{encrypted}{} {} GiB at {}",
                volume.kind, volume.gib, volume.device
            );
            let details = [
                volume.iops.map(|iops| format!(" {iops} iops")),
                volume.throughput_mib.map(|mib| format!(" {mib} MiB/s")),
                volume.kms_key.as_ref().map(|key| format!(" key {key}")),
            ];
            text.extend(details.into_iter().flatten());
            text
        },
    )
}

/// `root volume encrypted gp3 30 GiB at /dev/xvda, key pair ops`
pub(super) fn made_of(template: &Template) -> String {
    let mut parts = vec![format!("root volume {}", root_volume(template))];
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
    let Image::Parameter(name) = &group.launch_template.image else {
        return String::new();
    };
    match inventory.images.get(name) {
        Some(newest) if *newest != template.image_id => {
            format!("image {} kept, newer is {newest}", template.image_id)
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
        let mut text = match template.version {
            Version::Number(number) => format!("template v{number}"),
            Version::Created => "new template version".to_owned(),
        };
        let stale = found
            .instances
            .iter()
            .filter(|instance| match template.version {
                Version::Number(number) => instance.template_version != Some(number),
                Version::Created => true,
            })
            .count();
        if stale > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, " [{stale} of {} nodes stale]", found.instances.len());
        }
        changes.push(text);
        if template.mix != found.mix {
            changes.push(mix(template.mix.as_ref()));
        }
    }
    if let Some(subnets) = &change.subnets {
        let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
        changes.push(format!("subnets {}", subnets.join(" ")));
    }
    if change.new_instances_protected.is_some() {
        changes.push("scale-in protection".to_owned());
    }
    changes
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

/// What is not compared, and how many nodes are older than the group's template.
pub(super) fn controller_owned(found: &AutoScalingGroup) -> String {
    let stale = found
        .instances
        .iter()
        .filter(|instance| instance.template_version != found.template_version)
        .count();
    let mut text = format!("desired {} is ECS's to set, ignored", found.desired);
    if stale > 0 {
        let _ = write!(text, " [{stale} of {} nodes stale]", found.instances.len());
    }
    text
}

pub(super) fn provider_changes(found: &ProviderSettings, wanted: &ProviderSettings) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |name: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{name} {old} -> {new}"));
        }
    };
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    differs(
        "managed scaling",
        on(found.managed_scaling),
        on(wanted.managed_scaling),
    );
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
