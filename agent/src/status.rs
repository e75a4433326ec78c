//! What the running agent is asked and told through its socket, root's alone: one line of JSON, one
//! line of JSON in reply. And how `fleet-agent status` shows the answer.

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
    sync::{mpsc, oneshot},
};

/// The longest a request may be, and may take.
const REQUEST_BYTES: u64 = 4_096;
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// Requests that may wait; more are turned away.
pub(crate) const REQUESTS: usize = 8;

/// What the running agent can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    Status,
    /// Drain until told otherwise.
    Drain {
        reason: String,
    },
    /// Withdraw that.
    Undrain,
    /// The machine is shutting down: drain for good.
    Shutdown,
}

/// A request, and where its answer is awaited: the node once the request has been taken.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Status>,
}

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
    /// None if they have not been counted, or nobody can be asked.
    pub(crate) tasks: Option<Vec<TaskStatus>>,
    pub(crate) sidecars: Vec<SidecarStatus>,
    pub(crate) health: String,
    pub(crate) reason: String,
    pub(crate) health_since: Timestamp,
    /// The gravest first.
    #[serde(default)]
    pub(crate) faults: Vec<FaultStatus>,
    /// What in the ECS agent's settings would surprise whoever wrote it.
    #[serde(default)]
    pub(crate) hazards: Vec<String>,
    pub(crate) drain: Option<DrainStatus>,
}

/// A task that is not known to be STOPPED, or has live containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskStatus {
    /// Its ARN.
    pub(crate) task: String,
    /// Unknown while the ECS agent does not answer.
    pub(crate) family: Option<String>,
    /// `RUNNING`, `STOPPED`...
    pub(crate) known: Option<String>,
    /// What ECS wants it to be.
    pub(crate) desired: Option<String>,
    /// `service:NAME`, or another for a standalone task; only asked for when it matters.
    pub(crate) started_by: Option<String>,
    /// Live ones; unknown while Docker does not answer.
    pub(crate) containers: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SidecarStatus {
    pub(crate) name: String,
    pub(crate) state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultStatus {
    pub(crate) check: String,
    pub(crate) detail: String,
    pub(crate) since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainStatus {
    /// The one that ends first, first.
    pub(crate) causes: Vec<CauseStatus>,
    pub(crate) began: Timestamp,
    /// When tasks that are left are stopped; none once drained, on a machine that stays.
    pub(crate) stops_tasks: Option<Timestamp>,
    pub(crate) deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CauseStatus {
    pub(crate) kind: String,
    pub(crate) cause: String,
    pub(crate) since: Timestamp,
    /// When it happens, whatever is done; none of one that waits.
    pub(crate) ends: Option<Timestamp>,
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
            status
                .tasks
                .as_ref()
                .map_or_else(unknown, |tasks| tasks.len().to_string()),
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
    for fault in &status.faults {
        let line = format!(
            "{}: {}, for {}",
            fault.check,
            fault.detail,
            age(fault.since, now)
        );
        lines.push(("fault", line));
    }
    lines.extend(
        status
            .hazards
            .iter()
            .map(|hazard| ("look at", hazard.clone())),
    );
    if let Some(drain) = &status.drain {
        let causes = drain.causes.iter().map(|cause| cause.cause.as_str());
        lines.push(("leaving", causes.collect::<Vec<_>>().join("; ")));
        let mut line = format!("began {} ago", age(drain.began, now));
        if let Some(at) = drain.stops_tasks {
            let _ = write!(line, ", stops what is left in {}", age(now, at));
        }
        if let Some(at) = drain.deadline {
            let _ = write!(line, ", ends in {} at the latest", age(now, at));
        }
        lines.push(("drain", line));
    }
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<9} {value}");
        if name == "tasks" {
            tasks(&mut text, status.tasks.as_deref().unwrap_or_default());
        }
    }
    text
}

/// One line for each task, its columns as wide as they need to be.
fn tasks(text: &mut String, tasks: &[TaskStatus]) {
    let rows: Vec<[String; 4]> = tasks.iter().map(columns).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    for row in &rows {
        let mut line = format!("{:9}", "");
        for (column, value) in row.iter().enumerate() {
            let _ = write!(line, " {value:<width$} ", width = width(column));
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn columns(task: &TaskStatus) -> [String; 4] {
    let known = task.known.as_deref().unwrap_or("unknown to the ECS agent");
    let state = match task.desired.as_deref() {
        Some(desired) if desired != known => format!("{known}, to be {desired}"),
        Some(_) | None => known.to_owned(),
    };
    let short = task.task.rsplit('/').next().unwrap_or(&task.task);
    let short: String = short.chars().take(12).collect();
    let family = task.family.as_deref().unwrap_or("");
    let group = task.started_by.as_deref().unwrap_or("");
    [
        short,
        if group.is_empty() {
            family.to_owned()
        } else {
            format!("{family} ({group})")
        },
        state,
        match task.containers {
            Some(1) => "1 container".to_owned(),
            Some(number) => format!("{number} containers"),
            None => "containers unknown".to_owned(),
        },
    ]
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
pub(crate) async fn serve(stream: UnixStream, requests: mpsc::Sender<Asked>) {
    // A client that has gone away needs no answer.
    let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, requests)).await;
}

async fn answer(mut stream: UnixStream, requests: mpsc::Sender<Asked>) -> Result<()> {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    BufReader::new(reader.take(REQUEST_BYTES))
        .read_line(&mut line)
        .await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answered) = oneshot::channel();
            requests.send(Asked { request, reply }).await?;
            serde_json::to_string(&answered.await?)?
        }
        Err(error) => {
            serde_json::json!({ "error": format!("unknown request: {error}") }).to_string()
        }
    };
    writer.write_all(reply.as_bytes()).await?;
    writer.write_all(b"\n").await?;
    Ok(())
}

/// Asks the running agent.
///
/// # Errors
/// If none answers, or not in this form.
pub(crate) fn ask(path: &Path, request: &Request) -> Result<Status> {
    let name = || format!("ask fleet-agent at {}", path.display());
    let mut stream = std::os::unix::net::UnixStream::connect(path)
        .with_context(|| format!("{}: is it running, and are you root?", name()))?;
    stream
        .set_read_timeout(Some(REQUEST_TIME * 2))
        .with_context(name)?;
    let line = format!("{}\n", serde_json::to_string(request)?);
    stream.write_all(line.as_bytes()).with_context(name)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).with_context(name)?;
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    if let Ok(refusal) = serde_json::from_str::<Refusal>(&reply) {
        bail!("{}: {}", name(), refusal.error);
    }
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
            tasks: Some(vec![
                TaskStatus {
                    task: "arn:aws:ecs:eu-central-1:1:task/shop-dev/4f3a9d0c2b1e4f6d".into(),
                    family: Some("web".into()),
                    known: Some("RUNNING".into()),
                    desired: Some("STOPPED".into()),
                    started_by: None,
                    containers: Some(2),
                },
                TaskStatus {
                    task: "arn:aws:ecs:eu-central-1:1:task/shop-dev/77aa".into(),
                    family: Some("nightly".into()),
                    known: Some("RUNNING".into()),
                    desired: Some("RUNNING".into()),
                    started_by: Some("family:nightly".into()),
                    containers: Some(1),
                },
            ]),
            sidecars: vec![SidecarStatus {
                name: "node-logs".into(),
                state: "up".into(),
            }],
            health: "ok".into(),
            reason: "none".into(),
            health_since: at(0),
            faults: vec![],
            hazards: vec![],
            drain: Some(DrainStatus {
                causes: vec![CauseStatus {
                    kind: "auto-scaling".into(),
                    cause: "Auto Scaling terminates this instance".into(),
                    since: at(1_000),
                    ends: None,
                }],
                began: at(1_000),
                stops_tasks: Some(at(2_700)),
                deadline: Some(at(2_800)),
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
                  4f3a9d0c2b1e  web                       RUNNING, to be STOPPED  2 containers
                  77aa          nightly (family:nightly)  RUNNING                 1 container
        sidecars  node-logs up
        health    ok (none), for 17 min
        leaving   Auto Scaling terminates this instance
        drain     began 45 s ago, stops what is left in 27 min, ends in 29 min at the latest
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
        let (requests, mut asked) = mpsc::channel(REQUESTS);
        let drain = Request::Drain {
            reason: "a \"look\"".into(),
        };
        let sent = drain.clone();
        let asking = tokio::task::spawn_blocking(move || ask(&path, &sent));
        let (stream, _) = listener.accept().await.expect("accept");
        let serving = tokio::spawn(serve(stream, requests));
        let Asked { request, reply } = asked.recv().await.expect("a request");
        assert_eq!(request, drain);
        reply.send(sample()).expect("awaited");
        serving.await.expect("served");
        assert_eq!(asking.await.expect("joins").expect("answer"), sample());
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_in_words() {
        let directory = tempfile::tempdir().expect("tempdir");
        let listener = bind(&directory.path().join("agent.sock")).expect("bind");
        let path = directory.path().join("agent.sock");
        let (requests, _asked) = mpsc::channel(REQUESTS);
        let mut client = UnixStream::connect(path).await.expect("connect");
        let (stream, _) = listener.accept().await.expect("accept");
        let serving = tokio::spawn(serve(stream, requests));
        client
            .write_all(b"{\"request\":\"explode\"}\n")
            .await
            .expect("write");
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.expect("read");
        serving.await.expect("served");
        assert!(reply.contains("unknown request"), "{reply}");
    }
}
