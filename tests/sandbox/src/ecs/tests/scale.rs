//! A fleet as large as ECS allows: 5,000 container instances a cluster.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const INSTANCES: usize = 5_000;
const DRAINED: usize = 1_000;

/// A cluster of connected instances with a task of each service.
fn cluster(model: &mut Model, name: &str, services: &[&str], now: Timestamp) -> Vec<String> {
    let create = read(json!({ "clusterName": name }));
    model.create_cluster(create, now).unwrap();
    let instances: Vec<String> = (0..INSTANCES)
        .map(|n| {
            let id = format!("i-{name}-{n}");
            let machine = Registration::of_machine(name, &id, 2048, 4000);
            let arn = model.register(machine, now).unwrap();
            report(model, &arn, now);
            arn
        })
        .collect();
    for service in services {
        let request = read(json!({
            "cluster": name,
            "serviceName": service,
            "taskDefinition": "hello",
            "desiredCount": INSTANCES,
        }));
        model.create_service(request, now).unwrap();
    }
    instances
}

/// The node of an instance does what it is told and says so.
fn report(model: &mut Model, arn: &str, now: Timestamp) {
    let orders = model.orders(arn).unwrap();
    let tasks = orders.tasks.into_iter().map(|task| TaskReport {
        task_arn: task.task_arn,
        known_status: task.desired_status,
        reason: None,
    });
    let sync = Sync {
        container_instance_arn: arn.to_owned(),
        version: orders.version,
        tasks: tasks.collect(),
    };
    model.sync(&sync, now).unwrap();
}

#[test]
fn a_thousand_of_ten_thousand_instances_are_drained() {
    let mut bench = Bench::new();
    bench.service(0, 100, 200);
    let (model, mut now) = (&mut bench.model, bench.now);
    let services = ["a", "b", "c"];
    let fleets = ["one", "two"].map(|name| (name, cluster(model, name, &services, now)));
    let everyone: Vec<&String> = fleets.iter().flat_map(|(_, arns)| arns).collect();
    for arn in &everyone {
        report(model, arn, now);
        now += SignedDuration::from_micros(100);
        model.advance(now);
    }
    let mut busy: VecDeque<(&str, String)> = VecDeque::new();
    for (name, arns) in &fleets {
        for ten in arns[..DRAINED / 2].chunks(10) {
            let change = model.set_state(Some(name), ten, InstanceStatus::Draining, now);
            assert_eq!(change.unwrap().failures, []);
        }
        busy.extend(arns.iter().map(|arn| (*name, arn.clone())));
    }
    // Nodes with news report, one after the other, until nobody has any.
    let mut seen = std::collections::BTreeMap::new();
    while let Some((name, arn)) = busy.pop_front() {
        now += SignedDuration::from_micros(10);
        model.advance(now);
        let tasks = model.tasks_on(Some(name), &arn).unwrap();
        let quiet = tasks.iter().all(|task| match task.last_status {
            TaskStatus::Running => !task.stopping,
            TaskStatus::Stopped => true,
            TaskStatus::Pending | TaskStatus::Deactivating => false,
        });
        let rounds: &mut usize = seen.entry(arn.clone()).or_default();
        *rounds += 1;
        if !quiet || *rounds < 3 {
            report(model, &arn, now);
            busy.push_back((name, arn));
        }
    }
    for (name, arns) in &fleets {
        let leaving: BTreeSet<&String> = arns[..DRAINED / 2].iter().collect();
        let cluster = &model.clusters[*name];
        let live: Vec<&Task> = cluster.tasks.values().filter(|t| t.is_live()).collect();
        assert_eq!(live.len(), services.len() * INSTANCES);
        for task in live {
            assert_eq!(task.last_status, TaskStatus::Running);
            assert!(!leaving.contains(&task.instance_arn));
        }
        for arn in leaving {
            let mut tasks = cluster.tasks_on(arn);
            assert!(tasks.all(|task| task.last_status == TaskStatus::Stopped));
        }
    }
}
