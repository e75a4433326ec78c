//! Commands and exit codes: 0 done, 1 error. (clap's own 2 for wrong arguments is made 1: 2 means
//! "changes planned" in this family of programs.)

use std::{
    fmt::Display,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use fleet_agent_config::{Config, Settings, names};

use crate::{
    clock::Clock,
    console::say,
    daemon::{self, Ended},
    ecs_config::{
        apply, effective,
        render::{layers, merge},
    },
    journal::{event::Entry, sink},
    leave,
    paths::Paths,
    probe,
    revision::{self, Source},
    sidecars::plan::short_hash,
    state,
    status::{self, Request},
};

/// Readiness, draining and sidecars of an ECS container instance.
#[derive(Debug, Parser)]
#[command(name = "fleet-agent", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Keep every file below this directory instead of `/`; for tests.
    #[arg(long, global = true, default_value = "/", hide = true)]
    root: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent; systemd does this.
    ///
    /// Writes ecs.config, starts sidecars, lets ecs.service start once the node may join, answers
    /// the group's lifecycle hooks, and drains the node when it is to go.
    Run {
        /// The node's settings, written by the launch template's user data.
        #[arg(long, value_name = "FILE", default_value = names::AGENT_TOML)]
        config: PathBuf,
        /// Wait this many times shorter between whatever is done again and again; for tests.
        #[arg(long, hide = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        pace: u32,
    },
    /// Show how this node is and what it waits for.
    Status {
        /// Show what the ECS agent makes of its settings instead, and where each comes from. Needs
        /// no running agent.
        #[arg(long)]
        config: bool,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Drain this node until `undrain`: ECS moves its tasks elsewhere and places no more.
    ///
    /// Returns when the tasks are gone. Interrupting it does not interrupt the drain.
    Drain {
        /// Why, for whoever reads the journal.
        #[arg(long, default_value = "no reason given")]
        reason: String,
        /// Return at once.
        #[arg(long)]
        no_wait: bool,
        /// The machine is shutting down: fleet-drain.service says this, and nobody else should.
        #[arg(long, hide = true, conflicts_with_all = ["reason", "no_wait"])]
        shutdown: bool,
    },
    /// Withdraw a `drain`: the node takes tasks again, unless something else wants it gone.
    Undrain,
    /// Check settings without any effect: prints every problem, or `ok`.
    Check {
        /// The settings to check.
        #[arg(value_name = "FILE", default_value = names::AGENT_TOML)]
        file: PathBuf,
        /// Check as well what the agent of this node has saved: whether this version could take its place.
        #[arg(long)]
        node: bool,
    },
    /// Be the container that shows what Docker can run, and what containers can reach.
    #[command(hide = true)]
    Probe,
    /// Print the journal's catalogue, which explains each event: `journalctl -x`.
    #[command(hide = true)]
    Catalog,
    /// Print the variables that `run` would set in the two ecs.config files.
    Render {
        /// The settings to render.
        #[arg(value_name = "FILE", default_value = names::AGENT_TOML)]
        file: PathBuf,
    },
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            let help = !refusal.use_stderr();
            // Nobody to tell if there is no terminal.
            let _ = refusal.print();
            return if help {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match execute(arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: Arguments) -> Result<ExitCode> {
    let paths = Paths::under(&arguments.root);
    let done = match arguments.command {
        Command::Run { config, pace } => run(&config, pace, paths),
        Command::Status { config: true, json } => show_config(&paths, json),
        Command::Status { json, .. } => show_status(&paths, json),
        Command::Probe => return Ok(probe::run()),
        Command::Drain { shutdown: true, .. } => leave::shut_down(&paths.socket, &print),
        Command::Drain {
            reason, no_wait, ..
        } => leave::drain(&paths.socket, reason, no_wait, &print),
        Command::Undrain => leave::undrain(&paths.socket, &print),
        Command::Catalog => print(include_str!("../../systemd/fleet.catalog")),
        Command::Check { file, node } => {
            let (base, _, hash) = read(&file)?;
            if node {
                state::check(&paths.state)?;
                revision::check(&base, &hash, &paths)?;
            }
            print("ok\n")
        }
        Command::Render { file } => {
            let (_, settings, _) = read(&file)?;
            print(&rendered(&settings))
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn run(config: &Path, pace: u32, paths: Paths) -> Result<()> {
    sink::install()?;
    let result = serve(config, pace, &paths);
    sink::flush();
    result
}

/// Starts over whenever there are newer settings.
fn serve(config: &Path, pace: u32, paths: &Paths) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    loop {
        let (base, settings, hash) = read(config).map_err(|error| refuse(&error, paths))?;
        let source = Source::new(base, settings, hash, paths);
        let ended = daemon::run(source, Clock::system(pace), paths.clone());
        if runtime.block_on(ended)? == Ended::Stopped {
            return Ok(());
        }
    }
}

/// Each problem is a record of its own, so that the journal shows them one a line.
fn refuse(error: &anyhow::Error, paths: &Paths) -> anyhow::Error {
    if let Err(error) = tell_console(error, paths) {
        sink::write(&Entry::CallFailed {
            call: "speak on the console",
            error: format!("{error:#}"),
        });
    }
    for problem in format!("{error:#}").lines() {
        sink::write(&Entry::SettingsRefused {
            problem: problem.to_owned(),
        });
    }
    anyhow::anyhow!("settings refused; ecs.service is held back:\n{error:#}")
}

/// The console is all that can be read of a node that never joins. Once per boot: systemd starts the
/// agent again and again.
fn tell_console(error: &anyhow::Error, paths: &Paths) -> Result<()> {
    if paths.refused.exists() {
        return Ok(());
    }
    for problem in format!("{error:#}").lines() {
        say(&paths.console, &format!("settings refused: {problem}"))?;
    }
    let name = || format!("create {}", paths.refused.display());
    if let Some(directory) = paths.refused.parent() {
        fs::create_dir_all(directory).with_context(name)?;
    }
    fs::write(&paths.refused, "").with_context(name)
}

fn show_status(paths: &Paths, json: bool) -> Result<()> {
    let status = status::ask(&paths.socket, &Request::Status)?;
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&status)?));
    }
    print(&status::render(&status, Clock::system(1).wall()))
}

/// Reads only files, so that it works while everything else is down.
fn show_config(paths: &Paths, json: bool) -> Result<()> {
    let (base, settings, hash) = read(&paths.at(names::AGENT_TOML))?;
    let settings = Source::new(base, settings, hash, paths).settings;
    let found = apply::all(&settings, paths)?;
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&found)?));
    }
    print(&effective::table(
        &found,
        &apply::hazards(&settings, paths)?,
    ))
}

/// The file as it stands, what it comes to, and a short hash of its text.
fn read(file: &Path) -> Result<(Config, Settings, String)> {
    let name = file.display();
    let source = fs::read_to_string(file).with_context(|| {
        format!("read {name}: the launch template's user data writes it (fleet-bootstrap up)")
    })?;
    let (config, settings) = Config::read(&name.to_string(), &source)?;
    Ok((config, settings, short_hash(&source)))
}

fn rendered(settings: &Settings) -> String {
    // Only an instance knows its own.
    let layers = layers(settings, Some("ARN-OF-THE-INSTANCE"));
    let none = std::collections::BTreeSet::new();
    format!(
        "# /var/lib/ecs/ecs.config: an operator's line in /etc/ecs/ecs.config overrides these\n{}\n\
         # /etc/ecs/ecs.config: set here, beside operators' own lines\n{}",
        merge("", &layers.defaults, &none),
        merge("", &layers.managed, &none)
    )
}

fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `fleet-agent render | head` is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to stdout"),
    }
}

fn complain(text: &(impl Display + ?Sized)) {
    // Nobody is left to tell.
    let _ = writeln!(io::stderr().lock(), "fleet-agent: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_each_command_is_for() {
        command().debug_assert();
        insta::assert_snapshot!(command().render_long_help());
    }
}
