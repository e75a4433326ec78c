//! Tasks that do not leave: told of after two minutes, stopped at the deadline; standalone ones as
//! the settings say.

use std::time::Duration;

use fleet_tests::{
    Sandbox,
    stage::{CLUSTER, Stage, await_event},
};

/// ECS gives tasks 5 s to stop, and Docker 10 to say so; the answer to the hook is kept 15: what is left
/// is stopped after 140 s, and a stall is told of after 120.
const GROUP: &str = "ecs = { ECS_CONTAINER_STOP_TIMEOUT = \"5s\" }";
const DRAIN: &str = "[environments.dev.groups.web.drain]\ndeadline_seconds = 170\n\
    [environments.dev.groups.web.drain.standalone]\nbatch = { policy = \"stop\" }\nnightly = { policy = \"wait\" }\n";
const STOPS: Duration = Duration::from_secs(140);

#[test]
fn tasks_that_do_not_leave_are_named_and_stopped_at_the_deadline() {
    let sandbox = Sandbox::up("it-stalls").expect("a sandbox");
    let stage = Stage::up(&sandbox, 1, GROUP, DRAIN).expect("up");
    stage.other_hook().expect("a second hook");
    let node = stage.nodes[0].clone();
    for family in ["batch", "nightly"] {
        let args = ["run-tasks", "--standalone", CLUSTER, family, "1"];
        let _ = sandbox.cli(&args).expect("runs").exits(0);
    }
    let stays = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    let percent = ["--min", "100", "--max", "100"];
    stage.serve(1, &percent, stays).expect("a service");
    stage.await_tasks(3).expect("tasks");
    let journal = sandbox.follow_journal(&node).expect("a journal");

    stage.terminate(&node).expect("runs");
    let draining = await_event(&journal, "draining", 30).expect("DRAINING");
    let stopped = await_event(&journal, "standalone-stopped", 30).expect("stopped at once");
    assert!(stopped - draining < Duration::from_secs(15));
    let screen = sandbox
        .on(&node, "fleet-agent status")
        .expect("runs")
        .exits(0)
        .out;
    assert!(
        screen.contains("web") && screen.contains("nightly"),
        "{screen}"
    );

    await_event(&journal, "stalled", 140).expect("a stall");
    let told = journal.story().expect("a story");
    let stall = told.first("stalled").expect("a stall");
    let told = stage.told(&node).expect("status");
    let unit = sandbox.on(&node, "systemctl show -p StatusText fleet-agent");
    for waiting in [
        stall.field("FLEET_WAITING"),
        told["waiting_on"].as_str().unwrap_or_default(),
        &unit.expect("runs").exits(0).out,
    ] {
        for part in [
            "1 of service web that ECS does not move",
            "1 standalone, of nightly",
        ] {
            assert!(waiting.contains(part), "{part} is not in {waiting}");
        }
    }
    let screen = sandbox
        .on(&node, "fleet-agent status")
        .expect("runs")
        .exits(0)
        .out;
    assert!(screen.contains("tasks that do not leave"), "{screen}");

    let story = stage.await_left(&node, journal, 90).expect("a story");
    story.tells(&[
        "noticed",
        "draining",
        "standalone-stopped",
        "stalled",
        "deadline-reached",
        "leftovers-stopped",
        "drain-completed",
    ]);
    let noticed = story.first("noticed").expect("noticed").at;
    let reached = story.first("deadline-reached").expect("reached").at;
    let late = (reached - noticed).abs_diff(STOPS);
    assert!(late < Duration::from_secs(3), "{late:?}\n{}", story.text());
}
