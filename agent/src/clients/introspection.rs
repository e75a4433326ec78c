//! The ECS agent's introspection endpoint on this node. It knows registration and tasks, but not
//! whether ECS can reach the agent.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

use super::body;

/// Thousands of tasks, bytes.
const BODY_MAX: usize = 16 * 1_024 * 1_024;
const ENDPOINT: &str = "http://127.0.0.1:51678";
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) trait Introspection {
    /// The container instance's ARN, `None` until the ECS agent has registered.
    async fn container_instance(&self) -> Result<Option<String>>;
    /// The tasks that are not known to be STOPPED. (The agent goes on listing stopped tasks for three
    /// hours.)
    async fn live_tasks(&self) -> Result<Vec<AgentTask>>;
}

/// A task as the ECS agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AgentTask {
    pub(crate) arn: String,
    /// Of its task definition.
    pub(crate) family: String,
    /// What it is: `RUNNING`, `PENDING`...
    pub(crate) known: String,
    /// What it is to be: `RUNNING` or `STOPPED`.
    pub(crate) desired: String,
}

impl AgentTask {
    /// Whether ECS wants it gone.
    pub(crate) fn is_leaving(&self) -> bool {
        self.desired == "STOPPED"
    }
}

#[derive(Debug)]
pub(crate) struct EcsAgent {
    http: reqwest::Client,
}

impl EcsAgent {
    /// # Errors
    /// If no HTTP client can be made.
    pub(crate) fn new() -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(1)
            .build()
            .context("no HTTP client for the ECS agent's introspection")?;
        Ok(Self { http })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let url = format!("{ENDPOINT}/v1/{path}");
        let name = || format!("ECS agent: GET {url}");
        let reply = self
            .http
            .get(&url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(reqwest::Error::without_url)
            .with_context(name)?;
        let text = body::text(reply, BODY_MAX).await.with_context(name)?;
        serde_json::from_str(&text).with_context(name)
    }
}

impl Introspection for EcsAgent {
    async fn container_instance(&self) -> Result<Option<String>> {
        let metadata: Metadata = self.get("metadata").await?;
        Ok(metadata
            .container_instance_arn
            .filter(|arn| !arn.is_empty()))
    }

    async fn live_tasks(&self) -> Result<Vec<AgentTask>> {
        self.get("tasks").await.map(live)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    container_instance_arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tasks {
    tasks: Option<Vec<Task>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    arn: String,
    #[serde(default)]
    family: String,
    #[serde(default)]
    desired_status: String,
    known_status: String,
}

fn live(tasks: Tasks) -> Vec<AgentTask> {
    let tasks = tasks.tasks.unwrap_or_default().into_iter();
    tasks
        .filter(|task| task.known_status != "STOPPED")
        .map(|task| AgentTask {
            arn: task.arn,
            family: task.family,
            known: task.known_status,
            desired: task.desired_status,
        })
        .collect()
}

#[cfg(test)]
pub(crate) fn read_anything(text: &str) {
    let _ = serde_json::from_str::<Metadata>(text);
    let _ = serde_json::from_str::<Tasks>(text).map(live);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replies captured from amazon-ecs-agent 1.105.1, shortened.
    #[test]
    fn reads_captured_replies() {
        let metadata: Metadata = serde_json::from_str(
            r#"{"Cluster":"peerlab","ContainerInstanceArn":null,"Version":"Amazon ECS Agent - v1.105.1 (*a8b3e7d3)"}"#,
        )
        .expect("metadata");
        assert_eq!(metadata.container_instance_arn, None);
        let tasks = |text| live(serde_json::from_str(text).expect("tasks"));
        assert!(tasks(r#"{"Tasks":[]}"#).is_empty());
        assert!(tasks(r#"{"Tasks":null}"#).is_empty());
        let text = r#"{"Tasks":[{"Arn":"a","DesiredStatus":"STOPPED","KnownStatus":"RUNNING","Family":"web","Version":"1","Containers":[]},
            {"Arn":"b","DesiredStatus":"STOPPED","KnownStatus":"STOPPED","Family":"web","Version":"1","Containers":null}]}"#;
        let live = tasks(text);
        assert_eq!(live.len(), 1);
        assert_eq!(
            (live[0].arn.as_str(), live[0].family.as_str()),
            ("a", "web")
        );
        assert!(live[0].is_leaving());
    }
}
