//! `down`: removes everything an environment owns, in one run.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    cli::DownArgs,
    execute::Stop,
    exit::Exit,
    output::{Output, green},
    plan::{Goal, Mark, Plan, TASKS},
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
    let deleted = plan.count(Mark::Delete);
    let owner = session.desired.identity.owner.clone();
    if plan.steps.is_empty() {
        out.line(format!("Nothing to do: nothing owned by {owner} is there."));
    } else {
        let question = question(&plan);
        if !args.yes && !out.confirm(question, &args.environment)? {
            out.note("nothing was changed");
            return Ok(Exit::Error);
        }
        let plan = if args.yes {
            plan
        } else {
            still(&session, &plan).await?
        };
        interruptible(out, async |stop| {
            take_down(&session, &plan, out, stop).await
        })
        .await?;
        out.line(green(format!(
            "Deleted {deleted}. Verified by reading again: nothing owned by {owner} remains."
        )));
    }
    out.json(&json!({ "state": session.header(), "deleted": deleted }));
    Ok(Exit::Done)
}

/// People take their time: the plan of now, if it deletes what they were shown. Tasks come and go.
async fn still(session: &Session, shown: &Plan) -> Result<Plan> {
    let now = session.plan(Goal::Down).await?;
    let deleted = |plan: &Plan| -> Vec<(&str, String)> {
        let lines = plan.lines.iter();
        let deleted = lines.filter(|line| line.mark == Mark::Delete && line.kind != TASKS);
        deleted.map(|line| (line.kind, line.name.clone())).collect()
    };
    ensure!(
        deleted(&now) == deleted(shown),
        "nothing was changed: AWS holds something else than when the plan was shown; run this again, and look at it"
    );
    Ok(now)
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
