//! One narrow trait and one adapter per remote, in the words of this program. Every call ends
//! within a bound of its own, and every error names the remote, the call and the resource.

pub(crate) mod autoscaling;
pub(crate) mod aws;
mod body;
pub(crate) mod disk;
pub(crate) mod docker;
pub(crate) mod ecr;
pub(crate) mod ecs;
pub(crate) mod firewall;
pub(crate) mod images;
pub(crate) mod imds;
pub(crate) mod introspection;
pub(crate) mod probe;
mod program;
pub(crate) mod ssm;
pub(crate) mod systemd;

use self::{
    autoscaling::AutoScaling, disk::Disk, docker::Docker, ecr::Ecr, ecs::Ecs, imds::Imds,
    introspection::Introspection, ssm::Ssm, systemd::Systemd,
};

/// Every remote of a node.
pub(crate) trait Clients {
    fn imds(&self) -> &impl Imds;
    fn ecr(&self) -> &impl Ecr;
    fn ecs(&self) -> &impl Ecs;
    fn autoscaling(&self) -> &impl AutoScaling;
    fn introspection(&self) -> &impl Introspection;
    fn docker(&self) -> &impl Docker;
    fn systemd(&self) -> &impl Systemd;
    fn disk(&self) -> &impl Disk;
    fn ssm(&self) -> &impl Ssm;
}

/// The real ones.
#[derive(Debug)]
pub(crate) struct Remotes {
    pub(crate) imds: imds::Metadata,
    pub(crate) aws: aws::Aws,
    pub(crate) introspection: introspection::EcsAgent,
    pub(crate) docker: docker::Dockerd,
    pub(crate) systemd: systemd::Systemctl,
    pub(crate) disk: disk::NodeDisk,
}

impl Clients for Remotes {
    fn imds(&self) -> &impl Imds {
        &self.imds
    }

    fn ecr(&self) -> &impl Ecr {
        &self.aws
    }

    fn ecs(&self) -> &impl Ecs {
        &self.aws
    }

    fn autoscaling(&self) -> &impl AutoScaling {
        &self.aws
    }

    fn introspection(&self) -> &impl Introspection {
        &self.introspection
    }

    fn docker(&self) -> &impl Docker {
        &self.docker
    }

    fn systemd(&self) -> &impl Systemd {
        &self.systemd
    }

    fn disk(&self) -> &impl Disk {
        &self.disk
    }

    fn ssm(&self) -> &impl Ssm {
        &self.aws
    }
}
