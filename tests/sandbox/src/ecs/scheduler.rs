//! The service scheduler: keeps each service's tasks running, and moves them off what is draining.
//!
//! It looks only at services about which something has changed. One that found no place waits
//! until an instance changes on which there is one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    Cluster, Model, Service, ServiceStatus, Task, TaskStatus,
    tasks::{Constraints, Need, Purpose},
};

/// Delay after a second task in a row stopped before it ran, and twice as long after each further
/// one. AWS throttles such services too, without saying by how much.
const THROTTLE_FIRST: SignedDuration = SignedDuration::from_secs(1);
const THROTTLE_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What the scheduler has still to look at.
#[derive(Debug, Clone, Default)]
pub(super) struct Todo {
    /// Services about which something has changed.
    pub(super) due: BTreeSet<String>,
    /// Services for whose next task no instance has room, and what it needs.
    pub(super) blocked: BTreeMap<String, Need>,
}

/// What one look at a service asks for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Start,
    Stop { task: String, reason: &'static str },
    Retire,
}

impl Model {
    /// Does all that the services of a cluster need now.
    pub(super) fn schedule(&mut self, cluster: &str, now: Timestamp) {
        let next = |model: &mut Self| model.clusters.get_mut(cluster)?.todo.due.pop_first();
        while let Some(name) = next(self) {
            self.schedule_service(cluster, &name, now);
        }
    }

    fn schedule_service(&mut self, cluster: &str, name: &str, now: Timestamp) {
        loop {
            let Some(found) = self.clusters.get_mut(cluster) else {
                return;
            };
            let Some(service) = found.services.get(name) else {
                return;
            };
            let step = found.next_step(service, now);
            match step {
                None => break,
                Some(Step::Start) => {
                    if !self.start_for(cluster, name, now) {
                        break;
                    }
                }
                Some(Step::Stop { task, reason }) => {
                    found.stop(&task, reason, "ServiceSchedulerInitiated", now);
                }
                Some(Step::Retire) => {
                    found.change_service(name, |service| service.status = ServiceStatus::Inactive);
                    break;
                }
            }
        }
        // What was done here was looked at here.
        if let Some(cluster) = self.clusters.get_mut(cluster) {
            cluster.todo.due.remove(name);
        }
    }

    /// Starts one task of a service; false if there is no place for it.
    fn start_for(&mut self, cluster: &str, name: &str, now: Timestamp) -> bool {
        let found = &self.clusters[cluster];
        if found.todo.blocked.contains_key(name) {
            return false;
        }
        let service = &found.services[name];
        let reference = format!("{}:{}", service.family, service.revision);
        let (Ok(definition), Ok(constraints)) = (
            self.definition(&reference).cloned(),
            Constraints::read(&service.constraints),
        ) else {
            return false;
        };
        let purpose = Purpose {
            service: Some(name.to_owned()),
            group: format!("service:{name}"),
            started_by: Some(service.deployment_id.clone()),
        };
        let need = Need::new(&definition, &purpose, constraints);
        match found.place(&need) {
            Ok(instance) => {
                self.start(cluster, &definition, &instance, &purpose, now);
                true
            }
            Err(reason) => {
                let message = format!(
                    "(service {name}) was unable to place a task because no container instance \
                     met all of its requirements. Reason: {reason}."
                );
                if let Some(cluster) = self.clusters.get_mut(cluster) {
                    cluster.todo.blocked.insert(name.to_owned(), need);
                    cluster.pace_service(name, |service| service.note(now, message));
                }
                false
            }
        }
    }
}

impl Cluster {
    fn next_step(&self, service: &Service, now: Timestamp) -> Option<Step> {
        let none = Default::default();
        let share = self.index.share(&service.name).unwrap_or(&none);
        match service.status {
            ServiceStatus::Inactive => return None,
            ServiceStatus::Draining => {
                if let Some(task) = share.live.first() {
                    return Some(stop(task, "Service was deleted"));
                }
                return share.unfinished.is_empty().then_some(Step::Retire);
            }
            ServiceStatus::Active => {}
        }
        let desired = usize::try_from(service.desired).unwrap_or(usize::MAX);
        // PENDING tasks on a draining instance are stopped at once (AWS: container instance
        // draining); of an old deployment too, since they serve nobody.
        if let Some(task) = share.leaving_pending.first() {
            return Some(stop(task, "Task was replaced before it ran"));
        }
        if share.staying() > desired {
            let task = self.excess(service)?;
            return Some(stop(&task.arn, "Scaling activity initiated by service"));
        }
        // The bounds count tasks that are wanted; those that are stopping are not.
        let percent = |of: u32| desired.saturating_mul(usize::try_from(of).unwrap_or(usize::MAX));
        let most = percent(service.maximum_percent) / 100;
        let fewest = percent(service.minimum_healthy_percent).div_ceil(100);
        if let Some(task) = share.leaving_running.first()
            && share.running > fewest
        {
            return Some(stop(
                task,
                "Task was moved: its instance drains or its deployment ended",
            ));
        }
        let may_start = service.start_not_before.is_none_or(|t| t <= now);
        if share.staying() < desired && share.live.len() < most && may_start {
            return Some(Step::Start);
        }
        None
    }

    /// Of too many tasks the one to stop: one that does not run yet, else one on the instance with
    /// the most of them, the newest there.
    fn excess(&self, service: &Service) -> Option<&Task> {
        let share = self.index.share(&service.name)?;
        let staying: Vec<&Task> = share
            .live
            .difference(&share.leaving_running)
            .filter_map(|arn| self.tasks.get(arn))
            .collect();
        let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
        for task in &staying {
            *crowds.entry(&task.instance_arn).or_default() += 1;
        }
        staying.iter().copied().max_by_key(|task| {
            let pending = task.last_status == TaskStatus::Pending;
            (pending, crowds[task.instance_arn.as_str()], task.created_at)
        })
    }

    /// An instance has changed: services for whose next task it now has room are due.
    pub(super) fn wake(&mut self, instance_arn: &str) {
        if self.todo.blocked.is_empty() {
            return;
        }
        let Some(instance) = self.instances.get(instance_arn) else {
            return;
        };
        if !instance.takes_tasks() {
            return;
        }
        let fits = |need: &Need| self.refusal(instance, need).is_none();
        let woken = self.todo.blocked.iter().filter(|(_, need)| fits(need));
        let woken: Vec<String> = woken.map(|(name, _)| name.clone()).collect();
        for name in woken {
            self.todo.blocked.remove(&name);
            self.todo.due.insert(name);
        }
    }

    /// A task of a service has stopped, or runs: services whose tasks never run are slowed.
    pub(super) fn count_start(&mut self, service: &str, ran: bool, now: Timestamp) {
        self.pace_service(service, |service| {
            if ran {
                (service.failures, service.start_not_before) = (0, None);
                return;
            }
            service.failures += 1;
            if service.failures >= 2 {
                let doublings = (service.failures - 2).min(16);
                let delay = (THROTTLE_FIRST * (1 << doublings)).min(THROTTLE_MAX);
                service.start_not_before = Some(now + delay);
            }
        });
    }
}

fn stop(task: &str, reason: &'static str) -> Step {
    Step::Stop {
        task: task.to_owned(),
        reason,
    }
}
