use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Desire(u32),
    Terminate(usize, bool),
    Complete(usize, bool, bool),
    Die(usize),
    Protect(usize, bool),
    Wait(i64),
    Machines,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5u32).prop_map(Step::Desire),
        (0..6usize, any::<bool>()).prop_map(|(i, d)| Step::Terminate(i, d)),
        (0..6usize, any::<bool>(), any::<bool>()).prop_map(|(i, h, c)| Step::Complete(i, h, c)),
        (0..6usize).prop_map(Step::Die),
        (0..6usize, any::<bool>()).prop_map(|(i, p)| Step::Protect(i, p)),
        (0..90i64).prop_map(Step::Wait),
        Just(Step::Machines),
    ]
}

impl Bench {
    fn take(&mut self, step: Step) {
        let nth = |bench: &Self, index: usize| {
            let instances = &bench.group().instances;
            instances.iter().nth(index).map(|i| i.id.clone())
        };
        match step {
            Step::Desire(desired) => drop(self.desire(desired)),
            Step::Terminate(index, decrement) => {
                if let Some(id) = nth(self, index) {
                    drop(self.terminate(&id, decrement));
                }
            }
            Step::Complete(index, launch, good) => {
                let hook = if launch { "launch" } else { "drain" };
                let result = if good { "CONTINUE" } else { "ABANDON" };
                if let Some(id) = nth(self, index) {
                    drop(self.complete(hook, &id, result));
                }
            }
            Step::Die(index) => {
                if let Some(id) = nth(self, index) {
                    self.model.machine_gone(&id, self.now);
                }
            }
            Step::Protect(index, protected) => {
                let request = SetInstanceProtection {
                    instance_ids: nth(self, index).into_iter().collect(),
                    auto_scaling_group_name: GROUP.into(),
                    protected_from_scale_in: protected,
                };
                drop(self.model.set_instance_protection(&request, self.now));
            }
            Step::Wait(seconds) => self.wait(seconds),
            Step::Machines => {
                self.everything();
            }
        }
    }

    /// Launches and ends the machines asked for; whether there were any.
    fn everything(&mut self) -> bool {
        let effects = self.model.take_effects();
        let any = !effects.is_empty();
        for effect in effects {
            match effect {
                Effect::Launch(order) => {
                    self.machines += 1;
                    let id = format!("i-{}", self.machines);
                    let launched = Launched {
                        instance_id: id.clone(),
                        instance_type: "t3.micro".into(),
                        image_id: "ami-1".into(),
                        template: order.template,
                    };
                    self.model.launched(&order.launch_id, launched, self.now);
                    self.model.machine_started(&id, self.now);
                }
                Effect::Stop { .. } | Effect::Start { .. } => panic!("there is no pool"),
                Effect::Terminate { instance_id } => {
                    self.model.machine_gone(&instance_id, self.now);
                }
            }
        }
        any
    }

    fn check(&self) {
        let group = self.group();
        assert!((group.min..=group.max).contains(&group.desired));
        for instance in group.instances.iter() {
            let waits = matches!(
                instance.state,
                LifecycleState::PendingWait | LifecycleState::TerminatingWait
            );
            assert_eq!(waits, !instance.actions.is_empty(), "{instance:?}");
        }
        let back_off = self.model.next_deadline();
        let due = back_off.is_some_and(|deadline| deadline <= self.now);
        assert!(!due, "what is due has been done");
        let wanted = usize::try_from(group.desired).unwrap();
        if group.launch_not_before.is_none() {
            assert!(group.capacity() >= wanted, "launches are ordered at once");
        }
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_rules_and_then_converges(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let mut bench = Bench::new(|_| ());
        bench.hook("launch", "LAUNCHING", "CONTINUE");
        bench.hook("drain", "TERMINATING", "CONTINUE");
        for step in steps {
            bench.take(step);
            bench.check();
        }
        // Left alone, every hook runs out and every launch succeeds.
        for _ in 0..20 {
            while bench.everything() {}
            bench.wait(300);
        }
        let group = bench.group();
        let unprotected = group.instances.iter().filter(|i| !i.protected).count();
        let wanted = usize::try_from(group.desired).unwrap();
        prop_assert!(group.instances.iter().all(|i| i.state == LifecycleState::InService));
        prop_assert!(group.capacity() == wanted || unprotected == 0);
    }
}
