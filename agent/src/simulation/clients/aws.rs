//! Auto Scaling and ECS.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow};
use fleet_agent_config::names::attribute;
use fleet_sandbox::{
    autoscaling::requests::{LifecycleAction, SetInstanceHealth},
    ecs::{Attribute, ContainerInstance, InstanceStatus, TaskStatus},
};

use super::{
    super::{
        checks::Invariant,
        node::Part,
        world::{CLUSTER, DRAIN_HOOK, World},
    },
    Remotes,
};
use crate::{
    clients::{
        autoscaling::{AutoScaling, HookAnswer, Verb},
        ecs::{Ecs, Registration, SetDraining},
    },
    health::guard::{Around, Census, MANY},
    lifecycle::cause::intent,
};

fn said(node: &ContainerInstance, name: &str) -> String {
    let value = node.attributes.get(name).cloned();
    value.flatten().unwrap_or_default()
}

/// Nodes of a group, with since when they are how they are.
fn list(
    world: &World,
    group: &str,
    wanted: fn(&ContainerInstance) -> bool,
) -> BTreeMap<String, String> {
    let cluster = world.ecs.clusters().next();
    let nodes = cluster
        .into_iter()
        .flat_map(|cluster| cluster.instances.values());
    nodes
        .filter(|node| node.status != InstanceStatus::Inactive)
        .filter(|node| said(node, attribute::GROUP) == group && wanted(node))
        .map(|node| (node.arn.clone(), said(node, attribute::SINCE)))
        .collect()
}

impl AutoScaling for Remotes {
    async fn condemn(&self, instance: &str) -> Result<()> {
        let request = SetInstanceHealth {
            instance_id: instance.to_owned(),
            health_status: "Unhealthy".to_owned(),
            should_respect_grace_period: Some(false),
        };
        self.call(Part::Aws, "set health", |world| {
            let now = world.now();
            let set = world.autoscaling.set_instance_health(&request, now);
            world.settle();
            set.map_err(|error| anyhow!("{}", error.message))
        })
        .await?
    }

    async fn answer(&self, hook: &str, _: &str, verb: Verb) -> Result<HookAnswer> {
        let index = self.node;
        let is_drain = hook == DRAIN_HOOK;
        let call = match (is_drain, verb) {
            (true, Verb::Heartbeat) => "heartbeat of fleet-drain",
            (true, Verb::Continue) => "CONTINUE fleet-drain",
            (true, Verb::Abandon) => "ABANDON fleet-drain",
            (false, Verb::Heartbeat) => "heartbeat of fleet-launch",
            (false, Verb::Continue) => "CONTINUE fleet-launch",
            (false, Verb::Abandon) => "ABANDON fleet-launch",
        };
        let answered = self
            .call(Part::Aws, call, |world| {
                answer(world, index, hook, verb, is_drain)
            })
            .await;
        if is_drain && self.is_alive() {
            let mut world = self.world.borrow_mut();
            let book = &mut world.nodes[index].book;
            book.heartbeats += u64::from(verb == Verb::Heartbeat);
            if let Some(open) = &mut book.open {
                open.missed = if answered.is_ok() { 0 } else { open.missed + 1 };
            }
        }
        answered
    }
}

/// Milliseconds for which setting DRAINING may come to nothing at first.
const REFUSED: u64 = 15_000;

fn answer(world: &mut World, index: usize, hook: &str, verb: Verb, is_drain: bool) -> HookAnswer {
    let now = world.now();
    world.autoscaling.advance(now);
    let node = &world.nodes[index];
    let request = LifecycleAction {
        lifecycle_hook_name: hook.to_owned(),
        auto_scaling_group_name: node.group.clone(),
        lifecycle_action_token: None,
        lifecycle_action_result: match verb {
            Verb::Heartbeat => None,
            Verb::Continue => Some("CONTINUE".to_owned()),
            Verb::Abandon => Some("ABANDON".to_owned()),
        },
        instance_id: Some(node.instance.clone()),
    };
    let taken = match verb {
        Verb::Heartbeat => world.autoscaling.record_heartbeat(&request, now),
        Verb::Continue | Verb::Abandon => {
            world.autoscaling.complete_lifecycle_action(&request, now)
        }
    };
    world.settle();
    if taken.is_err() {
        return HookAnswer::NotOpen;
    }
    world.nodes[index].book.gave_up |= verb == Verb::Abandon;
    if is_drain && verb != Verb::Heartbeat {
        let millis = world.millis();
        let book = &mut world.nodes[index].book;
        book.answered = true;
        book.marks.answered_at = Some(millis);
        world.judge_last(index, Invariant::HandsOverEmpty, "CONTINUE");
        world.judge_known(index);
        if verb == Verb::Abandon {
            let what = "fleet-drain was abandoned".to_owned();
            world.violate(Invariant::NeverAbandonsDrain, index, what);
        }
    }
    HookAnswer::Taken
}

impl Ecs for Remotes {
    async fn describe(&self, arn: &str) -> Result<Registration> {
        let index = self.node;
        let described = self
            .call(Part::Aws, "ecs describe", |world| {
                let cluster = world.ecs.clusters().next();
                let known = cluster
                    .and_then(|cluster| cluster.instances.get(arn))
                    .ok_or_else(|| anyhow!("{arn}: MISSING"))?;
                Ok(Registration {
                    status: known.status.as_str().to_owned(),
                    connected: known.connected,
                })
            })
            .await
            .flatten();
        // What the agent was last told, if anything.
        let active = described.as_ref().is_ok_and(Registration::is_active);
        let mut world = self.world.borrow_mut();
        let now = world.millis();
        world.nodes[index].book.told_active = active.then_some(now);
        described
    }

    async fn set_draining(&self, arn: &str) -> Result<SetDraining> {
        let index = self.node;
        self.call(Part::Aws, "ecs set DRAINING", |world| {
            if world.rng.u32(..1_000) < world.weather.refused {
                return Ok(SetDraining::NotYet("REGISTERING".to_owned()));
            }
            let (now, millis) = (world.now(), world.millis());
            let was = world.instance_status(index);
            let book = &mut world.nodes[index].book;
            let asked = book.told_active.is_some_and(|at| at + 90_000 > millis);
            if was == Some(InstanceStatus::Active) && !asked {
                // Nobody could say whose it is: it stays as it is, as documented.
                book.drained_by_other = true;
                book.drained_by_other_at = millis;
            }
            let arns = [arn.to_owned()];
            let change = world
                .ecs
                .set_state(Some(CLUSTER), &arns, InstanceStatus::Draining, now)
                .map_err(|error| anyhow!("{}", error.message))?;
            if change.changed.is_empty() {
                return Ok(SetDraining::Gone);
            }
            let marks = &mut world.nodes[index].book.marks;
            marks.draining_at.get_or_insert(millis);
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_or(0, |tasks| {
                tasks.iter().filter(|task| task.is_live()).count()
            });
            Ok(SetDraining::Set {
                tasks: u32::try_from(tasks)?,
            })
        })
        .await?
    }

    async fn set_active(&self, arn: &str) -> Result<bool> {
        let index = self.node;
        self.call(Part::Aws, "ecs set ACTIVE", |world| {
            let now = world.now();
            let book = &world.nodes[index].book;
            // Whose it is is asked before it is set, and setting it may be refused for a while: nobody
            // can know of what comes between.
            let knew = book
                .told_active
                .is_none_or(|at| at + REFUSED < book.drained_by_other_at);
            let is_others = book.drained_by_other && knew;
            let was = world.instance_status(index);
            if is_others && was == Some(InstanceStatus::Draining) {
                let what = "set to ACTIVE what somebody else had set to DRAINING".to_owned();
                world.violate(Invariant::SetsBackOnlyItsOwn, index, what);
            }
            let arns = [arn.to_owned()];
            let change = world
                .ecs
                .set_state(Some(CLUSTER), &arns, InstanceStatus::Active, now)
                .map_err(|error| anyhow!("{}", error.message))?;
            let millis = world.millis();
            let book = &mut world.nodes[index].book;
            book.drained_by_other = false;
            // Its own doing is known to it, also when it hears nothing of it.
            book.told_active = Some(millis);
            Ok(!change.changed.is_empty())
        })
        .await?
    }

    async fn put_attributes(&self, arn: &str, attributes: &[(String, String)]) -> Result<()> {
        self.call(Part::Aws, "ecs put attributes", |world| {
            let attributes = attributes.iter().map(|(name, value)| Attribute {
                name: name.clone(),
                value: Some(value.clone()),
                target_type: Some("container-instance".to_owned()),
                target_id: Some(arn.to_owned()),
            });
            let attributes: Vec<Attribute> = attributes.collect();
            let set = world.ecs.set_attributes(Some(CLUSTER), &attributes);
            set.map(drop).map_err(|error| anyhow!("{}", error.message))
        })
        .await?
    }

    /// In the order of `clients::ecs`, and time passes between its reads.
    async fn around(&self, group: &str) -> Result<Around> {
        let read = async |wanted: fn(&ContainerInstance) -> bool| {
            self.call(Part::Aws, "ecs list instances", |world| {
                list(world, group, wanted)
            })
            .await
        };
        let arns = |found: BTreeMap<String, String>| found.into_keys().collect::<BTreeSet<_>>();
        let impaired = arns(read(|node| said(node, attribute::HEALTH) == "impaired").await?);
        if impaired.len() > MANY {
            return Ok(Around::Many);
        }
        let waiting = read(|node| said(node, attribute::INTENT) == intent::REPLACE).await?;
        let leaving = arns(read(|node| said(node, attribute::INTENT) == intent::LEAVE).await?);
        let draining = arns(read(|node| node.status == InstanceStatus::Draining).await?);
        let members = arns(read(|_| true).await?);
        Ok(Around::Group(Census {
            members,
            impaired,
            draining,
            leaving,
            waiting,
        }))
    }

    async fn live_tasks(&self, arn: &str) -> Result<usize> {
        self.call(Part::Aws, "ecs live tasks", |world| {
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_err(|error| anyhow!("{}", error.message))?;
            let live = tasks
                .iter()
                .filter(|task| task.last_status != TaskStatus::Stopped);
            Ok(live.count())
        })
        .await?
    }

    async fn task_groups(&self, arn: &str) -> Result<BTreeMap<String, String>> {
        self.call(Part::Aws, "ecs task groups", |world| {
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_err(|error| anyhow!("{}", error.message))?;
            let live = tasks.iter().filter(|task| task.is_live());
            Ok(live
                .map(|task| (task.arn.clone(), task.group.clone()))
                .collect())
        })
        .await?
    }
}
