//! The control plane through the real Rust SDKs, over a loopback port, with a stand-in for moto
//! and one for the machine room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::Ipv4Addr, time::Duration};

use aws_sdk_autoscaling::types::{LaunchTemplateSpecification, LifecycleHookSpecification};
use aws_sdk_ecs::config::{AsyncSleep, Sleep};
use aws_sdk_ecs::types::{Attribute, AutoScalingGroupProvider, ContainerInstanceStatus, Resource};
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use axum::{Router, body::Body, http::Response};
use fleet_sandbox::{
    client::{
        Client, FaultRule, ImdsFault, LifeCycle, Maintain, MaintenanceCode, Power, PowerAction,
        RunTasks, SetTags, Spot, SpotAction,
    },
    machines::{MachineCommand, MachineEvent},
    node_protocol::{Reply, Sync, TaskReport},
    paper,
    world::{World, WorldOptions},
};
use tokio::{net::TcpListener, sync::watch, time::sleep};

const REGION: &str = "eu-west-1";
const GROUP: &str = "web";
/// Access key of one who may do everything.
const OPERATOR: &str = "AKIATEST";

/// A sandbox whose machines start at once and never fail.
struct Sandbox {
    world: World,
    url: String,
    autoscaling: aws_sdk_autoscaling::Client,
    ecs: aws_sdk_ecs::Client,
    admin: Client,
    /// Counts what the machine room has done.
    machines: watch::Receiver<u32>,
}

impl Sandbox {
    async fn start() -> Self {
        Self::with(false).await
    }

    async fn with(machines_on_paper: bool) -> Self {
        let moto = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let moto_url = format!("http://{}", moto.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(moto, Router::new().fallback(moto_stand_in)).await });
        let (world, mut commands) = World::start(WorldOptions {
            region: REGION.into(),
            account_id: "123456789012".into(),
            moto_url,
            files: None,
            imds_lead_ms: 0,
        })
        .unwrap();
        let (done, machines) = watch::channel(0);
        let room = world.clone();
        tokio::spawn(async move {
            if machines_on_paper {
                return paper::run(room, commands).await;
            }
            while let Some(command) = commands.recv().await {
                match command {
                    MachineCommand::Launch(launch) => room.machine_event(MachineEvent::Started {
                        instance_id: launch.instance_id,
                        address: Ipv4Addr::new(10, 213, 0, 10),
                    }),
                    MachineCommand::Terminate { instance_id } => {
                        room.machine_event(MachineEvent::Gone { instance_id });
                    }
                    MachineCommand::Stop { instance_id } => {
                        room.machine_event(MachineEvent::Stopped { instance_id });
                    }
                    MachineCommand::Start { instance_id } => {
                        room.machine_event(MachineEvent::Started {
                            instance_id,
                            address: Ipv4Addr::new(10, 213, 0, 10),
                        });
                    }
                    MachineCommand::Reboot { .. } => {}
                    MachineCommand::Snapshot { reply, .. }
                    | MachineCommand::CopyImage { reply, .. } => reply.send(Ok(())).unwrap(),
                    MachineCommand::Console { reply, .. } => {
                        reply.send(Some("fleet-agent: hello\n".into())).unwrap();
                    }
                }
                done.send_modify(|count| *count += 1);
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(world.serve(listener));
        let config = sdk_config(&url, OPERATOR);
        Self {
            autoscaling: aws_sdk_autoscaling::Client::new(&config),
            ecs: aws_sdk_ecs::Client::new(&config),
            admin: Client::new(&url).unwrap(),
            world,
            url,
            machines,
        }
    }

    /// Waits until the machine room has done `count` commands.
    async fn machine_room_did(&mut self, count: u32) {
        self.machines.wait_for(|done| *done >= count).await.unwrap();
    }

    async fn create_group(&self, desired: i32) {
        let hook = |name: &str, transition: &str| {
            LifecycleHookSpecification::builder()
                .lifecycle_hook_name(name)
                .lifecycle_transition(format!("autoscaling:EC2_INSTANCE_{transition}"))
                .heartbeat_timeout(60)
                .default_result("CONTINUE")
                .build()
        };
        self.autoscaling
            .create_auto_scaling_group()
            .auto_scaling_group_name(GROUP)
            .min_size(0)
            .max_size(3)
            .desired_capacity(desired)
            .launch_template(
                LaunchTemplateSpecification::builder()
                    .launch_template_name("web")
                    .version("1")
                    .build(),
            )
            .vpc_zone_identifier("subnet-a,subnet-b")
            .new_instances_protected_from_scale_in(true)
            .lifecycle_hook_specification_list(hook("fleet-launch", "LAUNCHING"))
            .lifecycle_hook_specification_list(hook("fleet-drain", "TERMINATING"))
            .send()
            .await
            .unwrap();
    }

    async fn states(&self) -> Vec<String> {
        let reply = self.autoscaling.describe_auto_scaling_groups();
        let reply = reply.auto_scaling_group_names(GROUP).send().await.unwrap();
        let group = &reply.auto_scaling_groups()[0];
        let instances = group.instances().iter();
        instances
            .map(|i| i.lifecycle_state().unwrap().as_str().to_owned())
            .collect()
    }

    async fn complete(&self, hook: &str, instance: &str) -> Result<(), (String, String)> {
        self.autoscaling
            .complete_lifecycle_action()
            .auto_scaling_group_name(GROUP)
            .lifecycle_hook_name(hook)
            .instance_id(instance)
            .lifecycle_action_result("CONTINUE")
            .send()
            .await
            .map(|_| ())
            .map_err(|e| {
                let text = |t: Option<&str>| t.unwrap_or_default().to_owned();
                (text(e.code()), text(e.message()))
            })
    }

    async fn register(&self, instance: &str) -> String {
        let resource = |name: &str, value| {
            let resource = Resource::builder().name(name).r#type("INTEGER");
            resource.integer_value(value).build()
        };
        let reply = self
            .ecs
            .register_container_instance()
            .cluster("dev")
            .instance_identity_document(format!(r#"{{"instanceId":"{instance}"}}"#))
            .total_resources(resource("CPU", 2048))
            .total_resources(resource("MEMORY", 4096))
            .attributes(
                Attribute::builder()
                    .name("fleet.group")
                    .value("web")
                    .build()
                    .unwrap(),
            )
            .send()
            .await
            .unwrap();
        let registered = reply.container_instance().unwrap();
        assert_eq!(registered.ec2_instance_id(), Some(instance));
        let echoed = registered.attributes().iter();
        assert!(echoed.clone().any(|a| a.name() == "fleet.group"));
        registered.container_instance_arn().unwrap().to_owned()
    }

    async fn sync(&self, arn: &str, version: u64, tasks: Vec<TaskReport>) -> Reply {
        let sync = Sync {
            container_instance_arn: arn.into(),
            version,
            tasks,
        };
        let http = reqwest::Client::builder().build().unwrap();
        let request = http.post(format!("{}/_node/sync", self.url)).json(&sync);
        request.send().await.unwrap().json().await.unwrap()
    }
}

fn sdk_config(url: &str, access_key: &str) -> aws_config::SdkConfig {
    use aws_smithy_http_client::{Builder, tls};
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_config::SdkConfig::builder()
        .behavior_version(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new(REGION))
        .endpoint_url(url)
        .http_client(Builder::new().tls_provider(provider).build_https())
        .credentials_provider(aws_sdk_ecs::config::SharedCredentialsProvider::new(
            aws_sdk_ecs::config::Credentials::new(access_key, "secret", None, None, "test"),
        ))
        .retry_config(aws_config::retry::RetryConfig::standard().with_max_attempts(3))
        .timeout_config(
            aws_config::timeout::TimeoutConfig::builder()
                .operation_timeout(Duration::from_secs(20))
                .build(),
        )
        .sleep_impl(aws_sdk_ecs::config::SharedAsyncSleep::new(TokioSleep))
        .build()
}

/// The SDK's waits between attempts.
#[derive(Debug)]
struct TokioSleep;

impl AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(tokio::time::sleep(duration))
    }
}

/// What the machines' role allows.
const NODE_POLICY: &str = r#"{
    "Version": "2012-10-17",
    "Statement": [
        { "Effect": "Allow", "Action": "ecs:*", "Resource": "*" },
        {
            "Effect": "Allow",
            "Action": "autoscaling:CompleteLifecycleAction",
            "Resource": "arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/web"
        }
    ]
}"#;

/// The answers that a group's life needs of moto; a number is drawn from each launch.
async fn moto_stand_in(body: String) -> Response<Body> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static LAUNCHES: AtomicU32 = AtomicU32::new(1);
    let action = body
        .split('&')
        .find_map(|pair| pair.strip_prefix("Action="));
    let text = match action.unwrap_or_default() {
        "DescribeLaunchTemplateVersions" => {
            "<R><launchTemplateVersionSet><item><launchTemplateId>lt-1</launchTemplateId>\
             <launchTemplateName>web</launchTemplateName><versionNumber>1</versionNumber>\
             <launchTemplateData><userData>I2Nsb3VkLWNvbmZpZwo=</userData>\
             <iamInstanceProfile><name>web</name></iamInstanceProfile><metadataOptions>\
             <instanceMetadataTags>enabled</instanceMetadataTags></metadataOptions>\
             </launchTemplateData></item></launchTemplateVersionSet></R>"
                .to_owned()
        }
        "GetInstanceProfile" => {
            "<R><GetInstanceProfileResult><InstanceProfile><Roles><member><RoleName>web-role\
             </RoleName></member></Roles></InstanceProfile></GetInstanceProfileResult></R>"
                .to_owned()
        }
        "ListRolePolicies" => {
            "<R><ListRolePoliciesResult><PolicyNames><member>node</member></PolicyNames>\
             </ListRolePoliciesResult></R>"
                .to_owned()
        }
        "GetRolePolicy" => format!(
            "<R><GetRolePolicyResult><PolicyDocument>{}</PolicyDocument></GetRolePolicyResult></R>",
            NODE_POLICY.replace(' ', "%20").replace('"', "%22")
        ),
        "DescribeSubnets" => {
            "<R><subnetSet><item><subnetId>subnet-a</subnetId><vpcId>vpc-1</vpcId>\
             <availabilityZone>eu-west-1a</availabilityZone></item><item><subnetId>subnet-b\
             </subnetId><vpcId>vpc-1</vpcId><availabilityZone>eu-west-1b</availabilityZone>\
             </item></subnetSet></R>"
                .to_owned()
        }
        "RunInstances" => format!(
            "<R><instancesSet><item><instanceId>i-{:017x}</instanceId><imageId>ami-1</imageId>\
             <instanceType>t3.micro</instanceType><groupSet><item><groupId>sg-1</groupId></item>\
             </groupSet><tagSet><item><key>fleet:group</key><value>web</value></item></tagSet>\
             <placement><availabilityZone>eu-west-1a</availabilityZone></placement></item>\
             </instancesSet></R>",
            LAUNCHES.fetch_add(1, Ordering::Relaxed)
        ),
        _ => "<R/>".to_owned(),
    };
    Response::new(Body::from(text))
}

fn report(order: &Reply, status: &str) -> Vec<TaskReport> {
    let tasks = order.tasks.iter();
    tasks
        .map(|task| TaskReport {
            task_arn: task.task_arn.clone(),
            known_status: status.into(),
            reason: None,
        })
        .collect()
}

#[tokio::test]
async fn a_node_comes_works_and_goes() {
    let mut sandbox = Sandbox::start().await;
    sandbox
        .ecs
        .create_cluster()
        .cluster_name("dev")
        .send()
        .await
        .unwrap();
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    assert_eq!(sandbox.states().await, ["Pending:Wait"]);
    let metadata = sandbox
        .world
        .metadata(Ipv4Addr::new(10, 213, 0, 10))
        .unwrap();
    assert_eq!(
        metadata.target_lifecycle_state.as_deref(),
        Some("InService")
    );
    assert_eq!(metadata.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
    assert_eq!(metadata.tags.unwrap()["fleet:group"], "web");
    let instance = metadata.instance_id;

    let arn = sandbox.register(&instance).await;
    let orders = sandbox.sync(&arn, 0, vec![]).await;
    assert!(orders.tasks.is_empty());
    sandbox.complete("fleet-launch", &instance).await.unwrap();
    assert_eq!(sandbox.states().await, ["InService"]);

    // A held sync is answered as soon as there is an order.
    let tasks = RunTasks {
        cluster: "dev".into(),
        service: "hello".into(),
        count: 2,
        image: "busybox".into(),
        ..RunTasks::default()
    };
    let (orders, ran) = tokio::join!(
        sandbox.sync(&arn, orders.version, vec![]),
        sandbox.admin.run_tasks(&tasks)
    );
    ran.unwrap();
    assert_eq!(orders.tasks.len(), 2);
    sandbox.sync(&arn, 0, report(&orders, "RUNNING")).await;
    let service = sandbox
        .ecs
        .describe_services()
        .cluster("dev")
        .services("hello");
    let service = service.send().await.unwrap();
    assert_eq!(service.services()[0].running_count(), 2);

    sandbox.admin.terminate(&instance, true).await.unwrap();
    assert_eq!(sandbox.states().await, ["Terminating:Wait"]);
    let metadata = sandbox
        .world
        .metadata(Ipv4Addr::new(10, 213, 0, 10))
        .unwrap();
    assert_eq!(
        metadata.target_lifecycle_state.as_deref(),
        Some("Terminated")
    );

    let drained = sandbox
        .ecs
        .update_container_instances_state()
        .cluster("dev")
        .container_instances(&arn)
        .container_instances("arn:aws:ecs:eu-west-1:123456789012:container-instance/dev/none")
        .status(ContainerInstanceStatus::Draining)
        .send()
        .await
        .unwrap();
    assert_eq!(drained.container_instances()[0].status(), Some("DRAINING"));
    assert_eq!(drained.failures()[0].reason(), Some("MISSING"));

    sandbox.complete("fleet-drain", &instance).await.unwrap();
    sandbox.machine_room_did(2).await;
    assert!(sandbox.states().await.is_empty());
    let (code, message) = sandbox
        .complete("fleet-drain", &instance)
        .await
        .unwrap_err();
    assert_eq!(code, "ValidationError");
    let expected = format!("No active Lifecycle Action found with instance ID {instance}");
    assert_eq!(message, expected);

    let gone = sandbox.ecs.describe_container_instances().cluster("dev");
    let gone = gone.container_instances(&arn).send().await.unwrap();
    assert_eq!(gone.container_instances()[0].status(), Some("INACTIVE"));
    let status = sandbox.admin.status().await.unwrap();
    assert!(status.groups[0].instances.is_empty());
    sandbox.world.stop();
}

#[tokio::test]
async fn a_node_may_do_what_its_role_allows_and_nothing_else() {
    let mut sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let status = sandbox.admin.status().await.unwrap();
    let node = &status.groups[0].instances[0];
    let config = sdk_config(&sandbox.url, node.access_key_id.as_ref().unwrap());
    let autoscaling = aws_sdk_autoscaling::Client::new(&config);
    let key = node.access_key_id.as_ref().unwrap();
    let unlimited = sandbox.admin.allow(key, None).await.unwrap_err();
    assert!(
        unlimited.to_string().contains("its role says"),
        "{unlimited}"
    );

    let describe = autoscaling.describe_auto_scaling_groups().send().await;
    let refused = describe.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDenied"));
    let action = "autoscaling:DescribeAutoScalingGroups";
    assert_eq!(
        refused.message().unwrap(),
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/web-role/{} is not authorized to perform: \
             {action} on resource: * because no identity-based policy allows the {action} action",
            node.instance_id
        )
    );
    // Not its group: refused before anybody looks whether there is such a hook.
    let complete = |group: &str| {
        let call = autoscaling.complete_lifecycle_action();
        let call = call
            .auto_scaling_group_name(group)
            .instance_id(&node.instance_id);
        call.lifecycle_hook_name("fleet-launch")
            .lifecycle_action_result("CONTINUE")
            .send()
    };
    let refused = complete("batch").await.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDenied"));
    complete(GROUP).await.unwrap();

    // Allowed by `ecs:*`, but nobody here knows by what.
    let run = aws_sdk_ecs::Client::new(&config).run_task();
    let refused = run.task_definition("x").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDeniedException"));
    assert!(
        refused.message().unwrap().contains("ecs:RunTask"),
        "{refused:?}"
    );
    sandbox.world.stop();
}

#[tokio::test]
async fn credentials_of_no_instance_are_refused_and_a_key_can_be_limited() {
    let sandbox = Sandbox::start().await;
    let describe = async |key: &str| {
        let client = aws_sdk_autoscaling::Client::new(&sdk_config(&sandbox.url, key));
        let described = client.describe_auto_scaling_groups().send().await;
        described
            .map(drop)
            .map_err(|e| e.code().unwrap_or_default().to_owned())
    };
    assert_eq!(
        describe("ASIAGONE").await.unwrap_err(),
        "InvalidClientTokenId"
    );

    let nothing = serde_json::json!({ "Version": "2012-10-17", "Statement": [] });
    sandbox
        .admin
        .allow("AKIALIMITED", Some(nothing))
        .await
        .unwrap();
    assert_eq!(describe("AKIALIMITED").await.unwrap_err(), "AccessDenied");
    assert_eq!(describe(OPERATOR).await, Ok(()));
    sandbox.admin.allow("AKIALIMITED", None).await.unwrap();
    assert_eq!(describe("AKIALIMITED").await, Ok(()));

    let wrong = serde_json::json!({ "Version": "2012-10-17", "Statement": [{ "NotAction": "*" }] });
    let refused = sandbox
        .admin
        .allow("AKIALIMITED", Some(wrong))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("NotAction"), "{refused}");
}

#[tokio::test]
async fn what_is_not_served_is_refused_by_name_at_once() {
    let sandbox = Sandbox::start().await;
    let refresh = sandbox.autoscaling.start_instance_refresh();
    let refresh = refresh
        .auto_scaling_group_name(GROUP)
        .send()
        .await
        .unwrap_err();
    assert_eq!(refresh.code(), Some("InvalidAction"));
    assert_eq!(
        refresh.message(),
        Some("fleet-sandbox does not serve autoscaling:StartInstanceRefresh")
    );
    let settings = sandbox
        .ecs
        .list_account_settings()
        .send()
        .await
        .unwrap_err();
    assert_eq!(settings.code(), Some("UnknownOperationException"));
    let calls = sandbox.admin.calls().await.unwrap();
    assert!(calls.iter().all(|count| count.attempts == 1), "{calls:?}");

    let unknown = sandbox.admin.terminate("i-0", false).await.unwrap_err();
    assert!(unknown.to_string().contains("i-0"), "{unknown}");
}

#[tokio::test]
async fn errors_have_the_variants_that_sdks_know() {
    let sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    let again = sandbox.autoscaling.create_auto_scaling_group();
    let again = again.auto_scaling_group_name(GROUP).min_size(0).max_size(1);
    let again = again
        .vpc_zone_identifier("subnet-a")
        .send()
        .await
        .unwrap_err();
    assert!(again.as_service_error().unwrap().is_already_exists_fault());
    let delete = sandbox.autoscaling.delete_auto_scaling_group();
    let delete = delete.auto_scaling_group_name(GROUP).send().await;
    let delete = delete.map(|_| ()).unwrap_err();
    let delete = delete.as_service_error().unwrap();
    let busy = delete.is_resource_in_use_fault() || delete.is_scaling_activity_in_progress_fault();
    assert!(busy, "{delete:?}");
    let tasks = sandbox
        .ecs
        .list_tasks()
        .cluster("none")
        .send()
        .await
        .unwrap_err();
    assert!(
        tasks
            .as_service_error()
            .unwrap()
            .is_cluster_not_found_exception()
    );
}

#[tokio::test]
async fn faults_apply_as_often_as_asked_and_are_counted_as_attempts() {
    let sandbox = Sandbox::start().await;
    let throttle = FaultRule {
        service: Some("ecs".into()),
        operation: Some("ListClusters".into()),
        code: Some("ThrottlingException".into()),
        times: Some(1),
        ..FaultRule::default()
    };
    let broken = FaultRule {
        service: Some("autoscaling".into()),
        times: Some(1),
        drop: true,
        ..FaultRule::default()
    };
    sandbox.admin.set_faults(&[throttle, broken]).await.unwrap();
    sandbox.ecs.list_clusters().send().await.unwrap();
    sandbox.autoscaling.describe_tags().send().await.unwrap();
    let mut calls = sandbox.admin.calls().await.unwrap();
    calls.retain(|count| count.caller == OPERATOR);
    let counts: Vec<_> = calls.iter().map(|c| (c.calls, c.attempts)).collect();
    assert_eq!(counts, [(1, 2), (1, 2)], "{calls:?}");
    sandbox.admin.reset_calls().await.unwrap();
    assert!(sandbox.admin.calls().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_can_be_lost_before_and_after_the_call_is_served() {
    let sandbox = Sandbox::start().await;
    let lost = |rule: FaultRule| FaultRule {
        writes: true,
        skip: 1,
        times: Some(1),
        ..rule
    };
    let faults = [
        (FaultRule::default(), 2),
        (
            lost(FaultRule {
                drop: true,
                ..FaultRule::default()
            }),
            3,
        ),
        (
            lost(FaultRule {
                drop: true,
                served: true,
                ..FaultRule::default()
            }),
            3,
        ),
        (
            lost(FaultRule {
                truncate: true,
                ..FaultRule::default()
            }),
            3,
        ),
    ];
    for (rule, attempts) in faults {
        sandbox.admin.reset_calls().await.unwrap();
        sandbox.admin.set_faults(&[rule]).await.unwrap();
        for name in ["dev", "prod"] {
            sandbox.ecs.list_clusters().send().await.unwrap();
            let create = sandbox.ecs.create_cluster().cluster_name(name);
            create.send().await.unwrap();
        }
        let calls = sandbox.admin.calls().await.unwrap();
        let created = calls.iter().find(|c| c.operation == "CreateCluster");
        assert_eq!(created.unwrap().attempts, attempts, "{calls:?}");
    }
}

#[tokio::test]
async fn a_call_is_held_until_the_rules_change_or_its_caller_is_gone() {
    let sandbox = Sandbox::start().await;
    let held = async |count: usize| {
        while sandbox.admin.held().await.unwrap().len() != count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    for served in [false, true] {
        let name = format!("served-{served}");
        let rule = FaultRule {
            writes: true,
            served,
            hold: true,
            ..FaultRule::default()
        };
        sandbox.admin.set_faults(&[rule]).await.unwrap();
        let create = || sandbox.ecs.create_cluster().cluster_name(&name).send();
        let killed = tokio::spawn(create());
        held(1).await;
        killed.abort();
        held(0).await;
        let waiting = tokio::spawn(create());
        held(1).await;
        let found = sandbox.ecs.list_clusters().send().await.unwrap();
        let is_there = found.cluster_arns().iter().any(|arn| arn.ends_with(&name));
        assert_eq!(is_there, served);
        sandbox.admin.set_faults(&[]).await.unwrap();
        waiting.await.unwrap().unwrap();
        assert!(sandbox.admin.held().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_machine_on_paper_joins_serves_and_hands_over() {
    let sandbox = Sandbox::with(true).await;
    let cluster = sandbox.ecs.create_cluster().cluster_name("dev");
    cluster.send().await.unwrap();
    sandbox.create_group(1).await;
    let provider = AutoScalingGroupProvider::builder().auto_scaling_group_arn(GROUP);
    let create = sandbox.ecs.create_capacity_provider().name(GROUP);
    let create = create.auto_scaling_group_provider(provider.build().unwrap());
    create.send().await.unwrap();
    let attach = sandbox.ecs.put_cluster_capacity_providers().cluster("dev");
    let attach = attach.capacity_providers(GROUP);
    let attach = attach.set_default_capacity_provider_strategy(Some(Vec::new()));
    attach.send().await.unwrap();
    let node = loop {
        let status = sandbox.admin.status().await.unwrap();
        match status.groups[0].instances.first() {
            Some(node) if node.lifecycle_state == "InService" && node.ecs_connected => {
                break node.clone();
            }
            _ => sleep(Duration::from_millis(5)).await,
        }
    };
    let attribute = |name: &str| node.attributes[name].clone().unwrap();
    assert_eq!(attribute("fleet.health"), "ok");
    assert_eq!(attribute("fleet.group"), "web");
    let tasks = RunTasks {
        cluster: "dev".into(),
        service: "web".into(),
        count: 2,
        image: "busybox".into(),
        // With nowhere to move to they would stay, and so would the node.
        minimum_healthy_percent: Some(0),
        ..RunTasks::default()
    };
    sandbox.admin.run_tasks(&tasks).await.unwrap();
    let running = async |count: Option<usize>| {
        while sandbox.admin.status().await.unwrap().clusters[0]
            .tasks
            .get("RUNNING")
            .copied()
            != count
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    running(Some(2)).await;
    let gone = sandbox.admin.terminate(&node.instance_id, true).await;
    gone.unwrap();
    running(None).await;
    while !sandbox.states().await.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let left = sandbox.ecs.list_container_instances().cluster("dev");
    let left = left.send().await.unwrap();
    assert!(left.container_instance_arns().is_empty());
}

#[tokio::test]
async fn calls_beyond_ecs_limits_are_refused_before_the_model_sees_them() {
    let sandbox = Sandbox::start().await;
    // 100 at once and 20 a second: five hundred take longer than this test.
    let mut refusals = 0;
    for _ in 0..500 {
        let list = sandbox.ecs.list_tasks().cluster("none");
        let disabled = aws_sdk_ecs::config::retry::RetryConfig::disabled();
        let once = aws_sdk_ecs::Config::builder().retry_config(disabled);
        let error = list
            .customize()
            .config_override(once)
            .send()
            .await
            .unwrap_err();
        let error = error.as_service_error().unwrap();
        if error.is_cluster_not_found_exception() {
            continue;
        }
        assert_eq!(error.meta().code(), Some("ThrottlingException"));
        assert_eq!(error.meta().message(), Some("Rate exceeded"));
        refusals += 1;
        if refusals == 3 {
            break;
        }
    }
    assert_eq!(refusals, 3);
    let calls = sandbox.admin.calls().await.unwrap();
    let list = calls.iter().find(|c| c.operation == "ListTasks").unwrap();
    assert_eq!(list.refused, 3);
}

#[tokio::test]
async fn a_warm_pool_is_put_shown_and_deleted() {
    let sandbox = Sandbox::start().await;
    sandbox.create_group(0).await;
    let put = || {
        let put = sandbox.autoscaling.put_warm_pool();
        put.auto_scaling_group_name(GROUP)
            .max_group_prepared_capacity(0)
    };
    let reuse = aws_sdk_autoscaling::types::InstanceReusePolicy::builder();
    let reuse = reuse.reuse_on_scale_in(true).build();
    let refused = put().instance_reuse_policy(reuse).send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationError"));
    put().send().await.unwrap();
    let pool = sandbox.autoscaling.describe_warm_pool();
    let pool = pool.auto_scaling_group_name(GROUP).send().await.unwrap();
    let settings = pool.warm_pool_configuration().unwrap();
    assert_eq!(settings.pool_state().unwrap().as_str(), "Stopped");
    assert!(pool.instances().is_empty());
    let groups = sandbox.autoscaling.describe_auto_scaling_groups();
    let groups = groups.send().await.unwrap();
    assert_eq!(groups.auto_scaling_groups()[0].warm_pool_size(), Some(0));
    let delete = sandbox.autoscaling.delete_warm_pool();
    let delete = delete.auto_scaling_group_name(GROUP);
    delete.force_delete(true).send().await.unwrap();
    let standby = sandbox.autoscaling.enter_standby();
    let standby = standby.auto_scaling_group_name(GROUP).instance_ids("i-0");
    let refused = standby.should_decrement_desired_capacity(true).send().await;
    assert_eq!(refused.unwrap_err().code(), Some("ValidationError"));
}

impl Sandbox {
    fn metadata(&self) -> fleet_sandbox::machines::Metadata {
        let address = Ipv4Addr::new(10, 213, 0, 10);
        self.world.metadata(address).unwrap()
    }

    async fn power(&self, action: PowerAction, unnoticed: bool) -> anyhow::Result<()> {
        let instance = self.metadata().instance_id;
        let power = Power {
            instance,
            action,
            unnoticed,
        };
        self.admin.power(&power).await
    }

    async fn machine(&self) -> Option<String> {
        let status = self.admin.status().await.unwrap();
        status.groups[0].instances[0].machine.clone()
    }
}

#[tokio::test]
async fn a_machine_that_is_stopped_is_replaced_unless_auto_scaling_does_not_look() {
    let mut sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let instance = sandbox.metadata().instance_id;
    sandbox.complete("fleet-launch", &instance).await.unwrap();

    let running = sandbox.power(PowerAction::Start, false).await.unwrap_err();
    assert!(running.to_string().contains("IncorrectInstanceState"));
    sandbox.power(PowerAction::Stop, true).await.unwrap();
    sandbox.machine_room_did(2).await;
    assert_eq!(sandbox.machine().await.as_deref(), Some("stopped"));
    assert_eq!(sandbox.states().await, ["InService"]);
    assert!(sandbox.power(PowerAction::Reboot, false).await.is_err());
    sandbox.power(PowerAction::Start, false).await.unwrap();
    sandbox.machine_room_did(3).await;
    assert_eq!(sandbox.machine().await.as_deref(), Some("running"));

    sandbox.power(PowerAction::Stop, false).await.unwrap();
    sandbox.machine_room_did(4).await;
    assert_eq!(sandbox.states().await[0], "Terminating:Wait");
}

#[tokio::test]
async fn a_machine_terminated_by_hand_is_gone_before_its_hook_opens() {
    let mut sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let instance = sandbox.metadata().instance_id;
    sandbox.complete("fleet-launch", &instance).await.unwrap();
    sandbox.power(PowerAction::Terminate, false).await.unwrap();
    sandbox.machine_room_did(2).await;
    assert_eq!(sandbox.machine().await, None);
    assert_eq!(sandbox.states().await[0], "Terminating:Wait");
}

#[tokio::test]
async fn a_spot_machine_is_stopped_when_its_time_is_up() {
    let mut sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let instance = sandbox.metadata().instance_id;
    assert_eq!(sandbox.metadata().life_cycle, LifeCycle::OnDemand);
    let mut spot = Spot {
        instance,
        action: SpotAction::Hibernate,
        seconds: 120,
    };
    assert!(sandbox.admin.spot(&spot).await.is_err(), "no warning");
    spot.seconds = 0;
    sandbox.admin.spot(&spot).await.unwrap();
    sandbox.machine_room_did(2).await;
    assert_eq!(sandbox.machine().await.as_deref(), Some("stopped"));
    assert_eq!(sandbox.metadata().life_cycle, LifeCycle::Spot);
    assert_eq!(sandbox.metadata().spot_action, None);
}

#[tokio::test]
async fn what_befalls_a_machine_is_in_its_metadata() {
    let mut sandbox = Sandbox::start().await;
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let (admin, instance) = (&sandbox.admin, sandbox.metadata().instance_id);

    let event = Maintain {
        instance: instance.clone(),
        code: MaintenanceCode::InstanceRetirement,
        seconds: 3_600,
    };
    admin.maintain(&event).await.unwrap();
    let events = sandbox.metadata().maintenance;
    assert_eq!((events.len(), events[0].state.as_str()), (1, "active"));
    admin.cancel_maintenance(&instance).await.unwrap();
    assert_eq!(sandbox.metadata().maintenance[0].state, "canceled");
    assert!(admin.cancel_maintenance(&instance).await.is_err());

    let late = ImdsFault::Late { ms: 9_000 };
    admin.set_imds(&instance, late).await.unwrap();
    assert_eq!(sandbox.metadata().imds, late);
    let status = |code| ImdsFault::Status { code };
    assert!(admin.set_imds(&instance, status(200)).await.is_err());
    admin.set_imds(&instance, status(401)).await.unwrap();
    let metadata = sandbox.metadata();
    assert_eq!(
        (metadata.imds, metadata.token_generation),
        (ImdsFault::Ok, 1)
    );

    let drain = ("fleet:drain".to_owned(), "yes".to_owned());
    let mut tags = SetTags {
        instance: instance.clone(),
        set: [drain].into(),
        ..SetTags::default()
    };
    admin.set_tags(&tags).await.unwrap();
    assert_eq!(sandbox.metadata().tags.unwrap()["fleet:drain"], "yes");
    tags.set.clear();
    tags.remove.push("fleet:drain".to_owned());
    admin.set_tags(&tags).await.unwrap();
    let tags = sandbox.metadata().tags.unwrap();
    assert!(!tags.contains_key("fleet:drain"));
}

#[tokio::test]
async fn standalone_tasks_and_deployment_percentages_are_as_asked() {
    let mut sandbox = Sandbox::start().await;
    let cluster = sandbox.ecs.create_cluster().cluster_name("dev");
    cluster.send().await.unwrap();
    sandbox.create_group(1).await;
    sandbox.machine_room_did(1).await;
    let arn = sandbox.register(&sandbox.metadata().instance_id).await;
    // RunTask places nothing on an instance whose agent is not connected.
    sandbox.sync(&arn, 0, vec![]).await;
    let mut tasks = RunTasks {
        cluster: "dev".into(),
        service: "batch".into(),
        count: 12,
        image: "busybox".into(),
        stop_timeout: Some(7),
        standalone: true,
        ..RunTasks::default()
    };
    sandbox.admin.run_tasks(&tasks).await.unwrap();
    let orders = sandbox.sync(&arn, 0, vec![]).await;
    assert_eq!(orders.tasks.len(), 12);
    assert_eq!(orders.tasks[0].containers[0].stop_timeout, Some(7));
    let group = sandbox.ecs.describe_tasks().cluster("dev");
    let group = group.tasks(&orders.tasks[0].task_arn).send().await.unwrap();
    assert_eq!(group.tasks()[0].group(), Some("family:batch"));

    tasks.minimum_healthy_percent = Some(100);
    assert!(sandbox.admin.run_tasks(&tasks).await.is_err(), "no service");
    tasks.standalone = false;
    tasks.maximum_percent = Some(100);
    sandbox.admin.run_tasks(&tasks).await.unwrap();
    let service = sandbox.ecs.describe_services().cluster("dev");
    let service = service.services("batch").send().await.unwrap();
    let deployment = service.services()[0].deployment_configuration().unwrap();
    assert_eq!(deployment.minimum_healthy_percent(), Some(100));
    assert_eq!(deployment.maximum_percent(), Some(100));
}
