//! EC2 Auto Scaling.

use std::collections::BTreeSet;

use super::{Account, Call, ec2, items, service_linked_role, tag_list, tagging};
use crate::policy::Request;

const SERVICE: &str = "autoscaling.amazonaws.com";

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let operation = call.operation.as_str();
    if operation.starts_with("Describe") {
        return Some(vec![call.on("*")]);
    }
    let name = call.text("AutoScalingGroupName");
    let group = account.tagged(call.on(group_arn(account, name)));
    match operation {
        "CompleteLifecycleAction"
        | "DeleteAutoScalingGroup"
        | "DeleteLifecycleHook"
        | "DeletePolicy"
        | "DeleteScheduledAction"
        | "DeleteWarmPool"
        | "DetachInstances"
        | "DisableMetricsCollection"
        | "EnableMetricsCollection"
        | "EnterStandby"
        | "ExitStandby"
        | "PutLifecycleHook"
        | "PutScalingPolicy"
        | "PutScheduledUpdateGroupAction"
        | "PutWarmPool"
        | "RecordLifecycleActionHeartbeat"
        | "SetDesiredCapacity"
        | "SetInstanceProtection" => Some(vec![group]),
        "SetInstanceHealth" | "TerminateInstanceInAutoScalingGroup" => {
            let home = account.0.group_of(call.text("InstanceId"));
            let home = home.map_or_else(|| "*".to_owned(), |name| group_arn(account, &name));
            Some(vec![account.tagged(call.on(home))])
        }
        "CreateAutoScalingGroup" => {
            let tags = tag_list(&call.body["Tags"]);
            let mut asked = vec![tagging(call.on(group.resource.as_str()), &tags)];
            if !tags.is_empty() {
                let tag = Request::new("autoscaling:CreateOrUpdateTags", group.resource);
                asked.push(tagging(tag, &tags));
            }
            asked.push(service_linked_role(
                account,
                SERVICE,
                "AWSServiceRoleForAutoScaling",
            ));
            asked.extend(launches(call, account));
            Some(asked)
        }
        "UpdateAutoScalingGroup" => {
            let mut asked = vec![group];
            asked.extend(launches(call, account));
            Some(asked)
        }
        "CreateOrUpdateTags" | "DeleteTags" => {
            let list = &call.body["Tags"];
            let groups = items(list).filter_map(|tag| tag["ResourceId"].as_str());
            let groups: BTreeSet<&str> = groups.collect();
            let groups: Vec<&str> = groups.into_iter().collect();
            let tags = tag_list(list);
            let on = |name: &str| account.tagged(call.on(group_arn(account, name)));
            Some(call.each(&groups, |name| tagging(on(name), &tags)))
        }
        _ => None,
    }
}

/// By the group's name or its ARN. One that is not there has no UUID.
pub(super) fn group_arn(account: Account<'_>, name: &str) -> String {
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    account.0.group_arn(name).unwrap_or_else(|| {
        let resource = format!("autoScalingGroup:*:autoScalingGroupName/{name}");
        account.arn("autoscaling", &resource)
    })
}

/// Auto Scaling tries whether the caller may launch from the template that a group is given (its user
/// guide, "Control Amazon EC2 launch template usage in Auto Scaling groups").
fn launches(call: &Call, account: Account<'_>) -> Vec<Request> {
    let mixed = &call.body["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"];
    let given = [&call.body["LaunchTemplate"], mixed];
    let spec = given.into_iter().find(|spec| !spec.is_null());
    let name = spec.and_then(|spec| {
        let names = ["LaunchTemplateId", "LaunchTemplateName"].into_iter();
        names.filter_map(|name| spec[name].as_str()).next()
    });
    let Some(template) = name.and_then(|name| account.0.launch_template(name)) else {
        return Vec::new();
    };
    let mut asked = ec2::launched(account, Some(&template));
    let distribution = &call.body["MixedInstancesPolicy"]["InstancesDistribution"];
    if !distribution.is_null() {
        let spot = "spot.amazonaws.com";
        asked.push(service_linked_role(
            account,
            spot,
            "AWSServiceRoleForEC2Spot",
        ));
    }
    asked
}
