//! Attributes of container instances.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Cluster, ContainerInstance, InstanceStatus, Model, invalid, paged};
use crate::api_error::ApiError;

/// Bound of attributes in one call, and of custom attributes a container instance.
const ATTRIBUTES_MAX: usize = 10;

/// An attribute.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Attribute {
    /// Name.
    pub name: String,
    /// Value, if it has one.
    pub value: Option<String>,
    /// `container-instance`; needed beside a short id.
    pub target_type: Option<String>,
    /// ARN or short id of a container instance.
    pub target_id: Option<String>,
}

/// PutAttributes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PutAttributes {
    cluster: Option<String>,
    attributes: Vec<Attribute>,
}

/// DeleteAttributes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DeleteAttributes {
    cluster: Option<String>,
    attributes: Vec<Attribute>,
}

/// ListAttributes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListAttributes {
    cluster: Option<String>,
    target_type: String,
    attribute_name: Option<String>,
    attribute_value: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

impl Model {
    /// PutAttributes: all of them or none.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `TargetNotFoundException`, `AttributeLimitExceededException`,
    /// `InvalidParameterException`.
    pub fn put_attributes(&mut self, request: &PutAttributes) -> Result<Value, ApiError> {
        let targets = self.set_attributes(request.cluster.as_deref(), &request.attributes)?;
        let put = request.attributes.iter().zip(targets);
        let reply = put.map(|(attribute, arn)| {
            json!({
                "name": attribute.name,
                "value": attribute.value,
                "targetType": "container-instance",
                "targetId": arn,
            })
        });
        Ok(json!({ "attributes": reply.collect::<Value>() }))
    }

    /// PutAttributes without its JSON; answers the ARN of each attribute's target.
    ///
    /// # Errors
    /// As [`Model::put_attributes`].
    pub fn set_attributes(
        &mut self,
        cluster: Option<&str>,
        attributes: &[Attribute],
    ) -> Result<Vec<String>, ApiError> {
        let name = self.cluster_name(cluster)?;
        let cluster = &self.clusters[&name];
        check_count(attributes)?;
        let mut wanted: BTreeMap<String, BTreeMap<String, Option<String>>> = BTreeMap::new();
        let mut targets = Vec::new();
        for attribute in attributes {
            check_attribute(attribute)?;
            let arn = self.target(cluster, attribute)?;
            targets.push(arn.clone());
            let target = wanted.entry(arn).or_default();
            target.insert(attribute.name.clone(), attribute.value.clone());
        }
        for (arn, added) in &wanted {
            let kept = &cluster.instances[arn].attributes;
            let names = kept
                .keys()
                .chain(added.keys().filter(|n| !kept.contains_key(*n)));
            if names.filter(|name| is_custom(name)).count() > ATTRIBUTES_MAX {
                return Err(ApiError::new(
                    "AttributeLimitExceededException",
                    format!("A container instance has at most {ATTRIBUTES_MAX} custom attributes."),
                ));
            }
        }
        if let Some(cluster) = self.clusters.get_mut(&name) {
            for (arn, added) in wanted {
                if let Some(instance) = cluster.instances.get_mut(&arn) {
                    instance.attributes.extend(added);
                    instance.version += 1;
                }
                cluster.wake(&arn);
            }
        }
        Ok(targets)
    }

    /// DeleteAttributes. Absent attributes are no error.
    ///
    /// # Errors
    /// As [`Model::put_attributes`].
    pub fn delete_attributes(&mut self, request: &DeleteAttributes) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        check_count(&request.attributes)?;
        let mut targets = Vec::new();
        for attribute in &request.attributes {
            targets.push(self.target(cluster, attribute)?);
        }
        let cluster = self.cluster_mut(request.cluster.as_deref())?;
        let mut reply = Vec::new();
        for (attribute, arn) in request.attributes.iter().zip(targets) {
            let removed = cluster.instances.get_mut(&arn).and_then(|instance| {
                let wanted = attribute.value.as_ref();
                let kept = instance.attributes.get(&attribute.name)?;
                let same = wanted.is_none() || wanted == kept.as_ref();
                same.then(|| instance.attributes.remove(&attribute.name))
            });
            if removed.is_some() {
                cluster.wake(&arn);
                reply.push(json!({
                    "name": attribute.name,
                    "targetType": "container-instance",
                    "targetId": arn,
                }));
            }
        }
        Ok(json!({ "attributes": reply }))
    }

    /// ListAttributes.
    ///
    /// # Errors
    /// `ClusterNotFoundException`, `InvalidParameterException`.
    pub fn list_attributes(&self, request: &ListAttributes) -> Result<Value, ApiError> {
        let cluster = self.cluster(request.cluster.as_deref())?;
        if request.target_type != "container-instance" {
            return Err(invalid("targetType must be container-instance"));
        }
        if request.attribute_value.is_some() && request.attribute_name.is_none() {
            return Err(invalid("attributeValue needs attributeName"));
        }
        let wanted = |name: &str, value: &Option<String>| {
            request.attribute_name.as_deref().is_none_or(|n| n == name)
                && (request.attribute_value.is_none() || request.attribute_value == *value)
        };
        let found = cluster
            .instances
            .values()
            .filter(|instance| instance.status != InstanceStatus::Inactive)
            .flat_map(|i| {
                i.attributes
                    .iter()
                    .map(move |(name, value)| (i, name, value))
            })
            .filter(|(_, name, value)| wanted(name, value))
            .map(|(instance, name, value)| {
                json!({
                    "name": name,
                    "value": value,
                    "targetType": "container-instance",
                    "targetId": instance.arn,
                })
            });
        let token = request.next_token.as_deref();
        let page = paged(found.collect(), token, request.max_results)?;
        Ok(json!({ "attributes": page.items, "nextToken": page.next_token }))
    }

    /// ARN of the container instance that an attribute is for: named by ARN, or by its short id
    /// together with the target type.
    fn target(&self, cluster: &Cluster, attribute: &Attribute) -> Result<String, ApiError> {
        let id = attribute.target_id.as_deref().unwrap_or_default();
        let short = !id.starts_with("arn:");
        match attribute.target_type.as_deref() {
            Some("container-instance") => {}
            None if !short => {}
            None => {
                return Err(invalid(
                    "targetType is required when targetId is not a full ARN",
                ));
            }
            Some(other) => return Err(invalid(format!("'{other}' is not a target type"))),
        }
        let arn = cluster.arn_of("container-instance", id);
        cluster
            .instances
            .get(&arn)
            .filter(|instance| instance.status != InstanceStatus::Inactive)
            .map(|instance| instance.arn.clone())
            .ok_or_else(|| {
                ApiError::new(
                    "TargetNotFoundException",
                    format!("The specified target could not be found: {id}"),
                )
            })
    }
}

pub(super) fn attribute_list(instance: &ContainerInstance) -> Value {
    let attributes = instance.attributes.iter();
    attributes
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect()
}

/// Names: 1 to 128 of letters, digits and `_./\-`. Values: 1 to 128 of those and `@: `, no space
/// at either end (API reference, Attribute).
pub(super) fn check_attribute(attribute: &Attribute) -> Result<(), ApiError> {
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b"_./\\-".contains(&b);
    let name = &attribute.name;
    if !(1..=128).contains(&name.len()) || !name.bytes().all(name_byte) {
        return Err(invalid(format!("Invalid attribute name: '{name}'")));
    }
    if let Some(value) = &attribute.value {
        let legal = |b: u8| name_byte(b) || b"@: ".contains(&b);
        if !(1..=128).contains(&value.len())
            || !value.bytes().all(legal)
            || value.trim() != value.as_str()
        {
            return Err(invalid(format!(
                "Invalid value of attribute '{name}': '{value}'"
            )));
        }
    }
    Ok(())
}

fn check_count(attributes: &[Attribute]) -> Result<(), ApiError> {
    if (1..=ATTRIBUTES_MAX).contains(&attributes.len()) {
        return Ok(());
    }
    Err(invalid(format!(
        "A call has 1 to {ATTRIBUTES_MAX} attributes."
    )))
}

/// ECS's own and its agent's attributes do not count.
fn is_custom(name: &str) -> bool {
    !name.starts_with("ecs.") && !name.starts_with("com.amazonaws.")
}
