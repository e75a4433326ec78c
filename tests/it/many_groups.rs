//! An environment of many groups is read in pages, and nothing is seen less than by name.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, agent_source};
use serde_json::json;

#[test]
fn what_changed_in_one_of_many_groups_is_seen_and_put_right() {
    let sandbox = Sandbox::up("it-many").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let mut settings = format!(
        "[environments.dev.agent]\n{source}\n[environments.dev.tags]\nteam = \"shop\"\n\
         [environments.dev.groups.web]\nmin = 0\n"
    );
    for number in 1..=5 {
        write!(
            settings,
            "[environments.dev.groups.g{number}]\ninstance_types = [\"m7i.large\"]\nmin = 0\nmax = 1\n"
        )
        .expect("a string");
    }
    let fleet = Fleet::init(&sandbox, "shop", &settings).expect("init");
    let run = |args: &[&str], code| fleet.bootstrap(args).expect("runs").exits(code);
    let _ = run(&["up", "dev", "--yes"], 0);
    let _ = run(&["plan", "dev"], 0);

    change_by_hand(&sandbox).expect("changes");
    let plan = run(&["plan", "dev"], 2).out;
    for changed in [
        "by-hand",
        "nightly",
        "/fleet/shop/dev/g3/agent",
        "fleet-drain",
    ] {
        assert!(plan.contains(changed), "{changed} in\n{plan}");
    }
    let _ = run(&["up", "dev", "--yes"], 0);
    let _ = run(&["plan", "dev"], 0);
    without_the_lists(&sandbox, &fleet).expect("a limit");
    let _ = run(&["plan", "dev"], 0);
    let _ = run(&["down", "dev", "--yes"], 0);
}

/// As somebody who may not see all of the account's roles, which is what `render policy --for operator` gives.
fn without_the_lists(sandbox: &Sandbox, fleet: &Fleet<'_>) -> Result<()> {
    let all = json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Effect": "Allow", "Action": "*", "Resource": "*" },
            {
                "Effect": "Deny",
                "Action": "iam:GetAccountAuthorizationDetails",
                "Resource": "*",
            },
        ],
    });
    let file = fleet.file().with_file_name("policy.json");
    fs::write(&file, all.to_string())?;
    let file = file.to_str().context("a path")?;
    let key = sandbox.var("AWS_ACCESS_KEY_ID");
    let _ = sandbox.cli(&["allow", key, file])?.exits(0);
    let refused = sandbox.aws("iam", "get_account_authorization_details", &json!({}));
    let refused = refused.expect_err("denied").to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    Ok(())
}

/// One thing of each kind that is read from a list, and one that is not.
fn change_by_hand(sandbox: &Sandbox) -> Result<()> {
    let anything = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}"#;
    let changes = [
        (
            "iam",
            "put_role_policy",
            json!({"RoleName": "shop-dev-g1-us-east-1", "PolicyName": "by-hand", "PolicyDocument": anything}),
        ),
        (
            "autoscaling",
            "put_scheduled_update_group_action",
            json!({"AutoScalingGroupName": "shop-dev-g2", "ScheduledActionName": "nightly", "Recurrence": "0 1 * * *", "MaxSize": 1}),
        ),
        (
            "ssm",
            "add_tags_to_resource",
            json!({"ResourceType": "Parameter", "ResourceId": "/fleet/shop/dev/g3/agent", "Tags": [{"Key": "team", "Value": "other"}]}),
        ),
        (
            "autoscaling",
            "put_lifecycle_hook",
            json!({"AutoScalingGroupName": "shop-dev-g4", "LifecycleHookName": "fleet-drain", "HeartbeatTimeout": 60}),
        ),
    ];
    for (service, operation, parameters) in changes {
        let _ = sandbox.aws(service, operation, &parameters)?;
    }
    Ok(())
}
