//! Warm pools: nodes are made ready there, never join ECS, and serve within seconds when wanted.

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    scenes::{ecs_active_after, pool, resting},
    stage::{Stage, now},
};

/// From the wish for another node to ecs.service active, from a pool of running machines, seconds.
const FLIP: f64 = 5.0;

#[test]
fn a_node_rests_in_a_warm_pool_and_joins_when_it_is_wanted() {
    let sandbox = Sandbox::up("it-warm").expect("a sandbox");
    let stage = Stage::up(&sandbox, 0, "", "").expect("up");
    pool(&stage, "Running", 1, 1).expect("a pool");
    let running = resting(&stage, "Warmed:Running", "running", 1).expect("a running node");
    let running = &running[0];
    held_back(&stage, running).expect("held back");
    // What enters the pool from now on is stopped.
    pool(&stage, "Stopped", 1, 1).expect("a pool");

    let wanted = now();
    stage.scale(1).expect("scale");
    serves(&stage, running).expect("in service");
    let took = ecs_active_after(&sandbox, running, wanted).expect("a time");
    println!("warm: running to ecs.service active in {took:.1} s");
    assert!(
        (0.0..=FLIP).contains(&took),
        "ecs.service was active {took:.1} s after the node was wanted"
    );

    let stopped = resting(&stage, "Warmed:Stopped", "stopped", 1).expect("a stopped node");
    let stopped = &stopped[0];
    stage.scale(2).expect("scale");
    serves(&stage, stopped).expect("in service");
    let story = sandbox.journal(stopped, "").expect("a journal");
    story.tells(&[
        "started",
        "warm-ready",
        "stopping",
        "started",
        "released",
        "registered",
        "launch-completed",
    ]);
    for once in ["warm-ready", "released", "registered"] {
        assert_eq!(story.count(once), 1, "`{once}` in\n{}", story.text());
    }
}

fn held_back(stage: &Stage<'_>, node: &str) -> Result<()> {
    let told = stage.told(node)?;
    assert_eq!(told["phase"], "gated", "{told}");
    let shown = stage.sandbox.on(
        node,
        "systemctl show ecs -p ActiveState; ls /run/fleet-agent /var/lib/ecs/data",
    )?;
    assert!(shown.out.contains("ActiveState=inactive"), "{}", shown.out);
    assert!(!shown.out.contains("released"), "{}", shown.out);
    let story = stage.sandbox.journal(node, "")?;
    story.tells(&["started", "warm-ready"]);
    assert_eq!(story.count("released"), 0, "{}", story.text());
    Ok(())
}

fn serves(stage: &Stage<'_>, node: &str) -> Result<()> {
    stage.await_ecs(node, "ACTIVE", 60)?;
    stage.await_state(node, "InService", 60)?;
    stage.await_phase(node, "in-service", 30)?;
    Ok(())
}
