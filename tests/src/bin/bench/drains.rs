//! Drains of real nodes, several at once, read from the nodes' own journals. Nodes and bench share one
//! clock.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use fleet_tests::{Sandbox, eventually, program};
use serde_json::Value;

use crate::{Figure, Node, calls, nodes, reset};

/// Nodes of the group; all but one of them leave in each round.
pub(crate) const NODES: usize = 4;
const ROUNDS: usize = 10;
const TASKS_ON_EACH: u64 = 2;

struct Drain {
    /// IMDS flip -> DRAINING.
    set_seconds: f64,
    /// Last task gone -> sidecars begin to stop: the agent's own part of what follows.
    decided_seconds: f64,
    /// Last task gone -> CompleteLifecycleAction.
    completed_seconds: f64,
    calls: f64,
}

/// Median and maximum over all drains.
pub(crate) fn measure(sandbox: &Sandbox) -> Result<Vec<Figure>> {
    let mut drains = Vec::new();
    for _ in 0..ROUNDS {
        drains.extend(round(sandbox)?);
    }
    let number = drains.len();
    let mut figures = Vec::new();
    let mut of = |name: &str, unit, goal, value: fn(&Drain) -> f64| {
        let mut values: Vec<f64> = drains.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let median = format!("drain: {name}, median of {number}");
        figures.push(Figure::new(&median, values[number / 2], unit, goal));
        let maximum = format!("drain: {name}, maximum");
        figures.push(Figure::new(&maximum, values[number - 1], unit, goal));
    };
    of("IMDS flip -> DRAINING", "s", "<= 2.25", |d| d.set_seconds);
    of("last task gone -> known", "s", "<= 1", |d| {
        d.decided_seconds
    });
    of("last task gone -> completed", "s", "<= 1 + sidecars", |d| {
        d.completed_seconds
    });
    of("AWS calls beside heartbeats", "calls", "<= 8", |d| d.calls);
    Ok(figures)
}

/// Runs tasks, takes nodes away through Auto Scaling, and reads what happened when.
fn round(sandbox: &Sandbox) -> Result<Vec<Drain>> {
    // The last round left the tasks where it could: start afresh, so that each node has as many.
    run_tasks(sandbox, 0)?;
    let on_each = |tasks: u64| {
        eventually(
            &format!("{tasks} tasks on each of {NODES} nodes"),
            180,
            || {
                let nodes = nodes(sandbox)?;
                let ready = nodes.len() == NODES && nodes.iter().all(|node| node.tasks == tasks);
                Ok(ready.then_some(nodes))
            },
        )
    };
    on_each(0)?;
    run_tasks(sandbox, NODES as u64 * TASKS_ON_EACH)?;
    let nodes = on_each(TASKS_ON_EACH)?;
    let leaving = &nodes[1..];
    let followed: Vec<Followed> = leaving
        .iter()
        .map(|node| Followed::begin(sandbox, node))
        .collect::<Result<_>>()?;
    // The followers are listening once a record has come through.
    thread::sleep(Duration::from_secs(1));
    reset(sandbox)?;
    let mut flips = Vec::new();
    for node in leaving {
        flips.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
        let _ = sandbox.cli(&["terminate", &node.id])?.exits(0);
    }
    let seen: Vec<Seen> = followed
        .into_iter()
        .map(Followed::end)
        .collect::<Result<_>>()?;
    leaving
        .iter()
        .zip(flips)
        .zip(seen)
        .map(|((node, flipped), seen)| {
            let beside_heartbeats = |call: &Value| {
                call["caller"] == node.key && call["operation"] != "RecordLifecycleActionHeartbeat"
            };
            Ok(Drain {
                set_seconds: seen.when("draining")? - flipped,
                decided_seconds: seen.when("tasks-gone")? - seen.last_task_gone,
                completed_seconds: seen.when("drain-completed")? - seen.last_task_gone,
                calls: calls(sandbox, beside_heartbeats)?,
            })
        })
        .collect()
}

/// A node's journal and Docker's events, until the node is gone.
struct Followed {
    node: String,
    journal: Child,
    docker: Child,
}

struct Seen {
    node: String,
    journal: String,
    last_task_gone: f64,
}

impl Followed {
    fn begin(sandbox: &Sandbox, node: &Node) -> Result<Self> {
        Ok(Self {
            node: node.id.clone(),
            journal: follow(
                sandbox,
                &node.id,
                "journalctl -f -n 0 -o json -u fleet-agent",
            )?,
            docker: follow(
                sandbox,
                &node.id,
                "docker events --filter event=die --filter label=com.amazonaws.ecs.task-arn --format '{{.TimeNano}}'",
            )?,
        })
    }

    fn end(self) -> Result<Seen> {
        let journal = self.journal.wait_with_output()?;
        let docker = self.docker.wait_with_output()?;
        let deaths: Vec<f64> = String::from_utf8_lossy(&docker.stdout)
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect();
        ensure!(!deaths.is_empty(), "no task ended on {}", self.node);
        Ok(Seen {
            node: self.node,
            journal: String::from_utf8_lossy(&journal.stdout).into_owned(),
            last_task_gone: deaths.into_iter().fold(0.0, f64::max) / 1e9,
        })
    }
}

impl Seen {
    fn when(&self, event: &str) -> Result<f64> {
        self.journal
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|record| record["FLEET_EVENT"] == event)
            .and_then(|record| record["__REALTIME_TIMESTAMP"].as_str()?.parse::<f64>().ok())
            .map(|microseconds| microseconds / 1e6)
            .with_context(|| format!("no {event} in the journal of {}", self.node))
    }
}

fn run_tasks(sandbox: &Sandbox, count: u64) -> Result<()> {
    let _ = sandbox
        .cli(&["run-tasks", "bench-dev", "web", &count.to_string()])?
        .exits(0);
    Ok(())
}

fn follow(sandbox: &Sandbox, instance: &str, script: &str) -> Result<Child> {
    let name = sandbox.var("FLEET_SANDBOX_NAME");
    Command::new(program("fleet-sandbox"))
        .args(["exec", "--name", name, instance, "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to follow {instance}"))
}
