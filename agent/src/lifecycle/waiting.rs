//! What a node waits on; shown in the unit's status line, in `status` and in the journal.

use std::fmt;

use super::event::Job;
use crate::{clients::imds::Target, health::guard::Held};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    Nothing,
    Identity,
    EcsConfig,
    Sidecars(String),
    Target(Option<Target>),
    /// The block of the metadata service.
    Guard,
    Release,
    EcsService(Option<String>),
    Registration,
    Connection(Option<String>),
    Permission,
    /// A container to have been run.
    Probe,
    LaunchHook(String),
    Termination,
    SetDraining(Option<String>),
    Tasks(Option<usize>),
    /// Nothing has moved for long; what stays, and why.
    Stalled(String),
    Docker,
    EcsAgree(usize),
    Gate,
    Leftovers,
    /// Drained, for this.
    Withdrawal(String),
    Active,
    SidecarsStopping,
    DrainHook(String),
    /// To be replaced.
    Turn(Held),
    PowerOff,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Identity => f.write_str("the instance metadata service"),
            Self::EcsConfig => f.write_str("ecs.config to be written"),
            Self::Sidecars(which) => write!(f, "sidecars: {which}"),
            Self::Target(Some(target)) => {
                write!(f, "Auto Scaling: target lifecycle state is {target}")
            }
            Self::Target(None) => f.write_str("the target lifecycle state"),
            Self::Guard => f.write_str("containers to be kept from the metadata service"),
            Self::Release => f.write_str("ecs.service to be released"),
            Self::EcsService(Some(unit)) => write!(f, "the ECS agent: {unit}"),
            Self::EcsService(None) => f.write_str("the ECS agent to answer"),
            Self::Registration => f.write_str("the ECS agent to register"),
            Self::Connection(Some(status)) => write!(f, "ECS: the container instance is {status}"),
            Self::Connection(None) => f.write_str("ECS: the container instance's state"),
            Self::Permission => f.write_str("proof of this node's permissions (ecs:PutAttributes)"),
            Self::Probe => {
                f.write_str("Docker to run a container, apart from the metadata service")
            }
            Self::LaunchHook(hook) => write!(f, "{hook} to be answered"),
            Self::Termination => f.write_str("Auto Scaling to replace this node"),
            Self::SetDraining(Some(why)) => write!(f, "DRAINING to be set: refused while {why}"),
            Self::SetDraining(None) => f.write_str("DRAINING to be set"),
            Self::Tasks(Some(1)) => f.write_str("1 task to leave"),
            Self::Tasks(Some(tasks)) => write!(f, "{tasks} tasks to leave"),
            Self::Tasks(None) => f.write_str("tasks to be counted"),
            Self::Stalled(what) => write!(f, "tasks that do not leave: {what}"),
            Self::Docker => f.write_str("Docker to answer"),
            Self::EcsAgree(tasks) => write!(f, "ECS to agree: it knows of {tasks} more"),
            Self::Gate => f.write_str("ecs.service to be held back"),
            Self::Leftovers => f.write_str("leftover tasks to stop"),
            Self::Withdrawal(cause) => write!(f, "the end of: {cause}"),
            Self::Active => f.write_str("the container instance to be ACTIVE again"),
            Self::SidecarsStopping => f.write_str("sidecars to stop"),
            Self::DrainHook(hook) => write!(f, "{hook} to be answered"),
            Self::Turn(held) => write!(f, "its turn to be replaced: {held}"),
            Self::PowerOff => f.write_str("the machine to power off"),
        }
    }
}

impl Waiting {
    /// The job whose end is waited for.
    pub(crate) const fn job(&self) -> Option<Job> {
        Some(match self {
            Self::Identity => Job::Identify,
            Self::EcsConfig => Job::WriteEcsConfig,
            Self::Sidecars(_) => Job::ConvergeSidecars,
            Self::Target(_) => Job::ReadTarget,
            Self::Release => Job::Release,
            Self::EcsService(_) => Job::HealEcs,
            Self::Registration => Job::ReadEcsAgent,
            Self::Connection(_) => Job::Describe,
            Self::Permission => Job::Publish,
            Self::LaunchHook(_) => Job::CompleteLaunch,
            Self::SetDraining(_) => Job::SetDraining,
            Self::Tasks(_) | Self::Stalled(_) => Job::CountTasks,
            Self::Active => Job::SetActive,
            Self::EcsAgree(_) => Job::ConfirmEmpty,
            Self::Gate => Job::ShutGate,
            Self::Leftovers => Job::StopLeftovers,
            Self::SidecarsStopping => Job::StopSidecars,
            Self::DrainHook(_) => Job::CompleteDrain,
            Self::Turn(_) => Job::LookAround,
            Self::PowerOff => Job::PowerOff,
            Self::Guard
            | Self::Probe
            | Self::Nothing
            | Self::Termination
            | Self::Withdrawal(_)
            | Self::Docker => return None,
        })
    }

    /// Whether two waits are the same but for a number, which is not news.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tasks(_), Self::Tasks(_))
            | (Self::EcsAgree(_), Self::EcsAgree(_))
            | (Self::Stalled(_), Self::Stalled(_))
            | (Self::Turn(_), Self::Turn(_)) => true,
            _ => self == other,
        }
    }
}
