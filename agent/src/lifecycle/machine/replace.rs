//! The replacement of a node that stays impaired: it wishes for it in its attributes, waits for its turn
//! ([`Guard`]), says that it goes, and only then goes.
//!
//! # Guarantees
//! - Two nodes that look at the same time see each other's wishes, and one that looks later sees that the
//!   first goes: a turn is good for [`TURN`], reading takes at most [`READS`], and together both are
//!   well within [`SETTLES`].
//! - A node goes only as long as nothing but its own impairment wants it gone.

use super::*;
use crate::{
    health::guard::{Around, Guard, Held},
    lifecycle::cause::intent,
};

/// What reading a group may take.
pub(crate) const READS: Duration = Duration::from_secs(20);
/// A turn that could not be told to ECS within this has to be asked for again.
const TURN: Duration = Duration::from_secs(20);
/// From the wish, as ECS has taken it, until others' are read.
const SETTLES: Duration = Duration::from_secs(60);
/// The first look, which only takes in who is there, comes between half of this and the whole: what
/// a whole fleet suffers from must not have all of it read at once.
const FIRST_LOOK: Duration = Duration::from_secs(240);
/// Between looks of those that wait for others...
const LOOKS: Duration = Duration::from_secs(120);
/// ... for each of those that wait, so that they leave room for others' reads.
const LOOKS_EACH: Duration = Duration::from_secs(10);
/// While many share a fault they look later and later, at last this seldom.
const LAST_LOOK: Duration = Duration::from_secs(1_800);

#[derive(Debug, Clone)]
pub(super) struct Replacing {
    guard: Guard,
    began: Moment,
    /// Looks in a row that met a fault of many.
    shared: u32,
    /// How many wished for it when it last looked.
    wishes: usize,
    held: Option<Held>,
    /// When ECS took its wish.
    wished: Option<Moment>,
    /// When it was granted its turn.
    turn: Option<Moment>,
    /// ECS has been told that it goes.
    goes: bool,
}

impl Replacing {
    /// `goes` if it had its turn before a restart.
    fn new(began: Moment, goes: bool) -> Self {
        Self {
            guard: Guard::default(),
            began,
            shared: 0,
            wishes: 0,
            held: None,
            wished: None,
            turn: goes.then_some(began),
            goes,
        }
    }
}

impl Machine {
    pub(super) fn judge_replacement(&mut self, now: Moment) {
        if !self.may_be_replaced() {
            self.replacing = None;
            return;
        }
        let goes = self.causes().any(Cause::is_replacement);
        let replacing = self
            .replacing
            .get_or_insert_with(|| Replacing::new(now, goes));
        let is_over = replacing.turn.is_some_and(|turn| turn + TURN <= now);
        if is_over && !replacing.goes {
            replacing.turn = None;
            // Others may have looked meanwhile.
            replacing.wished = replacing.wished.map(|_| now);
        }
    }

    /// Only a node that has been in service, if before a reboot, and that nothing else wants gone.
    fn may_be_replaced(&self) -> bool {
        self.policy.health.replacement != Replacement::Never
            && self.health.verdict == Verdict::Impaired
            && self.phase < Phase::Flushing
            && self.launch.answered
            && !self.launch.abandoned
            && self.world.target == Some(Target::InService)
            && self.world.container_instance.is_some()
            && self.causes().all(|cause| cause.kind == Kind::Impaired)
    }

    /// It has been impaired for long enough.
    fn wishes(&self) -> bool {
        self.replacing.is_some() && self.impaired_at().is_some_and(|at| at <= self.now)
    }

    /// It has been looking at its group, which another run would have to begin anew.
    pub(super) fn is_waiting_to_go(&self) -> bool {
        let looked = self.replacing.as_ref();
        looked
            .is_some_and(|one| one.turn.is_some() || matches!(one.held, Some(Held::Others { .. })))
    }

    /// It has had its turn, and is to empty and end itself.
    pub(super) fn ends_itself(&self) -> bool {
        let goes = self.replacing.as_ref().is_some_and(|one| one.goes);
        goes && self.policy.health.replacement == Replacement::Itself
    }

    /// What of this is to be said in `fleet.intent`.
    pub(super) fn replacement_intent(&self) -> Option<&'static str> {
        let replacing = self.replacing.as_ref()?;
        match replacing.turn {
            Some(_) => Some(intent::LEAVE),
            None => self.wishes().then_some(intent::REPLACE),
        }
    }

    pub(super) fn replace(&self, now: Moment) -> Option<Work> {
        let replacing = self.replacing.as_ref()?;
        match self.policy.health.replacement {
            Replacement::Never => None,
            Replacement::Asg if replacing.goes => Some(Work::Condemn),
            Replacement::Itself if replacing.goes => {
                (self.phase == Phase::Drained && !self.runs_tasks()).then_some(Work::PowerOff)
            }
            Replacement::Itself | Replacement::Asg => {
                (self.looks_at()? <= now).then_some(Work::LookAround)
            }
        }
    }

    /// When it next reads how the others are.
    fn looks_at(&self) -> Option<Moment> {
        let replacing = self.replacing.as_ref()?;
        // From the first look on as often as LookAround may: who goes and who comes is to be seen.
        let first = replacing.began + jitter(FIRST_LOOK, self.policy.seed);
        replacing.turn.is_none().then_some(first)
    }

    /// When [`Machine::judge_replacement`] or [`Machine::replace`] may next come to something else.
    pub(super) fn replacement_changes_at(&self) -> impl Iterator<Item = Moment> {
        let replacing = self.replacing.as_ref();
        let turn = replacing.and_then(|one| one.turn.filter(|_| !one.goes));
        let wishes = self.impaired_at().filter(|_| replacing.is_some());
        let turn = turn.map(|turn| turn + TURN);
        self.looks_at().into_iter().chain(turn).chain(wishes)
    }

    pub(super) fn next_look(&self) -> Duration {
        let Some(replacing) = &self.replacing else {
            return LOOKS;
        };
        let seed = self.policy.seed;
        if replacing.shared > 0 {
            return backoff(LOOKS, LAST_LOOK, replacing.shared - 1, seed);
        }
        let wishes = u32::try_from(replacing.wishes).unwrap_or(u32::MAX);
        jitter(LOOKS.max(LOOKS_EACH.saturating_mul(wishes)), seed)
    }

    pub(super) fn learn_around(&mut self, around: &Around, now: Moment) {
        let at_once = usize::try_from(self.policy.health.replace_at_once).unwrap_or(usize::MAX);
        let own = self.world.container_instance.clone().unwrap_or_default();
        let Some(replacing) = &mut self.replacing else {
            return;
        };
        let is_ready = replacing.wished.is_some_and(|at| at + SETTLES <= now);
        replacing.wishes = match around {
            Around::Many => 0,
            Around::Group(census) => census.waiting.len(),
        };
        let held = match replacing.guard.look(around, &own, at_once, now) {
            Ok(()) if is_ready => None,
            Ok(()) => Some(Held::Early),
            Err(held) => Some(held),
        };
        replacing.shared = match held {
            Some(Held::Shared { .. } | Held::Many) => replacing.shared.saturating_add(1),
            Some(Held::Early | Held::Others { .. }) | None => 0,
        };
        replacing.turn = held.is_none().then_some(now);
        replacing.held = held;
    }

    pub(super) fn learn_published(
        &mut self,
        attributes: Attributes,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if let Some(replacing) = &mut self.replacing {
            if attributes.intent == intent::REPLACE {
                replacing.wished.get_or_insert(now);
            } else {
                replacing.wished = None;
            }
            let goes = attributes.intent == intent::LEAVE && replacing.turn.is_some();
            if goes && !replacing.goes {
                replacing.goes = true;
                actions.push(Action::Record(Entry::Replacing {
                    reason: self.health.reason,
                    how: match self.policy.health.replacement {
                        Replacement::Asg => "Auto Scaling is to replace it",
                        Replacement::Itself | Replacement::Never => {
                            "it drains and then powers itself off"
                        }
                    },
                }));
            }
        }
        self.world.published = Some((attributes, now));
    }

    pub(super) fn waits_to_be_replaced(&self) -> Option<Waiting> {
        let replacing = self.replacing.as_ref()?;
        (replacing.goes || self.wishes()).then(|| match self.policy.health.replacement {
            Replacement::Asg if replacing.goes => Waiting::Termination,
            Replacement::Itself if replacing.goes => Waiting::PowerOff,
            Replacement::Never | Replacement::Itself | Replacement::Asg => {
                Waiting::Turn(replacing.held.unwrap_or(Held::Early))
            }
        })
    }
}
