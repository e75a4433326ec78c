//! One story from its seed to its end.

use std::{cell::RefCell, rc::Rc};

use fleet_agent_config::Settings;
use tokio::time::sleep;

use super::{
    agents::Shared,
    checks::{Invariant, Violation},
    node::Power,
    scenario::{self, QUIET},
    stage,
    world::{STEP, World},
};

/// Nothing that has begun by the quiet end takes longer.
const END: u64 = QUIET + 360_000;
/// AWS calls of a launch, when nothing goes wrong.
const LAUNCH_CALLS: u64 = 8;
/// AWS calls of a drain beside heartbeats, when nothing goes wrong.
const DRAIN_CALLS: u64 = 8;
/// AWS calls a minute that come to nothing, of all jobs that are tried again later and later.
const RETRIES: u64 = 12;

/// What a story is made of.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes there are at first.
    pub nodes: u32,
    /// Whether to tell everything that happens.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 20,
            trace: false,
        }
    }
}

/// What came of a story.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Which one.
    pub seed: u64,
    /// Promises broken, in their order.
    pub violations: Vec<Violation>,
    /// Nodes that were launched.
    pub nodes: usize,
    /// Causes to go that were made.
    pub drains: u64,
    /// Calls of AWS by agents, heartbeats included.
    pub aws_calls: u64,
    /// Seconds of the story.
    pub seconds: u64,
    /// Of all lines; only if they were wanted.
    pub hash: u64,
    /// What happened; only if it was wanted.
    pub lines: Vec<String>,
}

/// Tells the story of a seed.
///
/// # Panics
/// If the simulated world itself is broken.
pub fn run(seed: u64, options: Options) -> Report {
    stage::tell(tell(seed, options))
}

async fn tell(seed: u64, options: Options) -> Report {
    let mut world = World::new(
        seed,
        settings(seed),
        i64::from(seed % 3 == 1) * 4_000,
        options.trace,
    );
    world.is_fair = seed.is_multiple_of(8);
    scenario::begin(&mut world, options.nodes);
    let world: Shared = Rc::new(RefCell::new(world));
    loop {
        let due = world.borrow_mut().step();
        for step in due {
            scenario::perform(&world, step);
        }
        if is_over(&world.borrow()) {
            break;
        }
        sleep(STEP).await;
    }
    let mut world = world.borrow_mut();
    judge_calls(&mut world);
    let books = || world.nodes.iter().map(|node| &node.book);
    Report {
        seed,
        nodes: world.nodes.len(),
        drains: books().map(|book| book.drains).sum(),
        aws_calls: books().map(|book| book.aws_calls).sum(),
        seconds: world.millis() / 1_000,
        hash: world.trace.hash,
        violations: std::mem::take(&mut world.violations),
        lines: std::mem::take(&mut world.trace.lines),
    }
}

fn is_over(world: &World) -> bool {
    let Some(quiet) = world.is_quiet_since else {
        return false;
    };
    let now = world.millis();
    if now >= END {
        return true;
    }
    // Looked at now and then only.
    if now < quiet + 70_000 || now % 5_000 >= 1_000 || !world.agenda.is_empty() {
        return false;
    }
    world.nodes.iter().all(|node| {
        let known = world.autoscaling.instance(&node.instance);
        let leaves = known.is_some_and(|(_, known)| known.state.is_terminating());
        let settles = node
            .book
            .serving_since
            .is_some_and(|since| since + 70_000 > now);
        let stands = node
            .book
            .causes
            .iter()
            .any(|made| made.withdrawn.is_none_or(|at| at + 130_000 > now));
        node.power == Power::Gone || !(leaves || settles || stands)
    })
}

fn judge_calls(world: &mut World) {
    let minutes = world.millis() / 60_000;
    for index in 0..world.nodes.len() {
        let book = &world.nodes[index].book;
        let made = book.aws_calls - book.heartbeats;
        let well = LAUNCH_CALLS + DRAIN_CALLS * book.drains;
        let most = if world.is_fair {
            well
        } else {
            well * (1 + book.restarts) + RETRIES * minutes
        };
        if made > most {
            let what = format!(
                "{made} calls of AWS beside heartbeats for {} drains",
                book.drains
            );
            world.violate(Invariant::FewCalls, index, what);
        }
    }
}

fn settings(seed: u64) -> Settings {
    let timeout = [60, 90, 120][(seed % 3) as usize];
    let policy = if seed.is_multiple_of(2) {
        "wait"
    } else {
        "stop"
    };
    stage::settings(
        &format!("launch_timeout_seconds = 120\ndrain_timeout_seconds = {timeout}\n"),
        &format!(
            "[drain]\ndeadline_seconds = 150\nrebalance = \"drain\"\n\
             maintenance_lead_seconds = 60\n\n[drain.standalone.batch]\npolicy = \"{policy}\"\n"
        ),
    )
}
