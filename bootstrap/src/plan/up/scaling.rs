//! Groups that Auto Scaling sizes by steps, on alarms: what they need, and what has to go when ECS sizes
//! them again.

use super::{Up, changed};
use crate::{
    desired::{self, scaling_policy},
    inventory::{
        AlarmSettings, AutoScalingGroup, Group, Instance, PolicySettings, Presence, StepAdjustment,
    },
    plan::{
        AlarmStep, AutoScalingStep, Effect, Mark, PolicyUse, Steps, Taggable, describe,
        wanted::{is_settled, protects_nodes},
    },
    spec::{Direction, Ladder, StepScaling},
};

const POLICY: &str = "scaling-policy";
const ALARM: &str = "alarm";

impl Up<'_> {
    /// Takes away what would scale a group beside ECS.
    pub(super) fn no_step_scaling(&mut self, group: &desired::Group, existing: &Group) -> Steps {
        if group.scaling.steps().is_some() {
            return Steps::new();
        }
        let asg = &group.auto_scaling_group.name;
        let mut steps = Steps::new();
        for direction in Direction::ALL {
            let name = group.alarm(direction);
            if existing.alarm(direction).owned().is_some() {
                self.builder.line(Mark::Delete, ALARM, name, "");
                let remove = AlarmStep::Delete {
                    name: name.to_owned(),
                };
                steps.push(self.builder.step(remove, []));
            }
        }
        let alarms = steps.clone();
        let found = existing.auto_scaling_group.owned();
        for direction in found.iter().flat_map(|found| found.scaling_policies.keys()) {
            let name = policy_name(asg, *direction);
            self.builder.line(Mark::Delete, POLICY, name, "");
            let remove = AutoScalingStep::DeleteScalingPolicy {
                group: asg.clone(),
                direction: *direction,
            };
            steps.push(self.builder.step(remove, alarms.iter().copied()));
        }
        steps
    }

    /// Policies, and alarms that set them off.
    pub(super) fn step_scaling(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        after: &[usize],
    ) -> Steps {
        let Some(scaling) = group.scaling.steps() else {
            return Steps::new();
        };
        let mut steps = Steps::new();
        let policies = Direction::ALL.map(|direction| {
            let (put, policy) = self.policy(group, existing, (scaling, direction), after);
            steps.extend(put);
            (direction, policy)
        });
        let before = [after, &steps].concat();
        for (direction, policy) in policies {
            let scaling = (scaling, direction);
            steps.extend(self.alarm(group, existing, scaling, policy, &before));
        }
        steps
    }

    fn policy(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        (scaling, direction): (&StepScaling, Direction),
        after: &[usize],
    ) -> (Option<usize>, PolicyUse) {
        let asg = &group.auto_scaling_group.name;
        let found = existing.auto_scaling_group.owned();
        let found = found.and_then(|found| found.scaling_policies.get(&direction));
        let wanted = policy_settings(scaling, direction);
        let threshold = threshold(scaling.ladder(direction));
        let sets_off = match found {
            Some(found) => PolicyUse::Arn(found.arn.clone()),
            None => PolicyUse::Created {
                group: asg.clone(),
                direction,
            },
        };
        let (mark, details) = match found {
            None => (Mark::Create, describe::policy(&wanted, threshold)),
            Some(found) if found.settings == wanted => (Mark::Keep, Vec::new()),
            Some(found) => {
                let alarm = existing.alarm(direction).owned();
                let before = alarm.map_or(threshold, |alarm| alarm.settings.threshold);
                let (old, new) = ((&found.settings, before), (&wanted, threshold));
                (
                    changed(is_settled(group, existing)),
                    describe::scaling_policy_changes(old, new),
                )
            }
        };
        let name = policy_name(asg, direction);
        self.builder
            .change(mark, POLICY, name, details, Effect::None);
        if mark == Mark::Keep {
            return (None, sets_off);
        }
        let put = AutoScalingStep::PutScalingPolicy {
            group: asg.clone(),
            direction,
            settings: wanted,
        };
        let put = self.builder.step(put, after.iter().copied());
        (Some(put), sets_off)
    }

    fn alarm(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        (scaling, direction): (&StepScaling, Direction),
        sets_off: PolicyUse,
        after: &[usize],
    ) -> Steps {
        let name = group.alarm(direction).to_owned();
        let wanted = alarm_settings(scaling, direction, &self.desired.cluster.name);
        let put = |settings, tags| AlarmStep::Put {
            name: name.clone(),
            settings,
            sets_off: sets_off.clone(),
            tags,
        };
        let Presence::Owned(found) = existing.alarm(direction) else {
            let detail = describe::alarm(&wanted);
            self.builder.line(Mark::Create, ALARM, &name, detail);
            let create = put(wanted, Some(group.tags.clone()));
            return vec![self.builder.step(create, after.iter().copied())];
        };
        let mut steps = self.tags(
            Taggable::Alarm(found.arn.clone()),
            &group.tags,
            &found.tags,
            [],
        );
        let tagged = describe::tagged(&steps);
        let mut details = describe::alarm_changes(&found.settings, &wanted);
        let is_wired = match &sets_off {
            PolicyUse::Arn(arn) => found.actions == [arn.clone()],
            PolicyUse::Created { .. } => false,
        };
        if !is_wired {
            details.push(format!("sets off {}", scaling_policy(direction)));
        }
        let mark = match (details.is_empty(), tagged.is_empty()) {
            (true, true) => Mark::Keep,
            (true, false) => Mark::Change,
            (false, _) => changed(is_settled(group, existing)),
        };
        if !details.is_empty() {
            let change = put(wanted, None);
            steps.push(self.builder.step(change, after.iter().copied()));
        }
        details.extend(tagged);
        self.builder
            .change(mark, ALARM, &name, details, Effect::None);
        steps
    }

    /// With steps Auto Scaling chooses who goes, so that nobody is kept from it.
    pub(super) fn lets_nodes_go(
        &mut self,
        group: &desired::Group,
        existing: &Group,
        after: &[usize],
    ) -> Option<usize> {
        let found = existing.auto_scaling_group.owned()?;
        let kept = in_service(found, |instance| instance.protected);
        if protects_nodes(group) || kept.is_empty() {
            return None;
        }
        let asg = &group.auto_scaling_group.name;
        let details = vec![format!("{} no longer kept from scale-in", kept.len())];
        let mark = changed(is_settled(group, existing));
        self.builder
            .change(mark, "nodes", asg, details, Effect::None);
        let step = AutoScalingStep::SetProtection {
            group: asg.clone(),
            instances: kept,
            is_on: false,
        };
        Some(self.builder.step(step, after.iter().copied()))
    }

    /// Keeps nodes that are there from scale-in, before those to come are: ECS protects none by itself.
    pub(super) fn keeps_nodes(
        &mut self,
        found: &AutoScalingGroup,
        asg: &str,
        details: &mut Vec<String>,
    ) -> Steps {
        let open = in_service(found, |instance| !instance.protected);
        if open.is_empty() {
            return Steps::new();
        }
        details.push(format!("keeps {} nodes from scale-in", open.len()));
        let step = AutoScalingStep::SetProtection {
            group: asg.to_owned(),
            instances: open,
            is_on: true,
        };
        vec![self.builder.step(step, [])]
    }
}

/// Auto Scaling sets the protection of no others.
fn in_service(found: &AutoScalingGroup, is_it: impl Fn(&Instance) -> bool) -> Vec<String> {
    let instances = found.instances.iter();
    let instances = instances.filter(|instance| instance.state == "InService" && is_it(instance));
    instances.map(|instance| instance.id.clone()).collect()
}

fn policy_name(asg: &str, direction: Direction) -> String {
    format!("{asg} {}", scaling_policy(direction))
}

/// Where the first step begins, per cent.
fn threshold(ladder: &Ladder) -> f64 {
    ladder.steps.first().map_or(0.0, |step| step.percent.into())
}

/// Bounds are relative to the alarm's threshold; each step ends where the next begins, and the last
/// nowhere (API reference, StepAdjustment).
fn policy_settings(scaling: &StepScaling, direction: Direction) -> PolicySettings {
    let ladder = scaling.ladder(direction);
    let from = |index: usize| {
        let step = ladder.steps.get(index)?;
        Some(f64::from(step.percent) - threshold(ladder))
    };
    let steps = ladder.steps.iter().enumerate().map(|(index, step)| {
        let (near, far) = (from(index), from(index + 1));
        let nodes = i32::try_from(step.nodes).unwrap_or(i32::MAX);
        let (lower, upper, change) = match direction {
            Direction::Out => (near, far, nodes),
            Direction::In => (far, near, -nodes),
        };
        StepAdjustment {
            lower,
            upper,
            change,
        }
    });
    PolicySettings {
        adjustment_type: "ChangeInCapacity".to_owned(),
        steps: steps.collect(),
        // Nothing warms up where nodes go; those on their way out count as gone.
        warmup_seconds: (direction == Direction::Out).then_some(scaling.warmup_seconds),
        is_enabled: true,
    }
}

fn alarm_settings(scaling: &StepScaling, direction: Direction, cluster: &str) -> AlarmSettings {
    let ladder = scaling.ladder(direction);
    AlarmSettings {
        cluster: Some(cluster.to_owned()),
        comparison: match direction {
            Direction::Out => "GreaterThanThreshold",
            Direction::In => "LessThanThreshold",
        }
        .to_owned(),
        threshold: threshold(ladder),
        minutes: ladder.minutes,
        minutes_beyond: ladder.minutes,
        // What is not known scales nothing.
        missing_data: "missing".to_owned(),
        is_enabled: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Step;

    fn scaling() -> StepScaling {
        let step = |percent, nodes| Step { percent, nodes };
        StepScaling {
            out: Ladder {
                minutes: 2,
                steps: vec![step(75, 1), step(85, 2), step(90, 4)],
            },
            inward: Ladder {
                minutes: 15,
                steps: vec![step(40, 1), step(20, 3)],
            },
            warmup_seconds: 120,
        }
    }

    /// As Auto Scaling applies it: above the threshold bounds are at or above the lower and below the upper
    /// one, below it above the lower and at or below the upper one.
    fn applied(settings: &PolicySettings, threshold: f64, value: f64) -> Vec<i32> {
        let distance = value - threshold;
        let is_in = |step: &&StepAdjustment| match distance >= 0.0 {
            true => {
                step.lower.is_none_or(|lower| distance >= lower)
                    && step.upper.is_none_or(|upper| distance < upper)
            }
            false => {
                step.lower.is_none_or(|lower| distance > lower)
                    && step.upper.is_none_or(|upper| distance <= upper)
            }
        };
        settings
            .steps
            .iter()
            .filter(is_in)
            .map(|step| step.change)
            .collect()
    }

    /// Whatever CloudWatch says while an alarm stands, one step of its policy applies, and it is the file's.
    #[test]
    fn at_every_share_beyond_the_threshold_just_the_step_of_the_file_applies() {
        let scaling = scaling();
        for tenth in 0..=1_000_i32 {
            let value = f64::from(tenth) / 10.0;
            for direction in Direction::ALL {
                let ladder = scaling.ladder(direction);
                let threshold = threshold(ladder);
                let (is_beyond, reached): (bool, Vec<&Step>) = match direction {
                    Direction::Out => (
                        value > threshold,
                        ladder
                            .steps
                            .iter()
                            .filter(|s| value >= f64::from(s.percent))
                            .collect(),
                    ),
                    Direction::In => (
                        value < threshold,
                        ladder
                            .steps
                            .iter()
                            .filter(|s| value <= f64::from(s.percent))
                            .collect(),
                    ),
                };
                if !is_beyond {
                    continue;
                }
                let nodes = reached.last().map_or(0, |step| step.nodes);
                let nodes = i32::try_from(nodes).expect("few");
                let change = if direction == Direction::Out {
                    nodes
                } else {
                    -nodes
                };
                let settings = policy_settings(&scaling, direction);
                assert_eq!(applied(&settings, threshold, value), [change], "{value}");
            }
        }
    }

    #[test]
    fn an_alarm_stands_at_the_first_step() {
        let out = alarm_settings(&scaling(), Direction::Out, "c");
        assert_eq!((out.threshold, out.minutes), (75.0, 2));
        assert_eq!(out.comparison, "GreaterThanThreshold");
        let inward = alarm_settings(&scaling(), Direction::In, "c");
        assert_eq!((inward.threshold, inward.minutes), (40.0, 15));
        assert_eq!(inward.comparison, "LessThanThreshold");
    }
}
