//! What instances have said of themselves in Systems Manager's inventory. Pure.
//!
//! Rules: "PutInventory", "ListInventoryEntries" and "InventoryItem" of its API reference. moto has none
//! of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api_error::ApiError;

const ITEMS_MAX: usize = 30;
const ATTRIBUTES_MAX: usize = 50;
const NAME_MAX: usize = 64;
const VALUE_MAX: usize = 4_096;

/// PutInventory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct PutInventory {
    instance_id: String,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Item {
    type_name: String,
    schema_version: String,
    capture_time: String,
    content: Vec<BTreeMap<String, String>>,
}

/// ListInventoryEntries, without filters.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ListInventoryEntries {
    instance_id: String,
    type_name: String,
}

/// By instance and type.
#[derive(Debug, Default)]
pub(crate) struct Inventory(BTreeMap<(String, String), Item>);

impl Inventory {
    /// PutInventory. Entries of a type replace those before.
    ///
    /// # Errors
    /// `InvalidInstanceId` of an instance that Systems Manager does not manage; `ValidationException`
    /// of what is not as it has to be.
    pub(crate) fn put(
        &mut self,
        request: PutInventory,
        is_managed: impl Fn(&str) -> bool,
    ) -> Result<Value, ApiError> {
        if !is_managed(&request.instance_id) {
            return Err(unmanaged(&request.instance_id));
        }
        if !(1..=ITEMS_MAX).contains(&request.items.len()) {
            let count = request.items.len();
            return Err(invalid(format!("{count} items are not 1 to {ITEMS_MAX}")));
        }
        for item in &request.items {
            item.check()?;
        }
        for item in request.items {
            let key = (request.instance_id.clone(), item.type_name.clone());
            self.0.insert(key, item);
        }
        Ok(json!({}))
    }

    /// ListInventoryEntries. Of an instance that is gone, what it said last.
    pub(crate) fn list(&self, request: &ListInventoryEntries) -> Value {
        let key = (request.instance_id.clone(), request.type_name.clone());
        let item = self.0.get(&key);
        json!({
            "TypeName": request.type_name,
            "InstanceId": request.instance_id,
            "SchemaVersion": item.map(|item| &item.schema_version),
            "CaptureTime": item.map(|item| &item.capture_time),
            "Entries": item.map_or(&[][..], |item| &item.content),
        })
    }
}

impl Item {
    fn check(&self) -> Result<(), ApiError> {
        let name = self.type_name.strip_prefix("Custom:").unwrap_or_default();
        let is_named = !name.is_empty() && self.type_name.len() <= 100;
        if !is_named || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let message = format!("{} is no type that fleet-sandbox serves", self.type_name);
            return Err(invalid(message));
        }
        let is_time = self.capture_time.len() == 20 && self.capture_time.ends_with('Z');
        if !is_time || self.capture_time.parse::<Timestamp>().is_err() {
            return Err(invalid(format!("CaptureTime {}", self.capture_time)));
        }
        for entry in &self.content {
            if entry.len() > ATTRIBUTES_MAX {
                return Err(invalid(format!("{} attributes", entry.len())));
            }
            for (name, value) in entry {
                let is_long = value.chars().count() > VALUE_MAX;
                if name.is_empty() || name.len() > NAME_MAX || is_long {
                    return Err(invalid(format!("attribute {name}")));
                }
            }
        }
        Ok(())
    }
}

fn invalid(what: String) -> ApiError {
    ApiError::new("ValidationException", what)
}

fn unmanaged(instance: &str) -> ApiError {
    ApiError::new(
        "InvalidInstanceId",
        format!("{instance} is not managed by Systems Manager"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inventory: &mut Inventory, instance: &str, item: Value) -> Result<Value, ApiError> {
        let request = json!({ "InstanceId": instance, "Items": [item] });
        let request = serde_json::from_value(request).expect("a request");
        inventory.put(request, |id| id == "i-1")
    }

    fn item(health: &str) -> Value {
        json!({
            "TypeName": "Custom:FleetNode",
            "SchemaVersion": "1.0",
            "CaptureTime": "2026-01-02T03:04:05Z",
            "Content": [{ "Health": health }],
        })
    }

    #[test]
    fn the_last_word_of_an_instance_is_kept() {
        let mut inventory = Inventory::default();
        for health in ["ok", "impaired"] {
            put(&mut inventory, "i-1", item(health)).expect("taken");
        }
        let request = json!({ "InstanceId": "i-1", "TypeName": "Custom:FleetNode" });
        let request = serde_json::from_value(request).expect("a request");
        let told = inventory.list(&request);
        assert_eq!(told["Entries"], json!([{ "Health": "impaired" }]));
    }

    #[test]
    fn what_aws_would_refuse_is_refused() {
        let mut inventory = Inventory::default();
        let unmanaged = put(&mut inventory, "i-2", item("ok"));
        assert_eq!(unmanaged.expect_err("unknown").code, "InvalidInstanceId");
        for (field, value) in [
            ("TypeName", json!("FleetNode")),
            ("CaptureTime", json!("2026-01-02 03:04:05")),
            ("CaptureTime", json!("2026-01-02T03:04:05.123Z")),
            ("Content", json!([{ "Detail": "x".repeat(4_097) }])),
        ] {
            let mut item = item("ok");
            item[field] = value;
            let refused = put(&mut inventory, "i-1", item);
            assert_eq!(refused.expect_err(field).code, "ValidationException");
        }
    }
}
