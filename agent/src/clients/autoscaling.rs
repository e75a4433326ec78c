//! Auto Scaling's lifecycle actions of this instance. No Describe call: whether an action is open
//! is shown by what a heartbeat or an answer to it gets.

use std::{error::Error, fmt::Debug};

use anyhow::Result;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::aws::{Aws, explain};

/// What speaking to a lifecycle action met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HookAnswer {
    /// The action was open and took it.
    Taken,
    /// No action is open: not yet, answered already, or expired. What was seen before decides.
    NotOpen,
}

/// What to tell Auto Scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Hold on: restarts the hook's whole time-out.
    Heartbeat,
    /// Go on.
    Continue,
    /// Launching only: terminate and replace. Never on termination, where it would skip everybody
    /// else's hooks (ECS developer guide, "managed-instance-draining").
    Abandon,
}

pub(crate) trait AutoScaling {
    /// Speaks to the action that `hook` holds `instance` with.
    async fn answer(&self, hook: &str, instance: &str, verb: Verb) -> Result<HookAnswer>;
    /// Calls an instance unhealthy: it is terminated at once, hooks and all, and replaced.
    async fn condemn(&self, instance: &str) -> Result<()>;
}

impl AutoScaling for Aws {
    async fn answer(&self, hook: &str, instance: &str, verb: Verb) -> Result<HookAnswer> {
        let result = match verb {
            Verb::Heartbeat => return self.heartbeat(hook, instance).await,
            Verb::Continue => "CONTINUE",
            Verb::Abandon => "ABANDON",
        };
        let sent = self
            .autoscaling()
            .await
            .complete_lifecycle_action()
            .lifecycle_hook_name(hook)
            .auto_scaling_group_name(self.group())
            .instance_id(instance)
            .lifecycle_action_result(result)
            .send()
            .await;
        self.taken("CompleteLifecycleAction", hook, instance, sent)
    }

    async fn condemn(&self, instance: &str) -> Result<()> {
        let set = self.autoscaling().await.set_instance_health();
        let set = set.instance_id(instance).health_status("Unhealthy");
        // The group's grace period is for nodes that are still starting.
        let set = set.should_respect_grace_period(false).send().await;
        set.map(drop)
            .map_err(|error| explain("autoscaling:SetInstanceHealth", instance, &error))
    }
}

impl Aws {
    async fn heartbeat(&self, hook: &str, instance: &str) -> Result<HookAnswer> {
        let sent = self
            .autoscaling()
            .await
            .record_lifecycle_action_heartbeat()
            .lifecycle_hook_name(hook)
            .auto_scaling_group_name(self.group())
            .instance_id(instance)
            .send()
            .await;
        self.taken("RecordLifecycleActionHeartbeat", hook, instance, sent)
    }

    fn taken<T, E, R>(
        &self,
        call: &str,
        hook: &str,
        instance: &str,
        sent: Result<T, SdkError<E, R>>,
    ) -> Result<HookAnswer>
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: Debug + 'static,
    {
        match sent {
            Ok(_) => Ok(HookAnswer::Taken),
            Err(error) if is_not_open(error.code(), error.message()) => Ok(HookAnswer::NotOpen),
            Err(error) => Err(explain(
                &format!("autoscaling:{call}"),
                &format!("{instance} ({hook} of {})", self.group()),
                &error,
            )),
        }
    }
}

/// Auto Scaling has no code of its own for this: only code and text together tell.
fn is_not_open(code: Option<&str>, message: Option<&str>) -> bool {
    code == Some("ValidationError")
        && message.is_some_and(|text| text.contains("No active Lifecycle Action found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_text_together_mean_that_no_action_is_open() {
        let text = Some("No active Lifecycle Action found with instance ID i-0123");
        assert!(is_not_open(Some("ValidationError"), text));
        assert!(!is_not_open(Some("ValidationError"), Some("no such group")));
        assert!(!is_not_open(Some("AccessDenied"), text));
        assert!(!is_not_open(None, None));
    }
}
