//! `status`: how an environment is, on one screen.

use anyhow::Result;
use fleet_agent_config::names::attribute;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::{
    cli::StatusArgs,
    cloud::Activity,
    exit::Exit,
    nodes::{self, Node, Nodes},
    output::{Output, dim, green, red, yellow},
    session::{Header, Session},
};

/// What `status` knows.
#[derive(Debug, Serialize)]
struct Status<'a> {
    state: Header<'a>,
    cluster: &'a str,
    /// `absent`, `active` or `deleting`.
    cluster_state: &'static str,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    /// Its key in the file.
    name: String,
    /// Absent when the Auto Scaling group is.
    nodes: Option<Nodes>,
    /// The newest of its activities, if that failed.
    last_error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, or a read that failed.
pub async fn run(args: &StatusArgs, out: &Output) -> Result<Exit> {
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let (cluster_state, groups) = read(&session).await?;
    let status = Status {
        state: session.header(),
        cluster: &session.desired.cluster.name,
        cluster_state,
        groups,
    };
    show(&status, out);
    out.json(&status);
    Ok(Exit::Done)
}

async fn read(session: &Session) -> Result<(&'static str, Vec<Group>)> {
    let (cloud, desired) = (&session.cloud, &session.desired);
    let names: Vec<String> = desired
        .groups
        .iter()
        .map(|group| group.auto_scaling_group.name.clone())
        .collect();
    let cluster_name = &desired.cluster.name;
    let (cluster, found) = tokio::try_join!(
        cloud.ecs.cluster(cluster_name),
        nodes::observe(cloud, cluster_name, &names)
    )?;
    let activities = try_join_all(found.iter().map(|nodes| async {
        let activities = cloud.autoscaling.activities(&nodes.group).await?;
        Ok::<_, crate::cloud::CallError>((nodes.group.clone(), last_error(activities)))
    }))
    .await?;
    let groups = desired
        .groups
        .iter()
        .map(|group| {
            let asg = &group.auto_scaling_group.name;
            Group {
                name: group.name.clone(),
                nodes: found.iter().find(|nodes| nodes.group == *asg).cloned(),
                last_error: activities
                    .iter()
                    .find(|(name, _)| name == asg)
                    .and_then(|(_, error)| error.clone()),
            }
        })
        .collect();
    let state = match cluster {
        None => "absent",
        Some(standing) if standing.leaving => "deleting",
        Some(_) => "active",
    };
    Ok((state, groups))
}

fn last_error(activities: Vec<Activity>) -> Option<String> {
    let newest = activities.into_iter().next()?;
    newest.has_failed.then_some(newest.message)
}

fn show(status: &Status<'_>, out: &Output) {
    let state = match status.cluster_state {
        "active" => green("active"),
        other => yellow(other),
    };
    out.line(format!("cluster {}  {state}", status.cluster));
    out.line("");
    out.line(out.table(
        &[
            "group", "min", "wanted", "max", "running", "in ECS", "ready", "draining", "stale",
        ],
        status.groups.iter().map(group_row).collect(),
    ));
    let nodes: Vec<Vec<String>> = status.groups.iter().flat_map(node_rows).collect();
    if !nodes.is_empty() {
        out.line("");
        out.line(out.table(
            &[
                "node", "group", "zone", "state", "ECS", "tasks", "health", "intent", "template",
            ],
            nodes,
        ));
    }
    for group in &status.groups {
        if let Some(error) = &group.last_error {
            out.line(format!(
                "\n{} {}: {error}",
                red("last scaling error of"),
                group.name
            ));
        }
    }
}

fn group_row(group: &Group) -> Vec<String> {
    let Some(nodes) = &group.nodes else {
        return vec![group.name.clone(), dim("absent")];
    };
    let ready = nodes.count(Node::is_ready);
    let ready = if nodes.has_ready(nodes.wanted) {
        green(ready)
    } else {
        yellow(ready)
    };
    vec![
        group.name.clone(),
        nodes.min.to_string(),
        nodes.wanted.to_string(),
        nodes.max.to_string(),
        nodes.count(Node::is_running).to_string(),
        nodes.count(Node::is_in_ecs).to_string(),
        ready,
        nodes.count(Node::is_draining).to_string(),
        nodes.stale().to_string(),
    ]
}

fn node_rows(group: &Group) -> Vec<Vec<String>> {
    let Some(nodes) = &group.nodes else {
        return Vec::new();
    };
    let row = |node: &Node| {
        let (ecs, tasks) = match &node.container_instance {
            None => (dim("absent"), String::new()),
            Some(found) => {
                let connected = if found.connected {
                    found.status.clone()
                } else {
                    yellow(format!("{}, disconnected", found.status))
                };
                (
                    connected,
                    (found.running_tasks + found.pending_tasks).to_string(),
                )
            }
        };
        vec![
            node.instance.id.clone(),
            group.name.clone(),
            node.instance.availability_zone.clone(),
            node.instance.state.clone(),
            ecs,
            tasks,
            health(node),
            node.attribute(attribute::INTENT)
                .unwrap_or_default()
                .to_owned(),
            node.instance
                .template_version
                .map_or_else(String::new, |version| format!("v{version}")),
        ]
    };
    nodes.nodes.iter().map(row).collect()
}

/// `ok`, or `impaired docker since 2026-01-02T03:04:05Z`.
fn health(node: &Node) -> String {
    match node.attribute(attribute::HEALTH) {
        None => dim("unknown"),
        Some("ok") => green("ok"),
        Some(health) => {
            let part = |name| node.attribute(name).unwrap_or("?");
            red(format!(
                "{health} {} since {}",
                part(attribute::REASON),
                part(attribute::SINCE)
            ))
        }
    }
}
