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

use std::{collections::HashMap, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use bollard::Docker;
use fleet_sandbox::machines::{Launch, MachineCommand, MachineEvent};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use self::{addresses::Addresses, network::Network, node::Node};

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
    network: Network,
    /// This program, mounted into the nodes as their ECS agent.
    program: PathBuf,
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
            network,
            program,
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
        let mut addresses = Addresses::of(self.network.third_octet());
        let mut running: HashMap<String, oneshot::Sender<()>> = HashMap::new();
        let mut lives = JoinSet::new();
        loop {
            // Both arms are cancel safe: recv and join_next lose nothing.
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(MachineCommand::Launch(launch)) => {
                        let Some(node) = self.node(&launch, &mut addresses) else {
                            report(no_address(launch.instance_id));
                            continue;
                        };
                        let (terminate, terminated) = oneshot::channel();
                        running.insert(launch.instance_id, terminate);
                        let docker = self.docker.clone();
                        let report = report.clone();
                        lives.spawn(async move {
                            machine::live(&docker, &node, terminated, report).await;
                            node
                        });
                    }
                    Some(MachineCommand::Terminate { instance_id }) => {
                        // The machine's own task answers; it may just have powered itself off.
                        let told = running.remove(&instance_id).map(|terminate| terminate.send(()));
                        if told.is_none() {
                            report(MachineEvent::Gone { instance_id });
                        }
                    }
                    Some(MachineCommand::Console { instance_id, reply }) => {
                        let docker = self.docker.clone();
                        let name = container_name(&self.sandbox, &instance_id);
                        tokio::spawn(async move {
                            // Nobody listening any more is no reason to fail.
                            let _ = reply.send(machine::console(&docker, &name).await);
                        });
                    }
                },
                Some(ended) = lives.join_next() => match ended {
                    Ok(node) => {
                        running.remove(&node.instance_id);
                        addresses.give_back(node.address);
                    }
                    Err(error) => log::error!("machine room: {error}"),
                },
            }
        }
    }

    fn node(&self, launch: &Launch, addresses: &mut Addresses) -> Option<Node> {
        Some(Node {
            sandbox: self.sandbox.clone(),
            network: self.network.name().to_owned(),
            instance_id: launch.instance_id.clone(),
            image_id: launch.image_id.clone(),
            address: addresses.take()?,
            gateway: self.node_url(),
            program: self.program.clone(),
        })
    }
}

fn no_address(instance_id: String) -> MachineEvent {
    MachineEvent::Failed {
        instance_id,
        reason: "InsufficientFreeAddressesInSubnet: the sandbox's network is full".to_owned(),
    }
}

/// This program's own file.
pub(crate) fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find this program's own file")
}
