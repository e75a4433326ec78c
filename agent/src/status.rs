//! What `fleet-agent status` shows, and the socket it comes through: root's alone, one request
//! line, one line of JSON in reply.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

/// The longest a request may be, and may take.
const REQUEST_BYTES: u64 = 1_024;
const REQUEST_TIME: Duration = Duration::from_secs(2);
const STATUS_REQUEST: &str = "status";

/// The node at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) config: String,
    pub(crate) fleet: String,
    pub(crate) environment: String,
    pub(crate) group: String,
    pub(crate) cluster: String,
    pub(crate) instance: Option<String>,
    pub(crate) zone: Option<String>,
    pub(crate) phase: String,
    pub(crate) since: Timestamp,
    pub(crate) waiting_on: String,
    pub(crate) target: Option<String>,
    pub(crate) container_instance: Option<String>,
    pub(crate) ecs: String,
    pub(crate) tasks: Option<usize>,
    pub(crate) sidecars: Vec<SidecarStatus>,
    pub(crate) health: String,
    pub(crate) reason: String,
    pub(crate) health_since: Timestamp,
    pub(crate) drain: Option<DrainStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SidecarStatus {
    pub(crate) name: String,
    pub(crate) state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainStatus {
    pub(crate) cause: String,
    pub(crate) began: Timestamp,
    pub(crate) deadline: Timestamp,
}

/// One screen.
pub(crate) fn render(status: &Status, now: Timestamp) -> String {
    let unknown = || "unknown".to_owned();
    let mut lines = vec![
        (
            "node",
            format!(
                "{} in {}",
                status.instance.clone().unwrap_or_else(unknown),
                status.zone.clone().unwrap_or_else(unknown)
            ),
        ),
        (
            "fleet",
            format!(
                "{} {}, group {}, cluster {}",
                status.fleet, status.environment, status.group, status.cluster
            ),
        ),
        (
            "agent",
            format!("{}, settings {}", status.version, status.config),
        ),
        (
            "phase",
            format!("{}, for {}", status.phase, age(status.since, now)),
        ),
        ("waiting", status.waiting_on.clone()),
        ("target", status.target.clone().unwrap_or_else(unknown)),
        ("ecs", status.ecs.clone()),
        (
            "tasks",
            status.tasks.map_or_else(unknown, |tasks| tasks.to_string()),
        ),
        ("sidecars", sidecars(&status.sidecars)),
        (
            "health",
            format!(
                "{} ({}), for {}",
                status.health,
                status.reason,
                age(status.health_since, now)
            ),
        ),
    ];
    if let Some(drain) = &status.drain {
        lines.push((
            "drain",
            format!(
                "{}, began {} ago, ends in {} at the latest",
                drain.cause,
                age(drain.began, now),
                age(now, drain.deadline)
            ),
        ));
    }
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<9} {value}");
        text
    })
}

fn sidecars(sidecars: &[SidecarStatus]) -> String {
    if sidecars.is_empty() {
        return "none".to_owned();
    }
    let each: Vec<_> = sidecars
        .iter()
        .map(|sidecar| format!("{} {}", sidecar.name, sidecar.state))
        .collect();
    each.join(", ")
}

/// `42 s`, `5 min`, `3 h 10 min`, `2 d`.
fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        172_800.. => format!("{} d", seconds / 86_400),
        ..0 => "0 s".to_owned(),
    }
}

/// Binds the socket, mode 0600 in a directory of mode 0700; one that a killed agent left is
/// replaced.
///
/// # Errors
/// Naming the socket.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    bind_at(path).with_context(|| format!("bind {}", path.display()))
}

fn bind_at(path: &Path) -> Result<UnixListener> {
    let directory = path.parent().context("it has no directory")?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another fleet-agent answers there");
    }
    if path.exists() {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers one request. A client that does not speak is left after a while.
pub(crate) async fn serve(stream: UnixStream, status: Status) {
    // A client that has gone away needs no answer.
    let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, status)).await;
}

async fn answer(mut stream: UnixStream, status: Status) -> Result<()> {
    let mut request = String::new();
    let (reader, mut writer) = stream.split();
    BufReader::new(reader.take(REQUEST_BYTES))
        .read_line(&mut request)
        .await?;
    let reply = if request.trim() == STATUS_REQUEST {
        serde_json::to_string(&status)?
    } else {
        r#"{"error":"unknown request"}"#.to_owned()
    };
    writer.write_all(reply.as_bytes()).await?;
    writer.write_all(b"\n").await?;
    Ok(())
}

/// Asks the running agent.
///
/// # Errors
/// If none answers, or not in this form.
pub(crate) fn fetch(path: &Path) -> Result<Status> {
    let name = || format!("ask fleet-agent at {}", path.display());
    let mut stream = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("{}: is it running, and are you root?", name()))?;
    stream
        .set_read_timeout(Some(REQUEST_TIME * 2))
        .with_context(name)?;
    stream
        .write_all(format!("{STATUS_REQUEST}\n").as_bytes())
        .with_context(name)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).with_context(name)?;
    serde_json::from_str(&reply).with_context(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Status {
        let at = |second| Timestamp::from_second(second).expect("in range");
        Status {
            version: "0.1.0".into(),
            config: "0123456789ab".into(),
            fleet: "shop".into(),
            environment: "dev".into(),
            group: "web".into(),
            cluster: "shop-dev".into(),
            instance: Some("i-0123".into()),
            zone: Some("eu-central-1a".into()),
            phase: "draining".into(),
            since: at(1_000),
            waiting_on: "2 tasks to leave".into(),
            target: Some("Terminated".into()),
            container_instance: Some("arn".into()),
            ecs: "connected, DRAINING".into(),
            tasks: Some(2),
            sidecars: vec![SidecarStatus {
                name: "node-logs".into(),
                state: "up".into(),
            }],
            health: "ok".into(),
            reason: "none".into(),
            health_since: at(0),
            drain: Some(DrainStatus {
                cause: "Auto Scaling".into(),
                began: at(1_000),
                deadline: at(2_800),
            }),
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        let now = Timestamp::from_second(1_045).expect("in range");
        insta::assert_snapshot!(render(&sample(), now), @r"
        node      i-0123 in eu-central-1a
        fleet     shop dev, group web, cluster shop-dev
        agent     0.1.0, settings 0123456789ab
        phase     draining, for 45 s
        waiting   2 tasks to leave
        target    Terminated
        ecs       connected, DRAINING
        tasks     2
        sidecars  node-logs up
        health    ok (none), for 17 min
        drain     Auto Scaling, began 45 s ago, ends in 29 min at the latest
        ");
    }

    #[tokio::test]
    async fn a_request_over_the_socket_brings_the_status() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("run/agent.sock");
        let listener = bind(&path).expect("bind");
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("parent")), 0o700);
        let asked = tokio::task::spawn_blocking(move || fetch(&path));
        let (stream, _) = listener.accept().await.expect("accept");
        serve(stream, sample()).await;
        assert_eq!(asked.await.expect("joins").expect("fetch"), sample());
    }
}
