//! `drain`: asks a node to drain, or takes that back, and waits until it has.
#![allow(
    clippy::disallowed_methods,
    reason = "a request is named after the time, and waiting needs the clock"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use fleet_agent_config::{Problems, names::tag};
use serde_json::json;

use crate::{
    cli::DrainArgs,
    cloud::{CallError, Cloud, Ec2Instance, Kind},
    desired,
    drain::{self, Verdict, View, Wait},
    execute::{Stop, Stopped},
    exit::Exit,
    inventory::{Presence, Tags},
    nodes,
    output::{Output, green},
    progress::Progress,
    session::{Session, interruptible},
    watch,
};

/// Between two looks at the node, three calls each.
const POLL: Duration = Duration::from_secs(3);

/// What became of the wish, before any waiting.
struct Asked {
    /// The tag's value: the one written, the one found, or the one removed.
    request: Option<String>,
    written: bool,
}

/// Runs the command.
///
/// # Errors
/// Wrong input, an instance that is not this environment's, or why the node did not do it.
pub async fn run(args: &DrainArgs, out: &Output) -> Result<Exit> {
    let request = checked(args)?;
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let node = session.identified(find(&session, &args.instance)).await?;
    let cluster = &session.desired.cluster.name;
    let before = look(&session.cloud, cluster, &args.instance).await?;
    let asked = if args.undo {
        take_back(&session.cloud, &args.instance, &node, out).await?
    } else {
        ask(&session.cloud, &args.instance, &node, &before, request, out).await?
    };
    let group = node.tags.get(tag::GROUP).cloned().unwrap_or_default();
    let last = if args.no_wait {
        before
    } else {
        let (done, view) = wait(args, &session, &asked, bounds(&session, &group), out).await?;
        out.line(green(format!("{} {done}.", args.instance)));
        view
    };
    if !args.undo && asked.request.is_some() {
        out.line(format!("`{}` takes it back.", undo_command(args)));
    }
    out.json(&json!({
        "state": session.header(),
        "instance": args.instance,
        "group": group,
        "undo": args.undo,
        "request": asked.request,
        "written": asked.written,
        "done": !args.no_wait,
        "lifecycle": last.lifecycle,
        "ecs": last.ecs,
    }));
    Ok(Exit::Done)
}

/// Everything wrong with the arguments at once, before anything is read.
fn checked(args: &DrainArgs) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.context("the clock says it is before 1970")?.as_secs();
    let request = drain::request(args.reason.as_deref(), seconds, fastrand::u32(..));
    let instance = drain::check_instance(&args.instance);
    match (request, instance) {
        (Ok(request), None) => Ok(request),
        (request, instance) => Err(Problems {
            file: "drain".to_owned(),
            problems: instance.into_iter().chain(request.err()).collect(),
        }
        .into()),
    }
}

/// The instance, once its own tags prove that it is this environment's.
async fn find(session: &Session, id: &str) -> Result<Ec2Instance> {
    let identity = &session.desired.identity;
    let (fleet, environment) = (&identity.fleet, &identity.environment);
    let Some(node) = session.cloud.ec2.instance(id).await? else {
        bail!(
            "there is no instance {id} in {}, so nothing was written; {}",
            identity.region,
            known_nodes(session).await?
        );
    };
    if let Presence::Foreign(why) = Presence::judge(&node.tags, identity, None, || ()) {
        bail!(
            "instance {id} is no node of {fleet} {environment}, so nothing was written: {why}; {}",
            known_nodes(session).await?
        );
    }
    if matches!(node.state.as_str(), "shutting-down" | "terminated") {
        bail!(
            "instance {id} is {}: there is nothing left to drain",
            node.state
        );
    }
    Ok(node)
}

/// `its nodes are i-0ab (web), i-0cd (batch)`
async fn known_nodes(session: &Session) -> Result<String> {
    let desired = &session.desired;
    let found = session.nodes(&desired.groups).await?;
    let mut known = Vec::new();
    for group in &desired.groups {
        let of_group = |nodes: &&nodes::Nodes| nodes.group == group.auto_scaling_group.name;
        for node in found.iter().filter(of_group).flat_map(|nodes| &nodes.nodes) {
            known.push(format!("{} ({})", node.instance.id, group.name));
        }
    }
    let (fleet, environment) = (&desired.identity.fleet, &desired.identity.environment);
    Ok(if known.is_empty() {
        format!("{fleet} {environment} has no nodes")
    } else {
        format!(
            "the nodes of {fleet} {environment} are {}",
            known.join(", ")
        )
    })
}

async fn ask(
    cloud: &Cloud,
    id: &str,
    node: &Ec2Instance,
    before: &View,
    request: String,
    out: &Output,
) -> Result<Asked> {
    if let Some(found) = node.tags.get(tag::DRAIN) {
        out.note(format!("{id} has been asked already: `{found}`"));
        return Ok(Asked {
            request: Some(found.clone()),
            written: false,
        });
    }
    if before.is_terminating() {
        out.note(format!(
            "{id} drains already, since Auto Scaling takes it away: nothing was written"
        ));
        return Ok(Asked {
            request: None,
            written: false,
        });
    }
    if before.is_draining() {
        out.note(format!(
            "{id} drains already, for another cause: yours stands beside it"
        ));
    }
    let tags: Tags = [(tag::DRAIN.to_owned(), request.clone())].into();
    cloud.ec2.tag(&[id], &tags).await?;
    out.line(format!("asked {id} to drain: {} `{request}`", tag::DRAIN));
    Ok(Asked {
        request: Some(request),
        written: true,
    })
}

async fn take_back(cloud: &Cloud, id: &str, node: &Ec2Instance, out: &Output) -> Result<Asked> {
    let Some(found) = node.tags.get(tag::DRAIN) else {
        // An earlier run may have been stopped while it waited.
        out.note(format!(
            "{id} carries no {} tag: nothing to take back",
            tag::DRAIN
        ));
        return Ok(Asked {
            request: None,
            written: false,
        });
    };
    cloud.ec2.untag(id, tag::DRAIN, found).await?;
    out.line(format!("took back `{found}` from {id}"));
    Ok(Asked {
        request: Some(found.clone()),
        written: true,
    })
}

/// How long a node of this group may take to go; of one that left the file, the longest there is.
fn bounds(session: &Session, group: &str) -> desired::Drain {
    let mut groups = session.desired.groups.iter();
    groups.find(|known| known.name == group).map_or_else(
        || desired::removed(&session.desired.identity, group).drain,
        |known| known.drain,
    )
}

/// Waits until it is so, and says how it is then.
async fn wait(
    args: &DrainArgs,
    session: &Session,
    asked: &Asked,
    bounds: desired::Drain,
    out: &Output,
) -> Result<(String, View)> {
    let result = interruptible(out, async |stop| {
        follow(args, session, bounds, out, stop).await
    });
    result.await.map_err(|error| {
        let is_stopped = error.is::<Stopped>();
        let what = match (&asked.request, args.undo, is_stopped) {
            (None, _, _) => "nothing was written".to_owned(),
            (Some(_), true, _) => "the request was taken back".to_owned(),
            (Some(_), false, true) => {
                format!("the drain goes on: `{}` takes it back", undo_command(args))
            }
            (Some(_), false, false) => {
                format!("the request stands: `{}` takes it back", undo_command(args))
            }
        };
        if is_stopped {
            anyhow!("stopped waiting, and nothing else; {what}")
        } else {
            anyhow!("{error:#}\n{what}")
        }
    })
}

async fn follow(
    args: &DrainArgs,
    session: &Session,
    bounds: desired::Drain,
    out: &Output,
    stop: Stop,
) -> Result<(String, View)> {
    let (id, cluster) = (&args.instance, &session.desired.cluster.name);
    let progress = Progress::new(out);
    let mut wait = Wait::new(args.undo, cluster, bounds);
    let began = Instant::now();
    loop {
        match look(&session.cloud, cluster, id).await {
            Ok(view) => {
                progress.live(id, &view.story());
                match wait.judge(&view, began.elapsed()) {
                    Verdict::GoOn => {}
                    Verdict::Done(how) => return Ok((how, view)),
                    Verdict::Failed(why) => bail!("{id}: {why}"),
                }
            }
            // What it is about is told on the next look.
            Err(error) if error.kind == Kind::Throttled => {
                progress.live(id, "AWS asks for fewer calls");
            }
            Err(error) => return Err(error.into()),
        }
        watch::pause(&stop, POLL).await?;
    }
}

async fn look(cloud: &Cloud, cluster: &str, id: &str) -> Result<View, CallError> {
    let (lifecycle, ecs) = tokio::try_join!(
        cloud.autoscaling.lifecycle_state(id),
        cloud.ecs.container_instance(cluster, id)
    )?;
    let mut view = View {
        lifecycle,
        ecs,
        stopping: 0,
    };
    if let Some(ecs) = &view.ecs
        && view.is_draining()
        && view.counts_no_task()
    {
        view.stopping = cloud.ecs.tasks(cluster, Some(&ecs.arn)).await?.len();
    }
    Ok(view)
}

fn undo_command(args: &DrainArgs) -> String {
    format!(
        "fleet-bootstrap drain {} {} --undo",
        args.environment, args.instance
    )
}
