//! The ECS front: operation names to the model's calls.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{request::ApiCall, unserved};
use crate::{
    api_error::ApiError,
    ecs::{CreateCapacityProvider, GroupFacts, RegisterTaskDefinition, UpdateCapacityProvider},
    world::State,
};

/// Serves a call.
///
/// # Errors
/// What ECS would refuse, calls beyond its limits first, and operations that are not served, by
/// name.
pub(super) fn serve(state: &mut State, call: &ApiCall, now: Timestamp) -> Result<Value, ApiError> {
    if let Err(refusal) = state.ecs_limits.take(&call.operation, now) {
        state
            .calls
            .count_refusal(&call.service, &call.operation, &call.caller);
        return Err(refusal);
    }
    let State {
        ecs, autoscaling, ..
    } = state;
    let facts = |group: Option<&str>| {
        let group = autoscaling.group(group?)?;
        Some(GroupFacts {
            name: group.name.clone(),
            arn: group.arn.clone(),
            protects_new_instances: group.protects_new_instances,
        })
    };
    match call.operation.as_str() {
        "CreateCluster" => ecs.create_cluster(read(call)?, now),
        "UpdateCluster" => ecs.update_cluster(read(call)?),
        "DescribeClusters" => Ok(ecs.describe_clusters(&read(call)?)),
        "ListClusters" => ecs.list_clusters(&read(call)?),
        "DeleteCluster" => ecs.delete_cluster(&read(call)?),

        "CreateCapacityProvider" => {
            let request: CreateCapacityProvider = read(call)?;
            let group = facts(request.group());
            ecs.create_capacity_provider(request, group.as_ref())
        }
        "UpdateCapacityProvider" => {
            let request: UpdateCapacityProvider = read(call)?;
            let group = facts(ecs.group_of_provider(request.name()));
            ecs.update_capacity_provider(request, group.as_ref())
        }
        "DescribeCapacityProviders" => ecs.describe_capacity_providers(&read(call)?),
        "DeleteCapacityProvider" => ecs.delete_capacity_provider(&read(call)?, now),
        "PutClusterCapacityProviders" => ecs.put_cluster_capacity_providers(read(call)?, now),

        "RegisterContainerInstance" => ecs.register_container_instance(read(call)?, now),
        "DeregisterContainerInstance" => ecs.deregister_container_instance(&read(call)?, now),
        "DescribeContainerInstances" => ecs.describe_container_instances(&read(call)?),
        "ListContainerInstances" => ecs.list_container_instances(&read(call)?),
        "UpdateContainerInstancesState" => ecs.update_container_instances_state(&read(call)?, now),
        "PutAttributes" => ecs.put_attributes(&read(call)?),
        "DeleteAttributes" => ecs.delete_attributes(&read(call)?),
        "ListAttributes" => ecs.list_attributes(&read(call)?),

        "RegisterTaskDefinition" => {
            let request = RegisterTaskDefinition::read(&call.body).map_err(unreadable(call))?;
            ecs.register_task_definition(request, now)
        }
        "DescribeTaskDefinition" => ecs.describe_task_definition(&read(call)?),
        "DeregisterTaskDefinition" => ecs.deregister_task_definition(&read(call)?),
        "ListTaskDefinitions" => ecs.list_task_definitions(&read(call)?),

        "RunTask" => ecs.run_task(&read(call)?, now),
        "StopTask" => ecs.stop_task(&read(call)?, now),
        "DescribeTasks" => ecs.describe_tasks(&read(call)?),
        "ListTasks" => ecs.list_tasks(&read(call)?),

        "CreateService" => ecs.create_service(read(call)?, now),
        "UpdateService" => ecs.update_service(read(call)?, now),
        "DescribeServices" => ecs.describe_services(&read(call)?),
        "ListServices" => ecs.list_services(&read(call)?),
        "DeleteService" => ecs.delete_service(&read(call)?, now),

        "TagResource" => ecs.tag_resource(&read(call)?),
        "UntagResource" => ecs.untag_resource(&read(call)?),
        "ListTagsForResource" => ecs.list_tags(&read(call)?),

        // Agents of the sandbox talk to `/_node/sync` instead: a name that resolves nowhere keeps
        // any other from going astray.
        "DiscoverPollEndpoint" => Ok(json!({
            "endpoint": "https://ecs-a.fleet-sandbox.invalid/",
            "telemetryEndpoint": "https://ecs-t.fleet-sandbox.invalid/",
        })),
        _ => Err(unserved(call)),
    }
}

fn read<T: DeserializeOwned>(call: &ApiCall) -> Result<T, ApiError> {
    let body: &[u8] = if call.body.is_empty() {
        b"{}"
    } else {
        &call.body
    };
    serde_json::from_slice(body).map_err(unreadable(call))
}

fn unreadable(call: &ApiCall) -> impl Fn(serde_json::Error) -> ApiError {
    let operation = call.operation.clone();
    move |e| {
        let message = format!("fleet-sandbox cannot read this {operation}: {e}");
        ApiError::new("InvalidParameterException", message)
    }
}
