//! The words between machine and driver.

use std::{collections::BTreeMap, time::Duration};

use fleet_agent_config::{Drain, Health as HealthPolicy, Reaction, Settings, sidecars_seconds};

use super::{cause::Spans, saved::Saved};
use crate::{
    clients::{
        autoscaling::HookAnswer,
        docker::Whose,
        ecs::{Registration, SetDraining},
        imds::{Identity, Maintenance, SpotNotice, Target},
        introspection::AgentTask,
    },
    health::{Health, guard::Around, watch},
    journal::event::Entry,
    moment::Moment,
    sidecars::{execute::Round, plan::Scope},
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
    /// Tasks are gone; the machine stays, and so do its sidecars, until the cause is withdrawn.
    Drained,
    /// Sidecars flush and stop.
    Flushing,
    /// The terminating action is answered.
    Completing,
    Done,
}

impl Phase {
    pub(crate) const ALL: [Self; 11] = [
        Self::Starting,
        Self::Gated,
        Self::Launching,
        Self::Abandoning,
        Self::InService,
        Self::Draining,
        Self::Stopping,
        Self::Drained,
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
            Self::Drained => "drained",
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

/// Said wherever a node may have been denied for the tag that tells it from its neighbours: that AWS
/// knows instances by it is documented, but not for each service.
pub(crate) const TOLD_APART: &str =
    "[iam] scope = \"instance\" may be why, \"cluster\" is the way back";

/// The bounds of a life, from the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// From first seeing the launch to giving up.
    pub(crate) launch: Duration,
    pub(crate) spans: Spans,
    pub(crate) drain: Drain,
    /// What a node does whose disk is full.
    pub(crate) full_disk: Reaction,
    /// What becomes of a node that stays impaired.
    pub(crate) health: HealthPolicy,
    pub(crate) launch_hook: String,
    pub(crate) drain_hook: String,
    /// Its role tells it from its neighbours by a tag that it registers with.
    pub(crate) is_told_apart: bool,
    /// Spreads this node's retries and refreshes: any number of its own.
    pub(crate) seed: u64,
}

impl Policy {
    /// `container_stop` is what ECS gives a task's container to end.
    pub(crate) fn new(settings: &Settings, container_stop: Duration, seed: u64) -> Self {
        let launch = Duration::from_secs(settings.launch_timeout_seconds.into());
        Self {
            // The hook's own time-out began earlier, with the instance.
            launch: launch - (launch / 4).min(Duration::from_secs(30)),
            spans: Spans {
                drain: Duration::from_secs(settings.drain.deadline_seconds.into()),
                container_stop,
                sidecars: Duration::from_secs(sidecars_seconds(&settings.sidecars).into()),
            },
            drain: settings.drain.clone(),
            full_disk: settings.disk.full,
            health: settings.health,
            launch_hook: settings.launch_hook.clone(),
            drain_hook: settings.drain_hook.clone(),
            is_told_apart: settings.node.instance_tag,
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
    ReadSpot,
    ReadMaintenance,
    ReadTag,
    ConvergeSidecars,
    ClearCheckpoint,
    Release,
    ReadEcsAgent,
    HealEcs,
    Describe,
    Publish,
    OpenLaunch,
    CompleteLaunch,
    AbandonLaunch,
    SetDraining,
    SetActive,
    CountTasks,
    ReadGroups,
    StopStandalone,
    ConfirmEmpty,
    ShutGate,
    StopLeftovers,
    StopSidecars,
    CompleteDrain,
    ProbeDrain,
    LookAround,
    Condemn,
    PowerOff,
    /// [`Action::Save`], which is done at once.
    Keep,
}

impl Job {
    pub(crate) const COUNT: usize = Self::Keep as usize + 1;

    /// Fits after "failed to".
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "read the instance's identity",
            Self::WriteEcsConfig => "write ecs.config",
            Self::ReadTarget => "read the target lifecycle state",
            Self::ReadSpot => "read spot notices",
            Self::ReadMaintenance => "read scheduled maintenance",
            Self::ReadTag => "read the instance's tags",
            Self::ClearCheckpoint => "clear the ECS agent's checkpoint",
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
            Self::SetActive => "set the container instance back to ACTIVE",
            Self::CountTasks => "count tasks",
            Self::ReadGroups => "ask ECS whose the tasks are",
            Self::StopStandalone => "stop standalone tasks",
            Self::ConfirmEmpty => "confirm with ECS that no task is left",
            Self::ShutGate => "hold ecs.service back for good",
            Self::StopLeftovers => "stop leftover tasks",
            Self::StopSidecars => "stop the sidecars",
            Self::CompleteDrain => "complete the drain",
            Self::ProbeDrain => "look for a terminating action",
            Self::LookAround => "read how the other nodes of the group are",
            Self::Condemn => "have Auto Scaling replace this node",
            Self::PowerOff => "power the machine off",
            Self::Keep => "keep the state",
        }
    }
}

/// A job with all it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    Identify,
    WriteEcsConfig,
    ReadTarget,
    ReadSpot,
    ReadMaintenance,
    ReadTag,
    ConvergeSidecars(Scope),
    ClearCheckpoint,
    Release,
    ReadEcsAgent,
    HealEcs,
    Describe(String),
    Publish(String, Attributes),
    OpenLaunch,
    CompleteLaunch,
    AbandonLaunch,
    SetDraining(String),
    SetActive(String),
    CountTasks,
    ReadGroups(String),
    /// These tasks.
    StopStandalone(Vec<String>),
    ConfirmEmpty(String),
    ShutGate,
    /// Each gets so long to end. ecs.service stays held back.
    StopLeftovers(Duration),
    /// All of it within so long.
    StopSidecars(Duration),
    CompleteDrain,
    ProbeDrain,
    LookAround,
    Condemn,
    PowerOff,
}

impl Work {
    pub(crate) const fn job(&self) -> Job {
        match self {
            Self::Identify => Job::Identify,
            Self::WriteEcsConfig => Job::WriteEcsConfig,
            Self::ReadTarget => Job::ReadTarget,
            Self::ReadSpot => Job::ReadSpot,
            Self::ReadMaintenance => Job::ReadMaintenance,
            Self::ReadTag => Job::ReadTag,
            Self::ClearCheckpoint => Job::ClearCheckpoint,
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
            Self::SetActive(_) => Job::SetActive,
            Self::CountTasks => Job::CountTasks,
            Self::ReadGroups(_) => Job::ReadGroups,
            Self::StopStandalone(_) => Job::StopStandalone,
            Self::ConfirmEmpty(_) => Job::ConfirmEmpty,
            Self::ShutGate => Job::ShutGate,
            Self::StopLeftovers(_) => Job::StopLeftovers,
            Self::StopSidecars(_) => Job::StopSidecars,
            Self::CompleteDrain => Job::CompleteDrain,
            Self::ProbeDrain => Job::ProbeDrain,
            Self::LookAround => Job::LookAround,
            Self::Condemn => Job::Condemn,
            Self::PowerOff => Job::PowerOff,
        }
    }
}

/// What the node says of itself in ECS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) health: Health,
    pub(crate) since: Moment,
    pub(crate) intent: &'static str,
    /// All sidecars have been up in this run.
    pub(crate) settled: bool,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Identified {
        identity: Identity,
        /// Differs from boot to boot.
        boot: String,
        /// The gate has been opened in this boot already.
        released: bool,
        saved: Option<Box<Saved>>,
    },
    /// ecs.config is as it must be.
    EcsConfig(ConfigWritten),
    Target(Target),
    Spot(SpotNews),
    Maintenance(Vec<Scheduled>),
    /// `fleet:drain` of this instance.
    Tag(Option<String>),
    Sidecars(Round),
    CheckpointCleared,
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
    /// The container instance is ACTIVE again; false if ECS knows it no longer.
    Active(bool),
    Tasks(Tasks),
    /// Task to group: `service:NAME`, or another for a standalone task.
    Groups(BTreeMap<String, String>),
    StandaloneStopped {
        stopped: usize,
        left: usize,
    },
    /// Tasks that ECS does not know to be STOPPED.
    Confirmed(usize),
    GateShut,
    Leftovers {
        stopped: usize,
        left: usize,
    },
    SidecarsStopped(usize),
    /// How the other nodes of the group are.
    Around(Around),
    Condemned,
    PoweringOff,
}

impl Outcome {
    /// What failed in a job that came to something all the same.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Self::Sidecars(round) = self {
            round.problem.clone()
        } else if let Self::Leftovers {
            left: left @ 1.., ..
        }
        | Self::StandaloneStopped {
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
    pub(crate) by_agent: Result<Vec<AgentTask>, String>,
    /// Task to its live containers.
    pub(crate) by_docker: Result<BTreeMap<String, usize>, String>,
}

/// What EC2 says of a spot instance, in the agent's own time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SpotNews {
    pub(crate) notice: Option<(SpotNotice, Moment)>,
    pub(crate) rebalance: Option<String>,
}

/// A maintenance, in the agent's own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scheduled {
    pub(crate) event: Maintenance,
    pub(crate) starts: Moment,
    pub(crate) ends: Option<Moment>,
}

/// What somebody on this node wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Drain {
        request: String,
        reason: String,
    },
    Undrain,
    /// The machine is shutting down.
    Shutdown,
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
    /// What came of [`Action::Save`]; told only when it fails, and when it goes well again.
    Kept(Result<(), String>),
    /// A container was started, or ended.
    Container(Whose),
    /// What is looked at beside the lifecycle has changed.
    Node(watch::Report),
    Order(Order),
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

/// An event that cannot come in this phase: a fault of ours, ignored and told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} while {}", phase.as_str())]
pub(crate) struct IllegalTransition {
    pub(crate) phase: Phase,
    pub(crate) event: String,
}
