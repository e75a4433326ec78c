//! What stands beside an Auto Scaling group and has calls of its own.

use std::collections::BTreeMap;

use super::Up;
use crate::{
    desired,
    inventory::{AutoScalingGroup, Presence},
    plan::{
        AutoScalingStep, Mark, Steps, describe,
        wanted::{schedules, warm_pool},
    },
};

impl Up<'_> {
    /// Whether the group's own metrics are in CloudWatch. What changes is said in `details`.
    pub(super) fn metrics(
        &mut self,
        wanted: &desired::AutoScalingGroup,
        found: &AutoScalingGroup,
        details: &mut Vec<String>,
    ) -> Steps {
        if wanted.metrics == found.metrics {
            return Steps::new();
        }
        let change = if wanted.metrics {
            "metrics off -> on"
        } else {
            "metrics on -> off"
        };
        details.push(change.to_owned());
        vec![self.builder.step(metrics(wanted), [])]
    }

    /// The same of a group that is to be made.
    pub(super) fn metrics_of_new(
        &mut self,
        wanted: &desired::AutoScalingGroup,
        created: usize,
    ) -> Steps {
        if !wanted.metrics {
            return Steps::new();
        }
        vec![self.builder.step(metrics(wanted), [created])]
    }

    /// What launches nodes by itself: only once the group has proven that they come to serve.
    pub(super) fn launching(
        &mut self,
        wanted: &desired::AutoScalingGroup,
        found: Option<&AutoScalingGroup>,
        after: &[usize],
    ) -> Steps {
        let mut steps = self.warm_pool(wanted, found, after);
        steps.extend(self.schedules(wanted, found, after));
        steps
    }

    fn schedules(
        &mut self,
        group: &desired::AutoScalingGroup,
        found: Option<&AutoScalingGroup>,
        after: &[usize],
    ) -> Steps {
        const KIND: &str = "schedule";
        let none = BTreeMap::new();
        let found = found.map_or(&none, |found| &found.schedules);
        let wanted = schedules(group);
        let line = |name: &str| format!("{} {name}", group.name);
        let remove = |name: &String| AutoScalingStep::DeleteSchedule {
            group: group.name.clone(),
            name: name.clone(),
        };
        let mut steps = Steps::new();
        for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
            let detail = "not in file, removed";
            self.builder.line(Mark::Correct, KIND, line(name), detail);
            steps.push(self.builder.step(remove(name), []));
        }
        for (name, schedule) in wanted {
            let existing = found.get(&name);
            let mark = match existing {
                Some(existing) if *existing == schedule => Mark::Keep,
                Some(_) => Mark::Change,
                None => Mark::Create,
            };
            let detail = describe::schedule(&schedule);
            self.builder.line(mark, KIND, line(&name), detail);
            if mark == Mark::Keep {
                continue;
            }
            let mut after = after.to_vec();
            // What a change does not say stays as it was.
            if existing.is_some_and(|existing| schedule.says_less_than(existing)) {
                let removed = self.builder.step(remove(&name), after.iter().copied());
                steps.push(removed);
                after = vec![removed];
            }
            let put = AutoScalingStep::PutSchedule {
                group: group.name.clone(),
                name,
                schedule,
            };
            steps.push(self.builder.step(put, after));
        }
        steps
    }

    fn warm_pool(
        &mut self,
        group: &desired::AutoScalingGroup,
        found: Option<&AutoScalingGroup>,
        after: &[usize],
    ) -> Steps {
        const KIND: &str = "warm-pool";
        let name = &group.name;
        let found = found.map_or(&Presence::Absent, |found| &found.warm_pool);
        let (mark, detail, step) = match (warm_pool(group), found.owned()) {
            (None, None) => return Steps::new(),
            (Some(wanted), Some(found)) if wanted == *found => {
                self.builder.line(Mark::Keep, KIND, name, "");
                return Steps::new();
            }
            (None, Some(_)) => {
                let remove = AutoScalingStep::DeleteWarmPool {
                    group: name.clone(),
                };
                (Mark::Delete, "with the nodes in it".to_owned(), remove)
            }
            (Some(wanted), found) => {
                let mark = found.map_or(Mark::Create, |_| Mark::Change);
                let detail = describe::warm_pool(&wanted);
                let put = AutoScalingStep::PutWarmPool {
                    group: name.clone(),
                    pool: wanted,
                };
                (mark, detail, put)
            }
        };
        self.builder.line(mark, KIND, name, detail);
        vec![self.builder.step(step, after.iter().copied())]
    }
}

fn metrics(wanted: &desired::AutoScalingGroup) -> AutoScalingStep {
    AutoScalingStep::CollectMetrics {
        group: wanted.name.clone(),
        is_on: wanted.metrics,
    }
}
