//! Whoever calls may do what its policy allows, and that is enough: an operator with the policy that
//! `render` prints runs an environment from nothing to nothing, and its nodes stay within their group.

use std::fs;

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, agent_source, stage::CLUSTER};
use serde_json::{Value, json};

const OTHER_GROUP: &str = "shop-dev-batch";

#[test]
fn an_operator_and_his_nodes_need_no_more_than_their_policies() {
    let sandbox = Sandbox::up("it-policy").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let fleet = Fleet::init(
        &sandbox,
        "shop",
        &format!(
            "[environments.dev.agent]\n{source}\n\
             [environments.dev.iam]\nscope = \"instance\"\n\
             [environments.dev.groups.web]\nmin = 0\nmax = 2\ndesired = 2\n\
             [environments.dev.groups.batch]\ninstance_types = [\"t3.large\"]\nmin = 0\nmax = 1\ndesired = 0\n"
        ),
    )
    .expect("init");
    limit(&sandbox, &fleet).expect("a limit");
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(2);
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(0);

    let status = fleet.status().expect("status");
    let nodes = status["nodes"].as_array().expect("nodes").iter();
    let nodes: Vec<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let [node, other] = nodes[..] else {
        panic!("two nodes: {nodes:?}");
    };
    a_node_stays_with_itself(&sandbox, node, other).expect("a node");

    let _ = fleet
        .bootstrap(&["drain", "dev", node])
        .expect("runs")
        .exits(0);
    let _ = fleet
        .bootstrap(&["drain", "dev", node, "--undo"])
        .expect("runs")
        .exits(0);
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(2);
}

/// From here on, whoever runs `fleet-bootstrap` has the policy that it prints, and nothing else.
pub(crate) fn limit(sandbox: &Sandbox, fleet: &Fleet<'_>) -> Result<()> {
    let policy = fleet
        .bootstrap(&["render", "dev", "policy", "--for", "operator"])?
        .exits(0);
    // The file names no account; the sandbox's is moto's.
    let policy = policy.out.replace("000000000000", "123456789012");
    let file = fleet.file().with_file_name("policy.json");
    fs::write(&file, policy)?;
    let key = sandbox.var("AWS_ACCESS_KEY_ID");
    let file = file.to_str().context("a path")?;
    let _ = sandbox.cli(&["allow", key, file])?.exits(0);

    let foreign = json!({ "clusterName": "somebody-elses" });
    let refused = sandbox.aws("ecs", "create_cluster", &foreign);
    let refused = refused.expect_err("not in the policy").to_string();
    assert!(refused.contains("AccessDeniedException"), "{refused}");
    Ok(())
}

/// With the credentials that the instance's own metadata service gives it.
fn a_node_stays_with_itself(sandbox: &Sandbox, node: &str, other: &str) -> Result<()> {
    const READ: &str = "base=http://169.254.169.254/latest; \
        token=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $base/api/token); \
        get() { curl -sS -H \"X-aws-ec2-metadata-token: $token\" $base/meta-data/iam/security-credentials/$1; }; \
        get $(get)";
    let credentials = sandbox.on(node, READ)?.exits(0).json()?;
    let key = credentials["AccessKeyId"].as_str().context("a key")?;
    let refuses = |service, operation, parameters: Value, parts: &[&str]| {
        let refused = sandbox.aws_as(key, service, operation, &parameters);
        let refused = refused.expect_err("not in the policy").to_string();
        for part in parts {
            assert!(refused.contains(part), "{part} is not in {refused}");
        }
    };
    let answer = json!({
        "AutoScalingGroupName": OTHER_GROUP,
        "LifecycleHookName": "fleet-drain",
        "InstanceId": node,
        "LifecycleActionResult": "CONTINUE",
    });
    let action = "autoscaling:CompleteLifecycleAction";
    let parts = ["(AccessDenied)", node, action, OTHER_GROUP];
    refuses("autoscaling", "complete_lifecycle_action", answer, &parts);

    let filter = format!("ec2InstanceId == {other}");
    let listed = json!({ "cluster": CLUSTER, "filter": filter });
    let listed = sandbox.aws("ecs", "list_container_instances", &listed)?;
    let arn = listed["containerInstanceArns"][0]
        .as_str()
        .context("a node")?;
    let drain = json!({ "cluster": CLUSTER, "containerInstances": [arn], "status": "DRAINING" });
    let attribute = json!({ "name": "fleet.health", "value": "impaired", "targetId": arn });
    let put = json!({ "cluster": CLUSTER, "attributes": [attribute] });
    let tag = json!({ "resourceArn": arn, "tags": [{ "key": "a", "value": "b" }] });
    for (operation, parameters) in [
        ("update_container_instances_state", drain),
        ("put_attributes", put),
        ("tag_resource", tag),
    ] {
        refuses(
            "ecs",
            operation,
            parameters,
            &["AccessDeniedException", node, arn],
        );
    }
    Ok(())
}
