//! AWS is in trouble while a node leaves, or has lost its patience.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use fleet_tests::{
    Sandbox, eventually,
    stage::{CLUSTER, GROUP, Stage, await_event},
};
use serde_json::{Value, json};

/// Auto Scaling takes no shorter time-out of a hook.
const SHORTEST_HOOK: u64 = 30;
/// As fleet.toml's defaults have it.
const DRAIN_HOOK: u64 = 120;
/// Attempts; an SDK makes three of a call.
const THROTTLED: u64 = 12;
const REFUSED: u64 = 3;

#[test]
fn a_drain_outlives_trouble_with_aws() {
    let sandbox = Sandbox::up("it-trouble").expect("a sandbox");
    let mut stage = Stage::up(&sandbox, 4, "", "").expect("up");
    stage.other_hook().expect("a second hook");
    let lost_patience = stage.nodes.remove(3);
    expired(&stage, &lost_patience).expect("a hook that expires");
    never_registered(&stage).expect("a node that never joined");

    stage.run_on_each(40).expect("tasks");
    let keys: Vec<Value> = stage
        .nodes
        .iter()
        .map(|node| Ok(sandbox.instance(node)?["access_key_id"].clone()))
        .collect::<Result<_>>()
        .expect("keys");
    let refusal = json!({ "containerInstances": [], "failures": [{ "reason": "NOT_NOW" }] });
    let rules = json!([
        { "service": "ecs", "caller": keys[0], "code": "ThrottlingException", "times": THROTTLED },
        { "service": "autoscaling", "caller": keys[0], "code": "Throttling", "times": THROTTLED },
        { "operation": "UpdateContainerInstancesState", "caller": keys[1],
          "answer": refusal, "times": REFUSED },
    ]);
    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    let _ = sandbox
        .cli(&["faults", &rules.to_string()])
        .expect("runs")
        .exits(0);
    stage.play(&[served_late, served_late, cut_off]);
    for key in keys {
        assert_eq!(
            stage.calls("CompleteLifecycleAction", &key).expect("calls"),
            1,
            "of {key}"
        );
    }
    let left = sandbox.cli(&["faults"]).expect("runs").exits(0);
    for rule in left.json().expect("rules").as_array().expect("a list") {
        assert_eq!(rule["times"], 0, "never met: {rule}");
    }
}

/// Throttled, or refused in an answer that is none of an error: asked again until it is taken.
fn served_late(stage: &Stage<'_>, node: &str) -> Result<()> {
    let journal = stage.sandbox.follow_journal(node)?;
    stage.terminate(node)?;
    await_event(&journal, "draining", 60)?;
    await_event(&journal, "drain-completed", 120)?;
    let story = journal.story()?;
    story.tells(&["noticed", "draining", "tasks-gone", "drain-completed"]);
    stage.ran_out(&story);
    stage.answer_other(node)?;
    stage.await_gone(node, 60)
}

/// A route that is gone, for half of what the hook waits.
fn cut_off(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    let url = sandbox.var("FLEET_SANDBOX_NODE_URL");
    let (host, port) = url
        .trim_start_matches("http://")
        .rsplit_once(':')
        .context("host and port")?;
    let rule = format!("OUTPUT --protocol tcp --destination {host} --dport {port} --jump DROP");
    let _ = sandbox
        .on(node, &format!("iptables --insert {rule}"))?
        .exits(0);
    stage.terminate(node)?;
    await_event(&journal, "noticed", 30)?;
    await_event(&journal, "call-failed", 60)?;
    thread::sleep(Duration::from_secs(DRAIN_HOOK / 4));
    assert_eq!(journal.story()?.count("draining"), 0);
    let _ = sandbox
        .on(node, &format!("iptables --delete {rule}"))?
        .exits(0);
    await_event(&journal, "draining", 60)?;
    await_event(&journal, "drain-completed", 120)?;
    stage.ran_out(&journal.story()?);
    stage.answer_other(node)?;
    stage.await_gone(node, 60)
}

/// Its agent is away for longer than the hook waits: it learns that nobody waits any more.
fn expired(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let tasks = ["run-tasks", "--standalone", CLUSTER, "batch", "4"];
    let script = ["--", "sh", "-c", "sleep 45 & wait $!"];
    let _ = sandbox.cli(&[&tasks[..], &script].concat())?.exits(0);
    stage.await_tasks(4)?;
    let journal = sandbox.follow_journal(node)?;
    drain_hook(sandbox, SHORTEST_HOOK)?;
    stage.terminate(node)?;
    await_event(&journal, "draining", 30)?;
    // An agent that never saw the hook open takes a closed one for one that has yet to open.
    eventually("the agent to have seen the hook open", 20, || {
        let state = sandbox.on(node, "cat /var/lib/fleet-agent/state.json")?;
        Ok((state.json()?["drain"]["seen_open"] == true).then_some(()))
    })?;
    let _ = sandbox.on(node, "systemctl stop fleet-agent")?.exits(0);
    drain_hook(sandbox, DRAIN_HOOK)?;
    // What is waited for is time itself: the hook's.
    thread::sleep(Duration::from_secs(SHORTEST_HOOK + 5));
    let _ = sandbox.on(node, "systemctl start fleet-agent")?.exits(0);
    await_event(&journal, "drain-closed", 60)?;
    stage.await_phase(node, "done", 30)?;
    stage.answer_other(node)?;
    stage.await_gone(node, 60)
}

/// There is nothing to drain, and nothing is waited for.
fn never_registered(stage: &Stage<'_>) -> Result<()> {
    const BROKEN: &str = "mkdir -p /run/systemd/system/ecs.service.d && \
        printf '[Service]\nExecStart=\nExecStart=/bin/false\n' \
            >/run/systemd/system/ecs.service.d/20-broken.conf && systemctl daemon-reload";
    let sandbox = stage.sandbox;
    stage.scale(4)?;
    let node = eventually("a new node without an ECS agent", 30, || {
        let status = sandbox.status()?;
        let instances = status["groups"][0]["instances"].as_array();
        let mut ids = instances
            .into_iter()
            .flatten()
            .filter_map(|instance| instance["instance_id"].as_str());
        let Some(node) = ids.find(|id| stage.nodes.iter().all(|known| known != id)) else {
            return Ok(None);
        };
        let broken = sandbox.on(node, BROKEN)?;
        Ok((broken.code == 0).then(|| node.to_owned()))
    })?;
    eventually("its agent", 60, || {
        let told = stage.told(&node)?;
        Ok((told["phase"] == "launching").then_some(()))
    })?;
    let journal = sandbox.follow_journal(&node)?;
    stage.terminate(&node)?;
    await_event(&journal, "drain-completed", 60)?;
    let story = journal.story()?;
    assert_eq!(story.count("registered"), 0, "{}", story.text());
    assert_eq!(story.count("draining"), 0, "{}", story.text());
    stage.answer_other(&node)?;
    stage.await_gone(&node, 60)
}

/// Its time-out, for instances that begin to terminate from now on.
fn drain_hook(sandbox: &Sandbox, seconds: u64) -> Result<()> {
    let hook = json!({
        "AutoScalingGroupName": GROUP,
        "LifecycleHookName": "fleet-drain",
        "HeartbeatTimeout": seconds,
    });
    let _ = sandbox.aws("autoscaling", "put_lifecycle_hook", &hook)?;
    Ok(())
}
