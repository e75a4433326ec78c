//! `init`: writes a commented fleet.toml with an owner id of its own.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
};

use anyhow::{Context, bail};
use fleet_agent_config::{Problem, Problems};
use serde_json::json;

use crate::{
    cli::{InitArgs, Template},
    exit::Exit,
    output::Output,
    spec::{FleetFile, LoadError},
};

const TEMPLATE: &str = include_str!("../../templates/fleet.toml");

/// Runs the command.
///
/// # Errors
/// When the file exists, cannot be written, or a flag has a value that `validate` would refuse;
/// nothing is written then.
pub fn run(args: &InitArgs, out: &Output) -> anyhow::Result<Exit> {
    let owner = format!("f-{:016x}", fastrand::u64(..));
    let environment = args.environment.as_deref().unwrap_or(match args.template {
        Template::Dev => "dev",
        Template::Prod => "prod",
    });
    let text = filled_in(args, environment, &owner);
    let file = args.common.file.display().to_string();
    let (refused, missing) = judge(args, environment, &file, &text)?;
    if !refused.is_empty() {
        return Err(Problems {
            file: "init".to_owned(),
            problems: refused,
        }
        .into());
    }
    write_new(&args.common.file, &text)?;
    out.json(&json!({ "file": file, "id": owner }));
    out.line(format!("wrote {file}; the fleet's owner id is {owner}"));
    if !missing.is_empty() {
        out.note("before `plan` and `up`, fill in:");
        out.note(Problems {
            file,
            problems: missing,
        });
    }
    Ok(Exit::Done)
}

fn filled_in(args: &InitArgs, environment: &str, owner: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let given = |value: &Option<String>| quoted(value.as_deref().unwrap_or(""));
    let subnets: Vec<String> = args.subnets.iter().map(|id| quoted(id)).collect();
    let account = match (args.template, &args.account) {
        (Template::Dev, None) => "# account = \"123456789012\"".to_owned(),
        (Template::Prod, None) | (_, Some(_)) => format!("account = {}", given(&args.account)),
    };
    template(args.template)
        .replace("@ACCOUNT@", &account)
        .replace("@ID@", &quoted(owner))
        .replace("@NAME@", &given(&args.name))
        .replace("@REGION@", &given(&args.region))
        .replace("@VPC@", &given(&args.vpc))
        .replace("@SUBNETS@", &format!("[{}]", subnets.join(", ")))
        .replace("@ENVIRONMENT@", &key(environment))
}

/// Lines that only one template has begin with its name; all others are everybody's.
fn template(wanted: Template) -> String {
    let (ours, theirs) = match wanted {
        Template::Dev => ("@dev ", "@prod "),
        Template::Prod => ("@prod ", "@dev "),
    };
    let lines = TEMPLATE.lines().filter(|line| !line.starts_with(theirs));
    lines
        .map(|line| format!("{}\n", line.strip_prefix(ours).unwrap_or(line)))
        .collect()
}

/// Quoted unless it may stand bare, so that a wrong name is a problem and not a broken file.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        toml::Value::from(name).to_string()
    }
}

/// What is wrong with the new file: with values that were given, and with those left to fill in.
fn judge(
    args: &InitArgs,
    environment: &str,
    file: &str,
    text: &str,
) -> anyhow::Result<(Vec<Problem>, Vec<Problem>)> {
    let problems = match FleetFile::new(file, text).spec(environment) {
        Ok(_) => Vec::new(),
        Err(LoadError::Invalid(problems)) => problems.problems,
        Err(error @ (LoadError::Unreadable { .. } | LoadError::UnknownEnvironment { .. })) => {
            return Err(error.into());
        }
    };
    let left_out = |problem: &Problem| match problem.key.as_str() {
        "fleet.name" => args.name.is_none(),
        "fleet.region" => args.region.is_none(),
        "fleet.account" => args.account.is_none(),
        "network.vpc" => args.vpc.is_none(),
        "network.subnets" => args.subnets.is_empty(),
        _ => false,
    };
    let (missing, refused): (Vec<_>, Vec<_>) = problems.into_iter().partition(left_out);
    // What was typed on the command line has no line in a file that is not there.
    let refused = refused
        .into_iter()
        .map(|problem| Problem { line: 0, ..problem })
        .collect();
    Ok((refused, missing))
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let name = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{name} exists and `init` overwrites nothing: name another file with --file")
        }
        Err(error) => return Err(error).with_context(|| format!("failed to create {name}")),
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("failed to write {name}"))
}
