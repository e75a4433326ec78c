//! The machine as a table: every stage of a life against every event, kept as a snapshot, and the
//! diagram of `docs/lifecycle.md`, which is drawn from the same table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use fleet_agent_config::DrainConfig;

use super::{
    cause::Spans,
    event::{
        Action, ConfigWritten, Event, Healed, Job, Order, Outcome, Phase, Policy, Scheduled,
        SpotNews, Tasks, Work,
    },
    machine::Machine,
};
use crate::{
    clients::{
        autoscaling::HookAnswer,
        docker::Whose,
        ecs::{Registration, SetDraining},
        imds::{Identity, Maintenance, SpotAction, SpotNotice, Target},
        introspection::AgentTask,
    },
    health::{
        check::{Check, Fault},
        watch,
    },
    moment::Moment,
    sidecars::{
        execute::Round,
        plan::{Report, State},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const TIME_IS_UP: &str = "time is up";

/// A machine being brought somewhere.
#[derive(Clone)]
struct Stage {
    name: &'static str,
    machine: Machine,
    now: Moment,
}

impl Stage {
    fn begin() -> Self {
        let policy = Policy {
            launch: Duration::from_secs(570),
            spans: Spans {
                drain: Duration::from_secs(1_800),
                container_stop: Duration::from_secs(30),
                sidecars: Duration::from_secs(15),
            },
            drain: DrainConfig::default().validate(300, &mut Vec::new()),
            full_disk: fleet_agent_config::Reaction::Drain,
            health: fleet_agent_config::HealthConfig::default().validate(&mut Vec::new()),
            launch_hook: "fleet-launch".into(),
            drain_hook: "fleet-drain".into(),
            is_told_apart: false,
            seed: 1,
        };
        let now = Moment::from_millis(1_000_000);
        let stage = Self {
            name: "",
            machine: Machine::new(policy, now),
            now,
        };
        stage.tick().feed(Event::Node(watch::Report::well()))
    }

    fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    fn tick(self) -> Self {
        self.feed(Event::Tick)
    }

    fn after(mut self, seconds: u32) -> Self {
        self.now = self.now + SECOND * seconds;
        self.tick()
    }

    fn job(self, job: Job, outcome: Outcome) -> Self {
        self.feed(Event::Finished(job, Ok(outcome)))
    }

    fn feed(mut self, event: Event) -> Self {
        let actions = self.machine.handle(event, self.now).expect("legal");
        // What is published is what the machine wanted published.
        for action in actions {
            if let Action::Start(Work::Publish(_, attributes)) = action {
                return self.job(Job::Publish, Outcome::Published(attributes));
            }
        }
        self
    }

    fn phase(&self) -> Phase {
        self.machine.view().phase
    }
}

fn identified() -> Outcome {
    Outcome::Identified {
        identity: Identity {
            instance: "i-1".into(),
            region: "r".into(),
            zone: "z".into(),
            spot: true,
        },
        boot: "b".into(),
        released: false,
        saved: None,
    }
}

fn sidecars(state: State) -> Outcome {
    Outcome::Sidecars(Round {
        reports: vec![Report {
            name: "logs".into(),
            before_tasks: true,
            state,
        }],
        done: vec![],
        problem: None,
    })
}

fn task(number: usize) -> AgentTask {
    AgentTask {
        arn: format!("task-{number}"),
        family: "web".into(),
        known: "RUNNING".into(),
        desired: "RUNNING".into(),
    }
}

fn order(order: Order) -> Event {
    Event::Order(order)
}

fn wish() -> Event {
    order(Order::Drain {
        request: "1".into(),
        reason: "a look".into(),
    })
}

fn notice(action: SpotAction) -> Outcome {
    let time = jiff::Timestamp::from_second(1_763_712_000).expect("in range");
    Outcome::Spot(SpotNews {
        notice: Some((
            SpotNotice { action, time },
            Moment::from_millis(100_000_000),
        )),
        rebalance: None,
    })
}

fn tasks(count: usize) -> Outcome {
    Outcome::Tasks(Tasks {
        by_agent: Ok((0..count).map(task).collect()),
        by_docker: Ok((0..count).map(|number| (task(number).arn, 1)).collect()),
    })
}

fn ready() -> Outcome {
    Outcome::Described(Registration {
        status: "ACTIVE".into(),
        connected: true,
    })
}

fn arn() -> Outcome {
    Outcome::EcsAgent(Some("arn".into()))
}

/// One machine for each stage of a life: just before what comes next.
fn stages() -> Vec<Stage> {
    use Outcome::Hook;
    let starting = Stage::begin().job(Job::Identify, identified()).job(
        Job::WriteEcsConfig,
        Outcome::EcsConfig(ConfigWritten::Changed),
    );
    let gated = starting
        .clone()
        .job(Job::ConvergeSidecars, sidecars(State::Up));
    let launching = gated
        .clone()
        .job(Job::ReadTarget, Outcome::Target(Target::InService))
        .job(Job::Release, Outcome::Released { now: true });
    let unregistered = launching
        .clone()
        .job(Job::OpenLaunch, Hook(HookAnswer::Taken));
    let proven = unregistered
        .clone()
        .after(1)
        .job(Job::ReadEcsAgent, arn())
        .job(Job::Describe, ready())
        .job(Job::ConvergeSidecars, sidecars(State::Up));
    let in_service = proven
        .clone()
        .job(Job::CompleteLaunch, Hook(HookAnswer::Taken))
        .after(3);
    let draining = in_service
        .clone()
        .job(Job::ReadTarget, Outcome::Target(Target::Terminated))
        .feed(Event::Heartbeat(HookAnswer::Taken))
        .job(Job::CountTasks, tasks(1))
        .after(1);
    let empty = draining
        .clone()
        .job(
            Job::SetDraining,
            Outcome::Draining(SetDraining::Set { tasks: 1 }),
        )
        .job(Job::CountTasks, tasks(0))
        .after(1)
        .job(Job::CountTasks, tasks(0))
        .after(1);
    let never_joined = gated
        .clone()
        .job(Job::ReadTarget, Outcome::Target(Target::Terminated))
        .after(1);
    let wished = in_service
        .clone()
        .feed(wish())
        .job(Job::Describe, ready())
        .job(
            Job::SetDraining,
            Outcome::Draining(SetDraining::Set { tasks: 1 }),
        )
        .job(Job::CountTasks, tasks(1))
        .after(1);
    let drained = wished
        .clone()
        .job(Job::CountTasks, tasks(0))
        .after(1)
        .job(Job::CountTasks, tasks(0))
        .after(1)
        .job(Job::ConfirmEmpty, Outcome::Confirmed(0));
    let warm = gated
        .clone()
        .job(
            Job::ReadTarget,
            Outcome::Target(Target::Warmed("Warmed:Stopped".into())),
        )
        .job(Job::ClearCheckpoint, Outcome::CheckpointCleared);
    let stopping = draining.clone().after(1_750);
    let flushing = stopping.clone().job(
        Job::StopLeftovers,
        Outcome::Leftovers {
            stopped: 1,
            left: 0,
        },
    );
    let completing = flushing
        .clone()
        .job(Job::StopSidecars, Outcome::SidecarsStopped(1));
    let done = completing
        .clone()
        .job(Job::CompleteDrain, Hook(HookAnswer::Taken));
    // Its CONTINUE may have been taken, and not been heard of.
    let unheard = || Event::Finished(Job::CompleteLaunch, Err("no answer".into()));
    let overdue = proven
        .clone()
        .feed(unheard())
        .after(600)
        .job(Job::ConvergeSidecars, sidecars(State::Stopped))
        .feed(unheard());
    let abandoning = overdue
        .clone()
        .job(Job::OpenLaunch, Hook(HookAnswer::Taken));
    vec![
        starting.named("starting"),
        gated
            .job(Job::ReadTarget, Outcome::Target(Target::InService))
            .after(3)
            .named("gated, may be released"),
        warm.named("gated, in a warm pool"),
        unregistered.named("launching, not registered"),
        proven.named("launching, proven"),
        overdue.named("launching, overdue"),
        abandoning.named("abandoning"),
        in_service.named("in service"),
        draining.named("draining, a task left"),
        empty.named("draining, empty"),
        never_joined.named("draining, never joined"),
        wished.named("draining, for an operator"),
        stopping.named("stopping"),
        drained.named("drained"),
        flushing.named("flushing"),
        completing.named("completing"),
        done.named("done"),
    ]
}

fn full() -> watch::Report {
    watch::Report {
        faults: vec![Fault {
            check: Check::DiskFull,
            detail: "/ is full".into(),
            since: Moment::default(),
        }],
        ..watch::Report::well()
    }
}

/// Every kind of event, by a name for people.
fn events() -> Vec<(String, Event)> {
    let mut events = vec![
        ("tick".to_owned(), Event::Tick),
        (
            "heartbeat taken".to_owned(),
            Event::Heartbeat(HookAnswer::Taken),
        ),
        (
            "heartbeat not open".to_owned(),
            Event::Heartbeat(HookAnswer::NotOpen),
        ),
        (
            "task container changed".to_owned(),
            Event::Container(Whose::Task),
        ),
        (
            "sidecar changed".to_owned(),
            Event::Container(Whose::Sidecar),
        ),
        ("the state is kept again".to_owned(), Event::Kept(Ok(()))),
        (
            "the state was not kept".to_owned(),
            Event::Kept(Err("why".into())),
        ),
        (
            "the node is well".to_owned(),
            Event::Node(watch::Report::well()),
        ),
        ("its disk is full".to_owned(), Event::Node(full())),
        ("an operator drains".to_owned(), wish()),
        ("an operator undrains".to_owned(), order(Order::Undrain)),
        ("the machine shuts down".to_owned(), order(Order::Shutdown)),
    ];
    let mut ok = |job, name: &str, outcome| {
        events.push((name.to_owned(), Event::Finished(job, Ok(outcome))));
    };
    ok(Job::Identify, "identified", identified());
    ok(
        Job::WriteEcsConfig,
        "ecs.config written",
        Outcome::EcsConfig(ConfigWritten::Changed),
    );
    ok(
        Job::ReadTarget,
        "target InService",
        Outcome::Target(Target::InService),
    );
    ok(
        Job::ReadTarget,
        "target Terminated",
        Outcome::Target(Target::Terminated),
    );
    ok(
        Job::ReadTarget,
        "target Warmed:Stopped",
        Outcome::Target(Target::Warmed("Warmed:Stopped".into())),
    );
    ok(
        Job::ReadTarget,
        "target unknown",
        Outcome::Target(Target::NoGroup),
    );
    ok(
        Job::ReadSpot,
        "spot notice to terminate",
        notice(SpotAction::Terminate),
    );
    ok(
        Job::ReadSpot,
        "spot notice to stop",
        notice(SpotAction::Stop),
    );
    ok(
        Job::ReadSpot,
        "a rebalance is recommended",
        Outcome::Spot(SpotNews {
            rebalance: Some("t".into()),
            ..SpotNews::default()
        }),
    );
    ok(
        Job::ReadMaintenance,
        "maintenance is near",
        Outcome::Maintenance(vec![Scheduled {
            event: Maintenance {
                id: "e".into(),
                code: "system-reboot".into(),
                starts: jiff::Timestamp::UNIX_EPOCH,
                ends: None,
            },
            starts: Moment::from_millis(1_500_000),
            ends: None,
        }]),
    );
    ok(Job::ReadTag, "tagged", Outcome::Tag(Some("a1 x".into())));
    ok(Job::ReadTag, "not tagged", Outcome::Tag(None));
    ok(
        Job::ClearCheckpoint,
        "checkpoint cleared",
        Outcome::CheckpointCleared,
    );
    ok(Job::SetActive, "ACTIVE again", Outcome::Active(true));
    ok(
        Job::ReadGroups,
        "tasks are a service's",
        Outcome::Groups([("task-0".into(), "service:web".into())].into()),
    );
    ok(
        Job::StopStandalone,
        "standalone tasks stopped",
        Outcome::StandaloneStopped {
            stopped: 1,
            left: 0,
        },
    );
    ok(Job::ConvergeSidecars, "sidecars up", sidecars(State::Up));
    ok(
        Job::ConvergeSidecars,
        "sidecars starting",
        sidecars(State::Unproven),
    );
    ok(Job::Release, "released", Outcome::Released { now: true });
    ok(Job::ReadEcsAgent, "ECS agent registered", arn());
    ok(
        Job::ReadEcsAgent,
        "ECS agent not registered",
        Outcome::EcsAgent(None),
    );
    ok(
        Job::HealEcs,
        "ecs.service started",
        Outcome::Healed(Healed::Started("x")),
    );
    ok(
        Job::HealEcs,
        "ecs.service left",
        Outcome::Healed(Healed::Left("x".into())),
    );
    ok(Job::Describe, "ACTIVE and connected", ready());
    for (job, name) in [
        (Job::OpenLaunch, "launch action"),
        (Job::CompleteLaunch, "CONTINUE of the launch"),
        (Job::AbandonLaunch, "ABANDON of the launch"),
        (Job::CompleteDrain, "CONTINUE of the drain"),
        (Job::ProbeDrain, "terminating action"),
    ] {
        ok(
            job,
            &format!("{name} taken"),
            Outcome::Hook(HookAnswer::Taken),
        );
        ok(
            job,
            &format!("{name} not open"),
            Outcome::Hook(HookAnswer::NotOpen),
        );
    }
    ok(
        Job::SetDraining,
        "DRAINING set",
        Outcome::Draining(SetDraining::Set { tasks: 1 }),
    );
    ok(
        Job::SetDraining,
        "DRAINING refused",
        Outcome::Draining(SetDraining::NotYet("REGISTERING".into())),
    );
    ok(
        Job::SetDraining,
        "container instance gone",
        Outcome::Draining(SetDraining::Gone),
    );
    ok(Job::CountTasks, "a task left", tasks(1));
    ok(Job::CountTasks, "no task left", tasks(0));
    ok(Job::ConfirmEmpty, "ECS agrees", Outcome::Confirmed(0));
    ok(
        Job::ConfirmEmpty,
        "ECS knows of one more",
        Outcome::Confirmed(1),
    );
    ok(Job::ShutGate, "gate shut", Outcome::GateShut);
    ok(
        Job::StopLeftovers,
        "leftovers stopped",
        Outcome::Leftovers {
            stopped: 1,
            left: 0,
        },
    );
    ok(
        Job::StopLeftovers,
        "a leftover still runs",
        Outcome::Leftovers {
            stopped: 0,
            left: 1,
        },
    );
    ok(
        Job::StopSidecars,
        "sidecars stopped",
        Outcome::SidecarsStopped(1),
    );
    ok(
        Job::Identify,
        "an outcome of another job",
        Outcome::GateShut,
    );
    for job in JOBS {
        events.push((
            format!("failed to {}", job.as_str()),
            Event::Finished(job, Err("why".into())),
        ));
    }
    events
}

const JOBS: [Job; 27] = [
    Job::Identify,
    Job::WriteEcsConfig,
    Job::ReadTarget,
    Job::ReadSpot,
    Job::ReadMaintenance,
    Job::ReadTag,
    Job::ConvergeSidecars,
    Job::ClearCheckpoint,
    Job::Release,
    Job::ReadEcsAgent,
    Job::HealEcs,
    Job::Describe,
    Job::Publish,
    Job::OpenLaunch,
    Job::CompleteLaunch,
    Job::AbandonLaunch,
    Job::SetDraining,
    Job::SetActive,
    Job::CountTasks,
    Job::ReadGroups,
    Job::StopStandalone,
    Job::ConfirmEmpty,
    Job::ShutGate,
    Job::StopLeftovers,
    Job::StopSidecars,
    Job::CompleteDrain,
    Job::ProbeDrain,
];

/// What one event does at one stage; `None` if it cannot come.
fn step(stage: &Stage, event: Event) -> Option<(Phase, Vec<Action>)> {
    let mut machine = stage.machine.clone();
    let actions = machine.handle(event, stage.now).ok()?;
    Some((machine.view().phase, actions))
}

/// The event named [`TIME_IS_UP`]: a day passes.
fn time_is_up(stage: &Stage) -> (Phase, Vec<Action>) {
    let mut machine = stage.machine.clone();
    let later = stage.now + Duration::from_secs(86_400);
    let actions = machine
        .handle(Event::Tick, later)
        .expect("time may always pass");
    (machine.view().phase, actions)
}

fn told(action: &Action) -> String {
    match action {
        Action::Save(_) => "save".to_owned(),
        Action::Start(work) => work.job().as_str().to_owned(),
        Action::StartHeartbeats { .. } => "begin heartbeats".to_owned(),
        Action::StopHeartbeats => "end heartbeats".to_owned(),
        Action::Record(entry) => format!("“{}”", entry.text()),
        Action::Console(text) => format!("console “{text}”"),
    }
}

#[test]
fn the_whole_table() {
    let mut table = String::new();
    for stage in stages() {
        let _ = writeln!(table, "\n{} [{}]", stage.name, stage.phase().as_str());
        let mut impossible = 0;
        let mut row = |name: &str, reached: Option<(Phase, Vec<Action>)>| {
            let Some((phase, actions)) = reached else {
                impossible += 1;
                return;
            };
            let mut cells = Vec::new();
            if phase != stage.phase() {
                cells.push(format!("→ {}", phase.as_str()));
            }
            cells.extend(actions.iter().map(told));
            let cells = if cells.is_empty() {
                "-".to_owned()
            } else {
                cells.join("; ")
            };
            let _ = writeln!(table, "  {name}: {cells}");
        };
        for (name, event) in events() {
            row(&name, step(&stage, event));
        }
        row(TIME_IS_UP, Some(time_is_up(&stage)));
        let _ = writeln!(table, "  ({impossible} events cannot come)");
    }
    insta::assert_snapshot!(table);
}

/// The diagram of the documentation is the table's, so that it cannot be outdated.
#[test]
fn the_documented_diagram_is_the_tables() {
    let mut edges: BTreeMap<(Phase, Phase), BTreeSet<String>> = BTreeMap::new();
    for stage in stages() {
        let from = stage.phase();
        let reached = events()
            .into_iter()
            .filter_map(|(name, event)| Some((name, step(&stage, event)?.0)))
            .chain([(TIME_IS_UP.to_owned(), time_is_up(&stage).0)]);
        for (name, to) in reached {
            if to != from {
                edges.entry((from, to)).or_default().insert(name);
            }
        }
    }
    let mut diagram = "stateDiagram-v2\n    [*] --> starting\n".to_owned();
    for ((from, to), names) in edges {
        let names: Vec<String> = names.into_iter().collect();
        let id = |phase: Phase| phase.as_str().replace('-', "_");
        let _ = writeln!(
            diagram,
            "    {} --> {}: {}",
            id(from),
            id(to),
            names.join(", ")
        );
    }
    diagram.push_str("    done --> [*]\n");
    let documented = include_str!("../../docs/lifecycle.md");
    assert!(
        documented.contains(&format!("```mermaid\n{diagram}```")),
        "docs/lifecycle.md must hold this diagram:\n{diagram}"
    );
}
