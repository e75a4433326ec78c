//! A disk that fills up: what nobody needs goes, and then the node.

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    stage::{Stage, await_event},
};

use super::await_attribute;

/// The age at which an image may go: none here waits an hour.
const GROUP: &str = "ecs = { ECS_IMAGE_MINIMUM_CLEANUP_AGE = \"1s\" }";

#[test]
fn a_low_disk_is_cleared_and_a_full_one_makes_the_node_leave() {
    let sandbox = Sandbox::up("it-disk").expect("a sandbox");
    let mut stage = Stage::up(&sandbox, 2, GROUP, "").expect("up");
    stage.run_on_each(600).expect("tasks");
    stage.play(&[low, full]);
}

/// A small disk under the logs, so that it can be filled. The first file makes it low, the second full.
const DISK: &str =
    "mkdir -p /var/log/journal /tmp/log && mount -t tmpfs -o size=20m tmpfs /var/log";
const LOW: &str = "head -c 17M /dev/zero >/var/log/low";
const FULL: &str =
    "cat /dev/zero >/var/log/full; test $(df --output=pcent /var/log | tail -1 | tr -d ' %') = 100";

fn low(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let images = "docker commit $(docker create fleet-sandbox/busybox:1 true) unused:1 && docker rm $(docker ps -aq --filter status=created)";
    let _ = sandbox.on(node, images)?.exits(0);
    stage.hurry(node, 5)?;
    let journal = sandbox.follow_journal(node)?;
    // It has to be open before another directory covers it.
    await_event(&journal, "started", 30)?;
    let _ = sandbox.on(node, &format!("{DISK} && {LOW}"))?.exits(0);
    await_event(&journal, "room-made", 60)?;
    let left = sandbox
        .on(node, "docker images --format '{{.Repository}}'")?
        .exits(0)
        .out;
    assert!(!left.contains("unused"), "{left}");
    assert!(left.contains("busybox"), "what a task runs stays: {left}");
    assert!(left.contains("fleet-agent/probe"), "{left}");
    await_attribute(sandbox, node, "fleet.reason", "disk-low", 90)?;
    let _ = sandbox.on(node, "rm /var/log/low")?.exits(0);
    await_attribute(sandbox, node, "fleet.health", "ok", 120)
}

/// And comes back when there is room again.
fn full(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    stage.hurry(node, 5)?;
    let _ = sandbox.on(node, &format!("{DISK}; {FULL}"))?.exits(0);
    await_attribute(sandbox, node, "fleet.reason", "disk-full", 90)?;
    stage.await_ecs(node, "DRAINING", 60)?;
    let told = stage.told(node)?;
    assert_eq!(told["drain"]["causes"][0]["kind"], "impaired", "{told}");
    let _ = sandbox.on(node, "rm /var/log/full")?.exits(0);
    stage.await_ecs(node, "ACTIVE", 120).map(drop)
}
