//! The machine as people see it: what it waits on, and what fails.

use super::*;

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
    pub(crate) tasks: Option<&'a Tasks>,
    pub(crate) sidecars: &'a [Report],
    pub(crate) settled: bool,
    pub(crate) health: Health,
    pub(crate) health_since: Moment,
    pub(crate) faults: &'a [Fault],
    pub(crate) hazards: &'a [String],
    pub(crate) leaving: Option<Leaving<'a>>,
}

/// A drain as people see it.
#[derive(Debug, Clone)]
pub(crate) struct Leaving<'a> {
    /// The one whose end comes first, first.
    pub(crate) causes: Vec<&'a Cause>,
    pub(crate) began: Moment,
    /// None once drained, on a machine that stays.
    pub(crate) bounds: Option<Bounds>,
    /// Task to group, as far as it is known.
    pub(crate) groups: &'a BTreeMap<String, String>,
}

impl Machine {
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
            tasks: self.world.tasks.as_ref(),
            sidecars: self.world.sidecars.as_deref().unwrap_or_default(),
            settled: self.world.settled,
            health: self.health,
            health_since: self.health_since,
            faults: self.world.faults(),
            hazards: self.world.hazards(),
            leaving: self.drain.as_ref().map(|drain| {
                let mut causes: Vec<&Cause> = self.causes().collect();
                causes.sort_by_key(|cause| cause.bounds(&self.policy.spans).end);
                Leaving {
                    causes,
                    began: drain.began,
                    bounds: self.bounds(),
                    groups: &drain.groups,
                }
            }),
        }
    }

    /// Tells the journal about waits that last.
    pub(super) fn tell_waiting(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.tell_stall(now, actions);
        let waiting = self.waits_on();
        if !waiting.is_like(&self.waiting) {
            self.waiting_since = now;
            self.waiting_told = false;
        }
        self.waiting = waiting;
        if self.tells_at().is_some_and(|at| at <= now) {
            self.waiting_told = true;
            actions.push(Action::Record(Entry::Waiting {
                on: self.waiting.to_string(),
            }));
        }
    }

    pub(super) fn tells_at(&self) -> Option<Moment> {
        let is_news = !self.waiting_told && self.waiting != Waiting::Nothing;
        is_news.then(|| self.waiting_since + TELL_AFTER)
    }

    pub(super) fn waits_on(&self) -> Waiting {
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
            Phase::Gated if !world.is_guarded() => Waiting::Guard,
            Phase::Gated => Waiting::Release,
            Phase::Launching => self.waits_on_proof(),
            Phase::Abandoning => Waiting::Termination,
            Phase::InService if self.world.ours => Waiting::Active,
            Phase::InService => self.waits_to_be_replaced().unwrap_or(Waiting::Nothing),
            Phase::Done => Waiting::Nothing,
            Phase::Draining => self.waits_on_tasks(),
            Phase::Stopping => Waiting::Leftovers,
            Phase::Drained => self.waits_to_be_replaced().unwrap_or_else(|| {
                let cause = self.ruling().map(ToString::to_string);
                Waiting::Withdrawal(cause.unwrap_or_default())
            }),
            Phase::Flushing => Waiting::SidecarsStopping,
            Phase::Completing => Waiting::DrainHook(self.policy.drain_hook.clone()),
        }
    }

    pub(super) fn waits_on_sidecars(&self, scope: Scope) -> Waiting {
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

    pub(super) fn waits_on_proof(&self) -> Waiting {
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
            Some(_) if !world.can_run() => Waiting::Probe,
            Some(_) => Waiting::LaunchHook(self.policy.launch_hook.clone()),
        }
    }

    pub(super) fn waits_on_tasks(&self) -> Waiting {
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
            _ if self.is_stalled(self.now) => Waiting::Stalled(self.what_stalls()),
            (_, tasks) => Waiting::Tasks(tasks.and_then(known_tasks)),
        }
    }

    /// The last error of what is waited for; else of whatever else is tried and fails.
    pub(super) fn problem(&self) -> Option<String> {
        let wanted = self.wanted(self.now);
        let jobs = wanted.iter().map(Work::job);
        self.waits_on()
            .job()
            .into_iter()
            .chain(jobs)
            .find_map(|job| {
                let error = self.schedule.error(job)?;
                self.is_told(job)
                    .then(|| format!("failed to {}: {error}", job.as_str()))
            })
    }
}
