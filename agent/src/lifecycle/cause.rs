//! Why a node has to go. Causes are a set: each has an id that stays the same over polls and
//! restarts, so that none is met twice, and an end; the nearest one rules.

use std::{fmt, time::Duration};

use crate::{
    clients::imds::{Maintenance, SpotAction, SpotNotice},
    moment::Moment,
};

/// Left of a spot notice, or of a shutdown, once all is done: EC2's clock need not be ours.
const SPARE: Duration = Duration::from_secs(12);
/// What answering the hook and the last records take.
const ANSWER: Duration = Duration::from_secs(15);
/// Of a spot notice, sidecars get at least this much.
const SIDECARS_OF_SPOT: Duration = Duration::from_secs(15);
/// On top of a container's stop time-out: for ecs.service to stop first, and for Docker to list what
/// runs, to kill and to say so.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(10);
/// EC2 gives no more notice than this of a spot interruption, whatever the wall's clock makes of it.
const SPOT_NOTICE: Duration = Duration::from_secs(120);
/// A time that seems to be past already is a clock that is wrong, or an agent that was not there: what
/// is left is worth using.
const SPOT_LEAST: Duration = Duration::from_secs(30);
const REPLACEMENT: &str = "replacement";
/// What systemd leaves to `fleet-drain.service` is 120 s (its TimeoutStopSec).
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(115);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Auto Scaling terminates the instance: scale-in, instance refresh, maximum lifetime, health
    /// replacement, rebalancing, a user's wish.
    AutoScaling,
    /// EC2 takes the instance back.
    Spot(SpotAction),
    /// EC2 expects to take it back.
    Rebalance,
    /// EC2 is going to reboot, stop or retire it.
    Maintenance,
    /// It has been impaired for long.
    Impaired,
    /// `fleet-agent drain` on the node.
    Operator,
    /// The tag `fleet:drain`.
    Tag,
    /// The machine is shutting down.
    Shutdown,
}

/// `fleet.intent`: what a node is about.
pub(crate) mod intent {
    /// Nothing wants it gone.
    pub(crate) const SERVE: &str = "serve";
    /// It empties itself and stays.
    pub(crate) const DRAIN: &str = "drain";
    /// It has stayed impaired, and waits for its turn to be replaced.
    pub(crate) const REPLACE: &str = "replace";
    /// It goes for good.
    pub(crate) const LEAVE: &str = "leave";
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::AutoScaling,
        Self::Spot(SpotAction::Terminate),
        Self::Spot(SpotAction::Stop),
        Self::Spot(SpotAction::Hibernate),
        Self::Rebalance,
        Self::Maintenance,
        Self::Impaired,
        Self::Operator,
        Self::Tag,
        Self::Shutdown,
    ];

    /// Stable: stands in the state file and in the journal.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AutoScaling => "auto-scaling",
            Self::Spot(SpotAction::Terminate) => "spot-terminate",
            Self::Spot(SpotAction::Stop) => "spot-stop",
            Self::Spot(SpotAction::Hibernate) => "spot-hibernate",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
            Self::Impaired => "impaired",
            Self::Operator => "operator",
            Self::Tag => "tag",
            Self::Shutdown => "shutdown",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The machine itself goes, not only its tasks: sidecars stop too.
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::AutoScaling | Self::Spot(_) | Self::Shutdown)
    }

    /// Its end is not ours to move, and comes within minutes.
    pub(crate) const fn is_hard(self) -> bool {
        matches!(self, Self::Spot(_) | Self::Shutdown)
    }

    /// The node may serve again one day.
    pub(crate) const fn can_return(self) -> bool {
        !matches!(self, Self::AutoScaling | Self::Spot(SpotAction::Terminate))
    }

    /// `fleet.intent`.
    pub(crate) const fn intent(self) -> &'static str {
        if self.is_final() {
            intent::LEAVE
        } else {
            intent::DRAIN
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Stable over polls and restarts; never made of the time it was seen at.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// For people; may be empty.
    pub(crate) detail: String,
    /// When it was first seen.
    pub(crate) began: Moment,
    /// When it happens, whatever we do; none for one that waits for us.
    pub(crate) end: Option<Moment>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::AutoScaling => "Auto Scaling terminates this instance",
            Kind::Spot(SpotAction::Terminate) => "spot interruption: EC2 terminates this instance",
            Kind::Spot(SpotAction::Stop) => "spot interruption: EC2 stops this instance",
            Kind::Spot(SpotAction::Hibernate) => "spot interruption: EC2 hibernates this instance",
            Kind::Rebalance => "EC2 recommends to rebalance",
            Kind::Maintenance => "scheduled maintenance",
            Kind::Impaired => "this node is impaired",
            Kind::Operator | Kind::Tag => "an operator's wish",
            Kind::Shutdown => "the machine shuts down",
        })?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.detail)
        }
    }
}

impl Cause {
    /// An instance is terminated once.
    pub(crate) fn auto_scaling(now: Moment) -> Self {
        Self::new("auto-scaling-termination".into(), Kind::AutoScaling, now)
    }

    pub(crate) fn spot(notice: &SpotNotice, at: Moment, now: Moment) -> Self {
        let kind = Kind::Spot(notice.action);
        let at = at.max(now + SPOT_LEAST).min(now + SPOT_NOTICE);
        Self {
            end: Some(at),
            ..Self::new(format!("{}-{}", kind.as_str(), notice.time), kind, now)
        }
    }

    pub(crate) fn rebalance(notice_time: &str, now: Moment) -> Self {
        Self::new(format!("rebalance-{notice_time}"), Kind::Rebalance, now)
    }

    pub(crate) fn maintenance(event: &Maintenance, starts: Moment, now: Moment) -> Self {
        Self {
            detail: event.code.clone(),
            // One that should have begun already gives no time to plan with: the group's own counts.
            end: (starts > now).then_some(starts),
            ..Self::new(format!("maintenance-{}", event.id), Kind::Maintenance, now)
        }
    }

    pub(crate) fn impaired(reason: &str, now: Moment) -> Self {
        Self {
            detail: reason.to_owned(),
            ..Self::new("impaired".into(), Kind::Impaired, now)
        }
    }

    /// It is its turn to be replaced: kept over restarts, so that others are not given it, too.
    pub(crate) fn replacement(reason: &str, now: Moment) -> Self {
        Self {
            detail: format!("{reason}, and it is its turn to be replaced"),
            ..Self::new(REPLACEMENT.to_owned(), Kind::Impaired, now)
        }
    }

    pub(crate) fn is_replacement(&self) -> bool {
        self.id == REPLACEMENT
    }

    /// `request` is unlike any before.
    pub(crate) fn operator(request: &str, reason: &str, now: Moment) -> Self {
        Self {
            detail: reason.to_owned(),
            ..Self::new(format!("operator-{request}"), Kind::Operator, now)
        }
    }

    /// The tag's value is `ID REASON`; one without a reason is its own id.
    pub(crate) fn tag(value: &str, now: Moment) -> Self {
        let (id, reason) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        Self {
            detail: reason.trim().to_owned(),
            ..Self::new(format!("tag-{id}"), Kind::Tag, now)
        }
    }

    pub(crate) fn shutdown(boot: &str, now: Moment) -> Self {
        Self {
            end: Some(now + SHUTDOWN),
            ..Self::new(shutdown_id(boot), Kind::Shutdown, now)
        }
    }

    /// The same, counted from `began` and bound by nothing else.
    pub(crate) fn anew(&self, began: Moment) -> Self {
        Self::new(self.id.clone(), self.kind, began)
    }

    fn new(id: String, kind: Kind, began: Moment) -> Self {
        Self {
            id,
            kind,
            detail: String::new(),
            began,
            end: None,
        }
    }
}

/// A shutdown is of one boot: the next one knows by it that it is over.
pub(crate) fn shutdown_id(boot: &str) -> String {
    format!("shutdown-{boot}")
}

/// When the parts of a drain must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Tasks have left by themselves; from here on they are stopped.
    pub(crate) tasks: Moment,
    /// Nothing of theirs runs any more.
    pub(crate) leftovers: Moment,
    /// Sidecars have flushed and stopped.
    pub(crate) sidecars: Moment,
    /// All of it.
    pub(crate) end: Moment,
}

/// What the bounds of a drain are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spans {
    /// From a cause to the end.
    pub(crate) drain: Duration,
    /// What ECS gives a task's container to end.
    pub(crate) container_stop: Duration,
    /// What all sidecars may take to flush and stop.
    pub(crate) sidecars: Duration,
}

impl Cause {
    /// The last part is kept for what must come last: sidecars before the answer, leftovers before
    /// sidecars. Of a drain that is short by the group's own choice no more than half is kept.
    pub(crate) fn bounds(&self, spans: &Spans) -> Bounds {
        let own = self.began + spans.drain;
        let end = self.end.map_or(own, |end| end.min(own));
        let total = end.since(self.began);
        let hard = self.kind.is_hard();
        let (last, sidecars) = if hard {
            (SPARE, spans.sidecars.max(SIDECARS_OF_SPOT))
        } else {
            (ANSWER, spans.sidecars)
        };
        let share = if hard { total } else { total / 2 };
        let last = last.min(share / 4);
        let share = share - last;
        // Where not all of it fits, leftovers keep a third: sidecars must not end beside them.
        let stop = spans.container_stop + STOP_MARGIN;
        let stop = stop.min(share.saturating_sub(sidecars).max(share / 3));
        let sidecars = sidecars.min(share - stop);
        let sidecars_end = end.before(last);
        let leftovers = sidecars_end.before(sidecars);
        Bounds {
            tasks: leftovers.before(stop),
            leftovers,
            sidecars: sidecars_end,
            end,
        }
    }
}

impl Bounds {
    /// Only what concerns tasks: a cause that leaves the machine standing says nothing of when its
    /// sidecars have to be gone.
    pub(crate) fn of_tasks(self) -> Self {
        Self {
            sidecars: Moment::NEVER,
            end: Moment::NEVER,
            ..self
        }
    }

    /// The nearer of both, part by part.
    pub(crate) fn nearest(self, other: Self) -> Self {
        Self {
            tasks: self.tasks.min(other.tasks),
            leftovers: self.leftovers.min(other.leftovers),
            sidecars: self.sidecars.min(other.sidecars),
            end: self.end.min(other.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn spans(drain: u64, sidecars: u64) -> Spans {
        Spans {
            drain: seconds(drain),
            container_stop: seconds(30),
            sidecars: seconds(sidecars),
        }
    }

    fn notice(at: Moment, now: Moment) -> Cause {
        let notice = SpotNotice {
            action: SpotAction::Terminate,
            time: jiff::Timestamp::UNIX_EPOCH,
        };
        Cause::spot(&notice, at, now)
    }

    /// Seconds from the cause to each bound.
    fn parts(cause: &Cause, spans: &Spans) -> [u64; 4] {
        let bounds = cause.bounds(spans);
        [bounds.tasks, bounds.leftovers, bounds.sidecars, bounds.end]
            .map(|at| at.since(cause.began).as_secs())
    }

    #[test]
    fn a_notice_is_never_longer_than_ec2_gives_nor_over_before_it_is_seen() {
        let now = Moment::from_millis(1_000_000);
        let end = |at| notice(at, now).end.expect("hard").since(now).as_secs();
        assert_eq!(end(now + seconds(115)), 115);
        assert_eq!(end(now + seconds(900)), 120, "the wall's clock is late");
        assert_eq!(end(Moment::from_millis(1)), 30, "or ahead");
    }

    #[test]
    fn room_is_kept_for_what_comes_last() {
        let now = Moment::from_millis(1_000_000);
        let scaling = Cause::auto_scaling(now);
        let of = |cause, sidecars| parts(cause, &spans(1_800, sidecars));
        assert_eq!(of(&scaling, 30), [1_715, 1_755, 1_785, 1_800]);
        assert_eq!(
            parts(&scaling, &spans(40, 30)),
            [20, 25, 35, 40],
            "half of it"
        );
        let spot = notice(now + seconds(115), now);
        assert_eq!(of(&spot, 0), [48, 88, 103, 115]);
        assert_eq!(of(&spot, 60), [3, 43, 103, 115]);
        let late = notice(now + seconds(60), now);
        assert_eq!(of(&late, 60), [0, 16, 48, 60], "leftovers keep a third");
    }

    #[test]
    fn a_nearer_cause_shortens_a_drain_part_by_part() {
        let now = Moment::from_millis(1_000_000);
        let spans = spans(1_800, 30);
        let scaling = Cause::auto_scaling(now).bounds(&spans);
        let later = now + seconds(60);
        let spot = notice(later + seconds(118), later).bounds(&spans);
        assert_eq!(scaling.nearest(spot), spot);
        assert_eq!(spot.nearest(scaling), spot);
    }

    #[test]
    fn every_kind_is_read_back_and_ids_do_not_depend_on_when_they_were_seen() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        let early = Moment::from_millis(1);
        let late = Moment::from_millis(2);
        assert_eq!(
            Cause::tag("a1 by anna", early).id,
            Cause::tag("a1", late).id
        );
        assert_eq!(Cause::tag("a1 by anna", early).detail, "by anna");
        assert_eq!(notice(late, early).id, notice(late, late).id);
    }
}
