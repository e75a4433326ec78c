//! The ECS stand-in: what runs as `ecs.service` in a node. It reads ecs.config as ecs-init and the
//! ECS agent do, registers through the real API, runs the tasks it is given as real containers,
//! and shows them on the introspection port. Only the private channel to ECS is the sandbox's own
//! (`node_protocol`).
//!
//! SIGTERM ends the agent, not the tasks: their containers run on, and the next start takes them
//! over.

#![allow(
    clippy::disallowed_methods,
    reason = "ecs-init's part: environment and hardware of the node"
)]

mod checkpoint;
mod config;
mod engine;
mod introspection;
mod ledger;
mod register;

use std::{
    collections::HashMap, convert::Infallible, fs, net::Ipv4Addr, path::Path, process::ExitCode,
    sync::Arc, time::Duration,
};

use anyhow::{Context as _, anyhow};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use fleet_sandbox::node_protocol::{HOLD_SECONDS, Reply, Sync, TaskOrder};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use self::{
    checkpoint::Checkpoint,
    config::Settings,
    engine::Engine,
    introspection::Snapshot,
    ledger::{Action, Happening, Status},
    register::{Hardware, Identity, Refused},
};
use crate::docker;

const AGENT_VERSION: &str = "1.105.1";
const AGENT_HASH: &str = "*a8b3e7d3";

const PLATFORM_CONFIG: &str = "/var/lib/ecs/ecs.config";
const OPERATOR_CONFIG: &str = "/etc/ecs/ecs.config";
const DATA: &str = "/var/lib/ecs/data";

const INTROSPECTION_PORT: u16 = 51_678;

/// `RestartPreventExitStatus=` of ecs.service: trying again cannot help.
const EXIT_TERMINAL: u8 = 5;

/// How long after the gateway's own hold a sync is given up.
const SYNC_MARGIN: Duration = Duration::from_secs(5);

/// How long to leave a gateway alone that has failed.
const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// Why the agent ends.
enum End {
    /// It was told to.
    Told,
    /// It must not be started again.
    Terminal(anyhow::Error),
}

/// Runs the agent until it is told to end or cannot go on; its exit code is the real one's.
pub(crate) async fn run() -> ExitCode {
    match agent().await {
        Ok(End::Told) => ExitCode::SUCCESS,
        Ok(End::Terminal(error)) => {
            log::error!("{error:#}");
            ExitCode::from(EXIT_TERMINAL)
        }
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn agent() -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    // Cancel safe: the checkpoint is saved at every change, so there is nothing to lose.
    tokio::select! {
        ended = work() => match ended {
            Ok(never) => match never {},
            Err(Stop::Terminal(error)) => Ok(End::Terminal(error)),
            Err(Stop::Failed(error)) => Err(error),
        },
        _ = terminate.recv() => {
            log::info!("told to end; containers run on");
            Ok(End::Told)
        }
    }
}

/// Why work cannot go on.
enum Stop {
    Terminal(anyhow::Error),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Stop::Failed(error)
    }
}

async fn work() -> Result<Infallible, Stop> {
    let settings = settings()?;
    let docker = docker::connect().await?;
    let identity = Identity::read().await?;
    let saved = checkpoint::load(Path::new(DATA))?;
    if let Some(saved) = &saved {
        saved
            .require(&settings.cluster, &identity.instance_id)
            .map_err(Stop::Terminal)?;
    }

    let (publish, snapshots) = watch::channel(Arc::new(Snapshot {
        cluster: settings.cluster.clone(),
        ..Snapshot::default()
    }));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, INTROSPECTION_PORT))
        .await
        .with_context(|| format!("listen on 127.0.0.1:{INTROSPECTION_PORT}"))?;
    tokio::spawn(introspection::serve(listener, snapshots));

    let hardware = hardware(&docker).await?;
    let arn = registered(&settings, &identity, &hardware, saved.as_ref()).await?;
    log::info!("registered as {arn}");

    let (happenings, happened) = mpsc::unbounded_channel();
    let mut desk = Desk {
        engine: Engine {
            docker,
            cluster: settings.cluster.clone(),
            stop_timeout: settings.stop_timeout,
            cleanup_wait: settings.cleanup_wait,
            happenings,
        },
        checkpoint: Checkpoint {
            cluster: settings.cluster,
            ec2_instance_id: identity.instance_id,
            container_instance_arn: arn,
            ledger: saved.map(|saved| saved.ledger).unwrap_or_default(),
        },
        publish,
        stops: HashMap::new(),
    };
    desk.keep()?;
    desk.resume();
    Ok(desk.serve(happened).await?)
}

fn settings() -> Result<Settings, Stop> {
    let variables = config::variables(&read(PLATFORM_CONFIG)?, &read(OPERATOR_CONFIG)?);
    Settings::of(&variables).map_err(|error| Stop::Terminal(error.into()))
}

fn read(path: &str) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("read {path}")),
    }
}

async fn hardware(docker: &bollard::Docker) -> anyhow::Result<Hardware> {
    let version = docker.version().await.context("docker: version")?;
    let meminfo = read("/proc/meminfo")?;
    let kibibytes: i64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| anyhow!("/proc/meminfo has no MemTotal"))?;
    Ok(Hardware {
        processors: std::thread::available_parallelism()
            .context("count processors")?
            .get(),
        memory: i32::try_from(kibibytes / 1_024).unwrap_or(i32::MAX),
        docker_version: version.version.unwrap_or_default(),
    })
}

/// Registers, for as long as it takes: 0.5 s to 15 s between tries, as the real agent waits.
async fn registered(
    settings: &Settings,
    identity: &Identity,
    hardware: &Hardware,
    saved: Option<&Checkpoint>,
) -> Result<String, Stop> {
    let client = register::client(identity).await;
    let known = saved.map(|saved| saved.container_instance_arn.as_str());
    let mut backoff = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        match register::register(&client, settings, identity, hardware, known).await {
            Ok(arn) => return Ok(arn),
            Err(Refused::ForGood(error)) => return Err(Stop::Terminal(error)),
            Err(Refused::ForNow(error)) => log::warn!("{error:#}"),
        }
        if let Some(delay) = backoff.next() {
            tokio::time::sleep(delay).await;
        }
    }
}

/// The registered agent at work.
struct Desk {
    engine: Engine,
    checkpoint: Checkpoint,
    publish: watch::Sender<Arc<Snapshot>>,
    /// How to stop each task, by ARN.
    stops: HashMap<String, watch::Sender<bool>>,
}

impl Desk {
    /// Talks to the control plane for ever: a sync is always under way, and is begun afresh as soon
    /// as there is something new to say.
    async fn serve(
        &mut self,
        mut happened: mpsc::UnboundedReceiver<(String, Happening)>,
    ) -> anyhow::Result<Infallible> {
        let channel = Channel::open()?;
        let mut version = 0;
        let mut pause = Duration::ZERO;
        loop {
            let report = Sync {
                container_instance_arn: self.checkpoint.container_instance_arn.clone(),
                version,
                tasks: self.checkpoint.ledger.reports(),
            };
            let mut sync = std::pin::pin!(channel.sync(&report, pause));
            loop {
                // Cancel safe: a sync dropped half-way is said again, recv loses nothing.
                tokio::select! {
                    replied = &mut sync => {
                        pause = match replied {
                            Ok(reply) => {
                                version = reply.version;
                                self.accept(reply.tasks)?;
                                Duration::ZERO
                            }
                            Err(error) => {
                                log::warn!("{error:#}");
                                SYNC_PAUSE
                            }
                        };
                        break;
                    }
                    Some((task_arn, happening)) = happened.recv() => {
                        if self.record(&task_arn, happening)? {
                            break;
                        }
                    }
                }
            }
        }
    }

    fn accept(&mut self, orders: Vec<TaskOrder>) -> anyhow::Result<()> {
        let actions = self.checkpoint.ledger.accept(orders);
        // The order is on disk before anything comes of it.
        self.keep()?;
        for action in actions {
            match action {
                Action::Start(order) => self.start(order),
                Action::Stop { task_arn } => self.stop(&task_arn),
            }
        }
        Ok(())
    }

    fn record(&mut self, task_arn: &str, happening: Happening) -> anyhow::Result<bool> {
        let is_news = self.checkpoint.ledger.record(task_arn, happening);
        self.keep()?;
        Ok(is_news)
    }

    /// Takes over the tasks of the last run.
    fn resume(&mut self) {
        let tasks: Vec<_> = self.checkpoint.ledger.tasks().cloned().collect();
        for task in tasks {
            if task.known == Status::Stopped {
                let engine = self.engine.clone();
                let old = task.containers.into_values().map(|old| old.docker_id);
                let old: Vec<String> = old.collect();
                tokio::spawn(async move { engine.clean_up(&task.order, &old).await });
            } else {
                let to_stop = task.order.desired_status == Status::Stopped.as_str();
                let task_arn = task.order.task_arn.clone();
                self.start(task.order);
                if to_stop {
                    self.stop(&task_arn);
                }
            }
        }
    }

    fn start(&mut self, order: TaskOrder) {
        log::info!("task {} starts", order.task_arn);
        let (stop, stopped) = watch::channel(false);
        self.stops.insert(order.task_arn.clone(), stop);
        tokio::spawn(self.engine.clone().run(order, stopped));
    }

    fn stop(&mut self, task_arn: &str) {
        log::info!("task {task_arn} is to stop");
        if let Some(stop) = self.stops.get(task_arn) {
            stop.send_replace(true);
        }
    }

    /// Saves and shows what is known.
    fn keep(&mut self) -> anyhow::Result<()> {
        let ledger = &self.checkpoint.ledger;
        self.stops
            .retain(|task_arn, _| ledger.tasks().any(|task| task.order.task_arn == *task_arn));
        self.publish.send_replace(Arc::new(Snapshot {
            cluster: self.checkpoint.cluster.clone(),
            container_instance_arn: Some(self.checkpoint.container_instance_arn.clone()),
            ledger: ledger.clone(),
        }));
        checkpoint::save(Path::new(DATA), &self.checkpoint)
    }
}

/// The sandbox's stand-in for ECS's agent channel.
struct Channel {
    client: reqwest::Client,
    url: String,
}

impl Channel {
    fn open() -> anyhow::Result<Self> {
        let endpoint = std::env::var("AWS_ENDPOINT_URL")
            .context("AWS_ENDPOINT_URL is not set: this agent only works in a sandbox's node")?;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(HOLD_SECONDS) + SYNC_MARGIN)
            .build()
            .context("make an HTTP client")?;
        Ok(Self {
            client,
            url: format!("{}/_node/sync", endpoint.trim_end_matches('/')),
        })
    }

    /// One sync, after a pause.
    async fn sync(&self, report: &Sync, pause: Duration) -> anyhow::Result<Reply> {
        tokio::time::sleep(pause).await;
        let reply = self
            .client
            .post(&self.url)
            .json(report)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .with_context(|| format!("gateway: POST {}", self.url))?;
        reply
            .json()
            .await
            .with_context(|| format!("gateway: read the reply of POST {}", self.url))
    }
}
