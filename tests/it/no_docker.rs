//! A node whose Docker never comes, since its start hangs: the agent is up, says what it waits for, and gives the
//! node up in time.

use std::{fs, thread};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Ran, Sandbox, agent_source, eventually};

/// Its socket is there, and nobody ever answers.
const WITHOUT: &str = r"#cloud-config
bootcmd:
- mkdir -p /run/systemd/system/docker.service.d
- printf '[Service]\nExecStart=\nExecStart=/bin/sleep infinity\nTimeoutStartSec=infinity\n' >/run/systemd/system/docker.service.d/hang.conf
- systemctl daemon-reload
- systemctl stop docker.service
- systemctl start --no-block docker.service
";
const WAITS: &str =
    "systemctl show fleet-agent --property ActiveState --property NRestarts --property StatusText";

#[test]
fn a_node_without_docker_says_so_and_is_given_up() {
    let sandbox = Sandbox::up("it-no-docker").expect("a sandbox");
    let ended = given_up(&sandbox).expect("a node");
    let said = format!("{}{}", ended.out, ended.err);
    assert_eq!(ended.code, 1, "{said}");
    assert!(said.contains("ABANDON"), "{said}");
    assert!(said.contains("Docker"), "its last words: {said}");
}

fn given_up(sandbox: &Sandbox) -> Result<Ran> {
    let source = agent_source(sandbox)?;
    let settings = format!(
        "[environments.dev.agent]\n{source}\nlaunch_timeout_seconds = 60\n\
         [environments.dev.groups.web]\nmin = 0\nmax = 1\ndesired = 1\nuser_data = \"nodes.yaml\"\n"
    );
    let fleet = Fleet::init(sandbox, "shop", &settings)?;
    fs::write(fleet.file().with_file_name("nodes.yaml"), WITHOUT)?;
    thread::scope(|scope| {
        let up = scope.spawn(|| fleet.bootstrap(&["up", "dev", "--yes"]));
        let node = eventually("a node", 60, || {
            let instance = sandbox.status()?["groups"][0]["instances"][0].clone();
            Ok(instance["instance_id"].as_str().map(str::to_owned))
        })?;
        eventually("an agent that waits for Docker", 60, || {
            let told = sandbox.on(&node, WAITS)?.out;
            let waits = told.contains("waiting for Docker");
            Ok((waits && told.contains("ActiveState=active")).then_some(told))
        })
        .and_then(|told| told.contains("NRestarts=0").then_some(()).context(told))?;
        let up = up.join().expect("no panic")?;
        let _ = fleet.bootstrap(&["down", "dev", "--yes"])?.exits(0);
        Ok(up)
    })
}
