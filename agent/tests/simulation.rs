//! Two thousand stories of twenty nodes each, and the same one told twice.
//!
//! `FLEET_SIMULATION_SEED=N` tells one with all that happens; `FLEET_SIMULATION_SEEDS=A..B` looks
//! further than the test does.
#![allow(
    clippy::disallowed_methods,
    reason = "which stories to tell is the caller's choice, and how long it takes is of interest"
)]

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fleet_agent::simulation::{
    FleetOptions, Flip, Illness, Options, REGRESSIONS, Report, fleet, flips, idle_hour,
    replacement, run,
};

const SEEDS: std::ops::Range<u64> = 0..2_000;
/// One test at a time: how long the stories take is a promise, and they use every core.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // One that has failed has nothing to do with the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_story_breaks_a_promise() {
    let _alone = alone();
    if let Ok(seed) = env::var("FLEET_SIMULATION_SEED") {
        let seed = seed.parse().expect("FLEET_SIMULATION_SEED is a number");
        let report = run(seed, traced());
        for line in &report.lines {
            println!("{line}");
        }
        assert!(report.violations.is_empty(), "{}", told(&report));
        return;
    }
    let seeds = match env::var("FLEET_SIMULATION_SEEDS") {
        Ok(range) => {
            let (from, to) = range
                .split_once("..")
                .expect("FLEET_SIMULATION_SEEDS is A..B");
            from.parse().expect("a number")..to.parse().expect("a number")
        }
        Err(_) => SEEDS,
    };
    let began = Instant::now();
    let reports = run_all(listed(REGRESSIONS).into_iter().chain(seeds).collect());
    let seconds: u64 = reports.iter().map(|report| report.seconds).sum();
    println!(
        "{} stories, {} nodes, {} drains, {} AWS calls, {} simulated hours in {:.1} s",
        reports.len(),
        reports.iter().map(|report| report.nodes).sum::<usize>(),
        reports.iter().map(|report| report.drains).sum::<u64>(),
        reports.iter().map(|report| report.aws_calls).sum::<u64>(),
        seconds / 3_600,
        began.elapsed().as_secs_f64()
    );
    let bad: Vec<&Report> = reports
        .iter()
        .filter(|report| !report.violations.is_empty())
        .collect();
    let mut kinds: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for report in &bad {
        kinds
            .entry(report.violations[0].invariant)
            .or_default()
            .push(report.seed);
    }
    for (kind, seeds) in kinds {
        println!(
            "{kind:?}: {} seeds, first {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(8)]
        );
    }
    assert!(
        bad.is_empty(),
        "{} of {} stories broke a promise; the first:\n{}",
        bad.len(),
        reports.len(),
        told(bad[0])
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let _alone = alone();
    for seed in [1, 2, 8] {
        let (one, other) = (run(seed, traced()), run(seed, traced()));
        let differs = one.lines.iter().zip(&other.lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.hash, other.hash);
        assert_ne!(one.hash, run(seed + 100, traced()).hash);
    }
}

/// The seeds of a list with comments.
fn listed(text: &str) -> Vec<u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

fn traced() -> Options {
    Options {
        trace: true,
        ..Options::default()
    }
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for violation in &report.violations {
        text += &format!(
            "{:?} on n{} at {:?}: {}\n",
            violation.invariant, violation.node, violation.at, violation.what
        );
    }
    text + &format!(
        "FLEET_SIMULATION_SEED={} cargo test -p fleet-agent --features simulation --test simulation -- --nocapture no_story",
        report.seed
    )
}

fn run_all(seeds: Vec<u64>) -> Vec<Report> {
    let next = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = seeds.get(usize::try_from(index).expect("small")) else {
                        return;
                    };
                    let report = run(*seed, Options::default());
                    reports.lock().expect("no thread panics").push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("no thread panics");
    reports.sort_by_key(|report| report.seed);
    reports
}

fn share_of(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent).div_ceil(100) - 1]
}

#[test]
fn a_node_acts_at_once_and_calls_little() {
    let _alone = alone();
    let flips = flips(30, 1);
    assert_eq!((flips.drains.len(), flips.warm.len()), (30, 30));
    let of = |value: fn(&Flip) -> Duration| share_of(flips.drains.iter().map(value).collect(), 99);
    let (set, answered) = (of(|flip| flip.set), of(|flip| flip.answered));
    let warm = share_of(flips.warm.clone(), 99);
    let calls = flips.drains.iter().map(|flip| flip.calls).max();
    println!("set {set:?}, answered {answered:?}, warm {warm:?}, calls {calls:?}");
    assert!(set <= Duration::from_millis(2_250), "{set:?}");
    assert!(answered <= Duration::from_secs(1), "{answered:?}");
    assert!(warm <= Duration::from_secs(5), "{warm:?}");
    assert!(calls <= Some(8), "{calls:?}");
}

#[test]
fn an_idle_node_hardly_calls_at_all() {
    let _alone = alone();
    let calls = idle_hour(6, 1);
    assert_eq!(calls.len(), 6);
    assert!(
        calls.iter().all(|calls| (1..=12).contains(calls)),
        "{calls:?}"
    );
}

#[test]
fn nodes_that_leave_together_leave_in_time() {
    let _alone = alone();
    for spot in [false, true] {
        let report = fleet(FleetOptions {
            nodes: 300,
            draining: 60,
            spot,
            seed: 1,
        });
        println!("{report:#?}");
        assert_eq!(report.drained, 60);
        assert_eq!(report.hooks_missed, 0);
        assert_eq!((report.late_draining, report.late_sidecars), (0, 0));
        assert_eq!(report.violations, 0);
        assert!(report.calls_most <= 8, "{report:?}");
    }
}

/// Ten of thirty nodes, at once.
const ILLNESS: Illness = Illness {
    nodes: 30,
    ill: 10,
    apart: Duration::ZERO,
    replacement: "self",
    at_once: 1,
    restarts: None,
    lasts: Duration::from_secs(4 * 3_600),
    seed: 1,
};

#[test]
fn impaired_nodes_are_replaced_one_after_the_other() {
    let _alone = alone();
    for seed in 0..2 {
        for replacement_by in ["self", "asg"] {
            let replaced = replacement(Illness {
                replacement: replacement_by,
                seed,
                ..ILLNESS
            });
            println!("{replacement_by}, seed {seed}: {replaced:?}");
            let counted = (replaced.gone, replaced.serving, replaced.most_out);
            assert_eq!(counted, (10, 30, 1), "{replacement_by}, seed {seed}");
        }
    }
}

#[test]
fn a_budget_of_three_is_used_and_never_exceeded() {
    let _alone = alone();
    let replaced = replacement(Illness {
        at_once: 3,
        ..ILLNESS
    });
    assert_eq!((replaced.gone, replaced.serving), (10, 30), "{replaced:?}");
    assert_eq!(replaced.most_out, 3, "{replaced:?}");
}

#[test]
fn nodes_that_fall_ill_one_after_the_other_are_not_replaced_together() {
    let _alone = alone();
    for apart in [20, 200] {
        let replaced = replacement(Illness {
            apart: Duration::from_secs(apart),
            ..ILLNESS
        });
        assert_eq!(replaced.most_out, 1, "{apart} s apart: {replaced:?}");
        assert_eq!((replaced.gone, replaced.serving), (10, 30), "{replaced:?}");
    }
}

#[test]
fn a_restarted_agent_takes_no_turn_that_is_not_its_own() {
    let _alone = alone();
    let replaced = replacement(Illness {
        restarts: Some(Duration::from_secs(40)),
        ..ILLNESS
    });
    assert_eq!(replaced.most_out, 1, "{replaced:?}");
    assert!(replaced.gone > 0, "{replaced:?}");
}

#[test]
fn a_fault_that_most_of_a_group_shares_replaces_none() {
    let _alone = alone();
    for (nodes, ill) in [(30, 16), (30, 30), (120, 110), (2, 2)] {
        let replaced = replacement(Illness {
            nodes,
            ill,
            lasts: Duration::from_secs(7_200),
            ..ILLNESS
        });
        println!("{ill} of {nodes}: {replaced:?}");
        assert_eq!(
            (replaced.gone, replaced.most_out),
            (0, 0),
            "{ill} of {nodes}"
        );
    }
}

#[test]
fn a_node_that_is_alone_is_replaced_and_with_never_none_is() {
    let _alone = alone();
    for (replacement_by, gone) in [("self", 1), ("never", 0)] {
        let replaced = replacement(Illness {
            nodes: 1,
            ill: 1,
            replacement: replacement_by,
            lasts: Duration::from_secs(3_600),
            ..ILLNESS
        });
        assert_eq!((replaced.gone, replaced.serving), (gone, 1), "{replaced:?}");
    }
}
