//! An environment on a stage: nodes that serve, tasks and sidecars that tell what became of them, and
//! ways to make a node leave.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{Fleet, Follower, Sandbox, Story, agent_source, eventually};

/// The cluster of a stage.
pub const CLUSTER: &str = "shop-dev";
/// Its Auto Scaling group.
pub const GROUP: &str = "shop-dev-web";
/// A terminating hook that is not fleet's.
pub const OTHER_HOOK: &str = "ecs-managed-draining-termination-hook";

/// An environment of so many nodes, up and ready.
#[derive(Debug)]
pub struct Stage<'s> {
    /// Where it is.
    pub sandbox: &'s Sandbox,
    /// Its file.
    pub fleet: Fleet<'s>,
    /// Its instances.
    pub nodes: Vec<String>,
    /// When their tasks end by themselves, at the earliest.
    run_until: Duration,
}

impl<'s> Stage<'s> {
    /// `group` is more lines of the group, `tables` more tables of the file.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn up(sandbox: &'s Sandbox, nodes: u32, group: &str, tables: &str) -> Result<Self> {
        let source = agent_source(sandbox)?;
        let fleet = Fleet::init(
            sandbox,
            "shop",
            &format!(
                "[environments.dev.agent]\n{source}\n\
                 [environments.dev.groups.web]\nmin = 0\nmax = 6\ndesired = {nodes}\n{group}\n{tables}\n"
            ),
        )?;
        let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
        let status = fleet.status()?;
        let nodes = status["nodes"].as_array().context("nodes")?;
        let nodes = nodes.iter().filter_map(|node| node["id"].as_str());
        Ok(Self {
            sandbox,
            nodes: nodes.map(str::to_owned).collect(),
            fleet,
            run_until: now(),
        })
    }

    /// A service of busybox tasks, which are awaited.
    ///
    /// # Errors
    /// When they do not run in time.
    pub fn serve(&self, count: u32, options: &[&str], script: &str) -> Result<()> {
        let count_text = count.to_string();
        let mut args = vec!["run-tasks", CLUSTER, "web", &count_text];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        let _ = self.sandbox.cli(&args)?.exits(0);
        self.await_tasks(count)
    }

    /// One task of no service on every node, which are awaited. They end by themselves after so many
    /// seconds.
    ///
    /// # Errors
    /// When they do not run in time.
    pub fn run_on_each(&mut self, seconds: u64) -> Result<()> {
        let count = self.nodes.len().to_string();
        let script = format!("sleep {seconds} & wait $!");
        self.run_until = now() + Duration::from_secs(seconds);
        let run = ["run-tasks", "--standalone", CLUSTER, "batch", &count];
        let _ = self
            .sandbox
            .cli(&[&run[..], &["--", "sh", "-c", &script]].concat())?
            .exits(0);
        for node in &self.nodes {
            eventually(&format!("a task on {node}"), 30, || {
                let told = self.told(node)?;
                Ok((told["tasks"][0]["known"] == "RUNNING").then_some(()))
            })?;
        }
        Ok(())
    }

    /// Plays a case on each node, all at the same time.
    ///
    /// # Panics
    /// With what went wrong in one of them.
    pub fn play(&self, cases: &[fn(&Stage<'_>, &str) -> Result<()>]) {
        thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .zip(&self.nodes)
                .map(|(case, node)| scope.spawn(|| case(self, node)))
                .collect();
            for case in running {
                case.join().expect("no panic").expect("a case");
            }
        });
    }

    /// Waits until at least as many run in the cluster.
    ///
    /// # Errors
    /// When they do not.
    pub fn await_tasks(&self, count: u32) -> Result<()> {
        eventually(&format!("{count} running tasks"), 60, || {
            let status = self.sandbox.status()?;
            let clusters = status["clusters"].as_array().into_iter().flatten();
            let running: u64 = clusters
                .filter_map(|cluster| cluster["tasks"]["RUNNING"].as_u64())
                .sum();
            Ok((running >= u64::from(count)).then_some(()))
        })
    }

    /// Panics unless the tasks of [`Stage::run_on_each`] were left to end by themselves.
    #[track_caller]
    pub fn ran_out(&self, story: &Story) {
        let gone = story.last("tasks-gone").expect("tasks are gone").at;
        assert!(gone >= self.run_until, "stopped early\n{}", story.text());
        assert_eq!(story.count("leftovers-stopped"), 0, "{}", story.text());
    }

    /// How often a node, known by its access key, asked AWS for this since calls were last reset.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn calls(&self, operation: &str, access_key: &Value) -> Result<u64> {
        let calls = self.sandbox.cli(&["calls", "--json"])?.exits(0).json()?;
        let calls = calls.as_array().context("calls")?;
        let these = calls
            .iter()
            .filter(|call| call["operation"] == *operation && call["caller"] == *access_key);
        Ok(these.filter_map(|call| call["calls"].as_u64()).sum())
    }

    /// Has the agent wait that many times shorter between whatever it does again and again.
    ///
    /// # Errors
    /// When it does not start so.
    pub fn hurry(&self, node: &str, pace: u32) -> Result<()> {
        let script = format!(
            "mkdir -p /run/systemd/system/fleet-agent.service.d && \
             printf '[Service]\nExecStart=\nExecStart=/usr/bin/fleet-agent run --pace {pace}\n' \
             >/run/systemd/system/fleet-agent.service.d/pace.conf && \
             systemctl daemon-reload && systemctl restart fleet-agent"
        );
        let _ = self.sandbox.on(node, &script)?.exits(0);
        Ok(())
    }

    /// TerminateInstanceInAutoScalingGroup, without a replacement.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub fn terminate(&self, node: &str) -> Result<()> {
        let _ = self
            .sandbox
            .cli(&["terminate", node, "--decrement"])?
            .exits(0);
        Ok(())
    }

    /// A second terminating hook, as ECS's managed draining has one. Each is answered by its own;
    /// instances wait for both.
    ///
    /// # Errors
    /// When it is refused.
    pub fn other_hook(&self) -> Result<()> {
        let hook = json!({
            "AutoScalingGroupName": GROUP,
            "LifecycleHookName": OTHER_HOOK,
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "HeartbeatTimeout": 600,
            "DefaultResult": "CONTINUE",
        });
        let _ = self
            .sandbox
            .aws("autoscaling", "put_lifecycle_hook", &hook)?;
        Ok(())
    }

    /// CONTINUE to that hook.
    ///
    /// # Errors
    /// When it is not open for this node.
    pub fn answer_other(&self, node: &str) -> Result<()> {
        let answer = json!({
            "AutoScalingGroupName": GROUP,
            "LifecycleHookName": OTHER_HOOK,
            "InstanceId": node,
            "LifecycleActionResult": "CONTINUE",
        });
        let _ = self
            .sandbox
            .aws("autoscaling", "complete_lifecycle_action", &answer)?;
        Ok(())
    }

    /// What a leaving node writes until it is done. The machine goes only then, for the second hook
    /// has to be there: journald tells followers late, and a machine that is going does not wait.
    ///
    /// # Errors
    /// When it does not leave.
    pub fn await_left(&self, node: &str, journal: Follower, seconds: u64) -> Result<Story> {
        await_event(&journal, "drain-completed", seconds)?;
        self.answer_other(node)?;
        self.await_gone(node, 60)?;
        journal.whole_story()
    }

    /// Waits until Auto Scaling does not list it any more.
    ///
    /// # Errors
    /// When it stays.
    pub fn await_gone(&self, node: &str, seconds: u64) -> Result<()> {
        eventually(&format!("{node} to be gone"), seconds, || {
            Ok(self.sandbox.instance(node)?.is_null().then_some(()))
        })
    }

    /// Its machine only, which Auto Scaling may still keep in its list for an unanswered hook.
    ///
    /// # Errors
    /// When it stays on.
    pub fn await_off(&self, node: &str, seconds: u64) -> Result<()> {
        eventually(&format!("the machine of {node} to be off"), seconds, || {
            let machine = self.sandbox.instance(node)?["machine"].clone();
            Ok((machine != "running").then_some(()))
        })
    }

    /// Waits for a lifecycle state in Auto Scaling.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_state(&self, node: &str, state: &str, seconds: u64) -> Result<()> {
        eventually(&format!("{node} to be {state}"), seconds, || {
            let instance = self.sandbox.instance(node)?;
            Ok((instance["lifecycle_state"] == *state).then_some(()))
        })
    }

    /// Waits until one of these nodes is in a lifecycle state; which it is.
    ///
    /// # Errors
    /// When none is.
    pub fn await_one_of(&self, nodes: &[String], state: &str, seconds: u64) -> Result<String> {
        eventually(&format!("one of {nodes:?} to be {state}"), seconds, || {
            let status = self.sandbox.status()?;
            let instances = status["groups"][0]["instances"].as_array();
            let mut ids = instances
                .into_iter()
                .flatten()
                .filter(|instance| instance["lifecycle_state"] == *state)
                .filter_map(|instance| instance["instance_id"].as_str());
            let found = ids.find(|id| nodes.iter().any(|node| node == id));
            Ok(found.map(str::to_owned))
        })
    }

    /// SetDesiredCapacity.
    ///
    /// # Errors
    /// When it is refused.
    pub fn scale(&self, desired: u32) -> Result<()> {
        let scale = ["scale", GROUP, &desired.to_string()];
        let _ = self.sandbox.cli(&scale)?.exits(0);
        Ok(())
    }

    /// A call about one instance of the group that takes it away, without a replacement.
    ///
    /// # Errors
    /// When it is refused.
    pub fn take_out(&self, operation: &str, node: &str) -> Result<()> {
        let parameters = json!({
            "AutoScalingGroupName": GROUP,
            "InstanceIds": [node],
            "ShouldDecrementDesiredCapacity": true,
        });
        let _ = self.sandbox.aws("autoscaling", operation, &parameters)?;
        Ok(())
    }

    /// The agent's own account of its node, null while it is not up.
    ///
    /// # Errors
    /// When it is no account.
    pub fn told(&self, node: &str) -> Result<Value> {
        let ran = self.sandbox.on(node, "fleet-agent status --json")?;
        // An agent that is just being restarted cannot be asked.
        Ok(if ran.code == 0 {
            ran.json()?
        } else {
            Value::Null
        })
    }

    /// Waits for a phase in that account.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_phase(&self, node: &str, phase: &str, seconds: u64) -> Result<Value> {
        eventually(&format!("{node} to be {phase}"), seconds, || {
            let told = self.told(node)?;
            Ok((told["phase"] == *phase).then_some(told))
        })
    }

    /// Waits for a target lifecycle state in that account.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_target(&self, node: &str, target: &str) -> Result<Value> {
        eventually(&format!("{node} to hear of {target}"), 30, || {
            let told = self.told(node)?;
            Ok((told["target"] == *target).then_some(told))
        })
    }

    /// Waits for a status of the container instance.
    ///
    /// # Errors
    /// When it does not come.
    pub fn await_ecs(&self, node: &str, status: &str, seconds: u64) -> Result<Value> {
        eventually(&format!("{node} to be {status} in ECS"), seconds, || {
            let instance = self.sandbox.instance(node)?;
            Ok((instance["ecs_status"] == *status).then_some(instance))
        })
    }
}

/// Waits for an event in what a node writes; when it was.
///
/// # Errors
/// With all it wrote, if it does not come.
pub fn await_event(follower: &Follower, event: &str, seconds: u64) -> Result<Duration> {
    eventually(&format!("`{event}` in the journal"), seconds, || {
        Ok(follower.story()?.first(event).ok().map(|record| record.at))
    })
    .with_context(|| {
        follower
            .story()
            .map(|story| story.text())
            .unwrap_or_default()
    })
}

/// Since 1970, as the nodes' journals count: they have this machine's clock.
pub fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
