//! `/_node/sync`: the channel between ECS and the stand-in agents in the nodes.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Response, StatusCode, header},
};
use tokio::time::{Instant, timeout_at};

use super::{authorize, plain};
use crate::{
    node_protocol::{HOLD_SECONDS, Sync},
    world::World,
};

/// Takes a report and answers the orders, as soon as they are newer than what the node has seen,
/// or after [`HOLD_SECONDS`].
pub(super) async fn sync(world: &World, body: &[u8]) -> Response<Body> {
    let sync: Sync = match serde_json::from_slice(body) {
        Ok(sync) => sync,
        Err(e) => return plain(StatusCode::BAD_REQUEST, &format!("not a sync: {e}")),
    };
    if let Err(refusal) = authorize::sync(world, &sync).await {
        return plain(StatusCode::FORBIDDEN, &refusal.to_string());
    }
    if let Err(e) = world.change(|state, now| state.ecs.sync(&sync, now)) {
        return plain(StatusCode::CONFLICT, &e.to_string());
    }
    #[allow(clippy::disallowed_methods, reason = "the deadline of a held request")]
    let deadline = Instant::now() + Duration::from_secs(HOLD_SECONDS);
    let mut changes = world.changes();
    loop {
        // Marked as seen before looking, so that no change falls in between.
        changes.mark_unchanged();
        let Some(reply) = world.look(|state| state.ecs.orders(&sync.container_instance_arn)) else {
            return plain(
                StatusCode::CONFLICT,
                "the container instance is not registered",
            );
        };
        let waited = reply.version <= sync.version
            && !world.is_stopped()
            && matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(())));
        if waited {
            continue;
        }
        let Ok(body) = serde_json::to_vec(&reply) else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the reply is no JSON");
        };
        let mut response = Response::new(Body::from(body));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        return response;
    }
}
