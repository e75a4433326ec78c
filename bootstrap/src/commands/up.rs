//! `up`: brings an environment to what the file says, and waits until its nodes are ready.

use anyhow::{Result, anyhow};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    cli::UpArgs,
    execute::Stop,
    exit::Exit,
    output::{Output, green},
    plan::{Goal, Plan},
    progress::Progress,
    session::{Session, interruptible},
};

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, what stands in the way, the step or the node that failed.
pub async fn run(args: &UpArgs, out: &Output) -> Result<Exit> {
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let plan = session.plan(Goal::Up).await?;
    session.show(&plan, out);
    if !plan.steps.is_empty() && !args.yes && !out.confirm("Type yes to continue:", "yes")? {
        out.note("nothing was changed");
        return Ok(Exit::Error);
    }
    interruptible(out, async |stop| bring_up(&session, &plan, out, stop).await).await?;
    out.line(if plan.steps.is_empty() {
        green("Nothing to do: everything is as the file says, and every node that should serve is ready.")
    } else {
        green("Ready.")
    });
    out.json(&json!({
        "state": session.header(),
        "changes": plan.steps.len(),
        "ready": true,
    }));
    Ok(Exit::Done)
}

async fn bring_up(session: &Session, plan: &Plan, out: &Output, stop: Stop) -> Result<()> {
    let progress = Progress::new(out);
    let watch = session.watch(plan, &progress, stop);
    session.execute(plan, &watch, &progress).await?;
    // Also without a step: an earlier run may have been stopped while it waited.
    let groups = watch.groups.keys();
    try_join_all(groups.map(|group| watch.ready(group, None)))
        .await
        .map_err(|error| anyhow!("{error:#}\n{}", session.how_to_go_on(Goal::Up)))?;
    if !plan.steps.is_empty() {
        session.verify(Goal::Up, &watch).await?;
    }
    Ok(())
}
