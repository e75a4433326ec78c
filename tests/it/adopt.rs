//! Somebody else's cluster: our groups join it, run in it and leave it, and it stays as it was.

use anyhow::Result;
use fleet_tests::{Fleet, Sandbox, agent_source};
use serde_json::{Value, json};

use crate::least_privilege::limit;

const CLUSTER: &str = "main";
/// Whoever owns the cluster; the key that fleet-bootstrap has is held to its operator's policy.
const OWNER: &str = "AKIAIOSFODNN7EXAMPLE";
/// The sandbox's account is moto's.
const ACCOUNT: &str = "123456789012";

#[test]
fn groups_join_an_adopted_cluster_and_leave_it_as_it_was() {
    let sandbox = Sandbox::up("it-adopt").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let others = Fleet::init(
        &sandbox,
        "others",
        "[environments.dev.groups.web]\nmin = 0\nmax = 1\n",
    )
    .expect("init");
    up(&others, "dev");

    let region = sandbox.var("AWS_REGION");
    let fleet = Fleet::init(
        &sandbox,
        "shop",
        &format!(
            "[environments.dev.agent]\n{source}\n\
             [environments.dev.cluster]\nadopt = \"arn:aws:ecs:{region}:{ACCOUNT}:cluster/{CLUSTER}\"\n\
             [environments.dev.groups.web]\nmin = 0\nmax = 1\ndesired = 1\n\
             [environments.prod.cluster]\nadopt = \"{CLUSTER}\"\n\
             [environments.prod.groups.web]\nmin = 0\nmax = 1\n"
        ),
    )
    .expect("init");
    let none = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(1);
    let missing = format!("cluster {CLUSTER}: there is none in {region}");
    assert!(none.err.contains(&missing), "{}", none.err);

    made_by_hand(&sandbox).expect("a cluster");
    let before = cluster(&sandbox).expect("a cluster");
    for environment in ["prod", "dev"] {
        limit(&sandbox, &fleet, environment).expect("a limit");
        up(&fleet, environment);
    }
    let joined = cluster(&sandbox).expect("a cluster");
    assert_eq!(
        joined["capacityProviders"],
        json!(["FARGATE", "others-dev-web", "shop-prod-web", "shop-dev-web"])
    );
    assert_eq!(without_providers(&joined), without_providers(&before));
    let status = fleet.status().expect("status");
    assert_eq!(status["cluster"], CLUSTER);
    assert_eq!(status["cluster_is_adopted"], true);

    services_stay(&sandbox, &fleet).expect("a way down");
    for (environment, left) in [
        (
            "prod",
            json!(["FARGATE", "others-dev-web", "shop-prod-web"]),
        ),
        ("", json!(["FARGATE", "others-dev-web"])),
    ] {
        let now = cluster(&sandbox).expect("a cluster");
        assert_eq!(now["capacityProviders"], left);
        assert_eq!(without_providers(&now), without_providers(&before));
        if !environment.is_empty() {
            limit(&sandbox, &fleet, environment).expect("a limit");
            let plan = fleet.bootstrap(&["plan", environment]).expect("runs");
            let _ = plan.exits(0);
            let down = ["down", environment, "--yes"];
            let _ = fleet.bootstrap(&down).expect("runs").exits(0);
        }
    }
    limit(&sandbox, &others, "dev").expect("a limit");
    let _ = others.bootstrap(&["plan", "dev"]).expect("runs").exits(0);
}

/// Twice, the second time with nothing left to do.
fn up(fleet: &Fleet<'_>, environment: &str) {
    let up = ["up", environment, "--yes"];
    let _ = fleet.bootstrap(&up).expect("runs").exits(0);
    let plan = fleet.bootstrap(&["plan", environment]).expect("runs");
    let _ = plan.exits(0);
}

/// With another fleet's capacity provider, a setting, a tag, and a default strategy.
fn made_by_hand(sandbox: &Sandbox) -> Result<()> {
    let create = json!({
        "clusterName": CLUSTER,
        "settings": [{ "name": "containerInsights", "value": "enabled" }],
        "tags": [{ "key": "team", "value": "platform" }],
    });
    let _ = sandbox.aws("ecs", "create_cluster", &create)?;
    let attach = json!({
        "cluster": CLUSTER,
        "capacityProviders": ["FARGATE", "others-dev-web"],
        "defaultCapacityProviderStrategy": [{ "capacityProvider": "others-dev-web", "weight": 1, "base": 0 }],
    });
    let _ = sandbox.aws("ecs", "put_cluster_capacity_providers", &attach)?;
    Ok(())
}

/// A service that names our provider stops `down` before it has begun; one whose task is on our node does
/// not, and waits for another node.
fn services_stay(sandbox: &Sandbox, fleet: &Fleet<'_>) -> Result<()> {
    // ECS may stop its task before another runs; else the drain would wait for a node until its deadline.
    let run = ["run-tasks", "--min", "0", CLUSTER, "web", "1"];
    let _ = sandbox.cli(&run)?.exits(0);
    fleet_tests::eventually("a task on our node", 60, || {
        Ok((fleet.status()?["nodes"][0]["tasks"] == 1).then_some(()))
    })?;
    let bound = json!({
        "cluster": CLUSTER,
        "serviceName": "bound",
        "taskDefinition": "web",
        "desiredCount": 0,
        "capacityProviderStrategy": [{ "capacityProvider": "shop-dev-web", "weight": 1 }],
    });
    let _ = sandbox.aws_as(OWNER, "ecs", "create_service", &bound)?;
    let down = ["down", "dev", "--yes"];
    let refused = fleet.bootstrap(&down)?.exits(1);
    assert!(
        refused.err.contains("give them another") && refused.err.contains(": bound"),
        "{}",
        refused.err
    );
    let delete = json!({ "cluster": CLUSTER, "service": "bound", "force": true });
    let _ = sandbox.aws_as(OWNER, "ecs", "delete_service", &delete)?;

    let ran = fleet.bootstrap(&down)?.exits(0);
    assert!(ran.out.contains("x tasks"), "{}", ran.out);
    assert!(ran.out.contains("1 of web"), "{}", ran.out);
    let service = json!({ "cluster": CLUSTER, "services": ["web"] });
    let service = sandbox.aws_as(OWNER, "ecs", "describe_services", &service)?;
    let service = &service["services"][0];
    assert_eq!(service["status"], "ACTIVE");
    assert_eq!(
        (&service["desiredCount"], &service["runningCount"]),
        (&json!(1), &json!(0))
    );
    let nodes = json!({ "cluster": CLUSTER });
    let nodes = sandbox.aws_as(OWNER, "ecs", "list_container_instances", &nodes)?;
    assert_eq!(nodes["containerInstanceArns"], json!([]));
    Ok(())
}

/// All that ECS tells of it.
fn cluster(sandbox: &Sandbox) -> Result<Value> {
    let ask = json!({
        "clusters": [CLUSTER],
        "include": ["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "TAGS"],
    });
    let told = sandbox.aws_as(OWNER, "ecs", "describe_clusters", &ask)?;
    Ok(told["clusters"][0].clone())
}

/// ... that is not ours to change, and not about what runs in it.
fn without_providers(cluster: &Value) -> Value {
    let kept = [
        "status",
        "settings",
        "tags",
        "configuration",
        "defaultCapacityProviderStrategy",
    ];
    kept.map(|key| cluster[key].clone()).to_vec().into()
}
