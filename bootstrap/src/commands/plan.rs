//! `plan`.
use crate::{cli::PlanArgs, exit::Exit, output::Output};

/// Runs the command.
#[allow(
    clippy::unused_async,
    reason = "the other half of the program, merged later, awaits"
)]
pub async fn run(args: &PlanArgs, _: &Output) -> anyhow::Result<Exit> {
    anyhow::bail!("plan of {} is not part of this build", args.environment)
}
