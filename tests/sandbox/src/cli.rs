//! The command line.

#![allow(
    clippy::disallowed_methods,
    reason = "`exec` and `logs` hand over to docker, which knows terminals"
)]

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use fleet_sandbox::client::{Client, RunTasks, Spot};

use crate::{
    daemon::{self, Options},
    docker, ecs_agent, image,
    paths::{Paths, State},
    room,
};

/// An AWS on one machine, to develop against.
///
/// Real SDKs, real user data, real cloud-init, systemd and Docker; EC2 instances are containers.
#[derive(Debug, Parser)]
#[command(name = "fleet-sandbox", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Which sandbox, when there are several.
    #[arg(
        long,
        global = true,
        env = "FLEET_SANDBOX_NAME",
        default_value = "default"
    )]
    name: String,

    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a sandbox and wait until it serves.
    Up(UpArgs),
    /// Stop a sandbox and remove everything of it: machines, networks, volumes, processes, state.
    Down,
    /// Print the shell lines that lead every AWS SDK to the sandbox: eval "$(fleet-sandbox env)".
    Env,
    /// Show what the sandbox holds, as JSON.
    Status,
    /// Have a service run COUNT tasks, made if it does not exist.
    RunTasks {
        /// ECS cluster.
        cluster: String,
        /// Service, and task definition family.
        service: String,
        /// Tasks to keep running.
        count: u32,
        /// What each runs; without it, a shell that waits and ends at once on SIGTERM.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Set the desired capacity of an Auto Scaling group.
    Scale {
        /// Auto Scaling group.
        group: String,
        /// Desired capacity.
        desired: u32,
    },
    /// Terminate an instance through its Auto Scaling group, hooks and all.
    Terminate {
        /// EC2 instance id.
        instance: String,
        /// Lower the group's desired capacity too, so that it is not replaced.
        #[arg(long)]
        decrement: bool,
    },
    /// Give an instance a spot interruption notice.
    Spot {
        /// EC2 instance id.
        instance: String,
        /// Seconds from now to the interruption.
        #[arg(long = "in", default_value_t = 120, value_name = "SECONDS")]
        seconds: u32,
        /// What EC2 will do: terminate, stop or hibernate.
        #[arg(long, default_value = "terminate")]
        action: String,
    },
    /// Make an AMI with the agent inside, as Packer would; prints its id.
    Bake {
        /// The agent: a statically linked fleet-agent.
        #[arg(long, value_name = "FILE")]
        agent: Option<PathBuf>,
    },
    /// Run a command in an instance; its exit code is this one's.
    Exec {
        /// EC2 instance id.
        instance: String,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print an instance's console.
    Logs {
        /// EC2 instance id.
        instance: String,
    },
    /// Show how often which AWS call was made.
    Calls {
        /// Begin to count afresh.
        #[arg(long)]
        reset: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The daemon; `up` starts it.
    #[command(hide = true)]
    Serve(UpArgs),
    /// The ECS agent of a node.
    #[command(hide = true)]
    EcsAgent,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Port of the gateway on 127.0.0.1; 0 for any.
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// AWS region to play.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Directory to serve to the nodes at /_sandbox/files/NAME.
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Directory of moto_server [default: venv/bin beside this program's directory].
    #[arg(long, env = "FLEET_SANDBOX_MOTO", value_name = "DIR")]
    moto: Option<PathBuf>,
}

/// Runs one command.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let name = cli.name.as_str();
    match cli.command {
        Subcommands::Up(args) => up(&options(name, args)?).await?,
        Subcommands::Down => down(name).await?,
        Subcommands::Env => env(name).await?,
        Subcommands::Status => print(&pretty(&client(name)?.status().await?)?)?,
        Subcommands::RunTasks {
            cluster,
            service,
            count,
            command,
        } => {
            let tasks = RunTasks {
                cluster,
                service,
                count,
                image: image::BUSYBOX.to_owned(),
                command: or_waiting(command),
                ..RunTasks::default()
            };
            client(name)?.run_tasks(&tasks).await?;
        }
        Subcommands::Scale { group, desired } => client(name)?.scale(&group, desired).await?,
        Subcommands::Terminate {
            instance,
            decrement,
        } => client(name)?.terminate(&instance, decrement).await?,
        Subcommands::Spot {
            instance,
            seconds,
            action,
        } => {
            let spot = Spot {
                instance,
                action,
                seconds,
            };
            client(name)?.spot(&spot).await?;
        }
        Subcommands::Bake { agent } => {
            let image_id = client(name)?.register_image("fleet-agent").await?;
            image::bake(name, agent.as_deref(), &image_id)?;
            print(&image_id)?;
        }
        Subcommands::Exec { instance, command } => return exec(name, &instance, &command),
        Subcommands::Logs { instance } => return logs(name, &instance),
        Subcommands::Calls { reset, json } => calls(name, reset, json).await?,
        Subcommands::Serve(args) => daemon::serve(&options(name, args)?).await?,
        Subcommands::EcsAgent => return Ok(ecs_agent::run().await),
    }
    Ok(ExitCode::SUCCESS)
}

fn options(name: &str, args: UpArgs) -> anyhow::Result<Options> {
    let moto = match args.moto {
        Some(directory) => directory,
        None => beside_this_program()?,
    };
    if !moto.join("moto_server").exists() {
        bail!(
            "no moto_server in {}: run tests/setup.sh, or name its directory with --moto",
            moto.display()
        );
    }
    let files = args
        .files
        .map(|directory| {
            std::fs::canonicalize(&directory)
                .with_context(|| format!("find the files directory {}", directory.display()))
        })
        .transpose()?;
    Ok(Options {
        name: name.to_owned(),
        port: args.port,
        region: args.region,
        files,
        moto,
    })
}

/// target/venv/bin for target/debug/fleet-sandbox.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let program = room::this_program()?;
    let target = program.parent().and_then(std::path::Path::parent);
    let target = target.ok_or_else(|| anyhow!("{} lies nowhere", program.display()))?;
    Ok(target.join("venv/bin"))
}

/// The command given, or one that does nothing for ever and obeys SIGTERM at once.
fn or_waiting(command: Vec<String>) -> Vec<String> {
    if !command.is_empty() {
        return command;
    }
    let script = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done";
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

async fn up(options: &Options) -> anyhow::Result<()> {
    let name = &options.name;
    if let Some(state) = daemon::running(name)? {
        return print(&format!("sandbox {name} is already up on {}", state.url()));
    }
    // What a killed daemon may have left would be in the new one's way.
    daemon::remove(name).await?;
    image::require_built(&docker::connect().await?).await?;
    if let Err(error) = daemon::start(options) {
        // The log stays for whoever wants to know more.
        return Err(error.context(format!("start sandbox {name}")));
    }
    let state = running(name)?;
    print(&format!(
        "sandbox {name} is up on {}\n\n  eval \"$(fleet-sandbox env{})\"\n\n\
         leads every AWS SDK there; `fleet-sandbox down` removes it without a trace.",
        state.url(),
        name_argument(name),
    ))
}

fn name_argument(name: &str) -> String {
    if name == "default" {
        String::new()
    } else {
        format!(" --name {name}")
    }
}

async fn down(name: &str) -> anyhow::Result<()> {
    let removed = daemon::remove(name).await?;
    if removed.processes == 0 && removed.docker == 0 && !removed.state {
        return print(&format!("sandbox {name} is not up: nothing to do"));
    }
    print(&format!(
        "sandbox {name} is down: {} processes ended, {} Docker objects removed",
        removed.processes, removed.docker
    ))
}

async fn env(name: &str) -> anyhow::Result<()> {
    let state = running(name)?;
    let network = Client::new(&state.url())?.network().await?;
    let url = state.url();
    let mut text = String::new();
    for (variable, value) in [
        ("AWS_ENDPOINT_URL", url.as_str()),
        // The AWS CLI and boto3 read the one, every other SDK the other.
        ("AWS_DEFAULT_REGION", &state.region),
        ("AWS_REGION", &state.region),
        ("AWS_ACCESS_KEY_ID", "sandbox"),
        ("AWS_SECRET_ACCESS_KEY", "sandbox"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("FLEET_SANDBOX_NAME", name),
        ("FLEET_SANDBOX_NODE_URL", &state.node_url),
        ("FLEET_SANDBOX_VPC", &network.vpc_id),
        ("FLEET_SANDBOX_SUBNETS", &network.subnet_ids.join(" ")),
    ] {
        // None of the values can hold a quote.
        writeln!(text, "export {variable}='{value}'")?;
    }
    print(text.trim_end())
}

async fn calls(name: &str, reset: bool, json: bool) -> anyhow::Result<()> {
    let client = client(name)?;
    if reset {
        return client.reset_calls().await;
    }
    let calls = client.calls().await?;
    if json {
        return print(&pretty(&calls)?);
    }
    let mut text = format!("{:>7}  {:>8}  call (caller)", "calls", "attempts");
    for call in &calls {
        write!(
            text,
            "
{:>7}  {:>8}  {}:{} ({})",
            call.calls, call.attempts, call.service, call.operation, call.caller
        )?;
    }
    print(&text)
}

fn exec(name: &str, instance: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let mut docker = Command::new("docker");
    docker.args(["exec", "--interactive"]);
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        docker.arg("--tty");
    }
    docker.arg(container(name, instance)?).args(command);
    hand_over(docker)
}

fn logs(name: &str, instance: &str) -> anyhow::Result<ExitCode> {
    let mut docker = Command::new("docker");
    docker.arg("logs").arg(container(name, instance)?);
    hand_over(docker)
}

fn container(name: &str, instance: &str) -> anyhow::Result<String> {
    running(name)?;
    Ok(room::container_name(name, instance))
}

fn hand_over(mut docker: Command) -> anyhow::Result<ExitCode> {
    let status = docker.status().context("run docker")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn client(name: &str) -> anyhow::Result<Client> {
    Client::new(&running(name)?.url())
}

fn running(name: &str) -> anyhow::Result<State> {
    daemon::running(name)?.ok_or_else(|| {
        let log = Paths::of(name).map(|paths| paths.log());
        let hint = log
            .ok()
            .filter(|log| log.exists())
            .map(|log| format!("; it ended, see {}", log.display()))
            .unwrap_or_default();
        anyhow!(
            "sandbox {name} is not up: start it with `fleet-sandbox up{}`{hint}",
            name_argument(name)
        )
    })
}

fn pretty(value: &impl serde::Serialize) -> anyhow::Result<String> {
    serde_json::to_string_pretty(value).context("write JSON")
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("write to standard output")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_passes_everything_after_the_dashes() {
        let cli = Cli::try_parse_from(["fleet-sandbox", "exec", "i-1", "--", "ls", "-l"]).unwrap();
        let Subcommands::Exec { instance, command } = cli.command else {
            panic!("not exec");
        };
        assert_eq!((instance.as_str(), command.len()), ("i-1", 2));
    }
}
