//! S3. Buckets and objects are of no region and no account in their ARNs.

use super::Call;
use crate::policy::Request;

pub(super) fn requests(call: &Call) -> Option<Vec<Request>> {
    let bucket = format!("arn:aws:s3:::{}", call.text("Bucket"));
    let object = format!("{bucket}/{}", call.text("Key"));
    let one =
        |action: &str, resource: &str| Some(vec![Request::new(format!("s3:{action}"), resource)]);
    match call.operation.as_str() {
        "CreateBucket" => {
            let mut asked = vec![call.on(bucket.as_str())];
            if call.body["Tagged"] == true {
                asked.push(Request::new("s3:TagResource", bucket));
            }
            Some(asked)
        }
        "DeleteBucket" | "GetBucketTagging" | "PutBucketTagging" => Some(vec![call.on(bucket)]),
        "GetPublicAccessBlock" => one("GetBucketPublicAccessBlock", &bucket),
        "PutPublicAccessBlock" => one("PutBucketPublicAccessBlock", &bucket),
        "ListBuckets" => one("ListAllMyBuckets", "*"),
        "HeadBucket" | "ListObjectsV2" => one("ListBucket", &bucket),
        "ListObjectVersions" => one("ListBucketVersions", &bucket),
        "PutObject" => Some(vec![call.on(object)]),
        "GetObject" | "HeadObject" => one("GetObject", &object),
        "DeleteObject" if call.text("VersionId").is_empty() => Some(vec![call.on(object)]),
        "DeleteObject" => one("DeleteObjectVersion", &object),
        _ => None,
    }
}
