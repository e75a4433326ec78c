//! Every remote of a node, as the simulated world answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use anyhow::{Error, Result, anyhow, bail};
use fleet_agent_config::Sidecar;
use fleet_sandbox::{
    autoscaling::requests::LifecycleAction,
    ecs::{InstanceStatus, TaskStatus},
};
use tokio::time::sleep;

use super::{
    agents::{Shared, wall},
    checks::Invariant,
    node::{Part, State},
    world::{CLUSTER, DRAIN_HOOK, World},
};
use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, HookAnswer, Verb},
        disk::Disk,
        docker::{Container, Docker, TaskContainer, Whose},
        ecs::{Ecs, Registration, SetDraining},
        imds::{Identity, Imds, Maintenance, Spot, Target, parse_target},
        introspection::{AgentTask, Introspection},
        systemd::{Systemd, Unit, Units},
    },
    ecs_config::render::Layers,
    lifecycle::saved::Saved,
};

/// What an agent's process reaches the world through. An older process than the node's present one
/// gets no more answers.
#[derive(Debug, Clone)]
pub(super) struct Remotes {
    pub(super) world: Shared,
    pub(super) node: usize,
    pub(super) life: u64,
}

/// A request that has arrived.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    /// How often it is carried out.
    times: u8,
    lost: bool,
    /// Until the answer is back, milliseconds.
    back: u64,
    bound: u64,
}

impl Remotes {
    fn is_alive(&self) -> bool {
        self.world.borrow().nodes[self.node].life == self.life
    }

    pub(super) async fn alive(&self) {
        if !self.is_alive() {
            pending::<()>().await;
        }
    }

    /// To the other side, or not.
    async fn send(&self, part: Part, call: &'static str) -> Result<Arrived> {
        self.alive().await;
        let (latency, bound, state, arrived, refusal, is_limited) = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            world.note(format_args!("n{} -> {call}", self.node));
            let node = &mut world.nodes[self.node];
            let state = *node.faults.of(part);
            let (mut latency, bound) = match part {
                Part::Imds | Part::Ecs => (world.rng.u64(2..20), 2_000),
                Part::Docker => (world.rng.u64(5..50), 30_000),
                Part::Aws => (world.rng.u64(20..150), 12_000),
                Part::Disk | Part::Agent => (0, 5_000),
            };
            // Most calls on the node itself take no time here: a wait costs more than all the rest.
            if world.account.is_some() {
                if part == Part::Ecs {
                    latency = world.rng.u64(1..5);
                }
            } else if part != Part::Aws && world.rng.u8(..8) != 0 {
                latency = 0;
            }
            let mut arrived = Arrived {
                times: 1,
                lost: false,
                back: 0,
                bound,
            };
            let mut refusal = None;
            if part == Part::Aws {
                node.book.aws_calls += 1;
                let weather = world.weather;
                let draw = world.rng.u32(..1_000);
                let mut upto = 0;
                let mut hits = |share: u32| {
                    upto += share;
                    draw < upto
                };
                if hits(weather.fails) {
                    refusal = Some("service unavailable");
                } else if hits(weather.throttled) {
                    refusal = Some("ThrottlingException: Rate exceeded");
                } else if hits(weather.lost) {
                    arrived.lost = true;
                } else if hits(weather.late) {
                    arrived.back = world.rng.u64(1_000..9_000);
                } else if hits(weather.repeated) {
                    arrived.times = 2;
                }
            }
            let is_limited = world.account.is_some();
            (latency, bound, state, arrived, refusal, is_limited)
        };
        match state {
            State::Works if latency == 0 => {}
            State::Works if part == Part::Aws && is_limited => self.request(call).await?,
            State::Works => sleep(Duration::from_millis(latency)).await,
            State::Fails => {
                sleep(Duration::from_millis(latency)).await;
                self.alive().await;
                bail!("{call}: told to fail");
            }
            State::Hangs => {
                sleep(Duration::from_millis(bound)).await;
                self.alive().await;
                bail!("{call}: no answer within {bound} ms");
            }
        }
        if let Some(refusal) = refusal {
            self.alive().await;
            bail!("{call}: {refusal}");
        }
        Ok(arrived)
    }

    /// Back to the agent, or not.
    async fn receive<T>(&self, arrived: Arrived, call: &'static str, answer: T) -> Result<T> {
        if arrived.lost {
            sleep(Duration::from_millis(arrived.bound)).await;
        } else if arrived.back > 0 {
            sleep(Duration::from_millis(arrived.back)).await;
        }
        self.alive().await;
        if arrived.lost {
            bail!("{call}: no answer within {} ms", arrived.bound);
        }
        Ok(answer)
    }

    /// The whole of a call; what it changes is changed when it arrives, whatever becomes of the answer.
    async fn call<T>(
        &self,
        part: Part,
        call: &'static str,
        mut effect: impl FnMut(&mut World) -> T,
    ) -> Result<T> {
        let arrived = self.send(part, call).await?;
        let answer = {
            let mut world = self.world.borrow_mut();
            let mut answer = effect(&mut world);
            for _ in 1..arrived.times {
                answer = effect(&mut world);
            }
            answer
        };
        self.receive(arrived, call, answer).await
    }
}

impl Clients for Remotes {
    fn imds(&self) -> &impl Imds {
        self
    }

    fn ecs(&self) -> &impl Ecs {
        self
    }

    fn autoscaling(&self) -> &impl AutoScaling {
        self
    }

    fn introspection(&self) -> &impl Introspection {
        self
    }

    fn docker(&self) -> &impl Docker {
        self
    }

    fn systemd(&self) -> &impl Systemd {
        self
    }

    fn disk(&self) -> &impl Disk {
        self
    }
}

impl Imds for Remotes {
    async fn identity(&self) -> Result<Identity> {
        let index = self.node;
        self.call(Part::Imds, "imds identity", |world| {
            let node = &world.nodes[index];
            Identity {
                instance: node.instance.clone(),
                region: "eu-central-1".into(),
                zone: "eu-central-1a".into(),
                spot: node.spot,
            }
        })
        .await
    }

    async fn target(&self) -> Result<Target> {
        let index = self.node;
        self.call(Part::Imds, "imds target", |world| {
            let instance = &world.nodes[index].instance;
            parse_target(world.autoscaling.target_lifecycle_state(instance))
        })
        .await
    }

    async fn spot(&self) -> Result<Spot> {
        let index = self.node;
        self.call(Part::Imds, "imds spot", |world| Spot {
            notice: world.nodes[index].notice.clone(),
            rebalance: world.nodes[index].rebalance.clone(),
        })
        .await
    }

    async fn maintenance(&self) -> Result<Vec<Maintenance>> {
        let index = self.node;
        self.call(Part::Imds, "imds maintenance", |world| {
            world.nodes[index].maintenance.clone()
        })
        .await
    }

    async fn tag(&self, _: &str) -> Result<Option<String>> {
        let index = self.node;
        self.call(Part::Imds, "imds tag", |world| {
            world.nodes[index].tag.clone()
        })
        .await
    }
}

impl AutoScaling for Remotes {
    async fn answer(&self, hook: &str, _: &str, verb: Verb) -> Result<HookAnswer> {
        let index = self.node;
        let is_drain = hook == DRAIN_HOOK;
        let call = match (is_drain, verb) {
            (true, Verb::Heartbeat) => "heartbeat of fleet-drain",
            (true, Verb::Continue) => "CONTINUE fleet-drain",
            (true, Verb::Abandon) => "ABANDON fleet-drain",
            (false, Verb::Heartbeat) => "heartbeat of fleet-launch",
            (false, Verb::Continue) => "CONTINUE fleet-launch",
            (false, Verb::Abandon) => "ABANDON fleet-launch",
        };
        let answered = self
            .call(Part::Aws, call, |world| {
                answer(world, index, hook, verb, is_drain)
            })
            .await;
        if is_drain && self.is_alive() {
            let mut world = self.world.borrow_mut();
            let book = &mut world.nodes[index].book;
            book.heartbeats += u64::from(verb == Verb::Heartbeat);
            if let Some(open) = &mut book.open {
                open.missed = if answered.is_ok() { 0 } else { open.missed + 1 };
            }
        }
        answered
    }
}

fn answer(world: &mut World, index: usize, hook: &str, verb: Verb, is_drain: bool) -> HookAnswer {
    let now = world.now();
    world.autoscaling.advance(now);
    let node = &world.nodes[index];
    let request = LifecycleAction {
        lifecycle_hook_name: hook.to_owned(),
        auto_scaling_group_name: node.group.clone(),
        lifecycle_action_token: None,
        lifecycle_action_result: match verb {
            Verb::Heartbeat => None,
            Verb::Continue => Some("CONTINUE".to_owned()),
            Verb::Abandon => Some("ABANDON".to_owned()),
        },
        instance_id: Some(node.instance.clone()),
    };
    let taken = match verb {
        Verb::Heartbeat => world.autoscaling.record_heartbeat(&request, now),
        Verb::Continue | Verb::Abandon => {
            world.autoscaling.complete_lifecycle_action(&request, now)
        }
    };
    world.settle();
    // A node that gives itself up is not expected back.
    world.nodes[index].book.gave_up |= verb == Verb::Abandon;
    if taken.is_err() {
        return HookAnswer::NotOpen;
    }
    if is_drain && verb != Verb::Heartbeat {
        let millis = world.millis();
        let book = &mut world.nodes[index].book;
        book.answered = true;
        book.marks.answered_at = Some(millis);
        world.judge_last(index, Invariant::HandsOverEmpty, "CONTINUE");
        if verb == Verb::Abandon {
            let what = "fleet-drain was abandoned".to_owned();
            world.violate(Invariant::NeverAbandonsDrain, index, what);
        }
    }
    HookAnswer::Taken
}

impl Ecs for Remotes {
    async fn describe(&self, arn: &str) -> Result<Registration> {
        let index = self.node;
        let described = self
            .call(Part::Aws, "ecs describe", |world| {
                let cluster = world.ecs.clusters().next();
                let known = cluster
                    .and_then(|cluster| cluster.instances.get(arn))
                    .ok_or_else(|| anyhow!("{arn}: MISSING"))?;
                Ok(Registration {
                    status: known.status.as_str().to_owned(),
                    connected: known.connected,
                })
            })
            .await
            .flatten();
        // What the agent was last told, if anything.
        let active = described.as_ref().is_ok_and(Registration::is_active);
        let mut world = self.world.borrow_mut();
        let now = world.millis();
        world.nodes[index].book.told_active = active.then_some(now);
        described
    }

    async fn set_draining(&self, arn: &str) -> Result<SetDraining> {
        let index = self.node;
        self.call(Part::Aws, "ecs set DRAINING", |world| {
            if world.rng.u32(..1_000) < world.weather.refused {
                return Ok(SetDraining::NotYet("REGISTERING".to_owned()));
            }
            let (now, millis) = (world.now(), world.millis());
            let was = world.instance_status(index);
            let book = &mut world.nodes[index].book;
            let asked = book.told_active.is_some_and(|at| at + 90_000 > millis);
            if was == Some(InstanceStatus::Active) && !asked {
                // Nobody could say whose it is: it stays as it is, as documented.
                book.drained_by_other = true;
                book.drained_by_other_at = millis;
            }
            let arns = [arn.to_owned()];
            let change = world
                .ecs
                .set_state(Some(CLUSTER), &arns, InstanceStatus::Draining, now)
                .map_err(|error| anyhow!("{}", error.message))?;
            if change.changed.is_empty() {
                return Ok(SetDraining::Gone);
            }
            let marks = &mut world.nodes[index].book.marks;
            marks.draining_at.get_or_insert(millis);
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_or(0, |tasks| {
                tasks.iter().filter(|task| task.is_live()).count()
            });
            Ok(SetDraining::Set {
                tasks: u32::try_from(tasks)?,
            })
        })
        .await?
    }

    async fn set_active(&self, arn: &str) -> Result<bool> {
        let index = self.node;
        self.call(Part::Aws, "ecs set ACTIVE", |world| {
            let now = world.now();
            let book = &world.nodes[index].book;
            // It was ACTIVE when last asked: nobody can know of what came between.
            let knew = book
                .told_active
                .is_none_or(|at| at < book.drained_by_other_at);
            let is_others = book.drained_by_other && knew;
            let was = world.instance_status(index);
            if is_others && was == Some(InstanceStatus::Draining) {
                let what = "set to ACTIVE what somebody else had set to DRAINING".to_owned();
                world.violate(Invariant::SetsBackOnlyItsOwn, index, what);
            }
            let arns = [arn.to_owned()];
            let change = world
                .ecs
                .set_state(Some(CLUSTER), &arns, InstanceStatus::Active, now)
                .map_err(|error| anyhow!("{}", error.message))?;
            let millis = world.millis();
            let book = &mut world.nodes[index].book;
            book.drained_by_other = false;
            // Its own doing is known to it, also when it hears nothing of it.
            book.told_active = Some(millis);
            Ok(!change.changed.is_empty())
        })
        .await?
    }

    async fn put_attributes(&self, arn: &str, _: &[(String, String)]) -> Result<()> {
        self.call(Part::Aws, "ecs put attributes", |world| {
            let cluster = world.ecs.clusters().next();
            let known = cluster.and_then(|cluster| cluster.instances.get(arn));
            match known {
                Some(known) if known.status != InstanceStatus::Inactive => Ok(()),
                Some(_) | None => bail!("{arn}: TargetNotFoundException"),
            }
        })
        .await?
    }

    async fn live_tasks(&self, arn: &str) -> Result<usize> {
        self.call(Part::Aws, "ecs live tasks", |world| {
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_err(|error| anyhow!("{}", error.message))?;
            let live = tasks
                .iter()
                .filter(|task| task.last_status != TaskStatus::Stopped);
            Ok(live.count())
        })
        .await?
    }

    async fn task_groups(&self, arn: &str) -> Result<BTreeMap<String, String>> {
        self.call(Part::Aws, "ecs task groups", |world| {
            let tasks = world.ecs.tasks_on(Some(CLUSTER), arn);
            let tasks = tasks.map_err(|error| anyhow!("{}", error.message))?;
            let live = tasks.iter().filter(|task| task.is_live());
            Ok(live
                .map(|task| (task.arn.clone(), task.group.clone()))
                .collect())
        })
        .await?
    }
}

impl Remotes {
    /// The ECS agent answers while its process runs.
    async fn introspect<T>(&self, read: impl Fn(&World) -> T) -> Result<T> {
        let index = self.node;
        self.call(Part::Ecs, "introspection", |world| {
            let ecs = &world.nodes[index].ecs;
            if !ecs.active || ecs.ready_at > world.millis() {
                bail!("introspection: connection refused");
            }
            Ok(read(world))
        })
        .await?
    }
}

impl Introspection for Remotes {
    async fn container_instance(&self) -> Result<Option<String>> {
        let index = self.node;
        self.introspect(|world| {
            let ecs = &world.nodes[index].ecs;
            ecs.arn.clone().filter(|_| ecs.connected)
        })
        .await
    }

    async fn live_tasks(&self) -> Result<Vec<AgentTask>> {
        let index = self.node;
        self.introspect(|world| {
            let known = world.nodes[index].ecs.tasks.iter();
            known
                .filter(|(_, known)| !known.stopped)
                .map(|(arn, known)| AgentTask {
                    arn: arn.clone(),
                    family: known.family.clone(),
                    known: if known.container.is_some() {
                        "RUNNING"
                    } else {
                        "PENDING"
                    }
                    .to_owned(),
                    desired: if known.stopping { "STOPPED" } else { "RUNNING" }.to_owned(),
                })
                .collect()
        })
        .await
    }
}

impl Systemd for Remotes {
    async fn units(&self) -> Result<Units> {
        self.alive().await;
        let world = self.world.borrow();
        let ecs = &world.nodes[self.node].ecs;
        let active = if ecs.active { "active" } else { "inactive" };
        Ok(Units {
            ecs: Unit {
                load: "loaded".into(),
                active: active.into(),
                condition: !ecs.held_back,
                inactive_enter: 1,
                ..Unit::default()
            },
            docker: Unit::default(),
        })
    }

    async fn start_ecs(&self) -> Result<()> {
        self.alive().await;
        let mut world = self.world.borrow_mut();
        world.note(format_args!("n{} systemctl start ecs", self.node));
        world.start_ecs(self.node);
        Ok(())
    }

    async fn restart_ecs(&self) -> Result<()> {
        self.stop_ecs().await?;
        self.start_ecs().await
    }

    async fn stop_ecs(&self) -> Result<()> {
        self.alive().await;
        sleep(Duration::from_millis(200)).await;
        self.alive().await;
        let mut world = self.world.borrow_mut();
        world.note(format_args!("n{} systemctl stop ecs", self.node));
        let ecs = &mut world.nodes[self.node].ecs;
        ecs.active = false;
        ecs.connected = false;
        Ok(())
    }
}

impl World {
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
}

impl Remotes {
    async fn sidecar_takes(&self, span: Duration) {
        sleep(span).await;
        self.alive().await;
        let marks = &mut self.world.borrow_mut().nodes[self.node].book.marks;
        marks.sidecars_ms += u64::try_from(span.as_millis()).unwrap();
    }
}

impl Docker for Remotes {
    async fn sidecars(&self) -> Result<Vec<Container>> {
        let index = self.node;
        self.call(Part::Docker, "docker sidecars", |world| {
            world.nodes[index].sidecars.clone()
        })
        .await
    }

    async fn create(&self, sidecar: &Sidecar, spec: &str) -> Result<()> {
        let index = self.node;
        self.call(Part::Docker, "docker create", |world| {
            let started = wall(world, index);
            let node = &mut world.nodes[index];
            if node
                .sidecars
                .iter()
                .all(|known| known.sidecar != sidecar.name)
            {
                node.sidecar_started(&sidecar.name, spec, started);
            }
            node.book.sidecars_stopped_at = None;
        })
        .await
    }

    async fn start(&self, id: &str) -> Result<()> {
        let index = self.node;
        self.call(Part::Docker, "docker start", |world| {
            let started = wall(world, index);
            let node = &mut world.nodes[index];
            for known in node.sidecars.iter_mut().filter(|known| known.id == id) {
                known.running = true;
                known.started = Some(started);
            }
            node.book.sidecars_stopped_at = None;
        })
        .await
    }

    async fn signal(&self, _: &str, _: &str) -> Result<()> {
        self.call(Part::Docker, "docker signal", |_| ()).await
    }

    async fn ends_within(&self, _: &str, limit: Duration) -> Result<bool> {
        let writes = self.world.borrow_mut().rng.u64(100..8_000);
        let writes = Duration::from_millis(writes);
        self.sidecar_takes(writes.min(limit)).await;
        Ok(writes <= limit)
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<()> {
        let index = self.node;
        let wait = self
            .call(Part::Docker, "docker stop", |world| {
                let now = world.millis();
                if id.starts_with("sidecar-") {
                    let runs = |known: &Container| known.id == id && known.running;
                    if world.nodes[index].sidecars.iter().any(runs) {
                        world.judge_last(index, Invariant::SidecarsLast, "a sidecar was stopped");
                    }
                    return world
                        .rng
                        .u64(50..3_000)
                        .min(u64::try_from(grace.as_millis()).unwrap());
                }
                let process = world.nodes[index].containers.get_mut(id);
                process.map_or(0, |process| process.stop(grace, now).saturating_sub(now))
            })
            .await?;
        let wait = Duration::from_millis(wait);
        if id.starts_with("sidecar-") {
            self.sidecar_takes(wait).await;
        } else {
            sleep(wait).await;
            self.alive().await;
        }
        let mut world = self.world.borrow_mut();
        let now = world.millis();
        let node = &mut world.nodes[index];
        node.containers
            .retain(|_, process| process.ends_at.is_none_or(|at| at > now));
        for known in node.sidecars.iter_mut().filter(|known| known.id == id) {
            known.running = false;
        }
        if node.sidecars.iter().all(|known| !known.running) {
            node.book.sidecars_stopped_at.get_or_insert(now);
        }
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let index = self.node;
        self.call(Part::Docker, "docker remove", |world| {
            world.nodes[index].sidecars.retain(|known| known.id != id);
        })
        .await
    }

    async fn task_containers(&self) -> Result<BTreeSet<TaskContainer>> {
        let index = self.node;
        self.call(Part::Docker, "docker tasks", |world| {
            let now = world.millis();
            let containers = world.nodes[index].containers.iter();
            containers
                .filter(|(_, process)| process.ends_at.is_none_or(|at| at > now))
                .map(|(id, process)| TaskContainer {
                    task: process.task.clone(),
                    id: id.clone(),
                })
                .collect()
        })
        .await
    }

    async fn watch(&self, _: &mut dyn FnMut(Whose)) -> Error {
        pending().await
    }
}

impl Disk for Remotes {
    fn boot(&self) -> Result<String> {
        let boot = self.world.borrow().nodes[self.node].boot;
        Ok(format!("boot-{boot}"))
    }

    fn load(&self, instance: &str) -> Result<Option<Saved>> {
        let saved = self.world.borrow().nodes[self.node].saved.clone();
        Ok(saved.filter(|saved| saved.instance == instance))
    }

    fn save(&self, saved: &Saved) -> Result<()> {
        let mut world = self.world.borrow_mut();
        let node = &mut world.nodes[self.node];
        if node.life != self.life {
            bail!("gone");
        }
        if node.faults.disk != State::Works {
            bail!("save: no space left on device");
        }
        node.saved = Some(saved.clone());
        Ok(())
    }

    fn is_released(&self) -> bool {
        self.world.borrow().nodes[self.node].released
    }

    fn release(&self) -> Result<bool> {
        let mut world = self.world.borrow_mut();
        let now = world.millis();
        let node = &mut world.nodes[self.node];
        if node.life != self.life {
            bail!("gone");
        }
        let opens = !std::mem::replace(&mut node.released, true);
        let warm = node.book.warm_since;
        let target = world
            .autoscaling
            .target_lifecycle_state(&world.nodes[self.node].instance);
        let is_warm = target.is_some_and(|target| target.starts_with("Warmed"));
        // It is read every two seconds.
        if opens && is_warm && warm.is_some_and(|since| since + 5_000 < now) {
            let what = "released while it waits in the warm pool".to_owned();
            world.violate(Invariant::WarmStaysOut, self.node, what);
        }
        Ok(opens)
    }

    fn shut(&self) -> Result<()> {
        self.world.borrow_mut().nodes[self.node].released = false;
        Ok(())
    }

    fn write_ecs_config(&self, _: &Layers) -> Result<bool> {
        let world = self.world.borrow_mut();
        Ok(!world.nodes[self.node].ecs_config)
    }

    fn settled(&self) {
        self.world.borrow_mut().nodes[self.node].ecs_config = true;
    }

    fn clear_checkpoint(&self) -> Result<()> {
        self.world.borrow_mut().nodes[self.node].ecs.arn = None;
        Ok(())
    }

    fn say(&self, text: &str) -> Result<()> {
        let mut world = self.world.borrow_mut();
        world.note(format_args!("n{} console: {text}", self.node));
        Ok(())
    }
}
