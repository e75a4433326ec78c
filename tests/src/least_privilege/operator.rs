//! Whoever runs fleet-bootstrap.

use super::*;

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
spot = { percent = 50 }
policies = ["arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy"]

[groups.batch]
instance_types = ["m7i.large"]
min = 0
max = 3
role = "ecs-nodes"

[environments.dev]
[environments.prod]
"#;

/// An account whose every resource carries these tags.
struct Account {
    owner: &'static str,
    environment: &'static str,
}

const OURS: Account = Account {
    owner: "f-0123456789abcdef",
    environment: "dev",
};

impl Facts for Account {
    fn region(&self) -> &str {
        REGION
    }

    fn account_id(&self) -> &str {
        ACCOUNT
    }

    fn tags(&self, arn: &str) -> Tags {
        if arn.ends_with(&format!(":cluster/{ADOPTED}")) {
            return Tags::new();
        }
        let tags = [
            ("fleet:owner", self.owner),
            ("fleet:environment", self.environment),
        ];
        tags.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn group_arn(&self, _name: &str) -> Option<String> {
        None
    }

    fn group_of(&self, _instance_id: &str) -> Option<String> {
        None
    }

    fn launch_template(&self, _name_or_id: &str) -> Option<TemplateFacts> {
        Some(TemplateFacts {
            id: "lt-0123456789abcdef0".to_owned(),
            role: Some("shop-dev-web-eu-central-1".to_owned()),
        })
    }
}

fn policy() -> Value {
    desired(FILE).operator_policy(ACCOUNT)
}

/// A cluster that carries no tags of ours.
const ADOPTED: &str = "main";

/// The same environment in that cluster.
fn policy_of_adopting() -> Value {
    let file = format!("{FILE}\n[environments.dev.cluster]\nadopt = \"{ADOPTED}\"\n");
    desired(&file).operator_policy(ACCOUNT)
}

/// The tags that fleet-bootstrap gives what it creates, in the spelling of each service.
fn tags(key: &str, value: &str) -> Value {
    let tags = OURS.tags("").into_iter();
    tags.map(|(name, text)| json!({ key: name, value: text }))
        .collect()
}

/// The parts of a call that one statement allows.
fn part(statement: &'static str, name: &'static str, body: Value, actions: &[&str]) -> Step {
    let mut step = call(&OURS, statement, name, body);
    step.asks
        .retain(|request| actions.contains(&request.action.as_str()));
    assert!(!step.asks.is_empty(), "{name} asks for none of {actions:?}");
    step
}

fn whole(statement: &'static str, name: &'static str, body: Value) -> Step {
    call(&OURS, statement, name, body)
}

/// One call at least of all that fleet-bootstrap does by each statement.
fn work() -> Vec<Step> {
    let mut steps = work_in("shop-dev");
    steps.extend(work_in_own_bucket());
    steps
}

/// ... in a cluster that somebody else has made, and keeps.
fn work_in_adopted() -> Vec<Step> {
    let mut steps = work_in(ADOPTED);
    let is_its_owners =
        |step: &Step| OWNERS.contains(&step.call) && step.statement != "ServiceLinkedRoles";
    steps.retain(|step| !is_its_owners(step));
    for step in &mut steps {
        if [
            "ecs:DeregisterContainerInstance",
            "ecs:PutClusterCapacityProviders",
        ]
        .contains(&step.call)
        {
            step.statement = "AdoptedCluster";
        }
    }
    steps.push(whole(
        "ChangeInEcs",
        "ecs:TagResource",
        json!({ "resourceArn": arn("ecs", "capacity-provider/shop-dev-web"), "tags": tags("key", "value") }),
    ));
    // Whether there is one of its own.
    let own = json!({ "clusters": ["shop-dev"] });
    steps.push(whole("Read", "ecs:DescribeClusters", own));
    steps.extend(work_in_own_bucket());
    steps
}

/// What only the owner of a cluster does to it.
const OWNERS: &[&str] = &[
    "ecs:CreateCluster",
    "ecs:DeleteCluster",
    "ecs:DeleteService",
    "ecs:StopTask",
    "ecs:TagResource",
    "ecs:UpdateCluster",
];

fn work_in(name: &str) -> Vec<Step> {
    let role = json!({ "RoleName": "shop-dev-web-eu-central-1", "Tags": tags("Key", "Value") });
    let profile = json!({
        "InstanceProfileName": "shop-dev-web-eu-central-1",
        "RoleName": "shop-dev-web-eu-central-1",
        "Tags": tags("Key", "Value"),
    });
    let firewall = json!({
        "VpcId": "vpc-0123456789abcdef0",
        "TagSpecification": [{ "Tag": tags("Key", "Value") }],
    });
    let template = json!({ "TagSpecification": [{ "Tag": tags("Key", "Value") }] });
    let mine =
        json!({ "LaunchTemplateName": "shop-dev-web", "GroupId": "sg-1", "InstanceId": "i-1" });
    let group_tags: Vec<Value> = OURS
        .tags("")
        .into_iter()
        .map(|(key, value)| json!({ "ResourceId": "shop-dev-web", "Key": key, "Value": value }))
        .collect();
    let group = json!({
        "AutoScalingGroupName": "shop-dev-web",
        "Tags": group_tags,
        "MixedInstancesPolicy": {
            "LaunchTemplate": {
                "LaunchTemplateSpecification": { "LaunchTemplateName": "shop-dev-web", "Version": "1" },
            },
            "InstancesDistribution": { "OnDemandBaseCapacity": "0" },
        },
    });
    let cluster = json!({ "cluster": name, "clusterName": name, "clusters": [name] });
    let created = json!({
        "name": "shop-dev-web",
        "clusterName": name,
        "autoScalingGroupProvider": { "autoScalingGroupArn": "shop-dev-web" },
        "tags": tags("key", "value"),
    });
    let provider = json!({
        "name": "shop-dev-web",
        "capacityProvider": "shop-dev-web",
        "capacityProviders": ["shop-dev-web"],
    });
    let inside = json!({
        "cluster": name,
        "services": ["a"],
        "service": "a",
        "tasks": ["b"],
        "task": "b",
        "containerInstances": ["c"],
    });
    let parameter = json!({
        "Name": "/fleet/shop/dev/web/agent",
        "Names": ["/fleet/shop/dev/web/agent"],
        "ResourceId": "/fleet/shop/dev/web/agent",
        "Tags": tags("Key", "Value"),
    });
    let image = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id";
    let given =
        json!({ "RoleName": "ecs-nodes", "InstanceProfileName": "shop-dev-batch-eu-central-1" });
    let attached = json!({
        "RoleName": "shop-dev-web-eu-central-1",
        "PolicyArn": "arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy",
    });
    let service_role = json!({ "RoleName": "AWSServiceRoleForECS" });
    let mut steps = vec![
        whole("GivenRoles", "iam:GetRole", given.clone()),
        part(
            "GivenRoles",
            "iam:AddRoleToInstanceProfile",
            given,
            &["iam:PassRole"],
        ),
        whole("AttachPolicies", "iam:AttachRolePolicy", attached),
        whole("LookAtServiceRoles", "iam:GetRole", service_role),
        whole("Images", "ssm:GetParameters", json!({ "Names": [image] })),
        part(
            "PassRoles",
            "iam:AddRoleToInstanceProfile",
            profile.clone(),
            &["iam:PassRole"],
        ),
        part(
            "InstanceProfiles",
            "iam:AddRoleToInstanceProfile",
            profile.clone(),
            &["iam:AddRoleToInstanceProfile"],
        ),
        part(
            "ServiceLinkedRoles",
            "ecs:CreateCluster",
            created.clone(),
            &["iam:CreateServiceLinkedRole"],
        ),
        part(
            "ServiceLinkedRoles",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            &["iam:CreateServiceLinkedRole"],
        ),
        part(
            "PassRoles",
            "autoscaling:UpdateAutoScalingGroup",
            group.clone(),
            &["iam:PassRole"],
        ),
        part(
            "CreateInEc2",
            "ec2:CreateLaunchTemplate",
            template.clone(),
            &["ec2:CreateLaunchTemplate"],
        ),
        part(
            "TagInEc2",
            "ec2:CreateLaunchTemplate",
            template,
            &["ec2:CreateTags"],
        ),
        part(
            "TagInEc2",
            "ec2:CreateSecurityGroup",
            firewall.clone(),
            &["ec2:CreateTags"],
        ),
        part(
            "TagInEc2",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            &["ec2:CreateTags"],
        ),
        one(
            "CreateInEc2",
            "ec2:CreateSecurityGroup",
            firewall.clone(),
            "security-group",
        ),
        one("InTheNetwork", "ec2:CreateSecurityGroup", firewall, "vpc"),
        one(
            "LaunchFromOurTemplates",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            "launch-template",
        ),
        one(
            "Launch",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            "instance",
        ),
        one(
            "Launch",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            "image",
        ),
        one(
            "Launch",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            "subnet",
        ),
        part(
            "CreateGroups",
            "autoscaling:CreateAutoScalingGroup",
            group.clone(),
            &[
                "autoscaling:CreateAutoScalingGroup",
                "autoscaling:CreateOrUpdateTags",
            ],
        ),
        part(
            "ChangeGroups",
            "autoscaling:UpdateAutoScalingGroup",
            group.clone(),
            &["autoscaling:UpdateAutoScalingGroup"],
        ),
        part(
            "ChangeGroups",
            "ecs:CreateCapacityProvider",
            created.clone(),
            &["autoscaling:CreateOrUpdateTags"],
        ),
        part(
            "CreateInEcs",
            "ecs:CreateCluster",
            created.clone(),
            &["ecs:CreateCluster"],
        ),
        part(
            "CreateInEcs",
            "ecs:CreateCapacityProvider",
            created.clone(),
            &["ecs:CreateCapacityProvider"],
        ),
        part(
            "TagInEcs",
            "ecs:CreateCluster",
            created.clone(),
            &["ecs:TagResource"],
        ),
        part(
            "TagInEcs",
            "ecs:CreateCapacityProvider",
            created,
            &["ecs:TagResource"],
        ),
        whole(
            "ChangeInEcs",
            "ecs:TagResource",
            json!({ "resourceArn": arn("ecs", &format!("cluster/{name}")), "tags": tags("key", "value") }),
        ),
        whole(
            "ChangeInEc2",
            "ec2:CreateTags",
            json!({ "ResourceId": ["i-1"], "Tag": [{ "Key": "fleet:drain" }] }),
        ),
        whole(
            "ChangeInEc2",
            "ec2:DeleteTags",
            json!({ "ResourceId": ["i-1"], "Tag": [{ "Key": "fleet:drain" }] }),
        ),
    ];
    let alarm = json!({
        "AlarmName": "shop-dev-web-fleet-scale-in",
        "AlarmNames": ["shop-dev-web-fleet-scale-in"],
        "ResourceARN": arn("cloudwatch", "alarm:shop-dev-web-fleet-scale-in"),
    });
    let simple: [(&'static str, &[&'static str], &Value); 14] = [
        (
            "Look",
            &[
                "autoscaling:DescribeAccountLimits",
                "autoscaling:DescribeAutoScalingGroups",
                "autoscaling:DescribeAutoScalingInstances",
                "autoscaling:DescribeLifecycleHooks",
                "autoscaling:DescribePolicies",
                "autoscaling:DescribeScalingActivities",
                "autoscaling:DescribeScheduledActions",
                "ec2:DescribeImages",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInstances",
                "ec2:DescribeKeyPairs",
                "ec2:DescribeLaunchTemplates",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcEndpoints",
                "iam:GetAccountSummary",
            ],
            &Value::Null,
        ),
        (
            "LiveSettings",
            &[
                "ssm:AddTagsToResource",
                "ssm:DeleteParameter",
                "ssm:GetParameters",
                "ssm:ListTagsForResource",
                "ssm:PutParameter",
            ],
            &parameter,
        ),
        (
            "Roles",
            &[
                "iam:CreateRole",
                "iam:DeleteRole",
                "iam:DeleteRolePermissionsBoundary",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:PutRolePermissionsBoundary",
                "iam:PutRolePolicy",
                "iam:TagRole",
                "iam:UpdateAssumeRolePolicy",
            ],
            &role,
        ),
        (
            "InstanceProfiles",
            &[
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
            ],
            &profile,
        ),
        (
            "ChangeInEc2",
            &[
                "ec2:CreateLaunchTemplateVersion",
                "ec2:DeleteLaunchTemplate",
                "ec2:DeleteSecurityGroup",
                "ec2:GetConsoleOutput",
                "ec2:RevokeSecurityGroupIngress",
            ],
            &mine,
        ),
        (
            "ChangeGroups",
            &[
                "autoscaling:CompleteLifecycleAction",
                "autoscaling:DeleteAutoScalingGroup",
                "autoscaling:DeletePolicy",
                "autoscaling:DeleteScheduledAction",
                "autoscaling:DeleteTags",
                "autoscaling:DeleteWarmPool",
                "autoscaling:DisableMetricsCollection",
                "autoscaling:EnableMetricsCollection",
                "autoscaling:PutLifecycleHook",
                "autoscaling:PutScalingPolicy",
                "autoscaling:PutScheduledUpdateGroupAction",
                "autoscaling:PutWarmPool",
                "autoscaling:SetInstanceProtection",
            ],
            &group,
        ),
        (
            "Read",
            &[
                "cloudwatch:DescribeAlarms",
                "cloudwatch:ListTagsForResource",
            ],
            &alarm,
        ),
        ("ChangeGroups", &["cloudwatch:DeleteAlarms"], &alarm),
        (
            "Read",
            &["ecs:DescribeClusters", "ecs:ListContainerInstances"],
            &cluster,
        ),
        ("Read", &["ecs:DescribeCapacityProviders"], &provider),
        (
            "ListInCluster",
            &["ecs:ListServices", "ecs:ListTasks"],
            &inside,
        ),
        (
            "WorkInCluster",
            &[
                "ecs:DeleteService",
                "ecs:DescribeContainerInstances",
                "ecs:DescribeServices",
                "ecs:DescribeTasks",
                "ecs:StopTask",
            ],
            &inside,
        ),
        (
            "ChangeInEcs",
            &[
                "ecs:DeleteCluster",
                "ecs:DeregisterContainerInstance",
                "ecs:PutClusterCapacityProviders",
                "ecs:UpdateCluster",
            ],
            &cluster,
        ),
        (
            "ChangeInEcs",
            &["ecs:DeleteCapacityProvider", "ecs:UpdateCapacityProvider"],
            &provider,
        ),
    ];
    for (statement, names, body) in simple {
        steps.extend(
            names
                .iter()
                .map(|name| whole(statement, name, body.clone())),
        );
    }
    steps
}

/// What a call asks about one kind of resource, its creation's tags left out.
fn one(statement: &'static str, name: &'static str, body: Value, kind: &str) -> Step {
    let mut step = call(&OURS, statement, name, body);
    let of_kind = |request: &Request| request.resource.contains(&format!(":{kind}/"));
    step.asks
        .retain(|request| of_kind(request) && request.action != "ec2:CreateTags");
    assert!(!step.asks.is_empty(), "{name} asks nothing about a {kind}");
    step
}

#[test]
fn the_operator_s_whole_work_passes_and_every_statement_is_needed() {
    each_statement_is_needed(&policy(), &work());
}

#[test]
fn in_an_adopted_cluster_it_passes_too_and_what_is_its_owners_does_not() {
    let policy = policy_of_adopting();
    each_statement_is_needed(&policy, &work_in_adopted());
    every_action_is_needed(&policy, &work_in_adopted());
    let mut steps = work_in(ADOPTED);
    steps.retain(|step| OWNERS.contains(&step.call) && step.statement != "ServiceLinkedRoles");
    let elsewhere = json!({ "cluster": "others", "capacityProviders": [] });
    steps.push(whole("", "ecs:PutClusterCapacityProviders", elsewhere));
    let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
    let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(distinct.len(), OWNERS.len() + 1);
    assert_eq!(refused(&policy, &steps), names);
}

#[test]
fn every_action_of_the_policy_is_one_that_fleet_bootstrap_needs() {
    every_action_is_needed(&policy(), &work());
}

fn every_action_is_needed(policy: &Value, steps: &[Step]) {
    let asked: Vec<&str> = steps
        .iter()
        .flat_map(|step| &step.asks)
        .map(|request| request.action.as_str())
        .collect();
    let statements = policy["Statement"].as_array().expect("statements");
    for action in statements
        .iter()
        .flat_map(|s| s["Action"].as_array().expect("actions"))
    {
        let action = action.as_str().expect("an action");
        assert!(asked.contains(&action), "nothing needs {action}");
    }
}

/// Of a cluster with one group: its own alarms, and no others.
#[test]
fn with_steps_the_operator_may_set_the_alarms_of_his_groups() {
    let (before, batch) = FILE.split_once("[groups.batch]").expect("a group");
    let (_, after) = batch
        .split_once("[environments.dev]")
        .expect("an environment");
    let lone = before.replace("min = 0", "min = 1\nstep_scaling = {}");
    let steps = desired(&format!("{lone}[environments.dev]{after}"));
    let set = |group: &str| {
        let name = format!("shop-dev-{group}-fleet-scale-out");
        let arn = arn("cloudwatch", &format!("alarm:{name}"));
        [
            whole(
                "SetAlarms",
                "cloudwatch:PutMetricAlarm",
                json!({ "AlarmName": name, "Tags": tags("Key", "Value") }),
            ),
            whole(
                "SetAlarms",
                "cloudwatch:TagResource",
                json!({ "ResourceARN": arn, "Tags": tags("Key", "Value") }),
            ),
        ]
    };
    let policy = steps.operator_policy(ACCOUNT);
    assert_eq!(refused(&policy, &set("web")), [""; 0]);
    let both = ["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"];
    assert_eq!(refused(&policy, &set("other")), both);
    let managed = desired(FILE).operator_policy(ACCOUNT);
    assert_eq!(refused(&managed, &set("web")), both);
}

/// Another environment of the same fleet, another fleet in the same account, and a role of neither.
#[test]
fn an_operator_of_one_environment_changes_nothing_of_another() {
    let policy = policy();
    for theirs in [
        Account {
            owner: "f-0123456789abcdef",
            environment: "prod",
        },
        Account {
            owner: "f-fedcba9876543210",
            environment: "dev",
        },
    ] {
        let steps = [
            call(
                &theirs,
                "",
                "ec2:CreateTags",
                json!({ "ResourceId": ["i-1"], "Tag": [{ "Key": "fleet:drain" }] }),
            ),
            call(
                &theirs,
                "",
                "ec2:DeleteSecurityGroup",
                json!({ "GroupId": "sg-1" }),
            ),
            call(
                &theirs,
                "",
                "ec2:CreateLaunchTemplateVersion",
                json!({ "LaunchTemplateName": "shop-prod-web" }),
            ),
            call(
                &theirs,
                "",
                "ec2:GetConsoleOutput",
                json!({ "InstanceId": "i-1" }),
            ),
            call(
                &theirs,
                "",
                "autoscaling:DeleteAutoScalingGroup",
                json!({ "AutoScalingGroupName": "shop-dev-web" }),
            ),
            call(
                &theirs,
                "",
                "autoscaling:UpdateAutoScalingGroup",
                json!({ "AutoScalingGroupName": "shop-prod-web" }),
            ),
            call(
                &theirs,
                "",
                "cloudwatch:DeleteAlarms",
                json!({ "AlarmNames": ["shop-dev-web-fleet-scale-in"] }),
            ),
            call(
                &theirs,
                "",
                "ecs:DeleteCluster",
                json!({ "cluster": "shop-dev" }),
            ),
            call(
                &theirs,
                "",
                "ecs:UpdateCapacityProvider",
                json!({ "name": "shop-dev-web" }),
            ),
        ];
        let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
        assert_eq!(refused(&policy, &steps), names);
    }
    let untagged = json!({ "clusterName": "shop-dev" });
    let steps = [
        whole("", "ecs:CreateCluster", untagged),
        whole(
            "",
            "ecs:StopTask",
            json!({ "cluster": "shop-prod", "task": "1" }),
        ),
        whole(
            "",
            "ssm:PutParameter",
            json!({ "Name": "/fleet/shop/prod/web/agent" }),
        ),
        whole(
            "",
            "iam:PutRolePolicy",
            json!({ "RoleName": "shop-prod-web-eu-central-1" }),
        ),
        whole("", "iam:PutRolePolicy", json!({ "RoleName": "admin" })),
        whole(
            "",
            "iam:AttachRolePolicy",
            json!({
                "RoleName": "shop-dev-web-eu-central-1",
                "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess",
            }),
        ),
        whole(
            "",
            "iam:AddRoleToInstanceProfile",
            json!({ "InstanceProfileName": "shop-dev-web-eu-central-1", "RoleName": "admin" }),
        ),
        whole(
            "",
            "iam:CreateServiceLinkedRole",
            json!({ "AWSServiceName": "rds.amazonaws.com" }),
        ),
        unseen("", "ec2:RunInstances", &arn("ec2", "instance/*")),
    ];
    let names: Vec<&str> = steps.iter().map(|step| step.call).collect();
    assert_eq!(refused(&policy, &steps), names);
}

/// The environment with this source of the agent.
fn with_source(source: &str) -> Desired {
    desired(&format!(
        "{FILE}\n[environments.dev.agent]\nsource = {source}\n"
    ))
}

fn work_in_own_bucket() -> Vec<Step> {
    work_in_bucket(&desired(FILE).bucket.name, "fleet-agent/1")
}

/// What is done about the bucket that the agent is sent to, and by `down` about one that the file asked for before.
fn work_in_bucket(bucket: &str, key: &str) -> Vec<Step> {
    let in_bucket = [
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "s3:GetBucketTagging",
        "s3:GetPublicAccessBlock",
        "s3:HeadBucket",
        "s3:ListObjectVersions",
        "s3:PutBucketTagging",
        "s3:PutPublicAccessBlock",
    ];
    let in_object = ["s3:DeleteObject", "s3:HeadObject", "s3:PutObject"];
    let of =
        |key: &str| json!({ "Bucket": bucket, "Key": key, "VersionId": "null", "Tagged": true });
    let on_bucket = in_bucket.map(|name| whole("Bucket", name, of("")));
    let on_object = in_object.map(|name| whole("BucketObjects", name, of(key)));
    on_bucket.into_iter().chain(on_object).collect()
}

#[test]
fn only_the_environments_own_bucket_is_kept_whatever_the_file_asks_for() {
    let sum = "ab".repeat(32);
    let sent = with_source(&format!("{{ file = \"fleet-agent\", sha256 = \"{sum}\" }}"));
    let key = &sent.bucket.upload.as_ref().expect("a file").key;
    for desired in [&sent, &desired(FILE)] {
        let policy = desired.operator_policy(ACCOUNT);
        let ours = work_in_bucket(&desired.bucket.name, key);
        assert_eq!(refused(&policy, &ours), [""; 0]);
        let others = work_in_bucket("others", key);
        assert_eq!(refused(&policy, &others).len(), others.len());
    }
    assert_eq!(sent.bucket.name, desired(FILE).bucket.name);
}

#[test]
fn where_the_agent_is_in_somebody_s_bucket_it_may_be_looked_at() {
    let sum = "ab".repeat(32);
    let source = format!("{{ s3 = \"s3://releases/fleet-agent/1\", sha256 = \"{sum}\" }}");
    let policy = with_source(&source).operator_policy(ACCOUNT);
    let object = |key: &str| json!({ "Bucket": "releases", "Key": key });
    let mut steps = work();
    steps.push(whole(
        "LookAtTheAgent",
        "s3:HeadObject",
        object("fleet-agent/1"),
    ));
    each_statement_is_needed(&policy, &steps);
    let others = [
        whole("", "s3:HeadObject", object("fleet-agent/2")),
        whole("", "s3:PutObject", object("fleet-agent/1")),
        whole("", "s3:CreateBucket", object("")),
    ];
    assert_eq!(refused(&policy, &others).len(), others.len());
}
