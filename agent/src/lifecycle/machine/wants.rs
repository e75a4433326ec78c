//! What is to be done in a phase, given what is known.

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Machine {
    /// Everything wanted in this phase, whether or not it is under way already.
    pub(super) fn wanted(&self, now: Moment) -> Vec<Work> {
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

    pub(super) fn abandoning(&self) -> Option<Work> {
        match &self.world.container_instance {
            Some(arn) if !self.abandon.drained => Some(Work::SetDraining(arn.clone())),
            Some(_) if !self.abandon.stopped => Some(Work::StopLeftovers),
            Some(_) | None => (!self.launch.answered).then_some(Work::AbandonLaunch),
        }
    }

    pub(super) fn draining(&self, now: Moment) -> Vec<Work> {
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
        let is_silent = self.is_node_silent(now);
        let is_empty_here = |drain: &Drain| is_silent || drain.empty_in_a_row >= AGREE;
        if drain.is_some_and(|drain| drain.set && !drain.gone && is_empty_here(drain)) {
            wanted.push(Work::ConfirmEmpty(arn.clone()));
        }
        wanted
    }

    pub(super) fn open_launch(&self) -> Option<Work> {
        let launch = &self.launch;
        (launch.began.is_some() && !launch.seen_open && !launch.answered)
            .then_some(Work::OpenLaunch)
    }

    pub(super) fn may_release(&self) -> bool {
        self.world.target == Some(Target::InService) && self.are_sidecars_up(Scope::BeforeTasks)
    }

    pub(super) fn heal(&self) -> Option<Work> {
        (!self.world.conditions.ecs.is_well()).then_some(Work::HealEcs)
    }

    pub(super) fn describe(&self) -> Option<Work> {
        let known = self.world.registration.as_ref();
        let arn = self.world.container_instance.clone()?;
        (!known.is_some_and(Registration::is_ready)).then_some(Work::Describe(arn))
    }

    pub(super) fn publish(&self, now: Moment) -> Option<Work> {
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

    pub(super) fn is_proven(&self) -> bool {
        self.world
            .registration
            .as_ref()
            .is_some_and(Registration::is_ready)
            && self.world.published.is_some()
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

    /// Seen empty, but not often enough yet.
    fn is_nearly_empty(&self) -> bool {
        let empty = self.drain.as_ref().map_or(0, |drain| drain.empty_in_a_row);
        (1..AGREE).contains(&empty)
    }

    /// The wait after so many answers in a row that were not the one hoped for.
    fn again(&self, answers: u32) -> Duration {
        let round = answers.saturating_sub(1);
        backoff(seconds(2), LAST_RETRY, round, self.policy.seed)
    }

    /// How long after it went well a job is done again, if it is still wanted.
    pub(super) fn cadence(&self, job: Job) -> Duration {
        let brisk = matches!(self.phase, Phase::Launching | Phase::Draining);
        match job {
            Job::ReadTarget | Job::HealEcs | Job::SetDraining => seconds(2),
            Job::ConfirmEmpty => self.again(self.drain.as_ref().map_or(0, |drain| drain.disagreed)),
            Job::CompleteDrain => self.again(self.drain.as_ref().map_or(0, |drain| drain.not_open)),
            Job::ConvergeSidecars if self.are_sidecars_up(self.scope()) => seconds(30),
            Job::ConvergeSidecars => Duration::from_millis(500),
            Job::CountTasks if self.is_nearly_empty() => Duration::from_millis(250),
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
}
