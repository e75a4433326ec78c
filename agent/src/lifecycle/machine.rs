//! The lifecycle, decided. Pure: events and the time in, actions out.
//!
//! Level-triggered: each event is first absorbed into what is known; then the phase follows from
//! what is known, and what is to be done follows from both. A lost or late event is made good by
//! the next. The only things remembered over a restart are those the world cannot tell
//! ([`Saved`]).

use std::time::Duration;

use super::{
    event::{
        Action, Attributes, Cause, ConfigWritten, Event, Healed, IllegalTransition, Job, Outcome,
        Phase, Policy, Saved, SavedDrain, Tasks, Waiting, Work,
    },
    schedule::{Schedule, jitter},
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
/// IMDS names the target before Auto Scaling opens the action; by then it is open, if ever.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// While IMDS is silent, Auto Scaling itself is asked this often whether the node is to go.
const PROBE: Duration = Duration::from_secs(60);
/// Attributes are written again now and then, in case somebody removed them.
const REFRESH: Duration = Duration::from_secs(3_600);
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
    answered: bool,
    not_open_since: Option<Moment>,
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
    refused: Option<String>,
    seen_open: bool,
    not_open_since: Option<Moment>,
    empty_in_a_row: u8,
    told: Option<usize>,
    confirmed: Option<usize>,
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

/// The machine as people see it.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) phase: Phase,
    pub(crate) since: Moment,
    pub(crate) waiting: String,
    pub(crate) target: Option<&'a Target>,
    pub(crate) container_instance: Option<&'a str>,
    pub(crate) registration: Option<&'a Registration>,
    pub(crate) ecs_answers: bool,
    pub(crate) tasks: Option<usize>,
    pub(crate) sidecars: &'a [Report],
    pub(crate) health: Health,
    pub(crate) health_since: Moment,
    pub(crate) drain: Option<(Cause, Moment, Moment)>,
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
        self.tell_waiting(&mut actions);
        Ok(actions)
    }

    /// When [`Event::Tick`] is next of use; `None` if only other events are.
    pub(crate) fn wake_at(&self, now: Moment) -> Option<Moment> {
        let jobs = self
            .wanted(now)
            .into_iter()
            .filter_map(|work| self.schedule.due(work.job()));
        let silence = [self.world.conditions.ecs, self.world.conditions.docker]
            .into_iter()
            .filter_map(|condition| condition.faulty_at(SILENCE));
        jobs.chain(silence)
            .chain(self.deadline())
            .chain(self.world.conditions.settles_at(now))
            .filter(|at| *at > now)
            .min()
    }

    pub(crate) fn view(&self) -> View<'_> {
        let problem = self.problem();
        let waiting = match problem {
            Some(problem) if self.waiting != Waiting::Nothing => {
                format!("{} ({problem})", self.waiting)
            }
            Some(problem) => problem,
            None => self.waiting.to_string(),
        };
        View {
            identity: self.world.identity.as_ref(),
            phase: self.phase,
            since: self.since,
            waiting,
            target: self.world.target.as_ref(),
            container_instance: self.world.container_instance.as_deref(),
            registration: self.world.registration.as_ref(),
            ecs_answers: self.world.conditions.ecs.is_well(),
            tasks: self.world.tasks.as_ref().and_then(known_tasks),
            sidecars: self.world.sidecars.as_deref().unwrap_or_default(),
            health: self.health,
            health_since: self.health_since,
            drain: self.drain.as_ref().map(|drain| {
                let deadline = drain.cause.deadline(drain.began, &self.policy);
                (drain.cause, drain.began, deadline)
            }),
        }
    }

    // What has happened.

    fn absorb(
        &mut self,
        event: Event,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> Result<(), IllegalTransition> {
        match event {
            Event::Tick => Ok(()),
            Event::Container(Whose::Task) => {
                if self.phase == Phase::Draining {
                    self.schedule.hurry_one(Job::CountTasks);
                }
                Ok(())
            }
            Event::Container(Whose::Sidecar) => {
                self.schedule.hurry_one(Job::ConvergeSidecars);
                Ok(())
            }
            Event::Heartbeat(answer) => match &mut self.drain {
                Some(drain) => {
                    drain.seen_open |= answer == HookAnswer::Taken;
                    Ok(())
                }
                None => Err(self.illegal(&Event::Heartbeat(answer))),
            },
            Event::Finished(job, result) if !self.schedule.is_under_way(job) => {
                Err(self.illegal(&Event::Finished(job, result)))
            }
            Event::Finished(job, Err(error)) => {
                self.fail(job, &error, now, actions);
                Ok(())
            }
            Event::Finished(job, Ok(outcome)) => {
                if !belongs(job, &outcome) {
                    return Err(self.illegal(&Event::Finished(job, Ok(outcome))));
                }
                let problem = outcome.problem();
                self.learn(job, outcome, now, actions);
                match problem {
                    Some(problem) => self.fail(job, &problem, now, actions),
                    None => self.succeed(job, now, actions),
                }
                Ok(())
            }
        }
    }

    fn illegal(&self, event: &Event) -> IllegalTransition {
        IllegalTransition {
            phase: self.phase,
            event: format!("{event:?}"),
        }
    }

    fn succeed(&mut self, job: Job, now: Moment, actions: &mut Vec<Action>) {
        let recovered = self.schedule.succeed(job, now + self.cadence(job));
        if recovered && self.is_told(job) {
            actions.push(Action::Record(Entry::Recovered { call: job.as_str() }));
        }
    }

    fn fail(&mut self, job: Job, error: &str, now: Moment, actions: &mut Vec<Action>) {
        if self.schedule.fail(job, error, now) && self.is_told(job) {
            actions.push(Action::Record(Entry::CallFailed {
                call: job.as_str(),
                error: error.to_owned(),
            }));
        }
        let conditions = &mut self.world.conditions;
        match job {
            Job::Identify | Job::ReadTarget => conditions.imds.observe(false, now),
            Job::ConvergeSidecars => conditions.sidecars.observe(false, now),
            Job::ReadEcsAgent => {
                self.world.agent_asked = true;
                conditions.ecs.observe(false, now);
            }
            // Best effort, once: the node goes anyway.
            Job::SetDraining if self.phase == Phase::Abandoning => self.abandon.drained = true,
            Job::StopLeftovers => self.leftovers_stopped(),
            Job::StopSidecars => {
                if let Some(drain) = &mut self.drain {
                    drain.flushed = true;
                }
            }
            Job::WriteEcsConfig
            | Job::Release
            | Job::HealEcs
            | Job::Describe
            | Job::Publish
            | Job::OpenLaunch
            | Job::CompleteLaunch
            | Job::AbandonLaunch
            | Job::SetDraining
            | Job::CountTasks
            | Job::ConfirmEmpty
            | Job::ShutGate
            | Job::CompleteDrain
            | Job::ProbeDrain => {}
        }
    }

    /// An ECS agent that does not answer yet is what starting looks like.
    fn is_told(&self, job: Job) -> bool {
        job != Job::ReadEcsAgent || self.phase == Phase::InService
    }

    fn learn(&mut self, job: Job, outcome: Outcome, now: Moment, actions: &mut Vec<Action>) {
        match outcome {
            Outcome::Identified {
                identity,
                released,
                saved,
            } => {
                self.world.conditions.imds.observe(true, now);
                actions.push(Action::Record(Entry::Identified {
                    instance: identity.instance.clone(),
                    zone: identity.zone.clone(),
                }));
                self.world.released |= released;
                self.world.identity = Some(identity);
                if let Some(saved) = saved {
                    self.restore(saved);
                }
            }
            Outcome::EcsConfig(written) => {
                self.world.ecs_config = true;
                if written != ConfigWritten::Unchanged {
                    actions.push(Action::Record(Entry::EcsConfigWritten {
                        restarted: written == ConfigWritten::Restarted,
                    }));
                }
            }
            Outcome::Target(target) => {
                self.world.conditions.imds.observe(true, now);
                self.aim(target, now, actions);
            }
            Outcome::Sidecars(round) => self.learn_sidecars(round, now, actions),
            Outcome::Released { now: opened } => {
                self.world.released = true;
                if opened {
                    actions.push(Action::Record(Entry::Released));
                }
            }
            Outcome::EcsAgent(container_instance) => {
                self.world.agent_asked = true;
                self.world.conditions.ecs.observe(true, now);
                self.world.unit = None;
                if container_instance.is_some()
                    && container_instance != self.world.container_instance
                {
                    self.registered(container_instance, actions);
                }
            }
            Outcome::Healed(Healed::Started(why)) => {
                self.world.unit = None;
                actions.push(Action::Record(Entry::EcsStarted { why }));
            }
            Outcome::Healed(Healed::Left(unit)) => self.world.unit = Some(unit),
            Outcome::Described(registration) => self.world.registration = Some(registration),
            Outcome::Published(attributes) => self.world.published = Some((attributes, now)),
            Outcome::Hook(answer) => self.learn_hook(job, answer, now, actions),
            Outcome::Draining(set) => self.learn_draining(set, actions),
            Outcome::Tasks(tasks) => self.learn_tasks(tasks, now, actions),
            Outcome::Confirmed(tasks) => {
                if let Some(drain) = &mut self.drain {
                    drain.confirmed = Some(tasks);
                }
            }
            Outcome::GateShut => {
                self.world.gate_shut = true;
                self.world.released = false;
                actions.push(Action::Record(Entry::GateShut));
            }
            Outcome::Leftovers { stopped, left } => {
                self.leftovers_stopped();
                actions.push(Action::Record(Entry::LeftoversStopped { stopped, left }));
            }
            Outcome::SidecarsStopped(count) => {
                if let Some(drain) = &mut self.drain {
                    drain.flushed = true;
                }
                actions.push(Action::Record(Entry::SidecarsStopped { count }));
            }
        }
    }

    fn restore(&mut self, saved: Saved) {
        self.world.container_instance = saved.container_instance.clone();
        self.launch.began = saved.launch_began;
        self.launch.answered = saved.launch_answered;
        self.drain = saved.drain.map(|drain| Drain {
            resume: drain.phase,
            set: drain.set,
            ..Drain::new(drain.cause, drain.began)
        });
        self.saved = Some(saved);
    }

    fn aim(&mut self, target: Target, now: Moment, actions: &mut Vec<Action>) {
        match target {
            Target::InService => {
                self.launch.began.get_or_insert(now);
            }
            Target::Terminated => self.begin_drain(now, actions),
            // In a warm pool: the launch into service is still to come.
            Target::Other(_) | Target::NoGroup => {}
        }
        self.world.target = Some(target);
    }

    fn begin_drain(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.drain.is_none() {
            let cause = Cause::AutoScaling;
            actions.push(Action::Record(Entry::Noticed {
                cause: cause.text(),
            }));
            self.drain = Some(Drain::new(cause, now));
        }
    }

    fn learn_sidecars(&mut self, round: Round, now: Moment, actions: &mut Vec<Action>) {
        actions.extend(
            round
                .done
                .into_iter()
                .map(|what| Action::Record(Entry::SidecarChanged { what })),
        );
        let scope = self.scope();
        let well = is_up(&round.reports, scope);
        self.world.sidecars = Some(round.reports);
        self.world.conditions.sidecars.observe(well, now);
    }

    fn registered(&mut self, container_instance: Option<String>, actions: &mut Vec<Action>) {
        self.world.registration = None;
        self.world.published = None;
        if let Some(drain) = &mut self.drain {
            drain.set = false;
        }
        self.world.container_instance = container_instance;
        actions.extend(self.world.container_instance.clone().map(|arn| {
            Action::Record(Entry::Registered {
                container_instance: arn,
            })
        }));
    }

    /// `No active Lifecycle Action found` means too early, answered or expired: what was seen
    /// before tells which.
    fn learn_hook(&mut self, job: Job, answer: HookAnswer, now: Moment, actions: &mut Vec<Action>) {
        let taken = answer == HookAnswer::Taken;
        let launch = &mut self.launch;
        match job {
            Job::OpenLaunch => launch.seen_open |= taken,
            Job::AbandonLaunch => launch.answered = true,
            Job::CompleteLaunch => {
                let since = *launch.not_open_since.get_or_insert(now);
                let hook = self.policy.launch_hook.clone();
                if taken {
                    launch.answered = true;
                    actions.push(Action::Record(Entry::LaunchCompleted { hook }));
                } else if launch.seen_open || now.since(since) >= OPENS_WITHIN {
                    launch.answered = true;
                    actions.push(Action::Record(Entry::LaunchClosed { hook }));
                }
            }
            Job::ProbeDrain => {
                if taken {
                    self.begin_drain(now, actions);
                }
            }
            Job::CompleteDrain => {
                let Some(drain) = &mut self.drain else { return };
                let since = *drain.not_open_since.get_or_insert(now);
                let hook = self.policy.drain_hook.clone();
                if taken {
                    drain.answered = true;
                    actions.push(Action::Record(Entry::DrainCompleted { hook }));
                } else if drain.seen_open || now.since(since) >= OPENS_WITHIN {
                    drain.answered = true;
                    actions.push(Action::Record(Entry::DrainClosed { hook }));
                }
            }
            Job::Identify
            | Job::WriteEcsConfig
            | Job::ReadTarget
            | Job::ConvergeSidecars
            | Job::Release
            | Job::ReadEcsAgent
            | Job::HealEcs
            | Job::Describe
            | Job::Publish
            | Job::SetDraining
            | Job::CountTasks
            | Job::ConfirmEmpty
            | Job::ShutGate
            | Job::StopLeftovers
            | Job::StopSidecars => {}
        }
    }

    fn learn_draining(&mut self, set: SetDraining, actions: &mut Vec<Action>) {
        self.abandon.drained |= self.phase == Phase::Abandoning;
        if let SetDraining::Set { tasks } = set {
            actions.push(Action::Record(Entry::Draining { tasks }));
        }
        if set == SetDraining::Gone {
            actions.push(Action::Record(Entry::DrainingUnneeded));
        }
        if let Some(drain) = &mut self.drain {
            match set {
                SetDraining::Set { .. } | SetDraining::Gone => {
                    drain.set = true;
                    drain.refused = None;
                }
                SetDraining::NotYet(why) => drain.refused = Some(why),
            }
        }
    }

    fn learn_tasks(&mut self, tasks: Tasks, now: Moment, actions: &mut Vec<Action>) {
        let conditions = &mut self.world.conditions;
        conditions.ecs.observe(tasks.by_agent.is_ok(), now);
        conditions.docker.observe(tasks.by_docker.is_ok(), now);
        let local = self.local(&tasks, now);
        self.world.tasks = Some(tasks);
        let Some(drain) = &mut self.drain else { return };
        match local {
            Local::Empty => drain.empty_in_a_row = drain.empty_in_a_row.saturating_add(1),
            Local::Left(tasks) => {
                drain.empty_in_a_row = 0;
                drain.confirmed = None;
                if drain.told.replace(tasks) != Some(tasks) {
                    actions.push(Action::Record(Entry::TasksLeft { tasks }));
                }
            }
            Local::Unknown => drain.empty_in_a_row = 0,
        }
    }

    /// Both sides must agree; one that has been silent for long is passed over.
    fn local(&self, tasks: &Tasks, now: Moment) -> Local {
        let conditions = &self.world.conditions;
        let left = match (&tasks.by_agent, &tasks.by_docker) {
            (Ok(by_agent), Ok(by_docker)) => *by_agent.max(by_docker),
            (Err(_), Ok(left)) if conditions.ecs.is_faulty_for(SILENCE, now) => *left,
            (Ok(left), Err(_)) if conditions.docker.is_faulty_for(SILENCE, now) => *left,
            (Ok(_) | Err(_), Err(_)) | (Err(_), Ok(_)) => return Local::Unknown,
        };
        if left == 0 {
            Local::Empty
        } else {
            Local::Left(left)
        }
    }

    fn leftovers_stopped(&mut self) {
        self.abandon.stopped |= self.phase == Phase::Abandoning;
        if let Some(drain) = &mut self.drain {
            drain.stopped = true;
        }
    }

    fn judge_health(&mut self, now: Moment, actions: &mut Vec<Action>) {
        // Sidecars that we stop ourselves are no fault.
        if self.phase >= Phase::Flushing {
            return;
        }
        let health = assess(&self.world.conditions, now);
        if health != self.health {
            self.health = health;
            self.health_since = now;
            actions.push(Action::Record(Entry::HealthChanged {
                verdict: health.verdict,
                reason: health.reason,
            }));
        }
    }

    // Where that leads.

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
            // Nothing was ever held open for us: there is nothing to abandon.
            self.launch.answered = true;
            actions.push(Action::Record(Entry::LaunchClosed {
                hook: self.policy.launch_hook.clone(),
            }));
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
            Phase::Stopping => drain?.stopped.then_some(Phase::Flushing),
            Phase::Flushing => drain?.flushed.then_some(Phase::Completing),
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
            Phase::Abandoning
            | Phase::InService
            | Phase::Stopping
            | Phase::Flushing
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
            return self.world.gate_shut;
        }
        let confirmed =
            drain.confirmed == Some(0) || self.world.conditions.ecs.is_faulty_for(SILENCE, now);
        drain.set && drain.empty_in_a_row >= AGREE && confirmed
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

    // What is to be done.

    /// Everything wanted in this phase, whether or not it is under way already.
    fn wanted(&self, now: Moment) -> Vec<Work> {
        let mut wanted = Vec::new();
        if self.world.identity.is_none() {
            wanted.push(Work::Identify);
        } else if !self.phase.is_leaving() {
            wanted.push(Work::ReadTarget);
        }
        match self.phase {
            Phase::Starting => {
                if !self.world.ecs_config {
                    wanted.push(Work::WriteEcsConfig);
                }
                wanted.push(Work::ConvergeSidecars(Scope::BeforeTasks));
                wanted.extend(self.open_launch());
            }
            Phase::Gated => {
                wanted.push(Work::ConvergeSidecars(Scope::BeforeTasks));
                wanted.extend(self.open_launch());
                if self.may_release() {
                    wanted.push(Work::Release);
                }
            }
            Phase::Launching => {
                wanted.extend([
                    Work::ConvergeSidecars(Scope::All),
                    Work::ReadEcsAgent,
                    Work::CountTasks,
                ]);
                wanted.extend(self.heal());
                wanted.extend(self.open_launch());
                wanted.extend(self.describe());
                wanted.extend(self.publish(now));
                if self.is_proven() {
                    wanted.push(Work::CompleteLaunch);
                }
            }
            Phase::Abandoning => wanted.extend(self.abandoning()),
            Phase::InService => {
                wanted.extend([
                    Work::ConvergeSidecars(Scope::All),
                    Work::ReadEcsAgent,
                    Work::CountTasks,
                ]);
                wanted.extend(self.heal());
                wanted.extend(self.publish(now));
                if self.world.conditions.imds.is_faulty_for(PROBE, now) {
                    wanted.push(Work::ProbeDrain);
                }
            }
            Phase::Draining => wanted.extend(self.draining(now)),
            Phase::Stopping => wanted.push(Work::StopLeftovers),
            Phase::Flushing => wanted.push(Work::StopSidecars),
            Phase::Completing => wanted.push(Work::CompleteDrain),
            Phase::Done => {}
        }
        wanted
    }

    fn abandoning(&self) -> Option<Work> {
        match &self.world.container_instance {
            Some(arn) if !self.abandon.drained => Some(Work::SetDraining(arn.clone())),
            Some(_) if !self.abandon.stopped => Some(Work::StopLeftovers),
            Some(_) | None => (!self.launch.answered).then_some(Work::AbandonLaunch),
        }
    }

    fn draining(&self, now: Moment) -> Vec<Work> {
        let mut wanted = vec![Work::CountTasks];
        let drain = self.drain.as_ref();
        let Some(arn) = &self.world.container_instance else {
            if self.world.released {
                wanted.push(Work::ReadEcsAgent);
            }
            if self.has_never_joined(now) {
                wanted.push(Work::ShutGate);
            }
            return wanted;
        };
        if drain.is_some_and(|drain| !drain.set) {
            wanted.push(Work::SetDraining(arn.clone()));
        } else {
            wanted.extend(self.publish(now));
        }
        // After a reboot in the middle of a drain, only the ECS agent can report the tasks stopped.
        if self.world.released {
            wanted.extend(self.heal());
        } else {
            wanted.push(Work::Release);
        }
        if drain.is_some_and(|drain| drain.empty_in_a_row >= AGREE) {
            wanted.push(Work::ConfirmEmpty(arn.clone()));
        }
        wanted
    }

    fn open_launch(&self) -> Option<Work> {
        let launch = &self.launch;
        (launch.began.is_some() && !launch.seen_open && !launch.answered)
            .then_some(Work::OpenLaunch)
    }

    fn may_release(&self) -> bool {
        self.world.target == Some(Target::InService) && self.are_sidecars_up(Scope::BeforeTasks)
    }

    fn heal(&self) -> Option<Work> {
        (!self.world.conditions.ecs.is_well()).then_some(Work::HealEcs)
    }

    fn describe(&self) -> Option<Work> {
        let known = self.world.registration.as_ref();
        let arn = self.world.container_instance.clone()?;
        (!known.is_some_and(Registration::is_ready)).then_some(Work::Describe(arn))
    }

    fn publish(&self, now: Moment) -> Option<Work> {
        let arn = self.world.container_instance.clone()?;
        let attributes = Attributes {
            health: self.health,
            since: self.health_since,
            intent: self
                .drain
                .as_ref()
                .map_or("serve", |drain| drain.cause.intent()),
        };
        let is_fresh = self
            .world
            .published
            .as_ref()
            .is_some_and(|(published, at)| {
                *published == attributes && now.since(*at) < jitter(REFRESH, self.policy.seed)
            });
        (!is_fresh).then_some(Work::Publish(arn, attributes))
    }

    fn is_proven(&self) -> bool {
        self.world
            .registration
            .as_ref()
            .is_some_and(Registration::is_ready)
            && self.world.published.is_some()
            && self.are_sidecars_up(Scope::All)
    }

    fn scope(&self) -> Scope {
        match self.phase {
            Phase::Starting | Phase::Gated => Scope::BeforeTasks,
            Phase::Launching
            | Phase::Abandoning
            | Phase::InService
            | Phase::Draining
            | Phase::Stopping
            | Phase::Flushing
            | Phase::Completing
            | Phase::Done => Scope::All,
        }
    }

    fn are_sidecars_up(&self, scope: Scope) -> bool {
        self.world
            .sidecars
            .as_ref()
            .is_some_and(|reports| is_up(reports, scope))
    }

    /// How long after it went well a job is done again, if it is still wanted.
    fn cadence(&self, job: Job) -> Duration {
        let brisk = matches!(self.phase, Phase::Launching | Phase::Draining);
        let seconds = Duration::from_secs;
        match job {
            Job::ReadTarget | Job::HealEcs | Job::SetDraining => seconds(2),
            Job::ConfirmEmpty | Job::CompleteDrain => seconds(2),
            Job::ConvergeSidecars if self.are_sidecars_up(self.scope()) => seconds(30),
            Job::ConvergeSidecars => Duration::from_millis(500),
            Job::CountTasks if self.phase == Phase::Draining => seconds(1),
            Job::CountTasks => seconds(15),
            Job::ReadEcsAgent if brisk => Duration::from_millis(500),
            Job::ReadEcsAgent => seconds(15),
            Job::OpenLaunch => seconds(5),
            Job::ProbeDrain => jitter(PROBE, self.policy.seed),
            Job::Identify
            | Job::WriteEcsConfig
            | Job::Release
            | Job::Describe
            | Job::Publish
            | Job::CompleteLaunch
            | Job::AbandonLaunch
            | Job::ShutGate
            | Job::StopLeftovers
            | Job::StopSidecars => seconds(1),
        }
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
            launch_answered: self.launch.answered,
            drain: self.drain.as_ref().map(|drain| SavedDrain {
                cause: drain.cause,
                began: drain.began,
                set: drain.set,
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

    // What is told.

    fn tell_waiting(&mut self, actions: &mut Vec<Action>) {
        let waiting = self.waits_on();
        if !waiting.is_like(&self.waiting) && waiting != Waiting::Nothing {
            actions.push(Action::Record(Entry::Waiting {
                on: waiting.to_string(),
            }));
        }
        self.waiting = waiting;
    }

    fn waits_on(&self) -> Waiting {
        let world = &self.world;
        match self.phase {
            Phase::Starting if world.identity.is_none() => Waiting::Identity,
            Phase::Starting if !world.ecs_config => Waiting::EcsConfig,
            Phase::Starting => self.waits_on_sidecars(Scope::BeforeTasks),
            Phase::Gated if world.target != Some(Target::InService) => {
                Waiting::Target(world.target.clone())
            }
            Phase::Gated if !self.are_sidecars_up(Scope::BeforeTasks) => {
                self.waits_on_sidecars(Scope::BeforeTasks)
            }
            Phase::Gated => Waiting::Release,
            Phase::Launching => self.waits_on_proof(),
            Phase::Abandoning => Waiting::Termination,
            Phase::InService | Phase::Done => Waiting::Nothing,
            Phase::Draining => self.waits_on_tasks(),
            Phase::Stopping => Waiting::Leftovers,
            Phase::Flushing => Waiting::SidecarsStopping,
            Phase::Completing => Waiting::DrainHook(self.policy.drain_hook.clone()),
        }
    }

    fn waits_on_sidecars(&self, scope: Scope) -> Waiting {
        let Some(reports) = &self.world.sidecars else {
            return Waiting::Docker;
        };
        let late: Vec<String> = reports
            .iter()
            .filter(|report| is_in(report, scope) && report.state != State::Up)
            .map(|report| format!("{} is {}", report.name, report.state.as_str()))
            .collect();
        Waiting::Sidecars(late.join(", "))
    }

    fn waits_on_proof(&self) -> Waiting {
        let world = &self.world;
        match &world.registration {
            _ if !world.conditions.ecs.is_well() => Waiting::EcsService(world.unit.clone()),
            _ if world.container_instance.is_none() => Waiting::Registration,
            None => Waiting::Connection(None),
            Some(known) if !known.is_ready() => Waiting::Connection(Some(format!(
                "{}, {}",
                known.status,
                if known.connected {
                    "connected"
                } else {
                    "not connected"
                }
            ))),
            Some(_) if !self.are_sidecars_up(Scope::All) => self.waits_on_sidecars(Scope::All),
            Some(_) if world.published.is_none() => Waiting::Permission,
            Some(_) => Waiting::LaunchHook(self.policy.launch_hook.clone()),
        }
    }

    fn waits_on_tasks(&self) -> Waiting {
        let Some(drain) = &self.drain else {
            return Waiting::Nothing;
        };
        if self.world.container_instance.is_none() {
            return Waiting::Gate;
        }
        if !drain.set {
            return Waiting::SetDraining(drain.refused.clone());
        }
        match (&drain.confirmed, self.world.tasks.as_ref()) {
            (Some(left @ 1..), _) => Waiting::EcsAgree(*left),
            (
                _,
                Some(Tasks {
                    by_docker: Err(_), ..
                }),
            ) => Waiting::Docker,
            (_, tasks) => Waiting::Tasks(tasks.and_then(known_tasks)),
        }
    }

    /// The last error of what is being done and fails.
    fn problem(&self) -> Option<String> {
        self.wanted(self.now).iter().find_map(|work| {
            let job = work.job();
            let error = self.schedule.error(job)?;
            self.is_told(job)
                .then(|| format!("failed to {}: {error}", job.as_str()))
        })
    }
}

impl Drain {
    fn new(cause: Cause, began: Moment) -> Self {
        Self {
            cause,
            began,
            resume: Phase::Draining,
            set: false,
            refused: None,
            seen_open: false,
            not_open_since: None,
            empty_in_a_row: 0,
            told: None,
            confirmed: None,
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

/// Whether this is what such a job comes to.
fn belongs(job: Job, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Identified { .. } => job == Job::Identify,
        Outcome::EcsConfig(_) => job == Job::WriteEcsConfig,
        Outcome::Target(_) => job == Job::ReadTarget,
        Outcome::Sidecars(_) => job == Job::ConvergeSidecars,
        Outcome::Released { .. } => job == Job::Release,
        Outcome::EcsAgent(_) => job == Job::ReadEcsAgent,
        Outcome::Healed(_) => job == Job::HealEcs,
        Outcome::Described(_) => job == Job::Describe,
        Outcome::Published(_) => job == Job::Publish,
        Outcome::Hook(_) => matches!(
            job,
            Job::OpenLaunch
                | Job::CompleteLaunch
                | Job::AbandonLaunch
                | Job::CompleteDrain
                | Job::ProbeDrain
        ),
        Outcome::Draining(_) => job == Job::SetDraining,
        Outcome::Tasks(_) => job == Job::CountTasks,
        Outcome::Confirmed(_) => job == Job::ConfirmEmpty,
        Outcome::GateShut => job == Job::ShutGate,
        Outcome::Leftovers { .. } => job == Job::StopLeftovers,
        Outcome::SidecarsStopped(_) => job == Job::StopSidecars,
    }
}
