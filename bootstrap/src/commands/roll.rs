//! `roll`: replaces the nodes that were made from an older launch template, in waves.
#![allow(clippy::disallowed_methods, reason = "waits for AWS: needs the clock")]

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use fleet_agent_config::names::tag;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use crate::{
    cli::{RollArgs, RollWish},
    cloud::{self, CallError, Kind, Pinned},
    desired,
    execute::{Stop, Stopped},
    exit::Exit,
    inventory::GroupTag,
    nodes::{self, Node, Nodes},
    output::{Output, dim, green, yellow},
    plan::{self, Goal, GroupChange, Plan, Version},
    progress::Progress,
    roll::{self, Mark, Next, Settings, State, Told, Wait, Write},
    session::{Session, interruptible},
    watch::{POLL, Watch},
};

/// Between a write and the next look.
const SETTLED: Duration = Duration::from_millis(500);

/// So often a wish is written against somebody who writes as well.
const WISHES: usize = 5;

/// What became of a group.
#[derive(Debug, Serialize)]
struct Rolled {
    /// Its key in the file.
    group: String,
    /// Why it is not done; absent when it is.
    error: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Everything wrong with the input, what stands in the way, or why a group's nodes were not replaced.
pub async fn run(args: &RollArgs, out: &Output) -> Result<Exit> {
    let mut session = Session::open(&args.common.file, &args.environment, out).await?;
    if args.ami.is_some() {
        session.take_newest_images();
    }
    let session = session;
    let groups = chosen(&session, &args.groups)?;
    without_pool(&groups)?;
    let found = session.nodes(groups.iter().copied()).await?;
    let is_rolling = found.iter().any(|nodes| nodes.roll.is_some());
    match args.wish() {
        RollWish::Pause => return ask(&session, &found, State::Paused, out).await,
        RollWish::Cancel if !is_rolling => {
            bail!("no roll is in progress: there is nothing to cancel")
        }
        RollWish::Resume if !is_rolling => {
            bail!("no roll is in progress: there is nothing to resume")
        }
        RollWish::Cancel => drop(ask(&session, &found, State::Cancelled, out).await?),
        RollWish::Resume => drop(ask(&session, &found, State::Running, out).await?),
        RollWish::Start => {}
    }
    // A roll that went back, or is out with a surge, is brought to its end before the file is looked at.
    let plan = match is_rolling {
        true => None,
        false => Some(session.plan(Goal::Up).await?).filter(|plan| !plan.steps.is_empty()),
    };
    if let Some(plan) = &plan {
        session.show(plan, out);
    }
    out.line(table(&groups, &found, args, plan.as_ref(), out));
    let old: usize = found.iter().map(stale).sum();
    if old == 0 && !is_rolling && plan.is_none() {
        out.line(green(
            "Nothing to do: every node is made from its group's launch template.",
        ));
        out.json(&json!({ "state": session.header(), "groups": [] }));
        return Ok(Exit::Done);
    }
    let asks = args.wish() == RollWish::Start && !args.yes;
    if asks && !out.confirm("Type yes to continue:", "yes")? {
        out.note("nothing was changed");
        return Ok(Exit::Error);
    }
    if asks && let Some(plan) = &plan {
        super::up::still(&session, plan).await?;
    }
    let rolled = interruptible(out, async |stop| {
        if let Some(plan) = &plan {
            super::up::carry_out(&session, plan, out, stop.clone()).await?;
        }
        replace(&session, &groups, args, out, stop).await
    })
    .await?;
    let now = session.nodes(groups.iter().copied()).await?;
    let left = now.iter().map(stale).sum();
    tell(&session, &rolled, left, out)?;
    if is_rolling && !session.drift().await?.lines.is_empty() {
        out.note("the file was not looked at, since a roll was under way: run `roll` again for what has changed in it");
    }
    Ok(Exit::Done)
}

/// The groups that were named, or all.
fn chosen<'a>(session: &'a Session, names: &[String]) -> Result<Vec<&'a desired::Group>> {
    let all = &session.desired.groups;
    let unknown: Vec<&str> = names
        .iter()
        .filter(|name| !all.iter().any(|group| group.name == **name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let known: Vec<&str> = all.iter().map(|group| group.name.as_str()).collect();
        bail!(
            "--group: there is no [groups.{}]: the file has {}",
            unknown.join("], [groups."),
            known.join(", ")
        );
    }
    let is_chosen = |group: &&desired::Group| names.is_empty() || names.contains(&group.name);
    Ok(all.iter().filter(is_chosen).collect())
}

/// Auto Scaling would take nodes of a wave out of the pool, which are as old as those they replace.
fn without_pool(groups: &[&desired::Group]) -> Result<()> {
    let pools = groups
        .iter()
        .filter(|group| group.auto_scaling_group.warm_pool.is_some());
    let names: Vec<&str> = pools.map(|group| group.name.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!(
        "{}: a warm pool holds nodes of the old version: take `warm_pool` out and run `up`, then `roll`, then put it back",
        names.join(", ")
    )
}

/// Notes an operator's wish on every group that is being rolled; whoever rolls it reads that.
async fn ask(session: &Session, found: &[Nodes], state: State, out: &Output) -> Result<Exit> {
    let mut asked = 0;
    for nodes in found {
        let Some(mark) = nodes.mark() else {
            continue;
        };
        // What goes back, or ends, does so: only an end can be put to that.
        if matches!(mark.state, State::Back | State::Cancelled) && state != State::Cancelled {
            out.note(format!(
                "{} is {} already",
                nodes.group,
                mark.state.as_str()
            ));
            continue;
        }
        let group = &nodes.group;
        stand(session, group, mark, state).await?;
        out.line(format!("{group}: {}", state.as_str()));
        asked += 1;
    }
    if state == State::Paused {
        out.json(&json!({ "state": session.header(), "asked": asked }));
    }
    Ok(Exit::Done)
}

/// Writes a wish until it stands: whoever rolls the group writes the same tag, and what he has noted of it
/// meanwhile is kept.
async fn stand(session: &Session, group: &str, mut mark: Mark, state: State) -> Result<()> {
    for _ in 0..WISHES {
        let wish = Write::Note(Mark { state, ..mark });
        write(session, group, None, &wish).await?;
        tokio::time::sleep(SETTLED).await;
        let groups = [group.to_owned()];
        let cluster = &session.desired.cluster.name;
        let found = nodes::observe(&session.cloud, cluster, &groups).await?;
        match found.first().and_then(Nodes::mark) {
            Some(found) if found.state != state && found.state != State::Back => mark = found,
            // It stands, or the roll has ended, or goes back.
            Some(_) | None => return Ok(()),
        }
    }
    bail!("{group}: the wish was overwritten {WISHES} times: ask again")
}

fn stale(nodes: &Nodes) -> usize {
    nodes.count(|node| roll::is_stale(node, nodes))
}

fn table(
    groups: &[&desired::Group],
    found: &[Nodes],
    args: &RollArgs,
    plan: Option<&Plan>,
    out: &Output,
) -> String {
    let rows = groups.iter().map(|group| {
        let nodes = found
            .iter()
            .find(|nodes| nodes.group == group.auto_scaling_group.name);
        let Some(nodes) = nodes else {
            return vec![group.name.clone(), dim("absent")];
        };
        let aside = nodes.count(|node| !node.is_wanted() || node.is_set_aside());
        let stale = match plan.is_some_and(|plan| plan.renews(&nodes.group)) {
            true => yellow(nodes.count(|node| node.is_wanted() && !node.is_set_aside())),
            false => stale(nodes).to_string(),
        };
        vec![
            group.name.clone(),
            nodes.wanted.to_string(),
            stale,
            format!(
                "{} at a time{}",
                args.surge,
                if args.no_canary { "" } else { ", one first" }
            ),
            nodes.roll.as_ref().map_or_else(String::new, yellow),
            match aside {
                0 => String::new(),
                aside => format!("{aside} set aside or leaving"),
            },
        ]
    });
    out.table(
        &["group", "nodes", "stale", "waves", "in progress", ""],
        rows.collect(),
    )
}

/// Rolls all groups at once; one that fails does not stop the others.
async fn replace(
    session: &Session,
    groups: &[&desired::Group],
    args: &RollArgs,
    out: &Output,
    stop: Stop,
) -> Result<Vec<Rolled>> {
    let progress = Progress::new(out);
    let watch = session.watch(None, &progress, stop);
    let all = groups.iter().map(|group| async {
        let result = Rolling::new(session, group, args, &watch).roll().await;
        (group.name.clone(), result)
    });
    let mut rolled = Vec::new();
    for (group, result) in join_all(all).await {
        let error = match result {
            Ok(()) => None,
            Err(error) if error.is::<Stopped>() => {
                return Err(anyhow!(
                    "stopped: nodes that are on their way in or out go on by themselves; `fleet-bootstrap roll {env}` goes on, `fleet-bootstrap roll {env} --cancel` ends it",
                    env = args.environment
                ));
            }
            Err(error) => Some(format!("{error:#}")),
        };
        rolled.push(Rolled { group, error });
    }
    Ok(rolled)
}

fn tell(session: &Session, rolled: &[Rolled], left: usize, out: &Output) -> Result<()> {
    out.json(&json!({ "state": session.header(), "groups": rolled, "left": left }));
    let errors: Vec<String> = rolled
        .iter()
        .filter_map(|one| Some(format!("{}: {}", one.group, one.error.as_ref()?)))
        .collect();
    if errors.is_empty() {
        out.line(match left {
            0 => green("Rolled: no node is left to replace."),
            left => yellow(format!("Ended: {left} nodes are as old as they were.")),
        });
        return Ok(());
    }
    bail!("{}", errors.join("\n"))
}

/// One group's way.
struct Rolling<'a> {
    session: &'a Session,
    group: &'a desired::Group,
    watch: &'a Watch<'a>,
    settings: Settings,
    /// What a new node gets to be ready, and an old one to go.
    launch_limit: Duration,
    leave_limit: Duration,
    bake: Duration,
    /// Since when it waits for what.
    waiting: Option<(Wait, Instant)>,
    failure: Option<String>,
    /// A wish about a roll that is under way, which begins none where that has ended meanwhile.
    goes_on: bool,
    /// The version that the group had when its mark was first seen.
    begun: Option<Option<i64>>,
}

impl<'a> Rolling<'a> {
    fn new(
        session: &'a Session,
        group: &'a desired::Group,
        args: &RollArgs,
        watch: &'a Watch<'a>,
    ) -> Self {
        Self {
            session,
            group,
            watch,
            settings: Settings {
                surge: args.surge,
                canary: !args.no_canary,
            },
            launch_limit: watch.launch_limit(&group.auto_scaling_group.name),
            leave_limit: group.drain.gone_limit(),
            bake: Duration::from_secs(args.bake_seconds),
            waiting: None,
            failure: None,
            goes_on: args.wish() != RollWish::Start,
            begun: None,
        }
    }

    /// # Errors
    /// Why its nodes were not replaced: also that it went back to its previous version.
    async fn roll(mut self) -> Result<()> {
        let name = &self.group.auto_scaling_group.name;
        self.watch.remember(name).await?;
        loop {
            let nodes = match self.watch.nodes(name).await {
                Err(error) if passes(&error) => {
                    self.watch.progress.live(name, "AWS asks for fewer calls");
                    self.watch.pause(POLL).await?;
                    continue;
                }
                other => other?,
            };
            let Some(nodes) = nodes else {
                return Ok(());
            };
            match self.step(name, &nodes).await {
                Err(error) if passes(&error) => {
                    self.watch.progress.live(name, &format!("waits: {error:#}"));
                    self.watch.pause(POLL).await?;
                }
                Err(error) => return Err(error),
                Ok(None) => {}
                Ok(Some(false)) => {
                    self.watch.ready(name, None).await?;
                    self.watch.progress.settled(name);
                    return Ok(());
                }
                Ok(Some(true)) => {
                    let version = nodes.template_version.unwrap_or_default();
                    let why = self.failure.as_deref();
                    bail!(
                        "{}\n{name} runs version {version} of its launch template again, on all its nodes: correct the file, then run `up` and `roll`",
                        why.unwrap_or("a new node failed in another run")
                    );
                }
            }
        }
    }

    /// One look and what follows from it; whether it went back, once it is done.
    async fn step(&mut self, name: &str, nodes: &Nodes) -> Result<Option<bool>> {
        if self.failure.is_none() {
            self.failure = roll::ill(nodes);
        }
        let told = Told {
            failure: self.failure.as_deref(),
            is_baked: self.waited(Wait::Baking) >= self.bake,
            has_begun: self.goes_on || self.begun.is_some(),
        };
        if nodes.roll.is_some() && self.begun.is_none() {
            self.begun = Some(nodes.template_version);
        }
        match roll::decide(nodes, &self.settings, told) {
            Next::Write(wanted) => {
                self.watch
                    .progress
                    .note(&format!("{name}: {}", title(&wanted)));
                write(self.session, name, Some(self.group), &wanted).await?;
                // Auto Scaling shows what was written a moment later.
                self.watch.pause(SETTLED).await?;
                Ok(None)
            }
            Next::Wait(wait) => {
                if self.waiting.is_none_or(|(known, _)| known != wait) {
                    self.waiting = Some((wait, Instant::now()));
                }
                self.wait(name, nodes, wait).await?;
                Ok(None)
            }
            Next::Done { went_back } => {
                if nodes.roll.is_some() {
                    self.session
                        .cloud
                        .autoscaling
                        .untag(name, tag::ROLL)
                        .await?;
                }
                let before = self.begun.unwrap_or(nodes.template_version);
                Ok(Some(went_back || before != nodes.template_version))
            }
            Next::Stuck(why) => bail!(why),
        }
    }

    async fn wait(&mut self, name: &str, nodes: &Nodes, wait: Wait) -> Result<()> {
        let waited = self.waited(wait);
        match wait {
            Wait::Launching(_) if !is_going_back(nodes) => {
                if let Some(why) = self.watch.given_up(nodes, waited).await? {
                    self.failure = Some(why);
                } else if waited >= self.launch_limit {
                    self.failure = Some(format!(
                        "{:#}",
                        self.watch.too_late(nodes, nodes.wanted).await
                    ));
                }
            }
            Wait::Launching(_) if waited >= self.launch_limit => {
                bail!(
                    "{}\nnodes of the previous version do not get ready either: see what they lack, then run `roll` again",
                    self.failure.as_deref().unwrap_or("a new node failed")
                );
            }
            Wait::Leaving(left) if waited >= self.leave_limit => {
                bail!(
                    "{left} old nodes are still there after {} minutes: see which tasks do not stop, then run `roll` again",
                    waited.as_secs() / 60
                );
            }
            Wait::Launching(_) | Wait::Leaving(_) | Wait::Baking | Wait::Paused => {}
        }
        self.watch.progress.live(name, &story(nodes, wait));
        self.watch.pause(POLL).await
    }

    fn waited(&self, wait: Wait) -> Duration {
        let known = self.waiting.filter(|(known, _)| *known == wait);
        known.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

fn is_going_back(nodes: &Nodes) -> bool {
    nodes.mark().is_some_and(|mark| mark.state == State::Back)
}

/// What is gone on the next look; a group that is being changed as well.
fn passes(error: &anyhow::Error) -> bool {
    let in_use = |error: &CallError| error.kind == Kind::InUse;
    cloud::passes(error) || error.downcast_ref().is_some_and(in_use)
}

async fn write(
    session: &Session,
    name: &str,
    group: Option<&desired::Group>,
    wanted: &Write,
) -> Result<()> {
    let auto_scaling = &session.cloud.autoscaling;
    match wanted {
        Write::Note(mark) => {
            let tag = GroupTag {
                value: mark.to_string(),
                propagate: false,
            };
            auto_scaling
                .tag(name, &[(tag::ROLL.to_owned(), tag)].into())
                .await?;
        }
        Write::Resize(change) => auto_scaling.update(name, change, None).await?,
        Write::Version(version) => {
            let template = group.map(|group| plan::template_use(group, Version::Number(*version)));
            let pinned = template.as_ref().map(|template| Pinned {
                name: &template.name,
                version: *version,
                mix: template.mix.as_ref(),
            });
            auto_scaling
                .update(name, &GroupChange::default(), pinned)
                .await?;
        }
        Write::Unprotect(ids) => auto_scaling.protect(name, ids, false).await?,
        Write::Protect(ids) => auto_scaling.protect(name, ids, true).await?,
    }
    Ok(())
}

/// `size 4 -> 6 for a wave of 2`
fn title(write: &Write) -> String {
    match write {
        Write::Note(mark) => match mark.state {
            State::Running => format!("a wave of {}", mark.surge),
            State::Paused | State::Cancelled => mark.state.as_str().to_owned(),
            State::Back => "a new node failed: back to the previous version".to_owned(),
        },
        Write::Resize(change) => {
            let part = |name: &str, size: Option<u32>| size.map(|size| format!("{name} {size}"));
            let parts = [
                part("size", change.desired),
                part("min", change.min),
                part("max", change.max),
            ];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
        Write::Version(version) => format!("launch template version {version}"),
        Write::Unprotect(ids) => format!("free to go: {}", ids.join(" ")),
        Write::Protect(ids) => format!("to stay: {}", ids.join(" ")),
    }
}

/// `3 of 4 nodes stale . 1 new node ready . i-0ab Terminating:Wait, 3 tasks`
fn story(nodes: &Nodes, wait: Wait) -> String {
    let all = nodes.count(Node::is_wanted);
    let mut parts = vec![format!("{} of {all} nodes stale", stale(nodes))];
    parts.push(match wait {
        Wait::Launching(ready) => format!("{ready} new ready"),
        Wait::Baking => "watching the first new node".to_owned(),
        Wait::Leaving(left) => format!("{left} leaving"),
        Wait::Paused => "paused, until `roll --resume`".to_owned(),
    });
    let on_the_way = nodes.nodes.iter().filter(|node| !node.is_running());
    parts.extend(on_the_way.map(|node| {
        let id = &node.instance.id;
        match &node.container_instance {
            Some(found) => format!(
                "{id} {}, {} tasks",
                node.instance.state,
                found.running_tasks + found.pending_tasks
            ),
            None => format!("{id} {}", node.instance.state),
        }
    }));
    parts.join(" . ")
}
