//! `up`: brings an environment to what the file says, and waits until its nodes are ready.

use anyhow::{Result, anyhow, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    cli::UpArgs,
    execute::Stop,
    exit::Exit,
    nodes::Nodes,
    output::{Output, green},
    plan::{Goal, Plan},
    plan_file::PlanFile,
    progress::Progress,
    session::{Session, interruptible},
};

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, what stands in the way, the step or the node that failed.
pub async fn run(args: &UpArgs, out: &Output) -> Result<Exit> {
    let shown = args.plan.as_deref().map(PlanFile::read).transpose()?;
    let mut session = Session::open(&args.common.file, &args.environment, out).await?;
    if args.ami.is_some() || shown.as_ref().is_some_and(|shown| shown.newest_images) {
        session.take_newest_images();
    }
    // One look at the nodes beside the plan, for where nothing is to do.
    let (plan, nodes) = tokio::try_join!(
        session.plan(Goal::Up),
        session.nodes(&session.desired.groups)
    )?;
    session.show(&plan, out);
    match shown {
        Some(shown) => shown.check(&session, &plan)?,
        None if plan.steps.is_empty() || args.yes => {}
        None => {
            if !out.confirm("Type yes to continue:", "yes")? {
                out.note("nothing was changed");
                return Ok(Exit::Error);
            }
            still(&session, &plan).await?;
        }
    }
    if !(plan.steps.is_empty() && nodes.iter().all(Nodes::is_complete)) {
        interruptible(out, async |stop| bring_up(&session, &plan, out, stop).await).await?;
    }
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

/// People take their time: what is applied is what they were shown.
///
/// # Errors
/// A read that failed, or something that has changed meanwhile.
pub(super) async fn still(session: &Session, shown: &Plan) -> Result<()> {
    let now = session.plan(Goal::Up).await?;
    ensure!(
        now.steps == shown.steps,
        "nothing was changed: AWS holds something else than when the plan was shown; run this again, and look at it"
    );
    Ok(())
}

/// Carries out a plan, and sees that nothing is left of it. Of nodes it waits only for the first of a new
/// group.
///
/// # Errors
/// The step that failed, and how to go on.
pub(super) async fn carry_out(
    session: &Session,
    plan: &Plan,
    out: &Output,
    stop: Stop,
) -> Result<()> {
    let progress = Progress::new(out);
    let watch = session.watch(Some(plan), &progress, stop);
    session.execute(plan, &watch, &progress).await?;
    session.verify(Goal::Up, &watch).await
}

/// Carries out a plan, and waits until every node is ready.
///
/// # Errors
/// The step or the node that failed, and how to go on.
async fn bring_up(session: &Session, plan: &Plan, out: &Output, stop: Stop) -> Result<()> {
    let progress = Progress::new(out);
    let watch = session.watch(Some(plan), &progress, stop);
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
