//! Bringing a group to its desired capacity: what to launch, what to terminate.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Effect, LaunchOrder, Model, at,
    group::{Group, PendingLaunch, Subnet, Template},
    instances::{Instance, LifecycleState},
    lifecycle::Hooks,
};

/// After a second launch in a row has failed, and twice as long after each further one. AWS backs
/// off too, without saying by how much.
const BACK_OFF_FIRST: SignedDuration = SignedDuration::from_secs(5);
const BACK_OFF_MAX: SignedDuration = SignedDuration::from_mins(5);

impl Model {
    /// Launches and terminates until the group has its desired capacity, as far as protection and
    /// back-off let it; removes a group whose deletion is complete.
    pub(super) fn reconcile(&mut self, name: &str, now: Timestamp) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if group.launch_not_before.is_some_and(|t| t <= now) {
            group.launch_not_before = None;
        }
        if group.deleting {
            return self.empty(name, now);
        }
        let desired = usize::try_from(group.desired).unwrap_or(usize::MAX);
        let capacity = group.capacity();
        if capacity < desired && group.launch_not_before.is_none() {
            for number in capacity..desired {
                self.launch(name, number, now);
            }
        } else if capacity > desired {
            for number in (desired..capacity).rev() {
                self.scale_in(name, number, now);
            }
        }
    }

    fn launch(&mut self, name: &str, before: usize, now: Timestamp) {
        let (launch_id, activity_id) = (self.context.ids.uuid(), self.context.ids.uuid());
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(subnet) = group.emptiest_subnet().cloned() else {
            return;
        };
        let cause = format!(
            "{}  {} an instance was started in response to a difference between desired and \
             actual capacity, increasing the capacity from {before} to {}.",
            group.cause,
            at(now),
            before + 1
        );
        let activity = group.begin_activity(
            activity_id,
            "Launching a new EC2 instance".to_owned(),
            cause,
            "PreInService",
            now,
        );
        group.launching.insert(
            launch_id.clone(),
            PendingLaunch {
                activity,
                availability_zone: subnet.availability_zone.clone(),
            },
        );
        let instance_type = match &group.template {
            Template::One(_) => None,
            Template::Mixed(policy) => policy
                .launch_template
                .overrides
                .first()
                .and_then(|o| o.instance_type.clone()),
        };
        let tags = group.tags.iter().filter(|(_, tag)| tag.propagate);
        let order = LaunchOrder {
            launch_id,
            group: name.to_owned(),
            template: group.template.spec().clone(),
            instance_type,
            subnet,
            tags: tags
                .map(|(k, tag)| (k.clone(), tag.value.clone()))
                .collect(),
        };
        self.context.effects.push(Effect::Launch(order));
    }

    fn scale_in(&mut self, name: &str, after: usize, now: Timestamp) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        let Some(id) = group.first_to_go().map(|i| i.id.clone()) else {
            return;
        };
        let cause = format!(
            "{}  {} an instance was taken out of service in response to a difference between \
             desired and actual capacity, shrinking the capacity from {} to {after}.  {} instance \
             {id} was selected for termination.",
            group.cause,
            at(now),
            after + 1,
            at(now)
        );
        self.begin_terminating(name, &id, cause, Hooks::Run, now);
    }

    fn empty(&mut self, name: &str, now: Timestamp) {
        let Some(group) = self.groups.get(name) else {
            return;
        };
        let instances: Vec<(String, LifecycleState)> = group
            .instances
            .iter()
            .map(|i| (i.id.clone(), i.state))
            .collect();
        for (id, state) in instances {
            match state {
                LifecycleState::Pending
                | LifecycleState::PendingWait
                | LifecycleState::InService => {
                    let cause = format!("{} the group was deleted by force.", at(now));
                    self.begin_terminating(name, &id, cause, Hooks::Skip, now);
                }
                LifecycleState::Terminating | LifecycleState::TerminatingWait => {
                    self.rush_terminating(name, &id, now);
                }
                LifecycleState::TerminatingProceed => {}
            }
        }
        if self
            .groups
            .get(name)
            .is_some_and(|g| g.instances.is_empty() && g.launching.is_empty())
        {
            self.groups.remove(name);
        }
    }
}

impl Group {
    /// A launch has failed: the second in a row and all after it delay the next.
    pub(super) fn count_launch_failure(&mut self, now: Timestamp) {
        self.launch_failures += 1;
        if self.launch_failures >= 2 {
            let doublings = (self.launch_failures - 2).min(16);
            let delay = (BACK_OFF_FIRST * (1 << doublings)).min(BACK_OFF_MAX);
            self.launch_not_before = Some(now + delay);
        }
    }

    /// A launch has succeeded, or the template has changed.
    pub(super) fn forget_launch_failures(&mut self) {
        self.launch_failures = 0;
        self.launch_not_before = None;
    }

    /// The first subnet in the zone with the fewest instances.
    fn emptiest_subnet(&self) -> Option<&Subnet> {
        let zones = self.instances_by_zone();
        let count = |subnet: &Subnet| zones.get(subnet.availability_zone.as_str()).copied();
        self.subnets.iter().min_by_key(|s| count(s).unwrap_or(0))
    }

    fn instances_by_zone(&self) -> BTreeMap<&str, usize> {
        let standing = self
            .instances
            .iter()
            .filter(|i| !i.state.is_terminating())
            .map(|i| i.availability_zone.as_str());
        let launching = self
            .launching
            .values()
            .map(|l| l.availability_zone.as_str());
        let mut zones = BTreeMap::new();
        for zone in standing.chain(launching) {
            *zones.entry(zone).or_default() += 1;
        }
        zones
    }

    /// What scale-in takes: never a protected instance, never one that is still launching. By
    /// default from the fullest zone, there the oldest template version, then the oldest instance.
    fn first_to_go(&self) -> Option<&Instance> {
        let candidates = self
            .instances
            .iter()
            .filter(|i| i.state == LifecycleState::InService && !i.protected);
        let policy = self.stored.termination_policies.first();
        match policy.map(String::as_str) {
            Some("NewestInstance") => candidates.max_by_key(|i| i.launched),
            Some("OldestInstance") => candidates.min_by_key(|i| i.launched),
            _ => {
                let zones = self.instances_by_zone();
                candidates.min_by_key(|i| {
                    let zone = zones.get(i.availability_zone.as_str()).copied();
                    let version = i.template.version.as_deref().map(str::parse::<u64>);
                    (
                        std::cmp::Reverse(zone),
                        version.and_then(Result::ok),
                        i.launched,
                    )
                })
            }
        }
    }
}
