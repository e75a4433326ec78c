//! The Auto Scaling front: operation names to the model's calls.

use jiff::Timestamp;

use super::{form, reply::Reply, request::ApiCall};
use crate::{
    api_error::ApiError,
    autoscaling::{MovementReply, Subnet, TemplateSpec, TerminationReply, requests::GroupRequest},
    gateway::unserved,
    world::{State, World},
};

/// Serves a call.
///
/// # Errors
/// What Auto Scaling would refuse, and operations that are not served, by name.
pub(super) async fn serve(
    world: &World,
    call: &ApiCall,
    request_id: &str,
) -> Result<Reply, ApiError> {
    let operation = call.operation.as_str();
    match operation {
        "CreateAutoScalingGroup" => {
            let mut request: GroupRequest = read(call)?;
            complete_templates(world, &mut request).await?;
            let subnets = subnets(world, &request).await?.unwrap_or_default();
            world.change(|state, now| state.autoscaling.create_group(request, subnets, now))?;
            Ok(Reply::query_void(operation, request_id))
        }
        "UpdateAutoScalingGroup" => {
            let mut request: GroupRequest = read(call)?;
            complete_templates(world, &mut request).await?;
            let subnets = subnets(world, &request).await?;
            world.change(|state, now| state.autoscaling.update_group(request, subnets, now))?;
            Ok(Reply::query_void(operation, request_id))
        }
        _ => world.change(|state, now| serve_at_once(state, call, request_id, now)),
    }
}

fn serve_at_once(
    state: &mut State,
    call: &ApiCall,
    request_id: &str,
    now: Timestamp,
) -> Result<Reply, ApiError> {
    let operation = call.operation.as_str();
    let model = &mut state.autoscaling;
    let done = match operation {
        "DescribeAutoScalingGroups" => {
            return Reply::query(operation, request_id, &model.describe_groups(&read(call)?)?);
        }
        "DescribeAutoScalingInstances" => {
            return Reply::query(
                operation,
                request_id,
                &model.describe_instances(&read(call)?)?,
            );
        }
        "DescribeScalingActivities" => {
            return Reply::query(
                operation,
                request_id,
                &model.describe_activities(&read(call)?)?,
            );
        }
        "DescribeLifecycleHooks" => {
            return Reply::query(operation, request_id, &model.describe_hooks(&read(call)?)?);
        }
        "DescribeAccountLimits" => {
            return Reply::query(operation, request_id, &model.account_limits());
        }
        "DescribeTags" => {
            return Reply::query(operation, request_id, &model.describe_tags(&read(call)?)?);
        }
        "DescribePolicies" => {
            return Reply::query(
                operation,
                request_id,
                &model.describe_policies(&read(call)?)?,
            );
        }
        "DescribeWarmPool" => {
            return Reply::query(
                operation,
                request_id,
                &model.describe_warm_pool(&read(call)?)?,
            );
        }
        "DescribeScheduledActions" => {
            return Reply::query(
                operation,
                request_id,
                &model.describe_schedules(&read(call)?)?,
            );
        }
        "PutScalingPolicy" => {
            return Reply::query(operation, request_id, &model.put_policy(read(call)?)?);
        }
        "EnterStandby" => {
            let activities = model.enter_standby(&read(call)?, now)?;
            return Reply::query(operation, request_id, &MovementReply { activities });
        }
        "ExitStandby" => {
            let activities = model.exit_standby(&read(call)?, now)?;
            return Reply::query(operation, request_id, &MovementReply { activities });
        }
        "DetachInstances" => {
            let activities = model.detach_instances(&read(call)?, now)?;
            return Reply::query(operation, request_id, &MovementReply { activities });
        }
        "TerminateInstanceInAutoScalingGroup" => {
            let activity = model.terminate_instance(&read(call)?, now)?;
            return Reply::query(operation, request_id, &TerminationReply { activity });
        }
        "DeleteAutoScalingGroup" => model.delete_group(read(call)?, now),
        "SetDesiredCapacity" => model.set_desired_capacity(read(call)?, now),
        "EnableMetricsCollection" => model.enable_metrics(&read(call)?),
        "DisableMetricsCollection" => model.disable_metrics(&read(call)?),
        "CreateOrUpdateTags" => model.create_or_update_tags(&read(call)?),
        "DeletePolicy" => model.delete_policy(&read(call)?),
        "DeleteTags" => model.delete_tags(&read(call)?),
        "PutLifecycleHook" => model.put_hook(&read(call)?),
        "DeleteLifecycleHook" => model.delete_hook(&read(call)?, now),
        "CompleteLifecycleAction" => model.complete_lifecycle_action(&read(call)?, now),
        "RecordLifecycleActionHeartbeat" => model.record_heartbeat(&read(call)?, now),
        "SetInstanceHealth" => model.set_instance_health(&read(call)?, now),
        "PutWarmPool" => model.put_warm_pool(&read(call)?, now),
        "DeleteWarmPool" => model.delete_warm_pool(&read(call)?, now),
        "PutScheduledUpdateGroupAction" => model.put_schedule(read(call)?),
        "DeleteScheduledAction" => model.delete_schedule(&read(call)?),
        "SetInstanceProtection" => model.set_instance_protection(&read(call)?, now),
        _ => Err(unserved(call)),
    };
    done.map(|()| Reply::query_void(operation, request_id))
}

fn read<T: serde::de::DeserializeOwned>(call: &ApiCall) -> Result<T, ApiError> {
    form::read(&call.body).map_err(|e| {
        let message = format!("fleet-sandbox cannot read this {}: {e}", call.operation);
        ApiError::new("ValidationError", message)
    })
}

/// Gives the templates of a request both id and name, as AWS shows them, and refuses unknown ones.
async fn complete_templates(world: &World, request: &mut GroupRequest) -> Result<(), ApiError> {
    let mixed = request.mixed_instances_policy.as_mut();
    let mixed = mixed.map(|policy| &mut policy.launch_template.launch_template_specification);
    for spec in request.launch_template.as_mut().into_iter().chain(mixed) {
        let found = world.moto().template(spec).await.map_err(|e| {
            ApiError::new(
                "ValidationError",
                format!(
                    "You must use a valid fully-formed launch template. {}",
                    e.message
                ),
            )
        })?;
        *spec = TemplateSpec {
            launch_template_id: Some(found.launch_template_id),
            launch_template_name: Some(found.launch_template_name),
            version: spec.version.take().or(Some("$Default".to_owned())),
        };
    }
    Ok(())
}

/// The request's subnets with their zones; `None` if it names none.
async fn subnets(world: &World, request: &GroupRequest) -> Result<Option<Vec<Subnet>>, ApiError> {
    let Some(ids) = &request.vpc_zone_identifier else {
        return Ok(None);
    };
    let known = world.moto().subnets().await?;
    let ids = ids.split(',').map(str::trim).filter(|id| !id.is_empty());
    let subnets = ids.map(|id| {
        let found = known.iter().find(|subnet| subnet.subnet_id == id);
        let found = found.ok_or_else(|| {
            let message = format!("The subnet ID '{id}' does not exist");
            ApiError::new("ValidationError", message)
        })?;
        Ok(Subnet {
            id: id.to_owned(),
            availability_zone: found.availability_zone.clone(),
        })
    });
    subnets.collect::<Result<_, ApiError>>().map(Some)
}
