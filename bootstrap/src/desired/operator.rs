//! What whoever runs fleet-bootstrap on an environment has to be allowed, and no more: by name where the
//! name is known before there is anything, by the tags that say whose a resource is where AWS can tell
//! by them, and on everything only where it can tell by neither. How far each action can be narrowed: AWS
//! service authorization reference.
//!
//! It is no small permission all the same. Whoever may write a node's role, its launch template or its
//! parameter is root on every node, and may do what he lets the role do.

use fleet_agent_config::names::tag;
use serde_json::{Map, Value, json};

use super::{Desired, Download, ServiceRole, policy::partition};

impl Desired {
    /// The operator's policy for an account of 12 digits.
    ///
    /// A group that has left the file is in it but for its role and its profile: IAM's resources are
    /// known by their names alone.
    pub fn operator_policy(&self, account: &str) -> Value {
        let scope = Scope {
            desired: self,
            account,
        };
        let statements = [
            looks(),
            scope.parameters(),
            scope.public_parameters(),
            scope.roles(),
            scope.given_roles(),
            scope.attaches_policies(),
            scope.instance_profiles(),
            scope.passes_roles(),
            scope.service_linked_roles(),
            scope.looks_at_service_roles(),
            scope.creates_in_ec2(),
            scope.joins_the_network(),
            scope.tags_what_it_creates(),
            scope.changes_in_ec2(),
            scope.launches_from_templates(),
            scope.launches(),
            scope.creates_groups(),
            scope.changes_groups(),
            scope.sets_alarms(),
            scope.reads(),
            scope.lists_in_cluster(),
            scope.works_in_cluster(),
            scope.creates_in_ecs(),
            scope.tags_what_ecs_creates(),
            scope.changes_in_ecs(),
            scope.works_on_adopted_cluster(),
            scope.keeps_a_bucket(),
            scope.fills_the_bucket(),
            scope.looks_at_the_agent(),
        ];
        json!({
            "Version": "2012-10-17",
            "Statement": statements.into_iter().flatten().collect::<Value>(),
        })
    }
}

/// What is done to a cluster, whosever it is.
const ON_ANY_CLUSTER: [&str; 2] = [
    "ecs:DeregisterContainerInstance",
    "ecs:PutClusterCapacityProviders",
];

struct Scope<'a> {
    desired: &'a Desired,
    account: &'a str,
}

/// These know no resource.
fn looks() -> Option<Value> {
    let actions = [
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
    ];
    allow("Look", &actions, vec!["*".to_owned()], json!({}))
}

impl Scope<'_> {
    fn parameters(&self) -> Option<Value> {
        let actions = [
            "ssm:AddTagsToResource",
            "ssm:DeleteParameter",
            "ssm:GetParameters",
            "ssm:ListTagsForResource",
            "ssm:PutParameter",
        ];
        let identity = &self.desired.identity;
        let (fleet, environment) = (&identity.fleet, &identity.environment);
        let path = self.arn("ssm", &format!("parameter/fleet/{fleet}/{environment}/*"));
        allow("LiveSettings", &actions, vec![path], json!({}))
    }

    /// Where the image of the day is written down, in no account.
    fn public_parameters(&self) -> Option<Value> {
        let images = self.desired.groups.iter();
        let images = images.filter_map(|group| group.launch_template.image.parameter());
        let region = &self.desired.identity.region;
        let partition = partition(region);
        let mut arns: Vec<String> = images
            .map(|name| format!("arn:{partition}:ssm:{region}::parameter{name}"))
            .collect();
        arns.dedup();
        allow("Images", &["ssm:GetParameters"], arns, json!({}))
    }

    fn roles(&self) -> Option<Value> {
        let actions = [
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
        ];
        allow("Roles", &actions, self.role_arns(), json!({}))
    }

    /// Those that are used and never changed.
    fn given_roles(&self) -> Option<Value> {
        let groups = self.desired.groups.iter();
        let names = groups.filter_map(|group| group.given_role.as_ref());
        let arns = names.map(|name| self.global(&format!("role/{name}")));
        let arns: Vec<String> = arns.collect();
        let to_instances = json!({
            "StringEqualsIfExists": { "iam:PassedToService": "ec2.amazonaws.com" },
        });
        let actions = ["iam:GetRole", "iam:PassRole"];
        allow("GivenRoles", &actions, arns, to_instances)
    }

    /// The file's own, and no other: what a node may do is what its role may.
    fn attaches_policies(&self) -> Option<Value> {
        let groups = self.desired.groups.iter();
        let policies: Vec<&String> = groups
            .flat_map(|group| &group.role.managed_policies)
            .collect();
        if policies.is_empty() {
            return None;
        }
        let these = json!({ "ArnEquals": { "iam:PolicyARN": policies } });
        allow(
            "AttachPolicies",
            &["iam:AttachRolePolicy"],
            self.role_arns(),
            these,
        )
    }

    fn instance_profiles(&self) -> Option<Value> {
        let actions = [
            "iam:AddRoleToInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:DeleteInstanceProfile",
            "iam:GetInstanceProfile",
            "iam:RemoveRoleFromInstanceProfile",
            "iam:TagInstanceProfile",
        ];
        let groups = self.desired.groups.iter();
        let arns = groups
            .map(|group| self.global(&format!("instance-profile/{}", group.instance_profile)))
            .collect();
        allow("InstanceProfiles", &actions, arns, json!({}))
    }

    fn passes_roles(&self) -> Option<Value> {
        let to_instances = json!({
            "StringEquals": { "iam:PassedToService": "ec2.amazonaws.com" },
        });
        allow(
            "PassRoles",
            &["iam:PassRole"],
            self.role_arns(),
            to_instances,
        )
    }

    /// Services make theirs in the caller's name, with an account's first cluster, group or Spot
    /// instance.
    fn service_linked_roles(&self) -> Option<Value> {
        let roles = self.desired.service_roles();
        let services: Vec<&str> = roles.into_iter().map(ServiceRole::service).collect();
        allow(
            "ServiceLinkedRoles",
            &["iam:CreateServiceLinkedRole"],
            vec![self.global("role/aws-service-role/*")],
            json!({ "StringEquals": { "iam:AWSServiceName": services } }),
        )
    }

    fn looks_at_service_roles(&self) -> Option<Value> {
        allow(
            "LookAtServiceRoles",
            &["iam:GetRole"],
            vec![self.global("role/aws-service-role/*")],
            json!({}),
        )
    }

    fn creates_in_ec2(&self) -> Option<Value> {
        let arns = ["launch-template/*", "security-group/*"].map(|kind| self.arn("ec2", kind));
        let actions = ["ec2:CreateLaunchTemplate", "ec2:CreateSecurityGroup"];
        allow(
            "CreateInEc2",
            &actions,
            arns.into(),
            self.ours("aws:RequestTag"),
        )
    }

    /// A shared VPC belongs to another account.
    fn joins_the_network(&self) -> Option<Value> {
        let vpc = format!("vpc/{}", self.desired.network.vpc_id);
        let arns = vec![self.anybodys("ec2", &vpc)];
        allow(
            "InTheNetwork",
            &["ec2:CreateSecurityGroup"],
            arns,
            json!({}),
        )
    }

    fn tags_what_it_creates(&self) -> Option<Value> {
        let kinds = [
            "instance/*",
            "launch-template/*",
            "network-interface/*",
            "security-group/*",
            "volume/*",
        ];
        let creating = [
            "CreateLaunchTemplate",
            "CreateSecurityGroup",
            "RunInstances",
        ];
        allow(
            "TagInEc2",
            &["ec2:CreateTags"],
            kinds.map(|kind| self.arn("ec2", kind)).into(),
            json!({ "StringEquals": { "ec2:CreateAction": creating } }),
        )
    }

    fn changes_in_ec2(&self) -> Option<Value> {
        let actions = [
            "ec2:CreateLaunchTemplateVersion",
            "ec2:CreateTags",
            "ec2:DeleteLaunchTemplate",
            "ec2:DeleteSecurityGroup",
            "ec2:DeleteTags",
            "ec2:GetConsoleOutput",
            "ec2:RevokeSecurityGroupIngress",
        ];
        let kinds = ["instance/*", "launch-template/*", "security-group/*"];
        let arns = kinds.map(|kind| self.arn("ec2", kind)).into();
        allow("ChangeInEc2", &actions, arns, self.ours("aws:ResourceTag"))
    }

    /// Auto Scaling tries whether the caller might launch what a group of his is to launch.
    fn launches_from_templates(&self) -> Option<Value> {
        let arns = vec![self.arn("ec2", "launch-template/*")];
        let ours = self.ours("aws:ResourceTag");
        allow("LaunchFromOurTemplates", &["ec2:RunInstances"], arns, ours)
    }

    /// ... with all that the template names. Images and subnets may be of other accounts.
    fn launches(&self) -> Option<Value> {
        let kinds = [
            "image/*",
            "instance/*",
            "key-pair/*",
            "network-interface/*",
            "security-group/*",
            "subnet/*",
            "volume/*",
        ];
        let template = self.arn("ec2", "launch-template/*");
        allow(
            "Launch",
            &["ec2:RunInstances"],
            kinds.map(|kind| self.anybodys("ec2", kind)).into(),
            json!({ "ArnLike": { "ec2:LaunchTemplate": template } }),
        )
    }

    fn creates_groups(&self) -> Option<Value> {
        let groups = self.desired.groups.iter();
        let arns = groups.map(|group| self.group_arn(&group.auto_scaling_group.name));
        let actions = [
            "autoscaling:CreateAutoScalingGroup",
            "autoscaling:CreateOrUpdateTags",
        ];
        let ours = self.ours("aws:RequestTag");
        allow("CreateGroups", &actions, arns.collect(), ours)
    }

    /// With their alarms. ECS's own tag is written in the caller's name, too.
    fn changes_groups(&self) -> Option<Value> {
        let actions = [
            "autoscaling:CompleteLifecycleAction",
            "autoscaling:CreateOrUpdateTags",
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
            "autoscaling:UpdateAutoScalingGroup",
            "cloudwatch:DeleteAlarms",
        ];
        let arns = vec![self.group_arn("*"), self.arn("cloudwatch", "alarm:*")];
        allow("ChangeGroups", &actions, arns, self.ours("aws:ResourceTag"))
    }

    /// Those that steps need; a group that goes by none may have some to lose.
    fn sets_alarms(&self) -> Option<Value> {
        let actions = ["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"];
        let groups = self.desired.groups.iter();
        let groups = groups.filter(|group| group.scaling.steps().is_some());
        let names = groups.flat_map(|group| group.alarms.values());
        let arns = names.map(|name| self.arn("cloudwatch", &format!("alarm:{name}")));
        allow("SetAlarms", &actions, arns.collect(), json!({}))
    }

    fn reads(&self) -> Option<Value> {
        let actions = [
            "cloudwatch:DescribeAlarms",
            "cloudwatch:ListTagsForResource",
            "ecs:DescribeCapacityProviders",
            "ecs:DescribeClusters",
            "ecs:ListContainerInstances",
        ];
        let arns = [("cloudwatch", "alarm:*"), ("ecs", "capacity-provider/*")];
        let arns = arns.map(|(service, resource)| self.arn(service, resource));
        let mut arns: Vec<String> = std::iter::once(self.cluster_arn()).chain(arns).collect();
        // Whether there is one of its own beside an adopted one.
        if self.desired.cluster.is_adopted {
            let own = format!("cluster/{}", self.desired.cluster.own_name);
            arns.insert(1, self.arn("ecs", &own));
        }
        allow("Read", &actions, arns, json!({}))
    }

    /// A list of all that is in a cluster has no resource, but a cluster.
    fn lists_in_cluster(&self) -> Option<Value> {
        let actions = ["ecs:ListServices", "ecs:ListTasks"];
        allow(
            "ListInCluster",
            &actions,
            vec!["*".to_owned()],
            self.in_cluster(),
        )
    }

    fn works_in_cluster(&self) -> Option<Value> {
        let mut actions = vec![
            "ecs:DescribeContainerInstances",
            "ecs:DescribeServices",
            "ecs:DescribeTasks",
        ];
        // What runs in an adopted one is not ours to end.
        if !self.desired.cluster.is_adopted {
            actions.extend(["ecs:DeleteService", "ecs:StopTask"]);
            actions.sort_unstable();
        }
        let kinds = ["container-instance", "service", "task"];
        let cluster = &self.desired.cluster.name;
        let arns = kinds.map(|kind| self.arn("ecs", &format!("{kind}/{cluster}/*")));
        allow("WorkInCluster", &actions, arns.into(), self.in_cluster())
    }

    fn creates_in_ecs(&self) -> Option<Value> {
        let mut actions = vec!["ecs:CreateCapacityProvider"];
        if !self.desired.cluster.is_adopted {
            actions.push("ecs:CreateCluster");
        }
        let ours = self.ours("aws:RequestTag");
        allow("CreateInEcs", &actions, self.ecs_arns(), ours)
    }

    fn tags_what_ecs_creates(&self) -> Option<Value> {
        let mut creating = vec!["CreateCapacityProvider"];
        if !self.desired.cluster.is_adopted {
            creating.push("CreateCluster");
        }
        let creating = json!({ "StringEquals": { "ecs:CreateAction": creating } });
        allow("TagInEcs", &["ecs:TagResource"], self.ecs_arns(), creating)
    }

    fn changes_in_ecs(&self) -> Option<Value> {
        let mut actions = vec![
            "ecs:DeleteCapacityProvider",
            "ecs:TagResource",
            "ecs:UpdateCapacityProvider",
        ];
        let mut arns = vec![self.arn("ecs", "capacity-provider/*")];
        if !self.desired.cluster.is_adopted {
            actions.extend(["ecs:DeleteCluster", "ecs:UpdateCluster"]);
            actions.extend(ON_ANY_CLUSTER);
            actions.sort_unstable();
            arns.insert(0, self.cluster_arn());
        }
        allow("ChangeInEcs", &actions, arns, self.ours("aws:ResourceTag"))
    }

    /// It carries none of our tags. That only our own providers are put on its list and taken off it, and
    /// only our own nodes out of it, is fleet-bootstrap's word: AWS sees the whole list, and no tags of
    /// container instances.
    fn works_on_adopted_cluster(&self) -> Option<Value> {
        let cluster = self.desired.cluster.is_adopted.then(|| self.cluster_arn());
        let arns = cluster.into_iter().collect();
        allow("AdoptedCluster", &ON_ANY_CLUSTER, arns, json!({}))
    }

    /// Also where the file asks for no bucket: one that it asked for before has to go at `down`. One that is
    /// created with tags asks for TagResource. In S3 tags authorize nothing unless a bucket is
    /// told so, and the name has the owner's id in it (S3 guide, "Using tags with S3 general purpose
    /// buckets").
    fn keeps_a_bucket(&self) -> Option<Value> {
        let actions = [
            "s3:CreateBucket",
            "s3:DeleteBucket",
            "s3:GetBucketPublicAccessBlock",
            "s3:GetBucketTagging",
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:PutBucketPublicAccessBlock",
            "s3:PutBucketTagging",
            "s3:TagResource",
        ];
        let arn = self.s3(&self.desired.bucket.name);
        allow("Bucket", &actions, vec![arn], json!({}))
    }

    fn fills_the_bucket(&self) -> Option<Value> {
        let actions = ["s3:DeleteObjectVersion", "s3:GetObject", "s3:PutObject"];
        let arn = self.s3(&format!("{}/*", self.desired.bucket.name));
        allow("BucketObjects", &actions, vec![arn], json!({}))
    }

    /// Whether somebody's object is there that nodes are to install.
    fn looks_at_the_agent(&self) -> Option<Value> {
        let is_ours = self.desired.bucket.upload.is_some();
        let source = self.desired.source.as_ref().filter(|_| !is_ours)?;
        let Download::S3(object) = &source.download else {
            return None;
        };
        let arn = self.s3(&format!("{}/{}", object.bucket, object.key));
        allow("LookAtTheAgent", &["s3:GetObject"], vec![arn], json!({}))
    }

    /// A bucket, or objects in it: their names are of no region and no account.
    fn s3(&self, name: &str) -> String {
        let partition = partition(&self.desired.identity.region);
        format!("arn:{partition}:s3:::{name}")
    }

    /// Carries this environment's tags, or is given them.
    fn ours(&self, key: &str) -> Value {
        let identity = &self.desired.identity;
        let tags = [
            (tag::ENVIRONMENT, &identity.environment),
            (tag::OWNER, &identity.owner),
        ];
        let tags = tags.map(|(name, value)| (format!("{key}/{name}"), json!(value)));
        json!({ "StringEquals": Map::from_iter(tags) })
    }

    fn in_cluster(&self) -> Value {
        json!({ "ArnEquals": { "ecs:cluster": self.cluster_arn() } })
    }

    fn cluster_arn(&self) -> String {
        self.arn("ecs", &format!("cluster/{}", self.desired.cluster.name))
    }

    /// What is made in ECS: the file's capacity providers, and the cluster unless it is adopted.
    fn ecs_arns(&self) -> Vec<String> {
        let providers = self.desired.groups.iter().map(|group| {
            let name = &group.capacity_provider.name;
            self.arn("ecs", &format!("capacity-provider/{name}"))
        });
        let cluster = (!self.desired.cluster.is_adopted).then(|| self.cluster_arn());
        cluster.into_iter().chain(providers).collect()
    }

    fn group_arn(&self, name: &str) -> String {
        let resource = format!("autoScalingGroup:*:autoScalingGroupName/{name}");
        self.arn("autoscaling", &resource)
    }

    fn role_arns(&self) -> Vec<String> {
        let groups = self.desired.groups.iter();
        groups
            .map(|group| self.global(&format!("role/{}", group.role.name)))
            .collect()
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let region = &self.desired.identity.region;
        let (partition, account) = (partition(region), self.account);
        format!("arn:{partition}:{service}:{region}:{account}:{resource}")
    }

    /// Of whichever account.
    fn anybodys(&self, service: &str, resource: &str) -> String {
        let region = &self.desired.identity.region;
        format!("arn:{}:{service}:{region}:*:{resource}", partition(region))
    }

    /// IAM is in no region.
    fn global(&self, resource: &str) -> String {
        let partition = partition(&self.desired.identity.region);
        format!("arn:{partition}:iam::{}:{resource}", self.account)
    }
}

/// `None` if it would be about nothing.
fn allow(sid: &str, actions: &[&str], resources: Vec<String>, condition: Value) -> Option<Value> {
    if resources.is_empty() {
        return None;
    }
    let mut statement = json!({
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
    });
    if condition != json!({}) {
        statement["Condition"] = condition;
    }
    Some(statement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::FleetFile;

    const FILE: &str = include_str!("../../tests/fleet.toml");

    fn policy() -> Value {
        let spec = FleetFile::new("fleet.toml", FILE).spec("dev");
        let desired = super::super::build(&spec.expect("valid")).expect("builds");
        desired.operator_policy("123456789012")
    }

    #[test]
    fn golden_policy() {
        let text = serde_json::to_string_pretty(&policy()).expect("JSON");
        insta::assert_snapshot!("operator", text);
    }

    #[test]
    fn only_what_knows_no_resource_is_allowed_on_all() {
        let policy = policy();
        let statements = policy["Statement"].as_array().expect("statements");
        let all = statements.iter().filter(|statement| {
            let resources = statement["Resource"].as_array().expect("a list");
            resources.contains(&json!("*"))
        });
        let sids: Vec<&str> = all
            .filter_map(|statement| statement["Sid"].as_str())
            .collect();
        assert_eq!(sids, ["Look", "ListInCluster"]);
    }

    /// IAM: 10,240 characters for all inline policies of a role.
    #[test]
    fn the_policy_fits_into_a_role() {
        let length = policy().to_string().len();
        assert!(length < 9_600, "{length}");
    }
}
