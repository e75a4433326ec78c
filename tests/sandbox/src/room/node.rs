//! The container a machine is: what `docker run` would be told, flag by flag.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig,
    HostConfigCgroupnsModeEnum, Mount, MountType, MountVolumeOptions, NetworkingConfig,
};

use crate::paths::LABEL;

/// Where ecs.service expects its program.
const ECS_AGENT: &str = "/usr/libexec/fleet-sandbox";
/// Where sandbox-journal.service writes.
const KEPT: &str = "/var/log/fleet-sandbox";

/// A machine to be.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) sandbox: String,
    pub(super) network: String,
    pub(super) instance_id: String,
    pub(super) image_id: String,
    pub(super) address: Ipv4Addr,
    /// The gateway, for every service in the node.
    pub(super) gateway: String,
    /// This program, on the host.
    pub(super) program: PathBuf,
    /// A directory on the host that outlives the machine.
    pub(super) kept: PathBuf,
}

/// Name of the container that is this instance.
pub(crate) fn container_name(sandbox: &str, instance_id: &str) -> String {
    format!("fleet-sandbox-{sandbox}-{instance_id}")
}

/// The host name EC2 gives: `ip-10-213-0-10`.
pub(crate) fn host_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}")
}

impl Node {
    pub(super) fn container_name(&self) -> String {
        container_name(&self.sandbox, &self.instance_id)
    }

    /// The container, booting `image`.
    pub(super) fn container(&self, image: String) -> ContainerCreateBody {
        ContainerCreateBody {
            hostname: Some(host_name(self.address)),
            image: Some(image),
            // A terminal makes /dev/console work, and `docker logs` the console.
            tty: Some(true),
            env: Some(vec![format!("AWS_ENDPOINT_URL={}", self.gateway)]),
            labels: Some(self.labels()),
            // systemd's "halt".
            stop_signal: Some("SIGRTMIN+3".to_owned()),
            host_config: Some(self.host_config()),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(self.network.clone(), self.endpoint())])),
            }),
            ..Default::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.sandbox.clone())])
    }

    fn endpoint(&self) -> EndpointSettings {
        EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(self.address.to_string()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Nearly `--privileged`; that itself fails where the host lacks CAP_SYS_RESOURCE.
    fn host_config(&self) -> HostConfig {
        let options = |flags: &[(&str, &str)]| {
            flags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        HostConfig {
            network_mode: Some(self.network.clone()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            cap_add: Some(vec!["ALL".to_owned()]),
            cap_drop: Some(vec!["SYS_RESOURCE".to_owned()]),
            security_opt: Some(vec![
                "seccomp=unconfined".to_owned(),
                "apparmor=unconfined".to_owned(),
            ]),
            // Together the command line's `systempaths=unconfined`.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            device_cgroup_rules: Some(vec!["a *:* rwm".to_owned()]),
            tmpfs: Some(options(&[
                ("/run", "exec"),
                ("/run/lock", ""),
                ("/tmp", "exec"),
            ])),
            mounts: Some(vec![
                self.volume("/var/lib/docker"),
                self.volume("/var/lib/containerd"),
                bind(&self.program, ECS_AGENT, true),
                bind(&self.kept, KEPT, false),
            ]),
            ..Default::default()
        }
    }

    /// An overlay cannot lie on the container's own overlay: Docker's data need a real disk.
    fn volume(&self, target: &str) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            target: Some(target.to_owned()),
            volume_options: Some(MountVolumeOptions {
                labels: Some(self.labels()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_addressed_and_labelled() {
        let node = Node {
            sandbox: "ci".to_owned(),
            network: "fleet-sandbox-ci".to_owned(),
            instance_id: "i-0a".to_owned(),
            image_id: "ami-1".to_owned(),
            address: Ipv4Addr::new(10, 213, 4, 11),
            gateway: "http://10.213.4.2:4566".to_owned(),
            program: PathBuf::from("/opt/fleet-sandbox"),
            kept: PathBuf::from("/run/kept"),
        };
        assert_eq!(node.container_name(), "fleet-sandbox-ci-i-0a");
        let body = node.container("image:1".to_owned());
        assert_eq!(body.hostname.as_deref(), Some("ip-10-213-4-11"));
        assert_eq!(body.labels.unwrap()["fleet-sandbox"], "ci");
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        let address = endpoints["fleet-sandbox-ci"].ipam_config.clone().unwrap();
        assert_eq!(address.ipv4_address.as_deref(), Some("10.213.4.11"));
        for mount in body.host_config.unwrap().mounts.unwrap() {
            if let Some(volume) = mount.volume_options {
                assert_eq!(volume.labels.unwrap()["fleet-sandbox"], "ci");
            }
        }
    }
}
