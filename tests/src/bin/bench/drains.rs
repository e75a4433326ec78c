//! Drains of real nodes, several at once, read from the nodes' own journals. Nodes and bench share one
//! clock.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use fleet_tests::{Follower, Sandbox, Story, eventually};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Figure, Node, calls, nodes, reset};

/// Nodes of the group; all but one of them leave in each round.
pub(crate) const NODES: usize = 4;
const ROUNDS: usize = 10;
const TASKS_ON_EACH: u64 = 2;
const GROUP: &str = "bench-dev-web";

struct Drain {
    /// IMDS flip -> DRAINING.
    set_seconds: f64,
    /// Last task gone, as Docker and ECS know it -> sidecars begin to stop: the agent's own part of what follows.
    decided_seconds: f64,
    /// Last task gone -> CompleteLifecycleAction, beside what the sidecars took to flush and stop.
    completed_seconds: f64,
    calls: f64,
}

/// Median and maximum over all drains.
pub(crate) fn measure(sandbox: &Sandbox) -> Result<Vec<Figure>> {
    let mut drains = Vec::new();
    for _ in 0..ROUNDS {
        drains.extend(round(sandbox)?);
    }
    eventually("all nodes back", 180, || {
        Ok((nodes(sandbox)?.len() == NODES).then_some(()))
    })?;
    let mut figures = Vec::new();
    let mut of = |name: &str, unit, goal, value: fn(&Drain) -> f64| {
        let values = drains.iter().map(value).collect();
        figures.extend(median_and_maximum(
            &format!("drain: {name}"),
            values,
            unit,
            goal,
        ));
    };
    of("IMDS flip -> DRAINING", "s", "<= 2.25", |d| d.set_seconds);
    of("last task gone -> known", "s", "<= 1", |d| {
        d.decided_seconds
    });
    of(
        "last task gone -> answered, less sidecars",
        "s",
        "<= 1",
        |d| d.completed_seconds,
    );
    of("AWS calls beside heartbeats", "calls", "<= 8", |d| d.calls);
    Ok(figures)
}

/// Two figures of at least one value.
pub(crate) fn median_and_maximum(
    name: &str,
    mut values: Vec<f64>,
    unit: &'static str,
    goal: &'static str,
) -> [Figure; 2] {
    values.sort_by(f64::total_cmp);
    let number = values.len();
    let median = format!("{name}, median of {number}");
    let maximum = format!("{name}, maximum");
    [
        Figure::new(&median, values[number / 2], unit, goal),
        Figure::new(&maximum, values[number - 1], unit, goal),
    ]
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
    reset(sandbox)?;
    let mut flips = Vec::new();
    for node in leaving {
        flips.push(terminate(sandbox, &node.id)?);
    }
    let seen: Vec<Seen> = followed
        .into_iter()
        .map(Followed::end)
        .collect::<Result<_>>()?;
    let _ = sandbox.cli(&["scale", GROUP, &NODES.to_string()])?.exits(0);
    let stopped = stopped(sandbox)?;
    leaving
        .iter()
        .zip(flips)
        .zip(seen)
        .map(|((node, flipped), seen)| {
            let registered = seen.journal.first("registered")?;
            let instance = registered.field("FLEET_CONTAINER_INSTANCE");
            let by_ecs = stopped.get(instance).copied();
            let by_ecs = by_ecs.with_context(|| format!("ECS knows of no task on {instance}"))?;
            let last_task_gone = seen.last_task_gone.max(by_ecs);
            let beside_heartbeats = |call: &Value| {
                call["caller"] == node.key && call["operation"] != "RecordLifecycleActionHeartbeat"
            };
            Ok(Drain {
                set_seconds: seen.at("draining")? - flipped,
                decided_seconds: seen.at("tasks-gone")? - last_task_gone,
                completed_seconds: seen.at("drain-completed")?
                    - last_task_gone
                    - (seen.at("sidecars-stopped")? - seen.at("tasks-gone")?),
                calls: calls(sandbox, beside_heartbeats)?,
            })
        })
        .collect()
}

/// When ECS knew the last task of each container instance to be STOPPED, seconds since 1970.
fn stopped(sandbox: &Sandbox) -> Result<BTreeMap<String, f64>> {
    let mut asked = json!({ "cluster": "bench-dev", "desiredStatus": "STOPPED" });
    let mut last = BTreeMap::new();
    // A page is what DescribeTasks takes; ten rounds stop more.
    loop {
        let page = sandbox.aws("ecs", "list_tasks", &asked)?;
        let tasks = json!({ "cluster": "bench-dev", "tasks": page["taskArns"] });
        let described = sandbox.aws("ecs", "describe_tasks", &tasks)?;
        for task in described["tasks"].as_array().context("tasks")? {
            let instance = task["containerInstanceArn"].as_str().unwrap_or_default();
            let Some(at) = task["stoppedAt"].as_str() else {
                continue;
            };
            let at: Timestamp = at.parse().with_context(|| format!("stoppedAt {at}"))?;
            let last: &mut f64 = last.entry(instance.to_owned()).or_default();
            *last = last.max(at.as_duration().as_secs_f64());
        }
        match page["nextToken"].as_str() {
            Some(token) => asked["nextToken"] = token.into(),
            None => return Ok(last),
        }
    }
}

/// When the node's metadata named the new target, seconds since 1970. None takes its place at once: what
/// boots would have the processors of those that drain, which on AWS no other node has.
fn terminate(sandbox: &Sandbox, node: &str) -> Result<f64> {
    let told = sandbox
        .cli(&["terminate", node, "--decrement"])?
        .exits(0)
        .out;
    let at = told.split_whitespace().next().context("when it began")?;
    let at: Timestamp = at.parse()?;
    Ok(at.as_duration().as_secs_f64())
}

/// A node's journal and Docker's events, until the node is gone.
struct Followed {
    node: String,
    journal: Follower,
    docker: Follower,
}

struct Seen {
    journal: Story,
    last_task_gone: f64,
}

impl Followed {
    fn begin(sandbox: &Sandbox, node: &Node) -> Result<Self> {
        const DEATHS: &str = "exec docker events --since 1h --filter event=die \
            --filter label=com.amazonaws.ecs.task-arn --format '{{.TimeNano}}'";
        Ok(Self {
            node: node.id.clone(),
            journal: sandbox.follow_journal(&node.id)?,
            docker: sandbox.follow(&node.id, DEATHS)?,
        })
    }

    fn end(self) -> Result<Seen> {
        let journal = self.journal.whole_story()?;
        let deaths = self.docker.to_end()?;
        let deaths = deaths
            .lines()
            .filter_map(|line| line.trim().parse::<u64>().ok());
        let last = deaths.max();
        let last = last.with_context(|| format!("no task ended on {}", self.node))?;
        Ok(Seen {
            journal,
            last_task_gone: Duration::from_nanos(last).as_secs_f64(),
        })
    }
}

impl Seen {
    fn at(&self, event: &str) -> Result<f64> {
        Ok(self.journal.first(event)?.at.as_secs_f64())
    }
}

fn run_tasks(sandbox: &Sandbox, count: u64) -> Result<()> {
    let _ = sandbox
        .cli(&["run-tasks", "bench-dev", "web", &count.to_string()])?
        .exits(0);
    Ok(())
}
