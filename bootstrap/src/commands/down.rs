//! `down`.
use crate::{cli::DownArgs, exit::Exit, output::Output};

/// Runs the command.
#[allow(
    clippy::unused_async,
    reason = "the other half of the program, merged later, awaits"
)]
pub async fn run(args: &DownArgs, _: &Output) -> anyhow::Result<Exit> {
    anyhow::bail!("down of {} is not part of this build", args.environment)
}
