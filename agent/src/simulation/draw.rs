//! What next happens in a story: drawn from its seed.

use fleet_sandbox::{
    autoscaling::{LifecycleState, requests},
    ecs::InstanceStatus,
};
use jiff::SignedDuration;
use serde_json::json;

use super::{
    agents::wall,
    node::{Part, Power, State},
    scenario::{NOTICE, Step, power_off},
    world::{CLUSTER, DRAIN_HOOK, Weather, World},
};
use crate::{
    clients::imds::{Maintenance, SpotAction, SpotNotice},
    lifecycle::{
        cause::SHUTDOWN,
        event::{Event, Order},
    },
};

/// A node that is on, if there is one.
fn pick(world: &mut World, wanted: impl Fn(&super::node::Node) -> bool) -> Option<usize> {
    let nodes: Vec<usize> = (0..world.nodes.len())
        .filter(|node| world.nodes[*node].power == Power::On && wanted(&world.nodes[*node]))
        .collect();
    (!nodes.is_empty()).then(|| nodes[world.rng.usize(..nodes.len())])
}

pub(super) fn draw(world: &mut World) {
    let Some(node) = pick(world, |_| true) else {
        return;
    };
    if world.is_fair || world.rng.u8(..100) < 55 {
        draw_cause(world, node);
    } else {
        draw_trouble(world, node);
    }
}

fn draw_cause(world: &mut World, node: usize) {
    let (now, millis) = (world.now(), world.millis());
    let drain = u64::from(world.settings.drain.deadline_seconds) * 1_000;
    let instance = world.nodes[node].instance.clone();
    let group = world.nodes[node].group.clone();
    let kind = world.rng.u8(..13);
    world.note(format_args!("n{node} draws cause {kind}"));
    match kind {
        0 | 1 => {
            let request = requests::TerminateInstance {
                instance_id: instance,
                should_decrement_desired_capacity: world.rng.bool(),
            };
            // It may be in a state that is not terminated from, or the group at its lower bound.
            let _ = world.autoscaling.terminate_instance(&request, now);
        }
        2 => {
            let desired = world.autoscaling.group(&group).unwrap().desired;
            let max = world.autoscaling.group(&group).unwrap().max;
            let by = world.rng.u32(1..4);
            let up = world.rng.bool();
            let request = requests::SetDesiredCapacity {
                auto_scaling_group_name: group,
                desired_capacity: if up {
                    (desired + by).min(max)
                } else {
                    desired.saturating_sub(by).max(2)
                },
                honor_cooldown: None,
            };
            world
                .autoscaling
                .set_desired_capacity(request, now)
                .unwrap();
        }
        3 | 4 => {
            let Some(node) = pick(world, |node| node.spot && node.notice.is_none()) else {
                return;
            };
            let action = [
                SpotAction::Terminate,
                SpotAction::Stop,
                SpotAction::Hibernate,
            ][world.rng.usize(..3)];
            let time = wall(world, node) + SignedDuration::from_millis(NOTICE as i64);
            let known = &mut world.nodes[node];
            known.notice = Some(SpotNotice { action, time });
            known.cause(format!("spot-{millis}"), true, millis + NOTICE);
            world.later(NOTICE, Step::Interrupt(node, action, millis));
        }
        5 => {
            let Some(node) = pick(world, |node| node.spot && node.rebalance.is_none()) else {
                return;
            };
            let known = &mut world.nodes[node];
            known.rebalance = Some(format!("t{millis}"));
            known.cause(format!("rebalance-{millis}"), false, millis + drain);
            let after = world.rng.u64(30_000..200_000);
            world.later(after, Step::Unrebalance(node));
        }
        6 => {
            if !world.nodes[node].maintenance.is_empty() {
                return;
            }
            let starts = world.rng.u64(65_000..150_000);
            let at = wall(world, node) + SignedDuration::from_millis(starts as i64);
            let known = &mut world.nodes[node];
            known.maintenance = vec![Maintenance {
                id: format!("event-{millis}"),
                code: "system-reboot".into(),
                starts: at,
                ends: None,
            }];
            known.cause(format!("maintenance-{millis}"), false, millis + starts);
            let after = world.rng.u64(10_000..250_000);
            world.later(after, Step::Unschedule(node));
        }
        7 => {
            if world.nodes[node].tag.is_some() {
                return;
            }
            let known = &mut world.nodes[node];
            known.tag = Some(format!("t{millis}"));
            known.cause(format!("tag-{millis}"), false, millis + drain);
            let after = world.rng.u64(5_000..250_000);
            world.later(after, Step::Untag(node));
        }
        8 => {
            let known = &mut world.nodes[node];
            let order = Order::Drain {
                request: format!("r{millis}"),
                reason: "a wish".into(),
            };
            if known.is_agent_up() && known.tell(Event::Order(order)) {
                known.withdraw("operator", millis);
                known.cause(format!("operator-{millis}"), false, millis + drain);
                let after = world.rng.u64(5_000..250_000);
                world.later(after, Step::Undrain(node));
            }
        }
        9 => {
            shut_down(world, node, fastrand::Rng::bool);
        }
        10 => {
            if world.instance_status(node) == Some(InstanceStatus::Active) {
                let arns = [world.nodes[node].ecs.arn.clone().unwrap()];
                world
                    .ecs
                    .set_state(Some(CLUSTER), &arns, InstanceStatus::Draining, now)
                    .unwrap();
                world.nodes[node].book.drained_by_other = true;
                world.nodes[node].book.drained_by_other_at = millis;
            }
        }
        11 => {
            let run = json!({ "cluster": CLUSTER, "taskDefinition": "batch", "count": 3 });
            let run = serde_json::from_value(run).unwrap();
            world.ecs.run_task(&run, now).unwrap();
        }
        _ => stand_by(world, node),
    }
    world.settle();
}

/// As systemd does it: fleet-drain.service first tells the agent.
pub(super) fn shut_down(
    world: &mut World,
    node: usize,
    reboots: impl FnOnce(&mut fastrand::Rng) -> bool,
) {
    let millis = world.millis();
    let known = &mut world.nodes[node];
    if known.is_agent_up() && known.tell(Event::Order(Order::Shutdown)) {
        let end = millis + SHUTDOWN.as_millis() as u64;
        known.cause(format!("shutdown-{millis}"), true, end);
        let reboots = reboots(&mut world.rng);
        let until = millis + 120_000;
        world.later(
            1_000,
            Step::ShutDown {
                node,
                reboots,
                until,
            },
        );
    }
}

fn stand_by(world: &mut World, node: usize) {
    let now = world.now();
    let group = world.nodes[node].group.clone();
    let instance_ids = vec![world.nodes[node].instance.clone()];
    let state = world
        .autoscaling
        .instance(&instance_ids[0])
        .map(|(_, known)| known.state);
    if state != Some(LifecycleState::InService) {
        return;
    }
    if world.rng.u8(..4) == 0 {
        let request = requests::DetachInstances {
            auto_scaling_group_name: group,
            instance_ids,
            should_decrement_desired_capacity: false,
        };
        let _ = world.autoscaling.detach_instances(&request, now);
    } else {
        let request = requests::EnterStandby {
            auto_scaling_group_name: group,
            instance_ids,
            should_decrement_desired_capacity: true,
        };
        if world.autoscaling.enter_standby(&request, now).is_ok() {
            let after = world.rng.u64(10_000..120_000);
            world.later(after, Step::Return(node));
        }
    }
}

fn draw_trouble(world: &mut World, node: usize) {
    let millis = world.millis();
    let kind = world.rng.u8(..12);
    world.note(format_args!("n{node} draws trouble {kind}"));
    match kind {
        0..=2 => {
            world.nodes[node].kill();
            let after = world.rng.u64(100..20_000);
            world.later(after, Step::StartAgent(node));
        }
        3 => {
            power_off(world, node);
            let after = world.rng.u64(10_000..40_000);
            world.later(after, Step::Boot(node));
        }
        4..=6 => {
            let part = [
                Part::Imds,
                Part::Docker,
                Part::Ecs,
                Part::Aws,
                Part::Disk,
                Part::Agent,
            ][world.rng.usize(..6)];
            let state = if world.rng.bool() || part == Part::Agent {
                State::Hangs
            } else {
                State::Fails
            };
            *world.nodes[node].faults.of(part) = state;
            let after = world.rng.u64(2_000..90_000);
            world.later(after, Step::Heal(node, part));
        }
        7 | 8 => {
            let mut share = |most| world.rng.u32(..most);
            world.weather = Weather {
                fails: share(200),
                lost: share(100),
                throttled: share(200),
                late: share(200),
                repeated: share(100),
                refused: share(400),
            };
            let after = world.rng.u64(10_000..60_000);
            world.later(after, Step::Calm);
        }
        9 => {
            let mut tasks = world.nodes[node].ecs.tasks.values_mut();
            if let Some(known) = tasks.find(|known| known.container.is_some()) {
                known.lies = true;
            }
        }
        10 => {
            let group = world.nodes[node].group.clone();
            let now = world.now();
            let request = requests::DeleteHook {
                lifecycle_hook_name: DRAIN_HOOK.into(),
                auto_scaling_group_name: group.clone(),
            };
            if world.autoscaling.delete_hook(&request, now).is_ok() {
                for known in world.nodes.iter_mut().filter(|known| known.group == group) {
                    if let Some(open) = &mut known.book.open {
                        open.excused = true;
                    }
                }
                let after = world.rng.u64(5_000..60_000);
                world.later(after, Step::PutHook(group));
            }
            world.settle();
        }
        _ => {
            let known = &mut world.nodes[node];
            if world.rng.bool() {
                known.wall_skew = world.rng.i64(-2_000..2_000);
            } else {
                // Suspended: for its clocks, and for what they show of AWS's, time has passed.
                let slept = world.rng.u64(5_000..300_000);
                known.slept += slept;
                known.book.disturbed_at = millis;
                for made in &mut known.book.causes {
                    made.end = made.end.saturating_sub(slept);
                }
            }
        }
    }
}
