//! The gateway: one port that every AWS SDK can use through `AWS_ENDPOINT_URL`. Auto Scaling and
//! ECS are served from the models, part of EC2, IAM, SSM and STS by moto behind it, and everything
//! else is refused by name at once. Whoever calls with an instance's credentials may do what its role's
//! policies allow. `/_sandbox/` is the admin API, `/_node/` belongs to nodes.

mod authorize;
mod autoscaling;
mod cloudwatch;
mod console;
mod ecs;
mod form;
mod forward;
mod inventory;
mod node;
mod reply;
mod request;

use std::{io, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, Response, StatusCode},
};
use tokio::{net::TcpListener, time::sleep};

use self::{
    reply::Reply,
    request::{ApiCall, Protocol},
};
use crate::{admin, api_error::ApiError, calls::is_first_attempt, faults::FaultRule, world::World};

/// The largest request that is read: a task definition is 64 KB at most.
const BODY_MAX_BYTES: usize = 1024 * 1024;

/// Serves until the world stops.
///
/// # Errors
/// Those of the listener.
pub(crate) async fn serve(world: World, listener: TcpListener) -> io::Result<()> {
    let stopped = world.stopped();
    let router = Router::new().fallback(move |request: Request| {
        let world = world.clone();
        async move { answer(&world, request).await }
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(stopped)
        .await
}

async fn answer(world: &World, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX_BYTES).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
    };
    let path = parts.uri.path();
    if let Some(rest) = path.strip_prefix("/_sandbox/") {
        return admin::answer(world, &parts.method, rest, &body).await;
    }
    if path == "/_node/sync" {
        return node::sync(world, &body).await;
    }
    let signed = request::scope(&parts.headers, &parts.uri);
    match ApiCall::read(parts.headers, &parts.uri, body) {
        Some(call) if call.is_at(path) => serve_call(world, &call).await,
        _ => unserved_rest(
            signed.as_ref().map(|(_, service)| service),
            &parts.method,
            path,
        ),
    }
}

/// The refusal of a REST service, which names its operations by method and path. S3 reads the code
/// in the body, the JSON services read it in the header.
fn unserved_rest(service: Option<&String>, method: &Method, path: &str) -> Response<Body> {
    let Some(service) = service else {
        return plain(
            StatusCode::BAD_REQUEST,
            "fleet-sandbox: this is no AWS call that it can read",
        );
    };
    let message = format!("fleet-sandbox does not serve {service}: {method} {path}");
    let body = format!(
        "<Error><Code>UnknownOperationException</Code><Message>{}</Message></Error>",
        quick_xml::escape::escape(&message)
    );
    let mut response = plain(StatusCode::BAD_REQUEST, &body);
    let code = HeaderValue::from_static("UnknownOperationException");
    response.headers_mut().insert("x-amzn-errortype", code);
    response
}

async fn serve_call(world: &World, call: &ApiCall) -> Response<Body> {
    let (request_id, fault) = world.count(|state| {
        let attempt = call.headers.get("amz-sdk-request");
        let first = is_first_attempt(attempt.and_then(|v| v.to_str().ok()));
        let (service, operation) = (&call.service, &call.operation);
        state.calls.count(service, operation, &call.caller, first);
        let fault = state.faults.apply(service, operation, &call.caller);
        (state.ids.uuid(), fault)
    });
    if let Some(fault) = fault
        && let Some(response) = suffer(&fault, call, &request_id).await
    {
        return response;
    }
    let reply = match authorize::call(world, call).await {
        Ok(()) => serve_allowed(world, call, &request_id).await,
        Err(refusal) => Err(refusal),
    };
    reply
        .unwrap_or_else(|error| Reply::error(call.protocol, &error, &request_id))
        .spoken(call.protocol)
        .into_response(&request_id)
}

async fn serve_allowed(world: &World, call: &ApiCall, request_id: &str) -> Result<Reply, ApiError> {
    match (call.service.as_str(), call.operation.as_str()) {
        ("autoscaling", _) => autoscaling::serve(world, call, request_id).await,
        ("cloudwatch", _) => world
            .change(|state, _| cloudwatch::serve(&mut state.cloudwatch, call))
            .map(Reply::json),
        ("ecs", _) => world
            .change(|state, now| ecs::serve(state, call, now))
            .map(Reply::json),
        ("ec2", "GetConsoleOutput") => console::serve(world, call, request_id).await,
        ("ssm", "PutInventory" | "ListInventoryEntries") => inventory::serve(world, call),
        _ => forward::serve(world, call).await,
    }
}

/// Waits, and answers instead of the service if the rule says so.
async fn suffer(fault: &FaultRule, call: &ApiCall, request_id: &str) -> Option<Response<Body>> {
    sleep(Duration::from_millis(fault.latency_ms)).await;
    if fault.drop {
        let broken = futures_util::stream::once(async {
            Err::<Bytes, _>(io::Error::other(
                "the connection is dropped by a fault rule",
            ))
        });
        return Some(Response::new(Body::from_stream(broken)));
    }
    if let Some(body) = &fault.answer {
        let reply = Reply::json(body.clone()).spoken(call.protocol);
        return Some(reply.into_response(request_id));
    }
    let code = fault.code.clone()?;
    let message = fault
        .message
        .clone()
        .unwrap_or_else(|| "a fault rule".to_owned());
    let error = ApiError::new(code, message).with_status(fault.status.unwrap_or(400));
    let reply = Reply::error(call.protocol, &error, request_id).spoken(call.protocol);
    Some(reply.into_response(request_id))
}

/// The refusal of an operation nobody here serves.
fn unserved(call: &ApiCall) -> ApiError {
    let code = match call.protocol {
        Protocol::Json | Protocol::Cbor => "UnknownOperationException",
        Protocol::Query | Protocol::Ec2 => "InvalidAction",
    };
    let (service, operation) = (&call.service, &call.operation);
    ApiError::new(
        code,
        format!("fleet-sandbox does not serve {service}:{operation}"),
    )
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
