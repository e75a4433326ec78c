//! Auto Scaling groups, their hooks and what they did.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::{
    Client,
    config::Builder,
    types::{
        AutoScalingGroup as SdkGroup, InstancesDistribution, LaunchTemplate as SdkLaunchTemplate,
        LaunchTemplateOverrides, LaunchTemplateSpecification, LifecycleHook,
        LifecycleHookSpecification, MixedInstancesPolicy, ScalingActivityStatusCode, Tag,
    },
};

use super::error::{CallError, Kind, failed, found};
use crate::{
    desired::{Hook, Transition},
    inventory::{AutoScalingGroup, GroupTag, Instance, Mix},
    plan::{GroupChange, NewGroup},
};

/// Names a DescribeAutoScalingGroups call takes.
const DESCRIBE_BATCH: usize = 50;
/// Instances a DescribeAutoScalingInstances call takes.
const INSTANCE_BATCH: usize = 50;
/// Instances a SetInstanceProtection call takes.
const PROTECTION_BATCH: usize = 50;
const LAUNCHING: &str = "autoscaling:EC2_INSTANCE_LAUNCHING";
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

#[derive(Debug)]
pub(crate) struct AutoScaling {
    client: Client,
}

/// Something an Auto Scaling group tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) id: String,
    /// `Launching a new EC2 instance: i-0abc`.
    pub(crate) description: String,
    /// Why it failed, when it did.
    pub(crate) message: String,
    /// Failed or was cancelled.
    pub(crate) has_failed: bool,
}

/// A launch template at a version whose number is known.
#[derive(Debug, Clone)]
pub(crate) struct Pinned<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: i64,
    /// Of a mixed-instances policy.
    pub(crate) mix: Option<&'a Mix>,
}

impl AutoScaling {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// Those groups that exist, by name, without their hooks; `None` for one being deleted.
    pub(crate) async fn groups(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, Option<AutoScalingGroup>>, CallError> {
        let mut groups = BTreeMap::new();
        for batch in names.chunks(DESCRIBE_BATCH) {
            let found: Vec<SdkGroup> = self
                .client
                .describe_auto_scaling_groups()
                .set_auto_scaling_group_names(Some(batch.to_vec()))
                .into_paginator()
                .items()
                .send()
                .try_collect()
                .await
                .map_err(failed(
                    "autoscaling:DescribeAutoScalingGroups",
                    &batch.join(" "),
                ))?;
            for group in found {
                let name = group.auto_scaling_group_name.clone().unwrap_or_default();
                // AWS sets a status only while the group is being deleted.
                let leaving = group.status.is_some();
                groups.insert(name, (!leaving).then(|| read(group)));
            }
        }
        Ok(groups)
    }

    /// The groups that instances belong to, by instance; those in no group are left out.
    pub(crate) async fn groups_of(
        &self,
        instances: &[String],
    ) -> Result<BTreeMap<String, String>, CallError> {
        let mut groups = BTreeMap::new();
        for batch in instances.chunks(INSTANCE_BATCH) {
            let reply = self
                .client
                .describe_auto_scaling_instances()
                .set_instance_ids(Some(batch.to_vec()))
                .send()
                .await
                .map_err(failed(
                    "autoscaling:DescribeAutoScalingInstances",
                    &batch.join(" "),
                ))?;
            let found = reply.auto_scaling_instances.unwrap_or_default().into_iter();
            groups.extend(found.filter_map(|instance| {
                Some((instance.instance_id?, instance.auto_scaling_group_name?))
            }));
        }
        Ok(groups)
    }

    /// The lifecycle state of one instance; `None` when it is in no group.
    pub(crate) async fn lifecycle_state(&self, id: &str) -> Result<Option<String>, CallError> {
        let reply = self
            .client
            .describe_auto_scaling_instances()
            .instance_ids(id)
            .send()
            .await
            .map_err(failed("autoscaling:DescribeAutoScalingInstances", id))?;
        let mut found = reply.auto_scaling_instances.unwrap_or_default().into_iter();
        Ok(found.next().and_then(|instance| instance.lifecycle_state))
    }

    pub(crate) async fn hooks(&self, group: &str) -> Result<Vec<Hook>, CallError> {
        let reply = self
            .client
            .describe_lifecycle_hooks()
            .auto_scaling_group_name(group)
            .send()
            .await
            .map_err(failed("autoscaling:DescribeLifecycleHooks", group))?;
        let hooks = reply.lifecycle_hooks.unwrap_or_default();
        Ok(hooks.into_iter().filter_map(read_hook).collect())
    }

    /// Creates an empty group.
    pub(crate) async fn create(
        &self,
        new: &NewGroup,
        template: Pinned<'_>,
    ) -> Result<(), CallError> {
        let (single, mixed) = template_shapes(&template);
        self.client
            .create_auto_scaling_group()
            .auto_scaling_group_name(&new.name)
            .min_size(0)
            .max_size(size(new.max))
            .desired_capacity(0)
            .set_launch_template(single)
            .set_mixed_instances_policy(mixed)
            .vpc_zone_identifier(new.subnets.join(","))
            .new_instances_protected_from_scale_in(true)
            .set_lifecycle_hook_specification_list(Some(
                new.hooks.iter().map(hook_specification).collect(),
            ))
            .set_tags(Some(group_tags(&new.name, &new.tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:CreateAutoScalingGroup", &new.name))
    }

    pub(crate) async fn update(
        &self,
        name: &str,
        change: &GroupChange,
        template: Option<Pinned<'_>>,
    ) -> Result<(), CallError> {
        let (single, mixed) = template.as_ref().map_or((None, None), template_shapes);
        let subnets = change.subnets.as_ref().map(|subnets| {
            let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
            subnets.join(",")
        });
        self.client
            .update_auto_scaling_group()
            .auto_scaling_group_name(name)
            .set_min_size(change.min.map(size))
            .set_max_size(change.max.map(size))
            .set_desired_capacity(change.desired.map(size))
            .set_launch_template(single)
            .set_mixed_instances_policy(mixed)
            .set_vpc_zone_identifier(subnets)
            .set_new_instances_protected_from_scale_in(change.new_instances_protected)
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:UpdateAutoScalingGroup", name))
    }

    pub(crate) async fn put_hook(&self, group: &str, hook: &Hook) -> Result<(), CallError> {
        let (transition, result) = wire(hook.transition);
        self.client
            .put_lifecycle_hook()
            .auto_scaling_group_name(group)
            .lifecycle_hook_name(&hook.name)
            .lifecycle_transition(transition)
            .default_result(result)
            .heartbeat_timeout(size(hook.timeout_seconds))
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:PutLifecycleHook", group))
    }

    pub(crate) async fn tag(
        &self,
        group: &str,
        tags: &BTreeMap<String, GroupTag>,
    ) -> Result<(), CallError> {
        self.client
            .create_or_update_tags()
            .set_tags(Some(group_tags(group, tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:CreateOrUpdateTags", group))
    }

    /// Takes scale-in protection off instances; those that are gone need none.
    pub(crate) async fn unprotect(
        &self,
        group: &str,
        instances: &[String],
    ) -> Result<(), CallError> {
        for batch in instances.chunks(PROTECTION_BATCH) {
            let reply = self
                .client
                .set_instance_protection()
                .auto_scaling_group_name(group)
                .set_instance_ids(Some(batch.to_vec()))
                .protected_from_scale_in(false)
                .send()
                .await
                .map_err(failed("autoscaling:SetInstanceProtection", group));
            match reply {
                Err(error)
                    if error.says("not part of Auto Scaling group")
                        || error.says("not in InService") => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Answers a hook with CONTINUE. False when there is nothing to answer: already done, or the
    /// group has no such hook.
    pub(crate) async fn complete(
        &self,
        group: &str,
        hook: &str,
        instance_id: &str,
    ) -> Result<bool, CallError> {
        let reply = self
            .client
            .complete_lifecycle_action()
            .auto_scaling_group_name(group)
            .lifecycle_hook_name(hook)
            .instance_id(instance_id)
            .lifecycle_action_result("CONTINUE")
            .send()
            .await
            .map_err(failed("autoscaling:CompleteLifecycleAction", instance_id));
        match reply {
            Ok(_) => Ok(true),
            Err(error) if error.code == "ValidationError" => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest activities first, one page of them.
    pub(crate) async fn activities(&self, group: &str) -> Result<Vec<Activity>, CallError> {
        let reply = self
            .client
            .describe_scaling_activities()
            .auto_scaling_group_name(group)
            .send()
            .await
            .map_err(failed("autoscaling:DescribeScalingActivities", group))?;
        let activities = reply.activities.unwrap_or_default();
        Ok(activities
            .into_iter()
            .map(|activity| Activity {
                id: activity.activity_id.unwrap_or_default(),
                description: activity.description.unwrap_or_default(),
                message: activity.status_message.unwrap_or_default(),
                has_failed: matches!(
                    activity.status_code,
                    Some(ScalingActivityStatusCode::Failed | ScalingActivityStatusCode::Cancelled)
                ),
            })
            .collect())
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), CallError> {
        let request = self.client.delete_auto_scaling_group();
        let reply = request.auto_scaling_group_name(name).send().await;
        let reply = reply
            .map(drop)
            .map_err(failed("autoscaling:DeleteAutoScalingGroup", name));
        match reply {
            // Its way of saying "not found".
            Err(error) if error.code == "ValidationError" && error.says("not found") => Ok(()),
            other => found(other).map(drop),
        }
    }
}

impl Activity {
    /// The instance it was about, if it names one.
    pub(crate) fn instance_id(&self) -> Option<&str> {
        let start = self.description.find("i-")?;
        let rest = &self.description[start..];
        let end = rest[2..]
            .find(|c: char| !c.is_ascii_hexdigit())
            .map_or(rest.len(), |end| end + 2);
        (end > 2).then(|| &rest[..end])
    }
}

impl CallError {
    /// IAM has not told Auto Scaling about a new instance profile yet.
    pub(crate) fn is_profile_unknown_yet(&self) -> bool {
        self.kind == Kind::Other && self.says("Invalid IAM Instance Profile")
    }
}

fn read(group: SdkGroup) -> AutoScalingGroup {
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
        min: unsigned(group.min_size),
        max: unsigned(group.max_size),
        desired: unsigned(group.desired_capacity),
        template_version: version(specification),
        mix,
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
        on_demand_base: unsigned(base),
        on_demand_percent: percent.map_or(100, |percent| unsigned(Some(percent))),
        spot_allocation: spot.unwrap_or_else(|| "lowest-price".to_owned()),
    }
}

fn version(specification: Option<LaunchTemplateSpecification>) -> Option<i64> {
    specification?.version?.parse().ok()
}

fn read_hook(hook: LifecycleHook) -> Option<Hook> {
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
        .then(|| unsigned(hook.heartbeat_timeout));
    Some(Hook {
        name: hook.lifecycle_hook_name?,
        transition,
        timeout_seconds: timeout.unwrap_or_default(),
    })
}

fn hook_specification(hook: &Hook) -> LifecycleHookSpecification {
    let (transition, result) = wire(hook.transition);
    LifecycleHookSpecification::builder()
        .lifecycle_hook_name(&hook.name)
        .lifecycle_transition(transition)
        .default_result(result)
        .heartbeat_timeout(size(hook.timeout_seconds))
        .build()
}

/// With the result when nobody answers: an unproven node must not serve, and a leaving one must
/// not cut other hooks short, which ABANDON would.
fn wire(transition: Transition) -> (&'static str, &'static str) {
    match transition {
        Transition::Launching => (LAUNCHING, "ABANDON"),
        Transition::Terminating => (TERMINATING, "CONTINUE"),
    }
}

fn template_shapes(
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
                .on_demand_base_capacity(size(mix.on_demand_base))
                .on_demand_percentage_above_base_capacity(size(mix.on_demand_percent))
                .spot_allocation_strategy(&mix.spot_allocation)
                .build(),
        )
        .build();
    (None, Some(policy))
}

fn group_tags(group: &str, tags: &BTreeMap<String, GroupTag>) -> Vec<Tag> {
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

fn size(size: u32) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

fn unsigned(size: Option<i32>) -> u32 {
    size.and_then(|size| u32::try_from(size).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activity_names_its_instance() {
        let activity = |description: &str| Activity {
            id: String::new(),
            description: description.to_owned(),
            message: String::new(),
            has_failed: true,
        };
        let launch = activity("Launching a new EC2 instance: i-0abc12.  Status Reason: none");
        assert_eq!(launch.instance_id(), Some("i-0abc12"));
        assert_eq!(activity("Launching a new EC2 instance").instance_id(), None);
        assert_eq!(activity("i-").instance_id(), None);
    }
}
