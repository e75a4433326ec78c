//! The Docker daemon: of the host for the machine room, of the node for the ECS stand-in.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::Context as _;
use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};

const SOCKET: &str = "/var/run/docker.sock";

/// How long Docker may take to begin an answer; a stop adds its own time-out.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Connects and asks for a sign of life.
///
/// # Errors
/// When nothing answers on the socket; the message says how to start it.
pub(crate) async fn connect() -> anyhow::Result<Docker> {
    if !Path::new(SOCKET).exists() {
        anyhow::bail!("no Docker daemon: {SOCKET} does not exist; start it with tests/setup.sh");
    }
    let docker = Docker::connect_with_unix(SOCKET, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
        .with_context(|| format!("connect to Docker on {SOCKET}"))?
        .negotiate_version()
        .await
        .with_context(|| format!("no Docker daemon answers on {SOCKET}"))?;
    Ok(docker)
}

/// Whether an image is in this Docker.
pub(crate) async fn has_image(docker: &Docker, tag: &str) -> anyhow::Result<bool> {
    match docker.inspect_image(tag).await {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("docker: inspect image {tag}")),
    }
}

/// The thing asked for does not exist, or no longer.
pub(crate) fn is_absent(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Somebody else is removing it already.
pub(crate) fn is_in_progress(error: &Error) -> bool {
    status(error) == Some(409)
}

fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// The one filter that is ever needed.
pub(crate) fn by_label(label: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])])
}
