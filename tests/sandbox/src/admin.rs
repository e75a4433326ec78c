//! The admin API under `/_sandbox/`, in JSON: what is played to the fleet, and a look at it. The
//! types are shared with [`crate::client`].

mod machine;

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    api_error::ApiError,
    autoscaling::requests::{SetDesiredCapacity, TerminateInstance},
    ecs::{InstanceStatus, RegisterTaskDefinition, RunTask, ServiceStatus, TaskStatus},
    faults::FaultRule,
    policy::Policy,
    world::{State, World},
};

pub use machine::{
    CancelMaintenance, Maintain, Power, PowerAction, Rebalance, SetImds, SetLifeCycle, SetTags,
    Spot,
};

/// What one RunTask starts at most.
const RUN_TASK_MAX: u32 = 10;

/// GET status.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Auto Scaling groups, by name.
    pub groups: Vec<GroupState>,
    /// ECS clusters that are not deleted, by name.
    pub clusters: Vec<ClusterState>,
    /// AMIs that were made of instances, and the KMS key that each is encrypted with.
    pub images: BTreeMap<String, Option<String>>,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupState {
    /// Name.
    pub name: String,
    /// Lower bound.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Wanted.
    pub desired: u32,
    /// Oldest first.
    pub instances: Vec<NodeState>,
}

/// An instance of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeState {
    /// EC2 instance id.
    pub instance_id: String,
    /// As in the Auto Scaling API.
    pub lifecycle_state: String,
    /// From scale-in.
    pub protected: bool,
    /// `running` or `stopped`, until it is gone.
    pub machine: Option<String>,
    /// Once its machine runs.
    pub address: Option<Ipv4Addr>,
    /// Access key of its credentials: its name in the counts of calls.
    pub access_key_id: Option<String>,
    /// `ACTIVE` or `DRAINING`, once it has registered with ECS.
    pub ecs_status: Option<String>,
    /// Whether its ECS agent is connected.
    pub ecs_connected: bool,
    /// Its attributes in ECS, AWS's own left out.
    pub attributes: BTreeMap<String, Option<String>>,
    /// Tasks on it that are not STOPPED.
    pub tasks: usize,
}

/// An ECS cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClusterState {
    /// Name.
    pub name: String,
    /// Tasks by `lastStatus`, stopped ones left out.
    pub tasks: BTreeMap<String, usize>,
    /// Services by name: tasks wanted.
    pub services: BTreeMap<String, u32>,
}

/// POST run-tasks: one service of one container, or tasks of no service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTasks {
    /// Cluster.
    pub cluster: String,
    /// Service and task definition family.
    pub service: String,
    /// Tasks.
    pub count: u32,
    /// Image, already in the nodes.
    pub image: String,
    /// Arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// CPU units; 0 if absent.
    pub cpu: Option<u32>,
    /// MiB; 32 if absent.
    pub memory: Option<u32>,
    /// RunTask: tasks of no service, which nobody replaces. `service` is their family.
    #[serde(default)]
    pub standalone: bool,
    /// `stopTimeout`, seconds; the ECS agent's own default if absent.
    pub stop_timeout: Option<u32>,
    /// Of the service's deployment configuration; 100 if absent.
    pub minimum_healthy_percent: Option<u32>,
    /// Of the service's deployment configuration; 200 if absent.
    pub maximum_percent: Option<u32>,
}

/// POST alarm.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Breach {
    /// CloudWatch alarm.
    pub alarm: String,
    /// What its metric has been at for as long as it asks.
    pub value: f64,
}

/// POST scale.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Auto Scaling group.
    pub group: String,
    /// Within its bounds.
    pub desired: u32,
}

/// POST terminate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terminate {
    /// EC2 instance id.
    pub instance: String,
    /// Whether it is not to be replaced.
    #[serde(default)]
    pub decrement: bool,
}

/// The answer to POST terminate: the scaling activity that began with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// The instance's metadata names its new target from then on.
    pub at: Timestamp,
    /// What.
    pub description: String,
}

/// POST images.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterImage {
    /// Name of the AMI.
    pub name: String,
}

/// The answer to POST images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// AMI id.
    pub image_id: String,
}

/// POST allow: what the caller with an access key may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// Any key but an instance's, which has a role.
    pub access_key_id: String,
    /// An IAM policy document; everything if absent.
    pub policy: Option<Value>,
}

/// GET network: what there is to adopt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Network {
    /// The default VPC.
    pub vpc_id: String,
    /// Its subnets, each in a zone of its own.
    pub subnet_ids: Vec<String>,
}

pub(crate) async fn answer(
    world: &World,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Response<Body> {
    if let (&Method::GET, Some(name)) = (method, path.strip_prefix("files/")) {
        return file(world.options().files.as_deref(), name).await;
    }
    match serve(world, method, path, body).await {
        Ok(value) => respond(StatusCode::OK, &value),
        Err(Refusal(status, message)) => respond(status, &json!({ "error": message })),
    }
}

/// A refusal: status and text.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.status);
        Self(status.unwrap_or(StatusCode::BAD_REQUEST), error.to_string())
    }
}

async fn serve(world: &World, method: &Method, path: &str, body: &[u8]) -> Result<Value, Refusal> {
    if method == Method::POST
        && let Some(answer) = machine::serve(world, path, body).await
    {
        return answer;
    }
    match (method.as_str(), path) {
        ("GET", "status") => Ok(json!(world.look(status))),
        ("GET", "calls") => Ok(json!(world.look(|state| state.calls.list()))),
        ("POST", "calls/reset") => {
            world.count(|state| state.calls = crate::calls::Calls::default());
            Ok(json!({}))
        }
        ("GET", "faults") => Ok(json!(world.look(|state| state.faults.list().to_vec()))),
        ("POST", "faults") => {
            let rules: Vec<FaultRule> = read(body)?;
            // Announced: whoever is held goes on.
            world.change(|state, _| state.faults.replace(rules));
            Ok(json!({}))
        }
        ("GET", "held") => Ok(world.look(|state| json!(state.faults.held()))),
        ("POST", "run-tasks") => run_tasks(world, &read(body)?),
        ("POST", "scale") => {
            let Scale { group, desired } = read(body)?;
            let request = SetDesiredCapacity {
                auto_scaling_group_name: group,
                desired_capacity: desired,
                honor_cooldown: None,
            };
            world.change(|state, now| state.autoscaling.set_desired_capacity(request, now))?;
            Ok(json!({}))
        }
        ("POST", "alarm") => {
            let Breach { alarm, value } = read(body)?;
            world.change(|state, now| {
                let breach = state.cloudwatch.breach(&alarm, value)?;
                breach.actions.iter().try_for_each(|policy| {
                    let autoscaling = &mut state.autoscaling;
                    autoscaling.scale_by_step(policy, breach.distance, now)
                })
            })?;
            Ok(json!({}))
        }
        ("POST", "terminate") => {
            let Terminate {
                instance,
                decrement,
            } = read(body)?;
            let request = TerminateInstance {
                instance_id: instance,
                should_decrement_desired_capacity: decrement,
            };
            let activity =
                world.change(|state, now| state.autoscaling.terminate_instance(&request, now))?;
            Ok(json!(Begun {
                at: activity.start_time,
                description: activity.description,
            }))
        }
        ("GET", "network") => {
            let vpc_id = world.moto().default_vpc().await?;
            let mut subnets = world.moto().subnets().await?;
            subnets.retain(|subnet| subnet.vpc_id == vpc_id);
            subnets.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
            let subnet_ids = subnets.into_iter().map(|s| s.subnet_id).collect();
            Ok(json!(Network { vpc_id, subnet_ids }))
        }
        ("POST", "images") => {
            let RegisterImage { name } = read(body)?;
            let image_id = world.moto().register_image(&name).await?;
            Ok(json!(Image { image_id }))
        }
        ("POST", "allow") => {
            let asked: Allow = read(body)?;
            let policy = asked.policy.as_ref().map(Policy::read).transpose();
            let policy = policy.map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))?;
            world.count(|state| {
                let key = asked.access_key_id;
                if let Some(machine) = state.machines.of_access_key(&key) {
                    let message = format!(
                        "{key} is of instance {}: its role says what it may do",
                        machine.instance_id
                    );
                    return Err(Refusal(StatusCode::BAD_REQUEST, message));
                }
                match policy {
                    Some(policy) => state.grants.limit(key, policy),
                    None => state.grants.lift(&key),
                }
                Ok(json!({}))
            })
        }
        _ => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("fleet-sandbox has no {method} /_sandbox/{path}"),
        )),
    }
}

fn run_tasks(world: &World, asked: &RunTasks) -> Result<Value, Refusal> {
    let percents = [asked.minimum_healthy_percent, asked.maximum_percent];
    if asked.standalone && percents.iter().any(Option::is_some) {
        let message = "standalone tasks have no deployment, hence no percentages".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let mut container = json!({
        "name": asked.service,
        "image": asked.image,
        "command": asked.command,
        "cpu": asked.cpu.unwrap_or(0),
        "memory": asked.memory.unwrap_or(32),
        "essential": true,
    });
    if let Some(seconds) = asked.stop_timeout {
        container["stopTimeout"] = json!(seconds);
    }
    let definition = json!({ "family": asked.service, "containerDefinitions": [container] });
    let definition = RegisterTaskDefinition::read(definition.to_string().as_bytes());
    let definition = definition.map_err(|e| bad_request(&e))?;
    world.change(|state, now| {
        let registered = state.ecs.register_task_definition(definition, now)?;
        let definition = &registered["taskDefinition"]["taskDefinitionArn"];
        if asked.standalone {
            start_standalone(state, asked, definition, now)
        } else {
            keep_service(state, asked, definition, now)
        }
    })
}

/// RunTask, as often as its own bound makes it necessary.
fn start_standalone(
    state: &mut State,
    asked: &RunTasks,
    definition: &Value,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let mut left = asked.count;
    while left > 0 {
        let count = left.min(RUN_TASK_MAX);
        let run = json!({
            "cluster": asked.cluster,
            "taskDefinition": definition,
            "count": count,
        });
        let run: RunTask = serde_json::from_value(run).map_err(|e| bad_request(&e))?;
        let ran = state.ecs.run_task(&run, now)?;
        if let Some(failure) = ran["failures"].as_array().and_then(|f| f.first()) {
            let message = format!("RunTask found no place for a task: {failure}");
            return Err(Refusal(StatusCode::CONFLICT, message));
        }
        left -= count;
    }
    Ok(json!({}))
}

/// CreateService, or UpdateService if there is such a service.
fn keep_service(
    state: &mut State,
    asked: &RunTasks,
    definition: &Value,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let mut service = json!({
        "cluster": asked.cluster,
        "taskDefinition": definition,
        "desiredCount": asked.count,
    });
    for (key, percent) in [
        ("minimumHealthyPercent", asked.minimum_healthy_percent),
        ("maximumPercent", asked.maximum_percent),
    ] {
        if let Some(percent) = percent {
            service["deploymentConfiguration"][key] = json!(percent);
        }
    }
    let exists = state.ecs.clusters().any(|cluster| {
        let service = cluster.services.get(&asked.service);
        cluster.name == asked.cluster && service.is_some_and(|s| s.status == ServiceStatus::Active)
    });
    if exists {
        service["service"] = json!(asked.service);
        let update = serde_json::from_value(service).map_err(|e| bad_request(&e))?;
        Ok(state.ecs.update_service(update, now)?)
    } else {
        service["serviceName"] = json!(asked.service);
        let create = serde_json::from_value(service).map_err(|e| bad_request(&e))?;
        Ok(state.ecs.create_service(create, now)?)
    }
}

fn status(state: &State) -> Status {
    let groups = state.autoscaling.groups().map(|group| GroupState {
        name: group.name.clone(),
        min: group.min,
        max: group.max,
        desired: group.desired,
        instances: group
            .instances
            .iter()
            .map(|instance| node_state(state, instance))
            .collect(),
    });
    let clusters = state.ecs.clusters().filter(|cluster| cluster.active);
    let clusters = clusters.map(|cluster| {
        let mut tasks = BTreeMap::new();
        for task in cluster.tasks.values() {
            if task.last_status != TaskStatus::Stopped {
                let status = task.last_status.as_str().to_owned();
                *tasks.entry(status).or_default() += 1;
            }
        }
        let services = cluster.services.values();
        let services = services.filter(|s| s.status == ServiceStatus::Active);
        ClusterState {
            name: cluster.name.clone(),
            tasks,
            services: services.map(|s| (s.name.clone(), s.desired)).collect(),
        }
    });
    Status {
        groups: groups.collect(),
        clusters: clusters.collect(),
        images: state.images.clone(),
    }
}

fn node_state(state: &State, instance: &crate::autoscaling::Instance) -> NodeState {
    let machine = state.machines.get(&instance.id);
    let registered = state.ecs.clusters().find_map(|cluster| {
        let found = cluster
            .instances
            .values()
            .find(|i| i.ec2_instance_id == instance.id && i.status != InstanceStatus::Inactive)?;
        Some((cluster, found))
    });
    let tasks = registered.map_or(0, |(cluster, found)| {
        let here = cluster
            .tasks
            .values()
            .filter(|t| t.instance_arn == found.arn);
        here.filter(|t| t.last_status != TaskStatus::Stopped)
            .count()
    });
    NodeState {
        instance_id: instance.id.clone(),
        lifecycle_state: instance.state.as_str().to_owned(),
        protected: instance.protected,
        machine: machine.map(|m| {
            let stopped = m.circumstances.stopped;
            if stopped { "stopped" } else { "running" }.to_owned()
        }),
        address: machine.and_then(|m| m.address),
        access_key_id: machine.map(crate::world::Machine::access_key_id),
        ecs_status: registered.map(|(_, found)| found.status.as_str().to_owned()),
        ecs_connected: registered.is_some_and(|(_, found)| found.connected),
        attributes: registered
            .into_iter()
            .flat_map(|(_, found)| found.attributes.clone())
            .filter(|(name, _)| !name.starts_with("ecs.") && !name.starts_with("com.amazonaws."))
            .collect(),
        tasks,
    }
}

/// A file of the served directory; only its own, none above or below.
async fn file(directory: Option<&Path>, name: &str) -> Response<Body> {
    let plain = !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
    let content = match directory {
        Some(directory) if plain => tokio::fs::read(directory.join(name)).await.ok(),
        _ => None,
    };
    match content {
        Some(content) => {
            let mut response = Response::new(Body::from(content));
            let binary = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, binary);
            response
        }
        None => respond(
            StatusCode::NOT_FOUND,
            &json!({ "error": format!("there is no file '{name}' to serve") }),
        ),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|e| bad_request(&e))
}

fn bad_request(error: &serde_json::Error) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.to_string())
}

fn respond(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
