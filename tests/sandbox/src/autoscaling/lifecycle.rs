//! How instances move from state to state.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Effect, Launched, Model, at,
    hooks::Transition,
    instances::{Instance, LifecycleState},
    invalid,
};
use crate::api_error::ApiError;

/// The answer to a lifecycle action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Go on.
    Continue,
    /// A launch is undone; a termination goes on without waiting for other hooks.
    Abandon,
}

impl Verdict {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "CONTINUE" => Ok(Self::Continue),
            "ABANDON" => Ok(Self::Abandon),
            other => Err(invalid(format!(
                "'{other}' is neither CONTINUE nor ABANDON"
            ))),
        }
    }
}

/// Whether a termination waits for the terminating hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hooks {
    Run,
    Skip,
}

/// What the world reports.
impl Model {
    /// The launch has an instance, which is Pending until its machine runs.
    pub fn launched(&mut self, launch_id: &str, launched: Launched, now: Timestamp) {
        let group = self
            .groups
            .values_mut()
            .find_map(|group| Some((group.launching.remove(launch_id)?, group)));
        let Some((launch, group)) = group else {
            // Nobody waits for it any more.
            self.context.effects.push(Effect::Terminate {
                instance_id: launched.instance_id,
            });
            return;
        };
        if let Some(activity) = group.activity_mut(&launch.activity) {
            activity.description =
                format!("Launching a new EC2 instance: {}", launched.instance_id);
        }
        group.instances.push(Instance {
            id: launched.instance_id,
            instance_type: launched.instance_type,
            image_id: launched.image_id,
            availability_zone: launch.availability_zone,
            template: launched.template,
            state: LifecycleState::Pending,
            healthy: true,
            protected: false,
            actions: Vec::new(),
            machine_gone: false,
            activity: launch.activity,
            launched: now,
            in_service_since: None,
            hooks_open_at: None,
        });
        let name = group.name.clone();
        self.reconcile(&name, now);
    }

    /// The launch came to nothing; `message` is what EC2 said.
    pub fn launch_failed(&mut self, launch_id: &str, message: &str, now: Timestamp) {
        let group = self
            .groups
            .values_mut()
            .find_map(|group| Some((group.launching.remove(launch_id)?, group)));
        let Some((launch, group)) = group else {
            return;
        };
        if let Some(activity) = group.activity_mut(&launch.activity) {
            activity.description =
                format!("Launching a new EC2 instance.  Status Reason: {message}");
        }
        group.end_activity(&launch.activity, "Failed", Some(message.to_owned()), now);
        group.count_launch_failure(now);
        let name = group.name.clone();
        self.reconcile(&name, now);
    }

    /// The machine runs: launching hooks open.
    pub fn machine_started(&mut self, instance_id: &str, now: Timestamp) {
        let Ok(name) = self.group_of(instance_id) else {
            return;
        };
        let pending = |i: &Instance| i.id == instance_id && i.state == LifecycleState::Pending;
        if self.groups[&name].instances.iter().any(pending) {
            self.open_hooks(&name, instance_id, Transition::Launching, now);
            self.reconcile(&name, now);
        }
    }

    /// The machine could not be started.
    pub fn machine_failed(&mut self, instance_id: &str, reason: &str, now: Timestamp) {
        let Ok(name) = self.group_of(instance_id) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(&name)
            && let Some(position) = group.instances.iter().position(|i| i.id == instance_id)
        {
            let instance = group.instances.remove(position);
            group.end_activity(&instance.activity, "Failed", Some(reason.to_owned()), now);
            group.count_launch_failure(now);
        }
        self.reconcile(&name, now);
    }

    /// The machine is gone: as the group wanted, or by itself, and then it is replaced. Nobody can
    /// answer its terminating hooks any more; AWS waits for them all the same.
    pub fn machine_gone(&mut self, instance_id: &str, now: Timestamp) {
        let Some((name, instance)) = self.slot(instance_id) else {
            return;
        };
        instance.machine_gone = true;
        instance.healthy = false;
        match instance.state {
            LifecycleState::TerminatingProceed => self.remove(&name, instance_id, now),
            // The hooks still hold it.
            LifecycleState::Terminating | LifecycleState::TerminatingWait => {}
            LifecycleState::Pending | LifecycleState::PendingWait | LifecycleState::InService => {
                let cause = format!(
                    "{} an instance was taken out of service in response to an EC2 health check \
                     indicating it has been terminated or stopped.",
                    at(now)
                );
                self.begin_terminating(&name, instance_id, cause, Hooks::Run, now);
            }
        }
        self.reconcile(&name, now);
    }

    /// The next time at which [`Model::advance`] changes something by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let instances = self.groups.values().flat_map(|g| &g.instances);
        let held = instances.flat_map(|i| {
            let actions = i.actions.iter().map(|a| a.deadline);
            actions.chain(i.hooks_open_at)
        });
        let back_off = self.groups.values().filter_map(|g| g.launch_not_before);
        held.chain(back_off).min()
    }

    /// Does what is due by `now`.
    pub fn advance(&mut self, now: Timestamp) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            let group = &self.groups[&name];
            let opening: Vec<String> = group
                .instances
                .iter()
                .filter(|i| i.hooks_open_at.is_some_and(|t| t <= now))
                .map(|i| i.id.clone())
                .collect();
            let timed_out: Vec<(String, String, Verdict)> = group
                .instances
                .iter()
                .flat_map(|i| i.actions.iter().map(|a| (i.id.clone(), a)))
                .filter(|(_, action)| action.deadline <= now)
                .map(|(id, action)| (id, action.hook.clone(), action.default_result))
                .collect();
            for id in opening {
                self.open_hooks(&name, &id, Transition::Terminating, now);
            }
            for (id, hook, verdict) in timed_out {
                self.answer(&name, &id, &hook, verdict, "Heartbeat Timeout", now);
            }
            self.reconcile(&name, now);
        }
    }
}

/// The transitions themselves. An instance that is not there is nothing to move.
impl Model {
    fn slot(&mut self, instance_id: &str) -> Option<(String, &mut Instance)> {
        self.groups.values_mut().find_map(|group| {
            let name = group.name.clone();
            let instance = group.instances.iter_mut().find(|i| i.id == instance_id)?;
            Some((name, instance))
        })
    }

    /// Holds the instance if there are hooks, else lets it through.
    fn open_hooks(&mut self, name: &str, id: &str, transition: Transition, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let ids = &mut self.context.ids;
        let actions: Vec<_> = group
            .hooks
            .values()
            .filter(|hook| hook.transition == transition)
            .map(|hook| hook.open(ids.uuid(), now))
            .collect();
        let Some(instance) = group.instances.iter_mut().find(|i| i.id == id) else {
            return;
        };
        instance.hooks_open_at = None;
        if actions.is_empty() {
            return self.proceed(name, id, transition, now);
        }
        instance.actions = actions;
        instance.state = match transition {
            Transition::Launching => LifecycleState::PendingWait,
            Transition::Terminating => LifecycleState::TerminatingWait,
        };
        let activity = instance.activity.clone();
        group.note_activity(&activity, "MidLifecycleAction", 60);
    }

    /// Nothing holds the instance any more.
    fn proceed(&mut self, name: &str, id: &str, transition: Transition, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let protects = group.protects_new_instances;
        let Some(instance) = group.instances.iter_mut().find(|i| i.id == id) else {
            return;
        };
        instance.actions.clear();
        instance.hooks_open_at = None;
        match transition {
            Transition::Launching => {
                instance.state = LifecycleState::InService;
                instance.in_service_since = Some(now);
                // Protection begins here, not at launch.
                instance.protected = protects;
                let activity = instance.activity.clone();
                group.end_activity(&activity, "Successful", None, now);
                group.forget_launch_failures();
            }
            Transition::Terminating => {
                instance.state = LifecycleState::TerminatingProceed;
                if instance.machine_gone {
                    self.remove(name, id, now);
                } else {
                    self.context.effects.push(Effect::Terminate {
                        instance_id: id.to_owned(),
                    });
                }
            }
        }
    }

    /// One hook's action is over.
    pub(super) fn answer(
        &mut self,
        name: &str,
        id: &str,
        hook: &str,
        verdict: Verdict,
        why: &str,
        now: Timestamp,
    ) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(instance) = group.instances.iter_mut().find(|i| i.id == id) else {
            return;
        };
        let Some(position) = instance.actions.iter().position(|a| a.hook == hook) else {
            return;
        };
        let action = instance.actions.remove(position);
        let transition = if instance.state.is_terminating() {
            Transition::Terminating
        } else {
            Transition::Launching
        };
        match (transition, verdict) {
            (Transition::Launching, Verdict::Abandon) => {
                let message = format!(
                    "Instance failed to complete user's Lifecycle Action: Lifecycle Action with \
                     token {} was abandoned: {why}",
                    action.token
                );
                let activity = instance.activity.clone();
                group.end_activity(&activity, "Cancelled", Some(message), now);
                group.count_launch_failure(now);
                let cause = format!(
                    "{} an instance was taken out of service in response to a launch that was \
                     abandoned.",
                    at(now)
                );
                // Whether AWS runs terminating hooks here is not documented. They are skipped:
                // the node has already said that it is no good.
                self.begin_terminating(name, id, cause, Hooks::Skip, now);
            }
            // ABANDON ends the wait of all hooks.
            (Transition::Terminating, Verdict::Abandon) => {
                self.proceed(name, id, transition, now);
            }
            (_, Verdict::Continue) => {
                if instance.actions.is_empty() {
                    self.proceed(name, id, transition, now);
                }
            }
        }
        self.reconcile(name, now);
    }

    /// Takes the instance out of service; it no longer counts from here on.
    pub(super) fn begin_terminating(
        &mut self,
        name: &str,
        id: &str,
        cause: String,
        hooks: Hooks,
        now: Timestamp,
    ) {
        let lead = self.context.options.imds_lead;
        let activity_id = self.context.ids.uuid();
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(instance) = group.instances.iter_mut().find(|i| i.id == id) else {
            return;
        };
        let launch =
            (instance.state != LifecycleState::InService).then(|| instance.activity.clone());
        instance.state = LifecycleState::Terminating;
        instance.actions.clear();
        instance.activity = activity_id.clone();
        instance.hooks_open_at = (hooks == Hooks::Run).then_some(now + lead);
        if let Some(launch) = launch
            && group
                .activity_mut(&launch)
                .is_some_and(|a| a.end_time.is_none())
        {
            let message = "The instance was terminated before it came into service".to_owned();
            group.end_activity(&launch, "Cancelled", Some(message), now);
        }
        let description = format!("Terminating EC2 instance: {id}");
        group.begin_activity(activity_id, description, cause, "InProgress", now);
        match hooks {
            Hooks::Skip => self.proceed(name, id, Transition::Terminating, now),
            Hooks::Run if lead.is_zero() => {
                self.open_hooks(name, id, Transition::Terminating, now);
            }
            Hooks::Run => {}
        }
    }

    /// Ends the termination of every instance at once, hooks or not.
    pub(super) fn rush_terminating(&mut self, name: &str, id: &str, now: Timestamp) {
        self.proceed(name, id, Transition::Terminating, now);
    }

    fn remove(&mut self, name: &str, id: &str, now: Timestamp) {
        if let Some(group) = self.groups.get_mut(name)
            && let Some(position) = group.instances.iter().position(|i| i.id == id)
        {
            let instance = group.instances.remove(position);
            group.end_activity(&instance.activity, "Successful", None, now);
        }
    }
}
