//! What describe calls answer, in the shapes of the Auto Scaling API.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{
    Activity, Group, Hook, Instance, Model,
    group::Template,
    invalid,
    requests::{
        DescribeActivities, DescribeGroups, DescribeHooks, DescribeInstances, DescribeTags, Filter,
        InstanceMaintenancePolicy, MixedInstancesPolicy, TemplateSpec, ZoneDistribution,
    },
    warm_pool::DescribedPool,
};
use crate::{
    api_error::ApiError,
    paging::{Page, page},
};

/// Serializes a list as awsQuery has it: its items are called `member`.
///
/// # Errors
/// Those of the serializer.
pub fn members<T: Serialize, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Members<'a, T> {
        member: &'a [T],
    }
    Members { member: items }.serialize(serializer)
}

/// DescribeAutoScalingGroups.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedGroups {
    #[serde(serialize_with = "members")]
    auto_scaling_groups: Vec<DescribedGroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedGroup {
    auto_scaling_group_name: String,
    #[serde(rename = "AutoScalingGroupARN")]
    auto_scaling_group_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch_template: Option<TemplateSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mixed_instances_policy: Option<MixedInstancesPolicy>,
    min_size: u32,
    max_size: u32,
    desired_capacity: u32,
    default_cooldown: u32,
    #[serde(serialize_with = "members")]
    availability_zones: Vec<String>,
    health_check_type: String,
    health_check_grace_period: u32,
    #[serde(serialize_with = "members")]
    instances: Vec<DescribedInstance>,
    created_time: Timestamp,
    #[serde(rename = "VPCZoneIdentifier")]
    vpc_zone_identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(serialize_with = "members")]
    tags: Vec<DescribedTag>,
    #[serde(serialize_with = "members")]
    termination_policies: Vec<String>,
    new_instances_protected_from_scale_in: bool,
    #[serde(rename = "ServiceLinkedRoleARN")]
    service_linked_role_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_instance_lifetime: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_rebalance: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_instance_warmup: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_maintenance_policy: Option<InstanceMaintenancePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_pool_configuration: Option<DescribedPool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_pool_size: Option<usize>,
    deletion_protection: String,
    availability_zone_distribution: ZoneDistribution,
    #[serde(serialize_with = "members")]
    enabled_metrics: Vec<EnabledMetric>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EnabledMetric {
    metric: String,
    granularity: &'static str,
}

/// DescribeAutoScalingInstances.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AutoScalingInstances {
    #[serde(serialize_with = "members")]
    auto_scaling_instances: Vec<DescribedInstance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribedInstance {
    instance_id: String,
    instance_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_scaling_group_name: Option<String>,
    availability_zone: String,
    lifecycle_state: &'static str,
    health_status: &'static str,
    launch_template: TemplateSpec,
    image_id: String,
    protected_from_scale_in: bool,
}

/// DescribeScalingActivities.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedActivities {
    #[serde(serialize_with = "members")]
    activities: Vec<Activity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// TerminateInstanceInAutoScalingGroup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminationReply {
    /// The termination.
    pub activity: Activity,
}

/// EnterStandby, ExitStandby, DetachInstances.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MovementReply {
    /// The moves.
    #[serde(serialize_with = "members")]
    pub activities: Vec<Activity>,
}

/// Auto Scaling groups of a region (Auto Scaling quotas).
const GROUPS_MAX: usize = 500;

/// DescribeAccountLimits.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccountLimits {
    max_number_of_auto_scaling_groups: usize,
    number_of_auto_scaling_groups: usize,
}

/// DescribeLifecycleHooks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedHooks {
    #[serde(serialize_with = "members")]
    lifecycle_hooks: Vec<DescribedHook>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedHook {
    auto_scaling_group_name: String,
    #[serde(flatten)]
    hook: Hook,
    global_timeout: u32,
}

/// DescribeTags.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribedTags {
    #[serde(serialize_with = "members")]
    tags: Vec<DescribedTag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedTag {
    resource_id: String,
    resource_type: &'static str,
    key: String,
    value: String,
    propagate_at_launch: bool,
}

impl Model {
    /// DescribeAutoScalingGroups. Unknown names are left out.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_groups(&self, request: &DescribeGroups) -> Result<DescribedGroups, ApiError> {
        let names = &request.auto_scaling_group_names;
        let mut found = Vec::new();
        for group in self.groups.values() {
            let named =
                names.is_empty() || names.contains(&group.name) || names.contains(&group.arn);
            if named && group.passes(&request.filters)? {
                found.push(group.describe(request.include_instances.unwrap_or(true)));
            }
        }
        let page = paged(
            found,
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(DescribedGroups {
            auto_scaling_groups: page.items,
            next_token: page.next_token,
        })
    }

    /// DescribeAutoScalingInstances. Unknown ids are left out.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_instances(
        &self,
        request: &DescribeInstances,
    ) -> Result<AutoScalingInstances, ApiError> {
        let ids = &request.instance_ids;
        let found = self
            .groups
            .values()
            .flat_map(|group| group.instances.iter().map(move |i| (group, i)))
            .filter(|(_, i)| ids.is_empty() || ids.contains(&i.id))
            .map(|(group, i)| i.describe(Some(group.name.clone())))
            .collect();
        let page = paged(
            found,
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(AutoScalingInstances {
            auto_scaling_instances: page.items,
            next_token: page.next_token,
        })
    }

    /// DescribeScalingActivities, newest first.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_activities(
        &self,
        request: &DescribeActivities,
    ) -> Result<DescribedActivities, ApiError> {
        let name = request.auto_scaling_group_name.as_ref();
        if let Some(name) = name
            && !request.include_deleted_groups.unwrap_or(false)
        {
            self.known_group(name)?;
        }
        let ids = &request.activity_ids;
        let mut found: Vec<Activity> = self
            .groups
            .values()
            .filter(|group| name.is_none_or(|name| *name == group.name))
            .flat_map(|group| group.activities.iter().cloned())
            .filter(|activity| ids.is_empty() || ids.contains(&activity.activity_id))
            .collect();
        found.sort_by_key(|activity| std::cmp::Reverse(activity.start_time));
        let page = paged(
            found,
            request.next_token.as_deref(),
            request.max_records,
            100,
        )?;
        Ok(DescribedActivities {
            activities: page.items,
            next_token: page.next_token,
        })
    }

    /// DescribeLifecycleHooks. Unknown hook names are left out.
    ///
    /// DescribeAccountLimits, as they are in a new account.
    pub fn account_limits(&self) -> AccountLimits {
        AccountLimits {
            max_number_of_auto_scaling_groups: GROUPS_MAX,
            number_of_auto_scaling_groups: self.groups.len(),
        }
    }

    /// # Errors
    /// `ValidationError` for an unknown group.
    pub fn describe_hooks(&self, request: &DescribeHooks) -> Result<DescribedHooks, ApiError> {
        let group = self.known_group(&request.auto_scaling_group_name)?;
        let names = &request.lifecycle_hook_names;
        let hooks = group
            .hooks
            .values()
            .filter(|hook| names.is_empty() || names.contains(&hook.name))
            .map(|hook| DescribedHook {
                auto_scaling_group_name: group.name.clone(),
                global_timeout: hook.global_timeout_seconds(),
                hook: hook.clone(),
            });
        Ok(DescribedHooks {
            lifecycle_hooks: hooks.collect(),
        })
    }

    /// DescribeTags.
    ///
    /// # Errors
    /// `ValidationError`, `InvalidNextToken`.
    pub fn describe_tags(&self, request: &DescribeTags) -> Result<DescribedTags, ApiError> {
        let mut found = Vec::new();
        for tag in self.groups.values().flat_map(Group::describe_tags) {
            let mut passes = true;
            for filter in &request.filters {
                let value = match filter.name.as_str() {
                    "auto-scaling-group" => tag.resource_id.clone(),
                    "key" => tag.key.clone(),
                    "value" => tag.value.clone(),
                    "propagate-at-launch" => tag.propagate_at_launch.to_string(),
                    other => return Err(unknown_filter(other)),
                };
                passes &= filter.values.contains(&value);
            }
            if passes {
                found.push(tag);
            }
        }
        let page = paged(
            found,
            request.next_token.as_deref(),
            request.max_records,
            50,
        )?;
        Ok(DescribedTags {
            tags: page.items,
            next_token: page.next_token,
        })
    }
}

impl Group {
    fn passes(&self, filters: &[Filter]) -> Result<bool, ApiError> {
        for filter in filters {
            let passes = if let Some(key) = filter.name.strip_prefix("tag:") {
                let value = self.tags.get(key).map(|tag| &tag.value);
                value.is_some_and(|value| filter.values.contains(value))
            } else if filter.name == "tag-key" {
                filter.values.iter().any(|key| self.tags.contains_key(key))
            } else {
                return Err(unknown_filter(&filter.name));
            };
            if !passes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn describe(&self, with_instances: bool) -> DescribedGroup {
        let (launch_template, mixed_instances_policy) = match &self.template {
            Template::One(spec) => (Some(spec.clone()), None),
            Template::Mixed(policy) => (None, Some(policy.clone())),
        };
        let mut zones: Vec<String> = self
            .subnets
            .iter()
            .map(|s| s.availability_zone.clone())
            .collect();
        zones.sort();
        zones.dedup();
        let subnets: Vec<&str> = self.subnets.iter().map(|s| s.id.as_str()).collect();
        let stored = self.stored.clone();
        DescribedGroup {
            auto_scaling_group_name: self.name.clone(),
            auto_scaling_group_arn: self.arn.clone(),
            launch_template,
            mixed_instances_policy,
            min_size: self.min,
            max_size: self.max,
            desired_capacity: self.desired,
            default_cooldown: stored.default_cooldown,
            availability_zones: zones,
            health_check_type: stored.health_check_type,
            health_check_grace_period: stored.health_check_grace_period,
            instances: self
                .instances
                .iter()
                // Those of the warm pool are in DescribeWarmPool.
                .filter(|i| with_instances && i.warm.is_none())
                .map(|i| i.describe(None))
                .collect(),
            created_time: self.created,
            vpc_zone_identifier: subnets.join(","),
            status: self.deleting.then_some("Delete in progress"),
            tags: self.describe_tags().collect(),
            termination_policies: stored.termination_policies,
            new_instances_protected_from_scale_in: self.protects_new_instances,
            service_linked_role_arn: stored.service_linked_role_arn,
            max_instance_lifetime: stored.max_instance_lifetime,
            capacity_rebalance: stored.capacity_rebalance,
            default_instance_warmup: stored.default_instance_warmup,
            instance_maintenance_policy: stored.instance_maintenance_policy,
            warm_pool_configuration: self.describe_pool(),
            warm_pool_size: self.warm_pool.as_ref().map(|_| {
                let pooled = self.instances.iter().filter(|i| i.state.is_pooled());
                pooled.count()
            }),
            deletion_protection: stored.deletion_protection,
            availability_zone_distribution: stored.zone_distribution,
            enabled_metrics: stored
                .metrics
                .into_iter()
                .map(|metric| EnabledMetric {
                    metric,
                    granularity: "1Minute",
                })
                .collect(),
        }
    }

    fn describe_tags(&self) -> impl Iterator<Item = DescribedTag> {
        self.tags.iter().map(|(key, tag)| DescribedTag {
            resource_id: self.name.clone(),
            resource_type: "auto-scaling-group",
            key: key.clone(),
            value: tag.value.clone(),
            propagate_at_launch: tag.propagate,
        })
    }
}

impl Instance {
    pub(super) fn describe(&self, group: Option<String>) -> DescribedInstance {
        // The two calls spell health differently.
        let health_status = match (group.is_some(), self.healthy) {
            (true, true) => "HEALTHY",
            (true, false) => "UNHEALTHY",
            (false, true) => "Healthy",
            (false, false) => "Unhealthy",
        };
        DescribedInstance {
            instance_id: self.id.clone(),
            instance_type: self.instance_type.clone(),
            auto_scaling_group_name: group,
            availability_zone: self.availability_zone.clone(),
            lifecycle_state: self.state.as_str(),
            health_status,
            launch_template: self.template.clone(),
            image_id: self.image_id.clone(),
            protected_from_scale_in: self.protected,
        }
    }
}

fn unknown_filter(name: &str) -> ApiError {
    invalid(format!(
        "'{name}' is not a filter that fleet-sandbox serves"
    ))
}

pub(super) fn paged<T>(
    items: Vec<T>,
    token: Option<&str>,
    size: Option<usize>,
    default: usize,
) -> Result<Page<T>, ApiError> {
    let size = size.unwrap_or(default);
    if !(1..=100).contains(&size) {
        return Err(invalid("MaxRecords must be between 1 and 100."));
    }
    page(items, token, size)
        .ok_or_else(|| ApiError::new("InvalidNextToken", "The token is not valid."))
}
