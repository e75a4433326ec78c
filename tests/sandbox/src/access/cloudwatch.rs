//! CloudWatch: alarms.

use super::{Account, Call, tag_list, tagging};
use crate::policy::Request;

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let on =
        |name: &str| account.tagged(call.on(account.arn("cloudwatch", &format!("alarm:{name}"))));
    let tags = tag_list(&call.body["Tags"]);
    match call.operation.as_str() {
        "DescribeAlarms" => Some(call.each(&call.texts("AlarmNames"), on)),
        "DeleteAlarms" => Some(call.each(&call.texts("AlarmNames"), on)),
        // With tags for what it makes it also tags (API reference, PutMetricAlarm).
        "PutMetricAlarm" => {
            let put = on(call.text("AlarmName"));
            let arn = put.resource.clone();
            let mut asked = vec![tagging(put, &tags)];
            if !tags.is_empty() {
                let tag = Request::new("cloudwatch:TagResource", arn);
                asked.push(tagging(account.tagged(tag), &tags));
            }
            Some(asked)
        }
        "ListTagsForResource" | "TagResource" => {
            let tagged = account.tagged(call.on(call.text("ResourceARN")));
            Some(vec![tagging(tagged, &tags)])
        }
        _ => None,
    }
}
