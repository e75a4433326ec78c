//! From what should be and what is, to what to do.
//!
//! A [`Plan`] is data with no choices left in it: every step carries all its arguments, and what a
//! later step needs from an earlier one (an id that AWS draws) is a reference to it by name.
//! [`plan`] is pure; `plan` shows exactly what `up` then runs.

#[cfg(test)]
mod check;
mod conflicts;
mod describe;
mod down;
#[cfg(test)]
mod model;
mod step;
#[cfg(test)]
mod tests;
mod up;
mod wanted;

use std::collections::BTreeSet;

use serde::Serialize;

pub(crate) use conflicts::Conflict;
pub(crate) use step::{
    AutoScalingStep, Ec2Step, EcsStep, GroupChange, IamStep, NewGroup, ParameterStep, Step,
    Taggable, TemplateUse, Version,
};

use crate::{desired::Desired, inventory::Inventory};

/// What the environment should become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Goal {
    /// What the file says.
    Up,
    /// Nothing.
    Down,
}

/// The value of a group's `fleet:spec` tag until its first node has proven itself.
pub(crate) const STARTING: &str = "starting";

/// What to do, and what it comes to for each resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) goal: Goal,
    /// One a resource, kept ones included.
    pub(crate) lines: Vec<Line>,
    /// In an order that satisfies `after`.
    pub(crate) steps: Vec<Planned>,
}

/// A step and the steps that must be done before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Planned {
    pub(crate) step: Step,
    /// Indices into [`Plan::steps`].
    pub(crate) after: Vec<usize>,
}

/// What happens to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) mark: Mark,
    /// `cluster`, `role`...
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// Empty when there is nothing to add.
    pub(crate) detail: String,
}

/// How a resource is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// Made new.
    Create,
    /// Changed to what the file says now.
    Change,
    /// Changed back: somebody else touched it.
    Correct,
    /// Removed.
    Delete,
    /// Ours, and as wanted.
    Keep,
    /// Not ours; never touched.
    Adopted,
}

/// Plans the way from `inventory` to `goal`.
///
/// # Errors
/// Everything that stands in the way, at once. Nothing has been written then.
pub(crate) fn plan(
    desired: &Desired,
    inventory: &Inventory,
    goal: Goal,
) -> Result<Plan, Vec<Conflict>> {
    match goal {
        Goal::Up => up::plan(desired, inventory),
        Goal::Down => Ok(down::plan(desired, inventory)),
    }
}

impl Plan {
    /// Auto Scaling groups whose first nodes this plan starts.
    pub(crate) fn opened(&self) -> BTreeSet<String> {
        let steps = self.steps.iter().map(|planned| &planned.step);
        steps.filter_map(Step::awaited).map(str::to_owned).collect()
    }
}

/// Collects steps and lines in the order in which they are thought of.
#[derive(Debug)]
struct Builder {
    plan: Plan,
}

/// Steps that others wait for.
type Steps = Vec<usize>;

impl Builder {
    fn new(goal: Goal) -> Self {
        Self {
            plan: Plan {
                goal,
                lines: Vec::new(),
                steps: Vec::new(),
            },
        }
    }

    /// Adds a step and returns its index.
    fn step(&mut self, step: impl Into<Step>, after: impl IntoIterator<Item = usize>) -> usize {
        let mut after: Vec<usize> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        self.plan.steps.push(Planned {
            step: step.into(),
            after,
        });
        self.plan.steps.len() - 1
    }

    fn line(
        &mut self,
        mark: Mark,
        kind: &'static str,
        name: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.plan.lines.push(Line {
            mark,
            kind,
            name: name.into(),
            detail: detail.into(),
        });
    }
}
