//! Who calls what: read from the signature, the headers and the body of a request to `/`.

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Uri},
};

use super::{form, s3};

/// The caller of a call that is not signed.
pub(super) const ANONYMOUS: &str = "anonymous";

/// How a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Forms in, `ErrorResponse` XML out.
    Query,
    /// Forms in, `Response` XML out.
    Ec2,
    /// JSON both ways.
    Json,
    /// CBOR both ways; here it is read and made as JSON.
    Cbor,
    /// S3's own.
    S3,
}

/// One attempt of one API call.
#[derive(Debug, Clone)]
pub(super) struct ApiCall {
    pub(super) service: String,
    pub(super) operation: String,
    /// Access key, or [`ANONYMOUS`].
    pub(super) caller: String,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Of a call of S3.
    pub(super) target: Option<s3::Target>,
}

impl ApiCall {
    /// `None` if this is no AWS call.
    pub(super) fn read(
        headers: HeaderMap,
        method: &Method,
        uri: &Uri,
        body: Bytes,
    ) -> Option<Self> {
        let scope = scope(&headers, uri);
        if let Some((caller, service)) = &scope
            && service == "s3"
        {
            return Some(s3::read(caller.clone(), method, uri, headers, body));
        }
        let target = headers.get("x-amz-target").and_then(|v| v.to_str().ok());
        if let Some(operation) = operation_of_path(uri.path()) {
            let (caller, service) = scope?;
            let value: serde_json::Value = minicbor_serde::from_slice(&body).ok()?;
            return Some(Self {
                service: named(service),
                operation: operation.to_owned(),
                caller,
                protocol: Protocol::Cbor,
                headers,
                body: Bytes::from(value.to_string()),
                target: None,
            });
        }
        let (operation, service) = match target {
            Some(target) => {
                let (prefix, operation) = target.rsplit_once('.')?;
                (operation.to_owned(), service_of_target(prefix))
            }
            None => {
                let version = form::parameter(&body, "Version");
                let service = version.as_deref().and_then(service_of_version);
                (form::parameter(&body, "Action")?, service)
            }
        };
        let (caller, service) = match scope {
            Some((caller, signed)) => (caller, named(signed)),
            None => (ANONYMOUS.to_owned(), service?.to_owned()),
        };
        let protocol = match (target, service.as_str()) {
            (Some(_), _) => Protocol::Json,
            (None, "ec2") => Protocol::Ec2,
            (None, _) => Protocol::Query,
        };
        Some(Self {
            service,
            operation,
            caller,
            protocol,
            headers,
            body,
            target: None,
        })
    }

    /// Whether calls of its protocol are made there: of most they are made in one place.
    pub(super) fn is_at(&self, path: &str) -> bool {
        path == "/" || matches!(self.protocol, Protocol::Cbor | Protocol::S3)
    }
}

/// What a service that speaks CBOR is asked for (Smithy RPC v2: `/service/NAME/operation/NAME`).
fn operation_of_path(path: &str) -> Option<&str> {
    let (_service, operation) = path.strip_prefix("/service/")?.split_once("/operation/")?;
    Some(operation)
}

/// By the name that actions have in policies.
fn named(signed: String) -> String {
    match signed.as_str() {
        "monitoring" => "cloudwatch".to_owned(),
        _ => signed,
    }
}

/// Access key and service of the signature.
pub(super) fn scope(headers: &HeaderMap, uri: &Uri) -> Option<(String, String)> {
    let credential = match headers.get("authorization").and_then(|v| v.to_str().ok()) {
        Some(authorization) => authorization
            .strip_prefix("AWS4-HMAC-SHA256 ")?
            .split(',')
            .find_map(|part| part.trim().strip_prefix("Credential="))?
            .to_owned(),
        None => form_urlencoded::parse(uri.query()?.as_bytes())
            .find(|(key, _)| key == "X-Amz-Credential")?
            .1
            .into_owned(),
    };
    // KEY/DATE/REGION/SERVICE/aws4_request, read from the end since a key may hold slashes.
    let mut parts = credential.rsplitn(5, '/');
    let (_terminator, service) = (parts.next()?, parts.next()?.to_owned());
    let (_region, _date) = (parts.next()?, parts.next()?);
    Some((parts.next()?.to_owned(), service))
}

fn service_of_target(prefix: &str) -> Option<&'static str> {
    match prefix {
        "AmazonEC2ContainerServiceV20141113" => Some("ecs"),
        "AmazonSSM" => Some("ssm"),
        _ => None,
    }
}

fn service_of_version(version: &str) -> Option<&'static str> {
    match version {
        "2011-06-15" => Some("sts"),
        "2010-05-08" => Some("iam"),
        "2016-11-15" => Some("ec2"),
        "2011-01-01" => Some("autoscaling"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_scope_or_falls_back() {
        let mut headers = HeaderMap::new();
        let signature = "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/eu-west-1/ecs/aws4_request, \
                         SignedHeaders=host, Signature=0";
        headers.insert("authorization", signature.parse().unwrap());
        let target = "AmazonEC2ContainerServiceV20141113.ListTasks";
        headers.insert("x-amz-target", target.parse().unwrap());
        let call =
            ApiCall::read(headers, &Method::POST, &Uri::from_static("/"), Bytes::new()).unwrap();
        assert_eq!(
            (
                call.service.as_str(),
                call.operation.as_str(),
                call.caller.as_str()
            ),
            ("ecs", "ListTasks", "AKIA1")
        );
        assert_eq!(call.protocol, Protocol::Json);

        let mut headers = HeaderMap::new();
        let signature = signature.replace("/ecs/", "/monitoring/");
        headers.insert("authorization", signature.parse().unwrap());
        let uri = Uri::from_static("/service/GraniteServiceVersion20100801/operation/DeleteAlarms");
        let asked = serde_json::json!({ "AlarmNames": ["a"] });
        let body = Bytes::from(minicbor_serde::to_vec(&asked).unwrap());
        let call = ApiCall::read(headers, &Method::POST, &uri, body).unwrap();
        assert_eq!(
            (call.service.as_str(), call.operation.as_str()),
            ("cloudwatch", "DeleteAlarms")
        );
        assert!(call.protocol == Protocol::Cbor && call.is_at(uri.path()));
        assert_eq!(call.body, asked.to_string().as_bytes());

        let body = Bytes::from_static(b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
        let call = ApiCall::read(
            HeaderMap::new(),
            &Method::POST,
            &Uri::from_static("/"),
            body,
        )
        .unwrap();
        assert_eq!(
            (call.service.as_str(), call.caller.as_str()),
            ("sts", "anonymous")
        );
        let nothing = ApiCall::read(
            HeaderMap::new(),
            &Method::POST,
            &Uri::from_static("/"),
            Bytes::new(),
        );
        assert!(nothing.is_none());
    }
}
