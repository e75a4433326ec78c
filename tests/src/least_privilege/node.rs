//! A node's role.

use super::*;

const INSTANCE: &str = "i-0123456789abcdef0";

const FILE: &str = r#"
[fleet]
name = "shop"
region = "eu-central-1"
id = "f-0123456789abcdef"

[network]
vpc = "vpc-0123456789abcdef0"
subnets = ["subnet-0123456789abcdef0"]

[groups.web]
instance_types = ["m7i.large"]
min = 0
max = 3
health = { replacement = "asg" }
ecs = { ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM = "ec2_instance" }

[groups.batch]
instance_types = ["m7i.large"]
min = 0
max = 3
sidecars = []

[sidecars.node-logs]
image = "210987654321.dkr.ecr.eu-central-1.amazonaws.com/ops/node-logs:1"
secrets = { TOKEN = "secretsmanager:shop/token" }

[environments.dev]
"#;

/// More of the file: nodes are told apart.
const APART: &str = "\n[iam]\nscope = \"instance\"\n";

/// An account with two groups. Container instance 1 is this node's, 2 another's, and 3 joined before
/// nodes were told apart.
struct Account;

impl Facts for Account {
    fn region(&self) -> &str {
        REGION
    }

    fn account_id(&self) -> &str {
        ACCOUNT
    }

    fn tags(&self, arn: &str) -> Tags {
        let of = |id: &str| Tags::from([("fleet:instance".to_owned(), instance_arn(id))]);
        match arn.rsplit('/').next() {
            Some("1") => of(INSTANCE),
            Some("2") => of("i-of-another"),
            _ => Tags::new(),
        }
    }

    fn group_arn(&self, name: &str) -> Option<String> {
        let id = "8f0d2a4e-0000-0000-0000-000000000000";
        Some(arn(
            "autoscaling",
            &format!("autoScalingGroup:{id}:autoScalingGroupName/{name}"),
        ))
    }

    fn group_of(&self, instance_id: &str) -> Option<String> {
        let group = if instance_id == INSTANCE {
            "shop-dev-web"
        } else {
            "shop-dev-batch"
        };
        Some(group.to_owned())
    }

    fn launch_template(&self, _name_or_id: &str) -> Option<TemplateFacts> {
        None
    }
}

fn instance_arn(id: &str) -> String {
    arn("ec2", &format!("instance/{id}"))
}

fn policy(file: &str, group: &str) -> Value {
    let desired = desired(file);
    let group = desired.groups.iter().find(|found| found.name == group);
    group.expect("a group").role.policy(ACCOUNT)
}

fn asked(statement: &'static str, name: &'static str, body: Value) -> Step {
    let mut step = call(&Account, statement, name, body);
    let own = instance_arn(INSTANCE);
    let with_own = |request: Request| request.with("ec2:SourceInstanceARN", &own);
    step.asks = step.asks.into_iter().map(with_own).collect();
    step
}

fn of_group(name: &str) -> Value {
    json!({ "AutoScalingGroupName": name, "LifecycleHookName": "fleet-drain", "InstanceId": INSTANCE })
}

fn of_instance(cluster: &str) -> Value {
    of_container_instance(cluster, "1")
}

fn of_container_instance(cluster: &str, id: &str) -> Value {
    json!({
        "cluster": cluster,
        "containerInstances": [id],
        "containerInstance": id,
        "attributes": [{ "name": "fleet.health", "targetId": id }],
        "tasks": ["a"],
    })
}

fn joining_as(instance: &str) -> Value {
    json!({
        "cluster": "shop-dev",
        "tags": [{ "key": "fleet:instance", "value": instance_arn(instance) }],
    })
}

/// All that the ECS agent, fleet-agent and the SSM agent do, from the launch to the end.
fn life() -> Vec<Step> {
    let cluster = || json!({ "cluster": "shop-dev" });
    let parameter = |name: &str| json!({ "Name": name });
    vec![
        asked("Unscoped", "ecs:DiscoverPollEndpoint", json!({})),
        asked("JoinCluster", "ecs:RegisterContainerInstance", cluster()),
        asked("ContainerInstances", "ecs:Poll", of_instance("shop-dev")),
        asked(
            "ContainerInstances",
            "ecs:StartTelemetrySession",
            of_instance("shop-dev"),
        ),
        asked("JoinCluster", "ecs:SubmitTaskStateChange", cluster()),
        asked("JoinCluster", "ecs:SubmitContainerStateChange", cluster()),
        asked("JoinCluster", "ecs:SubmitAttachmentStateChanges", cluster()),
        asked("InstanceTags", "ec2:DescribeTags", json!({})),
        only_the_last(asked(
            "ContainerInstanceTags",
            "ecs:RegisterContainerInstance",
            joining_as(INSTANCE),
        )),
        asked("Unscoped", "ecr:GetAuthorizationToken", json!({})),
        unseen(
            "SidecarImages",
            "ecr:BatchGetImage",
            "arn:aws:ecr:eu-central-1:210987654321:repository/ops/node-logs",
        ),
        unseen(
            "SidecarImages",
            "ecr:GetDownloadUrlForLayer",
            "arn:aws:ecr:eu-central-1:210987654321:repository/ops/node-logs",
        ),
        only_the_first(asked(
            "SidecarParameters",
            "ssm:GetParameter",
            parameter("/aws/reference/secretsmanager/shop/token"),
        )),
        only_the_last(asked(
            "SidecarSecrets",
            "ssm:GetParameter",
            parameter("/aws/reference/secretsmanager/shop/token"),
        )),
        asked(
            "LiveSettings",
            "ssm:GetParameter",
            parameter("/fleet/shop/dev/web/agent"),
        ),
        asked(
            "OwnContainerInstance",
            "ecs:DescribeContainerInstances",
            of_instance("shop-dev"),
        ),
        asked(
            "OwnContainerInstance",
            "ecs:PutAttributes",
            of_instance("shop-dev"),
        ),
        asked(
            "LifecycleActions",
            "autoscaling:RecordLifecycleActionHeartbeat",
            of_group("shop-dev-web"),
        ),
        asked(
            "LifecycleActions",
            "autoscaling:CompleteLifecycleAction",
            of_group("shop-dev-web"),
        ),
        asked(
            "SystemsManager",
            "ssm:PutInventory",
            json!({ "Items": [{ "TypeName": "Custom:FleetNode" }] }),
        ),
        unseen("SystemsManager", "ssm:UpdateInstanceInformation", "*"),
        unseen(
            "SystemsManagerMessages",
            "ssmmessages:CreateControlChannel",
            "*",
        ),
        asked(
            "OwnContainerInstance",
            "ecs:UpdateContainerInstancesState",
            of_instance("shop-dev"),
        ),
        asked(
            "ContainerInstances",
            "ecs:ListTasks",
            of_instance("shop-dev"),
        ),
        asked("Tasks", "ecs:DescribeTasks", of_instance("shop-dev")),
        asked("FleetGuard", "ecs:ListContainerInstances", cluster()),
        asked("FleetGuard", "ecs:ListAttributes", cluster()),
        asked(
            "Replacement",
            "autoscaling:SetInstanceHealth",
            json!({ "InstanceId": INSTANCE }),
        ),
    ]
}

/// Of a call that several statements allow together, what one of them is for.
fn only_the_first(mut step: Step) -> Step {
    step.asks.truncate(1);
    step
}

fn only_the_last(mut step: Step) -> Step {
    step.asks.drain(..step.asks.len() - 1);
    step
}

#[test]
fn a_node_s_whole_life_passes_and_every_statement_is_needed() {
    each_statement_is_needed(&policy(FILE, "web"), &life());
    each_statement_is_needed(&policy(&format!("{FILE}{APART}"), "web"), &life());
}

#[test]
fn told_apart_a_node_acts_on_its_own_container_instance_alone() {
    let mut steps = vec![
        only_the_first(asked(
            "",
            "ecs:RegisterContainerInstance",
            joining_as("i-of-another"),
        )),
        only_the_last(asked(
            "",
            "ecs:RegisterContainerInstance",
            joining_as("i-of-another"),
        )),
    ];
    for id in ["2", "3"] {
        let named = arn("ecs", &format!("container-instance/shop-dev/{id}"));
        let tags = joining_as(INSTANCE)["tags"].clone();
        steps.extend([
            asked(
                "",
                "ecs:UpdateContainerInstancesState",
                of_container_instance("shop-dev", id),
            ),
            asked(
                "",
                "ecs:PutAttributes",
                of_container_instance("shop-dev", id),
            ),
            asked(
                "",
                "ecs:DescribeContainerInstances",
                of_container_instance("shop-dev", id),
            ),
            asked(
                "",
                "ecs:TagResource",
                json!({ "resourceArn": named, "tags": tags }),
            ),
        ]);
    }
    let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
    assert_eq!(
        refused(&policy(&format!("{FILE}{APART}"), "web"), &steps),
        names
    );
    let within_the_cluster = [
        "ecs:RegisterContainerInstance",
        "ecs:RegisterContainerInstance",
        "ecs:TagResource",
        "ecs:TagResource",
    ];
    assert_eq!(
        refused(&policy(FILE, "web"), &steps),
        within_the_cluster[2..]
    );
}

#[test]
fn a_node_of_one_group_does_nothing_in_another() {
    let steps = [
        asked(
            "",
            "autoscaling:CompleteLifecycleAction",
            of_group("shop-dev-batch"),
        ),
        asked(
            "",
            "autoscaling:RecordLifecycleActionHeartbeat",
            of_group("shop-dev-batch"),
        ),
        asked(
            "",
            "autoscaling:SetInstanceHealth",
            json!({ "InstanceId": "i-of-batch" }),
        ),
        asked(
            "",
            "ssm:GetParameter",
            json!({ "Name": "/fleet/shop/dev/batch/agent" }),
        ),
        // Its own, but only to read: writing it is root on every node.
        asked(
            "",
            "ssm:PutParameter",
            json!({ "Name": "/fleet/shop/dev/web/agent" }),
        ),
        // Its own group, whose nodes only it may condemn, and only where that was asked for.
        asked(
            "",
            "autoscaling:TerminateInstanceInAutoScalingGroup",
            json!({ "InstanceId": INSTANCE }),
        ),
    ];
    let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
    assert_eq!(refused(&policy(FILE, "web"), &steps), names);

    let condemns = [asked(
        "",
        "autoscaling:SetInstanceHealth",
        json!({ "InstanceId": "i-of-batch" }),
    )];
    assert_eq!(refused(&policy(FILE, "batch"), &condemns).len(), 1);
}

#[test]
fn a_node_does_nothing_outside_its_cluster() {
    let mut steps = Vec::new();
    for cluster in ["shop-prod", "default", "shop-dev-2"] {
        steps.extend([
            asked(
                "",
                "ecs:RegisterContainerInstance",
                json!({ "cluster": cluster }),
            ),
            asked(
                "",
                "ecs:UpdateContainerInstancesState",
                of_instance(cluster),
            ),
            asked("", "ecs:PutAttributes", of_instance(cluster)),
            asked("", "ecs:DescribeContainerInstances", of_instance(cluster)),
            asked("", "ecs:ListTasks", of_instance(cluster)),
            asked("", "ecs:DescribeTasks", of_instance(cluster)),
            asked("", "ecs:ListAttributes", json!({ "cluster": cluster })),
            asked("", "ecs:Poll", of_instance(cluster)),
        ]);
    }
    // An ARN of elsewhere beside the right cluster.
    let elsewhere = arn("ecs", "container-instance/shop-prod/1");
    let crossed = json!({ "cluster": "shop-dev", "attributes": [{ "targetId": elsewhere }] });
    let named = |name: &str| json!({ "resourceArn": name, "tags": [{ "key": "k", "value": "v" }] });
    steps.extend([
        asked("", "ecs:PutAttributes", crossed),
        asked("", "ecs:TagResource", named(&elsewhere)),
        // Nor tags anything in it that exists.
        asked(
            "",
            "ecs:TagResource",
            named(&arn("ecs", "container-instance/shop-dev/1")),
        ),
        asked(
            "",
            "ecs:CreateCluster",
            json!({ "clusterName": "shop-dev" }),
        ),
        asked(
            "",
            "ecs:StopTask",
            json!({ "cluster": "shop-dev", "task": "2" }),
        ),
        asked(
            "",
            "ecs:DeregisterContainerInstance",
            json!({ "cluster": "shop-dev" }),
        ),
    ]);
    let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
    assert_eq!(refused(&policy(FILE, "web"), &steps), names);
}

/// Whence its agent is, in another form of the file.
fn policy_with(source: &str) -> Value {
    policy(
        &format!("{FILE}[environments.dev.agent]\nsource = {source}\n"),
        "web",
    )
}

fn gets(statement: &'static str, bucket: &str, key: &str) -> Step {
    asked(
        statement,
        "s3:GetObject",
        json!({ "Bucket": bucket, "Key": key }),
    )
}

#[test]
fn a_node_reads_the_agent_that_it_is_to_install_and_nothing_else() {
    let sum = "ab".repeat(32);
    let named = policy_with(&format!(
        "{{ s3 = \"s3://releases/fleet-agent/1\", sha256 = \"{sum}\" }}"
    ));
    let mut steps = life();
    steps.push(gets("InstallAgent", "releases", "fleet-agent/1"));
    each_statement_is_needed(&named, &steps);
    let others = [
        gets("", "releases", "fleet-agent/2"),
        gets("", "releases", "fleet-agent"),
        gets("", "others", "fleet-agent/1"),
        asked(
            "",
            "s3:PutObject",
            json!({ "Bucket": "releases", "Key": "fleet-agent/1" }),
        ),
        asked("", "s3:ListObjectsV2", json!({ "Bucket": "releases" })),
    ];
    assert_eq!(refused(&named, &others).len(), others.len());

    let file = format!("{{ file = \"fleet-agent\", sha256 = \"{sum}\" }}");
    let own = desired(&format!(
        "{FILE}[environments.dev.agent]\nsource = {file}\n"
    ))
    .bucket;
    let upload = own.upload.expect("a file");
    let mut steps = life();
    steps.push(gets("InstallAgent", &own.name, &upload.key));
    // That of the version before, which nodes may still be launched with.
    let before = upload.key.replace("ab", "cd");
    steps.push(gets("InstallAgent", &own.name, &before));
    each_statement_is_needed(&policy_with(&file), &steps);
    let others = [
        gets("", &own.name, "else"),
        asked(
            "",
            "s3:PutObject",
            json!({ "Bucket": own.name, "Key": upload.key }),
        ),
        asked("", "s3:ListObjectVersions", json!({ "Bucket": own.name })),
    ];
    assert_eq!(refused(&policy_with(&file), &others).len(), others.len());
    // Who needs nothing of S3 may nothing there.
    let any = [gets("", &own.name, &upload.key)];
    assert_eq!(refused(&policy(FILE, "web"), &any).len(), 1);
}
