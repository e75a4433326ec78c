//! The part of Systems Manager that moto lacks: the inventory.

use serde::de::DeserializeOwned;

use super::{reply::Reply, request::ApiCall, unserved};
use crate::{api_error::ApiError, world::World};

/// Serves a call.
///
/// # Errors
/// What Systems Manager would refuse, and operations that are not served, by name.
pub(super) fn serve(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let served = match call.operation.as_str() {
        "PutInventory" => {
            let request = read(call)?;
            world.change(|state, _| {
                let machines = &state.machines;
                let is_managed = |instance: &str| machines.get(instance).is_some();
                state.inventory.put(request, is_managed)
            })?
        }
        "ListInventoryEntries" => {
            let request = read(call)?;
            world.look(|state| state.inventory.list(&request))
        }
        _ => return Err(unserved(call)),
    };
    Ok(Reply::json(served))
}

fn read<T: DeserializeOwned>(call: &ApiCall) -> Result<T, ApiError> {
    serde_json::from_slice(&call.body).map_err(|error| {
        let operation = &call.operation;
        let message = format!("fleet-sandbox cannot read this {operation}: {error}");
        ApiError::new("ValidationException", message)
    })
}
