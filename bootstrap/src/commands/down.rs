//! `down`: removes everything an environment owns, in one run.

use anyhow::Result;
use serde_json::json;

use crate::{
    cli::DownArgs,
    execute::Stop,
    exit::Exit,
    output::{Output, green},
    plan::{Goal, Mark, Plan},
    progress::Progress,
    session::{Session, interruptible},
};

/// Runs the command.
///
/// # Errors
/// Everything wrong with the file, a read or a step that failed, or something left in the end.
pub async fn run(args: &DownArgs, out: &Output) -> Result<Exit> {
    let session = Session::open(&args.common.file, &args.environment, out).await?;
    let plan = session.plan(Goal::Down).await?;
    session.show(&plan, out);
    let owner = session.desired.identity.owner.clone();
    if plan.steps.is_empty() {
        out.line(format!("Nothing to do: nothing owned by {owner} is there."));
    } else {
        let question = question(&plan);
        if !args.yes && !out.confirm(question, &args.environment)? {
            out.note("nothing was changed");
            return Ok(Exit::Error);
        }
        interruptible(out, async |stop| {
            take_down(&session, &plan, out, stop).await
        })
        .await?;
        out.line(green(format!(
            "Deleted {}. Verified by reading again: nothing owned by {owner} remains.",
            plan.count(Mark::Delete)
        )));
    }
    out.json(&json!({
        "state": session.header(),
        "deleted": plan.count(Mark::Delete),
    }));
    Ok(Exit::Done)
}

/// What is somebody else's and feels it is said once more.
fn question(plan: &Plan) -> String {
    let count = plan.count(Mark::Delete);
    let tenants = plan.tenants().map_or_else(String::new, |tasks| {
        format!("Tasks on its nodes, which may find no others: {tasks}. ")
    });
    format!("{tenants}Type the environment's name to delete {count} resources:")
}

async fn take_down(session: &Session, plan: &Plan, out: &Output, stop: Stop) -> Result<()> {
    let progress = Progress::new(out);
    let watch = session.watch(Some(plan), &progress, stop);
    session.execute(plan, &watch, &progress).await?;
    session.verify(Goal::Down, &watch).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Effect, Line};

    #[test]
    fn whose_tasks_would_go_is_asked_about() {
        let mut plan = Plan::empty(Goal::Down);
        let delete = "Type the environment's name to delete 0 resources:";
        assert_eq!(question(&plan), delete);
        plan.lines.push(Line {
            mark: Mark::Adopted,
            kind: "tasks",
            name: "main".into(),
            details: vec!["3 of api".into(), "leave with the nodes".into()],
            effect: Effect::None,
        });
        assert_eq!(
            question(&plan),
            format!("Tasks on its nodes, which may find no others: 3 of api. {delete}")
        );
    }
}
