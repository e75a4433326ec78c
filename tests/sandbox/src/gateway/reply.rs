//! Replies in each protocol's shape. Every one carries `x-amzn-requestid`, where the Rust SDK
//! looks for it; XML carries it too, where boto3 does.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use quick_xml::escape::escape;
use serde::Serialize;
use serde_json::{Value, json};

use super::request::Protocol;
use crate::api_error::ApiError;

/// Of bodies in CBOR.
const CBOR: &str = "application/cbor";

/// A reply before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    /// More of them.
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// An awsQuery reply with a result.
    ///
    /// # Errors
    /// `InternalFailure` if the result does not go into XML: a defect of the sandbox.
    pub(super) fn query(
        operation: &str,
        request_id: &str,
        result: &impl Serialize,
    ) -> Result<Self, ApiError> {
        let name = format!("{operation}Result");
        let result = quick_xml::se::to_string_with_root(&name, result)
            .map_err(|e| ApiError::new("InternalFailure", e.to_string()).with_status(500))?;
        Ok(Self::xml(
            200,
            query_envelope(operation, request_id, &result),
        ))
    }

    /// An awsQuery reply without a result. boto3 wants the empty element all the same where the
    /// operation has an output shape, and does not mind it where it has none.
    pub(super) fn query_void(operation: &str, request_id: &str) -> Self {
        let result = format!("<{operation}Result/>");
        Self::xml(200, query_envelope(operation, request_id, &result))
    }

    pub(super) fn xml(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "text/xml".to_owned(),
            headers: HeaderMap::new(),
            body: body.into_bytes(),
        }
    }

    /// A JSON reply; absent members are left out.
    pub(super) fn json(mut body: Value) -> Self {
        drop_nulls(&mut body);
        Self {
            status: 200,
            content_type: "application/x-amz-json-1.1".to_owned(),
            headers: HeaderMap::new(),
            body: body.to_string().into_bytes(),
        }
    }

    /// A refusal.
    pub(super) fn error(protocol: Protocol, error: &ApiError, request_id: &str) -> Self {
        let (code, message) = (escape(error.code.as_str()), escape(error.message.as_str()));
        match protocol {
            Protocol::Json | Protocol::Cbor => Self {
                status: error.status,
                ..Self::json(json!({ "__type": error.code, "message": error.message }))
            },
            Protocol::Query => Self::xml(
                error.status,
                format!(
                    "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>\
                     <Message>{message}</Message></Error><RequestId>{request_id}</RequestId>\
                     </ErrorResponse>"
                ),
            ),
            Protocol::S3 => Self::xml(
                error.status,
                format!(
                    "<Error><Code>{code}</Code><Message>{message}</Message>\
                     <RequestId>{request_id}</RequestId></Error>"
                ),
            ),
            Protocol::Ec2 => Self::xml(
                error.status,
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>\
                     </Error></Errors><RequestID>{request_id}</RequestID></Response>"
                ),
            ),
        }
    }

    /// A reply in JSON as a service says it that speaks CBOR.
    pub(super) fn spoken(self, protocol: Protocol) -> Self {
        if protocol != Protocol::Cbor {
            return self;
        }
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let (status, body) = match minicbor_serde::to_vec(&value) {
            Ok(body) => (self.status, body),
            // No value of JSON's is beyond CBOR.
            Err(_) => (500, Vec::new()),
        };
        Self {
            status,
            content_type: CBOR.to_owned(),
            headers: self.headers,
            body,
        }
    }

    pub(super) fn into_response(self, request_id: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.extend(self.headers);
        if self.content_type == CBOR {
            headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
        }
        if let Ok(content_type) = HeaderValue::from_str(&self.content_type) {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        if let Ok(request_id) = HeaderValue::from_str(request_id) {
            headers.insert("x-amzn-requestid", request_id);
        }
        response
    }
}

fn query_envelope(operation: &str, request_id: &str, result: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">{result}\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
         </{operation}Response>"
    )
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
