//! The bucket that the agent is installed from.

use super::*;
use crate::{desired::Upload, inventory::Bucket};

const SUM: &str = "abababababababababababababababababababababababababababababababab";

/// The file names a binary of one's own, or something else again.
pub(super) fn sends(desired: &mut Desired, is_so: bool) {
    desired.bucket.upload = is_so.then(|| Upload {
        key: format!("fleet-agent/{SUM}"),
        sha256: SUM.into(),
        file: "dist/fleet-agent".into(),
    });
}

/// What is read of it: without a file that asks for a bucket, one is looked at on the way down alone, and
/// only where something tells of it.
pub(super) fn read(desired: &Desired, inventory: &Inventory, goal: Goal) -> Inventory {
    let mut inventory = inventory.clone();
    let looks =
        desired.bucket.upload.is_some() || (goal == Goal::Down && inventory.tells_of_bucket());
    if !looks {
        inventory.bucket = Presence::Absent;
    }
    inventory
}

fn sending(groups: &[&str]) -> Desired {
    let mut desired = model::desired(groups);
    sends(&mut desired, true);
    desired
}

fn bucket(inventory: &mut Inventory) -> &mut Bucket {
    match &mut inventory.bucket {
        Presence::Owned(bucket) => bucket,
        Presence::Absent | Presence::Leaving | Presence::Foreign(_) => panic!("no bucket"),
    }
}

#[test]
fn it_is_ready_before_anything_is_launched_and_goes_after_that() {
    let desired = sending(&["web", "batch"]);
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("bucket_up", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let plan = planned(&desired, &inventory, Goal::Down);
    insta::assert_snapshot!("bucket_down", golden(&plan));
}

#[test]
fn another_binary_is_sent_beside_the_first() {
    let mut desired = sending(&["web"]);
    let mut inventory = up(&desired);
    // Nothing is there of its key.
    bucket(&mut inventory).object = None;
    let upload = desired.bucket.upload.as_mut().expect("a file");
    "cd".repeat(32).clone_into(&mut upload.sha256);
    desired.groups[0].launch_template.user_data = b"#cloud-config\n{\"a\":1}".to_vec();
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("bucket_another_binary", golden(&plan));
    assert_eq!(
        plan.sends().map(|(_, sum)| sum.to_owned()),
        Some("cd".repeat(32))
    );
}

#[test]
fn what_somebody_did_to_it_is_undone_or_in_the_way() {
    let desired = sending(&["web"]);
    let mut inventory = up(&desired);
    bucket(&mut inventory).is_public_access_blocked = false;
    let plan = planned(&desired, &inventory, Goal::Up);
    let titles: Vec<String> = plan.steps.iter().map(|step| step.step.title()).collect();
    assert_eq!(
        titles,
        ["block public access to bucket fleet-shop-dev-bucket"]
    );

    for (object, said) in [("", "without its SHA-256"), ("ef", "has SHA-256 ef")] {
        bucket(&mut inventory).object = Some(object.to_owned());
        let conflicts = plan_of(&desired, &inventory);
        assert!(
            conflicts.contains("object s3://fleet-shop-dev-bucket/"),
            "{conflicts}"
        );
        assert!(conflicts.contains(said), "{conflicts}");
    }
    inventory.bucket = Presence::Foreign("it carries no fleet:owner tag".into());
    let conflicts = plan_of(&desired, &inventory);
    assert!(
        conflicts.contains("bucket fleet-shop-dev-bucket: exists and is not"),
        "{conflicts}"
    );
    // On the way down it stays.
    let plan = planned(&desired, &inventory, Goal::Down);
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| step.step.title().contains("bucket"))
    );
}

fn plan_of(desired: &Desired, inventory: &Inventory) -> String {
    let conflicts = plan(desired, inventory, Goal::Up).expect_err("in the way");
    let lines = conflicts.iter().map(|conflict| format!("{conflict}\n"));
    lines.collect()
}

#[test]
fn down_finds_it_when_the_file_asks_for_it_no_more() {
    let mut desired = sending(&["web"]);
    let mut inventory = up(&desired);
    sends(&mut desired, false);
    // It stays for a roll that has to go back.
    assert_eq!(
        planned(&desired, &read(&desired, &inventory, Goal::Up), Goal::Up).steps,
        []
    );
    let plan = planned(
        &desired,
        &read(&desired, &inventory, Goal::Down),
        Goal::Down,
    );
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
}
