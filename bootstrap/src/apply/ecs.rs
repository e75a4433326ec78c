//! Clusters and capacity providers.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Apply, IAM_LIMIT, is_ours};
use crate::{
    cloud::{CallError, Kind},
    inventory::{Cluster, StrategyItem},
    plan::{EcsStep, in_order_of},
};

/// ECS changes attachments and deletes clusters in minutes.
const ECS_LIMIT: Duration = Duration::from_secs(600);
/// What terraform gives a capacity provider to go.
const PROVIDER_GONE_LIMIT: Duration = Duration::from_secs(1_200);
/// Between two capacity-provider writes: their bucket is refilled by one a second.
const PROVIDER_WRITE_INTERVAL: Duration = Duration::from_secs(1);

impl Apply<'_> {
    pub(super) async fn ecs(&self, step: &EcsStep) -> Result<()> {
        let ecs = &self.cloud.ecs;
        match step {
            EcsStep::CreateCluster {
                name,
                settings,
                tags,
            } => {
                let create = || ecs.create_cluster(name, settings, tags);
                self.patiently(step.title(), IAM_LIMIT, is_linking, create)
                    .await?;
                self.made().clusters.insert(name.clone());
                Ok(())
            }
            EcsStep::UpdateCluster { name, settings } => {
                let update = || ecs.update_cluster(name, settings);
                self.patiently(step.title(), ECS_LIMIT, is_settling, update)
                    .await
            }
            EcsStep::PutClusterCapacityProviders {
                cluster,
                add,
                remove,
                default_strategy,
            } => {
                let change = Attachments {
                    add,
                    remove,
                    default_strategy: default_strategy.as_deref(),
                };
                self.attach(cluster, &change).await
            }
            EcsStep::DeleteService { cluster, service } => {
                Ok(ecs.delete_service(cluster, service).await?)
            }
            EcsStep::StopTasks { cluster, tasks } => {
                for task in tasks {
                    ecs.stop_task(cluster, task).await?;
                }
                Ok(())
            }
            EcsStep::DeregisterContainerInstances { cluster } => {
                let registered = ecs.container_instances(cluster).await?;
                let ids: Vec<String> = registered.iter().map(|i| i.instance_id.clone()).collect();
                let members = self.cloud.autoscaling.groups_of(&ids).await?;
                if let Some(why) = still_members(cluster, &members) {
                    bail!(why);
                }
                for instance in registered {
                    ecs.deregister(cluster, &instance.arn).await?;
                }
                Ok(())
            }
            EcsStep::DeleteCluster { name } => {
                let delete = || ecs.delete_cluster(name);
                self.patiently(step.title(), ECS_LIMIT, is_settling, delete)
                    .await?;
                // A cluster with attachments is deprovisioned for a while first.
                self.until(ECS_LIMIT, name, async || {
                    Ok(ecs.cluster(name).await?.is_none())
                })
                .await
            }
            EcsStep::CreateCapacityProvider {
                name,
                auto_scaling_group,
                settings,
                tags,
            } => {
                let create = || async {
                    self.provider_write_turn().await;
                    ecs.create_capacity_provider(name, auto_scaling_group, settings, tags)
                        .await
                };
                match self
                    .tried(step.title(), ECS_LIMIT, is_settling, create)
                    .await?
                {
                    Err(error) if error.says("already exists") => {
                        let names = std::slice::from_ref(name);
                        let found = ecs.capacity_providers(names).await?.remove(name);
                        is_ours(error, tags, found.map(|found| found.resource.tags))
                    }
                    other => Ok(other?),
                }
            }
            EcsStep::UpdateCapacityProvider { name, settings } => {
                let update = || async {
                    self.provider_write_turn().await;
                    ecs.update_capacity_provider(name, settings).await
                };
                self.patiently(step.title(), ECS_LIMIT, is_settling, update)
                    .await
            }
            EcsStep::DeleteCapacityProvider { name } => {
                let delete = || async {
                    self.provider_write_turn().await;
                    ecs.delete_capacity_provider(name).await
                };
                self.patiently(step.title(), PROVIDER_GONE_LIMIT, is_settling, delete)
                    .await?;
                self.provider_gone(name).await
            }
        }
    }

    /// The call replaces the whole list, and has no condition by which to lose against another writer:
    /// each write is made of what was read right before it, and what it came to is read again, until
    /// there is nothing to write. On a cluster that this run has made there is nothing to read yet.
    async fn attach(&self, cluster: &str, change: &Attachments<'_>) -> Result<()> {
        if self.made().clusters.contains(cluster) {
            let _ = self
                .put_attached(cluster, change, &Cluster::default())
                .await?;
        }
        let (has_written, refusal) = (Cell::new(false), RefCell::new(None));
        let attached = self.until(ECS_LIMIT, cluster, async || {
            let Some(found) = self.cloud.ecs.cluster(cluster).await? else {
                bail!("cluster {cluster} is gone: somebody deleted it meanwhile");
            };
            if let Some(why) = found.failure.filter(|_| has_written.get()) {
                bail!("cluster {cluster}: {why}");
            }
            if found.updating {
                return Ok(false);
            }
            match self.put_attached(cluster, change, &found.resource).await? {
                Put::Needless => Ok(true),
                Put::Refused(why) => {
                    self.progress.live(cluster, &format!("waits: {why}"));
                    *refusal.borrow_mut() = Some(why);
                    Ok(false)
                }
                Put::Done => {
                    has_written.set(true);
                    *refusal.borrow_mut() = None;
                    Ok(false)
                }
            }
        });
        attached.await.map_err(|error| match refusal.take() {
            Some(why) => error.context(why),
            None => error,
        })
    }

    async fn put_attached(
        &self,
        cluster: &str,
        change: &Attachments<'_>,
        found: &Cluster,
    ) -> Result<Put> {
        let Some((providers, strategy)) = change.wanted(found)? else {
            return Ok(Put::Needless);
        };
        let ecs = &self.cloud.ecs;
        let put = ecs.put_cluster_capacity_providers(cluster, &providers, &strategy);
        match put.await {
            Err(error) if is_settling(&error) => Ok(Put::Refused(error)),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(Put::Done),
        }
    }

    async fn provider_gone(&self, name: &str) -> Result<()> {
        self.until(PROVIDER_GONE_LIMIT, name, async || {
            let names = std::slice::from_ref(&name.to_owned()).to_vec();
            match self
                .cloud
                .ecs
                .capacity_providers(&names)
                .await?
                .remove(name)
            {
                None => Ok(true),
                Some(found) => match found.failure {
                    Some(why) => bail!("ECS could not delete capacity provider {name}: {why}"),
                    None => Ok(false),
                },
            }
        })
        .await
    }

    /// Lets capacity-provider writes pass one a second.
    async fn provider_write_turn(&self) {
        let mut next = self.provider_write.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at.into()).await;
        }
        *next = Some(Instant::now() + PROVIDER_WRITE_INTERVAL);
    }
}

/// What became of a write.
enum Put {
    /// All is so already.
    Needless,
    /// Not now: another change is under way, or something still uses what is to go.
    Refused(CallError),
    Done,
}

/// What is to change of a cluster's capacity providers.
struct Attachments<'a> {
    add: &'a [String],
    remove: &'a [String],
    /// `None` leaves it as it is.
    default_strategy: Option<&'a [StrategyItem]>,
}

impl Attachments<'_> {
    /// All that is to be sent; nothing if it is so already.
    ///
    /// # Errors
    /// A default strategy that is to stay as it is names a provider that is to go.
    fn wanted(&self, found: &Cluster) -> Result<Option<(Vec<String>, Vec<StrategyItem>)>> {
        let is_missing = |name: &&String| !found.providers.contains(name);
        let missing: Vec<&String> = self.add.iter().filter(is_missing).collect();
        let leaves = |name: &String| self.remove.contains(name);
        let strategy = match self.default_strategy {
            Some(wanted) => in_order_of(&found.default_strategy, wanted),
            None => found.default_strategy.clone(),
        };
        if missing.is_empty()
            && !found.providers.iter().any(leaves)
            && strategy == found.default_strategy
        {
            return Ok(None);
        }
        if let Some(item) = strategy.iter().find(|item| leaves(&item.provider)) {
            bail!(
                "the default strategy has come to name capacity provider {}: take it out, then run \
                 this again",
                item.provider
            );
        }
        let stay = found.providers.iter().filter(|name| !leaves(name));
        Ok(Some((stay.chain(missing).cloned().collect(), strategy)))
    }
}

/// A node whose group exists is at work for somebody, and its agent would come back: it is never
/// deregistered.
fn still_members(cluster: &str, members: &BTreeMap<String, String>) -> Option<String> {
    let (instance, group) = members.first_key_value()?;
    Some(format!(
        "instance {instance} of auto scaling group {group}, which is not this environment's, is \
         still in cluster {cluster} ({} such in all): take that group out of the cluster, then \
         run `down` again",
        members.len()
    ))
}

/// ECS makes its service-linked role with an account's first cluster, and not at once.
fn is_linking(error: &CallError) -> bool {
    error.says("service linked role")
}

/// ECS is in the middle of something.
fn is_settling(error: &CallError) -> bool {
    error.kind == Kind::InUse
        || is_linking(error)
        || error.says("was not ACTIVE")
        || error.says("in use")
        || error.says("UpdateInProgress")
        || error.says("update in progress")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_was_there_with_ours_put_on_or_taken_off() {
        let item = |provider: &str| StrategyItem {
            provider: provider.into(),
            weight: 1,
            base: 0,
        };
        let names = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        let mut found = Cluster {
            providers: names(&["FARGATE", "theirs"]),
            default_strategy: vec![item("theirs")],
            ..Cluster::default()
        };
        let ours = names(&["ours"]);
        let change = |add, remove| Attachments {
            add,
            remove,
            default_strategy: None,
        };
        let (on, off) = (change(&ours[..], &[]), change(&[], &ours[..]));
        assert_eq!(off.wanted(&found).expect("nothing"), None);
        let sent = on.wanted(&found).expect("a list");
        let all = names(&["FARGATE", "theirs", "ours"]);
        assert_eq!(sent, Some((all, vec![item("theirs")])));

        // Somebody else was there in between.
        found.providers = names(&["ours", "FARGATE", "theirs", "new"]);
        assert_eq!(on.wanted(&found).expect("nothing"), None);
        let sent = off.wanted(&found).expect("a list");
        let others = names(&["FARGATE", "theirs", "new"]);
        assert_eq!(sent, Some((others.clone(), vec![item("theirs")])));
        found.default_strategy = vec![item("theirs"), item("ours")];
        assert!(off.wanted(&found).is_err(), "not ours to change");
        let with_strategy = Attachments {
            default_strategy: Some(&[]),
            ..off
        };
        let sent = with_strategy.wanted(&found).expect("a list");
        assert_eq!(sent, Some((others, Vec::new())));
    }

    #[test]
    fn a_node_whose_group_exists_is_never_deregistered() {
        assert_eq!(still_members("c", &BTreeMap::new()), None);
        let members = [("i-1".to_owned(), "others".to_owned())].into();
        let why = still_members("c", &members).expect("refused");
        assert!(why.starts_with("instance i-1 of auto scaling group others"));
    }
}
