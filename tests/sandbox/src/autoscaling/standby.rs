//! Standby and detaching: instances leave service, or the group, without being terminated. No
//! lifecycle hooks run (Auto Scaling user guide, "Considerations and limitations for lifecycle
//! hooks").

use jiff::Timestamp;

use super::{
    Activity, Group, Model, at,
    instances::LifecycleState,
    invalid,
    requests::{DetachInstances, EnterStandby, ExitStandby},
};
use crate::api_error::ApiError;

impl Model {
    /// EnterStandby. Without a decrement the group launches others instead.
    ///
    /// # Errors
    /// `ValidationError`; nothing is changed then.
    pub fn enter_standby(
        &mut self,
        request: &EnterStandby,
        now: Timestamp,
    ) -> Result<Vec<Activity>, ApiError> {
        let name = &request.auto_scaling_group_name;
        let ids = &request.instance_ids;
        let decrement = request.should_decrement_desired_capacity;
        let group = self.group_mut(name)?;
        group.check_states(ids, &[LifecycleState::InService])?;
        group.give_up(ids.len(), decrement)?;
        let mut activities = Vec::new();
        for id in ids {
            let activity_id = self.context.ids.uuid();
            let group = self.group_mut(name)?;
            group
                .instances
                .change(id, |instance| instance.state = LifecycleState::Standby);
            let what = format!("Moving EC2 instance to Standby: {id}");
            activities.extend(group.done(activity_id, what, "moved to standby", now));
        }
        self.reconcile(name, now);
        Ok(activities)
    }

    /// ExitStandby: the desired capacity rises by as many.
    ///
    /// # Errors
    /// `ValidationError`, also beyond the group's maximum; nothing is changed then.
    pub fn exit_standby(
        &mut self,
        request: &ExitStandby,
        now: Timestamp,
    ) -> Result<Vec<Activity>, ApiError> {
        let name = &request.auto_scaling_group_name;
        let ids = &request.instance_ids;
        let group = self.group_mut(name)?;
        group.check_states(ids, &[LifecycleState::Standby])?;
        let more = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let desired = group.desired.saturating_add(more);
        if desired > group.max {
            return Err(invalid(format!(
                "Desired capacity {desired} would be above the group's maximum {}.",
                group.max
            )));
        }
        group.desired = desired;
        let mut activities = Vec::new();
        for id in ids {
            let activity_id = self.context.ids.uuid();
            let group = self.group_mut(name)?;
            group
                .instances
                .change(id, |instance| instance.state = LifecycleState::InService);
            let what = format!("Moving EC2 instance out of Standby: {id}");
            activities.extend(group.done(activity_id, what, "moved out of standby", now));
        }
        self.reconcile(name, now);
        Ok(activities)
    }

    /// DetachInstances: the instances run on by themselves. Without a decrement the group launches
    /// others instead.
    ///
    /// # Errors
    /// `ValidationError`; nothing is changed then.
    pub fn detach_instances(
        &mut self,
        request: &DetachInstances,
        now: Timestamp,
    ) -> Result<Vec<Activity>, ApiError> {
        let name = &request.auto_scaling_group_name;
        let ids = &request.instance_ids;
        let decrement = request.should_decrement_desired_capacity;
        let group = self.group_mut(name)?;
        let detachable = [LifecycleState::InService, LifecycleState::Standby];
        group.check_states(ids, &detachable)?;
        let counting = ids
            .iter()
            .filter_map(|id| group.instances.get(id))
            .filter(|instance| instance.state.counts());
        let counting = counting.count();
        group.give_up(counting, decrement)?;
        let mut activities = Vec::new();
        for id in ids {
            let activity_id = self.context.ids.uuid();
            self.homes.remove(id);
            self.detached.insert(id.clone());
            let group = self.group_mut(name)?;
            group.instances.remove(id);
            let what = format!("Detaching EC2 instance: {id}");
            activities.extend(group.done(activity_id, what, "detached", now));
        }
        self.reconcile(name, now);
        Ok(activities)
    }
}

impl Group {
    fn check_states(&self, ids: &[String], allowed: &[LifecycleState]) -> Result<(), ApiError> {
        self.refuse_while_deleting()?;
        if ids.is_empty() {
            return Err(invalid("At least one instance id is required."));
        }
        for (position, id) in ids.iter().enumerate() {
            if ids[..position].contains(id) {
                return Err(invalid(format!("The instance {id} is named twice.")));
            }
            let Some(instance) = self.instances.get(id) else {
                return Err(invalid(format!(
                    "The instance {id} is not part of Auto Scaling group {}.",
                    self.name
                )));
            };
            if !allowed.contains(&instance.state) {
                let allowed: Vec<&str> = allowed.iter().map(|state| state.as_str()).collect();
                return Err(invalid(format!(
                    "The instance {id} is not in {}.",
                    allowed.join(" or ")
                )));
            }
        }
        Ok(())
    }

    /// Lowers the desired capacity by what leaves, if that is asked for.
    fn give_up(&mut self, leaving: usize, decrement: bool) -> Result<(), ApiError> {
        if !decrement {
            return Ok(());
        }
        let fewer = u32::try_from(leaving).unwrap_or(u32::MAX);
        match self.desired.checked_sub(fewer) {
            Some(desired) if desired >= self.min => {
                self.desired = desired;
                Ok(())
            }
            _ => Err(invalid(format!(
                "Decrementing the desired capacity {} by {fewer} would violate the group's \
                 minimum {}.",
                self.desired, self.min
            ))),
        }
    }

    /// Notes an activity that is over as it begins.
    fn done(
        &mut self,
        activity_id: String,
        description: String,
        what: &str,
        now: Timestamp,
    ) -> Option<Activity> {
        let cause = format!(
            "{} the instance was {what} in response to a user request.",
            at(now)
        );
        let id = self.begin_activity(activity_id, description, cause, "InProgress", now);
        self.end_activity(&id, "Successful", None, now);
        self.activities.front().cloned()
    }
}
