//! Clusters.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cluster, InstanceStatus, Model, ServiceStatus, TaskStatus, cluster_name, cluster_not_found,
    index::Index,
    invalid, missing, paged,
    scheduler::Todo,
    tags::{Tag, tag_list},
};
use crate::api_error::ApiError;

/// CreateCluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CreateCluster {
    cluster_name: Option<String>,
    tags: Vec<Tag>,
    settings: Vec<Value>,
    configuration: Option<Value>,
    capacity_providers: Vec<String>,
    default_capacity_provider_strategy: Vec<Value>,
}

/// UpdateCluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpdateCluster {
    cluster: Option<String>,
    settings: Vec<Value>,
    configuration: Option<Value>,
}

/// DescribeClusters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeClusters {
    clusters: Vec<String>,
    include: Vec<String>,
}

/// A call that names a cluster and nothing else: DeleteCluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterRequest {
    cluster: Option<String>,
}

/// ListClusters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListClusters {
    max_results: Option<usize>,
    next_token: Option<String>,
}

impl Model {
    /// CreateCluster: idempotent by name.
    ///
    /// # Errors
    /// `InvalidParameterException`.
    pub fn create_cluster(
        &mut self,
        request: CreateCluster,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let name = cluster_name(request.cluster_name.as_deref()).to_owned();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if name.len() > 255 || !name.bytes().all(legal) {
            return Err(invalid("Invalid cluster name."));
        }
        if self.clusters.get(&name).is_none_or(|c| !c.active) {
            self.check_providers(&request.capacity_providers)?;
            let arn = self.arn(&format!("cluster/{name}"));
            self.set_tags(&arn, &request.tags)?;
            let cluster = Cluster {
                name: name.clone(),
                arn,
                active: true,
                instances: BTreeMap::new(),
                tasks: BTreeMap::new(),
                services: BTreeMap::new(),
                providers: Vec::new(),
                default_strategy: Vec::new(),
                settings: request.settings,
                configuration: request.configuration,
                attached_at: None,
                index: Index::default(),
                todo: Todo::default(),
            };
            self.clusters.insert(name.clone(), cluster);
            if !request.capacity_providers.is_empty() {
                self.attach_providers(
                    &name,
                    request.capacity_providers,
                    request.default_capacity_provider_strategy,
                    now,
                )?;
            }
        }
        let include = ["TAGS", "SETTINGS", "CONFIGURATIONS"].map(str::to_owned);
        Ok(json!({ "cluster": self.describe_cluster(&self.clusters[&name], &include) }))
    }

    /// UpdateCluster: settings by their names, the configuration as a whole.
    ///
    /// # Errors
    /// `ClusterNotFoundException`.
    pub fn update_cluster(&mut self, request: UpdateCluster) -> Result<Value, ApiError> {
        let cluster = self.cluster_mut(request.cluster.as_deref())?;
        for setting in request.settings {
            let kept = &mut cluster.settings;
            kept.retain(|other| other["name"] != setting["name"]);
            kept.push(setting);
        }
        if request.configuration.is_some() {
            cluster.configuration = request.configuration;
        }
        let include = ["SETTINGS", "CONFIGURATIONS"].map(str::to_owned);
        let cluster = self.cluster(request.cluster.as_deref())?;
        Ok(json!({ "cluster": self.describe_cluster(cluster, &include) }))
    }

    /// DescribeClusters. Deleted ones are `INACTIVE`, unknown ones are failures.
    pub fn describe_clusters(&self, request: &DescribeClusters) -> Value {
        let names = match request.clusters.as_slice() {
            [] => &["default".to_owned()],
            names => names,
        };
        let (mut clusters, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            match self.clusters.get(cluster_name(Some(name))) {
                Some(cluster) => clusters.push(self.describe_cluster(cluster, &request.include)),
                None => failures.push(missing(
                    &self.arn(&format!("cluster/{}", cluster_name(Some(name)))),
                )),
            }
        }
        json!({ "clusters": clusters, "failures": failures })
    }

    /// ListClusters.
    ///
    /// # Errors
    /// `InvalidParameterException`.
    pub fn list_clusters(&self, request: &ListClusters) -> Result<Value, ApiError> {
        let active = self.clusters.values().filter(|cluster| cluster.active);
        let page = paged(
            active.map(|cluster| cluster.arn.clone()).collect(),
            request.next_token.as_deref(),
            request.max_results,
        )?;
        Ok(json!({ "clusterArns": page.items, "nextToken": page.next_token }))
    }

    /// DeleteCluster. Deleting it twice is no error.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, and one that says what it still holds.
    pub fn delete_cluster(&mut self, request: &ClusterRequest) -> Result<Value, ApiError> {
        let name = cluster_name(request.cluster.as_deref()).to_owned();
        let cluster = self.clusters.get_mut(&name).ok_or_else(cluster_not_found)?;
        cluster.refuse_deletion()?;
        cluster.active = false;
        cluster.instances.clear();
        cluster.tasks.clear();
        cluster.services.clear();
        (cluster.index, cluster.todo) = (Index::default(), Todo::default());
        let arn = cluster.arn.clone();
        self.tags.remove(&arn);
        Ok(json!({ "cluster": self.describe_cluster(&self.clusters[&name], &[]) }))
    }

    pub(super) fn describe_cluster(&self, cluster: &Cluster, include: &[String]) -> Value {
        let wants = |what: &str| include.iter().any(|i| i == what);
        let count = |status| {
            let tasks = cluster.tasks.values();
            tasks.filter(|task| task.last_status == status).count()
        };
        let (running, pending) = (count(TaskStatus::Running), count(TaskStatus::Pending));
        let services = cluster.services.values();
        let active_services = services
            .filter(|s| s.status == ServiceStatus::Active)
            .count();
        let instances = cluster.instances.values();
        let status = if cluster.active { "ACTIVE" } else { "INACTIVE" };
        let mut described = json!({
            "clusterArn": cluster.arn,
            "clusterName": cluster.name,
            "status": status,
            "registeredContainerInstancesCount":
                instances.filter(|i| i.status != InstanceStatus::Inactive).count(),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": active_services,
            "capacityProviders": cluster.providers,
            "defaultCapacityProviderStrategy": cluster.default_strategy,
        });
        if wants("TAGS") {
            described["tags"] = tag_list(self.tags.get(&cluster.arn));
        }
        if wants("SETTINGS") {
            described["settings"] = json!(cluster.settings);
        }
        if wants("CONFIGURATIONS") {
            described["configuration"] = json!(cluster.configuration);
        }
        if wants("STATISTICS") {
            described["statistics"] = json!([
                { "name": "runningEC2TasksCount", "value": running.to_string() },
                { "name": "pendingEC2TasksCount", "value": pending.to_string() },
                { "name": "activeEC2ServiceCount", "value": active_services.to_string() },
            ]);
        }
        if wants("ATTACHMENTS") && (cluster.attached_at.is_some() || !cluster.providers.is_empty())
        {
            described["attachmentsStatus"] = json!(cluster.attachments_status());
        }
        described
    }
}

impl Cluster {
    pub(super) fn attachments_status(&self) -> &'static str {
        match self.attached_at {
            Some(_) => "UPDATE_IN_PROGRESS",
            None => "UPDATE_COMPLETE",
        }
    }

    fn refuse_deletion(&self) -> Result<(), ApiError> {
        let refuse = |code: &str, what: &str| {
            let message = format!("The Cluster cannot be deleted while {what}.");
            Err(ApiError::new(code, message))
        };
        let standing = |s: &super::Service| s.status != ServiceStatus::Inactive;
        if self.services.values().any(standing) {
            return refuse("ClusterContainsServicesException", "Services are active");
        }
        if self
            .tasks
            .values()
            .any(|task| task.last_status != TaskStatus::Stopped)
        {
            return refuse("ClusterContainsTasksException", "Tasks are active");
        }
        if self
            .instances
            .values()
            .any(|i| i.status != InstanceStatus::Inactive)
        {
            return refuse(
                "ClusterContainsContainerInstancesException",
                "Container Instances are active or draining",
            );
        }
        if self.attached_at.is_some() {
            return refuse("UpdateInProgressException", "its attachments are updated");
        }
        if self.providers.iter().any(|name| !is_fargate(name)) {
            return refuse(
                "ClusterContainsCapacityProviderException",
                "Capacity Providers are associated with it",
            );
        }
        Ok(())
    }
}

pub(super) fn is_fargate(provider: &str) -> bool {
    matches!(provider, "FARGATE" | "FARGATE_SPOT")
}
