//! Systems Manager.

use super::{Account, Call, items, tag_list, tagging};
use crate::policy::Request;

/// Parameters that stand for secrets.
const SECRETS: &str = "/aws/reference/secretsmanager/";
/// What Secrets Manager ends a secret's ARN with: a hyphen and six characters of its own.
const SUFFIX: &str = "-AbCdEf";

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let on = |name: &str| call.on(parameter_arn(account, name));
    match call.operation.as_str() {
        "DescribeParameters" | "ListInventoryEntries" => Some(vec![call.on("*")]),
        "PutInventory" => {
            let kinds = items(&call.body["Items"]).filter_map(|item| item["TypeName"].as_str());
            Some(vec![kinds.fold(call.on("*"), |put, kind| {
                put.with("ssm:InventoryTypeName", kind)
            })])
        }
        "GetParameter" => {
            let name = call.text("Name");
            let mut asked = vec![on(name)];
            if let Some(secret) = name.strip_prefix(SECRETS) {
                let secret = account.arn("secretsmanager", &format!("secret:{secret}{SUFFIX}"));
                asked.push(Request::new("secretsmanager:GetSecretValue", secret));
            }
            Some(asked)
        }
        "GetParameters" | "DeleteParameters" => Some(call.each(&call.texts("Names"), on)),
        "DeleteParameter" => Some(vec![on(call.text("Name"))]),
        "GetParametersByPath" => Some(vec![on(call.text("Path"))]),
        "PutParameter" => {
            let tags = tag_list(&call.body["Tags"]);
            let put = on(call.text("Name"));
            let arn = put.resource.clone();
            let mut asked = vec![tagging(put, &tags)];
            if !tags.is_empty() {
                asked.push(tagging(Request::new("ssm:AddTagsToResource", arn), &tags));
            }
            Some(asked)
        }
        "AddTagsToResource" | "ListTagsForResource" | "RemoveTagsFromResource" => {
            let tags = tag_list(&call.body["Tags"]);
            Some(vec![tagging(on(call.text("ResourceId")), &tags)])
        }
        _ => None,
    }
}

/// AWS's own parameters are in no account.
fn parameter_arn(account: Account<'_>, name: &str) -> String {
    let path = name.trim_start_matches('/');
    if path.starts_with("aws/service/") {
        return format!("arn:aws:ssm:{}::parameter/{path}", account.0.region());
    }
    account.arn("ssm", &format!("parameter/{path}"))
}
