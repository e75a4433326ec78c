//! What is counted over a cluster's container instances and tasks, kept up to date with every
//! change so that nobody has to look through all of them: clusters have thousands.
//!
//! # Invariant
//! The index is what [`Index::of`] counts afresh. It holds as long as every change of an instance,
//! task or service goes through `Cluster::change_…` and `Cluster::add_…`.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use jiff::Timestamp;

use super::{Cluster, ContainerInstance, InstanceStatus, Service, Task, TaskStatus};

/// Counts over one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// By ARN of the container instance.
    loads: BTreeMap<String, Load>,
    /// By name of the service.
    shares: BTreeMap<String, Share>,
    /// Container instances that are not INACTIVE, by EC2 instance id.
    machines: BTreeMap<String, BTreeSet<String>>,
    /// Instances that take tasks, by the number of live tasks.
    open: BTreeSet<(usize, String)>,
    /// Of those the ones with live tasks of a group, by their number and that of the others.
    open_with: BTreeMap<String, BTreeSet<(usize, usize, String)>>,
    /// Connected instances by their last sync.
    pub(super) heard: BTreeSet<(Timestamp, String)>,
    /// Services that are slowed, by the time at which they may start tasks again.
    pub(super) slowed: BTreeSet<(Timestamp, String)>,
    /// Stopped tasks by the time they stopped.
    pub(super) stopped: BTreeSet<(Timestamp, String)>,
    /// Deregistered instances by the time of it.
    pub(super) inactive: BTreeSet<(Timestamp, String)>,
}

/// What is on one container instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// ARNs of all tasks, stopped ones too.
    pub(super) tasks: BTreeSet<String>,
    /// Tasks that are not STOPPED.
    pub(super) unfinished: usize,
    pub(super) running: usize,
    pub(super) pending: usize,
    /// CPU units and MiB of tasks that are not STOPPED.
    pub(super) cpu: i64,
    pub(super) memory: i64,
    live: usize,
    live_by_group: BTreeMap<String, usize>,
}

/// What a service has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Tasks that are not STOPPED.
    pub(super) unfinished: BTreeSet<String>,
    /// Of those the wanted ones.
    pub(super) live: BTreeSet<String>,
    /// Live tasks that run.
    pub(super) running: usize,
    /// Live tasks that have to go, by whether they run.
    pub(super) leaving_pending: BTreeSet<String>,
    pub(super) leaving_running: BTreeSet<String>,
}

impl Load {
    /// Live tasks of a group.
    pub(super) fn of_group(&self, group: &str) -> usize {
        self.live_by_group.get(group).copied().unwrap_or(0)
    }
}

impl Share {
    /// Live tasks that may stay.
    pub(super) fn staying(&self) -> usize {
        self.live.len() - self.leaving_pending.len() - self.leaving_running.len()
    }
}

impl Index {
    /// Counts a cluster afresh.
    #[cfg(test)]
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut index = Self::default();
        for instance in cluster.instances.values() {
            index.add_instance(instance);
        }
        for service in cluster.services.values() {
            index.add_service(service);
        }
        for task in cluster.tasks.values() {
            let instance = cluster.instances.get(&task.instance_arn);
            let service = task.service.as_ref().and_then(|s| cluster.services.get(s));
            index.place(task);
            index.add_task(task, instance, service);
        }
        index
    }

    pub(super) fn load(&self, instance_arn: &str) -> Option<&Load> {
        self.loads.get(instance_arn)
    }

    pub(super) fn share(&self, service: &str) -> Option<&Share> {
        self.shares.get(service)
    }

    /// ARNs of the container instances that a machine is.
    pub(super) fn of_machine(&self, ec2_instance_id: &str) -> impl Iterator<Item = &String> {
        self.machines.get(ec2_instance_id).into_iter().flatten()
    }

    /// The instances that take tasks: those with the fewest live tasks of a group first, among
    /// these the one with the fewest of all.
    pub(super) fn emptiest<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a String> {
        let with = self.open_with.get(group);
        let none_is_without = with.map_or(0, BTreeSet::len) == self.open.len();
        let without = (!none_is_without)
            .then_some(&self.open)
            .into_iter()
            .flatten()
            .map(|(_, arn)| arn)
            .filter(move |arn| self.load(arn).is_none_or(|load| load.of_group(group) == 0));
        let with = with.into_iter().flatten().map(|(_, _, arn)| arn);
        without.chain(with)
    }

    pub(super) fn add_instance(&mut self, instance: &ContainerInstance) {
        let arn = &instance.arn;
        self.loads.entry(arn.clone()).or_default();
        if instance.status != InstanceStatus::Inactive {
            let machine = instance.ec2_instance_id.clone();
            self.machines
                .entry(machine)
                .or_default()
                .insert(arn.clone());
        }
        if instance.connected {
            self.heard.extend(instance.last_sync.zip(Some(arn.clone())));
        }
        self.inactive
            .extend(instance.inactive_at.zip(Some(arn.clone())));
        if instance.takes_tasks() {
            self.open(arn);
        }
    }

    pub(super) fn remove_instance(&mut self, instance: &ContainerInstance) {
        let arn = &instance.arn;
        if let Entry::Occupied(mut machine) = self.machines.entry(instance.ec2_instance_id.clone())
        {
            machine.get_mut().remove(arn);
            if machine.get().is_empty() {
                machine.remove();
            }
        }
        if let Some(heard) = instance.last_sync {
            self.heard.remove(&(heard, arn.clone()));
        }
        if let Some(inactive) = instance.inactive_at {
            self.inactive.remove(&(inactive, arn.clone()));
        }
        if instance.takes_tasks() {
            self.close(arn);
        }
    }

    /// The instance is forgotten, and its tasks before it.
    pub(super) fn forget_instance(&mut self, arn: &str) {
        self.loads.remove(arn);
    }

    pub(super) fn add_service(&mut self, service: &Service) {
        let slowed = service.start_not_before;
        self.slowed.extend(slowed.zip(Some(service.name.clone())));
    }

    pub(super) fn remove_service(&mut self, service: &Service) {
        if let Some(slowed) = service.start_not_before {
            self.slowed.remove(&(slowed, service.name.clone()));
        }
    }

    /// A new task is on its instance from now on.
    pub(super) fn place(&mut self, task: &Task) {
        let load = self.loads.entry(task.instance_arn.clone()).or_default();
        load.tasks.insert(task.arn.clone());
    }

    /// The task is forgotten.
    pub(super) fn forget_task(&mut self, task: &Task) {
        if let Some(load) = self.loads.get_mut(&task.instance_arn) {
            load.tasks.remove(&task.arn);
        }
    }

    /// Counts a task as what it is now.
    pub(super) fn add_task(
        &mut self,
        task: &Task,
        instance: Option<&ContainerInstance>,
        service: Option<&Service>,
    ) {
        let arn = &task.arn;
        self.stopped.extend(task.stopped_at.zip(Some(arn.clone())));
        if task.last_status == TaskStatus::Stopped {
            return;
        }
        let open = instance.is_some_and(ContainerInstance::takes_tasks);
        self.change_load(&task.instance_arn, open, |load| {
            load.unfinished += 1;
            load.running += usize::from(task.last_status == TaskStatus::Running);
            load.pending += usize::from(task.last_status == TaskStatus::Pending);
            load.cpu += task.cpu;
            load.memory += task.memory;
            if task.is_live() {
                load.live += 1;
                *load.live_by_group.entry(task.group.clone()).or_default() += 1;
            }
        });
        let Some(service) = service else {
            return;
        };
        let share = self.shares.entry(service.name.clone()).or_default();
        share.unfinished.insert(arn.clone());
        if task.is_live() {
            share.live.insert(arn.clone());
            let running = task.last_status == TaskStatus::Running;
            share.running += usize::from(running);
            if task.must_leave(instance, service) {
                let leaving = if running {
                    &mut share.leaving_running
                } else {
                    &mut share.leaving_pending
                };
                leaving.insert(arn.clone());
            }
        }
    }

    /// Takes back what [`Index::add_task`] counted; instance and service must be as they were.
    pub(super) fn remove_task(
        &mut self,
        task: &Task,
        instance: Option<&ContainerInstance>,
        service: Option<&Service>,
    ) {
        let arn = &task.arn;
        if let Some(stopped) = task.stopped_at {
            self.stopped.remove(&(stopped, arn.clone()));
        }
        if task.last_status == TaskStatus::Stopped {
            return;
        }
        let open = instance.is_some_and(ContainerInstance::takes_tasks);
        self.change_load(&task.instance_arn, open, |load| {
            load.unfinished -= 1;
            load.running -= usize::from(task.last_status == TaskStatus::Running);
            load.pending -= usize::from(task.last_status == TaskStatus::Pending);
            load.cpu -= task.cpu;
            load.memory -= task.memory;
            if task.is_live() {
                load.live -= 1;
                if let Entry::Occupied(mut count) = load.live_by_group.entry(task.group.clone()) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        });
        let Some(service) = service else {
            return;
        };
        if let Entry::Occupied(mut entry) = self.shares.entry(service.name.clone()) {
            let share = entry.get_mut();
            share.unfinished.remove(arn);
            share.live.remove(arn);
            share.leaving_pending.remove(arn);
            share.leaving_running.remove(arn);
            let ran = task.is_live() && task.last_status == TaskStatus::Running;
            share.running -= usize::from(ran);
            if share.unfinished.is_empty() {
                entry.remove();
            }
        }
    }

    /// Changes a load; that of an instance which takes tasks also moves in the order of these.
    fn change_load(&mut self, arn: &str, open: bool, change: impl FnOnce(&mut Load)) {
        if open {
            self.close(arn);
        }
        change(self.loads.entry(arn.to_owned()).or_default());
        if open {
            self.open(arn);
        }
    }

    fn open(&mut self, arn: &str) {
        let Some(load) = self.loads.get(arn) else {
            return;
        };
        self.open.insert((load.live, arn.to_owned()));
        for (group, ours) in &load.live_by_group {
            let with = self.open_with.entry(group.clone()).or_default();
            with.insert((*ours, load.live - ours, arn.to_owned()));
        }
    }

    fn close(&mut self, arn: &str) {
        let Some(load) = self.loads.get(arn) else {
            return;
        };
        self.open.remove(&(load.live, arn.to_owned()));
        for (group, ours) in &load.live_by_group {
            if let Entry::Occupied(mut with) = self.open_with.entry(group.clone()) {
                let place = (*ours, load.live - ours, arn.to_owned());
                with.get_mut().remove(&place);
                if with.get().is_empty() {
                    with.remove();
                }
            }
        }
    }
}

/// The only ways in which instances, tasks and services change.
impl Cluster {
    pub(super) fn add_instance(&mut self, instance: ContainerInstance) {
        self.index.add_instance(&instance);
        self.instances.insert(instance.arn.clone(), instance);
    }

    /// `None` if there is no such instance.
    pub(super) fn change_instance<T>(
        &mut self,
        arn: &str,
        change: impl FnOnce(&mut ContainerInstance) -> T,
    ) -> Option<T> {
        let instance = self.instances.get_mut(arn)?;
        let load = self.index.loads.get(arn);
        let tasks: Vec<&Task> = load
            .into_iter()
            .flat_map(|load| &load.tasks)
            .filter_map(|task| self.tasks.get(task))
            .collect();
        let service_of = |task: &Task| self.services.get(task.service.as_ref()?);
        for task in &tasks {
            self.index
                .remove_task(task, Some(instance), service_of(task));
        }
        self.index.remove_instance(instance);
        let result = change(instance);
        self.index.add_instance(instance);
        for task in &tasks {
            self.index.add_task(task, Some(instance), service_of(task));
            self.todo.due.extend(task.service.clone());
        }
        self.wake(arn);
        Some(result)
    }

    /// A sync of a connected instance changes nothing but this.
    pub(super) fn hear(&mut self, arn: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(arn) {
            if let Some(before) = instance.last_sync.replace(now) {
                self.index.heard.remove(&(before, arn.to_owned()));
            }
            self.index.heard.insert((now, arn.to_owned()));
        }
    }

    pub(super) fn forget_instance(&mut self, arn: &str) {
        if let Some(instance) = self.instances.remove(arn) {
            self.index.remove_instance(&instance);
            self.index.forget_instance(arn);
        }
    }

    pub(super) fn add_task(&mut self, task: Task) {
        let instance = self.instances.get(&task.instance_arn);
        let service = task.service.as_ref().and_then(|s| self.services.get(s));
        self.index.place(&task);
        self.index.add_task(&task, instance, service);
        self.todo.due.extend(task.service.clone());
        self.tasks.insert(task.arn.clone(), task);
    }

    /// `None` if there is no such task.
    pub(super) fn change_task<T>(
        &mut self,
        arn: &str,
        change: impl FnOnce(&mut Task) -> T,
    ) -> Option<T> {
        let task = self.tasks.get_mut(arn)?;
        let instance = self.instances.get(&task.instance_arn);
        let service = task.service.as_ref().and_then(|s| self.services.get(s));
        self.index.remove_task(task, instance, service);
        let result = change(task);
        self.index.add_task(task, instance, service);
        self.todo.due.extend(task.service.clone());
        let instance_arn = task.instance_arn.clone();
        self.wake(&instance_arn);
        Some(result)
    }

    pub(super) fn forget_task(&mut self, arn: &str) {
        if let Some(task) = self.tasks.remove(arn) {
            let instance = self.instances.get(&task.instance_arn);
            let service = task.service.as_ref().and_then(|s| self.services.get(s));
            self.index.remove_task(&task, instance, service);
            self.index.forget_task(&task);
        }
    }

    pub(super) fn add_service(&mut self, service: Service) {
        let name = service.name.clone();
        if let Some(before) = self.services.insert(name.clone(), service) {
            self.index.remove_service(&before);
        }
        if let Some(service) = self.services.get(&name) {
            self.index.add_service(service);
        }
        self.todo.due.insert(name);
    }

    /// `None` if there is no such service.
    pub(super) fn change_service<T>(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Service) -> T,
    ) -> Option<T> {
        let service = self.services.get_mut(name)?;
        let share = self.index.shares.get(name);
        let tasks: Vec<&Task> = share
            .into_iter()
            .flat_map(|share| &share.unfinished)
            .filter_map(|task| self.tasks.get(task))
            .collect();
        for task in &tasks {
            let instance = self.instances.get(&task.instance_arn);
            self.index.remove_task(task, instance, Some(service));
        }
        self.index.remove_service(service);
        let result = change(service);
        self.index.add_service(service);
        for task in &tasks {
            let instance = self.instances.get(&task.instance_arn);
            self.index.add_task(task, instance, Some(service));
        }
        self.todo.blocked.remove(name);
        self.todo.due.insert(name.to_owned());
        Some(result)
    }

    /// As [`Cluster::change_service`], for what says nothing about its tasks.
    pub(super) fn pace_service(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        if let Some(service) = self.services.get_mut(name) {
            self.index.remove_service(service);
            change(service);
            self.index.add_service(service);
            self.todo.due.insert(name.to_owned());
        }
    }
}

impl ContainerInstance {
    /// Whether placement may choose it.
    pub(super) fn takes_tasks(&self) -> bool {
        self.status == InstanceStatus::Active && self.connected
    }
}

impl Task {
    /// Whether its service wants it elsewhere: its instance drains or its deployment ended.
    pub(super) fn must_leave(
        &self,
        instance: Option<&ContainerInstance>,
        service: &Service,
    ) -> bool {
        let draining = instance.is_none_or(|i| i.status != InstanceStatus::Active);
        let outdated = (&self.family, self.revision) != (&service.family, service.revision);
        draining || outdated
    }
}
