//! How a node that stays impaired is replaced, or not.

use fleet_agent_config::{Replacement, names::attribute};

use super::*;
use crate::lifecycle::event::Order;

fn status(world: &World) -> &str {
    let registration = world.registration.as_ref();
    registration.map_or("none", |known| known.status.as_str())
}

fn intent(world: &World) -> &str {
    let intent = world.attributes.get(attribute::INTENT);
    intent.map_or("none", String::as_str)
}

/// In service, and from then on without Docker.
async fn ill(node: &Node, replacement: Replacement, test: impl AsyncFnOnce(&mut Agent)) {
    LocalSet::new()
        .run_until(async {
            let mut agent = Agent::start_with(node, |settings| {
                settings.health.replacement = replacement;
            });
            agent.until(10, in_service).await;
            node.fault("docker", Fault::Fails);
            test(&mut agent).await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_impaired_wishes_looks_says_so_drains_and_powers_itself_off() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent.pass(290).await;
        assert_eq!(intent(&node.world()), "serve", "it may be over soon");
        assert!(
            node.count("ecs-around") > 0,
            "who is there is known by then"
        );
        agent.until(60, |world, _| intent(world) == "replace").await;
        agent.pass(350).await;
        assert_eq!(
            intent(&node.world()),
            "replace",
            "who goes is to be seen first"
        );
        agent.until(300, |world, _| intent(world) == "leave").await;
        let looks = node.count("ecs-around");
        assert!((5..=12).contains(&looks), "{looks}");
        agent
            .until(90, |world, _| status(world) == "DRAINING")
            .await;
        agent.until(90, |_, phase| phase == Phase::Drained).await;
        agent.pass(10).await;
        assert_eq!(node.count("power-off"), 1);
        let waiting = agent.life.machine.view().waiting;
        assert!(waiting.starts_with("the machine to power off"), "{waiting}");
        // What fleet-drain.service then says.
        agent.life.handle(Event::Order(Order::Shutdown));
        agent.until(90, done).await;
        assert_eq!((node.count("power-off"), node.count("condemn")), (1, 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_auto_scaling_replaces_a_node_it_drains_for_the_terminating_hook() {
    let node = Node::launching();
    ill(&node, Replacement::Asg, async |agent| {
        agent.until(1_200, done).await;
        assert_eq!((node.count("power-off"), node.count("condemn")), (0, 1));
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_left_alone_where_it_is_to_be() {
    let node = Node::launching();
    ill(&node, Replacement::Never, async |agent| {
        agent.pass(1_200).await;
        assert_eq!(intent(&node.world()), "serve");
        assert_eq!(status(&node.world()), "ACTIVE");
        assert_eq!(node.count("ecs-around"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_recovers_stays_whatever_it_was_about() {
    for until in ["replace", "leave"] {
        let node = Node::launching();
        ill(&node, Replacement::Itself, async |agent| {
            node.change(|world| world.tasks = ["slow".to_owned()].into());
            agent.until(1_200, |world, _| intent(world) == until).await;
            node.heal("docker");
            agent.pass(90).await;
            assert_eq!(intent(&node.world()), "serve", "{until}");
            assert_eq!(status(&node.world()), "ACTIVE", "{until}");
            agent.pass(600).await;
            assert_eq!(node.count("power-off"), 0, "{until}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_keeps_is_not_powered_off() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent.life.handle(Event::Order(Order::Drain {
            request: "1".into(),
            reason: "a look".into(),
        }));
        agent.pass(3_600).await;
        assert_eq!(agent.phase(), Phase::Drained);
        assert_eq!(node.count("power-off"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_for_others_and_says_for_whom() {
    let node = Node::launching();
    node.change(|world| world.others.members = ["a", "b", "c"].map(str::to_owned).into());
    ill(&node, Replacement::Itself, async |agent| {
        node.change(|world| world.others.draining = ["a".to_owned()].into());
        agent.pass(1_800).await;
        let waiting = agent.life.machine.view().waiting;
        let wanted = "its turn to be replaced: 1 of the group's nodes leave or are missing and 0 \
                      come first, at most 1 at once";
        assert!(waiting.starts_with(wanted), "{waiting}");
        let looks = node.count("ecs-around");
        assert!((10..=28).contains(&looks), "{looks} looks in half an hour");
        node.change(|world| world.others.draining.clear());
        agent.until(130, |world, _| intent(world) == "leave").await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_cannot_be_told_in_time_is_none() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent
            .until(600, |world, _| intent(world) == "replace")
            .await;
        node.fault("put-attributes", Fault::Fails);
        agent.pass(900).await;
        let turns = |world: &World| intent(world) == "replace";
        assert!(turns(&node.world()), "it could not say that it goes");
        assert_eq!(status(&node.world()), "ACTIVE");
        node.heal("put-attributes");
        let looks = node.count("ecs-around");
        agent.until(300, |world, _| intent(world) == "leave").await;
        assert!(node.count("ecs-around") > looks, "it has looked again");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_on_the_way_out_is_the_same_turn() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent
            .until(1_200, |world, _| status(world) == "DRAINING")
            .await;
        let looks = node.count("ecs-around");
        let mut agent = Agent::start(&node);
        agent
            .until(200, |world, _| world.calls.contains(&"power-off"))
            .await;
        assert_eq!(node.count("ecs-around"), looks);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reboot_on_the_way_out_has_cured_it_or_begins_anew() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent
            .until(1_200, |world, _| status(world) == "DRAINING")
            .await;
        node.heal("docker");
        node.reboot();
        // An ECS agent that takes its time is no illness.
        node.fault("introspection", Fault::Fails);
        let mut agent = Agent::start(&node);
        agent.pass(100).await;
        node.heal("introspection");
        agent
            .until(90, |world, phase| {
                phase == Phase::InService && status(world) == "ACTIVE"
            })
            .await;
        assert_eq!(node.count("power-off"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_docker_does_not_come_back_from_a_reboot_is_replaced() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |_| {
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.pass(200).await;
        assert_eq!(agent.phase(), Phase::Starting);
        assert_eq!(node.world().attributes[attribute::HEALTH], "impaired");
        agent
            .until(1_200, |world, _| status(world) == "DRAINING")
            .await;
        agent
            .until(200, |world, _| world.calls.contains(&"power-off"))
            .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_held_back_with_a_docker_that_works_is_not_ill() {
    let node = Node::launching();
    ill(&node, Replacement::Itself, async |agent| {
        agent
            .until(1_200, |world, _| intent(world) == "replace")
            .await;
        node.reboot();
        let mut agent = Agent::start(&node);
        let held = Report {
            guarded: false,
            ..Report::well()
        };
        agent.life.handle(Event::Node(held));
        agent.pass(100).await;
        assert_eq!(node.world().attributes[attribute::HEALTH], "impaired");
        node.heal("docker");
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::Gated);
        assert_eq!(intent(&node.world()), "serve", "the wish is taken back");
        agent.pass(1_800).await;
        assert_eq!(status(&node.world()), "ACTIVE");
        assert_eq!(node.count("power-off"), 0);
    })
    .await;
}
