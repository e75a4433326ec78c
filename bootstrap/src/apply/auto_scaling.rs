//! Auto Scaling groups.

use anyhow::{Context, Result};

use super::{Apply, IAM_LIMIT, RELEASE_LIMIT, is_in_use, is_ours, plain};
use crate::{
    cloud::{CallError, Kind, Pinned},
    plan::{AutoScalingStep, GroupChange, TemplateUse, Version},
};

impl Apply<'_> {
    pub(super) async fn auto_scaling(&self, step: &AutoScalingStep) -> Result<()> {
        let auto_scaling = &self.cloud.autoscaling;
        match step {
            AutoScalingStep::Create(new) => {
                let template = self.pinned(&new.template)?;
                let create = || auto_scaling.create(new, template.clone());
                let created = self
                    .tried(
                        step.title(),
                        IAM_LIMIT,
                        CallError::is_profile_unknown_yet,
                        create,
                    )
                    .await?;
                match created {
                    Err(error) if error.kind == Kind::AlreadyExists => {
                        let names = std::slice::from_ref(&new.name);
                        let found = auto_scaling.groups(names).await?.remove(&new.name);
                        let found = found.flatten().map(|group| plain(&group.tags));
                        is_ours(error, &plain(&new.tags), found)
                    }
                    other => {
                        other?;
                        self.watch.is_new(&new.name);
                        Ok(())
                    }
                }
            }
            AutoScalingStep::Update { name, change } => {
                let template = match &change.template {
                    Some(template) => Some(self.pinned(template)?),
                    None => None,
                };
                let update = || auto_scaling.update(name, change, template.clone());
                self.patiently(step.title(), RELEASE_LIMIT, is_in_use, update)
                    .await
            }
            AutoScalingStep::PutHook { group, hook } => {
                Ok(auto_scaling.put_hook(group, hook).await?)
            }
            AutoScalingStep::CollectMetrics { group, is_on } => {
                Ok(auto_scaling.collect_metrics(group, *is_on).await?)
            }
            AutoScalingStep::PutWarmPool { group, pool } => {
                let put = || auto_scaling.put_warm_pool(group, pool);
                self.patiently(step.title(), RELEASE_LIMIT, is_in_use, put)
                    .await
            }
            AutoScalingStep::DeleteWarmPool { group } => {
                let delete = || auto_scaling.delete_warm_pool(group);
                self.patiently(step.title(), RELEASE_LIMIT, is_in_use, delete)
                    .await?;
                self.until(RELEASE_LIMIT, &step.title(), async || {
                    let found = auto_scaling.groups(std::slice::from_ref(group)).await?;
                    let found = found.into_values().flatten().next();
                    Ok(found.is_none_or(|found| !found.warm_pool.is_ours()))
                })
                .await
            }
            AutoScalingStep::PutSchedule {
                group,
                name,
                schedule,
            } => Ok(auto_scaling.put_schedule(group, name, schedule).await?),
            AutoScalingStep::DeleteSchedule { group, name } => {
                Ok(auto_scaling.delete_schedule(group, name).await?)
            }
            AutoScalingStep::PutScalingPolicy {
                group,
                direction,
                settings,
            } => {
                let put = auto_scaling.put_scaling_policy(group, *direction, settings);
                let arn = put.await?;
                let mut made = self.made();
                made.scaling_policies
                    .insert((group.clone(), *direction), arn);
                Ok(())
            }
            AutoScalingStep::DeleteScalingPolicy { group, direction } => Ok(auto_scaling
                .delete_scaling_policy(group, *direction)
                .await?),
            AutoScalingStep::SetProtection {
                group,
                instances,
                is_on,
            } => Ok(auto_scaling.protect(group, instances, *is_on).await?),
            AutoScalingStep::StartFirstNode { group } => {
                self.watch.remember(group).await?;
                let change = GroupChange {
                    desired: Some(1),
                    ..GroupChange::default()
                };
                Ok(auto_scaling.update(group, &change, None).await?)
            }
            AutoScalingStep::AwaitFirstNode { group } => self.watch.ready(group, Some(1)).await,
            AutoScalingStep::TryRevision {
                group,
                version,
                revision,
            } => self.try_revision(group, *version, *revision).await,
            AutoScalingStep::SpreadRevision {
                group,
                version,
                revision,
            } => self.spread_revision(group, *version, *revision).await,
            AutoScalingStep::Empty {
                group,
                cluster,
                drain,
            } => self.empty_group(group, cluster, *drain).await,
            AutoScalingStep::Delete { name } => {
                let delete = || auto_scaling.delete(name);
                self.patiently(step.title(), RELEASE_LIMIT, is_in_use, delete)
                    .await?;
                self.until(RELEASE_LIMIT, name, async || {
                    let found = auto_scaling.groups(std::slice::from_ref(name)).await?;
                    Ok(found.is_empty())
                })
                .await
            }
        }
    }

    fn pinned<'t>(&self, template: &'t TemplateUse) -> Result<Pinned<'t>> {
        let version = match template.version {
            Version::Number(number) => Some(number),
            Version::Created => self.made().versions.get(&template.name).copied(),
        };
        Ok(Pinned {
            name: &template.name,
            version: version.with_context(|| {
                format!(
                    "launch template {} was not created before: a bug",
                    template.name
                )
            })?,
            mix: template.mix.as_ref(),
        })
    }
}
