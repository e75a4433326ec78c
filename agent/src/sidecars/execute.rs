//! Runs a plan's steps in Docker, and stops sidecars last.

use std::time::Duration;

use anyhow::Result;
use fleet_agent_config::Sidecar;
use jiff::Timestamp;

use super::plan::{Desired, Report, Scope, Step, plan, report};
use crate::{
    clients::docker::{Container, Docker},
    moment::Moment,
};

/// What a container that no setting describes any more is given to end.
const REMOVED_GRACE: Duration = Duration::from_secs(10);

/// What one round did and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) reports: Vec<Report>,
    /// What was done, for the journal: `started node-logs`.
    pub(crate) done: Vec<String>,
    /// The first step that failed; later rounds try again.
    pub(crate) problem: Option<String>,
}

/// One round: observe, plan, execute, observe again. A failing step does not keep the others back.
///
/// # Errors
/// If Docker cannot be asked at all.
pub(crate) async fn converge(
    docker: &impl Docker,
    desired: &[Desired],
    scope: Scope,
    now: impl Fn() -> Timestamp,
) -> Result<Round> {
    let mut observed = docker.sidecars().await?;
    let mut done = Vec::new();
    let mut problem = None;
    let steps = plan(desired, scope, &observed);
    let changes = !steps.is_empty();
    for step in steps {
        match execute(docker, desired, &step).await {
            Ok(what) => done.push(what),
            Err(error) => problem = problem.or(Some(format!("{error:#}"))),
        }
    }
    if changes {
        observed = docker.sidecars().await?;
    }
    Ok(Round {
        reports: report(desired, &observed, now()),
        done,
        problem,
    })
}

async fn execute(docker: &impl Docker, desired: &[Desired], step: &Step) -> Result<String> {
    match step {
        Step::Remove { id, sidecar } => {
            docker.stop(id, grace(desired, sidecar)).await?;
            docker.remove(id).await?;
            Ok(format!("removed {sidecar}"))
        }
        Step::Start { id, sidecar } => {
            docker.start(id).await?;
            Ok(format!("started {sidecar} again"))
        }
        Step::Create { sidecar, spec } => {
            docker.create(sidecar, spec).await?;
            Ok(format!("started {} ({})", sidecar.name, sidecar.image))
        }
    }
}

/// Has them write out what they hold, all at once, and then stops them, the last started first, so
/// that those needed before tasks see everything end. Each gets its own stop time-out; all of it
/// takes no longer than `within`: what is short is the wait for what they write, then the stops.
/// Returns how many were stopped.
///
/// # Errors
/// The first failure, once all have been tried.
pub(crate) async fn flush_and_stop(
    docker: &impl Docker,
    desired: &[Desired],
    within: Duration,
    now: impl Fn() -> Moment,
) -> Result<usize> {
    let end = now() + within;
    let mut running: Vec<Container> = docker.sidecars().await?;
    running.retain(|container| container.running || container.restarting);
    running.sort_by_key(|container| {
        std::cmp::Reverse(
            desired
                .iter()
                .position(|d| d.sidecar.name == container.sidecar),
        )
    });
    let stops: Duration = running
        .iter()
        .map(|container| grace(desired, &container.sidecar))
        .sum();
    let mut failure = flush(docker, desired, &running, end.before(stops).since(now()))
        .await
        .err();
    for container in &running {
        let grace = grace(desired, &container.sidecar).min(end.since(now()));
        if let Err(error) = docker.stop(&container.id, grace).await {
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(running.len()), Err)
}

/// The signal to each that has one, and at most its time for it to end by itself. A sidecar that goes
/// on after it has written does not say when it has: it gets the whole of its time.
async fn flush(
    docker: &impl Docker,
    desired: &[Desired],
    running: &[Container],
    limit: Duration,
) -> Result<()> {
    let flushes = running.iter().filter_map(|container| {
        let sidecar = named(desired, &container.sidecar)?;
        Some((container, sidecar.flush.as_ref()?))
    });
    let flushed = flushes.map(async |(container, flush)| {
        let own = Duration::from_secs(flush.timeout_seconds.into());
        // One that ends by itself is done.
        docker.let_end(&container.id).await?;
        docker.signal(&container.id, &flush.signal).await?;
        docker.ends_within(&container.id, own.min(limit)).await
    });
    for ended in futures_util::future::join_all(flushed).await {
        ended?;
    }
    Ok(())
}

fn grace(desired: &[Desired], name: &str) -> Duration {
    named(desired, name).map_or(REMOVED_GRACE, |sidecar| {
        Duration::from_secs(sidecar.stop_timeout_seconds.into())
    })
}

fn named<'a>(desired: &'a [Desired], name: &str) -> Option<&'a Sidecar> {
    let mut sidecars = desired.iter().map(|desired| &desired.sidecar);
    sidecars.find(|sidecar| sidecar.name == name)
}
