//! What is looked at beside the drain's own business, and when a fault of it is one. Pure.

use std::collections::BTreeMap;

use super::Verdict;
use crate::moment::Moment;

/// How many of the last observations must be bad for a fault; as many good ones in a row end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    bad: u32,
    of: u32,
}

/// One thing that is looked at again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// dockerd answers `/_ping`, as the ECS agent asks it.
    DockerPing,
    /// A container can be created, run and removed: `/_ping` answers while that hangs
    /// (kubernetes #17525).
    DockerRun,
    /// A file system that Docker, the system or logs live on takes no writes.
    ReadOnly,
    /// Past the hard limit.
    DiskFull,
    /// Past the soft limit: unused images are being removed.
    DiskLow,
    /// Docker tells of what happens to containers.
    DockerEvents,
    /// Containers of tasks are created and do not start.
    Starts,
    /// Containers end again and again.
    Restarts,
    /// The kernel complains.
    Kernel,
    /// The rules that keep containers from the metadata service stand.
    MetadataRules,
    /// A container was kept from the metadata service.
    MetadataBlock,
}

impl Check {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 11] = [
        Self::DockerPing,
        Self::DockerRun,
        Self::ReadOnly,
        Self::DiskFull,
        Self::DiskLow,
        Self::DockerEvents,
        Self::Starts,
        Self::Restarts,
        Self::Kernel,
        Self::MetadataRules,
        Self::MetadataBlock,
    ];

    /// Stable: `fleet.reason`.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::DockerPing => "docker-ping",
            Self::DockerRun => "docker-run",
            Self::ReadOnly => "read-only",
            Self::DiskFull => "disk-full",
            Self::DiskLow => "disk-low",
            Self::DockerEvents => "docker-events",
            Self::Starts => "start-failures",
            Self::Restarts => "restart-storm",
            Self::Kernel => "kernel",
            Self::MetadataRules => "metadata-rules",
            Self::MetadataBlock => "metadata-open",
        }
    }

    /// How grave a fault of it is.
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::DockerPing | Self::DockerRun | Self::ReadOnly | Self::DiskFull => {
                Verdict::Impaired
            }
            Self::DiskLow
            | Self::DockerEvents
            | Self::Starts
            | Self::Restarts
            | Self::Kernel
            | Self::MetadataRules
            | Self::MetadataBlock => Verdict::Degraded,
        }
    }

    const fn rule(self) -> Rule {
        match self {
            // Every five seconds, with two to answer: known within 20 s.
            Self::DockerPing => Rule { bad: 3, of: 4 },
            Self::DockerRun | Self::DockerEvents | Self::MetadataRules => Rule { bad: 2, of: 3 },
            // Not a matter of chance.
            Self::ReadOnly | Self::DiskFull | Self::DiskLow | Self::MetadataBlock => {
                Rule { bad: 2, of: 2 }
            }
            // Counted over minutes before they come here.
            Self::Starts | Self::Restarts | Self::Kernel => Rule { bad: 1, of: 1 },
        }
    }
}

/// A fault that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) check: Check,
    /// What was met last.
    pub(crate) detail: String,
    pub(crate) since: Moment,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// The last observations, the newest in the lowest bit; 1 is bad.
    window: u32,
    observed: u32,
    fault: Option<(Moment, String)>,
}

/// Observations, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    states: BTreeMap<Check, State>,
}

impl Tally {
    /// Whether a fault came or went with this.
    pub(crate) fn observe(&mut self, check: Check, well: Result<(), String>, now: Moment) -> bool {
        let Rule { bad, of } = check.rule();
        let state = self.states.entry(check).or_default();
        state.window = state.window << 1 | u32::from(well.is_err());
        state.observed = state.observed.saturating_add(1);
        let last = |number: u32| state.window & ((1 << number) - 1);
        match (&mut state.fault, well) {
            (None, Err(detail)) if last(of).count_ones() >= bad => {
                state.fault = Some((now, detail));
                true
            }
            (Some((_, known)), Err(detail)) => {
                *known = detail;
                false
            }
            (Some(_), Ok(())) if last(bad) == 0 && state.observed >= bad => {
                state.fault = None;
                true
            }
            _ => false,
        }
    }

    /// The gravest first.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let found = self.states.iter().filter_map(|(check, state)| {
            let (since, detail) = state.fault.clone()?;
            Some(Fault {
                check: *check,
                detail,
                since,
            })
        });
        found.collect()
    }

    /// Whether it went well the last time, or was never looked at.
    pub(crate) fn was_well(&self, check: Check) -> bool {
        let state = self.states.get(&check);
        state.is_none_or(|state| state.window & 1 == 0)
    }

    /// Whether it went well the last time, and was looked at at all.
    pub(crate) fn is_proven(&self, check: Check) -> bool {
        self.states
            .get(&check)
            .is_some_and(|state| state.observed > 0 && state.window & 1 == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bad() -> Result<(), String> {
        Err("no answer".into())
    }

    #[test]
    fn the_gravest_checks_come_first_and_codes_differ() {
        let verdicts: Vec<Verdict> = Check::ALL.iter().map(|check| check.verdict()).collect();
        assert!(verdicts.is_sorted_by(|a, b| a >= b));
        let codes: std::collections::BTreeSet<_> = Check::ALL.iter().map(|c| c.code()).collect();
        assert_eq!(codes.len(), Check::ALL.len());
        assert!(Check::ALL.is_sorted());
    }

    #[test]
    fn a_fault_takes_several_and_ends_with_as_many() {
        let mut tally = Tally::default();
        let at = Moment::from_millis;
        let check = Check::DockerPing;
        assert!(!tally.is_proven(check));
        for (now, well, changed) in [
            (1, bad(), false),
            (2, Ok(()), false),
            (3, bad(), false),
            (4, bad(), true),
            (5, bad(), false),
            (6, Ok(()), false),
            (7, bad(), false),
            (8, Ok(()), false),
            (9, Ok(()), false),
            (10, Ok(()), true),
            (11, bad(), false),
        ] {
            assert_eq!(tally.observe(check, well, at(now)), changed, "{now}");
        }
        assert_eq!(tally.faults(), []);
        assert!(!tally.is_proven(check));
    }

    #[test]
    fn a_fault_keeps_when_it_began_and_tells_what_was_met_last() {
        let mut tally = Tally::default();
        let at = Moment::from_millis;
        let full = |text: &str| Err(text.to_owned());
        assert!(!tally.observe(Check::DiskFull, full("97 %"), at(1)));
        assert!(tally.observe(Check::DiskFull, full("98 %"), at(2)));
        assert!(!tally.observe(Check::DiskFull, full("99 %"), at(3)));
        let fault = &tally.faults()[0];
        assert_eq!((fault.detail.as_str(), fault.since), ("99 %", at(2)));
    }

    proptest! {
        /// Whatever is observed: no fault without enough bad ones, none that outlasts enough good ones.
        #[test]
        fn faults_follow_the_rule(
            check in proptest::sample::select(Check::ALL.to_vec()),
            observed in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let Rule { bad, of } = check.rule();
            let (bad, of) = (bad as usize, of as usize);
            let mut tally = Tally::default();
            let mut faulty = false;
            for (index, well) in observed.iter().enumerate() {
                let before = faulty;
                let result = if *well { Ok(()) } else { Err(String::new()) };
                let changed = tally.observe(check, result, Moment::from_millis(index as u64));
                faulty = !tally.faults().is_empty();
                prop_assert_eq!(changed, before != faulty);
                let last = |number: usize| &observed[(index + 1).saturating_sub(number)..=index];
                let bads = last(of).iter().filter(|well| !**well).count();
                if faulty && !before {
                    prop_assert!(bads >= bad);
                }
                if last(bad).len() == bad && last(bad).iter().all(|well| *well) {
                    prop_assert!(!faulty);
                }
                if bads >= bad && !well {
                    prop_assert!(faulty);
                }
            }
        }
    }
}
