//! How nodes leave, on real nodes with the agent as it ships: who may ask for it, what may go wrong
//! meanwhile, and what is promised all the same. Evidence is what the nodes wrote.

mod blind;
mod deadline;
mod hooks;
mod interruption;
mod killed;
mod operator;
mod shutdown;
mod warm;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Follower, Sandbox, Story, agent_source, eventually};
use serde_json::Value;

const CLUSTER: &str = "shop-dev";
const GROUP: &str = "shop-dev-web";

/// An environment of this many nodes, up and ready.
struct Stage<'s> {
    sandbox: &'s Sandbox,
    fleet: Fleet<'s>,
    nodes: Vec<String>,
    /// When their tasks end by themselves, at the earliest.
    run_until: Duration,
}

impl<'s> Stage<'s> {
    /// `group` is more lines of the group, `tables` more tables of the file.
    fn up(sandbox: &'s Sandbox, nodes: u32, group: &str, tables: &str) -> Result<Self> {
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
    fn serve(&self, count: u32, options: &[&str], script: &str) -> Result<()> {
        let count_text = count.to_string();
        let mut args = vec!["run-tasks", CLUSTER, "web", &count_text];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        let _ = self.sandbox.cli(&args)?.exits(0);
        self.await_tasks(count)
    }

    /// One task of no service on every node, which are awaited. They end by themselves after so many
    /// seconds.
    fn run_on_each(&mut self, seconds: u64) -> Result<()> {
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

    fn await_tasks(&self, count: u32) -> Result<()> {
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
    fn ran_out(&self, story: &Story) {
        let gone = story.0.iter().rfind(|record| record.event == "tasks-gone");
        let gone = gone.map(|record| record.at);
        assert!(
            gone >= Some(self.run_until),
            "stopped early\n{}",
            story.text()
        );
        assert_eq!(story.count("leftovers-stopped"), 0, "{}", story.text());
    }

    /// How often a node answered a hook since calls were last reset.
    fn answers(&self, access_key: &Value) -> Result<u64> {
        let calls = self.sandbox.cli(&["calls", "--json"])?.exits(0).json()?;
        let calls = calls.as_array().context("calls")?;
        let answers = calls.iter().filter(|call| {
            call["operation"] == "CompleteLifecycleAction" && call["caller"] == *access_key
        });
        Ok(answers.filter_map(|call| call["calls"].as_u64()).sum())
    }

    fn terminate(&self, node: &str) -> Result<()> {
        let _ = self
            .sandbox
            .cli(&["terminate", node, "--decrement"])?
            .exits(0);
        Ok(())
    }

    fn await_gone(&self, node: &str, seconds: u64) -> Result<()> {
        eventually(&format!("{node} to be gone"), seconds, || {
            Ok(self.sandbox.instance(node)?.is_null().then_some(()))
        })
    }

    /// Its machine only, which Auto Scaling may still keep in its list for an unanswered hook.
    fn await_off(&self, node: &str, seconds: u64) -> Result<()> {
        eventually(&format!("the machine of {node} to be off"), seconds, || {
            let machine = self.sandbox.instance(node)?["machine"].clone();
            Ok((machine != "running").then_some(()))
        })
    }

    /// The agent's own account of its node.
    fn told(&self, node: &str) -> Result<Value> {
        let ran = self.sandbox.on(node, "fleet-agent status --json")?;
        // An agent that is just being restarted cannot be asked.
        Ok(if ran.code == 0 {
            ran.json()?
        } else {
            Value::Null
        })
    }

    fn await_phase(&self, node: &str, phase: &str, seconds: u64) -> Result<Value> {
        eventually(&format!("{node} to be {phase}"), seconds, || {
            let told = self.told(node)?;
            Ok((told["phase"] == *phase).then_some(told))
        })
    }

    fn await_ecs(&self, node: &str, status: &str, seconds: u64) -> Result<Value> {
        eventually(&format!("{node} to be {status} in ECS"), seconds, || {
            let instance = self.sandbox.instance(node)?;
            Ok((instance["ecs_status"] == *status).then_some(instance))
        })
    }
}

/// Waits for an event in what a node writes; when it was.
fn await_event(follower: &Follower, event: &str, seconds: u64) -> Result<Duration> {
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
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A sidecar that writes what it does, and when, into /var/log/evidence/story of its node. It takes
/// `seconds` to write out what it holds.
fn sidecar(name: &str, seconds: u32, more: &str) -> String {
    let script = format!(
        "note() {{ echo \\\"$(date +%s) {name} $1\\\" >> /evidence/story; }}; \
         trap 'note flushing; sleep {seconds}; note flushed' USR1; \
         trap 'note stopped; exit 0' TERM; \
         note started; while :; do sleep 3600 & wait $!; done"
    );
    format!(
        "[environments.dev.sidecars.{name}]\nimage = \"fleet-sandbox/busybox:1\"\n\
         command = [\"sh\", \"-c\", \"{script}\"]\nvolumes = [\"/var/log/evidence:/evidence\"]\n\
         memory_mib = 16\nflush_signal = \"SIGUSR1\"\nstop_timeout_seconds = 5\n{more}\n"
    )
}

/// Follows what such sidecars write.
fn follow_evidence(sandbox: &Sandbox, node: &str) -> Result<Follower> {
    sandbox.follow(node, "exec tail -n +1 -F /var/log/evidence/story")
}

/// When a sidecar did something last, if it did.
fn did(evidence: &str, what: &str) -> Option<Duration> {
    let last = evidence.lines().rfind(|line| line.ends_with(what))?;
    let seconds = last.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
