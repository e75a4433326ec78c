//! Auto Scaling groups and what belongs to them, to and from the API's shapes.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::{
    AutoScalingGroup as SdkGroup, AvailabilityZoneDistribution, CapacityDistributionStrategy,
    DeletionProtection, InstancesDistribution, LaunchTemplate as SdkLaunchTemplate,
    LaunchTemplateOverrides, LaunchTemplateSpecification, LifecycleHook,
    LifecycleHookSpecification, MixedInstancesPolicy, ScheduledUpdateGroupAction, Tag,
    WarmPoolConfiguration, WarmPoolState, WarmPoolStatus,
};

use super::{autoscaling::Pinned, signed, unsigned};
use crate::{
    desired::{Hook, Transition},
    inventory::{
        AutoScalingGroup, GroupTag, Instance, Mix, Policies, Presence, Schedule, WarmPool,
    },
};

const LAUNCHING: &str = "autoscaling:EC2_INSTANCE_LAUNCHING";
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

pub(super) fn read(group: SdkGroup) -> AutoScalingGroup {
    let policies = read_policies(&group);
    let (specification, mix) = match (group.launch_template, group.mixed_instances_policy) {
        (Some(single), _) => (Some(single), None),
        (None, Some(policy)) => {
            let template = policy.launch_template;
            let (specification, overrides) = template
                .map(|template| (template.launch_template_specification, template.overrides))
                .unwrap_or_default();
            let mix = read_mix(overrides, policy.instances_distribution);
            (specification, Some(mix))
        }
        (None, None) => (None, None),
    };
    AutoScalingGroup {
        arn: group.auto_scaling_group_arn.unwrap_or_default(),
        min: unsigned(group.min_size).unwrap_or_default(),
        max: unsigned(group.max_size).unwrap_or_default(),
        desired: unsigned(group.desired_capacity).unwrap_or_default(),
        template_version: version(specification),
        mix,
        policies,
        metrics: group.enabled_metrics.is_some_and(|found| !found.is_empty()),
        warm_pool: read_pool(group.warm_pool_configuration),
        schedules: BTreeMap::new(),
        scaling_policies: BTreeMap::new(),
        subnets: group
            .vpc_zone_identifier
            .unwrap_or_default()
            .split(',')
            .filter(|subnet| !subnet.is_empty())
            .map(|subnet| subnet.trim().to_owned())
            .collect(),
        new_instances_protected: group.new_instances_protected_from_scale_in.unwrap_or(false),
        tags: group
            .tags
            .unwrap_or_default()
            .into_iter()
            .filter_map(|tag| {
                let value = GroupTag {
                    value: tag.value.unwrap_or_default(),
                    propagate: tag.propagate_at_launch.unwrap_or(false),
                };
                Some((tag.key?, value))
            })
            .collect(),
        hooks: Vec::new(),
        instances: group
            .instances
            .unwrap_or_default()
            .into_iter()
            .map(|instance| Instance {
                id: instance.instance_id.unwrap_or_default(),
                availability_zone: instance.availability_zone.unwrap_or_default(),
                state: instance
                    .lifecycle_state
                    .map_or_else(String::new, |state| state.as_str().to_owned()),
                protected: instance.protected_from_scale_in.unwrap_or(false),
                template_version: version(instance.launch_template),
            })
            .collect(),
    }
}

pub(super) fn read_schedule(action: ScheduledUpdateGroupAction) -> Option<(String, Schedule)> {
    /// Where it says none.
    const TIME_ZONE: &str = "Etc/UTC";
    let schedule = Schedule {
        cron: action.recurrence.unwrap_or_default(),
        time_zone: action.time_zone.unwrap_or_else(|| TIME_ZONE.to_owned()),
        min: unsigned(action.min_size),
        max: unsigned(action.max_size),
        desired: unsigned(action.desired_capacity),
    };
    Some((action.scheduled_action_name?, schedule))
}

fn read_pool(found: Option<WarmPoolConfiguration>) -> Presence<WarmPool> {
    match found {
        None => Presence::Absent,
        Some(pool) if pool.status == Some(WarmPoolStatus::PendingDelete) => Presence::Leaving,
        Some(pool) => Presence::Owned(WarmPool {
            min: unsigned(pool.min_size).unwrap_or_default(),
            max_prepared: unsigned(pool.max_group_prepared_capacity),
            state: pool
                .pool_state
                .unwrap_or(WarmPoolState::Stopped)
                .as_str()
                .to_owned(),
        }),
    }
}

/// With Auto Scaling's defaults for what it does not say.
fn read_policies(group: &SdkGroup) -> Policies {
    let protection = group.deletion_protection.as_ref();
    let distribution = group.availability_zone_distribution.as_ref();
    let distribution = distribution.and_then(|found| found.capacity_distribution_strategy.as_ref());
    let protection = protection.unwrap_or(&DeletionProtection::None);
    let distribution = distribution.unwrap_or(&CapacityDistributionStrategy::BalancedBestEffort);
    Policies {
        max_lifetime_seconds: Some(unsigned(group.max_instance_lifetime).unwrap_or(0)),
        deletion_protection: Some(protection.as_str().to_owned()),
        zone_distribution: Some(distribution.as_str().to_owned()),
    }
}

pub(super) fn deletion_protection(policies: &Policies) -> Option<DeletionProtection> {
    policies.deletion_protection.as_deref().map(Into::into)
}

pub(super) fn zone_distribution(policies: &Policies) -> Option<AvailabilityZoneDistribution> {
    let strategy = policies.zone_distribution.as_deref()?;
    Some(
        AvailabilityZoneDistribution::builder()
            .capacity_distribution_strategy(strategy.into())
            .build(),
    )
}

/// With Auto Scaling's defaults (InstancesDistribution) for what it does not say.
fn read_mix(
    overrides: Option<Vec<LaunchTemplateOverrides>>,
    distribution: Option<InstancesDistribution>,
) -> Mix {
    let overrides = overrides.unwrap_or_default().into_iter();
    let (base, percent, spot) = distribution
        .map(|found| {
            (
                found.on_demand_base_capacity,
                found.on_demand_percentage_above_base_capacity,
                found.spot_allocation_strategy,
            )
        })
        .unwrap_or_default();
    Mix {
        instance_types: overrides.filter_map(|one| one.instance_type).collect(),
        on_demand_base: unsigned(base).unwrap_or_default(),
        on_demand_percent: unsigned(percent).unwrap_or(100),
        spot_allocation: spot.unwrap_or_else(|| "lowest-price".to_owned()),
    }
}

fn version(specification: Option<LaunchTemplateSpecification>) -> Option<i64> {
    specification?.version?.parse().ok()
}

pub(super) fn read_hook(hook: LifecycleHook) -> Option<Hook> {
    let transition = match hook.lifecycle_transition?.as_str() {
        LAUNCHING => Transition::Launching,
        TERMINATING => Transition::Terminating,
        _ => return None,
    };
    let (_, result) = wire(transition);
    // One with another default result is not the hook we want: it will be set anew.
    let timeout = hook
        .default_result
        .is_some_and(|found| found == result)
        .then(|| unsigned(hook.heartbeat_timeout).unwrap_or_default());
    Some(Hook {
        name: hook.lifecycle_hook_name?,
        transition,
        timeout_seconds: timeout.unwrap_or_default(),
    })
}

pub(super) fn hook_specification(hook: &Hook) -> LifecycleHookSpecification {
    let (transition, result) = wire(hook.transition);
    LifecycleHookSpecification::builder()
        .lifecycle_hook_name(&hook.name)
        .lifecycle_transition(transition)
        .default_result(result)
        .heartbeat_timeout(signed(hook.timeout_seconds))
        .build()
}

/// With the result when nobody answers: an unproven node must not serve, and a leaving one must
/// not cut other hooks short, which ABANDON would.
pub(super) fn wire(transition: Transition) -> (&'static str, &'static str) {
    match transition {
        Transition::Launching => (LAUNCHING, "ABANDON"),
        Transition::Terminating => (TERMINATING, "CONTINUE"),
    }
}

pub(super) fn template_shapes(
    template: &Pinned<'_>,
) -> (
    Option<LaunchTemplateSpecification>,
    Option<MixedInstancesPolicy>,
) {
    let specification = LaunchTemplateSpecification::builder()
        .launch_template_name(template.name)
        .version(template.version.to_string())
        .build();
    let Some(mix) = template.mix else {
        return (Some(specification), None);
    };
    let overrides = mix
        .instance_types
        .iter()
        .map(|kind| {
            LaunchTemplateOverrides::builder()
                .instance_type(kind)
                .build()
        })
        .collect();
    let policy = MixedInstancesPolicy::builder()
        .launch_template(
            SdkLaunchTemplate::builder()
                .launch_template_specification(specification)
                .set_overrides(Some(overrides))
                .build(),
        )
        .instances_distribution(
            InstancesDistribution::builder()
                .on_demand_base_capacity(signed(mix.on_demand_base))
                .on_demand_percentage_above_base_capacity(signed(mix.on_demand_percent))
                .spot_allocation_strategy(&mix.spot_allocation)
                .build(),
        )
        .build();
    (None, Some(policy))
}

pub(super) fn group_tags(group: &str, tags: &BTreeMap<String, GroupTag>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, tag)| {
            Tag::builder()
                .resource_id(group)
                .resource_type("auto-scaling-group")
                .key(key)
                .value(&tag.value)
                .propagate_at_launch(tag.propagate)
                .build()
        })
        .collect()
}
