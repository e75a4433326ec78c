//! A thousand nodes of ten thousand that have to go at the same time, in one account: what ECS's
//! limits make of it.
//!
//! # Assumptions
//! - Two clusters, each at the most instances that ECS allows, with two tasks a node; the account's
//!   limits are shared by both.
//! - Only nodes that leave have a live agent; the others run their ECS agent and tasks, which take over
//!   what leaves, and of their agents the one call they make is counted: attributes, written anew
//!   within the hour. Ten thousand live ones would tell nothing more, and take ten times as long.
//! - ECS's own drain of managed instances, and what replaces the nodes, ask nothing of these limits.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use fleet_sandbox::ecs::InstanceStatus;
use jiff::SignedDuration;
use tokio::time::sleep;

use super::{
    account::{Account, Bucket},
    agents::{Shared, wall},
    node::Power,
    scenario::{self, NOTICE, Step},
    stage,
    world::{STEP, World},
};
use crate::clients::imds::{SpotAction, SpotNotice};

const CLUSTERS: u32 = 2;
/// Nodes have joined by then.
const JOINED: u64 = 30_000;
/// Agents have found their nodes in service, and written their attributes, whatever the limits.
const SETTLED: u64 = 300_000;
/// All have to go within this.
const WITHIN: u64 = 10_000;
/// Nobody waits for longer than a drain's deadline and a hook's time.
const END: u64 = SETTLED + 4_500_000;
/// How long before a spot end all must be done.
const SPARE: u64 = 10_000;
/// Mean time between an idle agent's calls, seconds: `REFRESH` with its jitter.
const REFRESHED: f64 = 2_700.0;

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub struct FleetOptions {
    /// Nodes of both clusters.
    pub nodes: u32,
    /// Of those the ones that have to go.
    pub draining: u32,
    /// Whether EC2 takes them back after two minutes, or Auto Scaling terminates them and waits.
    pub spot: bool,
    /// Of all chance.
    pub seed: u64,
}

/// What was asked of one bucket while nodes left.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    /// Requests a second, refused ones included.
    pub mean: f64,
    /// In the busiest second.
    pub peak: u64,
    /// Requests refused.
    pub refused: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct FleetReport {
    /// Nodes that had to go.
    pub drained: usize,
    /// Drain hooks that ended unanswered.
    pub hooks_missed: usize,
    /// Spot nodes that were not DRAINING 10 s before their end.
    pub late_draining: usize,
    /// Spot nodes whose sidecars had not stopped 10 s before their end.
    pub late_sidecars: usize,
    /// From IMDS telling until DRAINING, of the slowest that got there.
    pub slowest_draining: Duration,
    /// From IMDS telling until the hook was answered or sidecars had stopped, of the slowest that did.
    pub slowest_completion: Duration,
    /// UpdateContainerInstancesState and PutAttributes.
    pub modify: Load,
    /// ListTasks, DescribeTasks, DescribeContainerInstances.
    pub read: Load,
    /// CompleteLifecycleAction and RecordLifecycleActionHeartbeat.
    pub autoscaling: Load,
    /// Requests of a node beside heartbeats, retries included: mean and most.
    pub calls_mean: f64,
    /// See `calls_mean`.
    pub calls_most: u64,
    /// Promises broken, of all that the simulation looks at.
    pub violations: usize,
    /// Seconds from the first that had to go to the last that was gone.
    pub seconds: u64,
}

/// Tells it; depends on its arguments only.
///
/// # Panics
/// If the simulated world itself is broken.
pub fn fleet(options: FleetOptions) -> FleetReport {
    stage::tell(leave(options))
}

/// A cluster and the nodes of it that are to go.
struct Part {
    world: Shared,
    leaving: BTreeMap<usize, Leaving>,
}

struct Leaving {
    flips_at: u64,
    flipped: bool,
    /// Before it had to go.
    calls: u64,
    gone: bool,
}

async fn leave(options: FleetOptions) -> FleetReport {
    let account: Rc<RefCell<Account>> = Rc::default();
    let mut parts: Vec<Part> = (0..CLUSTERS)
        .map(|number| Part::new(&options, number, &account))
        .collect();
    go_on(&mut parts, &account, &options, JOINED, |_| false).await;
    for part in &parts {
        let tasks = 2 * options.nodes / CLUSTERS;
        stage::run_tasks(&mut part.world.borrow_mut(), tasks);
    }
    go_on(&mut parts, &account, &options, SETTLED, |_| false).await;
    let is_over = |parts: &[Part]| {
        let mut all = parts.iter().flat_map(|part| part.leaving.values());
        all.all(|leaving| leaving.gone)
    };
    let mut report = go_on(&mut parts, &account, &options, END, is_over).await;
    let end = parts[0].world.borrow().millis();
    let account = account.borrow();
    let load = |bucket| {
        let (from, until) = (SETTLED / 1_000, end / 1_000 + 1);
        let mut load = Load::default();
        for asked in account.asked(bucket, from, until) {
            load.mean += (asked.taken + asked.refused) as f64 / (until - from) as f64;
            load.peak = load.peak.max(asked.taken + asked.refused);
            load.refused += asked.refused;
        }
        load
    };
    report.modify = load(Bucket::Modify);
    report.read = load(Bucket::Read);
    report.autoscaling = load(Bucket::AutoScaling);
    report.seconds = (end - SETTLED) / 1_000;
    for part in &parts {
        part.sum_up(&mut report);
    }
    report.calls_mean /= report.drained as f64;
    report
}

impl Part {
    fn new(options: &FleetOptions, number: u32, account: &Rc<RefCell<Account>>) -> Self {
        let group = if options.spot { "spot" } else { "web" };
        let nodes = options.nodes / CLUSTERS;
        let seed = options.seed ^ (u64::from(number) << 32);
        let mut world = stage::world(seed, account, group, nodes, false);
        let every = options.nodes / options.draining;
        let leaving = (0..options.draining / CLUSTERS).map(|index| {
            let leaving = Leaving {
                flips_at: SETTLED + world.rng.u64(..WITHIN),
                flipped: false,
                calls: 0,
                gone: false,
            };
            ((index * every) as usize, leaving)
        });
        let leaving = leaving.collect();
        Self {
            world: Rc::new(RefCell::new(world)),
            leaving,
        }
    }

    /// Lets time have its way once.
    fn step(&mut self, options: &FleetOptions, report: &mut FleetReport) {
        let due = self.world.borrow_mut().step();
        for step in due {
            if let Step::StartAgent(node) = &step
                && !self.leaving.contains_key(node)
            {
                let world = &mut *self.world.borrow_mut();
                world.nodes[*node].released = true;
                world.start_ecs(*node);
                continue;
            }
            if let Step::Interrupt(node, ..) = &step {
                self.judge_spot(*node, report);
                self.gone(*node);
            }
            if let Step::Terminate(node) = &step {
                if !options.spot && self.leaving.contains_key(node) {
                    let world = self.world.borrow();
                    let marks = &world.nodes[*node].book.marks;
                    report.hooks_missed += usize::from(marks.answered_at.is_none());
                }
                self.gone(*node);
            }
            scenario::perform(&self.world, step);
        }
        let world = &mut *self.world.borrow_mut();
        let now = world.millis();
        for (node, leaving) in &mut self.leaving {
            if leaving.flipped || leaving.flips_at > now {
                continue;
            }
            leaving.flipped = true;
            leaving.calls = world.nodes[*node].book.marks.requests;
            // Times are counted from here.
            leaving.flips_at = now;
            if options.spot {
                interrupt(world, *node, now);
            } else {
                stage::terminate(world, *node);
            }
        }
    }

    fn gone(&mut self, node: usize) {
        if let Some(leaving) = self.leaving.get_mut(&node) {
            leaving.gone = true;
        }
    }

    /// EC2 takes it now.
    fn judge_spot(&self, node: usize, report: &mut FleetReport) {
        let world = self.world.borrow();
        let by = world.millis() - SPARE;
        let known = &world.nodes[node];
        let set = known.book.marks.draining_at;
        report.late_draining += usize::from(set.is_none_or(|at| at > by));
        let stopped = known.book.sidecars_stopped_at;
        report.late_sidecars += usize::from(stopped.is_none_or(|at| at > by));
    }

    fn sum_up(&self, report: &mut FleetReport) {
        let world = self.world.borrow();
        report.violations += world.violations.len();
        for (node, leaving) in &self.leaving {
            let book = &world.nodes[*node].book;
            let since = |at: u64| Duration::from_millis(at - leaving.flips_at);
            let set = book.marks.draining_at.map(since).unwrap_or_default();
            report.slowest_draining = report.slowest_draining.max(set);
            let done = book.marks.answered_at.or(book.sidecars_stopped_at);
            let done = done.map(since).unwrap_or_default();
            report.slowest_completion = report.slowest_completion.max(done);
            let calls = book.marks.requests - book.heartbeats - leaving.calls;
            report.calls_mean += calls as f64;
            report.calls_most = report.calls_most.max(calls);
            report.drained += usize::from(leaving.flipped);
        }
    }
}

fn interrupt(world: &mut World, node: usize, now: u64) {
    let action = SpotAction::Terminate;
    let time = wall(world, node) + SignedDuration::from_millis(NOTICE as i64);
    let known = &mut world.nodes[node];
    assert_eq!(known.power, Power::On);
    known.notice = Some(SpotNotice { action, time });
    known.cause(format!("spot-{now}"), true, now + NOTICE);
    world.later(NOTICE, Step::Interrupt(node, action, now));
    debug_assert_eq!(world.instance_status(node), Some(InstanceStatus::Active));
}

/// Both clusters, second by second, and between seconds where a node has to go.
async fn go_on(
    parts: &mut [Part],
    account: &Rc<RefCell<Account>>,
    options: &FleetOptions,
    until: u64,
    is_over: impl Fn(&[Part]) -> bool,
) -> FleetReport {
    let mut report = FleetReport::default();
    let mut idle = 0.0;
    loop {
        for part in &mut *parts {
            part.step(options, &mut report);
        }
        let (now, millis) = {
            let world = parts[0].world.borrow();
            (world.now(), world.millis())
        };
        idle += STEP.as_secs_f64() * f64::from(options.nodes - options.draining) / REFRESHED;
        while idle >= 1.0 {
            idle -= 1.0;
            account.borrow_mut().ask("PutAttributes", now, millis);
        }
        if millis >= until || is_over(parts) {
            return report;
        }
        sleep(STEP).await;
    }
}
