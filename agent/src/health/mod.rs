//! How well the node is, from what was observed. All but [`watch`] is pure.

pub(crate) mod check;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod guard;
pub(crate) mod kernel;
pub(crate) mod watch;

use std::time::Duration;

use self::check::Fault;

use crate::moment::Moment;

/// A fault shorter than this is a hiccup: dockerd and the ECS agent may be restarted.
const SETTLED: Duration = Duration::from_secs(15);

/// One thing that is well or not, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    well: Option<bool>,
    since: Moment,
}

impl Condition {
    pub(crate) fn observe(&mut self, well: bool, now: Moment) {
        if self.well != Some(well) {
            *self = Self {
                well: Some(well),
                since: now,
            };
        }
    }

    pub(crate) fn is_well(self) -> bool {
        self.well == Some(true)
    }

    /// Not well, without a break, for at least `duration`.
    pub(crate) fn is_faulty_for(self, duration: Duration, now: Moment) -> bool {
        self.well == Some(false) && now.since(self.since) >= duration
    }

    /// When a fault that stands will have lasted `duration`.
    pub(crate) fn faulty_at(self, duration: Duration) -> Option<Moment> {
        (self.well == Some(false)).then(|| self.since + duration)
    }
}

/// What health is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) docker: Condition,
    pub(crate) ecs: Condition,
    pub(crate) sidecars: Condition,
    pub(crate) imds: Condition,
}

impl Conditions {
    /// When the verdict may change by time alone.
    pub(crate) fn settles_at(&self, now: Moment) -> Option<Moment> {
        [self.docker, self.ecs, self.sidecars, self.imds]
            .iter()
            .filter_map(|condition| condition.faulty_at(SETTLED))
            .filter(|at| *at > now)
            .min()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    #[default]
    Ok,
    /// Tasks run, something beside them does not.
    Degraded,
    /// Tasks cannot be run.
    Impaired,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Impaired => "impaired",
        }
    }
}

/// The verdict with a short code for the gravest fault, `none` when well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) verdict: Verdict,
    pub(crate) reason: &'static str,
}

/// Judges conditions and faults; the gravest and first names the reason. What a check says is closer to
/// the cause than a condition.
pub(crate) fn assess(conditions: &Conditions, faults: &[Fault], now: Moment) -> Health {
    let faults = faults.iter().map(|fault| Health {
        verdict: fault.check.verdict(),
        reason: fault.check.code(),
    });
    let conditions = [
        (conditions.docker, Verdict::Impaired, "docker"),
        (conditions.ecs, Verdict::Impaired, "ecs"),
        (conditions.sidecars, Verdict::Degraded, "sidecars"),
        (conditions.imds, Verdict::Degraded, "imds"),
    ];
    let conditions = conditions
        .into_iter()
        .filter(|(condition, ..)| condition.is_faulty_for(SETTLED, now))
        .map(|(_, verdict, reason)| Health { verdict, reason });
    let well = Health {
        verdict: Verdict::Ok,
        reason: "none",
    };
    // The first of equals.
    let found = faults.chain(conditions);
    found.fold(well, |gravest, next| {
        if next.verdict > gravest.verdict {
            next
        } else {
            gravest
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hiccup_is_no_fault_and_the_gravest_fault_names_the_reason() {
        let mut conditions = Conditions::default();
        let start = Moment::from_millis(1_000);
        conditions.imds.observe(false, start);
        assert_eq!(assess(&conditions, &[], start).verdict, Verdict::Ok);
        assert_eq!(conditions.settles_at(start), Some(start + SETTLED));
        let later = start + SETTLED;
        assert_eq!(assess(&conditions, &[], later).reason, "imds");
        conditions.docker.observe(false, start);
        let health = assess(&conditions, &[], later);
        assert_eq!(
            (health.verdict, health.reason),
            (Verdict::Impaired, "docker")
        );
        conditions.docker.observe(true, later);
        conditions.imds.observe(true, later);
        assert_eq!(assess(&conditions, &[], later).reason, "none");
    }

    #[test]
    fn a_fault_names_the_reason_before_a_condition_that_is_as_grave() {
        let mut conditions = Conditions::default();
        let start = Moment::from_millis(1_000);
        conditions.docker.observe(false, start);
        let later = start + SETTLED;
        let fault = |check| Fault {
            check,
            detail: String::new(),
            since: start,
        };
        let told = |faults: &[Fault]| assess(&conditions, faults, later).reason;
        assert_eq!(told(&[fault(check::Check::DiskLow)]), "docker");
        assert_eq!(told(&[fault(check::Check::DockerPing)]), "docker-ping");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let mut condition = Condition::default();
        condition.observe(false, Moment::from_millis(5));
        condition.observe(false, Moment::from_millis(900));
        assert!(condition.is_faulty_for(Duration::from_millis(95), Moment::from_millis(100)));
    }
}
