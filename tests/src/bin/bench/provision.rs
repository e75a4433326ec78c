//! What fleet-bootstrap takes when every call to AWS takes a tenth of a second, as from a laptop far away.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use fleet_tests::{Fleet, Ran, Sandbox, agent_source, program, run};

use super::{Figure, calls_of_bootstrap, reset, writes_of_bootstrap};

/// Of every attempt of every call of fleet-bootstrap's.
pub(super) const FAR_AWAY: &str = r#"[{"caller": "sandbox", "latency_ms": 100}]"#;
/// Round trips that depend on each other, reads included, until the first node may be started: who we are; all
/// by name; details; role and cluster; policy and template; group; provider; attachment; size.
const CHAIN: f64 = 9.0;
/// How long the sandbox, as ECS does, takes to attach a provider to its cluster, to take it off, and to delete
/// it, seconds.
const ATTACHMENT: f64 = 0.3;
const ROUND_TRIP: f64 = 0.1;
/// Of `down`, without a node: who we are; all by name; details; size and its look; the cluster's list and the
/// provider off it; provider; group and its look; what is left in the cluster, its end and its look; all by
/// name and details again.
const CHAIN_DOWN: f64 = 15.0;
/// Starts of the program to take the middle of.
const STARTS: usize = 21;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let sandbox = Sandbox::up("bench-provision")?;
    let source = agent_source(&sandbox)?;
    let settings = format!(
        "[environments.dev.agent]\n{source}\n[environments.dev.groups.web]\nmin = 1\nmax = 2\ndesired = 1\n"
    );
    let fleet = Fleet::init(&sandbox, "far", &settings)?;
    let mut figures = vec![Figure::new(
        "fleet-bootstrap --help",
        help()? * 1e3,
        "ms",
        "<= 20",
    )];
    let mut note = |name: &str, value: f64, unit, goal| {
        figures.push(Figure::new(name, value, unit, goal));
    };
    // An account's very first fleet makes the services' own roles, too.
    for command in ["up", "down"] {
        let _ = fleet.bootstrap(&[command, "dev", "--yes"])?.exits(0);
    }
    let _ = sandbox.cli(&["faults", FAR_AWAY])?.exits(0);

    reset(&sandbox)?;
    let first_node = ["up", "dev", "--yes"];
    let (_, seconds) = timed(|| fleet.bootstrap_killed_after(&first_node, "start the first node"))?;
    let chain = CHAIN * ROUND_TRIP + ATTACHMENT;
    note(
        "cold up, 100 ms a call: until the first node is started",
        seconds,
        "s",
        "",
    );
    note(
        "cold up: of its chain of dependent calls",
        seconds / chain,
        "",
        "<= 1.25",
    );
    note(
        "cold up: calls until then",
        calls_of_bootstrap(&sandbox)?,
        "calls",
        "<= 45",
    );
    let _ = fleet.bootstrap(&first_node)?.exits(0);

    for command in [&["plan", "dev"][..], &first_node] {
        reset(&sandbox)?;
        let (ran, seconds) = timed(|| fleet.bootstrap(command))?;
        let _ = ran.exits(0);
        let name = command[0];
        note(
            &format!("no-op {name}, 100 ms a call"),
            seconds,
            "s",
            "<= 0.6",
        );
        note(
            &format!("no-op {name}: calls"),
            calls_of_bootstrap(&sandbox)?,
            "calls",
            "",
        );
    }

    reset(&sandbox)?;
    let (ran, seconds) = timed(|| fleet.bootstrap(&["down", "dev", "--yes"]))?;
    let _ = ran.exits(0);
    note("down, 100 ms a call, its node included", seconds, "s", "");
    note("down: writes", writes_of_bootstrap(&sandbox)?, "calls", "");

    fleet.replace("min = 1\nmax = 2\ndesired = 1\n", "min = 0\nmax = 2\n")?;
    let _ = fleet.bootstrap(&first_node)?.exits(0);
    let (ran, seconds) = timed(|| fleet.bootstrap(&["down", "dev", "--yes"]))?;
    let _ = ran.exits(0);
    let chain = CHAIN_DOWN * ROUND_TRIP + 2.0 * ATTACHMENT;
    note("down, 100 ms a call, no node", seconds, "s", "");
    note(
        "down, no node: of its chain of dependent calls",
        seconds / chain,
        "",
        "<= 1.25",
    );
    Ok(figures)
}

fn timed(work: impl FnOnce() -> Result<Ran>) -> Result<(Ran, f64)> {
    let began = Instant::now();
    let ran = work()?;
    Ok((ran, began.elapsed().as_secs_f64()))
}

/// The middle of many starts, seconds.
fn help() -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let _ = run(Command::new(program("fleet-bootstrap")).arg("--help"))?.exits(0);
        times.push(began.elapsed());
    }
    times.sort();
    let middle: Duration = times[STARTS / 2];
    Ok(middle.as_secs_f64())
}
