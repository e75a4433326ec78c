//! Whoever a draining node would ask does not answer: the metadata service, the ECS agent, Docker.

use anyhow::Result;
use fleet_tests::{
    Sandbox, eventually,
    stage::{Stage, await_event},
};

#[test]
fn without_the_metadata_service_a_termination_is_still_noticed_and_nothing_else() {
    let sandbox = Sandbox::up("it-imds").expect("a sandbox");
    let stage = Stage::up(&sandbox, 3, "", "").expect("up");
    stage.other_hook().expect("a second hook");
    stage.play(&[imds_silent, imds_in_trouble, imds_late]);
}

/// Auto Scaling is asked itself then.
fn imds_silent(stage: &Stage<'_>, node: &str) -> Result<()> {
    let journal = stage.sandbox.follow_journal(node)?;
    imds(stage, node, &["down"])?;
    await_event(&journal, "health-changed", 60)?;
    assert_eq!(journal.story()?.count("noticed"), 0);
    stage.terminate(node)?;
    await_event(&journal, "draining", 100)?;
    stage
        .await_left(node, journal, 60)?
        .tells(&["noticed", "draining", "drain-completed"]);
    Ok(())
}

fn imds_in_trouble(stage: &Stage<'_>, node: &str) -> Result<()> {
    let journal = stage.sandbox.follow_journal(node)?;
    // It forgets its tokens, which is cured by asking for another.
    imds(stage, node, &["status", "401"])?;
    imds(stage, node, &["slow", "1500"])?;
    eventually("the agent to read on", 60, || {
        Ok((stage.told(node)?["target"] == "InService").then_some(()))
    })?;
    imds(stage, node, &["status", "503"])?;
    await_event(&journal, "health-changed", 60)?;
    stage.terminate(node)?;
    assert_eq!(journal.story()?.count("noticed"), 0);
    imds(stage, node, &["ok"])?;
    await_event(&journal, "draining", 30)?;
    stage.await_left(node, journal, 60).map(drop)
}

/// What it answers is a second and a half old; an answer that comes after the agent has given up is
/// never taken for one to a later question.
fn imds_late(stage: &Stage<'_>, node: &str) -> Result<()> {
    let journal = stage.sandbox.follow_journal(node)?;
    imds(stage, node, &["late", "1500"])?;
    stage.terminate(node)?;
    await_event(&journal, "noticed", 30)?;
    imds(stage, node, &["late", "4000"])?;
    let story = stage.await_left(node, journal, 60)?;
    story.tells(&["noticed", "draining", "drain-completed"]);
    assert_eq!(story.count("withdrawn"), 0, "{}", story.text());
    Ok(())
}

fn imds(stage: &Stage<'_>, node: &str, fault: &[&str]) -> Result<()> {
    let _ = stage
        .sandbox
        .cli(&[&["imds", node], fault].concat())?
        .exits(0);
    Ok(())
}

#[test]
fn without_the_ecs_agent_or_docker_the_other_decides() {
    let sandbox = Sandbox::up("it-blind").expect("a sandbox");
    let mut stage = Stage::up(&sandbox, 3, "", "").expect("up");
    stage.other_hook().expect("a second hook");
    stage.run_on_each(40).expect("tasks");
    stage.play(&[ecs_agent_gone, docker_hung, docker_dead]);
}

/// Killed, it comes back; stopped by an operator, it stays away, and Docker alone decides.
fn ecs_agent_gone(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    stage.terminate(node)?;
    await_event(&journal, "draining", 30)?;
    let _ = sandbox
        .on(node, "systemctl kill --signal=KILL ecs")?
        .exits(0);
    eventually("the ECS agent to be back", 30, || {
        let told = stage.told(node)?;
        Ok(told["ecs"]
            .as_str()
            .is_some_and(|ecs| ecs.starts_with("connected"))
            .then_some(()))
    })?;
    let _ = sandbox.on(node, "systemctl stop ecs")?.exits(0);
    let ran = sandbox.on(
        node,
        "docker ps --quiet --filter label=com.amazonaws.ecs.task-arn",
    )?;
    assert_eq!(ran.out.lines().count(), 1, "the task runs on: {}", ran.err);
    let story = stage.await_left(node, journal, 120)?;
    story.tells(&["draining", "tasks-gone", "drain-completed"]);
    stage.ran_out(&story);
    Ok(())
}

/// Nothing counts as gone meanwhile, and the agent itself does not hang.
fn docker_hung(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    stage.terminate(node)?;
    await_event(&journal, "draining", 30)?;
    let _ = sandbox
        .on(node, "systemctl kill --kill-who=main --signal=STOP docker")?
        .exits(0);
    await_event(&journal, "health-changed", 150)?;
    let story = journal.story()?;
    assert_eq!(story.count("tasks-gone"), 0, "{}", story.text());
    assert_eq!(stage.told(node)?["phase"], "draining");
    let _ = sandbox
        .on(node, "systemctl kill --kill-who=main --signal=CONT docker")?
        .exits(0);
    let story = stage.await_left(node, journal, 120)?;
    story.tells(&["draining", "tasks-gone", "drain-completed"]);
    assert_eq!(story.count("started"), 1, "{}", story.text());
    stage.ran_out(&story);
    Ok(())
}

/// Its containers die with it, but nothing counts as gone while nobody can tell.
fn docker_dead(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let journal = sandbox.follow_journal(node)?;
    stage.terminate(node)?;
    await_event(&journal, "draining", 30)?;
    let _ = sandbox
        .on(node, "systemctl stop docker.socket docker.service")?
        .exits(0);
    await_event(&journal, "health-changed", 60)?;
    let story = journal.story()?;
    assert_eq!(story.count("tasks-gone"), 0, "{}", story.text());
    let _ = sandbox.on(node, "systemctl start docker")?.exits(0);
    let story = stage.await_left(node, journal, 60)?;
    story.tells(&["draining", "tasks-gone", "drain-completed"]);
    assert_eq!(story.count("started"), 1, "{}", story.text());
    Ok(())
}
