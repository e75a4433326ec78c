//! IAM.

use super::{Account, Call, pass_role, service_linked_role, tag_list, tagging};
use crate::policy::Request;

const SERVICE_ROLE: &str = "AWSServiceRoleFor";

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let role = role_arn(account, call.text("RoleName"));
    let profile = global(
        account,
        &format!("instance-profile/{}", call.text("InstanceProfileName")),
    );
    match call.operation.as_str() {
        "DeleteRole"
        | "DeleteRolePolicy"
        | "GetRole"
        | "GetRolePolicy"
        | "ListAttachedRolePolicies"
        | "ListInstanceProfilesForRole"
        | "ListRolePolicies"
        | "ListRoleTags"
        | "DeleteRolePermissionsBoundary"
        | "PutRolePermissionsBoundary"
        | "PutRolePolicy"
        | "UpdateAssumeRolePolicy" => Some(vec![call.on(role)]),
        "GetAccountAuthorizationDetails" | "GetAccountSummary" => Some(vec![call.on("*")]),
        "AttachRolePolicy" | "DetachRolePolicy" => Some(vec![
            call.on(role).with("iam:PolicyARN", call.text("PolicyArn")),
        ]),
        "CreateRole" => Some(created(call, role, "iam:TagRole")),
        "TagRole" => Some(vec![tagging(call.on(role), &tag_list(&call.body["Tags"]))]),
        "DeleteInstanceProfile"
        | "GetInstanceProfile"
        | "ListInstanceProfileTags"
        | "RemoveRoleFromInstanceProfile" => Some(vec![call.on(profile)]),
        "AddRoleToInstanceProfile" => {
            let passes = pass_role(account, call.text("RoleName"), "ec2.amazonaws.com");
            Some(vec![call.on(profile), passes])
        }
        "CreateInstanceProfile" => Some(created(call, profile, "iam:TagInstanceProfile")),
        "TagInstanceProfile" => Some(vec![tagging(
            call.on(profile),
            &tag_list(&call.body["Tags"]),
        )]),
        "CreateServiceLinkedRole" => Some(vec![service_linked_role(
            account,
            call.text("AWSServiceName"),
            "*",
        )]),
        _ => None,
    }
}

/// By the role's name. Those of services stand in a path that their name does not say.
pub(super) fn role_arn(account: Account<'_>, role: &str) -> String {
    if role.starts_with(SERVICE_ROLE) {
        return global(account, &format!("role/aws-service-role/*/{role}"));
    }
    global(account, &format!("role/{role}"))
}

/// IAM is in no region.
fn global(account: Account<'_>, resource: &str) -> String {
    format!("arn:aws:iam::{}:{resource}", account.0.account_id())
}

fn created(call: &Call, arn: String, tags_with: &str) -> Vec<Request> {
    let tags = tag_list(&call.body["Tags"]);
    let mut asked = vec![tagging(call.on(arn.as_str()), &tags)];
    if !tags.is_empty() {
        asked.push(tagging(Request::new(tags_with, arn), &tags));
    }
    asked
}
