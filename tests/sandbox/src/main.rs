//! `fleet-sandbox`: an AWS on one machine. One program for three places: the command line, the
//! daemon behind a sandbox, and the ECS agent inside its nodes.

#![allow(
    clippy::disallowed_methods,
    reason = "log lines carry the time; the daemon is told by its environment whose it is"
)]

mod cli;
mod daemon;
mod docker;
mod ecs_agent;
mod image;
mod imds;
mod paths;
mod processes;
mod room;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if let Err(error) = log::set_logger(&Stderr) {
        // Only a second logger is refused, and there is none.
        return fail(&error.into());
    }
    log::set_max_level(log::LevelFilter::Info);
    match cli::run(cli::Cli::parse()).await {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "fleet-sandbox: {error:#}");
    ExitCode::FAILURE
}

/// Lines on standard error: the daemon's log file, or the node's journal.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("fleet_sandbox")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = jiff::Timestamp::now();
            let _ = writeln!(
                io::stderr(),
                "{now:.3} {:5} {}",
                record.level(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}
