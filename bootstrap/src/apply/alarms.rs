//! CloudWatch alarms.

use anyhow::{Context, Result};

use super::Apply;
use crate::plan::{AlarmStep, PolicyUse};

impl Apply<'_> {
    pub(super) async fn alarm(&self, step: &AlarmStep) -> Result<()> {
        let cloudwatch = &self.cloud.cloudwatch;
        match step {
            AlarmStep::Put {
                name,
                settings,
                sets_off,
                tags,
            } => {
                let action = self.policy_arn(sets_off)?;
                Ok(cloudwatch
                    .put(name, settings, &action, tags.as_ref())
                    .await?)
            }
            AlarmStep::Delete { name } => Ok(cloudwatch.delete(name).await?),
        }
    }

    fn policy_arn(&self, policy: &PolicyUse) -> Result<String> {
        match policy {
            PolicyUse::Arn(arn) => Ok(arn.clone()),
            PolicyUse::Created { group, direction } => {
                let made = self.made();
                let arn = made.scaling_policies.get(&(group.clone(), *direction));
                arn.cloned().with_context(|| {
                    format!("a scaling policy of {group} was not created before: a bug")
                })
            }
        }
    }
}
