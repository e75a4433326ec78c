//! What happens in a story, step by step.

use fleet_sandbox::autoscaling::{LaunchOrder, requests};
use serde_json::json;

use super::{
    agents::{self, Shared, wall},
    checks::Invariant,
    draw::draw,
    node::{Part, Power, State},
    world::{CLUSTER, DRAIN_HOOK, Weather, World},
};
use crate::{
    clients::imds::SpotAction,
    lifecycle::event::{Event, Order},
};

/// EC2's notice of a spot interruption.
pub(super) const NOTICE: u64 = 120_000;
/// When nothing new happens any more.
pub(super) const QUIET: u64 = 200_000;

/// Something that is to happen to the world.
#[derive(Debug)]
pub(super) enum Step {
    Launch(Box<LaunchOrder>),
    Boot(usize),
    StartAgent(usize),
    /// EC2 takes the machine.
    Terminate(usize),
    StopWarm(usize),
    StartWarm(usize),
    /// systemd is done with fleet-drain.service.
    ShutDown {
        node: usize,
        reboots: bool,
        until: u64,
    },
    Interrupt(usize, SpotAction, u64),
    Heal(usize, Part),
    Thaw(usize),
    Calm,
    Untag(usize),
    Undrain(usize),
    Unrebalance(usize),
    Unschedule(usize),
    Forgive(usize, u64),
    Return(usize),
    PutHook(String),
    Draw,
    Quiet,
}

/// Draws the story's frame: groups, services, and when it begins to be eventful.
pub(super) fn begin(world: &mut World, nodes: u32) {
    let now = world.now();
    let cluster = serde_json::from_value(json!({ "clusterName": CLUSTER })).unwrap();
    world.ecs.create_cluster(cluster, now).unwrap();
    for family in ["app", "stuck", "batch"] {
        let definition = json!({
            "family": family,
            "containerDefinitions": [{ "name": "main", "image": "x", "memory": 128 }],
        });
        let definition =
            fleet_sandbox::ecs::RegisterTaskDefinition::read(definition.to_string().as_bytes());
        world
            .ecs
            .register_task_definition(definition.unwrap(), now)
            .unwrap();
    }
    for (name, desired, maximum) in [("app", nodes + nodes / 2, 200), ("stuck", nodes / 4, 100)] {
        let service = json!({
            "cluster": CLUSTER,
            "serviceName": name,
            "taskDefinition": name,
            "desiredCount": desired,
            "deploymentConfiguration": {
                "minimumHealthyPercent": 100,
                "maximumPercent": maximum,
            },
        });
        let service = serde_json::from_value(service).unwrap();
        world.ecs.create_service(service, now).unwrap();
    }
    let spots = nodes * 3 / 10;
    for (name, desired) in [("web", nodes - spots), ("spot", spots)] {
        create_group(world, name, desired);
    }
    if !world.is_fair && world.rng.u8(..5) == 0 {
        put_hook(
            world,
            "web",
            "ecs-managed-draining-termination-hook",
            "TERMINATING",
            "CONTINUE",
            60,
        );
    }
    if world.rng.u8(..6) == 0 {
        let pool = requests::PutWarmPool {
            auto_scaling_group_name: "web".into(),
            min_size: Some(2),
            pool_state: Some(
                if world.rng.bool() {
                    "Running"
                } else {
                    "Stopped"
                }
                .into(),
            ),
            ..requests::PutWarmPool::default()
        };
        world.autoscaling.put_warm_pool(&pool, now).unwrap();
    }
    world.settle();
    world.later(30_000, Step::Draw);
    world.later(QUIET, Step::Quiet);
}

pub(super) fn create_group(world: &mut World, name: &str, desired: u32) {
    let launch = world.settings.launch_timeout_seconds;
    let drain = world.settings.drain_timeout_seconds;
    let hook = |hook: &str, transition: &str, result: &str, timeout| requests::HookRequest {
        lifecycle_hook_name: hook.into(),
        auto_scaling_group_name: name.into(),
        lifecycle_transition: Some(format!("autoscaling:EC2_INSTANCE_{transition}")),
        heartbeat_timeout: Some(timeout),
        default_result: Some(result.into()),
        notification_metadata: None,
    };
    let request = requests::GroupRequest {
        auto_scaling_group_name: name.into(),
        launch_template: Some(requests::TemplateSpec {
            launch_template_name: Some(name.into()),
            ..requests::TemplateSpec::default()
        }),
        min_size: Some(0),
        max_size: Some(desired * 2),
        desired_capacity: Some(desired),
        lifecycle_hook_specification_list: vec![
            hook("fleet-launch", "LAUNCHING", "ABANDON", launch),
            hook(DRAIN_HOOK, "TERMINATING", "CONTINUE", drain),
        ],
        ..requests::GroupRequest::default()
    };
    let subnets = ["a", "b"].map(|zone| fleet_sandbox::autoscaling::Subnet {
        id: format!("subnet-{zone}"),
        availability_zone: format!("eu-central-1{zone}"),
    });
    let now = world.now();
    world
        .autoscaling
        .create_group(request, subnets.to_vec(), now)
        .unwrap();
}

fn put_hook(
    world: &mut World,
    group: &str,
    hook: &str,
    transition: &str,
    result: &str,
    timeout: u32,
) {
    let request = requests::HookRequest {
        lifecycle_hook_name: hook.into(),
        auto_scaling_group_name: group.into(),
        lifecycle_transition: Some(format!("autoscaling:EC2_INSTANCE_{transition}")),
        heartbeat_timeout: Some(timeout),
        default_result: Some(result.into()),
        notification_metadata: None,
    };
    world.autoscaling.put_hook(&request).unwrap();
}

/// Carries out a step.
pub(super) fn perform(shared: &Shared, step: Step) {
    let mut world = shared.borrow_mut();
    let world = &mut *world;
    if world.trace.wanted && !matches!(step, Step::Draw) {
        world.note(format_args!("-- {step:?}"));
    }
    match step {
        Step::Launch(order) => world.launch(&order),
        Step::Boot(node) => boot(world, node),
        Step::StartAgent(node) => {
            if world.nodes[node].power == Power::On {
                start_agent(shared, world, node);
            }
        }
        Step::Terminate(node) => take(world, node),
        Step::StopWarm(node) => {
            power_off(world, node);
            let now = world.now();
            let instance = world.nodes[node].instance.clone();
            // Only what the group itself stops comes here.
            let _ = world.autoscaling.machine_stopped(&instance, now);
            world.settle();
        }
        Step::StartWarm(node) => {
            boot(world, node);
            let now = world.now();
            let instance = world.nodes[node].instance.clone();
            world.autoscaling.machine_started(&instance, now);
            world.settle();
        }
        Step::ShutDown {
            node,
            reboots,
            until,
        } => shut_down(world, node, reboots, until),
        Step::Interrupt(node, action, noticed) => interrupt(world, node, action, noticed),
        Step::Heal(node, part) => *world.nodes[node].faults.of(part) = State::Works,
        Step::Thaw(node) => {
            let node = &mut world.nodes[node];
            node.notice = None;
            for part in [Part::Agent, Part::Docker, Part::Ecs] {
                *node.faults.of(part) = State::Works;
            }
        }
        Step::Calm => world.weather = Weather::default(),
        Step::Untag(node) => {
            let now = world.millis();
            world.nodes[node].tag = None;
            world.nodes[node].withdraw("tag", now);
        }
        Step::Undrain(node) => {
            let now = world.millis();
            let known = &mut world.nodes[node];
            if known.power == Power::Gone {
                return;
            }
            if known.is_agent_up() && known.tell(Event::Order(Order::Undrain)) {
                known.withdraw("operator", now);
            } else {
                world.later(2_000, Step::Undrain(node));
            }
        }
        Step::Unrebalance(node) => {
            let now = world.millis();
            world.nodes[node].rebalance = None;
            world.nodes[node].withdraw("rebalance", now);
        }
        Step::Unschedule(node) => {
            let now = world.millis();
            world.nodes[node].maintenance.clear();
            world.nodes[node].withdraw("maintenance", now);
        }
        Step::Forgive(node, noticed) => {
            let now = world.millis();
            world.nodes[node].withdraw(&format!("spot-{noticed}"), now);
        }
        Step::Return(node) => {
            let now = world.now();
            let request = requests::ExitStandby {
                auto_scaling_group_name: world.nodes[node].group.clone(),
                instance_ids: vec![world.nodes[node].instance.clone()],
            };
            // It may have gone meanwhile.
            let _ = world.autoscaling.exit_standby(&request, now);
            world.settle();
        }
        Step::PutHook(group) => {
            let timeout = world.settings.drain_timeout_seconds;
            put_hook(
                world,
                &group,
                DRAIN_HOOK,
                "TERMINATING",
                "CONTINUE",
                timeout,
            );
        }
        Step::Draw => {
            if world.millis() + 20_000 < QUIET {
                draw(world);
                let pause = world.rng.u64(1_000..14_000);
                world.later(pause, Step::Draw);
            }
        }
        Step::Quiet => quiet(world),
    }
}

fn start_agent(shared: &Shared, world: &mut World, node: usize) {
    let shared = shared.clone();
    world.note(format_args!("n{node} agent starts"));
    // The world is borrowed here; the process starts at the next turn.
    tokio::task::spawn_local(async move {
        if shared.borrow().nodes[node].power == Power::On {
            agents::start(&shared, node);
        }
    });
}

fn boot(world: &mut World, node: usize) {
    let started = wall(world, node);
    let known = &mut world.nodes[node];
    if known.power != Power::Off {
        return;
    }
    known.power = Power::On;
    known.boot += 1;
    known.released = false;
    for sidecar in known.sidecars.iter_mut().filter(|sidecar| sidecar.running) {
        sidecar.started = Some(started);
    }
    world.start_ecs(node);
    let after = world.rng.u64(500..4_000);
    world.later(after, Step::StartAgent(node));
}

pub(super) fn power_off(world: &mut World, node: usize) {
    world.nodes[node].kill();
    let now = world.millis();
    let known = &mut world.nodes[node];
    if known.power == Power::On {
        known.power = Power::Off;
    }
    // Of a shutdown nothing is left once the machine is off, however it came to that.
    known.withdraw("shutdown", now);
    known.containers.clear();
    known.ecs.active = false;
    known.ecs.connected = false;
}

/// EC2 takes the machine for good.
fn take(world: &mut World, node: usize) {
    if world.nodes[node].power == Power::Gone {
        return;
    }
    power_off(world, node);
    world.nodes[node].power = Power::Gone;
    let now = world.now();
    let instance = world.nodes[node].instance.clone();
    world.autoscaling.machine_gone(&instance, now);
    world.ecs.machine_gone(&instance, now);
    world.settle();
}

fn shut_down(world: &mut World, node: usize, reboots: bool, until: u64) {
    let now = world.millis();
    let known = &world.nodes[node];
    if known.power != Power::On {
        return;
    }
    let is_done = known.containers.is_empty() && known.sidecars.iter().all(|known| !known.running);
    if !is_done && now < until {
        world.later(
            1_000,
            Step::ShutDown {
                node,
                reboots,
                until,
            },
        );
        return;
    }
    if reboots {
        power_off(world, node);
        let after = world.rng.u64(5_000..30_000);
        world.later(after, Step::Boot(node));
    } else {
        take(world, node);
    }
}

fn interrupt(world: &mut World, node: usize, action: SpotAction, noticed: u64) {
    let now = world.millis();
    let known = &world.nodes[node];
    if known.power != Power::On {
        return;
    }
    let is_judged = known.book.disturbed_at < noticed.saturating_sub(5_000)
        && known.book.docker_down_at + 5_000 < noticed
        && known.ecs.arn.is_some();
    let runs = known.sidecars.iter().any(|sidecar| sidecar.running);
    let stopped = known.book.sidecars_stopped_at;
    if is_judged && (runs || stopped.is_none_or(|at| at + 10_000 > now)) {
        let what = format!(
            "taken {:?} ms after sidecars had ended",
            stopped.map(|at| now - at)
        );
        world.violate(Invariant::FlushedBeforeSpot, node, what);
    }
    match action {
        SpotAction::Terminate => take(world, node),
        SpotAction::Stop => {
            power_off(world, node);
            world.nodes[node].notice = None;
            world.nodes[node].withdraw("spot", now);
            let after = world.rng.u64(30_000..90_000);
            world.later(after, Step::Boot(node));
        }
        SpotAction::Hibernate => {
            for part in [Part::Agent, Part::Docker, Part::Ecs] {
                *world.nodes[node].faults.of(part) = State::Hangs;
            }
            let after = world.rng.u64(30_000..90_000);
            world.later(after, Step::Thaw(node));
            world.later(after.max(125_000) + 1_000, Step::Forgive(node, noticed));
        }
    }
}

/// Everything is healed and withdrawn; what goes on is only what has begun.
fn quiet(world: &mut World) {
    world.weather = Weather::default();
    world.is_quiet_since = Some(world.millis());
    let mut steps = Vec::new();
    for (node, known) in world.nodes.iter_mut().enumerate() {
        let is_frozen = known.notice.is_some();
        if !is_frozen {
            for part in [
                Part::Imds,
                Part::Docker,
                Part::Ecs,
                Part::Aws,
                Part::Disk,
                Part::Agent,
            ] {
                *known.faults.of(part) = State::Works;
            }
        }
        steps.extend([
            Step::Untag(node),
            Step::Undrain(node),
            Step::Unrebalance(node),
            Step::Unschedule(node),
            Step::Return(node),
        ]);
    }
    for step in steps {
        world.later(0, step);
    }
}
