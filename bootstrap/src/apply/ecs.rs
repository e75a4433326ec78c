//! Clusters and capacity providers.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Apply, IAM_LIMIT, is_ours};
use crate::{
    cloud::{CallError, Kind},
    plan::EcsStep,
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
                    .await
            }
            EcsStep::UpdateCluster { name, settings } => {
                let update = || ecs.update_cluster(name, settings);
                self.patiently(step.title(), ECS_LIMIT, is_settling, update)
                    .await
            }
            EcsStep::PutClusterCapacityProviders {
                cluster,
                providers,
                default_strategy,
            } => {
                let put =
                    || ecs.put_cluster_capacity_providers(cluster, providers, default_strategy);
                self.patiently(step.title(), ECS_LIMIT, is_settling, put)
                    .await?;
                self.cluster_settled(cluster).await
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

    async fn cluster_settled(&self, cluster: &str) -> Result<()> {
        self.until(ECS_LIMIT, cluster, async || {
            match self.cloud.ecs.cluster(cluster).await? {
                Some(found) => match found.failure {
                    Some(why) => bail!("cluster {cluster}: {why}"),
                    None => Ok(!found.updating),
                },
                None => bail!("cluster {cluster} is gone: somebody deleted it meanwhile"),
            }
        })
        .await
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
    fn a_node_whose_group_exists_is_never_deregistered() {
        assert_eq!(still_members("c", &BTreeMap::new()), None);
        let members = [("i-1".to_owned(), "others".to_owned())].into();
        let why = still_members("c", &members).expect("refused");
        assert!(why.starts_with("instance i-1 of auto scaling group others"));
    }
}
