//! ECS's control plane as a pure model: no clock, no input or output, no randomness.
//!
//! Every call is a method with the request and the time, and answers the reply's JSON. Nodes
//! report through [`Model::sync`] and read their orders from [`Model::orders`];
//! [`Model::next_deadline`] says when [`Model::advance`] has something to do by itself.
//!
//! # Guarantees
//! - Only a node's own report, or the loss of its machine, makes a task `STOPPED`.
//! - DRAINING moves service tasks within `minimumHealthyPercent` and `maximumPercent`, and never
//!   touches tasks of RunTask; a service at 100/100 never leaves.
//! - Tasks are placed on ACTIVE instances whose agent is connected and which have room.
//!
//! # Not served
//! Fargate, DAEMON services, load balancers, task overrides, `awsvpc`, managed scaling (a
//! capacity provider is kept and described, but scales nothing).

mod attributes;
mod clusters;
mod definitions;
mod expression;
mod index;
mod instances;
mod limits;
mod node;
mod providers;
mod scheduler;
mod services;
mod state;
mod tags;
mod tasks;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::{
    api_error::ApiError,
    ids::Ids,
    paging::{Page, page},
};

pub use attributes::{Attribute, DeleteAttributes, ListAttributes, PutAttributes};
pub use clusters::{ClusterRequest, CreateCluster, DescribeClusters, ListClusters, UpdateCluster};
pub use definitions::{DescribeTaskDefinition, ListTaskDefinitions, RegisterTaskDefinition};
pub use instances::{
    DeregisterContainerInstance, DescribeContainerInstances, ListContainerInstances,
    RegisterContainerInstance, Registration, StateChange, UpdateContainerInstancesState,
};
pub use limits::Limits;
pub use providers::{
    CreateCapacityProvider, DescribeCapacityProviders, GroupFacts, ProviderRequest,
    PutClusterCapacityProviders, UpdateCapacityProvider,
};
pub use services::{CreateService, DeleteService, DescribeServices, ListServices, UpdateService};
pub use state::{
    CapacityProvider, Cluster, Container, ContainerInstance, InstanceStatus, Service,
    ServiceStatus, Task, TaskDefinition, TaskStatus,
};
pub use tags::{ListTags, TagResource, UntagResource};
pub use tasks::{DescribeTasks, ListTasks, RunTask, StopTask};

/// What differs between the accounts and regions a model stands for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Region, in ARNs.
    pub region: String,
    /// Account, in ARNs.
    pub account_id: String,
    /// How long capacity providers take to be attached, detached and deleted.
    pub attachment_delay: SignedDuration,
    /// Silence after which an agent counts as disconnected.
    pub connection_timeout: SignedDuration,
    /// Seed of the identifiers.
    pub seed: u64,
}

/// What the world has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// ECS tags the group of an attached capacity provider with `AmazonECSManaged`.
    MarkManaged {
        /// Name of the Auto Scaling group.
        group: String,
    },
}

/// ECS in one account and region.
#[derive(Debug, Clone)]
pub struct Model {
    options: Options,
    ids: Ids,
    clusters: BTreeMap<String, Cluster>,
    providers: BTreeMap<String, CapacityProvider>,
    /// Revisions of each family, the first at index 0.
    definitions: BTreeMap<String, Vec<TaskDefinition>>,
    /// By ARN.
    tags: BTreeMap<String, BTreeMap<String, String>>,
    effects: Vec<Effect>,
}

impl Model {
    /// An account without clusters.
    pub fn new(options: Options) -> Self {
        Self {
            ids: Ids::new(options.seed),
            options,
            clusters: BTreeMap::new(),
            providers: BTreeMap::new(),
            definitions: BTreeMap::new(),
            tags: BTreeMap::new(),
            effects: Vec::new(),
        }
    }

    /// What has to be done since this was last asked, in order.
    #[must_use = "an effect that nobody carries out is lost"]
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.clusters.values()
    }

    fn arn(&self, resource: &str) -> String {
        let Options {
            region, account_id, ..
        } = &self.options;
        format!("arn:aws:ecs:{region}:{account_id}:{resource}")
    }

    /// The active cluster with this name or ARN; `default` without one.
    fn cluster_name(&self, cluster: Option<&str>) -> Result<String, ApiError> {
        let name = cluster_name(cluster);
        match self.clusters.get(name) {
            Some(cluster) if cluster.active => Ok(name.to_owned()),
            _ => Err(cluster_not_found()),
        }
    }

    fn cluster(&self, cluster: Option<&str>) -> Result<&Cluster, ApiError> {
        let name = cluster_name(cluster);
        let found = self.clusters.get(name).filter(|cluster| cluster.active);
        found.ok_or_else(cluster_not_found)
    }

    fn cluster_mut(&mut self, cluster: Option<&str>) -> Result<&mut Cluster, ApiError> {
        let name = cluster_name(cluster);
        let found = self.clusters.get_mut(name);
        found
            .filter(|cluster| cluster.active)
            .ok_or_else(cluster_not_found)
    }
}

fn cluster_name(cluster: Option<&str>) -> &str {
    last(cluster.filter(|name| !name.is_empty()).unwrap_or("default"))
}

impl Cluster {
    /// The ARN that a short id or ARN of a `task` or `container-instance` stands for.
    fn arn_of(&self, kind: &str, id: &str) -> String {
        if id.starts_with("arn:") {
            return id.to_owned();
        }
        let account = self.arn.split(":cluster/").next().unwrap_or_default();
        format!("{account}:{kind}/{}/{id}", self.name)
    }
}

/// What stands after the last slash of an ARN; a short name as it is.
fn last(arn_or_name: &str) -> &str {
    arn_or_name.rsplit('/').next().unwrap_or(arn_or_name)
}

fn cluster_not_found() -> ApiError {
    ApiError::new("ClusterNotFoundException", "Cluster not found.")
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new("InvalidParameterException", message)
}

fn client_error(message: impl Into<String>) -> ApiError {
    ApiError::new("ClientException", message)
}

/// An entry of `failures`.
fn missing(arn: &str) -> Value {
    json!({ "arn": arn, "reason": "MISSING" })
}

/// One page of a `List…` call.
fn paged<T>(items: Vec<T>, token: Option<&str>, size: Option<usize>) -> Result<Page<T>, ApiError> {
    let size = size.unwrap_or(100);
    if !(1..=100).contains(&size) {
        return Err(invalid("maxResults must be between 1 and 100."));
    }
    page(items, token, size).ok_or_else(|| invalid("Invalid token"))
}

#[cfg(test)]
mod tests;
