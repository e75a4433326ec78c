//! `up`, `roll` and `down` of the real program, killed at every write and run again, while the network
//! and AWS fail it: it ends in the same state, with nothing doubled and nothing left behind.
//!
//! A fleet lives through five phases: `up` from nothing, `up` of live settings, `up` of a new launch
//! template, `roll`, `down`. In its n-th life each phase is killed at its n-th write, once before AWS
//! has taken it and once after, with its answer withheld, and then run again through random faults. A
//! phase that has no n-th write left is through. Reads change nothing: one that is killed at a read is
//! where one killed before its next write is.
//!
//! The faults are drawn from a seed, which is printed; `FLEET_CONVERGENCE_SEED` draws the same again.

use std::{
    env, fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use fleet_tests::{Fleet, Ran, Sandbox, stage::now};
use serde_json::{Value, json};

/// Sandboxes side by side. A life waits most of its time.
const AT_ONCE: u32 = 8;
const NODES: usize = 2;
/// Every how many attempts one fails, on average.
const FAULT_EVERY: u32 = 10;
/// Of an SDK's attempts: the third of a call is spared. fleet-bootstrap makes five.
const FAILED_ATTEMPTS: u32 = 2;
/// More writes than any phase has.
const MOST_WRITES: u32 = 60;
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at whether the program is held, and at the nodes while they are replaced.
const LOOK: Duration = Duration::from_millis(30);
const NODE_LOOK: Duration = Duration::from_millis(200);

/// Nodes on paper fetch nothing, but the bucket is a resource like any other.
const SOURCE: &str = "source = { file = \"fleet-agent\" }";
const GROUP: &str = "[environments.dev.groups.web]\nmin = 2\nmax = 4\n";

#[test]
fn killed_at_any_write_and_run_again_it_ends_in_the_same_state() {
    let seed = env::var("FLEET_CONVERGENCE_SEED").ok();
    let seed = seed.map_or_else(|| now().as_secs(), |seed| seed.parse().expect("a number"));
    println!("FLEET_CONVERGENCE_SEED={seed}");
    let series = Series {
        seed,
        next: AtomicU32::new(0),
        through: PHASES.map(|_| AtomicU32::new(MOST_WRITES)),
        failures: Mutex::default(),
    };
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let series = &series;
            scope.spawn(move || series.work(worker));
        }
    });
    let failures = series.failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let writes = series.through.map(|through| through.into_inner() - 1);
    println!("writes of each phase: {writes:?}");
    let all_met = writes
        .iter()
        .all(|writes| (3..MOST_WRITES - 1).contains(writes));
    assert!(all_met, "not every write was met: {writes:?}");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Live,
    Template,
    Roll,
    Down,
}

const PHASES: [Phase; 5] = [
    Phase::Up,
    Phase::Live,
    Phase::Template,
    Phase::Roll,
    Phase::Down,
];

/// Where a phase is killed.
#[derive(Debug, Clone, Copy)]
struct Kill {
    /// The first is 1.
    write: u32,
    /// AWS has taken it.
    is_served: bool,
}

/// All lives.
struct Series {
    seed: u64,
    next: AtomicU32,
    /// The first write that a phase does not have, so far as is known.
    through: [AtomicU32; PHASES.len()],
    failures: Mutex<Vec<String>>,
}

impl Series {
    fn work(&self, worker: u32) {
        let result = Sandbox::on_paper(&format!("it-converge-{worker}"))
            .context("a sandbox")
            .and_then(|sandbox| self.lives(&sandbox));
        if let Err(error) = result {
            let mut failures = self.failures.lock().expect("no panic");
            failures.push(format!("{error:?}"));
        }
    }

    fn lives(&self, sandbox: &Sandbox) -> Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let kill = Kill {
                write: number / 2 + 1,
                is_served: number % 2 == 1,
            };
            let failed = !self.failures.lock().expect("no panic").is_empty();
            let is_over = PHASES.iter().all(|phase| self.is_through(*phase, kill));
            if failed || is_over {
                return Ok(());
            }
            let settings = format!("[environments.dev.agent]\n{SOURCE}\n{GROUP}");
            let fleet = Fleet::init(sandbox, &format!("life{number}"), &settings)?;
            fs::write(
                fleet.file().with_file_name("fleet-agent"),
                number.to_string(),
            )?;
            let life = Life {
                series: self,
                sandbox,
                fleet,
                name: format!("life{number}-dev"),
                rng: Rng::with_seed(self.seed.wrapping_add(number.into())),
                kill,
            };
            life.live()
                .with_context(|| format!("seed {}, life {number}: {kill:?}", self.seed))?;
        }
    }

    fn is_through(&self, phase: Phase, kill: Kill) -> bool {
        kill.write >= self.through[phase as usize].load(Ordering::Relaxed)
    }
}

struct Life<'s> {
    series: &'s Series,
    sandbox: &'s Sandbox,
    fleet: Fleet<'s>,
    /// Of its cluster; everything's name begins with it.
    name: String,
    rng: Rng,
    kill: Kill,
}

impl Life<'_> {
    fn live(mut self) -> Result<()> {
        let up = ["up", "dev", "--yes"];
        self.play(Phase::Up, &up)?;
        self.is_whole(1)?;
        if !self.is_through(Phase::Live) {
            self.fleet
                .append("[environments.dev.drain]\ndeadline_seconds = 1800\n")?;
            self.play(Phase::Live, &up)?;
            self.is_whole(1)?;
        }
        if !(self.is_through(Phase::Template) && self.is_through(Phase::Roll)) {
            let changed = format!("{GROUP}ecs = {{ ECS_LOGLEVEL = \"debug\" }}\n");
            self.fleet.replace(GROUP, &changed)?;
            self.play(Phase::Template, &up)?;
            self.is_whole(2)?;
        }
        if !self.is_through(Phase::Roll) {
            let before = self.instances()?;
            let roll = ["roll", "dev", "--yes", "--surge", "100%", "--bake", "0"];
            self.while_served(|life| life.play(Phase::Roll, &roll))?;
            self.is_whole(2)?;
            let after = self.instances()?;
            ensure!(
                !after.iter().any(|id| before.contains(id)),
                "an old node is left: {after:?}"
            );
        }
        self.play(Phase::Down, &["down", "dev", "--yes"])?;
        self.is_gone()
    }

    fn is_through(&self, phase: Phase) -> bool {
        self.series.is_through(phase, self.kill)
    }

    /// Kills the command at the write that this life is about, and runs it again through faults.
    fn play(&mut self, phase: Phase, command: &[&str]) -> Result<()> {
        let write = self.kill.write;
        if !self.is_through(phase) {
            let held = self.killed(command).with_context(|| format!("{phase:?}"))?;
            if held.is_none() {
                self.series.through[phase as usize].fetch_min(write, Ordering::Relaxed);
                return Ok(());
            }
            return self
                .again(command)
                .with_context(|| format!("{phase:?}, killed at {}", held.unwrap_or_default()));
        }
        self.succeeds(command).with_context(|| format!("{phase:?}"))
    }

    /// The call that it was killed at; `None` if it had ended before, well.
    fn killed(&self, command: &[&str]) -> Result<Option<Value>> {
        self.set_faults(&[json!({
            "writes": true,
            "skip": self.kill.write - 1,
            "times": 1,
            "served": self.kill.is_served,
            "hold": true,
        })])?;
        let mut child = self.fleet.start(command)?;
        let began = Instant::now();
        let held = loop {
            let held = self.sandbox.admin("held", None)?;
            if !held[0].is_null() {
                child.kill()?;
                break Some(held[0].clone());
            }
            if child.try_wait()?.is_some() {
                break None;
            }
            if began.elapsed() > LIMIT {
                child.kill()?;
                bail!(
                    "{command:?} has no end: {:?}",
                    Ran::of(&child.wait_with_output()?)
                );
            }
            thread::sleep(LOOK);
        };
        let ran = Ran::of(&child.wait_with_output()?);
        self.set_faults(&[])?;
        ensure!(held.is_some() || ran.code == 0, "{}\n{}", ran.out, ran.err);
        Ok(held)
    }

    /// To its end, through faults.
    fn again(&mut self, command: &[&str]) -> Result<()> {
        let mut skip = 0;
        let faults: Vec<Value> = (0..MOST_WRITES)
            .map(|_| {
                skip += self.rng.u32(1..2 * FAULT_EVERY);
                fault(&mut self.rng, skip)
            })
            .collect();
        self.set_faults(&faults)?;
        let result = self.succeeds(command);
        self.set_faults(&[])?;
        result
    }

    fn succeeds(&self, command: &[&str]) -> Result<()> {
        let ran = self.fleet.bootstrap(command)?;
        ensure!(
            ran.code == 0,
            "{command:?} exits {}\n{}\n{}",
            ran.code,
            ran.out,
            ran.err
        );
        Ok(())
    }

    fn set_faults(&self, rules: &[Value]) -> Result<()> {
        self.sandbox.admin("faults", Some(&json!(rules)))?;
        Ok(())
    }

    /// As the file says and nothing twice. What has a name cannot be there twice; versions of a launch
    /// template and instances can.
    fn is_whole(&self, versions: usize) -> Result<()> {
        let plan = self.fleet.bootstrap(&["plan", "dev"])?;
        ensure!(plan.code == 0, "a plan is left\n{}\n{}", plan.out, plan.err);
        let form = format!(
            "Action=DescribeLaunchTemplateVersions&Version=2016-11-15&LaunchTemplateName={}-web",
            self.name
        );
        let found = self.sandbox.query("ec2", &form)?;
        let found = found.matches("<versionNumber>").count();
        ensure!(found == versions, "{found} versions of the launch template");
        let group = self.group()?;
        let sizes = ["min", "desired", "max"].map(|size| group[size].as_u64());
        ensure!(sizes == [Some(2), Some(2), Some(4)], "{group}");
        ensure!(ready(&group) == NODES, "{group}");
        ensure!(self.instances()?.len() == NODES, "{group}");
        Ok(())
    }

    fn group(&self) -> Result<Value> {
        let status = self.sandbox.admin("status", None)?;
        let mut groups = status["groups"].as_array().into_iter().flatten();
        let ours = format!("{}-web", self.name);
        let found = groups.find(|group| group["name"] == *ours);
        found.cloned().context("the group")
    }

    /// Those that do not leave, for Auto Scaling may take its time.
    fn instances(&self) -> Result<Vec<String>> {
        let group = self.group()?;
        let instances = group["instances"].as_array().into_iter().flatten();
        let stay = instances.filter(|one| one["lifecycle_state"] == "InService");
        Ok(stay.map(|one| one["instance_id"].to_string()).collect())
    }

    /// Looks at the nodes all the while: never fewer are ready than are wanted.
    fn while_served(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let is_done = AtomicBool::new(false);
        let (sandbox, ours) = (self.sandbox, format!("{}-web", self.name));
        thread::scope(|scope| {
            let looks = scope.spawn(|| -> Result<()> {
                while !is_done.load(Ordering::Relaxed) {
                    let status = sandbox.admin("status", None)?;
                    let mut groups = status["groups"].as_array().into_iter().flatten();
                    let group = groups.find(|group| group["name"] == *ours);
                    let group = group.context("the group")?;
                    ensure!(
                        ready(group) >= NODES,
                        "fewer are ready than wanted: {group}"
                    );
                    thread::sleep(NODE_LOOK);
                }
                Ok(())
            });
            let worked = work(self);
            is_done.store(true, Ordering::Relaxed);
            let looked = looks.join().expect("no panic");
            worked.and(looked)
        })
    }

    /// As AWS sees it, not as the program does.
    fn is_gone(&self) -> Result<()> {
        let (sandbox, name) = (self.sandbox, &self.name);
        let region = sandbox.var("AWS_REGION");
        for (what, member) in [
            ("Role", "RoleName"),
            ("InstanceProfile", "InstanceProfileName"),
        ] {
            let form = format!("Action=Get{what}&Version=2010-05-08&{member}={name}-web-{region}");
            let found = sandbox.query("iam", &form)?;
            ensure!(found.contains("NoSuchEntity"), "{found}");
        }
        let running = "&Filter.1.Name=instance-state-name&Filter.1.Value.1=pending\
            &Filter.1.Value.2=running&Filter.1.Value.3=stopped";
        for (service, action) in [
            ("ec2", "DescribeSecurityGroups&Version=2016-11-15"),
            ("ec2", "DescribeLaunchTemplates&Version=2016-11-15"),
            (
                "ec2",
                &format!("DescribeInstances&Version=2016-11-15{running}"),
            ),
            (
                "autoscaling",
                "DescribeAutoScalingGroups&Version=2011-01-01",
            ),
        ] {
            let found = sandbox.query(service, &format!("Action={action}"))?;
            ensure!(
                found.contains("</") && !found.contains(name.as_str()),
                "{action}: {found}"
            );
        }
        let buckets = sandbox.raw("s3", ("GET", "/"), "")?;
        ensure!(
            buckets.contains("<Buckets") && !buckets.contains(&format!("fleet-{name}-")),
            "{buckets}"
        );
        let ecs = "AmazonEC2ContainerServiceV20141113";
        let clusters = sandbox.json("ecs", &format!("{ecs}.ListClusters"), &json!({}))?;
        let provider = json!({ "capacityProviders": [format!("{name}-web")] });
        let providers = sandbox.json(
            "ecs",
            &format!("{ecs}.DescribeCapacityProviders"),
            &provider,
        )?;
        let parameters = sandbox.json("ssm", "AmazonSSM.DescribeParameters", &json!({}))?;
        ensure!(
            clusters.contains("clusterArns") && !clusters.contains(name.as_str()),
            "{clusters}"
        );
        ensure!(!providers.contains("\"ACTIVE\""), "{providers}");
        let path = format!("/fleet/{}/", name.trim_end_matches("-dev"));
        ensure!(
            parameters.contains("Parameters") && !parameters.contains(&path),
            "{parameters}"
        );
        Ok(())
    }
}

/// Nodes that serve, as Auto Scaling and ECS have it.
fn ready(group: &Value) -> usize {
    let instances = group["instances"].as_array().into_iter().flatten();
    let serves = |one: &&Value| {
        one["lifecycle_state"] == "InService"
            && one["ecs_status"] == "ACTIVE"
            && one["ecs_connected"] == true
    };
    instances.filter(serves).count()
}

/// Something that happens between a laptop and AWS, once: before the call has done anything, or, as
/// often, after it has.
fn fault(rng: &mut Rng, skip: u32) -> Value {
    let mut rule = match rng.u32(0..6) {
        0 => json!({ "code": "ThrottlingException" }),
        1 => json!({ "code": "RequestLimitExceeded", "status": 503 }),
        2 => json!({ "code": "InternalFailure", "status": 500, "served": rng.bool() }),
        3 => json!({ "code": "ServiceUnavailable", "status": 503 }),
        4 => json!({ "drop": true, "served": rng.bool() }),
        _ => json!({ "truncate": true }),
    };
    rule["skip"] = json!(skip);
    rule["times"] = json!(1);
    rule["attempts"] = json!(FAILED_ATTEMPTS);
    rule
}
