//! Docker and what it stands on, ill in each of the ways that people have met.

use std::time::Duration;

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    stage::{Stage, await_event, now},
};

use super::await_attribute;

#[test]
fn an_ill_docker_is_seen_and_seen_to_be_well_again() {
    let sandbox = Sandbox::up("it-docker").expect("a sandbox");
    let stage = Stage::up(&sandbox, 3, "", "").expect("up");
    stage.play(&[hung, gone, runs_nothing]);
    complaints(&stage, &stage.nodes[0]).expect("a complaint of the kernel");
}

/// Published within 30 s, and the agent itself answers meanwhile.
fn hung(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let signal = |signal: &str| {
        let kill = format!("systemctl kill --kill-who=main --signal={signal} docker");
        sandbox.on(node, &kill).map(|ran| drop(ran.exits(0)))
    };
    signal("STOP")?;
    let began = now();
    await_attribute(sandbox, node, "fleet.health", "impaired", 40)?;
    let took = now() - began;
    assert!(took <= Duration::from_secs(30), "{took:?}");
    let told = stage.told(node)?;
    assert_eq!(told["reason"], "docker-ping", "{told}");
    signal("CONT")?;
    await_attribute(sandbox, node, "fleet.health", "ok", 60)
}

fn gone(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    let stop = "systemctl stop docker.socket docker.service";
    let _ = sandbox.on(node, stop)?.exits(0);
    await_event(&journal, "health-changed", 30)?;
    assert_eq!(stage.told(node)?["health"], "impaired");
    let _ = sandbox.on(node, "systemctl start docker")?.exits(0);
    await_attribute(sandbox, node, "fleet.health", "ok", 60)
}

/// It answers, lists and pings, and cannot start a thing.
fn runs_nothing(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let _ = sandbox
        .on(node, "mv /usr/sbin/runc /usr/sbin/runc.away")?
        .exits(0);
    stage.hurry(node, 5)?;
    await_attribute(sandbox, node, "fleet.reason", "docker-run", 60)?;
    let _ = sandbox
        .on(node, "mv /usr/sbin/runc.away /usr/sbin/runc")?
        .exits(0);
    await_attribute(sandbox, node, "fleet.health", "ok", 90)?;
    // Containers of tasks that are made and never start.
    let failing = "for i in 1 2 3 4 5; do docker run --rm --label com.amazonaws.ecs.task-arn=x \
                   fleet-sandbox/busybox:1 /nowhere; done; true";
    let _ = sandbox.on(node, failing)?.exits(0);
    await_attribute(sandbox, node, "fleet.reason", "start-failures", 30)
}

/// Replayed from a file: nodes share the kernel, and its log.
fn complaints(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let say = "echo '4,1,2,-;task dockerd:871 blocked for more than 120 seconds.' \
               >>/var/log/kernel-of-this-node";
    let _ = sandbox.on(node, say)?.exits(0);
    await_attribute(sandbox, node, "fleet.reason", "kernel", 30)
}
