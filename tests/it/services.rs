//! What the agent does for a node beside leaving it well, on real nodes with real faults.

mod disk;
mod docker;
mod ecs_config;
mod metadata;

use anyhow::Result;
use fleet_tests::{Sandbox, eventually};
use serde_json::json;

/// What ECS has as an attribute of a node.
fn attribute(sandbox: &Sandbox, node: &str, name: &str) -> Result<Option<String>> {
    let told = sandbox.on(node, "fleet-agent status --json")?;
    let Ok(told) = told.json() else {
        return Ok(None);
    };
    let asked = json!({
        "cluster": told["cluster"],
        "targetType": "container-instance",
        "attributeName": name,
    });
    let listed = sandbox.aws("ecs", "list_attributes", &asked)?;
    let listed = listed["attributes"].as_array().cloned().unwrap_or_default();
    let ours = listed
        .iter()
        .find(|attribute| attribute["targetId"] == told["container_instance"]);
    Ok(ours.and_then(|attribute| attribute["value"].as_str().map(str::to_owned)))
}

/// Waits until ECS has this value.
fn await_attribute(
    sandbox: &Sandbox,
    node: &str,
    name: &str,
    value: &str,
    seconds: u64,
) -> Result<()> {
    eventually(&format!("{name} of {node} to be {value}"), seconds, || {
        let found = attribute(sandbox, node, name)?;
        Ok((found.as_deref() == Some(value)).then_some(()))
    })
}
