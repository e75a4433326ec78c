//! What every story stands on: its runtime and settings. And a world that is measured: nothing goes
//! wrong in it, every call takes its time, and the account's limits hold.

use std::{cell::RefCell, rc::Rc, time::Duration};

use fleet_agent_config::Settings;
use fleet_sandbox::{
    autoscaling::{LifecycleState, requests},
    ecs::{InstanceStatus, RegisterTaskDefinition},
};
use serde_json::json;
use tokio::{runtime::Builder, task::LocalSet, time::sleep};

use super::{
    account::Account,
    agents::Shared,
    node::{Node, Power},
    scenario,
    world::{CLUSTER, World},
};

/// IMDS names the target before Auto Scaling opens the action.
const IMDS_LEAD_MS: i64 = 2_000;

/// Runs a story in tokio's paused time.
pub(super) fn tell<T>(story: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let local = LocalSet::new();
    runtime.block_on(local.run_until(story))
}

/// A cluster and a group of so many nodes, which are being launched.
pub(super) fn world(
    seed: u64,
    account: &Rc<RefCell<Account>>,
    group: &str,
    nodes: u32,
    agents_launch: bool,
) -> World {
    let mut world = World::new(seed, settings("", ""), IMDS_LEAD_MS, false);
    world.account = Some(account.clone());
    world.is_fair = true;
    let now = world.now();
    let cluster = serde_json::from_value(json!({ "clusterName": CLUSTER })).unwrap();
    world.ecs.create_cluster(cluster, now).unwrap();
    let definition = json!({
        "family": "app",
        "containerDefinitions": [{ "name": "main", "image": "x", "memory": 128 }],
    });
    let definition = RegisterTaskDefinition::read(definition.to_string().as_bytes()).unwrap();
    world.ecs.register_task_definition(definition, now).unwrap();
    scenario::create_group(&mut world, group, nodes);
    if !agents_launch {
        let hook = requests::DeleteHook {
            lifecycle_hook_name: "fleet-launch".into(),
            auto_scaling_group_name: group.into(),
        };
        world.autoscaling.delete_hook(&hook, now).unwrap();
    }
    world.settle();
    world
}

/// As its agents see it.
pub(super) fn share(world: World) -> Shared {
    Rc::new(RefCell::new(world))
}

/// Until then, or until `each`, called after every step, says that it is over.
pub(super) async fn go_on(
    world: &Shared,
    until: u64,
    step: Duration,
    mut each: impl FnMut(&mut World, u64) -> bool,
) {
    loop {
        let due = world.borrow_mut().step();
        for step in due {
            scenario::perform(world, step);
        }
        let now = world.borrow().millis();
        let is_over = each(&mut world.borrow_mut(), now);
        if is_over || now >= until {
            return;
        }
        sleep(step).await;
    }
}

/// Tasks come once nodes are there: else the first few would get them all.
pub(super) fn run_tasks(world: &mut World, tasks: u32) {
    let now = world.now();
    let service = json!({
        "cluster": CLUSTER,
        "serviceName": "app",
        "taskDefinition": "app",
        "desiredCount": tasks,
        "deploymentConfiguration": { "minimumHealthyPercent": 100, "maximumPercent": 200 },
    });
    let service = serde_json::from_value(service).unwrap();
    world.ecs.create_service(service, now).unwrap();
}

/// Auto Scaling takes a node away, and none comes in its place.
pub(super) fn terminate(world: &mut World, node: usize) {
    let now = world.now();
    let request = requests::TerminateInstance {
        instance_id: world.nodes[node].instance.clone(),
        should_decrement_desired_capacity: true,
    };
    world.autoscaling.terminate_instance(&request, now).unwrap();
    world.settle();
}

/// Nodes in service that run tasks.
pub(super) fn working(world: &World) -> Vec<usize> {
    let works = |(index, node): &(usize, &Node)| {
        let known = world.autoscaling.instance(&node.instance);
        let state = known.map(|(_, known)| known.state);
        node.power == Power::On
            && state == Some(LifecycleState::InService)
            && world.instance_status(*index) == Some(InstanceStatus::Active)
            && !node.containers.is_empty()
    };
    let nodes = world.nodes.iter().enumerate().filter(works);
    nodes.map(|(index, _)| index).collect()
}

/// The ECS agent and Docker know of no task.
pub(super) fn is_empty(node: &Node) -> bool {
    node.containers.is_empty() && node.ecs.tasks.is_empty()
}

/// Of a group with two sidecars, and what else is said of its hooks and of all the rest.
pub(super) fn settings(auto_scaling: &str, more: &str) -> Settings {
    let text = format!(
        r#"version = 1
fleet = "shop"
environment = "dev"
group = "web"
owner = "f-0123456789abcdef"
cluster = "dev"
region = "eu-central-1"

[auto_scaling]
group = "web"
launch_hook = "fleet-launch"
drain_hook = "fleet-drain"
{auto_scaling}
{more}
[parameter]
name = "/fleet/shop/dev/web/agent"

[sidecars.metrics]
image = "example.com/metrics:1"
flush_signal = "SIGUSR1"
flush_timeout_seconds = 5
stop_timeout_seconds = 5

[sidecars.node-logs]
image = "example.com/node-logs:1"
before_tasks = true
stop_timeout_seconds = 5
"#
    );
    Settings::read("agent.toml", &text).expect("settings")
}
