//! The agent's introspection API on 127.0.0.1:51678, in the shape captured from a real agent.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};

use super::{
    AGENT_HASH, AGENT_VERSION,
    ledger::{Container, Ledger, Task},
};

/// What the API tells; replaced as a whole at every change.
#[derive(Debug, Default, Clone)]
pub(super) struct Snapshot {
    pub(super) cluster: String,
    /// `None` until registered.
    pub(super) container_instance_arn: Option<String>,
    pub(super) ledger: Ledger,
}

type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// Serves until the listener fails.
pub(super) async fn serve(listener: TcpListener, snapshots: Snapshots) -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(commands))
        .route("/v1/metadata", get(metadata))
        .route("/v1/tasks", get(tasks))
        .with_state(snapshots);
    axum::serve(listener, app).await
}

async fn commands() -> Response {
    json(
        StatusCode::OK,
        &serde_json::json!({"AvailableCommands": ["/v1/metadata", "/v1/tasks"]}),
    )
}

async fn metadata(State(snapshots): State<Snapshots>) -> Response {
    let snapshot = snapshots.borrow().clone();
    let body = MetadataBody {
        cluster: &snapshot.cluster,
        container_instance_arn: snapshot.container_instance_arn.as_deref(),
        version: format!("Amazon ECS Agent - v{AGENT_VERSION} ({AGENT_HASH})"),
    };
    json(StatusCode::OK, &body)
}

async fn tasks(State(snapshots): State<Snapshots>, RawQuery(query): RawQuery) -> Response {
    let snapshot = snapshots.borrow().clone();
    let query = query.unwrap_or_default();
    let mut asked = form_urlencoded::parse(query.as_bytes());
    let wanted = asked.find(|(key, _)| key == "taskarn" || key == "dockerid");
    let Some((key, value)) = wanted else {
        let tasks = snapshot.ledger.tasks().map(TaskBody::of).collect();
        return json(StatusCode::OK, &TasksBody { tasks });
    };
    let matching: Vec<&Task> = if key == "taskarn" {
        let is_it = |task: &&Task| task.order.task_arn == value;
        snapshot.ledger.tasks().filter(is_it).collect()
    } else {
        let has_it = |task: &&Task| holds(task, &value);
        snapshot.ledger.tasks().filter(has_it).collect()
    };
    match matching.as_slice() {
        [] => json(StatusCode::NOT_FOUND, &TaskBody::NONE),
        [task] => json(StatusCode::OK, &TaskBody::of(task)),
        _ => json(StatusCode::BAD_REQUEST, &TaskBody::NONE),
    }
}

/// Short ids will do, as on Docker's command line.
fn holds(task: &Task, docker_id: &str) -> bool {
    task.containers
        .values()
        .any(|container| !docker_id.is_empty() && container.docker_id.starts_with(docker_id))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetadataBody<'a> {
    cluster: &'a str,
    container_instance_arn: Option<&'a str>,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TasksBody<'a> {
    tasks: Vec<TaskBody<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskBody<'a> {
    arn: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    desired_status: &'a str,
    known_status: &'a str,
    family: &'a str,
    version: String,
    containers: Option<Vec<&'a Container>>,
}

impl<'a> TaskBody<'a> {
    /// Go's empty value, which the real agent sends along with a 404.
    const NONE: TaskBody<'static> = TaskBody {
        arn: "",
        desired_status: "",
        known_status: "",
        family: "",
        version: String::new(),
        containers: None,
    };

    fn of(task: &'a Task) -> Self {
        Self {
            arn: &task.order.task_arn,
            desired_status: &task.order.desired_status,
            known_status: task.known.as_str(),
            family: &task.order.family,
            version: task.order.revision.to_string(),
            containers: Some(task.containers.values().collect()),
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let (status, text) = match serde_json::to_vec(body) {
        Ok(text) => (status, text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string().into_bytes(),
        ),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::ledger::{Happening, tests::order},
        *,
    };

    const ARN: &str =
        "arn:aws:ecs:us-east-1:123456789012:task/peerlab/0123456789abcdef0123456789abcdef";
    const DOCKER_ID: &str = "3f8ebd75f44fc2d85ac7a9039aefad5138a64d09319e3a009c5b29b563ba3fb7";

    /// The node of the capture.
    fn captured() -> Snapshot {
        let mut ledger = Ledger::default();
        ledger.accept(vec![order(ARN, "RUNNING")]);
        let container = Container {
            docker_id: DOCKER_ID.to_owned(),
            docker_name: "ecs-web-1-sleeper-c2eaa1ddfbe892cf9801".to_owned(),
            name: "sleeper".to_owned(),
            image: "peerlab-sleep:1".to_owned(),
            image_id: "sha256:0d75c49c".to_owned(),
            created_at: Some("2026-11-21T08:13:26.482102021Z".to_owned()),
            started_at: Some("2026-11-21T08:13:26.879472035Z".to_owned()),
        };
        ledger.record(ARN, Happening::Container(container));
        ledger.record(ARN, Happening::Running);
        Snapshot {
            cluster: "peerlab".to_owned(),
            container_instance_arn: None,
            ledger,
        }
    }

    async fn get(path: &str) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let (_sender, snapshots) = watch::channel(Arc::new(captured()));
        tokio::spawn(serve(listener, snapshots));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5));
        let reply = client.build().unwrap().get(url).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    #[tokio::test]
    async fn the_shape_is_the_captured_one() {
        let task = format!(
            r#"{{"Arn":"{ARN}","DesiredStatus":"RUNNING","KnownStatus":"RUNNING","Family":"web","Version":"1","Containers":[{{"DockerId":"{DOCKER_ID}","DockerName":"ecs-web-1-sleeper-c2eaa1ddfbe892cf9801","Name":"sleeper","Image":"peerlab-sleep:1","ImageID":"sha256:0d75c49c","CreatedAt":"2026-11-21T08:13:26.482102021Z","StartedAt":"2026-11-21T08:13:26.879472035Z"}}]}}"#
        );
        let all = format!(r#"{{"Tasks":[{task}]}}"#);
        assert_eq!(get("/v1/tasks").await, (200, all));
        let by_arn = format!("/v1/tasks?taskarn={ARN}");
        assert_eq!(get(&by_arn).await, (200, task.clone()));
        assert_eq!(get("/v1/tasks?dockerid=3f8ebd75f44f").await, (200, task));
    }

    #[tokio::test]
    async fn an_unknown_task_is_go_s_empty_value() {
        let empty =
            r#"{"Arn":"","KnownStatus":"","Family":"","Version":"","Containers":null}"#.to_owned();
        assert_eq!(get("/v1/tasks?taskarn=nope").await, (404, empty));
    }

    #[tokio::test]
    async fn the_arn_is_null_until_registered() {
        let body = r#"{"Cluster":"peerlab","ContainerInstanceArn":null,"Version":"Amazon ECS Agent - v1.105.1 (*a8b3e7d3)"}"#;
        assert_eq!(get("/v1/metadata").await, (200, body.to_owned()));
    }
}
