//! Clusters, capacity providers, container instances and what runs on them.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::{
    Client,
    config::Builder,
    types::{
        AutoScalingGroupProvider, AutoScalingGroupProviderUpdate, CapacityProvider as SdkProvider,
        CapacityProviderField, CapacityProviderStatus, CapacityProviderStrategyItem,
        CapacityProviderUpdateStatus, Cluster as SdkCluster, ClusterField,
        ContainerInstance as SdkInstance, DesiredStatus, ManagedDraining, ManagedScaling,
        ManagedScalingStatus, ManagedTerminationProtection, Service as SdkService, Tag,
    },
};

use super::{
    cluster::{self, configuration, container_insights},
    error::{CallError, failed, found, gone},
    signed, unsigned,
};
use crate::inventory::{
    CapacityProvider, Cluster, ClusterSettings, ProviderSettings, StrategyItem, Tags, Workload,
};

/// Items a Describe call takes.
const BATCH: usize = 100;
/// Capacity providers on one page of DescribeCapacityProviders.
const PROVIDER_BATCH: usize = 10;
/// Services a DescribeServices call takes.
const SERVICE_BATCH: usize = 10;

#[derive(Debug)]
pub(crate) struct Ecs {
    client: Client,
}

/// Something that may be on its way out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing<T> {
    pub(crate) resource: T,
    /// AWS is deleting it.
    pub(crate) leaving: bool,
    /// An earlier change is still running.
    pub(crate) updating: bool,
    /// Why AWS could not finish the last one.
    pub(crate) failure: Option<String>,
}

/// A container instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub(crate) struct ContainerInstance {
    pub(crate) arn: String,
    pub(crate) instance_id: String,
    /// `ACTIVE`, `DRAINING`...
    pub(crate) status: String,
    pub(crate) connected: bool,
    pub(crate) running_tasks: i32,
    pub(crate) pending_tasks: i32,
    /// Custom attributes and ECS's own.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Ecs {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// The cluster without its workload. An inactive one is absent: its name is free.
    pub(crate) async fn cluster(&self, name: &str) -> Result<Option<Standing<Cluster>>, CallError> {
        let mut found = self.clusters(&[name]).await?;
        Ok(found.remove(name))
    }

    /// Those of a few clusters that there are, by name, as [`Ecs::cluster`].
    pub(crate) async fn clusters(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Standing<Cluster>>, CallError> {
        let asked = names.iter().map(|name| (*name).to_owned()).collect();
        let reply = self
            .client
            .describe_clusters()
            .set_clusters(Some(asked))
            .include(ClusterField::Tags)
            .include(ClusterField::Attachments)
            .include(ClusterField::Settings)
            .include(ClusterField::Configurations)
            .send()
            .await
            .map_err(failed("ecs:DescribeClusters", &names.join(" ")))?;
        let clusters = reply.clusters.unwrap_or_default();
        Ok(clusters.into_iter().filter_map(read_cluster).collect())
    }

    pub(crate) async fn create_cluster(
        &self,
        name: &str,
        settings: &ClusterSettings,
        tags: &Tags,
    ) -> Result<(), CallError> {
        self.client
            .create_cluster()
            .cluster_name(name)
            .set_settings(container_insights(settings))
            .set_configuration(configuration(settings))
            .set_tags(Some(ecs_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("ecs:CreateCluster", name))
    }

    pub(crate) async fn update_cluster(
        &self,
        name: &str,
        settings: &ClusterSettings,
    ) -> Result<(), CallError> {
        self.client
            .update_cluster()
            .cluster(name)
            .set_settings(container_insights(settings))
            .set_configuration(configuration(settings))
            .send()
            .await
            .map(drop)
            .map_err(failed("ecs:UpdateCluster", name))
    }

    pub(crate) async fn delete_cluster(&self, name: &str) -> Result<(), CallError> {
        let reply = self.client.delete_cluster().cluster(name).send().await;
        gone(reply.map_err(failed("ecs:DeleteCluster", name)))
    }

    /// Those capacity providers that exist, by name.
    pub(crate) async fn capacity_providers(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, Standing<CapacityProvider>>, CallError> {
        let mut providers = BTreeMap::new();
        for batch in names.chunks(PROVIDER_BATCH) {
            let mut token = None;
            loop {
                let reply = self
                    .client
                    .describe_capacity_providers()
                    .set_capacity_providers(Some(batch.to_vec()))
                    .include(CapacityProviderField::Tags)
                    .set_next_token(token)
                    .send()
                    .await
                    .map_err(failed("ecs:DescribeCapacityProviders", &batch.join(" ")));
                let Some(reply) = found(reply)? else { break };
                let found = reply.capacity_providers.unwrap_or_default();
                providers.extend(found.into_iter().filter_map(read_provider));
                token = reply.next_token.filter(|token| !token.is_empty());
                if token.is_none() {
                    break;
                }
            }
        }
        Ok(providers)
    }

    pub(crate) async fn create_capacity_provider(
        &self,
        name: &str,
        auto_scaling_group: &str,
        settings: &ProviderSettings,
        tags: &Tags,
    ) -> Result<(), CallError> {
        const CALL: &str = "ecs:CreateCapacityProvider";
        let provider = AutoScalingGroupProvider::builder()
            // Takes a name as well, which saves a read.
            .auto_scaling_group_arn(auto_scaling_group)
            .managed_scaling(scaling(settings))
            .managed_termination_protection(protection(settings))
            .managed_draining(draining(settings))
            .build()
            .map_err(|_| CallError::malformed(CALL, name, "group"))?;
        self.client
            .create_capacity_provider()
            .name(name)
            .auto_scaling_group_provider(provider)
            .set_tags(Some(ecs_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed(CALL, name))
    }

    pub(crate) async fn update_capacity_provider(
        &self,
        name: &str,
        settings: &ProviderSettings,
    ) -> Result<(), CallError> {
        let provider = AutoScalingGroupProviderUpdate::builder()
            .managed_scaling(scaling(settings))
            .managed_termination_protection(protection(settings))
            .managed_draining(draining(settings))
            .build();
        self.client
            .update_capacity_provider()
            .name(name)
            .auto_scaling_group_provider(provider)
            .send()
            .await
            .map(drop)
            .map_err(failed("ecs:UpdateCapacityProvider", name))
    }

    pub(crate) async fn delete_capacity_provider(&self, name: &str) -> Result<(), CallError> {
        let request = self.client.delete_capacity_provider();
        let reply = request.capacity_provider(name).send().await;
        match reply.map_err(failed("ecs:DeleteCapacityProvider", name)) {
            Err(error) if is_no_provider(&error) => Ok(()),
            other => gone(other),
        }
    }

    /// Replaces the whole list.
    pub(crate) async fn put_cluster_capacity_providers(
        &self,
        cluster: &str,
        providers: &[String],
        default_strategy: &[StrategyItem],
    ) -> Result<(), CallError> {
        const CALL: &str = "ecs:PutClusterCapacityProviders";
        let strategy: Result<Vec<_>, _> = default_strategy
            .iter()
            .map(|item| {
                CapacityProviderStrategyItem::builder()
                    .capacity_provider(&item.provider)
                    .weight(signed(item.weight))
                    .base(signed(item.base))
                    .build()
            })
            .collect();
        let strategy = strategy.map_err(|_| CallError::malformed(CALL, cluster, "provider"))?;
        self.client
            .put_cluster_capacity_providers()
            .cluster(cluster)
            .set_capacity_providers(Some(providers.to_vec()))
            .set_default_capacity_provider_strategy(Some(strategy))
            .send()
            .await
            .map(drop)
            .map_err(failed(CALL, cluster))
    }

    pub(crate) async fn tag(&self, arn: &str, tags: &Tags) -> Result<(), CallError> {
        self.client
            .tag_resource()
            .resource_arn(arn)
            .set_tags(Some(ecs_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("ecs:TagResource", arn))
    }

    /// What runs in a cluster.
    pub(crate) async fn workload(&self, cluster: &str) -> Result<Workload, CallError> {
        let (services, tasks, instances) = tokio::try_join!(
            self.services(cluster),
            self.tasks(cluster, None),
            self.container_instances(cluster)
        )?;
        Ok(Workload {
            services: services.into_iter().map(|service| service.name).collect(),
            standalone_tasks: tasks
                .iter()
                .filter(|task| task.service.is_none())
                .map(|task| task.arn.clone())
                .collect(),
            tasks: tasks.len(),
            container_instances: instances.len(),
        })
    }

    /// Services that are not yet inactive.
    pub(crate) async fn services(&self, cluster: &str) -> Result<Vec<Service>, CallError> {
        let arns: Vec<String> = self
            .client
            .list_services()
            .cluster(cluster)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ecs:ListServices", cluster))?;
        let mut services = Vec::new();
        for batch in arns.chunks(SERVICE_BATCH) {
            let reply = self
                .client
                .describe_services()
                .cluster(cluster)
                .set_services(Some(batch.to_vec()))
                .send()
                .await
                .map_err(failed("ecs:DescribeServices", cluster))?;
            let found = reply.services.unwrap_or_default().into_iter();
            services.extend(
                found
                    .filter(|service| service.status.as_deref() != Some("INACTIVE"))
                    .filter_map(read_service),
            );
        }
        Ok(services)
    }

    /// Deletes a service with its tasks.
    pub(crate) async fn delete_service(
        &self,
        cluster: &str,
        service: &str,
    ) -> Result<(), CallError> {
        let request = self.client.delete_service().cluster(cluster);
        let reply = request.service(service).force(true).send().await;
        let reply = reply.map_err(failed("ecs:DeleteService", service));
        match reply {
            // Deleted already, and draining.
            Err(error) if error.code == "ServiceNotActiveException" => Ok(()),
            other => gone(other),
        }
    }

    /// Tasks that still hold something: those that should run, and those that have been told to
    /// stop and have not. Counts on container instances leave the latter out.
    pub(crate) async fn tasks(
        &self,
        cluster: &str,
        container_instance: Option<&str>,
    ) -> Result<Vec<Task>, CallError> {
        let mut arns: Vec<String> = Vec::new();
        for desired in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let page: Vec<String> = self
                .client
                .list_tasks()
                .cluster(cluster)
                .set_container_instance(container_instance.map(str::to_owned))
                .desired_status(desired)
                .into_paginator()
                .items()
                .send()
                .try_collect()
                .await
                .map_err(failed(
                    "ecs:ListTasks",
                    container_instance.unwrap_or(cluster),
                ))?;
            arns.extend(page);
        }
        let mut tasks = Vec::new();
        for batch in arns.chunks(BATCH) {
            let reply = self
                .client
                .describe_tasks()
                .cluster(cluster)
                .set_tasks(Some(batch.to_vec()))
                .send()
                .await
                .map_err(failed("ecs:DescribeTasks", cluster))?;
            let found = reply.tasks.unwrap_or_default().into_iter();
            tasks.extend(
                found
                    .filter(|task| task.last_status.as_deref() != Some("STOPPED"))
                    .filter_map(|task| {
                        let group = task.group.unwrap_or_default();
                        Some(Task {
                            arn: task.task_arn?,
                            service: group.strip_prefix("service:").map(str::to_owned),
                            container_instance: task.container_instance_arn,
                        })
                    }),
            );
        }
        Ok(tasks)
    }

    pub(crate) async fn stop_task(&self, cluster: &str, task: &str) -> Result<(), CallError> {
        let request = self.client.stop_task().cluster(cluster).task(task);
        let reply = request.reason("fleet-bootstrap down").send().await;
        let reply = reply.map_err(failed("ecs:StopTask", task));
        match reply {
            Err(error) if error.says("task was not found") => Ok(()),
            other => gone(other),
        }
    }

    /// The container instance of one EC2 instance, unless it is inactive or there is none.
    pub(crate) async fn container_instance(
        &self,
        cluster: &str,
        instance_id: &str,
    ) -> Result<Option<ContainerInstance>, CallError> {
        let listed = self
            .client
            .list_container_instances()
            .cluster(cluster)
            .filter(format!("ec2InstanceId == {instance_id}"))
            .send()
            .await
            .map_err(failed("ecs:ListContainerInstances", instance_id));
        // Without a cluster there are none.
        let arns = found(listed)?.and_then(|reply| reply.container_instance_arns);
        let Some(arn) = arns.unwrap_or_default().into_iter().next() else {
            return Ok(None);
        };
        let reply = self
            .client
            .describe_container_instances()
            .cluster(cluster)
            .container_instances(&arn)
            .send()
            .await
            .map_err(failed("ecs:DescribeContainerInstances", &arn))?;
        let mut instances = reply.container_instances.unwrap_or_default().into_iter();
        Ok(instances.next().map(read_instance))
    }

    /// All container instances of a cluster but the inactive ones, which a list without a status
    /// leaves out.
    pub(crate) async fn container_instances(
        &self,
        cluster: &str,
    ) -> Result<Vec<ContainerInstance>, CallError> {
        let arns: Vec<String> = self
            .client
            .list_container_instances()
            .cluster(cluster)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .map_err(failed("ecs:ListContainerInstances", cluster))?;
        let mut instances = Vec::new();
        for batch in arns.chunks(BATCH) {
            let reply = self
                .client
                .describe_container_instances()
                .cluster(cluster)
                .set_container_instances(Some(batch.to_vec()))
                .send()
                .await
                .map_err(failed("ecs:DescribeContainerInstances", cluster))?;
            let found = reply.container_instances.unwrap_or_default().into_iter();
            instances.extend(found.map(read_instance));
        }
        Ok(instances)
    }

    pub(crate) async fn deregister(&self, cluster: &str, arn: &str) -> Result<(), CallError> {
        let request = self.client.deregister_container_instance().cluster(cluster);
        let reply = request.container_instance(arn).force(true).send().await;
        match reply.map_err(failed("ecs:DeregisterContainerInstance", arn)) {
            // An earlier attempt, whose answer was lost, has done it.
            Err(error) if error.says("container instance") && error.says("not found") => Ok(()),
            other => gone(other),
        }
    }
}

/// A task that is not yet stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) arn: String,
    /// The service that keeps it.
    pub(crate) service: Option<String>,
    /// ARN; absent until it is placed, and on Fargate.
    pub(crate) container_instance: Option<String>,
}

/// A service that is not yet inactive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Capacity providers that its strategy names, or that of a deployment which is not over.
    pub(crate) providers: BTreeSet<String>,
}

fn read_service(service: SdkService) -> Option<Service> {
    let deployments = service.deployments.unwrap_or_default().into_iter();
    let strategies = deployments
        .map(|deployment| deployment.capacity_provider_strategy)
        .chain([service.capacity_provider_strategy]);
    let items = strategies.flatten().flatten();
    Some(Service {
        name: service.service_name?,
        providers: items.map(|item| item.capacity_provider).collect(),
    })
}

fn read_cluster(cluster: SdkCluster) -> Option<(String, Standing<Cluster>)> {
    let status = cluster.status.unwrap_or_default();
    if status == "INACTIVE" {
        return None;
    }
    let strategy = cluster.default_capacity_provider_strategy;
    let standing = Standing {
        leaving: status == "DEPROVISIONING",
        updating: cluster.attachments_status.as_deref() == Some("UPDATE_IN_PROGRESS"),
        failure: (cluster.attachments_status.as_deref() == Some("UPDATE_FAILED"))
            .then(|| "its capacity providers could not be attached".to_owned()),
        resource: Cluster {
            arn: cluster.cluster_arn.unwrap_or_default(),
            status,
            tags: tags(cluster.tags),
            settings: cluster::read(cluster.settings, cluster.configuration),
            providers: cluster.capacity_providers.unwrap_or_default(),
            default_strategy: strategy
                .unwrap_or_default()
                .into_iter()
                .map(|item| StrategyItem {
                    provider: item.capacity_provider,
                    weight: unsigned(Some(item.weight)).unwrap_or_default(),
                    base: unsigned(Some(item.base)).unwrap_or_default(),
                })
                .collect(),
            workload: Workload::default(),
        },
    };
    Some((cluster.cluster_name?, standing))
}

fn read_provider(provider: SdkProvider) -> Option<(String, Standing<CapacityProvider>)> {
    if provider.status == Some(CapacityProviderStatus::Inactive) {
        return None;
    }
    let leaving = provider.status == Some(CapacityProviderStatus::Deprovisioning)
        || provider.update_status == Some(CapacityProviderUpdateStatus::DeleteInProgress);
    let updating = matches!(
        provider.update_status,
        Some(
            CapacityProviderUpdateStatus::CreateInProgress
                | CapacityProviderUpdateStatus::UpdateInProgress
        )
    );
    let failure = matches!(
        provider.update_status,
        Some(
            CapacityProviderUpdateStatus::CreateFailed
                | CapacityProviderUpdateStatus::UpdateFailed
                | CapacityProviderUpdateStatus::DeleteFailed
        )
    )
    .then(|| provider.update_status_reason.unwrap_or_default());
    let group = provider.auto_scaling_group_provider;
    let resource = CapacityProvider {
        arn: provider.capacity_provider_arn.unwrap_or_default(),
        tags: tags(provider.tags),
        auto_scaling_group: group
            .as_ref()
            .map_or_else(String::new, |group| group.auto_scaling_group_arn.clone()),
        settings: group.map(read_settings).unwrap_or_default(),
    };
    let standing = Standing {
        resource,
        leaving,
        updating,
        failure,
    };
    Some((provider.name?, standing))
}

fn read_settings(group: AutoScalingGroupProvider) -> ProviderSettings {
    let is_on = |s: &ManagedScaling| s.status == Some(ManagedScalingStatus::Enabled);
    // What is off may have numbers all the same.
    let scaling = group.managed_scaling.filter(is_on);
    ProviderSettings {
        managed_scaling: scaling.is_some(),
        target_capacity: unsigned(scaling.as_ref().and_then(|s| s.target_capacity))
            .unwrap_or_default(),
        instance_warmup_seconds: unsigned(scaling.and_then(|s| s.instance_warmup_period))
            .unwrap_or_default(),
        termination_protection: group.managed_termination_protection
            == Some(ManagedTerminationProtection::Enabled),
        // Absent means the service's default, which is on.
        managed_draining: group.managed_draining != Some(ManagedDraining::Disabled),
    }
}

fn scaling(settings: &ProviderSettings) -> ManagedScaling {
    let scaling = ManagedScaling::builder();
    if !settings.managed_scaling {
        return scaling.status(ManagedScalingStatus::Disabled).build();
    }
    scaling
        .status(ManagedScalingStatus::Enabled)
        .target_capacity(signed(settings.target_capacity))
        .instance_warmup_period(signed(settings.instance_warmup_seconds))
        .build()
}

fn protection(settings: &ProviderSettings) -> ManagedTerminationProtection {
    if settings.termination_protection {
        ManagedTerminationProtection::Enabled
    } else {
        ManagedTerminationProtection::Disabled
    }
}

fn draining(settings: &ProviderSettings) -> ManagedDraining {
    if settings.managed_draining {
        ManagedDraining::Enabled
    } else {
        ManagedDraining::Disabled
    }
}

fn tags(tags: Option<Vec<Tag>>) -> Tags {
    let tags = tags.unwrap_or_default().into_iter();
    tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect()
}

fn ecs_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}
fn read_instance(instance: SdkInstance) -> ContainerInstance {
    let attributes = instance.attributes.unwrap_or_default().into_iter();
    ContainerInstance {
        arn: instance.container_instance_arn.unwrap_or_default(),
        instance_id: instance.ec2_instance_id.unwrap_or_default(),
        status: instance.status.unwrap_or_default(),
        connected: instance.agent_connected,
        running_tasks: instance.running_tasks_count,
        pending_tasks: instance.pending_tasks_count,
        attributes: attributes
            .map(|attribute| (attribute.name, attribute.value.unwrap_or_default()))
            .collect(),
    }
}

/// The capacity provider is not there, which has no code of its own: an earlier attempt, whose answer was
/// lost, has deleted it.
fn is_no_provider(error: &CallError) -> bool {
    let codes = ["ClientException", "InvalidParameterException"];
    codes.contains(&error.code.as_str()) && error.says("does not exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_provider_that_is_not_there_counts_as_deleted() {
        let refused = |code: &str, message: &str| {
            let mut error = CallError::malformed("ecs:DeleteCapacityProvider", "p", "answer");
            error.code = code.into();
            error.message = message.into();
            is_no_provider(&error)
        };
        let gone = "The specified capacity provider does not exist.";
        assert!(refused("InvalidParameterException", gone));
        assert!(refused("ClientException", gone));
        assert!(!refused("AccessDeniedException", gone));
        let used = "The capacity provider is in use by a cluster.";
        assert!(!refused("ClientException", used));
    }
}
