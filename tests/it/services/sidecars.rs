//! Sidecars whose definition changes, on a node that is in service.

use anyhow::{Context as _, Result};
use fleet_tests::{
    Sandbox, eventually,
    stage::{Stage, await_event},
};
use serde_json::json;

use super::await_attribute;

const SIDECARS: &str = "[environments.dev.sidecars.node-logs]\n\
    image = \"fleet-sandbox/busybox:1\"\n\
    command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; httpd -f -p 8080 & wait $!\"]\n\
    memory_mib = 16\npids = 20\nports = [\"9100:8080\"]\ncapabilities = [\"NET_ADMIN\"]\n\
    before_tasks = true\nstop_timeout_seconds = 2\n\
    health_check = { command = [\"sh\", \"-c\", \"nc 127.0.0.1 8080 </dev/null\"], interval_seconds = 1 }\n\
    [environments.dev.sidecars.shipper]\n\
    image = \"fleet-sandbox/busybox:1\"\n\
    command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; sleep 3600 & wait $!\"]\n\
    depends_on = [\"node-logs\"]\nstop_timeout_seconds = 2\n\
    secrets = { API_KEY = \"ssm:/shop/api-key\" }\n";
const PUBLIC: &str = "fleet-sandbox/busybox:1";
const SECRET: &str = "hunter2-and-more";

#[test]
fn a_changed_sidecar_takes_the_olds_place_or_leaves_it_there() {
    let sandbox = Sandbox::up("it-sidecars").expect("a sandbox");
    let secret = json!({ "Name": "/shop/api-key", "Value": SECRET, "Type": "SecureString" });
    let _ = sandbox
        .aws("ssm", "put_parameter", &secret)
        .expect("a secret");
    let stage = Stage::up(&sandbox, 1, "", SIDECARS).expect("up");
    let node = stage.nodes[0].clone();
    as_described(&stage, &node).expect("as described");
    given_to_read(&stage, &node).expect("a secret");
    private(&stage, &node).expect("a private image");
    changed(&stage, &node).expect("a change");
}

fn as_described(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let inspect = "docker inspect --format \
        '{{.HostConfig.PidsLimit}} {{.HostConfig.CapAdd}} {{.State.Health.Status}} {{.HostConfig.Memory}}' fleet-node-logs";
    let told = sandbox.on(node, inspect)?.exits(0).out;
    assert_eq!(told.trim(), "20 [NET_ADMIN] healthy 16777216");
    let reached = sandbox.on(
        node,
        "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:9100/",
    )?;
    assert_eq!(reached.out, "404", "it serves on the node's port");
    let config = sandbox
        .on(node, "fleet-agent status --config")?
        .exits(0)
        .out;
    assert!(
        config.contains("[22,2375,2376,9100,51678,51679]"),
        "{config}"
    );
    // What it waited for was healthy before it started.
    let order = "docker inspect --format '{{.State.StartedAt}}' fleet-node-logs fleet-shipper";
    let order = sandbox.on(node, order)?.exits(0).out;
    let times: Vec<&str> = order.lines().collect();
    assert!(times[0] < times[1], "{order}");
    Ok(())
}

/// Its container reads it, and it stands nowhere else on the node.
fn given_to_read(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let read = "docker exec --user 1000 fleet-shipper sh -c 'cat $API_KEY_FILE'";
    assert_eq!(sandbox.on(node, read)?.exits(0).out, SECRET);
    let elsewhere = format!(
        "grep -rl {SECRET} /etc /var/lib/docker/containers /var/lib/fleet-agent /var/log; \
         docker inspect fleet-shipper | grep {SECRET}; journalctl --no-pager | grep {SECRET}"
    );
    let found = sandbox.on(node, &elsewhere)?;
    assert_eq!(found.out, "", "{}", found.err);
    // Only its container, and root.
    let file = "cat /run/fleet-agent/secrets/shipper/*/API_KEY";
    assert_eq!(sandbox.on(node, file)?.exits(0).out, SECRET);
    let other = format!("su -s /bin/sh -c '{file}' nobody");
    assert_ne!(sandbox.on(node, &other)?.code, 0);
    Ok(())
}

fn id(stage: &Stage<'_>, node: &str, name: &str) -> Result<String> {
    let inspect =
        format!("docker inspect --format '{{{{.Id}}}} {{{{.State.Running}}}}' fleet-{name}");
    Ok(stage.sandbox.on(node, &inspect)?.out.trim().to_owned())
}

/// Settings that are changed by hand, as another boot's user data would.
fn set(stage: &Stage<'_>, node: &str, from: &str, to: &str) -> Result<()> {
    let change =
        format!("sed -i 's|{from}|{to}|' /etc/fleet/agent.toml && systemctl restart fleet-agent");
    let _ = stage.sandbox.on(node, &change)?.exits(0);
    Ok(())
}

/// From a registry of ECR: on this node, by its name in ECR.
fn private(stage: &Stage<'_>, node: &str) -> Result<()> {
    const HOST: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    let sandbox = stage.sandbox;
    let reply = sandbox.aws("ecr", "get_authorization_token", &json!({}))?;
    let token = reply["authorizationData"][0]["authorizationToken"]
        .as_str()
        .context("a token")?;
    let serve = format!(
        "cat >/root/registry.py <<'END'\n{}END\n\
         echo 127.0.0.1 {HOST} >>/etc/hosts && systemd-run --unit registry \
         python3 /root/registry.py {PUBLIC} {token}",
        include_str!("registry.py")
    );
    let _ = sandbox.on(node, &serve)?.exits(0);
    eventually("a registry that asks who pulls", 30, || {
        let ask = format!("curl -s -o /dev/null -w '%{{http_code}}' http://{HOST}/v2/");
        Ok((sandbox.on(node, &ask)?.out == "401").then_some(()))
    })?;
    let private = format!("{HOST}/ops/busybox:1");
    set(stage, node, PUBLIC, &private)?;
    await_images(stage, node, &private)?;
    set(stage, node, &private, PUBLIC)?;
    await_images(stage, node, PUBLIC)
}

/// Until both sidecars run it.
fn await_images(stage: &Stage<'_>, node: &str, image: &str) -> Result<()> {
    let inspect = "docker inspect --format '{{.Config.Image}} {{.State.Running}}' \
                   fleet-node-logs fleet-shipper";
    eventually(&format!("sidecars of {image}"), 90, || {
        let found = stage.sandbox.on(node, inspect)?.out;
        let wanted = format!("{image} true\n").repeat(2);
        Ok((found == wanted).then_some(()))
    })?;
    stage.await_phase(node, "in-service", 30).map(drop)
}

fn changed(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let foreign = "docker run -d --name fleet-foreign fleet-sandbox/busybox:1 sleep 3600";
    let _ = sandbox.on(node, foreign)?.exits(0);
    let (logs, shipper) = (id(stage, node, "node-logs")?, id(stage, node, "shipper")?);
    set(stage, node, "pids = 20", "pids = 30")?;
    eventually("another container", 60, || {
        let now = id(stage, node, "node-logs")?;
        Ok((now != logs && now.ends_with("true")).then_some(()))
    })?;
    stage.await_phase(node, "in-service", 30)?;
    assert_eq!(
        id(stage, node, "shipper")?,
        shipper,
        "it did not change, and is adopted"
    );

    // One that dies at once: the old one comes back, and it is told.
    let logs = id(stage, node, "node-logs")?;
    let journal = sandbox.follow_journal(node)?;
    set(stage, node, "httpd -f", "httpd --nonsense -f")?;
    await_event(&journal, "call-failed", 60)?;
    let story = journal.story()?;
    let told = story.last("call-failed")?;
    assert!(
        told.field("MESSAGE").contains("the old one runs again"),
        "{}",
        story.text()
    );
    assert_eq!(id(stage, node, "node-logs")?, logs);
    let told = sandbox.on(node, "docker ps -a --format '{{.Names}}'")?.out;
    assert!(!told.contains(".old"), "{told}");
    // The node serves on, and is not what it should be.
    stage.await_phase(node, "in-service", 30)?;
    await_attribute(sandbox, node, "fleet.reason", "sidecars", 60)?;

    // An image that cannot be had: nothing is stopped for it.
    set(
        stage,
        node,
        "fleet-sandbox/busybox:1",
        "127.0.0.1:9/nowhere:1",
    )?;
    eventually("the failure to be told", 90, || {
        let told = stage.told(node)?["waiting_on"].to_string();
        Ok(told.contains("nowhere:1").then_some(()))
    })?;
    assert_eq!(id(stage, node, "node-logs")?, logs);
    assert!(
        id(stage, node, "foreign")?.ends_with("true"),
        "what is not ours is left alone"
    );
    Ok(())
}
