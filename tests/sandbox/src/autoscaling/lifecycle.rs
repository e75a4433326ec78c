//! How instances move from state to state.

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Effect, Group, Launched, Model, at,
    hooks::Transition,
    instances::{Instance, LifecycleState, PoolState},
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
            .find_map(|group| Some((group.instances.remove_launch(launch_id)?, group)));
        let Some((launch, group)) = group else {
            // Nobody waits for it any more.
            self.context.effects.push(Effect::Terminate {
                instance_id: launched.instance_id,
            });
            return;
        };
        let id = launched.instance_id;
        if let Some(activity) = group.activity_mut(&launch.activity) {
            let into = if launch.warm { " into warm pool" } else { "" };
            activity.description = format!("Launching a new EC2 instance{into}: {id}");
        }
        let pool = group.warm_pool.as_ref().filter(|_| launch.warm);
        let warm = pool.map(|pool| pool.state);
        group.instances.add(Instance {
            id: id.clone(),
            instance_type: launched.instance_type,
            image_id: launched.image_id,
            availability_zone: launch.availability_zone,
            spot: launch.spot,
            template: launched.template,
            state: if warm.is_some() {
                LifecycleState::WarmedPending
            } else {
                LifecycleState::Pending
            },
            healthy: true,
            protected: false,
            actions: Vec::new(),
            warm,
            was_warm: warm.is_some(),
            machine_gone: false,
            activity: launch.activity,
            launched: now,
            in_service_since: None,
            hooks_open_at: None,
        });
        let name = group.name.clone();
        self.homes.insert(id, name.clone());
        self.reconcile(&name, now);
    }

    /// The launch came to nothing; `message` is what EC2 said.
    pub fn launch_failed(&mut self, launch_id: &str, message: &str, now: Timestamp) {
        let group = self
            .groups
            .values_mut()
            .find_map(|group| Some((group.instances.remove_launch(launch_id)?, group)));
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

    /// The machine runs, for the first time or again: launching hooks open.
    pub fn machine_started(&mut self, instance_id: &str, now: Timestamp) {
        let Some((group, instance)) = self.instance(instance_id) else {
            return;
        };
        let name = group.name.clone();
        if instance.state.waits_for_machine() {
            self.open_hooks(&name, instance_id, Transition::Launching, now);
            self.reconcile(&name, now);
        }
    }

    /// The machine is off: if [`Effect::Stop`] asked for it, the instance rests in its warm pool.
    /// False if it did not ask: then the instance is no good any more, and nothing is changed here.
    #[must_use = "a machine that is off and not wanted so has to be reported as sick or gone"]
    pub fn machine_stopped(&mut self, instance_id: &str, now: Timestamp) -> bool {
        let Some((group, instance)) = self.instance(instance_id) else {
            return false;
        };
        let off = [PoolState::Stopped, PoolState::Hibernated].map(LifecycleState::Warmed);
        if instance.state != LifecycleState::WarmedPendingProceed {
            return off.contains(&instance.state);
        }
        let name = group.name.clone();
        if let Some(group) = self.groups.get_mut(&name) {
            group.rest_in_pool(instance_id, now);
        }
        self.reconcile(&name, now);
        true
    }

    /// The machine could not be started.
    pub fn machine_failed(&mut self, instance_id: &str, reason: &str, now: Timestamp) {
        let Ok(name) = self.group_of(instance_id) else {
            return;
        };
        self.homes.remove(instance_id);
        if let Some(group) = self.groups.get_mut(&name)
            && let Some(instance) = group.instances.remove(instance_id)
        {
            group.end_activity(&instance.activity, "Failed", Some(reason.to_owned()), now);
            group.count_launch_failure(now);
        }
        self.reconcile(&name, now);
    }

    /// The machine is gone: as the group wanted, or by itself, and then it is replaced. Nobody can
    /// answer its terminating hooks any more; AWS waits for them all the same.
    pub fn machine_gone(&mut self, instance_id: &str, now: Timestamp) {
        self.detached.remove(instance_id);
        let Ok(name) = self.group_of(instance_id) else {
            return;
        };
        let Some(group) = self.groups.get_mut(&name) else {
            return;
        };
        let state = group.instances.change(instance_id, |instance| {
            instance.machine_gone = true;
            instance.healthy = false;
            instance.state
        });
        match state {
            Some(LifecycleState::TerminatingProceed | LifecycleState::WarmedTerminatingProceed) => {
                self.remove(&name, instance_id, now);
            }
            // The hooks still hold it.
            Some(state) if state.is_terminating() => {}
            Some(_) => {
                let cause = format!(
                    "{} an instance was taken out of service in response to an EC2 health check \
                     indicating it has been terminated or stopped.",
                    at(now)
                );
                self.begin_terminating(&name, instance_id, cause, Hooks::Run, now);
            }
            None => {}
        }
        self.reconcile(&name, now);
    }

    /// The next time at which [`Model::advance`] changes something by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let groups = self.groups.values();
        let deadlines = groups.flat_map(|g| {
            let back_off = g.launch_not_before.into_iter();
            back_off.chain(g.instances.next_deadline())
        });
        deadlines.min()
    }

    /// Does what is due by `now`.
    pub fn advance(&mut self, now: Timestamp) {
        let next = |group: &Group| {
            let back_off = group.launch_not_before.into_iter();
            back_off.chain(group.instances.next_deadline()).min()
        };
        let due = self
            .groups
            .values()
            .filter(|g| next(g).is_some_and(|t| t <= now));
        let names: Vec<String> = due.map(|group| group.name.clone()).collect();
        for name in names {
            for id in self.groups[&name].instances.due(now) {
                self.advance_instance(&name, &id, now);
            }
            self.reconcile(&name, now);
        }
    }

    fn advance_instance(&mut self, name: &str, id: &str, now: Timestamp) {
        let Some(instance) = self.groups.get(name).and_then(|g| g.instances.get(id)) else {
            return;
        };
        let opens = instance.hooks_open_at.is_some_and(|t| t <= now);
        let timed_out = instance.actions.iter().filter(|a| a.deadline <= now);
        let timed_out: Vec<(String, Verdict)> = timed_out
            .map(|action| (action.hook.clone(), action.default_result))
            .collect();
        if opens {
            self.open_hooks(name, id, Transition::Terminating, now);
        }
        for (hook, verdict) in timed_out {
            self.answer(name, id, &hook, verdict, "Heartbeat Timeout", now);
        }
    }
}

/// The transitions themselves. An instance that is not there is nothing to move.
impl Model {
    /// Holds the instance if there are hooks, else lets it through.
    pub(super) fn open_hooks(
        &mut self,
        name: &str,
        id: &str,
        transition: Transition,
        now: Timestamp,
    ) {
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
        let held = !actions.is_empty();
        let activity = group.instances.change(id, |instance| {
            instance.hooks_open_at = None;
            if held {
                instance.actions = actions;
                instance.state = match (transition, instance.warm.is_some()) {
                    (Transition::Launching, false) => LifecycleState::PendingWait,
                    (Transition::Launching, true) => LifecycleState::WarmedPendingWait,
                    (Transition::Terminating, false) => LifecycleState::TerminatingWait,
                    (Transition::Terminating, true) => LifecycleState::WarmedTerminatingWait,
                };
            }
            instance.activity.clone()
        });
        match activity {
            Some(activity) if held => group.note_activity(&activity, "MidLifecycleAction", 60),
            Some(_) => self.proceed(name, id, transition, now),
            None => {}
        }
    }

    /// Nothing holds the instance any more.
    fn proceed(&mut self, name: &str, id: &str, transition: Transition, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let protects = group.protects_new_instances;
        let instance = group.instances.change(id, |instance| {
            instance.actions.clear();
            instance.hooks_open_at = None;
            instance.state = match (transition, instance.warm.is_some()) {
                (Transition::Launching, false) => LifecycleState::InService,
                (Transition::Launching, true) => LifecycleState::WarmedPendingProceed,
                (Transition::Terminating, false) => LifecycleState::TerminatingProceed,
                (Transition::Terminating, true) => LifecycleState::WarmedTerminatingProceed,
            };
            if instance.state == LifecycleState::InService {
                instance.in_service_since = Some(now);
                // Protection begins here, not at launch.
                instance.protected = protects;
            }
            instance.clone()
        });
        let Some(instance) = instance else {
            return;
        };
        match (transition, instance.warm) {
            (Transition::Launching, None) => {
                group.end_activity(&instance.activity, "Successful", None, now);
                group.forget_launch_failures();
            }
            (Transition::Launching, Some(PoolState::Running)) => group.rest_in_pool(id, now),
            (Transition::Launching, Some(PoolState::Stopped | PoolState::Hibernated)) => {
                self.context.effects.push(Effect::Stop {
                    instance_id: id.to_owned(),
                });
            }
            (Transition::Terminating, _) if instance.machine_gone => self.remove(name, id, now),
            (Transition::Terminating, _) => {
                self.context.effects.push(Effect::Terminate {
                    instance_id: id.to_owned(),
                });
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
        let answered = group.instances.change(id, |instance| {
            let position = instance.actions.iter().position(|a| a.hook == hook)?;
            let action = instance.actions.remove(position);
            Some((action, instance.clone()))
        });
        let Some((action, instance)) = answered.flatten() else {
            return;
        };
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
                group.end_activity(&instance.activity, "Cancelled", Some(message), now);
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
        let before = group.instances.change(id, |instance| {
            let before = instance.clone();
            instance.state = if instance.warm.is_some() {
                LifecycleState::WarmedTerminating
            } else {
                LifecycleState::Terminating
            };
            instance.actions.clear();
            instance.activity = activity_id.clone();
            instance.hooks_open_at = (hooks == Hooks::Run).then_some(now + lead);
            before
        });
        let Some(before) = before else {
            return;
        };
        if before.state != LifecycleState::InService
            && group
                .activity_mut(&before.activity)
                .is_some_and(|a| a.end_time.is_none())
        {
            let message = "The instance was terminated before it came into service".to_owned();
            group.end_activity(&before.activity, "Cancelled", Some(message), now);
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
        self.homes.remove(id);
        if let Some(group) = self.groups.get_mut(name)
            && let Some(instance) = group.instances.remove(id)
        {
            group.end_activity(&instance.activity, "Successful", None, now);
        }
    }
}
