//! The template in packer/: what it refuses, the AMI that it makes, and nodes that boot from it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use fleet_tests::{
    Fleet, Ran, Sandbox, eventually, page,
    release::{Release, VERSION, sources},
    run, target,
};
use serde_json::{Value, json};

use crate::refusals::writes;

/// The tag by which the AMI is found.
const VERSION_TAG: &str = "fleet:agent-version";
/// The account that it is shared with.
const FRIEND: &str = "111122223333";
const KEY: &str = "alias/fleet-images";
/// Stands in everything that the builder must not leave on the image.
const TRACE: &str = "left-by-the-builder";

#[test]
fn the_template_is_well_formed_and_says_what_is_wrong_with_its_variables() {
    let directory = tempfile::tempdir().expect("a directory");
    let release = directory
        .path()
        .join(format!("fleet-{VERSION}-x86_64-linux.tar.gz"));
    fs::write(&release, "").expect("a file");
    let given = [
        format!("release={}", release.display()),
        format!("sha256={}", "0".repeat(64)),
        "region=eu-central-1".to_owned(),
    ];
    let validate = |template: &Path, more: &[&str]| {
        let mut packer = packer("validate");
        for variable in given.iter().map(String::as_str).chain(more.iter().copied()) {
            packer.args(["-var", variable]);
        }
        run(packer.arg(template)).expect("packer")
    };
    let formatted = run(packer("fmt").arg("-check").arg(room())).expect("packer");
    let _ = formatted.exits(0);
    let template = room().join("ami.pkr.hcl");
    let _ = validate(&template, &[]).exits(0);
    let shared = format!("share_with=[\"{FRIEND}\"]");
    let _ = validate(&template, &[&shared, "kms_key=alias/a", "base_ami=ami-0a"]).exits(0);

    // What Packer says is broken into lines.
    let refused = |template: &Path, more: &[&str], said: &str| {
        let ran = validate(template, more).exits(1);
        let all = format!("{} {}", ran.out, ran.err);
        let words: Vec<&str> = all.split_whitespace().collect();
        assert!(words.join(" ").contains(said), "{said}: {all}");
    };
    for (variable, said) in [
        (
            "release=fleet.tar.gz",
            "named as it was made, fleet-VERSION",
        ),
        ("sha256=0123", "64 hexadecimal digits"),
        ("region=", "here or in AWS_REGION"),
        ("base_ami=al2023", "such as ami-0123456789abcdef0"),
        ("name_prefix=fleet*", "letters, digits"),
        ("kms_key=alias/aws/ebs", "leave it empty"),
        ("share_with=[\"12\"]", "ids of 12 digits"),
        (&shared, "Cannot share AMI encrypted with default KMS key"),
        ("sha265=0", "Undefined -var variable"),
    ] {
        refused(&template, &[variable], said);
    }
    let misspelt = directory.path().join("ami.pkr.hcl");
    let text = fs::read_to_string(&template).expect("the template");
    fs::write(&misspelt, text.replace("encrypt_boot ", "encript_boot ")).expect("a file");
    refused(&misspelt, &[], "\"encript_boot\" is not expected here");
}

#[test]
fn nodes_boot_from_the_ami_that_packer_bakes_and_nothing_of_the_builder_is_on_it() {
    let sandbox = Sandbox::up("it-packer").expect("a sandbox");
    let directory = tempfile::tempdir().expect("a directory");
    let (release, sha256) = release(directory.path()).expect("a release");
    let registry = Registry::start(&sandbox).expect("a registry");

    let (built, refused) = thread::scope(|scope| {
        let share = "Share it with other accounts";
        let good = scope.spawn(|| bake(&sandbox, share, &release, &sha256, &registry.image));
        let bad =
            scope.spawn(|| bake(&sandbox, "Bake", &release, &"0".repeat(64), &registry.image));
        leave_traces(&sandbox, 2).expect("two builders");
        (
            good.join().expect("no panic"),
            bad.join().expect("no panic"),
        )
    });
    let refused = refused.expect("packer").exits(1);
    assert!(
        refused.out.contains("has another SHA-256"),
        "{}",
        refused.out
    );
    let built = built.expect("packer").exits(0);
    // The nodes cannot pull it.
    let image = registry.stop();

    let ami = the_ami(&sandbox).unwrap_or_else(|error| panic!("{error:#}\n{}", built.out));
    nothing_of_packer_is_left(&sandbox, &ami).expect("EC2");

    let fleet = Fleet::init(
        &sandbox,
        "shop",
        &format!(
            "[environments.dev.groups.web]\nmin = 0\nmax = 2\ndesired = 2\n\
             ami = {{ tags = {{ \"{VERSION_TAG}\" = \"{VERSION}\" }} }}\n\
             [environments.dev.sidecars.node-logs]\nimage = \"{image}\"\n\
             command = [\"sleep\", \"infinity\"]\nbefore_tasks = true\nmemory_mib = 16\nstop_timeout_seconds = 1\n"
        ),
    )
    .expect("init");
    let up = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let told = format!("{}{}", up.out, up.err);
    assert!(!told.contains(VERSION_TAG), "a finding: {told}");
    let pinned = json!({ "LaunchTemplateName": "shop-dev-web", "Versions": ["$Latest"] });
    let pinned = sandbox.aws("ec2", "describe_launch_template_versions", &pinned);
    let pinned =
        &pinned.expect("EC2")["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"];
    assert_eq!(*pinned, json!(ami));

    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(0);
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    assert_eq!(writes(&sandbox), [""; 0], "a second up has nothing to do");

    let status = fleet.status().expect("status");
    let nodes: Vec<String> = status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| Some(node["id"].as_str()?.to_owned()))
        .collect();
    assert_eq!(nodes.len(), 2, "{status}");
    the_nodes_share_nothing(&sandbox, &nodes).expect("nodes");
    a_newer_ami_is_told_and_not_taken(&sandbox, &fleet, &ami).expect("a plan");
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
}

/// packer/ of the workspace.
fn room() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packer")
}

fn packer(command: &str) -> Command {
    let mut packer = Command::new("packer");
    // Neither a look for newer versions of it, nor settings of whoever runs this.
    packer
        .arg(command)
        .env("CHECKPOINT_DISABLE", "1")
        .env_remove("PACKER_CONFIG");
    packer
}

/// A release's tarball, and its sum.
fn release(directory: &Path) -> Result<(PathBuf, String)> {
    let release = Release::of(directory, VERSION)?;
    let packed = release.pack(directory, "022")?.exits(0);
    let path = PathBuf::from(packed.out.trim_end());
    let sum = run(Command::new("sha256sum").arg(&path))?.exits(0).out;
    let sha256 = sum.split_whitespace().next().context("a sum")?.to_owned();
    Ok((path, sha256))
}

/// A registry on the nodes' network, until this value goes.
#[derive(Debug)]
struct Registry {
    process: Child,
    /// The one image that it has.
    image: String,
}

impl Registry {
    fn start(sandbox: &Sandbox) -> Result<Self> {
        // The gateway is at .2 there, and this machine at .1.
        let gateway = sandbox.var("FLEET_SANDBOX_NODE_URL");
        let host = gateway.split(['/', ':']).nth(3).context("an address")?;
        let network = host.strip_suffix(".2").context("the gateway's")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/packer/registry.py");
        let mut process = Command::new(target().join("venv/bin/python"))
            .arg(script)
            .args([
                &format!("{network}.1"),
                "fleet-sandbox/busybox:1",
                "node-logs",
                "1",
            ])
            .stdout(Stdio::piped())
            // A line for each request.
            .stderr(Stdio::null())
            .spawn()?;
        let mut port = String::new();
        let stdout = process.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut port)?;
        let image = format!("{network}.1:{}/node-logs:1", port.trim());
        Ok(Self { process, image })
    }

    fn stop(self) -> String {
        self.image.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has ended by itself needs no end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// By the commands of the page.
fn bake(
    sandbox: &Sandbox,
    section: &str,
    release: &Path,
    sha256: &str,
    image: &str,
) -> Result<Ran> {
    let mut shell = page::shell("baking.md", section)?;
    shell
        .current_dir(sources())
        .env("CHECKPOINT_DISABLE", "1")
        .env("PACKER_NO_COLOR", "1")
        .env_remove("PACKER_CONFIG")
        .env("RELEASE", release)
        .env("SHA256", sha256)
        .env("KMS_KEY", KEY)
        .env("ACCOUNT", FRIEND)
        .env("PKR_VAR_images", format!("[\"{image}\"]"))
        .env("PKR_VAR_tags", "{ team = \"platform\" }");
    run(sandbox.in_aws(&mut shell))
}

/// Once each of so many builders is on, and before Packer reaches it: what ECS, fleet-agent and people would leave.
fn leave_traces(sandbox: &Sandbox, builders: usize) -> Result<()> {
    let script = format!(
        "for file in /root/.bash_history /root/.ssh/known_hosts /var/lib/ecs/data/agent.db /var/lib/fleet-agent/revision.json \
         /root/.docker/buildx /var/lib/systemd/credential.secret /var/lib/amazon/ssm/registration /var/log/ecs/ecs-agent.log /var/tmp/notes; do \
         mkdir -p ${{file%/*}} && echo {TRACE} >>$file; done; echo ECS_CLUSTER={TRACE} >/etc/ecs/ecs.config"
    );
    let running = json!({ "Filters": [{ "Name": "instance-state-name", "Values": ["running"] }] });
    let found = eventually("the builders", 60, || {
        let found = sandbox.aws("ec2", "describe_instances", &running)?;
        let found: Vec<String> = found["Reservations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| Some(one["Instances"][0]["InstanceId"].as_str()?.to_owned()))
            .collect();
        Ok((found.len() == builders).then_some(found))
    })?;
    for builder in found {
        let _ = sandbox.on(&builder, &script)?.exits(0);
    }
    Ok(())
}

/// Its id, once all that the template says of it is true.
fn the_ami(sandbox: &Sandbox) -> Result<String> {
    let tag = json!({ "Name": format!("tag:{VERSION_TAG}"), "Values": [VERSION] });
    let ours = json!({ "Owners": ["self"], "Filters": [tag] });
    let found = sandbox.aws("ec2", "describe_images", &ours)?;
    let image = &found["Images"][0];
    let ami = image["ImageId"].as_str().context("an AMI")?.to_owned();
    let name = image["Name"].as_str().context("a name")?;
    assert!(name.starts_with(&format!("fleet-{VERSION}-2")), "{name}");
    let tags = tags(&image["Tags"]);
    assert_eq!(tags["Name"], name);
    assert_eq!(tags["team"], "platform");
    let base = json!({ "ImageIds": [tags["fleet:base-ami"]] });
    let base = sandbox.aws("ec2", "describe_images", &base)?;
    let base = base["Images"][0]["Name"]
        .as_str()
        .context("its base")?
        .to_owned();
    assert!(
        base.starts_with("al2023-ami-ecs-hvm-") && base.ends_with("-x86_64"),
        "{base}"
    );

    let snapshot = &image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
    let snapshots = json!({ "SnapshotIds": [snapshot] });
    let snapshots = sandbox.aws("ec2", "describe_snapshots", &snapshots)?;
    assert_eq!(self::tags(&snapshots["Snapshots"][0]["Tags"]), tags);

    let who = json!({ "ImageId": ami, "Attribute": "launchPermission" });
    let who = sandbox.aws("ec2", "describe_image_attribute", &who)?;
    assert_eq!(who["LaunchPermissions"], json!([{ "UserId": FRIEND }]));
    assert_eq!(sandbox.status()?["images"][&ami], KEY);
    Ok(ami)
}

fn tags(list: &Value) -> Value {
    let tags = list.as_array().into_iter().flatten();
    let tags = tags.filter_map(|tag| Some((tag["Key"].as_str()?.to_owned(), tag["Value"].clone())));
    Value::Object(tags.collect())
}

/// Builders, what they were reached by, and the image before it was encrypted.
fn nothing_of_packer_is_left(sandbox: &Sandbox, ami: &str) -> Result<()> {
    let of_packer =
        |filter: &str| json!({ "Filters": [{ "Name": filter, "Values": ["packer_*"] }] });
    let keys = sandbox.aws("ec2", "describe_key_pairs", &of_packer("key-name"))?;
    assert_eq!(keys["KeyPairs"], json!([]));
    let groups = sandbox.aws("ec2", "describe_security_groups", &of_packer("group-name"))?;
    assert_eq!(groups["SecurityGroups"], json!([]));
    let running =
        json!({ "Filters": [{ "Name": "instance-state-name", "Values": ["running", "stopped"] }] });
    let running = sandbox.aws("ec2", "describe_instances", &running)?;
    assert_eq!(running["Reservations"], json!([]));
    let images = sandbox.aws("ec2", "describe_images", &json!({ "Owners": ["self"] }))?;
    let images: Vec<&Value> = images["Images"]
        .as_array()
        .context("images")?
        .iter()
        .collect();
    assert!(
        images.len() == 1 && images[0]["ImageId"] == *ami,
        "{images:?}"
    );
    Ok(())
}

/// Not with each other, and not with the builder.
fn the_nodes_share_nothing(sandbox: &Sandbox, nodes: &[String]) -> Result<()> {
    let mut own = Vec::new();
    for node in nodes {
        let told = sandbox
            .on(node, "fleet-agent status --json")?
            .exits(0)
            .json()?;
        assert_eq!(told["sidecars"][0]["state"], "up", "{told}");
        // Of a key of Packer's, of a builder's name in EC2, of what was planted on it.
        let left = format!(
            "grep -rlE '{TRACE}|packer|being built' /etc /home /opt /root /srv /var 2>/dev/null; \
             find /root /home \\( -name '.*history' -o -name authorized_keys -size +0 \\); ls /tmp/fleet* 2>/dev/null; true"
        );
        assert_eq!(sandbox.on(node, &left)?.exits(0).out, "", "{node}");
        let one = sandbox
            .on(node, "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub")?
            .exits(0);
        own.push(one.out);
        // cloud-init knows of no other machine.
        let instances = sandbox.on(node, "ls /var/lib/cloud/instances")?.exits(0);
        assert_eq!(instances.out.trim(), node);
    }
    for (one, other) in own[0].lines().zip(own[1].lines()) {
        assert!(!one.is_empty() && one != other, "{own:?}");
    }
    Ok(())
}

/// As after a bake on Amazon's next release.
fn a_newer_ami_is_told_and_not_taken(
    sandbox: &Sandbox,
    fleet: &Fleet<'_>,
    ami: &str,
) -> Result<()> {
    let region = sandbox.var("AWS_REGION");
    let copy = json!({ "Name": "fleet-next", "SourceImageId": ami, "SourceRegion": region });
    let newer = sandbox.aws("ec2", "copy_image", &copy)?["ImageId"].clone();
    let tag = json!({ "Resources": [newer], "Tags": [{ "Key": VERSION_TAG, "Value": VERSION }] });
    let _ = sandbox.aws("ec2", "create_tags", &tag)?;
    let plan = fleet.bootstrap(&["plan", "dev"])?.exits(0);
    let told = format!(
        "image {ami} kept, newer is {}",
        newer.as_str().unwrap_or_default()
    );
    assert!(plan.out.contains(&told), "{told}: {}", plan.out);
    Ok(())
}
