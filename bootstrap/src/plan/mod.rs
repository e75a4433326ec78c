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
pub(crate) mod model;
mod step;
#[cfg(test)]
mod tests;
mod up;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Serialize;

pub(crate) use conflicts::Conflict;
pub(crate) use step::{
    AlarmStep, AutoScalingStep, BucketStep, Ec2Step, EcsStep, GroupChange, IamStep, NewGroup,
    ParameterStep, PolicyUse, Step, Taggable, TemplateUse, Version,
};

pub(crate) use wanted::{in_order_of, template_use};

use crate::{
    desired::Desired,
    inventory::{Inventory, Template},
    preflight::Finding,
};

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

/// The kind of a line about tasks.
pub(crate) const TASKS: &str = "tasks";

/// What to do, and what it comes to for each resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Plan {
    pub(crate) goal: Goal,
    /// One a resource, kept ones included.
    pub(crate) lines: Vec<Line>,
    /// In an order that satisfies `after`.
    pub(crate) steps: Vec<Planned>,
    /// What is worth knowing before its first write; absent where nothing would be launched.
    pub(crate) preflight: Option<Vec<Finding>>,
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
    /// What of it changes, field by field, or what else there is to say.
    pub(crate) details: Vec<String>,
    /// What the change comes to for nodes that serve.
    pub(crate) effect: Effect,
}

/// What a change comes to for nodes that serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    /// They do not notice.
    None,
    /// They take it while they serve, one first.
    Live,
    /// They stay as they are until `roll` replaces them.
    Roll { stale: usize, of: usize },
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
        Goal::Down => down::plan(desired, inventory),
    }
}

impl Plan {
    /// Nothing to do.
    pub(crate) fn empty(goal: Goal) -> Self {
        Self {
            goal,
            lines: Vec::new(),
            steps: Vec::new(),
            preflight: None,
        }
    }

    /// Whether it says how instances are launched from then on.
    pub(crate) fn launches(&self) -> bool {
        let mut steps = self.steps.iter().map(|planned| &planned.step);
        let launches = |step: &Step| match step {
            Step::AutoScaling(AutoScalingStep::Create(_)) => true,
            Step::AutoScaling(AutoScalingStep::Update { change, .. }) => {
                change.template.is_some() || change.subnets.is_some()
            }
            Step::Iam(_)
            | Step::Ec2(_)
            | Step::AutoScaling(_)
            | Step::Ecs(_)
            | Step::Parameter(_)
            | Step::Alarm(_)
            | Step::Bucket(_)
            | Step::Tag { .. } => false,
        };
        steps.any(launches) || !self.templates().is_empty()
    }

    /// The file that it sends, and the SHA-256 that it has to have.
    pub(crate) fn sends(&self) -> Option<(&Path, &str)> {
        let mut steps = self.steps.iter().map(|planned| &planned.step);
        steps.find_map(|step| {
            let Step::Bucket(BucketStep::Upload { file, sha256, .. }) = step else {
                return None;
            };
            Some((file.as_path(), sha256.as_str()))
        })
    }

    /// What it writes into launch templates, by their names.
    pub(crate) fn templates(&self) -> BTreeMap<String, Template> {
        let steps = self.steps.iter().map(|planned| &planned.step);
        let written = steps.filter_map(|step| {
            let Step::Ec2(
                Ec2Step::CreateLaunchTemplate { name, template, .. }
                | Ec2Step::CreateLaunchTemplateVersion { name, template },
            ) = step
            else {
                return None;
            };
            Some((name.clone(), template.as_ref().clone()))
        });
        written.collect()
    }

    /// What is not yet as it should be, in words.
    pub(crate) fn differences(&self) -> Vec<String> {
        let width = self.name_width();
        let lines = self.lines.iter();
        lines
            .filter(|line| !matches!(line.mark, Mark::Keep | Mark::Adopted))
            .map(|line| line.render(width))
            .collect()
    }

    /// Whether it gives an Auto Scaling group another version of its launch template, which none of its
    /// nodes is made from.
    pub(crate) fn renews(&self, auto_scaling_group: &str) -> bool {
        let mut steps = self.steps.iter().map(|planned| &planned.step);
        steps.any(|step| {
            matches!(
                step,
                Step::AutoScaling(AutoScalingStep::Update { name, change })
                    if name == auto_scaling_group && change.template.is_some()
            )
        })
    }

    /// Nodes that `roll` would replace afterwards, by Auto Scaling group.
    pub(crate) fn rolls(&self) -> impl Iterator<Item = (&str, usize)> {
        self.lines.iter().filter_map(|line| match line.effect {
            Effect::Roll { stale, .. } => Some((line.name.as_str(), stale)),
            Effect::None | Effect::Live => None,
        })
    }

    /// Somebody else's tasks that run on nodes which go.
    pub(crate) fn tenants(&self) -> Option<&str> {
        let mut lines = self.lines.iter();
        let line = lines.find(|line| line.mark == Mark::Adopted && line.kind == TASKS)?;
        line.details.first().map(String::as_str)
    }

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
            plan: Plan::empty(goal),
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
        let detail = detail.into();
        let details = (!detail.is_empty()).then_some(detail).into_iter().collect();
        self.change(mark, kind, name, details, Effect::None);
    }

    fn change(
        &mut self,
        mark: Mark,
        kind: &'static str,
        name: impl Into<String>,
        details: Vec<String>,
        effect: Effect,
    ) {
        self.plan.lines.push(Line {
            mark,
            kind,
            name: name.into(),
            details,
            effect,
        });
    }
}
