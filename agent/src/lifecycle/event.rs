//! The words between machine and driver.

use std::{fmt, time::Duration};

use fleet_agent_config::Settings;

use crate::{
    clients::{
        autoscaling::HookAnswer,
        docker::Whose,
        ecs::{Registration, SetDraining},
        imds::{Identity, Target},
    },
    health::Health,
    journal::event::Entry,
    moment::Moment,
    sidecars::{
        execute::{Round, stop_bound},
        plan::Scope,
    },
};

/// Where a node is in its life. Each phase knows what it is waiting for; see `docs/lifecycle.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// ecs.config and the sidecars that tasks need are being made ready.
    Starting,
    /// Ready, but Auto Scaling does not want the node in service yet.
    Gated,
    /// ECS may start; the node has to prove itself.
    Launching,
    /// It did not, in time.
    Abandoning,
    InService,
    /// A cause to go stands: tasks leave.
    Draining,
    /// The drain's time is up: what is left is stopped.
    Stopping,
    /// Sidecars stop.
    Flushing,
    /// The terminating action is answered.
    Completing,
    Done,
}

impl Phase {
    pub(crate) const ALL: [Self; 10] = [
        Self::Starting,
        Self::Gated,
        Self::Launching,
        Self::Abandoning,
        Self::InService,
        Self::Draining,
        Self::Stopping,
        Self::Flushing,
        Self::Completing,
        Self::Done,
    ];

    /// Stable: stands in the state file, the status and the documentation.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Gated => "gated",
            Self::Launching => "launching",
            Self::Abandoning => "abandoning",
            Self::InService => "in-service",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Flushing => "flushing",
            Self::Completing => "completing",
            Self::Done => "done",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    pub(crate) fn is_leaving(self) -> bool {
        self >= Self::Draining
    }
}

/// Why a node has to go. A drain has one; each has an id that stays the same over restarts, so
/// that no cause is ever met twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Auto Scaling terminates the instance.
    AutoScaling,
}

impl Cause {
    /// Stable for one instance: an instance is terminated once.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::AutoScaling => "auto-scaling-termination",
        }
    }

    pub(crate) fn parse(id: &str) -> Option<Self> {
        (id == Self::AutoScaling.id()).then_some(Self::AutoScaling)
    }

    /// For people.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::AutoScaling => "Auto Scaling",
        }
    }

    /// `fleet.intent`: a termination cannot be called off.
    pub(crate) const fn intent(self) -> &'static str {
        match self {
            Self::AutoScaling => "leave",
        }
    }

    /// When a drain for this cause that began at `began` must end.
    pub(crate) fn deadline(self, began: Moment, policy: &Policy) -> Moment {
        match self {
            Self::AutoScaling => began + policy.drain,
        }
    }
}

/// The bounds of a life, from the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// From first seeing the launch to giving up.
    pub(crate) launch: Duration,
    /// From a cause to the answer.
    pub(crate) drain: Duration,
    /// Taken off the drain's end: what stopping leftovers and sidecars may take.
    pub(crate) drain_reserve: Duration,
    /// The last part of that reserve: for the sidecars and the answer.
    pub(crate) flush: Duration,
    pub(crate) launch_hook: String,
    pub(crate) drain_hook: String,
    /// Spreads this node's retries and refreshes: any number of its own.
    pub(crate) seed: u64,
}

/// What answering the hook and the last records take.
const ANSWER: Duration = Duration::from_secs(15);

impl Policy {
    /// `container_stop` is what ECS gives a task's container to end.
    pub(crate) fn new(settings: &Settings, container_stop: Duration, seed: u64) -> Self {
        let launch = Duration::from_secs(settings.launch_timeout_seconds.into());
        let drain = Duration::from_secs(settings.drain_deadline_seconds.into());
        let flush = stop_bound(&settings.sidecars) + ANSWER;
        let drain_reserve = (container_stop + flush).min(drain / 2);
        Self {
            // The hook's own time-out began earlier, with the instance.
            launch: launch - (launch / 4).min(Duration::from_secs(30)),
            drain,
            drain_reserve,
            flush: flush.min(drain_reserve / 2),
            launch_hook: settings.launch_hook.clone(),
            drain_hook: settings.drain_hook.clone(),
            seed,
        }
    }
}

/// One kind of work; at most one of each is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    Identify,
    WriteEcsConfig,
    ReadTarget,
    ConvergeSidecars,
    Release,
    ReadEcsAgent,
    HealEcs,
    Describe,
    Publish,
    OpenLaunch,
    CompleteLaunch,
    AbandonLaunch,
    SetDraining,
    CountTasks,
    ConfirmEmpty,
    ShutGate,
    StopLeftovers,
    StopSidecars,
    CompleteDrain,
    ProbeDrain,
}

impl Job {
    /// Fits after "failed to".
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "read the instance's identity",
            Self::WriteEcsConfig => "write ecs.config",
            Self::ReadTarget => "read the target lifecycle state",
            Self::ConvergeSidecars => "bring the sidecars up",
            Self::Release => "release ecs.service",
            Self::ReadEcsAgent => "ask the ECS agent",
            Self::HealEcs => "look after ecs.service",
            Self::Describe => "read the container instance",
            Self::Publish => "publish attributes",
            Self::OpenLaunch => "look for the launch action",
            Self::CompleteLaunch => "complete the launch",
            Self::AbandonLaunch => "abandon the launch",
            Self::SetDraining => "set the container instance to DRAINING",
            Self::CountTasks => "count tasks",
            Self::ConfirmEmpty => "confirm with ECS that no task is left",
            Self::ShutGate => "hold ecs.service back for good",
            Self::StopLeftovers => "stop leftover tasks",
            Self::StopSidecars => "stop the sidecars",
            Self::CompleteDrain => "complete the drain",
            Self::ProbeDrain => "look for a terminating action",
        }
    }
}

/// A job with all it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Identify,
    WriteEcsConfig,
    ReadTarget,
    ConvergeSidecars(Scope),
    Release,
    ReadEcsAgent,
    HealEcs,
    Describe(String),
    Publish(String, Attributes),
    OpenLaunch,
    CompleteLaunch,
    AbandonLaunch,
    SetDraining(String),
    CountTasks,
    ConfirmEmpty(String),
    ShutGate,
    StopLeftovers,
    StopSidecars,
    CompleteDrain,
    ProbeDrain,
}

impl Work {
    pub(crate) const fn job(&self) -> Job {
        match self {
            Self::Identify => Job::Identify,
            Self::WriteEcsConfig => Job::WriteEcsConfig,
            Self::ReadTarget => Job::ReadTarget,
            Self::ConvergeSidecars(_) => Job::ConvergeSidecars,
            Self::Release => Job::Release,
            Self::ReadEcsAgent => Job::ReadEcsAgent,
            Self::HealEcs => Job::HealEcs,
            Self::Describe(_) => Job::Describe,
            Self::Publish(..) => Job::Publish,
            Self::OpenLaunch => Job::OpenLaunch,
            Self::CompleteLaunch => Job::CompleteLaunch,
            Self::AbandonLaunch => Job::AbandonLaunch,
            Self::SetDraining(_) => Job::SetDraining,
            Self::CountTasks => Job::CountTasks,
            Self::ConfirmEmpty(_) => Job::ConfirmEmpty,
            Self::ShutGate => Job::ShutGate,
            Self::StopLeftovers => Job::StopLeftovers,
            Self::StopSidecars => Job::StopSidecars,
            Self::CompleteDrain => Job::CompleteDrain,
            Self::ProbeDrain => Job::ProbeDrain,
        }
    }
}

/// What the node says of itself in ECS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) health: Health,
    pub(crate) since: Moment,
    pub(crate) intent: &'static str,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Identified {
        identity: Identity,
        /// The gate has been opened in this boot already.
        released: bool,
        saved: Option<Saved>,
    },
    /// ecs.config is as it must be.
    EcsConfig(ConfigWritten),
    Target(Target),
    Sidecars(Round),
    /// The gate is open; whether it was us, now.
    Released {
        now: bool,
    },
    /// The ECS agent answers; its container instance once it has registered.
    EcsAgent(Option<String>),
    Healed(Healed),
    Described(Registration),
    Published(Attributes),
    Hook(HookAnswer),
    Draining(SetDraining),
    Tasks(Tasks),
    /// Tasks that ECS does not know to be STOPPED.
    Confirmed(usize),
    GateShut,
    Leftovers {
        stopped: usize,
        left: usize,
    },
    SidecarsStopped(usize),
}

impl Outcome {
    /// What failed in a job that came to something all the same.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Self::Sidecars(round) = self {
            round.problem.clone()
        } else if let Self::Leftovers {
            left: left @ 1.., ..
        } = self
        {
            // What is still there has to be stopped in another round.
            Some(format!("{left} still run"))
        } else {
            None
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigWritten {
    Unchanged,
    Changed,
    /// And ecs.service, which had read the old one, restarted.
    Restarted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Healed {
    Started(&'static str),
    /// Left alone, and why.
    Left(String),
}

/// Tasks as this node sees them; a side that cannot be asked says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) by_agent: Result<usize, String>,
    pub(crate) by_docker: Result<usize, String>,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time has passed.
    Tick,
    /// A job has ended; an error says what remote, call and resource.
    Finished(Job, Result<Outcome, String>),
    /// A heartbeat of the terminating action was answered.
    Heartbeat(HookAnswer),
    /// A container was started, or ended.
    Container(Whose),
}

/// Everything the machine can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Keep this on disk, before what follows.
    Save(Saved),
    /// Answered by [`Event::Finished`].
    Start(Work),
    /// Keep the terminating action open until told otherwise, at the latest until then.
    StartHeartbeats {
        until: Moment,
    },
    StopHeartbeats,
    Record(Entry),
    /// Tell it where an operator without access to the node can read it.
    Console(String),
}

/// What the world cannot tell after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) instance: String,
    pub(crate) container_instance: Option<String>,
    /// When Auto Scaling was first seen to want the node in service.
    pub(crate) launch_began: Option<Moment>,
    /// Whether the launch action was ever seen open: only then can it be abandoned.
    pub(crate) launch_seen_open: bool,
    pub(crate) launch_answered: bool,
    pub(crate) drain: Option<SavedDrain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedDrain {
    pub(crate) cause: Cause,
    pub(crate) began: Moment,
    /// Whether it was us who set DRAINING.
    pub(crate) set: bool,
    /// Whether the terminating action was ever seen open.
    pub(crate) seen_open: bool,
    pub(crate) phase: Phase,
}

/// An event that cannot come in this phase: a fault of ours, ignored and told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} while {}", phase.as_str())]
pub(crate) struct IllegalTransition {
    pub(crate) phase: Phase,
    pub(crate) event: String,
}

/// What a node waits on; shown in the unit's status line, in `status` and in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    Nothing,
    Identity,
    EcsConfig,
    Sidecars(String),
    Target(Option<Target>),
    Release,
    EcsService(Option<String>),
    Registration,
    Connection(Option<String>),
    Permission,
    LaunchHook(String),
    Termination,
    SetDraining(Option<String>),
    Tasks(Option<usize>),
    Docker,
    EcsAgree(usize),
    Gate,
    Leftovers,
    SidecarsStopping,
    DrainHook(String),
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
            Self::Release => f.write_str("ecs.service to be released"),
            Self::EcsService(Some(unit)) => write!(f, "the ECS agent: {unit}"),
            Self::EcsService(None) => f.write_str("the ECS agent to answer"),
            Self::Registration => f.write_str("the ECS agent to register"),
            Self::Connection(Some(status)) => write!(f, "ECS: the container instance is {status}"),
            Self::Connection(None) => f.write_str("ECS: the container instance's state"),
            Self::Permission => f.write_str("proof of this node's permissions (ecs:PutAttributes)"),
            Self::LaunchHook(hook) => write!(f, "{hook} to be answered"),
            Self::Termination => f.write_str("Auto Scaling to replace this node"),
            Self::SetDraining(Some(why)) => write!(f, "DRAINING to be set: refused while {why}"),
            Self::SetDraining(None) => f.write_str("DRAINING to be set"),
            Self::Tasks(Some(1)) => f.write_str("1 task to leave"),
            Self::Tasks(Some(tasks)) => write!(f, "{tasks} tasks to leave"),
            Self::Tasks(None) => f.write_str("tasks to be counted"),
            Self::Docker => f.write_str("Docker to answer"),
            Self::EcsAgree(tasks) => write!(f, "ECS to agree: it knows of {tasks} more"),
            Self::Gate => f.write_str("ecs.service to be held back"),
            Self::Leftovers => f.write_str("leftover tasks to stop"),
            Self::SidecarsStopping => f.write_str("sidecars to stop"),
            Self::DrainHook(hook) => write!(f, "{hook} to be answered"),
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
            Self::Tasks(_) => Job::CountTasks,
            Self::EcsAgree(_) => Job::ConfirmEmpty,
            Self::Gate => Job::ShutGate,
            Self::Leftovers => Job::StopLeftovers,
            Self::SidecarsStopping => Job::StopSidecars,
            Self::DrainHook(_) => Job::CompleteDrain,
            Self::Nothing | Self::Termination | Self::Docker => return None,
        })
    }

    /// Whether two waits are the same but for a number, which is not news.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tasks(_), Self::Tasks(_)) | (Self::EcsAgree(_), Self::EcsAgree(_)) => true,
            _ => self == other,
        }
    }
}
