//! S3, which names its operations by method, path and query, in path style as every endpoint that is an
//! address is asked. What is on the list here is moto's to answer; all else is refused by name.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, Method, Uri, header},
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    reply::Reply,
    request::{ApiCall, Protocol},
    unserved,
};
use crate::{
    api_error::ApiError,
    moto::{MotoApi, RestAnswer},
    world::World,
};

/// The largest object that is taken.
pub(super) const BODY_MAX_BYTES: usize = 128 * 1024 * 1024;
/// What a query may say beside the part of a bucket that it is about.
const PARAMETERS: &[&str] = &[
    "delimiter",
    "encoding-type",
    "key-marker",
    "list-type",
    "max-keys",
    "prefix",
    "version-id-marker",
    "versionId",
    "x-id",
];
/// Of this hop only.
const OF_A_HOP: [HeaderName; 3] = [header::CONNECTION, header::DATE, header::TRANSFER_ENCODING];

/// Where a call goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    method: Method,
    /// As it was signed.
    path_and_query: String,
    pub(super) bucket: String,
    /// Empty for the bucket itself.
    pub(super) key: String,
    /// One version of the object.
    pub(super) version_id: Option<String>,
}

/// A call that is signed for S3.
pub(super) fn read(
    caller: String,
    method: &Method,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
) -> ApiCall {
    let path = percent_decode_str(uri.path()).decode_utf8_lossy();
    let path = path.trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query: Vec<(String, String)> =
        form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let mut about = query.iter().map(|(name, _)| name.as_str());
    let about = about.find(|name| !PARAMETERS.contains(name));
    let lists = query.iter().any(|(name, _)| name == "list-type");
    let copies = headers.contains_key("x-amz-copy-source");
    let operation = match (method.as_str(), bucket, key, about) {
        ("GET", "", "", None) => "ListBuckets",
        ("PUT", _, "", None) => "CreateBucket",
        ("DELETE", _, "", None) => "DeleteBucket",
        ("HEAD", _, "", None) => "HeadBucket",
        ("GET", _, "", None) if lists => "ListObjectsV2",
        ("GET", _, "", Some("tagging")) => "GetBucketTagging",
        ("PUT", _, "", Some("tagging")) => "PutBucketTagging",
        ("GET", _, "", Some("publicAccessBlock")) => "GetPublicAccessBlock",
        ("PUT", _, "", Some("publicAccessBlock")) => "PutPublicAccessBlock",
        ("GET", _, "", Some("versions")) => "ListObjectVersions",
        ("PUT", _, _, None) if !copies => "PutObject",
        ("GET", _, _, None) => "GetObject",
        ("HEAD", _, _, None) => "HeadObject",
        ("DELETE", _, _, None) => "DeleteObject",
        _ => "",
    };
    let operation = match operation {
        "" => format!("{method} {uri}"),
        named => named.to_owned(),
    };
    let mut query = query.into_iter();
    let target = Target {
        method: method.clone(),
        path_and_query: uri
            .path_and_query()
            .map_or("/", |of| of.as_str())
            .to_owned(),
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version_id: query
            .find(|(name, _)| name == "versionId")
            .map(|(_, id)| id),
    };
    ApiCall {
        service: "s3".to_owned(),
        operation,
        caller,
        protocol: Protocol::S3,
        headers,
        body,
        target: Some(target),
    }
}

/// What a call names, as authorization reads it.
pub(super) fn named(call: &ApiCall) -> Value {
    let Some(target) = &call.target else {
        return Value::Null;
    };
    json!({
        "Bucket": target.bucket,
        "Key": target.key,
        "VersionId": target.version_id,
        "Tagged": tags_of_new(&call.body).is_some(),
    })
}

/// What moto is asked.
const FORWARDED: &[&str] = &[
    "CreateBucket",
    "DeleteBucket",
    "DeleteObject",
    "GetBucketTagging",
    "GetObject",
    "GetPublicAccessBlock",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjectVersions",
    "ListObjectsV2",
    "PutBucketTagging",
    "PutObject",
    "PutPublicAccessBlock",
];

/// Asks moto.
///
/// # Errors
/// What is not served, by name.
pub(super) async fn serve(world: &World, call: &ApiCall) -> Result<Reply, ApiError> {
    let target = call.target.as_ref().ok_or_else(|| unserved(call))?;
    if !FORWARDED.contains(&call.operation.as_str()) {
        return Err(unserved(call));
    }
    // To its end also when the caller hangs up: on AWS a bucket has its tags at once.
    let asked = asked(world.moto().clone(), target.clone(), call.clone());
    let asked = tokio::spawn(asked).await;
    let mut answer =
        asked.map_err(|e| ApiError::new("InternalError", e.to_string()).with_status(500))??;
    for name in OF_A_HOP {
        answer.headers.remove(name);
    }
    let content_type = answer.headers.remove(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|of| of.to_str().ok().map(str::to_owned));
    Ok(Reply {
        status: answer.status,
        content_type: content_type.unwrap_or_else(|| "application/xml".to_owned()),
        headers: answer.headers,
        body: answer.body,
    })
}

/// What moto says, which reads no tags of a new bucket.
async fn asked(moto: MotoApi, target: Target, call: ApiCall) -> Result<RestAnswer, ApiError> {
    let _turn = moto.turn().await;
    let (method, path) = (&target.method, &target.path_and_query);
    let answer = moto
        .rest(method, path, &call.headers, call.body.clone())
        .await?;
    let tags = tags_of_new(&call.body).filter(|_| call.operation == "CreateBucket");
    let Some(tags) = tags.filter(|_| answer.status == 200) else {
        return Ok(answer);
    };
    let put = format!("/{}?tagging", target.bucket);
    let tagging = format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
    let tagged = moto
        .rest(&Method::PUT, &put, &call.headers, tagging.into())
        .await?;
    if tagged.status >= 300 {
        let message = String::from_utf8_lossy(&tagged.body).into_owned();
        return Err(ApiError::new("InternalError", message).with_status(500));
    }
    Ok(answer)
}

/// The tags in a CreateBucketConfiguration, as they stand in it.
fn tags_of_new(body: &[u8]) -> Option<String> {
    let body = String::from_utf8_lossy(body);
    let (_, rest) = body.split_once("<Tags>")?;
    let (tags, _) = rest.split_once("</Tags>")?;
    Some(tags.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_without_doubles() {
        assert!(FORWARDED.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn operations_are_known_by_method_path_and_query() {
        let call = |method: Method, uri: &'static str| {
            let uri = Uri::from_static(uri);
            read(
                "AKIA".to_owned(),
                &method,
                &uri,
                HeaderMap::new(),
                Bytes::new(),
            )
        };
        for (method, uri, operation) in [
            (Method::PUT, "/b", "CreateBucket"),
            (Method::PUT, "/b/?x-id=CreateBucket", "CreateBucket"),
            (Method::GET, "/b?tagging", "GetBucketTagging"),
            (Method::PUT, "/b?publicAccessBlock", "PutPublicAccessBlock"),
            (Method::GET, "/b?versions&max-keys=2", "ListObjectVersions"),
            (Method::GET, "/b?list-type=2", "ListObjectsV2"),
            (Method::PUT, "/b/a/c?x-id=PutObject", "PutObject"),
            (Method::HEAD, "/b/a", "HeadObject"),
            (Method::DELETE, "/b/a?versionId=1", "DeleteObject"),
            (Method::PUT, "/b?acl", "PUT /b?acl"),
            (Method::POST, "/b?delete", "POST /b?delete"),
            (Method::GET, "/b/a?acl", "GET /b/a?acl"),
        ] {
            assert_eq!(call(method, uri).operation, operation, "{uri}");
        }
        let target = call(Method::DELETE, "/b/a%7E1/c?versionId=v").target;
        let target = target.expect("a target");
        assert_eq!((&*target.bucket, &*target.key), ("b", "a~1/c"));
        assert_eq!(target.version_id.as_deref(), Some("v"));
    }

    #[test]
    fn a_new_bucket_s_tags_are_read_out_of_its_configuration() {
        let body = b"<CreateBucketConfiguration><Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags></CreateBucketConfiguration>";
        let tags = tags_of_new(body).expect("tags");
        assert_eq!(tags, "<Tag><Key>a</Key><Value>b</Value></Tag>");
        assert_eq!(tags_of_new(b""), None);
    }
}
