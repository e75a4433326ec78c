//! Tasks: running, stopping, describing.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, InstanceStatus, Model, Task, TaskDefinition, TaskStatus, client_error,
    expression::Expression,
    invalid, last, missing, paged,
    tags::{Tag, tag_list},
};
use crate::api_error::ApiError;

/// The API's bound of tasks in one RunTask.
const RUN_MAX: u32 = 10;

/// RunTask.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RunTask {
    cluster: Option<String>,
    task_definition: String,
    count: Option<u32>,
    group: Option<String>,
    started_by: Option<String>,
    launch_type: Option<String>,
    placement_constraints: Vec<Value>,
    tags: Vec<Tag>,
    /// Repeated calls start tasks again.
    #[serde(rename = "clientToken")]
    _client_token: Option<String>,
}

/// StopTask.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StopTask {
    cluster: Option<String>,
    task: String,
    reason: Option<String>,
}

/// DescribeTasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeTasks {
    cluster: Option<String>,
    tasks: Vec<String>,
    include: Vec<String>,
}

/// ListTasks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListTasks {
    cluster: Option<String>,
    container_instance: Option<String>,
    family: Option<String>,
    started_by: Option<String>,
    service_name: Option<String>,
    desired_status: Option<String>,
    launch_type: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

/// What a new task is for.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    pub(super) service: Option<String>,
    pub(super) group: String,
    pub(super) started_by: Option<String>,
}

impl Model {
    /// RunTask. What finds no place is a failure in a reply that is otherwise good.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `ClientException`, `InvalidParameterException`.
    pub fn run_task(&mut self, request: &RunTask, now: Timestamp) -> Result<Value, ApiError> {
        let name = self.cluster_name(request.cluster.as_deref())?;
        check_launch_type(request.launch_type.as_deref())?;
        let constraints = Constraints::read(&request.placement_constraints)?;
        let count = request.count.unwrap_or(1);
        if !(1..=RUN_MAX).contains(&count) {
            return Err(invalid(format!("count must be between 1 and {RUN_MAX}.")));
        }
        let definition = self.active_definition(&request.task_definition)?;
        let cluster = &self.clusters[&name];
        if !cluster
            .instances
            .values()
            .any(|i| i.status != InstanceStatus::Inactive)
        {
            return Err(invalid(
                "No Container Instances were found in your cluster.",
            ));
        }
        let purpose = Purpose {
            service: None,
            group: request
                .group
                .clone()
                .unwrap_or_else(|| format!("family:{}", definition.family)),
            started_by: request.started_by.clone(),
        };
        let (mut tasks, mut failures) = (Vec::new(), Vec::new());
        for _ in 0..count {
            match self.clusters[&name].place(&definition, &purpose.group, &constraints) {
                Ok(instance) => {
                    let arn = self.start(&name, &definition, &instance, &purpose, now);
                    self.set_tags(&arn, &request.tags)?;
                    tasks.push(self.clusters[&name].tasks[&arn].describe(&self.clusters[&name]));
                }
                Err(reason) => failures.push(json!({ "reason": reason })),
            }
        }
        Ok(json!({ "tasks": tasks, "failures": failures }))
    }

    /// StopTask. A stopped task is no error.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException` for an unknown task.
    pub fn stop_task(&mut self, request: &StopTask, now: Timestamp) -> Result<Value, ApiError> {
        let name = self.cluster_name(request.cluster.as_deref())?;
        let cluster = self.cluster_mut(Some(&name))?;
        let Some(arn) = cluster
            .find_task(&request.task)
            .map(|task| task.arn.clone())
        else {
            return Err(invalid("The referenced task was not found."));
        };
        let reason = request.reason.as_deref().unwrap_or("Task stopped by user");
        cluster.stop(&arn, reason, "UserInitiated", now);
        self.schedule(&name, now);
        let cluster = &self.clusters[&name];
        Ok(json!({ "task": cluster.tasks[&arn].describe(cluster) }))
    }

    /// DescribeTasks. Unknown ones are failures; stopped ones are known for an hour.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn describe_tasks(&self, request: &DescribeTasks) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        if !(1..=100).contains(&request.tasks.len()) {
            return Err(invalid("Tasks must have 1 to 100 entries."));
        }
        let with_tags = request.include.iter().any(|i| i == "TAGS");
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for id in &request.tasks {
            match cluster.find_task(id) {
                Some(task) => {
                    let mut described = task.describe(cluster);
                    if with_tags {
                        described["tags"] = tag_list(self.tags.get(&task.arn));
                    }
                    found.push(described);
                }
                None => {
                    let arn = self.arn(&format!("task/{}/{}", cluster.name, last(id)));
                    failures.push(missing(&arn));
                }
            }
        }
        Ok(json!({ "tasks": found, "failures": failures }))
    }

    /// ListTasks: those with desired status RUNNING unless asked otherwise.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `ServiceNotFoundException`, `InvalidParameterException`.
    pub fn list_tasks(&self, request: &ListTasks) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instance = match request.container_instance.as_deref() {
            None => None,
            Some(id) => match cluster.find_instance(id) {
                Some(instance) => Some(&instance.arn),
                None => return Err(invalid("Referenced container instance was not found.")),
            },
        };
        let service = match request.service_name.as_deref() {
            None => None,
            Some(service) if cluster.services.contains_key(last(service)) => Some(last(service)),
            Some(_) => {
                return Err(ApiError::new(
                    "ServiceNotFoundException",
                    "Service not found.",
                ));
            }
        };
        check_launch_type(request.launch_type.as_deref())?;
        let desired = request.desired_status.as_deref().unwrap_or("RUNNING");
        if !["RUNNING", "PENDING", "STOPPED"].contains(&desired) {
            return Err(invalid(format!("'{desired}' is no desired status")));
        }
        let wanted = |task: &&Task| {
            task.desired_status() == desired
                && instance.is_none_or(|arn| *arn == task.instance_arn)
                && service.is_none_or(|name| task.service.as_deref() == Some(name))
                && request.family.as_ref().is_none_or(|f| *f == task.family)
                && (request.started_by.is_none() || request.started_by == task.started_by)
        };
        let found = cluster.tasks.values().filter(wanted);
        let page = paged(
            found.map(|task| task.arn.clone()).collect(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        Ok(json!({ "taskArns": page.items, "nextToken": page.next_token }))
    }

    /// A task definition that can still be started, as a copy.
    pub(super) fn active_definition(&self, name: &str) -> Result<TaskDefinition, ApiError> {
        let definition = self.definition(name)?;
        if definition.active {
            return Ok(definition.clone());
        }
        Err(client_error("TaskDefinition is inactive"))
    }

    /// Puts a new task on an instance and returns its ARN.
    pub(super) fn start(
        &mut self,
        cluster: &str,
        definition: &TaskDefinition,
        instance_arn: &str,
        purpose: &Purpose,
        now: Timestamp,
    ) -> String {
        let id = self.ids.hex(32);
        let arn = self.arn(&format!("task/{cluster}/{id}"));
        let task = Task {
            arn: arn.clone(),
            instance_arn: instance_arn.to_owned(),
            family: definition.family.clone(),
            revision: definition.revision,
            service: purpose.service.clone(),
            last_status: TaskStatus::Pending,
            stopping: false,
            stopped_reason: None,
            stop_code: None,
            group: purpose.group.clone(),
            started_by: purpose.started_by.clone(),
            containers: definition.containers.clone(),
            cpu: definition.cpu,
            memory: definition.memory,
            version: 1,
            stop_ordered: 0,
            created_at: now,
            started_at: None,
            stopping_at: None,
            stopped_at: None,
        };
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.tasks.insert(arn.clone(), task);
            cluster.change_orders(instance_arn);
        }
        arn
    }
}

impl Cluster {
    /// By ARN or short id.
    pub(super) fn find_task(&self, id: &str) -> Option<&Task> {
        self.tasks
            .get(id)
            .or_else(|| self.tasks.values().find(|task| last(&task.arn) == id))
    }

    /// Tells the node to stop a task; the node says when it has.
    pub(super) fn stop(&mut self, arn: &str, reason: &str, code: &'static str, now: Timestamp) {
        let Some(task) = self.tasks.get_mut(arn) else {
            return;
        };
        if !task.is_live() {
            return;
        }
        task.stopping = true;
        task.stopping_at = Some(now);
        task.stopped_reason = Some(reason.to_owned());
        task.stop_code = Some(code);
        task.version += 1;
        if task.last_status == TaskStatus::Running {
            task.last_status = TaskStatus::Deactivating;
        }
        let instance = task.instance_arn.clone();
        let version = self.change_orders(&instance);
        if let Some(task) = self.tasks.get_mut(arn) {
            task.stop_ordered = version;
        }
    }

    /// An instance has new orders; returns their version.
    fn change_orders(&mut self, instance_arn: &str) -> u64 {
        let Some(instance) = self.instances.get_mut(instance_arn) else {
            return 0;
        };
        instance.orders_version += 1;
        instance.orders_version
    }

    /// ARN of the instance with room and the fewest tasks of the group, else of all, or why there
    /// is none.
    pub(super) fn place(
        &self,
        definition: &TaskDefinition,
        group: &str,
        constraints: &Constraints,
    ) -> Result<String, &'static str> {
        let mut reason = "AGENT";
        let tasks_on = |arn: &str| {
            let live = self.tasks.values().filter(|t| t.is_live());
            let here = live.filter(|t| t.instance_arn == arn);
            let (ours, others): (Vec<_>, Vec<_>) = here.partition(|t| t.group == group);
            (ours.len(), others.len())
        };
        let mut best: Option<((usize, usize), &String)> = None;
        for instance in self.instances.values() {
            if instance.status != InstanceStatus::Active || !instance.connected {
                continue;
            }
            let tasks = tasks_on(&instance.arn);
            let allowed = constraints.member_of.iter().all(|e| e.matches(instance))
                && !(constraints.distinct_instance && tasks.0 > 0);
            if !allowed {
                reason = "MemberOf placement constraint unsatisfied.";
            } else if self.remaining(instance, "CPU") < definition.cpu {
                reason = "RESOURCE:CPU";
            } else if self.remaining(instance, "MEMORY") < definition.memory {
                reason = "RESOURCE:MEMORY";
            } else if best.is_none_or(|(fewest, _)| tasks < fewest) {
                best = Some((tasks, &instance.arn));
            }
        }
        best.map(|(_, arn)| arn.clone()).ok_or(reason)
    }
}

impl Task {
    pub(super) fn desired_status(&self) -> &'static str {
        if self.is_live() { "RUNNING" } else { "STOPPED" }
    }

    pub(super) fn describe(&self, cluster: &Cluster) -> Value {
        let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
        let containers = self.containers.iter().map(|container| {
            json!({
                "containerArn": format!("{}/{}", self.arn, container.name),
                "taskArn": self.arn,
                "name": container.name,
                "image": container.image,
                "lastStatus": self.last_status.as_str(),
            })
        });
        let definition_arn = self.arn.split(":task/").next().unwrap_or_default();
        let connectivity = match self.last_status {
            TaskStatus::Running | TaskStatus::Deactivating => Some("CONNECTED"),
            TaskStatus::Pending | TaskStatus::Stopped => None,
        };
        json!({
            "taskArn": self.arn,
            "clusterArn": cluster.arn,
            "containerInstanceArn": self.instance_arn,
            "taskDefinitionArn":
                format!("{definition_arn}:task-definition/{}:{}", self.family, self.revision),
            "group": self.group,
            "startedBy": self.started_by,
            "launchType": "EC2",
            "lastStatus": self.last_status.as_str(),
            "desiredStatus": self.desired_status(),
            "connectivity": connectivity,
            "cpu": self.cpu.to_string(),
            "memory": self.memory.to_string(),
            "containers": containers.collect::<Value>(),
            "version": self.version,
            "createdAt": self.created_at.as_second(),
            "startedAt": seconds(self.started_at),
            "stoppingAt": seconds(self.stopping_at),
            "stoppedAt": seconds(self.stopped_at),
            "stoppedReason": self.stopped_reason,
            "stopCode": self.stop_code,
        })
    }
}

/// Where a task may be.
#[derive(Debug, Clone, Default)]
pub(super) struct Constraints {
    distinct_instance: bool,
    member_of: Vec<Expression>,
}

impl Constraints {
    /// # Errors
    /// `InvalidParameterException`.
    pub(super) fn read(constraints: &[Value]) -> Result<Self, ApiError> {
        let mut read = Self::default();
        for constraint in constraints {
            match constraint["type"].as_str() {
                Some("distinctInstance") => read.distinct_instance = true,
                Some("memberOf") => {
                    let text = constraint["expression"].as_str().unwrap_or_default();
                    read.member_of.push(Expression::parse(text)?);
                }
                _ => {
                    return Err(invalid(format!(
                        "Invalid placement constraint: {constraint}"
                    )));
                }
            }
        }
        Ok(read)
    }
}

pub(super) fn check_launch_type(launch_type: Option<&str>) -> Result<(), ApiError> {
    match launch_type {
        None | Some("EC2") => Ok(()),
        Some(other) => Err(invalid(format!(
            "fleet-sandbox does not serve launchType {other}"
        ))),
    }
}
