//! A node that exists only in memory: every remote of the lifecycle in one stateful fake, with
//! faults on demand. It behaves as the real ones do together: ecs.service that starts registers,
//! a lifecycle action is open or not, a stopped container is gone.

mod context;

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::pending,
    rc::Rc,
    time::Duration,
};

use anyhow::{Error, Result, bail};
use fleet_agent_config::{EcrImage, Sidecar, names::attribute};
use jiff::Timestamp;

use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, HookAnswer, Verb},
        disk::Disk,
        docker::{Container, Docker, TaskContainer},
        ecr::{Ecr, Login},
        ecs::{Ecs, Registration, SetDraining},
        imds::{Identity, Imds, Maintenance, Spot, Target},
        introspection::{AgentTask, Introspection},
        ssm::Ssm,
        systemd::{Systemd, Unit, Units},
    },
    clock::Clock,
    ecs_config::render::Layers,
    health::guard::{Around, Census},
    inventory::Record,
    lifecycle::{cause::intent, saved::Saved},
};

pub(crate) use context::{CONTAINER_STOP, context, golden_settings};

pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
pub(crate) const CONTAINER_INSTANCE: &str = "arn:aws:ecs:eu-central-1:1:container-instance/c/1";

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fails,
    Hangs,
    /// An answer to a hook: it is taken, and nothing comes back.
    Unheard,
}

/// A lifecycle action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Held {
    #[default]
    NotOpen,
    Open,
    Answered(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Continue,
    Abandon,
}

/// All of the fake world; tests change it as they like.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) target: Target,
    /// Whether it is a spot instance, and what EC2 says of it.
    pub(crate) is_spot: bool,
    pub(crate) spot: Spot,
    pub(crate) maintenance: Vec<Maintenance>,
    /// `fleet:drain`.
    pub(crate) tag: Option<String>,
    /// Counts boots.
    pub(crate) boot: u32,
    pub(crate) saved: Option<Saved>,
    /// What sidecars were given to read.
    pub(crate) secrets: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) released: bool,
    /// ecs.config as it stands, and whether whoever runs with an older one is still to be told.
    pub(crate) ecs_config: Option<Layers>,
    pub(crate) owed: bool,
    pub(crate) console: Vec<String>,
    pub(crate) launch: Held,
    pub(crate) drain: Held,
    /// Whether the ECS agent registers once it runs.
    pub(crate) registers: bool,
    pub(crate) ecs_runs: bool,
    pub(crate) registration: Option<Registration>,
    /// Reasons for which DRAINING is refused, one a call.
    pub(crate) refusals: Vec<&'static str>,
    /// Tasks that ECS, its agent and Docker know, one container each.
    pub(crate) tasks: BTreeSet<String>,
    /// Those of them that no service started.
    pub(crate) standalone: BTreeSet<String>,
    /// Tasks that only ECS still knows.
    pub(crate) late_tasks: usize,
    pub(crate) sidecars: Vec<Container>,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) inventory: Vec<Record>,
    /// The other nodes of its group.
    pub(crate) others: Census,
    faults: BTreeMap<&'static str, Fault>,
    /// Names of all calls, in their order.
    pub(crate) calls: Vec<&'static str>,
    /// Containers that were stopped, in their order.
    pub(crate) stopped: Vec<String>,
    /// Containers that were sent a signal, in their order.
    pub(crate) signalled: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    world: Rc<RefCell<World>>,
    pub(crate) clock: Clock,
}

impl Node {
    /// A node whose launch Auto Scaling holds.
    pub(crate) fn launching() -> Self {
        Self {
            world: Rc::new(RefCell::new(World {
                target: Target::InService,
                is_spot: false,
                spot: Spot::default(),
                maintenance: Vec::new(),
                tag: None,
                boot: 1,
                secrets: BTreeMap::new(),
                saved: None,
                released: false,
                ecs_config: None,
                owed: false,
                console: Vec::new(),
                launch: Held::Open,
                drain: Held::NotOpen,
                registers: true,
                ecs_runs: false,
                registration: None,
                refusals: Vec::new(),
                tasks: BTreeSet::new(),
                standalone: BTreeSet::new(),
                late_tasks: 0,
                sidecars: Vec::new(),
                attributes: BTreeMap::new(),
                inventory: Vec::new(),
                others: Census::default(),
                faults: BTreeMap::new(),
                calls: Vec::new(),
                stopped: Vec::new(),
                signalled: Vec::new(),
            })),
            clock: Clock::paused(),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.borrow_mut());
    }

    pub(crate) fn world(&self) -> Ref<'_, World> {
        self.world.borrow()
    }

    /// From now on every such call goes wrong.
    pub(crate) fn fault(&self, call: &'static str, fault: Fault) {
        self.change(|world| {
            world.faults.insert(call, fault);
        });
    }

    pub(crate) fn heal(&self, call: &'static str) {
        self.change(|world| {
            world.faults.remove(call);
        });
    }

    /// Another boot: ecs.service is not released in it, and nothing runs but what dockerd restarts.
    pub(crate) fn reboot(&self) {
        self.change(|world| {
            world.boot += 1;
            world.released = false;
            world.ecs_runs = false;
            world.tasks.clear();
        });
    }

    pub(crate) fn count(&self, call: &str) -> usize {
        self.world()
            .calls
            .iter()
            .filter(|name| **name == call)
            .count()
    }

    async fn call(&self, name: &'static str) -> Result<()> {
        let fault = {
            let mut world = self.world.borrow_mut();
            world.calls.push(name);
            world.faults.get(name).copied()
        };
        match fault {
            Some(Fault::Fails) => bail!("{name}: told to fail"),
            Some(Fault::Hangs) => pending().await,
            Some(Fault::Unheard) | None => Ok(()),
        }
    }
}

impl Clients for Node {
    fn imds(&self) -> &impl Imds {
        self
    }

    fn ecr(&self) -> &impl Ecr {
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

    fn ssm(&self) -> &impl Ssm {
        self
    }
}

impl Ecr for Node {
    async fn login(&self, image: &EcrImage) -> Result<Login> {
        bail!("{} is not asked here", image.host)
    }
}

impl Ssm for Node {
    async fn parameter(&self, name: &str) -> Result<String> {
        self.call("ssm-parameter").await?;
        Ok(format!("the value of {name}"))
    }

    async fn put_inventory(&self, record: &Record, _: Timestamp) -> Result<()> {
        self.call("put-inventory").await?;
        self.change(|world| world.inventory.push(record.clone()));
        Ok(())
    }
}

impl Disk for Node {
    fn forget_secrets(&self, _: &BTreeSet<(String, String)>) -> Result<()> {
        Ok(())
    }

    fn keep_secrets(
        &self,
        sidecar: &str,
        _: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<()> {
        self.change(|world| {
            world.secrets.insert(sidecar.to_owned(), values.clone());
        });
        Ok(())
    }

    fn boot(&self) -> Result<String> {
        Ok(format!("boot-{}", self.world().boot))
    }

    fn load(&self, _: &str) -> Option<Saved> {
        self.world().saved.clone()
    }

    fn save(&self, saved: &Saved) -> Result<()> {
        if self.world().faults.contains_key("save") {
            bail!("save: no space left on device");
        }
        self.change(|world| world.saved = Some(saved.clone()));
        Ok(())
    }

    fn is_released(&self) -> bool {
        self.world().released
    }

    fn release(&self) -> Result<bool> {
        let before = self.is_released();
        self.change(|world| world.released = true);
        Ok(!before)
    }

    fn shut(&self) -> Result<()> {
        self.change(|world| world.released = false);
        Ok(())
    }

    fn write_ecs_config(&self, layers: &Layers) -> Result<bool> {
        self.change(|world| {
            if world.ecs_config.as_ref() != Some(layers) {
                world.ecs_config = Some(layers.clone());
                world.owed = true;
            }
        });
        Ok(self.world().owed)
    }

    fn settled(&self) {
        self.change(|world| world.owed = false);
    }

    fn clear_checkpoint(&self) -> Result<()> {
        self.change(|world| world.calls.push("clear-checkpoint"));
        Ok(())
    }

    fn say(&self, text: &str) -> Result<()> {
        self.change(|world| world.console.push(text.to_owned()));
        Ok(())
    }
}

impl Imds for Node {
    async fn identity(&self) -> Result<Identity> {
        self.call("imds").await?;
        Ok(Identity {
            instance: INSTANCE.to_owned(),
            region: "eu-central-1".to_owned(),
            zone: "eu-central-1a".to_owned(),
            spot: self.world().is_spot,
        })
    }

    async fn arn(&self) -> Result<String> {
        self.call("imds").await?;
        Ok(format!(
            "arn:aws:ec2:eu-central-1:123456789012:instance/{INSTANCE}"
        ))
    }

    async fn spot(&self) -> Result<Spot> {
        self.call("imds").await?;
        Ok(self.world().spot.clone())
    }

    async fn maintenance(&self) -> Result<Vec<Maintenance>> {
        self.call("imds").await?;
        Ok(self.world().maintenance.clone())
    }

    async fn tag(&self, _: &str) -> Result<Option<String>> {
        self.call("imds").await?;
        Ok(self.world().tag.clone())
    }

    async fn target(&self) -> Result<Target> {
        self.call("imds").await?;
        Ok(self.world().target.clone())
    }
}

impl AutoScaling for Node {
    async fn answer(&self, hook: &str, _: &str, verb: Verb) -> Result<HookAnswer> {
        let launch = hook == "fleet-launch";
        let name = match (launch, verb) {
            (true, Verb::Heartbeat) => "launch-heartbeat",
            (true, _) => "launch-complete",
            (false, Verb::Heartbeat) => "drain-heartbeat",
            (false, _) => "drain-complete",
        };
        self.call(name).await?;
        let mut world = self.world.borrow_mut();
        let is_unheard = world.faults.get(name) == Some(&Fault::Unheard);
        let held = if launch {
            &mut world.launch
        } else {
            &mut world.drain
        };
        let is_open = *held == Held::Open;
        match verb {
            Verb::Continue if is_open => *held = Held::Answered(Verdict::Continue),
            Verb::Abandon if is_open => *held = Held::Answered(Verdict::Abandon),
            Verb::Heartbeat | Verb::Continue | Verb::Abandon => {}
        }
        match (is_unheard, is_open) {
            (true, _) => bail!("{name}: no answer"),
            (false, true) => Ok(HookAnswer::Taken),
            (false, false) => Ok(HookAnswer::NotOpen),
        }
    }

    async fn condemn(&self, _: &str) -> Result<()> {
        self.call("condemn").await?;
        self.change(|world| {
            world.target = Target::Terminated;
            world.drain = Held::Open;
        });
        Ok(())
    }
}

impl Ecs for Node {
    async fn describe(&self, _: &str) -> Result<Registration> {
        self.call("describe").await?;
        self.world()
            .registration
            .clone()
            .ok_or_else(|| Error::msg("describe: MISSING"))
    }

    async fn set_draining(&self, _: &str) -> Result<SetDraining> {
        self.call("set-draining").await?;
        let mut world = self.world.borrow_mut();
        if let Some(reason) = world.refusals.pop() {
            return Ok(SetDraining::NotYet(reason.to_owned()));
        }
        let tasks = u32::try_from(world.tasks.len())?;
        let Some(registration) = &mut world.registration else {
            return Ok(SetDraining::Gone);
        };
        registration.status = "DRAINING".to_owned();
        Ok(SetDraining::Set { tasks })
    }

    async fn set_active(&self, _: &str) -> Result<bool> {
        self.call("set-active").await?;
        let mut world = self.world.borrow_mut();
        let Some(registration) = &mut world.registration else {
            return Ok(false);
        };
        registration.status = "ACTIVE".to_owned();
        Ok(true)
    }

    async fn task_groups(&self, _: &str) -> Result<BTreeMap<String, String>> {
        self.call("ecs-groups").await?;
        let world = self.world();
        let group = |task: &String| {
            let standalone = world.standalone.contains(task);
            if standalone {
                "family:batch"
            } else {
                "service:web"
            }
            .to_owned()
        };
        let tasks = world.tasks.iter();
        Ok(tasks.map(|task| (task.clone(), group(task))).collect())
    }

    async fn put_attributes(&self, _: &str, attributes: &[(String, String)]) -> Result<()> {
        self.call("put-attributes").await?;
        self.change(|world| world.attributes.extend(attributes.iter().cloned()));
        Ok(())
    }

    async fn around(&self, group: &str) -> Result<Around> {
        self.call("ecs-around").await?;
        let world = self.world();
        let said = |name: &str| world.attributes.get(name).map_or("", String::as_str);
        let own = || [CONTAINER_INSTANCE.to_owned()].into();
        let when = |holds: bool| if holds { own() } else { BTreeSet::new() };
        let mut census = world.others.clone();
        if said(attribute::GROUP) == group {
            census.members.append(&mut own());
            census
                .impaired
                .append(&mut when(said(attribute::HEALTH) == "impaired"));
            census
                .leaving
                .append(&mut when(said(attribute::INTENT) == intent::LEAVE));
        }
        if said(attribute::INTENT) == intent::REPLACE {
            let since = said(attribute::SINCE).to_owned();
            census.waiting.insert(CONTAINER_INSTANCE.to_owned(), since);
        }
        Ok(Around::Group(census))
    }

    async fn live_tasks(&self, _: &str) -> Result<usize> {
        self.call("ecs-tasks").await?;
        let world = self.world();
        Ok(world.tasks.len() + world.late_tasks)
    }
}

impl Introspection for Node {
    async fn container_instance(&self) -> Result<Option<String>> {
        self.call("introspection").await?;
        let world = self.world();
        if !world.ecs_runs {
            bail!("introspection: connection refused");
        }
        Ok(world
            .registration
            .as_ref()
            .map(|_| CONTAINER_INSTANCE.to_owned()))
    }

    async fn live_tasks(&self) -> Result<Vec<AgentTask>> {
        self.call("introspection").await?;
        let world = self.world();
        if !world.ecs_runs {
            bail!("introspection: connection refused");
        }
        let task = |arn: &String| AgentTask {
            arn: arn.clone(),
            family: if world.standalone.contains(arn) {
                "batch"
            } else {
                "web"
            }
            .to_owned(),
            known: "RUNNING".to_owned(),
            desired: "RUNNING".to_owned(),
        };
        Ok(world.tasks.iter().map(task).collect())
    }
}

impl Systemd for Node {
    async fn units(&self) -> Result<Units> {
        self.call("systemctl").await?;
        let active = if self.world().ecs_runs {
            "active"
        } else {
            "inactive"
        };
        Ok(Units {
            ecs: Unit {
                load: "loaded".to_owned(),
                active: active.to_owned(),
                condition: true,
                ..Unit::default()
            },
            docker: Unit::default(),
        })
    }

    async fn start_ecs(&self) -> Result<()> {
        self.call("start-ecs").await?;
        self.change(|world| {
            world.ecs_runs = true;
            if world.registers && world.registration.is_none() {
                world.registration = Some(Registration {
                    status: "ACTIVE".to_owned(),
                    connected: true,
                });
            }
        });
        Ok(())
    }

    async fn restart_ecs(&self) -> Result<()> {
        self.call("restart-ecs").await
    }

    async fn stop_ecs(&self) -> Result<()> {
        self.call("stop-ecs").await?;
        self.change(|world| world.ecs_runs = false);
        Ok(())
    }

    async fn power_off(&self) -> Result<()> {
        self.call("power-off").await
    }
}

impl Docker for Node {
    async fn sidecars(&self) -> Result<Vec<Container>> {
        self.call("docker").await?;
        Ok(self.world().sidecars.clone())
    }

    async fn create(&self, sidecar: &Sidecar, spec: &str) -> Result<()> {
        self.call("docker-create").await?;
        let started = Some(self.clock.wall());
        self.change(|world| {
            world.sidecars.push(Container {
                id: sidecar.name.clone(),
                sidecar: sidecar.name.clone(),
                spec: spec.to_owned(),
                running: true,
                restarting: false,
                healthy: None,
                started,
            });
        });
        Ok(())
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.call("docker-start").await?;
        let started = Some(self.clock.wall());
        self.change(|world| {
            for container in world
                .sidecars
                .iter_mut()
                .filter(|container| container.id == id)
            {
                container.running = true;
                container.started = started;
            }
        });
        Ok(())
    }

    async fn has_image(&self, _: &str) -> Result<bool> {
        Ok(true)
    }

    async fn pull(&self, image: &str, _: Option<Login>) -> Result<()> {
        bail!("{image} is there")
    }

    async fn set_aside(&self, _: &str, _: &str) -> Result<()> {
        self.call("docker-rename").await
    }

    async fn take_back(&self, _: &str, _: &str) -> Result<()> {
        self.call("docker-rename").await
    }

    async fn let_end(&self, _: &str) -> Result<()> {
        self.call("docker-let-end").await
    }

    async fn signal(&self, id: &str, _: &str) -> Result<()> {
        self.call("docker-signal").await?;
        self.change(|world| world.signalled.push(id.to_owned()));
        Ok(())
    }

    async fn ends_within(&self, id: &str, limit: Duration) -> Result<bool> {
        let runs = |world: &World| world.sidecars.iter().any(|c| c.id == id && c.running);
        if runs(&self.world()) {
            tokio::time::sleep(limit).await;
        }
        Ok(!runs(&self.world()))
    }

    async fn stop(&self, id: &str, _: Duration) -> Result<()> {
        self.call("docker-stop").await?;
        self.change(|world| {
            world.stopped.push(id.to_owned());
            world.tasks.remove(id);
            for container in world
                .sidecars
                .iter_mut()
                .filter(|container| container.id == id)
            {
                container.running = false;
            }
        });
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.call("docker-remove").await?;
        self.change(|world| world.sidecars.retain(|container| container.id != id));
        Ok(())
    }

    async fn task_containers(&self) -> Result<BTreeSet<TaskContainer>> {
        self.call("docker").await?;
        let world = self.world();
        Ok(world
            .tasks
            .iter()
            .map(|task| TaskContainer {
                task: task.clone(),
                id: task.clone(),
            })
            .collect())
    }
}
