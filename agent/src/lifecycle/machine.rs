//! The lifecycle, decided. Pure: events and the time in, actions out.
//!
//! Level-triggered: each event is first absorbed into what is known; then the phase follows from
//! what is known, and what is to be done follows from both. A lost or late event is made good by
//! the next. The only things remembered over a restart are those the world cannot tell
//! ([`Saved`]).

mod learn;
mod tells;
mod wants;

use std::time::Duration;

use super::{
    event::{
        Action, Attributes, Cause, ConfigWritten, Event, Healed, IllegalTransition, Job, Outcome,
        Phase, Policy, Saved, SavedDrain, Tasks, Waiting, Work,
    },
    schedule::{LAST_RETRY, Schedule, backoff, jitter},
};
use crate::{
    clients::{
        autoscaling::HookAnswer,
        docker::Whose,
        ecs::{Registration, SetDraining},
        imds::{Identity, Target},
    },
    health::{Conditions, Health, assess},
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
/// A wait that is over sooner is no news.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// Observations of an empty node that must agree, one after the other.
const AGREE: u8 = 2;

#[derive(Debug, Clone)]
pub(crate) struct Machine {
    policy: Policy,
    phase: Phase,
    since: Moment,
    /// Of the last event.
    now: Moment,
    schedule: Schedule,
    world: World,
    launch: Launch,
    abandon: Abandon,
    drain: Option<Drain>,
    health: Health,
    health_since: Moment,
    saved: Option<Saved>,
    heartbeats: bool,
    waiting: Waiting,
    waiting_since: Moment,
    waiting_told: bool,
}

/// What is known of the world.
#[derive(Debug, Clone, Default)]
struct World {
    identity: Option<Identity>,
    ecs_config: bool,
    target: Option<Target>,
    sidecars: Option<Vec<Report>>,
    released: bool,
    gate_shut: bool,
    /// Whether the ECS agent was asked, whatever came of it.
    agent_asked: bool,
    container_instance: Option<String>,
    /// ecs.service, when it does not run.
    unit: Option<String>,
    registration: Option<Registration>,
    published: Option<(Attributes, Moment)>,
    tasks: Option<Tasks>,
    conditions: Conditions,
}

#[derive(Debug, Clone, Default)]
struct Launch {
    began: Option<Moment>,
    seen_open: bool,
    /// Auto Scaling's last word was that no action is open.
    not_open: bool,
    answered: bool,
    not_open_since: Option<Moment>,
    overdue_told: bool,
}

/// What is tried once each before a launch is abandoned.
#[derive(Debug, Clone, Default)]
struct Abandon {
    drained: bool,
    stopped: bool,
}

#[derive(Debug, Clone)]
struct Drain {
    cause: Cause,
    began: Moment,
    /// Where a drain goes on that was begun before a restart.
    resume: Phase,
    set: bool,
    /// ECS knows the container instance no longer, so it cannot say whether tasks are left.
    gone: bool,
    refused: Option<String>,
    seen_open: bool,
    /// Answers in a row that no action is open.
    not_open: u32,
    empty_in_a_row: u8,
    told: Option<usize>,
    confirmed: Option<usize>,
    /// Answers of ECS in a row that it knows of more tasks.
    disagreed: u32,
    /// Answers of ECS in a row that it knows of none.
    agreed: u8,
    stopped: bool,
    flushed: bool,
    answered: bool,
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
            world: World::default(),
            launch: Launch::default(),
            abandon: Abandon::default(),
            drain: None,
            health: assess(&conditions, now),
            health_since: now,
            saved: None,
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
        while let Some(next) = self.next_phase(now, &mut actions) {
            self.enter(next, now, &mut actions);
        }
        self.keep(&mut actions);
        self.beat(now, &mut actions);
        for work in self.wanted(now) {
            let job = work.job();
            if self.schedule.due(job).is_some_and(|due| due <= now) {
                self.schedule.start(job);
                actions.push(Action::Start(work));
            }
        }
        self.tell_waiting(now, &mut actions);
        Ok(actions)
    }

    /// When [`Event::Tick`] is next of use; `None` if only other events are.
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        let jobs = self
            .wanted(self.now)
            .into_iter()
            .filter_map(|work| self.schedule.due(work.job()));
        let silence = [self.world.conditions.ecs, self.world.conditions.docker]
            .into_iter()
            .filter_map(|condition| condition.faulty_at(SILENCE));
        jobs.chain(silence)
            .chain(self.deadline())
            .chain(self.tells_at())
            .chain(self.world.conditions.settles_at(self.now))
            // What was due by then has been dealt with.
            .filter(|at| *at > self.now)
            .min()
    }

    fn next_phase(&mut self, now: Moment, actions: &mut Vec<Action>) -> Option<Phase> {
        if let Some(drain) = &self.drain
            && !self.phase.is_leaving()
        {
            return Some(drain.resume);
        }
        if self.is_launch_overdue(now) {
            if self.launch.seen_open {
                return Some(Phase::Abandoning);
            }
            if self.launch.not_open {
                // Nothing was ever held open for us: there is nothing to abandon.
                self.launch.answered = true;
                actions.push(Action::Record(Entry::LaunchClosed {
                    hook: self.policy.launch_hook.clone(),
                }));
            } else if !self.launch.overdue_told {
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
            Phase::Starting => {
                let ready = self.world.identity.is_some()
                    && self.world.ecs_config
                    && self.are_sidecars_up(Scope::BeforeTasks);
                ready.then_some(Phase::Gated)
            }
            Phase::Gated => self.world.released.then_some(Phase::Launching),
            Phase::Launching => self.launch.answered.then_some(Phase::InService),
            Phase::Draining if is_over => Some(Phase::Stopping),
            Phase::Draining => self.is_empty(now).then_some(Phase::Flushing),
            Phase::Stopping => (drain?.stopped || is_over && self.has_failed(Job::StopLeftovers))
                .then_some(Phase::Flushing),
            Phase::Flushing => (drain?.flushed || is_over && self.has_failed(Job::StopSidecars))
                .then_some(Phase::Completing),
            Phase::Completing => drain?.answered.then_some(Phase::Done),
            Phase::Abandoning | Phase::InService | Phase::Done => None,
        }
    }

    fn enter(&mut self, next: Phase, now: Moment, actions: &mut Vec<Action>) {
        match next {
            Phase::Abandoning => {
                let reason = self.reason(now);
                actions.push(Action::Console(format!("abandoning launch: {reason}")));
                actions.push(Action::Record(Entry::LaunchAbandoned { reason }));
            }
            Phase::Stopping => {
                let tasks = self.world.tasks.as_ref().and_then(known_tasks);
                actions.push(Action::Record(Entry::DeadlineReached {
                    tasks: tasks.unwrap_or_default(),
                }));
            }
            Phase::Flushing if self.phase == Phase::Draining && !self.world.gate_shut => {
                actions.push(Action::Record(Entry::TasksGone));
            }
            Phase::Starting
            | Phase::Gated
            | Phase::Launching
            | Phase::InService
            | Phase::Draining
            | Phase::Flushing
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
        match self.problem() {
            Some(problem) => format!("after {waited} s still waiting for {on} ({problem})"),
            None => format!("after {waited} s still waiting for {on}"),
        }
    }

    /// When this phase ends by time alone.
    fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Starting | Phase::Gated | Phase::Launching => {
                let began = self.launch.began.filter(|_| !self.launch.answered)?;
                Some(began + self.policy.launch)
            }
            Phase::Draining => {
                let drain = self.drain.as_ref()?;
                let end = drain.cause.deadline(drain.began, &self.policy);
                Some(end.before(self.policy.drain_reserve))
            }
            Phase::Stopping => {
                let drain = self.drain.as_ref()?;
                let end = drain.cause.deadline(drain.began, &self.policy);
                Some(end.before(self.policy.flush))
            }
            Phase::Flushing => {
                let drain = self.drain.as_ref()?;
                let end = drain.cause.deadline(drain.began, &self.policy);
                Some(end.min(self.since + self.policy.flush))
            }
            Phase::Abandoning | Phase::InService | Phase::Completing | Phase::Done => None,
        }
    }

    /// It was tried, did not do all it had to, and is not being tried just now.
    fn has_failed(&self, job: Job) -> bool {
        self.schedule.error(job).is_some() && !self.schedule.is_under_way(job)
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
            return self.world.gate_shut;
        }
        if self.is_node_silent(now) {
            return drain.set && drain.agreed >= AGREE;
        }
        let confirmed = drain.gone
            || drain.confirmed == Some(0)
            || self.world.conditions.ecs.is_faulty_for(SILENCE, now);
        drain.set && drain.empty_in_a_row >= AGREE && confirmed
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
        let nothing_runs = matches!(by_docker, Some(Ok(0))) || docker.is_faulty_for(SILENCE, now);
        !self.world.released || (self.world.agent_asked && nothing_runs)
    }

    /// What must be on disk before anything else is done.
    fn keep(&mut self, actions: &mut Vec<Action>) {
        let Some(identity) = &self.world.identity else {
            return;
        };
        let saved = Saved {
            instance: identity.instance.clone(),
            container_instance: self.world.container_instance.clone(),
            launch_began: self.launch.began,
            launch_seen_open: self.launch.seen_open,
            launch_answered: self.launch.answered,
            drain: self.drain.as_ref().map(|drain| SavedDrain {
                cause: drain.cause,
                began: drain.began,
                // Gone is learnt again after a restart by asking for DRAINING again.
                set: drain.set && !drain.gone,
                seen_open: drain.seen_open,
                phase: self.phase,
            }),
        };
        if self.saved.as_ref() != Some(&saved) {
            self.saved = Some(saved.clone());
            actions.push(Action::Save(saved));
        }
    }

    /// Heartbeats go on as long as the terminating action is not answered.
    fn beat(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let wanted = self.phase.is_leaving() && self.phase != Phase::Done;
        if wanted == self.heartbeats {
            return;
        }
        self.heartbeats = wanted;
        actions.push(match &self.drain {
            Some(drain) if wanted => Action::StartHeartbeats {
                until: drain.cause.deadline(drain.began, &self.policy).max(now),
            },
            Some(_) | None => Action::StopHeartbeats,
        });
    }
}

impl Drain {
    fn new(cause: Cause, began: Moment) -> Self {
        Self {
            cause,
            began,
            resume: Phase::Draining,
            set: false,
            gone: false,
            refused: None,
            seen_open: false,
            not_open: 0,
            empty_in_a_row: 0,
            told: None,
            confirmed: None,
            disagreed: 0,
            agreed: 0,
            stopped: false,
            flushed: false,
            answered: false,
        }
    }
}

/// The larger number of those that are known.
fn known_tasks(tasks: &Tasks) -> Option<usize> {
    let by_agent = tasks.by_agent.as_ref().ok();
    let by_docker = tasks.by_docker.as_ref().ok();
    by_agent.max(by_docker).copied()
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
