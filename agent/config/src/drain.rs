//! How a node leaves: bounds, and which causes count.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::{Problem, Sidecar};

/// Default bound of a drain, seconds.
const DEADLINE_DEFAULT: u32 = 3_600;
/// Default lead before a scheduled maintenance, seconds: a quarter of an hour lets most services
/// start their replacements elsewhere, and no node stands empty for a day.
const MAINTENANCE_LEAD_DEFAULT: u32 = 900;
/// EC2 announces most maintenance two weeks ahead.
const MAINTENANCE_LEAD: RangeInclusive<u32> = 60..=1_209_600;
/// Who says that tasks are to be stopped, and not when, means at once.
const STOP_AFTER_DEFAULT: u32 = 0;
/// A family's name: ECS takes 1 to 255 letters, digits, - and _.
const FAMILY_MAX: usize = 255;
/// Stands for every family that is not named.
const EVERY_FAMILY: &str = "*";

/// What a spot notice leaves, seconds: EC2 gives two minutes.
pub const SPOT_NOTICE: u32 = 120;
/// The most that all sidecars together may take of a spot notice, seconds: what is left must do for
/// noticing it, for tasks with ECS's usual stop time-out of 30 s, and to spare.
pub const SIDECARS_MAX: u32 = 60;

/// `[drain]`, as it stands in both files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// A drain ends after this many seconds even if tasks are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
    /// What a rebalance recommendation of EC2 does; default `ignore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Reaction>,
    /// What a node does that has stayed impaired; default `ignore`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impaired: Option<Reaction>,
    /// What maintenance scheduled by EC2 does; default `drain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Reaction>,
    /// How long before its start a maintenance makes the node drain, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_lead_seconds: Option<u32>,
    /// Tasks of no service (RunTask), which ECS does not move, by task definition family; `*` is
    /// every other family. Default: wait for them until the deadline.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub standalone: BTreeMap<String, StandaloneConfig>,
}

/// Whether a cause counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Reaction {
    /// It is told in the journal, and no more.
    Ignore,
    /// The node drains.
    Drain,
}

/// `[drain.standalone.FAMILY]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct StandaloneConfig {
    /// What becomes of its tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<StandalonePolicy>,
    /// With `stop`: after so many seconds of a drain; at once if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<u32>,
}

/// What becomes of standalone tasks when their node drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StandalonePolicy {
    /// They run on until they end, or the drain's deadline.
    Wait,
    /// They are stopped on the node.
    Stop,
}

/// A drain's policy whose every rule has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drain {
    /// A drain ends after this many seconds even if tasks are left.
    pub deadline_seconds: u32,
    /// What a rebalance recommendation does.
    pub rebalance: Reaction,
    /// What a node does that has stayed impaired.
    pub impaired: Reaction,
    /// What scheduled maintenance does.
    pub maintenance: Reaction,
    /// How long before its start, seconds.
    pub maintenance_lead_seconds: u32,
    /// Seconds of a drain after which a family's standalone tasks are stopped; `None` waits.
    standalone: BTreeMap<String, Option<u32>>,
}

impl Drain {
    /// Seconds of a drain after which standalone tasks of this family are stopped; `None` if they
    /// are waited for until the deadline.
    #[must_use]
    pub fn stops_standalone_after(&self, family: &str) -> Option<u32> {
        let named = self.standalone.get(family);
        named
            .or_else(|| self.standalone.get(EVERY_FAMILY))
            .copied()
            .flatten()
    }

    /// Whether any family's standalone tasks are to be stopped before the deadline.
    #[must_use]
    pub fn stops_standalone(&self) -> bool {
        self.standalone.values().any(Option::is_some)
    }
}

impl DrainConfig {
    /// The same with every default filled in: what it comes to does not change.
    #[must_use]
    pub fn completed(self) -> Self {
        let standalone = self.standalone.clone();
        let drain = self.validate(u32::MAX, &mut Vec::new());
        Self {
            deadline_seconds: Some(drain.deadline_seconds),
            rebalance: Some(drain.rebalance),
            impaired: Some(drain.impaired),
            maintenance: Some(drain.maintenance),
            maintenance_lead_seconds: Some(drain.maintenance_lead_seconds),
            standalone: standalone
                .into_iter()
                .map(|(family, rule)| (family, rule.completed()))
                .collect(),
        }
    }

    /// Checks every rule; what is wrong is added to `problems`. `hook_timeout_seconds` is the
    /// heartbeat time-out of the terminating hook, by which Auto Scaling bounds a drain.
    pub fn validate(self, hook_timeout_seconds: u32, problems: &mut Vec<Problem>) -> Drain {
        let deadline_seconds = self.deadline_seconds.unwrap_or(DEADLINE_DEFAULT);
        let longest = longest_seconds(hook_timeout_seconds);
        if !(1..=longest).contains(&deadline_seconds) {
            problems.push(Problem::new(
                "drain.deadline_seconds",
                format!(
                    "must be 1 to {longest}: Auto Scaling holds a hook of {hook_timeout_seconds} s no longer"
                ),
            ));
        }
        let maintenance_lead_seconds = self
            .maintenance_lead_seconds
            .unwrap_or(MAINTENANCE_LEAD_DEFAULT);
        if !MAINTENANCE_LEAD.contains(&maintenance_lead_seconds) {
            problems.push(Problem::new(
                "drain.maintenance_lead_seconds",
                format!(
                    "must be {} to {}: maintenance is looked for once a minute, and announced two weeks ahead at most",
                    MAINTENANCE_LEAD.start(),
                    MAINTENANCE_LEAD.end()
                ),
            ));
        }
        let standalone = self
            .standalone
            .into_iter()
            .map(|(family, rule)| {
                let after = rule.validate(&family, deadline_seconds, problems);
                (family, after)
            })
            .collect();
        Drain {
            deadline_seconds,
            rebalance: self.rebalance.unwrap_or(Reaction::Ignore),
            impaired: self.impaired.unwrap_or(Reaction::Ignore),
            maintenance: self.maintenance.unwrap_or(Reaction::Drain),
            maintenance_lead_seconds,
            standalone,
        }
    }
}

impl StandaloneConfig {
    fn completed(self) -> Self {
        match self.policy {
            Some(StandalonePolicy::Stop) => Self {
                after_seconds: Some(self.after_seconds.unwrap_or(STOP_AFTER_DEFAULT)),
                ..self
            },
            Some(StandalonePolicy::Wait) | None => self,
        }
    }

    fn validate(
        &self,
        family: &str,
        deadline_seconds: u32,
        problems: &mut Vec<Problem>,
    ) -> Option<u32> {
        let key = format!("drain.standalone.{family}");
        if !is_family(family) {
            problems.push(Problem::new(
                &key,
                format!(
                    "`{family}` is not a task definition family (letters, digits, - and _), nor `*` for every other"
                ),
            ));
        }
        match (self.policy, self.after_seconds) {
            (None, _) => {
                problems.push(Problem::new(
                    format!("{key}.policy"),
                    "is missing: `wait` or `stop`",
                ));
                None
            }
            (Some(StandalonePolicy::Wait), None) => None,
            (Some(StandalonePolicy::Wait), Some(_)) => {
                problems.push(Problem::new(
                    format!("{key}.after_seconds"),
                    "only goes with `policy = \"stop\"`: waiting ends at the drain's deadline",
                ));
                None
            }
            (Some(StandalonePolicy::Stop), after) => {
                let after = after.unwrap_or(STOP_AFTER_DEFAULT);
                if after >= deadline_seconds {
                    problems.push(Problem::new(
                        format!("{key}.after_seconds"),
                        format!(
                            "{after} is not before the drain's deadline of {deadline_seconds} s"
                        ),
                    ));
                }
                Some(after)
            }
        }
    }
}

/// Auto Scaling keeps a hook open for at most 48 hours or 100 heartbeat time-outs, whichever is
/// less (lifecycle-hooks, "Considerations").
fn longest_seconds(hook_timeout_seconds: u32) -> u32 {
    (hook_timeout_seconds.saturating_mul(100)).min(48 * 3_600)
}

/// Sidecars flush all at once and stop one after another; all of it must fit into a spot notice.
pub(crate) fn check_sidecars(sidecars: &[Sidecar], problems: &mut Vec<Problem>) {
    let seconds = sidecars_seconds(sidecars);
    if seconds > SIDECARS_MAX {
        problems.push(Problem::new(
            "sidecars",
            format!(
                "may take {seconds} s to flush and stop: at most {SIDECARS_MAX} s fit into a spot notice of {SPOT_NOTICE} s, shorten flush_timeout_seconds (the longest counts) or stop_timeout_seconds (all count)"
            ),
        ));
    }
}

/// What these sidecars may take to flush, all at once, and to stop, one after another.
#[must_use]
pub fn sidecars_seconds(sidecars: &[Sidecar]) -> u32 {
    let flush = sidecars.iter().filter_map(|sidecar| sidecar.flush.as_ref());
    let flush = flush.map(|flush| flush.timeout_seconds).max().unwrap_or(0);
    let stops = sidecars
        .iter()
        .map(|sidecar| sidecar.stop_timeout_seconds)
        .fold(0, u32::saturating_add);
    flush.saturating_add(stops)
}

fn is_family(family: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    family == EVERY_FAMILY
        || ((1..=FAMILY_MAX).contains(&family.len()) && family.bytes().all(legal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(config: DrainConfig) -> Vec<String> {
        let mut problems = Vec::new();
        config.validate(300, &mut problems);
        problems.into_iter().map(|p| p.key).collect()
    }

    fn standalone(
        family: &str,
        policy: Option<StandalonePolicy>,
        after_seconds: Option<u32>,
    ) -> DrainConfig {
        let rule = StandaloneConfig {
            policy,
            after_seconds,
        };
        DrainConfig {
            standalone: [(family.to_owned(), rule)].into(),
            ..DrainConfig::default()
        }
    }

    #[test]
    fn every_rule_has_a_value_that_breaks_it() {
        use StandalonePolicy::{Stop, Wait};
        assert_eq!(problems(DrainConfig::default()), [""; 0]);
        let config = DrainConfig {
            deadline_seconds: Some(30_001),
            maintenance_lead_seconds: Some(59),
            ..DrainConfig::default()
        };
        assert_eq!(
            problems(config),
            ["drain.deadline_seconds", "drain.maintenance_lead_seconds"]
        );
        for (config, key) in [
            (
                standalone("batch", None, None),
                "drain.standalone.batch.policy",
            ),
            (
                standalone("batch", Some(Wait), Some(5)),
                "drain.standalone.batch.after_seconds",
            ),
            (
                standalone("batch", Some(Stop), Some(3_600)),
                "drain.standalone.batch.after_seconds",
            ),
            (standalone("a b", Some(Wait), None), "drain.standalone.a b"),
        ] {
            assert_eq!(problems(config), [key]);
        }
    }

    #[test]
    fn a_named_family_rules_over_every_other() {
        let mut config = standalone("*", Some(StandalonePolicy::Stop), None);
        let wait = StandaloneConfig {
            policy: Some(StandalonePolicy::Wait),
            after_seconds: None,
        };
        config.standalone.insert("nightly".into(), wait);
        let drain = config.validate(300, &mut Vec::new());
        assert_eq!(drain.stops_standalone_after("nightly"), None);
        assert_eq!(drain.stops_standalone_after("anything"), Some(0));
        assert!(drain.stops_standalone());
        let drain = DrainConfig::default().validate(300, &mut Vec::new());
        assert_eq!(drain.stops_standalone_after("anything"), None);
        assert!(!drain.stops_standalone());
    }

    #[test]
    fn what_is_filled_in_changes_nothing() {
        let stop = standalone("batch", Some(StandalonePolicy::Stop), None);
        for config in [DrainConfig::default(), stop] {
            let completed = config.clone().completed();
            let drain = |config: DrainConfig| config.validate(300, &mut Vec::new());
            assert_eq!(drain(completed.clone()), drain(config));
            assert_eq!(completed.clone().completed(), completed);
        }
    }

    #[test]
    fn a_hook_is_held_for_a_hundred_time_outs_or_two_days() {
        assert_eq!(longest_seconds(300), 30_000);
        assert_eq!(longest_seconds(7_200), 172_800);
    }
}
