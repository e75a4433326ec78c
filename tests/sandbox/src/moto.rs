//! moto, behind the gateway: the process, and [`MotoApi`], what the sandbox itself asks of it.

#![allow(
    clippy::disallowed_methods,
    reason = "starts moto_server, a program of its own"
)]

mod api;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use backon::{ConstantBuilder, Retryable as _};
use tokio::process::{Child, Command};

pub(crate) use api::{MotoApi, RestAnswer, image_made, instances_run};

/// moto answers about a second after its start, on a busy machine later.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const START_POLL: Duration = Duration::from_millis(100);

/// A running moto_server; killed when dropped.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// Starts `moto_server` of a virtual environment's `bin` directory on a loopback port, waits
    /// until it answers, and asks it one thing of each service, since its first answers are slow.
    ///
    /// # Errors
    /// If the program is not there, ends, or does not answer in time; the message names its log.
    pub async fn start(bin_dir: &Path, port: u16, log: &Path) -> anyhow::Result<Self> {
        let program: PathBuf = bin_dir.join("moto_server");
        let output = File::create(log).with_context(|| format!("open {}", log.display()))?;
        let errors = output.try_clone().context("share moto's log")?;
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            // Without it GetPolicy and AttachRolePolicy know none of AWS's own policies.
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let mut moto = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        };
        moto.until_ready()
            .await
            .with_context(|| format!("see moto's log, {}", log.display()))?;
        Ok(moto)
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("stop moto_server")
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let api = MotoApi::new(&self.url, "us-east-1")?;
        let warm = || async { api.warm_up().await };
        let poll = ConstantBuilder::default()
            .with_delay(START_POLL)
            .without_max_times();
        tokio::select! {
            ready = tokio::time::timeout(START_TIMEOUT, warm.retry(poll)) => match ready {
                Ok(result) => result.map_err(Into::into),
                Err(_) => bail!("moto_server did not answer within {START_TIMEOUT:?}"),
            },
            status = self.child.wait() => bail!("moto_server ended: {}", status?),
        }
    }
}
