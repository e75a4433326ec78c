//! Our terminating hook beside another, as ECS's managed draining has one, and ours gone in the
//! middle of a drain.

use anyhow::Result;
use fleet_tests::{
    Sandbox, eventually,
    stage::{CLUSTER, GROUP, Stage, await_event},
};
use serde_json::json;

#[test]
fn our_hook_is_answered_whatever_becomes_of_others() {
    let sandbox = Sandbox::up("it-hooks").expect("a sandbox");
    let stage = Stage::up(&sandbox, 2, "", "").expect("up");
    stage.other_hook().expect("a second hook");
    beside_another(&stage, &stage.nodes[0]).expect("two hooks");
    deleted(&stage, &stage.nodes[1]).expect("a hook that goes");
}

/// Each is answered by its own; the instance waits for both.
fn beside_another(stage: &Stage<'_>, node: &str) -> Result<()> {
    let journal = stage.sandbox.follow_journal(node)?;
    stage.terminate(node)?;
    await_event(&journal, "drain-completed", 60)?;
    stage.await_phase(node, "done", 10)?;
    let instance = stage.sandbox.instance(node)?;
    assert_eq!(
        instance["lifecycle_state"], "Terminating:Wait",
        "{instance}"
    );
    stage.answer_other(node)?;
    stage.await_gone(node, 60)
}

/// The agent concludes that nobody waits for it any more.
fn deleted(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let task = "sleep 20 & wait $!";
    let args = [
        "run-tasks",
        "--standalone",
        CLUSTER,
        "batch",
        "1",
        "--",
        "sh",
        "-c",
        task,
    ];
    let _ = sandbox.cli(&args)?.exits(0);
    stage.await_tasks(1)?;
    let journal = sandbox.follow_journal(node)?;
    let key = sandbox.instance(node)?["access_key_id"].clone();
    let heartbeats = || stage.calls("RecordLifecycleActionHeartbeat", &key);
    let before = heartbeats()?;
    stage.terminate(node)?;
    eventually("a heartbeat of this node", 30, || {
        Ok((heartbeats()? > before).then_some(()))
    })?;
    let hook = json!({ "AutoScalingGroupName": GROUP, "LifecycleHookName": "fleet-drain" });
    let _ = sandbox.aws("autoscaling", "delete_lifecycle_hook", &hook)?;
    await_event(&journal, "drain-closed", 60)?;
    journal
        .story()?
        .tells(&["draining", "tasks-gone", "drain-closed"]);
    stage.await_phase(node, "done", 10)?;
    stage.answer_other(node)?;
    stage.await_gone(node, 60)
}
