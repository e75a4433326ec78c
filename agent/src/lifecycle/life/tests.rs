//! A whole agent over a fake node, in virtual time.

mod causes;
mod launch;
mod replacement;
mod returns;

use std::time::Duration;

use fleet_agent_config::Settings;
use tokio::task::LocalSet;

use super::*;
use crate::{
    clients::imds::Target,
    health::watch::Report,
    lifecycle::event::{Phase, Policy},
    moment::Moment,
    testing::{CONTAINER_STOP, Fault, Held, Node, Verdict, World, context, golden_settings},
};

/// An agent over a fake node, in virtual time.
struct Agent {
    life: Life<Node>,
    node: Node,
    began: Moment,
}

impl Agent {
    fn start(node: &Node) -> Self {
        Self::start_with(node, |_| ())
    }

    fn start_with(node: &Node, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = golden_settings();
        change(&mut settings);
        let context = context(node, settings);
        let policy = Policy::new(&context.settings, CONTAINER_STOP, context.seed);
        let began = context.clock.now();
        let machine = Machine::new(policy, began);
        let mut life = Life::new(context, machine);
        life.handle(Event::Tick);
        life.handle(Event::Node(Report::well()));
        Self {
            life,
            node: node.clone(),
            began,
        }
    }

    fn seconds(&self) -> u64 {
        self.life.context.clock.now().since(self.began).as_secs()
    }

    fn phase(&self) -> Phase {
        self.life.machine.view().phase
    }

    /// Lives on until `wanted`; panics with what it waits on if that takes over `limit` seconds.
    async fn until(&mut self, limit: u64, wanted: impl Fn(&World, Phase) -> bool) {
        let start = self.seconds();
        while !wanted(&self.node.world(), self.phase()) {
            let event = self.life.next().await;
            self.life.handle(event);
            assert!(
                self.seconds() <= start + limit,
                "after {limit} s {:?} still waits for {}; calls {:?}",
                self.phase(),
                self.life.machine.view().waiting,
                self.node
                    .world()
                    .calls
                    .iter()
                    .rev()
                    .take(20)
                    .collect::<Vec<_>>()
            );
        }
    }

    async fn pass(&mut self, seconds: u64) {
        let end = self.seconds() + seconds;
        while self.seconds() < end {
            let nap = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                event = self.life.next() => self.life.handle(event),
                () = nap => {}
            }
        }
    }
}

async fn with(node: &Node, test: impl AsyncFnOnce(&mut Agent)) {
    LocalSet::new()
        .run_until(async {
            let mut agent = Agent::start(node);
            test(&mut agent).await;
        })
        .await;
}

/// With another policy of draining.
async fn with_policy(
    node: &Node,
    drain: fleet_agent_config::Drain,
    test: impl AsyncFnOnce(&mut Agent),
) {
    LocalSet::new()
        .run_until(async {
            let mut agent = Agent::start_with(node, |settings| settings.drain = drain);
            test(&mut agent).await;
        })
        .await;
}

fn in_service(_: &World, phase: Phase) -> bool {
    phase == Phase::InService
}

fn done(_: &World, phase: Phase) -> bool {
    phase == Phase::Done
}

fn terminate(world: &mut World) {
    world.target = Target::Terminated;
    world.drain = Held::Open;
}

#[tokio::test(start_paused = true)]
async fn a_node_is_launched_and_drained() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        assert!(agent.seconds() <= 5, "{} s", agent.seconds());
        assert_eq!(node.world().launch, Held::Answered(Verdict::Continue));
        assert!(node.world().released);
        assert_eq!(node.world().attributes["fleet.health"], "ok");
        let running = || node.world().sidecars.iter().filter(|c| c.running).count();
        assert_eq!(running(), 2);

        node.change(|world| {
            world.tasks = ["a".to_owned(), "b".to_owned()].into();
            terminate(world);
        });
        agent
            .until(3, |world, _| {
                world
                    .registration
                    .as_ref()
                    .is_some_and(|r| r.status == "DRAINING")
            })
            .await;
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Draining);
        assert!(node.count("drain-heartbeat") >= 3, "the hook is kept open");
        assert_eq!(node.world().drain, Held::Open);
        assert_eq!(running(), 2, "sidecars outlive tasks");

        node.change(|world| world.tasks.clear());
        agent.until(5, done).await;
        assert_eq!(running(), 0);
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_in_service_calls_no_aws_api_and_runs_no_program() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        agent.pass(20).await;
        node.change(|world| world.calls.clear());
        agent.pass(600).await;
        let idle: std::collections::BTreeSet<_> = node.world().calls.iter().copied().collect();
        assert_eq!(idle, ["docker", "imds", "introspection"].into());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_shut_only_when_ecs_has_stopped() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    with(&node, async |agent| {
        agent.pass(30).await;
        node.fault("stop-ecs", Fault::Fails);
        node.change(terminate);
        agent.pass(20).await;
        assert_eq!(agent.phase(), Phase::Draining);
        node.heal("stop-ecs");
        agent.until(35, done).await;
        assert!(!node.world().ecs_runs);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_drain_goes_on_where_it_was() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.tasks = ["a".to_owned()].into();
            terminate(world);
        });
        agent.pass(600).await;
        let mut agent = Agent::start(&node);
        agent.pass(10).await;
        assert_eq!(agent.phase(), Phase::Draining);
        assert_eq!(node.count("set-draining"), 1, "it is known that we set it");
        let began = agent.life.machine.view().leaving.expect("drains").began;
        assert!(agent.life.context.clock.now().since(began).as_secs() >= 600);
        node.change(|world| world.tasks.clear());
        agent.until(5, done).await;

        let calls = node.count("drain-complete");
        let mut agent = Agent::start(&node);
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::Done);
        assert_eq!(node.count("drain-complete"), calls, "answered once");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_joined_leaves_at_once_with_its_gate_shut() {
    let node = Node::launching();
    node.change(|world| world.registers = false);
    with(&node, async |agent| {
        agent.pass(30).await;
        node.change(|world| {
            world.launch = Held::NotOpen;
            terminate(world);
        });
        agent.until(20, done).await;
        assert!(!node.world().released);
        assert!(!node.world().ecs_runs);
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_is_left_is_stopped_and_the_hook_still_answered() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.tasks = ["stubborn".to_owned()].into();
            terminate(world);
        });
        let start = agent.seconds();
        agent.until(1_800, done).await;
        assert!(
            agent.seconds() - start >= 1_700,
            "{} s",
            agent.seconds() - start
        );
        assert!(node.world().tasks.is_empty());
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_fails_is_tried_again_until_the_sidecars_need_the_time() {
    for heals in [true, false] {
        let node = Node::launching();
        with(&node, async |agent| {
            agent.until(10, in_service).await;
            node.change(|world| {
                world.tasks = ["stubborn".to_owned()].into();
                terminate(world);
            });
            node.fault("docker-stop", Fault::Fails);
            let start = agent.seconds();
            agent
                .until(1_800, |_, phase| phase == Phase::Stopping)
                .await;
            agent.pass(10).await;
            assert_eq!(agent.phase(), Phase::Stopping);
            assert!(node.count("docker-stop") > 1);
            if heals {
                node.heal("docker-stop");
            }
            agent.until(1_800, done).await;
            assert!(agent.seconds() - start <= 1_805);
            assert_eq!(node.world().tasks.is_empty(), heals);
            assert_eq!(node.world().sidecars.iter().any(|c| c.running), !heals);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_draining_was_set_proves_nothing() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.refusals = vec!["REGISTERING"; 5];
            terminate(world);
        });
        agent.until(60, |world, _| world.refusals.is_empty()).await;
        assert_eq!(node.count("ecs-tasks"), 0);
        node.change(|world| world.tasks = ["late".to_owned()].into());
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::Draining);
        node.change(|world| world.tasks.clear());
        agent.until(10, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ecs_has_forgotten_leaves_without_its_word() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.registration = None;
            terminate(world);
        });
        node.fault("ecs-tasks", Fault::Fails);
        agent.until(15, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn imds_names_the_target_before_the_action_opens() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| world.target = Target::Terminated);
        // As long as a load balancer may take to let go of its targets.
        agent.pass(300).await;
        assert_eq!(agent.phase(), Phase::Completing);
        assert!(
            node.count("drain-complete") < 25,
            "asked less and less often"
        );
        node.change(|world| world.drain = Held::Open);
        agent.until(35, done).await;
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ecs_has_the_last_word_on_whether_tasks_are_gone() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.late_tasks = 1;
            world.refusals = vec!["REGISTERING"];
            terminate(world);
        });
        agent.pass(60).await;
        assert_eq!(agent.phase(), Phase::Draining);
        assert_eq!(node.count("set-draining"), 2, "refused once");
        assert_eq!(
            agent.life.machine.view().waiting,
            "ECS to agree: it knows of 1 more"
        );
        assert!(node.count("ecs-tasks") <= 8, "asked less and less often");
        node.change(|world| world.late_tasks = 0);
        agent.until(35, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_the_ecs_agent_dead_docker_decides_and_with_docker_dead_ecs_does() {
    for dead in ["introspection", "docker"] {
        let node = Node::launching();
        with(&node, async |agent| {
            agent.until(10, in_service).await;
            node.change(terminate);
            node.fault(dead, Fault::Fails);
            agent.pass(20).await;
            assert_eq!(agent.phase(), Phase::Draining, "{dead}");
            agent.until(60, done).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_ecs_agent_and_docker_dead_ecs_decides() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.late_tasks = 1;
            terminate(world);
        });
        node.fault("introspection", Fault::Fails);
        node.fault("docker", Fault::Fails);
        agent.pass(120).await;
        assert_eq!(agent.phase(), Phase::Draining);
        node.change(|world| world.late_tasks = 0);
        agent.until(100, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_call_holds_up_nothing_else() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.fault("put-attributes", Fault::Hangs);
        node.fault("docker", Fault::Hangs);
        node.change(terminate);
        agent.pass(30).await;
        assert_eq!(node.count("set-draining"), 1);
        assert!(node.count("drain-heartbeat") >= 1);
        node.heal("docker");
        agent.until(120, done).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_imds_is_silent_auto_scaling_itself_is_asked() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.fault("imds", Fault::Fails);
        agent.pass(600).await;
        assert_eq!(agent.phase(), Phase::InService);
        assert_eq!(agent.life.machine.view().health.reason, "imds");
        node.change(|world| world.drain = Held::Open);
        agent.until(120, done).await;
        assert_eq!(node.world().drain, Held::Answered(Verdict::Continue));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_for_good_leaves_the_first_writes_to_those_that_drain() {
    let node = Node::launching();
    with(&node, async |agent| {
        agent.until(10, in_service).await;
        node.change(|world| {
            world.tasks = ["a".to_owned()].into();
            world.calls.clear();
            terminate(world);
        });
        agent.pass(25).await;
        let count = |call| node.count(call);
        assert_eq!((count("set-draining"), count("put-attributes")), (1, 0));
        agent.pass(40).await;
        assert_eq!((count("set-draining"), count("put-attributes")), (1, 1));
        assert_eq!(node.world().attributes["fleet.intent"], "leave");
    })
    .await;
}
