//! Groups: creation, change, deletion, tags.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use super::{
    Model,
    activity::Activity,
    at,
    hooks::Hook,
    invalid,
    policies::ScalingPolicy,
    requests::{
        DeleteGroup, GroupRequest, InstanceMaintenancePolicy, MetricsCollection,
        MixedInstancesPolicy, SetDesiredCapacity, TagSpec, Tags, TemplateSpec, ZoneDistribution,
    },
    roster::Roster,
    schedules::Schedule,
    warm_pool::WarmPool,
};
use crate::api_error::ApiError;

/// Those of a group without a warm pool (API reference, EnableMetricsCollection).
const METRICS: &[&str] = &[
    "GroupMinSize",
    "GroupMaxSize",
    "GroupDesiredCapacity",
    "GroupInServiceInstances",
    "GroupPendingInstances",
    "GroupStandbyInstances",
    "GroupTerminatingInstances",
    "GroupTotalInstances",
];

/// A group. Fields are for reading; the model changes them.
#[derive(Debug, Clone)]
pub struct Group {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Lower bound.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Wanted.
    pub desired: u32,
    /// Whether instances are protected from scale-in as they come into service.
    pub protects_new_instances: bool,
    /// Tags by key.
    pub tags: BTreeMap<String, GroupTag>,
    /// Hooks by name.
    pub hooks: BTreeMap<String, Hook>,
    /// Every instance that is not gone yet, oldest first.
    pub instances: Roster,
    /// Its warm pool, if it has one.
    pub warm_pool: Option<WarmPool>,
    /// Scheduled actions by name.
    pub schedules: BTreeMap<String, Schedule>,
    /// Scaling policies by name.
    pub policies: BTreeMap<String, ScalingPolicy>,
    /// Newest first.
    pub activities: VecDeque<Activity>,
    pub(super) template: Template,
    pub(super) subnets: Vec<Subnet>,
    pub(super) stored: Stored,
    pub(super) created: Timestamp,
    /// Launches that failed since one last came into service.
    pub(super) launch_failures: u32,
    /// No launch before.
    pub(super) launch_not_before: Option<Timestamp>,
    /// Why capacity last changed, for activities.
    pub(super) cause: String,
    /// Deletion by force is under way: everything goes, without hooks.
    pub(super) deleting: bool,
}

/// A tag of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTag {
    /// Value.
    pub value: String,
    /// Onto instances at launch.
    pub propagate: bool,
}

/// Where instances can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Subnet id.
    pub id: String,
    /// Its Availability Zone.
    pub availability_zone: String,
}

#[derive(Debug, Clone)]
pub(super) enum Template {
    One(TemplateSpec),
    Mixed(MixedInstancesPolicy),
}

impl Template {
    pub(super) fn spec(&self) -> &TemplateSpec {
        match self {
            Self::One(spec) => spec,
            Self::Mixed(policy) => &policy.launch_template.launch_template_specification,
        }
    }

    /// How many are on demand before any is Spot, and how many in a hundred of those beyond.
    pub(super) fn on_demand(&self) -> (usize, usize) {
        let distribution = match self {
            Self::One(_) => None,
            Self::Mixed(policy) => policy.instances_distribution.as_ref(),
        };
        let base = distribution.and_then(|found| found.on_demand_base_capacity);
        let percent = distribution.and_then(|f| f.on_demand_percentage_above_base_capacity);
        (base.unwrap_or(0) as usize, percent.unwrap_or(100) as usize)
    }

    pub(super) fn may_use_spot(&self) -> bool {
        self.on_demand().1 < 100
    }
}

/// What is kept and given back, and little or nothing else.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) default_cooldown: u32,
    pub(super) health_check_type: String,
    pub(super) health_check_grace_period: u32,
    pub(super) termination_policies: Vec<String>,
    pub(super) capacity_rebalance: Option<bool>,
    pub(super) max_instance_lifetime: Option<u32>,
    pub(super) default_instance_warmup: Option<u32>,
    pub(super) instance_maintenance_policy: Option<InstanceMaintenancePolicy>,
    pub(super) deletion_protection: String,
    pub(super) zone_distribution: ZoneDistribution,
    /// Names of the metrics that are collected.
    pub(super) metrics: BTreeSet<String>,
    pub(super) service_linked_role_arn: String,
}

impl Model {
    /// CreateAutoScalingGroup. `subnets` are those of the request, with their zones.
    ///
    /// # Errors
    /// `AlreadyExists`, `ValidationError`.
    pub fn create_group(
        &mut self,
        request: GroupRequest,
        subnets: Vec<Subnet>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let name = request.auto_scaling_group_name.clone();
        check_name(&name)?;
        if self.groups.contains_key(&name) {
            return Err(ApiError::new(
                "AlreadyExists",
                "AutoScalingGroup by this name already exists - A group with the name \
                 already exists",
            ));
        }
        let (Some(min), Some(max)) = (request.min_size, request.max_size) else {
            return Err(invalid("MinSize and MaxSize are required"));
        };
        let desired = request.desired_capacity.unwrap_or(min);
        check_bounds(min, max, desired)?;
        let template = template(&request)?.ok_or_else(|| {
            invalid(
                "Valid requests must contain either launchTemplate, LaunchConfigurationName, \
                 InstanceId or MixedInstancesPolicy parameter.",
            )
        })?;
        if subnets.is_empty() {
            return Err(invalid(
                "At least one Availability Zone or VPC Subnet is required.",
            ));
        }
        let mut hooks = BTreeMap::new();
        for hook in &request.lifecycle_hook_specification_list {
            let hook = Hook::new(hook, None)?;
            hooks.insert(hook.name.clone(), hook);
        }
        let (region, account) = (
            self.context.options.region.clone(),
            self.context.options.account_id.clone(),
        );
        let arn = format!(
            "arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{}:autoScalingGroupName/{name}",
            self.context.ids.uuid()
        );
        let stored = Stored {
            default_cooldown: 300,
            health_check_type: "EC2".to_owned(),
            health_check_grace_period: 0,
            termination_policies: vec!["Default".to_owned()],
            capacity_rebalance: None,
            max_instance_lifetime: None,
            default_instance_warmup: None,
            instance_maintenance_policy: None,
            deletion_protection: "none".to_owned(),
            zone_distribution: ZoneDistribution {
                capacity_distribution_strategy: "balanced-best-effort".to_owned(),
            },
            metrics: BTreeSet::new(),
            service_linked_role_arn: format!(
                "arn:aws:iam::{account}:role/aws-service-role/autoscaling.amazonaws.com/\
                 AWSServiceRoleForAutoScaling"
            ),
        };
        let mut group = Group {
            name: name.clone(),
            arn,
            min,
            max,
            desired,
            protects_new_instances: false,
            tags: BTreeMap::new(),
            hooks,
            instances: Roster::default(),
            warm_pool: None,
            schedules: BTreeMap::new(),
            policies: BTreeMap::new(),
            activities: VecDeque::new(),
            template,
            subnets,
            stored,
            created: now,
            launch_failures: 0,
            launch_not_before: None,
            cause: format!(
                "{} a user request created an AutoScalingGroup changing the desired capacity \
                 from 0 to {desired}.",
                at(now)
            ),
            deleting: false,
        };
        for tag in &request.tags {
            group.tag(tag)?;
        }
        group.settle(request);
        self.groups.insert(name.clone(), group);
        self.reconcile(&name, now);
        Ok(())
    }

    /// UpdateAutoScalingGroup. `subnets` as in [`Model::create_group`], when the request has any.
    ///
    /// # Errors
    /// `ValidationError`; nothing is changed then.
    pub fn update_group(
        &mut self,
        request: GroupRequest,
        subnets: Option<Vec<Subnet>>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let name = request.auto_scaling_group_name.clone();
        let group = self.group_mut(&name)?;
        group.refuse_while_deleting()?;
        let min = request.min_size.unwrap_or(group.min);
        let max = request.max_size.unwrap_or(group.max);
        // Without a desired capacity of its own, a change of the bounds moves it inside them.
        let desired = match request.desired_capacity {
            Some(desired) => desired,
            None if min <= max => group.desired.clamp(min, max),
            None => group.desired,
        };
        check_bounds(min, max, desired)?;
        let template = template(&request)?;
        let before = group.desired;
        (group.min, group.max, group.desired) = (min, max, desired);
        if let Some(template) = template {
            group.template = template;
            group.forget_launch_failures();
        }
        if let Some(subnets) = subnets {
            group.subnets = subnets;
        }
        group.settle(request);
        if before != desired {
            group.cause = format!(
                "{} a user request update of AutoScalingGroup constraints to min: {min}, max: \
                 {max}, desired: {desired} changing the desired capacity from {before} to \
                 {desired}.",
                at(now)
            );
        }
        self.reconcile(&name, now);
        Ok(())
    }

    /// SetDesiredCapacity.
    ///
    /// # Errors
    /// `ValidationError` outside the bounds.
    pub fn set_desired_capacity(
        &mut self,
        request: SetDesiredCapacity,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let name = request.auto_scaling_group_name;
        let desired = request.desired_capacity;
        let group = self.group_mut(&name)?;
        group.refuse_while_deleting()?;
        if desired > group.max {
            return Err(invalid(format!(
                "New SetDesiredCapacity value {desired} is above max value {} for the \
                 AutoScalingGroup.",
                group.max
            )));
        }
        if desired < group.min {
            return Err(invalid(format!(
                "New SetDesiredCapacity value {desired} is below min value {} for the \
                 AutoScalingGroup.",
                group.min
            )));
        }
        group.cause = format!(
            "{} a user request explicitly set group desired capacity changing the desired \
             capacity from {} to {desired}.",
            at(now),
            group.desired
        );
        group.desired = desired;
        self.reconcile(&name, now);
        Ok(())
    }

    /// DeleteAutoScalingGroup.
    ///
    /// # Errors
    /// `ResourceInUse` with instances, `ScalingActivityInProgress` while they come or go;
    /// neither with force.
    pub fn delete_group(&mut self, request: DeleteGroup, now: Timestamp) -> Result<(), ApiError> {
        let name = request.auto_scaling_group_name;
        let force = request.force_delete.unwrap_or(false);
        let group = self.group_mut(&name)?;
        match group.stored.deletion_protection.as_str() {
            "prevent-all-deletion" => {
                return Err(ApiError::new(
                    "ResourceInUse",
                    "The group has deletion protection prevent-all-deletion.",
                ));
            }
            "prevent-force-deletion" if force => {
                return Err(ApiError::new(
                    "ResourceInUse",
                    "The group has deletion protection prevent-force-deletion.",
                ));
            }
            _ => {}
        }
        if !force {
            if group.instances.iter().any(|i| !i.state.is_terminating()) {
                return Err(ApiError::new(
                    "ResourceInUse",
                    "You cannot delete an AutoScalingGroup while there are instances or pending \
                     Spot instance request(s) still in the group.",
                ));
            }
            if !group.instances.is_empty() || group.instances.is_launching() {
                return Err(ApiError::new(
                    "ScalingActivityInProgress",
                    "You cannot delete an AutoScalingGroup while there are scaling activities in \
                     progress for that group.",
                ));
            }
        }
        group.deleting = true;
        (group.min, group.max, group.desired) = (0, 0, 0);
        self.reconcile(&name, now);
        Ok(())
    }

    /// EnableMetricsCollection.
    ///
    /// # Errors
    /// `ValidationError` for an unknown group, metric or granularity.
    pub fn enable_metrics(&mut self, request: &MetricsCollection) -> Result<(), ApiError> {
        if request.granularity.as_deref() != Some("1Minute") {
            return Err(invalid("Valid metrics granularity type is: [1Minute]."));
        }
        let metrics = metrics(request)?;
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        group.stored.metrics.extend(metrics);
        Ok(())
    }

    /// DisableMetricsCollection.
    ///
    /// # Errors
    /// `ValidationError` for an unknown group or metric.
    pub fn disable_metrics(&mut self, request: &MetricsCollection) -> Result<(), ApiError> {
        let metrics = metrics(request)?;
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        for metric in metrics {
            group.stored.metrics.remove(&metric);
        }
        Ok(())
    }

    /// CreateOrUpdateTags.
    ///
    /// # Errors
    /// `ValidationError`; nothing is changed then.
    pub fn create_or_update_tags(&mut self, request: &Tags) -> Result<(), ApiError> {
        for tag in &request.tags {
            self.group_mut(&tag.resource_id)?;
            check_tag(tag)?;
        }
        for tag in &request.tags {
            self.group_mut(&tag.resource_id)?.tag(tag)?;
        }
        Ok(())
    }

    /// DeleteTags. Absent tags are no error.
    ///
    /// # Errors
    /// `ValidationError` for an unknown group.
    pub fn delete_tags(&mut self, request: &Tags) -> Result<(), ApiError> {
        for tag in &request.tags {
            let group = self.group_mut(&tag.resource_id)?;
            let differs = |kept: &GroupTag| tag.value.as_ref().is_some_and(|v| *v != kept.value);
            if group.tags.get(&tag.key).is_some_and(|kept| !differs(kept)) {
                group.tags.remove(&tag.key);
            }
        }
        Ok(())
    }
}

impl Group {
    /// Instances and launches that count towards the desired capacity.
    pub fn capacity(&self) -> usize {
        self.instances.capacity()
    }

    pub(super) fn refuse_while_deleting(&self) -> Result<(), ApiError> {
        if self.deleting {
            return Err(ApiError::new(
                "ScalingActivityInProgress",
                format!("AutoScalingGroup {} is pending delete.", self.name),
            ));
        }
        Ok(())
    }

    fn tag(&mut self, tag: &TagSpec) -> Result<(), ApiError> {
        check_tag(tag)?;
        let kept = GroupTag {
            value: tag.value.clone().unwrap_or_default(),
            propagate: tag.propagate_at_launch.unwrap_or(false),
        };
        self.tags.insert(tag.key.clone(), kept);
        if self.tags.len() > 50 {
            self.tags.remove(&tag.key);
            return Err(invalid("A group has at most 50 tags."));
        }
        Ok(())
    }

    /// Takes over the settings that a request has.
    fn settle(&mut self, request: GroupRequest) {
        fn set<T>(kept: &mut T, asked: Option<T>) {
            if let Some(asked) = asked {
                *kept = asked;
            }
        }
        let stored = &mut self.stored;
        set(
            &mut self.protects_new_instances,
            request.new_instances_protected_from_scale_in,
        );
        set(&mut stored.default_cooldown, request.default_cooldown);
        set(&mut stored.health_check_type, request.health_check_type);
        set(
            &mut stored.health_check_grace_period,
            request.health_check_grace_period,
        );
        if !request.termination_policies.is_empty() {
            stored.termination_policies = request.termination_policies;
        }
        set(&mut stored.deletion_protection, request.deletion_protection);
        set(
            &mut stored.zone_distribution,
            request.availability_zone_distribution,
        );
        set(
            &mut stored.service_linked_role_arn,
            request.service_linked_role_arn,
        );
        stored.capacity_rebalance = request.capacity_rebalance.or(stored.capacity_rebalance);
        stored.max_instance_lifetime = request
            .max_instance_lifetime
            .or(stored.max_instance_lifetime);
        stored.default_instance_warmup = request
            .default_instance_warmup
            .or(stored.default_instance_warmup);
        if request.instance_maintenance_policy.is_some() {
            stored.instance_maintenance_policy = request.instance_maintenance_policy;
        }
    }
}

fn template(request: &GroupRequest) -> Result<Option<Template>, ApiError> {
    match (&request.launch_template, &request.mixed_instances_policy) {
        (Some(_), Some(_)) => Err(invalid(
            "Only one of LaunchTemplate and MixedInstancesPolicy can be given.",
        )),
        (Some(spec), None) => Ok(Some(Template::One(spec.clone()))),
        (None, Some(policy)) => Ok(Some(Template::Mixed(policy.clone()))),
        (None, None) => Ok(None),
    }
}

/// Those that a request names, or all.
fn metrics(request: &MetricsCollection) -> Result<Vec<String>, ApiError> {
    let is_unknown = |name: &&String| !METRICS.contains(&name.as_str());
    if let Some(unknown) = request.metrics.iter().find(is_unknown) {
        return Err(invalid(format!("'{unknown}' is no metric of a group")));
    }
    Ok(match request.metrics.as_slice() {
        [] => METRICS.iter().map(|&name| name.to_owned()).collect(),
        named => named.to_vec(),
    })
}

/// 1 to 255 of printable ASCII without colons (the API's own pattern).
fn check_name(name: &str) -> Result<(), ApiError> {
    let legal = (1..=255).contains(&name.len())
        && name
            .bytes()
            .all(|b| (b.is_ascii_graphic() || b == b' ') && b != b':');
    if legal {
        Ok(())
    } else {
        Err(invalid(format!("'{name}' is not a name of a group")))
    }
}

fn check_bounds(min: u32, max: u32, desired: u32) -> Result<(), ApiError> {
    if min > max {
        return Err(invalid(format!(
            "Max bound, {max}, must be greater than or equal to min bound, {min}"
        )));
    }
    if !(min..=max).contains(&desired) {
        return Err(invalid(format!(
            "Desired capacity:{desired} must be between the specified min size:{min} and max \
             size:{max}"
        )));
    }
    Ok(())
}

fn check_tag(tag: &TagSpec) -> Result<(), ApiError> {
    if !(1..=128).contains(&tag.key.chars().count()) {
        return Err(invalid("A tag's key has 1 to 128 characters."));
    }
    if tag.key.starts_with("aws:") {
        return Err(invalid("Tags beginning with aws: are reserved."));
    }
    if tag.value.as_ref().is_some_and(|v| v.chars().count() > 256) {
        return Err(invalid("A tag's value has at most 256 characters."));
    }
    Ok(())
}
