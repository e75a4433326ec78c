//! The machine room: every machine the models launch is a container that boots systemd, cloud-init
//! and Docker, on a network of its sandbox.
//!
//! The network's .2 is the pause container. It does nothing, but its network namespace carries
//! 169.254.169.254 and the sandbox's listeners, so that the nodes reach the metadata service and
//! the gateway as neighbours and the host's own routes stay as they are.

mod addresses;
mod machine;
mod namespace;
mod network;
mod node;
mod sweep;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use bollard::Docker;
use fleet_sandbox::machines::{Launch, MachineCommand, MachineEvent};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use self::{addresses::Addresses, machine::Order, network::Network, node::Node};

use crate::{image, paths::Paths};

pub(crate) use self::{
    node::{container_name, host_name},
    sweep::sweep,
};

/// Port of the gateway on the nodes' network.
pub(crate) const GATEWAY_PORT: u16 = 4566;

/// The machines of one sandbox and their network.
#[derive(Debug)]
pub(crate) struct Room {
    docker: Docker,
    sandbox: String,
    paths: Paths,
    network: Network,
    /// This program, mounted into the nodes as their ECS agent.
    program: PathBuf,
    last_words: LastWords,
}

impl Room {
    /// Makes the network and the pause container. Until the room is swept they stay.
    pub(crate) async fn open(
        docker: Docker,
        sandbox: &str,
        program: PathBuf,
    ) -> anyhow::Result<Self> {
        let network = Network::create(&docker, sandbox).await?;
        Ok(Self {
            docker,
            sandbox: sandbox.to_owned(),
            paths: Paths::of(sandbox)?,
            network,
            program,
            last_words: LastWords::default(),
        })
    }

    /// The gateway as the nodes see it.
    pub(crate) fn node_url(&self) -> String {
        format!("http://{}:{GATEWAY_PORT}", self.network.pause_address())
    }

    /// A listener on the nodes' network.
    pub(crate) async fn listen(&self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        namespace::listen(self.network.pause_pid(), address).await
    }

    /// Plays the machines until nobody commands them any more. Machines start and stop side by
    /// side.
    pub(crate) async fn run(
        self,
        mut commands: mpsc::UnboundedReceiver<MachineCommand>,
        report: impl Fn(MachineEvent) + Clone + Send + Sync + 'static,
    ) {
        let mut machines = Machines::of(&self.network);
        loop {
            // Both arms are cancel safe: recv and join_next lose nothing.
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(MachineCommand::Launch(launch)) => {
                        self.launch(*launch, &mut machines, report.clone());
                    }
                    Some(MachineCommand::Terminate { instance_id }) => {
                        machines.order(instance_id, Order::Terminate, &report);
                    }
                    Some(MachineCommand::Stop { instance_id }) => {
                        machines.order(instance_id, Order::Stop, &report);
                    }
                    Some(MachineCommand::Start { instance_id }) => {
                        machines.order(instance_id, Order::Start, &report);
                    }
                    Some(MachineCommand::Reboot { instance_id }) => {
                        machines.order(instance_id, Order::Reboot, &report);
                    }
                    Some(MachineCommand::Snapshot { instance_id, image_id, reply }) => {
                        machines.snapshot(&instance_id, image_id, reply);
                    }
                    Some(MachineCommand::CopyImage { from, to, reply }) => {
                        self.copy_image(from, to, reply);
                    }
                    Some(MachineCommand::Console { instance_id, reply }) => {
                        self.console(&instance_id, reply);
                    }
                },
                Some(ended) = machines.lives.join_next() => match ended {
                    Ok(node) => machines.forget(&node),
                    Err(error) => log::error!("machine room: {error}"),
                },
            }
        }
    }

    fn launch(
        &self,
        launch: Launch,
        machines: &mut Machines,
        report: impl Fn(MachineEvent) + Send + Sync + 'static,
    ) {
        let Some(address) = machines.addresses.take() else {
            return report(MachineEvent::Failed {
                instance_id: launch.instance_id,
                reason: "InsufficientFreeAddressesInSubnet: the sandbox's network is full"
                    .to_owned(),
            });
        };
        let node = Node {
            sandbox: self.sandbox.clone(),
            network: self.network.name().to_owned(),
            instance_id: launch.instance_id.clone(),
            image_id: launch.image_id,
            address,
            gateway: self.node_url(),
            program: self.program.clone(),
            kept: self.paths.kept(&launch.instance_id),
        };
        let (orders, ordered) = mpsc::unbounded_channel();
        machines.orders.insert(launch.instance_id, orders);
        let (docker, last_words) = (self.docker.clone(), self.last_words.clone());
        machines.lives.spawn(async move {
            machine::live(&docker, &node, &last_words, ordered, report).await;
            node
        });
    }

    fn copy_image(&self, from: String, to: String, reply: oneshot::Sender<Result<(), String>>) {
        let docker = self.docker.clone();
        tokio::spawn(async move {
            let copied = image::copy(&docker, &from, &to).await;
            // Nobody listening any more is no reason to fail.
            let _ = reply.send(copied.map_err(|error| format!("{error:#}")));
        });
    }

    fn console(&self, instance_id: &str, reply: oneshot::Sender<Option<String>>) {
        let docker = self.docker.clone();
        let name = container_name(&self.sandbox, instance_id);
        let last_words = self.last_words.clone();
        let instance_id = instance_id.to_owned();
        tokio::spawn(async move {
            // In this order: last words are kept before the container goes.
            let text = machine::console(&docker, &name)
                .await
                .or_else(|| last_words.of(&instance_id));
            // Nobody listening any more is no reason to fail.
            let _ = reply.send(text);
        });
    }
}

/// Consoles of machines that are gone, by instance id: EC2 keeps them for a while, and they say why
/// a machine did not make it.
#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<HashMap<String, String>>>);

impl LastWords {
    fn keep(&self, instance_id: &str, text: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(instance_id.to_owned(), text);
    }

    fn of(&self, instance_id: &str) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(instance_id).cloned()
    }
}

/// The machines there are, and the addresses left for more.
struct Machines {
    addresses: Addresses,
    /// To each machine's own task, by instance id.
    orders: HashMap<String, mpsc::UnboundedSender<Order>>,
    lives: JoinSet<Node>,
}

impl Machines {
    fn of(network: &Network) -> Self {
        Self {
            addresses: Addresses::of(network.third_octet()),
            orders: HashMap::new(),
            lives: JoinSet::new(),
        }
    }

    /// Passes an order on. The machine's own task answers it; nobody does for a stranger, and so a
    /// stranger is gone.
    fn order(&self, instance_id: String, order: Order, report: &impl Fn(MachineEvent)) {
        match self.orders.get(&instance_id) {
            // A machine that has just ended does not listen any more, and says so itself.
            Some(orders) => drop(orders.send(order)),
            None => report(MachineEvent::Gone { instance_id }),
        }
    }

    /// Its own task makes the image, once it has carried out what it was ordered before.
    fn snapshot(
        &self,
        instance_id: &str,
        image_id: String,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        match self.orders.get(instance_id) {
            Some(orders) => drop(orders.send(Order::Snapshot { image_id, reply })),
            // Nobody listening any more is no reason to fail.
            None => drop(reply.send(Err(format!("there is no machine {instance_id}")))),
        }
    }

    fn forget(&mut self, node: &Node) {
        self.orders.remove(&node.instance_id);
        self.addresses.give_back(node.address);
    }
}

/// This program's own file.
pub(crate) fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find this program's own file")
}
