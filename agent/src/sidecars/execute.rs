//! Runs a plan's steps in Docker, and stops sidecars last.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail};
use fleet_agent_config::{EcrImage, Sidecar};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::plan::{Desired, Failed, Failure, Report, Scope, State, Step, plan, report};
use crate::{
    clients::{
        Clients,
        disk::Disk as _,
        docker::{Container, Docker},
        ecr::Ecr as _,
        ssm::Ssm as _,
    },
    moment::Moment,
};

/// What a container that no setting describes any more is given to end.
const REMOVED_GRACE: Duration = Duration::from_secs(10);
/// How long a sidecar that takes another's place has to come up, on top of its health check's own
/// times.
const COMES_UP: Duration = Duration::from_secs(20);
/// How long it has to stay up: one that cannot reach what it needs often ends after some seconds.
const LIVES: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(500);

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
    clients: &impl Clients,
    desired: &[Desired],
    scope: Scope,
    failed: &RefCell<Failed>,
    now: impl Fn() -> Timestamp,
) -> Result<Round> {
    let docker = clients.docker();
    let mut observed = docker.sidecars().await?;
    let mut done = Vec::new();
    let mut problem = None;
    let steps = plan(desired, scope, &observed, &failed.borrow(), now());
    let changes = !steps.is_empty();
    for step in steps {
        match execute(clients, desired, failed, &observed, &step, &now).await {
            Ok(what) => done.push(what),
            Err(error) => problem = problem.or(Some(format!("{error:#}"))),
        }
    }
    if changes {
        observed = docker.sidecars().await?;
        let specs = |container: &Container| (container.sidecar.clone(), container.spec.clone());
        let used = observed.iter().map(specs).collect();
        if let Err(error) = clients.disk().forget_secrets(&used) {
            problem = problem.or(Some(format!("{error:#}")));
        }
    }
    // What was put back stays a problem until the settings change.
    let failed = failed.borrow();
    let stands = desired.iter().find_map(|each| each.failure(&failed));
    problem = problem.or_else(|| stands.map(str::to_owned));
    Ok(Round {
        reports: report(desired, &observed, now()),
        done,
        problem,
    })
}

async fn execute(
    clients: &impl Clients,
    desired: &[Desired],
    failed: &RefCell<Failed>,
    observed: &[Container],
    step: &Step,
    now: &impl Fn() -> Timestamp,
) -> Result<String> {
    let docker = clients.docker();
    match step {
        Step::Remove { id, sidecar } => {
            docker.stop(id, grace(desired, sidecar)).await?;
            docker.remove(id).await?;
            Ok(format!("removed {sidecar}"))
        }
        Step::Start { id, sidecar } => {
            // What an older one was given stands where it was.
            if let Some(Desired { sidecar, spec }) =
                desired.iter().find(|each| each.made(id, observed))
            {
                provide_secrets(clients, sidecar, spec).await?;
            }
            // It may have been set aside for one that is not wanted any more.
            docker.take_back(id, sidecar).await?;
            docker.start(id).await?;
            Ok(format!("started {sidecar} again"))
        }
        Step::Create { sidecar, spec } => {
            provide_image(clients, sidecar).await?;
            provide_secrets(clients, sidecar, spec).await?;
            docker.create(sidecar, spec).await?;
            Ok(format!("started {} ({})", sidecar.name, sidecar.image))
        }
        Step::Replace { old, sidecar, spec } => {
            let name = &sidecar.name;
            // Nothing is stopped for an image or a secret that cannot be had: the next round asks again.
            provide_image(clients, sidecar).await?;
            provide_secrets(clients, sidecar, spec).await?;
            docker.set_aside(old, name).await?;
            docker.stop(old, grace(desired, name)).await?;
            let Err(error) = comes_up(docker, desired, sidecar, spec, now).await else {
                docker.remove(old).await?;
                return Ok(format!("replaced {name} ({})", sidecar.image));
            };
            let why = format!(
                "replace sidecar {name}: the new one did not come up: {error:#}; the old one runs \
                 again, and this one is not tried again before its settings change"
            );
            let failure = Failure {
                spec: spec.clone(),
                why: why.clone(),
            };
            failed.borrow_mut().insert(name.clone(), failure);
            let back = put_back(docker, old, name).await;
            back.with_context(|| format!("{why} (but it could not be put back)"))?;
            bail!(why)
        }
    }
}

/// Pulls its image if it is not there. A token for a private registry is asked for each time: they are
/// good for hours, pulls are days apart.
async fn provide_image(clients: &impl Clients, sidecar: &Sidecar) -> Result<()> {
    let (docker, image) = (clients.docker(), &sidecar.image);
    if docker.has_image(image).await? {
        return Ok(());
    }
    let login = match EcrImage::parse(image) {
        Some(private) => Some(clients.ecr().login(&private).await?),
        None => None,
    };
    docker.pull(image, login).await
}

/// Reads what a sidecar's references stand for. The values go into files for it alone: what Docker is
/// told as environment, it keeps on disk and shows to whoever may ask it.
async fn provide_secrets(clients: &impl Clients, sidecar: &Sidecar, spec: &str) -> Result<()> {
    let references = &sidecar.container.secrets;
    if references.is_empty() {
        return Ok(());
    }
    let mut values = BTreeMap::new();
    for (name, parameter) in references {
        values.insert(name.clone(), clients.ssm().parameter(parameter).await?);
    }
    clients.disk().keep_secrets(&sidecar.name, spec, &values)
}

/// The container that was set aside is what it was, and nothing stands in its place.
async fn put_back(docker: &impl Docker, old: &str, name: &str) -> Result<()> {
    for container in docker.sidecars().await? {
        if container.sidecar == *name && container.id != old {
            docker.remove(&container.id).await?;
        }
    }
    docker.take_back(old, name).await?;
    docker.start(old).await
}

/// Makes it, and sees it up without a break for a while.
async fn comes_up(
    docker: &impl Docker,
    desired: &[Desired],
    sidecar: &Sidecar,
    spec: &str,
    now: &impl Fn() -> Timestamp,
) -> Result<()> {
    docker.create(sidecar, spec).await?;
    let check = sidecar.container.health_check.as_ref();
    let checked = check.map_or(0, |check| {
        check.start_period_seconds
            + check.retries * (check.interval_seconds + check.timeout_seconds)
    });
    let limit = COMES_UP + Duration::from_secs(checked.into());
    let watched = async {
        let mut up_since = None;
        loop {
            let observed = docker.sidecars().await?;
            let reports = report(desired, &observed, now());
            let state = reports.iter().find(|report| report.name == sidecar.name);
            match state.map(|report| report.state) {
                Some(State::Up) => {
                    let since = *up_since.get_or_insert(now());
                    if Duration::try_from(now().duration_since(since)).is_ok_and(|up| up >= LIVES) {
                        return Ok(());
                    }
                }
                Some(state @ (State::Unhealthy | State::Restarting | State::Stopped)) => {
                    bail!("it is {}", state.as_str())
                }
                Some(State::Unproven | State::Missing | State::Outdated) | None => up_since = None,
            }
            sleep(LOOK).await;
        }
    };
    match timeout(limit, watched).await {
        Ok(result) => result,
        Err(_) => bail!("it is not up after {} s", limit.as_secs()),
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
