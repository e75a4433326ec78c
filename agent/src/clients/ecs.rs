//! The container instance as the ECS control plane knows it.

use anyhow::{Result, anyhow};
use aws_sdk_ecs::types::{
    Attribute, ContainerInstance, ContainerInstanceStatus, DesiredStatus, Failure, TargetType,
};

use super::aws::{Aws, explain};

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
        self.connected && self.status == "ACTIVE"
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
    /// Tasks of the instance that are not STOPPED, whatever is wanted of them.
    async fn live_tasks(&self, arn: &str) -> Result<usize>;
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
        const CALL: &str = "ecs:UpdateContainerInstancesState";
        let reply = self
            .ecs()
            .await
            .update_container_instances_state()
            .cluster(self.cluster())
            .container_instances(arn)
            .status(ContainerInstanceStatus::Draining)
            .send()
            .await
            .map_err(|error| explain(CALL, arn, &error))?;
        draining(reply.container_instances(), reply.failures())
            .ok_or_else(|| refused(CALL, arn, reply.failures()))
    }

    async fn put_attributes(&self, arn: &str, attributes: &[(String, String)]) -> Result<()> {
        let short = arn.rsplit('/').next().unwrap_or(arn);
        let attributes = attributes
            .iter()
            .map(|(name, value)| {
                Attribute::builder()
                    .name(name)
                    .value(value)
                    .target_type(TargetType::ContainerInstance)
                    .target_id(short)
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
        let mut tasks = self.list_tasks(arn, DesiredStatus::Running).await?;
        tasks.extend(self.list_tasks(arn, DesiredStatus::Stopped).await?);
        let mut live = 0;
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
            live += reply
                .tasks()
                .iter()
                .filter(|task| task.last_status() != Some("STOPPED"))
                .count();
        }
        Ok(live)
    }
}

impl Aws {
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
