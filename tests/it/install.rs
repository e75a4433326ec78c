//! Nodes that install the agent from a bucket of the environment's own, with their own credentials, on an
//! image without an agent and on one with another; and what becomes of the bucket.

use std::fs;

use anyhow::{Context as _, Result};
use fleet_tests::{
    Fleet, Sandbox, eventually, page, program,
    release::{VERSION, publish},
    run,
};
use serde_json::{Value, json};

/// An agent of before, which does nothing but tell that it ran.
const OLDER: &str =
    "#!/bin/sh\necho older >/var/tmp/older\nsystemd-notify --ready\nexec sleep infinity\n";

#[test]
fn nodes_install_the_agent_that_up_has_sent() {
    let sandbox = Sandbox::up("it-install").expect("a sandbox");
    let image = image_with_an_older_agent(&sandbox).expect("an image");
    let settings = format!(
        "[environments.dev.agent]\nsource = {{ file = \"fleet-agent\" }}\n\
         [environments.dev.groups.web]\nmin = 0\nmax = 1\ndesired = 1\n\
         [environments.dev.groups.old]\ninstance_types = [\"m7i.large\"]\nmin = 0\nmax = 1\ndesired = 1\nami = \"{image}\"\n"
    );
    let fleet = Fleet::init(&sandbox, "shop", &settings).expect("a file");
    let binary = fleet.file().with_file_name("fleet-agent");
    fs::copy(program("fleet-agent"), &binary).expect("a built agent");
    // The operator's own policy is enough.
    crate::least_privilege::limit(&sandbox, &fleet, "dev").expect("a limit");

    let up = fleet.bootstrap(&["up", "dev", "--yes"]).expect("runs");
    let up = up.exits(0);
    let bucket = up.out.split_whitespace();
    let mut bucket = bucket.filter(|word| word.starts_with("fleet-shop-dev-"));
    let bucket = bucket.next().expect("a bucket in the plan").to_owned();
    let status = fleet.status().expect("status");
    let nodes = status["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 2, "{status}");
    for node in nodes {
        let id = node["id"].as_str().expect("an id");
        let taken = |what: &str| asked(&sandbox, what, id).expect("calls");
        assert_eq!(taken("GetObject"), 1, "{id}");
        is_installed(&sandbox, id).expect("a node");
    }
    let sent = asked(&sandbox, "PutObject", "").expect("calls");
    assert_eq!(sent, 1);

    // Once more there is nothing to do, and nothing is sent.
    let up = fleet.bootstrap(&["up", "dev", "--yes"]).expect("runs");
    let up = up.exits(0);
    assert!(!up.out.contains("send "), "{}", up.out);
    assert_eq!(asked(&sandbox, "PutObject", "").expect("calls"), sent);
    is_never_overwritten(&sandbox, &bucket).expect("a bucket");

    // Pinned, the file is not needed any more.
    let sum = run(std::process::Command::new("sha256sum").arg(&binary)).expect("a sum");
    let sum = sum.out.split_whitespace().next().expect("a sum").to_owned();
    fs::remove_file(&binary).expect("removed");
    let unpinned = fleet.bootstrap(&["status", "dev"]).expect("runs").exits(1);
    assert!(
        unpinned.err.contains("agent.source.file"),
        "{}",
        unpinned.err
    );
    let pinned = format!("file = \"fleet-agent\", sha256 = \"{sum}\"");
    fleet
        .replace("file = \"fleet-agent\"", &pinned)
        .expect("replaced");
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(0);
    // Another cannot be sent, which shows before the first write.
    fleet.replace(&sum, &"0".repeat(64)).expect("replaced");
    let other = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(1);
    assert!(
        other.err.contains("nothing was changed") && other.err.contains("has to be sent"),
        "{}",
        other.err
    );
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let buckets = sandbox.raw("s3", ("GET", "/"), "").expect("a list");
    assert!(
        buckets.contains("<Buckets") && !buckets.contains(&bucket),
        "{buckets}"
    );
}

/// From a release to nodes and away again, by the commands of the page.
#[test]
fn the_page_on_installing_says_what_works() {
    let sandbox = Sandbox::up("it-page").expect("a sandbox");
    let release = publish(VERSION).expect("a release");
    let home = tempfile::tempdir().expect("a directory");
    let path = std::env::var("PATH").expect("a PATH");
    let subnets = sandbox.var("FLEET_SANDBOX_SUBNETS");
    let subnet = subnets.split_whitespace().next().expect("a subnet");
    let follow = |section: &str| {
        let mut shell = page::shell("installing.md", section).expect("commands");
        shell
            .current_dir(home.path())
            .env("HOME", home.path())
            .env(
                "PATH",
                format!("{}/.local/bin:{path}", home.path().display()),
            )
            .env(
                "RELEASE",
                format!(
                    "{}/_sandbox/files/{release}",
                    sandbox.var("AWS_ENDPOINT_URL")
                ),
            )
            .env("VPC", sandbox.var("FLEET_SANDBOX_VPC"))
            .env("SUBNET", subnet);
        run(sandbox.in_aws(&mut shell))
            .expect("a shell")
            .exits(0)
            .out
    };
    let got = follow("Get the programs");
    assert!(got.contains(&format!("fleet-bootstrap {VERSION}")), "{got}");
    let up = follow("A first environment");
    assert!(up.contains("InService") && up.contains(VERSION), "{up}");
    let down = follow("Take it away");
    assert!(down.contains("nothing owned by"), "{down}");
}

fn image_with_an_older_agent(sandbox: &Sandbox) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("older");
    fs::write(&file, OLDER)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let file = file.to_str().context("a path")?;
    let baked = sandbox.cli(&["bake", "--agent", file])?.exits(0);
    Ok(baked.out.trim().to_owned())
}

/// How often a caller has asked for it: an instance, or whoever runs the program.
fn asked(sandbox: &Sandbox, operation: &str, instance: &str) -> Result<u64> {
    let caller = match instance {
        "" => json!(sandbox.var("AWS_ACCESS_KEY_ID")),
        id => sandbox.instance(id)?["access_key_id"].clone(),
    };
    let calls = sandbox.cli(&["calls", "--json"])?.exits(0).json()?;
    let calls = calls.as_array().context("calls")?;
    let these = calls
        .iter()
        .filter(|call| call["operation"] == *operation && call["caller"] == caller);
    Ok(these.filter_map(|call| call["calls"].as_u64()).sum())
}

/// With what cloud-init takes for valid, and nothing of the credentials left behind.
fn is_installed(sandbox: &Sandbox, node: &str) -> Result<()> {
    eventually("the end of cloud-init", 60, || {
        let status = sandbox.on(node, "cloud-init status")?;
        Ok(status.out.contains("status: done").then_some(()))
    })?;
    let schema = "cloud-init schema --config-file /var/lib/cloud/instance/cloud-config.txt";
    let _ = sandbox.on(node, schema)?.exits(0);
    let _ = sandbox
        .on(node, "systemctl is-active fleet-agent fleet-drain")?
        .exits(0);
    let _ = sandbox.on(node, "fleet-agent status")?.exits(0);
    // What an image carries has no part in it.
    let _ = sandbox.on(node, "test ! -e /var/tmp/older")?.exits(0);
    let left = sandbox.on(
        node,
        "grep -rlsE 'security-token|SecretAccessKey\" :' /var/lib/cloud /var/log /tmp /var/tmp /run/cloud-init",
    )?;
    // The installer itself says the words; its output must not.
    let left: Vec<&str> = left
        .out
        .lines()
        .filter(|file| !file.starts_with("/var/lib/cloud/"))
        .collect();
    assert_eq!(left, [""; 0]);
    Ok(())
}

/// S3's own condition, which every upload of ours has.
fn is_never_overwritten(sandbox: &Sandbox, bucket: &str) -> Result<()> {
    let listed = sandbox.raw("s3", ("GET", &format!("/{bucket}?list-type=2")), "")?;
    let key = listed.split_once("<Key>").context("an object")?.1;
    let key = key.split_once("</Key>").context("an object")?.0;
    let put: Value = json!({ "Bucket": bucket, "Key": key, "Body": "other", "IfNoneMatch": "*" });
    let refused = sandbox.aws_as("AKIASOMEBODY", "s3", "put_object", &put);
    let refused = refused.err().context("taken")?.to_string();
    assert!(refused.contains("PreconditionFailed"), "{refused}");
    let acl = json!({ "Bucket": bucket, "ACL": "public-read" });
    let refused = sandbox.aws_as("AKIASOMEBODY", "s3", "put_bucket_acl", &acl);
    let refused = refused.err().context("taken")?.to_string();
    assert!(
        refused.contains("fleet-sandbox does not serve s3:PUT"),
        "{refused}"
    );
    Ok(())
}
