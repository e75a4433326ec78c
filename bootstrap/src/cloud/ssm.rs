//! Parameters: the groups' live settings, and the public ones that name images.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use aws_sdk_ssm::{
    Client,
    config::Builder,
    error::BuildError,
    types::{ParameterStringFilter, ParameterType, ResourceTypeForTagging, Tag},
};

use super::error::{CallError, failed, found, gone};
use crate::inventory::Tags;

/// Names a GetParameters call takes.
const BATCH: usize = 10;
/// Values that a filter of DescribeParameters takes.
const FILTER_VALUES: usize = 50;

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

    /// Those of these parameters that have all of these tags, each with one of its values.
    pub(crate) async fn tagged(
        &self,
        names: &[&str],
        tags: &BTreeMap<&str, BTreeSet<&str>>,
    ) -> Result<BTreeSet<String>, CallError> {
        const CALL: &str = "ssm:DescribeParameters";
        let mut found = BTreeSet::new();
        for batch in names.chunks(FILTER_VALUES) {
            let tags = tags.iter();
            let tags = tags.map(|(key, values)| filter(&format!("tag:{key}"), values.iter()));
            let filters = iter::once(filter("Name", batch.iter())).chain(tags);
            let filters = filters.collect::<Result<Vec<_>, _>>();
            let filters = filters.map_err(|_| CallError::malformed(CALL, "filter", "key"))?;
            let request = self.client.describe_parameters();
            let mut pages = request
                .set_parameter_filters(Some(filters))
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(failed(CALL, "account"))?;
                let parameters = page.parameters.unwrap_or_default();
                found.extend(parameters.into_iter().filter_map(|found| found.name));
            }
        }
        Ok(found)
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

fn filter<'a>(
    key: &str,
    values: impl Iterator<Item = &'a &'a str>,
) -> Result<ParameterStringFilter, BuildError> {
    let filter = ParameterStringFilter::builder().key(key).option("Equals");
    let values = values.map(ToString::to_string).collect();
    filter.set_values(Some(values)).build()
}

fn ssm_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .filter_map(|(key, value)| Tag::builder().key(key).value(value).build().ok())
        .collect()
}
