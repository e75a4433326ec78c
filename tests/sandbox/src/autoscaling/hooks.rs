//! Lifecycle hooks, and the actions by which they hold instances.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{
    Model, invalid,
    lifecycle::Verdict,
    requests::{DeleteHook, HookRequest, LifecycleAction},
};
use crate::api_error::ApiError;

const TIMEOUT_DEFAULT_SECONDS: u32 = 3_600;
const TIMEOUT_SECONDS: std::ops::RangeInclusive<u32> = 30..=7_200;
/// No hook holds longer, heartbeats or not: 100 time-outs, 48 hours at most (PutLifecycleHook).
const GLOBAL_TIMEOUTS: u32 = 100;
const GLOBAL_MAX_SECONDS: u32 = 48 * 3_600;
/// Quota of hooks a group.
const HOOKS_MAX: usize = 50;

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Hook {
    /// Name.
    #[serde(rename = "LifecycleHookName")]
    pub name: String,
    /// Which way it holds.
    #[serde(rename = "LifecycleTransition")]
    pub transition: Transition,
    /// Seconds.
    #[serde(rename = "HeartbeatTimeout")]
    pub timeout_seconds: u32,
    /// What happens if nobody answers.
    #[serde(rename = "DefaultResult")]
    pub default_result: Verdict,
    /// Kept and given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notification_metadata: Option<String>,
}

/// Which way a hook holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Transition {
    /// Before InService.
    #[serde(rename = "autoscaling:EC2_INSTANCE_LAUNCHING")]
    Launching,
    /// Before the machine goes.
    #[serde(rename = "autoscaling:EC2_INSTANCE_TERMINATING")]
    Terminating,
}

/// A hook holding an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Hook name.
    pub hook: String,
    /// Names this action alone.
    pub token: String,
    /// What happens at the deadline.
    pub default_result: Verdict,
    /// Heartbeat time-out.
    pub timeout: SignedDuration,
    /// When it ends unless a heartbeat comes.
    pub deadline: Timestamp,
    /// When it ends whatever comes.
    pub expires: Timestamp,
}

impl Hook {
    /// A hook as asked for; what the request leaves open is as `before`, or AWS's default.
    ///
    /// # Errors
    /// `ValidationError`.
    pub(super) fn new(request: &HookRequest, before: Option<&Self>) -> Result<Self, ApiError> {
        let name = request.lifecycle_hook_name.clone();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_/".contains(&b);
        if !(1..=255).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(invalid(format!(
                "'{name}' is not a name of a lifecycle hook"
            )));
        }
        let transition = match request.lifecycle_transition.as_deref() {
            Some("autoscaling:EC2_INSTANCE_LAUNCHING") => Transition::Launching,
            Some("autoscaling:EC2_INSTANCE_TERMINATING") => Transition::Terminating,
            Some(other) => return Err(invalid(format!("'{other}' is no lifecycle transition"))),
            None => before
                .map(|hook| hook.transition)
                .ok_or_else(|| invalid("LifecycleTransition is required for a new hook"))?,
        };
        let timeout_seconds = request
            .heartbeat_timeout
            .or(before.map(|hook| hook.timeout_seconds))
            .unwrap_or(TIMEOUT_DEFAULT_SECONDS);
        if !TIMEOUT_SECONDS.contains(&timeout_seconds) {
            return Err(invalid(format!(
                "HeartbeatTimeout {timeout_seconds} is not between {} and {} seconds",
                TIMEOUT_SECONDS.start(),
                TIMEOUT_SECONDS.end()
            )));
        }
        let default_result = match &request.default_result {
            Some(result) => Verdict::parse(result)?,
            None => before.map_or(Verdict::Abandon, |hook| hook.default_result),
        };
        Ok(Self {
            name,
            transition,
            timeout_seconds,
            default_result,
            notification_metadata: request
                .notification_metadata
                .clone()
                .or_else(|| before.and_then(|hook| hook.notification_metadata.clone())),
        })
    }

    /// The bound of heartbeats, seconds.
    pub fn global_timeout_seconds(&self) -> u32 {
        (self.timeout_seconds * GLOBAL_TIMEOUTS).min(GLOBAL_MAX_SECONDS)
    }

    pub(super) fn open(&self, token: String, now: Timestamp) -> Action {
        let timeout = SignedDuration::from_secs(self.timeout_seconds.into());
        Action {
            hook: self.name.clone(),
            token,
            default_result: self.default_result,
            timeout,
            deadline: now + timeout,
            expires: now + SignedDuration::from_secs(self.global_timeout_seconds().into()),
        }
    }
}

impl Model {
    /// PutLifecycleHook. Instances held already are held as before.
    ///
    /// # Errors
    /// `ValidationError`, `LimitExceeded`.
    pub fn put_hook(&mut self, request: &HookRequest) -> Result<(), ApiError> {
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        let hook = Hook::new(request, group.hooks.get(&request.lifecycle_hook_name))?;
        if group.hooks.len() >= HOOKS_MAX && !group.hooks.contains_key(&hook.name) {
            return Err(ApiError::new(
                "LimitExceeded",
                format!("A group has at most {HOOKS_MAX} lifecycle hooks."),
            ));
        }
        group.hooks.insert(hook.name.clone(), hook);
        Ok(())
    }

    /// DeleteLifecycleHook. What it holds is let go: ABANDON for launching instances, CONTINUE for
    /// terminating ones.
    ///
    /// # Errors
    /// `ValidationError` if there is no such hook.
    pub fn delete_hook(&mut self, request: &DeleteHook, now: Timestamp) -> Result<(), ApiError> {
        let name = &request.auto_scaling_group_name;
        let group = self.group_mut(name)?;
        let Some(hook) = group.hooks.remove(&request.lifecycle_hook_name) else {
            return Err(invalid(format!(
                "No Lifecycle Hook found with name {}",
                request.lifecycle_hook_name
            )));
        };
        let verdict = match hook.transition {
            Transition::Launching => Verdict::Abandon,
            Transition::Terminating => Verdict::Continue,
        };
        let held: Vec<String> = group
            .instances
            .iter()
            .filter(|i| i.actions.iter().any(|a| a.hook == hook.name))
            .map(|i| i.id.clone())
            .collect();
        for id in held {
            self.answer(
                name,
                &id,
                &hook.name,
                verdict,
                "Lifecycle Hook Deleted",
                now,
            );
        }
        Ok(())
    }

    /// CompleteLifecycleAction.
    ///
    /// # Errors
    /// `ValidationError` "No active Lifecycle Action found with instance ID …" when the hook does
    /// not hold this instance: too early, too late, already answered, no such hook.
    pub fn complete_lifecycle_action(
        &mut self,
        request: &LifecycleAction,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let verdict = Verdict::parse(request.lifecycle_action_result.as_deref().unwrap_or(""))?;
        let id = self.held(request)?;
        let why = match verdict {
            Verdict::Continue => "Lifecycle Action Completed with CONTINUE Result",
            Verdict::Abandon => "Lifecycle Action Completed with ABANDON Result",
        };
        let group = &request.auto_scaling_group_name;
        self.answer(group, &id, &request.lifecycle_hook_name, verdict, why, now);
        Ok(())
    }

    /// RecordLifecycleActionHeartbeat: the time-out begins again, within the global bound.
    ///
    /// # Errors
    /// As [`Model::complete_lifecycle_action`].
    pub fn record_heartbeat(
        &mut self,
        request: &LifecycleAction,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let id = self.held(request)?;
        let group = self.group_mut(&request.auto_scaling_group_name)?;
        group.instances.change(&id, |instance| {
            let actions = instance.actions.iter_mut();
            for action in actions.filter(|a| a.hook == request.lifecycle_hook_name) {
                action.deadline = (now + action.timeout).min(action.expires);
            }
        });
        Ok(())
    }

    /// The instance that the named hook holds.
    fn held(&self, request: &LifecycleAction) -> Result<String, ApiError> {
        let group = self.known_group(&request.auto_scaling_group_name)?;
        let holds = |action: &Action| action.hook == request.lifecycle_hook_name;
        match (&request.instance_id, &request.lifecycle_action_token) {
            (Some(id), _) => {
                let instance = group.instances.get(id);
                let held = instance.filter(|i| i.actions.iter().any(holds));
                held.map(|instance| instance.id.clone()).ok_or_else(|| {
                    invalid(format!(
                        "No active Lifecycle Action found with instance ID {id}"
                    ))
                })
            }
            (None, Some(token)) => {
                let named = |action: &Action| holds(action) && action.token == *token;
                let held = group.instances.iter().find(|i| i.actions.iter().any(named));
                held.map(|instance| instance.id.clone()).ok_or_else(|| {
                    invalid(format!(
                        "No active Lifecycle Action found with token {token}"
                    ))
                })
            }
            (None, None) => Err(invalid(
                "Either LifecycleActionToken or InstanceId is required",
            )),
        }
    }
}
