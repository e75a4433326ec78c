//! An agent that is killed, hangs, or loses its machine's power in the middle of a drain goes on with
//! it: the hook is answered once, and no task is stopped early.

use std::thread;

use anyhow::Result;
use fleet_tests::{
    Record, Sandbox, eventually,
    evidence::sidecar,
    stage::{Stage, await_event},
};
use serde_json::Value;

/// Long enough for all that is done to agents meanwhile.
const TASKS_SECONDS: u64 = 45;

#[test]
fn a_drain_outlives_its_agent() {
    let sandbox = Sandbox::up("it-killed").expect("a sandbox");
    let sidecar = sidecar("node-logs", 3, "flush_timeout_seconds = 5");
    let mut stage = Stage::up(&sandbox, 4, "", &sidecar).expect("up");
    stage.other_hook().expect("a second hook");
    stage.run_on_each(TASKS_SECONDS).expect("tasks");
    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    let cases: [fn(&Stage<'_>, &str) -> Result<()>; 4] = [killed, hung, power_lost, rebooted];
    thread::scope(|scope| {
        let stage = &stage;
        let running = cases.iter().zip(&stage.nodes).map(|(case, node)| {
            scope.spawn(move || {
                let key = stage.sandbox.instance(node)?["access_key_id"].clone();
                stage.terminate(node)?;
                case(stage, node)?;
                anyhow::Ok(key)
            })
        });
        let running: Vec<_> = running.collect();
        let keys: Vec<Value> = running
            .into_iter()
            .map(|case| case.join().expect("no panic").expect("a drain"))
            .collect();
        for key in keys {
            assert_eq!(
                stage.calls("CompleteLifecycleAction", &key).expect("calls"),
                1,
                "of {key}"
            );
        }
    });
}

/// After DRAINING, again while tasks leave, and while sidecars write out what they hold.
fn killed(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    await_event(&journal, "draining", 30)?;
    for _ in 0..2 {
        let started = journal.story()?.count("started");
        let _ = sandbox
            .on(node, "systemctl kill --signal=KILL fleet-agent")?
            .exits(0);
        eventually("another agent to go on draining", 30, || {
            let told = stage.told(node)?;
            let is_next = journal.story()?.count("started") > started;
            Ok((is_next && told["phase"] == "draining").then_some(()))
        })?;
    }
    await_event(&journal, "tasks-gone", 60)?;
    let _ = sandbox
        .on(node, "systemctl kill --signal=KILL fleet-agent")?
        .exits(0);
    let story = stage.await_left(node, journal, 120)?;
    assert_eq!(story.count("drain-completed"), 1, "{}", story.text());
    let of_auto_scaling = |record: &&Record| {
        record.event == "noticed" && record.field("FLEET_CAUSE") == "auto-scaling"
    };
    story.tells(&[
        "tasks-gone",
        "started",
        "sidecars-stopped",
        "drain-completed",
    ]);
    let notices = story.0.iter().filter(of_auto_scaling).count();
    assert_eq!(notices, 1, "{}", story.text());
    stage.ran_out(&story);
    Ok(())
}

/// systemd's watchdog ends an agent that hangs.
fn hung(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    await_event(&journal, "draining", 30)?;
    let started = journal.story()?.count("started");
    let _ = sandbox
        .on(node, "systemctl kill --signal=STOP fleet-agent")?
        .exits(0);
    eventually("the watchdog to have ended it", 45, || {
        Ok((journal.story()?.count("started") > started).then_some(()))
    })?;
    let story = stage.await_left(node, journal, 120)?;
    assert_eq!(story.count("drain-completed"), 1, "{}", story.text());
    stage.ran_out(&story);
    Ok(())
}

/// The machine restarts without a shutdown.
fn power_lost(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    await_event(&journal, "draining", 30)?;
    // It ends the shell that asks for it, in whatever way.
    let _ = sandbox.on(node, "systemctl reboot --force --force")?;
    let before = journal.story()?;
    let journal = eventually("the agent of the next boot", 60, || {
        let booted = sandbox.on(node, "systemctl is-active fleet-agent")?;
        Ok((booted.out.trim() == "active").then_some(()))
    })
    // Follows this boot only.
    .and_then(|()| sandbox.follow_journal(node))?;
    assert_eq!(before.count("drain-completed"), 0, "{}", before.text());
    let story = stage.await_left(node, journal, 120)?;
    story.tells(&["started", "tasks-gone", "drain-completed"]);
    assert_eq!(story.count("drain-completed"), 1, "{}", story.text());
    Ok(())
}

/// In order: the shutdown waits for what Auto Scaling has begun, as long as it may.
fn rebooted(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    await_event(&journal, "draining", 30)?;
    let _ = sandbox.cli(&["reboot", node])?.exits(0);
    let story = stage.await_left(node, journal, 120)?;
    story.tells(&[
        "draining",
        "noticed",
        "tasks-gone",
        "sidecars-stopped",
        "drain-completed",
    ]);
    let shutdown = story.last("noticed")?;
    assert_eq!(shutdown.field("FLEET_CAUSE"), "shutdown");
    assert_eq!(story.count("drain-completed"), 1, "{}", story.text());
    stage.ran_out(&story);
    Ok(())
}
