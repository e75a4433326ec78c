//! What moto serves behind the gateway: a list of what is known to be answered rightly. All else
//! is refused by name, since moto's own answer to what it lacks is an HTML 500 that SDKs retry.

use axum::http::HeaderMap;

use super::{
    form,
    reply::Reply,
    request::{ApiCall, Protocol},
    unserved,
};
use crate::{api_error::ApiError, policy::Policy, world::World};

/// `service:Operation`.
const FORWARDED: &[&str] = &[
    "ec2:AuthorizeSecurityGroupEgress",
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:CopyImage",
    "ec2:CreateImage",
    "ec2:CreateKeyPair",
    "ec2:CreateLaunchTemplate",
    "ec2:CreateLaunchTemplateVersion",
    "ec2:CreateSecurityGroup",
    "ec2:CreateTags",
    "ec2:DeleteKeyPair",
    "ec2:DeleteLaunchTemplate",
    "ec2:DeleteLaunchTemplateVersions",
    "ec2:DeleteSecurityGroup",
    "ec2:DeleteSnapshot",
    "ec2:DeleteTags",
    "ec2:DeregisterImage",
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImageAttribute",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeRegions",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroupRules",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSnapshots",
    "ec2:DescribeSubnets",
    "ec2:DescribeTags",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcs",
    "ec2:ModifyImageAttribute",
    "ec2:ModifyLaunchTemplate",
    "ec2:RevokeSecurityGroupEgress",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:RunInstances",
    "ec2:StopInstances",
    "ec2:TerminateInstances",
    "ecr:GetAuthorizationToken",
    "iam:AddRoleToInstanceProfile",
    "iam:AttachRolePolicy",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:CreateServiceLinkedRole",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:DeleteRolePermissionsBoundary",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:GetAccountAuthorizationDetails",
    "iam:GetAccountSummary",
    "iam:GetInstanceProfile",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfileTags",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:ListRoleTags",
    "iam:PutRolePermissionsBoundary",
    "iam:PutRolePolicy",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
    "iam:UntagInstanceProfile",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
    "ssm:AddTagsToResource",
    "ssm:DeleteParameter",
    "ssm:DeleteParameters",
    "ssm:DescribeParameters",
    "ssm:GetParameter",
    "ssm:GetParameters",
    "ssm:GetParametersByPath",
    "ssm:ListTagsForResource",
    "ssm:PutParameter",
    "ssm:RemoveTagsFromResource",
    "sts:GetCallerIdentity",
];

/// Asks moto, and lets the sandbox know what its answer changes.
///
/// # Errors
/// What is not served, by name; what a sandbox that runs machines must refuse although moto would
/// not.
pub(super) async fn serve(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let name = format!("{}:{}", call.service, call.operation);
    if !FORWARDED.contains(&name.as_str()) {
        return Err(unserved(call));
    }
    match name.as_str() {
        "ec2:DeleteSecurityGroup" => refuse_group_in_use(world, call).await?,
        "iam:CreateServiceLinkedRole" => return service_linked_role(world, call).await,
        "iam:RemoveRoleFromInstanceProfile" => refuse_role_not_in_profile(world, call).await?,
        "iam:PutRolePolicy" => refuse_unreadable_policy(call)?,
        _ => {}
    }
    // moto does not know them.
    let token = form::parameter(&call.body, "ClientToken").filter(|_| call.service == "ec2");
    let known = |token: &String| world.look(|state| state.client_tokens.get(token).cloned());
    if let Some(body) = token.as_ref().and_then(known) {
        return Ok(Reply {
            status: 200,
            content_type: "text/xml".to_owned(),
            headers: HeaderMap::new(),
            body,
        });
    }
    let answer = world.moto().forward(&call.headers, &call.body).await?;
    if answer.status == 500 && answer.content_type.contains("html") {
        return Err(unserved(call));
    }
    if name == "ec2:DeleteLaunchTemplate" && is_missing_parameter(&answer.body) {
        let code = "InvalidLaunchTemplateName.NotFoundException";
        let message = "The specified launch template, with template name or id, does not exist.";
        return Err(ApiError::new(code, message));
    }
    if call.protocol == Protocol::Json && answer.status == 403 && !is_json(&answer.body) {
        let message = "User is not authorized to perform this operation";
        return Err(ApiError::new("AccessDeniedException", message));
    }
    if answer.status == 200 {
        match call.service.as_str() {
            "ec2" => {
                note_tags(world, call);
                if call.operation == "DeregisterImage"
                    && let Some(id) = form::parameter(&call.body, "ImageId")
                {
                    world.count(|state| state.images.remove(&id));
                }
                if let Some(token) = token {
                    let body = answer.body.clone();
                    world.count(|state| state.client_tokens.insert(token, body));
                }
            }
            "iam" => world.count(|state| state.grants.iam_changed()),
            _ => {}
        }
    }
    Ok(Reply {
        status: answer.status,
        content_type: answer.content_type,
        headers: HeaderMap::new(),
        body: answer.body,
    })
}

/// moto deletes a security group that machines use; AWS does not.
async fn refuse_group_in_use(world: &World, call: &ApiCall) -> Result<(), ApiError> {
    let id = match form::parameter(&call.body, "GroupId") {
        Some(id) => id,
        None => {
            let name = form::parameter(&call.body, "GroupName").unwrap_or_default();
            world.moto().security_group_id(&name).await?
        }
    };
    if world.look(|state| state.machines.uses_security_group(&id)) {
        let message = format!("resource {id} has a dependent object");
        return Err(ApiError::new("DependencyViolation", message));
    }
    Ok(())
}

/// moto fails over it.
async fn refuse_role_not_in_profile(world: &World, call: &ApiCall) -> Result<(), ApiError> {
    let parameter = |name| form::parameter(&call.body, name).unwrap_or_default();
    let (profile, role) = (parameter("InstanceProfileName"), parameter("RoleName"));
    if world.moto().role_of_profile(&profile).await?.as_ref() == Some(&role) {
        return Ok(());
    }
    let message = format!("The role with name {role} cannot be found in profile {profile}.");
    Err(ApiError::new("NoSuchEntity", message).with_status(404))
}

/// moto derives the role's name from the service's, which on AWS do not resemble each other.
async fn service_linked_role(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let service = form::parameter(&call.body, "AWSServiceName").unwrap_or_default();
    let role = match service.as_str() {
        "autoscaling.amazonaws.com" => "AWSServiceRoleForAutoScaling",
        "ecs.amazonaws.com" => "AWSServiceRoleForECS",
        "spot.amazonaws.com" => "AWSServiceRoleForEC2Spot",
        _ => return Err(unserved(call)),
    };
    let created = world.moto().create_service_role(role, &service).await;
    created.map_err(|error| match error.code.as_str() {
        "EntityAlreadyExists" => {
            let message = format!(
                "Service role name {role} has been taken in this account, please try a different suffix."
            );
            ApiError::new("InvalidInput", message)
        }
        _ => error,
    })?;
    Ok(Reply {
        status: 200,
        content_type: "text/xml".to_owned(),
        headers: HeaderMap::new(),
        body: "<CreateServiceLinkedRoleResponse><CreateServiceLinkedRoleResult/></CreateServiceLinkedRoleResponse>".into(),
    })
}

/// moto takes every document; AWS does not, and the sandbox none that it could not evaluate.
fn refuse_unreadable_policy(call: &ApiCall) -> Result<(), ApiError> {
    let document = form::parameter(&call.body, "PolicyDocument").unwrap_or_default();
    let refused = |why: String| {
        let message = format!("fleet-sandbox cannot evaluate this policy: {why}");
        ApiError::new("MalformedPolicyDocument", message)
    };
    let document = serde_json::from_str(&document).map_err(|e| refused(e.to_string()))?;
    Policy::read(&document)
        .map(drop)
        .map_err(|e| refused(e.to_string()))
}

/// Machines see their tags live through the metadata service.
fn note_tags(world: &World, call: &ApiCall) {
    let deleted = match call.operation.as_str() {
        "CreateTags" => false,
        "DeleteTags" => true,
        _ => return,
    };
    let resources = form::list(&call.body, "ResourceId");
    let tags = (1..).map_while(|index| {
        let key = form::parameter(&call.body, &format!("Tag.{index}.Key"))?;
        let value = form::parameter(&call.body, &format!("Tag.{index}.Value"));
        Some((key, value.unwrap_or_default()))
    });
    let tags: Vec<(String, String)> = tags.collect();
    world.change(|state, _| {
        for id in &resources {
            state.machines.note_tags(id, &tags, deleted);
        }
    });
}

/// What moto says of a launch template that is not there.
fn is_missing_parameter(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("<Code>MissingParameter</Code>")
}

fn is_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_without_doubles() {
        assert!(FORWARDED.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
