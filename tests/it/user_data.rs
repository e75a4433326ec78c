//! Nodes that run a file of the user's own: after fleet's part, and with all of both.

use std::fs;

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, agent_source, eventually};

/// Each step writes down what fleet's own of the same kind has done by then.
const CLOUD_CONFIG: &str = "#cloud-config
bootcmd:
- cat /etc/systemd/system/ecs.service.d/10-fleet.conf >/var/tmp/at-bootcmd
write_files:
- path: /var/tmp/written
  content: grüße
runcmd:
- [sh, -c, 'systemctl is-enabled fleet-agent >/var/tmp/at-runcmd; cp /etc/fleet/agent.toml /var/tmp/agent.toml']
";
const SCRIPT: &str = "#!/bin/sh
systemctl is-enabled fleet-agent >/var/tmp/at-script
echo grüße >>/var/tmp/at-script
";

#[test]
fn nodes_run_the_users_part_after_fleets() {
    let sandbox = Sandbox::up("it-user-data").expect("a sandbox");
    let source = agent_source(&sandbox).expect("an agent");
    let group = "desired = 1\nmin = 0\nmax = 1\n";
    let settings = format!(
        "[environments.dev.agent]\n{source}\n\
         [environments.dev.groups.web]\n{group}user_data = \"nodes.yaml\"\n\
         [environments.dev.groups.more]\ninstance_types = [\"m7i.large\"]\n{group}user_data = \"nodes.sh\"\n"
    );
    let fleet = Fleet::init(&sandbox, "shop", &settings).expect("a file");
    for (file, text) in [("nodes.yaml", CLOUD_CONFIG), ("nodes.sh", SCRIPT)] {
        fs::write(fleet.file().with_file_name(file), text).expect("written");
    }
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);

    let web = node_of(&fleet, "web").expect("a node");
    await_text(&sandbox, &web, "at-bootcmd", "ConditionPathExists=").expect("the gate first");
    await_text(&sandbox, &web, "written", "grüße").expect("its file");
    await_text(&sandbox, &web, "at-runcmd", "enabled").expect("the agent first");
    await_text(&sandbox, &web, "agent.toml", "group = \"web\"").expect("fleet's file");
    let more = node_of(&fleet, "more").expect("a node");
    await_text(&sandbox, &more, "at-script", "enabled\ngrüße\n").expect("the agent first");

    // New nodes alone hear of a change.
    let script = fleet.file().with_file_name("nodes.sh");
    fs::write(script, format!("{SCRIPT}true\n")).expect("written");
    let plan = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(2);
    let changed: Vec<&str> = plan.out.lines().filter(|l| l.contains("  ~ ")).collect();
    let template = changed.iter().find(|line| line.contains("launch-template"));
    let template = template.expect("a new version");
    assert!(
        template.contains("shop-dev-more") && template.contains("user data"),
        "{}",
        plan.out
    );
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
}

fn node_of(fleet: &Fleet<'_>, group: &str) -> Result<String> {
    let status = fleet.status()?;
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    let node = nodes.find(|node| node["group"] == *group);
    let id = node.and_then(|node| node["id"].as_str());
    id.map(str::to_owned).context("a node of the group")
}

/// A node is ready before the last of its user data has run.
fn await_text(sandbox: &Sandbox, node: &str, file: &str, text: &str) -> Result<()> {
    eventually(&format!("{text} in {file} of {node}"), 60, || {
        let found = sandbox.on(node, &format!("cat /var/tmp/{file}"))?;
        Ok(found.out.contains(text).then_some(()))
    })
}
