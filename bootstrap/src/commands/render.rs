//! `render`: exactly what a group's nodes get, what an operator has to be allowed, and the schema of the
//! file, without touching AWS.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::{
    cli::{Document, Holder, RenderArgs},
    desired,
    exit::Exit,
    output::Output,
    spec::{self, Spec},
};

/// Stands in a policy while the file names no account.
const UNKNOWN_ACCOUNT: &str = "000000000000";
/// What all inline policies of a role may hold together, white space not counted (IAM and STS quotas).
const ROLE_POLICIES_MAX: usize = 10_240;

/// Runs the command.
///
/// # Errors
/// When the file is not valid, or the group is not known or not clear.
pub fn run(args: &RenderArgs, out: &Output) -> anyhow::Result<Exit> {
    match (args.document, args.holder) {
        (Document::UserData, Holder::Node) => of_group(args, out, |spec, group| {
            Ok(desired::documents(spec, group)?.user_data.into())
        }),
        (Document::AgentConfig, Holder::Node) => of_group(args, out, |spec, group| {
            Ok(desired::documents(spec, group)?.agent_toml.into())
        }),
        (Document::Policy, Holder::Node) => {
            of_group(args, out, |spec, group| policy(spec, group, out))
        }
        (Document::Policy, Holder::Operator) => operator(args, out),
        (Document::Schema, Holder::Node) => schema(args, out),
        (Document::UserData | Document::AgentConfig | Document::Schema, Holder::Operator) => bail!(
            "operators have a policy and no other document: leave --for out, or ask for `policy`"
        ),
    }
}

fn loaded(args: &RenderArgs) -> anyhow::Result<Spec> {
    let environment = args.environment.as_deref();
    let environment = environment.context("name the environment: `render ENV DOCUMENT`")?;
    Ok(spec::load(&args.common.file, environment)?)
}

fn of_group(
    args: &RenderArgs,
    out: &Output,
    document: impl FnOnce(&Spec, &spec::Group) -> anyhow::Result<Value>,
) -> anyhow::Result<Exit> {
    let spec = loaded(args)?;
    let group = group(&spec, args.group.as_deref())?;
    let content = document(&spec, group)?;
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

/// One policy for all groups: whoever runs `up` works on all of them.
fn operator(args: &RenderArgs, out: &Output) -> anyhow::Result<Exit> {
    let spec = loaded(args)?;
    if let Some(group) = &args.group {
        bail!(
            "an operator's policy is for every group of `{}`: leave --group {group} out",
            spec.environment
        );
    }
    let content = desired::build(&spec)?.operator_policy(account(&spec, out));
    let length = content.to_string().len();
    if length > ROLE_POLICIES_MAX {
        out.note(format!(
            "{length} characters: more than the {ROLE_POLICIES_MAX} that a role's inline policies may have; \
             spread its statements over managed policies of up to 6144 each"
        ));
    }
    out.line(format!("{content:#}"));
    out.json(&json!({ "environment": spec.environment, "content": content }));
    Ok(Exit::Done)
}

/// Of every environment alike, and of files that are not there yet.
fn schema(args: &RenderArgs, out: &Output) -> anyhow::Result<Exit> {
    if args.environment.is_some() || args.group.is_some() {
        bail!("the schema is of the whole file: `render schema` takes no environment and no group");
    }
    let content = spec::schema();
    out.line(format!("{content:#}"));
    out.json(&json!({ "content": content }));
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
    Ok(group.role.policy(account(spec, out)))
}

fn account<'s>(spec: &'s Spec, out: &Output) -> &'s str {
    spec.account.as_deref().unwrap_or_else(|| {
        out.note(format!(
            "{UNKNOWN_ACCOUNT} stands for the account of your credentials: [fleet] account is not set"
        ));
        UNKNOWN_ACCOUNT
    })
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
