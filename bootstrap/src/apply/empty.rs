//! Empties an Auto Scaling group: its nodes drain, then go.
//!
//! The agent answers its node's hooks. Where it cannot, because it is dead or the node never came
//! so far, this does it in its place: only for an instance without a live task, and only after
//! giving the agent time to do so itself.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fleet_agent_config::names::{DRAIN_HOOK, LAUNCH_HOOK};

use super::{Apply, RELEASE_LIMIT, is_in_use};
use crate::{
    cloud::Kind,
    desired::{Hook, Transition},
    inventory::{AutoScalingGroup, Instance},
    plan::GroupChange,
    watch::POLL,
};

/// ECS's own hook: it holds an instance for an hour when ECS has lost sight of it.
const ECS_HOOK: &str = "ecs-managed-draining-termination-hook";
/// What the agent gets for answering its hooks itself once the last task is gone.
const AGENT_GRACE: Duration = Duration::from_secs(20);
/// The agent's longest drain by default, and a quarter of an hour for instances to go.
const EMPTY_LIMIT: Duration = Duration::from_secs(75 * 60);

impl Apply<'_> {
    /// Sets every size to zero and waits until no instance is left.
    pub(super) async fn empty_group(&self, group: &str, cluster: &str) -> Result<()> {
        self.shrink(group).await?;
        let mut hooks: Option<Vec<Hook>> = None;
        let mut idle_since: BTreeMap<String, Instant> = BTreeMap::new();
        let began = Instant::now();
        loop {
            let found = self.cloud.autoscaling.groups(&[group.to_owned()]).await?;
            let Some(Some(found)) = found.into_values().next() else {
                break;
            };
            if found.instances.is_empty() {
                break;
            }
            if began.elapsed() >= EMPTY_LIMIT {
                bail!(
                    "{} instances are still there after {} minutes: see which tasks do not stop, \
                     then run `down` again",
                    found.instances.len(),
                    EMPTY_LIMIT.as_secs() / 60
                );
            }
            self.unprotect(group, &found).await?;
            let hooks = match &mut hooks {
                Some(hooks) => hooks,
                none => none.insert(self.cloud.autoscaling.hooks(group).await?),
            };
            for instance in found
                .instances
                .iter()
                .filter(|i| i.state.ends_with(":Wait"))
            {
                let since = idle_since.get(&instance.id).copied();
                match self.idle_since(cluster, instance, since).await? {
                    Some(since) if since.elapsed() >= AGENT_GRACE => {
                        self.answer(group, hooks, instance).await?;
                    }
                    Some(since) => {
                        idle_since.insert(instance.id.clone(), since);
                    }
                    None => {
                        idle_since.remove(&instance.id);
                    }
                }
            }
            self.progress.live(group, &story(&found));
            self.watch.pause(POLL).await?;
        }
        self.progress.settled(group);
        Ok(())
    }

    /// With a maximum of zero ECS cannot scale it out again.
    async fn shrink(&self, group: &str) -> Result<()> {
        let change = GroupChange {
            min: Some(0),
            max: Some(0),
            desired: Some(0),
            new_instances_protected: Some(false),
            ..GroupChange::default()
        };
        let update = || self.cloud.autoscaling.update(group, &change, None);
        self.patiently(format!("empty {group}"), RELEASE_LIMIT, is_in_use, update)
            .await
    }

    async fn unprotect(&self, group: &str, found: &AutoScalingGroup) -> Result<()> {
        let protected: Vec<String> = found
            .instances
            .iter()
            .filter(|instance| instance.protected && instance.state == "InService")
            .map(|instance| instance.id.clone())
            .collect();
        Ok(self.cloud.autoscaling.unprotect(group, &protected).await?)
    }

    /// Since when a waiting instance has had no live task; `None` while it has one.
    async fn idle_since(
        &self,
        cluster: &str,
        instance: &Instance,
        since: Option<Instant>,
    ) -> Result<Option<Instant>> {
        let ecs = &self.cloud.ecs;
        let registered = match ecs.container_instances(cluster).await {
            Ok(all) => all.into_iter().find(|c| c.instance_id == instance.id),
            // Without a cluster there are no tasks.
            Err(error) if error.kind == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let is_idle = match registered {
            Some(registered) => ecs.tasks(cluster, Some(&registered.arn)).await?.is_empty(),
            None => true,
        };
        Ok(is_idle.then(|| since.unwrap_or_else(Instant::now)))
    }

    /// Answers those hooks that may be holding the instance.
    async fn answer(&self, group: &str, hooks: &[Hook], instance: &Instance) -> Result<()> {
        let transition = if instance.state.starts_with("Pending") {
            Transition::Launching
        } else {
            Transition::Terminating
        };
        let ours = hooks.iter().filter(|hook| {
            hook.transition == transition
                && [LAUNCH_HOOK, DRAIN_HOOK, ECS_HOOK].contains(&hook.name.as_str())
        });
        for hook in ours {
            let auto_scaling = &self.cloud.autoscaling;
            if auto_scaling
                .complete(group, &hook.name, &instance.id)
                .await?
            {
                self.progress.note(&format!(
                    "{} {}, hook {} (0 tasks) -> completed",
                    instance.id, instance.state, hook.name
                ));
            }
        }
        Ok(())
    }
}

/// `2 instances left . i-0ab Terminating:Wait . i-0cd InService`
fn story(group: &AutoScalingGroup) -> String {
    let states: Vec<String> = group
        .instances
        .iter()
        .map(|instance| format!(" . {} {}", instance.id, instance.state))
        .collect();
    format!("{} instances left{}", states.len(), states.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_names_every_instance() {
        let group = AutoScalingGroup {
            instances: vec![Instance {
                id: "i-1".into(),
                state: "Terminating:Wait".into(),
                ..Instance::default()
            }],
            ..AutoScalingGroup::default()
        };
        assert_eq!(story(&group), "1 instances left . i-1 Terminating:Wait");
    }
}
