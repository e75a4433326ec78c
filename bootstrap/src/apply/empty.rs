//! Empties an Auto Scaling group: its nodes drain, then go.
//!
//! The agent answers its node's hooks. Where it cannot, because it is dead or the node never came
//! so far, this does it in its place: only for an instance without a live task, and only after
//! giving the agent time to do so itself.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use fleet_agent_config::names::{DRAIN_HOOK, LAUNCH_HOOK};

use super::{Apply, RELEASE_LIMIT, is_in_use};
use crate::{
    cloud::{CallError, ContainerInstance, Kind, passes},
    desired::{Drain, Hook, Transition},
    inventory::{AutoScalingGroup, Instance, Policies},
    plan::GroupChange,
    spec::DeletionProtection,
    watch::POLL,
};

/// ECS's own hook: it holds an instance for an hour when ECS has lost sight of it.
const ECS_HOOK: &str = "ecs-managed-draining-termination-hook";
/// What the agent gets for answering its hooks itself once the last task is gone, beyond the time
/// in which it flushes and stops its sidecars.
const AGENT_GRACE: Duration = Duration::from_secs(20);

/// Nodes are asked for the last of their tasks one by one, by the reads that their agents need as well; those
/// that answer for themselves need none.
const ANSWERS_PER_LOOK: usize = 10;

impl Apply<'_> {
    /// Sets every size to zero and waits until no instance is left.
    pub(super) async fn empty_group(&self, group: &str, cluster: &str, drain: Drain) -> Result<()> {
        let (grace, limit) = (grace(drain), drain.gone_limit());
        self.shrink(group).await?;
        let mut hooks: Option<Vec<Hook>> = None;
        let mut idle_since: BTreeMap<String, Instant> = BTreeMap::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let began = Instant::now();
        loop {
            let found = match self.cloud.autoscaling.groups(&[group.to_owned()]).await {
                Err(error) if error.passes() && began.elapsed() < limit => {
                    self.progress.live(group, &format!("waits: {error}"));
                    self.watch.pause(POLL).await?;
                    continue;
                }
                other => other?,
            };
            let Some(Some(found)) = found.into_values().next() else {
                break;
            };
            if found.instances.is_empty() {
                break;
            }
            seen.extend(found.instances.iter().map(|instance| instance.id.clone()));
            if began.elapsed() >= limit {
                bail!(
                    "{} instances are still there after {} minutes: see which tasks do not stop, \
                     then run `down` again",
                    found.instances.len(),
                    limit.as_secs() / 60
                );
            }
            if let Some(standby) = standby(&found) {
                bail!(
                    "instance {standby} is in Standby, where Auto Scaling does not terminate it: \
                     put it in service again, or terminate it, then run `down` again"
                );
            }
            unless_it_passes(self.unprotect(group, &found).await)?;
            let hooks = match &mut hooks {
                Some(hooks) => hooks,
                none => match self.cloud.autoscaling.hooks(group).await {
                    Err(error) if error.passes() => {
                        self.watch.pause(POLL).await?;
                        continue;
                    }
                    other => none.insert(other?),
                },
            };
            let waiting: Vec<&Instance> = found
                .instances
                .iter()
                .filter(|i| i.state.ends_with(":Wait"))
                .collect();
            match self.idle(cluster, &waiting).await {
                Ok(idle) => {
                    idle_since.retain(|id, _| idle.contains_key(id));
                    for id in idle.keys() {
                        idle_since.entry(id.clone()).or_insert_with(Instant::now);
                    }
                    let is_due = |instance: &&&Instance| {
                        let since = idle_since.get(&instance.id);
                        since.is_some_and(|since| since.elapsed() >= grace)
                    };
                    let due: Vec<&&Instance> = waiting
                        .iter()
                        .filter(is_due)
                        .take(ANSWERS_PER_LOOK)
                        .collect();
                    for instance in due {
                        let arn = idle.get(&instance.id).and_then(Option::as_deref);
                        let answered = self.answer_if_empty(group, cluster, hooks, instance, arn);
                        match answered.await {
                            Ok(true) => {}
                            Ok(false) => {
                                let _ = idle_since.insert(instance.id.clone(), Instant::now());
                            }
                            Err(error) if passes(&error) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                // What is idle is told on the next look.
                Err(error) if error.passes() => {}
                Err(error) => return Err(error.into()),
            }
            self.progress.live(group, &story(&found));
            self.watch.pause(POLL).await?;
        }
        self.progress.settled(group);
        self.forget(cluster, &seen).await
    }

    /// ECS deregisters an instance that is terminated, but not one whose ECS agent had lost it before
    /// (ECS guide, "Deregistering an Amazon EC2 backed container instance"). A cluster that stays would
    /// keep it for ever.
    async fn forget(&self, cluster: &str, nodes: &BTreeSet<String>) -> Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let registered = self.registered(cluster).await?.into_iter();
        for left in registered.filter(|found| is_left(found, nodes)) {
            self.cloud.ecs.deregister(cluster, &left.arn).await?;
        }
        Ok(())
    }

    async fn registered(&self, cluster: &str) -> Result<Vec<ContainerInstance>, CallError> {
        match self.cloud.ecs.container_instances(cluster).await {
            // Without a cluster there are none.
            Err(error) if error.kind == Kind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// With a maximum of zero ECS cannot scale it out again.
    async fn shrink(&self, group: &str) -> Result<()> {
        let change = GroupChange {
            min: Some(0),
            max: Some(0),
            desired: Some(0),
            new_instances_protected: Some(false),
            policies: Policies {
                deletion_protection: Some(DeletionProtection::None.as_str().to_owned()),
                ..Policies::default()
            },
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
        Ok(self
            .cloud
            .autoscaling
            .protect(group, &protected, false)
            .await?)
    }

    /// Those waiting instances that count no task, with the ARN that ECS knows them by. Container instances are
    /// read once for all.
    async fn idle(
        &self,
        cluster: &str,
        waiting: &[&Instance],
    ) -> Result<BTreeMap<String, Option<String>>, CallError> {
        if waiting.is_empty() {
            return Ok(BTreeMap::new());
        }
        let registered = self.registered(cluster).await?;
        let idle = waiting.iter().filter_map(|instance| {
            let found = registered.iter().find(|c| c.instance_id == instance.id);
            let is_busy = found.is_some_and(|found| found.running_tasks + found.pending_tasks > 0);
            (!is_busy).then(|| (instance.id.clone(), found.map(|found| found.arn.clone())))
        });
        Ok(idle.collect())
    }

    /// Answers for a node, if it has no live task at all: the counts leave out those that are stopping.
    async fn answer_if_empty(
        &self,
        group: &str,
        cluster: &str,
        hooks: &[Hook],
        instance: &Instance,
        arn: Option<&str>,
    ) -> Result<bool> {
        if let Some(arn) = arn
            && !self.cloud.ecs.tasks(cluster, Some(arn)).await?.is_empty()
        {
            return Ok(false);
        }
        self.answer(group, hooks, instance).await?;
        Ok(true)
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

/// One of these nodes, gone without a word. What was detached from its group in the middle of this is alive.
fn is_left(found: &ContainerInstance, nodes: &BTreeSet<String>) -> bool {
    !found.connected && nodes.contains(&found.instance_id)
}

/// The agent has its sidecars flush, and stops them one after another, before it answers.
fn grace(drain: Drain) -> Duration {
    AGENT_GRACE + Duration::from_secs(drain.sidecars_seconds.into())
}

/// What was throttled, or got no answer, is called again on the next look.
fn unless_it_passes(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if passes(&error) => Ok(()),
        other => other,
    }
}

/// An instance that no size of the group takes away.
fn standby(group: &AutoScalingGroup) -> Option<&str> {
    let mut instances = group.instances.iter();
    let found = instances.find(|instance| instance.state == "Standby")?;
    Some(&found.id)
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
    fn sidecars_and_the_deadline_are_waited_for() {
        let drain = Drain {
            deadline_seconds: 7_200,
            sidecars_seconds: 90,
        };
        assert_eq!(grace(drain), Duration::from_secs(110));
        assert_eq!(drain.gone_limit(), Duration::from_secs(8_100));
    }

    #[test]
    fn only_nodes_of_the_group_that_ecs_has_lost_are_deregistered() {
        let nodes = ["i-1".to_owned()].into();
        let of = |id: &str, connected| ContainerInstance {
            instance_id: id.into(),
            connected,
            ..ContainerInstance::default()
        };
        assert!(is_left(&of("i-1", false), &nodes));
        assert!(!is_left(&of("i-1", true), &nodes));
        assert!(!is_left(&of("i-2", false), &nodes));
    }

    #[test]
    fn only_what_passes_is_left_for_the_next_look() {
        let failed = |kind| {
            let mut error = CallError::malformed("autoscaling:Any", "g", "answer");
            error.kind = kind;
            Err(error.into())
        };
        assert!(unless_it_passes(failed(Kind::Throttled)).is_ok());
        assert!(unless_it_passes(failed(Kind::Unreachable)).is_ok());
        assert!(unless_it_passes(failed(Kind::Denied)).is_err());
    }

    #[test]
    fn standby_is_found() {
        let mut group = AutoScalingGroup::default();
        for (id, state) in [("i-1", "InService"), ("i-2", "Standby")] {
            group.instances.push(Instance {
                id: id.into(),
                state: state.into(),
                ..Instance::default()
            });
        }
        assert_eq!(standby(&group), Some("i-2"));
        group.instances.pop();
        assert_eq!(standby(&group), None);
    }

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
