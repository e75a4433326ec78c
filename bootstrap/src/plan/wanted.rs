//! What single resources should hold, in the shape in which they are read and compared.

use std::collections::{BTreeMap, BTreeSet};

use fleet_agent_config::{Live, REVISION_MAX, names::tag};
use serde_json::json;

use super::{GroupChange, STARTING, TemplateUse, Version};
use crate::{
    desired::{self, DOCKER_DEVICE, Desired},
    inventory::{
        AutoScalingGroup, ClusterSettings, Group, GroupTag, Inventory, LaunchTemplate,
        MetadataOptions, Mix, Policies, ProviderSettings, Schedule, SecurityGroupRef, StrategyItem,
        Template, Volume, WarmPool, sha256,
    },
    spec::{self, CpuCredits},
};

/// ECS makes its scaling actions conditional on this tag, whatever its value.
const ECS_MANAGED: &str = "AmazonECSManaged";
/// Root device of Amazon's ECS-optimized AL2023 images.
pub(super) const ROOT_DEVICE: &str = "/dev/xvda";
pub(super) const DAY_SECONDS: u32 = 24 * 60 * 60;
/// What a launch template can tag of what we launch.
const TAGGED_AT_LAUNCH: [&str; 3] = ["instance", "volume", "network-interface"];

/// The number under which the parameter is to hold a group's live settings, and whether it does.
/// Numbers only rise: nodes take no other.
pub(super) fn revision(group: &desired::Group, existing: &Group) -> (u64, bool) {
    let tagged = existing.auto_scaling_group.owned().and_then(|group| {
        let tag = group.tags.get(tag::REVISION)?;
        tag.value.parse::<u64>().ok()
    });
    let tagged = tagged.unwrap_or(0).min(REVISION_MAX);
    let Some(parameter) = existing.parameter.owned() else {
        // Nodes may have taken what stood in one that is gone.
        return (if tagged == 0 { 0 } else { tagged + 1 }, false);
    };
    match Live::read(&parameter.value) {
        Ok(found) if found.revision >= tagged && found.says_the_same(&group.parameter.live) => {
            (found.revision, true)
        }
        Ok(found) => (found.revision.max(tagged) + 1, false),
        Err(_) => (tagged + 1, false),
    }
}

pub(super) fn cluster_settings(wanted: &desired::Cluster) -> ClusterSettings {
    let insights = wanted.container_insights;
    ClusterSettings {
        container_insights: insights.map(|insights| insights.as_str().to_owned()),
        execute_command_logging: wanted.execute_command_logging.clone(),
    }
}

/// A strategy is a set: one that only stands in another order is the same.
pub(crate) fn in_order_of(found: &[StrategyItem], wanted: &[StrategyItem]) -> Vec<StrategyItem> {
    let sorted = |items: &[StrategyItem]| {
        let mut items = items.to_vec();
        items.sort();
        items
    };
    if sorted(found) == sorted(wanted) {
        found.to_vec()
    } else {
        wanted.to_vec()
    }
}

/// What the newest version of a group's launch template should hold.
pub(super) fn template(
    group: &desired::Group,
    found: Option<&LaunchTemplate>,
    inventory: &Inventory,
    security_group: SecurityGroupRef,
) -> Template {
    let wanted = &group.launch_template;
    let image_id = match found {
        Some(found) if wanted.image.is_kept() && !wanted.newest_image => {
            found.latest.image_id.clone()
        }
        _ => {
            // Without one there is a conflict, and no plan.
            let image = inventory.images.get(&wanted.image);
            image.map_or_else(String::new, |image| image.id.clone())
        }
    };
    Template {
        image_id,
        instance_type: wanted.instance_type.clone(),
        instance_profile: group.instance_profile.clone(),
        security_groups: [security_group]
            .into_iter()
            .chain(
                wanted
                    .security_groups
                    .iter()
                    .cloned()
                    .map(SecurityGroupRef::Id),
            )
            .collect(),
        volumes: volumes(wanted),
        cpu_credits: wanted
            .cpu_credits
            .map(|credits| credits.as_str().to_owned()),
        detailed_monitoring: wanted.detailed_monitoring,
        key_pair: wanted.key_pair.clone(),
        metadata: MetadataOptions {
            tokens_required: true,
            hop_limit: 1,
            instance_tags: true,
        },
        shutdown_behavior: "terminate".to_owned(),
        user_data: wanted.user_data.clone(),
        tags: TAGGED_AT_LAUNCH
            .into_iter()
            .map(|kind| (kind.to_owned(), wanted.instance_tags.clone()))
            .collect(),
    }
}

fn volumes(wanted: &desired::LaunchTemplate) -> BTreeMap<String, Volume> {
    let root = (ROOT_DEVICE.to_owned(), volume(&wanted.root_volume));
    let docker = wanted.docker_volume.as_ref().map(volume);
    let docker = docker.map(|volume| (DOCKER_DEVICE.to_owned(), volume));
    [root].into_iter().chain(docker).collect()
}

fn volume(wanted: &spec::Volume) -> Volume {
    Volume {
        gib: wanted.gib,
        kind: wanted.kind.as_str().to_owned(),
        iops: wanted.iops,
        throughput_mib: wanted.throughput_mib,
        encrypted: wanted.encrypted,
        kms_key: wanted.kms_key.clone(),
    }
}

/// What the parameter holds as this revision.
pub(super) fn value(live: &Live, revision: u64) -> String {
    // Numbers and strings, which were all serialized before: nothing that could fail.
    live.numbered(revision).text().unwrap_or_default()
}

pub(crate) fn template_use(group: &desired::Group, version: Version) -> TemplateUse {
    TemplateUse {
        name: group.launch_template.name.clone(),
        version,
        mix: mix(&group.auto_scaling_group),
    }
}

/// One type on demand stands in the template itself. Of all else each of these is said, so that none of
/// AWS's defaults is read back as somebody's change; the price is never bounded.
fn mix(group: &desired::AutoScalingGroup) -> Option<Mix> {
    let is_mixed = group.instance_types.len() > 1 || group.spot.is_some();
    is_mixed.then(|| {
        let spot = group.spot.unwrap_or_default();
        Mix {
            instance_types: group.instance_types.clone(),
            on_demand_base: spot.on_demand_base,
            on_demand_percent: 100 - spot.percent,
            spot_allocation: spot.allocation.as_str().to_owned(),
        }
    })
}

/// What differs; desired capacity never does, since it is whoever's who scales the group.
pub(super) fn group_change(
    desired: &Desired,
    group: &desired::Group,
    found: &AutoScalingGroup,
    template: TemplateUse,
) -> GroupChange {
    let wanted = &group.auto_scaling_group;
    let is_protected = protects_nodes(group);
    let subnets: BTreeSet<String> = desired.network.subnet_ids.iter().cloned().collect();
    let same_template = found.mix == template.mix
        && matches!(template.version, Version::Number(n) if found.template_version == Some(n));
    GroupChange {
        // A group that is starting gets its lower bound once it has a node.
        min: (!is_min_of(wanted, found.min) && !is_starting(found)).then_some(wanted.min),
        max: (!is_max_of(wanted, found.max)).then_some(wanted.max),
        desired: None,
        template: (!same_template).then_some(template),
        subnets: (found.subnets != subnets).then_some(subnets),
        new_instances_protected: (found.new_instances_protected != is_protected)
            .then_some(is_protected),
        policies: policies(wanted).changed_from(&found.policies),
    }
}

/// A bound that a schedule sets is the clock's: any that the file has for it is as wanted.
fn is_min_of(wanted: &desired::AutoScalingGroup, found: u32) -> bool {
    let mut schedules = wanted.schedules.values();
    found == wanted.min || schedules.any(|schedule| schedule.min == Some(found))
}

fn is_max_of(wanted: &desired::AutoScalingGroup, found: u32) -> bool {
    let mut schedules = wanted.schedules.values();
    found == wanted.max || schedules.any(|schedule| schedule.max == Some(found))
}

pub(super) fn schedules(wanted: &desired::AutoScalingGroup) -> BTreeMap<String, Schedule> {
    let schedules = wanted.schedules.iter();
    schedules
        .map(|(name, wanted)| {
            let schedule = Schedule {
                cron: wanted.cron.clone(),
                time_zone: wanted.time_zone.clone(),
                min: wanted.min,
                max: wanted.max,
                desired: wanted.desired,
            };
            (name.clone(), schedule)
        })
        .collect()
}

pub(super) fn warm_pool(wanted: &desired::AutoScalingGroup) -> Option<WarmPool> {
    wanted.warm_pool.map(|pool| WarmPool {
        min: pool.min,
        max_prepared: pool.max_prepared,
        state: pool.state.as_str().to_owned(),
    })
}

pub(super) fn policies(wanted: &desired::AutoScalingGroup) -> Policies {
    let days = wanted.max_lifetime_days.unwrap_or(0);
    Policies {
        max_lifetime_seconds: Some(days * DAY_SECONDS),
        deletion_protection: Some(wanted.deletion_protection.as_str().to_owned()),
        zone_distribution: Some(wanted.zone_distribution.as_str().to_owned()),
    }
}

/// The group's own tags reach its instances where instance metadata can carry them.
pub(super) fn group_tags(group: &desired::Group) -> BTreeMap<String, GroupTag> {
    let mut tags: BTreeMap<String, GroupTag> = group
        .tags
        .iter()
        .map(|(key, value)| {
            let tag = GroupTag {
                value: value.clone(),
                propagate: group.launch_template.instance_tags.contains_key(key),
            };
            (key.clone(), tag)
        })
        .collect();
    tags.insert(
        ECS_MANAGED.to_owned(),
        GroupTag {
            value: String::new(),
            propagate: true,
        },
    );
    tags
}

pub(super) fn missing_group_tags(
    group: &desired::Group,
    found: &AutoScalingGroup,
    revision: u64,
) -> BTreeMap<String, GroupTag> {
    let mut wanted = group_tags(group);
    if revision > 0 {
        let tag = GroupTag {
            value: revision.to_string(),
            propagate: true,
        };
        wanted.insert(tag::REVISION.to_owned(), tag);
    }
    if !is_starting(found) {
        wanted.insert(tag::SPEC.to_owned(), own_tag(&spec_tag(group, revision)));
    }
    wanted.retain(|key, tag| match found.tags.get(key) {
        // ECS writes its own value, and may have made it before us.
        Some(_) if key == ECS_MANAGED => false,
        Some(found) => found != tag,
        None => true,
    });
    wanted
}

pub(super) fn own_tag(value: &str) -> GroupTag {
    GroupTag {
        value: value.to_owned(),
        propagate: false,
    }
}

/// Whether nodes are kept from scale-in: ECS takes that off the ones that it has Auto Scaling take, and
/// does so only where it scales the group (ECS guide, "Managed termination protection").
pub(super) fn protects_nodes(group: &desired::Group) -> bool {
    group.scaling.steps().is_none()
}

pub(super) fn provider_settings(group: &desired::Group) -> ProviderSettings {
    let spec::Scaling::Managed { target_capacity } = group.scaling else {
        return ProviderSettings::default();
    };
    ProviderSettings {
        managed_scaling: true,
        target_capacity,
        instance_warmup_seconds: group.capacity_provider.instance_warmup_seconds,
        termination_protection: protects_nodes(group),
        // The agent drains, under a hook and a deadline of ours.
        managed_draining: false,
    }
}

/// Tells what a group was made from. Desired capacity is left out: it is written only once.
/// Its hash, and the revision that all its nodes were told of.
pub(super) fn spec_tag(group: &desired::Group, revision: u64) -> String {
    let hash = spec_hash(group);
    match revision {
        0 => hash,
        revision => format!("{hash}.{revision}"),
    }
}

fn spec_hash(group: &desired::Group) -> String {
    let template = &group.launch_template;
    let asg = &group.auto_scaling_group;
    let spec = json!({
        "image": template.image.to_string(),
        "instance_types": asg.instance_types,
        "volumes": volumes(template),
        "cpu_credits": template.cpu_credits.map(CpuCredits::as_str),
        "detailed_monitoring": template.detailed_monitoring,
        "key_pair": template.key_pair,
        "security_groups": template.security_groups,
        "mix": mix(asg),
        "user_data": sha256(&template.user_data),
        "min": asg.min,
        "max": asg.max,
        "hooks": asg.hooks,
        "target_capacity": provider_settings(group).target_capacity,
        "step_scaling": group.scaling.steps(),
        "instance_warmup_seconds": group.capacity_provider.instance_warmup_seconds,
        "policies": policies(asg),
        "metrics": asg.metrics,
        "warm_pool": warm_pool(asg),
        "schedules": schedules(asg),
    });
    sha256(spec.to_string().as_bytes())
}

/// Whether a group was last brought to what the file says now: what differs is somebody else's doing.
pub(super) fn is_settled(group: &desired::Group, existing: &Group) -> bool {
    let found = existing.auto_scaling_group.owned();
    let tag = found.and_then(|found| found.tags.get(tag::SPEC));
    tag.is_some_and(|tag| tag.value.split('.').next() == Some(spec_hash(group).as_str()))
}

/// Whether a group has yet to prove its first node. Groups are made with the tag: where it is
/// missing somebody took it away, and the group is none the less at work.
pub(super) fn is_starting(found: &AutoScalingGroup) -> bool {
    found
        .tags
        .get(tag::SPEC)
        .is_some_and(|spec| spec.value == STARTING)
}
