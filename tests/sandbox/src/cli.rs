//! The command line.

#![allow(
    clippy::disallowed_methods,
    reason = "`exec` and `logs` hand over to docker, which knows terminals"
)]

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use fleet_sandbox::client::{
    Client, FaultRule, ImdsFault, LifeCycle, Maintain, MaintenanceCode, Power, PowerAction,
    RunTasks, SetTags, Spot, SpotAction,
};

use crate::{
    daemon::{self, Machines, Options},
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
    RunTasks(RunTasksArgs),
    /// Set the desired capacity of an Auto Scaling group.
    Scale {
        /// Auto Scaling group.
        group: String,
        /// Desired capacity.
        desired: u32,
    },
    /// Have a CloudWatch alarm stand, and its scaling policy carried out.
    Alarm {
        /// CloudWatch alarm.
        alarm: String,
        /// What its metric has been at for as long as it asks.
        value: f64,
    },
    /// Terminate an instance through its Auto Scaling group, hooks and all.
    Terminate {
        /// EC2 instance id.
        instance: String,
        /// Lower the group's desired capacity too, so that it is not replaced.
        #[arg(long)]
        decrement: bool,
    },
    /// Stop an instance in EC2: shut down and kept. Auto Scaling replaces it, as on AWS.
    Stop {
        /// EC2 instance id.
        instance: String,
        /// Auto Scaling does not look, as with its health checks suspended.
        #[arg(long)]
        unnoticed: bool,
    },
    /// Start a stopped instance.
    Start {
        /// EC2 instance id.
        instance: String,
    },
    /// Reboot an instance in EC2.
    Reboot {
        /// EC2 instance id.
        instance: String,
    },
    /// Terminate an instance in EC2, by hand: Auto Scaling only notices when it is gone.
    Poweroff {
        /// EC2 instance id.
        instance: String,
    },
    /// Give an instance a spot interruption notice.
    Spot {
        /// EC2 instance id.
        instance: String,
        /// Seconds from now to the interruption [default: 120; 0 for hibernate].
        #[arg(long = "in", value_name = "SECONDS")]
        seconds: Option<u32>,
        /// What EC2 will do.
        #[arg(long, value_enum, default_value_t)]
        action: SpotAction,
    },
    /// Recommend that an instance be replaced, as EC2 does before it takes spot instances back.
    Rebalance {
        /// EC2 instance id.
        instance: String,
    },
    /// Say in an instance's metadata whether it is a spot instance.
    LifeCycle {
        /// EC2 instance id.
        instance: String,
        /// How it was bought.
        life_cycle: LifeCycle,
    },
    /// Schedule maintenance of an instance, or cancel it.
    Maintenance {
        /// EC2 instance id.
        instance: String,
        /// Seconds from now to its beginning.
        #[arg(
            long = "in",
            value_name = "SECONDS",
            required_unless_present = "cancel"
        )]
        seconds: Option<u32>,
        /// What EC2 will do.
        #[arg(long, value_enum, default_value = "instance-reboot")]
        code: MaintenanceCode,
        /// Cancel all that has not begun.
        #[arg(long, conflicts_with_all = ["seconds", "code"])]
        cancel: bool,
    },
    /// Put tags on an instance, or take them off.
    Tag {
        /// EC2 instance id.
        instance: String,
        /// Tags to put on.
        #[arg(value_name = "KEY=VALUE", value_parser = key_value, required_unless_present = "remove")]
        tags: Vec<(String, String)>,
        /// A key to take off; may be repeated.
        #[arg(long, value_name = "KEY")]
        remove: Vec<String>,
    },
    /// Give an instance's metadata service a fault, until `ok`.
    Imds {
        /// EC2 instance id.
        instance: String,
        #[command(subcommand)]
        fault: ImdsCommand,
    },
    /// Show the rules that make AWS calls fail, or put others in their place.
    Faults {
        /// JSON, `[]` for none, such as `[{"service": "ecs", "code": "ThrottlingException"}]`.
        rules: Option<String>,
    },
    /// Limit a caller to what an IAM policy allows. Instances are limited by their roles anyway.
    Allow {
        /// Access key of the caller.
        access_key: String,
        /// JSON file with the policy; without it, the caller may do everything again.
        policy: Option<PathBuf>,
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
    /// Print what fleet-agent wrote in an instance, as JSON lines, also once the instance is gone.
    Journal {
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
struct RunTasksArgs {
    /// ECS cluster.
    cluster: String,
    /// Service, and task definition family.
    service: String,
    /// Tasks to keep running.
    count: u32,
    /// RunTask instead: tasks of no service, which nobody replaces.
    #[arg(long, conflicts_with_all = ["min", "max"])]
    standalone: bool,
    /// The task's stopTimeout: seconds between SIGTERM and SIGKILL.
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// The service's minimumHealthyPercent.
    #[arg(long, value_name = "PERCENT")]
    min: Option<u32>,
    /// The service's maximumPercent.
    #[arg(long, value_name = "PERCENT")]
    max: Option<u32>,
    /// What each runs; without it, a shell that waits and ends at once on SIGTERM.
    #[arg(last = true)]
    command: Vec<String>,
}

impl From<RunTasksArgs> for RunTasks {
    fn from(args: RunTasksArgs) -> Self {
        Self {
            cluster: args.cluster,
            service: args.service,
            count: args.count,
            image: image::BUSYBOX.to_owned(),
            command: or_waiting(args.command),
            standalone: args.standalone,
            stop_timeout: args.stop_timeout,
            minimum_healthy_percent: args.min,
            maximum_percent: args.max,
            ..Self::default()
        }
    }
}

/// Faults of the metadata service.
#[derive(Debug, Clone, Copy, Subcommand)]
enum ImdsCommand {
    /// Takes questions and answers none.
    Down,
    /// Answers after MS milliseconds, with what is true by then.
    Slow {
        /// Milliseconds.
        ms: u32,
    },
    /// Answers with this HTTP status; 401 makes it forget all tokens, once.
    Status {
        /// 400 to 599.
        #[arg(value_parser = clap::value_parser!(u16).range(400..=599))]
        code: u16,
    },
    /// Answers MS milliseconds late, with what was true when it was asked.
    Late {
        /// Milliseconds.
        ms: u32,
    },
    /// Nothing is wrong any more.
    Ok,
}

impl From<ImdsCommand> for ImdsFault {
    fn from(command: ImdsCommand) -> Self {
        match command {
            ImdsCommand::Down => Self::Down,
            ImdsCommand::Slow { ms } => Self::Slow { ms },
            ImdsCommand::Status { code } => Self::Status { code },
            ImdsCommand::Late { ms } => Self::Late { ms },
            ImdsCommand::Ok => Self::Ok,
        }
    }
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Port of the gateway on 127.0.0.1; 0 for any.
    #[arg(long, default_value_t = 4566)]
    port: u16,
    /// AWS region to play.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// What an EC2 instance is.
    #[arg(long, value_enum, default_value_t = Machines::Containers)]
    machines: Machines,
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
        Subcommands::RunTasks(args) => client(name)?.run_tasks(&args.into()).await?,
        Subcommands::Scale { group, desired } => client(name)?.scale(&group, desired).await?,
        Subcommands::Alarm { alarm, value } => client(name)?.alarm(&alarm, value).await?,
        Subcommands::Terminate {
            instance,
            decrement,
        } => {
            let begun = client(name)?.terminate(&instance, decrement).await?;
            print(&format!("{} {}", begun.at, begun.description))?;
        }
        Subcommands::Spot {
            instance,
            seconds,
            action,
        } => {
            let spot = Spot {
                instance,
                action,
                seconds: seconds.unwrap_or_else(|| warning(action)),
            };
            client(name)?.spot(&spot).await?;
        }
        Subcommands::Stop {
            instance,
            unnoticed,
        } => power(name, instance, PowerAction::Stop, unnoticed).await?,
        Subcommands::Start { instance } => {
            power(name, instance, PowerAction::Start, false).await?;
        }
        Subcommands::Reboot { instance } => {
            power(name, instance, PowerAction::Reboot, false).await?;
        }
        Subcommands::Poweroff { instance } => {
            power(name, instance, PowerAction::Terminate, false).await?;
        }
        Subcommands::Rebalance { instance } => client(name)?.rebalance(&instance).await?,
        Subcommands::LifeCycle {
            instance,
            life_cycle,
        } => client(name)?.set_life_cycle(&instance, life_cycle).await?,
        Subcommands::Maintenance {
            instance,
            seconds,
            code,
            cancel: _,
        } => match seconds {
            Some(seconds) => {
                let event = Maintain {
                    instance,
                    code,
                    seconds,
                };
                client(name)?.maintain(&event).await?;
            }
            None => client(name)?.cancel_maintenance(&instance).await?,
        },
        Subcommands::Tag {
            instance,
            tags,
            remove,
        } => {
            let set = tags.into_iter().collect();
            let tags = SetTags {
                instance,
                set,
                remove,
            };
            client(name)?.set_tags(&tags).await?;
        }
        Subcommands::Imds { instance, fault } => {
            client(name)?.set_imds(&instance, fault.into()).await?;
        }
        Subcommands::Faults { rules } => faults(name, rules.as_deref()).await?,
        Subcommands::Allow { access_key, policy } => {
            let policy = policy.as_deref().map(read_policy).transpose()?;
            client(name)?.allow(&access_key, policy).await?;
        }
        Subcommands::Bake { agent } => {
            let image_id = client(name)?.register_image("fleet-agent").await?;
            image::bake(name, agent.as_deref(), &image_id)?;
            print(&image_id)?;
        }
        Subcommands::Exec { instance, command } => return exec(name, &instance, &command),
        Subcommands::Logs { instance } => return logs(name, &instance),
        Subcommands::Journal { instance } => return journal(name, &instance),
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
        machines: args.machines,
        files,
        moto,
    })
}

fn read_policy(file: &Path) -> anyhow::Result<serde_json::Value> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read the policy in {}", file.display()))
}

/// How long before the act EC2 gives a spot notice, seconds.
fn warning(action: SpotAction) -> u32 {
    match action {
        SpotAction::Terminate | SpotAction::Stop => 120,
        SpotAction::Hibernate => 0,
    }
}

async fn power(
    name: &str,
    instance: String,
    action: PowerAction,
    unnoticed: bool,
) -> anyhow::Result<()> {
    let power = Power {
        instance,
        action,
        unnoticed,
    };
    client(name)?.power(&power).await
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=VALUE".to_owned()),
    }
}

/// target/venv/bin for target/debug/fleet-sandbox.
fn beside_this_program() -> anyhow::Result<PathBuf> {
    let program = room::this_program()?;
    let target = program.parent().and_then(Path::parent);
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
    daemon::remove(name, options.machines).await?;
    if options.machines == Machines::Containers {
        image::require_built(&docker::connect().await?).await?;
    }
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
    let removed = daemon::remove(name, Machines::Containers).await?;
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

async fn faults(name: &str, rules: Option<&str>) -> anyhow::Result<()> {
    let client = client(name)?;
    let Some(rules) = rules else {
        return print(&pretty(&client.faults().await?)?);
    };
    let rules: Vec<FaultRule> = serde_json::from_str(rules).context("these are no fault rules")?;
    client.set_faults(&rules).await
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

fn journal(name: &str, instance: &str) -> anyhow::Result<ExitCode> {
    let kept = Paths::of(name)?.journal(instance);
    let mut docker = Command::new("docker");
    docker.args(["exec", &container(name, instance)?]);
    docker.args(["journalctl", "--unit", "fleet-agent", "--output", "json"]);
    match std::fs::read_to_string(&kept) {
        // One that was only stopped, or rebooted, has gone on since.
        Ok(text) if !runs(name, instance)? => print(text.trim_end()).map(|()| ExitCode::SUCCESS),
        _ => hand_over(docker),
    }
}

fn runs(name: &str, instance: &str) -> anyhow::Result<bool> {
    let mut docker = Command::new("docker");
    docker.args(["container", "inspect", "--format", "{{.State.Running}}"]);
    let output = docker.arg(container(name, instance)?).output();
    let output = output.context("run docker")?;
    Ok(output.stdout.starts_with(b"true"))
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

    fn refused(arguments: &[&str]) -> bool {
        let program = ["fleet-sandbox"];
        Cli::try_parse_from(program.iter().chain(arguments)).is_err()
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert!(refused(&["maintenance", "i-1"]));
        assert!(refused(&["maintenance", "i-1", "--in", "5", "--cancel"]));
        assert!(!refused(&["maintenance", "i-1", "--cancel"]));
        assert!(refused(&["tag", "i-1"]));
        assert!(refused(&["tag", "i-1", "fleet:drain"]));
        assert!(!refused(&["tag", "i-1", "--remove", "fleet:drain"]));
        assert!(refused(&["imds", "i-1", "status", "200"]));
        assert!(refused(&["imds", "i-1", "slow"]));
        let tasks = ["run-tasks", "dev", "web", "1", "--standalone"];
        assert!(!refused(&tasks));
        assert!(refused(&[&tasks[..], &["--min", "100"]].concat()));
    }
}
