//! The CloudWatch front: operation names to the model's calls.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{request::ApiCall, unserved};
use crate::{api_error::ApiError, cloudwatch::Model};

/// Serves a call.
///
/// # Errors
/// What CloudWatch would refuse, and operations that are not served, by name.
pub(super) fn serve(model: &mut Model, call: &ApiCall) -> Result<Value, ApiError> {
    match call.operation.as_str() {
        "PutMetricAlarm" => model.put_metric_alarm(read(call)?),
        "DescribeAlarms" => Ok(model.describe_alarms(&read(call)?)),
        "DeleteAlarms" => model.delete_alarms(&read(call)?),
        "TagResource" => model.tag_resource(&read(call)?),
        "ListTagsForResource" => model.list_tags(&read(call)?),
        _ => Err(unserved(call)),
    }
}

fn read<T: DeserializeOwned>(call: &ApiCall) -> Result<T, ApiError> {
    serde_json::from_slice(&call.body).map_err(|e| {
        let message = format!("fleet-sandbox cannot read this {}: {e}", call.operation);
        ApiError::new("ValidationError", message)
    })
}
