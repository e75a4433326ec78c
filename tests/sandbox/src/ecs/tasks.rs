//! Tasks: running, stopping, describing.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, ContainerInstance, InstanceStatus, Model, Task, TaskDefinition, TaskStatus,
    client_error,
    expression::Expression,
    index::Load,
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
        let need = Need::new(&definition, &purpose, constraints);
        for _ in 0..count {
            match self.clusters[&name].place(&need) {
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
                && service.is_none_or(|name| task.service.as_deref() == Some(name))
                && request.family.as_ref().is_none_or(|f| *f == task.family)
                && (request.started_by.is_none() || request.started_by == task.started_by)
        };
        let found: Vec<&Task> = match instance {
            Some(arn) => cluster.tasks_on(arn).filter(wanted).collect(),
            None => cluster.tasks.values().filter(wanted).collect(),
        };
        let page = paged(
            found.iter().map(|task| task.arn.clone()).collect(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        Ok(json!({ "taskArns": page.items, "nextToken": page.next_token }))
    }

    /// All tasks of a container instance, by ARN or short id; stopped ones for an hour. ListTasks
    /// and DescribeTasks without their JSON.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException` for an unknown instance.
    pub fn tasks_on(
        &self,
        cluster: Option<&str>,
        container_instance: &str,
    ) -> Result<Vec<&Task>, ApiError> {
        let cluster = self.cluster(cluster)?;
        let instance = cluster.find_instance(container_instance);
        let instance =
            instance.ok_or_else(|| invalid("Referenced container instance was not found."))?;
        Ok(cluster.tasks_on(&instance.arn).collect())
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
            cluster.add_task(task);
            cluster.change_orders(instance_arn);
        }
        arn
    }
}

impl Cluster {
    /// By ARN or short id.
    pub(super) fn find_task(&self, id: &str) -> Option<&Task> {
        self.tasks.get(&self.arn_of("task", id))
    }

    /// The tasks of a container instance.
    pub(super) fn tasks_on(&self, instance_arn: &str) -> impl Iterator<Item = &Task> {
        let load = self.index.load(instance_arn).into_iter();
        load.flat_map(|load| &load.tasks)
            .filter_map(|arn| self.tasks.get(arn))
    }

    /// Tells the node to stop a task; the node says when it has.
    pub(super) fn stop(&mut self, arn: &str, reason: &str, code: &'static str, now: Timestamp) {
        let Some(task) = self.tasks.get(arn).filter(|task| task.is_live()) else {
            return;
        };
        let instance = task.instance_arn.clone();
        let version = self.change_orders(&instance);
        self.change_task(arn, |task| {
            task.stopping = true;
            task.stopping_at = Some(now);
            task.stopped_reason = Some(reason.to_owned());
            task.stop_code = Some(code);
            task.version += 1;
            task.stop_ordered = version;
            if task.last_status == TaskStatus::Running {
                task.last_status = TaskStatus::Deactivating;
            }
        });
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
    pub(super) fn place(&self, need: &Need) -> Result<String, &'static str> {
        let mut reason = "AGENT";
        for arn in self.index.emptiest(&need.group) {
            let Some(instance) = self.instances.get(arn) else {
                continue;
            };
            match self.refusal(instance, need) {
                None => return Ok(arn.clone()),
                Some(refusal) => reason = refusal,
            }
        }
        Err(reason)
    }

    /// Why an instance that takes tasks cannot take this one.
    pub(super) fn refusal(
        &self,
        instance: &ContainerInstance,
        need: &Need,
    ) -> Option<&'static str> {
        let load = self.index.load(&instance.arn);
        let constraints = &need.constraints;
        let ours = load.map_or(0, |load| load.of_group(&need.group));
        let allowed = constraints.member_of.iter().all(|e| e.matches(instance))
            && !(constraints.distinct_instance && ours > 0);
        let (cpu, memory) = instance.remaining(load);
        if !allowed {
            Some("MemberOf placement constraint unsatisfied.")
        } else if cpu < need.cpu {
            Some("RESOURCE:CPU")
        } else if memory < need.memory {
            Some("RESOURCE:MEMORY")
        } else {
            None
        }
    }
}

impl ContainerInstance {
    /// CPU units and MiB that its tasks leave.
    pub(super) fn remaining(&self, load: Option<&Load>) -> (i64, i64) {
        let (cpu, memory) = load.map_or((0, 0), |load| (load.cpu, load.memory));
        (self.cpu - cpu, self.memory - memory)
    }
}

impl Task {
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

/// What a task asks of the instance it is put on.
#[derive(Debug, Clone)]
pub(super) struct Need {
    cpu: i64,
    memory: i64,
    group: String,
    constraints: Constraints,
}

impl Need {
    pub(super) fn new(
        definition: &TaskDefinition,
        purpose: &Purpose,
        constraints: Constraints,
    ) -> Self {
        Self {
            cpu: definition.cpu,
            memory: definition.memory,
            group: purpose.group.clone(),
            constraints,
        }
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
