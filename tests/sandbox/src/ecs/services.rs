//! Services.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, Model, Service, ServiceStatus, Task, TaskStatus, invalid, last, missing, paged,
    tags::{Tag, tag_list},
    tasks::{Constraints, check_launch_type},
};
use crate::api_error::ApiError;

/// How many events a service remembers, as AWS.
const EVENTS_MAX: usize = 100;

/// CreateService.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CreateService {
    cluster: Option<String>,
    service_name: String,
    task_definition: Option<String>,
    desired_count: Option<u32>,
    launch_type: Option<String>,
    capacity_provider_strategy: Vec<Value>,
    deployment_configuration: DeploymentConfiguration,
    placement_constraints: Vec<Value>,
    placement_strategy: Vec<Value>,
    scheduling_strategy: Option<String>,
    tags: Vec<Tag>,
    #[serde(rename = "clientToken")]
    _client_token: Option<String>,
    /// Tags of tasks are not propagated.
    #[serde(rename = "enableECSManagedTags")]
    _managed_tags: Option<bool>,
}

/// UpdateService.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpdateService {
    cluster: Option<String>,
    service: String,
    task_definition: Option<String>,
    desired_count: Option<u32>,
    deployment_configuration: DeploymentConfiguration,
    capacity_provider_strategy: Option<Vec<Value>>,
    placement_constraints: Option<Vec<Value>>,
    placement_strategy: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct DeploymentConfiguration {
    maximum_percent: Option<u32>,
    minimum_healthy_percent: Option<u32>,
}

/// DescribeServices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeServices {
    cluster: Option<String>,
    services: Vec<String>,
    include: Vec<String>,
}

/// ListServices.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListServices {
    cluster: Option<String>,
    launch_type: Option<String>,
    scheduling_strategy: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

/// DeleteService.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeleteService {
    cluster: Option<String>,
    service: String,
    force: Option<bool>,
}

impl Model {
    /// CreateService.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`, `ClientException`.
    pub fn create_service(
        &mut self,
        request: CreateService,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let cluster = self.cluster_name(request.cluster.as_deref())?;
        check_launch_type(request.launch_type.as_deref())?;
        let name = request.service_name;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !(1..=255).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(invalid("Invalid service name."));
        }
        if request.scheduling_strategy.as_deref().unwrap_or("REPLICA") != "REPLICA" {
            return Err(invalid(
                "fleet-sandbox does not serve schedulingStrategy DAEMON",
            ));
        }
        match self.clusters[&cluster]
            .services
            .get(&name)
            .map(|s| s.status)
        {
            Some(ServiceStatus::Active) => {
                return Err(invalid("Creation of service was not idempotent."));
            }
            Some(ServiceStatus::Draining) => {
                return Err(invalid("Unable to Start a service that is still Draining."));
            }
            Some(ServiceStatus::Inactive) | None => {}
        }
        Constraints::read(&request.placement_constraints)?;
        self.check_strategy(&cluster, &request.capacity_provider_strategy)?;
        let definition =
            self.active_definition(request.task_definition.as_deref().unwrap_or(""))?;
        let arn = self.arn(&format!("service/{cluster}/{name}"));
        self.tags.remove(&arn);
        self.set_tags(&arn, &request.tags)?;
        let mut service = Service {
            name: name.clone(),
            arn,
            status: ServiceStatus::Active,
            desired: request.desired_count.unwrap_or(0),
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            family: definition.family,
            revision: definition.revision,
            constraints: request.placement_constraints,
            strategy: request.capacity_provider_strategy,
            placement_strategy: request.placement_strategy,
            deployment_id: format!("ecs-svc/{}", self.ids.hex(16)),
            created_at: now,
            updated_at: now,
            events: VecDeque::new(),
            failures: 0,
            start_not_before: None,
        };
        service.deploy(&request.deployment_configuration)?;
        if let Some(cluster) = self.clusters.get_mut(&cluster) {
            cluster.add_service(service);
        }
        self.schedule(&cluster, now);
        Ok(json!({ "service": self.describe_service(&self.clusters[&cluster], &name, true) }))
    }

    /// UpdateService.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `ServiceNotFoundException`, `ServiceNotActiveException`,
    /// `InvalidParameterException`, `ClientException`.
    pub fn update_service(
        &mut self,
        request: UpdateService,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let cluster = self.cluster_name(request.cluster.as_deref())?;
        let name = last(&request.service).to_owned();
        let definition = match &request.task_definition {
            Some(definition) => Some(self.active_definition(definition)?),
            None => None,
        };
        Constraints::read(request.placement_constraints.as_deref().unwrap_or_default())?;
        let strategy = request.capacity_provider_strategy;
        self.check_strategy(&cluster, strategy.as_deref().unwrap_or_default())?;
        let deployment_id = format!("ecs-svc/{}", self.ids.hex(16));
        let found = self.cluster_mut(Some(&cluster))?;
        if found.standing_service(&name)?.status != ServiceStatus::Active {
            return Err(ApiError::new(
                "ServiceNotActiveException",
                "Service was not ACTIVE.",
            ));
        }
        let changed = found.change_service(&name, |service| {
            service.deploy(&request.deployment_configuration)?;
            if let Some(definition) = definition {
                let before = (service.family.clone(), service.revision);
                if before != (definition.family.clone(), definition.revision) {
                    (service.family, service.revision) = (definition.family, definition.revision);
                    service.deployment_id = deployment_id;
                    (service.failures, service.start_not_before) = (0, None);
                }
            }
            service.desired = request.desired_count.unwrap_or(service.desired);
            if let Some(strategy) = strategy {
                service.strategy = strategy;
            }
            if let Some(constraints) = request.placement_constraints {
                service.constraints = constraints;
            }
            if let Some(strategy) = request.placement_strategy {
                service.placement_strategy = strategy;
            }
            service.updated_at = now;
            Ok(())
        });
        changed.unwrap_or(Ok(()))?;
        self.schedule(&cluster, now);
        Ok(json!({ "service": self.describe_service(&self.clusters[&cluster], &name, true) }))
    }

    /// DescribeServices. Unknown ones are failures.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn describe_services(&self, request: &DescribeServices) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        if !(1..=10).contains(&request.services.len()) {
            return Err(invalid("Services must have 1 to 10 entries."));
        }
        let with_tags = request.include.iter().any(|i| i == "TAGS");
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for service in &request.services {
            let name = last(service);
            if cluster.services.contains_key(name) {
                found.push(self.describe_service(cluster, name, with_tags));
            } else {
                let arn = self.arn(&format!("service/{}/{name}", cluster.name));
                failures.push(missing(&arn));
            }
        }
        Ok(json!({ "services": found, "failures": failures }))
    }

    /// ListServices: active and draining ones.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn list_services(&self, request: &ListServices) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        check_launch_type(request.launch_type.as_deref())?;
        let replica = request.scheduling_strategy.as_deref().unwrap_or("REPLICA") == "REPLICA";
        let found = cluster
            .services
            .values()
            .filter(|s| replica && s.status != ServiceStatus::Inactive);
        let page = paged(
            found.map(|service| service.arn.clone()).collect(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        Ok(json!({ "serviceArns": page.items, "nextToken": page.next_token }))
    }

    /// DeleteService: its tasks stop, and then it is `INACTIVE`.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `ServiceNotFoundException`, `InvalidParameterException` above
    /// zero without force.
    pub fn delete_service(
        &mut self,
        request: &DeleteService,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let cluster = self.cluster_name(request.cluster.as_deref())?;
        let name = last(&request.service).to_owned();
        let found = self.cluster_mut(Some(&cluster))?;
        let service = found.standing_service(&name)?;
        if service.status == ServiceStatus::Active {
            if service.desired > 0 && !request.force.unwrap_or(false) {
                return Err(invalid(
                    "The service cannot be stopped while it is scaled above 0.",
                ));
            }
            found.change_service(&name, |service| {
                service.desired = 0;
                service.status = ServiceStatus::Draining;
                service.updated_at = now;
            });
        }
        self.schedule(&cluster, now);
        Ok(json!({ "service": self.describe_service(&self.clusters[&cluster], &name, true) }))
    }

    fn check_strategy(&self, cluster: &str, strategy: &[Value]) -> Result<(), ApiError> {
        for item in strategy {
            let name = item["capacityProvider"].as_str().unwrap_or_default();
            if !self.clusters[cluster].providers.iter().any(|p| p == name) {
                return Err(invalid(format!(
                    "The specified capacity provider strategy names '{name}', which is not \
                     associated with the cluster."
                )));
            }
        }
        Ok(())
    }

    fn describe_service(&self, cluster: &Cluster, name: &str, with_tags: bool) -> Value {
        let service = &cluster.services[name];
        let tasks: Vec<&Task> = cluster
            .index
            .share(name)
            .into_iter()
            .flat_map(|share| &share.unfinished)
            .filter_map(|arn| cluster.tasks.get(arn))
            .collect();
        let count = |status, of: Option<(&str, u32)>| {
            let tasks = tasks.iter().filter(|t| t.last_status == status);
            tasks
                .filter(|t| of.is_none_or(|of| of == (t.family.as_str(), t.revision)))
                .count()
        };
        let current = (service.family.as_str(), service.revision);
        let mut definitions: BTreeSet<(&str, u32)> = tasks
            .iter()
            .map(|t| (t.family.as_str(), t.revision))
            .collect();
        definitions.remove(&current);
        let complete = definitions.is_empty()
            && count(TaskStatus::Running, None) == usize::try_from(service.desired).unwrap_or(0);
        let deployment = |of: (&str, u32), status: &str, desired: u32, id: &str| {
            json!({
                "id": id,
                "status": status,
                "taskDefinition": self.arn(&format!("task-definition/{}:{}", of.0, of.1)),
                "desiredCount": desired,
                "runningCount": count(TaskStatus::Running, Some(of)),
                "pendingCount": count(TaskStatus::Pending, Some(of)),
                "createdAt": service.created_at.as_second(),
                "updatedAt": service.updated_at.as_second(),
                "rolloutState": if complete { "COMPLETED" } else { "IN_PROGRESS" },
            })
        };
        let mut deployments = vec![deployment(
            current,
            "PRIMARY",
            service.desired,
            &service.deployment_id,
        )];
        for of in definitions {
            let id = format!("ecs-svc/{}-{}", of.0, of.1);
            deployments.push(deployment(of, "ACTIVE", 0, &id));
        }
        if service.status == ServiceStatus::Inactive {
            deployments.clear();
        }
        let events = service
            .events
            .iter()
            .enumerate()
            .map(|(age, (time, message))| {
                let id = format!("{}-{}", service.deployment_id, service.events.len() - age);
                json!({ "id": id, "createdAt": time.as_second(), "message": message })
            });
        let strategy = Some(&service.strategy).filter(|s| !s.is_empty());
        let mut described = json!({
            "serviceArn": service.arn,
            "serviceName": name,
            "clusterArn": cluster.arn,
            "status": service.status.as_str(),
            "desiredCount": service.desired,
            "runningCount": count(TaskStatus::Running, None),
            "pendingCount": count(TaskStatus::Pending, None),
            "launchType": if strategy.is_none() { Some("EC2") } else { None },
            "capacityProviderStrategy": strategy,
            "taskDefinition":
                self.arn(&format!("task-definition/{}:{}", service.family, service.revision)),
            "deploymentConfiguration": {
                "maximumPercent": service.maximum_percent,
                "minimumHealthyPercent": service.minimum_healthy_percent,
            },
            "deployments": deployments,
            "events": events.collect::<Value>(),
            "createdAt": service.created_at.as_second(),
            "placementConstraints": service.constraints,
            "placementStrategy": service.placement_strategy,
            "schedulingStrategy": "REPLICA",
        });
        if with_tags {
            described["tags"] = tag_list(self.tags.get(&service.arn));
        }
        described
    }
}

impl Cluster {
    /// Name of a service whose strategy names this capacity provider.
    pub(super) fn service_using(&self, provider: &str) -> Option<&str> {
        let services = self.services.values();
        let using = |s: &&Service| {
            s.status != ServiceStatus::Inactive
                && s.strategy.iter().any(|i| i["capacityProvider"] == provider)
        };
        services.filter(using).map(|s| s.name.as_str()).next()
    }

    fn standing_service(&self, name: &str) -> Result<&Service, ApiError> {
        let found = self.services.get(name);
        found
            .filter(|service| service.status != ServiceStatus::Inactive)
            .ok_or_else(|| ApiError::new("ServiceNotFoundException", "Service not found."))
    }
}

impl Service {
    fn deploy(&mut self, asked: &DeploymentConfiguration) -> Result<(), ApiError> {
        let maximum = asked.maximum_percent.unwrap_or(self.maximum_percent);
        let minimum = asked
            .minimum_healthy_percent
            .unwrap_or(self.minimum_healthy_percent);
        if maximum < 100 || minimum > maximum {
            return Err(invalid(
                "maximumPercent must be at least 100 and not below minimumHealthyPercent.",
            ));
        }
        (self.maximum_percent, self.minimum_healthy_percent) = (maximum, minimum);
        Ok(())
    }

    /// Adds an event unless it only says again what the last one said.
    pub(super) fn note(&mut self, now: Timestamp, message: String) {
        if self.events.front().is_none_or(|(_, last)| *last != message) {
            self.events.push_front((now, message));
            self.events.truncate(EVENTS_MAX);
        }
    }
}
