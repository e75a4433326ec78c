//! Bad input and bad surroundings: one clear message, exit 1, nothing half-done.

use std::{net::TcpListener, process::Command};

use fleet_tests::{Fleet, Sandbox, program, run};

const GROUP: &str = "[environments.dev.groups.web]\nmin = 0\nmax = 1\n";

/// `fleet-bootstrap` with a good file, but with surroundings that are not.
fn bootstrap(command: &str, env: &[(&str, &str)]) -> fleet_tests::Ran {
    let directory = tempfile::tempdir().expect("a directory");
    let init = run(Command::new(program("fleet-bootstrap"))
        .current_dir(directory.path())
        .args([
            "init",
            "--name",
            "shop",
            "--region",
            "eu-central-1",
            "--environment",
            "dev",
        ])
        .args([
            "--vpc",
            "vpc-0123456789abcdef0",
            "--subnet",
            "subnet-0123456789abcdef0",
        ]))
    .expect("init runs");
    let _ = init.exits(0);
    run(Command::new(program("fleet-bootstrap"))
        .current_dir(directory.path())
        .env_clear()
        .env("HOME", directory.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(env.iter().copied())
        .args([command, "dev"]))
    .expect("runs")
}

/// A port of this machine that nobody listens on.
fn dead_endpoint() -> String {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    format!("http://127.0.0.1:{port}")
}

#[test]
fn without_credentials_every_command_says_what_to_set() {
    for command in ["plan", "status"] {
        let ran = bootstrap(command, &[("AWS_ENDPOINT_URL", &dead_endpoint())]).exits(1);
        assert!(ran.err.contains("credentials"), "{}", ran.err);
        assert!(ran.err.contains("AWS_PROFILE"), "{}", ran.err);
    }
}

#[test]
fn an_endpoint_that_is_down_is_named() {
    let endpoint = dead_endpoint();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
    ];
    let ran = bootstrap("plan", &keys).exits(1);
    assert!(ran.err.contains(&endpoint), "{}", ran.err);
}

#[test]
fn without_docker_the_sandbox_says_how_to_start_it() {
    // In a mount namespace of its own, where the socket is covered by something that is none.
    let script = format!(
        "mount --bind /dev/null $(readlink -f /var/run/docker.sock) && exec {} up --name it-none --port 0",
        program("fleet-sandbox").display()
    );
    let ran = run(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
        .expect("runs")
        .exits(1);
    assert!(ran.err.contains("docker.sock"), "{}", ran.err);
    assert_eq!(ran.err.trim().lines().count(), 1, "{}", ran.err);
}

#[test]
fn the_sandbox_refuses_an_unknown_call_by_name_and_foreign_names_are_never_touched() {
    let sandbox = Sandbox::up("it-refusals").expect("a sandbox");

    let form = "Action=DescribeLoadBalancers&Version=2015-12-01";
    let reply = sandbox.raw("elasticloadbalancing", ("POST", "/"), form);
    let reply = reply.expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    assert!(reply.contains("InvalidAction"), "{reply}");
    assert!(reply.contains("DescribeLoadBalancers"), "{reply}");

    let bucket = sandbox.raw("s3", ("PUT", "/bucket?acl"), "");
    let bucket = bucket.expect("a reply");
    assert!(bucket.starts_with("HTTP/1.1 400"), "{bucket}");
    assert!(bucket.contains("<Code>NotImplemented</Code>"), "{bucket}");
    assert!(
        bucket.contains("does not serve s3:PUT /bucket?acl"),
        "{bucket}"
    );
    let other = sandbox.raw("lambda", ("GET", "/2015-03-31/functions"), "");
    let other = other.expect("a reply");
    assert!(other.starts_with("HTTP/1.1 400"), "{other}");
    assert!(
        other.contains("does not serve lambda: GET /2015-03-31/functions"),
        "{other}"
    );

    // The same names, drawn by `init` under another owner id.
    let ours = Fleet::init(&sandbox, "shop", GROUP).expect("init");
    let theirs = Fleet::init(&sandbox, "shop", GROUP).expect("init");
    let _ = theirs
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    for command in [&["plan", "dev"][..], &["up", "dev", "--yes"]] {
        let ran = ours.bootstrap(command).expect("runs").exits(1);
        for kind in ["cluster", "role", "security group", "launch template"] {
            assert!(
                ran.err.contains(kind),
                "{kind} is not named in: {}",
                ran.err
            );
        }
    }
    let _ = ours.bootstrap(&["down", "dev", "--yes"]).expect("runs");
    assert_eq!(writes(&sandbox), [""; 0]);
    let _ = theirs.bootstrap(&["plan", "dev"]).expect("runs").exits(0);
    let _ = theirs
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
}

/// Every call that changes something, as the gateway counted them.
pub(crate) fn writes(sandbox: &Sandbox) -> Vec<String> {
    let calls = sandbox.cli(&["calls", "--json"]).expect("runs").exits(0);
    let calls = calls.json().expect("JSON");
    calls
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|call| call["operation"].as_str())
        .filter(|operation| {
            !["Describe", "Get", "Head", "List"]
                .iter()
                .any(|read| operation.starts_with(read))
        })
        .map(str::to_owned)
        .collect()
}
