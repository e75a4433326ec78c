//! The world around the agents: both models, the machines, and what happens to them by itself.
#![allow(
    clippy::disallowed_methods,
    reason = "the edge that reads tokio's paused clock"
)]

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use fleet_agent_config::Settings;
use fleet_sandbox::{
    autoscaling::{self, Effect, Launched},
    ecs::{self, InstanceStatus, Registration},
    node_protocol::{Sync, TaskReport},
};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    account::Account,
    checks::{Invariant, Violation},
    node::{KnownTask, Node, Power, State, TaskProcess},
    scenario::Step,
    trace::Trace,
};
use crate::{clients::docker::Whose, lifecycle::event::Event};

pub(super) const CLUSTER: &str = "dev";
pub(super) const DRAIN_HOOK: &str = "fleet-drain";
/// Seconds that AWS counts from in every story.
const BEGINNING: i64 = 1_800_000_000;
/// How often the world looks after its machines.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// What ECS gives a task's container to end.
pub(super) const CONTAINER_STOP: Duration = Duration::from_secs(30);
/// How often an ECS agent speaks up without news.
const SPEAKS: u64 = 30_000;

/// How bad calls are at the moment, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) fails: u32,
    /// Done, but the answer is lost.
    pub(super) lost: u32,
    pub(super) throttled: u32,
    /// The answer comes seconds later.
    pub(super) late: u32,
    /// Done twice.
    pub(super) repeated: u32,
    /// ECS refuses DRAINING for now.
    pub(super) refused: u32,
}

#[derive(Debug)]
pub(super) struct World {
    origin: Instant,
    pub(super) rng: fastrand::Rng,
    pub(super) settings: Settings,
    pub(super) autoscaling: autoscaling::Model,
    pub(super) ecs: ecs::Model,
    pub(super) nodes: Vec<Node>,
    pub(super) agenda: BTreeMap<(u64, u64), Step>,
    steps: u64,
    pub(super) weather: Weather,
    /// Whether anything ever goes wrong in this story.
    pub(super) is_fair: bool,
    /// Its limits hold, and every call takes its time.
    pub(super) account: Option<Rc<RefCell<Account>>>,
    /// Nothing new happens any more, and all is well.
    pub(super) is_quiet_since: Option<u64>,
    pub(super) trace: Trace,
    pub(super) violations: Vec<Violation>,
    containers: u64,
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings, imds_lead_ms: i64, trace: bool) -> Self {
        let (region, account_id) = ("eu-central-1".to_owned(), "123456789012".to_owned());
        Self {
            origin: Instant::now(),
            rng: fastrand::Rng::with_seed(seed),
            settings,
            autoscaling: autoscaling::Model::new(autoscaling::Options {
                region: region.clone(),
                account_id: account_id.clone(),
                imds_lead: SignedDuration::from_millis(imds_lead_ms),
                seed,
            }),
            ecs: ecs::Model::new(ecs::Options {
                region,
                account_id,
                attachment_delay: SignedDuration::from_secs(1),
                connection_timeout: SignedDuration::from_secs(90),
                seed,
            }),
            nodes: Vec::new(),
            agenda: BTreeMap::new(),
            steps: 0,
            weather: Weather::default(),
            is_fair: false,
            account: None,
            is_quiet_since: None,
            trace: Trace::new(trace),
            violations: Vec::new(),
            containers: 0,
        }
    }

    /// Milliseconds since the story began.
    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap()
    }

    /// AWS's time.
    pub(super) fn now(&self) -> Timestamp {
        at(self.millis())
    }

    pub(super) fn note(&mut self, text: std::fmt::Arguments<'_>) {
        if self.trace.wanted {
            let now = self.millis();
            self.trace.line(now, text);
        }
    }

    pub(super) fn later(&mut self, after: u64, step: Step) {
        self.steps += 1;
        let at = self.millis() + after;
        self.agenda.insert((at, self.steps), step);
    }

    pub(super) fn violate(&mut self, invariant: Invariant, node: usize, what: String) {
        self.note(format_args!("n{node} VIOLATION {invariant:?}: {what}"));
        let violation = Violation {
            invariant,
            at: Duration::from_millis(self.millis()),
            node,
            what,
        };
        self.violations.push(violation);
    }

    /// What Auto Scaling wants done is put on the agenda.
    pub(super) fn settle(&mut self) {
        for effect in self.autoscaling.take_effects() {
            let node = |id: &str| self.nodes.iter().position(|node| node.instance == id);
            match effect {
                Effect::Launch(order) => {
                    let after = self.rng.u64(500..4_000);
                    self.later(after, Step::Launch(Box::new(order)));
                }
                Effect::Terminate { instance_id } => {
                    if let Some(node) = node(&instance_id) {
                        self.later(0, Step::Terminate(node));
                    }
                }
                Effect::Stop { instance_id } => {
                    if let Some(node) = node(&instance_id) {
                        self.later(1_000, Step::StopWarm(node));
                    }
                }
                Effect::Start { instance_id } => {
                    if let Some(node) = node(&instance_id) {
                        self.later(3_000, Step::StartWarm(node));
                    }
                }
            }
        }
    }

    pub(super) fn launch(&mut self, order: &autoscaling::LaunchOrder) {
        let now = self.now();
        let node = self.nodes.len();
        let instance = format!("i-{node:017x}");
        let spot = order.group == "spot";
        let launched = Launched {
            instance_id: instance.clone(),
            instance_type: "m7i.large".into(),
            image_id: "ami-1".into(),
            template: order.template.clone(),
        };
        self.nodes
            .push(Node::new(instance.clone(), order.group.clone(), spot));
        self.autoscaling.launched(&order.launch_id, launched, now);
        self.autoscaling.machine_started(&instance, now);
        self.settle();
        let boots = self.rng.u64(2_000..9_000);
        self.later(boots, Step::Boot(node));
    }

    /// Does what is due, then lets every machine go on.
    pub(super) fn step(&mut self) -> Vec<Step> {
        let millis = self.millis();
        let now = at(millis);
        self.autoscaling.advance(now);
        self.settle();
        if self.ecs.next_deadline().is_some_and(|at| at <= now) {
            self.ecs.advance(now);
        }
        for node in 0..self.nodes.len() {
            self.step_containers(node, millis);
            self.step_ecs_agent(node, millis);
            self.judge(node, millis);
        }
        let mut due = Vec::new();
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > millis {
                break;
            }
            due.push(entry.remove());
        }
        due
    }

    fn step_containers(&mut self, index: usize, millis: u64) {
        let node = &mut self.nodes[index];
        let before = node.containers.len();
        node.containers
            .retain(|_, process| process.ends_at.is_none_or(|at| at > millis));
        if node.containers.len() != before && node.faults.docker == State::Works {
            node.tell(Event::Container(Whose::Task));
        }
    }

    fn step_ecs_agent(&mut self, index: usize, millis: u64) {
        let Self {
            nodes,
            ecs,
            rng,
            containers,
            trace,
            ..
        } = self;
        let node = &mut nodes[index];
        let works = node.power == Power::On
            && node.ecs.active
            && node.ecs.ready_at <= millis
            && node.faults.ecs == State::Works
            && node.faults.docker == State::Works;
        if !works {
            return;
        }
        let now = at(millis);
        let is_online = node.faults.aws == State::Works;
        if !node.ecs.connected {
            if !is_online {
                return;
            }
            let registration = Registration {
                container_instance_arn: node.ecs.arn.clone(),
                ..Registration::of_machine(CLUSTER, &node.instance, 4_096, 8_192)
            };
            match ecs.register(registration, now) {
                Ok(arn) => {
                    if node.ecs.arn.as_ref() != Some(&arn) {
                        node.book.drained_by_other = false;
                        node.ecs.tasks.clear();
                    }
                    node.ecs.arn = Some(arn);
                    node.ecs.connected = true;
                    node.ecs.news = true;
                    node.ecs.orders = 0;
                }
                Err(_) => {
                    node.ecs.arn = None;
                    node.ecs.ready_at = millis + 3_000;
                    return;
                }
            }
        }
        let Some(arn) = node.ecs.arn.clone() else {
            return;
        };
        if is_online {
            let cluster = ecs.clusters().next().unwrap();
            let version = cluster
                .instances
                .get(&arn)
                .map(|known| known.orders_version);
            if version != Some(node.ecs.orders) {
                let Some(reply) = ecs.orders(&arn) else {
                    // Deregistered: it has to register anew.
                    node.ecs.connected = false;
                    node.ecs.arn = None;
                    return;
                };
                for order in reply.tasks {
                    let is_to_run = order.desired_status == "RUNNING";
                    match node.ecs.tasks.get_mut(&order.task_arn) {
                        None if is_to_run => {
                            let known = KnownTask {
                                family: order.family,
                                starts_at: millis + rng.u64(300..3_000),
                                container: None,
                                stopping: false,
                                stopped: false,
                                lies: false,
                            };
                            node.ecs.tasks.insert(order.task_arn, known);
                        }
                        Some(known) if !is_to_run => known.stopping = true,
                        None | Some(_) => {}
                    }
                }
                node.ecs.orders = reply.version;
                node.ecs.news = true;
            }
        }
        for (task, known) in &mut node.ecs.tasks {
            if known.stopped {
                continue;
            }
            match &known.container {
                None if known.stopping => known.stopped = true,
                None if known.starts_at <= millis => {
                    *containers += 1;
                    let id = format!("c-{containers}");
                    let lives = (known.family == "batch").then(|| rng.u64(30_000..900_000));
                    let deaf = rng.u8(..10) == 0;
                    let ends_after = if deaf { u64::MAX } else { rng.u64(100..12_000) };
                    let process = TaskProcess {
                        task: task.clone(),
                        ends_after,
                        ends_at: lives.map(|lives| millis + lives),
                        denied: false,
                    };
                    trace.line(millis, format_args!("n{index} {id} of {task} starts"));
                    node.containers.insert(id.clone(), process);
                    known.container = Some(id);
                    node.ecs.news = true;
                    if let Some(events) = &node.events {
                        let _ = events.try_send(Event::Container(Whose::Task));
                    }
                }
                None => {}
                Some(id) => match node.containers.get_mut(id) {
                    None => {
                        known.stopped = true;
                        node.ecs.news = true;
                    }
                    Some(process) => {
                        if known.stopping {
                            process.stop(CONTAINER_STOP, millis);
                        }
                        if known.lies {
                            process.denied = true;
                            known.stopped = true;
                            node.ecs.news = true;
                        }
                    }
                },
            }
        }
        if is_online && (node.ecs.news || node.ecs.synced_at + SPEAKS <= millis) {
            let status = |known: &KnownTask| match known {
                KnownTask { stopped: true, .. } => "STOPPED",
                KnownTask {
                    container: Some(_), ..
                } => "RUNNING",
                KnownTask { .. } => "PENDING",
            };
            let sync = Sync {
                container_instance_arn: arn,
                version: node.ecs.orders,
                tasks: node
                    .ecs
                    .tasks
                    .iter()
                    .map(|(arn, known)| TaskReport {
                        task_arn: arn.clone(),
                        known_status: status(known).to_owned(),
                        reason: None,
                    })
                    .collect(),
            };
            if ecs.sync(&sync, now).is_err() {
                node.ecs.connected = false;
                return;
            }
            node.ecs.tasks.retain(|_, known| !known.stopped);
            node.ecs.synced_at = millis;
            node.ecs.news = false;
        }
    }

    /// As systemd does it: only past the gate.
    pub(super) fn start_ecs(&mut self, index: usize) {
        let now = self.millis();
        let ready = now + self.rng.u64(800..4_000);
        let node = &mut self.nodes[index];
        node.ecs.held_back = !node.released;
        if node.released && !node.ecs.active {
            node.ecs.active = true;
            node.ecs.connected = false;
            node.ecs.ready_at = ready;
            node.book.marks.ecs_started_at = Some(now);
        }
    }

    /// Tasks of a node that ECS does not know to be STOPPED.
    pub(super) fn tasks_of(&self, node: usize) -> usize {
        let arn = self.nodes[node].ecs.arn.as_deref();
        let tasks = arn.and_then(|arn| self.ecs.tasks_on(Some(CLUSTER), arn).ok());
        let tasks = tasks.iter().flatten();
        tasks
            .filter(|task| task.last_status != ecs::TaskStatus::Stopped)
            .count()
    }

    pub(super) fn instance_status(&self, node: usize) -> Option<InstanceStatus> {
        let arn = self.nodes[node].ecs.arn.as_ref()?;
        let cluster = self.ecs.clusters().next()?;
        cluster.instances.get(arn).map(|known| known.status)
    }
}

impl TaskProcess {
    /// SIGTERM, and SIGKILL after `grace`; when it will have ended.
    pub(super) fn stop(&mut self, grace: Duration, millis: u64) -> u64 {
        let grace = u64::try_from(grace.as_millis()).unwrap();
        let ends = millis + self.ends_after.min(grace);
        let ends = self.ends_at.map_or(ends, |before| before.min(ends));
        self.ends_at = Some(ends);
        ends
    }
}

/// AWS's time so long after the beginning.
pub(super) fn at(millis: u64) -> Timestamp {
    Timestamp::from_second(BEGINNING).unwrap()
        + SignedDuration::from_millis(i64::try_from(millis).unwrap())
}
