//! A new agent on nodes that serve: in place, by the commands of docs/upgrading.md, and as a change that
//! `up` makes and `roll` takes to the nodes. And units that hold what they promise, by systemd's own word.

use std::process::Command;

use anyhow::{Context as _, Result};
use fleet_tests::{
    Ran, Sandbox, Story, agent_source, eventually,
    evidence::sidecar,
    page, program,
    release::{VERSION, publish, publish_agent, sources},
    run,
    stage::{GROUP, OTHER_HOOK, Stage, await_event},
};
use serde_json::{Value, json};

/// As long as the one that was built, and newer.
const NEXT: &str = "9.9.9";
const IN_PLACE: &str = "Upgrade a node in place";
/// Long enough for an upgrade in the middle of the drain.
const TASKS_SECONDS: u64 = 45;

#[test]
fn a_new_agent_takes_over_and_nothing_else_notices() {
    let sandbox = Sandbox::up("it-upgrade").expect("a sandbox");
    let sidecar = sidecar("node-logs", 1, "flush_timeout_seconds = 3");
    let mut stage = Stage::up(&sandbox, 2, "", &sidecar).expect("up");
    stage.other_hook().expect("a second hook");
    let script = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done";
    stage.serve(4, &[], script).expect("tasks");
    stage.run_on_each(TASKS_SECONDS).expect("tasks");
    for version in [NEXT, VERSION] {
        publish(version).expect("a release");
    }
    stage.play(&[while_it_serves, while_it_drains]);
    as_a_change_of_the_file(&stage).expect("a plan");
}

/// What must be as it was: every container by id and start, the ECS agent by its process.
fn untouched(sandbox: &Sandbox, node: &str) -> Result<String> {
    let look = "docker ps --quiet --no-trunc --filter name=fleet-node-logs --filter name=ecs- | sort | \
                xargs docker inspect --format '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}' && \
                systemctl show ecs --property MainPID --property NRestarts";
    Ok(sandbox.on(node, look)?.exits(0).out)
}

fn agent(sandbox: &Sandbox, node: &str) -> Result<String> {
    let look = "systemctl show fleet-agent --property MainPID && sha256sum /usr/bin/fleet-agent";
    Ok(sandbox.on(node, look)?.exits(0).out)
}

/// The commands of the page, with a release of this version.
fn install(sandbox: &Sandbox, node: &str, version: &str) -> Result<Ran> {
    let url = sandbox.var("FLEET_SANDBOX_NODE_URL");
    let release = format!("{url}/_sandbox/files/fleet-{version}-x86_64-linux");
    let commands = page::commands("upgrading.md", IN_PLACE)?;
    sandbox.on(node, &format!("RELEASE={release}\n{commands}"))
}

fn while_it_serves(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    // Those of no service end by themselves while this goes on.
    eventually("tasks of the service alone", 90, || {
        let told = stage.told(node)?;
        let tasks = told["tasks"].as_array().context("tasks")?;
        let all = tasks.iter().all(|task| task["family"] == "web");
        Ok((all && !tasks.is_empty()).then_some(()))
    })?;
    let (before, old) = (untouched(sandbox, node)?, agent(sandbox, node)?);
    let told = journal.story()?.0.len();
    assert!(before.lines().count() >= 4, "tasks and a sidecar: {before}");

    let upgraded = install(sandbox, node, NEXT)?.exits(0);
    assert!(
        upgraded.out.contains(&format!("fleet-agent {NEXT}")),
        "{}",
        upgraded.out
    );
    published(sandbox, node, NEXT)?;
    assert_ne!(agent(sandbox, node)?, old);
    assert_eq!(untouched(sandbox, node)?, before);

    // And back, by the same commands.
    let _ = install(sandbox, node, VERSION)?.exits(0);
    published(sandbox, node, VERSION)?;
    assert_eq!(untouched(sandbox, node)?, before);
    let story = Story(journal.story()?.0.split_off(told));
    assert_eq!(story.count("started"), 2, "{}", story.text());
    for event in ["draining", "sidecar-changed", "ecs-started"] {
        assert_eq!(story.count(event), 0, "{}", story.text());
    }

    // What a newer one has left is not half taken over, and neither are its settings.
    for (file, edit, told) in [
        (
            "/var/lib/fleet-agent/state.json",
            "s/\"version\": 1,/\"version\": 2,/",
            "its version is 2, and this fleet-agent reads 1: a newer one wrote it",
        ),
        (
            "/etc/fleet/agent.toml",
            "s/^cluster = /clusters = /",
            "clusters: unknown key, did you mean `cluster`?",
        ),
    ] {
        let serving = agent(sandbox, node)?;
        let edit = format!(
            "cp -p {file} /root/kept && sed -i '{edit}' {file} && ! cmp -s {file} /root/kept"
        );
        let _ = sandbox.on(node, &edit)?.exits(0);
        let refused = install(sandbox, node, NEXT)?.exits(1);
        let _ = sandbox.on(node, &format!("mv /root/kept {file}"))?.exits(0);
        assert!(
            refused.err.contains(told) && refused.err.contains("nothing was changed"),
            "{}",
            refused.err
        );
        assert_eq!(agent(sandbox, node)?, serving);
    }
    Ok(())
}

fn while_it_drains(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let key = sandbox.instance(node)?["access_key_id"].clone();
    let journal = sandbox.follow_journal(node)?;
    let _ = sandbox.cli(&["calls", "--reset"])?.exits(0);
    stage.terminate(node)?;
    await_event(&journal, "draining", 30)?;
    let _ = install(sandbox, node, NEXT)?.exits(0);
    let story = stage.await_left(node, journal, 120)?;
    story.tells(&[
        "draining",
        "started",
        "tasks-gone",
        "sidecars-stopped",
        "drain-completed",
    ]);
    assert_eq!(story.count("drain-completed"), 1, "{}", story.text());
    stage.ran_out(&story);
    assert_eq!(stage.calls("CompleteLifecycleAction", &key)?, 1);
    Ok(())
}

/// The version that a node says in ECS.
fn published(sandbox: &Sandbox, node: &str, version: &str) -> Result<()> {
    eventually(&format!("{node} to say {version}"), 60, || {
        let said = sandbox.instance(node)?["attributes"]["fleet.agent"].clone();
        Ok((said == version).then_some(()))
    })
}

/// The page's commands, once the file names another agent.
fn as_a_change_of_the_file(stage: &Stage<'_>) -> Result<()> {
    let Stage { sandbox, fleet, .. } = stage;
    let hook = json!({ "AutoScalingGroupName": GROUP, "LifecycleHookName": OTHER_HOOK });
    let _ = sandbox.aws("autoscaling", "delete_lifecycle_hook", &hook)?;
    let old = format!(
        "source = {}",
        agent_source(sandbox)?.trim_start_matches("source = ")
    );
    let next = publish_agent(NEXT)?;
    let url = sandbox.var("FLEET_SANDBOX_NODE_URL");
    let sum = run(Command::new("sha256sum").arg(&next))?.exits(0).out;
    let sum = sum.split_whitespace().next().context("a sum")?;
    let name = next.file_name().context("a name")?.to_string_lossy();
    let new = format!("source = {{ url = \"{url}/_sandbox/files/{name}\", sha256 = \"{sum}\" }}");
    fleet.replace(&old, &new)?;
    let plan = fleet.bootstrap(&["plan", "dev"])?.exits(2);
    let mut changes = plan.out.lines().filter(|line| line.contains("  ~ "));
    assert!(
        changes.any(|line| line.contains("launch-template") && line.contains("user data")),
        "{}",
        plan.out
    );
    let mut shell = page::shell("upgrading.md", "Take a new version to every node")?;
    let programs = program("fleet-bootstrap");
    let programs = programs.parent().context("a directory")?.canonicalize()?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    shell
        .current_dir(fleet.file().parent().context("a directory")?)
        .env("PATH", path);
    let rolled = run(sandbox.in_aws(&mut shell))?.exits(0).out;
    // `status` between the two: one node, which is stale.
    let group = rolled.lines().find(|line| line.starts_with("web "));
    let counts: Vec<&str> = group.context("a group")?.split_whitespace().collect();
    assert_eq!(
        (counts.get(4), counts.last()),
        (Some(&"1"), Some(&"1")),
        "{rolled}"
    );
    let status = fleet.status()?;
    let serve: Vec<&Value> = status["nodes"]
        .as_array()
        .context("nodes")?
        .iter()
        .filter(|node| node["ready"] == true)
        .collect();
    assert_eq!(serve.len(), 1, "{status}");
    assert_eq!(serve[0]["agent"], NEXT, "{status}");
    stage.await_tasks(4)
}

/// Runs in the sandbox's node image, whose systemd is of Amazon Linux 2023's version, with systemd/ at /units.
fn in_image(script: &str) -> Ran {
    let build = sources().join("tests/sandbox/image/build");
    let tag = run(Command::new(build).arg("--tag"))
        .expect("runs")
        .exits(0);
    let units = format!("{}:/units:ro", sources().join("systemd").display());
    run(Command::new("docker")
        .args([
            "run",
            "--rm",
            "--network",
            "none",
            "--entrypoint",
            "/bin/sh",
        ])
        .args(["--volume", &units, tag.out.trim(), "-c", script]))
    .expect("docker")
}

#[test]
fn the_units_are_valid_and_expose_little() {
    let systemd = |script: &str| {
        in_image(&format!(
            "set -e; cd /etc/systemd/system; mkdir -p ecs.service.d; cp /units/*.service .; \
             cp /units/10-fleet.conf ecs.service.d/; \
             for program in /usr/bin/fleet-agent /usr/libexec/fleet-sandbox; do \
                 mkdir -p ${{program%/*}}; install /bin/true $program; done; {script}"
        ))
    };
    let verified =
        systemd("systemd-analyze verify fleet-agent.service fleet-drain.service ecs.service")
            .exits(0);
    assert_eq!((verified.out.as_str(), verified.err.as_str()), ("", ""));
    for unit in ["fleet-agent", "fleet-drain"] {
        // In tenths.
        let security = "systemd-analyze security --offline=true --no-pager --threshold=";
        let _ = systemd(&format!("{security}30 {unit}.service")).exits(0);
        let _ = systemd(&format!("{security}5 {unit}.service")).exits(1);
    }
    // It can fail.
    let wrong = systemd(
        "echo 'Protect=much' >>fleet-drain.service; systemd-analyze verify fleet-drain.service",
    );
    assert!(wrong.err.contains("Unknown key"), "{}", wrong.err);
}

#[test]
fn the_agent_is_put_into_an_image_that_does_not_run() {
    let install = |checks: &str, arguments: &str, then: &str| {
        in_image(&format!(
            "mkdir -p /release/bin /image/usr/bin /image/etc/fleet && cp -r /units /release/systemd && \
             cp /units/install.sh /release/ && touch /image/etc/fleet/agent.toml && \
             printf '#!/bin/sh\\necho \"$*\" >/told\\n{checks}\\n' >/release/bin/fleet-agent && \
             sh /release/install.sh {arguments} && {then}"
        ))
    };
    let there = "cd /image && cmp usr/bin/fleet-agent /release/bin/fleet-agent && test -x usr/bin/fleet-agent && \
                 cmp etc/systemd/system/ecs.service.d/10-fleet.conf /units/10-fleet.conf && \
                 ls etc/systemd/system/multi-user.target.wants usr/bin && test -s var/lib/systemd/catalog/database && cat /told";
    let put = install("exit 0", "--root /image", there).exits(0);
    // Not the state of the machine that builds the image.
    assert_eq!(
        put.out.split_whitespace().collect::<Vec<_>>().join(" "),
        "etc/systemd/system/multi-user.target.wants: fleet-agent.service fleet-drain.service \
         usr/bin: fleet-agent check /image/etc/fleet/agent.toml"
    );
    let refused = install("exit 1", "--root /image", "true").exits(1);
    assert!(
        refused.err.contains("nothing was changed"),
        "{}",
        refused.err
    );
    let wrong = install("exit 0", "--rot /image", "true").exits(1);
    assert!(
        wrong.err.contains("usage: install.sh [--root DIR]"),
        "{}",
        wrong.err
    );
}
