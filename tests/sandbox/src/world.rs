//! The control plane at work: the models under one lock, a clock, and the carrying out of effects.
//!
//! Every change goes through [`World::change`]: it locks, lets the models change, carries out what
//! they ask for, and wakes whoever waits for changes. Nothing is awaited under the lock.

#![allow(
    clippy::disallowed_methods,
    reason = "gives the pure models their time"
)]

mod circumstances;
mod launch;
mod machine;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    api_error::ApiError,
    autoscaling::{self, requests as group_requests},
    calls::Calls,
    cloudwatch, ecs,
    faults::Faults,
    gateway,
    grants::Grants,
    ids::Ids,
    inventory::Inventory,
    machines::{MachineCommand, MachineEvent, Metadata},
    moto::MotoApi,
    node_protocol::HOLD_SECONDS,
};
pub(crate) use circumstances::Circumstances;
use circumstances::Due;
pub(crate) use machine::Machine;
use machine::Machines;

/// Settings of a world.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// AWS region.
    pub region: String,
    /// Account id; moto's is `123456789012`.
    pub account_id: String,
    /// Where moto answers.
    pub moto_url: String,
    /// Directory whose files are served under `/_sandbox/files/`.
    pub files: Option<PathBuf>,
    /// How long the metadata service says `Terminated` before an instance is in
    /// `Terminating:Wait`.
    pub imds_lead_ms: u32,
}

/// Attaching capacity providers takes AWS some seconds; here it only has to be seen once.
const ATTACHMENT_DELAY: SignedDuration = SignedDuration::from_millis(300);

/// A handle to the control plane; copies share it.
#[derive(Debug, Clone)]
pub struct World(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: WorldOptions,
    state: Mutex<State>,
    commands: mpsc::UnboundedSender<MachineCommand>,
    /// Counts changes, for those who wait for the next.
    changes: watch::Sender<u64>,
    stopped: watch::Sender<bool>,
    moto: MotoApi,
}

/// Everything that is remembered.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) autoscaling: autoscaling::Model,
    pub(crate) ecs: ecs::Model,
    pub(crate) cloudwatch: cloudwatch::Model,
    pub(crate) machines: Machines,
    pub(crate) inventory: Inventory,
    pub(crate) faults: Faults,
    pub(crate) calls: Calls,
    pub(crate) ecs_limits: ecs::Limits,
    pub(crate) grants: Grants,
    /// The images made of machines, and the KMS key that each is encrypted with, if any.
    pub(crate) images: BTreeMap<String, Option<String>>,
    /// What EC2 has answered to client tokens: a call that is repeated with one has no effect, and the
    /// same answer (EC2 API, "Ensuring idempotency").
    pub(crate) client_tokens: BTreeMap<String, Vec<u8>>,
    /// Request ids.
    pub(crate) ids: Ids,
}

impl State {
    /// Auto Scaling replaces an instance that EC2 has stopped, and does not wait for its grace
    /// period: see "Health checks for instances" in its user guide.
    fn notice_stopped(&mut self, instance_id: &str, now: Timestamp) {
        let in_service = |(_, instance): (_, &autoscaling::Instance)| {
            !instance.state.is_terminating() && instance.healthy
        };
        if !self
            .autoscaling
            .instance(instance_id)
            .is_some_and(in_service)
        {
            return;
        }
        let unhealthy = group_requests::SetInstanceHealth {
            instance_id: instance_id.to_owned(),
            health_status: "Unhealthy".to_owned(),
            should_respect_grace_period: Some(false),
        };
        if let Err(e) = self.autoscaling.set_instance_health(&unhealthy, now) {
            log::warn!("Auto Scaling could not notice that {instance_id} is stopped: {e}");
        }
    }
}

impl World {
    /// Starts an empty account and its clock, within a tokio runtime. The machine room takes the
    /// other end of the channel of commands.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn start(
        options: WorldOptions,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<MachineCommand>)> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let seed = fastrand::u64(..);
        let hold = i64::try_from(HOLD_SECONDS)?;
        let state = State {
            autoscaling: autoscaling::Model::new(autoscaling::Options {
                region: options.region.clone(),
                account_id: options.account_id.clone(),
                imds_lead: SignedDuration::from_millis(options.imds_lead_ms.into()),
                seed,
            }),
            ecs: ecs::Model::new(ecs::Options {
                region: options.region.clone(),
                account_id: options.account_id.clone(),
                attachment_delay: ATTACHMENT_DELAY,
                connection_timeout: SignedDuration::from_secs(2 * hold),
                seed: seed.wrapping_add(1),
            }),
            cloudwatch: cloudwatch::Model::new(&options.region, &options.account_id),
            machines: Machines::default(),
            inventory: Inventory::default(),
            faults: Faults::default(),
            calls: Calls::default(),
            ecs_limits: ecs::Limits::default(),
            grants: Grants::default(),
            images: BTreeMap::new(),
            client_tokens: BTreeMap::new(),
            ids: Ids::new(seed.wrapping_add(2)),
        };
        let world = Self(Arc::new(Shared {
            moto: MotoApi::new(&options.moto_url, &options.region)?,
            options,
            state: Mutex::new(state),
            commands,
            changes: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
        }));
        tokio::spawn(world.clone().keep_time());
        Ok((world, receiver))
    }

    /// Makes the account's default VPC what it is on AWS. Once, before anybody asks.
    ///
    /// # Errors
    /// What moto refuses.
    pub async fn open_network(&self) -> Result<(), ApiError> {
        self.moto().open_default_vpc().await
    }

    /// Serves the gateway on a listener until [`World::stop`]. May be called for several.
    ///
    /// # Errors
    /// Those of the listener.
    pub fn serve(&self, listener: TcpListener) -> impl Future<Output = io::Result<()>> + use<> {
        gateway::serve(self.clone(), listener)
    }

    /// Ends the clock and every [`World::serve`]; replies under way are finished.
    pub fn stop(&self) {
        self.0.stopped.send_replace(true);
        self.announce();
    }

    /// Takes a report of the machine room.
    pub fn machine_event(&self, event: MachineEvent) {
        match event {
            MachineEvent::Started {
                instance_id,
                address,
            } => self.change(|state, now| {
                state.machines.started(&instance_id, address);
                state.autoscaling.machine_started(&instance_id, now);
            }),
            MachineEvent::Failed {
                instance_id,
                reason,
            } => {
                self.change(|state, now| {
                    state.machines.remove(&instance_id);
                    state.autoscaling.machine_failed(&instance_id, &reason, now);
                });
                self.forget_in_ec2(instance_id);
            }
            MachineEvent::Stopped { instance_id } => self.change(|state, now| {
                let seen = state.machines.stopped(&instance_id);
                // A stop that a warm pool asked for is no fault.
                if !state.autoscaling.machine_stopped(&instance_id, now) && seen {
                    state.notice_stopped(&instance_id, now);
                }
            }),
            MachineEvent::Gone { instance_id } => {
                self.change(|state, now| {
                    state.machines.remove(&instance_id);
                    state.autoscaling.machine_gone(&instance_id, now);
                    state.ecs.machine_gone(&instance_id, now);
                });
                self.forget_in_ec2(instance_id);
            }
        }
    }

    /// What the metadata service says to the machine with this address.
    pub fn metadata(&self, address: Ipv4Addr) -> Option<Metadata> {
        let options = &self.0.options;
        self.look(|state| {
            let machine = state.machines.at(address)?;
            let target = state
                .autoscaling
                .target_lifecycle_state(&machine.instance_id);
            Some(machine.metadata(options, target))
        })
    }

    pub(crate) fn options(&self) -> &WorldOptions {
        &self.0.options
    }

    pub(crate) fn moto(&self) -> &MotoApi {
        &self.0.moto
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Sends a command to the machine room. If it is gone, so will the process be soon.
    pub(crate) fn command(&self, command: MachineCommand) {
        let _ = self.0.commands.send(command);
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Keeps the books: a change that nobody waits for.
    pub(crate) fn count<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.lock())
    }

    /// Changes the state, carries out what the models then ask for, and announces it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let result = change(&mut state, now);
        let launches = self.carry_out(&mut state);
        drop(state);
        for order in launches {
            tokio::spawn(launch::run(self.clone(), order));
        }
        self.announce();
        result
    }

    /// Resolves when something has changed after this call.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.stopped.borrow()
    }

    /// Resolves when the world stops.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopped = self.0.stopped.subscribe();
        async move {
            // An error means that the world is gone, which is as good as stopped.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves a state that is still worth serving.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Carries out all effects but launches, which are returned.
    fn carry_out(&self, state: &mut State) -> Vec<autoscaling::LaunchOrder> {
        for ecs::Effect::MarkManaged { group } in state.ecs.take_effects() {
            let tag = group_requests::TagSpec {
                resource_id: group,
                resource_type: "auto-scaling-group".to_owned(),
                key: "AmazonECSManaged".to_owned(),
                value: Some(String::new()),
                propagate_at_launch: Some(true),
            };
            let marked = state
                .autoscaling
                .group(&tag.resource_id)
                .is_some_and(|g| g.tags.contains_key(&tag.key));
            let tags = group_requests::Tags { tags: vec![tag] };
            if !marked && let Err(e) = state.autoscaling.create_or_update_tags(&tags) {
                log::warn!("ECS could not tag a group with AmazonECSManaged: {e}");
            }
        }
        let mut launches = Vec::new();
        for effect in state.autoscaling.take_effects() {
            match effect {
                autoscaling::Effect::Launch(order) => launches.push(order),
                autoscaling::Effect::Terminate { instance_id } => {
                    self.command(MachineCommand::Terminate { instance_id });
                }
                autoscaling::Effect::Stop { instance_id } => {
                    self.command(MachineCommand::Stop { instance_id });
                }
                autoscaling::Effect::Start { instance_id } => {
                    self.command(MachineCommand::Start { instance_id });
                }
            }
        }
        launches
    }

    fn forget_in_ec2(&self, instance_id: String) {
        let moto = self.0.moto.clone();
        tokio::spawn(async move {
            if let Err(e) = moto.terminate_instance(&instance_id).await {
                log::warn!("EC2 TerminateInstances of {instance_id} in moto failed: {e}");
            }
        });
    }

    /// Lets the models do what time alone makes them do.
    async fn keep_time(self) {
        let mut changes = self.changes();
        while !self.is_stopped() {
            changes.mark_unchanged();
            let next = self.look(|state| {
                let models = [state.autoscaling.next_deadline(), state.ecs.next_deadline()];
                let machines = state.machines.next_deadline();
                models.into_iter().flatten().chain(machines).min()
            });
            let Some(next) = next else {
                // An error means that the world is gone.
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let wait = next.duration_since(self.now());
            // A deadline that has passed has no unsigned duration.
            let wait = wait.try_into().unwrap_or_default();
            if timeout(wait, changes.changed()).await.is_err() {
                self.advance();
            }
        }
    }

    fn advance(&self) {
        let due = self.change(|state, now| {
            state.autoscaling.advance(now);
            state.ecs.advance(now);
            state.machines.due(now)
        });
        for (instance_id, due) in due {
            self.command(match due {
                Due::Reboot => MachineCommand::Reboot { instance_id },
                Due::Stop => MachineCommand::Stop { instance_id },
                Due::Terminate => MachineCommand::Terminate { instance_id },
            });
        }
    }
}
