use serde_json::json;

use super::*;

/// An account with one group, one launch template, and tags on every container instance.
struct Stub;

impl Facts for Stub {
    fn region(&self) -> &str {
        "eu-west-1"
    }

    fn account_id(&self) -> &str {
        "123456789012"
    }

    fn tags(&self, arn: &str) -> Tags {
        let tagged = arn.contains(":container-instance/") || arn.contains(":launch-template/");
        let tags = tagged.then(|| ("fleet:owner".to_owned(), "f-1".to_owned()));
        tags.into_iter().collect()
    }

    fn group_arn(&self, name: &str) -> Option<String> {
        let id = "8f0d2a4e-0000-0000-0000-000000000000";
        let arn = format!(
            "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:{id}:autoScalingGroupName/{name}"
        );
        (name == "web").then_some(arn)
    }

    fn group_of(&self, instance_id: &str) -> Option<String> {
        (instance_id == "i-1").then(|| "web".to_owned())
    }

    fn launch_template(&self, name_or_id: &str) -> Option<TemplateFacts> {
        ["lt-1", "web"]
            .contains(&name_or_id)
            .then(|| TemplateFacts {
                id: "lt-1".to_owned(),
                role: Some("web-role".to_owned()),
            })
    }
}

fn asked(service: &str, operation: &str, body: Value) -> Vec<String> {
    let call = Call {
        service: service.to_owned(),
        operation: operation.to_owned(),
        body,
    };
    let requests = requests(&call, &Stub).expect("mapped");
    requests
        .iter()
        .map(|request| {
            let resource = request.resource.replace("eu-west-1:123456789012", "R:A");
            let mut text = format!("{} {resource}", request.action);
            for (key, values) in request.context() {
                text += &format!(" {key}={}", values.join(","));
            }
            text.replace("eu-west-1:123456789012", "R:A")
        })
        .collect()
}

#[test]
fn every_target_of_a_call_is_asked_for_with_its_tags() {
    let body = json!({
        "cluster": "arn:aws:ecs:eu-west-1:123456789012:cluster/dev",
        "attributes": [
            { "name": "a", "targetId": "b1" },
            { "name": "b", "targetId": "arn:aws:ecs:eu-west-1:123456789012:container-instance/dev/a1" },
            { "name": "c", "targetId": "b1" },
        ],
    });
    let context = "aws:resourcetag/fleet:owner=f-1 ecs:cluster=arn:aws:ecs:R:A:cluster/dev";
    assert_eq!(
        asked("ecs", "PutAttributes", body),
        [
            format!("ecs:PutAttributes arn:aws:ecs:R:A:container-instance/dev/a1 {context}"),
            format!("ecs:PutAttributes arn:aws:ecs:R:A:container-instance/dev/b1 {context}"),
        ]
    );
}

#[test]
fn a_registration_with_tags_also_tags() {
    let body = json!({ "cluster": "dev", "tags": [{ "key": "fleet:instance", "value": "x" }] });
    let tags = "aws:requesttag/fleet:instance=x aws:tagkeys=fleet:instance";
    assert_eq!(
        asked("ecs", "RegisterContainerInstance", body),
        [
            format!("ecs:RegisterContainerInstance arn:aws:ecs:R:A:cluster/dev {tags}"),
            format!(
                "ecs:TagResource arn:aws:ecs:R:A:container-instance/dev/* {tags} \
                 ecs:createaction=RegisterContainerInstance"
            ),
        ]
    );
    assert_eq!(
        asked("ecs", "RegisterContainerInstance", json!({})),
        ["ecs:RegisterContainerInstance arn:aws:ecs:R:A:cluster/default"]
    );
}

#[test]
fn an_instance_s_group_is_looked_up() {
    let group = "arn:aws:autoscaling:R:A:autoScalingGroup:8f0d2a4e-0000-0000-0000-000000000000:autoScalingGroupName/web";
    assert_eq!(
        asked(
            "autoscaling",
            "SetInstanceHealth",
            json!({ "InstanceId": "i-1" })
        ),
        [format!("autoscaling:SetInstanceHealth {group}")]
    );
    assert_eq!(
        asked(
            "autoscaling",
            "SetInstanceHealth",
            json!({ "InstanceId": "i-2" })
        ),
        ["autoscaling:SetInstanceHealth *"]
    );
    let named = json!({ "AutoScalingGroupName": "batch", "InstanceId": "i-1" });
    assert_eq!(
        asked("autoscaling", "CompleteLifecycleAction", named),
        [
            "autoscaling:CompleteLifecycleAction arn:aws:autoscaling:R:A:autoScalingGroup:*:\
             autoScalingGroupName/batch"
        ]
    );
}

#[test]
fn a_group_with_a_template_is_a_launch_and_hands_its_role_on() {
    let update = json!({
        "AutoScalingGroupName": "web",
        "LaunchTemplate": { "LaunchTemplateName": "web", "Version": "2" },
    });
    let asked = asked("autoscaling", "UpdateAutoScalingGroup", update);
    for expected in [
        "ec2:RunInstances arn:aws:ec2:R:A:launch-template/lt-1 aws:resourcetag/fleet:owner=f-1",
        "ec2:RunInstances arn:aws:ec2:R:A:instance/* ec2:launchtemplate=arn:aws:ec2:R:A:launch-template/lt-1",
        "ec2:CreateTags arn:aws:ec2:R:A:volume/* ec2:createaction=RunInstances",
        "iam:PassRole arn:aws:iam::123456789012:role/web-role iam:passedtoservice=ec2.amazonaws.com",
    ] {
        assert!(
            asked.iter().any(|asked| asked == expected),
            "{expected}: {asked:#?}"
        );
    }
    let bare = json!({ "AutoScalingGroupName": "web", "MaxSize": "2" });
    assert_eq!(
        super::tests::asked("autoscaling", "UpdateAutoScalingGroup", bare).len(),
        1
    );
}

#[test]
fn lists_of_forms_are_lists() {
    let tags = json!({
        "ResourceId": { "0000000001": "i-1", "0000000002": "sg-1" },
        "Tag": { "0000000001": { "Key": "k", "Value": "v" } },
    });
    assert_eq!(
        asked("ec2", "CreateTags", tags),
        [
            "ec2:CreateTags arn:aws:ec2:R:A:instance/i-1 aws:requesttag/k=v aws:tagkeys=k",
            "ec2:CreateTags arn:aws:ec2:R:A:security-group/sg-1 aws:requesttag/k=v aws:tagkeys=k",
        ]
    );
}

#[test]
fn a_reference_to_a_secret_is_a_parameter_and_the_secret() {
    let read = json!({ "Name": "/aws/reference/secretsmanager/shop/key" });
    assert_eq!(
        asked("ssm", "GetParameter", read),
        [
            "ssm:GetParameter arn:aws:ssm:R:A:parameter/aws/reference/secretsmanager/shop/key",
            "secretsmanager:GetSecretValue arn:aws:secretsmanager:R:A:secret:shop/key-AbCdEf",
        ]
    );
    let public = json!({ "Names": ["/aws/service/ecs/x", "/fleet/a"] });
    assert_eq!(
        asked("ssm", "GetParameters", public),
        [
            "ssm:GetParameters arn:aws:ssm:eu-west-1::parameter/aws/service/ecs/x",
            "ssm:GetParameters arn:aws:ssm:R:A:parameter/fleet/a",
        ]
    );
}

#[test]
fn what_is_on_no_list_is_not_guessed() {
    for (service, operation) in [
        ("ecs", "RunTask"),
        ("s3", "PutBucketAcl"),
        ("sts", "AssumeRole"),
    ] {
        let call = Call {
            service: service.to_owned(),
            operation: operation.to_owned(),
            body: json!({}),
        };
        assert_eq!(requests(&call, &Stub), None, "{service}:{operation}");
    }
}
