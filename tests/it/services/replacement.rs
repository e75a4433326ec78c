//! A node that stays impaired, and what takes its place.

use anyhow::Result;
use fleet_tests::{
    Sandbox, eventually,
    stage::{GROUP, Stage, await_event},
};
use serde_json::json;

/// How many times as fast as it should its agent waits: five minutes are twenty seconds then.
const PACE: u32 = 15;

#[test]
fn a_node_that_stays_impaired_powers_itself_off_and_is_replaced_once_it_is_its_turn() {
    let sandbox = Sandbox::up("it-replacement").expect("a sandbox");
    let stage = Stage::up(&sandbox, 3, "", "").expect("up");
    played(&stage).expect("a replacement");
}

fn played(stage: &Stage<'_>) -> Result<()> {
    let sandbox = stage.sandbox;
    let (ill, drained) = (&stage.nodes[0], &stage.nodes[1]);
    // Another of its group is being looked at by somebody: it has to wait.
    let drain = ["drain", "dev", drained, "--reason", "a look"];
    let _ = stage.fleet.bootstrap(&drain)?.exits(0);
    stage.hurry(ill, PACE)?;
    // Started anew, it first has to see its sidecars: one that never did is still starting, and waits.
    let _ = stage.await_phase(ill, "in-service", 30)?;
    let journal = sandbox.follow_journal(ill)?;
    let stop = "systemctl stop docker.socket docker.service";
    let _ = sandbox.on(ill, stop)?.exits(0);
    eventually("it to wait for its turn", 90, || {
        let told = stage.told(ill)?["waiting_on"].to_string();
        let waits = "1 of the group's nodes leave or are missing and 0 come first";
        Ok(told.contains(waits).then_some(()))
    })?;
    let undrain = ["drain", "dev", drained, "--undo"];
    let _ = stage.fleet.bootstrap(&undrain)?.exits(0);
    let _ = await_event(&journal, "replacing", 180)?;
    // Auto Scaling lists it on until its terminating hook expires, which nobody is there to answer.
    stage.await_off(ill, 120)?;
    let story = journal.whole_story()?;
    let replacing = story.first("replacing")?;
    let reason = replacing.field("FLEET_REASON");
    assert!(reason.starts_with("docker"), "{}", story.text());
    assert_eq!(story.count("replacing"), 1, "{}", story.text());

    // Its last words can be read when it is gone.
    let asked = json!({ "InstanceId": ill, "TypeName": "Custom:FleetNode" });
    let entries = sandbox.aws("ssm", "list_inventory_entries", &asked)?;
    let told = &entries["Entries"][0];
    assert_eq!(told["Health"], "impaired", "{entries}");
    assert_eq!(told["Group"], "web", "{entries}");

    eventually("another node in its place", 120, || {
        let status = sandbox.status()?;
        let groups = status["groups"].as_array().into_iter().flatten();
        let group = groups.filter(|group| group["name"] == GROUP);
        let instances = group.flat_map(|group| group["instances"].as_array().cloned());
        let serving = instances
            .flatten()
            .filter(|instance| instance["lifecycle_state"] == "InService");
        Ok((serving.count() == 3).then_some(()))
    })
}
