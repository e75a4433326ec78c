//! `up`.
use crate::{cli::UpArgs, exit::Exit, output::Output};

/// Runs the command.
#[allow(
    clippy::unused_async,
    reason = "the other half of the program, merged later, awaits"
)]
pub async fn run(args: &UpArgs, _: &Output) -> anyhow::Result<Exit> {
    anyhow::bail!("up of {} is not part of this build", args.environment)
}
