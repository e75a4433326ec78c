//! The set of causes: what adds one, what withdraws one, and which rules.

use super::*;

/// A cause that has only moved by less than this is where it was: the wall's clock is adjusted
/// all the time.
const MOVED: Duration = Duration::from_secs(1);
/// A spot instance that still runs so long after the time of its notice was hibernated and has come
/// back, or was left alone.
const SPOT_IS_PAST: Duration = Duration::from_secs(120);

impl Machine {
    pub(super) fn causes(&self) -> impl Iterator<Item = &Cause> {
        self.drain.iter().flat_map(|drain| drain.causes.values())
    }

    /// Auto Scaling waits for an answer, or will.
    pub(super) fn is_terminated(&self) -> bool {
        self.causes().any(|cause| cause.kind == Kind::AutoScaling)
    }

    /// The nearest of all causes' bounds. What kept a machine that stays drained has had its time: it
    /// has no say in a later drain, and what is to leave once more has the whole time once more.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let drain = self.drain.as_ref()?;
        let is_final = self.causes().any(|cause| cause.kind.is_final());
        self.causes()
            .filter(|cause| cause.kind.is_final() || !is_final || !drain.held)
            .map(|cause| {
                let bounds = if drain.held && !is_final {
                    cause.anew(drain.since).bounds(&self.policy.spans)
                } else {
                    cause.bounds(&self.policy.spans)
                };
                if is_final && !cause.kind.is_final() {
                    bounds.of_tasks()
                } else {
                    bounds
                }
            })
            .reduce(Bounds::nearest)
    }

    /// The bounds of what is EC2's to end, as long as there is time left in them: what runs on past
    /// its end has none to lose.
    pub(super) fn hard_bounds(&self) -> Option<Bounds> {
        self.causes()
            .filter(|cause| cause.kind.is_hard())
            .map(|cause| cause.bounds(&self.policy.spans))
            .filter(|bounds| bounds.end > self.now)
            .reduce(Bounds::nearest)
    }

    /// When Auto Scaling's own time is over, whatever else takes the machine before.
    pub(super) fn terminates_at(&self) -> Option<Moment> {
        let mut causes = self.causes();
        let cause = causes.find(|cause| cause.kind == Kind::AutoScaling)?;
        Some(cause.bounds(&self.policy.spans).end)
    }

    /// The cause whose end comes first.
    pub(super) fn ruling(&self) -> Option<&Cause> {
        let spans = &self.policy.spans;
        self.causes().min_by_key(|cause| cause.bounds(spans).end)
    }

    pub(super) fn aim(&mut self, target: Target, now: Moment, actions: &mut Vec<Action>) {
        match &target {
            Target::InService => {
                if self.launch.warm {
                    // Out of the pool: another launch, with an action of its own.
                    self.launch = Launch::default();
                }
                self.launch.began.get_or_insert(now);
            }
            Target::Warmed(_) => {
                self.launch.warm |= self.launch.began.is_none();
                self.launch.began.get_or_insert(now);
            }
            Target::Terminated => self.add_cause(Cause::auto_scaling(now), now, actions),
            // In Standby or Detached a node serves on: neither runs a hook, and ECS knows of neither.
            Target::Other(_) | Target::NoGroup => {}
        }
        self.world.target = Some(target);
    }

    pub(super) fn learn_spot(&mut self, news: SpotNews, now: Moment, actions: &mut Vec<Action>) {
        if let Some((notice, at)) = &news.notice {
            self.add_cause(Cause::spot(notice, *at, now), now, actions);
        } else {
            // Never on IMDS's word alone: a notice is not taken back.
            let past = |cause: &Cause| {
                matches!(cause.kind, Kind::Spot(_))
                    && cause.end.is_some_and(|end| end + SPOT_IS_PAST <= now)
            };
            self.withdraw(past, actions);
        }
        let recommended = news
            .rebalance
            .map(|notice_time| Cause::rebalance(&notice_time, now));
        match self.policy.drain.rebalance {
            Reaction::Drain => self.hold(Kind::Rebalance, recommended, now, actions),
            Reaction::Ignore => {
                self.withdraw(|cause| cause.kind == Kind::Rebalance, actions);
                if let Some(cause) = recommended {
                    let what = format!("{cause}; ignored, as drain.rebalance says");
                    self.announce(&cause.id, what, actions);
                }
            }
        }
    }

    pub(super) fn learn_maintenance(
        &mut self,
        scheduled: Vec<Scheduled>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        for Scheduled { event, starts, .. } in &scheduled {
            let minutes = starts.since(now).as_secs() / 60;
            let what = format!(
                "maintenance {} ({}) in {minutes} min, at {}",
                event.id, event.code, event.starts
            );
            self.announce(&event.id, what, actions);
        }
        self.world.maintenance = Some(scheduled);
    }

    pub(super) fn learn_tag(
        &mut self,
        value: Option<String>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let cause = value.map(|value| Cause::tag(&value, now));
        self.hold(Kind::Tag, cause, now, actions);
    }

    pub(super) fn obey(&mut self, order: Order, now: Moment, actions: &mut Vec<Action>) {
        match order {
            Order::Drain { request, reason } => {
                let cause = Cause::operator(&request, &reason, now);
                self.hold(Kind::Operator, Some(cause), now, actions);
            }
            Order::Undrain => self.withdraw(|cause| cause.kind == Kind::Operator, actions),
            Order::Shutdown => {
                let cause = Cause::shutdown(&self.world.boot, now);
                self.add_cause(cause, now, actions);
            }
        }
    }

    /// Causes that come and go by time, or with what is known already.
    pub(super) fn judge_causes(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.judge_impaired(now, actions);
        self.judge_maintenance(now, actions);
    }

    /// Withdrawn only once both have been seen well: after a restart nothing is known yet.
    fn judge_impaired(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let conditions = &self.world.conditions;
        let mut faults = self.world.faults().iter();
        let is_well = self.world.node.is_some()
            && conditions.docker.is_well()
            && conditions.ecs.is_well()
            && faults.all(|fault| fault.check.verdict() < Verdict::Impaired);
        let reactions = [self.policy.drain.impaired, self.policy.full_disk];
        // Its own end may have been begun before a restart.
        let may_drain = reactions.contains(&Reaction::Drain)
            || self.policy.health.replacement == Replacement::Itself;
        let drains = self.impairment_counts() && self.impaired_at().is_some_and(|at| at <= now);
        if is_well || !may_drain {
            self.withdraw(|cause| cause.kind == Kind::Impaired, actions);
        } else if self.ends_itself() {
            self.add_cause(Cause::replacement(self.health.reason, now), now, actions);
        } else if drains {
            self.add_cause(Cause::impaired(self.health.reason, now), now, actions);
        }
    }

    fn judge_maintenance(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let counts = self.policy.drain.maintenance == Reaction::Drain;
        // Until it has been read in this run, what was saved stands.
        if counts && self.world.maintenance.is_none() {
            return;
        }
        let scheduled = self.world.maintenance.iter().flatten();
        let near: Vec<Cause> = scheduled
            .filter(|scheduled| counts && self.is_near(scheduled, now))
            .map(|scheduled| Cause::maintenance(&scheduled.event, scheduled.starts, now))
            .collect();
        let ids: BTreeSet<String> = near.iter().map(|cause| cause.id.clone()).collect();
        for cause in near {
            self.add_cause(cause, now, actions);
        }
        let gone = |cause: &Cause| cause.kind == Kind::Maintenance && !ids.contains(&cause.id);
        self.withdraw(gone, actions);
    }

    pub(super) fn impaired_at(&self) -> Option<Moment> {
        // Nothing is repaired by waiting for a disk that is full after what could go has gone.
        let patience = match self.is_disk_full() {
            true => Duration::ZERO,
            false => IMPAIRED_AFTER,
        };
        self.impaired_since.map(|since| since + patience)
    }

    /// Whether what is wrong now makes a node drain.
    fn impairment_counts(&self) -> bool {
        let reaction = match self.is_disk_full() {
            true => self.policy.full_disk,
            false => self.policy.drain.impaired,
        };
        reaction == Reaction::Drain
    }

    fn is_disk_full(&self) -> bool {
        self.health.reason == Check::DiskFull.code()
    }

    /// When [`Machine::judge_causes`] may next come to something else.
    pub(super) fn causes_change_at(&self) -> impl Iterator<Item = Moment> {
        let impaired = self.impaired_at().filter(|_| self.impairment_counts());
        let scheduled = self.world.maintenance.iter().flatten();
        let maintenance = scheduled.flat_map(|scheduled| {
            let nears = scheduled.starts.before(self.lead());
            [Some(nears), scheduled.ends].into_iter().flatten()
        });
        impaired.into_iter().chain(maintenance)
    }

    fn is_near(&self, scheduled: &Scheduled, now: Moment) -> bool {
        let is_past = scheduled.ends.is_some_and(|ends| ends <= now);
        scheduled.starts.before(self.lead()) <= now && !is_past
    }

    fn lead(&self) -> Duration {
        Duration::from_secs(self.policy.drain.maintenance_lead_seconds.into())
    }

    /// There is one cause of this kind, or none.
    fn hold(&mut self, kind: Kind, cause: Option<Cause>, now: Moment, actions: &mut Vec<Action>) {
        let id = cause.as_ref().map(|cause| cause.id.clone());
        if let Some(mut cause) = cause {
            // Saying it again in other words gives no more time.
            let said = self.causes().find(|known| known.kind == kind);
            cause.began = said.map_or(cause.began, |said| said.began);
            self.add_cause(cause, now, actions);
        }
        let other = |known: &Cause| known.kind == kind && Some(&known.id) != id.as_ref();
        self.withdraw(other, actions);
    }

    pub(super) fn add_cause(&mut self, cause: Cause, now: Moment, actions: &mut Vec<Action>) {
        let drain = self.drain.get_or_insert_with(|| Drain::new(now));
        if let Some(known) = drain.causes.get_mut(&cause.id) {
            let has_moved = match (known.end, cause.end) {
                (Some(old), Some(new)) => old.since(new).max(new.since(old)) >= MOVED,
                (old, new) => old != new,
            };
            // Those are counted from when they were first seen: the wall's clock may be set meanwhile.
            if has_moved && !cause.kind.is_hard() {
                known.end = cause.end;
            }
            return;
        }
        drain.again |= self.phase == Phase::Drained && cause.kind.is_final();
        let end = cause.bounds(&self.policy.spans).end;
        actions.push(Action::Record(Entry::Noticed {
            kind: cause.kind.as_str(),
            cause: cause.to_string(),
            seconds: end.since(now).as_secs(),
        }));
        drain.causes.insert(cause.id.clone(), cause);
    }

    pub(super) fn withdraw(&mut self, over: impl Fn(&Cause) -> bool, actions: &mut Vec<Action>) {
        let Some(drain) = &mut self.drain else { return };
        for (_, cause) in drain.causes.extract_if(.., |_, cause| over(cause)) {
            actions.push(Action::Record(Entry::Withdrawn {
                kind: cause.kind.as_str(),
                cause: cause.to_string(),
            }));
        }
        if drain.causes.is_empty() {
            self.drain = None;
        }
    }

    fn announce(&mut self, id: &str, what: String, actions: &mut Vec<Action>) {
        if self.world.announced.insert(id.to_owned()) {
            actions.push(Action::Record(Entry::Announced { what }));
        }
    }
}
