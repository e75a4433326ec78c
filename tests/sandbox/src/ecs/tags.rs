//! Tags of any ECS resource.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Model, invalid};
use crate::api_error::ApiError;

/// The quota of tags a resource.
const TAGS_MAX: usize = 50;

/// A tag.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Tag {
    pub(super) key: String,
    pub(super) value: String,
}

/// TagResource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TagResource {
    resource_arn: String,
    tags: Vec<Tag>,
}

/// UntagResource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UntagResource {
    resource_arn: String,
    tag_keys: Vec<String>,
}

/// ListTagsForResource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListTags {
    resource_arn: String,
}

impl Model {
    /// TagResource.
    ///
    /// # Errors
    /// `InvalidParameterException`, also for an unknown resource.
    pub fn tag_resource(&mut self, request: &TagResource) -> Result<Value, ApiError> {
        self.check_resource(&request.resource_arn)?;
        self.set_tags(&request.resource_arn, &request.tags)?;
        Ok(json!({}))
    }

    /// UntagResource.
    ///
    /// # Errors
    /// `InvalidParameterException` for an unknown resource.
    pub fn untag_resource(&mut self, request: &UntagResource) -> Result<Value, ApiError> {
        self.check_resource(&request.resource_arn)?;
        if let Some(tags) = self.tags.get_mut(&request.resource_arn) {
            tags.retain(|key, _| !request.tag_keys.contains(key));
        }
        Ok(json!({}))
    }

    /// ListTagsForResource.
    ///
    /// # Errors
    /// `InvalidParameterException` for an unknown resource.
    pub fn list_tags(&self, request: &ListTags) -> Result<Value, ApiError> {
        self.check_resource(&request.resource_arn)?;
        Ok(json!({ "tags": tag_list(self.tags.get(&request.resource_arn)) }))
    }

    /// Tags of a resource; none of one that is not there.
    pub fn tags_of(&self, arn: &str) -> BTreeMap<String, String> {
        self.tags.get(arn).cloned().unwrap_or_default()
    }

    /// Adds tags, or none if one of them is wrong.
    pub(super) fn set_tags(&mut self, arn: &str, tags: &[Tag]) -> Result<(), ApiError> {
        for tag in tags {
            if !(1..=128).contains(&tag.key.chars().count()) || tag.value.chars().count() > 256 {
                return Err(invalid(format!("Invalid tag: '{}'.", tag.key)));
            }
            if tag.key.starts_with("aws:") {
                return Err(invalid("Tag keys beginning with aws: are reserved."));
            }
        }
        let kept = self.tags.get(arn).map_or(0, BTreeMap::len);
        if kept + tags.len() > TAGS_MAX {
            return Err(invalid(format!("A resource has at most {TAGS_MAX} tags.")));
        }
        if !tags.is_empty() {
            let kept = self.tags.entry(arn.to_owned()).or_default();
            kept.extend(tags.iter().map(|t| (t.key.clone(), t.value.clone())));
        }
        Ok(())
    }

    fn check_resource(&self, arn: &str) -> Result<(), ApiError> {
        let in_cluster = |c: &super::Cluster| {
            c.arn == arn
                || c.instances.contains_key(arn)
                || c.tasks.contains_key(arn)
                || c.services.values().any(|s| s.arn == arn)
        };
        let found = self.clusters.values().filter(|c| c.active).any(in_cluster)
            || self.providers.values().any(|p| p.arn == arn)
            || self.definitions.values().flatten().any(|d| d.arn == arn);
        if found {
            Ok(())
        } else {
            Err(invalid(format!(
                "The specified resource is not found: {arn}"
            )))
        }
    }
}

pub(super) fn tag_list(tags: Option<&BTreeMap<String, String>>) -> Value {
    tags.into_iter()
        .flatten()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect()
}
