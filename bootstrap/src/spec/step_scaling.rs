//! `[groups.NAME.step_scaling]`: a group that Auto Scaling sizes by how much of the cluster is reserved,
//! in the place of ECS's managed scaling.
//!
//! CloudWatch has each minute how much of the CPU and of the memory of a cluster's container instances
//! its tasks reserve, in per cent (ECS guide, "Amazon ECS cluster reservation metrics"). The greater of
//! both counts: nodes are added when either is scarce, and taken away only when neither is. Both are
//! of the cluster and know no groups, and there are none of a cluster without container instances.

use std::collections::BTreeSet;

use fleet_agent_config::Problem;
use serde::Serialize;

use super::{
    rules::{NODES_MAX, outside},
    wire,
};

/// Share of the nodes that ECS keeps busy where nobody says another, per cent.
const TARGET_CAPACITY: u32 = 100;
/// Half of one node of two is below the one, and half as much again above the other.
const ABOVE: u32 = 75;
const BELOW: u32 = 30;
/// Two datapoints: tasks that only pass through add no node.
const OUT_MINUTES: u32 = 2;
/// What managed scaling takes for it.
const IN_MINUTES: u32 = 15;
/// Auto Scaling's own, in effect: its default cooldown.
const WARMUP_SECONDS: u32 = 300;
/// Step adjustments of a policy (Auto Scaling quotas).
const STEPS_MAX: usize = 20;
/// What an alarm may look back on at periods below an hour, a day (API reference, PutMetricAlarm).
const MINUTES_MAX: u32 = 24 * 60;
/// A bound of ours: nodes are in ECS before Auto Scaling counts them.
const WARMUP_MAX: u32 = 3_600;

/// Who sizes a group within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scaling {
    /// ECS, by the tasks that it has to place.
    Managed {
        /// Share of the nodes that it keeps busy, per cent, 1 to 100.
        target_capacity: u32,
    },
    /// Auto Scaling, by what is reserved.
    Steps(StepScaling),
}

impl Scaling {
    /// The steps, where it goes by them.
    pub fn steps(&self) -> Option<&StepScaling> {
        match self {
            Self::Managed { .. } => None,
            Self::Steps(steps) => Some(steps),
        }
    }
}

/// `[groups.NAME.step_scaling]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepScaling {
    /// When nodes are added.
    pub out: Ladder,
    /// When they are taken away.
    pub inward: Ladder,
    /// How long a new node takes to show in the metrics, seconds.
    pub warmup_seconds: u32,
}

impl StepScaling {
    /// The steps of one direction.
    pub fn ladder(&self, direction: Direction) -> &Ladder {
        match direction {
            Direction::Out => &self.out,
            Direction::In => &self.inward,
        }
    }
}

/// Which way a group is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Nodes are added.
    Out,
    /// Nodes are taken away.
    In,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Out, Self::In];
}

/// The steps of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ladder {
    /// For so many minutes on end the first step has to be reached.
    pub minutes: u32,
    /// At least one, the nearest first, no two at the same share.
    pub steps: Vec<Step>,
}

/// What happens beyond a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Of what is reserved, 1 to 99: above it when nodes are added, else below it.
    pub percent: u32,
    /// So many nodes.
    pub nodes: u32,
}

/// The group's scaling, with defaults filled in.
pub(super) fn read(group: &wire::Group) -> Scaling {
    let Some(wanted) = &group.step_scaling else {
        return Scaling::Managed {
            target_capacity: group.target_capacity.unwrap_or(TARGET_CAPACITY),
        };
    };
    let out = wanted.out.clone().unwrap_or_else(|| {
        vec![wire::StepOut {
            above: Some(ABOVE),
            nodes: None,
        }]
    });
    let inward = wanted.inward.clone().unwrap_or_else(|| {
        vec![wire::StepIn {
            below: Some(BELOW),
            nodes: None,
        }]
    });
    let step = |percent: Option<u32>, nodes: Option<u32>| Step {
        percent: percent.unwrap_or_default(),
        nodes: nodes.unwrap_or(1),
    };
    let mut out: Vec<Step> = out.iter().map(|of| step(of.above, of.nodes)).collect();
    let mut inward: Vec<Step> = inward.iter().map(|of| step(of.below, of.nodes)).collect();
    out.sort_by_key(|step| step.percent);
    inward.sort_by_key(|step| std::cmp::Reverse(step.percent));
    Scaling::Steps(StepScaling {
        out: Ladder {
            minutes: wanted.out_minutes.unwrap_or(OUT_MINUTES),
            steps: out,
        },
        inward: Ladder {
            minutes: wanted.in_minutes.unwrap_or(IN_MINUTES),
            steps: inward,
        },
        warmup_seconds: wanted.warmup_seconds.unwrap_or(WARMUP_SECONDS),
    })
}

/// What is found wrong, and what may not be meant.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// What is wrong with how the group at `table` is scaled; `is_alone` says that its
/// cluster has no other nodes.
pub(super) fn check(table: &str, group: &wire::Group, is_alone: bool) -> Found {
    let mut found = Found::default();
    let key = |field: &str| format!("{table}.{field}");
    let mut wrong = |key: String, why: Option<String>| {
        found.problems.extend(why.map(|why| Problem::new(key, why)));
    };
    let (Some(wanted), Scaling::Steps(steps)) = (&group.step_scaling, read(group)) else {
        let why = "it is the percentage of nodes that ECS keeps busy";
        let capacity = group.target_capacity;
        let capacity = capacity.and_then(|capacity| outside(capacity, 1, 100, why));
        wrong(key("target_capacity"), capacity);
        return found;
    };
    let why =
        "is for ECS's managed scaling, and `step_scaling` takes its place: take one of them out";
    let is_both = group.target_capacity.is_some();
    wrong(key("target_capacity"), is_both.then(|| why.to_owned()));
    let why = "is for a cluster of its own with one group: what CloudWatch knows of reservations is of the whole cluster, so that nodes of one group would come and go for the tasks of another; leave it out, or give the group a fleet of its own";
    wrong(key("step_scaling"), (!is_alone).then(|| why.to_owned()));
    let why = "needs a `min` of 1 or more: of a cluster without nodes CloudWatch knows no reservation, so that none would come, and the last one would be taken with tasks on it";
    let is_empty = group.min == Some(0);
    wrong(key("step_scaling"), is_empty.then(|| why.to_owned()));

    let out = wanted.out.iter().flatten();
    let out = out.map(|step| step.above).collect();
    let inward = wanted.inward.iter().flatten();
    let inward = inward.map(|step| step.below).collect();
    let is_out = (wanted.out.is_some(), out, "out", "above", "{ above = 75 }");
    let is_in = (
        wanted.inward.is_some(),
        inward,
        "in",
        "below",
        "{ below = 30 }",
    );
    for (is_given, percents, name, word, example) in [is_out, is_in] {
        for why in shares(is_given, percents, word, example) {
            wrong(key(&format!("step_scaling.{name}")), Some(why));
        }
    }
    for direction in Direction::ALL {
        let (name, ladder) = match direction {
            Direction::Out => ("out", &steps.out),
            Direction::In => ("in", &steps.inward),
        };
        for step in &ladder.steps {
            let why = "it is a number of nodes";
            let wide = outside(step.nodes, 1, NODES_MAX, why);
            wrong(key(&format!("step_scaling.{name}")), wide);
        }
        let why = "an alarm looks back on a day at most";
        let minutes = outside(ladder.minutes, 1, MINUTES_MAX, why);
        wrong(key(&format!("step_scaling.{name}_minutes")), minutes);
    }
    let why = "it is how long a new node takes to show in the metrics, seconds";
    let warmup = outside(steps.warmup_seconds, 1, WARMUP_MAX, why);
    wrong(key("step_scaling.warmup_seconds"), warmup);
    let (Some(first_out), Some(first_in)) = (steps.out.steps.first(), steps.inward.steps.first())
    else {
        return found;
    };
    let (above, below) = (first_out.percent, first_in.percent);
    let why = format!(
        "takes nodes away below {below} %, and `out` adds them above {above} %: leave room between them"
    );
    let is_crossed = below >= above;
    wrong(key("step_scaling.in"), is_crossed.then_some(why));
    if is_crossed || !found.problems.is_empty() {
        return found;
    }
    let mut note = |field: &str, why: String| {
        found.warnings.push(Problem::new(key(field), why));
    };
    let min = group.min.unwrap_or_default();
    for step in &steps.inward.steps {
        let before = min + step.nodes;
        let after = step.percent * before / min.max(1);
        if after > above {
            let Step { percent, nodes } = step;
            let why = format!(
                "takes {nodes} of {before} nodes below {percent} %, which may be {after} % of those that are left: `out` would add them again above {above} %"
            );
            note("step_scaling.in", why);
        }
    }
    if group.ecs.get("ECS_DISABLE_METRICS").map(String::as_str) == Some("true") {
        let why = "keeps the ECS agent from telling CloudWatch of its tasks, and `step_scaling` goes by what CloudWatch knows";
        note("ecs.ECS_DISABLE_METRICS", why.to_owned());
    }
    found
}

/// What is wrong with the shares of one direction.
fn shares(is_given: bool, shares: Vec<Option<u32>>, word: &str, example: &str) -> Vec<String> {
    if is_given && shares.is_empty() {
        return vec![format!("is empty: say when, such as [{example}]")];
    }
    if shares.len() > STEPS_MAX {
        let held = shares.len();
        return vec![format!(
            "holds {held}: Auto Scaling takes at most {STEPS_MAX} steps"
        )];
    }
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for share in shares {
        let why = "it is a percentage of the cluster's CPU or memory";
        match share {
            None => problems.push(format!(
                "has a step without `{word}`: say when, such as {example}"
            )),
            Some(share) if !seen.insert(share) => {
                problems.push(format!("has two steps at {share} %"));
            }
            Some(share) => problems.extend(outside(share, 1, 99, why)),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    fn group(text: &str) -> wire::Group {
        toml::from_str(&format!("max = 9\n{text}")).expect("a group")
    }

    fn of(text: &str) -> Found {
        check("g", &group(text), true)
    }

    #[test]
    fn a_group_without_steps_is_ecs_s() {
        let managed = |target_capacity| Scaling::Managed { target_capacity };
        assert_eq!(read(&group("min = 0")), managed(100));
        assert_eq!(read(&group("target_capacity = 80")), managed(80));
        for wrong in ["target_capacity = 0", "target_capacity = 101"] {
            assert!(
                told(&of(wrong).problems).contains("g.target_capacity"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn steps_are_in_order_and_have_their_defaults() {
        let steps = |text: &str| {
            let read = read(&group(text));
            read.steps().cloned().expect("steps")
        };
        let step = |percent, nodes| Step { percent, nodes };
        let default = steps("step_scaling = {}");
        assert_eq!(
            default.out,
            Ladder {
                minutes: 2,
                steps: vec![step(75, 1)]
            }
        );
        assert_eq!(
            default.inward,
            Ladder {
                minutes: 15,
                steps: vec![step(30, 1)]
            }
        );
        assert_eq!(default.warmup_seconds, 300);
        let own = steps(
            "step_scaling = { out = [{ above = 90, nodes = 3 }, { above = 70 }], in = [{ below = 10, nodes = 2 }, { below = 20 }] }",
        );
        assert_eq!(own.out.steps, [step(70, 1), step(90, 3)]);
        assert_eq!(own.inward.steps, [step(20, 1), step(10, 2)]);
    }

    #[test]
    fn what_works_is_taken() {
        for text in [
            "min = 1\nstep_scaling = {}",
            "min = 3\nstep_scaling = { in = [{ below = 50 }], out = [{ above = 80, nodes = 2 }] }",
            "min = 1\nstep_scaling = { out_minutes = 1440, in_minutes = 1, warmup_seconds = 1 }",
        ] {
            let found = of(text);
            assert_eq!(told(&found.problems), "", "{text}");
            assert_eq!(told(&found.warnings), "", "{text}");
        }
    }

    #[test]
    fn what_could_not_work_is_refused_all_at_once() {
        for (text, parts) in [
            (
                "min = 1\ntarget_capacity = 80\nstep_scaling = {}",
                &["g.target_capacity: is for ECS's managed scaling"][..],
            ),
            (
                "min = 0\nstep_scaling = {}",
                &["g.step_scaling: needs a `min`"],
            ),
            (
                "min = 1\nstep_scaling = { out = [], in = [{}], in_minutes = 0 }",
                &[
                    "g.step_scaling.out: is empty: say when, such as [{ above = 75 }]",
                    "g.step_scaling.in: has a step without `below`",
                    "g.step_scaling.in_minutes: 0 is outside 1 to 1440",
                ],
            ),
            (
                "min = 1\nstep_scaling = { out = [{ above = 100 }, { above = 80, nodes = 0 }, { above = 80 }], warmup_seconds = 0 }",
                &[
                    "g.step_scaling.out: 100 is outside 1 to 99",
                    "g.step_scaling.out: 0 is outside 1 to 5000",
                    "g.step_scaling.out: has two steps at 80 %",
                    "g.step_scaling.warmup_seconds: 0 is outside",
                ],
            ),
            (
                "min = 1\nstep_scaling = { in = [{ below = 75 }] }",
                &["g.step_scaling.in: takes nodes away below 75 %, and `out` adds them above 75 %"],
            ),
        ] {
            let told = told(&of(text).problems);
            for part in parts {
                assert!(told.contains(part), "{text}: {told}");
            }
            assert_eq!(told.split("; ").count(), parts.len(), "{text}: {told}");
        }
        let many: Vec<String> = (1..=21).map(|at| format!("{{ above = {at} }}")).collect();
        let many = format!("min = 1\nstep_scaling = {{ out = [{}] }}", many.join(", "));
        assert!(told(&of(&many).problems).contains("holds 21: Auto Scaling takes at most 20"));
    }

    #[test]
    fn reservations_are_of_a_cluster_and_so_of_one_group() {
        let found = check("g", &group("min = 1\nstep_scaling = {}"), false);
        assert!(told(&found.problems).contains("g.step_scaling: is for a cluster of its own"));
    }

    #[test]
    fn what_would_come_back_at_once_is_warned_of() {
        let found = of("min = 1\nstep_scaling = { in = [{ below = 40 }] }");
        let told_of = told(&found.warnings);
        assert!(
            told_of.contains("takes 1 of 2 nodes below 40 %, which may be 80 %"),
            "{told_of}"
        );
        let found = of("min = 1\nstep_scaling = {}\necs = { ECS_DISABLE_METRICS = \"true\" }");
        assert!(told(&found.warnings).contains("g.ecs.ECS_DISABLE_METRICS"));
    }
}
