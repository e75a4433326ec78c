//! Capacity providers. They are kept, attached and described; they scale nothing.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CapacityProvider, Effect, Model, client_error,
    clusters::is_fargate,
    invalid, last, missing,
    tags::{Tag, tag_list},
};
use crate::api_error::ApiError;

/// Capacity providers on a page when the caller does not say.
const PROVIDER_PAGE: usize = 10;

/// CreateCapacityProvider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CreateCapacityProvider {
    name: String,
    auto_scaling_group_provider: Option<GroupProvider>,
    tags: Vec<Tag>,
}

impl CreateCapacityProvider {
    /// Name or ARN of the group it is for.
    pub fn group(&self) -> Option<&str> {
        self.auto_scaling_group_provider
            .as_ref()?
            .auto_scaling_group_arn
            .as_deref()
    }
}

/// UpdateCapacityProvider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UpdateCapacityProvider {
    name: String,
    auto_scaling_group_provider: GroupProvider,
}

impl UpdateCapacityProvider {
    /// Name of the provider.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupProvider {
    auto_scaling_group_arn: Option<String>,
    managed_scaling: Option<ManagedScaling>,
    managed_termination_protection: Option<String>,
    managed_draining: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ManagedScaling {
    status: Option<String>,
    target_capacity: Option<u32>,
    minimum_scaling_step_size: Option<u32>,
    maximum_scaling_step_size: Option<u32>,
    instance_warmup_period: Option<u32>,
}

/// DescribeCapacityProviders.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeCapacityProviders {
    capacity_providers: Vec<String>,
    include: Vec<String>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

/// A call that names a capacity provider and nothing else: DeleteCapacityProvider.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProviderRequest {
    capacity_provider: String,
}

/// PutClusterCapacityProviders.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PutClusterCapacityProviders {
    cluster: Option<String>,
    capacity_providers: Vec<String>,
    default_capacity_provider_strategy: Vec<Value>,
}

/// What ECS must know of an Auto Scaling group.
#[derive(Debug, Clone)]
pub struct GroupFacts {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// NewInstancesProtectedFromScaleIn.
    pub protects_new_instances: bool,
}

impl Model {
    /// CreateCapacityProvider. `group` is what [`CreateCapacityProvider::group`] names, if it is
    /// there.
    ///
    /// # Errors
    /// `InvalidParameterException`, `ClientException`.
    pub fn create_capacity_provider(
        &mut self,
        request: CreateCapacityProvider,
        group: Option<&GroupFacts>,
    ) -> Result<Value, ApiError> {
        let name = request.name;
        check_name(&name)?;
        if self.providers.get(&name).is_some_and(|p| p.active) {
            return Err(invalid(
                "The specified capacity provider already exists. To change the configuration of \
                 an existing capacity provider, update the capacity provider.",
            ));
        }
        let Some(asked) = request.auto_scaling_group_provider else {
            return Err(invalid("autoScalingGroupProvider is required"));
        };
        let Some(group) = group else {
            return Err(client_error(
                "The specified Auto Scaling group does not exist. Specify a valid Auto Scaling \
                 group and try again.",
            ));
        };
        if let Some(other) = self
            .providers
            .values()
            .find(|p| p.active && p.group_arn == group.arn)
        {
            return Err(client_error(format!(
                "The specified Auto Scaling group ARN is already being used by another capacity \
                 provider ({}). Specify a unique Auto Scaling group ARN and try again.",
                other.name
            )));
        }
        let arn = self.arn(&format!("capacity-provider/{name}"));
        let mut provider = CapacityProvider {
            name: name.clone(),
            arn: arn.clone(),
            group_arn: group.arn.clone(),
            group: group.name.clone(),
            managed_scaling: json!({ "status": "DISABLED" }),
            managed_termination_protection: "DISABLED".to_owned(),
            // AWS's default since managed draining exists.
            managed_draining: "ENABLED".to_owned(),
            update_status: "CREATE_COMPLETE",
            deleted_at: None,
            active: true,
        };
        provider.settle(asked, group)?;
        self.set_tags(&arn, &request.tags)?;
        let reply = self.describe_provider(&provider, true);
        self.providers.insert(name, provider);
        Ok(json!({ "capacityProvider": reply }))
    }

    /// UpdateCapacityProvider. `group` is the provider's, from [`Model::group_of_provider`].
    ///
    /// # Errors
    /// `InvalidParameterException`, `ClientException`.
    pub fn update_capacity_provider(
        &mut self,
        request: UpdateCapacityProvider,
        group: Option<&GroupFacts>,
    ) -> Result<Value, ApiError> {
        let group = group.ok_or_else(|| client_error("The Auto Scaling group does not exist."))?;
        let provider = self.provider_mut(&request.name)?;
        provider.settle(request.auto_scaling_group_provider, group)?;
        provider.update_status = "UPDATE_COMPLETE";
        let provider = &self.providers[last(&request.name)];
        Ok(json!({ "capacityProvider": self.describe_provider(provider, true) }))
    }

    /// Name of the group a capacity provider is for.
    pub fn group_of_provider(&self, provider: &str) -> Option<&str> {
        Some(&self.providers.get(last(provider))?.group)
    }

    /// The cluster that a capacity provider of this Auto Scaling group is attached to, by the group's ARN.
    pub fn cluster_of_group(&self, group_arn: &str) -> Option<&str> {
        let is_of_group = |name: &String| {
            let provider = self.providers.get(name);
            provider.is_some_and(|provider| provider.group_arn == group_arn)
        };
        let mut clusters = self.clusters.values().filter(|cluster| cluster.active);
        let found = clusters.find(|cluster| cluster.providers.iter().any(is_of_group))?;
        Some(&found.name)
    }

    /// DescribeCapacityProviders. Deleted ones are `INACTIVE`, unknown ones are failures.
    ///
    /// # Errors
    /// `InvalidParameterException`.
    pub fn describe_capacity_providers(
        &self,
        request: &DescribeCapacityProviders,
    ) -> Result<Value, ApiError> {
        let with_tags = request.include.iter().any(|i| i == "TAGS");
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        if request.capacity_providers.is_empty() {
            let active = self.providers.values().filter(|p| p.active);
            found.extend(active.map(|p| self.describe_provider(p, with_tags)));
        }
        for name in &request.capacity_providers {
            match self.providers.get(last(name)) {
                Some(provider) => found.push(self.describe_provider(provider, with_tags)),
                None => failures.push(missing(
                    &self.arn(&format!("capacity-provider/{}", last(name))),
                )),
            }
        }
        let size = request.max_results.or(Some(PROVIDER_PAGE));
        let page = super::paged(found, request.next_token.as_deref(), size)?;
        Ok(json!({
            "capacityProviders": page.items,
            "failures": failures,
            "nextToken": page.next_token,
        }))
    }

    /// DeleteCapacityProvider; complete after [`super::Options::attachment_delay`].
    ///
    /// # Errors
    /// `InvalidParameterException`, `ClientException` while a cluster or service uses it.
    pub fn delete_capacity_provider(
        &mut self,
        request: &ProviderRequest,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let name = last(&request.capacity_provider).to_owned();
        self.provider_mut(&name)?;
        let clusters = self.clusters.values().filter(|c| c.active);
        for cluster in clusters {
            if cluster.providers.contains(&name) {
                return Err(client_error(format!(
                    "The capacity provider cannot be deleted because it is associated with \
                     cluster: {}. Remove the capacity provider from the cluster and try again.",
                    cluster.name
                )));
            }
            if let Some(service) = cluster.service_using(&name) {
                return Err(client_error(format!(
                    "The capacity provider cannot be deleted because service {service} uses it."
                )));
            }
        }
        let done = now + self.options.attachment_delay;
        let provider = self.provider_mut(&name)?;
        provider.deleted_at = Some(done);
        provider.update_status = "DELETE_IN_PROGRESS";
        let reply = self.describe_provider(&self.providers[&name], true);
        Ok(json!({ "capacityProvider": reply }))
    }

    /// PutClusterCapacityProviders: replaces what was attached; complete after
    /// [`super::Options::attachment_delay`].
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `UpdateInProgressException`, `ResourceInUseException`,
    /// `InvalidParameterException`.
    pub fn put_cluster_capacity_providers(
        &mut self,
        request: PutClusterCapacityProviders,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let name = self.cluster_name(request.cluster.as_deref())?;
        self.check_providers(&request.capacity_providers)?;
        let cluster = &self.clusters[&name];
        if cluster.attached_at.is_some() {
            return Err(ApiError::new(
                "UpdateInProgressException",
                "The specified cluster is in a busy state. Cluster attachments must be in \
                 UPDATE_COMPLETE or UPDATE_FAILED state before they can be updated.",
            ));
        }
        for provider in &cluster.providers {
            if !request.capacity_providers.contains(provider)
                && let Some(service) = cluster.service_using(provider)
            {
                return Err(ApiError::new(
                    "ResourceInUseException",
                    format!(
                        "The specified capacity provider is in use and cannot be removed: service \
                         {service} uses {provider}."
                    ),
                ));
            }
        }
        self.attach_providers(
            &name,
            request.capacity_providers,
            request.default_capacity_provider_strategy,
            now,
        )?;
        let include = ["ATTACHMENTS", "TAGS", "SETTINGS"].map(str::to_owned);
        Ok(json!({ "cluster": self.describe_cluster(&self.clusters[&name], &include) }))
    }

    pub(super) fn check_providers(&self, names: &[String]) -> Result<(), ApiError> {
        for name in names {
            let usable = is_fargate(name)
                || self
                    .providers
                    .get(name)
                    .is_some_and(|p| p.active && p.deleted_at.is_none());
            if !usable {
                return Err(invalid(format!(
                    "The specified capacity provider '{name}' is not in an ACTIVE state. Specify \
                     a valid capacity provider and try again."
                )));
            }
        }
        Ok(())
    }

    pub(super) fn attach_providers(
        &mut self,
        cluster: &str,
        providers: Vec<String>,
        strategy: Vec<Value>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        for item in &strategy {
            let named = item["capacityProvider"].as_str().unwrap_or_default();
            if !providers.iter().any(|p| p == named) {
                return Err(invalid(format!(
                    "The default capacity provider strategy names '{named}', which is not \
                     associated with the cluster."
                )));
            }
        }
        let on_fargate = strategy
            .iter()
            .filter(|item| item["capacityProvider"].as_str().is_some_and(is_fargate))
            .count();
        if on_fargate > 0 && on_fargate < strategy.len() {
            return Err(invalid(
                "A capacity provider strategy cannot contain a mix of capacity providers using \
                 Auto Scaling groups and Fargate providers. Specify one or the other and try \
                 again.",
            ));
        }
        let done = now + self.options.attachment_delay;
        let Some(cluster) = self.clusters.get_mut(cluster) else {
            return Ok(());
        };
        let fresh: Vec<&String> = providers
            .iter()
            .filter(|p| !cluster.providers.contains(p))
            .collect();
        for name in fresh {
            if let Some(provider) = self.providers.get(name) {
                self.effects.push(Effect::MarkManaged {
                    group: provider.group.clone(),
                });
            }
        }
        cluster.providers = providers;
        cluster.default_strategy = strategy;
        cluster.attached_at = Some(done);
        Ok(())
    }

    fn provider_mut(&mut self, name: &str) -> Result<&mut CapacityProvider, ApiError> {
        let found = self.providers.get_mut(last(name));
        found
            .filter(|p| p.active)
            .ok_or_else(|| invalid("The specified capacity provider does not exist."))
    }

    fn describe_provider(&self, provider: &CapacityProvider, with_tags: bool) -> Value {
        let status = if provider.active {
            "ACTIVE"
        } else {
            "INACTIVE"
        };
        let mut described = json!({
            "capacityProviderArn": provider.arn,
            "name": provider.name,
            "status": status,
            "type": "EC2_AUTOSCALING",
            "updateStatus": provider.update_status,
            "autoScalingGroupProvider": {
                "autoScalingGroupArn": provider.group_arn,
                "managedScaling": provider.managed_scaling,
                "managedTerminationProtection": provider.managed_termination_protection,
                "managedDraining": provider.managed_draining,
            },
        });
        if with_tags {
            described["tags"] = tag_list(self.tags.get(&provider.arn));
        }
        described
    }
}

impl CapacityProvider {
    /// Takes over what a request has; all of it or nothing.
    fn settle(&mut self, asked: GroupProvider, group: &GroupFacts) -> Result<(), ApiError> {
        let mut scaling = self.managed_scaling.clone();
        if let Some(asked) = asked.managed_scaling {
            // What the request leaves out gets AWS's default, as documented for ManagedScaling.
            let target = asked.target_capacity.unwrap_or(100);
            if !(1..=100).contains(&target) {
                return Err(invalid("targetCapacity must be between 1 and 100."));
            }
            scaling = json!({
                "status": asked.status.unwrap_or_else(|| "ENABLED".to_owned()),
                "targetCapacity": target,
                "minimumScalingStepSize": asked.minimum_scaling_step_size.unwrap_or(1),
                "maximumScalingStepSize": asked.maximum_scaling_step_size.unwrap_or(10_000),
                "instanceWarmupPeriod": asked.instance_warmup_period.unwrap_or(300),
            });
        }
        let protection = asked
            .managed_termination_protection
            .unwrap_or_else(|| self.managed_termination_protection.clone());
        if protection == "ENABLED" {
            if !group.protects_new_instances {
                return Err(invalid(
                    "The managed termination protection setting for the capacity provider is \
                     invalid. To enable managed termination protection for a capacity provider, \
                     the Auto Scaling group must have instance protection from scale in enabled.",
                ));
            }
            if scaling["status"] != "ENABLED" {
                return Err(invalid(
                    "The managed termination protection setting for the capacity provider is \
                     invalid. To enable managed termination protection for a capacity provider, \
                     enable managed scaling and try again.",
                ));
            }
        }
        self.managed_scaling = scaling;
        self.managed_termination_protection = protection;
        if let Some(draining) = asked.managed_draining {
            self.managed_draining = draining;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let lower = name.to_ascii_lowercase();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let reserved = ["aws", "ecs", "fargate"];
    if !(1..=255).contains(&name.len())
        || !name.bytes().all(legal)
        || reserved.iter().any(|prefix| lower.starts_with(prefix))
    {
        return Err(invalid(
            "The specified capacity provider name is invalid. Up to 255 characters are allowed, \
             including letters, numbers, underscores and hyphens. The name cannot be prefixed \
             with \"aws\", \"ecs\", or \"fargate\".",
        ));
    }
    Ok(())
}
