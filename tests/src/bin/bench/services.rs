//! What looking after a node costs: at rest, for a long time, and when something is wrong or changes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use fleet_tests::{
    Sandbox, eventually,
    stage::{Stage, now},
};
use serde_json::{Value, json};

use crate::{Figure, Process, calls, nodes, reset};

/// How long an idle node with three sidecars is watched.
const IDLE: Duration = Duration::from_secs(600);
/// How long one lives that waits a hundred times shorter between its rounds: a day, to it.
const SOAK: Duration = Duration::from_secs(900);
const PACE: u32 = 100;
/// What it takes to have done everything once.
const SETTLED: Duration = Duration::from_secs(60);
const PARAMETER: &str = "/fleet/shop/dev/web/agent";

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let sandbox = Sandbox::up("bench-services")?;
    let sidecars: Vec<String> = ["logs", "metrics", "traces"].map(sidecar).into();
    let stage = Stage::up(&sandbox, 3, "", &sidecars.concat())?;
    let [idle, soaked, ill] = [0, 1, 2].map(|index| stage.nodes[index].clone());
    let mut figures = changes(&stage, &ill)?;
    figures.push(hung(&stage, &ill)?);
    let ended = thread::scope(|scope| {
        let idle = scope.spawn(|| rest(&sandbox, &idle));
        let soaked = soak(&stage, &soaked)?;
        let mut ended = idle.join().expect("no panic")?;
        ended.extend(soaked);
        anyhow::Ok(ended)
    })?;
    figures.extend(ended);
    Ok(figures)
}

fn sidecar(name: &str) -> String {
    format!(
        "[environments.dev.sidecars.{name}]\nimage = \"fleet-sandbox/busybox:1\"\n\
         command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do sleep 3600 & wait; done\"]\n\
         env = {{ LEVEL = \"info\" }}\nmemory_mib = 16\nstop_timeout_seconds = 2\n"
    )
}

fn rest(sandbox: &Sandbox, node: &str) -> Result<Vec<Figure>> {
    let key = nodes(sandbox)?.into_iter().find(|known| known.id == node);
    let key = key.context("the node in service")?.key;
    reset(sandbox)?;
    let before = Process::of(sandbox, node)?;
    thread::sleep(IDLE);
    let after = Process::of(sandbox, node)?;
    let minutes = IDLE.as_secs_f64() / 60.0;
    let name = |what: &str| format!("agent, three sidecars, idle for 10 minutes: {what}");
    Ok(vec![
        Figure::new(&name("resident memory"), after.resident_mb, "MB", "<= 12"),
        Figure::new(
            &name("CPU per minute"),
            (after.cpu_ms - before.cpu_ms) / minutes,
            "ms",
            "<= 60",
        ),
        Figure::new(&name("threads"), after.threads, "", "<= 2"),
        Figure::new(
            &name("AWS calls"),
            calls(sandbox, |call| call["caller"] == key)?,
            "calls",
            "<= 2",
        ),
    ])
}

fn soak(stage: &Stage<'_>, node: &str) -> Result<Vec<Figure>> {
    stage.hurry(node, PACE)?;
    thread::sleep(SETTLED);
    let before = Process::of(stage.sandbox, node)?;
    thread::sleep(SOAK.saturating_sub(SETTLED));
    let after = Process::of(stage.sandbox, node)?;
    let grown = |what: &str, before: f64, after: f64, unit, goal| {
        let name = format!("agent at {PACE} times its pace for 15 minutes: {what}");
        Figure::new(&name, after - before, unit, goal)
    };
    Ok(vec![
        grown(
            "memory grown by",
            before.resident_mb,
            after.resident_mb,
            "MB",
            "<= 0.5",
        ),
        grown("files grown by", before.files, after.files, "", "<= 4"),
    ])
}

/// From the tag to the changed sidecar running, its image being there.
fn changes(stage: &Stage<'_>, node: &str) -> Result<Vec<Figure>> {
    let sandbox = stage.sandbox;
    let found = sandbox.aws("ssm", "get_parameter", &json!({ "Name": PARAMETER }))?;
    let text = found["Parameter"]["Value"].as_str().context("a value")?;
    let mut live: Value = serde_json::from_str(text)?;
    live["revision"] = 1.into();
    live["sidecars"]["logs"]["env"]["LEVEL"] = "debug".into();
    let put = json!({ "Name": PARAMETER, "Value": live.to_string(), "Overwrite": true });
    let _ = sandbox.aws("ssm", "put_parameter", &put)?;
    let tag = json!({
        "Resources": [node],
        "Tags": [{ "Key": "fleet:revision", "Value": "1" }],
    });
    let _ = sandbox.aws("ec2", "create_tags", &tag)?;
    let told = Instant::now();
    eventually("the changed sidecar", 60, || {
        let inspect = "docker inspect --format '{{.Config.Env}} {{.State.Running}}' fleet-logs";
        let found = sandbox.on(node, inspect)?.out;
        Ok((found.contains("LEVEL=debug") && found.contains("true")).then_some(()))
    })?;
    let took = told.elapsed().as_secs_f64();
    let name = "live change: the node's tag -> its changed sidecar runs";
    let figure = Figure::new(name, took, "s", "<= 15");
    stage.await_phase(node, "in-service", 30)?;
    Ok(vec![figure])
}

fn hung(stage: &Stage<'_>, node: &str) -> Result<Figure> {
    let sandbox = stage.sandbox;
    let signal = |signal: &str| {
        let kill = format!("systemctl kill --kill-who=main --signal={signal} docker");
        sandbox.on(node, &kill).map(|ran| drop(ran.exits(0)))
    };
    signal("STOP")?;
    let began = now();
    eventually("an impaired node", 60, || {
        let health = sandbox.instance(node)?["attributes"]["fleet.health"].clone();
        Ok((health == "impaired").then_some(()))
    })?;
    let took = (now() - began).as_secs_f64();
    signal("CONT")?;
    let name = "dockerd hung -> impaired published";
    Ok(Figure::new(name, took, "s", "<= 30"))
}
