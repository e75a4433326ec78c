//! `render`: exactly what a group's nodes get, without touching AWS.

use anyhow::bail;
use serde_json::{Value, json};

use crate::{
    cli::{Document, RenderArgs},
    desired,
    exit::Exit,
    output::Output,
    spec::{self, Spec},
};

/// Stands in a policy while the file names no account.
const UNKNOWN_ACCOUNT: &str = "000000000000";

/// Runs the command.
///
/// # Errors
/// When the file is not valid, or the group is not known or not clear.
pub fn run(args: &RenderArgs, out: &Output) -> anyhow::Result<Exit> {
    let spec = spec::load(&args.common.file, &args.environment)?;
    let group = group(&spec, args.group.as_deref())?;
    let content = match args.document {
        Document::UserData => desired::documents(&spec, group)?.cloud_config.into(),
        Document::AgentConfig => desired::documents(&spec, group)?.agent_toml.into(),
        Document::Policy => policy(&spec, group, out)?,
    };
    let document = content
        .as_str()
        .map_or_else(|| format!("{content:#}"), |text| text.trim_end().to_owned());
    out.line(document);
    out.json(&json!({
        "environment": spec.environment,
        "group": group.name,
        "content": content,
    }));
    Ok(Exit::Done)
}

fn policy(spec: &Spec, group: &spec::Group, out: &Output) -> anyhow::Result<Value> {
    let desired = desired::build(spec)?;
    let Some(group) = desired
        .groups
        .iter()
        .find(|wanted| wanted.name == group.name)
    else {
        bail!("nothing is made of group `{}`", group.name);
    };
    let account = spec.account.as_deref().unwrap_or_else(|| {
        out.note(format!(
            "{UNKNOWN_ACCOUNT} stands for the account of your credentials: [fleet] account is not set"
        ));
        UNKNOWN_ACCOUNT
    });
    Ok(group.role.policy(account))
}

fn group<'a>(spec: &'a Spec, name: Option<&str>) -> anyhow::Result<&'a spec::Group> {
    let known = || {
        let names: Vec<&str> = spec
            .groups
            .iter()
            .map(|group| group.name.as_str())
            .collect();
        names.join(", ")
    };
    match (name, spec.groups.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => bail!(
            "{} has several groups, name one with --group: {}",
            spec.file,
            known()
        ),
        (Some(name), groups) => match groups.iter().find(|group| group.name == name) {
            Some(group) => Ok(group),
            None => bail!("{} has no group `{name}`: it has {}", spec.file, known()),
        },
    }
}
