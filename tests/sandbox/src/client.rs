//! A client of the admin API, for the command line and for tests.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use crate::{
    admin::{
        Allow, Begun, Breach, CancelMaintenance, ClusterState, GroupState, Image, Maintain,
        Network, NodeState, Power, PowerAction, Rebalance, RegisterImage, RunTasks, Scale, SetImds,
        SetLifeCycle, SetTags, Spot, Status, Terminate,
    },
    calls::CallCount,
    faults::{FaultRule, Held},
    notices::{ImdsFault, LifeCycle, MaintenanceCode, SpotAction},
};

/// The first answers of moto behind the gateway are slow.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one sandbox.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// Every call fails with what the sandbox said, or with why it could not be asked.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// A client of the gateway at `url`, such as `http://127.0.0.1:4566`.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("make an HTTP client")?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// Groups, nodes and clusters.
    pub async fn status(&self) -> anyhow::Result<Status> {
        self.get("status").await
    }

    /// Counts of API calls since the last reset.
    pub async fn calls(&self) -> anyhow::Result<Vec<CallCount>> {
        self.get("calls").await
    }

    /// Starts counting anew.
    pub async fn reset_calls(&self) -> anyhow::Result<()> {
        self.tell("calls/reset", &()).await
    }

    /// Creates a service of one container, or brings it to this.
    pub async fn run_tasks(&self, tasks: &RunTasks) -> anyhow::Result<()> {
        self.tell("run-tasks", tasks).await
    }

    /// Sets a group's desired capacity.
    pub async fn scale(&self, group: &str, desired: u32) -> anyhow::Result<()> {
        let group = group.to_owned();
        self.tell("scale", &Scale { group, desired }).await
    }

    /// Has an alarm stand: its metric has been at `value` for as long as it asks.
    pub async fn alarm(&self, alarm: &str, value: f64) -> anyhow::Result<()> {
        let alarm = alarm.to_owned();
        self.tell("alarm", &Breach { alarm, value }).await
    }

    /// Terminates an instance through its group.
    pub async fn terminate(&self, instance: &str, decrement: bool) -> anyhow::Result<Begun> {
        let instance = instance.to_owned();
        let asked = Terminate {
            instance,
            decrement,
        };
        self.post("terminate", &asked).await
    }

    /// Stops, starts, reboots or terminates a machine in EC2, past its group.
    pub async fn power(&self, power: &Power) -> anyhow::Result<()> {
        self.tell("power", power).await
    }

    /// Gives a spot notice, which is carried out when its time is up.
    pub async fn spot(&self, spot: &Spot) -> anyhow::Result<()> {
        self.tell("spot", spot).await
    }

    /// Recommends a rebalance.
    pub async fn rebalance(&self, instance: &str) -> anyhow::Result<()> {
        let instance = instance.to_owned();
        self.tell("rebalance", &Rebalance { instance }).await
    }

    /// Says whether a machine is a spot instance.
    pub async fn set_life_cycle(
        &self,
        instance: &str,
        life_cycle: LifeCycle,
    ) -> anyhow::Result<()> {
        let instance = instance.to_owned();
        let asked = SetLifeCycle {
            instance,
            life_cycle,
        };
        self.tell("life-cycle", &asked).await
    }

    /// Schedules maintenance.
    pub async fn maintain(&self, event: &Maintain) -> anyhow::Result<()> {
        self.tell("maintenance", event).await
    }

    /// Cancels all maintenance that has not begun.
    pub async fn cancel_maintenance(&self, instance: &str) -> anyhow::Result<()> {
        let instance = instance.to_owned();
        self.tell("maintenance/cancel", &CancelMaintenance { instance })
            .await
    }

    /// Gives a machine's metadata service a fault, or none.
    pub async fn set_imds(&self, instance: &str, fault: ImdsFault) -> anyhow::Result<()> {
        let instance = instance.to_owned();
        self.tell("imds", &SetImds { instance, fault }).await
    }

    /// Puts tags on a machine and takes tags off it.
    pub async fn set_tags(&self, tags: &SetTags) -> anyhow::Result<()> {
        self.tell("tags", tags).await
    }

    /// The fault rules in force.
    pub async fn faults(&self) -> anyhow::Result<Vec<FaultRule>> {
        self.get("faults").await
    }

    /// Replaces the fault rules.
    pub async fn set_faults(&self, rules: &[FaultRule]) -> anyhow::Result<()> {
        self.tell("faults", &rules).await
    }

    /// Callers that a rule keeps waiting.
    pub async fn held(&self) -> anyhow::Result<Vec<Held>> {
        self.get("held").await
    }

    /// Limits a caller to what an IAM policy allows, or lifts the limit.
    pub async fn allow(&self, access_key_id: &str, policy: Option<Value>) -> anyhow::Result<()> {
        let access_key_id = access_key_id.to_owned();
        let asked = Allow {
            access_key_id,
            policy,
        };
        self.tell("allow", &asked).await
    }

    /// The network to adopt.
    pub async fn network(&self) -> anyhow::Result<Network> {
        self.get("network").await
    }

    /// Registers an AMI and returns its id.
    pub async fn register_image(&self, name: &str) -> anyhow::Result<String> {
        let name = name.to_owned();
        let image: Image = self.post("images", &RegisterImage { name }).await?;
        Ok(image.image_id)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.http.get(self.address(path));
        self.send(path, request).await
    }

    async fn tell(&self, path: &str, body: &impl Serialize) -> anyhow::Result<()> {
        self.post::<Value>(path, body).await?;
        Ok(())
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self.http.post(self.address(path)).json(body);
        self.send(path, request).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let url = &self.url;
        let response = request
            .send()
            .await
            .with_context(|| format!("no sandbox answers at {url}: is it up?"))?;
        let status = response.status();
        let body = response.bytes().await;
        let body = body.with_context(|| format!("read the sandbox's answer to {path}"))?;
        if !status.is_success() {
            let error: Value = serde_json::from_slice(&body).unwrap_or_default();
            match error["error"].as_str() {
                Some(error) => bail!("the sandbox refused {path}: {error}"),
                None => bail!("the sandbox refused {path}: HTTP {status}"),
            }
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("read the sandbox's answer to {path}"))
    }

    fn address(&self, path: &str) -> String {
        format!("{}/_sandbox/{path}", self.url)
    }
}
