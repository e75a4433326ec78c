//! What callers ask for, in the shapes of the Auto Scaling API. A parameter that is not listed
//! here is refused by name: nothing is accepted and then forgotten.

use serde::{Deserialize, Serialize};

use super::describe::members;

/// CreateAutoScalingGroup and UpdateAutoScalingGroup. Tags and hooks belong to the former.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct GroupRequest {
    /// Name.
    pub auto_scaling_group_name: String,
    /// One template for all.
    pub launch_template: Option<TemplateSpec>,
    /// Several instance types.
    pub mixed_instances_policy: Option<MixedInstancesPolicy>,
    /// Lower bound.
    pub min_size: Option<u32>,
    /// Upper bound.
    pub max_size: Option<u32>,
    /// Wanted; the lower bound if absent.
    pub desired_capacity: Option<u32>,
    /// Stored.
    pub default_cooldown: Option<u32>,
    /// Taken from the subnets; alone they are not enough.
    pub availability_zones: Vec<String>,
    /// `EC2` or `ELB`; stored.
    pub health_check_type: Option<String>,
    /// Seconds after InService in which SetInstanceHealth may be ignored.
    pub health_check_grace_period: Option<u32>,
    /// Subnet ids with commas.
    #[serde(rename = "VPCZoneIdentifier")]
    pub vpc_zone_identifier: Option<String>,
    /// Which instance goes first.
    pub termination_policies: Vec<String>,
    /// Protection of instances as they come into service.
    pub new_instances_protected_from_scale_in: Option<bool>,
    /// Stored.
    pub capacity_rebalance: Option<bool>,
    /// Stored.
    pub max_instance_lifetime: Option<u32>,
    /// Stored.
    pub default_instance_warmup: Option<u32>,
    /// Stored.
    pub instance_maintenance_policy: Option<InstanceMaintenancePolicy>,
    /// `none`, `prevent-force-deletion` or `prevent-all-deletion`.
    pub deletion_protection: Option<String>,
    /// Stored.
    pub availability_zone_distribution: Option<ZoneDistribution>,
    /// Stored.
    #[serde(rename = "ServiceLinkedRoleARN")]
    pub service_linked_role_arn: Option<String>,
    /// Creation only.
    pub tags: Vec<TagSpec>,
    /// Creation only: hooks that are there before the first instance.
    pub lifecycle_hook_specification_list: Vec<HookRequest>,
}

/// `AvailabilityZoneDistribution`; stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ZoneDistribution {
    /// `balanced-best-effort` or `balanced-only`.
    pub capacity_distribution_strategy: String,
}

/// EnableMetricsCollection and DisableMetricsCollection (which has no granularity).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct MetricsCollection {
    /// Name.
    pub auto_scaling_group_name: String,
    /// All if empty.
    pub metrics: Vec<String>,
    /// `1Minute`.
    pub granularity: Option<String>,
}

/// A launch template; id or name, version a number, `$Latest` or `$Default`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct TemplateSpec {
    /// `lt-…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_template_id: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_template_name: Option<String>,
    /// `$Default` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Several instance types in one group. Launches take the first override, as on-demand launches
/// with the `prioritized` strategy do while it has capacity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct MixedInstancesPolicy {
    /// Template and overrides.
    pub launch_template: MixedTemplate,
    /// On demand or Spot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances_distribution: Option<InstancesDistribution>,
}

/// See [`MixedInstancesPolicy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct MixedTemplate {
    /// The template.
    pub launch_template_specification: TemplateSpec,
    /// Instance types in order of preference.
    #[serde(serialize_with = "members")]
    pub overrides: Vec<TemplateOverride>,
}

/// See [`MixedInstancesPolicy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct TemplateOverride {
    /// Instance type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
}

/// See [`MixedInstancesPolicy`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct InstancesDistribution {
    /// Stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_allocation_strategy: Option<String>,
    /// So many before any is Spot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_base_capacity: Option<u32>,
    /// Beyond the base; 100 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_demand_percentage_above_base_capacity: Option<u32>,
    /// Stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot_allocation_strategy: Option<String>,
    /// Stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot_instance_pools: Option<u32>,
    /// Stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot_max_price: Option<String>,
}

/// Stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct InstanceMaintenancePolicy {
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy_percentage: Option<i32>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_healthy_percentage: Option<i32>,
}

/// DeleteAutoScalingGroup.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeleteGroup {
    /// Name.
    pub auto_scaling_group_name: String,
    /// Terminates the instances, without their hooks.
    pub force_delete: Option<bool>,
}

/// SetDesiredCapacity.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct SetDesiredCapacity {
    /// Name.
    pub auto_scaling_group_name: String,
    /// Within the bounds.
    pub desired_capacity: u32,
    /// There are no cooldowns here.
    pub honor_cooldown: Option<bool>,
}

/// A tag of CreateOrUpdateTags, DeleteTags or creation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct TagSpec {
    /// Group name; implied at creation.
    pub resource_id: String,
    /// `auto-scaling-group`.
    pub resource_type: String,
    /// Key.
    pub key: String,
    /// Value.
    pub value: Option<String>,
    /// Onto instances launched from now on.
    pub propagate_at_launch: Option<bool>,
}

/// CreateOrUpdateTags, DeleteTags.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Tags {
    /// The tags.
    pub tags: Vec<TagSpec>,
}

/// `Filters` of a describe call.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct Filter {
    /// Which.
    pub name: String,
    /// Any of these.
    pub values: Vec<String>,
}

/// DescribeAutoScalingGroups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeGroups {
    /// All if empty.
    pub auto_scaling_group_names: Vec<String>,
    /// `tag:KEY` and `tag-key`.
    pub filters: Vec<Filter>,
    /// Default true.
    pub include_instances: Option<bool>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// DescribeAutoScalingInstances.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeInstances {
    /// All if empty.
    pub instance_ids: Vec<String>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// DescribeScalingActivities.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeActivities {
    /// All groups if absent.
    pub auto_scaling_group_name: Option<String>,
    /// All if empty.
    pub activity_ids: Vec<String>,
    /// Activities of deleted groups are not kept.
    pub include_deleted_groups: Option<bool>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// DescribeTags.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeTags {
    /// `auto-scaling-group`, `key`, `value`, `propagate-at-launch`.
    pub filters: Vec<Filter>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// DescribePolicies.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribePolicies {
    /// All groups if absent.
    pub auto_scaling_group_name: Option<String>,
    /// All if empty.
    pub policy_names: Vec<String>,
    /// All if empty.
    pub policy_types: Vec<String>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// PutScalingPolicy, of steps.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct PutScalingPolicy {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Policy name.
    pub policy_name: String,
    /// `StepScaling`; others are refused.
    pub policy_type: Option<String>,
    /// `ChangeInCapacity`; others are refused.
    pub adjustment_type: Option<String>,
    /// Stored.
    pub metric_aggregation_type: Option<String>,
    /// Steps by how far the metric is beyond its alarm's threshold.
    pub step_adjustments: Vec<StepAdjustment>,
    /// Stored; nothing warms up.
    pub estimated_instance_warmup: Option<u32>,
    /// Default true.
    pub enabled: Option<bool>,
}

/// A step of a [`PutScalingPolicy`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct StepAdjustment {
    /// Relative to the threshold; without end if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_interval_lower_bound: Option<f64>,
    /// Relative to the threshold; without end if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_interval_upper_bound: Option<f64>,
    /// Nodes, fewer if negative.
    pub scaling_adjustment: i32,
}

/// DeletePolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeletePolicy {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Policy name.
    pub policy_name: String,
}

/// PutLifecycleHook, or a hook of creation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct HookRequest {
    /// Hook name.
    pub lifecycle_hook_name: String,
    /// Group name; implied at creation.
    pub auto_scaling_group_name: String,
    /// `autoscaling:EC2_INSTANCE_LAUNCHING` or `…_TERMINATING`.
    pub lifecycle_transition: Option<String>,
    /// 30 to 7200 seconds, default 3600.
    pub heartbeat_timeout: Option<u32>,
    /// `CONTINUE` or `ABANDON`, default `ABANDON`.
    pub default_result: Option<String>,
    /// Stored.
    pub notification_metadata: Option<String>,
}

/// DeleteLifecycleHook.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeleteHook {
    /// Hook name.
    pub lifecycle_hook_name: String,
    /// Group name.
    pub auto_scaling_group_name: String,
}

/// DescribeLifecycleHooks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeHooks {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// All if empty.
    pub lifecycle_hook_names: Vec<String>,
}

/// CompleteLifecycleAction and RecordLifecycleActionHeartbeat (which has no result).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct LifecycleAction {
    /// Hook name.
    pub lifecycle_hook_name: String,
    /// Group name.
    pub auto_scaling_group_name: String,
    /// From a notification; either this or the instance id.
    pub lifecycle_action_token: Option<String>,
    /// `CONTINUE` or `ABANDON`.
    pub lifecycle_action_result: Option<String>,
    /// Either this or the token.
    pub instance_id: Option<String>,
}

/// SetInstanceHealth.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct SetInstanceHealth {
    /// EC2 instance id.
    pub instance_id: String,
    /// `Healthy` or `Unhealthy`.
    pub health_status: String,
    /// Default true.
    pub should_respect_grace_period: Option<bool>,
}

/// SetInstanceProtection.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct SetInstanceProtection {
    /// At most 50.
    pub instance_ids: Vec<String>,
    /// Group name.
    pub auto_scaling_group_name: String,
    /// From scale-in.
    pub protected_from_scale_in: bool,
}

/// TerminateInstanceInAutoScalingGroup.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct TerminateInstance {
    /// EC2 instance id.
    pub instance_id: String,
    /// Whether it is not to be replaced.
    pub should_decrement_desired_capacity: bool,
}

/// PutWarmPool.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct PutWarmPool {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// -1 for the group's maximum.
    pub max_group_prepared_capacity: Option<i32>,
    /// Default 0.
    pub min_size: Option<u32>,
    /// `Stopped` (default), `Running` or `Hibernated`.
    pub pool_state: Option<String>,
    /// Refused if it asks for anything.
    pub instance_reuse_policy: Option<InstanceReusePolicy>,
}

/// See [`PutWarmPool`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct InstanceReusePolicy {
    /// Must not be true.
    pub reuse_on_scale_in: Option<bool>,
}

/// DeleteWarmPool.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeleteWarmPool {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Without hooks.
    pub force_delete: Option<bool>,
}

/// DescribeWarmPool.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeWarmPool {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}

/// EnterStandby.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct EnterStandby {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// EC2 instance ids.
    pub instance_ids: Vec<String>,
    /// Whether they are not to be replaced.
    pub should_decrement_desired_capacity: bool,
}

/// ExitStandby.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct ExitStandby {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// EC2 instance ids.
    pub instance_ids: Vec<String>,
}

/// DetachInstances.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DetachInstances {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// EC2 instance ids.
    pub instance_ids: Vec<String>,
    /// Whether they are not to be replaced.
    pub should_decrement_desired_capacity: bool,
}

/// PutScheduledUpdateGroupAction.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct PutSchedule {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Its own.
    pub scheduled_action_name: String,
    /// Five fields.
    pub recurrence: Option<String>,
    /// UTC if absent.
    pub time_zone: Option<String>,
    /// New lower bound.
    pub min_size: Option<u32>,
    /// New upper bound.
    pub max_size: Option<u32>,
    /// New desired capacity.
    pub desired_capacity: Option<u32>,
}

/// DeleteScheduledAction.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DeleteSchedule {
    /// Group name.
    pub auto_scaling_group_name: String,
    /// Its own.
    pub scheduled_action_name: String,
}

/// DescribeScheduledActions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
pub struct DescribeSchedules {
    /// All groups if absent.
    pub auto_scaling_group_name: Option<String>,
    /// All if empty.
    pub scheduled_action_names: Vec<String>,
    /// Page.
    pub next_token: Option<String>,
    /// Page size.
    pub max_records: Option<usize>,
}
