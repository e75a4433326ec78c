//! Container instances.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, ContainerInstance, InstanceStatus, Model, TaskStatus,
    attributes::{Attribute, attribute_list, check_attribute},
    client_error,
    expression::Expression,
    invalid, last, missing, paged,
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
        let cluster = self
            .cluster_name(request.cluster.as_deref())
            .map_err(|_| client_error("Cluster not found."))?;
        let document = request.instance_identity_document.as_deref().unwrap_or("");
        let identity: Identity = serde_json::from_str(document)
            .map_err(|e| invalid(format!("The instance identity document is not valid: {e}")))?;
        for attribute in &request.attributes {
            check_attribute(attribute)?;
        }
        let arn = match request.container_instance_arn.filter(|arn| !arn.is_empty()) {
            Some(arn) => self.register_again(&cluster, &arn, &identity)?,
            None => self.register_new(&cluster, &identity, now),
        };
        self.set_tags(&arn, &request.tags)?;
        let registered = self.cluster_mut(Some(&cluster))?;
        if let Some(instance) = registered.instances.get_mut(&arn) {
            instance.resources = request.total_resources;
            instance.version_info = request.version_info;
            instance.version += 1;
            let given = request.attributes.into_iter().map(|a| (a.name, a.value));
            instance.attributes.extend(given);
            let built_in = [
                ("ecs.availability-zone", identity.availability_zone),
                ("ecs.instance-type", identity.instance_type),
                ("ecs.ami-id", identity.image_id),
                ("ecs.os-type", Some("linux".to_owned())),
            ];
            for (name, value) in built_in {
                instance.attributes.insert(name.to_owned(), value);
            }
        }
        let cluster = &self.clusters[&cluster];
        let instance = &cluster.instances[&arn];
        Ok(json!({ "containerInstance": self.describe_instance(cluster, instance, true) }))
    }

    fn register_again(
        &mut self,
        cluster: &str,
        arn: &str,
        identity: &Identity,
    ) -> Result<String, ApiError> {
        let instance = self
            .clusters
            .get(cluster)
            .and_then(|c| c.instances.get(arn))
            .filter(|i| i.status != InstanceStatus::Inactive);
        match instance {
            Some(instance) if instance.ec2_instance_id == identity.instance_id => {
                Ok(arn.to_owned())
            }
            Some(_) => Err(client_error(
                "The container instance belongs to another EC2 instance.",
            )),
            None => Err(client_error(format!(
                "The referenced container instance is not registered: {arn}"
            ))),
        }
    }

    fn register_new(&mut self, cluster: &str, identity: &Identity, now: Timestamp) -> String {
        let ec2_instance_id = identity.instance_id.clone();
        // A machine that lost its checkpoint leaves its old self behind.
        self.lose(
            cluster,
            &ec2_instance_id,
            "Container instance was replaced.",
            now,
        );
        let id = self.ids.hex(32);
        let arn = self.arn(&format!("container-instance/{cluster}/{id}"));
        let instance = ContainerInstance {
            arn: arn.clone(),
            ec2_instance_id,
            status: InstanceStatus::Active,
            connected: false,
            attributes: BTreeMap::new(),
            orders_version: 1,
            version: 0,
            registered_at: now,
            last_sync: None,
            inactive_at: None,
            resources: Vec::new(),
            version_info: None,
        };
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.instances.insert(arn.clone(), instance);
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
        let busy = cluster
            .tasks
            .values()
            .any(|task| task.instance_arn == arn && task.last_status != TaskStatus::Stopped);
        if busy && !request.force.unwrap_or(false) {
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
                None => failures.push(missing(&self.instance_arn(cluster, id))),
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
        let name = self.cluster_name(request.cluster.as_deref())?;
        let status = match request.status.as_str() {
            "ACTIVE" => InstanceStatus::Active,
            "DRAINING" => InstanceStatus::Draining,
            other => {
                return Err(invalid(format!(
                    "Container instance status should be one of [ACTIVE,DRAINING], not '{other}'."
                )));
            }
        };
        if !(1..=STATE_CHANGES_MAX).contains(&request.container_instances.len()) {
            return Err(invalid(format!(
                "instanceIds can have at most {STATE_CHANGES_MAX} items."
            )));
        }
        let (mut changed, mut failures) = (Vec::new(), Vec::new());
        for id in &request.container_instances {
            let arn = self.instance_arn(&self.clusters[&name], id);
            let cluster = self.cluster_mut(Some(&name))?;
            match cluster.instances.get_mut(&arn) {
                Some(instance) if instance.status != InstanceStatus::Inactive => {
                    if instance.status != status {
                        instance.status = status;
                        instance.version += 1;
                    }
                    changed.push(arn);
                }
                Some(_) => failures.push(json!({ "arn": arn, "reason": "INACTIVE" })),
                None => failures.push(missing(&arn)),
            }
        }
        self.schedule(&name, now);
        let cluster = &self.clusters[&name];
        let changed: Vec<Value> = changed
            .iter()
            .map(|arn| self.describe_instance(cluster, &cluster.instances[arn], false))
            .collect();
        Ok(json!({ "containerInstances": changed, "failures": failures }))
    }

    /// The ARN that a short id or ARN stands for.
    pub(super) fn instance_arn(&self, cluster: &Cluster, id: &str) -> String {
        if id.starts_with("arn:") {
            return id.to_owned();
        }
        self.arn(&format!("container-instance/{}/{id}", cluster.name))
    }

    fn describe_instance(
        &self,
        cluster: &Cluster,
        instance: &ContainerInstance,
        with_tags: bool,
    ) -> Value {
        let count = |status| {
            let tasks = cluster.tasks.values();
            tasks
                .filter(|t| t.instance_arn == instance.arn && t.last_status == status)
                .count()
        };
        let mut described = json!({
            "containerInstanceArn": instance.arn,
            "ec2InstanceId": instance.ec2_instance_id,
            "version": instance.version,
            "versionInfo": instance.version_info,
            "remainingResources": cluster.remaining_resources(instance),
            "registeredResources": instance.resources,
            "status": instance.status.as_str(),
            "agentConnected": instance.connected,
            "runningTasksCount": count(TaskStatus::Running),
            "pendingTasksCount": count(TaskStatus::Pending),
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
        let mut instances = self.instances.values();
        instances.find(|i| i.arn == id || last(&i.arn) == id)
    }

    /// What tasks leave of an integer resource, `CPU` or `MEMORY`.
    pub(super) fn remaining(&self, instance: &ContainerInstance, resource: &str) -> i64 {
        let of = |r: &&Value| r["name"] == resource;
        let total = instance.resources.iter().find(of);
        let total = total.and_then(|r| r["integerValue"].as_i64()).unwrap_or(0);
        let used: i64 = self
            .tasks
            .values()
            .filter(|t| t.instance_arn == instance.arn && t.last_status != TaskStatus::Stopped)
            .map(|t| if resource == "CPU" { t.cpu } else { t.memory })
            .sum();
        total - used
    }

    fn remaining_resources(&self, instance: &ContainerInstance) -> Vec<Value> {
        let mut resources = instance.resources.clone();
        for resource in &mut resources {
            if let Some(name @ ("CPU" | "MEMORY")) = resource["name"].as_str() {
                resource["integerValue"] = json!(self.remaining(instance, name));
            }
        }
        resources
    }
}
