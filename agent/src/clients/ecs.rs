//! The container instance as the ECS control plane knows it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use aws_sdk_ecs::{
    operation::update_container_instances_state::UpdateContainerInstancesStateOutput,
    types::{
        Attribute, ContainerInstance, ContainerInstanceStatus, DesiredStatus, Failure, TargetType,
        Task,
    },
};

use fleet_agent_config::names::attribute;

use super::aws::{Aws, explain};
use crate::{
    health::{
        Verdict,
        guard::{Around, Census, MANY},
    },
    lifecycle::cause::intent,
};

/// DescribeTasks takes at most this many.
const TASKS_PER_CALL: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// `ACTIVE`, `DRAINING`, `REGISTERING`...
    pub(crate) status: String,
    /// Whether ECS can reach the instance's agent.
    pub(crate) connected: bool,
}

impl Registration {
    /// Ready for tasks.
    pub(crate) fn is_ready(&self) -> bool {
        self.connected && self.is_active()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.status == "ACTIVE"
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.status == "DRAINING"
    }
}

/// What setting DRAINING met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetDraining {
    /// It is DRAINING, with this many tasks pending or running.
    Set { tasks: u32 },
    /// ECS knows no such instance any more: no task can be placed on it.
    Gone,
    /// Refused for now, in ECS's words: only an ACTIVE instance can be set DRAINING.
    NotYet(String),
}

pub(crate) trait Ecs {
    /// What ECS says of the container instance.
    async fn describe(&self, arn: &str) -> Result<Registration>;
    /// Moves service tasks elsewhere and places no more.
    async fn set_draining(&self, arn: &str) -> Result<SetDraining>;
    /// Sets custom attributes: at most ten.
    async fn put_attributes(&self, arn: &str, attributes: &[(String, String)]) -> Result<()>;
    /// Back to work: ECS may place tasks here again. False if ECS knows no such instance.
    async fn set_active(&self, arn: &str) -> Result<bool>;
    /// Tasks of the instance that are not STOPPED, whatever is wanted of them.
    async fn live_tasks(&self, arn: &str) -> Result<usize>;
    /// Who started each task that is to run here: `service:NAME`, or else it is no service's.
    async fn task_groups(&self, arn: &str) -> Result<BTreeMap<String, String>>;
    /// What the nodes of a group say of themselves.
    async fn around(&self, group: &str) -> Result<Around>;
}

impl Ecs for Aws {
    async fn describe(&self, arn: &str) -> Result<Registration> {
        const CALL: &str = "ecs:DescribeContainerInstances";
        let reply = self
            .ecs()
            .await
            .describe_container_instances()
            .cluster(self.cluster())
            .container_instances(arn)
            .send()
            .await
            .map_err(|error| explain(CALL, arn, &error))?;
        match reply.container_instances() {
            [instance, ..] => Ok(Registration {
                status: instance.status().unwrap_or("unknown").to_owned(),
                connected: instance.agent_connected(),
            }),
            [] => Err(refused(CALL, arn, reply.failures())),
        }
    }

    async fn set_draining(&self, arn: &str) -> Result<SetDraining> {
        let reply = self
            .set_status(arn, ContainerInstanceStatus::Draining)
            .await?;
        draining(reply.container_instances(), reply.failures())
            .ok_or_else(|| refused(SET_STATUS, arn, reply.failures()))
    }

    async fn set_active(&self, arn: &str) -> Result<bool> {
        let reply = self
            .set_status(arn, ContainerInstanceStatus::Active)
            .await?;
        match draining(reply.container_instances(), reply.failures()) {
            Some(SetDraining::Set { .. }) => Ok(true),
            Some(SetDraining::Gone) => Ok(false),
            Some(SetDraining::NotYet(_)) | None => Err(refused(SET_STATUS, arn, reply.failures())),
        }
    }

    async fn put_attributes(&self, arn: &str, attributes: &[(String, String)]) -> Result<()> {
        let attributes = attributes
            .iter()
            .map(|(name, value)| {
                Attribute::builder()
                    .name(name)
                    .value(value)
                    .target_type(TargetType::ContainerInstance)
                    .target_id(short(arn))
                    .build()
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.ecs()
            .await
            .put_attributes()
            .cluster(self.cluster())
            .set_attributes(Some(attributes))
            .send()
            .await
            .map(drop)
            .map_err(|error| explain("ecs:PutAttributes", arn, &error))
    }

    async fn live_tasks(&self, arn: &str) -> Result<usize> {
        // A task on its way out has desired status STOPPED long before it has stopped.
        let (mut tasks, leaving) = tokio::try_join!(
            self.list_tasks(arn, DesiredStatus::Running),
            self.list_tasks(arn, DesiredStatus::Stopped),
        )?;
        tasks.extend(leaving);
        let tasks = self.describe_tasks(arn, &tasks).await?;
        let live = |task: &&Task| task.last_status() != Some("STOPPED");
        Ok(tasks.iter().filter(live).count())
    }

    async fn task_groups(&self, arn: &str) -> Result<BTreeMap<String, String>> {
        let tasks = self.list_tasks(arn, DesiredStatus::Running).await?;
        let tasks = self.describe_tasks(arn, &tasks).await?;
        Ok(tasks
            .into_iter()
            .filter_map(|task| Some((task.task_arn?, task.group.unwrap_or_default())))
            .collect())
    }

    async fn around(&self, group: &str) -> Result<Around> {
        let of_group = format!("attribute:{} == {group}", attribute::GROUP);
        let saying =
            |name: &str, value: &str| format!("{of_group} and attribute:{name} == {value}");
        let impaired = saying(attribute::HEALTH, Verdict::Impaired.as_str());
        // First: where a fault is everybody's, everybody asks.
        let Some(impaired) = self.a_few_instances(impaired).await? else {
            return Ok(Around::Many);
        };
        // One after the other, as a node goes: whoever takes a step meanwhile is seen twice, and never
        // not at all.
        let waiting = saying(attribute::INTENT, intent::REPLACE);
        let waiting = self.list_instances(waiting, None).await?;
        let since = self.attributes(attribute::SINCE).await?;
        let leaving = saying(attribute::INTENT, intent::LEAVE);
        let leaving = self.list_instances(leaving, None).await?;
        let draining = Some(ContainerInstanceStatus::Draining);
        let draining = self.list_instances(of_group.clone(), draining).await?;
        let members = self.list_instances(of_group, None).await?;
        let waiting = waiting.into_iter().map(|arn| {
            let since = since.get(short(&arn)).cloned().unwrap_or_default();
            (arn, since)
        });
        Ok(Around::Group(Census {
            members,
            impaired,
            draining,
            leaving,
            waiting: waiting.collect(),
        }))
    }
}

/// An ARN's last part: it is written with and without its cluster's name.
fn short(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

const LIST: &str = "ecs:ListContainerInstances";
const SET_STATUS: &str = "ecs:UpdateContainerInstancesState";

impl Aws {
    async fn set_status(
        &self,
        arn: &str,
        status: ContainerInstanceStatus,
    ) -> Result<UpdateContainerInstancesStateOutput> {
        self.ecs()
            .await
            .update_container_instances_state()
            .cluster(self.cluster())
            .container_instances(arn)
            .status(status)
            .send()
            .await
            .map_err(|error| explain(SET_STATUS, arn, &error))
    }

    /// None if there are more than [`MANY`]. A page may hold fewer than there is room for.
    async fn a_few_instances(&self, filter: String) -> Result<Option<BTreeSet<String>>> {
        let listed = self.ecs().await.list_container_instances();
        let listed = listed.cluster(self.cluster()).filter(&filter);
        let mut pages = listed.into_paginator().items().send();
        let mut instances = BTreeSet::new();
        while let Some(arn) = pages.next().await {
            instances.insert(arn.map_err(|error| explain(LIST, &filter, &error))?);
            if instances.len() > MANY {
                return Ok(None);
            }
        }
        Ok(Some(instances))
    }

    /// Of every status but INACTIVE, unless one is given.
    async fn list_instances(
        &self,
        filter: String,
        status: Option<ContainerInstanceStatus>,
    ) -> Result<BTreeSet<String>> {
        let listed = self.ecs().await.list_container_instances();
        let listed = listed.cluster(self.cluster()).filter(&filter);
        let mut pages = listed.set_status(status).into_paginator().items().send();
        let mut instances = BTreeSet::new();
        while let Some(arn) = pages.next().await {
            instances.insert(arn.map_err(|error| explain(LIST, &filter, &error))?);
        }
        Ok(instances)
    }

    /// Container instances of the whole cluster, by their short ids, with what they say by this name.
    async fn attributes(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let listed = self.ecs().await.list_attributes();
        let listed = listed.cluster(self.cluster()).attribute_name(name);
        let listed = listed.target_type(TargetType::ContainerInstance);
        let mut pages = listed.into_paginator().items().send();
        let mut found = BTreeMap::new();
        while let Some(attribute) = pages.next().await {
            let attribute =
                attribute.map_err(|error| explain("ecs:ListAttributes", name, &error))?;
            if let (Some(arn), Some(value)) = (attribute.target_id, attribute.value) {
                found.insert(short(&arn).to_owned(), value);
            }
        }
        Ok(found)
    }

    async fn describe_tasks(&self, arn: &str, tasks: &[String]) -> Result<Vec<Task>> {
        let mut described = Vec::new();
        for chunk in tasks.chunks(TASKS_PER_CALL) {
            let reply = self
                .ecs()
                .await
                .describe_tasks()
                .cluster(self.cluster())
                .set_tasks(Some(chunk.to_vec()))
                .send()
                .await
                .map_err(|error| explain("ecs:DescribeTasks", arn, &error))?;
            described.extend(reply.tasks.unwrap_or_default());
        }
        Ok(described)
    }

    async fn list_tasks(&self, arn: &str, desired: DesiredStatus) -> Result<Vec<String>> {
        let mut pages = self
            .ecs()
            .await
            .list_tasks()
            .cluster(self.cluster())
            .container_instance(arn)
            .desired_status(desired)
            .into_paginator()
            .items()
            .send();
        let mut tasks = Vec::new();
        while let Some(task) = pages.next().await {
            tasks.push(task.map_err(|error| explain("ecs:ListTasks", arn, &error))?);
        }
        Ok(tasks)
    }
}

/// UpdateContainerInstancesState answers 200 also when it refuses: `failures` tells.
fn draining(instances: &[ContainerInstance], failures: &[Failure]) -> Option<SetDraining> {
    if let Some(instance) = instances.first() {
        let tasks = instance.running_tasks_count() + instance.pending_tasks_count();
        return Some(SetDraining::Set {
            tasks: u32::try_from(tasks).unwrap_or_default(),
        });
    }
    let reason = failures.first()?.reason().unwrap_or_default();
    Some(match reason {
        "MISSING" | "INACTIVE" => SetDraining::Gone,
        other => SetDraining::NotYet(other.to_owned()),
    })
}

fn refused(call: &str, arn: &str, failures: &[Failure]) -> anyhow::Error {
    let reason = failures
        .first()
        .and_then(Failure::reason)
        .unwrap_or("an empty reply");
    anyhow!("{call} of {arn}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_successful_call_are_read() {
        let failure = |reason: &str| [Failure::builder().reason(reason).build()];
        assert_eq!(draining(&[], &failure("MISSING")), Some(SetDraining::Gone));
        assert_eq!(
            draining(&[], &failure("REGISTERING")),
            Some(SetDraining::NotYet("REGISTERING".into()))
        );
        assert_eq!(draining(&[], &[]), None);
        let instance = ContainerInstance::builder()
            .running_tasks_count(2)
            .pending_tasks_count(1)
            .build();
        assert_eq!(
            draining(&[instance], &[]),
            Some(SetDraining::Set { tasks: 3 })
        );
    }
}
