//! `plan`: what `up` would do, and nothing done.

use anyhow::Result;
use serde_json::json;

use crate::{cli::PlanArgs, exit::Exit, output::Output, plan::Goal, session::Session};

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, a read that failed, or what stands in the way of `up`.
pub async fn run(args: &PlanArgs, out: &Output) -> Result<Exit> {
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let plan = session.plan(Goal::Up).await?;
    session.show(&plan, out);
    out.json(&json!({ "state": session.header(), "plan": plan }));
    Ok(if plan.steps.is_empty() {
        Exit::Done
    } else {
        Exit::Changes
    })
}
