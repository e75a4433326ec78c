//! The service scheduler: keeps each service's tasks running, and moves them off what is draining.

use jiff::{SignedDuration, Timestamp};

use super::{
    Cluster, InstanceStatus, Model, Service, ServiceStatus, Task, TaskStatus,
    tasks::{Constraints, Purpose},
};

/// Delay after a second task in a row stopped before it ran, and twice as long after each further
/// one. AWS throttles such services too, without saying by how much.
const THROTTLE_FIRST: SignedDuration = SignedDuration::from_secs(1);
const THROTTLE_MAX: SignedDuration = SignedDuration::from_mins(5);

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
        let Some(found) = self.clusters.get(cluster) else {
            return;
        };
        let names: Vec<String> = found.services.keys().cloned().collect();
        for name in names {
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
            match found.next_step(service, now) {
                None => return,
                Some(Step::Start) => {
                    if !self.start_for(cluster, name, now) {
                        return;
                    }
                }
                Some(Step::Stop { task, reason }) => {
                    found.stop(&task, reason, "ServiceSchedulerInitiated", now);
                }
                Some(Step::Retire) => {
                    if let Some(service) = found.services.get_mut(name) {
                        service.status = ServiceStatus::Inactive;
                    }
                    return;
                }
            }
        }
    }

    /// Starts one task of a service; false if there is no place for it.
    fn start_for(&mut self, cluster: &str, name: &str, now: Timestamp) -> bool {
        let service = &self.clusters[cluster].services[name];
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
        match self.clusters[cluster].place(&definition, &purpose.group, &constraints) {
            Ok(instance) => {
                self.start(cluster, &definition, &instance, &purpose, now);
                true
            }
            Err(reason) => {
                let message = format!(
                    "(service {name}) was unable to place a task because no container instance \
                     met all of its requirements. Reason: {reason}."
                );
                let service = self.clusters.get_mut(cluster);
                if let Some(service) = service.and_then(|c| c.services.get_mut(name)) {
                    service.note(now, message);
                }
                false
            }
        }
    }
}

impl Cluster {
    fn next_step(&self, service: &Service, now: Timestamp) -> Option<Step> {
        let all: Vec<&Task> = self
            .tasks
            .values()
            .filter(|t| t.service.as_ref() == Some(&service.name))
            .collect();
        let live: Vec<&Task> = all.iter().copied().filter(|t| t.is_live()).collect();
        match service.status {
            ServiceStatus::Inactive => return None,
            ServiceStatus::Draining => {
                if let Some(task) = live.first() {
                    return Some(stop(task, "Service was deleted"));
                }
                let over = all.iter().all(|t| t.last_status == TaskStatus::Stopped);
                return over.then_some(Step::Retire);
            }
            ServiceStatus::Active => {}
        }
        let desired = usize::try_from(service.desired).unwrap_or(usize::MAX);
        let (leaving, staying): (Vec<&Task>, Vec<&Task>) = live
            .iter()
            .copied()
            .partition(|task| self.must_leave(service, task));
        // PENDING tasks on a draining instance are stopped at once (AWS: container instance
        // draining); of an old deployment too, since they serve nobody.
        if let Some(task) = leaving
            .iter()
            .find(|t| t.last_status == TaskStatus::Pending)
        {
            return Some(stop(task, "Task was replaced before it ran"));
        }
        if staying.len() > desired {
            let task = self.excess(&staying)?;
            return Some(stop(task, "Scaling activity initiated by service"));
        }
        // The bounds count tasks that are wanted; those that are stopping are not.
        let percent = |of: u32| desired.saturating_mul(usize::try_from(of).unwrap_or(usize::MAX));
        let most = percent(service.maximum_percent) / 100;
        let fewest = percent(service.minimum_healthy_percent).div_ceil(100);
        let running = live.iter().filter(|t| t.last_status == TaskStatus::Running);
        if let Some(task) = leaving.first()
            && running.count() > fewest
        {
            return Some(stop(
                task,
                "Task was moved: its instance drains or its deployment ended",
            ));
        }
        let may_start = service.start_not_before.is_none_or(|t| t <= now);
        if staying.len() < desired && live.len() < most && may_start {
            return Some(Step::Start);
        }
        None
    }

    fn must_leave(&self, service: &Service, task: &Task) -> bool {
        let draining = self
            .instances
            .get(&task.instance_arn)
            .is_none_or(|i| i.status != InstanceStatus::Active);
        let outdated = (&task.family, task.revision) != (&service.family, service.revision);
        draining || outdated
    }

    /// Of too many tasks the one to stop: one that does not run yet, else one on the instance with
    /// the most of them, the newest there.
    fn excess<'a>(&self, tasks: &[&'a Task]) -> Option<&'a Task> {
        let crowd = |task: &Task| {
            let same = tasks.iter().filter(|t| t.instance_arn == task.instance_arn);
            same.count()
        };
        tasks.iter().copied().max_by_key(|task| {
            let pending = task.last_status == TaskStatus::Pending;
            (pending, crowd(task), task.created_at)
        })
    }
}

impl Service {
    /// A task of this service has stopped, or runs: services whose tasks never run are slowed.
    pub(super) fn count(&mut self, ran: bool, now: Timestamp) {
        if ran {
            (self.failures, self.start_not_before) = (0, None);
            return;
        }
        self.failures += 1;
        if self.failures >= 2 {
            let doublings = (self.failures - 2).min(16);
            let delay = (THROTTLE_FIRST * (1 << doublings)).min(THROTTLE_MAX);
            self.start_not_before = Some(now + delay);
        }
    }
}

fn stop(task: &Task, reason: &'static str) -> Step {
    Step::Stop {
        task: task.arn.clone(),
        reason,
    }
}
