//! Two minutes: a spot interruption of a node whose tasks have nowhere to go, ignore SIGTERM, and
//! whose sidecars have something to write out.

use std::time::Duration;

use fleet_tests::{Sandbox, eventually, evidence::did, scenes::Interruption};

#[test]
fn a_spot_interruption_finds_the_node_empty_and_its_sidecars_flushed() {
    let sandbox = Sandbox::up("it-spot").expect("a sandbox");
    let stage = Interruption::stage(&sandbox).expect("up");
    let scene = Interruption::play(&stage).expect("an interruption");
    let story = &scene.story;
    story.tells(&[
        "noticed",
        "draining",
        "deadline-reached",
        "leftovers-stopped",
        "sidecars-stopped",
    ]);
    let noticed = story.first("noticed").expect("noticed");
    assert_eq!(noticed.field("FLEET_CAUSE"), "spot-terminate");
    let left = scene.at - scene.draining;
    assert!(left > Duration::from_secs(110), "DRAINING {left:?} before");
    let spare = scene.spare();
    assert!(
        spare >= Duration::from_secs(10),
        "{spare:?} to spare\n{}",
        story.text()
    );
    println!("spot: DRAINING {left:.1?} and all over {spare:.1?} before the interruption");
    let leftovers = story.last("leftovers-stopped").expect("leftovers");
    assert_eq!(leftovers.field("FLEET_LEFT"), "0");

    // Read through a follower, which is a moment behind.
    let written = eventually("what the sidecars wrote last", 15, || {
        let written = scene.evidence.text()?;
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
    stage.await_off(&scene.node, 60).expect("the machine goes");
}
