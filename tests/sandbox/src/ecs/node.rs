//! Nodes: what they report, what they are told, and what time and loss do to them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    Cluster, ContainerInstance, InstanceStatus, Model, Task, TaskStatus, client_error,
    state::CapacityProvider,
};
use crate::{
    api_error::ApiError,
    node_protocol::{ContainerOrder, Reply, Sync, TaskOrder, TaskReport},
};

/// How long stopped tasks and deregistered instances can still be described. AWS: about an hour.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

impl Model {
    /// Takes a node's report.
    ///
    /// # Errors
    /// `InactiveInstanceException` once the container instance is deregistered: it has to register
    /// anew. `ClientException` for an unknown task status.
    pub fn sync(&mut self, sync: &Sync, now: Timestamp) -> Result<(), ApiError> {
        for report in &sync.tasks {
            if !["PENDING", "RUNNING", "STOPPED"].contains(&report.known_status.as_str()) {
                return Err(client_error(format!(
                    "'{}' is no known status of a task",
                    report.known_status
                )));
            }
        }
        let arn = &sync.container_instance_arn;
        let mut clusters = self.clusters.values_mut();
        let cluster = clusters.find(|c| {
            let instance = c.instances.get(arn);
            instance.is_some_and(|i| i.status != InstanceStatus::Inactive)
        });
        let Some(cluster) = cluster else {
            return Err(ApiError::new(
                "InactiveInstanceException",
                format!("The container instance is not registered: {arn}"),
            ));
        };
        if cluster.instances[arn].connected {
            cluster.hear(arn, now);
        } else {
            cluster.change_instance(arn, |instance| {
                instance.last_sync = Some(now);
                instance.connected = true;
            });
        }
        cluster.take_report(sync, now);
        let name = cluster.name.clone();
        self.schedule(&name, now);
        Ok(())
    }

    /// What a node is to do, if it is still registered.
    pub fn orders(&self, container_instance_arn: &str) -> Option<Reply> {
        let (cluster, instance) = self.clusters.values().find_map(|cluster| {
            let instance = cluster.instances.get(container_instance_arn)?;
            Some((cluster, instance))
        })?;
        if instance.status == InstanceStatus::Inactive {
            return None;
        }
        let tasks = cluster.tasks_on(&instance.arn);
        let tasks = tasks.filter(|task| task.last_status != TaskStatus::Stopped);
        let tasks = tasks.map(|task| TaskOrder {
            task_arn: task.arn.clone(),
            desired_status: task.desired_status().to_owned(),
            family: task.family.clone(),
            revision: task.revision,
            containers: task
                .containers
                .iter()
                .map(|container| ContainerOrder {
                    name: container.name.clone(),
                    image: container.image.clone(),
                    command: container.command.clone(),
                    environment: container.environment.clone(),
                    stop_timeout: container.stop_timeout,
                })
                .collect(),
        });
        Some(Reply {
            version: instance.orders_version,
            tasks: tasks.collect(),
        })
    }

    /// The container instance that a machine is registered as, and its cluster.
    pub fn of_machine(&self, ec2_instance_id: &str) -> Option<(&Cluster, &ContainerInstance)> {
        self.clusters.values().find_map(|cluster| {
            let arn = cluster.index.of_machine(ec2_instance_id).next()?;
            Some((cluster, cluster.instances.get(arn)?))
        })
    }

    /// The machine is gone: its container instance is deregistered and its tasks are over, as on
    /// AWS soon after an EC2 instance has been terminated.
    pub fn machine_gone(&mut self, ec2_instance_id: &str, now: Timestamp) {
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        for name in names {
            let reason = format!("Host EC2 (instance {ec2_instance_id}) terminated.");
            self.lose(&name, ec2_instance_id, &reason, now);
            self.schedule(&name, now);
        }
    }

    /// Deregisters a machine's container instances and ends their tasks.
    pub(super) fn lose(
        &mut self,
        cluster: &str,
        ec2_instance_id: &str,
        reason: &str,
        now: Timestamp,
    ) {
        let Some(cluster) = self.clusters.get_mut(cluster) else {
            return;
        };
        let lost: Vec<String> = cluster.index.of_machine(ec2_instance_id).cloned().collect();
        for arn in lost {
            let tasks: Vec<String> = cluster.tasks_on(&arn).map(|t| t.arn.clone()).collect();
            cluster.change_instance(&arn, |instance| {
                instance.status = InstanceStatus::Inactive;
                instance.connected = false;
                instance.inactive_at = Some(now);
                instance.version += 1;
            });
            for task in tasks {
                cluster.change_task(&task, |task| {
                    if task.last_status != TaskStatus::Stopped {
                        task.last_status = TaskStatus::Stopped;
                        task.version += 1;
                        task.stopped_at = Some(now);
                        task.stop_code.get_or_insert("TerminationNotice");
                        task.stopped_reason.get_or_insert_with(|| reason.to_owned());
                    }
                });
            }
        }
    }

    /// The next time at which [`Model::advance`] changes something by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timeout = self.options.connection_timeout;
        let providers = self.providers.values().filter_map(|p| p.deleted_at);
        let clusters = self.clusters.values().flat_map(|cluster| {
            let silent = cluster
                .index
                .heard
                .first()
                .map(|(heard, _)| *heard + timeout);
            let slowed = cluster.index.slowed.first().map(|(until, _)| *until);
            silent.into_iter().chain(slowed).chain(cluster.attached_at)
        });
        providers.chain(clusters).min()
    }

    /// Does what is due by `now`.
    pub fn advance(&mut self, now: Timestamp) {
        for provider in self.providers.values_mut() {
            provider.finish_deletion(now);
        }
        let timeout = self.options.connection_timeout;
        let names: Vec<String> = self.clusters.keys().cloned().collect();
        for name in names {
            if let Some(cluster) = self.clusters.get_mut(&name) {
                cluster.advance(timeout, now);
            }
            self.schedule(&name, now);
        }
    }
}

impl Cluster {
    fn take_report(&mut self, sync: &Sync, now: Timestamp) {
        let reports: BTreeMap<&str, &TaskReport> = sync
            .tasks
            .iter()
            .map(|report| (report.task_arn.as_str(), report))
            .collect();
        let mut changes = Vec::new();
        for task in self.tasks_on(&sync.container_instance_arn) {
            let before = task.last_status;
            let (after, reason) = match reports.get(task.arn.as_str()) {
                Some(report) => match report.known_status.as_str() {
                    "STOPPED" => (TaskStatus::Stopped, report.reason.clone()),
                    "RUNNING" if task.stopping => (TaskStatus::Deactivating, None),
                    "RUNNING" => (TaskStatus::Running, None),
                    _ => (before, None),
                },
                // It has read the order to stop and does not know the task: nothing is left of it.
                None if task.stopping && sync.version >= task.stop_ordered => {
                    (TaskStatus::Stopped, None)
                }
                None => (before, None),
            };
            if before != after && before != TaskStatus::Stopped {
                changes.push((task.arn.clone(), after, reason));
            }
        }
        for (arn, after, reason) in changes {
            let outcome = self.change_task(&arn, |task| {
                task.take(after, reason, now);
                let ran = task.started_at.is_some();
                let tells = ran || !task.stopping;
                task.service.clone().filter(|_| tells).zip(Some(ran))
            });
            if let Some((service, ran)) = outcome.flatten() {
                self.count_start(&service, ran, now);
            }
        }
    }

    fn advance(&mut self, connection_timeout: SignedDuration, now: Timestamp) {
        if self.attached_at.is_some_and(|t| t <= now) {
            self.attached_at = None;
        }
        while let Some(name) = first_by(&self.index.slowed, now) {
            self.pace_service(&name, |service| service.start_not_before = None);
        }
        while let Some(arn) = first_by(&self.index.heard, now - connection_timeout) {
            self.change_instance(&arn, |instance| {
                instance.connected = false;
                instance.version += 1;
            });
        }
        while let Some(arn) = first_by(&self.index.stopped, now - REMEMBERED) {
            self.forget_task(&arn);
        }
        while let Some(arn) = first_by(&self.index.inactive, now - REMEMBERED) {
            self.forget_instance(&arn);
        }
    }
}

impl Task {
    /// Goes over to what its node reports.
    fn take(&mut self, status: TaskStatus, reason: Option<String>, now: Timestamp) {
        self.last_status = status;
        self.version += 1;
        match status {
            TaskStatus::Running => self.started_at = Some(now),
            TaskStatus::Stopped => {
                self.stopped_at = Some(now);
                if !self.stopping {
                    let reason =
                        reason.unwrap_or_else(|| "Essential container in task exited".to_owned());
                    self.stopped_reason = Some(reason);
                    self.stop_code = Some("EssentialContainerExited");
                }
            }
            TaskStatus::Pending | TaskStatus::Deactivating => {}
        }
    }
}

/// Name of the first entry, if its time has come.
fn first_by(queue: &BTreeSet<(Timestamp, String)>, time: Timestamp) -> Option<String> {
    let (first, name) = queue.first()?;
    (*first <= time).then(|| name.clone())
}

impl CapacityProvider {
    fn finish_deletion(&mut self, now: Timestamp) {
        if self.deleted_at.is_some_and(|t| t <= now) {
            self.deleted_at = None;
            self.active = false;
            self.update_status = "DELETE_COMPLETE";
        }
    }
}
