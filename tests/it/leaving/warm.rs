//! Warm pools: nodes are made ready there, never join ECS, and serve within seconds when wanted.

use anyhow::{Context as _, Result};
use fleet_tests::{Sandbox, eventually};
use serde_json::json;

use super::{GROUP, Stage, now};

/// From the wish for another node to ecs.service active, from a pool of running machines, seconds.
const FLIP: f64 = 5.0;

#[test]
fn a_node_rests_in_a_warm_pool_and_joins_when_it_is_wanted() {
    let sandbox = Sandbox::up("it-warm").expect("a sandbox");
    let stage = Stage::up(&sandbox, 0, "", "").expect("up");
    pool(&stage, "Running").expect("a pool");
    let running = resting(&stage, "Warmed:Running", "running").expect("a running node");
    held_back(&stage, &running).expect("held back");
    // What enters the pool from now on is stopped.
    pool(&stage, "Stopped").expect("a pool");

    let wanted = now();
    scale(&stage, "1").expect("scale");
    serves(&stage, &running).expect("in service");
    let active = "date --date \"$(systemctl show ecs --timestamp=us+utc -p ActiveEnterTimestamp --value)\" +%s.%N";
    let active = sandbox.on(&running, active).expect("runs").exits(0).out;
    let active: f64 = active.trim().parse().expect("a time");
    let took = active - wanted.as_secs_f64();
    println!("warm: running to ecs.service active in {took:.1} s");
    assert!(
        took <= FLIP,
        "ecs.service was active {took:.1} s after the node was wanted"
    );

    let stopped = resting(&stage, "Warmed:Stopped", "stopped").expect("a stopped node");
    scale(&stage, "2").expect("scale");
    serves(&stage, &stopped).expect("in service");
    let story = sandbox.journal(&stopped, "").expect("a journal");
    story.tells(&[
        "started",
        "warm-ready",
        "stopping",
        "started",
        "released",
        "registered",
        "launch-completed",
    ]);
}

fn pool(stage: &Stage<'_>, state: &str) -> Result<()> {
    let pool = json!({ "AutoScalingGroupName": GROUP, "PoolState": state, "MinSize": 1, "MaxGroupPreparedCapacity": 1 });
    stage.sandbox.aws("autoscaling", "put_warm_pool", &pool)?;
    Ok(())
}

fn scale(stage: &Stage<'_>, desired: &str) -> Result<()> {
    let _ = stage.sandbox.cli(&["scale", GROUP, desired])?.exits(0);
    Ok(())
}

/// The node that rests in the pool, with its launch hook answered.
fn resting(stage: &Stage<'_>, state: &str, machine: &str) -> Result<String> {
    eventually(&format!("a node to be {state}"), 120, || {
        let status = stage.sandbox.status()?;
        let mut instances = status["groups"][0]["instances"]
            .as_array()
            .into_iter()
            .flatten();
        let Some(found) = instances.find(|instance| instance["lifecycle_state"] == *state) else {
            return Ok(None);
        };
        assert!(found["ecs_status"].is_null(), "{found}");
        let id = found["instance_id"].as_str().context("an id")?;
        Ok((found["machine"] == *machine).then(|| id.to_owned()))
    })
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
    eventually(&format!("{node} to be in service"), 60, || {
        let instance = stage.sandbox.instance(node)?;
        Ok((instance["lifecycle_state"] == "InService").then_some(()))
    })?;
    stage.await_phase(node, "in-service", 30)?;
    Ok(())
}
