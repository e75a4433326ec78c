//! What an event changes in what is known.

use super::*;

/// ECS is asked this often whose the tasks of a node are; one that it does not name then is nobody's.
const ASKS: u32 = 3;

impl Machine {
    pub(super) fn absorb(
        &mut self,
        event: Event,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> Result<(), IllegalTransition> {
        match event {
            Event::Tick => Ok(()),
            Event::Container(Whose::Task) => {
                if let (Phase::Draining, Some(drain)) = (self.phase, &mut self.drain) {
                    drain.stirred = Some(now);
                    self.schedule.hurry_one(Job::CountTasks);
                }
                Ok(())
            }
            Event::Container(Whose::Sidecar) => {
                self.schedule.hurry_one(Job::ConvergeSidecars);
                Ok(())
            }
            Event::Node(report) => {
                self.world.node = Some(report);
                Ok(())
            }
            Event::Order(order) => {
                self.obey(order, now, actions);
                Ok(())
            }
            Event::Heartbeat(answer) => match &mut self.drain {
                Some(drain) => {
                    if answer == HookAnswer::Taken && !drain.seen_open {
                        drain.seen_open = true;
                        drain.sent_early = self.schedule.is_under_way(Job::CompleteDrain);
                        drain.not_open = 0;
                        self.schedule.hurry_one(Job::CompleteDrain);
                    }
                    Ok(())
                }
                None => Err(self.illegal(&Event::Heartbeat(answer))),
            },
            Event::Kept(kept) => {
                self.unkept = kept.is_err();
                match kept {
                    Ok(()) => self.succeed(Job::Keep, now, actions),
                    Err(error) => self.fail(Job::Keep, &error, now, actions),
                }
                Ok(())
            }
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

    pub(super) fn illegal(&self, event: &Event) -> IllegalTransition {
        IllegalTransition {
            phase: self.phase,
            event: format!("{event:?}"),
        }
    }

    pub(super) fn succeed(&mut self, job: Job, now: Moment, actions: &mut Vec<Action>) {
        let recovered = self.schedule.succeed(job, now + self.cadence(job));
        if recovered && self.is_told(job) {
            actions.push(Action::Record(Entry::Recovered { call: job.as_str() }));
        }
    }

    pub(super) fn fail(&mut self, job: Job, error: &str, now: Moment, actions: &mut Vec<Action>) {
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
            Job::CompleteDrain => {
                if let Some(drain) = &mut self.drain {
                    drain.sent_early = false;
                }
            }
            // Best effort, once: the node goes anyway.
            Job::SetDraining if self.phase == Phase::Abandoning => self.abandon.drained = true,
            Job::StopLeftovers => {
                self.abandon.stopped |= self.phase == Phase::Abandoning;
                self.world.released = false;
            }
            Job::WriteEcsConfig
            | Job::ReadSpot
            | Job::ReadMaintenance
            | Job::ReadTag
            | Job::ClearCheckpoint
            | Job::SetActive
            | Job::ReadGroups
            | Job::StopStandalone
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
            | Job::StopSidecars
            | Job::ProbeDrain
            | Job::LookAround
            | Job::Condemn
            | Job::PowerOff
            | Job::Keep => {}
        }
    }

    /// An ECS agent that does not answer yet is what starting looks like.
    pub(super) fn is_told(&self, job: Job) -> bool {
        let is_starting = job == Job::ReadEcsAgent && self.phase != Phase::InService;
        // Given up, so that nothing is started while all is stopped.
        let is_given_up = job == Job::ConvergeSidecars && self.phase >= Phase::Flushing;
        !is_starting && !is_given_up
    }

    pub(super) fn learn(
        &mut self,
        job: Job,
        outcome: Outcome,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        match outcome {
            Outcome::Identified {
                identity,
                boot,
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
                self.world.boot = boot;
                // Somebody may have been quicker than IMDS.
                let wished = self.drain.take();
                if let Some(saved) = saved {
                    self.restore(*saved, actions);
                }
                for cause in wished
                    .into_iter()
                    .flat_map(|drain| drain.causes.into_values())
                {
                    let cause = if cause.kind == Kind::Shutdown {
                        Cause::shutdown(&self.world.boot, cause.began)
                    } else {
                        cause
                    };
                    self.add_cause(cause, now, actions);
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
            Outcome::Spot(news) => self.learn_spot(news, now, actions),
            Outcome::Maintenance(scheduled) => self.learn_maintenance(scheduled, now, actions),
            Outcome::Tag(value) => self.learn_tag(value, now, actions),
            Outcome::CheckpointCleared => self.world.checkpoint_cleared = true,
            Outcome::Sidecars(round) => self.learn_sidecars(round, now, actions),
            Outcome::Released { now: opened } => {
                self.world.released = true;
                self.world.gate_shut = false;
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
            Outcome::Described(registration) => {
                // REGISTERING says nothing of who wants what.
                let is_settled = registration.is_active() || registration.is_draining();
                if let Some(drain) = &mut self.drain
                    && is_settled
                    && !drain.set
                    && drain.was_active.is_none()
                {
                    drain.was_active = Some(registration.is_active());
                    // Kept before DRAINING is set: a restart in between must not leave a node that
                    // nobody sets back.
                    self.world.ours |= registration.is_active();
                }
                self.launch.unready = self.launch.unready.saturating_add(1);
                self.world.registration = Some(registration);
            }
            Outcome::Published(attributes) => self.learn_published(attributes, now, actions),
            Outcome::Around(around) => self.learn_around(&around, now),
            Outcome::Condemned | Outcome::PoweringOff => {}
            Outcome::Hook(answer) => self.learn_hook(job, answer, now, actions),
            Outcome::Draining(set) => self.learn_draining(set, actions),
            Outcome::Active(known) => {
                self.world.ours = false;
                self.world.registration = None;
                if let Some(drain) = &mut self.drain {
                    // Another drain has begun meanwhile, and has to set DRAINING again.
                    drain.set = false;
                    drain.was_active = None;
                }
                if known {
                    actions.push(Action::Record(Entry::Activated));
                }
            }
            Outcome::Groups(groups) => {
                // One that ECS does not name is not to be asked about again.
                let asked: Vec<String> = self.by_agent().iter().map(|t| t.arn.clone()).collect();
                if let Some(drain) = &mut self.drain {
                    drain.groups.extend(groups);
                    drain.asked = drain.asked.saturating_add(1);
                    // What ECS lists may lag behind what runs here.
                    let gives_up = drain.asked >= ASKS;
                    for task in asked.into_iter().filter(|_| gives_up) {
                        drain.groups.entry(task).or_default();
                    }
                }
            }
            Outcome::StandaloneStopped { stopped, left } => {
                if stopped + left > 0 {
                    actions.push(Action::Record(Entry::StandaloneStopped { stopped, left }));
                }
            }
            Outcome::Tasks(tasks) => self.learn_tasks(tasks, now, actions),
            Outcome::Confirmed(tasks) => {
                // One that was asked before DRAINING says nothing of what was placed since.
                if let Some(drain) = &mut self.drain
                    && drain.set
                {
                    drain.confirmed = Some(tasks);
                    if tasks == 0 {
                        drain.agreed = drain.agreed.saturating_add(1);
                        drain.disagreed = 0;
                    } else {
                        drain.agreed = 0;
                        drain.disagreed = drain.disagreed.saturating_add(1);
                    }
                }
            }
            Outcome::GateShut => {
                self.world.gate_shut = true;
                self.world.released = false;
                actions.push(Action::Record(Entry::GateShut));
            }
            Outcome::Leftovers { stopped, left } => {
                // Held back for it: to be released again where it is still wanted.
                self.world.released = false;
                if let Some(drain) = &mut self.drain {
                    *drain.leftovers.get_or_insert(0) += stopped;
                }
                if left == 0 {
                    self.leftovers_stopped();
                }
                actions.push(Action::Record(Entry::LeftoversStopped { stopped, left }));
            }
            Outcome::SidecarsStopped(count) => {
                // Of an earlier drain otherwise.
                let flushed = self.phase == Phase::Flushing;
                if let Some(drain) = &mut self.drain {
                    drain.flushed |= flushed;
                }
                actions.push(Action::Record(Entry::SidecarsStopped { count }));
            }
        }
    }

    pub(super) fn restore(&mut self, saved: Saved, actions: &mut Vec<Action>) {
        self.world.container_instance = saved.container_instance.clone();
        self.world.ours = saved.ours;
        let launch = &mut self.launch;
        launch.began = saved.launch.began;
        launch.warm = saved.launch.warm;
        launch.seen_open = saved.launch.seen_open;
        launch.answered = saved.launch.answered;
        launch.abandoned = saved.launch.abandoned;
        self.drain = saved.drain.clone().map(|drain| {
            let causes = drain.causes.into_iter();
            Drain {
                causes: causes.map(|cause| (cause.id.clone(), cause)).collect(),
                resume: drain.phase,
                held: drain.held,
                since: drain.since,
                set: drain.set,
                seen_open: drain.seen_open,
                answered: drain.answered,
                ..Drain::new(drain.began)
            }
        });
        let this_boot = shutdown_id(&self.world.boot);
        // The shutdown is over, and so is the interruption of an instance that was only stopped.
        let is_new_boot = saved.boot != self.world.boot;
        let is_over = |cause: &Cause| match cause.kind {
            Kind::Shutdown => cause.id != this_boot,
            Kind::Spot(_) => is_new_boot,
            // What was wrong may be over, and an ECS agent that is still starting is no illness.
            Kind::Impaired => is_new_boot && cause.is_replacement(),
            Kind::AutoScaling
            | Kind::Rebalance
            | Kind::Maintenance
            | Kind::Operator
            | Kind::Tag => false,
        };
        self.saved = Some(saved);
        self.withdraw(is_over, actions);
    }

    pub(super) fn learn_sidecars(&mut self, round: Round, now: Moment, actions: &mut Vec<Action>) {
        actions.extend(
            round
                .done
                .into_iter()
                .map(|what| Action::Record(Entry::SidecarChanged { what })),
        );
        let scope = self.scope();
        let well = is_up(&round.reports, scope);
        self.world.sidecars = Some(round.reports);
        self.world.settled |= well && self.are_sidecars_up(Scope::All);
        self.world.conditions.sidecars.observe(well, now);
    }

    pub(super) fn registered(
        &mut self,
        container_instance: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        self.world.registration = None;
        self.world.published = None;
        self.world.ours = false;
        self.launch.unready = 0;
        if let Some(drain) = &mut self.drain {
            drain.set = false;
            drain.gone = false;
            drain.was_active = None;
            drain.again |= self.phase == Phase::Drained;
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
    pub(super) fn learn_hook(
        &mut self,
        job: Job,
        answer: HookAnswer,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let taken = answer == HookAnswer::Taken;
        let launch = &mut self.launch;
        match job {
            Job::OpenLaunch => {
                launch.seen_open |= taken;
                launch.not_open = !taken;
                let is_late = launch
                    .began
                    .is_some_and(|began| began + self.policy.launch <= now);
                launch.open_late |= taken && is_late;
            }
            Job::AbandonLaunch => launch.answered = true,
            Job::CompleteLaunch => {
                launch.not_open = !taken;
                let since = *launch.not_open_since.get_or_insert(now);
                let hook = self.policy.launch_hook.clone();
                if taken {
                    launch.answered = true;
                    actions.push(Action::Record(if launch.warm {
                        Entry::WarmReady { hook }
                    } else {
                        Entry::LaunchCompleted { hook }
                    }));
                } else if launch.seen_open || now.since(since) >= OPENS_WITHIN {
                    launch.answered = true;
                    actions.push(Action::Record(Entry::LaunchClosed { hook }));
                }
            }
            Job::ProbeDrain => {
                if taken {
                    self.add_cause(Cause::auto_scaling(now), now, actions);
                }
            }
            Job::CompleteDrain => {
                let end = self.terminates_at();
                let shuts_down = self.causes().any(|cause| cause.kind.is_hard());
                let Some(drain) = &mut self.drain else { return };
                // Behind a load balancer the action opens only when the targets have left it, up to an
                // hour after IMDS named the target. A machine that shuts down does not wait for it.
                let is_over = shuts_down && end.is_none_or(|end| end <= now);
                let hook = self.policy.drain_hook.clone();
                let sent_early = std::mem::take(&mut drain.sent_early);
                if taken {
                    drain.answered = true;
                    actions.push(Action::Record(Entry::DrainCompleted { hook }));
                } else if !sent_early && (drain.seen_open || is_over) {
                    drain.answered = true;
                    actions.push(Action::Record(Entry::DrainClosed { hook }));
                } else {
                    drain.not_open = drain.not_open.saturating_add(1);
                }
            }
            Job::Identify
            | Job::WriteEcsConfig
            | Job::ReadTarget
            | Job::ReadSpot
            | Job::ReadMaintenance
            | Job::ReadTag
            | Job::ConvergeSidecars
            | Job::ClearCheckpoint
            | Job::Release
            | Job::ReadEcsAgent
            | Job::HealEcs
            | Job::Describe
            | Job::Publish
            | Job::SetActive
            | Job::ReadGroups
            | Job::StopStandalone
            | Job::SetDraining
            | Job::CountTasks
            | Job::ConfirmEmpty
            | Job::ShutGate
            | Job::StopLeftovers
            | Job::StopSidecars
            | Job::LookAround
            | Job::Condemn
            | Job::PowerOff
            | Job::Keep => {}
        }
    }

    pub(super) fn learn_draining(&mut self, set: SetDraining, actions: &mut Vec<Action>) {
        self.abandon.drained |= self.phase == Phase::Abandoning;
        if let SetDraining::Set { tasks } = set {
            actions.push(Action::Record(Entry::Draining { tasks }));
        }
        if set == SetDraining::Gone {
            actions.push(Action::Record(Entry::DrainingUnneeded));
        }
        if let Some(drain) = &mut self.drain {
            match set {
                SetDraining::Set { tasks } => {
                    drain.set = true;
                    drain.refusals = 0;
                    drain.moved = self.now;
                    drain.told = usize::try_from(tasks).ok();
                    drain.forget_seen();
                }
                SetDraining::Gone => {
                    drain.set = true;
                    drain.gone = true;
                }
                SetDraining::NotYet(why) => {
                    drain.refused = Some(why);
                    drain.refusals = drain.refusals.saturating_add(1);
                }
            }
        }
    }

    pub(super) fn leftovers_stopped(&mut self) {
        self.abandon.stopped |= self.phase == Phase::Abandoning;
        let stopped = self.phase == Phase::Stopping;
        if let Some(drain) = &mut self.drain {
            drain.stopped |= stopped;
        }
    }

    pub(super) fn judge_health(&mut self, now: Moment, actions: &mut Vec<Action>) {
        // Sidecars that we stop ourselves are no fault.
        if self.phase >= Phase::Flushing {
            return;
        }
        let health = assess(&self.world.conditions, self.world.faults(), now);
        self.impaired_since =
            (health.verdict == Verdict::Impaired).then(|| self.impaired_since.unwrap_or(now));
        if health != self.health {
            self.health = health;
            self.health_since = now;
            actions.push(Action::Record(Entry::HealthChanged {
                verdict: health.verdict,
                reason: health.reason,
                detail: self.what_is_wrong(),
            }));
        }
    }
}

impl Machine {
    /// In the words of whoever met it.
    fn what_is_wrong(&self) -> String {
        let mut faults = self.world.faults().iter();
        let found = faults.find(|fault| fault.check.code() == self.health.reason);
        found.map(|fault| fault.detail.clone()).unwrap_or_default()
    }
}

/// Whether this is what such a job comes to.
fn belongs(job: Job, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Identified { .. } => job == Job::Identify,
        Outcome::EcsConfig(_) => job == Job::WriteEcsConfig,
        Outcome::Target(_) => job == Job::ReadTarget,
        Outcome::Spot(_) => job == Job::ReadSpot,
        Outcome::Maintenance(_) => job == Job::ReadMaintenance,
        Outcome::Tag(_) => job == Job::ReadTag,
        Outcome::CheckpointCleared => job == Job::ClearCheckpoint,
        Outcome::Active(_) => job == Job::SetActive,
        Outcome::Groups(_) => job == Job::ReadGroups,
        Outcome::StandaloneStopped { .. } => job == Job::StopStandalone,
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
        Outcome::Around(_) => job == Job::LookAround,
        Outcome::Condemned => job == Job::Condemn,
        Outcome::PoweringOff => job == Job::PowerOff,
    }
}
