//! Every cause to leave: what brings it, what withdraws it, which of several rules.

use fleet_agent_config::{DrainConfig, Reaction, StandaloneConfig, StandalonePolicy};
use jiff::SignedDuration;

use super::*;
use crate::{
    clients::imds::{Maintenance, Spot, SpotAction, SpotNotice},
    lifecycle::{cause::Kind, event::Order},
};

fn wish(agent: &mut Agent) {
    agent.life.handle(Event::Order(Order::Drain {
        request: "1".into(),
        reason: "a look".into(),
    }));
}

fn drained(_: &World, phase: Phase) -> bool {
    phase == Phase::Drained
}

fn status(world: &World) -> &str {
    let registration = world.registration.as_ref();
    registration.map_or("none", |known| known.status.as_str())
}

fn active(world: &World, phase: Phase) -> bool {
    phase == Phase::InService && status(world) == "ACTIVE"
}

fn with_tasks(node: &Node, tasks: &[&str]) {
    node.change(|world| world.tasks = tasks.iter().map(|task| (*task).to_owned()).collect());
}

fn spot(node: &Node, action: SpotAction, seconds: i64) {
    let time = node.clock.wall() + SignedDuration::from_secs(seconds);
    node.change(|world| {
        world.spot = Spot {
            notice: Some(SpotNotice { action, time }),
            ..Spot::default()
        };
    });
}

fn policy(config: DrainConfig) -> fleet_agent_config::Drain {
    let mut problems = Vec::new();
    let drain = config.validate(300, &mut problems);
    assert_eq!(problems, []);
    drain
}

#[tokio::test(start_paused = true)]
async fn an_operator_drains_a_node_and_puts_it_back() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["a"]);
        wish(agent);
        agent.until(5, |world, _| status(world) == "DRAINING").await;
        assert_eq!(agent.phase(), Phase::Draining);
        with_tasks(&node, &[]);
        agent.until(10, drained).await;
        assert_eq!(node.world().attributes["fleet.intent"], "drain");
        agent.pass(7_200).await;
        assert_eq!(agent.phase(), Phase::Drained, "for as long as it takes");
        assert!(node.world().sidecars.iter().all(|c| c.running));
        assert_eq!(
            node.count("drain-heartbeat"),
            0,
            "nobody waits for an answer"
        );

        agent.life.handle(Event::Order(Order::Undrain));
        agent.until(5, active).await;
        agent.pass(5).await;
        assert_eq!(node.count("set-active"), 1);
        assert_eq!(node.world().attributes["fleet.intent"], "serve");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_drained_is_never_set_active() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            let registration = world.registration.as_mut().expect("registered");
            registration.status = "DRAINING".to_owned();
        });
        wish(agent);
        agent.until(10, drained).await;
        agent.life.handle(Event::Order(Order::Undrain));
        agent.until(10, in_service).await;
        agent.pass(120).await;
        assert_eq!(node.count("set-active"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_remembers_whose_drain_it_is() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        wish(agent);
        agent.until(10, drained).await;
        let mut agent = Agent::start(&node);
        agent.until(10, drained).await;
        agent.life.handle(Event::Order(Order::Undrain));
        // Killed before it could set ACTIVE.
        let mut agent = Agent::start(&node);
        agent.until(10, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_drains_and_its_removal_undoes_it() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.tag = Some("a1 by anna".into()));
        agent.until(20, drained).await;
        node.change(|world| world.tag = None);
        agent.until(15, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cause_withdrawn_changes_nothing_while_another_stands() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.tag = Some("a1".into()));
        wish(agent);
        agent.until(20, drained).await;
        agent.pass(15).await;
        agent.life.handle(Event::Order(Order::Undrain));
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::Drained);
        assert_eq!(node.count("set-active"), 0);
        node.change(terminate);
        node.change(|world| world.tag = None);
        agent.until(60, done).await;
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
        assert_eq!(node.count("set-active"), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_was_held_for_long_takes_no_time_from_the_next() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        wish(agent);
        agent.until(10, drained).await;
        agent.pass(7_200).await;
        // Somebody has set it ACTIVE by hand, and tasks came.
        with_tasks(&node, &["a"]);
        node.change(terminate);
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Draining);
        let leaving = agent.life.machine.view().leaving.expect("leaves");
        let left = leaving
            .bounds
            .expect("bounded")
            .end
            .since(agent.life.context.clock.now());
        assert!(left.as_secs() > 1_400, "{left:?}");
        assert_eq!(node.count("set-draining"), 2, "whoever has set it ACTIVE");
        with_tasks(&node, &[]);
        agent.until(10, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_wish_gives_no_more_time() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["a"]);
        wish(agent);
        agent.pass(600).await;
        agent.life.handle(Event::Order(Order::Drain {
            request: "2".into(),
            reason: "another".into(),
        }));
        let leaving = agent.life.machine.view().leaving.expect("leaves");
        assert_eq!(leaving.causes.len(), 1);
        let left = leaving
            .bounds
            .expect("bounded")
            .end
            .since(agent.life.context.clock.now());
        assert!(left.as_secs() <= 1_200, "{left:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_leaves_time_for_sidecars_and_to_spare() {
    let node = Node::launching();
    node.change(|world| world.is_spot = true);
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["stubborn"]);
        spot(&node, SpotAction::Terminate, 120);
        let noticed = agent.seconds();
        agent.until(120, done).await;
        let took = agent.seconds() - noticed;
        assert!(took <= 110, "{took} s");
        let world = node.world();
        assert_eq!(
            world.stopped,
            ["stubborn", "metrics", "node-logs"],
            "tasks first, then sidecars in reverse order"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ecs_that_knows_of_more_tasks_is_believed_also_in_an_interruption() {
    let node = Node::launching();
    node.change(|world| world.is_spot = true);
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.late_tasks = 1);
        spot(&node, SpotAction::Terminate, 120);
        agent.pass(30).await;
        assert_eq!(agent.phase(), Phase::Draining);
        node.change(|world| world.late_tasks = 0);
        agent.until(35, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_shortens_a_running_drain_and_does_not_restart_it() {
    let node = Node::launching();
    node.change(|world| world.is_spot = true);
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["stubborn"]);
        node.change(terminate);
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Draining);
        spot(&node, SpotAction::Terminate, 120);
        agent.until(115, done).await;
        assert_eq!(node.count("set-draining"), 1);
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_spot_instance_that_was_only_stopped_serves_again() {
    let node = Node::launching();
    node.change(|world| world.is_spot = true);
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        spot(&node, SpotAction::Stop, 120);
        agent.until(115, done).await;
        assert!(node.world().sidecars.iter().all(|c| !c.running));
        node.change(|world| world.spot = Spot::default());
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.until(30, active).await;
        assert!(node.world().sidecars.iter().all(|c| c.running));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hibernated_spot_instance_comes_back_in_the_same_boot() {
    let node = Node::launching();
    node.change(|world| world.is_spot = true);
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        spot(&node, SpotAction::Hibernate, 120);
        agent.until(115, done).await;
        node.change(|world| world.spot = Spot::default());
        agent.pass(30).await;
        assert_eq!(agent.phase(), Phase::Done, "a notice is not taken back");
        agent.until(300, active).await;
        assert!(node.world().sidecars.iter().all(|c| c.running));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_on_demand_instance_is_not_asked_about_spot() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        spot(&node, SpotAction::Terminate, 120);
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::InService);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_recommendation_counts_only_if_asked_for() {
    for (reaction, phase) in [
        (Reaction::Ignore, Phase::InService),
        (Reaction::Drain, Phase::Drained),
    ] {
        let node = Node::launching();
        node.change(|world| world.is_spot = true);
        let config = DrainConfig {
            rebalance: Some(reaction),
            ..DrainConfig::default()
        };
        with_policy(&node, policy(config), async |agent| {
            agent.until(10, in_service).await;
            node.change(|world| world.spot.rebalance = Some("t".into()));
            agent.pass(60).await;
            assert_eq!(agent.phase(), phase);
        })
        .await;
    }
}

fn reboot_in(node: &Node, seconds: i64) -> Maintenance {
    let starts = node.clock.wall() + SignedDuration::from_secs(seconds);
    Maintenance {
        id: "instance-event-1".into(),
        code: "system-reboot".into(),
        starts,
        ends: Some(starts + SignedDuration::from_secs(600)),
    }
}

#[tokio::test(start_paused = true)]
async fn maintenance_drains_shortly_before_it_starts_and_is_undone_when_it_is_over() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        let event = reboot_in(&node, 3_600);
        node.change(|world| world.maintenance = vec![event]);
        agent.pass(2_500).await;
        assert_eq!(agent.phase(), Phase::InService, "far off yet");
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Drained);
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.pass(600).await;
        assert_eq!(agent.phase(), Phase::Drained, "not over yet");
        assert!(node.world().ecs_runs, "connected all the same");
        agent.until(1_000, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn maintenance_that_is_called_off_puts_the_node_back() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        let event = reboot_in(&node, 600);
        node.change(|world| world.maintenance = vec![event]);
        agent.until(90, drained).await;
        node.change(|world| world.maintenance = Vec::new());
        agent.until(70, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stays_impaired_drains_if_it_is_to_and_recovers() {
    let node = Node::launching();
    let config = DrainConfig {
        impaired: Some(Reaction::Drain),
        ..DrainConfig::default()
    };
    with_policy(&node, policy(config), async |agent| {
        agent.until(10, in_service).await;
        node.fault("docker", Fault::Fails);
        agent.pass(200).await;
        assert_eq!(agent.phase(), Phase::InService, "it may be over soon");
        agent
            .until(200, |world, _| status(world) == "DRAINING")
            .await;
        node.heal("docker");
        agent.until(90, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_within_its_time_and_the_next_boot_serves() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["stubborn"]);
        let before = agent.seconds();
        agent.life.handle(Event::Order(Order::Shutdown));
        agent.until(110, done).await;
        assert!(agent.seconds() - before <= 105);
        assert!(node.world().sidecars.iter().all(|c| !c.running));
        assert_eq!(node.count("drain-complete"), 0, "Auto Scaling does not ask");
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.until(30, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_told_to_stop_does_not_drain() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        // What SIGTERM comes to: the loop ends, and another agent takes over.
        let mut agent = Agent::start(&node);
        agent.pass(60).await;
        assert_eq!(node.count("set-draining"), 0);
        assert_eq!(agent.phase(), Phase::InService);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn standalone_tasks_go_when_their_family_says() {
    let rule = |policy, after_seconds| StandaloneConfig {
        policy: Some(policy),
        after_seconds,
    };
    for (rule, waits) in [
        (rule(StandalonePolicy::Stop, None), 0),
        (rule(StandalonePolicy::Stop, Some(300)), 300),
    ] {
        let node = Node::launching();
        let config = DrainConfig {
            standalone: [("batch".to_owned(), rule)].into(),
            ..DrainConfig::default()
        };
        with_policy(&node, policy(config), async |agent| {
            agent.until(10, in_service).await;
            with_tasks(&node, &["one", "two"]);
            node.change(|world| {
                world.standalone = ["one".to_owned()].into();
                terminate(world);
            });
            let before = agent.seconds();
            agent
                .until(waits + 20, |world, _| !world.tasks.contains("one"))
                .await;
            assert!(agent.seconds() - before >= waits);
            assert!(node.world().tasks.contains("two"), "a service's is ECS's");
            with_tasks(&node, &[]);
            agent.until(20, done).await;
            let calls = ["set-draining", "ecs-groups", "ecs-tasks", "put-attributes"];
            let calls = calls.map(|call| node.count(call));
            // The launch's, and those of a node that is still there after a minute.
            let told = 1 + usize::from(waits > 60);
            assert_eq!(calls, [1, 1, 1, told]);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_that_do_not_leave_are_named_and_stopped_at_the_deadline() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["a", "b"]);
        node.change(|world| {
            world.standalone = ["b".to_owned()].into();
            terminate(world);
        });
        agent.pass(110).await;
        let waiting = |agent: &Agent| agent.life.machine.view().waiting;
        assert_eq!(waiting(agent), "2 tasks to leave");
        agent.pass(30).await;
        assert_eq!(
            waiting(agent),
            "tasks that do not leave: 1 of service web that ECS does not move (its minimum \
             healthy percent, or no room elsewhere); 1 standalone, of batch"
        );
        agent.until(1_800, done).await;
        assert!(node.world().tasks.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_warm_node_answers_its_hook_stays_out_of_ecs_and_joins_at_once_when_wanted() {
    let node = Node::launching();
    node.change(|world| world.target = Target::Warmed("Warmed:Stopped".into()));
    with(&node, async |agent| {
        agent
            .until(10, |world, _| {
                world.launch == Held::Answered(Verdict::Continue)
            })
            .await;
        assert_eq!(node.count("clear-checkpoint"), 1);
        // Stopped, and started for its real launch.
        node.reboot();
        node.change(|world| {
            world.target = Target::InService;
            world.launch = Held::Open;
        });
        let mut agent = Agent::start(&node);
        let before = agent.seconds();
        agent.until(5, |world, _| world.ecs_runs).await;
        agent.until(10, in_service).await;
        assert!(agent.seconds() - before <= 10);
        assert_eq!(node.world().launch, Held::Answered(Verdict::Continue));
        assert_eq!(node.count("launch-complete"), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn standby_and_detached_nodes_serve_on() {
    for state in ["Standby", "Detached"] {
        let node = Node::launching();
        with(&node, async |agent| {
            agent.until(10, in_service).await;
            node.change(|world| world.target = Target::Other(state.into()));
            agent.pass(600).await;
            assert_eq!(agent.phase(), Phase::InService);
            assert_eq!(node.count("set-draining"), 0);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wish_that_comes_before_imds_is_kept() {
    let node = Node::launching();
    node.fault("imds", Fault::Fails);
    with(&node, async |agent| {
        wish(agent);
        agent.pass(30).await;
        assert_eq!(agent.phase(), Phase::Starting);
        node.heal("imds");
        agent.until(30, drained).await;
        let launch = node.world().launch;
        assert_eq!(launch, Held::Answered(Verdict::Continue), "that first");
        let causes = agent.life.machine.view().leaving.expect("leaves").causes;
        assert_eq!(causes[0].kind, Kind::Operator);
        agent.life.handle(Event::Order(Order::Undrain));
        agent.until(10, active).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_drain_outlives_a_reboot_and_can_still_be_undone() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.tag = Some("a1".into()));
        agent.until(20, drained).await;
        agent.life.handle(Event::Order(Order::Shutdown));
        agent.until(110, done).await;
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.until(60, drained).await;
        assert!(node.world().ecs_runs, "connected all the same");
        node.change(|world| world.tag = None);
        agent.until(60, active).await;
        assert!(node.world().sidecars.iter().all(|c| c.running));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_withdraws_no_maintenance_that_has_not_been_read_again() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        let event = reboot_in(&node, 600);
        node.change(|world| world.maintenance = vec![event]);
        agent.until(90, drained).await;
        let mut agent = Agent::start(&node);
        agent.pass(30).await;
        assert_eq!(agent.phase(), Phase::Drained);
        assert_eq!(node.count("set-active"), 0);
        assert_eq!(node.count("set-draining"), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_dead_past_the_deadline_still_stops_tasks_and_then_sidecars() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        with_tasks(&node, &["stubborn"]);
        node.change(terminate);
        agent.pass(60).await;
        tokio::time::advance(Duration::from_secs(1_800)).await;
        let mut agent = Agent::start(&node);
        agent.until(60, done).await;
        assert_eq!(node.world().stopped, ["stubborn", "metrics", "node-logs"]);
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_starts_nothing_of_a_node_that_is_done() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(terminate);
        agent.until(30, done).await;
        let mut agent = Agent::start(&node);
        agent.pass(60).await;
        assert!(node.world().sidecars.iter().all(|c| !c.running));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_detached_node_serves_on_after_a_reboot() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.target = Target::Other("Detached".into()));
        node.reboot();
        let mut agent = Agent::start(&node);
        agent.until(30, active).await;
        assert!(node.world().ecs_runs);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_imds_is_silent_a_drained_node_still_learns_of_its_termination() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        wish(agent);
        agent.until(10, drained).await;
        node.fault("imds", Fault::Fails);
        agent.pass(90).await;
        node.change(|world| world.drain = Held::Open);
        agent.until(150, done).await;
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_kept_is_kept_once_the_disk_has_room() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(60, in_service).await;
        node.fault("save", Fault::Fails);
        wish(agent);
        agent.until(60, drained).await;
        node.heal("save");
        agent.pass(40).await;
        let mut agent = Agent::start(&node);
        agent.until(30, drained).await;
        agent.life.handle(Event::Order(Order::Undrain));
        agent.until(30, active).await;
    })
    .await;
}
