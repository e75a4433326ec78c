//! A node that exists only in memory: every remote of the lifecycle in one stateful fake, with
//! faults on demand. It behaves as the real ones do together: ecs.service that starts registers,
//! a lifecycle action is open or not, a stopped container is gone.

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::pending,
    rc::Rc,
    time::Duration,
};

use anyhow::{Error, Result, bail};
use fleet_agent_config::Sidecar;

use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, HookAnswer, Verb},
        docker::{Container, Docker, TaskContainer, Whose},
        ecs::{Ecs, Registration, SetDraining},
        imds::{Identity, Imds, Target},
        introspection::Introspection,
        systemd::{Systemd, Unit, Units},
    },
    clock::Clock,
};

pub(crate) const INSTANCE: &str = "i-0123456789abcdef0";
pub(crate) const CONTAINER_INSTANCE: &str = "arn:aws:ecs:eu-central-1:1:container-instance/c/1";

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Fails,
    Hangs,
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
    /// Tasks that only ECS still knows.
    pub(crate) late_tasks: usize,
    pub(crate) sidecars: Vec<Container>,
    pub(crate) attributes: BTreeMap<String, String>,
    faults: BTreeMap<&'static str, Fault>,
    /// Names of all calls, in their order.
    pub(crate) calls: Vec<&'static str>,
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
                launch: Held::Open,
                drain: Held::NotOpen,
                registers: true,
                ecs_runs: false,
                registration: None,
                refusals: Vec::new(),
                tasks: BTreeSet::new(),
                late_tasks: 0,
                sidecars: Vec::new(),
                attributes: BTreeMap::new(),
                faults: BTreeMap::new(),
                calls: Vec::new(),
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
            None => Ok(()),
        }
    }
}

impl Clients for Node {
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
}

impl Imds for Node {
    async fn identity(&self) -> Result<Identity> {
        self.call("imds").await?;
        Ok(Identity {
            instance: INSTANCE.to_owned(),
            region: "eu-central-1".to_owned(),
            zone: "eu-central-1a".to_owned(),
        })
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
        let held = if launch {
            &mut world.launch
        } else {
            &mut world.drain
        };
        if *held != Held::Open {
            return Ok(HookAnswer::NotOpen);
        }
        match verb {
            Verb::Heartbeat => {}
            Verb::Continue => *held = Held::Answered(Verdict::Continue),
            Verb::Abandon => *held = Held::Answered(Verdict::Abandon),
        }
        Ok(HookAnswer::Taken)
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

    async fn put_attributes(&self, _: &str, attributes: &[(String, String)]) -> Result<()> {
        self.call("put-attributes").await?;
        self.change(|world| world.attributes.extend(attributes.iter().cloned()));
        Ok(())
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

    async fn live_tasks(&self) -> Result<Vec<String>> {
        self.call("introspection").await?;
        let world = self.world();
        if !world.ecs_runs {
            bail!("introspection: connection refused");
        }
        Ok(world.tasks.iter().cloned().collect())
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

    async fn stop(&self, id: &str, _: Duration) -> Result<()> {
        self.call("docker-stop").await?;
        self.change(|world| {
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

    async fn watch(&self, _: &mut dyn FnMut(Whose)) -> Error {
        pending().await
    }
}
