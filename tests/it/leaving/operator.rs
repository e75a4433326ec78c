//! An operator drains a node and takes it back, on the node and from afar. What looks like a cause
//! and is none.

use std::thread;

use anyhow::Result;
use fleet_tests::{Sandbox, eventually, evidence::sidecar, stage::Stage};

/// It takes its time to stop, so that a drain can be watched.
const SLOW: &str = "trap 'sleep 8; exit 0' TERM; while :; do sleep 3600 & wait $!; done";

#[test]
fn an_operator_drains_a_node_and_takes_it_back() {
    let sandbox = Sandbox::up("it-operator").expect("a sandbox");
    let sidecars = sidecar("node-logs", 0, "flush_timeout_seconds = 1");
    let stage = Stage::up(&sandbox, 2, "", &sidecars).expect("up");
    stage
        .serve(2, &["--stop-timeout", "20"], SLOW)
        .expect("tasks");
    let (node, other) = (stage.nodes[0].clone(), stage.nodes[1].clone());
    on_the_node(&stage, &node, &other).expect("fleet-agent drain");
    no_cause(&stage, &node).expect("restarts");
    from_afar(&stage, &other).expect("fleet-bootstrap drain");
    set_apart(&stage, &node).expect("Standby, and a node that is detached");
    the_journal_explains(&sandbox, &node).expect("journalctl -x");
}

fn on_the_node(stage: &Stage<'_>, node: &str, other: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    thread::scope(|scope| {
        let drain = scope.spawn(|| sandbox.on(node, "fleet-agent drain --reason 'disk swap'"));
        let told = eventually("a task that is told to stop", 60, || {
            let told = stage.told(node)?;
            let task = &told["tasks"][0];
            let stops = task["known"] == "RUNNING" && task["desired"] == "STOPPED";
            Ok((told["phase"] == "draining" && stops).then_some(told))
        })?;
        assert_eq!(told["drain"]["causes"][0]["kind"], "operator", "{told}");
        assert_eq!(told["tasks"][0]["family"], "web", "{told}");
        assert!(told["drain"]["deadline"].is_string(), "{told}");
        let screen = sandbox.on(node, "fleet-agent status")?.exits(0).out;
        for part in [
            "an operator's wish: disk swap",
            "ends in",
            "RUNNING, to be STOPPED",
            "1 container",
        ] {
            assert!(screen.contains(part), "{part} is not on\n{screen}");
        }
        let drain = drain.join().expect("no panic")?.exits(0);
        assert!(drain.out.ends_with("drained\n"), "{}", drain.out);
        anyhow::Ok(())
    })?;
    let drained = sandbox.instance(node)?;
    assert_eq!(drained["ecs_status"], "DRAINING", "{drained}");
    assert_eq!(drained["tasks"], 0, "{drained}");
    assert_eq!(sandbox.instance(other)?["tasks"], 2);
    let sidecar = sandbox.on(
        node,
        "docker inspect -f '{{.State.Running}}' fleet-node-logs; cat /var/log/evidence/story",
    )?;
    assert!(sidecar.out.starts_with("true\n"), "{}", sidecar.out);
    assert!(!sidecar.out.contains("flushing"), "{}", sidecar.out);

    let undrain = sandbox.on(node, "fleet-agent undrain")?.exits(0);
    assert!(undrain.out.contains("in service"), "{}", undrain.out);
    assert_eq!(sandbox.instance(node)?["ecs_status"], "ACTIVE");
    sandbox.journal(node, "")?.tells(&[
        "noticed",
        "draining",
        "tasks-gone",
        "drained",
        "withdrawn",
        "activated",
    ]);
    Ok(())
}

/// Neither a restart of the agent nor one of the unit that drains at shutdown is a drain.
fn no_cause(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let restarts = "systemctl restart fleet-drain && systemctl restart fleet-agent";
    let _ = sandbox.on(node, restarts)?.exits(0);
    let told = stage.await_phase(node, "in-service", 30)?;
    assert!(told["drain"].is_null(), "{told}");
    assert_eq!(sandbox.instance(node)?["ecs_status"], "ACTIVE");
    let story = sandbox.journal(node, "")?;
    assert_eq!(story.count("noticed"), 1, "{}", story.text());
    Ok(())
}

/// Through the tag; and a restart of the agent in the middle changes nothing.
fn from_afar(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    thread::scope(|scope| {
        let drain = scope.spawn(|| {
            stage
                .fleet
                .bootstrap(&["drain", "dev", node, "--reason", "disk swap"])
        });
        stage.await_ecs(node, "DRAINING", 60)?;
        let before = stage.told(node)?;
        assert_eq!(before["phase"], "draining", "{before}");
        let _ = sandbox.on(node, "systemctl restart fleet-agent")?.exits(0);
        let after = eventually("the restarted agent to go on draining", 30, || {
            let told = stage.told(node)?;
            Ok((!told["drain"].is_null()).then_some(told))
        })?;
        assert_eq!(after["drain"]["causes"][0]["kind"], "tag", "{after}");
        assert_eq!(
            after["drain"]["began"].as_str().map(minute),
            before["drain"]["began"].as_str().map(minute)
        );
        let drain = drain.join().expect("no panic")?.exits(0);
        assert!(drain.out.contains("no task is left"), "{}", drain.out);
        anyhow::Ok(())
    })?;
    stage.await_phase(node, "drained", 10)?;
    sandbox.journal(node, "")?.tells(&[
        "noticed",
        "draining",
        "stopping",
        "started",
        "tasks-gone",
        "drained",
    ]);
    let _ = stage
        .fleet
        .bootstrap(&["drain", "dev", node, "--undo"])?
        .exits(0);
    stage.await_ecs(node, "ACTIVE", 30)?;
    stage.await_phase(node, "in-service", 30)?;
    Ok(())
}

/// To the minute: the moment is kept as the wall's time and told through the boot's.
fn minute(time: &str) -> &str {
    time.split_at_checked(16).map_or(time, |(minute, _)| minute)
}

/// Neither runs a hook, and ECS knows of neither: the node serves on.
fn set_apart(stage: &Stage<'_>, node: &str) -> Result<()> {
    let before = stage.sandbox.journal(node, "")?.count("noticed");
    stage.take_out("enter_standby", node)?;
    let standby = stage.await_target(node, "Standby")?;
    assert_eq!(standby["phase"], "in-service", "{standby}");
    assert_eq!(stage.sandbox.instance(node)?["ecs_status"], "ACTIVE");
    stage.take_out("detach_instances", node)?;
    let detached = stage.await_target(node, "Detached")?;
    assert_eq!(detached["phase"], "in-service", "{detached}");
    assert!(detached["drain"].is_null(), "{detached}");
    let story = stage.sandbox.journal(node, "")?;
    assert_eq!(story.count("noticed"), before, "{}", story.text());
    Ok(())
}

fn the_journal_explains(sandbox: &Sandbox, node: &str) -> Result<()> {
    let told = sandbox.on(
        node,
        "journalctl --no-pager -x -u fleet-agent FLEET_EVENT=noticed",
    )?;
    let told = told.exits(0).out;
    assert!(
        told.contains("notice: an operator's wish: disk swap"),
        "{told}"
    );
    assert!(told.contains("Subject: This node is to leave"), "{told}");
    Ok(())
}
