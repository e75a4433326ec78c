//! The instances of a group and the launches that have none yet, with what is counted over them:
//! groups have thousands, and every report asks for the counts and the next deadline.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::instances::Instance;

/// Every instance that is not gone yet, oldest first. Changed only through `Roster::change`.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    by_age: BTreeMap<u64, Instance>,
    ages: BTreeMap<String, u64>,
    next_age: u64,
    launches: BTreeMap<String, PendingLaunch>,
    deadlines: BTreeSet<(Timestamp, String)>,
    capacity: usize,
    pooled: usize,
    /// What counts towards capacity or is in the warm pool, by Availability Zone.
    zones: BTreeMap<String, usize>,
}

/// A launch that has no instance id yet.
#[derive(Debug, Clone)]
pub(super) struct PendingLaunch {
    pub(super) activity: String,
    pub(super) availability_zone: String,
    /// For the warm pool.
    pub(super) warm: bool,
    pub(super) spot: bool,
}

/// What an instance or a launch counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Capacity,
    Pool,
    Neither,
}

impl Roster {
    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.by_age.values()
    }

    /// The instance with this EC2 instance id.
    pub fn get(&self, id: &str) -> Option<&Instance> {
        self.by_age.get(self.ages.get(id)?)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Instances and launches that count towards the desired capacity.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Instances and launches in the warm pool or on their way into it.
    pub fn pooled(&self) -> usize {
        self.pooled
    }

    /// Of those in [`Roster::capacity`]. Counted on demand: few groups ask.
    pub(super) fn on_demand(&self) -> usize {
        let instances = self.iter().filter(|one| !one.spot && one.state.counts());
        let launches = self.launches.values();
        instances.count() + launches.filter(|one| !one.spot && !one.warm).count()
    }

    pub(super) fn add(&mut self, instance: Instance) {
        self.count_in(&instance);
        self.ages.insert(instance.id.clone(), self.next_age);
        self.by_age.insert(self.next_age, instance);
        self.next_age += 1;
    }

    /// `None` if there is no such instance.
    pub(super) fn change<T>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Instance) -> T,
    ) -> Option<T> {
        let age = *self.ages.get(id)?;
        let mut instance = self.by_age.remove(&age)?;
        self.count_out(&instance);
        let result = change(&mut instance);
        self.count_in(&instance);
        self.by_age.insert(age, instance);
        Some(result)
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Instance> {
        let age = self.ages.remove(id)?;
        let instance = self.by_age.remove(&age)?;
        self.count_out(&instance);
        Some(instance)
    }

    pub(super) fn add_launch(&mut self, id: String, launch: PendingLaunch) {
        self.tally(launch.place(), &launch.availability_zone, true);
        self.launches.insert(id, launch);
    }

    pub(super) fn remove_launch(&mut self, id: &str) -> Option<PendingLaunch> {
        let launch = self.launches.remove(id)?;
        self.tally(launch.place(), &launch.availability_zone, false);
        Some(launch)
    }

    pub(super) fn is_launching(&self) -> bool {
        !self.launches.is_empty()
    }

    pub(super) fn in_zone(&self, availability_zone: &str) -> usize {
        self.zones.get(availability_zone).copied().unwrap_or(0)
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Ids of the instances whose deadline has come.
    pub(super) fn due(&self, now: Timestamp) -> Vec<String> {
        let due = self.deadlines.iter().take_while(|(time, _)| *time <= now);
        due.map(|(_, id)| id.clone()).collect()
    }

    fn count_in(&mut self, instance: &Instance) {
        let deadline = instance.deadline();
        self.deadlines
            .extend(deadline.zip(Some(instance.id.clone())));
        self.tally(Place::of(instance), &instance.availability_zone, true);
    }

    fn count_out(&mut self, instance: &Instance) {
        if let Some(deadline) = instance.deadline() {
            self.deadlines.remove(&(deadline, instance.id.clone()));
        }
        self.tally(Place::of(instance), &instance.availability_zone, false);
    }

    fn tally(&mut self, place: Place, availability_zone: &str, more: bool) {
        let count = |count: &mut usize| *count = if more { *count + 1 } else { *count - 1 };
        match place {
            Place::Capacity => count(&mut self.capacity),
            Place::Pool => count(&mut self.pooled),
            Place::Neither => return,
        }
        count(self.zones.entry(availability_zone.to_owned()).or_default());
    }
}

impl Place {
    fn of(instance: &Instance) -> Self {
        if instance.state.counts() {
            Self::Capacity
        } else if instance.state.is_pooled() {
            Self::Pool
        } else {
            Self::Neither
        }
    }
}

impl PendingLaunch {
    fn place(&self) -> Place {
        if self.warm {
            Place::Pool
        } else {
            Place::Capacity
        }
    }
}

impl Instance {
    /// When something happens to it if nobody does anything.
    fn deadline(&self) -> Option<Timestamp> {
        let actions = self.actions.iter().map(|action| action.deadline);
        actions.chain(self.hooks_open_at).min()
    }
}
