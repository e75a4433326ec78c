//! EC2 Auto Scaling as a pure model: no clock, no input or output, no randomness.
//!
//! Every call is a method with the request and the time; what the outside world has to do comes
//! out of [`Model::take_effects`], and [`Model::next_deadline`] says when [`Model::advance`] has
//! something to do even if nobody calls.
//!
//! # Guarantees
//! - A hook really holds its instance until it is answered, deleted or out of time.
//! - Scale-in never picks a protected instance: the group then stays above its desired capacity.
//! - Instances that are terminating, in standby or in the warm pool do not count towards capacity.
//! - Transitions that take seconds on AWS happen at once, except for
//!   [`Options::imds_lead`]: the instance metadata service may say `Terminated` before the API
//!   shows `Terminating:Wait`, as on AWS, and never later.
//!
//! # Not served
//! Instance refresh, attaching, scaling policies but for steps, suspension, load balancers. Scheduled actions
//! are kept and never carried out; nor does a lifetime end. Step scaling policies are carried out as they are
//! told to be ([`Model::scale_by_step`]), at once: nothing warms up.

mod activity;
mod capacity;
mod describe;
mod group;
mod hooks;
mod instances;
mod lifecycle;
mod policies;
pub mod requests;
mod roster;
mod schedules;
mod standby;
mod warm_pool;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{api_error::ApiError, ids::Ids};

pub use activity::Activity;
pub use describe::{
    AutoScalingInstances, DescribedActivities, DescribedGroups, DescribedHooks, DescribedTags,
    MovementReply, TerminationReply, members,
};
pub use group::{Group, GroupTag, Subnet};
pub use hooks::{Hook, Transition};
pub use instances::{Instance, LifecycleState, PoolState};
pub use policies::{DescribedPolicies, ScalingPolicy};
pub use requests::TemplateSpec;
pub use roster::Roster;
pub use schedules::{DescribedSchedules, Schedule};
pub use warm_pool::{WarmPool, WarmPoolReply};

/// What differs between the accounts and regions a model stands for, and what AWS leaves open.
#[derive(Debug, Clone)]
pub struct Options {
    /// Region, in ARNs.
    pub region: String,
    /// Account, in ARNs.
    pub account_id: String,
    /// How long the metadata service says `Terminated` before the instance is in
    /// `Terminating:Wait`. AWS gives no number; that it comes first is what agents meet.
    pub imds_lead: SignedDuration,
    /// Seed of the identifiers.
    pub seed: u64,
}

/// What the world has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Run an instance; answered by [`Model::launched`] or [`Model::launch_failed`].
    Launch(LaunchOrder),
    /// Terminate an instance; answered by [`Model::machine_gone`].
    Terminate {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Power a machine off and keep it; answered by [`Model::machine_stopped`].
    Stop {
        /// EC2 instance id.
        instance_id: String,
    },
    /// Power it on again; answered by [`Model::machine_started`].
    Start {
        /// EC2 instance id.
        instance_id: String,
    },
}

/// An instance to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOrder {
    /// Names this launch until there is an instance id.
    pub launch_id: String,
    /// Group name.
    pub group: String,
    /// Launch template, its version perhaps `$Latest` or `$Default`.
    pub template: TemplateSpec,
    /// Overrides the template's instance type.
    pub instance_type: Option<String>,
    /// Where.
    pub subnet: Subnet,
    /// Whether from the Spot market.
    pub spot: bool,
    /// Tags that the group propagates at launch.
    pub tags: BTreeMap<String, String>,
}

/// What running an instance made of a [`LaunchOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// EC2 instance id.
    pub instance_id: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// AMI id.
    pub image_id: String,
    /// The template with its version as a number.
    pub template: TemplateSpec,
}

/// All groups of one account and region.
#[derive(Debug, Clone)]
pub struct Model {
    groups: BTreeMap<String, Group>,
    /// Group of each instance.
    homes: BTreeMap<String, String>,
    /// Instances that have left their group and run on.
    detached: BTreeSet<String>,
    context: Context,
}

/// What groups need besides themselves to change.
#[derive(Debug, Clone)]
struct Context {
    options: Options,
    ids: Ids,
    effects: Vec<Effect>,
}

impl Model {
    /// An account without groups.
    pub fn new(options: Options) -> Self {
        Self {
            groups: BTreeMap::new(),
            homes: BTreeMap::new(),
            detached: BTreeSet::new(),
            context: Context {
                ids: Ids::new(options.seed),
                options,
                effects: Vec::new(),
            },
        }
    }

    /// What has to be done since this was last asked, in order.
    #[must_use = "a launch that nobody carries out is waited for"]
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.context.effects)
    }

    /// The group with this name or ARN.
    pub fn group(&self, name_or_arn: &str) -> Option<&Group> {
        let name = name_or_arn
            .rsplit_once(":autoScalingGroupName/")
            .map_or(name_or_arn, |(_, name)| name);
        self.groups.get(name)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// The instance and its group.
    pub fn instance(&self, instance_id: &str) -> Option<(&Group, &Instance)> {
        let group = self.groups.get(self.homes.get(instance_id)?)?;
        Some((group, group.instances.get(instance_id)?))
    }

    /// `autoscaling/target-lifecycle-state` of the metadata service: a steady state, absent while
    /// it is not known yet.
    pub fn target_lifecycle_state(&self, instance_id: &str) -> Option<&'static str> {
        if self.detached.contains(instance_id) {
            return Some("Detached");
        }
        self.instance(instance_id)?.1.target_lifecycle_state()
    }

    fn group_mut(&mut self, name: &str) -> Result<&mut Group, ApiError> {
        self.groups.get_mut(name).ok_or_else(|| no_group(name))
    }

    fn known_group(&self, name: &str) -> Result<&Group, ApiError> {
        self.groups.get(name).ok_or_else(|| no_group(name))
    }

    /// Name of the group an instance is in.
    fn group_of(&self, instance_id: &str) -> Result<String, ApiError> {
        self.homes.get(instance_id).cloned().ok_or_else(|| {
            invalid(format!(
                "Instance Id not found - No managed instance found for instance ID: {instance_id}"
            ))
        })
    }
}

/// Auto Scaling's answer to nearly every wrong argument.
fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("ValidationError", message)
}

fn no_group(name: &str) -> ApiError {
    invalid(format!(
        "AutoScalingGroup name not found - no group is called '{name}'"
    ))
}

/// As in the texts of activities.
fn at(now: Timestamp) -> String {
    format!("At {}", now.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

#[cfg(test)]
mod tests;
