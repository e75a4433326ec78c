//! Settings that change while nodes serve: one node first, then the others, and never past what their
//! launch template gave them.

use anyhow::{Context as _, Result};
use fleet_tests::{
    Sandbox, eventually,
    stage::{Stage, await_event},
};
use serde_json::{Value, json};

use super::{attribute, await_attribute};

const SIDECARS: &str = "[environments.dev.sidecars.node-logs]\n\
    image = \"fleet-sandbox/busybox:1\"\n\
    command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; sleep 3600 & wait $!\"]\n\
    env = { LEVEL = \"info\" }\nbefore_tasks = true\nmemory_mib = 16\nstop_timeout_seconds = 2\n\
    [environments.dev.sidecars.metrics]\n\
    image = \"fleet-sandbox/busybox:1\"\n\
    command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; sleep 3600 & wait $!\"]\n\
    memory_mib = 16\nstop_timeout_seconds = 2\n";
const PARAMETER: &str = "/fleet/shop/dev/web/agent";

#[test]
fn settings_change_on_nodes_that_serve() {
    let sandbox = Sandbox::up("it-live").expect("a sandbox");
    let mut stage = Stage::up(&sandbox, 2, "", SIDECARS).expect("up");
    stage.run_on_each(600).expect("tasks");
    changed(&stage).expect("a change");
    past_the_envelope(&stage, &stage.nodes[0]).expect("a refusal");
    born_with_it(&stage).expect("a new node");
}

/// `LEVEL` of node-logs, and when each sidecar was started.
fn running(stage: &Stage<'_>, node: &str) -> Result<(String, String)> {
    let inspect = |format: &str, name: &str| {
        let inspect = format!("docker inspect --format '{format}' fleet-{name}");
        Ok::<_, anyhow::Error>(stage.sandbox.on(node, &inspect)?.out)
    };
    let environment = inspect("{{.Config.Env}}", "node-logs")?;
    Ok((environment, inspect("{{.State.StartedAt}}", "metrics")?))
}

fn changed(stage: &Stage<'_>) -> Result<()> {
    let before: Vec<_> = stage
        .nodes
        .iter()
        .map(|node| running(stage, node))
        .collect();
    stage
        .fleet
        .replace("LEVEL = \"info\"", "LEVEL = \"debug\"")?;
    let up = stage.fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    assert!(up.out.contains("try revision 1 on a node of"), "{}", up.out);
    assert!(
        !up.out.contains("launch template"),
        "no new version: {}",
        up.out
    );
    for (node, before) in stage.nodes.iter().zip(before) {
        let (environment, metrics) = running(stage, node)?;
        assert!(environment.contains("LEVEL=debug"), "{environment}");
        assert_eq!(metrics, before?.1, "what did not change goes on");
        assert_eq!(stage.told(node)?["phase"], "in-service");
    }
    let status = stage.fleet.status()?;
    for node in status["nodes"].as_array().context("nodes")? {
        let config = node["config"].as_str().context("config")?;
        assert!(config.ends_with(".1"), "{config}");
    }
    let again = stage.fleet.bootstrap(&["plan", "dev"])?;
    assert_eq!(again.code, 0, "{}", again.out);
    Ok(())
}

/// Somebody who may write the parameter, and no more, gets nothing that the launch template does not
/// give.
fn past_the_envelope(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    let found = sandbox.aws("ssm", "get_parameter", &json!({ "Name": PARAMETER }))?;
    let value = found["Parameter"]["Value"].as_str().context("a value")?;
    let mut live: Value = serde_json::from_str(value)?;
    live["revision"] = 2.into();
    live["sidecars"]["node-logs"]["privileged"] = true.into();
    let put = json!({ "Name": PARAMETER, "Value": live.to_string(), "Overwrite": true });
    let _ = sandbox.aws("ssm", "put_parameter", &put)?;
    let tag = json!({
        "Resources": [node],
        "Tags": [{ "Key": "fleet:revision", "Value": "2" }],
    });
    let _ = sandbox.aws("ec2", "create_tags", &tag)?;
    await_event(&journal, "revision-refused", 60)?;
    eventually("the refusal to be published", 60, || {
        let config = attribute(sandbox, node, "fleet.config")?.unwrap_or_default();
        Ok(config.ends_with(".1 refused 2").then_some(()))
    })?;
    let privileged = "docker inspect --format '{{.HostConfig.Privileged}}' fleet-node-logs";
    assert_eq!(sandbox.on(node, privileged)?.exits(0).out.trim(), "false");

    // The file says nothing of the kind: numbers rise, and all is as it says.
    let _ = stage.fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    await_attribute(sandbox, node, "fleet.health", "ok", 60)?;
    let config = attribute(sandbox, node, "fleet.config")?.unwrap_or_default();
    assert!(config.ends_with(".3"), "{config}");
    Ok(())
}

/// It never runs what its user data says.
fn born_with_it(stage: &Stage<'_>) -> Result<()> {
    stage.scale(3)?;
    let new = eventually("a third node to be in service", 120, || {
        let status = stage.fleet.status()?;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let mut ready = nodes.iter().filter(|node| node["ready"] == true);
        let new = ready.find_map(|node| {
            let id = node["id"].as_str()?;
            (!stage.nodes.iter().any(|known| known == id)).then(|| id.to_owned())
        });
        Ok(new)
    })?;
    let (environment, _) = running(stage, &new)?;
    assert!(environment.contains("LEVEL=debug"), "{environment}");
    let story = stage.sandbox.journal(&new, "")?;
    story.tells(&["revision-taken", "released"]);
    Ok(())
}
