use proptest::prelude::*;

use super::{super::index::Index, *};

#[derive(Debug, Clone)]
enum Step {
    Work(usize),
    State(usize, bool),
    Lose(usize),
    Join,
    Scale(u32),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4usize).prop_map(Step::Work),
        1 => (0..4usize, any::<bool>()).prop_map(|(n, d)| Step::State(n, d)),
        1 => (0..4usize).prop_map(Step::Lose),
        1 => Just(Step::Join),
        1 => (0..6u32).prop_map(Step::Scale),
        1 => (0..12i64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn any_history_keeps_the_bounds_and_then_converges(
        steps in proptest::collection::vec(step(), 0..50)
    ) {
        let mut bench = Bench::new();
        let mut nodes = vec![("i-0".to_owned(), bench.node("i-0"))];
        bench.service(2, 50, 200);
        let mut joined = 0;
        for step in steps {
            let node = |index: usize| nodes.get(index).cloned();
            match step {
                Step::Work(index) => {
                    if let Some((_, arn)) = node(index) {
                        bench.work(&arn);
                    }
                }
                Step::State(index, draining) => {
                    if let Some((_, arn)) = node(index) {
                        bench.set(&arn, if draining { "DRAINING" } else { "ACTIVE" });
                    }
                }
                Step::Lose(index) => {
                    if let Some((id, _)) = node(index) {
                        bench.model.machine_gone(&id, bench.now);
                        nodes.remove(index);
                    }
                }
                Step::Join => {
                    joined += 1;
                    let id = format!("i-{joined}");
                    nodes.push((id.clone(), bench.node(&id)));
                }
                Step::Scale(desired) => {
                    bench.update(json!({ "desiredCount": desired })).unwrap();
                }
                Step::Wait(seconds) => bench.wait(seconds),
            }
            let live = bench.cluster().tasks.values().filter(|t| t.is_live());
            let desired = bench.cluster().services["hello"].desired;
            let most = usize::try_from(desired * 2).unwrap();
            prop_assert!(live.count() <= most);
            prop_assert_eq!(&bench.cluster().index, &Index::of(bench.cluster()));
            prop_assert!(bench.cluster().todo.due.is_empty());
            for need in bench.cluster().todo.blocked.values() {
                prop_assert!(bench.cluster().place(need).is_err());
            }
        }
        // One good node and time: everything wanted runs, and nothing else.
        let good = ("i-good".to_owned(), bench.node("i-good"));
        nodes.push(good);
        for _ in 0..20 {
            for (_, arn) in &nodes {
                bench.work(arn);
            }
            bench.wait(5);
        }
        let desired = bench.cluster().services["hello"].desired;
        let live: Vec<&Task> = bench.cluster().tasks.values().filter(|t| t.is_live()).collect();
        prop_assert_eq!(live.len(), usize::try_from(desired).unwrap());
        for task in live {
            prop_assert_eq!(task.last_status, TaskStatus::Running);
            let instance = &bench.cluster().instances[&task.instance_arn];
            prop_assert_eq!(instance.status, InstanceStatus::Active);
        }
    }
}
