//! The program as its users meet it: arguments, output, exit codes.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

const FILE: &str = include_str!("fleet.toml");

/// Exit code, standard output, standard error.
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn fleet_bootstrap(directory: &Path, arguments: &[&str]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_fleet-bootstrap"))
        .current_dir(directory)
        .env_remove("AWS_REGION")
        .args(arguments)
        .output()
        .expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended {
        code: output.status.code().expect("exits"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn directory_with(fleet_toml: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("directory");
    std::fs::write(directory.path().join("fleet.toml"), fleet_toml).expect("written");
    directory
}

const INIT: &[&str] = &[
    "init",
    "--name=shop",
    "--region=eu-central-1",
    "--vpc=vpc-12345678",
    "--subnet=subnet-12345678",
    "--subnet=subnet-87654321",
];

/// What people copy first must work.
#[test]
fn the_readme_shows_a_valid_file() {
    const README: &str = include_str!("../../README.md");
    let (_, after) = README.split_once("```toml\n").expect("an example");
    let (example, _) = after.split_once("```").expect("its end");
    let directory = directory_with(example);
    let validated = fleet_bootstrap(directory.path(), &["validate"]);
    assert_eq!((validated.code, validated.stderr.as_str()), (0, ""));
}

#[test]
fn init_writes_a_file_that_is_valid_and_never_overwrites() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path();
    let first = fleet_bootstrap(path, INIT);
    assert_eq!((first.code, first.stderr.as_str()), (0, ""));
    let written = std::fs::read_to_string(path.join("fleet.toml")).expect("written");
    assert_eq!(fleet_bootstrap(path, &["validate"]).code, 0);

    let second = fleet_bootstrap(path, INIT);
    assert_eq!(second.code, 1);
    assert!(
        second.stderr.contains("overwrites nothing"),
        "{}",
        second.stderr
    );
    let kept = std::fs::read_to_string(path.join("fleet.toml")).expect("kept");
    assert_eq!(kept, written);

    let other = fleet_bootstrap(path, &[INIT, &["--file=other.toml"][..]].concat());
    assert_eq!(other.code, 0, "{}", other.stderr);
    let other = std::fs::read_to_string(path.join("other.toml")).expect("written");
    assert_ne!(other, written, "each has its own owner id");
}

#[test]
fn init_shows_every_key_and_no_other() {
    for template in ["--template=dev", "--template=prod"] {
        let directory = tempfile::tempdir().expect("directory");
        let init = [
            INIT,
            &[template, "--account=123456789012", "--environment=dev"][..],
        ];
        assert_eq!(fleet_bootstrap(directory.path(), &init.concat()).code, 0);
        show_every_key(directory.path());
        let ended = fleet_bootstrap(directory.path(), &["validate"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        let full = fleet_bootstrap(directory.path(), &["plan", "dev", "--full", "--json"]);
        let full: Value = serde_json::from_str(&full.stdout).expect("JSON");
        let schema = fleet_bootstrap::spec::schema();
        let mut unknown = Vec::new();
        not_in(&full["content"], "", &schema, "", &mut unknown);
        assert_eq!(unknown, [""; 0], "{template}");
    }
}

/// Keys of the schema at `pointer` that a file does not have at `path`.
fn not_in(found: &Value, path: &str, schema: &Value, pointer: &str, missing: &mut Vec<String>) {
    let node = schema.pointer(pointer).unwrap_or(&Value::Null);
    let referred = node.get("$ref").or_else(|| node.pointer("/allOf/0/$ref"));
    if let Some(reference) = referred.and_then(Value::as_str) {
        return not_in(
            found,
            path,
            schema,
            reference.trim_start_matches('#'),
            missing,
        );
    }
    // A group's own settings are those of all groups again, and an environment's everybody's; a given role,
    // a given cluster, other sources and steps stand in the place of other keys.
    let elsewhere = [
        "environments",
        "agent.source.file",
        "agent.source.s3",
        "cluster.adopt",
        "groups.*.docker_volume",
        "groups.*.role",
        "groups.*.step_scaling",
        "groups.*.drain",
        "groups.*.disk",
        "groups.*.health",
    ];
    if elsewhere.contains(&path) {
        return;
    }
    if found.is_null() {
        missing.push(path.to_owned());
    }
    let keys = node["properties"].as_object().into_iter().flatten();
    for (key, _) in keys.filter(|_| !path.ends_with(".ecs")) {
        let (path, pointer) = (
            format!("{path}.{key}"),
            format!("{pointer}/properties/{key}"),
        );
        not_in(
            &found[key],
            path.trim_start_matches('.'),
            schema,
            &pointer,
            missing,
        );
    }
    if let Some(Value::Object(_)) = node.get("additionalProperties") {
        let any = found
            .as_object()
            .and_then(|table| table.values().next_back());
        let (path, pointer) = (
            format!("{path}.*"),
            format!("{pointer}/additionalProperties"),
        );
        not_in(
            any.unwrap_or(&Value::Null),
            &path,
            schema,
            &pointer,
            missing,
        );
    }
}

#[test]
fn the_readme_shows_what_prod_has() {
    const README: &str = include_str!("../../README.md");
    let directory = tempfile::tempdir().expect("directory");
    let init = [INIT, &["--template=prod", "--account=123456789012"][..]];
    assert_eq!(fleet_bootstrap(directory.path(), &init.concat()).code, 0);
    assert_eq!(
        fleet_bootstrap(directory.path(), &["validate", "prod"]).code,
        0
    );
    let written = std::fs::read_to_string(directory.path().join("fleet.toml")).expect("written");
    let shown = README.split_once("--template prod`").expect("an example").1;
    let shown = shown.split_once("```toml\n").expect("an example").1;
    let (shown, _) = shown.split_once("```").expect("its end");
    for line in shown.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        assert!(written.lines().any(|other| other == line), "{line}");
    }
}

#[test]
fn prod_wants_an_account() {
    let directory = tempfile::tempdir().expect("directory");
    let ended = fleet_bootstrap(directory.path(), &[INIT, &["--template=prod"][..]].concat());
    assert_eq!(ended.code, 0);
    assert!(
        ended.stderr.contains(": fleet.account: is missing"),
        "{}",
        ended.stderr
    );
}

/// Takes what `init` wrote at its word.
fn show_every_key(directory: &Path) {
    std::fs::write(directory.join("nodes.sh"), "#!/bin/sh\n").expect("written");
    let file = directory.join("fleet.toml");
    let shown: String = std::fs::read_to_string(&file)
        .expect("written")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(shown) if is_key(shown) => shown,
            Some(_) | None => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let shown = shown
        .replace("64 hexadecimal digits", &"ab".repeat(32))
        // Several, as Spot should have, and such as have CPU credits.
        .replace("[\"m7i.large\"]", "[\"t3.large\", \"t3a.large\"]")
        .replace(
            "[\"m7i.large\", \"m7a.large\", \"m6i.large\"]",
            "[\"t3.large\", \"t3a.large\"]",
        )
        // Which no warm pool goes with.
        .replace("percent = 70", "percent = 0")
        // What another depends on has to be there.
        .replace(
            "sidecars = [\"node-logs\"]",
            "sidecars = [\"metrics\", \"node-logs\"]",
        )
        + "\n[sidecars.metrics]\nimage = \"example.com/metrics:2\"\n";
    std::fs::write(&file, shown).expect("written");
}

/// What begins with one word and an equals sign, or is a table, is meant to be used as it stands.
fn is_key(shown: &str) -> bool {
    let key = shown.split_once(" = ").map_or("", |(key, _)| key);
    (!key.is_empty() && !key.contains(' ')) || shown.starts_with("[sidecars.")
}

#[test]
fn init_without_flags_says_what_to_fill_in() {
    let directory = tempfile::tempdir().expect("directory");
    let ended = fleet_bootstrap(directory.path(), &["init"]);
    assert_eq!(ended.code, 0);
    insta::assert_snapshot!("init_fill_in", ended.stderr);
    assert_eq!(fleet_bootstrap(directory.path(), &["validate"]).code, 1);
}

#[test]
fn init_refuses_wrong_flags_and_writes_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let ended = fleet_bootstrap(
        directory.path(),
        &[
            "init",
            "--region=eu-central-1a",
            "--vpc=",
            "--environment=d\"v",
        ],
    );
    assert_eq!(ended.code, 1);
    insta::assert_snapshot!("init_refused", ended.stderr);
    assert!(!directory.path().join("fleet.toml").exists());
}

#[test]
fn validate_speaks_only_of_what_is_wrong() {
    let directory = directory_with(FILE);
    let ended = fleet_bootstrap(directory.path(), &["validate"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (0, "ok fleet.toml: dev, prod\n", "")
    );
}

#[test]
fn validate_reports_each_problem_once_whatever_the_environments() {
    let text = FILE.replace("max = 6", "max = 0").replace(
        "[environments.prod.groups.web]",
        "[environments.prod.groups.web]\nroot_volume = { size_gib = 1 }",
    );
    let directory = directory_with(&text);
    let ended = fleet_bootstrap(directory.path(), &["validate"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    insta::assert_snapshot!("validate_problems", ended.stderr);

    let json = fleet_bootstrap(directory.path(), &["--json", "validate", "dev"]);
    assert_eq!((json.code, json.stderr.as_str()), (1, ""));
    insta::assert_snapshot!("validate_json", json.stdout);
}

#[test]
fn validate_reports_errors_of_syntax_and_missing_files() {
    let directory = directory_with("[fleet\nname = \n");
    let ended = fleet_bootstrap(directory.path(), &["validate"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.starts_with("fleet.toml:1: "),
        "{}",
        ended.stderr
    );

    let ended = fleet_bootstrap(directory.path(), &["validate", "-f", "none.toml"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.starts_with("none.toml: cannot be read: ") && ended.stderr.contains("init"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.matches("os error").count(), 1);
}

#[test]
fn an_unknown_environment_is_an_error_everywhere() {
    let directory = directory_with(FILE);
    for arguments in [
        &["validate", "staging"][..],
        &["render", "staging", "policy"][..],
    ] {
        let ended = fleet_bootstrap(directory.path(), arguments);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (
                1,
                "fleet.toml: has no environment `staging`: it has dev, prod\n"
            )
        );
    }
}

#[test]
fn render_prints_exactly_the_document() {
    let directory = directory_with(FILE);
    let render = |arguments: &[&str]| {
        let ended = fleet_bootstrap(directory.path(), &[&["render", "dev"], arguments].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        ended.stdout
    };
    let user_data = render(&["user-data", "--group=web"]);
    assert!(user_data.starts_with("#cloud-config\n{\n"));
    let agent = render(&["agent-config", "--group=web"]);
    assert!(agent.starts_with("version = 1\nfleet = \"shop\"\n"));
    let policy = render(&["policy", "--group=batch"]);
    assert!(policy.starts_with("{\n") && policy.contains("autoScalingGroupName/shop-dev-batch"));

    let operator = render(&["policy", "--for", "operator"]);
    let needs: serde_json::Value = serde_json::from_str(&operator).expect("JSON");
    assert_eq!(needs["Statement"][0]["Sid"], "Look");
    for (wrong, expected) in [
        (
            ["render", "dev", "user-data", "--for=operator"],
            "no other document",
        ),
        (
            ["render", "dev", "policy", "--for=both"],
            "[possible values: node, operator]",
        ),
    ] {
        let ended = fleet_bootstrap(directory.path(), &wrong);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
    let unclear = fleet_bootstrap(directory.path(), &["render", "dev", "policy"]);
    assert_eq!(unclear.code, 1);
    assert!(unclear.stderr.contains("batch, web"), "{}", unclear.stderr);
}

#[test]
fn the_schema_is_of_no_environment() {
    let directory = tempfile::tempdir().expect("directory");
    let ended = fleet_bootstrap(directory.path(), &["render", "schema"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert_eq!(ended.stdout, include_str!("../fleet.schema.json"));
    for (arguments, part) in [
        (&["render", "dev", "schema"][..], "takes no environment"),
        (&["render", "user-data"][..], "name the environment"),
    ] {
        let ended = fleet_bootstrap(directory.path(), arguments);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

#[test]
fn a_groups_own_user_data_stands_beside_the_file() {
    let text = FILE.replace("min = 1", "min = 1\nuser_data = \"nodes.sh\"");
    let directory = directory_with(&text);
    let elsewhere = tempfile::tempdir().expect("directory");
    let file = directory.path().join("fleet.toml").display().to_string();
    let run = |arguments: &[&str]| {
        fleet_bootstrap(elsewhere.path(), &[arguments, &["-f", &file][..]].concat())
    };
    let mut told = String::new();
    for content in [None, Some(&b"\xff\xfe"[..]), Some(b"hostname\n")] {
        if let Some(content) = content {
            std::fs::write(directory.path().join("nodes.sh"), content).expect("written");
        }
        let ended = run(&["validate", "dev"]);
        assert_eq!(ended.code, 1);
        told += &ended.stderr.replace(&file, "fleet.toml");
    }
    insta::assert_snapshot!("user_data_refused", told);
    std::fs::write(directory.path().join("nodes.sh"), "#!/bin/sh\nhostname\n").expect("written");
    let render = |group: &str| run(&["render", "dev", "user-data", group]).stdout;
    assert!(render("--group=web").contains("\n\n#!/bin/sh\nhostname\n"));
    assert!(render("--group=batch").starts_with("#cloud-config\n"));
}

#[test]
fn every_shell_has_completions() {
    let directory = tempfile::tempdir().expect("directory");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = fleet_bootstrap(directory.path(), &["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        assert!(ended.stdout.contains("validate"), "{shell}");
    }
}

#[test]
fn drain_refuses_wrong_input_before_it_asks_aws() {
    let directory = directory_with(FILE);
    let drain = |arguments: &[&str]| {
        let ended = fleet_bootstrap(directory.path(), &[&["drain"], arguments].concat());
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (1, ""),
            "{arguments:?}"
        );
        format!("$ drain {}\n{}\n", arguments.join(" "), ended.stderr)
    };
    const NODE: &str = "i-0123456789abcdef0";
    let long = format!("--reason={}", "x".repeat(250));
    let told: String = [
        &["dev"][..],
        &["dev", "0123456789abcdef0"][..],
        &["dev", "I-0123456789ABCDEF0", "--reason=why?"][..],
        &["dev", NODE, "--reason="][..],
        &["dev", NODE, &long][..],
        &["dev", NODE, "--reason=tired", "--undo"][..],
        &["staging", NODE][..],
    ]
    .into_iter()
    .map(drain)
    .collect();
    insta::assert_snapshot!("drain_refused", told);
}

#[test]
fn wrong_usage_is_an_error_and_not_a_change() {
    let directory = tempfile::tempdir().expect("directory");
    for wrong in [
        &["plan"][..],
        &["plan", "dev", "--full", "--out=plan.json"],
        &["plan", "dev", "--full", "--ami=latest"],
    ] {
        let ended = fleet_bootstrap(directory.path(), wrong);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains("Usage: "), "{}", ended.stderr);
    }
    assert_eq!(fleet_bootstrap(directory.path(), &["--version"]).code, 0);
}

#[test]
fn help() {
    let directory = tempfile::tempdir().expect("directory");
    let mut text = String::new();
    for command in [
        "",
        "init",
        "validate",
        "plan",
        "up",
        "status",
        "roll",
        "drain",
        "down",
        "render",
        "completions",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let ended = fleet_bootstrap(directory.path(), &arguments);
        assert_eq!(ended.code, 0);
        text += &format!(
            "$ fleet-bootstrap {}\n{}\n",
            arguments.join(" "),
            ended.stdout
        );
    }
    insta::assert_snapshot!("help", text);
}
