//! What a node may do: one role per group, so that a bad node stays within its group. How far each
//! action can be narrowed: AWS service authorization reference, and for the agents' own needs the
//! managed policies named at each statement.

use std::collections::BTreeSet;

use fleet_agent_config::{EcrImage, Replacement, names::tag};
use serde_json::{Value, json};

use super::Role;

/// Name of the one inline policy of a group's role.
pub(super) const POLICY_NAME: &str = "fleet-node";
/// Stands for the account id between the colons of an ARN, where no name can stand.
const ACCOUNT: &str = ":ACCOUNT:";

/// Who may assume a node's role.
pub(super) fn trust() -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "Instances",
            "Effect": "Allow",
            "Principal": { "Service": "ec2.amazonaws.com" },
            "Action": "sts:AssumeRole",
        }],
    })
}

/// What a policy is scoped to.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) cluster: &'a str,
    pub(super) auto_scaling_group: &'a str,
    pub(super) parameter: &'a str,
    /// Parameters that its sidecars refer to.
    pub(super) secrets: BTreeSet<&'a str>,
    /// Private images that its sidecars run.
    pub(super) images: BTreeSet<EcrImage>,
    /// The objects that may be the agent, as they stand in an ARN.
    pub(super) agent: Option<&'a str>,
    /// How nodes that stay impaired are replaced.
    pub(super) replacement: Replacement,
    /// The ECS agent gives its container instance tags at registration.
    pub(super) tags_container_instance: bool,
    /// ... and reads those of the EC2 instance for it.
    pub(super) propagates_instance_tags: bool,
    /// Its container instance carries the ARN of its EC2 instance, so that policies can tell it from
    /// its neighbours.
    pub(super) own_instance_only: bool,
}

impl Scope<'_> {
    /// The node's policy, with [`ACCOUNT`] where the account id belongs.
    pub(super) fn policy(&self) -> Value {
        let mut statements = vec![
            self.registration(),
            self.container_instances(),
            self.own_container_instance(),
            self.tasks(),
            unscoped_ecs(),
            self.lifecycle(),
            self.live_settings(),
            session_manager(),
            session_messages(),
        ];
        statements.extend(self.replacement());
        statements.extend(self.secrets());
        statements.extend(self.images());
        statements.extend(self.agent());
        if self.tags_container_instance {
            statements.push(self.container_instance_tags());
        }
        if self.propagates_instance_tags {
            statements.push(json!({
                "Sid": "InstanceTags",
                "Effect": "Allow",
                "Action": "ec2:DescribeTags",
                "Resource": "*",
            }));
        }
        json!({ "Version": "2012-10-17", "Statement": statements })
    }

    /// The ECS agent joins this cluster and no other. Without CreateCluster and outside of this ARN
    /// a node with a wrong ECS_CLUSTER is refused instead of making a cluster `default`.
    ///
    /// Without its own tag a node may join all the same, and no node may act on it then, not even it
    /// itself: one that joined before nodes were told apart has to get over a restart of its ECS agent.
    fn registration(&self) -> Value {
        let mut statement = json!({
            "Sid": "JoinCluster",
            "Effect": "Allow",
            "Action": [
                "ecs:RegisterContainerInstance",
                "ecs:SubmitAttachmentStateChanges",
                "ecs:SubmitContainerStateChange",
                "ecs:SubmitTaskStateChange",
            ],
            "Resource": self.cluster_arn(),
        });
        if self.own_instance_only {
            statement["Condition"] = json!({ "StringEqualsIfExists": own("aws:RequestTag") });
        }
        statement
    }

    /// The ECS agent's session, and what runs on the node. The session knows no tags.
    fn container_instances(&self) -> Value {
        json!({
            "Sid": "ContainerInstances",
            "Effect": "Allow",
            "Action": ["ecs:ListTasks", "ecs:Poll", "ecs:StartTelemetrySession"],
            "Resource": self.container_instance_arns(),
            "Condition": self.in_cluster(),
        })
    }

    /// What fleet-agent says and asks of its own container instance, which ECS can tell from others by
    /// the tag that it registered with.
    fn own_container_instance(&self) -> Value {
        let mut condition = self.in_cluster();
        if self.own_instance_only {
            condition["StringEquals"] = own("aws:ResourceTag");
        }
        json!({
            "Sid": "OwnContainerInstance",
            "Effect": "Allow",
            "Action": [
                "ecs:DescribeContainerInstances",
                "ecs:PutAttributes",
                "ecs:UpdateContainerInstancesState",
            ],
            "Resource": self.container_instance_arns(),
            "Condition": condition,
        })
    }

    fn tasks(&self) -> Value {
        json!({
            "Sid": "Tasks",
            "Effect": "Allow",
            "Action": "ecs:DescribeTasks",
            "Resource": self.arn("ecs", &format!("task/{}/*", self.cluster)),
            "Condition": self.in_cluster(),
        })
    }

    /// Cannot be narrowed to one instance, but to the group.
    fn lifecycle(&self) -> Value {
        json!({
            "Sid": "LifecycleActions",
            "Effect": "Allow",
            "Action": [
                "autoscaling:CompleteLifecycleAction",
                "autoscaling:RecordLifecycleActionHeartbeat",
            ],
            "Resource": self.group_arn(),
        })
    }

    /// Before one is replaced it looks how the others of its group are. SetInstanceHealth cannot be
    /// narrowed to one instance, so that a bad node could have all of its group replaced: only where
    /// it is asked for.
    fn replacement(&self) -> Vec<Value> {
        let looks = json!({
            "Sid": "FleetGuard",
            "Effect": "Allow",
            "Action": ["ecs:ListAttributes", "ecs:ListContainerInstances"],
            "Resource": self.cluster_arn(),
        });
        let condemns = || {
            json!({
                "Sid": "Replacement",
                "Effect": "Allow",
                "Action": "autoscaling:SetInstanceHealth",
                "Resource": self.group_arn(),
            })
        };
        match self.replacement {
            Replacement::Never => Vec::new(),
            Replacement::Itself => vec![looks],
            Replacement::Asg => vec![looks, condemns()],
        }
    }

    fn live_settings(&self) -> Value {
        // The parameter's own slash is the one after `parameter`.
        json!({
            "Sid": "LiveSettings",
            "Effect": "Allow",
            "Action": "ssm:GetParameter",
            "Resource": self.arn("ssm", &format!("parameter{}", self.parameter)),
        })
    }

    /// What sidecars are given to read. A key of one's own has to let this role decrypt in its own
    /// policy; AWS's does (KMS developer guide, "AWS managed keys").
    fn secrets(&self) -> Vec<Value> {
        const REFERENCE: &str = "/aws/reference/secretsmanager/";
        let parameters = self.secrets.iter();
        let parameters: Vec<String> = parameters
            .map(|name| self.arn("ssm", &format!("parameter{name}")))
            .collect();
        let names = self
            .secrets
            .iter()
            .filter_map(|name| name.strip_prefix(REFERENCE));
        // Secrets Manager ends a secret's ARN with a hyphen and six characters of its own.
        let secrets: Vec<String> = names
            .map(|name| self.arn("secretsmanager", &format!("secret:{name}-??????")))
            .collect();
        let allow = |sid: &str, action: &str, resources: Vec<String>| {
            (!resources.is_empty()).then(|| {
                json!({
                    "Sid": sid,
                    "Effect": "Allow",
                    "Action": action,
                    "Resource": resources,
                })
            })
        };
        [
            allow("SidecarParameters", "ssm:GetParameter", parameters),
            allow("SidecarSecrets", "secretsmanager:GetSecretValue", secrets),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What is installed on the first boot. A bucket of another account has to let this role read it, too.
    fn agent(&self) -> Option<Value> {
        let objects = self.agent?;
        Some(json!({
            "Sid": "InstallAgent",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": format!("arn:{}:s3:::{objects}", partition(self.region)),
        }))
    }

    /// A registry of another account has to let this one pull, too.
    fn images(&self) -> Option<Value> {
        let arns = self.images.iter().map(|image| {
            let EcrImage {
                account,
                region,
                repository,
                ..
            } = image;
            let partition = partition(region);
            format!("arn:{partition}:ecr:{region}:{account}:repository/{repository}")
        });
        let arns: BTreeSet<String> = arns.collect();
        (!arns.is_empty()).then(|| {
            json!({
                "Sid": "SidecarImages",
                "Effect": "Allow",
                "Action": [
                    "ecr:BatchCheckLayerAvailability",
                    "ecr:BatchGetImage",
                    "ecr:GetDownloadUrlForLayer",
                ],
                "Resource": arns,
            })
        })
    }

    fn container_instance_tags(&self) -> Value {
        let mut condition = match self.own_instance_only {
            true => own("aws:RequestTag"),
            false => json!({}),
        };
        condition["ecs:CreateAction"] = json!("RegisterContainerInstance");
        json!({
            "Sid": "ContainerInstanceTags",
            "Effect": "Allow",
            "Action": "ecs:TagResource",
            "Resource": self.container_instance_arns(),
            "Condition": { "StringEquals": condition },
        })
    }

    fn container_instance_arns(&self) -> String {
        self.arn("ecs", &format!("container-instance/{}/*", self.cluster))
    }

    fn group_arn(&self) -> String {
        let group = format!(
            "autoScalingGroup:*:autoScalingGroupName/{}",
            self.auto_scaling_group
        );
        self.arn("autoscaling", &group)
    }

    fn in_cluster(&self) -> Value {
        json!({ "ArnEquals": { "ecs:cluster": self.cluster_arn() } })
    }

    fn cluster_arn(&self) -> String {
        self.arn("ecs", &format!("cluster/{}", self.cluster))
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let (partition, region) = (partition(self.region), self.region);
        format!("arn:{partition}:{service}:{region}{ACCOUNT}{resource}")
    }
}

/// The tag with the ARN of the very instance that calls (EC2 user guide, "ec2:SourceInstanceARN").
fn own(key: &str) -> Value {
    json!({ format!("{key}/{}", tag::INSTANCE): "${ec2:SourceInstanceARN}" })
}

/// These know no resource.
fn unscoped_ecs() -> Value {
    json!({
        "Sid": "Unscoped",
        "Effect": "Allow",
        "Action": ["ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint"],
        "Resource": "*",
    })
}

/// A shell without SSH, and the inventory: AmazonSSMManagedEC2InstanceDefaultPolicy, not
/// AmazonSSMManagedInstanceCore, which also reads every parameter of the account.
fn session_manager() -> Value {
    json!({
        "Sid": "SystemsManager",
        "Effect": "Allow",
        "Action": [
            "ssm:DescribeAssociation",
            "ssm:DescribeDocument",
            "ssm:GetDeployablePatchSnapshotForInstance",
            "ssm:GetDocument",
            "ssm:GetManifest",
            "ssm:ListAssociations",
            "ssm:ListInstanceAssociations",
            "ssm:PutComplianceItems",
            "ssm:PutConfigurePackageResult",
            "ssm:PutInventory",
            "ssm:UpdateAssociationStatus",
            "ssm:UpdateInstanceAssociationStatus",
            "ssm:UpdateInstanceInformation",
        ],
        "Resource": "*",
    })
}

fn session_messages() -> Value {
    json!({
        "Sid": "SystemsManagerMessages",
        "Effect": "Allow",
        "Action": [
            "ec2messages:AcknowledgeMessage",
            "ec2messages:DeleteMessage",
            "ec2messages:FailMessage",
            "ec2messages:GetEndpoint",
            "ec2messages:GetMessages",
            "ec2messages:SendReply",
            "ssmmessages:CreateControlChannel",
            "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel",
            "ssmmessages:OpenDataChannel",
        ],
        "Resource": "*",
    })
}

/// The partition of a region (AWS General Reference, "ARN format").
pub(super) fn partition(region: &str) -> &'static str {
    const PREFIXES: &[(&str, &str)] = &[
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("aws", |(_, partition)| partition)
}

impl Role {
    /// The inline policy for an account of 12 digits.
    pub fn policy(&self, account: &str) -> Value {
        let mut policy = self.policy_template.clone();
        fill_in(&mut policy, account);
        policy
    }
}

fn fill_in(value: &mut Value, account: &str) {
    match value {
        Value::String(text) => *text = text.replace(ACCOUNT, &format!(":{account}:")),
        Value::Array(items) => items.iter_mut().for_each(|item| fill_in(item, account)),
        Value::Object(fields) => fields.values_mut().for_each(|item| fill_in(item, account)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope<'static> {
        Scope {
            region: "eu-central-1",
            cluster: "shop-dev",
            auto_scaling_group: "shop-dev-web",
            parameter: "/fleet/shop/dev/web/agent",
            secrets: BTreeSet::new(),
            images: BTreeSet::new(),
            agent: None,
            replacement: Replacement::Itself,
            tags_container_instance: false,
            propagates_instance_tags: false,
            own_instance_only: false,
        }
    }

    fn role(scope: &Scope<'_>) -> Role {
        Role {
            name: "r".to_owned(),
            trust_policy: trust(),
            permissions_boundary: None,
            managed_policies: Vec::new(),
            policy_name: POLICY_NAME.to_owned(),
            policy_template: scope.policy(),
        }
    }

    #[test]
    fn golden_policy() {
        let policy = role(&scope()).policy("123456789012");
        let text = serde_json::to_string_pretty(&policy).expect("JSON");
        insta::assert_snapshot!("policy", text);
    }

    #[test]
    fn a_node_reads_what_its_sidecars_refer_to_and_no_more() {
        let scope = Scope {
            secrets: ["/aws/reference/secretsmanager/shop/key", "/shop/token"].into(),
            ..scope()
        };
        let policy = role(&scope).policy("123456789012");
        let statements = policy["Statement"].as_array().expect("a list");
        let resources = |sid: &str| {
            let found = statements.iter().find(|statement| statement["Sid"] == *sid);
            found.expect("a statement")["Resource"].clone()
        };
        let arn = "arn:aws:ssm:eu-central-1:123456789012:parameter";
        assert_eq!(
            resources("SidecarParameters"),
            json!([
                format!("{arn}/aws/reference/secretsmanager/shop/key"),
                format!("{arn}/shop/token"),
            ])
        );
        assert_eq!(
            resources("SidecarSecrets"),
            json!(["arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/key-??????"])
        );
    }

    #[test]
    fn private_images_are_pulled_from_their_repositories_alone() {
        let image = EcrImage::parse("210987654321.dkr.ecr.eu-west-1.amazonaws.com/ops/logs:1");
        let scope = Scope {
            images: image.into_iter().collect(),
            ..scope()
        };
        let policy = scope.policy().to_string();
        let arn = "arn:aws:ecr:eu-west-1:210987654321:repository/ops/logs";
        assert!(
            policy.contains(&format!("\"Resource\":[\"{arn}\"]")),
            "{policy}"
        );
    }

    #[test]
    fn only_a_group_that_asks_for_it_may_have_auto_scaling_replace_its_nodes() {
        let actions = |replacement| {
            let policy = Scope {
                replacement,
                ..scope()
            };
            let policy = policy.policy().to_string();
            ["ListContainerInstances", "SetInstanceHealth"].map(|action| policy.contains(action))
        };
        assert_eq!(actions(Replacement::Never), [false, false]);
        assert_eq!(actions(Replacement::Itself), [true, false]);
        assert_eq!(actions(Replacement::Asg), [true, true]);
    }

    #[test]
    fn an_account_goes_only_where_an_account_belongs() {
        let scope = Scope {
            cluster: "ACCOUNT-dev",
            ..scope()
        };
        let text = role(&scope).policy("123456789012").to_string();
        assert!(text.contains("arn:aws:ecs:eu-central-1:123456789012:cluster/ACCOUNT-dev"));
        assert!(!text.contains(":ACCOUNT:"));
    }

    #[test]
    fn only_what_knows_no_resource_is_allowed_on_all() {
        let policy = scope().policy();
        let unscoped: Vec<&str> = policy["Statement"]
            .as_array()
            .expect("statements")
            .iter()
            .filter(|statement| statement["Resource"] == "*")
            .filter_map(|statement| statement["Sid"].as_str())
            .collect();
        assert_eq!(
            unscoped,
            ["Unscoped", "SystemsManager", "SystemsManagerMessages"]
        );
    }

    #[test]
    fn tags_of_the_container_instance_are_allowed_when_asked_for() {
        let plain = scope().policy().to_string();
        assert!(!plain.contains("TagResource") && !plain.contains("DescribeTags"));
        let scope = Scope {
            tags_container_instance: true,
            propagates_instance_tags: true,
            ..scope()
        };
        let policy = scope.policy().to_string();
        assert!(policy.contains("ecs:TagResource") && policy.contains("ec2:DescribeTags"));
    }

    #[test]
    fn a_node_that_is_told_from_its_neighbours_acts_on_itself_alone() {
        let scope = Scope {
            tags_container_instance: true,
            own_instance_only: true,
            ..scope()
        };
        let policy = scope.policy();
        let statements = policy["Statement"].as_array().expect("statements");
        let conditions: Vec<String> = [
            "JoinCluster",
            "OwnContainerInstance",
            "ContainerInstanceTags",
        ]
        .map(|sid| {
            let found = statements.iter().find(|statement| statement["Sid"] == *sid);
            format!("{sid}: {}", found.expect("a statement")["Condition"])
        })
        .into();
        insta::assert_snapshot!("own_instance_only", conditions.join("\n"));
    }

    #[test]
    fn every_partition_has_its_own_arns() {
        assert_eq!(partition("eu-central-1"), "aws");
        assert_eq!(partition("cn-north-1"), "aws-cn");
        assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
    }

    #[test]
    fn the_policy_fits_into_a_role() {
        // IAM: 10,240 characters for all inline policies of a role, white space not counted.
        assert!(scope().policy().to_string().len() < 4_000);
    }
}
