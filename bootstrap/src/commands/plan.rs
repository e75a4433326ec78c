//! `plan`: what `up` would do, and nothing done. `--full`: what it is made from.

use anyhow::Result;
use serde_json::json;

use crate::{
    cli::PlanArgs, exit::Exit, output::Output, plan::Goal, plan_file::PlanFile, session::Session,
    spec::FleetFile,
};

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, a read that failed, or what stands in the way of `up`.
pub async fn run(args: &PlanArgs, out: &Output) -> Result<Exit> {
    if args.full {
        return full(args, out);
    }
    let mut session = Session::open(&args.common.file, &args.environment, out).await?;
    if args.ami.is_some() {
        session.take_newest_images();
    }
    let plan = session.plan(Goal::Up).await?;
    session.show(&plan, out);
    if let Some(path) = &args.out {
        PlanFile::write(path, &session, &plan)?;
        out.line(format!(
            "Written to {path}: `fleet-bootstrap up {} --plan {path}` applies it as long as nothing else changes.",
            args.environment,
            path = path.display()
        ));
    }
    out.json(&json!({ "state": session.header(), "plan": plan }));
    Ok(if plan.steps.is_empty() {
        Exit::Done
    } else {
        Exit::Changes
    })
}

fn full(args: &PlanArgs, out: &Output) -> Result<Exit> {
    let full = FleetFile::open(&args.common.file)?.full(&args.environment)?;
    out.line(full.text.trim_end());
    out.json(&json!({ "environment": args.environment, "content": full.content }));
    Ok(Exit::Done)
}
