//! The lifecycle, decided. Pure: events and the time in, actions out.
//!
//! Level-triggered: each event is first absorbed into what is known; then the phase follows from
//! what is known, and what is to be done follows from both. A lost or late event is made good by
//! the next. The only things remembered over a restart are those the world cannot tell
//! ([`Saved`]).

mod causes;
mod known;
mod learn;
mod replace;
mod tasks;
mod tells;
mod wants;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fleet_agent_config::{Reaction, Replacement};

use known::{Abandon, Drain, Launch, World};
pub(crate) use replace::READS;
use replace::Replacing;

use super::{
    cause::{Bounds, Cause, Kind, STOP_MARGIN, shutdown_id},
    event::{
        Action, Attributes, ConfigWritten, Event, Healed, IllegalTransition, Job, Order, Outcome,
        Phase, Policy, Scheduled, SpotNews, TOLD_APART, Tasks, Work,
    },
    saved::{Saved, SavedDrain, SavedLaunch},
    schedule::{LAST_RETRY, Schedule, backoff, jitter},
    waiting::Waiting,
};
use crate::{
    clients::{
        autoscaling::HookAnswer,
        docker::Whose,
        ecs::{Registration, SetDraining},
        imds::{Identity, Target},
        introspection::AgentTask,
    },
    health::{
        Condition, Conditions, Health, Verdict, assess,
        check::{Check, Fault},
        watch,
    },
    journal::event::Entry,
    moment::Moment,
    sidecars::{
        execute::Round,
        plan::{Report, Scope, State},
    },
};

/// A side that has been silent this long no longer has a say in whether tasks are gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A launch action that is not open by then, counted from the first answer that says so, never was.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// While IMDS is silent, Auto Scaling itself is asked this often whether the node is to go.
const PROBE: Duration = Duration::from_secs(60);
/// Attributes are written again now and then, in case somebody removed them.
const REFRESH: Duration = Duration::from_secs(3_600);
/// A node that goes for good says so in its attributes between half of this and the whole, if it is
/// still there then.
const SAYS_WITHIN: Duration = Duration::from_secs(60);
/// A wait that is over sooner is no news.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// The ECS agent hears of a container's end a moment after Docker tells it: so long they may differ.
const DIFFER: Duration = Duration::from_secs(5);
/// After news of a container, tasks are counted more often for so long.
const STIRS: Duration = Duration::from_secs(1);
/// Observations of an empty node that must agree, one after the other.
const AGREE: u8 = 2;
/// Where the end is EC2's, ECS is not waited for longer than this once the node itself is empty: with
/// a thousand nodes interrupted at once its 20 reads a second do not come round in two minutes.
const CONFIRMS_WITHIN: Duration = Duration::from_secs(10);
/// A node's status before its drain is asked for this long; then it is set to DRAINING all the same,
/// and stays so when the drain is called off.
const ASKS_FOR: Duration = Duration::from_secs(60);
/// On top of what sidecars may take by right.
const FLUSH_MARGIN: Duration = Duration::from_secs(15);
/// Tasks that do not change for this long are told of.
const STALL: Duration = Duration::from_secs(120);
/// A node that has been impaired for this long drains, if it is to.
const IMPAIRED_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    policy: Policy,
    phase: Phase,
    since: Moment,
    /// Of the last event.
    now: Moment,
    wake: Option<Moment>,
    schedule: Schedule,
    world: World,
    launch: Launch,
    abandon: Abandon,
    drain: Option<Drain>,
    health: Health,
    health_since: Moment,
    /// Whatever the reason is meanwhile.
    impaired_since: Option<Moment>,
    replacing: Option<Replacing>,
    saved: Option<Saved>,
    /// What was last to be kept is not.
    unkept: bool,
    heartbeats: bool,
    waiting: Waiting,
    waiting_since: Moment,
    waiting_told: bool,
}

/// What this node itself sees of its tasks.
enum Local {
    Empty,
    Left(usize),
    Unknown,
}

impl Machine {
    pub(crate) fn new(policy: Policy, now: Moment) -> Self {
        let conditions = Conditions::default();
        Self {
            schedule: Schedule::new(policy.seed),
            policy,
            phase: Phase::Starting,
            since: now,
            now,
            wake: None,
            world: World::default(),
            launch: Launch::default(),
            abandon: Abandon::default(),
            drain: None,
            health: assess(&conditions, &[], now),
            health_since: now,
            impaired_since: None,
            replacing: None,
            saved: None,
            unkept: false,
            heartbeats: false,
            waiting: Waiting::Nothing,
            waiting_since: now,
            waiting_told: false,
        }
    }

    /// What to do, in this order, now that this has happened.
    ///
    /// # Errors
    /// If it cannot happen in this phase; nothing has changed then.
    pub(crate) fn handle(
        &mut self,
        event: Event,
        now: Moment,
    ) -> Result<Vec<Action>, IllegalTransition> {
        self.now = now;
        let mut actions = Vec::new();
        self.absorb(event, now, &mut actions)?;
        self.judge_health(now, &mut actions);
        self.judge_replacement(now);
        self.judge_causes(now, &mut actions);
        while let Some(next) = self.next_phase(now, &mut actions) {
            self.enter(next, now, &mut actions);
        }
        self.keep(&mut actions);
        self.beat(now, &mut actions);
        let mut wake = None;
        for work in self.wanted(now) {
            let job = work.job();
            match self.schedule.due(job) {
                Some(due) if due <= now => {
                    self.schedule.start(job);
                    actions.push(Action::Start(work));
                }
                due => wake = earliest(wake, due),
            }
        }
        self.tell_waiting(now, &mut actions);
        self.wake = earliest(wake, self.changes_at());
        Ok(actions)
    }

    /// Whether another run may take over: this one neither leaves nor is in the middle of what the next
    /// would not know of.
    pub(crate) fn may_start_over(&self) -> bool {
        let jobs = [
            Job::WriteEcsConfig,
            Job::ConvergeSidecars,
            Job::StopSidecars,
            Job::StopLeftovers,
            Job::SetDraining,
            Job::SetActive,
            Job::Release,
        ];
        self.drain.is_none()
            && !self.is_waiting_to_go()
            && !jobs.iter().any(|job| self.schedule.is_under_way(*job))
    }

    /// When [`Event::Tick`] is next of use; `None` if only other events are.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.wake
    }

    /// When something next comes about by time alone.
    fn changes_at(&self) -> Option<Moment> {
        let silence = [self.world.conditions.ecs, self.world.conditions.docker]
            .into_iter()
            .filter_map(|condition| condition.faulty_at(SILENCE));
        let unkept = self.unkept.then(|| self.schedule.due(Job::Keep)).flatten();
        silence
            .chain(unkept)
            .chain(self.deadline())
            .chain(self.tells_at())
            .chain(self.causes_change_at())
            .chain(self.tasks_change_at())
            .chain(self.replacement_changes_at())
            .chain(self.world.conditions.settles_at(self.now))
            // What was due by then has been dealt with.
            .filter(|at| *at > self.now)
            .min()
    }

    fn next_phase(&mut self, now: Moment, actions: &mut Vec<Action>) -> Option<Phase> {
        // What was under way before a restart is not known yet.
        self.world.identity.as_ref()?;
        match &self.drain {
            // Auto Scaling waits for the launch's answer: on a machine that stays, that comes first.
            Some(_)
                if !self.phase.is_leaving()
                    && self.after_tasks() == Phase::Drained
                    && (!self.launch.answered || self.launch.abandoned) => {}
            // Out of a warm pool while drained.
            Some(_)
                if self.phase == Phase::Drained
                    && self.launch.began.is_some()
                    && !self.launch.answered
                    && !self.launch.abandoned =>
            {
                return Some(Phase::Starting);
            }
            Some(drain) if !self.phase.is_leaving() => return Some(drain.resume),
            // Nothing stands any more: from the beginning, which for what is in place is no step.
            None if self.phase.is_leaving() => return Some(Phase::Starting),
            Some(_) | None => {}
        }
        if self.is_launch_overdue(now) {
            if self.launch.open_late {
                return Some(Phase::Abandoning);
            }
            if self.launch.not_open {
                // Nothing is held open for us, or no longer: there is nothing to abandon.
                self.launch.answered = true;
                actions.push(Action::Record(Entry::LaunchClosed {
                    hook: self.policy.launch_hook.clone(),
                }));
            } else if self.schedule.error(Job::OpenLaunch).is_some() && !self.launch.overdue_told {
                // Auto Scaling could not be asked: whether a launch is held open is not known, so
                // it is neither abandoned nor over, and the asking goes on.
                self.launch.overdue_told = true;
                let reason = self.reason(now);
                actions.push(Action::Console(format!("launch overdue: {reason}")));
            }
        }
        let deadline = self.deadline();
        let is_over = deadline.is_some_and(|deadline| deadline <= now);
        let drain = self.drain.as_ref();
        match self.phase {
            Phase::Starting if self.launch.abandoned => Some(Phase::Abandoning),
            Phase::Starting => {
                let ready = self.world.identity.is_some()
                    && self.world.ecs_config
                    && self.have_sidecars(Scope::BeforeTasks);
                ready.then_some(Phase::Gated)
            }
            Phase::Gated => self.world.released.then_some(Phase::Launching),
            // Held back for leftovers, by a stop that ended only after its drain had.
            Phase::Launching | Phase::InService if !self.world.released => Some(Phase::Gated),
            Phase::Launching => self.launch.answered.then_some(Phase::InService),
            Phase::Draining if self.is_empty(now) => Some(self.after_tasks()),
            Phase::Draining => is_over.then_some(Phase::Stopping),
            Phase::Stopping => (drain?.stopped || is_over).then(|| self.after_tasks()),
            Phase::Drained if drain?.again => Some(Phase::Draining),
            // Somebody has set it to ACTIVE: those are to leave as the first did.
            Phase::Drained if drain?.emptied => self.runs_tasks().then_some(Phase::Draining),
            // Docker may have been hung when they were to be stopped.
            Phase::Drained => self.runs_tasks().then_some(Phase::Stopping),
            // What was to take the machine is withdrawn, and something else still asks for a drain.
            Phase::Flushing | Phase::Completing | Phase::Done
                if self.after_tasks() == Phase::Drained =>
            {
                Some(Phase::Draining)
            }
            Phase::Flushing => (drain?.flushed || is_over).then(|| self.after_sidecars()),
            Phase::Completing => drain?.answered.then_some(Phase::Done),
            Phase::Done => self.owes_answer().then_some(Phase::Completing),
            Phase::Abandoning | Phase::InService => None,
        }
    }

    /// Sidecars stay up on a machine that stays.
    fn after_tasks(&self) -> Phase {
        let is_final = self.causes().any(|cause| cause.kind.is_final());
        if is_final {
            Phase::Flushing
        } else {
            Phase::Drained
        }
    }

    fn after_sidecars(&self) -> Phase {
        if self.owes_answer() {
            Phase::Completing
        } else {
            Phase::Done
        }
    }

    /// Only Auto Scaling waits for an answer.
    fn owes_answer(&self) -> bool {
        self.is_terminated() && self.drain.as_ref().is_some_and(|drain| !drain.answered)
    }

    fn enter(&mut self, next: Phase, now: Moment, actions: &mut Vec<Action>) {
        match next {
            // After a restart it has been told.
            Phase::Abandoning if self.launch.abandoned => {}
            Phase::Abandoning => {
                self.launch.abandoned = true;
                let reason = self.reason(now);
                actions.push(Action::Console(format!("abandoning launch: {reason}")));
                actions.push(Action::Record(Entry::LaunchAbandoned { reason }));
            }
            Phase::Stopping if self.phase == Phase::Drained => {
                if let Some(drain) = &mut self.drain {
                    drain.stopped = false;
                }
            }
            Phase::Stopping => {
                let tasks = self.world.tasks.as_ref().and_then(known_tasks);
                actions.push(Action::Record(Entry::DeadlineReached {
                    tasks: tasks.unwrap_or_default(),
                }));
            }
            Phase::Flushing | Phase::Drained => {
                let joined = self.world.container_instance.is_some();
                if self.phase == Phase::Draining && joined {
                    actions.push(Action::Record(Entry::TasksGone));
                }
                if next == Phase::Drained {
                    let was_cut_off = self.phase == Phase::Stopping;
                    if let Some(drain) = &mut self.drain {
                        drain.held = true;
                        drain.emptied = !was_cut_off || drain.stopped;
                    }
                    // Counted anew: what was seen before they were stopped is no news.
                    self.world.tasks = None;
                    actions.push(Action::Record(Entry::Drained));
                }
            }
            Phase::Draining if self.phase >= Phase::Drained => {
                if let Some(drain) = &mut self.drain {
                    drain.look_again(now);
                }
            }
            Phase::Gated if self.phase > Phase::Gated => {
                // Held back from here on: what it was before is no fault any more.
                self.world.conditions.ecs = Condition::default();
            }
            Phase::Starting if self.phase >= Phase::Flushing => {
                // Stopped by us, as they were to be.
                self.world.sidecars = None;
            }
            Phase::Starting
            | Phase::Gated
            | Phase::Launching
            | Phase::InService
            | Phase::Draining
            | Phase::Completing
            | Phase::Done => {}
        }
        self.phase = next;
        self.since = now;
        self.schedule.hurry();
    }

    /// What a launch is being abandoned for.
    fn reason(&self, now: Moment) -> String {
        let waited = self
            .launch
            .began
            .map_or(0, |began| now.since(began).as_secs());
        let on = self.waits_on();
        let mut reason = format!("after {waited} s still waiting for {on}");
        if let Some(problem) = self.problem() {
            reason += &format!(" ({problem})");
        }
        // The ECS agent does not say that it was denied.
        if on == Waiting::Registration && self.policy.is_told_apart {
            reason += &format!("; {TOLD_APART}");
        }
        reason
    }

    /// When this phase ends by time alone.
    fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Starting | Phase::Gated | Phase::Launching => {
                let began = self.launch.began.filter(|_| !self.launch.answered)?;
                Some(began + self.policy.launch)
            }
            Phase::Draining => self.bounds().map(|bounds| bounds.tasks),
            // Both end by their own time: Docker may be dead. An end that is EC2's may come sooner; one
            // of ours that has passed while no agent was there takes nothing from what must be done.
            Phase::Stopping => {
                let own = self.since + self.policy.spans.container_stop + STOP_MARGIN;
                Some(
                    self.hard_bounds()
                        .map_or(own, |hard| hard.leftovers.min(own)),
                )
            }
            Phase::Flushing => {
                let own = self.since + self.policy.spans.sidecars + FLUSH_MARGIN;
                Some(
                    self.hard_bounds()
                        .map_or(own, |hard| hard.sidecars.min(own)),
                )
            }
            Phase::Abandoning
            | Phase::InService
            | Phase::Drained
            | Phase::Completing
            | Phase::Done => None,
        }
    }

    fn is_launch_overdue(&self, now: Moment) -> bool {
        // An answer on its way decides.
        !self.phase.is_leaving()
            && !self.schedule.is_under_way(Job::CompleteLaunch)
            && self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// No task is left, as far as it can be known: rule 6 of draining, and 5 and 7 for the sides
    /// that cannot be asked.
    fn is_empty(&self, now: Moment) -> bool {
        let Some(drain) = &self.drain else {
            return false;
        };
        if self.world.container_instance.is_none() {
            // A node that may serve one day is only held back.
            let held = !self.world.released && !self.schedule.is_under_way(Job::Release);
            let stays = self.after_tasks() == Phase::Drained;
            return self.world.gate_shut || (stays && held);
        }
        if self.is_node_silent(now) {
            return drain.set && drain.agreed >= AGREE;
        }
        let confirmed = drain.gone
            || drain.confirmed == Some(0)
            || self.world.conditions.ecs.is_faulty_for(SILENCE, now)
            || self.confirms_until().is_some_and(|until| until <= now);
        drain.set && drain.empty_in_a_row >= AGREE && confirmed
    }

    /// How long ECS's answer is waited for by a node that sees itself empty. One that knows of more
    /// tasks has answered.
    fn confirms_until(&self) -> Option<Moment> {
        let is_hard = self.causes().any(|cause| cause.kind.is_hard());
        let drain = self.drain.as_ref()?;
        let since = drain.empty_since.filter(|_| drain.confirmed.is_none())?;
        is_hard.then(|| since + CONFIRMS_WITHIN)
    }

    /// Neither the ECS agent nor Docker can say what runs here: only ECS is left to ask.
    fn is_node_silent(&self, now: Moment) -> bool {
        let conditions = &self.world.conditions;
        conditions.ecs.is_faulty_for(SILENCE, now) && conditions.docker.is_faulty_for(SILENCE, now)
    }

    /// The node has not joined ECS, and nothing runs on it that ECS could know of.
    fn has_never_joined(&self, now: Moment) -> bool {
        if self.world.container_instance.is_some() || self.schedule.is_under_way(Job::Release) {
            return false;
        }
        let docker = &self.world.conditions.docker;
        let by_docker = self.world.tasks.as_ref().map(|tasks| &tasks.by_docker);
        let nothing_runs = matches!(by_docker, Some(Ok(tasks)) if tasks.is_empty())
            || docker.is_faulty_for(SILENCE, now);
        !self.world.released || (self.world.agent_asked && nothing_runs)
    }

    /// What must be on disk before anything else is done.
    fn keep(&mut self, actions: &mut Vec<Action>) {
        // A disk that was full has room again one day.
        let is_due = self.unkept && self.schedule.due(Job::Keep) <= Some(self.now);
        let Some(identity) = &self.world.identity else {
            return;
        };
        let launch = SavedLaunch {
            began: self.launch.began,
            abandoned: self.launch.abandoned,
            warm: self.launch.warm,
            seen_open: self.launch.seen_open,
            answered: self.launch.answered,
        };
        let drain = self.drain.as_ref().map(|drain| SavedDrain {
            causes: drain.causes.values().cloned().collect(),
            began: drain.began,
            held: drain.held,
            since: drain.since,
            // Gone is learnt again after a restart by asking for DRAINING again.
            set: drain.set && !drain.gone,
            seen_open: drain.seen_open,
            answered: drain.answered,
            phase: self.phase,
        });
        // Compared before it is made: this is done at every event.
        let is_kept = self.saved.as_ref().is_some_and(|saved| {
            saved.instance == identity.instance
                && saved.boot == self.world.boot
                && saved.container_instance == self.world.container_instance
                && saved.launch == launch
                && saved.ours == self.world.ours
                && saved.drain == drain
        });
        if is_kept && !is_due {
            return;
        }
        let saved = Saved {
            instance: identity.instance.clone(),
            zone: identity.zone.clone(),
            spot: identity.spot,
            boot: self.world.boot.clone(),
            container_instance: self.world.container_instance.clone(),
            launch,
            ours: self.world.ours,
            drain,
        };
        self.unkept = false;
        self.saved = Some(saved.clone());
        actions.push(Action::Save(saved));
    }

    /// Heartbeats go on as long as the terminating action is not answered.
    fn beat(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let wanted = self.phase.is_leaving() && self.owes_answer();
        if wanted == self.heartbeats {
            return;
        }
        self.heartbeats = wanted;
        let end = self.terminates_at();
        let action = match end {
            Some(end) if wanted => Action::StartHeartbeats {
                until: end.max(now),
            },
            Some(_) | None => Action::StopHeartbeats,
        };
        actions.push(action);
    }
}

fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    one.into_iter().chain(other).min()
}

/// The larger number of those that are known.
fn known_tasks(tasks: &Tasks) -> Option<usize> {
    let by_agent = tasks.by_agent.as_ref().ok().map(Vec::len);
    let by_docker = tasks.by_docker.as_ref().ok().map(BTreeMap::len);
    by_agent.max(by_docker)
}

fn is_in(report: &Report, scope: Scope) -> bool {
    scope == Scope::All || report.before_tasks
}

fn is_up(reports: &[Report], scope: Scope) -> bool {
    reports
        .iter()
        .filter(|report| is_in(report, scope))
        .all(|report| report.state == State::Up)
}
