//! The command line: arguments, dispatch, and how an error ends the process.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde_json::json;

use crate::{commands, exit::Exit, output::Output, roll::Surge, spec::LoadError};

/// Brings Amazon ECS clusters on EC2 instances of your own to what fleet.toml says.
#[derive(Debug, Parser)]
#[command(
    name = "fleet-bootstrap",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Credentials and endpoints are the AWS SDK's own: AWS_PROFILE, AWS_ENDPOINT_URL and others.\n\
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
    /// Replace nodes made from an older launch template, in waves
    Roll(RollArgs),
    /// Make a node drain, or serve again
    Drain(DrainArgs),
    /// Remove everything an environment owns
    Down(DownArgs),
    /// Print a document that nodes get, the policy of whoever runs this program, or the schema of fleet.toml
    Render(RenderArgs),
    /// Print a shell's completions of this program
    Completions(CompletionsArgs),
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// What its settings are for: `dev` to try things out, `prod` to depend on
    #[arg(
        long,
        value_name = "TEMPLATE",
        default_value = "dev",
        hide_possible_values = true
    )]
    pub template: Template,
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
    /// The only account that this may be applied to
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Name of the first environment [default: the template's]
    #[arg(long, value_name = "ENV")]
    pub environment: Option<String>,
}

/// What a new file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// One node, and defaults.
    Dev,
    /// Two nodes or more, in one account, with limits written down.
    Prod,
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
    /// Give groups the newest of the images that the file names [default: what they have]
    #[arg(long, value_name = "latest", hide_possible_values = true)]
    pub ami: Option<Ami>,
    /// Write the plan to a file as well, for `up --plan`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the environment's file with every default filled in, and do not ask AWS
    #[arg(long, conflicts_with_all = ["ami", "out"])]
    pub full: bool,
}

/// `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Give groups the newest of the images that the file names [default: what they have]
    #[arg(long, value_name = "latest", hide_possible_values = true)]
    pub ami: Option<Ami>,
    /// Apply what `plan --out` wrote, without asking, and only if it would still be the same
    #[arg(long, value_name = "FILE", conflicts_with = "ami")]
    pub plan: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Which image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ami {
    /// The newest.
    Latest,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Look again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5",
          value_parser = clap::value_parser!(u64).range(2..))]
    pub watch: Option<u64>,
}

/// `roll`.
#[derive(Debug, Args)]
#[command(
    after_help = "First what `up` would do is done, if there is anything. Then, in each group: new nodes, and when those are\n\
                  ready as many old ones drain and go. A new node that fails takes its group back to its previous launch\n\
                  template version. How far it is stands in the groups' tags: run it again to go on after an interruption."
)]
pub struct RollArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// This group only; once for each [default: all]
    #[arg(long = "group", value_name = "NAME")]
    pub groups: Vec<String>,
    /// New nodes at a time, as a number or a share of the group; with 100% no task moves twice
    #[arg(long, value_name = "NODES|PERCENT%", default_value = "10%", value_parser = Surge::read)]
    pub surge: Surge,
    /// Do not begin with one node alone
    #[arg(long)]
    pub no_canary: bool,
    /// How long the first new node is watched before others follow, seconds
    #[arg(long = "bake", value_name = "SECONDS", default_value_t = 60)]
    pub bake_seconds: u64,
    /// Give groups the newest of the images that the file names [default: what they have]
    #[arg(long, value_name = "latest", hide_possible_values = true)]
    pub ami: Option<Ami>,
    /// Have a roll that is under way begin nothing more for now
    #[arg(long, conflicts_with_all = ["resume", "cancel"])]
    pub pause: bool,
    /// Go on with a roll that was paused
    #[arg(long, conflicts_with = "cancel")]
    pub resume: bool,
    /// Bring the wave that is out to its end, and leave all other nodes
    #[arg(long)]
    pub cancel: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What is to become of a roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollWish {
    /// Begin it, or go on with one that was interrupted.
    Start,
    /// `--pause`.
    Pause,
    /// `--resume`.
    Resume,
    /// `--cancel`.
    Cancel,
}

impl RollArgs {
    /// By its flags, which exclude each other.
    pub fn wish(&self) -> RollWish {
        match (self.pause, self.resume, self.cancel) {
            (true, _, _) => RollWish::Pause,
            (_, true, _) => RollWish::Resume,
            (_, _, true) => RollWish::Cancel,
            (false, false, false) => RollWish::Start,
        }
    }
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
#[command(allow_missing_positional = true)]
pub struct RenderArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The environment; the schema has none
    #[arg(value_name = "ENV")]
    pub environment: Option<String>,
    /// Which document
    #[arg(value_name = "DOCUMENT")]
    pub document: Document,
    /// The group; needed when there are several
    #[arg(long)]
    pub group: Option<String>,
    /// Whose policy: the nodes', or that of whoever runs this program on this environment
    #[arg(long = "for", value_name = "WHO", value_enum, default_value_t)]
    pub holder: Holder,
}

/// What `render` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// The launch template's user data, before it is packed
    UserData,
    /// agent.toml, the agent's settings
    AgentConfig,
    /// The inline policy of the nodes' role, or the one that --for names
    Policy,
    /// JSON schema of fleet.toml, for editors
    Schema,
}

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = "For instance: source <(fleet-bootstrap completions bash)")]
pub struct CompletionsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Whose policy `render` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Holder {
    /// The role of a group's nodes
    #[default]
    Node,
    /// Whoever runs this program
    Operator,
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
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
        Command::Roll(args) => commands::roll::run(args, out).await,
        Command::Drain(args) => commands::drain::run(args, out).await,
        Command::Down(args) => commands::down::run(args, out).await,
        Command::Render(args) => commands::render::run(args, out),
        Command::Completions(args) => completions(args, out),
    }
}

fn completions(args: &CompletionsArgs, out: &Output) -> anyhow::Result<Exit> {
    let mut command = command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let script = String::from_utf8(script)?;
    out.line(script.trim_end());
    out.json(&json!({ "content": script }));
    Ok(Exit::Done)
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
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
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
