//! Nodes of one group that become impaired and stay so, in a world where nothing else goes wrong.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use fleet_sandbox::{autoscaling::LifecycleState, ecs::InstanceStatus};

use super::{
    node::{Part, Power, State},
    stage,
    world::{STEP, World},
};

/// Nodes have joined by then.
const LAUNCHED: u64 = 60_000;
const SETTLED: u64 = 150_000;

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub struct Illness {
    /// Of the group.
    pub nodes: u32,
    /// How many of them lose their Docker.
    pub ill: usize,
    /// From one to the next.
    pub apart: Duration,
    /// `health.replacement`.
    pub replacement: &'static str,
    /// `health.replace_at_once`.
    pub at_once: u32,
    /// An agent is killed, and started again, this often.
    pub restarts: Option<Duration>,
    /// How long it is watched.
    pub lasts: Duration,
    /// The story's.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Nodes that went.
    pub gone: usize,
    /// Nodes of the group that take tasks, at the end.
    pub serving: usize,
    /// The most that were missing at a time, of those that the group is to have: nodes that do not take
    /// tasks, or are not there yet.
    pub most_out: usize,
    /// Reads of the group, all requests counted.
    pub reads: u64,
}

/// Tells it; depends on its argument only.
///
/// # Panics
/// If the simulated world itself is broken.
pub fn replacement(illness: Illness) -> Replaced {
    stage::tell(tell(illness))
}

async fn tell(illness: Illness) -> Replaced {
    let account = Rc::default();
    let mut world = stage::world(illness.seed, &account, "web", illness.nodes, true);
    world.settings = stage::settings(
        "",
        &format!(
            "[drain]\ndeadline_seconds = 240\n\n[health]\nreplacement = \"{}\"\nreplace_at_once = {}\n",
            illness.replacement, illness.at_once
        ),
    );
    let world = stage::share(world);
    stage::go_on(&world, LAUNCHED, STEP, |_, _| false).await;
    stage::run_tasks(&mut world.borrow_mut(), illness.nodes);
    stage::go_on(&world, SETTLED, STEP, |_, _| false).await;
    let mut replaced = Replaced::default();
    let mut well: BTreeSet<usize> = (0..world.borrow().nodes.len()).take(illness.ill).collect();
    let before = reads(&world.borrow());
    let begins = world.borrow().millis();
    let apart = millis(illness.apart);
    let mut restart = illness.restarts.map(|every| begins + millis(every));
    let until = begins + millis(illness.lasts);
    stage::go_on(&world, until, STEP, |world, now| {
        while let Some(node) = well.first().copied()
            && begins + apart * node as u64 <= now
        {
            well.remove(&node);
            *world.nodes[node].faults.of(Part::Docker) = State::Fails;
        }
        if let (Some(at), Some(every)) = (&mut restart, illness.restarts)
            && *at <= now
        {
            *at += millis(every);
            let node = world.rng.usize(..illness.nodes as usize);
            if world.nodes[node].power == Power::On {
                world.nodes[node].kill();
                world.later(1_000, super::scenario::Step::StartAgent(node));
            }
        }
        let out = (illness.nodes as usize).saturating_sub(serving(world));
        replaced.most_out = replaced.most_out.max(out);
        false
    })
    .await;
    let world = world.borrow();
    let gone = world.nodes.iter().filter(|node| node.power == Power::Gone);
    replaced.gone = gone.count();
    replaced.serving = serving(&world);
    replaced.reads = reads(&world) - before;
    replaced
}

/// Nodes in service that ECS may give tasks, well or not.
fn serving(world: &World) -> usize {
    let serves = |index: &usize| {
        let node = &world.nodes[*index];
        let known = world.autoscaling.instance(&node.instance);
        let state = known.map(|(_, known)| known.state);
        node.power == Power::On
            && state == Some(LifecycleState::InService)
            && world.instance_status(*index) == Some(InstanceStatus::Active)
    };
    (0..world.nodes.len()).filter(serves).count()
}

fn reads(world: &World) -> u64 {
    let account = world.account.as_ref().expect("limits");
    let account = account.borrow();
    let asked = account.asked(super::account::Bucket::Read, 0, u64::MAX);
    asked.map(|asked| asked.taken + asked.refused).sum()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
