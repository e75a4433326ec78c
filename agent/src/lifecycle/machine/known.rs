//! What is known: of the world, of a launch, of a drain.

use super::*;

/// What is known of the world.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    pub(super) identity: Option<Identity>,
    pub(super) boot: String,
    pub(super) ecs_config: bool,
    pub(super) target: Option<Target>,
    pub(super) sidecars: Option<Vec<Report>>,
    /// All of them have been up in this run.
    pub(super) settled: bool,
    pub(super) released: bool,
    pub(super) gate_shut: bool,
    /// Whether the ECS agent was asked, whatever came of it.
    pub(super) agent_asked: bool,
    pub(super) container_instance: Option<String>,
    /// ecs.service, when it does not run.
    pub(super) unit: Option<String>,
    pub(super) registration: Option<Registration>,
    pub(super) published: Option<(Attributes, Moment)>,
    pub(super) tasks: Option<Tasks>,
    /// It was us who set DRAINING on an instance that was ACTIVE, or are about to: only then is it
    /// ours to set back.
    pub(super) ours: bool,
    pub(super) checkpoint_cleared: bool,
    /// None until it has been read in this run.
    pub(super) maintenance: Option<Vec<Scheduled>>,
    /// What has been told of once.
    pub(super) announced: BTreeSet<String>,
    pub(super) conditions: Conditions,
    /// What the watch beside this machine has found; none before its first report of this run.
    pub(super) node: Option<watch::Report>,
}

impl World {
    /// Containers are kept from the metadata service, as the settings ask.
    pub(super) fn is_guarded(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.guarded)
    }

    /// Docker has been seen to run a container.
    pub(super) fn can_run(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.proven)
    }

    pub(super) fn hazards(&self) -> &[String] {
        self.node.as_ref().map_or(&[], |node| &node.hazards)
    }

    pub(super) fn faults(&self) -> &[Fault] {
        self.node.as_ref().map_or(&[], |node| &node.faults)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Launch {
    pub(super) began: Option<Moment>,
    /// Into a warm pool, not into service.
    pub(super) warm: bool,
    pub(super) seen_open: bool,
    pub(super) abandoned: bool,
    /// Found open once its time was up: only what is open now can be abandoned. An answer may have
    /// been taken that nobody here has heard of.
    pub(super) open_late: bool,
    /// Auto Scaling's last word was that no action is open.
    pub(super) not_open: bool,
    pub(super) answered: bool,
    pub(super) not_open_since: Option<Moment>,
    /// How often ECS has said that the node is not ready yet.
    pub(super) unready: u32,
    pub(super) overdue_told: bool,
}

/// What is tried once each before a launch is abandoned.
#[derive(Debug, Clone, Default)]
pub(super) struct Abandon {
    pub(super) drained: bool,
    pub(super) stopped: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Drain {
    /// By their ids; never empty.
    pub(super) causes: BTreeMap<String, Cause>,
    pub(super) began: Moment,
    /// When this node was last set out to be emptied.
    pub(super) since: Moment,
    /// Where a drain goes on that was begun before a restart.
    pub(super) resume: Phase,
    /// A cause has come that takes the machine itself: a drained node has to be looked at again.
    pub(super) again: bool,
    /// It has come to its end once, on a machine that stayed.
    pub(super) held: bool,
    /// Its tasks were gone then, or stopped: what runs now has come since.
    pub(super) emptied: bool,
    /// Whether the container instance was ACTIVE before; not asked where it makes no difference.
    pub(super) was_active: Option<bool>,
    pub(super) set: bool,
    /// ECS knows the container instance no longer, so it cannot say whether tasks are left.
    pub(super) gone: bool,
    pub(super) refused: Option<String>,
    /// Refusals in a row.
    pub(super) refusals: u32,
    pub(super) seen_open: bool,
    /// The answer that is under way was sent before the action was seen open: that none is open then
    /// says nothing.
    pub(super) sent_early: bool,
    /// Answers in a row that no action is open.
    pub(super) not_open: u32,
    pub(super) empty_in_a_row: u8,
    pub(super) empty_since: Option<Moment>,
    /// When one of their containers last started or ended.
    pub(super) stirred: Option<Moment>,
    /// When the tasks that are left last changed.
    pub(super) moved: Moment,
    pub(super) stall_told: bool,
    /// Task to group, as ECS told.
    pub(super) groups: BTreeMap<String, String>,
    /// How often ECS was asked for those.
    pub(super) asked: u32,
    pub(super) told: Option<usize>,
    pub(super) confirmed: Option<usize>,
    /// Answers of ECS in a row that it knows of more tasks.
    pub(super) disagreed: u32,
    /// Answers of ECS in a row that it knows of none.
    pub(super) agreed: u8,
    pub(super) stopped: bool,
    /// How many containers that took; not known after a restart.
    pub(super) leftovers: Option<usize>,
    pub(super) flushed: bool,
    pub(super) answered: bool,
}

impl Drain {
    pub(super) fn new(began: Moment) -> Self {
        Self {
            causes: BTreeMap::new(),
            began,
            since: began,
            resume: Phase::Draining,
            again: false,
            held: false,
            emptied: false,
            was_active: None,
            set: false,
            gone: false,
            refused: None,
            refusals: 0,
            seen_open: false,
            sent_early: false,
            not_open: 0,
            empty_in_a_row: 0,
            empty_since: None,
            stirred: None,
            moved: began,
            stall_told: false,
            groups: BTreeMap::new(),
            asked: 0,
            told: None,
            confirmed: None,
            disagreed: 0,
            agreed: 0,
            stopped: false,
            leftovers: None,
            flushed: false,
            answered: false,
        }
    }

    /// Until now tasks could still be placed, or somebody may have set ACTIVE: what was seen before
    /// proves nothing.
    pub(super) fn forget_seen(&mut self) {
        self.empty_in_a_row = 0;
        self.empty_since = None;
        self.confirmed = None;
        self.agreed = 0;
    }

    pub(super) fn look_again(&mut self, now: Moment) {
        self.since = now;
        self.again = false;
        self.set = false;
        self.stopped = false;
        self.flushed = false;
        self.forget_seen();
    }
}
