//! The agents' processes: the machine and its driver, in a loop as the daemon's.

use std::{cell::RefCell, rc::Rc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{OnceCell, mpsc},
    task::spawn_local,
    time::sleep,
};

use super::{
    clients::Remotes,
    node::State,
    world::{CONTAINER_STOP, World, at},
};
use crate::{
    clock::Clock,
    health::watch::Report,
    lifecycle::{
        driver::{Context, Driver},
        event::{Action, Event, Job, Policy},
        machine::Machine,
    },
    moment::Moment,
    sidecars::plan::Desired,
};

pub(super) type Shared = Rc<RefCell<World>>;

/// As the daemon's own queue.
const EVENTS: usize = 64;
/// When the clock of every node began, milliseconds: moments before its boot can be told.
const BOOTED: u64 = 100_000_000;

/// What the node's own wall clock shows.
pub(super) fn wall(world: &World, node: usize) -> Timestamp {
    let known = &world.nodes[node];
    at(world.millis() + known.slept) + SignedDuration::from_millis(known.wall_skew)
}

/// Starts the agent's process on a node; one that runs is killed.
pub(super) fn start(world: &Shared, node: usize) {
    world.borrow_mut().nodes[node].kill();
    let life = world.borrow().nodes[node].life;
    let task = spawn_local(live(world.clone(), node, life));
    world.borrow_mut().nodes[node].agent = Some(task.abort_handle());
}

async fn live(world: Shared, node: usize, life: u64) {
    let clock = {
        let (now, walls) = (world.clone(), world.clone());
        Clock::simulated(
            move || {
                let world = now.borrow();
                Moment::from_millis(BOOTED + world.millis() + world.nodes[node].slept)
            },
            move || wall(&walls.borrow(), node),
        )
    };
    let (settings, seed) = {
        let mut world = world.borrow_mut();
        (world.settings.clone(), world.rng.u64(..))
    };
    let policy = Policy::new(&settings, CONTAINER_STOP, seed);
    let clients = Remotes {
        world: world.clone(),
        node,
        life,
    };
    let context = Rc::new(Context {
        sidecars: Desired::all(&settings.sidecars),
        failed: Default::default(),
        clients,
        settings,
        applied: Default::default(),
        container_stop: CONTAINER_STOP,
        clock: clock.clone(),
        identity: OnceCell::new(),
        seed,
    });
    let (sender, mut events) = mpsc::channel(EVENTS);
    let mut machine = Machine::new(policy, clock.now());
    let mut driver = Driver::new(context, sender.clone());
    world.borrow_mut().nodes[node].events = Some(sender);
    let mut event = Event::Node(Report::well());
    loop {
        // A hung process does nothing; what came is handled when it goes on.
        while world.borrow().nodes[node].faults.agent != State::Works {
            sleep(Duration::from_secs(1)).await;
        }
        let is_traced = world.borrow().trace.wanted;
        let told = if is_traced { tell(&event) } else { None };
        match machine.handle(event, clock.now()) {
            Ok(actions) => {
                if is_traced {
                    let mut world = world.borrow_mut();
                    if let Some(told) = told {
                        let phase = machine.view().phase;
                        world.note(format_args!("n{node} {} {told}", phase.as_str()));
                    }
                    for action in &actions {
                        match action {
                            Action::Start(_) | Action::Save(_) => {}
                            Action::Record(entry) => {
                                world.note(format_args!("n{node} journal: {}", entry.text()));
                            }
                            Action::StartHeartbeats { .. }
                            | Action::StopHeartbeats
                            | Action::Console(_) => {
                                world.note(format_args!("n{node} {action:?}"));
                            }
                        }
                    }
                }
                driver.run(actions);
            }
            Err(illegal) => world
                .borrow_mut()
                .note(format_args!("n{node} impossible: {illegal}")),
        }
        let now = clock.now();
        let wake = machine.wake_at().map(|at| at.since(now));
        let tick = async {
            match wake {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        event = tokio::select! {
            // Chance must come from the seed alone.
            biased;
            Some(event) = events.recv() => event,
            () = tick => Event::Tick,
        };
    }
}

/// What is worth a line.
fn tell(event: &Event) -> Option<String> {
    match event {
        Event::Tick | Event::Container(_) | Event::Node(_) => None,
        Event::Finished(_, Err(_)) | Event::Order(_) | Event::Heartbeat(_) | Event::Kept(_) => {
            Some(format!("{event:?}"))
        }
        // Polls go well all the time.
        Event::Finished(
            Job::ReadTarget
            | Job::ReadSpot
            | Job::ReadTag
            | Job::ReadMaintenance
            | Job::CountTasks
            | Job::ReadEcsAgent
            | Job::ConvergeSidecars,
            Ok(_),
        ) => None,
        Event::Finished(job, Ok(_)) => Some(format!("{} went well", job.as_str())),
    }
}
