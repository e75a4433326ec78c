//! Docker, through its socket. bollard's own time-out covers only the wait for a reply's headers,
//! so every call here is bounded as a whole.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Error, Result};
use bollard::{
    API_DEFAULT_VERSION,
    auth::DockerCredentials,
    errors::Error as DockerError,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerUpdateBody,
        EventMessage, HealthConfig, HealthStatusEnum, HostConfig, HostConfigLogConfig, Mount,
        MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
        KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use fleet_agent_config::{HealthCheck, Network, Port, Sidecar, names};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::ecr::Login;
use crate::health::events::Happening;

/// The label ECS puts on every container of a task.
pub(crate) const TASK_LABEL: &str = "com.amazonaws.ecs.task-arn";
const FAMILY_LABEL: &str = "com.amazonaws.ecs.task-definition-family";
/// The label that carries the hash of what a sidecar was made from.
pub(crate) const SPEC_LABEL: &str = "fleet.spec";

/// dockerd lists slowly under load; a short limit caused restart loops elsewhere.
const LIST: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(30);
const PULL: Duration = Duration::from_secs(900);
/// On top of what a container is given to end.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// A container that carries our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    /// The sidecar it was made for.
    pub(crate) sidecar: String,
    pub(crate) spec: String,
    pub(crate) running: bool,
    /// dockerd is about to start it again, by its restart policy.
    pub(crate) restarting: bool,
    /// What its own health check has found; none without one, or before it has been found.
    pub(crate) healthy: Option<bool>,
    /// When its process was last started.
    pub(crate) started: Option<Timestamp>,
}

/// A live container of an ECS task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskContainer {
    pub(crate) task: String,
    pub(crate) id: String,
}

/// Whose container an event was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Task,
    Sidecar,
}

/// Something happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) happening: Happening,
    pub(crate) whose: Option<Whose>,
    /// It is one of our own that shows whether Docker can run anything.
    pub(crate) is_probe: bool,
    pub(crate) id: String,
    /// The task's family, or the sidecar.
    pub(crate) name: String,
}

pub(crate) trait Docker {
    async fn sidecars(&self) -> Result<Vec<Container>>;
    /// Creates and starts a sidecar's container of an image that is there.
    async fn create(&self, sidecar: &Sidecar, spec: &str) -> Result<()>;
    async fn has_image(&self, image: &str) -> Result<bool>;
    /// From a registry that may ask who it is.
    async fn pull(&self, image: &str, login: Option<Login>) -> Result<()>;
    /// Gives the name of this sidecar's container free for another.
    async fn set_aside(&self, id: &str, sidecar: &str) -> Result<()>;
    /// Gives it its name again.
    async fn take_back(&self, id: &str, sidecar: &str) -> Result<()>;
    async fn start(&self, id: &str) -> Result<()>;
    /// Has dockerd not start it again when it ends; [`Docker::start`] takes that back.
    async fn let_end(&self, id: &str) -> Result<()>;
    /// Sends a signal, as `SIGUSR1`. One that is gone or does not run is no error.
    async fn signal(&self, id: &str, signal: &str) -> Result<()>;
    /// Waits until it has ended, at most for `limit`; whether it has.
    async fn ends_within(&self, id: &str, limit: Duration) -> Result<bool>;
    /// Stops within `grace`, then kills. One that is gone already is no error.
    async fn stop(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove(&self, id: &str) -> Result<()>;
    /// Containers of ECS tasks that run, restart or are paused.
    async fn task_containers(&self) -> Result<BTreeSet<TaskContainer>>;
}

#[derive(Debug)]
pub(crate) struct Dockerd {
    socket: PathBuf,
    /// Kept once its API version has been agreed on.
    connected: RefCell<Option<bollard::Docker>>,
}

impl Dockerd {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            connected: RefCell::new(None),
        }
    }

    pub(super) async fn handle(&self) -> Result<bollard::Docker> {
        if let Some(docker) = &*self.connected.borrow() {
            return Ok(docker.clone());
        }
        let name = || format!("docker: connect to {}", self.socket.display());
        let path = self.socket.to_string_lossy();
        let docker = bollard::Docker::connect_with_unix(&path, LIST.as_secs(), API_DEFAULT_VERSION)
            .with_context(name)?;
        let docker = bounded(CALL, docker.negotiate_version())
            .await
            .with_context(name)?;
        self.connected.replace(Some(docker.clone()));
        Ok(docker)
    }

    /// Calls `on_event` for everything that happens to containers of tasks, sidecars and probes, until
    /// the stream breaks.
    pub(crate) async fn watch(&self, on_event: &mut dyn FnMut(Seen)) -> Error {
        let docker = match self.handle().await {
            Ok(docker) => docker,
            Err(error) => return error,
        };
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["create", "start", "die", "destroy"]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = std::pin::pin!(docker.events(Some(options)));
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    if let Some(seen) = seen(event) {
                        on_event(seen);
                    }
                }
                Some(Err(error)) => return Error::new(error).context("docker: events"),
                None => return Error::msg("docker: events: the stream ended"),
            }
        }
    }

    async fn create_with(
        &self,
        docker: &bollard::Docker,
        sidecar: &Sidecar,
        spec: &str,
        log: Option<&str>,
    ) -> Result<(), DockerFault> {
        let name = container_name(&sidecar.name);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let create = docker.create_container(Some(options), body(sidecar, spec, log));
        let created = bounded(CALL, create).await?;
        match bounded(CALL, docker.start_container(&created.id, None)).await {
            Ok(()) => Ok(()),
            Err(error) => {
                // A container that never ran would only keep the name.
                let remove = RemoveContainerOptionsBuilder::new().force(true).build();
                bounded(CALL, docker.remove_container(&created.id, Some(remove))).await?;
                Err(error)
            }
        }
    }

    async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let docker = self.handle().await?;
        let inspected = bounded(CALL, docker.inspect_container(id, None)).await;
        let inspected = inspected.with_context(|| format!("docker: inspect {id}"))?;
        // Docker's names begin with a slash.
        if inspected
            .name
            .as_deref()
            .map(|name| name.trim_start_matches('/'))
            == Some(name)
        {
            return Ok(());
        }
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        bounded(CALL, docker.rename_container(id, options))
            .await
            .with_context(|| format!("docker: rename {id} to {name}"))
    }
}

impl Docker for Dockerd {
    async fn sidecars(&self) -> Result<Vec<Container>> {
        let docker = self.handle().await?;
        let filters = HashMap::from([("label", vec![names::SIDECAR_LABEL])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listed = bounded(LIST, docker.list_containers(Some(options)))
            .await
            .context("docker: list sidecars")?;
        let mut containers = Vec::new();
        for summary in listed {
            containers.extend(inspect(&docker, summary).await?);
        }
        Ok(containers)
    }

    async fn create(&self, sidecar: &Sidecar, spec: &str) -> Result<()> {
        let log = Some(sidecar.container.log_driver.as_str());
        let docker = self.handle().await?;
        let name = || format!("docker: run sidecar {} ({})", sidecar.name, sidecar.image);
        let mut made = self.create_with(&docker, sidecar, spec, log).await;
        // A dockerd without journald is a dockerd still; what was asked for by name is asked for.
        let is_default = sidecar.container == fleet_agent_config::Container::default();
        if is_default && made.as_ref().is_err_and(DockerFault::is_about_logging) {
            made = self.create_with(&docker, sidecar, spec, None).await;
        }
        made.with_context(name)
    }

    async fn has_image(&self, image: &str) -> Result<bool> {
        let docker = self.handle().await?;
        match bounded(CALL, docker.inspect_image(image)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error).with_context(|| format!("docker: look for {image}")),
        }
    }

    async fn pull(&self, image: &str, login: Option<Login>) -> Result<()> {
        let docker = self.handle().await?;
        let login = login.map(|login| DockerCredentials {
            username: Some(login.user),
            password: Some(login.password),
            serveraddress: Some(login.host),
            ..DockerCredentials::default()
        });
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let pulled = bounded(PULL, async {
            let mut progress = std::pin::pin!(docker.create_image(Some(options), None, login));
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok(())
        });
        pulled
            .await
            .with_context(|| format!("docker: pull {image}"))
    }

    async fn set_aside(&self, id: &str, sidecar: &str) -> Result<()> {
        self.rename(id, &format!("{}.old", container_name(sidecar)))
            .await
    }

    async fn take_back(&self, id: &str, sidecar: &str) -> Result<()> {
        self.rename(id, &container_name(sidecar)).await
    }

    async fn start(&self, id: &str) -> Result<()> {
        let docker = self.handle().await?;
        let started = async {
            set_restarts(&docker, id, RestartPolicyNameEnum::UNLESS_STOPPED).await?;
            bounded(CALL, docker.start_container(id, None)).await
        };
        started.await.with_context(|| format!("docker: start {id}"))
    }

    async fn let_end(&self, id: &str) -> Result<()> {
        let docker = self.handle().await?;
        unless_missing(set_restarts(&docker, id, RestartPolicyNameEnum::NO).await)
            .with_context(|| format!("docker: have {id} not start again"))
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let docker = self.handle().await?;
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sent = bounded(CALL, docker.kill_container(id, Some(options))).await;
        unless_ended(sent).with_context(|| format!("docker: send {signal} to {id}"))
    }

    async fn ends_within(&self, id: &str, limit: Duration) -> Result<bool> {
        let docker = patient(self.handle().await?, limit);
        let mut end = std::pin::pin!(docker.wait_container(id, None));
        match tokio::time::timeout(limit, end.next()).await {
            Err(_) => Ok(false),
            // An exit code other than 0 is an error to bollard.
            Ok(Some(Ok(_) | Err(DockerError::DockerContainerWaitError { .. })) | None) => Ok(true),
            Ok(Some(Err(error))) => unless_missing(Err(error.into()))
                .map(|()| true)
                .with_context(|| format!("docker: wait for {id}")),
        }
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let docker = patient(self.handle().await?, grace);
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = bounded(
            grace + STOP_MARGIN,
            docker.stop_container(id, Some(options)),
        );
        unless_missing(stopped.await).with_context(|| format!("docker: stop {id}"))
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let docker = self.handle().await?;
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = bounded(CALL, docker.remove_container(id, Some(options))).await;
        unless_missing(removed).with_context(|| format!("docker: remove {id}"))
    }

    async fn task_containers(&self) -> Result<BTreeSet<TaskContainer>> {
        let docker = self.handle().await?;
        let filters = HashMap::from([
            ("label", vec![TASK_LABEL]),
            ("status", vec!["running", "restarting", "paused"]),
        ]);
        let options = ListContainersOptionsBuilder::new()
            .filters(&filters)
            .build();
        let listed = bounded(LIST, docker.list_containers(Some(options)))
            .await
            .context("docker: list task containers")?;
        Ok(listed.into_iter().filter_map(task_container).collect())
    }
}

/// The reply to a stop comes when the container has ended, which may be later than the handle's own
/// time-out. bollard counts in whole seconds; the call as a whole is bounded more closely.
fn patient(docker: bollard::Docker, grace: Duration) -> bollard::Docker {
    let whole = Duration::from_secs(grace.as_secs() + 1);
    docker.with_timeout(whole + STOP_MARGIN)
}

pub(crate) fn container_name(sidecar: &str) -> String {
    format!("fleet-{sidecar}")
}

async fn inspect(docker: &bollard::Docker, summary: ContainerSummary) -> Result<Option<Container>> {
    let Some(id) = summary.id.clone() else {
        return Ok(None);
    };
    match bounded(CALL, docker.inspect_container(&id, None)).await {
        Err(error) if error.is_missing() => Ok(None),
        inspected => {
            let inspected = inspected.with_context(|| format!("docker: inspect {id}"))?;
            Ok(of_ours(summary, inspected))
        }
    }
}

fn of_ours(summary: ContainerSummary, inspected: ContainerInspectResponse) -> Option<Container> {
    let mut labels = summary.labels?;
    let state = inspected.state.unwrap_or_default();
    Some(Container {
        id: summary.id?,
        sidecar: labels.remove(names::SIDECAR_LABEL)?,
        spec: labels.remove(SPEC_LABEL).unwrap_or_default(),
        running: state.running == Some(true) && state.restarting != Some(true),
        restarting: state.restarting == Some(true),
        healthy: state.health.and_then(|health| match health.status {
            Some(HealthStatusEnum::HEALTHY) => Some(true),
            Some(HealthStatusEnum::UNHEALTHY) => Some(false),
            _ => None,
        }),
        started: state.started_at.and_then(|at| at.parse().ok()),
    })
}

#[cfg(test)]
pub(crate) fn read_anything(text: &str) {
    let _ = serde_json::from_str::<EventMessage>(text).map(seen);
    let summary = serde_json::from_str::<ContainerSummary>(text);
    let inspected = serde_json::from_str::<ContainerInspectResponse>(text).unwrap_or_default();
    if let Ok(summary) = summary {
        let _ = task_container(summary.clone());
        let _ = of_ours(summary, inspected);
    }
}

fn task_container(summary: ContainerSummary) -> Option<TaskContainer> {
    Some(TaskContainer {
        task: summary.labels?.remove(TASK_LABEL)?,
        id: summary.id?,
    })
}

fn seen(event: EventMessage) -> Option<Seen> {
    let actor = event.actor?;
    let mut labels = actor.attributes?;
    let mut label = |name: &str| labels.remove(name);
    let task = label(TASK_LABEL);
    let sidecar = label(names::SIDECAR_LABEL);
    Some(Seen {
        happening: match event.action.as_deref()? {
            "create" => Happening::Created,
            "start" => Happening::Started,
            _ => Happening::Ended,
        },
        whose: match (task, &sidecar) {
            (Some(_), _) => Some(Whose::Task),
            (None, Some(_)) => Some(Whose::Sidecar),
            (None, None) => None,
        },
        is_probe: label(super::probe::LABEL).is_some(),
        id: actor.id?,
        name: sidecar.or_else(|| label(FAMILY_LABEL)).unwrap_or_default(),
    })
}

fn body(sidecar: &Sidecar, spec: &str, log: Option<&str>) -> ContainerCreateBody {
    let memory = sidecar.memory_mib.map(|mib| i64::from(mib) << 20);
    let environment = sidecar
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let container = &sidecar.container;
    // The convention of Docker's own images: NAME_FILE in place of NAME.
    let files = container
        .secrets
        .keys()
        .map(|key| format!("{key}_FILE={}/{key}", names::SECRETS_INSIDE));
    // Unlike a bind, a mount does not make what is missing: dockerd starts no sidecar after a reboot
    // before the agent has read its secrets again.
    let secrets = Mount {
        typ: Some(MountType::BIND),
        source: Some(format!("{}/{}/{spec}", names::SECRETS, sidecar.name)),
        target: Some(names::SECRETS_INSIDE.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    };
    // In the node's own network a port needs no way to it: it is only kept from tasks.
    let is_bridged = sidecar.network == Network::Bridge;
    let ports = || container.ports.iter().filter(|_| is_bridged);
    let inside = |port: &Port| format!("{}/{}", port.container, port.protocol.as_str());
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in ports() {
        let binding = PortBinding {
            host_ip: None,
            host_port: Some(port.host.to_string()),
        };
        let bound = bindings.entry(inside(port)).or_default();
        bound.get_or_insert_default().push(binding);
    }
    ContainerCreateBody {
        image: Some(sidecar.image.clone()),
        cmd: (!sidecar.command.is_empty()).then(|| sidecar.command.clone()),
        env: Some(environment.chain(files).collect()),
        stop_signal: container.stop_signal.clone(),
        stop_timeout: Some(i64::from(sidecar.stop_timeout_seconds)),
        exposed_ports: Some(ports().map(inside).collect()),
        healthcheck: container.health_check.as_ref().map(health_check),
        labels: Some(HashMap::from([
            (names::SIDECAR_LABEL.to_owned(), sidecar.name.clone()),
            (SPEC_LABEL.to_owned(), spec.to_owned()),
        ])),
        host_config: Some(HostConfig {
            binds: Some(sidecar.volumes.clone()),
            mounts: (!container.secrets.is_empty()).then(|| vec![secrets]),
            network_mode: Some(
                match sidecar.network {
                    Network::Bridge => "bridge",
                    Network::Host => "host",
                }
                .to_owned(),
            ),
            port_bindings: Some(bindings),
            cap_add: Some(container.capabilities.clone()),
            privileged: Some(container.privileged),
            cpu_shares: container.cpu_units.map(i64::from),
            pids_limit: container.pids.map(i64::from),
            memory,
            // Equal to the memory limit: no swap.
            memory_swap: memory,
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            log_config: log.map(|driver| HostConfigLogConfig {
                typ: Some(driver.to_owned()),
                config: Some(container.log_options.clone().into_iter().collect()),
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn health_check(check: &HealthCheck) -> HealthConfig {
    // Docker counts in nanoseconds.
    let nanos = |seconds: u32| Some(i64::from(seconds) * 1_000_000_000);
    let program = std::iter::once("CMD".to_owned());
    HealthConfig {
        test: Some(program.chain(check.command.clone()).collect()),
        interval: nanos(check.interval_seconds),
        timeout: nanos(check.timeout_seconds),
        retries: Some(i64::from(check.retries)),
        start_period: nanos(check.start_period_seconds),
        ..HealthConfig::default()
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DockerFault {
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl DockerFault {
    pub(super) fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Docker(DockerError::DockerResponseServerError {
                status_code: 404,
                ..
            })
        )
    }

    /// Something is in use.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Docker(DockerError::DockerResponseServerError {
                status_code: 409,
                ..
            })
        )
    }

    fn is_about_logging(&self) -> bool {
        match self {
            Self::Docker(DockerError::DockerResponseServerError { message, .. }) => {
                let message = message.to_lowercase();
                message.contains("logger")
                    || message.contains("logging")
                    || message.contains("log driver")
            }
            Self::Docker(_) | Self::Silent(_) => false,
        }
    }
}

async fn set_restarts(
    docker: &bollard::Docker,
    id: &str,
    name: RestartPolicyNameEnum,
) -> Result<(), DockerFault> {
    let update = ContainerUpdateBody {
        restart_policy: Some(RestartPolicy {
            name: Some(name),
            maximum_retry_count: None,
        }),
        ..ContainerUpdateBody::default()
    };
    bounded(CALL, docker.update_container(id, update)).await
}

pub(super) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerFault> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(DockerFault::Silent(limit)),
    }
}

fn unless_missing(answer: Result<(), DockerFault>) -> Result<(), DockerFault> {
    match answer {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

/// 409 says that it does not run.
fn unless_ended(answer: Result<(), DockerFault>) -> Result<(), DockerFault> {
    match answer {
        Err(DockerFault::Docker(DockerError::DockerResponseServerError {
            status_code: 404 | 409,
            ..
        })) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_waited_for_longer_than_other_calls() {
        let docker =
            bollard::Docker::connect_with_unix("/dev/null", LIST.as_secs(), API_DEFAULT_VERSION)
                .expect("connects lazily");
        let grace = Duration::from_millis(600_500);
        assert!(patient(docker, grace).timeout() >= grace + STOP_MARGIN);
    }
}
