//! Groups that go by what is reserved.

use super::*;

/// Steps such as a file could have.
pub(super) fn steps(above: u32) -> Scaling {
    let step = |percent, nodes| LadderStep { percent, nodes };
    Scaling::Steps(StepScaling {
        out: Ladder {
            minutes: 2,
            steps: vec![step(above, 1), step(90, 3)],
        },
        inward: Ladder {
            minutes: 15,
            steps: vec![step(30, 1)],
        },
        warmup_seconds: 300,
    })
}

#[test]
fn steps_come_in_the_place_of_managed_scaling_and_go_for_it() {
    let mut desired = model::desired(&["web"]);
    let managed = desired.groups[0].scaling.clone();
    desired.groups[0].scaling = steps(75);
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    let again = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_again", golden(&again));
    assert_eq!(again.steps, []);
    let nodes = |inventory: &Inventory, is_protected: bool| {
        let asg = inventory.groups["web"].auto_scaling_group.owned();
        let asg = asg.expect("there").clone();
        let all = asg
            .instances
            .iter()
            .all(|node| node.protected == is_protected);
        all && asg.new_instances_protected == is_protected
    };
    assert!(nodes(&inventory, false));

    desired.groups[0].scaling = steps(80);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_changed", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    let down = planned(&desired, &inventory, Goal::Down);
    let mut gone = inventory.clone();
    apply_all(&desired, &mut gone, &down);
    assert!(golden(&down).contains("- alarm"), "{}", golden(&down));
    assert!(model::is_empty(&gone));

    desired.groups[0].scaling = managed;
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_ended", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    assert!(nodes(&inventory, true));
    assert_eq!(inventory.groups["web"].alarms, [].into());

    desired.groups[0].scaling = steps(75);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_begun", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    assert!(nodes(&inventory, false));
}

#[test]
fn what_somebody_else_did_to_steps_is_taken_back() {
    let mut desired = model::desired(&["web"]);
    desired.groups[0].scaling = steps(75);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    if let Some(Presence::Owned(alarm)) = group.alarms.get_mut(&Direction::Out) {
        alarm.settings.is_enabled = false;
        alarm.settings.cluster = None;
        alarm.settings.minutes = 5;
        alarm.tags.insert("fleet:name".into(), "other".into());
        alarm.actions.push("arn:sns".into());
    }
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        asg.scaling_policies.remove(&Direction::In);
        let out = asg
            .scaling_policies
            .get_mut(&Direction::Out)
            .expect("there");
        out.settings.warmup_seconds = None;
        out.settings.steps.pop();
        asg.instances[1].protected = true;
    }
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_touched", golden(&plan));
    // The model's tags are of what has ARNs of its own.
    let retag = |step: &Step| matches!(step, Step::Tag { .. });
    for step in plan.steps.iter().filter(|planned| !retag(&planned.step)) {
        model::apply(&mut inventory, &desired, &step.step).expect("works");
    }
    let rest = planned(&desired, &inventory, Goal::Up);
    assert!(
        rest.steps.iter().all(|planned| retag(&planned.step)),
        "{}",
        golden(&rest)
    );
}

#[test]
fn an_alarm_of_somebody_else_s_stands_in_the_way_of_steps_alone() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    let foreign = Presence::Foreign("it carries no fleet:owner tag".into());
    group.alarms.insert(Direction::In, foreign);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let down = planned(&desired, &inventory, Goal::Down);
    assert!(!golden(&down).contains("remove alarm"), "{}", golden(&down));
    desired.groups[0].scaling = steps(75);
    let conflicts = plan(&desired, &inventory, Goal::Up).expect_err("not ours");
    let told = conflicts[0].to_string();
    assert!(
        told.starts_with("alarm shop-dev-web-fleet-scale-in: exists and is not"),
        "{told}"
    );
}
