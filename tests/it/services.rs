//! What the agent does for a node beside leaving it well, on real nodes with real faults.

mod disk;
mod docker;
mod ecs_config;
mod live;
mod metadata;
mod replacement;
mod sidecars;

use anyhow::Result;
use fleet_tests::{Sandbox, eventually};

/// What ECS has as an attribute of a node.
fn attribute(sandbox: &Sandbox, node: &str, name: &str) -> Result<Option<String>> {
    let told = sandbox.instance(node)?;
    Ok(told["attributes"][name].as_str().map(str::to_owned))
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
