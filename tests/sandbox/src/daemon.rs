//! The composition root of a sandbox: moto, the control plane, the machine room and the metadata
//! service, wired together until somebody says stop.

#![allow(
    clippy::disallowed_methods,
    reason = "`up` starts the daemon and waits for its word"
)]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use bollard::Docker;
use clap::ValueEnum;
use fleet_sandbox::{
    machines::MachineCommand,
    moto::Moto,
    paper,
    world::{World, WorldOptions},
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
};

use crate::{
    docker, image, imds,
    paths::{PROCESS_MARK, Paths, State},
    processes,
    room::{self, GATEWAY_PORT, Room},
};

/// The address of EC2's metadata service.
const IMDS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// moto's default account.
const ACCOUNT_ID: &str = "123456789012";

/// How long IMDS is ahead of the Auto Scaling API. AWS publishes no figure; PrairieLearn's agent,
/// PR 15522, met a lead that made it complete too early.
const IMDS_LEAD_MS: u32 = 300;

/// What the daemon says on standard output once it serves.
const READY: &str = "ready";

/// What an EC2 instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Machines {
    /// A container that boots; needs Docker.
    Containers,
    /// Nothing but what its agents would tell AWS, at once; needs no Docker.
    Paper,
}

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) region: String,
    pub(crate) machines: Machines,
    /// Served at /_sandbox/files/.
    pub(crate) files: Option<PathBuf>,
    /// Directory of `moto_server`.
    pub(crate) moto: PathBuf,
}

impl Machines {
    fn as_str(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Paper => "paper",
        }
    }
}

/// Starts the daemon and waits until it serves.
pub(crate) fn start(options: &Options) -> anyhow::Result<()> {
    let paths = Paths::of(&options.name)?;
    paths.create()?;
    let path = paths.log();
    let log = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let mut command = Command::new(room::this_program()?);
    command
        .args([
            "serve",
            "--name",
            &options.name,
            "--region",
            &options.region,
        ])
        .args(["--machines", options.machines.as_str()])
        .args(["--port", &options.port.to_string(), "--moto"])
        .arg(&options.moto)
        .env(PROCESS_MARK, &options.name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    if let Some(files) = &options.files {
        command.arg("--files").arg(files);
    }
    let mut daemon = command.spawn().context("start the daemon")?;
    let said = daemon.stdout.take().map(|stdout| {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    match said {
        Some(Ok(line)) if line.trim_end() == READY => Ok(()),
        _ => {
            let status = daemon.wait().context("wait for the daemon")?;
            bail!("the daemon did not start ({status}): {}", last_line(&path))
        }
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rfind(|line| !line.is_empty());
    line.map_or_else(|| format!("see {}", log.display()), str::to_owned)
}

/// Runs a sandbox until SIGTERM or SIGINT, then removes its machines.
pub(crate) async fn serve(options: &Options) -> anyhow::Result<()> {
    // A session of its own: neither the terminal's Ctrl-C nor its end reaches the sandbox.
    nix::unistd::setsid().context("leave the terminal's session")?;
    let paths = Paths::of(&options.name)?;
    let docker = match options.machines {
        Machines::Containers => Some(docker::connect().await?),
        Machines::Paper => None,
    };
    if let Some(docker) = &docker {
        image::require_built(docker).await?;
    }
    let served = serve_with(options, &paths, docker.clone()).await;
    if let Err(error) = &served {
        log::error!("{error:#}");
    }
    match &docker {
        Some(docker) => served.and(room::sweep(docker, &options.name).await.map(drop)),
        None => served,
    }
}

async fn serve_with(
    options: &Options,
    paths: &Paths,
    docker: Option<Docker>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;

    let loopback = listen_on_loopback(options.port).await?;
    let port = loopback
        .local_addr()
        .context("read the gateway's port")?
        .port();
    let moto_port = free_port().await?;
    let moto = Moto::start(&options.moto, moto_port, &paths.moto_log()).await?;
    let (world, commands) = World::start(WorldOptions {
        region: options.region.clone(),
        account_id: ACCOUNT_ID.to_owned(),
        moto_url: moto.url().to_owned(),
        files: options.files.clone(),
        imds_lead_ms: IMDS_LEAD_MS,
    })?;

    world.open_network().await?;
    let (node_url, node_gateway) = match docker {
        Some(docker) => {
            let room = Room::open(docker, &options.name, room::this_program()?).await?;
            run_containers(room, &world, commands).await?
        }
        None => {
            tokio::spawn(paper::run(world.clone(), commands));
            // Nobody calls from there.
            (
                format!("http://127.0.0.1:{port}"),
                listen_on_loopback(0).await?,
            )
        }
    };
    paths.write_state(&State {
        pid: std::process::id(),
        port,
        region: options.region.clone(),
        node_url,
        machines: options.machines,
    })?;
    log::info!("sandbox {} serves on 127.0.0.1:{port}", options.name);
    say_ready()?;

    // Cancel safe: whatever still runs, the sandbox ends here.
    tokio::select! {
        ended = world.serve(loopback) => ended.context("serve the gateway")?,
        ended = world.serve(node_gateway) => ended.context("serve the nodes' gateway")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log::info!("the sandbox ends");
    world.stop();
    moto.stop().await
}

/// Plays the machines with all they see around them; the gateway as they see it, and its listener.
async fn run_containers(
    room: Room,
    world: &World,
    commands: UnboundedReceiver<MachineCommand>,
) -> anyhow::Result<(String, TcpListener)> {
    let node_url = room.node_url();
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, GATEWAY_PORT));
    let node_gateway = room.listen(everywhere).await?;
    let imds_listener = room.listen(IMDS).await?;
    let (lookup, machines) = (world.clone(), world.clone());
    tokio::spawn(imds::serve(imds_listener, move |address| {
        lookup.metadata(address)
    }));
    tokio::spawn(room.run(commands, move |event| machines.machine_event(event)));
    Ok((node_url, node_gateway))
}

async fn listen_on_loopback(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| {
            format!("listen on 127.0.0.1:{port}; choose another with --port, or 0 for any")
        })
}

/// Below those that Linux gives to outgoing connections (`net.ipv4.ip_local_port_range`), of which one could
/// take a port that was free a moment ago.
const MOTO_PORTS: Range<u16> = 10_000..32_000;
/// Ports to try.
const PORTS_TRIED: usize = 100;

/// moto must be told its port, so it cannot choose one itself.
async fn free_port() -> anyhow::Result<u16> {
    for _ in 0..PORTS_TRIED {
        let port = fastrand::u16(MOTO_PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port for moto in {MOTO_PORTS:?}")
}

fn say_ready() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}")
        .and_then(|()| stdout.flush())
        .context("tell `up` that the sandbox serves")
}

/// What `down` found.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) processes: usize,
    pub(crate) docker: usize,
    pub(crate) state: bool,
}

/// Ends and removes everything of a sandbox, in whatever condition it is. What it did not write down
/// about its machines, `machines` says.
pub(crate) async fn remove(name: &str, machines: Machines) -> anyhow::Result<Removed> {
    let paths = Paths::of(name)?;
    // A state that cannot be read says nothing, either.
    let written = paths.read_state().ok().flatten();
    let processes = processes::end(name).await?;
    let docker = match written.map_or(machines, |state| state.machines) {
        Machines::Containers => room::sweep(&docker::connect().await?, name).await?,
        Machines::Paper => 0,
    };
    Ok(Removed {
        processes,
        docker,
        state: paths.remove()?,
    })
}

/// The state of a sandbox that serves; `None` when it is not up.
pub(crate) fn running(name: &str) -> anyhow::Result<Option<State>> {
    let state = Paths::of(name)?.read_state()?;
    let alive = processes::of(name)?;
    Ok(state.filter(|state| {
        let is_it = |pid: &nix::unistd::Pid| u32::try_from(pid.as_raw()) == Ok(state.pid);
        alive.iter().any(is_it)
    }))
}
