//! `fleet-agent run`: puts the parts together, and the one loop that everything goes through.
#![allow(
    clippy::disallowed_methods,
    reason = "the edge where the daemon's own random seed is drawn"
)]

use std::{collections::BTreeMap, future::pending, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use fleet_agent_config::Settings;
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, OnceCell, mpsc, watch},
    task::{LocalSet, spawn_local},
};

use crate::{
    VERSION,
    clients::{
        Clients, Remotes, aws::Aws, disk::NodeDisk, docker::Dockerd, imds::Metadata,
        introspection::EcsAgent, systemd::Systemctl,
    },
    clock::Clock,
    ecs_config::{
        apply::one,
        render::{STOP_TIMEOUT_DEFAULT, layers},
    },
    health::watch::Watch,
    inventory::{self, Record},
    journal::{event::Entry, sink},
    lifecycle::{
        driver::Context,
        event::{Event, Order, Phase, Policy, Tasks},
        life::Life,
        machine::Machine,
    },
    moment::Moment,
    paths::Paths,
    revision::{Found, Revisions, Source},
    sidecars::plan::Desired,
    status::{
        self, Asked, CauseStatus, DrainStatus, FaultStatus, Request, SidecarStatus, Status,
        TaskStatus,
    },
};

/// Why it runs no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Stopped,
    /// There are newer settings.
    Outdated,
}

/// Runs until told to stop, or until there are newer settings.
///
/// # Errors
/// Only for what no retry can cure: the socket cannot be bound, no HTTP client can be made.
pub(crate) async fn run(source: Source, clock: Clock, paths: Paths) -> Result<Ended> {
    let Source {
        base,
        settings,
        applied,
    } = source;
    let socket = status::bind(&paths.socket)?;
    let clients = Remotes {
        imds: Metadata::from_environment()?,
        aws: Aws::new(
            &settings.region,
            &settings.cluster,
            &settings.auto_scaling_group,
        ),
        introspection: EcsAgent::new()?,
        docker: Dockerd::new(paths.docker.clone()),
        systemd: Systemctl,
        disk: NodeDisk::new(paths.clone(), clock.clone()),
    };
    sink::write(&Entry::Started {
        version: VERSION,
        settings: applied.hash.clone(),
    });
    let context = Rc::new(Context {
        sidecars: Desired::all(&settings.sidecars),
        failed: Default::default(),
        container_stop: container_stop(&settings, &paths),
        clients,
        settings,
        applied,
        clock,
        identity: OnceCell::new(),
        seed: fastrand::u64(..),
    });
    LocalSet::new()
        .run_until(async {
            let (settled, found) = (Rc::<Notify>::default(), Rc::<Found>::default());
            let revisions = Revisions {
                context: context.clone(),
                base,
                paths: paths.clone(),
                settled: settled.clone(),
                found: found.clone(),
            };
            spawn_local(revisions.run());
            let (settings, clock) = (context.settings.clone(), context.clock.clone());
            let daemon = Daemon::new(context);
            let watch = Watch::new(
                settings,
                paths.clone(),
                clock,
                daemon.life.sender(),
                settled,
            );
            spawn_local(async move { watch.run().await });
            spawn_local(inventory::keep(
                daemon.context.clone(),
                daemon.records.subscribe(),
            ));
            daemon.serve(socket, &found, &paths).await
        })
        .await
}

/// It is sent seldom, and events are many.
const RECORDS: Duration = Duration::from_secs(10);

struct Daemon<C> {
    context: Rc<Context<C>>,
    life: Life<C>,
    /// The status line systemd was last told.
    told: String,
    /// What the inventory is to say, and when that is next put together.
    records: watch::Sender<Option<Record>>,
    records_at: Moment,
}

impl<C: Clients + 'static> Daemon<C> {
    fn new(context: Rc<Context<C>>) -> Self {
        let policy = Policy::new(&context.settings, context.container_stop, context.seed);
        let machine = Machine::new(policy, context.clock.now());
        Self {
            life: Life::new(context.clone(), machine),
            context,
            told: String::new(),
            records: watch::Sender::new(None),
            records_at: Moment::default(),
        }
    }

    async fn serve(
        mut self,
        socket: UnixListener,
        found: &Rc<Found>,
        paths: &Paths,
    ) -> Result<Ended> {
        let mut stop = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let mut watchdog = sd_notify::watchdog_enabled()
            .map(|limit| tokio::time::interval((limit / 2).max(Duration::from_millis(1))));
        let (requests, mut asked) = mpsc::channel(status::REQUESTS);
        notify(&[NotifyState::Ready]);
        self.life.handle(Event::Tick);
        let mut outdated = false;
        loop {
            self.tell_systemd();
            self.record();
            // Nothing is cut off that another run could not know of.
            if outdated && self.life.machine().may_start_over() {
                outdated = false;
                match found.keep(paths) {
                    Ok(()) => return Ok(Ended::Outdated),
                    Err(error) => {
                        sink::write(&Entry::CallFailed {
                            call: "keep newer settings",
                            error: format!("{error:#}"),
                        });
                        let found = found.clone();
                        spawn_local(async move { found.tell_again().await });
                    }
                }
            }
            // Every arm is cancel safe: next, accept, tick and signals keep what they have not
            // handed out.
            tokio::select! {
                event = self.life.next() => self.life.handle(event),
                () = beat(watchdog.as_mut()) => notify(&[NotifyState::Watchdog]),
                Ok((stream, _)) = socket.accept() => {
                    spawn_local(status::serve(stream, requests.clone()));
                }
                // Ours is one of the senders, so the channel never closes.
                Some(Asked { request, reply }) = asked.recv() => {
                    self.obey(request);
                    // Whoever asked may be gone.
                    let _ = reply.send(self.status());
                    // The answer is written before anything else happens.
                    tokio::task::yield_now().await;
                }
                () = found.wait() => outdated = true,
                _ = stop.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        notify(&[NotifyState::Stopping]);
        sink::write(&Entry::Stopping);
        Ok(Ended::Stopped)
    }

    fn obey(&mut self, request: Request) {
        let order = match request {
            Request::Status => return,
            Request::Drain { reason } => Order::Drain {
                request: format!("{:016x}", fastrand::u64(..)),
                reason,
            },
            Request::Undrain => Order::Undrain,
            Request::Shutdown => Order::Shutdown,
        };
        self.life.handle(Event::Order(order));
    }

    fn tell_systemd(&mut self) {
        let view = self.life.machine().view();
        let phase = view.phase.as_str();
        let line = match view.waiting.as_str() {
            "nothing" => phase.to_owned(),
            waiting => format!("{phase}: waiting for {waiting}"),
        };
        if line != self.told {
            notify(&[NotifyState::Status(&line)]);
            self.told = line;
        }
    }

    /// What goes for good needs all its calls for that.
    fn record(&mut self) {
        let now = self.context.clock.now();
        if now < self.records_at {
            return;
        }
        self.records_at = now + RECORDS;
        let view = self.life.machine().view();
        if view.phase != Phase::InService && view.phase != Phase::Drained {
            return;
        }
        let (Some(identity), Some(container_instance)) = (view.identity, view.container_instance)
        else {
            return;
        };
        let settings = &self.context.settings;
        let details: Vec<&str> = view.faults.iter().map(|one| one.detail.as_str()).collect();
        let sidecars = view.sidecars.iter();
        let sidecars: Vec<String> = sidecars
            .map(|report| format!("{} {}", report.name, report.state.as_str()))
            .collect();
        let record = Record::new(
            &identity.instance,
            vec![
                ("Fleet", settings.fleet.clone()),
                ("Environment", settings.environment.clone()),
                ("Group", settings.group.clone()),
                ("ContainerInstance", container_instance.to_owned()),
                ("Agent", VERSION.to_owned()),
                (
                    "Config",
                    self.context.applied.with(view.settled).to_string(),
                ),
                ("Health", view.health.verdict.as_str().to_owned()),
                ("Reason", view.health.reason.to_owned()),
                ("Detail", details.join("; ")),
                ("Sidecars", sidecars.join(", ")),
            ],
        );
        self.records.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&record);
            if is_news {
                *known = Some(record);
            }
            is_news
        });
    }

    fn status(&self) -> Status {
        let view = self.life.machine().view();
        let clock = &self.context.clock;
        let settings = &self.context.settings;
        let ecs = match view.registration {
            _ if !view.ecs_answers => "the ECS agent does not answer".to_owned(),
            Some(known) if known.connected => format!("connected, {}", known.status),
            Some(known) => format!("not connected, {}", known.status),
            None if view.container_instance.is_some() => "registered".to_owned(),
            None => "not registered".to_owned(),
        };
        Status {
            version: VERSION.to_owned(),
            config: self.context.applied.with(view.settled).to_string(),
            fleet: settings.fleet.clone(),
            environment: settings.environment.clone(),
            group: settings.group.clone(),
            cluster: settings.cluster.clone(),
            instance: view.identity.map(|identity| identity.instance.clone()),
            zone: view.identity.map(|identity| identity.zone.clone()),
            phase: view.phase.as_str().to_owned(),
            since: clock.wall_at(view.since),
            waiting_on: view.waiting,
            target: view.target.map(ToString::to_string),
            container_instance: view.container_instance.map(str::to_owned),
            ecs,
            tasks: view.tasks.and_then(|tasks| {
                let groups = view.leaving.as_ref().map(|leaving| leaving.groups);
                task_statuses(tasks, groups)
            }),
            sidecars: view
                .sidecars
                .iter()
                .map(|report| SidecarStatus {
                    name: report.name.clone(),
                    state: report.state.as_str().to_owned(),
                })
                .collect(),
            health: view.health.verdict.as_str().to_owned(),
            reason: view.health.reason.to_owned(),
            health_since: clock.wall_at(view.health_since),
            faults: view
                .faults
                .iter()
                .map(|fault| FaultStatus {
                    check: fault.check.code().to_owned(),
                    detail: fault.detail.clone(),
                    since: clock.wall_at(fault.since),
                })
                .collect(),
            hazards: view.hazards.to_vec(),
            drain: view.leaving.map(|leaving| DrainStatus {
                causes: leaving
                    .causes
                    .into_iter()
                    .map(|cause| CauseStatus {
                        kind: cause.kind.as_str().to_owned(),
                        cause: cause.to_string(),
                        since: clock.wall_at(cause.began),
                        ends: cause.end.map(|end| clock.wall_of(end)),
                    })
                    .collect(),
                began: clock.wall_at(leaving.began),
                stops_tasks: leaving.bounds.map(|bounds| clock.wall_of(bounds.tasks)),
                deadline: leaving.bounds.map(|bounds| clock.wall_of(bounds.end)),
            }),
        }
    }
}

/// What both sides know of each task; nothing if neither can be asked.
fn task_statuses(
    tasks: &Tasks,
    groups: Option<&BTreeMap<String, String>>,
) -> Option<Vec<TaskStatus>> {
    let by_agent = tasks.by_agent.as_deref().ok();
    let by_docker = tasks.by_docker.as_ref().ok();
    by_agent.map(<[_]>::len).or(by_docker.map(BTreeMap::len))?;
    let known = by_agent.unwrap_or_default();
    let containers = |task: &str| by_docker.map(|tasks| tasks.get(task).copied().unwrap_or(0));
    let of_agent = known.iter().map(|task| TaskStatus {
        family: Some(task.family.clone()),
        known: Some(task.known.clone()),
        desired: Some(task.desired.clone()),
        started_by: groups.and_then(|groups| groups.get(&task.arn)).cloned(),
        containers: containers(&task.arn),
        task: task.arn.clone(),
    });
    let only_docker = by_docker
        .into_iter()
        .flatten()
        .filter(|(arn, _)| !known.iter().any(|task| task.arn == **arn))
        .map(|(arn, containers)| TaskStatus {
            task: arn.clone(),
            family: None,
            known: None,
            desired: None,
            started_by: None,
            containers: Some(*containers),
        });
    Some(of_agent.chain(only_docker).collect())
}

/// What ECS gives a task's container to end: a wrong one only makes the drain's reserve too short or
/// too long, so what cannot be read or understood is the default.
fn container_stop(settings: &Settings, paths: &Paths) -> Duration {
    one(&layers(settings, None), paths, "ECS_CONTAINER_STOP_TIMEOUT")
        .ok()
        .flatten()
        .and_then(|text| fleet_agent_config::ecs::duration(&text))
        .or_else(|| fleet_agent_config::ecs::duration(STOP_TIMEOUT_DEFAULT))
        .unwrap_or(Duration::from_secs(30))
}

async fn beat(watchdog: Option<&mut tokio::time::Interval>) {
    match watchdog {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!(target: "fleet-agent", "failed to notify systemd: {error}");
    }
}
