//! A machine that shuts down, past Auto Scaling: it leaves first, as far as time allows, and after a
//! reboot it serves again.

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    evidence::{did, follow_evidence, sidecar},
    stage::{Stage, await_event},
};

const STORY: [&str; 4] = ["noticed", "draining", "tasks-gone", "sidecars-stopped"];

#[test]
fn a_node_drains_before_its_machine_is_off() {
    let sandbox = Sandbox::up("it-shutdown").expect("a sandbox");
    let sidecars = sidecar(
        "node-logs",
        1,
        "flush_timeout_seconds = 3\nbefore_tasks = true",
    );
    let stage = Stage::up(&sandbox, 2, "", &sidecars).expect("up");
    stage
        .serve(
            2,
            &[],
            "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done",
        )
        .expect("tasks");
    rebooted(&stage, &stage.nodes[0]).expect("a reboot");
    terminated_by_hand(&stage, &stage.nodes[1]).expect("a power-off");
}

fn rebooted(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let _ = sandbox.cli(&["reboot", node])?.exits(0);
    stage.await_ecs(node, "DRAINING", 30)?;
    stage.await_ecs(node, "ACTIVE", 120)?;
    stage.await_phase(node, "in-service", 30)?;

    let before = sandbox.journal(node, "--boot=-1")?;
    before.tells(&STORY);
    assert_eq!(before.first("noticed")?.field("FLEET_CAUSE"), "shutdown");
    let stop = sandbox.on(node, "journalctl --boot=-1 --unit fleet-drain --output cat")?;
    assert!(stop.out.contains("left\n"), "{}", stop.out);
    let after = sandbox.journal(node, "--boot=0")?;
    after.tells(&["started", "withdrawn", "activated"]);
    assert_eq!(after.count("noticed"), 0, "{}", after.text());
    let evidence = sandbox.on(node, "cat /var/log/evidence/story")?.out;
    let [began, flushed, stopped, started] = ["flushing", "flushed", "stopped", "started"]
        .map(|what| did(&evidence, what).unwrap_or_else(|| panic!("no `{what}` in\n{evidence}")));
    assert!(
        began <= flushed && flushed <= stopped && stopped <= started,
        "{evidence}"
    );
    Ok(())
}

/// Auto Scaling only hears of it when the machine is gone: nothing else gives its tasks time.
fn terminated_by_hand(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    let evidence = follow_evidence(sandbox, node)?;
    let _ = sandbox.cli(&["poweroff", node])?.exits(0);
    stage.await_ecs(node, "DRAINING", 30)?;
    await_event(&journal, "sidecars-stopped", 60)?;
    stage.await_off(node, 60)?;
    let story = journal.story()?;
    story.tells(&STORY);
    assert_eq!(story.first("noticed")?.field("FLEET_CAUSE"), "shutdown");
    let written = evidence.text()?;
    assert!(
        did(&written, "flushed").is_some() && did(&written, "stopped").is_some(),
        "{written}"
    );
    let other = sandbox.instance(&stage.nodes[0])?;
    assert_eq!(other["tasks"], 2, "{other}");
    Ok(())
}
