//! EC2 GetConsoleOutput, answered by the machine room.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use tokio::{sync::oneshot, time::timeout};

use super::{form, reply::Reply, request::ApiCall};
use crate::{api_error::ApiError, machines::MachineCommand, world::World};

/// The machine room reads a container's log: fast, unless Docker hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// What EC2 keeps of a console.
const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// Serves GetConsoleOutput. `Latest` makes no difference: the console is always the latest.
///
/// # Errors
/// `InvalidInstanceID.NotFound`, `InternalError` if the machine room does not answer.
pub(super) async fn serve(
    world: &World,
    call: &ApiCall,
    request_id: &str,
) -> Result<Reply, ApiError> {
    let instance_id = form::parameter(&call.body, "InstanceId").unwrap_or_default();
    let (sender, receiver) = oneshot::channel();
    world.command(MachineCommand::Console {
        instance_id: instance_id.clone(),
        reply: sender,
    });
    let Ok(Ok(text)) = timeout(PATIENCE, receiver).await else {
        let message = format!("the machine room does not answer for {instance_id}");
        return Err(ApiError::new("InternalError", message).with_status(500));
    };
    let Some(text) = text else {
        let message = format!("The instance ID '{instance_id}' does not exist");
        return Err(ApiError::new("InvalidInstanceID.NotFound", message));
    };
    let bytes = text.as_bytes();
    let tail = &bytes[bytes.len().saturating_sub(OUTPUT_MAX_BYTES)..];
    let now: Timestamp = world.now();
    Ok(Reply::xml(
        200,
        format!(
            "<GetConsoleOutputResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>{request_id}</requestId><instanceId>{instance_id}</instanceId>\
             <timestamp>{now}</timestamp><output>{}</output></GetConsoleOutputResponse>",
            BASE64_STANDARD.encode(tail)
        ),
    ))
}
