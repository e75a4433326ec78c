use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::node_protocol::{Sync, TaskReport};

/// A model with a clock and one cluster, `dev`.
struct Bench {
    model: Model,
    now: Timestamp,
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            model: Model::new(Options {
                region: "eu-west-1".into(),
                account_id: "123456789012".into(),
                attachment_delay: SignedDuration::from_secs(1),
                connection_timeout: SignedDuration::from_secs(10),
                seed: 1,
            }),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        };
        let cluster = read(json!({ "clusterName": "dev" }));
        bench.model.create_cluster(cluster, bench.now).unwrap();
        bench
    }

    fn cluster(&self) -> &Cluster {
        &self.model.clusters["dev"]
    }

    /// A connected container instance; returns its ARN.
    fn node(&mut self, ec2_instance_id: &str) -> String {
        let reply = self.register(ec2_instance_id).unwrap();
        let arn = reply["containerInstance"]["containerInstanceArn"]
            .as_str()
            .unwrap();
        self.sync(arn, &[]).unwrap();
        arn.to_owned()
    }

    fn register(&mut self, ec2_instance_id: &str) -> Result<Value, ApiError> {
        let request = read(json!({
            "cluster": "dev",
            "instanceIdentityDocument": json!({ "instanceId": ec2_instance_id }).to_string(),
            "totalResources": [
                { "name": "CPU", "type": "INTEGER", "integerValue": 1024 },
                { "name": "MEMORY", "type": "INTEGER", "integerValue": 1000 },
            ],
            "attributes": [{ "name": "fleet.group", "value": "web" }],
        }));
        self.model.register_container_instance(request, self.now)
    }

    fn sync(&mut self, arn: &str, tasks: &[(&str, &str)]) -> Result<(), ApiError> {
        let version = self.model.orders(arn).map_or(0, |orders| orders.version);
        let report = |(arn, status): &(&str, &str)| TaskReport {
            task_arn: (*arn).to_owned(),
            known_status: (*status).to_owned(),
            reason: None,
        };
        let sync = Sync {
            container_instance_arn: arn.to_owned(),
            version,
            tasks: tasks.iter().map(report).collect(),
        };
        self.model.sync(&sync, self.now)
    }

    /// The node does what it is told, one step.
    fn work(&mut self, arn: &str) {
        let orders = self.model.orders(arn).unwrap();
        let done = |desired: &str| {
            if desired == "RUNNING" {
                "RUNNING"
            } else {
                "STOPPED"
            }
        };
        let report: Vec<(&str, &str)> = orders
            .tasks
            .iter()
            .map(|task| (task.task_arn.as_str(), done(&task.desired_status)))
            .collect();
        self.sync(arn, &report).unwrap();
    }

    fn service(&mut self, desired: u32, minimum: u32, maximum: u32) {
        let definition = json!({
            "family": "hello",
            "containerDefinitions": [{ "name": "main", "image": "busybox", "memory": 100 }],
        });
        let definition = RegisterTaskDefinition::read(definition.to_string().as_bytes()).unwrap();
        self.model
            .register_task_definition(definition, self.now)
            .unwrap();
        let request = read(json!({
            "cluster": "dev",
            "serviceName": "hello",
            "taskDefinition": "hello",
            "desiredCount": desired,
            "deploymentConfiguration": {
                "minimumHealthyPercent": minimum,
                "maximumPercent": maximum,
            },
        }));
        self.model.create_service(request, self.now).unwrap();
    }

    fn update(&mut self, change: Value) -> Result<Value, ApiError> {
        let mut request = json!({ "cluster": "dev", "service": "hello" });
        for (key, value) in change.as_object().unwrap() {
            request[key] = value.clone();
        }
        self.model.update_service(read(request), self.now)
    }

    fn set(&mut self, arn: &str, status: &str) -> Value {
        let request = read(json!({
            "cluster": "dev",
            "containerInstances": [arn],
            "status": status,
        }));
        self.model
            .update_container_instances_state(&request, self.now)
            .unwrap()
    }

    fn on(&self, arn: &str, status: TaskStatus) -> usize {
        let tasks = self.cluster().tasks.values();
        tasks
            .filter(|t| t.instance_arn == arn && t.last_status == status)
            .count()
    }

    fn put(&mut self, attribute: Value) -> Result<Value, ApiError> {
        let request = read(json!({ "cluster": "dev", "attributes": [attribute] }));
        self.model.put_attributes(&request)
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.model.advance(self.now);
    }
}

#[test]
fn a_service_spreads_over_connected_instances() {
    let mut bench = Bench::new();
    let (a, b) = (bench.node("i-a"), bench.node("i-b"));
    bench.register("i-c").unwrap();
    bench.service(4, 100, 200);
    assert_eq!(bench.on(&a, TaskStatus::Pending), 2);
    assert_eq!(bench.on(&b, TaskStatus::Pending), 2);
    bench.work(&a);
    bench.work(&b);
    assert_eq!(bench.on(&a, TaskStatus::Running), 2);
    assert_eq!(bench.cluster().tasks.len(), 4);
}

#[test]
fn draining_starts_the_replacement_first() {
    let mut bench = Bench::new();
    let (a, b) = (bench.node("i-a"), bench.node("i-b"));
    bench.service(2, 100, 200);
    bench.work(&a);
    bench.work(&b);
    bench.set(&a, "DRAINING");
    assert_eq!(
        bench.on(&a, TaskStatus::Running),
        1,
        "until the other one runs"
    );
    assert_eq!(bench.on(&b, TaskStatus::Pending), 1);
    bench.work(&b);
    assert_eq!(bench.on(&a, TaskStatus::Deactivating), 1);
    bench.work(&a);
    assert_eq!(bench.on(&a, TaskStatus::Stopped), 1);
    assert_eq!(bench.on(&b, TaskStatus::Running), 2);
}

#[test]
fn a_service_at_a_hundred_percent_never_leaves() {
    let mut bench = Bench::new();
    let (a, b) = (bench.node("i-a"), bench.node("i-b"));
    bench.service(2, 100, 100);
    bench.work(&a);
    bench.work(&b);
    bench.set(&a, "DRAINING");
    bench.wait(9);
    bench.work(&b);
    assert_eq!(bench.on(&a, TaskStatus::Running), 1);
    assert_eq!(bench.on(&b, TaskStatus::Running), 1);
}

#[test]
fn pending_tasks_on_a_draining_instance_are_stopped_at_once() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(1, 100, 200);
    bench.set(&a, "DRAINING");
    let task = bench.cluster().tasks.values().next().unwrap();
    assert!(task.stopping);
    bench.work(&a);
    assert_eq!(bench.on(&a, TaskStatus::Stopped), 1);
}

#[test]
fn standalone_tasks_stay_on_a_draining_instance() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(0, 100, 200);
    let run: RunTask = read(json!({ "cluster": "dev", "taskDefinition": "hello" }));
    let reply = bench.model.run_task(&run, bench.now).unwrap();
    assert_eq!(reply["tasks"][0]["lastStatus"], "PENDING");
    bench.work(&a);
    bench.set(&a, "DRAINING");
    assert_eq!(bench.on(&a, TaskStatus::Running), 1);
    let reply = bench.model.run_task(&run, bench.now).unwrap();
    assert_eq!(reply["failures"][0]["reason"], "AGENT");
    let stop = read(json!({ "cluster": "dev", "task": reply_arn(&bench) }));
    bench.model.stop_task(&stop, bench.now).unwrap();
    bench.work(&a);
    assert_eq!(bench.on(&a, TaskStatus::Stopped), 1);
}

fn reply_arn(bench: &Bench) -> String {
    bench.cluster().tasks.keys().next().unwrap().clone()
}

#[test]
fn placement_reckons_with_memory() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(20, 100, 200);
    assert_eq!(bench.on(&a, TaskStatus::Pending), 10, "1000 MiB, 100 each");
    let event = &bench.cluster().services["hello"].events[0].1;
    assert!(event.contains("RESOURCE:MEMORY"), "{event}");
    bench.node("i-b");
    assert_eq!(
        bench.cluster().tasks.len(),
        20,
        "placed as soon as there is room"
    );
}

#[test]
fn a_place_that_becomes_free_or_fit_is_taken() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(10, 100, 200);
    bench.work(&a);
    let second = |name: &str, constraints: Value| {
        read::<CreateService>(json!({
            "cluster": "dev",
            "serviceName": name,
            "taskDefinition": "hello",
            "desiredCount": 1,
            "placementConstraints": constraints,
        }))
    };
    let of = |bench: &Bench, name: &str| {
        let tasks = bench.cluster().tasks.values();
        tasks.filter(|t| t.service.as_deref() == Some(name)).count()
    };
    let plain = second("second", json!([]));
    bench.model.create_service(plain, bench.now).unwrap();
    assert_eq!(of(&bench, "second"), 0, "the node is full");
    bench.update(json!({ "desiredCount": 8 })).unwrap();
    assert_eq!(of(&bench, "second"), 0, "its tasks still stop");
    bench.work(&a);
    assert_eq!(of(&bench, "second"), 1);

    let ready = json!([{ "type": "memberOf", "expression": "attribute:ready exists" }]);
    let choosy = second("choosy", ready);
    bench.model.create_service(choosy, bench.now).unwrap();
    assert_eq!(of(&bench, "choosy"), 0);
    bench
        .put(json!({ "name": "ready", "targetId": a }))
        .unwrap();
    bench.work(&a);
    assert_eq!(of(&bench, "choosy"), 1);
}

#[test]
fn a_lost_machine_is_deregistered_and_its_tasks_move() {
    let mut bench = Bench::new();
    let (a, b) = (bench.node("i-a"), bench.node("i-b"));
    bench.service(2, 100, 200);
    bench.work(&a);
    bench.work(&b);
    bench.model.machine_gone("i-a", bench.now);
    assert_eq!(
        bench.cluster().instances[&a].status,
        InstanceStatus::Inactive
    );
    assert_eq!(bench.on(&a, TaskStatus::Stopped), 1);
    assert_eq!(bench.on(&b, TaskStatus::Pending), 1);
    let error = bench.sync(&a, &[]).unwrap_err();
    assert_eq!(error.code, "InactiveInstanceException");
    let failures = &bench.set(&a, "ACTIVE")["failures"];
    assert_eq!(failures[0]["reason"], "INACTIVE");
    bench.wait(3601);
    assert!(
        !bench.cluster().instances.contains_key(&a),
        "forgotten after an hour"
    );
}

#[test]
fn silence_disconnects_and_a_sync_connects_again() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    assert_eq!(
        bench.model.next_deadline(),
        Some(bench.now + SignedDuration::from_secs(10))
    );
    bench.wait(10);
    assert!(!bench.cluster().instances[&a].connected);
    bench.service(1, 100, 200);
    assert!(bench.cluster().tasks.is_empty(), "nowhere to place it");
    bench.sync(&a, &[]).unwrap();
    assert_eq!(bench.on(&a, TaskStatus::Pending), 1);
}

#[test]
fn a_service_whose_tasks_never_run_is_slowed() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(1, 100, 200);
    for _ in 0..50 {
        let orders = bench.model.orders(&a).unwrap();
        let failed: Vec<(&str, &str)> = orders
            .tasks
            .iter()
            .map(|t| (t.task_arn.as_str(), "STOPPED"))
            .collect();
        bench.sync(&a, &failed).unwrap();
    }
    assert_eq!(bench.cluster().tasks.len(), 2);
    bench.wait(1);
    assert_eq!(bench.cluster().tasks.len(), 3);
}

#[test]
fn a_new_definition_rolls_and_scaling_in_stops_the_excess() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(2, 100, 200);
    bench.work(&a);
    let definition = json!({
        "family": "hello",
        "containerDefinitions": [{ "name": "main", "image": "new", "memory": 100 }],
    });
    let definition = RegisterTaskDefinition::read(definition.to_string().as_bytes()).unwrap();
    bench
        .model
        .register_task_definition(definition, bench.now)
        .unwrap();
    let reply = bench
        .update(json!({ "taskDefinition": "hello:2" }))
        .unwrap();
    assert_eq!(reply["service"]["deployments"].as_array().unwrap().len(), 2);
    for _ in 0..4 {
        bench.work(&a);
    }
    let live: Vec<&Task> = bench
        .cluster()
        .tasks
        .values()
        .filter(|t| t.is_live())
        .collect();
    assert!(
        live.iter()
            .all(|t| t.revision == 2 && t.last_status == TaskStatus::Running)
    );
    assert_eq!(live.len(), 2);
    bench.update(json!({ "desiredCount": 0 })).unwrap();
    bench.work(&a);
    assert_eq!(bench.on(&a, TaskStatus::Running), 0);
}

#[test]
fn a_service_is_deleted_in_two_steps() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(1, 100, 200);
    bench.work(&a);
    let mut request = json!({ "cluster": "dev", "service": "hello" });
    let refused = bench
        .model
        .delete_service(&read(request.clone()), bench.now);
    assert_eq!(refused.unwrap_err().code, "InvalidParameterException");
    request["force"] = json!(true);
    let reply = bench
        .model
        .delete_service(&read(request), bench.now)
        .unwrap();
    assert_eq!(reply["service"]["status"], "DRAINING");
    assert_eq!(
        bench.update(json!({})).unwrap_err().code,
        "ServiceNotActiveException"
    );
    bench.work(&a);
    assert_eq!(
        bench.cluster().services["hello"].status,
        ServiceStatus::Inactive
    );
}

#[test]
fn attributes_are_checked_and_found() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    let short = a.rsplit('/').next().unwrap().to_owned();
    let by_arn = json!({ "name": "fleet.health", "value": "ok", "targetId": a });
    bench.put(by_arn).unwrap();
    let by_id =
        json!({ "name": "fleet.since", "value": "2026-11-21T10:00:00Z", "targetId": short });
    let refused = bench.put(by_id.clone()).unwrap_err();
    assert!(refused.message.contains("targetType is required"));
    let mut by_id = by_id;
    by_id["targetType"] = json!("container-instance");
    bench.put(by_id).unwrap();
    for value in ["a,b", "a=b", " a", "", &"x".repeat(129)] {
        let bad = json!({ "name": "n", "value": value, "targetId": a });
        assert_eq!(
            bench.put(bad).unwrap_err().code,
            "InvalidParameterException",
            "{value}"
        );
    }
    let lost = json!({ "name": "n", "targetId": "x", "targetType": "container-instance" });
    assert_eq!(bench.put(lost).unwrap_err().code, "TargetNotFoundException");
    // fleet.group, fleet.health and fleet.since are there already.
    for index in 0..7 {
        bench
            .put(json!({ "name": format!("n{index}"), "targetId": a }))
            .unwrap();
    }
    let eleventh = bench
        .put(json!({ "name": "n7", "targetId": a }))
        .unwrap_err();
    assert_eq!(eleventh.code, "AttributeLimitExceededException");

    let list = read(json!({
        "cluster": "dev", "targetType": "container-instance", "attributeName": "fleet.health",
    }));
    let list = bench.model.list_attributes(&list).unwrap();
    assert_eq!(list["attributes"][0]["value"], "ok");
    let find = |filter: &str| {
        let request = read(json!({ "cluster": "dev", "filter": filter }));
        let reply = bench.model.list_container_instances(&request)?;
        Ok::<_, ApiError>(reply["containerInstanceArns"].as_array().unwrap().len())
    };
    assert_eq!(find("attribute:fleet.health == ok"), Ok(1));
    assert_eq!(find("attribute:fleet.health == impaired"), Ok(0));
    assert_eq!(
        find("attribute:fleet.group == web and ec2InstanceId in [i-a, i-b]"),
        Ok(1)
    );
    assert_eq!(find("attribute:none exists"), Ok(0));
    assert!(
        find("runningTasksCount > 1")
            .unwrap_err()
            .message
            .contains("runningTasksCount")
    );
    let delete = read(json!({
        "cluster": "dev", "attributes": [{ "name": "fleet.health", "targetId": a }],
    }));
    bench.model.delete_attributes(&delete).unwrap();
    assert!(
        !bench.cluster().instances[&a]
            .attributes
            .contains_key("fleet.health")
    );
}

#[test]
fn registering_again_keeps_the_arn_and_needs_the_same_machine() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    let mut again = |id: &str| {
        let request = read(json!({
            "cluster": "dev",
            "containerInstanceArn": a,
            "instanceIdentityDocument": json!({ "instanceId": id }).to_string(),
        }));
        bench.model.register_container_instance(request, bench.now)
    };
    let reply = again("i-a").unwrap();
    assert_eq!(reply["containerInstance"]["containerInstanceArn"], json!(a));
    assert_eq!(again("i-b").unwrap_err().code, "ClientException");
    let fresh = bench.node("i-a");
    assert_ne!(fresh, a, "without its ARN it is a new one");
    assert_eq!(
        bench.cluster().instances[&a].status,
        InstanceStatus::Inactive
    );
    let request = read(json!({ "cluster": "nowhere", "instanceIdentityDocument": "{}" }));
    let error = bench.model.register_container_instance(request, bench.now);
    assert_eq!(error.unwrap_err().code, "ClientException");
}

#[test]
fn capacity_providers_are_attached_in_time_and_deleted_when_unused() {
    let mut bench = Bench::new();
    let group = GroupFacts {
        name: "web".into(),
        arn: "arn:web".into(),
        protects_new_instances: false,
    };
    let request = |name: &str| {
        read::<CreateCapacityProvider>(json!({
            "name": name,
            "autoScalingGroupProvider": {
                "autoScalingGroupArn": "web",
                "managedScaling": { "status": "ENABLED", "targetCapacity": 90 },
                "managedTerminationProtection": "ENABLED",
                "managedDraining": "DISABLED",
            },
        }))
    };
    let create = |bench: &mut Bench, name: &str, group: Option<&GroupFacts>| {
        bench.model.create_capacity_provider(request(name), group)
    };
    assert_eq!(
        create(&mut bench, "web", None).unwrap_err().code,
        "ClientException"
    );
    let unprotected = create(&mut bench, "web", Some(&group)).unwrap_err();
    assert!(unprotected.message.contains("protection from scale in"));
    let group = GroupFacts {
        protects_new_instances: true,
        ..group
    };
    let reserved = create(&mut bench, "ecs-web", Some(&group)).unwrap_err();
    assert_eq!(reserved.code, "InvalidParameterException");
    create(&mut bench, "web", Some(&group)).unwrap();
    assert!(
        create(&mut bench, "web2", Some(&group)).is_err(),
        "one provider a group"
    );

    let mut put = |names: &[&str]| {
        let request = read(json!({ "cluster": "dev", "capacityProviders": names,
            "defaultCapacityProviderStrategy": [] }));
        bench
            .model
            .put_cluster_capacity_providers(request, bench.now)
    };
    assert!(put(&["nope"]).is_err());
    let reply = put(&["web"]).unwrap();
    assert_eq!(reply["cluster"]["attachmentsStatus"], "UPDATE_IN_PROGRESS");
    assert_eq!(put(&[]).unwrap_err().code, "UpdateInProgressException");
    let managed = Effect::MarkManaged {
        group: "web".into(),
    };
    assert_eq!(bench.model.take_effects(), [managed]);
    bench.wait(1);
    let describe = read(json!({ "clusters": ["dev"], "include": ["ATTACHMENTS"] }));
    let described = bench.model.describe_clusters(&describe);
    assert_eq!(
        described["clusters"][0]["attachmentsStatus"],
        "UPDATE_COMPLETE"
    );

    let delete: ProviderRequest = read(json!({ "capacityProvider": "web" }));
    let used = bench
        .model
        .delete_capacity_provider(&delete, bench.now)
        .unwrap_err();
    assert!(used.message.contains("associated with cluster: dev"));
    let cluster: ClusterRequest = read(json!({ "cluster": "dev" }));
    let held = bench.model.delete_cluster(&cluster).unwrap_err();
    assert_eq!(held.code, "ClusterContainsCapacityProviderException");
    let detach = read(json!({ "cluster": "dev", "capacityProviders": [] }));
    bench
        .model
        .put_cluster_capacity_providers(detach, bench.now)
        .unwrap();
    bench.wait(1);
    let reply = bench
        .model
        .delete_capacity_provider(&delete, bench.now)
        .unwrap();
    assert_eq!(
        reply["capacityProvider"]["updateStatus"],
        "DELETE_IN_PROGRESS"
    );
    bench.wait(1);
    let describe = read(json!({ "capacityProviders": ["web"] }));
    let described = bench.model.describe_capacity_providers(&describe).unwrap();
    assert_eq!(described["capacityProviders"][0]["status"], "INACTIVE");
    bench.model.delete_cluster(&cluster).unwrap();
}

#[test]
fn capacity_providers_come_ten_at_a_time() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..11).map(|n| format!("p{n}")).collect();
    for name in &names {
        let group = GroupFacts {
            name: name.clone(),
            arn: format!("arn:{name}"),
            protects_new_instances: true,
        };
        let request = read::<CreateCapacityProvider>(json!({
            "name": name,
            "autoScalingGroupProvider": { "autoScalingGroupArn": name },
        }));
        let made = bench.model.create_capacity_provider(request, Some(&group));
        made.unwrap();
    }
    let page = |token: Option<&Value>| {
        let request = read(json!({ "capacityProviders": names, "nextToken": token }));
        bench.model.describe_capacity_providers(&request).unwrap()
    };
    let first = page(None);
    assert_eq!(first["capacityProviders"].as_array().unwrap().len(), 10);
    let second = page(Some(&first["nextToken"]));
    assert_eq!(second["capacityProviders"].as_array().unwrap().len(), 1);
    assert_eq!(second["nextToken"], Value::Null);
}

#[test]
fn a_cluster_says_what_it_still_holds() {
    let mut bench = Bench::new();
    let a = bench.node("i-a");
    bench.service(1, 100, 200);
    let request: ClusterRequest = read(json!({ "cluster": "dev" }));
    let refusal = |bench: &mut Bench| bench.model.delete_cluster(&request).unwrap_err().code;
    assert_eq!(refusal(&mut bench), "ClusterContainsServicesException");
    let delete = read(json!({ "cluster": "dev", "service": "hello", "force": true }));
    bench.model.delete_service(&delete, bench.now).unwrap();
    bench.work(&a);
    assert_eq!(
        refusal(&mut bench),
        "ClusterContainsContainerInstancesException"
    );
    let leave = read(json!({ "cluster": "dev", "containerInstance": a, "force": true }));
    bench
        .model
        .deregister_container_instance(&leave, bench.now)
        .unwrap();
    bench.model.delete_cluster(&request).unwrap();
    let describe = read(json!({ "clusters": ["dev", "none"] }));
    let described = bench.model.describe_clusters(&describe);
    assert_eq!(described["clusters"][0]["status"], "INACTIVE");
    assert_eq!(described["failures"][0]["reason"], "MISSING");
    let list = bench
        .model
        .list_services(&read(json!({ "cluster": "dev" })));
    assert_eq!(list.unwrap_err().code, "ClusterNotFoundException");
}

mod properties;
mod scale;

#[test]
fn settings_of_a_cluster_change_by_name_and_its_configuration_as_a_whole() {
    let mut bench = Bench::new();
    let mut update = |change: Value| {
        let mut request = json!({ "cluster": "dev" });
        for (key, value) in change.as_object().unwrap() {
            request[key] = value.clone();
        }
        let reply = bench.model.update_cluster(read(request)).unwrap();
        reply["cluster"].clone()
    };
    let insights = |value: &str| json!([{ "name": "containerInsights", "value": value }]);
    let _ = update(json!({ "settings": insights("enabled") }));
    let configuration = json!({ "executeCommandConfiguration": { "logging": "DEFAULT" } });
    let _ = update(json!({ "configuration": configuration.clone() }));
    let found = update(json!({ "settings": insights("enhanced") }));
    assert_eq!(found["settings"], insights("enhanced"));
    assert_eq!(found["configuration"], configuration);
}

#[test]
fn a_strategy_is_of_groups_or_of_fargate() {
    let mut bench = Bench::new();
    let mut put = |strategy: &[&str]| {
        let items: Vec<Value> = strategy
            .iter()
            .map(|name| json!({ "capacityProvider": name, "weight": 1 }))
            .collect();
        let request = read(json!({
            "cluster": "dev",
            "capacityProviders": ["FARGATE", "FARGATE_SPOT"],
            "defaultCapacityProviderStrategy": items,
        }));
        let now = bench.now;
        let put = bench.model.put_cluster_capacity_providers(request, now);
        put.map(drop).map_err(|error| error.message)
    };
    assert!(
        put(&["FARGATE", "web"])
            .unwrap_err()
            .contains("not associated")
    );
    assert_eq!(put(&["FARGATE", "FARGATE_SPOT"]), Ok(()));
}
