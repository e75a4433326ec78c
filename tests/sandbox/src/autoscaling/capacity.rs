//! Bringing a group to its desired capacity: what to launch, what to terminate.

use jiff::{SignedDuration, Timestamp};

use super::{
    Effect, LaunchOrder, Model, at,
    group::{Group, Subnet, Template},
    instances::{Instance, LifecycleState},
    lifecycle::Hooks,
    roster::PendingLaunch,
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
        let mut capacity = group.capacity();
        let may_launch = group.launch_not_before.is_none();
        while capacity < desired && self.take_from_pool(name, capacity, now) {
            capacity += 1;
        }
        if capacity < desired && may_launch {
            for number in capacity..desired {
                self.launch(name, number, now);
            }
        } else if capacity > desired {
            for number in (desired..capacity).rev() {
                self.scale_in(name, number, now);
            }
        }
        self.reconcile_pool(name, now);
    }

    fn launch(&mut self, name: &str, before: usize, now: Timestamp) {
        let cause = format!(
            "{} an instance was started in response to a difference between desired and actual \
             capacity, increasing the capacity from {before} to {}.",
            at(now),
            before + 1
        );
        self.order_launch(name, &cause, false, now);
    }

    pub(super) fn launch_warm(&mut self, name: &str, now: Timestamp) {
        let cause = format!(
            "{} an instance was started in response to a difference between the wanted and the \
             actual size of the warm pool.",
            at(now)
        );
        self.order_launch(name, &cause, true, now);
    }

    fn order_launch(&mut self, name: &str, why: &str, warm: bool, now: Timestamp) {
        let (launch_id, activity_id) = (self.context.ids.uuid(), self.context.ids.uuid());
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let Some(subnet) = group.emptiest_subnet().cloned() else {
            return;
        };
        let spot = !warm && group.next_is_spot();
        let cause = format!("{}  {why}", group.cause);
        let activity = group.begin_activity(
            activity_id,
            "Launching a new EC2 instance".to_owned(),
            cause,
            "PreInService",
            now,
        );
        group.instances.add_launch(
            launch_id.clone(),
            PendingLaunch {
                activity,
                availability_zone: subnet.availability_zone.clone(),
                warm,
                spot,
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
            spot,
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
            let goes = [
                LifecycleState::TerminatingProceed,
                LifecycleState::WarmedTerminatingProceed,
            ];
            if !state.is_terminating() {
                let cause = format!("{} the group was deleted by force.", at(now));
                self.begin_terminating(name, &id, cause, Hooks::Skip, now);
            } else if !goes.contains(&state) {
                self.rush_terminating(name, &id, now);
            }
        }
        if self
            .groups
            .get(name)
            .is_some_and(|g| g.instances.is_empty() && !g.instances.is_launching())
        {
            self.groups.remove(name);
        }
    }
}

impl Group {
    /// The base is on demand, and of what is beyond it a share, rounded up (Auto Scaling guide, "Mixed
    /// instances groups").
    fn next_is_spot(&self) -> bool {
        if !self.template.may_use_spot() {
            return false;
        }
        let (base, percent) = self.template.on_demand();
        let all = self.instances.capacity() + 1;
        let beyond = all.saturating_sub(base);
        let on_demand = base.min(all) + (beyond * percent).div_ceil(100);
        self.instances.on_demand() >= on_demand
    }

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
        let count = |subnet: &&Subnet| self.instances.in_zone(&subnet.availability_zone);
        self.subnets.iter().min_by_key(count)
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
            _ => candidates.min_by_key(|i| {
                let zone = self.instances.in_zone(&i.availability_zone);
                let version = i.template.version.as_deref().map(str::parse::<u64>);
                (
                    std::cmp::Reverse(zone),
                    version.and_then(Result::ok),
                    i.launched,
                )
            }),
        }
    }
}
