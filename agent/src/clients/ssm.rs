//! Systems Manager: parameters, and the inventory.

use anyhow::{Context as _, Result};
use aws_sdk_ssm::types::InventoryItem;
use jiff::Timestamp;

use super::aws::{Aws, explain};
use crate::inventory::Record;

/// Type of the one inventory item of a node.
const TYPE: &str = "Custom:FleetNode";
/// Of its content: rises when a name means something else.
const SCHEMA: &str = "1.0";

pub(crate) trait Ssm {
    /// A parameter's value, decrypted.
    async fn parameter(&self, name: &str) -> Result<String>;
    /// Replaces what the inventory says of an instance.
    async fn put_inventory(&self, record: &Record, captured: Timestamp) -> Result<()>;
}

impl Ssm for Aws {
    async fn parameter(&self, name: &str) -> Result<String> {
        let asked = self.ssm().await.get_parameter();
        let asked = asked.name(name).with_decryption(true).send().await;
        let found = asked.map_err(|error| explain("ssm:GetParameter", name, &error))?;
        let value = found.parameter.and_then(|parameter| parameter.value);
        value.with_context(|| format!("ssm:GetParameter of {name}: no value in the reply"))
    }

    async fn put_inventory(&self, record: &Record, captured: Timestamp) -> Result<()> {
        let named = record.content.iter();
        let content = named.map(|(name, value)| ((*name).to_owned(), value.clone()));
        let item = InventoryItem::builder()
            .type_name(TYPE)
            .schema_version(SCHEMA)
            .capture_time(captured.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .content(content.collect())
            .build()?;
        let put = self.ssm().await.put_inventory();
        let put = put.instance_id(&record.instance).items(item).send().await;
        put.map(drop)
            .map_err(|error| explain("ssm:PutInventory", &record.instance, &error))
    }
}
