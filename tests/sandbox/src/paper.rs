//! Machines on paper: no container, and instead of the two agents a short model of what they tell
//! the control plane. For whoever needs many nodes, or none that take half a minute.
//!
//! # Guarantees
//! - Everything goes through the models that real machines meet: launch and termination, hooks,
//!   registration, attributes, the agent's reports.
//! - A node joins before it answers its launching hook, and answers its terminating hook only once it
//!   is DRAINING and no task is left on it.
//!
//! # Not played
//! User data, metadata, sidecars, health, an operator's drain. A task that is started runs and one that
//! is stopped has stopped, at once.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use fleet_agent_config::{
    Applied,
    names::{DRAIN_HOOK, LAUNCH_HOOK, attribute, tag},
};
use jiff::Timestamp;
use tokio::{sync::mpsc::UnboundedReceiver, time::interval};

use crate::{
    api_error::ApiError,
    autoscaling::{LifecycleState, requests::LifecycleAction},
    ecs::{Attribute, InstanceStatus, Registration},
    machines::{MachineCommand, MachineEvent},
    node_protocol::{HOLD_SECONDS, Reply, Sync, TaskReport},
    world::{State, World},
};

/// CPU units and MiB of every machine.
const SIZE: (i64, i64) = (2_048, 4_096);
/// Where the addresses of machines begin. Nobody is reached there.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 214, 0, 10);
/// Its agents' version, and the hash of its settings.
const PAPER: &str = "paper";

/// Plays the machines until nobody commands them any more.
pub async fn run(world: World, mut commands: UnboundedReceiver<MachineCommand>) {
    let mut nodes = Nodes::default();
    let mut changes = world.changes();
    let mut heartbeat = interval(Duration::from_secs(HOLD_SECONDS));
    loop {
        let mut beats = false;
        // All arms are cancel safe: a command, a change or a tick that is not taken is there again.
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => nodes.take(command, &world),
                None => return,
            },
            _ = changes.changed() => {}
            _ = heartbeat.tick() => beats = true,
        }
        // Marked as seen before looking, so that no change falls in between.
        changes.mark_unchanged();
        nodes.act(&world, beats);
    }
}

/// The nodes there are, by EC2 instance id.
#[derive(Debug, Default)]
struct Nodes {
    by_id: BTreeMap<String, Node>,
    launched: u32,
}

/// What a node knows of itself.
#[derive(Debug)]
struct Node {
    address: Ipv4Addr,
    /// Version of the orders it has followed.
    orders: u64,
    /// The state whose hook it has answered: once each.
    answered: Option<LifecycleState>,
}

/// What a node does next.
#[derive(Debug)]
enum Act {
    Register(Box<Registration>),
    Report(Sync),
    Publish(Vec<Attribute>),
    Drain { arn: String },
    Answer { group: String, hook: &'static str },
}

impl Nodes {
    fn take(&mut self, command: MachineCommand, world: &World) {
        let event = match command {
            MachineCommand::Launch(launch) => {
                let address = Ipv4Addr::from(u32::from(FIRST_ADDRESS) + self.launched);
                self.launched += 1;
                let node = Node {
                    address,
                    orders: 0,
                    answered: None,
                };
                self.by_id.insert(launch.instance_id.clone(), node);
                MachineEvent::Started {
                    instance_id: launch.instance_id,
                    address,
                }
            }
            MachineCommand::Terminate { instance_id } => {
                self.by_id.remove(&instance_id);
                MachineEvent::Gone { instance_id }
            }
            MachineCommand::Stop { instance_id } => MachineEvent::Stopped { instance_id },
            MachineCommand::Start { instance_id } => {
                let Some(node) = self.by_id.get(&instance_id) else {
                    return;
                };
                MachineEvent::Started {
                    address: node.address,
                    instance_id,
                }
            }
            MachineCommand::Reboot { .. } => return,
            // There is nothing on its disk.
            MachineCommand::Snapshot { reply, .. } | MachineCommand::CopyImage { reply, .. } => {
                // Nobody listening any more is no reason to fail.
                let _ = reply.send(Ok(()));
                return;
            }
            MachineCommand::Console { reply, .. } => {
                // Nobody listening any more is no reason to fail.
                let _ = reply.send(Some("a machine on paper\n".to_owned()));
                return;
            }
        };
        world.machine_event(event);
    }

    /// Lets every node do all it has to.
    fn act(&mut self, world: &World, beats: bool) {
        for (id, node) in &mut self.by_id {
            let mut beats = beats;
            while let Some(act) = world.look(|state| node.next(state, id, beats)) {
                beats = false;
                let done = world.change(|state, now| node.perform(state, id, act, now));
                if let Err(error) = done {
                    // It tries again when something has changed.
                    log::warn!("{id}, on paper: {error}");
                    break;
                }
            }
        }
    }
}

impl Node {
    fn next(&self, state: &State, id: &str, beats: bool) -> Option<Act> {
        let (group, instance) = state.autoscaling.instance(id)?;
        let answer = |hook| {
            (self.answered != Some(instance.state)).then(|| Act::Answer {
                group: group.name.clone(),
                hook,
            })
        };
        let is_leaving = instance.state == LifecycleState::TerminatingWait;
        match instance.state {
            LifecycleState::WarmedPendingWait => return answer(LAUNCH_HOOK),
            LifecycleState::WarmedTerminatingWait => return answer(DRAIN_HOOK),
            LifecycleState::Pending
            | LifecycleState::PendingWait
            | LifecycleState::InService
            | LifecycleState::Standby
            | LifecycleState::TerminatingWait => {}
            LifecycleState::Terminating
            | LifecycleState::TerminatingProceed
            | LifecycleState::WarmedPending
            | LifecycleState::WarmedPendingProceed
            | LifecycleState::Warmed(_)
            | LifecycleState::WarmedTerminating
            | LifecycleState::WarmedTerminatingProceed => return None,
        }
        let Some((_, found)) = state.ecs.of_machine(id) else {
            if is_leaving {
                return answer(DRAIN_HOOK);
            }
            let cluster = state.ecs.cluster_of_group(&group.arn)?;
            let mut registration = Registration::of_machine(cluster, id, SIZE.0, SIZE.1);
            registration.availability_zone = Some(instance.availability_zone.clone());
            registration.instance_type = Some(instance.instance_type.clone());
            registration.image_id = Some(instance.image_id.clone());
            return Some(Act::Register(Box::new(registration)));
        };
        let orders = state.ecs.orders(&found.arn)?;
        let is_idle = orders.tasks.is_empty();
        if beats || orders.version > self.orders {
            return Some(Act::Report(followed(&found.arn, orders)));
        }
        if is_leaving && found.status == InstanceStatus::Active {
            let arn = found.arn.clone();
            return Some(Act::Drain { arn });
        }
        let wanted = attributes(state, id, is_leaving)?;
        let is_told = |(name, value): &(&str, String)| {
            found.attributes.get(*name).and_then(Option::as_ref) == Some(value)
        };
        if !wanted.iter().all(is_told) {
            let attributes = wanted.into_iter().map(|(name, value)| Attribute {
                name: name.to_owned(),
                value: Some(value),
                target_type: None,
                target_id: Some(found.arn.clone()),
            });
            return Some(Act::Publish(attributes.collect()));
        }
        match is_leaving {
            true => is_idle.then(|| answer(DRAIN_HOOK)).flatten(),
            false if instance.state == LifecycleState::PendingWait => answer(LAUNCH_HOOK),
            false => None,
        }
    }

    fn perform(
        &mut self,
        state: &mut State,
        id: &str,
        act: Act,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let cluster = |state: &State| Some(state.ecs.of_machine(id)?.0.name.clone());
        match act {
            Act::Register(registration) => {
                self.orders = 0;
                state.ecs.register(*registration, now)?;
            }
            Act::Report(sync) => {
                self.orders = sync.version;
                state.ecs.sync(&sync, now)?;
            }
            Act::Publish(attributes) => {
                let cluster = cluster(state);
                state.ecs.set_attributes(cluster.as_deref(), &attributes)?;
            }
            Act::Drain { arn } => {
                let cluster = cluster(state);
                let status = InstanceStatus::Draining;
                let ecs = &mut state.ecs;
                ecs.set_state(cluster.as_deref(), &[arn], status, now)?;
            }
            Act::Answer { group, hook } => {
                self.answered = state.autoscaling.instance(id).map(|(_, found)| found.state);
                let answer = LifecycleAction {
                    lifecycle_hook_name: hook.to_owned(),
                    auto_scaling_group_name: group,
                    lifecycle_action_result: Some("CONTINUE".to_owned()),
                    instance_id: Some(id.to_owned()),
                    ..LifecycleAction::default()
                };
                state.autoscaling.complete_lifecycle_action(&answer, now)?;
            }
        }
        Ok(())
    }
}

/// Every order carried out at once.
fn followed(arn: &str, orders: Reply) -> Sync {
    let tasks = orders.tasks.into_iter().map(|task| TaskReport {
        task_arn: task.task_arn,
        known_status: task.desired_status,
        reason: None,
    });
    Sync {
        container_instance_arn: arn.to_owned(),
        version: orders.version,
        tasks: tasks.collect(),
    }
}

/// What fleet-agent would publish: it takes every revision that its instance's tag names.
fn attributes(state: &State, id: &str, is_leaving: bool) -> Option<[(&'static str, String); 6]> {
    let tags = &state.machines.get(id)?.tags;
    let revision = tags.get(tag::REVISION).and_then(|text| text.parse().ok());
    let applied = Applied {
        hash: PAPER.to_owned(),
        revision: revision.unwrap_or(0),
        refused: None,
        settled: true,
    };
    let intent = if is_leaving { "leave" } else { "serve" };
    Some([
        (
            attribute::GROUP,
            tags.get(tag::GROUP).cloned().unwrap_or_default(),
        ),
        (attribute::HEALTH, "ok".to_owned()),
        (attribute::REASON, "none".to_owned()),
        (attribute::INTENT, intent.to_owned()),
        (attribute::AGENT, PAPER.to_owned()),
        (attribute::CONFIG, applied.to_string()),
    ])
}
