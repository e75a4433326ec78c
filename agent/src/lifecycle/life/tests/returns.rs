//! What others do to a node that drains or has drained, and what comes back late.

use super::*;
use crate::{clients::imds::Target, lifecycle::event::Order};

fn wish(agent: &mut Agent) {
    agent.life.handle(Event::Order(Order::Drain {
        request: "1".into(),
        reason: "a look".into(),
    }));
}

fn drained(_: &World, phase: Phase) -> bool {
    phase == Phase::Drained
}

fn is(world: &World, status: &str) -> bool {
    let registration = world.registration.as_ref();
    registration.is_some_and(|known| known.status == status)
}

fn set(node: &Node, status: &str) {
    node.change(|world| {
        if let Some(registration) = &mut world.registration {
            registration.status = status.into();
        }
    });
}

fn place(node: &Node, task: &str) {
    node.change(|world| world.tasks = [task.to_owned()].into());
}

#[tokio::test(start_paused = true)]
async fn tasks_on_a_drained_node_that_somebody_set_to_active_leave_as_the_first_did() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        wish(agent);
        agent.until(30, drained).await;
        set(&node, "ACTIVE");
        place(&node, "new");
        agent
            .until(60, |world, phase| {
                phase == Phase::Draining && is(world, "DRAINING")
            })
            .await;
        agent.pass(60).await;
        assert_eq!(node.count("docker-stop"), 0, "it has its whole time");
        node.change(|world| world.tasks.clear());
        agent.until(30, drained).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ecs_that_was_stopped_for_leftovers_runs_again_on_a_node_that_stays() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        place(&node, "deaf");
        wish(agent);
        agent.until(4_000, drained).await;
        agent
            .until(30, |world, _| world.ecs_runs && world.released)
            .await;
        assert!(node.count("stop-ecs") >= 1);
        node.fault("start-ecs", Fault::Fails);
        place(&node, "deaf again");
        agent.until(4_000, |world, _| !world.ecs_runs).await;
        agent.life.handle(Event::Order(Order::Undrain));
        agent.pass(60).await;
        node.heal("start-ecs");
        agent
            .until(60, |world, phase| {
                phase == Phase::InService && world.ecs_runs && is(world, "ACTIVE")
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ecs_that_was_stopped_for_nothing_stays_stopped_on_a_node_that_goes() {
    for left in [false, true] {
        let node = Node::launching();
        with(&node, async |agent| {
            agent.until(10, in_service).await;
            place(&node, "deaf");
            node.change(|world| {
                world.drain = Held::Open;
                terminate(world);
            });
            agent.until(10, |world, _| is(world, "DRAINING")).await;
            node.fault("docker", Fault::Fails);
            agent
                .until(4_000, |_, phase| phase == Phase::Stopping)
                .await;
            if !left {
                node.change(|world| world.tasks.clear());
            }
            node.heal("docker");
            agent.until(120, done).await;
            assert!(node.count("stop-ecs") >= 1);
            assert_eq!(node.world().ecs_runs, left, "reports only what was stopped");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_after_a_restart_while_imds_is_silent() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        place(&node, "a");
        node.change(|world| {
            world.drain = Held::Open;
            terminate(world);
        });
        agent.until(10, |world, _| is(world, "DRAINING")).await;
        node.fault("imds", Fault::Fails);
        let mut agent = Agent::start(&node);
        agent.until(10, |_, phase| phase == Phase::Draining).await;
        node.change(|world| world.tasks.clear());
        agent
            .until(60, |world, _| {
                world.drain == Held::Answered(Verdict::Continue)
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_opens_after_the_deadline_is_answered() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(terminate);
        node.change(|world| world.drain = Held::NotOpen);
        agent.pass(5_000).await;
        assert_eq!(agent.phase(), Phase::Completing);
        node.change(|world| world.drain = Held::Open);
        agent.until(60, done).await;
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ecs_refuses_to_drain_asks_later_and_later() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.refusals = vec!["REGISTRATION_FAILED"; 10_000];
            terminate(world);
        });
        agent.pass(1_000).await;
        let asked = node.count("set-draining");
        assert!((30..=80).contains(&asked), "{asked}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_that_is_wanted_out_of_a_warm_pool_answers_its_launch_first() {
    let node = Node::launching();
    node.change(|world| world.target = Target::Warmed("Warmed:Running".into()));
    with(&node, async |agent| {
        agent.until(60, |world, _| world.launch != Held::Open).await;
        node.change(|world| world.tag = Some("1 a look".into()));
        agent.until(60, drained).await;
        node.change(|world| {
            world.target = Target::InService;
            world.launch = Held::Open;
        });
        agent
            .until(60, |world, _| {
                world.launch == Held::Answered(Verdict::Continue)
            })
            .await;
        agent.until(60, drained).await;
        assert!(is(&node.world(), "DRAINING"));
    })
    .await;
}
