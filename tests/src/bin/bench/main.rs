//! `make bench`: what the agent costs and how quickly it acts, measured on real nodes in one run.
//!
//! Prints a table and writes the same figures to `target/bench.json`. A goal that is missed is told
//! beside its figure and fails nothing: how quick this machine is decides, too. With names of parts as
//! arguments only those are measured.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "measures programs by the clock, and prints"
)]

mod boot;
mod drains;
mod environments;
mod provision;
mod scenes;
mod services;
mod simulated;

use std::{env, fs, thread, time::Duration};

use anyhow::{Context, Result, bail};
use fleet_tests::{Fleet, Sandbox, agent_source, target};
use serde::Serialize;
use serde_json::Value;

/// How long the idle agent is watched, seconds.
const IDLE_SECONDS: u64 = 60;

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// `<= N`, `>= N`, `N` for no more than that, or nothing.
    goal: &'static str,
    met: Option<bool>,
}

impl Figure {
    fn new(name: &str, value: f64, unit: &'static str, goal: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            goal,
            met: is_met(value, goal),
        }
    }
}

/// None without a goal.
fn is_met(value: f64, goal: &str) -> Option<bool> {
    let (relation, bound) = goal.split_once(' ').unwrap_or(("<=", goal));
    let bound: f64 = bound.parse().ok()?;
    match relation {
        "<=" => Some(value <= bound),
        ">=" => Some(value >= bound),
        _ => None,
    }
}

/// What can be measured for itself, in this order.
const PARTS: [(&str, Measure); 7] = [
    ("provision", provision::measure),
    ("environments", environments::measure),
    ("boot", boot::measure),
    ("fleet", fleet_and_drains),
    ("scenes", scenes::measure),
    ("services", services::measure),
    ("simulated", || Ok(simulated::measure())),
];

type Measure = fn() -> Result<Vec<Figure>>;

fn main() -> Result<()> {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let unknown = wanted
        .iter()
        .find(|name| !PARTS.iter().any(|(part, _)| part == name));
    if let Some(name) = unknown {
        bail!(
            "no part `{name}`: provision, environments, boot, fleet, scenes, services, simulated, or none for all of them"
        );
    }
    let mut figures = Vec::new();
    for (part, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|name| name == part) {
            println!("measuring: {part}");
            let found = measure()?;
            tell(&found);
            figures.extend(found);
        }
    }
    let mut name = vec!["bench".to_owned()];
    name.extend(wanted);
    let file = target().join(format!("{}.json", name.join("-")));
    fs::write(&file, serde_json::to_string_pretty(&figures)?)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

fn tell(figures: &[Figure]) {
    for figure in figures {
        let met = match figure.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!(
            "{:72} {:>8.2} {:8} {:8} {met}",
            figure.name, figure.value, figure.unit, figure.goal
        );
    }
}

fn fleet_and_drains() -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut note = |name: &str, value: f64, unit, goal| {
        figures.push(Figure::new(name, value, unit, goal));
    };
    let sandbox = Sandbox::up("bench")?;
    let fleet = fleet(&sandbox)?;

    reset(&sandbox)?;
    let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    note(
        "up: AWS calls, nodes awaited",
        calls_of_bootstrap(&sandbox)?,
        "calls",
        "",
    );
    note(
        "up: of these, writes",
        writes_of_bootstrap(&sandbox)?,
        "calls",
        "",
    );
    reset(&sandbox)?;
    let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    note(
        "no-op up: AWS calls",
        calls_of_bootstrap(&sandbox)?,
        "calls",
        "",
    );
    note(
        "no-op up: of these, writes",
        writes_of_bootstrap(&sandbox)?,
        "calls",
        "0",
    );

    let idle = idle(&sandbox, &nodes(&sandbox)?[0])?;
    note(
        "agent, idle: resident memory",
        idle.process.resident_mb,
        "MB",
        "<= 12",
    );
    note(
        "agent, idle: CPU per minute",
        idle.cpu_ms_per_minute,
        "ms",
        "<= 60",
    );
    note("agent, idle: threads", idle.process.threads, "", "<= 2");

    for figure in drains::measure(&sandbox)? {
        note(&figure.name, figure.value, figure.unit, figure.goal);
    }

    reset(&sandbox)?;
    let _ = fleet.bootstrap(&["down", "dev", "--yes"])?.exits(0);
    note(
        "down: AWS calls, nodes awaited",
        calls_of_bootstrap(&sandbox)?,
        "calls",
        "",
    );
    note(
        "down: of these, writes",
        writes_of_bootstrap(&sandbox)?,
        "calls",
        "",
    );

    Ok(figures)
}

fn fleet(sandbox: &Sandbox) -> Result<Fleet<'_>> {
    let source = agent_source(sandbox)?;
    Fleet::init(
        sandbox,
        "bench",
        &format!(
            "[environments.dev.agent]\n{source}\n\
             [environments.dev.groups.web]\nmin = 1\nmax = 8\ndesired = {nodes}\n\
             [environments.dev.sidecars.node-logs]\nimage = \"fleet-sandbox/busybox:1\"\n\
             command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do sleep 3600 & wait; done\"]\n\
             before_tasks = true\nmemory_mib = 16\nstop_timeout_seconds = 5\n",
            nodes = drains::NODES
        ),
    )
}

/// The agent's process on a node, as the kernel counts.
struct Process {
    resident_mb: f64,
    /// Used since it started.
    cpu_ms: f64,
    threads: f64,
    /// Open ones.
    files: f64,
}

impl Process {
    fn of(sandbox: &Sandbox, node: &str) -> Result<Self> {
        // Not `pidof`: what probes Docker is a fleet-agent, too, now and then.
        const READ: &str = "cd /proc/$(systemctl show -p MainPID --value fleet-agent) && \
                            awk '{print $14 + $15}' stat && ls fd | wc -l && cat status";
        let told = sandbox.on(node, READ)?.exits(0).out;
        let mut lines = told.lines();
        let mut number = || {
            let line = lines.next().context("a line")?;
            line.trim().parse::<f64>().context("a number")
        };
        // A tick is 10 ms on every Linux that this runs on.
        let cpu_ms = number()? * 10.0;
        let files = number()?;
        let field = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            number
                .and_then(|number| number.parse::<f64>().ok())
                .context(name.to_owned())
        };
        Ok(Self {
            resident_mb: field("VmRSS:")? / 1024.0,
            cpu_ms,
            threads: field("Threads:")?,
            files,
        })
    }
}

struct Idle {
    process: Process,
    cpu_ms_per_minute: f64,
}

/// Watches a node that has nothing to do.
fn idle(sandbox: &Sandbox, node: &Node) -> Result<Idle> {
    let before = Process::of(sandbox, &node.id)?;
    thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let process = Process::of(sandbox, &node.id)?;
    Ok(Idle {
        cpu_ms_per_minute: (process.cpu_ms - before.cpu_ms) * 60.0 / float(IDLE_SECONDS),
        process,
    })
}

#[derive(Debug)]
struct Node {
    id: String,
    key: String,
    tasks: u64,
}

/// The nodes in service, as the sandbox sees them.
fn nodes(sandbox: &Sandbox) -> Result<Vec<Node>> {
    let status = sandbox.status()?;
    let instances = status["groups"][0]["instances"].as_array().cloned();
    Ok(instances
        .unwrap_or_default()
        .iter()
        .filter(|instance| instance["lifecycle_state"] == "InService")
        .filter_map(|instance| {
            Some(Node {
                id: instance["instance_id"].as_str()?.to_owned(),
                key: instance["access_key_id"].as_str()?.to_owned(),
                tasks: instance["tasks"].as_u64()?,
            })
        })
        .collect())
}

fn reset(sandbox: &Sandbox) -> Result<()> {
    let _ = sandbox.cli(&["calls", "--reset"])?.exits(0);
    Ok(())
}

fn calls_of_bootstrap(sandbox: &Sandbox) -> Result<f64> {
    calls(sandbox, |call| call["caller"] == "sandbox")
}

fn writes_of_bootstrap(sandbox: &Sandbox) -> Result<f64> {
    calls(sandbox, |call| {
        let operation = call["operation"].as_str().unwrap_or("");
        call["caller"] == "sandbox"
            && !["Describe", "Get", "List"]
                .iter()
                .any(|read| operation.starts_with(read))
    })
}

fn calls(sandbox: &Sandbox, counts: impl Fn(&Value) -> bool) -> Result<f64> {
    let calls = sandbox.cli(&["calls", "--json"])?.exits(0).json()?;
    let calls = calls.as_array().context("a list of calls")?;
    let counted: u64 = calls
        .iter()
        .filter(|call| counts(call))
        .filter_map(|call| call["calls"].as_u64())
        .sum();
    Ok(float(counted))
}

#[allow(clippy::cast_precision_loss, reason = "all are far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_or_missed_or_there_is_none() {
        assert_eq!(is_met(2.0, "<= 2.25"), Some(true));
        assert_eq!(is_met(2.5, "<= 2.25"), Some(false));
        assert_eq!(is_met(9.9, ">= 10"), Some(false));
        assert_eq!(is_met(1.0, "0"), Some(false));
        assert_eq!(is_met(1.0, ""), None);
    }
}
