//! `status`.
use crate::{cli::StatusArgs, exit::Exit, output::Output};

/// Runs the command.
#[allow(
    clippy::unused_async,
    reason = "the other half of the program, merged later, awaits"
)]
pub async fn run(args: &StatusArgs, _: &Output) -> anyhow::Result<Exit> {
    anyhow::bail!("status of {} is not part of this build", args.environment)
}
