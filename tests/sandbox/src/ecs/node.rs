//! Nodes: what they report, what they are told, and what time and loss do to them.

use jiff::{SignedDuration, Timestamp};

use super::{
    Cluster, ContainerInstance, InstanceStatus, Model, TaskStatus, client_error,
    state::CapacityProvider,
};
use crate::{
    api_error::ApiError,
    node_protocol::{ContainerOrder, Reply, Sync, TaskOrder},
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
        let cluster = clusters.find(|c| c.instances.contains_key(arn));
        let instance = cluster.and_then(|c| Some((c.instances.get_mut(arn)?, c.name.clone())));
        let Some((instance, name)) = instance.filter(|(i, _)| i.status != InstanceStatus::Inactive)
        else {
            return Err(ApiError::new(
                "InactiveInstanceException",
                format!("The container instance is not registered: {arn}"),
            ));
        };
        instance.last_sync = Some(now);
        instance.connected = true;
        if let Some(cluster) = self.clusters.get_mut(&name) {
            cluster.take_report(sync, now);
        }
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
        let tasks = cluster.tasks.values().filter(|task| {
            task.instance_arn == instance.arn && task.last_status != TaskStatus::Stopped
        });
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
        for instance in cluster.instances.values_mut() {
            if instance.ec2_instance_id != ec2_instance_id
                || instance.status == InstanceStatus::Inactive
            {
                continue;
            }
            instance.status = InstanceStatus::Inactive;
            instance.connected = false;
            instance.inactive_at = Some(now);
            instance.version += 1;
            let tasks = cluster.tasks.values_mut();
            for task in tasks.filter(|t| t.instance_arn == instance.arn) {
                if task.last_status != TaskStatus::Stopped {
                    task.last_status = TaskStatus::Stopped;
                    task.version += 1;
                    task.stopped_at = Some(now);
                    task.stop_code.get_or_insert("TerminationNotice");
                    task.stopped_reason.get_or_insert_with(|| reason.to_owned());
                }
            }
        }
    }

    /// The next time at which [`Model::advance`] changes something by itself.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timeout = self.options.connection_timeout;
        let providers = self.providers.values().filter_map(|p| p.deleted_at);
        let clusters = self.clusters.values().flat_map(|cluster| {
            let silent = cluster
                .instances
                .values()
                .filter(|i| i.connected)
                .filter_map(move |i| Some(i.last_sync? + timeout));
            let throttled = cluster.services.values().filter_map(|s| s.start_not_before);
            silent.chain(throttled).chain(cluster.attached_at)
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
        let mut outcomes = Vec::new();
        let mine = self
            .tasks
            .values_mut()
            .filter(|task| task.instance_arn == sync.container_instance_arn);
        for task in mine {
            let report = sync.tasks.iter().find(|report| report.task_arn == task.arn);
            let before = task.last_status;
            let (after, reason) = match report {
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
            if before == after || before == TaskStatus::Stopped {
                continue;
            }
            task.last_status = after;
            task.version += 1;
            match after {
                TaskStatus::Running => task.started_at = Some(now),
                TaskStatus::Stopped => {
                    task.stopped_at = Some(now);
                    if !task.stopping {
                        let reason = reason
                            .unwrap_or_else(|| "Essential container in task exited".to_owned());
                        task.stopped_reason = Some(reason);
                        task.stop_code = Some("EssentialContainerExited");
                    }
                }
                TaskStatus::Pending | TaskStatus::Deactivating => {}
            }
            if let Some(service) = &task.service {
                let ran = task.started_at.is_some();
                if ran || !task.stopping {
                    outcomes.push((service.clone(), ran));
                }
            }
        }
        for (service, ran) in outcomes {
            if let Some(service) = self.services.get_mut(&service) {
                service.count(ran, now);
            }
        }
    }

    fn advance(&mut self, connection_timeout: SignedDuration, now: Timestamp) {
        if self.attached_at.is_some_and(|t| t <= now) {
            self.attached_at = None;
        }
        for service in self.services.values_mut() {
            if service.start_not_before.is_some_and(|t| t <= now) {
                service.start_not_before = None;
            }
        }
        let silent =
            |i: &ContainerInstance| i.last_sync.is_none_or(|t| t + connection_timeout <= now);
        for instance in self.instances.values_mut() {
            if instance.connected && silent(instance) {
                instance.connected = false;
                instance.version += 1;
            }
        }
        let recent = |t: Option<Timestamp>| t.is_none_or(|t| t + REMEMBERED > now);
        self.tasks.retain(|_, task| recent(task.stopped_at));
        self.instances.retain(|_, i| recent(i.inactive_at));
    }
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
