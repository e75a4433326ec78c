//! Instances of a group and the calls on them.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Activity, Model, at,
    hooks::Action,
    invalid,
    lifecycle::Hooks,
    requests::{SetInstanceHealth, SetInstanceProtection, TemplateSpec, TerminateInstance},
};
use crate::api_error::ApiError;

/// The API's own bound of SetInstanceProtection.
const PROTECTION_IDS_MAX: usize = 50;

/// An instance. Fields are for reading; the model changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// EC2 instance id.
    pub id: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// AMI id.
    pub image_id: String,
    /// Zone.
    pub availability_zone: String,
    /// EC2 may take it back.
    pub spot: bool,
    /// Template with its version as a number.
    pub template: TemplateSpec,
    /// Where it is in its life.
    pub state: LifecycleState,
    /// As SetInstanceHealth or EC2 has it.
    pub healthy: bool,
    /// From scale-in.
    pub protected: bool,
    /// Open lifecycle actions.
    pub actions: Vec<Action>,
    /// The warm pool it is in or on its way into, or is terminated from.
    pub(super) warm: Option<PoolState>,
    /// It has been in a warm pool.
    pub(super) was_warm: bool,
    /// The machine is gone, whatever the group still waits for.
    pub(super) machine_gone: bool,
    /// The activity under way.
    pub(super) activity: String,
    pub(super) launched: Timestamp,
    /// When it came into service.
    pub(super) in_service_since: Option<Timestamp>,
    /// When `Terminating` becomes `Terminating:Wait`.
    pub(super) hooks_open_at: Option<Timestamp>,
}

impl Instance {
    /// As the metadata service names it: the state it is on its way to.
    pub fn target_lifecycle_state(&self) -> Option<&'static str> {
        match self.state {
            LifecycleState::Pending if !self.was_warm => None,
            LifecycleState::Pending | LifecycleState::PendingWait | LifecycleState::InService => {
                Some("InService")
            }
            LifecycleState::Standby => Some("Standby"),
            LifecycleState::Terminating
            | LifecycleState::TerminatingWait
            | LifecycleState::TerminatingProceed => Some("Terminated"),
            LifecycleState::WarmedPending
            | LifecycleState::WarmedPendingWait
            | LifecycleState::WarmedPendingProceed => {
                self.warm.map(|pool| LifecycleState::Warmed(pool).as_str())
            }
            LifecycleState::Warmed(_) => Some(self.state.as_str()),
            LifecycleState::WarmedTerminating
            | LifecycleState::WarmedTerminatingWait
            | LifecycleState::WarmedTerminatingProceed => Some("Warmed:Terminated"),
        }
    }
}

/// Where an instance is in its life. `Pending:Proceed` and `EnteringStandby` are passed through at
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleState {
    /// The machine starts.
    Pending,
    /// Held by launching hooks.
    PendingWait,
    /// In service.
    InService,
    /// Out of service by EnterStandby.
    Standby,
    /// Chosen to go; the API has not opened its hooks yet.
    Terminating,
    /// Held by terminating hooks.
    TerminatingWait,
    /// The machine is being removed.
    TerminatingProceed,
    /// The machine starts on its way into the warm pool.
    WarmedPending,
    /// Held by launching hooks on its way into the warm pool.
    WarmedPendingWait,
    /// The machine stops on its way into the warm pool.
    WarmedPendingProceed,
    /// In the warm pool.
    Warmed(PoolState),
    /// As `Terminating`, from the warm pool.
    WarmedTerminating,
    /// As `TerminatingWait`, from the warm pool.
    WarmedTerminatingWait,
    /// As `TerminatingProceed`, from the warm pool.
    WarmedTerminatingProceed,
}

/// What becomes of machines in a warm pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum PoolState {
    /// Powered off.
    Stopped,
    /// Left running.
    Running,
    /// Powered off with their memory kept.
    Hibernated,
}

impl LifecycleState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::PendingWait => "Pending:Wait",
            Self::InService => "InService",
            Self::Standby => "Standby",
            Self::Terminating => "Terminating",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingProceed => "Terminating:Proceed",
            Self::WarmedPending => "Warmed:Pending",
            Self::WarmedPendingWait => "Warmed:Pending:Wait",
            Self::WarmedPendingProceed => "Warmed:Pending:Proceed",
            Self::Warmed(PoolState::Stopped) => "Warmed:Stopped",
            Self::Warmed(PoolState::Running) => "Warmed:Running",
            Self::Warmed(PoolState::Hibernated) => "Warmed:Hibernated",
            Self::WarmedTerminating => "Warmed:Terminating",
            Self::WarmedTerminatingWait => "Warmed:Terminating:Wait",
            Self::WarmedTerminatingProceed => "Warmed:Terminating:Proceed",
        }
    }

    /// Whether it is on its way out.
    pub fn is_terminating(self) -> bool {
        match self {
            Self::Terminating
            | Self::TerminatingWait
            | Self::TerminatingProceed
            | Self::WarmedTerminating
            | Self::WarmedTerminatingWait
            | Self::WarmedTerminatingProceed => true,
            Self::Pending
            | Self::PendingWait
            | Self::InService
            | Self::Standby
            | Self::WarmedPending
            | Self::WarmedPendingWait
            | Self::WarmedPendingProceed
            | Self::Warmed(_) => false,
        }
    }

    /// Whether it counts towards the desired capacity.
    pub fn counts(self) -> bool {
        matches!(self, Self::Pending | Self::PendingWait | Self::InService)
    }

    /// Whether it is in the warm pool or on its way into it.
    pub fn is_pooled(self) -> bool {
        matches!(
            self,
            Self::WarmedPending
                | Self::WarmedPendingWait
                | Self::WarmedPendingProceed
                | Self::Warmed(_)
        )
    }

    pub(super) fn waits_for_machine(self) -> bool {
        matches!(self, Self::Pending | Self::WarmedPending)
    }
}

impl Model {
    /// TerminateInstanceInAutoScalingGroup. Protection from scale-in does not matter; hooks run.
    ///
    /// # Errors
    /// `ValidationError` for an unknown instance or a decrement below the lower bound,
    /// `ScalingActivityInProgress` if it is going already.
    pub fn terminate_instance(
        &mut self,
        request: &TerminateInstance,
        now: Timestamp,
    ) -> Result<Activity, ApiError> {
        let id = &request.instance_id;
        let name = self.group_of(id)?;
        let group = self.group_mut(&name)?;
        let state = group.instances.get(id).map(|instance| instance.state);
        if state.is_some_and(LifecycleState::is_terminating) {
            return Err(ApiError::new(
                "ScalingActivityInProgress",
                format!("Instance {id} is being terminated already."),
            ));
        }
        let mut cause = format!(
            "{} instance {id} was taken out of service in response to a user request",
            at(now)
        );
        if request.should_decrement_desired_capacity {
            // What AWS does here is not documented; it must not lower the capacity of others.
            if !state.is_some_and(LifecycleState::counts) {
                return Err(invalid(format!(
                    "Instance {id} is in standby or in the warm pool and does not count towards \
                     the desired capacity: set shouldDecrementDesiredCapacity to false."
                )));
            }
            if group.desired <= group.min {
                return Err(invalid(format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without \
                     replacement will violate group's min size constraint. Either set \
                     shouldDecrementDesiredCapacity flag to false or lower group's min size.",
                    group.min
                )));
            }
            cause += &format!(
                ", shrinking the capacity from {} to {}",
                group.desired,
                group.desired - 1
            );
            group.desired -= 1;
        }
        cause += ".";
        self.begin_terminating(&name, id, cause, Hooks::Run, now);
        let activity = self
            .instance(id)
            .map(|(_, instance)| instance.activity.clone());
        let reply = self
            .known_group(&name)?
            .activities
            .iter()
            .find(|a| Some(&a.activity_id) == activity.as_ref())
            .or_else(|| self.groups[&name].activities.front())
            .cloned();
        self.reconcile(&name, now);
        reply.ok_or_else(|| invalid(format!("Instance {id} is gone")))
    }

    /// SetInstanceHealth. An unhealthy instance is replaced at once, protected or not.
    ///
    /// # Errors
    /// `ValidationError` for an unknown or terminating instance.
    pub fn set_instance_health(
        &mut self,
        request: &SetInstanceHealth,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let id = &request.instance_id;
        let name = self.group_of(id)?;
        let group = self.group_mut(&name)?;
        let grace = SignedDuration::from_secs(group.stored.health_check_grace_period.into());
        let respect = request.should_respect_grace_period.unwrap_or(true);
        let Some(instance) = group.instances.get(id) else {
            return Ok(());
        };
        if instance.state.is_terminating() {
            return Err(invalid(format!(
                "The instance {id} is terminating: its health can no longer be set."
            )));
        }
        match request.health_status.as_str() {
            "Healthy" => {
                let healthy = |instance: &mut Instance| instance.healthy = true;
                group.instances.change(id, healthy);
            }
            "Unhealthy" => {
                let in_grace = instance.in_service_since.is_none_or(|t| now < t + grace);
                if respect && !grace.is_zero() && in_grace {
                    return Ok(());
                }
                let unhealthy = |instance: &mut Instance| instance.healthy = false;
                group.instances.change(id, unhealthy);
                let cause = format!(
                    "{} an instance was taken out of service in response to a user health-check.",
                    at(now)
                );
                self.begin_terminating(&name, id, cause, Hooks::Run, now);
                self.reconcile(&name, now);
            }
            other => {
                return Err(invalid(format!(
                    "HealthStatus '{other}' is neither Healthy nor Unhealthy"
                )));
            }
        }
        Ok(())
    }

    /// SetInstanceProtection.
    ///
    /// # Errors
    /// `ValidationError` if one of the instances is not in service in this group; nothing is
    /// changed then.
    pub fn set_instance_protection(
        &mut self,
        request: &SetInstanceProtection,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let name = &request.auto_scaling_group_name;
        if request.instance_ids.len() > PROTECTION_IDS_MAX {
            return Err(invalid(format!(
                "At most {PROTECTION_IDS_MAX} instance ids can be given."
            )));
        }
        let group = self.group_mut(name)?;
        for id in &request.instance_ids {
            match group.instances.get(id) {
                None => {
                    return Err(invalid(format!(
                        "The instance {id} is not part of Auto Scaling group {name}."
                    )));
                }
                Some(instance)
                    if !matches!(
                        instance.state,
                        LifecycleState::InService | LifecycleState::Standby
                    ) =>
                {
                    return Err(invalid(format!(
                        "The instance {id} is not in InService or EnteringStandby or Standby."
                    )));
                }
                Some(_) => {}
            }
        }
        for id in &request.instance_ids {
            let protected = request.protected_from_scale_in;
            group.instances.change(id, |i| i.protected = protected);
        }
        self.reconcile(name, now);
        Ok(())
    }
}
