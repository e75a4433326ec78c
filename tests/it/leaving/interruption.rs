//! Two minutes: a spot interruption of a node whose tasks have nowhere to go, ignore SIGTERM, and
//! whose sidecars have something to write out.

use std::time::Duration;

use fleet_tests::{Sandbox, eventually};

use super::{Stage, await_event, did, follow_evidence, now, sidecar};

const NOTICE: Duration = Duration::from_secs(120);
const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";

#[test]
fn a_spot_interruption_finds_the_node_empty_and_its_sidecars_flushed() {
    let sandbox = Sandbox::up("it-spot").expect("a sandbox");
    let sidecars = [
        sidecar(
            "node-logs",
            5,
            "flush_timeout_seconds = 8\nbefore_tasks = true",
        ),
        sidecar("metrics", 0, "flush_timeout_seconds = 8"),
    ];
    let stage = Stage::up(&sandbox, 1, "", &sidecars.concat()).expect("up");
    stage
        .serve(2, &["--stop-timeout", "30"], DEAF)
        .expect("tasks");
    let node = stage.nodes[0].clone();
    // How an instance was bought does not change: the agent asks once.
    let _ = sandbox
        .cli(&["life-cycle", &node, "spot"])
        .expect("runs")
        .exits(0);
    let _ = sandbox
        .on(&node, "systemctl restart fleet-agent")
        .expect("runs")
        .exits(0);
    stage
        .await_phase(&node, "in-service", 30)
        .expect("in service");
    let journal = sandbox.follow_journal(&node).expect("a journal");
    let evidence = follow_evidence(&sandbox, &node).expect("evidence");

    let interruption = now() + NOTICE;
    let _ = sandbox.cli(&["spot", &node]).expect("runs").exits(0);
    let draining = await_event(&journal, "draining", 30).expect("DRAINING");
    assert!(
        interruption - draining > Duration::from_secs(110),
        "DRAINING {:?} before",
        interruption - draining
    );
    await_event(&journal, "sidecars-stopped", 120).expect("sidecars stopped");
    let story = journal.story().expect("a story");
    story.tells(&[
        "noticed",
        "draining",
        "deadline-reached",
        "leftovers-stopped",
        "sidecars-stopped",
    ]);
    assert_eq!(
        story
            .first("noticed")
            .expect("noticed")
            .field("FLEET_CAUSE"),
        "spot-terminate"
    );
    let over = story.first("sidecars-stopped").expect("stopped").at;
    let spare = interruption.saturating_sub(over);
    assert!(
        spare >= Duration::from_secs(10),
        "{spare:?} to spare\n{}",
        story.text()
    );
    println!(
        "spot: DRAINING {:.1?} and all over {spare:.1?} before the interruption",
        interruption - draining
    );
    let leftovers = story
        .0
        .iter()
        .rfind(|record| record.event == "leftovers-stopped");
    let leftovers = leftovers.expect("leftovers were stopped");
    assert_eq!(leftovers.field("FLEET_LEFT"), "0");

    // Read through a follower, which is a moment behind.
    let written = eventually("what the sidecars wrote last", 15, || {
        let written = evidence.text()?;
        Ok(did(&written, "node-logs stopped").map(|_| written))
    })
    .expect("evidence");
    let [began, flushed, last, first] = [
        "node-logs flushing",
        "node-logs flushed",
        "node-logs stopped",
        "metrics stopped",
    ]
    .map(|what| did(&written, what).unwrap_or_else(|| panic!("no `{what}` in\n{written}")));
    // Whole seconds there, microseconds here.
    assert!(
        began + Duration::from_secs(1) >= leftovers.at,
        "flushed before tasks were gone\n{written}\n{}",
        story.text()
    );
    assert!(flushed <= first && first <= last, "{written}");
    // Auto Scaling only hears of it then, and nobody is left to answer its hook.
    stage.await_off(&node, 60).expect("the machine goes");
}
