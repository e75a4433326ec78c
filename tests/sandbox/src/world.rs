//! STAND-IN, replaced at merge: launches on request, registers anybody, hands out tasks.
#![allow(
    missing_debug_implementations,
    clippy::disallowed_methods,
    reason = "stand-in"
)]
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::{
    machines::{Launch, MachineCommand, MachineEvent, Metadata},
    node_protocol::{ContainerOrder, Reply, Sync, TaskOrder},
};

pub struct WorldOptions {
    pub region: String,
    pub account_id: String,
    pub moto_url: String,
    pub files: Option<PathBuf>,
    pub imds_lead_ms: u32,
}

#[derive(Default)]
struct Inner {
    addresses: HashMap<Ipv4Addr, String>,
    user_data: HashMap<String, Vec<u8>>,
    image: HashMap<String, String>,
    tasks: BTreeMap<String, TaskOrder>,
    version: u64,
    events: Vec<String>,
    reports: Value,
    state: Option<String>,
}

#[derive(Clone)]
pub struct World {
    commands: mpsc::UnboundedSender<MachineCommand>,
    inner: Arc<Mutex<Inner>>,
    region: String,
    account: String,
}

impl World {
    pub fn start(
        o: WorldOptions,
    ) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<MachineCommand>)> {
        let (commands, receiver) = mpsc::unbounded_channel();
        Ok((
            Self {
                commands,
                inner: Arc::default(),
                region: o.region,
                account: o.account_id,
            },
            receiver,
        ))
    }
    pub fn machine_event(&self, event: MachineEvent) {
        let mut inner = self.inner.lock().expect("lock");
        inner.events.push(format!("{event:?}"));
        match event {
            MachineEvent::Started {
                instance_id,
                address,
            } => {
                inner.addresses.insert(address, instance_id);
            }
            MachineEvent::Gone { instance_id } | MachineEvent::Failed { instance_id, .. } => {
                inner.addresses.retain(|_, id| *id != instance_id)
            }
        }
    }
    pub fn metadata(&self, address: Ipv4Addr) -> Option<Metadata> {
        let inner = self.inner.lock().expect("lock");
        let id = inner.addresses.get(&address)?.clone();
        Some(Metadata {
            instance_id: id.clone(),
            image_id: inner.image.get(&id)?.clone(),
            instance_type: "t3.medium".into(),
            availability_zone: format!("{}a", self.region),
            region: self.region.clone(),
            account_id: self.account.clone(),
            role: Some("node".into()),
            access_key_id: format!("ASIA{id}"),
            user_data: inner.user_data.get(&id).cloned(),
            tags: Some(BTreeMap::from([(
                "aws:autoscaling:groupName".into(),
                "dev".into(),
            )])),
            target_lifecycle_state: inner.state.clone(),
            spot_action: None,
            rebalance: None,
        })
    }
    pub fn stop(&self) {}
    pub async fn serve(&self, listener: tokio::net::TcpListener) -> std::io::Result<()> {
        axum::serve(
            listener,
            Router::new().fallback(answer).with_state(self.clone()),
        )
        .await
    }
}

async fn answer(State(world): State<World>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let target = request
        .headers()
        .get("x-amz-target")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let body = to_bytes(request.into_body(), 1 << 24)
        .await
        .unwrap_or_default();
    let text = match path.as_str() {
        "/_node/sync" => {
            let sync: Sync = serde_json::from_slice(&body).expect("sync");
            let begin = tokio::time::Instant::now();
            loop {
                {
                    let mut inner = world.inner.lock().expect("lock");
                    inner.reports = serde_json::to_value(&sync.tasks).expect("json");
                    if inner.version > sync.version || begin.elapsed().as_secs() >= 5 {
                        break serde_json::to_value(Reply {
                            version: inner.version,
                            tasks: inner.tasks.values().cloned().collect(),
                        })
                        .expect("json");
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        "/_sandbox/status" => {
            let i = world.inner.lock().expect("lock");
            json!({"events": i.events, "reports": i.reports, "addresses": format!("{:?}", i.addresses)})
        }
        "/_sandbox/network" => json!({"vpc_id": "vpc-1", "subnet_ids": ["subnet-1", "subnet-2"]}),
        "/_sandbox/images" => json!({"image_id": "ami-0baked00000000001"}),
        "/_sandbox/calls" => {
            json!([{"service": "ecs", "operation": "X", "caller": "me", "calls": 1, "attempts": 2}])
        }
        "/_sandbox/terminate" => {
            let v: Value = serde_json::from_slice(&body).expect("json");
            let _ = world.commands.send(MachineCommand::Terminate {
                instance_id: v["instance"].as_str().unwrap_or_default().into(),
            });
            json!({})
        }
        p if p.starts_with("/_sandbox/launch/") => {
            let image_id = p.trim_start_matches("/_sandbox/launch/").to_owned();
            let mut inner = world.inner.lock().expect("lock");
            let id = format!("i-{:017x}", fastrand::u64(..));
            inner.user_data.insert(id.clone(), body.to_vec());
            inner.image.insert(id.clone(), image_id.clone());
            let _ = world.commands.send(MachineCommand::Launch(Box::new(Launch {
                instance_id: id.clone(),
                image_id,
            })));
            json!({"id": id})
        }
        "/_sandbox/run-tasks" => {
            let v: Value = serde_json::from_slice(&body).expect("json");
            let mut inner = world.inner.lock().expect("lock");
            inner.version += 1;
            inner.tasks.clear();
            for n in 0..v["count"].as_u64().unwrap_or(0) {
                let arn = format!("arn:aws:ecs:us-east-1:123456789012:task/x/{n:032x}");
                inner.tasks.insert(
                    arn.clone(),
                    TaskOrder {
                        task_arn: arn,
                        desired_status: "RUNNING".into(),
                        family: "web".into(),
                        revision: 1,
                        containers: vec![ContainerOrder {
                            name: "app".into(),
                            image: v["image"].as_str().unwrap_or_default().into(),
                            command: serde_json::from_value(v["command"].clone()).expect("command"),
                            environment: BTreeMap::new(),
                            stop_timeout: Some(5),
                        }],
                    },
                );
            }
            json!({})
        }
        p if p.starts_with("/_sandbox/console/") => {
            let (reply, text) = oneshot::channel();
            let _ = world.commands.send(MachineCommand::Console {
                instance_id: p.trim_start_matches("/_sandbox/console/").into(),
                reply,
            });
            json!({"text": text.await.unwrap_or_default()})
        }
        "/" if target.ends_with("RegisterContainerInstance") => {
            let v: Value = serde_json::from_slice(&body).expect("json");
            if v["cluster"] == "nope" {
                let mut r = Response::new(Body::from(
                    json!({"__type": "ClientException", "message": "Cluster not found."})
                        .to_string(),
                ));
                *r.status_mut() = axum::http::StatusCode::BAD_REQUEST;
                return r;
            }
            json!({"containerInstance": {"containerInstanceArn": "arn:aws:ecs:us-east-1:123456789012:container-instance/x/abc", "attributes": v["attributes"]}})
        }
        _ => json!({"unknown": path}),
    };
    Response::new(Body::from(text.to_string()))
}
