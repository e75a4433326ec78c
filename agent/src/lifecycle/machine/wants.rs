//! What is to be done in a phase, given what is known.

use super::*;
use crate::lifecycle::cause::intent;

/// Wanted at the same time, but for rare moments.
const USUALLY: usize = 12;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Machine {
    /// Everything wanted in this phase, whether or not it is under way already.
    pub(super) fn wanted(&self, now: Moment) -> Vec<Work> {
        if self.world.identity.is_none() {
            // A restart in mid-drain is not to start what was stopped.
            return vec![Work::Identify];
        }
        let mut wanted = self.watching(now);
        match self.phase {
            Phase::Starting => {
                if !self.world.ecs_config {
                    wanted.push(Work::WriteEcsConfig);
                }
                wanted.push(Work::ConvergeSidecars(Scope::BeforeTasks));
                wanted.extend(self.answer_launch(false));
                wanted.extend(self.give_up(now));
            }
            Phase::Gated => {
                wanted.push(Work::ConvergeSidecars(Scope::BeforeTasks));
                wanted.extend(self.warming());
                if self.may_release() {
                    wanted.push(Work::Release);
                }
                wanted.extend(self.give_up(now));
            }
            Phase::Launching => {
                wanted.extend([
                    Work::ConvergeSidecars(Scope::All),
                    Work::ReadEcsAgent,
                    Work::CountTasks,
                ]);
                wanted.extend(self.heal());
                wanted.extend(self.activate());
                wanted.extend(self.describe());
                wanted.extend(self.publish(now));
                wanted.extend(self.answer_launch(self.is_proven()));
            }
            Phase::Abandoning => wanted.extend(self.abandoning()),
            Phase::InService => {
                wanted.extend([
                    Work::ConvergeSidecars(Scope::All),
                    Work::ReadEcsAgent,
                    Work::CountTasks,
                ]);
                wanted.extend(self.heal());
                wanted.extend(self.activate());
                wanted.extend(self.publish(now));
                wanted.extend(self.replace(now));
            }
            Phase::Draining => wanted.extend(self.draining(now)),
            Phase::Stopping => wanted.extend([Work::CountTasks, self.stop_leftovers(now)]),
            Phase::Drained => wanted.extend(self.drained(now)),
            Phase::Flushing => {
                wanted.push(self.stop_sidecars(now));
                // To report stopped what was stopped; never where ECS would give it new tasks, nor for
                // nothing: its agent starts what it still has to start.
                let reports = self
                    .drain
                    .as_ref()
                    .is_some_and(|drain| drain.set && !drain.gone && drain.leftovers != Some(0));
                if reports && !self.world.released && self.world.container_instance.is_some() {
                    wanted.push(Work::Release);
                }
            }
            Phase::Completing => wanted.push(Work::CompleteDrain),
            Phase::Done => {}
        }
        wanted
    }

    /// What may tell of a cause, for as long as it can change anything.
    fn watching(&self, now: Moment) -> Vec<Work> {
        let mut wanted = Vec::with_capacity(USUALLY);
        if !self.is_terminated() {
            wanted.push(Work::ReadTarget);
            if self.world.conditions.imds.is_faulty_for(PROBE, now) {
                wanted.push(Work::ProbeDrain);
            }
        }
        if self.phase < Phase::Flushing {
            wanted.push(Work::ReadTag);
            if self.policy.drain.maintenance == Reaction::Drain {
                wanted.push(Work::ReadMaintenance);
            }
        }
        let identity = self.world.identity.as_ref();
        let is_spot = identity.is_some_and(|identity| identity.spot);
        if is_spot && self.phase != Phase::Completing {
            wanted.push(Work::ReadSpot);
        }
        wanted
    }

    /// It was in service before a restart, and what its tasks need may not come back.
    fn give_up(&self, now: Moment) -> Vec<Work> {
        if !self.launch.answered || self.world.container_instance.is_none() {
            return Vec::new();
        }
        let conditions = &self.world.conditions;
        let is_well = conditions.docker.is_well() && conditions.sidecars.is_well();
        let looks = (!is_well).then_some(Work::CountTasks);
        let told = looks.into_iter().chain(self.publish(now));
        told.chain(self.replace(now)).collect()
    }

    /// A node in a warm pool is made ready and then waits, for hours if need be.
    fn warming(&self) -> Option<Work> {
        let is_warm = matches!(self.world.target, Some(Target::Warmed(_))) && self.launch.warm;
        let is_ready = is_warm && self.are_sidecars_up(Scope::BeforeTasks);
        let is_clear = self.world.checkpoint_cleared || self.world.container_instance.is_some();
        if is_ready && !is_clear && !self.launch.answered {
            return Some(Work::ClearCheckpoint);
        }
        self.answer_launch(is_ready)
    }

    /// Only what we set to DRAINING is ours to set back, and only once nothing asks for it.
    fn activate(&self) -> Option<Work> {
        // Of two calls under way at once either may come last.
        let is_safe = !self.schedule.is_under_way(Job::SetDraining);
        if !self.world.ours || self.drain.is_some() || !is_safe {
            return None;
        }
        self.world.container_instance.clone().map(Work::SetActive)
    }

    fn stop_leftovers(&self, now: Moment) -> Work {
        let full = self.policy.spans.container_stop + STOP_MARGIN;
        let hard = self.hard_bounds().map(|hard| hard.leftovers.since(now));
        Work::StopLeftovers(hard.map_or(full, |left| left.min(full)))
    }

    fn stop_sidecars(&self, now: Moment) -> Work {
        let full = self.policy.spans.sidecars;
        let hard = self.hard_bounds().map(|hard| hard.sidecars.since(now));
        Work::StopSidecars(hard.map_or(full, |left| left.min(full)))
    }

    fn drained(&self, now: Moment) -> Vec<Work> {
        let mut wanted = vec![
            Work::CountTasks,
            Work::ReadEcsAgent,
            Work::ConvergeSidecars(Scope::All),
        ];
        // After a reboot too the node is to be seen as connected, and to hear that it is wanted again.
        if self.world.container_instance.is_some() {
            wanted.extend(self.keep_ecs_up());
        }
        // AWS may have been out of reach for the whole of the drain: ECS would place tasks again.
        wanted.extend(self.set_draining(now));
        wanted.extend(self.publish(now));
        wanted.extend(self.replace(now));
        wanted
    }

    /// A node that has joined needs its ECS agent also in a boot that began during its drain: only the
    /// agent can report tasks stopped.
    fn keep_ecs_up(&self) -> Option<Work> {
        if self.world.released {
            return self.heal();
        }
        Some(if self.world.ecs_config {
            Work::Release
        } else {
            Work::WriteEcsConfig
        })
    }

    /// Whether the container instance was ACTIVE decides whether it is ours to set back. Asked only
    /// where that may come, and never for long.
    fn asks_status(&self, drain: &Drain, now: Moment) -> bool {
        let can_return = self.causes().all(|cause| cause.kind.can_return());
        if self.world.ours || drain.was_active.is_some() || !can_return {
            return false;
        }
        let is_hard = self.causes().any(|cause| cause.kind.is_hard());
        let has_failed = self.schedule.error(Job::Describe).is_some();
        !(is_hard && has_failed) && now.since(drain.began) < ASKS_FOR
    }

    /// Of two calls under way at once either may come last.
    fn set_draining(&self, now: Moment) -> Option<Work> {
        let arn = self.world.container_instance.clone()?;
        let drain = self.drain.as_ref().filter(|drain| !drain.set)?;
        let is_safe = !self.schedule.is_under_way(Job::SetActive);
        is_safe.then(|| {
            if self.asks_status(drain, now) {
                Work::Describe(arn)
            } else {
                Work::SetDraining(arn)
            }
        })
    }

    pub(super) fn abandoning(&self) -> Option<Work> {
        match &self.world.container_instance {
            Some(arn) if !self.abandon.drained => Some(Work::SetDraining(arn.clone())),
            Some(_) if !self.abandon.stopped => Some(Work::StopLeftovers(
                self.policy.spans.container_stop + STOP_MARGIN,
            )),
            Some(_) | None => (!self.launch.answered).then_some(Work::AbandonLaunch),
        }
    }

    pub(super) fn draining(&self, now: Moment) -> Vec<Work> {
        let mut wanted = vec![Work::CountTasks];
        let Some(drain) = &self.drain else {
            return wanted;
        };
        let Some(arn) = &self.world.container_instance else {
            if self.world.released {
                wanted.push(Work::ReadEcsAgent);
            }
            if self.after_tasks() == Phase::Flushing && self.has_never_joined(now) {
                wanted.push(Work::ShutGate);
            }
            return wanted;
        };
        wanted.extend(self.set_draining(now));
        // Its checkpoint may have been lost, and it be somebody else now.
        wanted.push(Work::ReadEcsAgent);
        if drain.set && self.may_say_so(drain, now) {
            wanted.extend(self.publish(now));
        }
        if self.needs_groups(now) {
            wanted.push(Work::ReadGroups(arn.clone()));
        }
        let standalone = self.standalone_due(now);
        if !standalone.is_empty() {
            wanted.push(Work::StopStandalone(standalone));
        }
        wanted.extend(self.keep_ecs_up());
        let is_empty_here = self.is_node_silent(now) || drain.empty_in_a_row >= AGREE;
        if drain.set && !drain.gone && is_empty_here {
            wanted.push(Work::ConfirmEmpty(arn.clone()));
        }
        wanted
    }

    /// Attributes only inform, and share ECS's 40 writes a second with every node's DRAINING: of a
    /// thousand nodes that go for good at once each waits its own time.
    fn may_say_so(&self, drain: &Drain, now: Moment) -> bool {
        let is_final = self.causes().any(|cause| cause.kind.is_final());
        !is_final || drain.began + jitter(SAYS_WITHIN, self.policy.seed) <= now
    }

    /// Whether the action is open is asked while there is no answer to give: to know it, and before
    /// it is abandoned. Never both at once, so that what the one says is not of before the other.
    fn answer_launch(&self, is_proven: bool) -> Option<Work> {
        let launch = &self.launch;
        if launch.began.is_none() || launch.answered {
            return None;
        }
        if is_proven {
            let is_asked = self.schedule.is_under_way(Job::OpenLaunch);
            return (!is_asked).then_some(Work::CompleteLaunch);
        }
        let is_answered = self.schedule.is_under_way(Job::CompleteLaunch);
        let asks = !launch.seen_open || self.is_launch_overdue(self.now);
        (asks && !is_answered).then_some(Work::OpenLaunch)
    }

    pub(super) fn may_release(&self) -> bool {
        let is_wanted = match self.world.target {
            Some(Target::InService) => true,
            // Taken out of its group's service, not out of ECS's: it serves on, after a reboot too.
            Some(Target::Other(_) | Target::NoGroup) => self.launch.answered && !self.launch.warm,
            Some(Target::Warmed(_) | Target::Terminated) | None => false,
        };
        is_wanted && self.world.is_guarded() && self.are_sidecars_up(Scope::BeforeTasks)
    }

    pub(super) fn heal(&self) -> Option<Work> {
        (!self.world.conditions.ecs.is_well()).then_some(Work::HealEcs)
    }

    pub(super) fn describe(&self) -> Option<Work> {
        let known = self.world.registration.as_ref();
        if known.is_some_and(Registration::is_ready) {
            return None;
        }
        self.world.container_instance.clone().map(Work::Describe)
    }

    pub(super) fn publish(&self, now: Moment) -> Option<Work> {
        let arn = self.world.container_instance.as_ref()?;
        let attributes = Attributes {
            health: self.health,
            // Not of the reason, which may change from one to another: it is what nodes are ranked by.
            since: self.impaired_since.unwrap_or(self.health_since),
            intent: self.intent(),
            settled: self.world.settled,
        };
        let is_well =
            attributes.health.verdict == Verdict::Ok && attributes.intent == intent::SERVE;
        if self.world.published.is_none() && is_well && !attributes.settled {
            // There is nothing to say yet that would not be said again in a moment.
            return None;
        }
        let is_fresh = self
            .world
            .published
            .as_ref()
            .is_some_and(|(published, at)| {
                *published == attributes && now.since(*at) < jitter(REFRESH, self.policy.seed)
            });
        (!is_fresh).then(|| Work::Publish(arn.clone(), attributes))
    }

    /// `leave` says more than `drain`.
    fn intent(&self) -> &'static str {
        let intents = self.causes().map(|cause| cause.kind.intent());
        let replacement = self.replacement_intent();
        replacement.unwrap_or_else(|| intents.max().unwrap_or(intent::SERVE))
    }

    pub(super) fn is_proven(&self) -> bool {
        self.world
            .registration
            .as_ref()
            .is_some_and(Registration::is_ready)
            && self.world.published.is_some()
            && self.world.can_run()
            && self.are_sidecars_up(Scope::All)
    }

    pub(super) fn scope(&self) -> Scope {
        match self.phase {
            Phase::Starting | Phase::Gated => Scope::BeforeTasks,
            Phase::Launching
            | Phase::Abandoning
            | Phase::InService
            | Phase::Draining
            | Phase::Stopping
            | Phase::Drained
            | Phase::Flushing
            | Phase::Completing
            | Phase::Done => Scope::All,
        }
    }

    pub(super) fn are_sidecars_up(&self, scope: Scope) -> bool {
        self.world
            .sidecars
            .as_ref()
            .is_some_and(|reports| is_up(reports, scope))
    }

    /// All of them are up, if only as they were before a change.
    pub(super) fn have_sidecars(&self, scope: Scope) -> bool {
        let has = |report: &Report| matches!(report.state, State::Up | State::Outdated);
        self.world
            .sidecars
            .as_ref()
            .is_some_and(|reports| reports.iter().filter(|one| is_in(one, scope)).all(has))
    }

    /// Seen empty, but not often enough yet, or by one side only.
    fn is_nearly_empty(&self) -> bool {
        let Some(drain) = &self.drain else {
            return false;
        };
        let tasks = self.world.tasks.as_ref();
        let differ = tasks.is_some_and(|tasks| {
            let by_agent = tasks.by_agent.as_ref().map(Vec::is_empty);
            let by_docker = tasks.by_docker.as_ref().map(BTreeMap::is_empty);
            matches!((by_agent, by_docker), (Ok(one), Ok(other)) if one != other)
        });
        (1..AGREE).contains(&drain.empty_in_a_row) || differ && self.now.since(drain.moved) < DIFFER
    }

    /// Docker lists a container as running for a moment after it has told of its end.
    fn is_stirred(&self) -> bool {
        let stirred = self.drain.as_ref().and_then(|drain| drain.stirred);
        stirred.is_some_and(|at| self.now.since(at) < STIRS)
    }

    /// The wait after so many answers in a row that were not the one hoped for.
    fn again(&self, first: Duration, answers: u32) -> Duration {
        let round = answers.saturating_sub(1);
        backoff(first, LAST_RETRY, round, self.policy.seed)
    }

    /// How long after it went well a job is done again, if it is still wanted.
    pub(super) fn cadence(&self, job: Job) -> Duration {
        let is_known = self.world.container_instance.is_some();
        let brisk = match self.phase {
            Phase::Launching => true,
            Phase::Draining => !is_known,
            Phase::Starting
            | Phase::Gated
            | Phase::Abandoning
            | Phase::InService
            | Phase::Stopping
            | Phase::Drained
            | Phase::Flushing
            | Phase::Completing
            | Phase::Done => false,
        };
        match job {
            // ECS is to know within 2.25 s, of which IMDS and the call take the rest.
            Job::ReadTarget => Duration::from_millis(1_750),
            Job::HealEcs | Job::StopStandalone | Job::CompleteLaunch => seconds(2),
            // drain-rules of the poll: IMDS has a budget of packets that it shares with DNS.
            Job::ReadSpot => seconds(5),
            Job::ReadTag => seconds(10),
            Job::ReadMaintenance => seconds(60),
            Job::ReadGroups => seconds(30),
            Job::ConfirmEmpty => {
                let disagreed = self.drain.as_ref().map_or(0, |drain| drain.disagreed);
                self.again(seconds(2), disagreed)
            }
            Job::CompleteDrain => {
                let not_open = self.drain.as_ref().map_or(0, |drain| drain.not_open);
                self.again(seconds(2), not_open)
            }
            Job::SetDraining => {
                let refusals = self.drain.as_ref().map_or(0, |drain| drain.refusals);
                self.again(seconds(2), refusals)
            }
            Job::Describe => self.again(seconds(1), self.launch.unready),
            Job::ConvergeSidecars if self.are_sidecars_up(self.scope()) => seconds(30),
            Job::ConvergeSidecars => Duration::from_millis(500),
            Job::CountTasks if self.is_nearly_empty() => Duration::from_millis(100),
            Job::CountTasks if self.is_stirred() => Duration::from_millis(200),
            Job::CountTasks if self.phase == Phase::Draining => seconds(1),
            Job::CountTasks => seconds(15),
            Job::ReadEcsAgent if brisk => Duration::from_millis(500),
            Job::ReadEcsAgent => seconds(15),
            Job::OpenLaunch => seconds(5),
            Job::ProbeDrain => jitter(PROBE, self.policy.seed),
            Job::LookAround => self.next_look(),
            // Done once, unless it comes to nothing.
            Job::Condemn | Job::PowerOff => seconds(300),
            Job::Identify
            | Job::WriteEcsConfig
            | Job::ClearCheckpoint
            | Job::SetActive
            | Job::Release
            | Job::Publish
            | Job::AbandonLaunch
            | Job::ShutGate
            | Job::StopLeftovers
            | Job::StopSidecars
            | Job::Keep => seconds(1),
        }
    }
}
