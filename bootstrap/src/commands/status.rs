//! `status`: how an environment is, on one screen.

use std::time::Duration;

use anyhow::Result;
use fleet_agent_config::{Applied, names::attribute};
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::{
    cli::StatusArgs,
    cloud::{Activity, passes},
    execute::Stopped,
    exit::Exit,
    nodes::{Node, Nodes},
    output::{Output, dim, green, red, yellow},
    session::{Header, Session, interruptible},
    watch,
};

/// Beyond so many nodes only those are shown that do not just serve.
const NODES_SHOWN: usize = 20;

/// What `status` knows; with `--json`, exactly this.
#[derive(Debug, Serialize)]
struct Status<'a> {
    state: Header<'a>,
    cluster: &'a str,
    /// `absent`, `active` or `deleting`.
    cluster_state: &'static str,
    /// It is somebody else's.
    cluster_is_adopted: bool,
    groups: Vec<GroupRow>,
    /// Groups that exist and are not in the file any more.
    removed: Vec<String>,
    /// What `up` would change, or what stands in its way.
    drift: Vec<String>,
    nodes: Vec<NodeRow>,
}

/// One `[groups.NAME]`.
#[derive(Debug, Serialize)]
struct GroupRow {
    /// Its key in the file.
    name: String,
    /// Absent when the Auto Scaling group is.
    counts: Option<Counts>,
    /// What a roll that is under way has noted.
    roll: Option<String>,
    /// The newest of its activities, if that failed.
    last_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Counts {
    min: u32,
    /// Its desired capacity.
    wanted: u32,
    max: u32,
    /// In service.
    running: usize,
    in_ecs: usize,
    ready: usize,
    draining: usize,
    /// They stay, and were made from another version of the launch template than new ones would be.
    stale: usize,
}

/// One instance.
#[derive(Debug, Serialize)]
struct NodeRow {
    /// EC2 instance id.
    id: String,
    /// Its group's key in the file.
    group: String,
    zone: String,
    /// Auto Scaling's lifecycle state.
    state: String,
    /// `ACTIVE`, `DRAINING`...; absent until it has registered.
    ecs: Option<String>,
    /// Whether the ECS agent is.
    connected: bool,
    /// Running and pending.
    tasks: i32,
    /// In service, in ECS, and its agent reports.
    ready: bool,
    /// What its agent reports.
    health: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    intent: Option<String>,
    /// The settings it goes by: `HASH.REVISION`, and what of them it has not taken.
    config: Option<String>,
    template_version: Option<i64>,
    /// The version of its fleet-agent.
    agent: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, or a read that failed.
pub async fn run(args: &StatusArgs, out: &Output) -> Result<Exit> {
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let Some(seconds) = args.watch else {
        return look(&session, out).await;
    };
    let pause = Duration::from_secs(seconds);
    let watched = interruptible(out, async |stop| {
        loop {
            // That is when it is wanted most.
            match look(&session, out).await {
                Err(error) if passes(&error) => out.note(format!("{error:#}")),
                other => drop(other?),
            }
            watch::pause(&stop, pause).await?;
            out.clear();
        }
    });
    match watched.await {
        Err(error) if error.is::<Stopped>() => Ok(Exit::Done),
        other => other,
    }
}

async fn look(session: &Session, out: &Output) -> Result<Exit> {
    let status = read(session).await?;
    show(&status, out);
    out.json(&status);
    Ok(Exit::Done)
}

async fn read(session: &Session) -> Result<Status<'_>> {
    let (cloud, desired) = (&session.cloud, &session.desired);
    let cluster_name = &desired.cluster.name;
    let (cluster, found, drift) = tokio::try_join!(
        session.identified(async { Ok(cloud.ecs.cluster(cluster_name).await?) }),
        session.nodes(&desired.groups),
        session.drift(),
    )?;
    let activities = try_join_all(found.iter().map(|nodes| async {
        let activities = cloud.autoscaling.activities(&nodes.group).await?;
        Ok::<_, crate::cloud::CallError>((nodes.group.clone(), last_error(activities)))
    }))
    .await?;
    let (mut groups, mut rows) = (Vec::new(), Vec::new());
    for group in &desired.groups {
        let asg = &group.auto_scaling_group.name;
        let nodes = found.iter().find(|nodes| nodes.group == *asg);
        groups.push(GroupRow {
            name: group.name.clone(),
            counts: nodes.map(count),
            roll: nodes.and_then(|nodes| nodes.roll.clone()),
            last_error: activities
                .iter()
                .find(|(name, _)| name == asg)
                .and_then(|(_, error)| error.clone()),
        });
        let nodes = nodes.into_iter().flat_map(|nodes| &nodes.nodes);
        rows.extend(nodes.map(|node| describe(&group.name, node)));
    }
    let cluster_state = match cluster {
        None => "absent",
        Some(standing) if standing.leaving => "deleting",
        Some(_) => "active",
    };
    Ok(Status {
        state: session.header(),
        cluster: cluster_name,
        cluster_state,
        cluster_is_adopted: desired.cluster.is_adopted,
        groups,
        removed: drift.removed,
        drift: drift.lines,
        nodes: rows,
    })
}

impl NodeRow {
    /// It serves, and nothing else is to be said of it.
    fn is_well(&self) -> bool {
        self.ready
            && self.health.as_deref() == Some("ok")
            && self.intent.as_deref() == Some("serve")
    }
}

fn count(nodes: &Nodes) -> Counts {
    Counts {
        min: nodes.min,
        wanted: nodes.wanted,
        max: nodes.max,
        running: nodes.count(Node::is_running),
        in_ecs: nodes.in_ecs(),
        ready: nodes.count(Node::is_ready),
        draining: nodes.count(Node::is_draining),
        stale: nodes.stale(),
    }
}

fn describe(group: &str, node: &Node) -> NodeRow {
    let attribute = |name| node.attribute(name).map(str::to_owned);
    let in_ecs = node.container_instance.as_ref();
    NodeRow {
        id: node.instance.id.clone(),
        group: group.to_owned(),
        zone: node.instance.availability_zone.clone(),
        state: node.instance.state.clone(),
        ecs: in_ecs.map(|found| found.status.clone()),
        connected: in_ecs.is_some_and(|found| found.connected),
        tasks: in_ecs.map_or(0, |found| found.running_tasks + found.pending_tasks),
        ready: node.is_ready(),
        health: attribute(attribute::HEALTH),
        reason: attribute(attribute::REASON),
        since: attribute(attribute::SINCE),
        intent: attribute(attribute::INTENT),
        config: attribute(attribute::CONFIG),
        template_version: node.instance.template_version,
        agent: attribute(attribute::AGENT),
    }
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
    let adopted = match status.cluster_is_adopted {
        true => ", adopted",
        false => "",
    };
    out.line(format!("cluster {}  {state}{adopted}", status.cluster));
    out.line("");
    out.line(out.table(
        &[
            "group", "min", "wanted", "max", "running", "in ECS", "ready", "draining", "stale",
        ],
        status.groups.iter().map(group_row).collect(),
    ));
    // Of many, those that are as they should be are no news.
    let is_news = |node: &&NodeRow| status.nodes.len() <= NODES_SHOWN || !node.is_well();
    let nodes: Vec<Vec<String>> = status.nodes.iter().filter(is_news).map(node_row).collect();
    let well = status.nodes.len() - nodes.len();
    if !nodes.is_empty() {
        out.line("");
        out.line(out.table(
            &[
                "node", "group", "zone", "state", "ECS", "tasks", "health", "intent", "template",
                "revision", "agent",
            ],
            nodes,
        ));
    }
    if well > 0 {
        out.line(format!(
            "\n{well} nodes serve and are well: --json lists them"
        ));
    }
    for group in &status.groups {
        if let Some(roll) = &group.roll {
            out.line(format!(
                "\n{} {}: {roll}",
                yellow("being rolled:"),
                group.name
            ));
        }
    }
    if !status.drift.is_empty() {
        out.line(format!("\n{}", yellow("not as in the file:")));
        for line in &status.drift {
            out.line(line);
        }
    }
    for group in &status.removed {
        out.line(format!(
            "\n{} is no longer in the file, but exists",
            yellow(format!("group {group}"))
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

fn group_row(group: &GroupRow) -> Vec<String> {
    let Some(counts) = &group.counts else {
        return vec![group.name.clone(), dim("absent")];
    };
    let ready = if counts.ready >= counts.wanted as usize {
        green(counts.ready)
    } else {
        yellow(counts.ready)
    };
    vec![
        group.name.clone(),
        counts.min.to_string(),
        counts.wanted.to_string(),
        counts.max.to_string(),
        counts.running.to_string(),
        counts.in_ecs.to_string(),
        ready,
        counts.draining.to_string(),
        counts.stale.to_string(),
    ]
}

fn node_row(node: &NodeRow) -> Vec<String> {
    let ecs = match &node.ecs {
        None => dim("absent"),
        Some(status) if node.connected => status.clone(),
        Some(status) => yellow(format!("{status}, disconnected")),
    };
    vec![
        node.id.clone(),
        node.group.clone(),
        node.zone.clone(),
        state(node),
        ecs,
        node.tasks.to_string(),
        health(node),
        intent(node),
        node.template_version
            .map_or_else(String::new, |version| format!("v{version}")),
        revision(node),
        node.agent.clone().unwrap_or_default(),
    ]
}

/// `3`, `3 starting`, or `3, refused 4`.
fn revision(node: &NodeRow) -> String {
    let Some(applied) = node.config.as_deref().and_then(Applied::read) else {
        return String::new();
    };
    match applied.refused {
        Some(refused) => red(format!("{}, refused {refused}", applied.revision)),
        None if !applied.settled => yellow(format!("{} starting", applied.revision)),
        None => applied.revision.to_string(),
    }
}

/// What is not in service, on its way there or on its way out stands out: nobody waits for it.
fn state(node: &NodeRow) -> String {
    let set_apart = ["Standby", "EnteringStandby", "Warmed:"];
    if set_apart.iter().any(|state| node.state.starts_with(state)) {
        yellow(&node.state)
    } else {
        node.state.clone()
    }
}

/// `serve`, or `drain, 3 tasks left`.
fn intent(node: &NodeRow) -> String {
    match node.intent.as_deref() {
        None => String::new(),
        Some("serve") => "serve".to_owned(),
        Some(intent) => yellow(match node.tasks {
            0 => format!("{intent}, no tasks left"),
            1 => format!("{intent}, 1 task left"),
            tasks => format!("{intent}, {tasks} tasks left"),
        }),
    }
}

/// `ok`, or `impaired docker since 2026-01-02T03:04:05Z`.
fn health(node: &NodeRow) -> String {
    match node.health.as_deref() {
        None => dim("unknown"),
        Some("ok") => green("ok"),
        Some(health) => {
            let part = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
            red(format!(
                "{health} {} since {}",
                part(&node.reason),
                part(&node.since)
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_serve_says_what_it_is_about() {
        let row = |intent: Option<&str>, tasks| {
            let node = NodeRow {
                id: "i-1".into(),
                group: "web".into(),
                zone: "a".into(),
                state: "Standby".into(),
                ecs: Some("DRAINING".into()),
                connected: true,
                tasks,
                ready: false,
                health: None,
                reason: None,
                since: None,
                intent: intent.map(str::to_owned),
                config: None,
                template_version: None,
                agent: None,
            };
            let cells = [state(&node), super::intent(&node)];
            cells.map(|cell| anstream::adapter::strip_str(&cell).to_string())
        };
        assert_eq!(row(Some("serve"), 3), ["Standby", "serve"]);
        assert_eq!(row(Some("drain"), 2)[1], "drain, 2 tasks left");
        assert_eq!(row(Some("leave"), 1)[1], "leave, 1 task left");
        assert_eq!(row(Some("leave"), 0)[1], "leave, no tasks left");
        assert_eq!(row(None, 0)[1], "");
    }
}
