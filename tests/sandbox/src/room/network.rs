//! The nodes' network and the pause container in it.

use std::{collections::HashMap, net::Ipv4Addr};

use anyhow::{Context as _, bail};
use bollard::{
    Docker,
    errors::Error,
    models::{
        ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam, IpamConfig,
        NetworkCreateRequest, NetworkingConfig,
    },
    query_parameters::CreateContainerOptionsBuilder,
};

use crate::{image::BUSYBOX, paths::LABEL};

/// Host part of the pause container's address.
const PAUSE_HOST: u8 = 2;

/// A network with its pause container.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    third_octet: u8,
    pause_pid: u32,
}

impl Network {
    /// Makes both, on the first free 10.213.X.0/24.
    pub(super) async fn create(docker: &Docker, sandbox: &str) -> anyhow::Result<Self> {
        let name = format!("fleet-sandbox-{sandbox}");
        let third_octet = create_network(docker, sandbox, &name).await?;
        let pause_pid = start_pause(docker, sandbox, &name, third_octet).await?;
        Ok(Self {
            name,
            third_octet,
            pause_pid,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn third_octet(&self) -> u8 {
        self.third_octet
    }

    pub(super) fn pause_address(&self) -> Ipv4Addr {
        pause_address(self.third_octet)
    }

    pub(super) fn pause_pid(&self) -> u32 {
        self.pause_pid
    }
}

fn pause_address(third_octet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, third_octet, PAUSE_HOST)
}

fn labels(sandbox: &str) -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), sandbox.to_owned())])
}

async fn create_network(docker: &Docker, sandbox: &str, name: &str) -> anyhow::Result<u8> {
    for third_octet in 0..=u8::MAX {
        let subnet = format!("10.213.{third_octet}.0/24");
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(subnet.clone()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            labels: Some(labels(sandbox)),
            ..Default::default()
        };
        match docker.create_network(request).await {
            Ok(_) => return Ok(third_octet),
            Err(error) if is_taken(&error) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("docker: create network {name} on {subnet}"));
            }
        }
    }
    bail!("docker: create network {name}: no free subnet in 10.213.0.0/16")
}

/// Another network, of Docker or of the host, has this subnet. Docker gives it no status of its
/// own.
fn is_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if message.contains("overlap"))
}

/// Starts the container whose only use is its network namespace; the process that keeps it.
async fn start_pause(
    docker: &Docker,
    sandbox: &str,
    network: &str,
    third_octet: u8,
) -> anyhow::Result<u32> {
    let name = format!("fleet-sandbox-{sandbox}-pause");
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker
        .create_container(
            Some(options),
            pause_container(sandbox, network, third_octet),
        )
        .await
        .with_context(|| format!("docker: create container {name}"))?;
    docker
        .start_container(&name, None)
        .await
        .with_context(|| format!("docker: start container {name}"))?;
    let inspected = docker
        .inspect_container(&name, None)
        .await
        .with_context(|| format!("docker: inspect container {name}"))?;
    inspected
        .state
        .and_then(|state| state.pid)
        .and_then(|pid| u32::try_from(pid).ok())
        .filter(|pid| *pid != 0)
        .with_context(|| format!("docker: container {name} has no process"))
}

fn pause_container(sandbox: &str, network: &str, third_octet: u8) -> ContainerCreateBody {
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(pause_address(third_octet).to_string()),
            ..Default::default()
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(BUSYBOX.to_owned()),
        cmd: Some(vec![
            "tail".to_owned(),
            "-f".to_owned(),
            "/dev/null".to_owned(),
        ]),
        labels: Some(labels(sandbox)),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            ..Default::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])),
        }),
        ..Default::default()
    }
}
