//! The life of one machine, from power-on to nothing left.

use std::time::Duration;

use anyhow::Context as _;
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder,
    },
};
use fleet_sandbox::machines::MachineEvent;
use futures_util::StreamExt as _;
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::timeout,
};

use super::{LastWords, node::Node};
use crate::{
    docker::{is_absent, is_in_progress},
    image,
};

/// What EC2 keeps of a console, bytes.
const CONSOLE_BYTES: usize = 64 * 1024;

/// Lines of console to ask Docker for: more than enough for [`CONSOLE_BYTES`].
const CONSOLE_LINES: &str = "2000";

/// Exit code of a container whose init called reboot(2): the kernel kills a PID namespace's init
/// with SIGHUP then, and with SIGINT for a power-off.
const REBOOTED: i64 = 128 + 1;

/// How long a machine has to shut down before its power is cut. EC2 says "a few minutes"; units
/// stop in order meanwhile, each within its own time-out.
const SHUT_DOWN: Duration = Duration::from_secs(300);

/// A button that was pressed before systemd listens does nothing: it is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);

/// systemd's signal for "halt": every unit is stopped in order, and then the machine is off.
const POWER_BUTTON: &str = "SIGRTMIN+3";

/// systemd's signal for "reboot".
const RESET_BUTTON: &str = "SIGRTMIN+5";

/// What a machine is told.
#[derive(Debug)]
pub(super) enum Order {
    Stop,
    Start,
    Reboot,
    Terminate,
    /// Make this AMI of its disk.
    Snapshot {
        image_id: String,
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// How a time of running ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It boots again.
    Rebooted,
    /// It is off and kept.
    Stopped,
    /// Terminated, or powered off by itself: an instance whose InstanceInitiatedShutdownBehavior is
    /// `terminate`, as those of Auto Scaling should be, ends then.
    Over,
}

/// Powers the machine on, keeps it through reboots and stops, and removes it when it is terminated
/// or has powered itself off.
pub(super) async fn live(
    docker: &Docker,
    node: &Node,
    last_words: &LastWords,
    mut orders: UnboundedReceiver<Order>,
    report: impl Fn(MachineEvent),
) {
    let instance_id = node.instance_id.clone();
    if let Err(error) = power_on(docker, node).await {
        log::error!("launch {instance_id}: {error:#}");
        remove(docker, node).await;
        let reason = format!("{error:#}");
        report(MachineEvent::Failed {
            instance_id,
            reason,
        });
        return;
    }
    let started = || MachineEvent::Started {
        instance_id: instance_id.clone(),
        address: node.address,
    };
    let stopped = || MachineEvent::Stopped {
        instance_id: instance_id.clone(),
    };
    log::info!("{instance_id} is on at {}", node.address);
    report(started());
    loop {
        let ended = keep_running(docker, node, &mut orders, || report(started())).await;
        match ended {
            Ended::Over => break,
            Ended::Rebooted => log::info!("{instance_id} reboots"),
            Ended::Stopped => {
                log::info!("{instance_id} is stopped");
                report(stopped());
                if !wait_for_start(docker, node, &mut orders, || report(stopped())).await {
                    break;
                }
            }
        }
        if let Err(error) = start(docker, node).await {
            log::error!("boot {instance_id} again: {error:#}");
            break;
        }
        if ended == Ended::Stopped {
            log::info!("{instance_id} is on again at {}", node.address);
            report(started());
        }
    }
    if let Some(text) = console(docker, &node.container_name()).await {
        last_words.keep(&instance_id, text);
    }
    remove(docker, node).await;
    log::info!("{instance_id} is gone");
    report(MachineEvent::Gone { instance_id });
}

/// Keeps the machine running until it goes off, by itself or as ordered.
async fn keep_running(
    docker: &Docker,
    node: &Node,
    orders: &mut UnboundedReceiver<Order>,
    is_on: impl Fn(),
) -> Ended {
    loop {
        // Cancel safe: a wait that is dropped is only asked again, and recv loses nothing.
        let order = tokio::select! {
            code = powered_off(docker, node) => {
                return if code == Some(REBOOTED) { Ended::Rebooted } else { Ended::Over };
            }
            order = orders.recv() => order,
        };
        let (button, ended) = match order {
            Some(Order::Start) => {
                is_on();
                continue;
            }
            // EC2 would restart it meanwhile.
            Some(Order::Snapshot { reply, .. }) => {
                let why = format!("{} must be stopped first", node.instance_id);
                // Nobody listening any more is no reason to fail.
                drop(reply.send(Err(why)));
                continue;
            }
            Some(Order::Reboot) => (RESET_BUTTON, Ended::Rebooted),
            Some(Order::Stop) => (POWER_BUTTON, Ended::Stopped),
            // The room is closing, which ends the machine, too.
            Some(Order::Terminate) | None => (POWER_BUTTON, Ended::Over),
        };
        shut_down(docker, node, button).await;
        return ended;
    }
}

/// Waits until the stopped machine is to run again; false if it is to end.
async fn wait_for_start(
    docker: &Docker,
    node: &Node,
    orders: &mut UnboundedReceiver<Order>,
    is_off: impl Fn(),
) -> bool {
    loop {
        match orders.recv().await {
            Some(Order::Start) => return true,
            Some(Order::Terminate) | None => return false,
            // EC2 refuses to reboot what is stopped.
            Some(Order::Reboot) => {}
            Some(Order::Stop) => is_off(),
            Some(Order::Snapshot { image_id, reply }) => {
                let made = image::snapshot(docker, &node.container_name(), &image_id).await;
                // As above.
                drop(reply.send(made.map_err(|error| format!("{error:#}"))));
            }
        }
    }
}

async fn power_on(docker: &Docker, node: &Node) -> anyhow::Result<()> {
    let name = node.container_name();
    tokio::fs::create_dir_all(&node.kept)
        .await
        .with_context(|| format!("create {}", node.kept.display()))?;
    let image = image::of_ami(docker, &node.image_id).await?;
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker
        .create_container(Some(options), node.container(image))
        .await
        .with_context(|| format!("docker: create container {name}"))?;
    start(docker, node).await
}

async fn start(docker: &Docker, node: &Node) -> anyhow::Result<()> {
    let name = node.container_name();
    docker
        .start_container(&name, None)
        .await
        .with_context(|| format!("docker: start container {name}"))
}

/// Waits for the machine to stop by itself; its exit code, unless it vanished.
async fn powered_off(docker: &Docker, node: &Node) -> Option<i64> {
    let name = node.container_name();
    let ended = std::pin::pin!(docker.wait_container(&name, None))
        .next()
        .await;
    match ended {
        Some(Ok(exit)) => Some(exit.status_code),
        Some(Err(Error::DockerContainerWaitError { code, .. })) => Some(code),
        Some(Err(error)) => {
            log::error!("docker: wait for container {name}: {error}");
            None
        }
        None => None,
    }
}

/// Presses a button until the machine is off, and cuts its power if it takes too long.
async fn shut_down(docker: &Docker, node: &Node, button: &str) {
    let pressing = async {
        loop {
            send(docker, node, button).await;
            // Cancel safe, as above.
            if timeout(PRESS_AGAIN, powered_off(docker, node))
                .await
                .is_ok()
            {
                return;
            }
        }
    };
    if timeout(SHUT_DOWN, pressing).await.is_err() {
        let (id, seconds) = (&node.instance_id, SHUT_DOWN.as_secs());
        log::warn!("{id} has not shut down in {seconds} s: its power is cut");
        send(docker, node, "SIGKILL").await;
        powered_off(docker, node).await;
    }
}

/// Sends a signal to the machine's systemd. A machine that is off already needs none.
async fn send(docker: &Docker, node: &Node, signal: &str) {
    let name = node.container_name();
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    match docker.kill_container(&name, Some(options)).await {
        Err(error) if !is_absent(&error) && !is_in_progress(&error) => {
            log::error!("docker: send {signal} to container {name}: {error}");
        }
        _ => {}
    }
}

async fn remove(docker: &Docker, node: &Node) {
    let name = node.container_name();
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(&name, Some(options)).await {
        Err(error) if !is_absent(&error) && !is_in_progress(&error) => {
            log::error!("docker: remove container {name}: {error}; `down` will try again");
        }
        _ => {}
    }
}

/// The end of the machine's console; what went wrong, if it cannot be read; `None` if there is no
/// such machine.
pub(super) async fn console(docker: &Docker, container: &str) -> Option<String> {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail(CONSOLE_LINES)
        .build();
    let mut text = Vec::new();
    let mut logs = std::pin::pin!(docker.logs(container, Some(options)));
    while let Some(piece) = logs.next().await {
        match piece {
            Ok(piece) => text.extend_from_slice(&piece.into_bytes()),
            Err(error) if is_absent(&error) => return None,
            Err(error) => {
                return Some(format!(
                    "fleet-sandbox: no console of {container}: {error}\n"
                ));
            }
        }
    }
    let begin = text.len().saturating_sub(CONSOLE_BYTES);
    Some(String::from_utf8_lossy(&text[begin..]).into_owned())
}
