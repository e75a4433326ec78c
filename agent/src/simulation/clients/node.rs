//! What is on the node itself: the metadata service, the ECS agent, systemd, Docker, the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail};
use fleet_agent_config::{EcrImage, Sidecar};
use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    super::{
        agents::wall,
        checks::Invariant,
        draw::shut_down,
        node::{Part, State},
        world::World,
    },
    Remotes,
};
use crate::{
    clients::{
        disk::Disk,
        docker::{Container, Docker, TaskContainer},
        ecr::{Ecr, Login},
        imds::{Identity, Imds, Maintenance, Spot, Target, parse_target},
        introspection::{AgentTask, Introspection},
        ssm::Ssm,
        systemd::{Systemd, Unit, Units},
    },
    ecs_config::render::Layers,
    inventory::Record,
    lifecycle::saved::Saved,
};

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

    async fn arn(&self) -> Result<String> {
        let index = self.node;
        self.call(Part::Imds, "imds arn", |world| {
            let instance = &world.nodes[index].instance;
            format!("arn:aws:ec2:eu-central-1:123456789012:instance/{instance}")
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

    async fn power_off(&self) -> Result<()> {
        self.alive().await;
        let mut world = self.world.borrow_mut();
        world.note(format_args!("n{} systemctl poweroff", self.node));
        shut_down(&mut world, self.node, |_| false);
        Ok(())
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

    async fn has_image(&self, _: &str) -> Result<bool> {
        Ok(true)
    }

    async fn pull(&self, image: &str, _: Option<Login>) -> Result<()> {
        bail!("{image} is there")
    }

    async fn set_aside(&self, _: &str, _: &str) -> Result<()> {
        self.call(Part::Docker, "docker rename", |_| ()).await
    }

    async fn take_back(&self, _: &str, _: &str) -> Result<()> {
        self.call(Part::Docker, "docker rename", |_| ()).await
    }

    async fn let_end(&self, _: &str) -> Result<()> {
        self.call(Part::Docker, "docker update", |_| ()).await
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
}

impl Ecr for Remotes {
    async fn login(&self, image: &EcrImage) -> Result<Login> {
        bail!("{} is not asked here", image.host)
    }
}

impl Ssm for Remotes {
    async fn put_inventory(&self, _: &Record, _: Timestamp) -> Result<()> {
        self.call(Part::Aws, "put inventory", |_| ()).await
    }

    async fn parameter(&self, name: &str) -> Result<String> {
        bail!("ssm:GetParameter of {name}: no story has a secret")
    }
}

impl Disk for Remotes {
    fn forget_secrets(&self, _: &BTreeSet<(String, String)>) -> Result<()> {
        Ok(())
    }

    fn keep_secrets(&self, _: &str, _: &str, _: &BTreeMap<String, String>) -> Result<()> {
        Ok(())
    }

    fn boot(&self) -> Result<String> {
        let boot = self.world.borrow().nodes[self.node].boot;
        Ok(format!("boot-{boot}"))
    }

    fn load(&self, _: &str) -> Option<Saved> {
        self.world.borrow().nodes[self.node].saved.clone()
    }

    fn save(&self, saved: &Saved) -> Result<()> {
        let mut world = self.world.borrow_mut();
        let node = &mut world.nodes[self.node];
        if node.life != self.life {
            bail!("gone");
        }
        node.book.unkept = node.faults.disk != State::Works;
        if node.book.unkept {
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
        // It is read about every two seconds.
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
