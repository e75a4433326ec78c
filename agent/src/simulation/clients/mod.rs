//! Every remote of a node, as the simulated world answers.

mod aws;
mod node;

use std::{future::pending, time::Duration};

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::{
    agents::Shared,
    node::{Part, State},
    world::World,
};
use crate::clients::{
    Clients, autoscaling::AutoScaling, disk::Disk, docker::Docker, ecr::Ecr, ecs::Ecs, imds::Imds,
    introspection::Introspection, ssm::Ssm, systemd::Systemd,
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
