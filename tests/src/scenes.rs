//! Scenes that are both asserted by tests and measured by the bench.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    Follower, Sandbox, Story, eventually,
    evidence::{follow_evidence, sidecar},
    stage::{GROUP, Stage, await_event, now},
};

/// EC2's notice of a spot interruption.
const NOTICE: Duration = Duration::from_secs(120);
/// A task that does not care about SIGTERM.
const DEAF: &str = "trap '' TERM; while :; do sleep 1; done";

/// A spot interruption of a node whose tasks have nowhere to go and ignore SIGTERM for 30 s, and whose
/// two sidecars have something to write out.
#[derive(Debug)]
pub struct Interruption {
    /// The instance.
    pub node: String,
    /// When its machine is to go.
    pub at: Duration,
    /// When it was set to DRAINING.
    pub draining: Duration,
    /// When its last sidecar had stopped.
    pub over: Duration,
    /// The agent's journal.
    pub story: Story,
    /// What the sidecars `node-logs` (started first, takes 5 s to write out) and `metrics` write.
    pub evidence: Follower,
}

impl Interruption {
    /// The environment that it needs.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn stage(sandbox: &Sandbox) -> Result<Stage<'_>> {
        let first = "flush_timeout_seconds = 8\nbefore_tasks = true";
        let sidecars = [
            sidecar("node-logs", 5, first),
            sidecar("metrics", 0, "flush_timeout_seconds = 8"),
        ];
        Stage::up(sandbox, 1, "", &sidecars.concat())
    }

    /// Until the sidecars are stopped; the machine goes later.
    ///
    /// # Errors
    /// When something that must happen does not.
    pub fn play(stage: &Stage<'_>) -> Result<Self> {
        let sandbox = stage.sandbox;
        let node = stage.nodes[0].clone();
        stage.serve(2, &["--stop-timeout", "30"], DEAF)?;
        // How an instance was bought does not change: the agent asks once.
        let _ = sandbox.cli(&["life-cycle", &node, "spot"])?.exits(0);
        let _ = sandbox.on(&node, "systemctl restart fleet-agent")?.exits(0);
        stage.await_phase(&node, "in-service", 30)?;
        let journal = sandbox.follow_journal(&node)?;
        let evidence = follow_evidence(sandbox, &node)?;

        let at = now() + NOTICE;
        let _ = sandbox.cli(&["spot", &node])?.exits(0);
        Ok(Self {
            draining: await_event(&journal, "draining", 30)?,
            over: await_event(&journal, "sidecars-stopped", 120)?,
            story: journal.story()?,
            node,
            at,
            evidence,
        })
    }

    /// What was left of the notice when all was over.
    pub fn spare(&self) -> Duration {
        self.at.saturating_sub(self.over)
    }
}

/// Gives the group a warm pool in this state: at least `least` instances, and as many as make up
/// `prepared` with the group's own.
///
/// # Errors
/// When it is refused.
pub fn pool(stage: &Stage<'_>, state: &str, least: u32, prepared: u32) -> Result<()> {
    let pool = json!({
        "AutoScalingGroupName": GROUP,
        "PoolState": state,
        "MinSize": least,
        "MaxGroupPreparedCapacity": prepared,
    });
    stage.sandbox.aws("autoscaling", "put_warm_pool", &pool)?;
    Ok(())
}

/// As many nodes as are wanted, once they rest in the pool, prepared and their launch hook answered.
///
/// # Errors
/// When they do not.
pub fn resting(
    stage: &Stage<'_>,
    state: &str,
    machine: &str,
    wanted: usize,
) -> Result<Vec<String>> {
    eventually(&format!("{wanted} nodes to be {state}"), 120, || {
        let status = stage.sandbox.status()?;
        let instances = status["groups"][0]["instances"].as_array();
        let resting = |instance: &&Value| {
            instance["lifecycle_state"] == *state && instance["machine"] == *machine
        };
        let found = instances.into_iter().flatten().filter(resting);
        let found: Vec<String> = found
            .inspect(|instance| assert!(instance["ecs_status"].is_null(), "joined: {instance}"))
            .filter_map(|instance| Some(instance["instance_id"].as_str()?.to_owned()))
            .collect();
        Ok((found.len() >= wanted).then_some(found))
    })
}

/// How long after `wanted` systemd says that ecs.service is active on this node.
///
/// # Errors
/// When that cannot be told.
pub fn ecs_active_after(sandbox: &Sandbox, node: &str, wanted: Duration) -> Result<f64> {
    const SINCE: &str = "date +%s.%N --date \"$(systemctl show ecs --timestamp=us+utc \
        -p ActiveEnterTimestamp --value)\"";
    let active = sandbox.on(node, SINCE)?.exits(0).out;
    let active: f64 = active.trim().parse().context("a time")?;
    Ok(active - wanted.as_secs_f64())
}
