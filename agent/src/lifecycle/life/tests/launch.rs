//! How a launch is answered, or given up.

use super::*;
use crate::clients::ecs::Registration;

#[tokio::test(start_paused = true)]
async fn a_warm_pool_holds_the_node_for_hours_and_the_launch_begins_after_it() {
    let node = Node::launching();
    node.change(|world| world.target = Target::Warmed("Warmed:Running".into()));
    with(&node, async |agent| {
        agent.pass(3_600).await;
        assert_eq!(agent.phase(), Phase::Gated);
        assert!(!node.world().released);
        assert_eq!(
            agent.life.machine.view().waiting,
            "Auto Scaling: target lifecycle state is Warmed:Running"
        );
        node.change(|world| {
            world.target = Target::InService;
            world.launch = Held::Open;
        });
        agent.until(10, in_service).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ecs_is_held_back_until_the_sidecars_that_tasks_need_are_proven() {
    let node = Node::launching();
    node.fault("docker-create", Fault::Fails);
    with(&node, async |agent| {
        agent.pass(60).await;
        assert_eq!(node.count("start-ecs"), 0);
        assert!(!node.world().released);
        let waiting = agent.life.machine.view().waiting;
        assert!(waiting.contains("node-logs is missing"), "{waiting}");
        assert!(waiting.contains("told to fail"), "{waiting}");
        node.heal("docker-create");
        agent.until(60, in_service).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_is_not_proven_in_time_is_abandoned_once_with_its_reason() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    with(&node, async |agent| {
        agent
            .until(600, |world, _| {
                world.launch == Held::Answered(Verdict::Abandon)
            })
            .await;
        assert!(agent.seconds() >= 560, "{} s", agent.seconds());
        agent.pass(60).await;
        assert_eq!(node.count("launch-complete"), 1);
        let console = node.world().console.clone();
        assert_eq!(
            console,
            ["abandoning launch: after 570 s still waiting for the ECS agent to register"]
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_told_apart_registers_with_its_arn_and_says_what_may_be_why_it_cannot() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    LocalSet::new()
        .run_until(async {
            let mut agent = Agent::start_with(&node, |settings| settings.node.instance_tag = true);
            agent
                .until(600, |world, _| {
                    world.launch == Held::Answered(Verdict::Abandon)
                })
                .await;
        })
        .await;
    let world = node.world();
    let written = world.ecs_config.as_ref().expect("ecs.config");
    let tags = &written.managed["ECS_CONTAINER_INSTANCE_TAGS"];
    assert!(
        tags.starts_with(r#"{"fleet:instance":"arn:aws:ec2:"#),
        "{tags}"
    );
    let said = world.console.last().expect("a last word");
    assert!(
        said.ends_with(
            "register; [iam] scope = \"instance\" may be why, \"cluster\" is the way back"
        ),
        "{said}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_ready_asks_ecs_later_and_later() {
    let node = Node::launching();
    node.change(|world| {
        world.registration = Some(Registration {
            status: "REGISTERING".to_owned(),
            connected: false,
        });
    });
    with(&node, async |agent| {
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Launching);
        assert!(node.count("describe") <= 20, "{}", node.count("describe"));
        node.change(|world| {
            world.registration = Some(Registration {
                status: "ACTIVE".to_owned(),
                connected: true,
            });
        });
        agent.until(40, in_service).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_auto_scaling_cannot_be_asked_about_is_neither_over_nor_abandoned() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    node.fault("launch-heartbeat", Fault::Fails);
    with(&node, async |agent| {
        agent.pass(800).await;
        assert_eq!(agent.phase(), Phase::Launching);
        let console = node.world().console.clone();
        assert_eq!(console.len(), 1, "{console:?}");
        assert!(
            console[0].contains("launch overdue: after 570 s"),
            "{console:?}"
        );
        node.heal("launch-heartbeat");
        agent
            .until(40, |world, _| {
                world.launch == Held::Answered(Verdict::Abandon)
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_while_abandoning_still_abandons() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    with(&node, async |agent| {
        node.fault("launch-complete", Fault::Fails);
        agent
            .until(600, |_, phase| phase == Phase::Abandoning)
            .await;
        node.fault("launch-heartbeat", Fault::Fails);
        node.heal("launch-complete");
        let mut agent = Agent::start(&node);
        agent
            .until(30, |world, _| {
                world.launch == Held::Answered(Verdict::Abandon)
            })
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_registered_is_drained_and_stopped_before_its_launch_is_abandoned() {
    let node = Node::launching();
    node.fault("put-attributes", Fault::Fails);
    with(&node, async |agent| {
        agent.pass(10).await;
        node.change(|world| world.tasks = ["early".to_owned()].into());
        agent
            .until(600, |world, _| {
                world.launch == Held::Answered(Verdict::Abandon)
            })
            .await;
        assert!(node.world().tasks.is_empty());
        assert_eq!(node.count("set-draining"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_restarted_in_service_answers_and_abandons_nothing() {
    for state_is_lost in [false, true] {
        let node = Node::launching();
        with(&node, async |agent| {
            agent.until(10, in_service).await;
            if state_is_lost {
                node.change(|world| world.saved = None);
            }
            node.change(|world| world.calls.clear());
            let mut agent = Agent::start(&node);
            agent.until(90, in_service).await;
            agent.pass(1_000).await;
            assert_eq!(agent.phase(), Phase::InService);
            assert_eq!(node.world().launch, Held::Answered(Verdict::Continue));
            assert_eq!(node.count("start-ecs") + node.count("restart-ecs"), 0);
            assert_eq!(node.count("docker-create"), 0, "sidecars are adopted");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_ecs_that_fails_is_still_owed() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.ecs_config = None);
        node.fault("restart-ecs", Fault::Fails);
        let mut agent = Agent::start(&node);
        agent.pass(5).await;
        assert_eq!(agent.phase(), Phase::Starting);
        node.heal("restart-ecs");
        let before = node.count("restart-ecs");
        agent.until(30, in_service).await;
        assert_eq!(node.count("restart-ecs"), before + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_taken_and_not_heard_of_is_not_taken_back() {
    let node = Node::launching();
    node.fault("launch-complete", Fault::Unheard);
    with(&node, async |agent| {
        agent
            .until(60, |world, _| {
                world.launch == Held::Answered(Verdict::Continue)
            })
            .await;
        agent.pass(600).await;
        assert_eq!(agent.phase(), Phase::Launching, "its time is up");
        // Another run knows even less: only Auto Scaling can tell.
        let mut agent = Agent::start(&node);
        agent.until(30, in_service).await;
        assert_eq!(node.count("set-draining"), 0);
    })
    .await;
}
