//! Parameters: the groups' live settings, and the public ones that name images.

use std::collections::BTreeMap;

use aws_sdk_ssm::{
    Client,
    config::Builder,
    types::{ParameterType, ResourceTypeForTagging, Tag},
};

use super::error::{CallError, failed, found, gone};
use crate::inventory::Tags;

/// Names a GetParameters call takes.
const BATCH: usize = 10;

#[derive(Debug)]
pub(crate) struct Ssm {
    client: Client,
}

impl Ssm {
    pub(super) fn new(config: Builder) -> Self {
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// The values of those parameters that exist, by name.
    pub(crate) async fn values(
        &self,
        names: &[String],
    ) -> Result<BTreeMap<String, String>, CallError> {
        let mut values = BTreeMap::new();
        for batch in names.chunks(BATCH) {
            let reply = self
                .client
                .get_parameters()
                .set_names(Some(batch.to_vec()))
                .send()
                .await
                .map_err(failed("ssm:GetParameters", &batch.join(" ")))?;
            let found = reply.parameters.unwrap_or_default();
            values.extend(found.into_iter().filter_map(|p| Some((p.name?, p.value?))));
        }
        Ok(values)
    }

    /// Tags of a parameter; `None` when there is no such parameter.
    pub(crate) async fn tags(&self, name: &str) -> Result<Option<Tags>, CallError> {
        let reply = self
            .client
            .list_tags_for_resource()
            .resource_type(ResourceTypeForTagging::Parameter)
            .resource_id(name)
            .send()
            .await
            .map_err(failed("ssm:ListTagsForResource", name));
        Ok(found(reply)?.map(|reply| {
            let tags = reply.tag_list.unwrap_or_default().into_iter();
            tags.map(|tag| (tag.key, tag.value)).collect()
        }))
    }

    /// Creates a parameter with tags, which fails if it exists.
    pub(crate) async fn create(
        &self,
        name: &str,
        value: &str,
        tags: &Tags,
    ) -> Result<(), CallError> {
        self.client
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(ParameterType::String)
            .set_tags(Some(ssm_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("ssm:PutParameter", name))
    }

    pub(crate) async fn overwrite(&self, name: &str, value: &str) -> Result<(), CallError> {
        self.client
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(ParameterType::String)
            .overwrite(true)
            .send()
            .await
            .map(drop)
            .map_err(failed("ssm:PutParameter", name))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), CallError> {
        let reply = self.client.delete_parameter().name(name).send().await;
        gone(reply.map_err(failed("ssm:DeleteParameter", name)))
    }

    pub(crate) async fn tag(&self, name: &str, tags: &Tags) -> Result<(), CallError> {
        self.client
            .add_tags_to_resource()
            .resource_type(ResourceTypeForTagging::Parameter)
            .resource_id(name)
            .set_tags(Some(ssm_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(failed("ssm:AddTagsToResource", name))
    }
}

fn ssm_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
        .collect()
}
