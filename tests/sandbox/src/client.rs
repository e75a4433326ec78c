//! STAND-IN, replaced at merge.
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "stand-in"
)]
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub struct Client {
    url: String,
    http: reqwest::Client,
}

#[derive(Deserialize)]
pub struct Network {
    pub vpc_id: String,
    pub subnet_ids: Vec<String>,
}

#[derive(Serialize, Default)]
pub struct RunTasks {
    pub cluster: String,
    pub service: String,
    pub count: u32,
    pub image: String,
    pub command: Vec<String>,
    pub cpu: Option<u32>,
    pub memory: Option<u32>,
}

#[derive(Serialize)]
pub struct Spot {
    pub instance: String,
    pub action: String,
    pub seconds: u32,
}

#[derive(Serialize, Deserialize)]
pub struct Call {
    pub service: String,
    pub operation: String,
    pub caller: String,
    pub calls: u64,
    pub attempts: u64,
}

impl Client {
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            http: reqwest::Client::builder()
                .timeout(std::time::Duration::from_secs(30))
                .build()?,
        })
    }
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self
            .http
            .get(format!("{}/_sandbox/{path}", self.url))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }
    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        Ok(self
            .http
            .post(format!("{}/_sandbox/{path}", self.url))
            .json(&body)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }
    pub async fn status(&self) -> anyhow::Result<Value> {
        self.get("status").await
    }
    pub async fn run_tasks(&self, tasks: &RunTasks) -> anyhow::Result<()> {
        self.post("run-tasks", serde_json::to_value(tasks)?)
            .await
            .map(drop)
    }
    pub async fn scale(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        self.post("scale", json!({"group": group, "desired": desired}))
            .await
            .map(drop)
    }
    pub async fn terminate(&self, instance: &str, decrement: bool) -> anyhow::Result<()> {
        self.post(
            "terminate",
            json!({"instance": instance, "decrement": decrement}),
        )
        .await
        .map(drop)
    }
    pub async fn spot(&self, spot: &Spot) -> anyhow::Result<()> {
        self.post("spot", serde_json::to_value(spot)?)
            .await
            .map(drop)
    }
    pub async fn network(&self) -> anyhow::Result<Network> {
        Ok(serde_json::from_value(self.get("network").await?)?)
    }
    pub async fn register_image(&self, name: &str) -> anyhow::Result<String> {
        Ok(
            self.post("images", json!({"name": name})).await?["image_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    }
    pub async fn calls(&self) -> anyhow::Result<Vec<Call>> {
        Ok(serde_json::from_value(self.get("calls").await?)?)
    }
    pub async fn reset_calls(&self) -> anyhow::Result<()> {
        self.post("calls/reset", json!({})).await.map(drop)
    }
}
