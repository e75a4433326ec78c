//! How quickly one node acts, and how often it calls AWS, when nothing goes wrong.
//!
//! # Assumptions
//! - IMDS takes 2 to 20 ms, the ECS agent 1 to 5, Docker 5 to 50, and AWS 20 to 150.
//! - The ECS agent notices at once that a container has ended, and tells ECS so.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use fleet_sandbox::autoscaling::requests;

use super::{
    account::Account,
    agents::Shared,
    node::Power,
    stage::{self, is_empty},
    world::{STEP, World},
};

/// Of one cluster.
const NODES: u32 = 40;
const LEAVE: usize = 30;
const WARM: usize = 30;
/// Nodes have joined by then, and launches been answered.
const LAUNCHED: u64 = 60_000;
const SETTLED: u64 = 150_000;
/// How finely what ends by itself is looked at while it is timed.
const FINE: Duration = Duration::from_millis(50);
/// Flips of a cluster fall within this.
const SPREAD: u64 = 60_000;
const HOUR: u64 = 3_600_000;

/// One node that Auto Scaling terminated.
#[derive(Debug, Clone, Copy)]
pub struct Flip {
    /// From IMDS naming the target until the container instance was DRAINING.
    pub set: Duration,
    /// From the last task's end, as the ECS agent and Docker know it, until the hook was answered, less
    /// what sidecars themselves took to flush and stop.
    pub answered: Duration,
    /// Requests to AWS beside heartbeats, retries included.
    pub calls: u64,
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Flips {
    /// Nodes that left.
    pub drains: Vec<Flip>,
    /// From IMDS naming InService on a node that waited, running, in a warm pool until ecs.service was
    /// started.
    pub warm: Vec<Duration>,
}

/// Has `number` nodes leave, and at least as many come out of a warm pool; depends on its arguments
/// only.
///
/// # Panics
/// If the simulated world itself is broken.
pub fn flips(number: usize, seed: u64) -> Flips {
    let mut flips = Flips::default();
    let mut cluster = 0;
    while flips.drains.len() < number {
        let leave = LEAVE.min(number - flips.drains.len());
        let seed = seed ^ (cluster << 32);
        let one = stage::tell(round(seed, leave));
        flips.drains.extend(one.drains);
        flips.warm.extend(one.warm);
        cluster += 1;
    }
    flips
}

/// Requests to AWS of each of so many nodes in an hour in which nothing happens.
///
/// # Panics
/// If the simulated world itself is broken.
pub fn idle_hour(nodes: u32, seed: u64) -> Vec<u64> {
    stage::tell(async {
        let account = Rc::default();
        let world = stage::share(stage::world(seed, &account, "web", nodes, true));
        stage::go_on(&world, LAUNCHED, STEP, |_, _| false).await;
        stage::run_tasks(&mut world.borrow_mut(), 2 * nodes);
        stage::go_on(&world, SETTLED, STEP, |_, _| false).await;
        let before = requests_of(&world.borrow());
        stage::go_on(&world, SETTLED + HOUR, STEP, |_, _| false).await;
        let after = requests_of(&world.borrow());
        after.iter().zip(before).map(|(a, b)| a - b).collect()
    })
}

fn requests_of(world: &World) -> Vec<u64> {
    let nodes = world.nodes.iter();
    nodes.map(|node| node.book.marks.requests).collect()
}

/// One cluster's part of it.
async fn round(seed: u64, leave: usize) -> Flips {
    let account: Rc<RefCell<Account>> = Rc::default();
    let mut world = stage::world(seed, &account, "web", NODES, true);
    let now = world.now();
    let pool = requests::PutWarmPool {
        auto_scaling_group_name: "web".into(),
        min_size: Some(WARM as u32),
        max_group_prepared_capacity: Some(-1),
        pool_state: Some("Running".into()),
        ..requests::PutWarmPool::default()
    };
    world.autoscaling.put_warm_pool(&pool, now).unwrap();
    world.settle();
    let world = stage::share(world);
    stage::go_on(&world, LAUNCHED, STEP, |_, _| false).await;
    stage::run_tasks(&mut world.borrow_mut(), 2 * NODES);
    stage::go_on(&world, SETTLED, STEP, |_, _| false).await;
    let warm = come(&world).await;
    let drains = go(&world, leave).await;
    Flips { drains, warm }
}

/// Nodes are taken from the warm pool, one at a time.
async fn come(world: &Shared) -> Vec<Duration> {
    let is_warm = |world: &World, node: usize| {
        let instance = &world.nodes[node].instance;
        world.autoscaling.target_lifecycle_state(instance) == Some("Warmed:Running")
    };
    let begins = world.borrow().millis();
    let mut orders = draw(world, WARM, begins);
    let mut wait: Vec<usize> = {
        let world = world.borrow();
        let nodes = 0..world.nodes.len();
        nodes.filter(|node| is_warm(&world, *node)).collect()
    };
    assert!(wait.len() >= WARM, "{} nodes are warm", wait.len());
    let mut flipped = BTreeMap::new();
    stage::go_on(world, begins + SPREAD + 30_000, FINE, |world, now| {
        if orders.last().is_some_and(|at| *at <= now) {
            orders.pop();
            let desired = world.autoscaling.group("web").unwrap().desired + 1;
            let request = requests::SetDesiredCapacity {
                auto_scaling_group_name: "web".into(),
                desired_capacity: desired,
                honor_cooldown: None,
            };
            let at = world.now();
            world.autoscaling.set_desired_capacity(request, at).unwrap();
            world.settle();
        }
        for node in wait.extract_if(.., |node| !is_warm(world, *node)) {
            flipped.insert(node, now);
        }
        let has_started = |node: &usize| world.nodes[*node].book.marks.ecs_started_at.is_some();
        orders.is_empty() && flipped.keys().all(has_started)
    })
    .await;
    let world = world.borrow();
    let started = flipped.into_iter().map(|(node, flipped)| {
        let started = world.nodes[node].book.marks.ecs_started_at;
        Duration::from_millis(started.expect("ecs.service was started") - flipped)
    });
    started.collect()
}

/// Nodes are terminated at moments that have nothing to do with one another.
async fn go(world: &Shared, leave: usize) -> Vec<Flip> {
    struct Leaving {
        flipped: u64,
        calls: u64,
        empty: Option<u64>,
    }
    let begins = world.borrow().millis();
    let mut orders = draw(world, leave, begins);
    let mut left: BTreeMap<usize, Leaving> = BTreeMap::new();
    let beside = |world: &World, node: usize| {
        let book = &world.nodes[node].book;
        book.marks.requests - book.heartbeats
    };
    stage::go_on(world, begins + SPREAD + 180_000, FINE, |world, now| {
        while orders.last().is_some_and(|at| *at <= now) {
            orders.pop();
            let nodes = stage::working(world);
            let node = nodes[world.rng.usize(..nodes.len())];
            let (flipped, calls, empty) = (now, beside(world, node), None);
            let leaving = Leaving {
                flipped,
                calls,
                empty,
            };
            left.insert(node, leaving);
            stage::terminate(world, node);
        }
        for (node, leaving) in &mut left {
            let known = &world.nodes[*node];
            if known.power != Power::On {
            } else if is_empty(known) {
                leaving.empty.get_or_insert(now);
            } else {
                leaving.empty = None;
            }
        }
        let is_gone = |node: &usize| world.nodes[*node].power == Power::Gone;
        orders.is_empty() && left.keys().all(is_gone)
    })
    .await;
    let world = world.borrow();
    let flips = left.into_iter().map(|(node, leaving)| {
        let marks = &world.nodes[node].book.marks;
        let set = marks.draining_at.expect("DRAINING was set");
        let answered = marks.answered_at.expect("the hook was answered");
        // Until it is DRAINING the next task may come.
        let gone = leaving.empty.expect("tasks left").max(set);
        Flip {
            set: Duration::from_millis(set - leaving.flipped),
            answered: Duration::from_millis(answered - gone - marks.sidecars_ms),
            calls: beside(&world, node) - leaving.calls,
        }
    });
    flips.collect()
}

/// Moments within the spread, the last first.
fn draw(world: &Shared, number: usize, begins: u64) -> Vec<u64> {
    let rng = &mut world.borrow_mut().rng;
    let mut orders: Vec<u64> = (0..number).map(|_| begins + rng.u64(..SPREAD)).collect();
    orders.sort_unstable_by(|a, b| b.cmp(a));
    orders
}
