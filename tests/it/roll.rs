//! Nodes are replaced by newer ones, without tasks lost and without capacity lost; a version that does
//! not get ready is taken back.

use std::{thread, time::Duration};

use anyhow::Result;
use fleet_tests::{Fleet, PAPER_SOURCE, Sandbox, agent_source, eventually};
use serde_json::Value;

const SIZES: &str = "[environments.dev.groups.web]\nmin = 2\nmax = 2\n";

#[test]
fn a_group_is_rolled_and_rolled_back() {
    let sandbox = Sandbox::up("it-roll").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let agent = format!("[environments.dev.agent]\n{source}\nlaunch_timeout_seconds = 60\n");
    let fleet = Fleet::init(&sandbox, "shop", &format!("{agent}{SIZES}")).expect("init");
    let _ = up(&fleet).expect("up");
    let _ = sandbox
        .cli(&["run-tasks", "shop-dev", "web", "4"])
        .expect("runs")
        .exits(0);
    let old = ready(&fleet.status().expect("status"));
    nothing_to_roll(&fleet).expect("a roll");
    rolled_after_a_kill(&fleet, &old).expect("a roll");
    rolled_back(&fleet).expect("a roll");
}

/// From another terminal than that of whoever rolls, with nodes on paper.
#[test]
fn a_roll_is_paused_resumed_and_cancelled() {
    let sandbox = Sandbox::on_paper("it-wishes").expect("a sandbox");
    let agent = format!("[environments.dev.agent]\n{PAPER_SOURCE}\n");
    let fleet = Fleet::init(&sandbox, "shop", &format!("{agent}{SIZES}")).expect("init");
    let _ = up(&fleet).expect("up");
    let old = ready(&fleet.status().expect("status"));

    let debug = format!("{SIZES}ecs = {{ ECS_LOGLEVEL = \"debug\" }}\n");
    fleet.replace(SIZES, &debug).expect("a file");
    meanwhile(&fleet, || {
        wish(&fleet, "--pause");
        assert!(rolls(&fleet).is_some_and(|mark| mark.ends_with("paused")));
        let paused = ready(&fleet.status().expect("status"));
        // As long as three nodes would take.
        thread::sleep(PAUSE);
        assert_eq!(ready(&fleet.status().expect("status")), paused);
        wish(&fleet, "--resume");
    });
    let new = ready(&fleet.status().expect("status"));
    assert!(new.iter().all(|(_, version)| *version == 2), "{new:?}");
    assert!(!new.iter().any(|node| old.contains(node)), "{new:?}");
    as_in_the_file(&fleet).expect("as in the file");

    fleet.replace("= \"debug\"", "= \"info\"").expect("a file");
    meanwhile(&fleet, || wish(&fleet, "--cancel"));
    let left = ready(&fleet.status().expect("status"));
    let still_old = left.iter().filter(|node| new.contains(node)).count();
    assert!(
        still_old > 0,
        "the first wave is brought home, no other begins: {left:?}"
    );
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(rolls(&fleet), None);
}

/// Long enough for a wish while the first new node is watched.
const BAKE: &str = "4";
const PAUSE: Duration = Duration::from_secs(6);

/// Rolls, and does something once that is under way.
fn meanwhile(fleet: &Fleet<'_>, something: impl FnOnce()) {
    thread::scope(|scope| {
        let roll = ["roll", "dev", "--yes", "--surge", "1", "--bake", BAKE];
        let rolling = scope.spawn(move || fleet.bootstrap(&roll));
        eventually("a roll", 30, || Ok(rolls(fleet))).expect("a roll");
        something();
        let rolled = rolling.join().expect("no panic").expect("runs");
        let _ = rolled.exits(0);
    });
}

fn wish(fleet: &Fleet<'_>, wish: &str) {
    let _ = fleet
        .bootstrap(&["roll", "dev", wish, "--bake", BAKE])
        .expect("runs")
        .exits(0);
}

/// What is noted of the group's roll.
fn rolls(fleet: &Fleet<'_>) -> Option<String> {
    let status = fleet.status().expect("status");
    Some(status["groups"][0]["roll"].as_str()?.to_owned())
}

fn up(fleet: &Fleet<'_>) -> Result<fleet_tests::Ran> {
    Ok(fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0))
}

fn nothing_to_roll(fleet: &Fleet<'_>) -> Result<()> {
    let ran = fleet.bootstrap(&["roll", "dev", "--yes"])?.exits(0);
    assert!(ran.out.contains("Nothing to do"), "{}", ran.out);
    let ran = fleet
        .bootstrap(&["roll", "dev", "--group", "wed"])?
        .exits(1);
    assert!(
        ran.err.contains("no [groups.wed]: the file has web"),
        "{}",
        ran.err
    );
    let ran = fleet.bootstrap(&["roll", "dev", "--cancel"])?.exits(1);
    assert!(ran.err.contains("nothing to cancel"), "{}", ran.err);
    Ok(())
}

/// Killed with the surge in effect; beyond the group's upper bound, which it has again in the end.
fn rolled_after_a_kill(fleet: &Fleet<'_>, old: &[(String, i64)]) -> Result<()> {
    fleet.replace(
        SIZES,
        &format!("{SIZES}ecs = {{ ECS_LOGLEVEL = \"debug\" }}\n"),
    )?;
    let roll = ["roll", "dev", "--yes", "--surge", "100%", "--bake", "1"];
    let killed = fleet.bootstrap_killed_after(&roll, "size 3, min 3, max 3")?;
    assert!(killed.code != 0, "was to be killed: {}", killed.out);
    let refused = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(1);
    assert!(
        refused.err.contains("are being replaced"),
        "{}",
        refused.err
    );
    let _ = fleet.bootstrap(&roll)?.exits(0);

    let status = fleet.status()?;
    let new = ready(&status);
    assert_eq!(new.len(), 2, "{status}");
    assert!(new.iter().all(|(_, version)| *version == 2), "{new:?}");
    assert!(
        old.iter()
            .all(|(id, _)| !new.iter().any(|(new, _)| new == id))
    );
    as_in_the_file(fleet)?;
    eventually("4 tasks on the new nodes", 60, || {
        Ok((tasks(&fleet.status()?) == 4).then_some(()))
    })
}

/// A sidecar that ECS must wait for, of an image that is nowhere.
fn rolled_back(fleet: &Fleet<'_>) -> Result<()> {
    let before = ready(&fleet.status()?);
    fleet.append(
        "[environments.dev.sidecars.gone]\nimage = \"fleet-sandbox/nowhere:1\"\nbefore_tasks = true\nmemory_mib = 16\n",
    )?;
    let ran = fleet
        .bootstrap(&["roll", "dev", "--yes", "--bake", "1"])?
        .exits(1);
    assert!(ran.err.contains("was given up"), "{}", ran.err);
    assert!(
        ran.err
            .contains("runs version 2 of its launch template again"),
        "{}",
        ran.err
    );
    let status = fleet.status()?;
    assert_eq!(ready(&status), before, "{status}");
    assert_eq!(tasks(&status), 4, "{status}");
    Ok(())
}

/// Sizes, bounds and tags.
fn as_in_the_file(fleet: &Fleet<'_>) -> Result<()> {
    let plan = fleet.bootstrap(&["plan", "dev"])?;
    assert_eq!(plan.code, 0, "{}{}", plan.out, plan.err);
    let status = fleet.status()?;
    let counts = &status["groups"][0]["counts"];
    let sizes = ["min", "wanted", "max", "stale"].map(|size| counts[size].as_u64());
    assert_eq!(sizes, [Some(2), Some(2), Some(2), Some(0)], "{status}");
    Ok(())
}

/// Ids and launch template versions, in order.
fn ready(status: &Value) -> Vec<(String, i64)> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let mut ready: Vec<_> = nodes
        .filter(|node| node["ready"] == true)
        .filter_map(|node| {
            Some((
                node["id"].as_str()?.to_owned(),
                node["template_version"].as_i64()?,
            ))
        })
        .collect();
    ready.sort();
    ready
}

fn tasks(status: &Value) -> u64 {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter_map(|node| node["tasks"].as_u64()).sum()
}
