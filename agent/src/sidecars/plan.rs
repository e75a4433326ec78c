//! Desired sidecars and observed containers to steps. Pure; nothing is left to choose.

use std::{collections::BTreeMap, time::Duration};

use fleet_agent_config::Sidecar;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::clients::docker::Container;

/// A sidecar counts as up once its process has lived this long: one that dies at once is
/// restarted by dockerd and would look alive in between.
const PROVEN: Duration = Duration::from_secs(1);

/// Which sidecars may be started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Before ECS is released.
    BeforeTasks,
    All,
}

impl Scope {
    pub(crate) fn holds(self, sidecar: &Sidecar) -> bool {
        self == Self::All || sidecar.before_tasks
    }
}

/// A sidecar as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) sidecar: Sidecar,
    /// Of [`spec`]: compared in every round, and the same as long as the settings are.
    spec: String,
}

impl Desired {
    pub(crate) fn all(sidecars: &[Sidecar]) -> Vec<Self> {
        let desired = sidecars.iter().map(|sidecar| Self {
            spec: spec(sidecar),
            sidecar: sidecar.clone(),
        });
        desired.collect()
    }

    fn is(&self, container: &Container) -> bool {
        self.sidecar.name == container.sidecar && self.spec == container.spec
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stop and remove a container that nothing asks for any more.
    Remove {
        id: String,
        sidecar: String,
    },
    /// Start one that stands still.
    Start {
        id: String,
        sidecar: String,
    },
    Create {
        sidecar: Sidecar,
        spec: String,
    },
}

/// What brings `observed` to `desired`. Observed are only containers with our label: foreign ones
/// are never touched, and a container that is right is adopted as it is.
pub(crate) fn plan(desired: &[Desired], scope: Scope, observed: &[Container]) -> Vec<Step> {
    let mut kept: BTreeMap<&str, &Container> = BTreeMap::new();
    let mut steps = Vec::new();
    for container in observed {
        let wanted = desired.iter().any(|desired| desired.is(container));
        if wanted && !kept.contains_key(container.sidecar.as_str()) {
            kept.insert(&container.sidecar, container);
        } else {
            steps.push(Step::Remove {
                id: container.id.clone(),
                sidecar: container.sidecar.clone(),
            });
        }
    }
    for Desired { sidecar, spec } in desired {
        if !scope.holds(sidecar) {
            continue;
        }
        match kept.get(sidecar.name.as_str()) {
            // dockerd restarts by itself what ends by itself.
            Some(container) if container.running || container.restarting => {}
            Some(container) => steps.push(Step::Start {
                id: container.id.clone(),
                sidecar: sidecar.name.clone(),
            }),
            None => steps.push(Step::Create {
                sidecar: sidecar.clone(),
                spec: spec.clone(),
            }),
        }
    }
    steps
}

/// How a sidecar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Missing,
    Stopped,
    Restarting,
    /// Running, but for less than [`PROVEN`].
    Unproven,
    Up,
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Unproven => "starting",
            Self::Up => "up",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) before_tasks: bool,
    pub(crate) state: State,
}

/// How every desired sidecar is.
pub(crate) fn report(desired: &[Desired], observed: &[Container], now: Timestamp) -> Vec<Report> {
    let state = |desired: &Desired| {
        let container = observed.iter().find(|container| desired.is(container));
        match container {
            None => State::Missing,
            Some(container) if container.restarting => State::Restarting,
            Some(container) if !container.running => State::Stopped,
            Some(container) => match container.started {
                Some(started) if is_proven(started, now) => State::Up,
                Some(_) | None => State::Unproven,
            },
        }
    };
    desired
        .iter()
        .map(|desired| Report {
            name: desired.sidecar.name.clone(),
            before_tasks: desired.sidecar.before_tasks,
            state: state(desired),
        })
        .collect()
}

/// A start that lies ahead is one before the wall clock was set: long ago.
fn is_proven(started: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(started)).map_or(true, |age| age >= PROVEN)
}

/// A short hash of everything a sidecar's container is made from.
pub(crate) fn spec(sidecar: &Sidecar) -> String {
    let Sidecar {
        name,
        image,
        command,
        env,
        // Says when it is started, not what it is: changing it must not bounce the container.
        before_tasks: _,
        network,
        volumes,
        memory_mib,
        // Says how it ends, not what it is.
        flush: _,
        stop_timeout_seconds,
    } = sidecar;
    let text = format!(
        "1|{name:?}|{image:?}|{command:?}|{env:?}|{network:?}|{volumes:?}|{memory_mib:?}|{stop_timeout_seconds}"
    );
    short_hash(&text)
}

/// Twelve hexadecimal digits of SHA-256.
pub(crate) fn short_hash(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sidecar(name: &str, before_tasks: bool) -> Sidecar {
        Sidecar {
            name: name.into(),
            image: format!("example/{name}:1"),
            command: vec![],
            env: BTreeMap::new(),
            before_tasks,
            network: fleet_agent_config::Network::Bridge,
            volumes: vec![],
            memory_mib: None,
            flush: None,
            stop_timeout_seconds: 10,
        }
    }

    fn container(id: &str, of: &Sidecar, running: bool) -> Container {
        Container {
            id: id.into(),
            sidecar: of.name.clone(),
            spec: spec(of),
            running,
            restarting: false,
            started: Some(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn what_is_right_is_adopted_without_a_bounce() {
        let logs = sidecar("logs", true);
        let observed = [container("1", &logs, true)];
        assert_eq!(plan(&Desired::all(&[logs]), Scope::All, &observed), []);
    }

    #[test]
    fn a_changed_definition_is_replaced_and_a_dropped_one_removed() {
        let old = sidecar("logs", true);
        let new = Sidecar {
            image: "example/logs:2".into(),
            ..old.clone()
        };
        let dropped = sidecar("gone", false);
        let observed = [container("1", &old, true), container("2", &dropped, true)];
        let desired = Desired::all(std::slice::from_ref(&new));
        let steps = plan(&desired, Scope::All, &observed);
        assert_eq!(
            steps,
            [
                Step::Remove {
                    id: "1".into(),
                    sidecar: "logs".into()
                },
                Step::Remove {
                    id: "2".into(),
                    sidecar: "gone".into()
                },
                Step::Create {
                    spec: spec(&new),
                    sidecar: new
                },
            ]
        );
    }

    #[test]
    fn before_the_release_only_those_needed_before_tasks_are_started() {
        let sidecars = [sidecar("logs", true), sidecar("metrics", false)];
        let desired = Desired::all(&sidecars);
        let steps = plan(&desired, Scope::BeforeTasks, &[]);
        assert_eq!(steps.len(), 1);
        assert_eq!(plan(&desired, Scope::All, &[]).len(), 2);
        // One that runs already is left running.
        let observed = [container("2", &sidecars[1], true)];
        assert_eq!(plan(&desired, Scope::BeforeTasks, &observed).len(), 1);
    }

    #[test]
    fn starting_earlier_is_no_reason_to_bounce() {
        let logs = sidecar("logs", true);
        let later = Sidecar {
            before_tasks: false,
            ..logs.clone()
        };
        assert_eq!(spec(&logs), spec(&later));
    }

    #[test]
    fn a_sidecar_is_up_once_it_has_lived_a_second() {
        let logs = sidecar("logs", true);
        let observed = [container("1", &logs, true)];
        let state = |millis| {
            let now = Timestamp::from_millisecond(millis).expect("in range");
            let desired = Desired::all(std::slice::from_ref(&logs));
            report(&desired, &observed, now)[0].state
        };
        assert_eq!(state(999), State::Unproven);
        assert_eq!(state(1_000), State::Up);
        assert_eq!(state(-5_000), State::Up, "the wall clock was set back");
    }

    proptest! {
        /// Executing a plan, whatever was there, leaves nothing to do.
        #[test]
        fn a_plan_converges(
            desired in proptest::collection::btree_set("[a-c]", 0..3),
            present in proptest::collection::vec(("[a-d]", any::<bool>(), any::<bool>()), 0..6),
        ) {
            let desired: Vec<_> = desired.iter().map(|name| sidecar(name, true)).collect();
            let desired = Desired::all(&desired);
            let mut world: Vec<Container> = present
                .iter()
                .enumerate()
                .map(|(index, (name, running, stale))| {
                    let mut container = container(&index.to_string(), &sidecar(name, true), *running);
                    if *stale { container.spec = "old".into(); }
                    container
                })
                .collect();
            for step in plan(&desired, Scope::All, &world) {
                match step {
                    Step::Remove { id, .. } => world.retain(|container| container.id != id),
                    Step::Start { id, .. } => {
                        for container in world.iter_mut().filter(|c| c.id == id) {
                            container.running = true;
                        }
                    }
                    Step::Create { sidecar, .. } => world.push(container("new", &sidecar, true)),
                }
            }
            prop_assert_eq!(plan(&desired, Scope::All, &world), vec![]);
            prop_assert_eq!(world.len(), desired.len());
        }
    }
}
