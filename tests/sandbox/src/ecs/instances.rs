//! Container instances.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, ContainerInstance, InstanceStatus, Model,
    attributes::{Attribute, attribute_list, check_attribute},
    client_error,
    expression::Expression,
    invalid, missing, paged,
    tags::{Tag, tag_list},
};
use crate::api_error::ApiError;

/// The API's bound of ids in one UpdateContainerInstancesState.
const STATE_CHANGES_MAX: usize = 10;
/// The API's bound of ids in one describe call.
const DESCRIBED_MAX: usize = 100;

/// RegisterContainerInstance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegisterContainerInstance {
    cluster: Option<String>,
    instance_identity_document: Option<String>,
    /// Not checked: the document comes from the sandbox itself.
    #[serde(rename = "instanceIdentityDocumentSignature")]
    _signature: Option<String>,
    total_resources: Vec<Value>,
    version_info: Option<Value>,
    container_instance_arn: Option<String>,
    attributes: Vec<Attribute>,
    #[serde(rename = "platformDevices")]
    _platform_devices: Vec<Value>,
    tags: Vec<Tag>,
    #[serde(rename = "clientToken")]
    _client_token: Option<String>,
}

/// The parts of the identity document that ECS reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    instance_id: String,
    availability_zone: Option<String>,
    instance_type: Option<String>,
    image_id: Option<String>,
}

/// DeregisterContainerInstance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeregisterContainerInstance {
    cluster: Option<String>,
    container_instance: String,
    force: Option<bool>,
}

/// DescribeContainerInstances.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeContainerInstances {
    cluster: Option<String>,
    container_instances: Vec<String>,
    include: Vec<String>,
}

/// ListContainerInstances.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListContainerInstances {
    cluster: Option<String>,
    filter: Option<String>,
    status: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

/// UpdateContainerInstancesState.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpdateContainerInstancesState {
    cluster: Option<String>,
    container_instances: Vec<String>,
    status: String,
}

/// RegisterContainerInstance without its JSON.
#[derive(Debug, Clone, Default)]
pub struct Registration {
    /// Name or ARN; `default` without one.
    pub cluster: Option<String>,
    /// The ARN it has already.
    pub container_instance_arn: Option<String>,
    /// From the identity document.
    pub ec2_instance_id: String,
    /// From the identity document.
    pub availability_zone: Option<String>,
    /// From the identity document.
    pub instance_type: Option<String>,
    /// From the identity document.
    pub image_id: Option<String>,
    /// As in the API: `{"name": "CPU", "type": "INTEGER", "integerValue": 1024}`.
    pub resources: Vec<Value>,
    /// As in the API.
    pub version_info: Option<Value>,
    /// Attributes; `None` for a name without a value.
    pub attributes: Vec<(String, Option<String>)>,
}

impl Registration {
    /// A machine with so many CPU units and MiB.
    pub fn of_machine(cluster: &str, ec2_instance_id: &str, cpu: i64, memory: i64) -> Self {
        let resource =
            |name, value: i64| json!({ "name": name, "type": "INTEGER", "integerValue": value });
        Self {
            cluster: Some(cluster.to_owned()),
            ec2_instance_id: ec2_instance_id.to_owned(),
            resources: vec![resource("CPU", cpu), resource("MEMORY", memory)],
            ..Self::default()
        }
    }
}

/// What UpdateContainerInstancesState answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// ARNs of those that have the wanted status now.
    pub changed: Vec<String>,
    /// ARN and reason, `MISSING` or `INACTIVE`, of those that do not.
    pub failures: Vec<(String, &'static str)>,
}

impl Model {
    /// RegisterContainerInstance, or registering again with the ARN it has.
    ///
    /// # Errors
    /// `ClientException` (cluster not found, as agents meet it; unknown ARN),
    /// `InvalidParameterException` for a bad document or attribute.
    pub fn register_container_instance(
        &mut self,
        request: RegisterContainerInstance,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        self.cluster_name(request.cluster.as_deref())
            .map_err(|_| client_error("Cluster not found."))?;
        let document = request.instance_identity_document.as_deref().unwrap_or("");
        let identity: Identity = serde_json::from_str(document)
            .map_err(|e| invalid(format!("The instance identity document is not valid: {e}")))?;
        let attributes = request.attributes.into_iter().map(|a| (a.name, a.value));
        let registration = Registration {
            cluster: request.cluster.clone(),
            container_instance_arn: request.container_instance_arn,
            ec2_instance_id: identity.instance_id,
            availability_zone: identity.availability_zone,
            instance_type: identity.instance_type,
            image_id: identity.image_id,
            resources: request.total_resources,
            version_info: request.version_info,
            attributes: attributes.collect(),
        };
        let arn = self.register(registration, now)?;
        self.set_tags(&arn, &request.tags)?;
        let cluster = self.cluster(request.cluster.as_deref())?;
        let instance = &cluster.instances[&arn];
        Ok(json!({ "containerInstance": self.describe_instance(cluster, instance, true) }))
    }

    /// RegisterContainerInstance without its JSON and tags; answers the ARN.
    ///
    /// # Errors
    /// As [`Model::register_container_instance`].
    pub fn register(&mut self, request: Registration, now: Timestamp) -> Result<String, ApiError> {
        let name = self
            .cluster_name(request.cluster.as_deref())
            .map_err(|_| client_error("Cluster not found."))?;
        for (name, value) in &request.attributes {
            check_attribute(&Attribute {
                name: name.clone(),
                value: value.clone(),
                ..Attribute::default()
            })?;
        }
        let known = request.container_instance_arn.as_ref();
        let arn = match known.filter(|arn| !arn.is_empty()) {
            Some(arn) => self.register_again(&name, arn, &request.ec2_instance_id)?,
            None => self.register_new(&name, &request.ec2_instance_id, now),
        };
        let built_in = [
            ("ecs.availability-zone", request.availability_zone),
            ("ecs.instance-type", request.instance_type),
            ("ecs.ami-id", request.image_id),
            ("ecs.os-type", Some("linux".to_owned())),
        ];
        if let Some(cluster) = self.clusters.get_mut(&name) {
            cluster.change_instance(&arn, |instance| {
                (instance.cpu, instance.memory) = (
                    integer(&request.resources, "CPU"),
                    integer(&request.resources, "MEMORY"),
                );
                instance.resources = request.resources;
                instance.version_info = request.version_info;
                instance.version += 1;
                instance.attributes.extend(request.attributes);
                for (name, value) in built_in {
                    instance.attributes.insert(name.to_owned(), value);
                }
            });
        }
        Ok(arn)
    }

    fn register_again(
        &mut self,
        cluster: &str,
        arn: &str,
        ec2_instance_id: &str,
    ) -> Result<String, ApiError> {
        let instance = self
            .clusters
            .get(cluster)
            .and_then(|c| c.instances.get(arn))
            .filter(|i| i.status != InstanceStatus::Inactive);
        match instance {
            Some(instance) if instance.ec2_instance_id == ec2_instance_id => Ok(arn.to_owned()),
            Some(_) => Err(client_error(
                "The container instance belongs to another EC2 instance.",
            )),
            None => Err(client_error(format!(
                "The referenced container instance is not registered: {arn}"
            ))),
        }
    }

    fn register_new(&mut self, cluster: &str, ec2_instance_id: &str, now: Timestamp) -> String {
        // A machine that lost its checkpoint leaves its old self behind.
        let reason = "Container instance was replaced.";
        self.lose(cluster, ec2_instance_id, reason, now);
        let id = self.ids.hex(32);
        let arn = self.arn(&format!("container-instance/{cluster}/{id}"));
        let instance = ContainerInstance {
            arn: arn.clone(),
            ec2_instance_id: ec2_instance_id.to_owned(),
            status: InstanceStatus::Active,
            connected: false,
            attributes: BTreeMap::new(),
            orders_version: 1,
            version: 0,
            registered_at: now,
            last_sync: None,
            inactive_at: None,
            resources: Vec::new(),
            cpu: 0,
            memory: 0,
            version_info: None,
        };
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.add_instance(instance);
        }
        arn
    }

    /// DeregisterContainerInstance. With force its tasks are STOPPED for ECS, though containers
    /// may still run on it.
    ///
    /// # Errors
    /// `InvalidParameterException` with running tasks and no force.
    pub fn deregister_container_instance(
        &mut self,
        request: &DeregisterContainerInstance,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let name = self.cluster_name(request.cluster.as_deref())?;
        let cluster = &self.clusters[&name];
        let Some(instance) = cluster.find_instance(&request.container_instance) else {
            return Err(invalid("Referenced container instance was not found."));
        };
        let (arn, id) = (instance.arn.clone(), instance.ec2_instance_id.clone());
        let load = cluster.index.load(&arn);
        if load.is_some_and(|load| load.unfinished > 0) && !request.force.unwrap_or(false) {
            return Err(invalid(
                "Found running tasks on the instance. Use force to deregister it all the same.",
            ));
        }
        self.lose(
            &name,
            &id,
            "Container instance was deregistered forcibly by user.",
            now,
        );
        self.schedule(&name, now);
        let cluster = &self.clusters[&name];
        let reply = self.describe_instance(cluster, &cluster.instances[&arn], true);
        Ok(json!({ "containerInstance": reply }))
    }

    /// DescribeContainerInstances. Unknown ones are failures; deregistered ones are `INACTIVE` for
    /// an hour.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn describe_container_instances(
        &self,
        request: &DescribeContainerInstances,
    ) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        if !(1..=DESCRIBED_MAX).contains(&request.container_instances.len()) {
            return Err(invalid("Container instances must have 1 to 100 entries."));
        }
        let with_tags = request.include.iter().any(|i| i == "TAGS");
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for id in &request.container_instances {
            match cluster.find_instance(id) {
                Some(instance) => found.push(self.describe_instance(cluster, instance, with_tags)),
                None => failures.push(missing(&cluster.arn_of("container-instance", id))),
            }
        }
        Ok(json!({ "containerInstances": found, "failures": failures }))
    }

    /// ListContainerInstances; without a status all but INACTIVE.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn list_container_instances(
        &self,
        request: &ListContainerInstances,
    ) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        let filter = match request.filter.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Expression::parse(text)?),
        };
        let wanted = |instance: &&ContainerInstance| {
            let status = match request.status.as_deref() {
                None => instance.status != InstanceStatus::Inactive,
                Some(status) => instance.status.as_str() == status,
            };
            status && filter.as_ref().is_none_or(|f| f.matches(instance))
        };
        let found = cluster.instances.values().filter(wanted);
        let page = paged(
            found.map(|i| i.arn.clone()).collect(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        Ok(json!({ "containerInstanceArns": page.items, "nextToken": page.next_token }))
    }

    /// UpdateContainerInstancesState: ACTIVE to DRAINING and back. What cannot change is a
    /// failure in a reply that is otherwise good.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn update_container_instances_state(
        &mut self,
        request: &UpdateContainerInstancesState,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let status = match request.status.as_str() {
            "ACTIVE" => InstanceStatus::Active,
            "DRAINING" => InstanceStatus::Draining,
            other => {
                return Err(invalid(format!(
                    "Container instance status should be one of [ACTIVE,DRAINING], not '{other}'."
                )));
            }
        };
        let cluster = request.cluster.as_deref();
        let change = self.set_state(cluster, &request.container_instances, status, now)?;
        let cluster = self.cluster(cluster)?;
        let changed = change.changed.iter();
        let changed =
            changed.map(|arn| self.describe_instance(cluster, &cluster.instances[arn], false));
        let failures = change.failures.iter();
        let failures = failures.map(|(arn, reason)| json!({ "arn": arn, "reason": reason }));
        Ok(json!({
            "containerInstances": changed.collect::<Value>(),
            "failures": failures.collect::<Value>(),
        }))
    }

    /// UpdateContainerInstancesState without its JSON.
    ///
    /// # Errors
    /// As [`Model::update_container_instances_state`].
    pub fn set_state(
        &mut self,
        cluster: Option<&str>,
        container_instances: &[String],
        status: InstanceStatus,
        now: Timestamp,
    ) -> Result<StateChange, ApiError> {
        let name = self.cluster_name(cluster)?;
        if !(1..=STATE_CHANGES_MAX).contains(&container_instances.len()) {
            return Err(invalid(format!(
                "instanceIds can have at most {STATE_CHANGES_MAX} items."
            )));
        }
        if status == InstanceStatus::Inactive {
            return Err(invalid(
                "Container instance status should be one of [ACTIVE,DRAINING].",
            ));
        }
        let (mut changed, mut failures) = (Vec::new(), Vec::new());
        let cluster = self.cluster_mut(Some(&name))?;
        for id in container_instances {
            let arn = cluster.arn_of("container-instance", id);
            match cluster.instances.get(&arn).map(|i| i.status) {
                Some(InstanceStatus::Inactive) => failures.push((arn, "INACTIVE")),
                None => failures.push((arn, "MISSING")),
                Some(before) => {
                    if before != status {
                        cluster.change_instance(&arn, |instance| {
                            instance.status = status;
                            instance.version += 1;
                        });
                    }
                    changed.push(arn);
                }
            }
        }
        self.schedule(&name, now);
        Ok(StateChange { changed, failures })
    }

    fn describe_instance(
        &self,
        cluster: &Cluster,
        instance: &ContainerInstance,
        with_tags: bool,
    ) -> Value {
        let load = cluster.index.load(&instance.arn);
        let (running, pending) = load.map_or((0, 0), |load| (load.running, load.pending));
        let remaining = instance.remaining(load);
        let mut described = json!({
            "containerInstanceArn": instance.arn,
            "ec2InstanceId": instance.ec2_instance_id,
            "version": instance.version,
            "versionInfo": instance.version_info,
            "remainingResources": instance.remaining_resources(remaining),
            "registeredResources": instance.resources,
            "status": instance.status.as_str(),
            "agentConnected": instance.connected,
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "attributes": attribute_list(instance),
            "registeredAt": instance.registered_at.as_second(),
            "attachments": [],
        });
        if with_tags {
            described["tags"] = tag_list(self.tags.get(&instance.arn));
        }
        described
    }
}

impl Cluster {
    /// By ARN or short id.
    pub(super) fn find_instance(&self, id: &str) -> Option<&ContainerInstance> {
        self.instances.get(&self.arn_of("container-instance", id))
    }
}

impl ContainerInstance {
    fn remaining_resources(&self, (cpu, memory): (i64, i64)) -> Vec<Value> {
        let mut resources = self.resources.clone();
        for resource in &mut resources {
            match resource["name"].as_str() {
                Some("CPU") => resource["integerValue"] = json!(cpu),
                Some("MEMORY") => resource["integerValue"] = json!(memory),
                _ => {}
            }
        }
        resources
    }
}

/// An integer resource; 0 without it.
fn integer(resources: &[Value], name: &str) -> i64 {
    let found = resources.iter().find(|r| r["name"] == name);
    found.and_then(|r| r["integerValue"].as_i64()).unwrap_or(0)
}
