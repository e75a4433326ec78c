//! Auto Scaling groups, their hooks and what they did.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::{
    Client,
    config::Builder,
    types::{
        AutoScalingGroup as SdkGroup, Filter, ScalingActivityStatusCode,
        ScheduledUpdateGroupAction, Tag,
    },
};

use super::{
    error::{CallError, Kind, failed, found},
    group::{
        deletion_protection, group_tags, hook_specification, read, read_hook, read_schedule,
        template_shapes, wire, zone_distribution,
    },
    signed, unsigned,
};
use crate::{
    desired::Hook,
    inventory::{AutoScalingGroup, GroupTag, Mix, Schedule, Tags, WarmPool},
    plan::{GroupChange, NewGroup},
    preflight::Quota,
};

/// Names a DescribeAutoScalingGroups call takes.
const DESCRIBE_BATCH: usize = 50;
/// Instances a DescribeAutoScalingInstances call takes.
const INSTANCE_BATCH: usize = 50;
/// Instances a SetInstanceProtection call takes.
const PROTECTION_BATCH: usize = 50;
/// The only one there is.
const METRICS_GRANULARITY: &str = "1Minute";

#[derive(Debug)]
pub(crate) struct AutoScaling {
    pub(super) client: Client,
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

    /// Names and tags of all groups that have these tags.
    pub(crate) async fn tagged(
        &self,
        tags: &[(&str, &str)],
    ) -> Result<Vec<(String, Tags)>, CallError> {
        let filters = tags.iter().map(|(key, value)| {
            let filter = Filter::builder().name(format!("tag:{key}"));
            filter.values(*value).build()
        });
        let found: Vec<SdkGroup> = self
            .client
            .describe_auto_scaling_groups()
            .set_filters(Some(filters.collect()))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("autoscaling:DescribeAutoScalingGroups", "account"))?;
        let tags = |group: SdkGroup| {
            let tags = group.tags.unwrap_or_default().into_iter();
            let tags = tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())));
            Some((group.auto_scaling_group_name?, tags.collect()))
        };
        Ok(found.into_iter().filter_map(tags).collect())
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
            .max_size(signed(new.max))
            .desired_capacity(0)
            .set_launch_template(single)
            .set_mixed_instances_policy(mixed)
            .vpc_zone_identifier(new.subnets.join(","))
            .new_instances_protected_from_scale_in(new.new_instances_protected)
            .set_max_instance_lifetime(new.policies.max_lifetime_seconds.map(signed))
            .set_deletion_protection(deletion_protection(&new.policies))
            .set_availability_zone_distribution(zone_distribution(&new.policies))
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
            .set_min_size(change.min.map(signed))
            .set_max_size(change.max.map(signed))
            .set_desired_capacity(change.desired.map(signed))
            .set_launch_template(single)
            .set_mixed_instances_policy(mixed)
            .set_vpc_zone_identifier(subnets)
            .set_new_instances_protected_from_scale_in(change.new_instances_protected)
            .set_max_instance_lifetime(change.policies.max_lifetime_seconds.map(signed))
            .set_deletion_protection(deletion_protection(&change.policies))
            .set_availability_zone_distribution(zone_distribution(&change.policies))
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
            .heartbeat_timeout(signed(hook.timeout_seconds))
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:PutLifecycleHook", group))
    }

    /// The scheduled actions of a group, or of all, by group and name.
    pub(crate) async fn schedules(
        &self,
        group: Option<&str>,
    ) -> Result<BTreeMap<String, BTreeMap<String, Schedule>>, CallError> {
        let request = self.client.describe_scheduled_actions();
        let found: Vec<ScheduledUpdateGroupAction> = request
            .set_auto_scaling_group_name(group.map(str::to_owned))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed(
                "autoscaling:DescribeScheduledActions",
                group.unwrap_or("account"),
            ))?;
        let mut schedules: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for action in found {
            let group = action.auto_scaling_group_name.clone().unwrap_or_default();
            schedules
                .entry(group)
                .or_default()
                .extend(read_schedule(action));
        }
        Ok(schedules)
    }

    pub(crate) async fn put_schedule(
        &self,
        group: &str,
        name: &str,
        schedule: &Schedule,
    ) -> Result<(), CallError> {
        self.client
            .put_scheduled_update_group_action()
            .auto_scaling_group_name(group)
            .scheduled_action_name(name)
            .recurrence(&schedule.cron)
            .time_zone(&schedule.time_zone)
            .set_min_size(schedule.min.map(signed))
            .set_max_size(schedule.max.map(signed))
            .set_desired_capacity(schedule.desired.map(signed))
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:PutScheduledUpdateGroupAction", group))
    }

    pub(crate) async fn delete_schedule(&self, group: &str, name: &str) -> Result<(), CallError> {
        let request = self.client.delete_scheduled_action();
        let request = request.auto_scaling_group_name(group);
        let reply = request.scheduled_action_name(name).send().await;
        let reply = reply
            .map(drop)
            .map_err(failed("autoscaling:DeleteScheduledAction", group));
        match reply {
            // Its way of saying "not found".
            Err(error) if error.code == "ValidationError" && error.says("not found") => Ok(()),
            other => other,
        }
    }

    pub(crate) async fn put_warm_pool(
        &self,
        group: &str,
        pool: &WarmPool,
    ) -> Result<(), CallError> {
        /// Its way of saying "the group's maximum", which alone takes a bound away again.
        const GROUPS_MAXIMUM: i32 = -1;
        self.client
            .put_warm_pool()
            .auto_scaling_group_name(group)
            .min_size(signed(pool.min))
            .max_group_prepared_capacity(pool.max_prepared.map_or(GROUPS_MAXIMUM, signed))
            .pool_state(pool.state.as_str().into())
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:PutWarmPool", group))
    }

    /// Terminates what is in the pool as well. Without hooks: a node that is powered off would answer
    /// none, and one that runs has never had a task.
    pub(crate) async fn delete_warm_pool(&self, group: &str) -> Result<(), CallError> {
        let request = self.client.delete_warm_pool().force_delete(true);
        let reply = request.auto_scaling_group_name(group).send().await;
        let reply = reply
            .map(drop)
            .map_err(failed("autoscaling:DeleteWarmPool", group));
        match reply {
            // Gone, or on its way already.
            Err(error) if error.says("No warm pool found") || error.says("pending delete") => {
                Ok(())
            }
            other => other,
        }
    }

    /// Starts or stops all metrics of the group itself.
    pub(crate) async fn collect_metrics(&self, group: &str, is_on: bool) -> Result<(), CallError> {
        if is_on {
            let request = self.client.enable_metrics_collection();
            let request = request.auto_scaling_group_name(group);
            let reply = request.granularity(METRICS_GRANULARITY).send().await;
            return reply
                .map(drop)
                .map_err(failed("autoscaling:EnableMetricsCollection", group));
        }
        let request = self.client.disable_metrics_collection();
        let reply = request.auto_scaling_group_name(group).send().await;
        reply
            .map(drop)
            .map_err(failed("autoscaling:DisableMetricsCollection", group))
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

    pub(crate) async fn untag(&self, group: &str, key: &str) -> Result<(), CallError> {
        let tag = Tag::builder()
            .resource_type("auto-scaling-group")
            .resource_id(group)
            .key(key)
            .build();
        self.client
            .delete_tags()
            .tags(tag)
            .send()
            .await
            .map(drop)
            .map_err(failed("autoscaling:DeleteTags", group))
    }

    /// Sets scale-in protection of instances; those that are gone need none.
    pub(crate) async fn protect(
        &self,
        group: &str,
        instances: &[String],
        protected: bool,
    ) -> Result<(), CallError> {
        for batch in instances.chunks(PROTECTION_BATCH) {
            let reply = self
                .client
                .set_instance_protection()
                .auto_scaling_group_name(group)
                .set_instance_ids(Some(batch.to_vec()))
                .protected_from_scale_in(protected)
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

    /// How many groups there are and may be; `wanted` more are to come.
    pub(crate) async fn quota(&self, wanted: u32) -> Result<Quota, CallError> {
        const CALL: &str = "autoscaling:DescribeAccountLimits";
        let reply = self.client.describe_account_limits().send().await;
        let reply = reply.map_err(failed(CALL, "groups"))?;
        let limit = unsigned(reply.max_number_of_auto_scaling_groups);
        let used = unsigned(reply.number_of_auto_scaling_groups);
        Ok(Quota {
            what: "Auto Scaling groups",
            used: used.ok_or_else(|| CallError::malformed(CALL, "groups", "number"))?,
            limit: limit.ok_or_else(|| CallError::malformed(CALL, "groups", "limit"))?,
            wanted,
        })
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
    /// Shrinking fails, too: while all instances are protected, as a matter of course.
    pub(crate) fn is_launch(&self) -> bool {
        self.description.starts_with("Launching")
    }

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
