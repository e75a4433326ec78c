//! The command line: arguments, dispatch, and how an error ends the process.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{commands, exit::Exit, output::Output, spec::LoadError};

/// Brings Amazon ECS clusters on EC2 instances of your own to what fleet.toml says.
#[derive(Debug, Parser)]
#[command(
    name = "fleet-bootstrap",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Credentials and endpoints are the AWS SDK's own: AWS_PROFILE, AWS_ENDPOINT_URL, ...\n\
                  Exit codes: 0 done or nothing to do, 1 error, 2 `plan` found changes."
)]
struct Cli {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The fleet's file
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "fleet.toml"
    )]
    pub file: PathBuf,
    /// Print the result as JSON on standard output, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented fleet.toml
    Init(InitArgs),
    /// Check fleet.toml and report everything that is wrong with it
    Validate(ValidateArgs),
    /// Show what `up` would do
    Plan(PlanArgs),
    /// Bring an environment to what fleet.toml says
    Up(UpArgs),
    /// Show how an environment is
    Status(StatusArgs),
    /// Make a node drain, or serve again
    Drain(DrainArgs),
    /// Remove everything an environment owns
    Down(DownArgs),
    /// Print a document that nodes get
    Render(RenderArgs),
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Name of the fleet; AWS resources are named after it
    #[arg(long)]
    pub name: Option<String>,
    /// AWS region
    #[arg(long, env = "AWS_REGION", hide_env_values = true)]
    pub region: Option<String>,
    /// Id of the VPC to use
    #[arg(long, value_name = "ID")]
    pub vpc: Option<String>,
    /// Id of a subnet of the VPC; once for each
    #[arg(long = "subnet", value_name = "ID")]
    pub subnets: Vec<String>,
    /// Name of the first environment
    #[arg(long, value_name = "ENV", default_value = "dev")]
    pub environment: String,
}

/// `validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// Check this environment only
    #[arg(value_name = "ENV")]
    pub environment: Option<String>,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
}

/// `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
}

/// `drain`.
#[derive(Debug, Args)]
#[command(
    after_help = "The node's agent sees the request within seconds, in its instance's tags. Once drained it stays\n\
                  empty until --undo, unless its group takes it away meanwhile."
)]
pub struct DrainArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// EC2 instance id of the node
    #[arg(value_name = "INSTANCE")]
    pub instance: String,
    /// Why, for the journal and whoever looks at the tags [default: operator]
    #[arg(long, value_name = "TEXT", conflicts_with = "undo")]
    pub reason: Option<String>,
    /// Take it back, and wait until the node is ACTIVE again
    #[arg(long)]
    pub undo: bool,
    /// Do not wait until the node has done it
    #[arg(long)]
    pub no_wait: bool,
}

/// `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Which document
    #[arg(value_name = "DOCUMENT")]
    pub document: Document,
    /// The group; needed when there are several
    #[arg(long)]
    pub group: Option<String>,
}

/// What `render` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// The launch template's user data, before it is packed
    UserData,
    /// agent.toml, the agent's settings
    AgentConfig,
    /// The inline policy of the nodes' role
    Policy,
}

/// Runs the program.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let out = Output::new(cli.common.json);
    let ended = run(&cli.command, &out).and_then(|exit| {
        out.finish()
            .context("failed to write the result to standard output")?;
        Ok(exit)
    });
    ended.unwrap_or_else(|error| {
        report(&error, &out);
        Exit::Error
    })
}

/// clap would exit with 2, which says here that `plan` found changes.
fn usage(error: &clap::Error) -> Exit {
    // With its stream gone there is nobody left to tell.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Error
    } else {
        Exit::Done
    }
}

/// One thread is enough for a program that waits on the network.
fn run(command: &Command, out: &Output) -> anyhow::Result<Exit> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(dispatch(command, out))
}

async fn dispatch(command: &Command, out: &Output) -> anyhow::Result<Exit> {
    match command {
        Command::Init(args) => commands::init::run(args, out),
        Command::Validate(args) => commands::validate::run(args, out),
        Command::Plan(args) => commands::plan::run(args, out).await,
        Command::Up(args) => commands::up::run(args, out).await,
        Command::Status(args) => commands::status::run(args, out).await,
        Command::Drain(args) => commands::drain::run(args, out).await,
        Command::Down(args) => commands::down::run(args, out).await,
        Command::Render(args) => commands::render::run(args, out),
    }
}

/// The whole chain of causes on one line. Problems of a file are lines of their own already, each
/// beginning with its place, as editors and CI systems like to find them.
fn report(error: &anyhow::Error, out: &Output) {
    if error.is::<LoadError>() || error.is::<fleet_agent_config::Problems>() {
        out.note(format!("{error:#}"));
    } else {
        out.note(format!("{} {error:#}", crate::output::red("error:")));
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_file_may_be_named_before_and_after_the_command() {
        for arguments in [
            &["fleet-bootstrap", "-f", "x.toml", "--json", "plan", "dev"][..],
            &["fleet-bootstrap", "plan", "-f", "x.toml", "dev", "--json"][..],
        ] {
            let cli = Cli::try_parse_from(arguments).expect("parses");
            let Command::Plan(args) = cli.command else {
                panic!("plan");
            };
            for common in [args.common, cli.common] {
                assert_eq!(common.file.to_str(), Some("x.toml"));
                assert!(common.json);
            }
        }
    }
}
