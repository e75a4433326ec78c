//! The program as people and systemd meet it when something is wrong.
#![allow(clippy::disallowed_methods, reason = "the program is what is tested")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

fn agent() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("fleet-agent"))
}

fn said(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn golden() -> &'static str {
    include_str!("../config/golden/agent-v1.toml")
}

#[test]
fn check_reports_every_error_at_once_with_line_and_key() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("agent.toml");
    let broken = golden()
        .replace("ECS_LOGLEVEL = \"info\"", "ECS_LOGLEVL = \"info\"")
        .replace("memory_mib = 64", "memory_mib = \"much\"")
        .replace("cluster = \"shop-dev\"\n", "");
    std::fs::write(&file, broken).expect("write");
    let (code, out, err) = said(agent().arg("check").arg(&file));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    for part in [
        "cluster: is missing or empty",
        "ecs.ECS_LOGLEVL: unknown variable, did you mean `ECS_LOGLEVEL`?",
        "sidecars.node-logs.memory_mib: invalid type",
    ] {
        assert!(err.contains(part), "{part} in {err}");
    }
    std::fs::write(&file, golden()).expect("write");
    let (code, out, _) = said(agent().arg("check").arg(&file));
    assert_eq!((code, out.as_str()), (Some(0), "ok\n"));
}

#[test]
fn render_prints_both_layers() {
    let directory = tempfile::tempdir().expect("tempdir");
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, golden()).expect("write");
    let (code, out, _) = said(agent().arg("render").arg(&file));
    assert_eq!(code, Some(0));
    assert!(out.contains("\nECS_CLUSTER=shop-dev\n"), "{out}");
    assert!(out.contains("\nECS_RESERVED_MEMORY=192\n"), "{out}");
}

#[test]
fn run_without_settings_says_what_writes_them() {
    let root = tempfile::tempdir().expect("tempdir");
    let file = root.path().join("agent.toml");
    let console = root.path().join("dev/console");
    std::fs::create_dir_all(root.path().join("dev")).expect("mkdir");
    std::fs::write(&console, "").expect("console");
    let run = || {
        said(
            agent()
                .args(["run", "--config"])
                .arg(&file)
                .arg("--root")
                .arg(root.path()),
        )
    };
    let (code, _, err) = run();
    run();
    let told = std::fs::read_to_string(&console).expect("console");
    assert!(
        told.starts_with("fleet-agent: settings refused: read "),
        "{told}"
    );
    assert_eq!(told.matches("settings refused").count(), 1, "once per boot");
    assert_eq!(code, Some(1));
    assert!(err.contains(&file.display().to_string()), "{err}");
    assert!(err.contains("user data writes it"), "{err}");
    assert!(!root.path().join("run/fleet-agent/released").exists());
}

#[test]
fn status_without_an_agent_is_one_clear_line() {
    let root = tempfile::tempdir().expect("tempdir");
    let (code, out, err) = said(agent().arg("status").arg("--root").arg(root.path()));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("agent.sock: is it running"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_wrong_argument_is_an_error_and_not_a_change() {
    let (code, _, err) = said(agent().arg("drian"));
    assert_eq!(code, Some(1));
    assert!(err.contains("drian"), "{err}");
    assert_eq!(said(agent().arg("--help")).0, Some(0));
}

/// Ends with the test, also when that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(root: &Path) -> Running {
    let file = root.join("agent.toml");
    std::fs::write(&file, golden()).expect("write");
    let child = agent()
        .args(["run", "--config"])
        .arg(&file)
        .arg("--root")
        .arg(root)
        // Nothing listens on the discard port: the endpoint is down.
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
        .env_remove("NOTIFY_SOCKET")
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    Running(child)
}

#[test]
fn without_docker_and_with_imds_down_the_agent_lives_holds_ecs_back_and_says_why() {
    let root = tempfile::tempdir().expect("tempdir");
    let mut running = run(root.path());
    let mut lines = BufReader::new(running.0.stderr.take().expect("piped")).lines();
    // Where journald runs the story goes there, and status alone tells it.
    if !Path::new("/run/systemd/journal/socket").exists() {
        loop {
            let line = lines.next().expect("goes on").expect("text");
            if line.contains("instance metadata service") {
                break;
            }
        }
    }
    let socket = root.path().join("run/fleet-agent/agent.sock");
    while !socket.exists() {
        std::thread::yield_now();
    }
    let (code, out, err) = said(agent().arg("status").arg("--root").arg(root.path()));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("phase     starting"), "{out}");
    assert!(
        out.contains("waiting   the instance metadata service"),
        "{out}"
    );
    let (_, out, _) = said(
        agent()
            .args(["status", "--json"])
            .arg("--root")
            .arg(root.path()),
    );
    assert!(out.contains("\"phase\": \"starting\""), "{out}");
    assert!(!root.path().join("run/fleet-agent/released").exists());
    // What this node is decides whether anything is begun here at all.
    assert!(!root.path().join("etc/ecs/ecs.config").exists());
}
