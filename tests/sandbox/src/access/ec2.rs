//! EC2.

use super::{Account, Call, Tags, TemplateFacts, items, pass_role, tag_list, tagging};
use crate::policy::Request;

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let operation = call.operation.as_str();
    if operation.starts_with("Describe") {
        return Some(vec![call.on("*")]);
    }
    let on = |id: &str| account.tagged(call.on(arn(account, id)));
    match operation {
        "AuthorizeSecurityGroupEgress"
        | "AuthorizeSecurityGroupIngress"
        | "DeleteSecurityGroup"
        | "RevokeSecurityGroupEgress"
        | "RevokeSecurityGroupIngress" => Some(vec![on(call.text("GroupId"))]),
        "CreateLaunchTemplateVersion"
        | "DeleteLaunchTemplate"
        | "DeleteLaunchTemplateVersions"
        | "ModifyLaunchTemplate" => {
            let named = ["LaunchTemplateId", "LaunchTemplateName"];
            let mut named = named.into_iter().map(|name| call.text(name));
            let name = named.find(|name| !name.is_empty()).unwrap_or_default();
            let found = account.0.launch_template(name);
            Some(vec![on(
                &found.map_or_else(|| "lt-*".to_owned(), |found| found.id)
            )])
        }
        "GetConsoleOutput" => Some(vec![on(call.text("InstanceId"))]),
        "CreateSecurityGroup" => {
            let vpc = account.arn("ec2", &format!("vpc/{}", call.text("VpcId")));
            let mut asked = created(call, account.arn("ec2", "security-group/*"));
            asked.push(call.on(vpc));
            Some(asked)
        }
        "CreateLaunchTemplate" => Some(created(call, account.arn("ec2", "launch-template/*"))),
        "CreateTags" | "DeleteTags" => {
            let tags = tag_list(&call.body["Tag"]);
            let ids = call.texts("ResourceId");
            Some(call.each(&ids, |id| tagging(on(id), &tags)))
        }
        "RunInstances" => {
            let given = &call.body["LaunchTemplate"];
            let names = ["LaunchTemplateId", "LaunchTemplateName"].into_iter();
            let name = names.filter_map(|name| given[name].as_str()).next();
            let template = name.and_then(|name| account.0.launch_template(name));
            Some(launched(account, template.as_ref()))
        }
        _ => None,
    }
}

/// What a launch asks for, from a template or without one.
pub(super) fn launched(account: Account<'_>, template: Option<&TemplateFacts>) -> Vec<Request> {
    let from = template.map(|template| arn(account, &template.id));
    let run = |resource: &str| Request::new("ec2:RunInstances", resource);
    let mut asked: Vec<Request> = from.iter().map(|from| account.tagged(run(from))).collect();
    let ours = [
        "instance/*",
        "network-interface/*",
        "security-group/*",
        "subnet/*",
        "volume/*",
    ];
    let mut launched: Vec<String> = ours.map(|kind| account.arn("ec2", kind)).into();
    // Images are in no account.
    launched.push(format!("arn:aws:ec2:{}::image/*", account.0.region()));
    for resource in launched {
        let run = run(&resource);
        asked.push(match &from {
            Some(from) => run.with("ec2:LaunchTemplate", from.as_str()),
            None => run,
        });
    }
    if template.is_some() {
        // The template's own tags for what it launches.
        for resource in ["instance/*", "network-interface/*", "volume/*"] {
            let arn = account.arn("ec2", resource);
            asked.push(tags_created(arn, "RunInstances", &Tags::new()));
        }
    }
    let role = template.and_then(|template| template.role.as_ref());
    asked.extend(role.map(|role| pass_role(account, role, "ec2.amazonaws.com")));
    asked
}

/// The ARN that an id stands for.
pub(super) fn arn(account: Account<'_>, id: &str) -> String {
    const KINDS: &[(&str, &str)] = &[
        ("eni-", "network-interface"),
        ("i-", "instance"),
        ("lt-", "launch-template"),
        ("sg-", "security-group"),
        ("vol-", "volume"),
    ];
    let kind = KINDS.iter().find(|(prefix, _)| id.starts_with(prefix));
    let kind = kind.map_or("*", |(_, kind)| kind);
    account.arn("ec2", &format!("{kind}/{id}"))
}

/// EC2 user guide, "Grant permission to tag Amazon EC2 resources during creation".
pub(super) fn tags_created(arn: String, operation: &str, tags: &Tags) -> Request {
    tagging(Request::new("ec2:CreateTags", arn), tags).with("ec2:CreateAction", operation)
}

fn created(call: &Call, arn: String) -> Vec<Request> {
    let given = items(&call.body["TagSpecification"]);
    let tags: Tags = given.flat_map(|given| tag_list(&given["Tag"])).collect();
    let mut asked = vec![tagging(call.on(arn.as_str()), &tags)];
    if !tags.is_empty() {
        asked.push(tags_created(arn, &call.operation, &tags));
    }
    asked
}
