//! A group that Auto Scaling sizes by steps: its alarms have nodes come and go, by whoever's hand the file says,
//! and nothing of it is left.

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, agent_source, eventually};
use serde_json::{Value, json};

use crate::least_privilege::limit;

const GROUP: &str = "shop-dev-web";
const STEPS: &str =
    "step_scaling = { out = [{ above = 70 }, { above = 90, nodes = 5 }], in_minutes = 5 }\n";
const MANAGED: &str = "target_capacity = 90\n";

#[test]
fn alarms_size_a_group_until_ecs_does_again() {
    let sandbox = Sandbox::up("it-steps").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let fleet = Fleet::init(
        &sandbox,
        "shop",
        &format!(
            "[environments.dev.agent]\n{source}\n\
             [environments.dev.groups.web]\nmin = 1\nmax = 2\n{STEPS}"
        ),
    )
    .expect("init");
    limit(&sandbox, &fleet, "dev").expect("a limit");
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    nothing_to_do(&fleet).expect("a plan");
    assert_eq!(alarms(&sandbox).expect("alarms"), 2);

    stands(&sandbox, "out", "95").expect("an alarm");
    eventually("a second node in service", 120, || {
        Ok((in_service(&sandbox)? == [false, false]).then_some(()))
    })
    .expect("a node");
    nothing_to_do(&fleet).expect("a plan");
    let refused = sandbox.cli(&["alarm", &alarm("in"), "50"]).expect("runs");
    assert!(refused.exits(1).err.contains("is OK at 50"));
    stands(&sandbox, "in", "10").expect("an alarm");
    eventually("one node gone, drained", 120, || {
        Ok((in_service(&sandbox)? == [false]).then_some(()))
    })
    .expect("a node");
    nothing_to_do(&fleet).expect("a plan");

    managed_again(&sandbox, &fleet).expect("managed scaling");
    fleet.replace(MANAGED, STEPS).expect("a file");
    // Its policy lets nobody else make alarms.
    let refused = fleet.bootstrap(&["up", "dev", "--yes"]).expect("runs");
    assert!(refused.exits(1).err.contains("cloudwatch:PutMetricAlarm"));
    limit(&sandbox, &fleet, "dev").expect("a limit");
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    nothing_to_do(&fleet).expect("a plan");
    assert_eq!(in_service(&sandbox).expect("nodes"), [false]);
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    assert_eq!(alarms(&sandbox).expect("alarms"), 0);
}

/// The operator's policy is that of the file at the time.
fn managed_again(sandbox: &Sandbox, fleet: &Fleet<'_>) -> Result<()> {
    fleet.replace(STEPS, MANAGED)?;
    limit(sandbox, fleet, "dev")?;
    let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    nothing_to_do(fleet)?;
    assert_eq!(in_service(sandbox)?, [true]);
    assert_eq!(alarms(sandbox)?, 0);
    let asked = json!({ "AutoScalingGroupName": GROUP });
    let policies = sandbox.aws("autoscaling", "describe_policies", &asked)?;
    assert_eq!(policies["ScalingPolicies"], json!([]));
    Ok(())
}

fn nothing_to_do(fleet: &Fleet<'_>) -> Result<()> {
    let plan = fleet.bootstrap(&["plan", "dev"])?;
    assert_eq!(plan.code, 0, "{}{}", plan.out, plan.err);
    Ok(())
}

fn alarm(direction: &str) -> String {
    format!("{GROUP}-fleet-scale-{direction}")
}

fn stands(sandbox: &Sandbox, direction: &str, percent: &str) -> Result<()> {
    let _ = sandbox
        .cli(&["alarm", &alarm(direction), percent])?
        .exits(0);
    Ok(())
}

fn alarms(sandbox: &Sandbox) -> Result<usize> {
    let names = json!({ "AlarmNames": [alarm("out"), alarm("in")] });
    let found = sandbox.aws("cloudwatch", "describe_alarms", &names)?;
    Ok(found["MetricAlarms"].as_array().context("a list")?.len())
}

/// Of the group's nodes: whether they are protected. Those on their way say nothing yet.
fn in_service(sandbox: &Sandbox) -> Result<Vec<bool>> {
    let status = sandbox.status()?;
    let instances = status["groups"][0]["instances"].as_array();
    let instances = instances.context("a list")?.iter();
    if instances
        .clone()
        .any(|node| node["lifecycle_state"] != "InService")
    {
        return Ok(Vec::new());
    }
    Ok(instances
        .map(|node| node["protected"] == Value::Bool(true))
        .collect())
}
