//! The life of one machine, from power-on to nothing left.

use anyhow::Context as _;
use bollard::{
    Docker,
    errors::Error,
    query_parameters::{
        CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};
use fleet_sandbox::machines::MachineEvent;
use futures_util::StreamExt as _;
use tokio::sync::oneshot;

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

/// How long a terminated machine has to shut down before its power is cut, seconds. EC2 gives no
/// figure; this lets units stop in order, as there.
const SHUT_DOWN_SECONDS: i32 = 20;

/// Powers the machine on, keeps it through reboots, and removes it when it is terminated or has
/// powered itself off.
pub(super) async fn live(
    docker: &Docker,
    node: &Node,
    last_words: &LastWords,
    mut terminated: oneshot::Receiver<()>,
    report: impl Fn(MachineEvent),
) {
    let container = node.container_name();
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
    log::info!("{instance_id} is on at {}", node.address);
    report(MachineEvent::Started {
        instance_id: instance_id.clone(),
        address: node.address,
    });
    loop {
        // Cancel safe: a wait that is dropped is only asked again.
        let rebooted = tokio::select! {
            code = powered_off(docker, node) => code == Some(REBOOTED),
            // An error means that the room is closing, which ends the machine, too.
            _ = &mut terminated => {
                shut_down(docker, &container).await;
                false
            }
        };
        if !rebooted {
            break;
        }
        log::info!("{instance_id} reboots");
        if let Err(error) = start(docker, node).await {
            log::error!("reboot {instance_id}: {error:#}");
            break;
        }
    }
    if let Some(text) = console(docker, &container).await {
        last_words.keep(&instance_id, text);
    }
    remove(docker, node).await;
    log::info!("{instance_id} is gone");
    report(MachineEvent::Gone { instance_id });
}

async fn power_on(docker: &Docker, node: &Node) -> anyhow::Result<()> {
    let name = node.container_name();
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

/// Presses the power button: systemd stops its units in order, as at an EC2 termination.
async fn shut_down(docker: &Docker, container: &str) {
    let options = StopContainerOptionsBuilder::new()
        .t(SHUT_DOWN_SECONDS)
        .build();
    match docker.stop_container(container, Some(options)).await {
        Err(error) if !is_absent(&error) => {
            log::error!("docker: stop container {container}: {error}; it is removed as it is");
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
