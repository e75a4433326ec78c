//! Tasks as containers of the node's Docker.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use backon::{ExponentialBuilder, Retryable as _};
use bollard::{
    Docker,
    errors::Error,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};
use fleet_sandbox::node_protocol::{ContainerOrder, TaskOrder};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::sync::{mpsc, watch};

use super::ledger::{Container, Happening};
use crate::docker::{CALL_TIMEOUT, by_label, is_absent};

const LABEL_TASK: &str = "com.amazonaws.ecs.task-arn";
const LABEL_CONTAINER: &str = "com.amazonaws.ecs.container-name";

/// How often the real agent tries to stop a container before it calls it stopped: "docker
/// sometimes deadlocks" (moby 41587).
const STOP_RETRIES: usize = 4;

/// How long to leave Docker alone after it failed to answer.
const DOCKER_PAUSE: Duration = Duration::from_secs(1);

/// Runs tasks; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    pub(super) cluster: String,
    pub(super) stop_timeout: Duration,
    pub(super) cleanup_wait: Duration,
    /// Where what happens is told, with the task's ARN.
    pub(super) happenings: mpsc::UnboundedSender<(String, Happening)>,
}

impl Engine {
    /// Brings a task up and sees it to its end: asked to by `stop`, or by the exit of one of its
    /// containers. Containers that are already there, from before a restart of the agent, are
    /// taken over.
    pub(super) async fn run(self, order: TaskOrder, mut stop: watch::Receiver<bool>) {
        let (ids, failure) = self.bring_up(&order).await;
        let reason = if let Some(error) = failure {
            log::error!("task {}: {error:#}", order.task_arn);
            Some(format!("CannotStartContainerError: {error:#}"))
        } else {
            self.tell(&order, Happening::Running);
            // Cancel safe: exits are asked for afresh, and a stop stays wanted. A sender that is
            // gone means the agent ends, and this task with it.
            tokio::select! {
                () = self.first_exit(&ids) => Some("Essential container in task exited".to_owned()),
                _ = stop.wait_for(|stop| *stop) => None,
            }
        };
        self.stop_all(&order, &ids).await;
        self.tell(&order, Happening::Stopped { reason });
        let ids: Vec<String> = ids.into_iter().map(|(id, _)| id).collect();
        self.clean_up(&order, &ids).await;
    }

    /// Waits until a stopped task's containers are old enough, then removes them.
    pub(super) async fn clean_up(&self, order: &TaskOrder, ids: &[String]) {
        tokio::time::sleep(self.cleanup_wait).await;
        for id in ids {
            let options = RemoveContainerOptionsBuilder::new().v(true).build();
            match self.docker.remove_container(id, Some(options)).await {
                Err(error) if !is_absent(&error) => {
                    log::warn!("docker: remove container {id}: {error}");
                }
                _ => {}
            }
        }
        self.tell(order, Happening::Cleaned);
    }

    fn tell(&self, order: &TaskOrder, happening: Happening) {
        // Nobody listens while the agent ends.
        let _ = self.happenings.send((order.task_arn.clone(), happening));
    }

    async fn bring_up(
        &self,
        order: &TaskOrder,
    ) -> (Vec<(String, ContainerOrder)>, Option<anyhow::Error>) {
        let mut ids = Vec::new();
        for container in &order.containers {
            let id = match self.find_or_create(order, container).await {
                Ok(id) => id,
                Err(error) => return (ids, Some(error)),
            };
            ids.push((id.clone(), container.clone()));
            if let Err(error) = self.start_once(order, container, &id).await {
                return (ids, Some(error));
            }
        }
        (ids, None)
    }

    async fn find_or_create(
        &self,
        order: &TaskOrder,
        container: &ContainerOrder,
    ) -> anyhow::Result<String> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&by_label(LABEL_TASK, &order.task_arn))
            .build();
        let there = self
            .docker
            .list_containers(Some(options))
            .await
            .with_context(|| format!("docker: list containers of {}", order.task_arn))?;
        let is_it =
            |labels: &HashMap<String, String>| labels.get(LABEL_CONTAINER) == Some(&container.name);
        let found = there
            .into_iter()
            .find(|found| found.labels.as_ref().is_some_and(is_it))
            .and_then(|found| found.id);
        match found {
            Some(id) => Ok(id),
            None => self.create(order, container).await,
        }
    }

    async fn create(
        &self,
        order: &TaskOrder,
        container: &ContainerOrder,
    ) -> anyhow::Result<String> {
        let name = docker_name(order, container);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let environment = container.environment.iter();
        let body = ContainerCreateBody {
            image: Some(container.image.clone()),
            cmd: (!container.command.is_empty()).then(|| container.command.clone()),
            env: Some(
                environment
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
            labels: Some(self.labels(order, container)),
            ..Default::default()
        };
        let created = self
            .docker
            .create_container(Some(options), body)
            .await
            .with_context(|| format!("docker: create container {name} from {}", container.image))?;
        Ok(created.id)
    }

    fn labels(&self, order: &TaskOrder, container: &ContainerOrder) -> HashMap<String, String> {
        let revision = order.revision.to_string();
        [
            ("com.amazonaws.ecs.cluster", self.cluster.as_str()),
            (LABEL_CONTAINER, &container.name),
            (LABEL_TASK, &order.task_arn),
            ("com.amazonaws.ecs.task-definition-family", &order.family),
            ("com.amazonaws.ecs.task-definition-version", &revision),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// Starts a container that has never run; one that has exited stays what it is.
    async fn start_once(
        &self,
        order: &TaskOrder,
        container: &ContainerOrder,
        id: &str,
    ) -> anyhow::Result<()> {
        let mut seen = self.inspect(container, id).await?;
        if seen.started_at.is_none() {
            self.tell(order, Happening::Container(seen));
            self.docker
                .start_container(id, None)
                .await
                .with_context(|| format!("docker: start container {id}"))?;
            seen = self.inspect(container, id).await?;
        }
        self.tell(order, Happening::Container(seen));
        Ok(())
    }

    async fn inspect(&self, container: &ContainerOrder, id: &str) -> anyhow::Result<Container> {
        let seen = self
            .docker
            .inspect_container(id, None)
            .await
            .with_context(|| format!("docker: inspect container {id}"))?;
        Ok(Container {
            docker_id: id.to_owned(),
            docker_name: seen
                .name
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
            name: container.name.clone(),
            image: container.image.clone(),
            image_id: seen.image.unwrap_or_default(),
            created_at: seen.created,
            // Docker's word for "never".
            started_at: seen
                .state
                .and_then(|state| state.started_at)
                .filter(|time| !time.starts_with("0001-")),
        })
    }

    async fn first_exit(&self, ids: &[(String, ContainerOrder)]) {
        let mut exits: FuturesUnordered<_> = ids.iter().map(|(id, _)| self.exit_of(id)).collect();
        if exits.next().await.is_none() {
            // A task without containers never ends by itself.
            std::future::pending::<()>().await;
        }
    }

    async fn exit_of(&self, id: &str) {
        loop {
            match std::pin::pin!(self.docker.wait_container(id, None))
                .next()
                .await
            {
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => return,
                Some(Err(error)) if is_absent(&error) => return,
                Some(Err(error)) => log::warn!("docker: wait for container {id}: {error}"),
                None => log::warn!("docker: wait for container {id}: no answer"),
            }
            tokio::time::sleep(DOCKER_PAUSE).await;
        }
    }

    async fn stop_all(&self, order: &TaskOrder, ids: &[(String, ContainerOrder)]) {
        let stops = ids.iter().map(|(id, container)| self.stop(id, container));
        for stopped in join_all(stops).await {
            if let Err(error) = stopped {
                log::error!("task {}: {error:#}; taken for stopped", order.task_arn);
            }
        }
    }

    async fn stop(&self, id: &str, container: &ContainerOrder) -> anyhow::Result<()> {
        let grace = container.stop_timeout.map_or(self.stop_timeout, |seconds| {
            Duration::from_secs(seconds.into())
        });
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        // Docker answers only once the container has stopped.
        let docker = self.docker.clone().with_timeout(grace + CALL_TIMEOUT);
        let attempt = || {
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            docker.stop_container(id, Some(options))
        };
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_secs(1))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(STOP_RETRIES);
        let stopped = attempt.retry(backoff).when(|error| !is_absent(error)).await;
        match stopped {
            Err(error) if is_absent(&error) => Ok(()),
            other => other.with_context(|| format!("docker: stop container {id}")),
        }
    }
}

/// `ecs-FAMILY-REVISION-CONTAINER-HEX`, as the real agent names them.
fn docker_name(order: &TaskOrder, container: &ContainerOrder) -> String {
    let legal: String = container
        .name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .collect();
    format!(
        "ecs-{}-{}-{legal}-{:016x}{:04x}",
        order.family,
        order.revision,
        fastrand::u64(..),
        fastrand::u16(..)
    )
}
