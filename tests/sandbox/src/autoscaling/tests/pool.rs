//! Warm pools, standby, detaching.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A group and machines that are powered on and off as it asks.
struct Pool {
    bench: Bench,
    on: BTreeSet<String>,
}

impl Pool {
    /// A group of at most four with a pool, not yet filled.
    fn new(state: &str, change: impl FnOnce(&mut PutWarmPool)) -> Self {
        let mut pool = Self {
            bench: Bench::new(|_| ()),
            on: BTreeSet::new(),
        };
        pool.put(state, change).unwrap();
        pool
    }

    fn put(&mut self, state: &str, change: impl FnOnce(&mut PutWarmPool)) -> Result<(), ApiError> {
        let mut request = PutWarmPool {
            auto_scaling_group_name: GROUP.into(),
            pool_state: Some(state.into()),
            ..PutWarmPool::default()
        };
        change(&mut request);
        self.bench.model.put_warm_pool(&request, self.bench.now)
    }

    fn delete(&mut self, force: bool) -> Result<(), ApiError> {
        let request = DeleteWarmPool {
            auto_scaling_group_name: GROUP.into(),
            force_delete: Some(force),
        };
        self.bench.model.delete_warm_pool(&request, self.bench.now)
    }

    /// Carries out what is asked of EC2; whether there was anything.
    fn work(&mut self) -> bool {
        let effects = self.bench.model.take_effects();
        let any = !effects.is_empty();
        let now = self.bench.now;
        for effect in effects {
            match effect {
                Effect::Launch(order) => {
                    self.bench.machines += 1;
                    let id = format!("i-{}", self.bench.machines);
                    let launched = Launched {
                        instance_id: id.clone(),
                        instance_type: "t3.micro".into(),
                        image_id: "ami-1".into(),
                        template: order.template,
                    };
                    self.bench.model.launched(&order.launch_id, launched, now);
                    self.on.insert(id.clone());
                    self.bench.model.machine_started(&id, now);
                }
                Effect::Start { instance_id } => {
                    self.on.insert(instance_id.clone());
                    self.bench.model.machine_started(&instance_id, now);
                }
                Effect::Stop { instance_id } => {
                    // One that has died in between has been reported as gone.
                    if self.on.remove(&instance_id) {
                        let state = self.bench.state(&instance_id);
                        let wanted = self.bench.model.machine_stopped(&instance_id, now);
                        let terminating = state.is_none_or(LifecycleState::is_terminating);
                        assert!(wanted || terminating, "{state:?}");
                    }
                }
                Effect::Terminate { instance_id } => {
                    self.on.remove(&instance_id);
                    self.bench.model.machine_gone(&instance_id, now);
                }
            }
        }
        any
    }

    fn settle(&mut self) {
        while self.work() {}
    }

    fn states(&self) -> Vec<&'static str> {
        let instances = self.bench.group().instances.iter();
        instances.map(|i| i.state.as_str()).collect()
    }

    fn target(&self, id: &str) -> Option<&'static str> {
        self.bench.model.target_lifecycle_state(id)
    }

    fn in_xml(&self) -> String {
        let request = DescribeWarmPool {
            auto_scaling_group_name: GROUP.into(),
            ..DescribeWarmPool::default()
        };
        let reply = self.bench.model.describe_warm_pool(&request).unwrap();
        quick_xml::se::to_string_with_root("R", &reply).unwrap()
    }
}

#[test]
fn hooks_run_on_the_way_into_the_pool_and_again_out_of_it() {
    let mut pool = Pool::new("Stopped", |r| r.max_group_prepared_capacity = Some(1));
    pool.bench.hook("launch", "LAUNCHING", "ABANDON");
    pool.settle();
    assert_eq!(pool.states(), ["Warmed:Pending:Wait"]);
    assert_eq!(pool.target("i-1"), Some("Warmed:Stopped"));
    assert_eq!(pool.bench.group().capacity(), 0);
    pool.bench.complete("launch", "i-1", "CONTINUE").unwrap();
    assert_eq!(pool.states(), ["Warmed:Pending:Proceed"]);
    pool.settle();
    assert_eq!(pool.states(), ["Warmed:Stopped"]);
    assert!(pool.on.is_empty());

    pool.bench.desire(1).unwrap();
    assert_eq!(pool.states(), ["Pending"], "taken from the pool");
    assert_eq!(pool.target("i-1"), Some("InService"));
    pool.settle();
    assert_eq!(pool.states(), ["Pending:Wait"]);
    pool.bench.complete("launch", "i-1", "CONTINUE").unwrap();
    assert_eq!(pool.states(), ["InService"]);
    assert!(pool.on.contains("i-1"));
    assert!(!pool.work(), "the pool may have none beside it");
}

#[test]
fn a_running_pool_stops_nothing() {
    let mut pool = Pool::new("Running", |r| r.min_size = Some(1));
    pool.put("Running", |r| r.max_group_prepared_capacity = Some(0))
        .unwrap();
    pool.settle();
    let resting = |pool: &Pool| {
        let states = pool.states();
        states.iter().filter(|s| **s == "Warmed:Running").count()
    };
    assert_eq!(resting(&pool), 1, "at least its minimum");
    assert_eq!(pool.target("i-1"), Some("Warmed:Running"));
    pool.bench.desire(1).unwrap();
    assert_eq!(pool.bench.state("i-1"), Some(LifecycleState::InService));
    pool.settle();
    assert_eq!(resting(&pool), 1, "and is filled again");
    assert_eq!(pool.on.len(), 2);
}

#[test]
fn the_pool_is_as_large_as_the_maximum_leaves() {
    let mut pool = Pool::new("Stopped", |_| ());
    pool.settle();
    assert_eq!(pool.states(), ["Warmed:Stopped"; 4]);
    pool.bench.desire(3).unwrap();
    pool.settle();
    let mut states = pool.states();
    states.sort_unstable();
    assert_eq!(
        states,
        ["InService", "InService", "InService", "Warmed:Stopped"]
    );
    let xml = pool.in_xml();
    assert!(xml.contains("<PoolState>Stopped</PoolState>"), "{xml}");
    assert_eq!(xml.matches("<LifecycleState>Warmed:Stopped<").count(), 1);
    let all = pool.bench.model.describe_groups(&DescribeGroups::default());
    let all = quick_xml::se::to_string_with_root("R", &all.unwrap()).unwrap();
    assert!(all.contains("<WarmPoolSize>1</WarmPoolSize>"), "{all}");
    assert!(!all.contains("Warmed:Stopped"));
    let each = DescribeInstances::default();
    let each = pool.bench.model.describe_instances(&each).unwrap();
    let each = quick_xml::se::to_string_with_root("R", &each).unwrap();
    assert!(each.contains("Warmed:Stopped"));
    pool.bench.desire(1).unwrap();
    pool.settle();
    assert_eq!(pool.bench.group().instances.pooled(), 3);
}

#[test]
fn termination_from_the_pool_waits_for_its_hooks() {
    let mut pool = Pool::new("Stopped", |r| r.max_group_prepared_capacity = Some(1));
    pool.bench.hook("drain", "TERMINATING", "CONTINUE");
    pool.settle();
    let refused = pool.bench.terminate("i-1", true).unwrap_err();
    assert!(refused.message.contains("does not count"), "{refused}");
    pool.bench.terminate("i-1", false).unwrap();
    assert_eq!(pool.target("i-1"), Some("Warmed:Terminated"));
    assert_eq!(
        pool.bench.state("i-1"),
        Some(LifecycleState::WarmedTerminatingWait)
    );
    pool.settle();
    assert_eq!(pool.states(), ["Warmed:Terminating:Wait", "Warmed:Stopped"]);
    pool.bench.wait(60);
    pool.settle();
    assert_eq!(pool.bench.state("i-1"), None);
}

#[test]
fn a_node_that_abandons_its_way_into_the_pool_is_terminated() {
    let mut pool = Pool::new("Stopped", |r| r.max_group_prepared_capacity = Some(1));
    pool.bench.hook("launch", "LAUNCHING", "ABANDON");
    pool.settle();
    pool.bench.complete("launch", "i-1", "ABANDON").unwrap();
    assert_eq!(pool.target("i-1"), Some("Warmed:Terminated"));
    pool.settle();
    assert_eq!(pool.bench.state("i-1"), None);
    assert_eq!(pool.states(), ["Warmed:Pending:Wait"], "another one");
}

#[test]
fn a_pool_is_deleted_with_its_instances() {
    let mut pool = Pool::new("Hibernated", |r| r.max_group_prepared_capacity = Some(2));
    pool.bench.hook("drain", "TERMINATING", "CONTINUE");
    pool.settle();
    assert_eq!(pool.states(), ["Warmed:Hibernated"; 2]);
    pool.delete(false).unwrap();
    assert_eq!(pool.states(), ["Warmed:Terminating:Wait"; 2]);
    assert!(pool.in_xml().contains("<Status>PendingDelete</Status>"));
    let code = pool.put("Stopped", |_| ()).unwrap_err().code;
    assert_eq!(code, "ScalingActivityInProgress");
    pool.delete(true).unwrap();
    pool.settle();
    assert!(pool.states().is_empty());
    assert!(pool.bench.group().warm_pool.is_none());
    assert_eq!(pool.delete(false).unwrap_err().code, "ValidationError");
}

#[test]
fn pools_that_ecs_or_auto_scaling_cannot_have_are_refused() {
    let mut pool = Pool::new("Stopped", |_| ());
    let refused = pool.put("Stopped", |r| {
        r.instance_reuse_policy = Some(InstanceReusePolicy {
            reuse_on_scale_in: Some(true),
        });
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, "ValidationError");
    assert!(refused.message.contains("ReuseOnScaleIn"));
    assert!(pool.put("Asleep", |_| ()).is_err());
    let size = pool.put("Stopped", |r| r.max_group_prepared_capacity = Some(-2));
    assert!(size.is_err());
    let mut spot = Bench::new(|r| {
        let template = r.launch_template.take().unwrap();
        let mut policy = MixedInstancesPolicy::default();
        policy.launch_template.launch_template_specification = template;
        policy.instances_distribution = Some(InstancesDistribution {
            on_demand_percentage_above_base_capacity: Some(0),
            ..InstancesDistribution::default()
        });
        r.mixed_instances_policy = Some(policy);
    });
    let request = PutWarmPool {
        auto_scaling_group_name: GROUP.into(),
        ..PutWarmPool::default()
    };
    let refused = spot.model.put_warm_pool(&request, spot.now).unwrap_err();
    assert!(refused.message.contains("Spot"));
}

#[test]
fn standby_and_detaching_run_no_hooks() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(2));
    bench.launch();
    bench.hook("launch", "LAUNCHING", "ABANDON");
    bench.hook("drain", "TERMINATING", "CONTINUE");
    let enter = |id: &str, decrement| EnterStandby {
        auto_scaling_group_name: GROUP.into(),
        instance_ids: vec![id.into()],
        should_decrement_desired_capacity: decrement,
    };
    let moved = bench.model.enter_standby(&enter("i-1", true), bench.now);
    assert_eq!(moved.unwrap()[0].status_code, "Successful");
    assert_eq!(bench.model.target_lifecycle_state("i-1"), Some("Standby"));
    assert_eq!((bench.group().desired, bench.group().capacity()), (1, 1));
    let again = bench.model.enter_standby(&enter("i-1", true), bench.now);
    assert!(again.unwrap_err().message.contains("is not in InService"));
    assert!(bench.model.take_effects().is_empty());

    let exit = ExitStandby {
        auto_scaling_group_name: GROUP.into(),
        instance_ids: vec!["i-1".into()],
    };
    bench.model.exit_standby(&exit, bench.now).unwrap();
    assert_eq!(bench.state("i-1"), Some(LifecycleState::InService));
    assert_eq!(bench.group().desired, 2);

    let detach = DetachInstances {
        auto_scaling_group_name: GROUP.into(),
        instance_ids: vec!["i-2".into()],
        should_decrement_desired_capacity: false,
    };
    bench.model.detach_instances(&detach, bench.now).unwrap();
    assert_eq!(bench.model.target_lifecycle_state("i-2"), Some("Detached"));
    assert_eq!(bench.state("i-2"), None);
    assert_eq!(bench.launch(), ["i-3"], "another in its place");
    assert!(bench.terminate("i-2", false).is_err());
    bench.model.machine_gone("i-2", bench.now);
    assert_eq!(bench.model.target_lifecycle_state("i-2"), None);
}

#[derive(Debug, Clone)]
enum Step {
    Desire(u32),
    Put(&'static str, u32, i32),
    Delete(bool),
    Complete(usize, bool, bool),
    Terminate(usize),
    Die(usize),
    Wait(i64),
    Work,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![Just("Stopped"), Just("Running"), Just("Hibernated")];
    prop_oneof![
        (0..5u32).prop_map(Step::Desire),
        (state, 0..3u32, -1..5i32).prop_map(|(s, min, max)| Step::Put(s, min, max)),
        any::<bool>().prop_map(Step::Delete),
        (0..8usize, any::<bool>(), any::<bool>()).prop_map(|(i, h, c)| Step::Complete(i, h, c)),
        (0..8usize).prop_map(Step::Terminate),
        (0..8usize).prop_map(Step::Die),
        (0..90i64).prop_map(Step::Wait),
        Just(Step::Work),
        Just(Step::Work),
    ]
}

impl Pool {
    fn take(&mut self, step: Step) {
        let nth = |pool: &Self, index: usize| {
            let mut instances = pool.bench.group().instances.iter();
            instances
                .nth(index)
                .map(|i| i.id.clone())
                .unwrap_or_default()
        };
        match step {
            Step::Desire(desired) => drop(self.bench.desire(desired)),
            Step::Put(state, min, max) => drop(self.put(state, |r| {
                (r.min_size, r.max_group_prepared_capacity) = (Some(min), Some(max));
            })),
            Step::Delete(force) => drop(self.delete(force)),
            Step::Complete(index, launch, good) => {
                let hook = if launch { "launch" } else { "drain" };
                let result = if good { "CONTINUE" } else { "ABANDON" };
                drop(self.bench.complete(hook, &nth(self, index), result));
            }
            Step::Terminate(index) => drop(self.bench.terminate(&nth(self, index), false)),
            Step::Die(index) => {
                let id = nth(self, index);
                // Only what is on can die; the group hears of it.
                if self.on.remove(&id) {
                    self.bench.model.machine_gone(&id, self.bench.now);
                }
            }
            Step::Wait(seconds) => self.bench.wait(seconds),
            Step::Work => drop(self.work()),
        }
    }

    fn check(&self) {
        let group = self.bench.group();
        let mut seen = BTreeSet::new();
        for instance in group.instances.iter() {
            assert!(seen.insert(&instance.id), "in one place");
            assert_eq!(self.bench.model.homes[&instance.id], GROUP);
            let state = instance.state;
            let places = [state.counts(), state.is_pooled(), state.is_terminating()];
            assert_eq!(places.iter().filter(|p| **p).count(), 1, "{state:?}");
            let waits = state.as_str().ends_with(":Wait");
            assert_eq!(waits, !instance.actions.is_empty(), "{instance:?}");
            let on = self.on.contains(&instance.id);
            let off = [PoolState::Stopped, PoolState::Hibernated].map(LifecycleState::Warmed);
            assert!(!(off.contains(&state) && on), "nothing runs in {state:?}");
            let running = LifecycleState::Warmed(PoolState::Running);
            let needs = [LifecycleState::InService, running].contains(&state);
            assert!(on || !needs, "{state:?} without a machine");
        }
        assert_eq!(seen.len(), self.bench.model.homes.len());
        let counted = |of: fn(LifecycleState) -> bool| {
            let all = group.instances.iter();
            all.filter(|i| of(i.state)).count()
        };
        assert!(group.instances.capacity() >= counted(LifecycleState::counts));
        assert!(group.instances.pooled() >= counted(LifecycleState::is_pooled));
        let due = self.bench.model.next_deadline();
        assert!(due.is_none_or(|deadline| deadline > self.bench.now));
    }
}

proptest! {
    #[test]
    fn any_history_of_a_pool_keeps_the_rules_and_then_converges(
        steps in proptest::collection::vec(step(), 0..80)
    ) {
        let mut pool = Pool::new("Stopped", |_| ());
        pool.bench.hook("launch", "LAUNCHING", "CONTINUE");
        pool.bench.hook("drain", "TERMINATING", "CONTINUE");
        for step in steps {
            pool.take(step);
            pool.check();
        }
        for _ in 0..20 {
            pool.settle();
            pool.bench.wait(300);
            pool.check();
        }
        let group = pool.bench.group();
        let desired = usize::try_from(group.desired).unwrap();
        prop_assert_eq!(group.capacity(), desired);
        let wanted = group.warm_pool.as_ref().map_or(0, |warm| {
            let beside = warm.max_prepared.unwrap_or(group.max).saturating_sub(group.desired);
            usize::try_from(beside.max(warm.min_size)).unwrap()
        });
        prop_assert_eq!(group.instances.pooled(), wanted);
        for instance in group.instances.iter() {
            let steady = [LifecycleState::InService].contains(&instance.state)
                || matches!(instance.state, LifecycleState::Warmed(_));
            prop_assert!(steady, "{:?}", instance);
        }
    }
}
