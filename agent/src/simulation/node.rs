//! A simulated machine: what runs on it, what is on its disk, what is wrong with it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::{sync::mpsc::Sender, task::AbortHandle};

use super::account::Marks;
use crate::{
    clients::{
        docker::Container,
        imds::{Maintenance, SpotNotice},
    },
    lifecycle::{event::Event, saved::Saved},
};

/// How something answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Works,
    Fails,
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    /// Off, to be on again.
    Off,
    On,
    Gone,
}

/// What can be wrong with one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Imds,
    Docker,
    Ecs,
    Aws,
    Disk,
    /// The agent itself: hung.
    Agent,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) instance: String,
    pub(super) group: String,
    pub(super) spot: bool,
    pub(super) power: Power,
    pub(super) boot: u32,
    /// Of the agent's process: what an older one began comes to nothing.
    pub(super) life: u64,
    pub(super) agent: Option<AbortHandle>,
    pub(super) events: Option<Sender<Event>>,
    pub(super) saved: Option<Saved>,
    pub(super) released: bool,
    pub(super) ecs_config: bool,
    /// Milliseconds that the node's clocks are ahead of the world's: it was suspended.
    pub(super) slept: u64,
    /// Milliseconds that its wall clock is wrong by.
    pub(super) wall_skew: i64,
    pub(super) notice: Option<SpotNotice>,
    pub(super) rebalance: Option<String>,
    pub(super) maintenance: Vec<Maintenance>,
    pub(super) tag: Option<String>,
    pub(super) faults: Faults,
    pub(super) ecs: EcsAgent,
    pub(super) containers: BTreeMap<String, TaskProcess>,
    pub(super) sidecars: Vec<Container>,
    pub(super) book: Book,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) imds: State,
    pub(super) docker: State,
    /// The ECS agent's process.
    pub(super) ecs: State,
    /// The way to AWS.
    pub(super) aws: State,
    pub(super) disk: State,
    pub(super) agent: State,
}

impl Faults {
    pub(super) fn of(&mut self, part: Part) -> &mut State {
        match part {
            Part::Imds => &mut self.imds,
            Part::Docker => &mut self.docker,
            Part::Ecs => &mut self.ecs,
            Part::Aws => &mut self.aws,
            Part::Disk => &mut self.disk,
            Part::Agent => &mut self.agent,
        }
    }
}

/// ecs.service and what it keeps.
#[derive(Debug, Default)]
pub(super) struct EcsAgent {
    /// systemd runs it.
    pub(super) active: bool,
    /// Its gate was shut when it was to start.
    pub(super) held_back: bool,
    pub(super) ready_at: u64,
    pub(super) connected: bool,
    /// The checkpoint.
    pub(super) arn: Option<String>,
    pub(super) orders: u64,
    pub(super) tasks: BTreeMap<String, KnownTask>,
    pub(super) synced_at: u64,
    pub(super) news: bool,
}

#[derive(Debug, Clone)]
pub(super) struct KnownTask {
    pub(super) family: String,
    /// When its container starts.
    pub(super) starts_at: u64,
    pub(super) container: Option<String>,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    /// The agent says it is STOPPED whatever its container does.
    pub(super) lies: bool,
}

/// A container of a task.
#[derive(Debug, Clone)]
pub(super) struct TaskProcess {
    pub(super) task: String,
    /// How long it takes to end after SIGTERM.
    pub(super) ends_after: u64,
    pub(super) ends_at: Option<u64>,
    /// ECS has been told that it is gone.
    pub(super) denied: bool,
}

/// A cause that the world made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) hard: bool,
    /// When all must be over.
    pub(super) end: u64,
    pub(super) withdrawn: Option<u64>,
}

/// A drain hook that holds the node.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// How long nothing could have been answered, milliseconds.
    pub(super) disturbed: u64,
    /// Calls in a row that came to nothing.
    pub(super) missed: u32,
    /// Let go by somebody else.
    pub(super) excused: bool,
}

/// What the world keeps of a node to judge it by.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) causes: Vec<Made>,
    pub(super) open: Option<Open>,
    pub(super) answered: bool,
    /// Whoever took it from ACTIVE to DRAINING, if not us.
    pub(super) drained_by_other: bool,
    /// When ECS last told the agent that the node is ACTIVE.
    pub(super) told_active: Option<u64>,
    pub(super) drained_by_other_at: u64,
    /// When something last kept the agent from its work.
    pub(super) disturbed_at: u64,
    /// When Docker was last of no help.
    pub(super) docker_down_at: u64,
    pub(super) docker_down_since: Option<u64>,
    pub(super) warm_since: Option<u64>,
    pub(super) sidecars_stopped_at: Option<u64>,
    pub(super) aws_calls: u64,
    pub(super) heartbeats: u64,
    /// Of the agent's process.
    pub(super) restarts: u64,
    pub(super) drains: u64,
    pub(super) late_told: bool,
    /// Its launch was abandoned.
    pub(super) gave_up: bool,
    pub(super) serving_since: Option<u64>,
    /// What was last to be kept is not on the disk.
    pub(super) unkept: bool,
    /// An agent ended while that was so: what it knew, nobody can know.
    pub(super) forgot: bool,
    pub(super) marks: Marks,
}

impl Node {
    pub(super) fn new(instance: String, group: String, spot: bool) -> Self {
        Self {
            instance,
            group,
            spot,
            power: Power::Off,
            boot: 0,
            life: 0,
            agent: None,
            events: None,
            saved: None,
            released: false,
            ecs_config: false,
            slept: 0,
            wall_skew: 0,
            notice: None,
            rebalance: None,
            maintenance: Vec::new(),
            tag: None,
            faults: Faults::default(),
            ecs: EcsAgent::default(),
            containers: BTreeMap::new(),
            sidecars: Vec::new(),
            book: Book::default(),
        }
    }

    /// The agent's process ends here and now.
    pub(super) fn kill(&mut self) {
        self.book.forgot |= self.book.unkept;
        self.book.restarts += 1;
        self.life += 1;
        self.events = None;
        self.faults.agent = State::Works;
        if let Some(agent) = self.agent.take() {
            agent.abort();
        }
    }

    pub(super) fn is_agent_up(&self) -> bool {
        self.agent.is_some() && self.faults.agent == State::Works
    }

    pub(super) fn cause(&mut self, id: String, hard: bool, end: u64) {
        if self.book.causes.iter().all(|made| made.id != id) {
            self.book.drains += 1;
            self.book.late_told = false;
            let withdrawn = None;
            self.book.causes.push(Made {
                id,
                hard,
                end,
                withdrawn,
            });
        }
    }

    pub(super) fn withdraw(&mut self, prefix: &str, now: u64) {
        for made in &mut self.book.causes {
            if made.id.starts_with(prefix) && made.withdrawn.is_none() {
                made.withdrawn = Some(now);
            }
        }
    }

    pub(super) fn tell(&self, event: Event) -> bool {
        self.events
            .as_ref()
            .is_some_and(|events| events.try_send(event).is_ok())
    }

    pub(super) fn sidecar_started(&mut self, name: &str, spec: &str, started: Timestamp) {
        self.sidecars.push(Container {
            id: format!("sidecar-{name}"),
            sidecar: name.to_owned(),
            spec: spec.to_owned(),
            running: true,
            restarting: false,
            healthy: None,
            started: Some(started),
        });
    }
}
