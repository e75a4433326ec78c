//! The gateway: one port that every AWS SDK can use through `AWS_ENDPOINT_URL`. Auto Scaling and
//! ECS are served from the models, part of EC2, IAM, S3, SSM and STS by moto behind it, and everything
//! else is refused by name at once. Whoever calls with an instance's credentials may do what its role's
//! policies allow. `/_sandbox/` is the admin API, `/_node/` belongs to nodes.

mod authorize;
mod autoscaling;
mod cloudwatch;
mod console;
mod ecs;
mod form;
mod forward;
mod instances;
mod inventory;
mod node;
mod reply;
mod request;
mod s3;

use std::{io, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, Response, StatusCode, header},
};
use futures_util::{StreamExt as _, stream};
use tokio::{net::TcpListener, time::sleep};

use self::{
    reply::Reply,
    request::{ApiCall, Protocol},
};
use crate::{
    admin,
    api_error::ApiError,
    calls::attempt,
    faults::{Attempt, FaultRule, Held},
    world::World,
};

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
    let signed = request::scope(&parts.headers, &parts.uri);
    let limit = match &signed {
        Some((_, service)) if service == "s3" => s3::BODY_MAX_BYTES,
        Some(_) | None => BODY_MAX_BYTES,
    };
    let Ok(body) = to_bytes(body, limit).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
    };
    let path = parts.uri.path();
    if let Some(rest) = path.strip_prefix("/_sandbox/") {
        return admin::answer(world, &parts.method, rest, &body).await;
    }
    if path == "/_node/sync" {
        return node::sync(world, &body).await;
    }
    match ApiCall::read(parts.headers, &parts.method, &parts.uri, body) {
        Some(call) if call.is_at(path) => serve_call(world, &call).await,
        _ => unserved_rest(
            signed.as_ref().map(|(_, service)| service),
            &parts.method,
            path,
        ),
    }
}

/// The refusal of a REST service, which names its operations by method and path: the code is
/// in the body and in the header, for whichever it reads.
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
        let header = call.headers.get("amz-sdk-request");
        let number = attempt(header.and_then(|v| v.to_str().ok()));
        let (service, operation) = (&call.service, &call.operation);
        let counts = &mut state.calls;
        counts.count(service, operation, &call.caller, number == 1);
        let fault = state.faults.apply(Attempt {
            service,
            operation,
            caller: &call.caller,
            number,
        });
        (state.ids.uuid(), fault)
    });
    let Some(fault) = fault else {
        return served(world, call, &request_id).await;
    };
    sleep(Duration::from_millis(fault.latency_ms)).await;
    let mut response = None;
    if fault.served || fault.truncate {
        response = Some(served(world, call, &request_id).await);
    }
    if fault.hold {
        hold(world, call).await;
    }
    if let Some(instead) = instead(&fault, call, &request_id) {
        return instead;
    }
    match response {
        Some(response) if fault.truncate => truncated(response).await,
        Some(response) => response,
        None => served(world, call, &request_id).await,
    }
}

/// What the service itself answers.
async fn served(world: &World, call: &ApiCall, request_id: &str) -> Response<Body> {
    let reply = match authorize::call(world, call).await {
        Ok(()) => serve_allowed(world, call, request_id).await,
        Err(refusal) => Err(refusal),
    };
    reply
        .unwrap_or_else(|error| Reply::error(call.protocol, &error, request_id))
        .spoken(call.protocol)
        .into_response(request_id)
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
        (
            "ec2",
            "RunInstances" | "DescribeInstances" | "StopInstances" | "TerminateInstances"
            | "CreateImage" | "CopyImage",
        ) => instances::serve(world, call).await,
        ("ec2", "GetConsoleOutput") => console::serve(world, call, request_id).await,
        ("s3", _) => s3::serve(world, call).await,
        ("ssm", "PutInventory" | "ListInventoryEntries") => inventory::serve(world, call),
        _ => forward::serve(world, call).await,
    }
}

/// What a fault rule answers in the service's place.
fn instead(fault: &FaultRule, call: &ApiCall, request_id: &str) -> Option<Response<Body>> {
    if fault.drop && call.operation.starts_with("Head") {
        // To HEAD it sends the head at once, which would be a whole reply.
        return Some(plain(StatusCode::SERVICE_UNAVAILABLE, ""));
    }
    if fault.drop {
        // The server sends no head before it has a first piece of the body.
        return Some(Response::new(Body::from_stream(stream::iter([broken()]))));
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
    // S3 throttles so, and a reply to HEAD says no more than that.
    let usual = match call.protocol {
        Protocol::S3 => 503,
        Protocol::Query | Protocol::Ec2 | Protocol::Json | Protocol::Cbor => 400,
    };
    let error = ApiError::new(code, message).with_status(fault.status.unwrap_or(usual));
    let reply = Reply::error(call.protocol, &error, request_id).spoken(call.protocol);
    Some(reply.into_response(request_id))
}

fn broken() -> io::Result<Bytes> {
    Err(io::Error::other("the connection is broken by a fault rule"))
}

/// The reply's head, which promises all of it, and half of its body.
async fn truncated(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let mut body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    head.headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    body.truncate(body.len() / 2);
    let half = stream::once(async { Ok(body) });
    let end = stream::once(async {
        // The server sends what it has when it has to wait.
        sleep(Duration::from_millis(1)).await;
        broken()
    });
    Response::from_parts(head, Body::from_stream(half.chain(end)))
}

/// Keeps the caller waiting until the rules are replaced, or it gives up.
async fn hold(world: &World, call: &ApiCall) {
    let mut changes = world.changes();
    let (ticket, rules) = world.count(|state| {
        let held = Held {
            service: call.service.clone(),
            operation: call.operation.clone(),
            caller: call.caller.clone(),
        };
        (state.faults.hold(held), state.faults.generation())
    });
    let _waits = Waits { world, ticket };
    while !world.is_stopped() && world.look(|state| state.faults.generation()) == rules {
        // An error means that the world is gone.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A caller that is held. The server drops it with the call when the caller hangs up.
struct Waits<'a> {
    world: &'a World,
    ticket: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.world.count(|state| state.faults.release(self.ticket));
    }
}

/// The refusal of an operation nobody here serves.
fn unserved(call: &ApiCall) -> ApiError {
    let code = match call.protocol {
        Protocol::Json | Protocol::Cbor => "UnknownOperationException",
        Protocol::Query | Protocol::Ec2 => "InvalidAction",
        Protocol::S3 => "NotImplemented",
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
