//! Nodes that run a file of the user's own: after fleet's part, and with all of both.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, agent_source, eventually, program, run};

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

    // What cloud-init has made of both parts.
    let merged = "cloud-init schema --config-file /var/lib/cloud/instance/cloud-config.txt";
    let _ = sandbox.on(&web, merged).expect("runs").exits(0);

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

/// Every form that fleet-bootstrap renders, as cloud-init's own schema has it.
#[test]
fn user_data_is_what_cloud_init_takes() {
    const FILE: &str = include_str!("../../bootstrap/tests/fleet.toml");
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let (before, rest) = FILE.split_once("source = ").expect("a source");
    let (url, after) = rest.split_once('\n').expect("a line");
    let sum = "ab".repeat(32);
    let s3 = format!("{{ s3 = \"s3://releases/fleet-agent\", sha256 = \"{sum}\" }}");
    let mut forms = Vec::new();
    for (form, source, group) in [
        ("baked", "", "web"),
        ("url", url, "web"),
        ("s3", s3.as_str(), "web"),
        ("volume", "", "batch"),
        ("volume-s3", s3.as_str(), "batch"),
    ] {
        let source = match source {
            "" => String::new(),
            source => format!("source = {source}"),
        };
        fs::write(at("fleet.toml"), format!("{before}{source}\n{after}")).expect("written");
        let file = at("fleet.toml");
        let mut render = Command::new(program("fleet-bootstrap"));
        let render = render.args(["render", "dev", "user-data", "--group", group, "--file"]);
        let rendered = run(render.arg(file)).expect("runs").exits(0).out;
        fs::write(at(form), &rendered).expect("written");
        forms.push(form);
        if form == "volume-s3" {
            let wrong = rendered.replace("\"permissions\"", "\"permission\"");
            assert_ne!(wrong, rendered);
            fs::write(at("wrong"), wrong).expect("written");
        }
    }
    let image = run(Command::new("../tests/sandbox/image/build").arg("--tag")).expect("a tag");
    let check = |form: &str| {
        let mut docker = Command::new("docker");
        let volume = format!("{}:/forms:ro", directory.path().display());
        docker.args(["run", "--rm", "--network", "none", "--volume", &volume]);
        docker.args(["--entrypoint", "cloud-init", image.out.trim()]);
        docker.args(["schema", "--config-file", &format!("/forms/{form}")]);
        run(&mut docker).expect("runs")
    };
    for form in forms {
        let _ = check(form).exits(0);
    }
    let wrong = check("wrong");
    assert_ne!(wrong.code, 0, "{}{}", wrong.out, wrong.err);
    let said = format!("{}{}", wrong.out, wrong.err);
    assert!(said.contains("permission"), "{said}");
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
