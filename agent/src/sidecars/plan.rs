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
    pub(crate) spec: String,
}

impl Desired {
    pub(crate) fn all(sidecars: &[Sidecar]) -> Vec<Self> {
        let desired = sidecars.iter().map(|sidecar| Self {
            spec: spec(sidecar),
            sidecar: sidecar.clone(),
        });
        desired.collect()
    }

    /// Why it is not tried again, if it is not.
    pub(crate) fn failure<'f>(&self, failed: &'f Failed) -> Option<&'f str> {
        let failure = failed.get(&self.sidecar.name)?;
        (failure.spec == self.spec).then_some(failure.why.as_str())
    }

    /// Whether this container was made from it.
    pub(crate) fn made(&self, id: &str, observed: &[Container]) -> bool {
        let mut these = observed.iter();
        these.any(|container| container.id == *id && self.is(container))
    }

    fn is(&self, container: &Container) -> bool {
        self.sidecar.name == container.sidecar && self.spec == container.spec
    }
}

/// Sidecars whose new definition was tried and did not come up, by name: it is not tried again before
/// it changes, or the agent starts anew.
pub(crate) type Failed = BTreeMap<String, Failure>;

/// A definition that did not come up, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) spec: String,
    pub(crate) why: String,
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
    /// Put another in the place of one that was made from an older definition; that one comes back
    /// if the other does not come up.
    Replace {
        old: String,
        sidecar: Sidecar,
        spec: String,
    },
}

/// What brings `observed` to `desired`. Observed are only containers with our label: foreign ones
/// are never touched, and a container that is right is adopted as it is. What has to wait for another
/// sidecar has no step yet; and only one is replaced at a time.
pub(crate) fn plan(
    desired: &[Desired],
    scope: Scope,
    observed: &[Container],
    failed: &Failed,
    now: Timestamp,
) -> Vec<Step> {
    let mut kept: BTreeMap<&str, &Container> = BTreeMap::new();
    let mut outdated: BTreeMap<&str, &Container> = BTreeMap::new();
    let mut steps = Vec::new();
    for container in observed {
        let name = container.sidecar.as_str();
        let of_name = desired.iter().find(|desired| desired.sidecar.name == name);
        let place = match of_name {
            None => None,
            Some(desired) if desired.is(container) => Some(&mut kept),
            Some(_) => Some(&mut outdated),
        };
        if let Some(place) = place
            && !place.contains_key(name)
        {
            place.insert(name, container);
        } else {
            steps.push(remove(container));
        }
    }
    let reports = report(desired, observed, now);
    let is_up = |name: &String| {
        let mut of_name = reports.iter().filter(|report| report.name == *name);
        of_name.all(|report| matches!(report.state, State::Up | State::Outdated))
    };
    let mut replaces = false;
    for each in desired {
        let Desired { sidecar, spec } = each;
        let name = sidecar.name.as_str();
        let old = outdated.get(name);
        if let (Some(new), Some(old)) = (kept.get(name), old) {
            // Left by an agent that was ended in the middle; the new one has to be up first.
            // One that stands still may wait for what the old one holds: a port, a name.
            if (new.running && is_up(&sidecar.name)) || (!new.running && !new.restarting) {
                steps.push(remove(old));
            }
        }
        if !scope.holds(sidecar) || !sidecar.depends_on.iter().all(is_up) {
            continue;
        }
        match (kept.get(name), old) {
            // dockerd restarts by itself what ends by itself.
            (Some(container), _) if container.running || container.restarting => {}
            (Some(container), _) => steps.push(start(container)),
            (None, Some(old)) if each.failure(failed).is_some() => {
                if !old.running && !old.restarting {
                    steps.push(start(old));
                }
            }
            (None, Some(old)) if !replaces => {
                replaces = true;
                steps.push(Step::Replace {
                    old: old.id.clone(),
                    sidecar: sidecar.clone(),
                    spec: spec.clone(),
                });
            }
            (None, Some(_)) => {}
            (None, None) => steps.push(Step::Create {
                sidecar: sidecar.clone(),
                spec: spec.clone(),
            }),
        }
    }
    steps
}

fn remove(container: &Container) -> Step {
    Step::Remove {
        id: container.id.clone(),
        sidecar: container.sidecar.clone(),
    }
}

fn start(container: &Container) -> Step {
    Step::Start {
        id: container.id.clone(),
        sidecar: container.sidecar.clone(),
    }
}

/// How a sidecar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Missing,
    Stopped,
    Restarting,
    /// Running, but for less than [`PROVEN`], or not yet found healthy.
    Unproven,
    /// Running, and found ill by its own health check.
    Unhealthy,
    /// One of an older definition is up, and this one is not there yet, or did not come up.
    Outdated,
    Up,
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Restarting => "restarting",
            Self::Unproven => "starting",
            Self::Unhealthy => "unhealthy",
            Self::Outdated => "not yet replaced",
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
        let name = &desired.sidecar.name;
        let mut others = observed.iter().filter(|other| other.sidecar == *name);
        match container {
            None if others.any(|other| other.running && has_lived(other, now)) => State::Outdated,
            None => State::Missing,
            Some(container) if container.restarting => State::Restarting,
            Some(container) if !container.running => State::Stopped,
            Some(container) => alive(desired, container, now),
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

/// Of one that runs.
fn alive(desired: &Desired, container: &Container, now: Timestamp) -> State {
    let has_lived = has_lived(container, now);
    let is_checked = desired.sidecar.container.health_check.is_some();
    match container.healthy {
        Some(false) => State::Unhealthy,
        None if is_checked => State::Unproven,
        Some(true) | None if has_lived => State::Up,
        Some(true) | None => State::Unproven,
    }
}

fn has_lived(container: &Container, now: Timestamp) -> bool {
    container
        .started
        .is_some_and(|started| is_proven(started, now))
}

/// A start that lies ahead is one before the wall clock was set: long ago.
fn is_proven(started: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(started)).map_or(true, |age| age >= PROVEN)
}

/// A short hash of everything a sidecar's container is made from. An agent adopts what another version
/// has made only if both come to the same hash: it must never change for settings that did not. What is
/// added later counts only where it is set.
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
        container,
        // Says when it is started, too.
        depends_on: _,
        // Says how it ends, not what it is.
        flush: _,
        stop_timeout_seconds,
    } = sidecar;
    let mut text = format!(
        "1|{name:?}|{image:?}|{command:?}|{env:?}|{network:?}|{volumes:?}|{memory_mib:?}|{stop_timeout_seconds}"
    );
    // A newer agent adopts what an older one has made, where nothing of this is set.
    if *container != fleet_agent_config::Container::default() {
        text += &format!("|2|{container:?}");
    }
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

    /// An upgrade must not touch a sidecar: what version 0.1.0 made of these is what stands here.
    #[test]
    fn golden_hashes_of_definitions() {
        let source = include_str!("../../config/golden/agent-v1-full.toml");
        let settings = fleet_agent_config::Settings::read("agent.toml", source).expect("golden");
        let found = settings
            .sidecars
            .iter()
            .map(|sidecar| (sidecar.name.as_str(), spec(sidecar)));
        let found: Vec<_> = found.collect();
        let golden = [
            ("agent", "7a41328b90d5".to_owned()),
            ("metrics", "df6d6cec79f3".to_owned()),
        ];
        assert_eq!(found, golden);
    }

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
            container: fleet_agent_config::Container::default(),
            depends_on: vec![],
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
            healthy: None,
            started: Some(Timestamp::UNIX_EPOCH),
        }
    }

    /// Long after everything was started.
    fn planned(desired: &[Desired], scope: Scope, observed: &[Container]) -> Vec<Step> {
        plan(desired, scope, observed, &Failed::new(), later())
    }

    fn later() -> Timestamp {
        Timestamp::from_second(3_600).expect("in range")
    }

    #[test]
    fn what_is_right_is_adopted_without_a_bounce() {
        let logs = sidecar("logs", true);
        let observed = [container("1", &logs, true)];
        assert_eq!(planned(&Desired::all(&[logs]), Scope::All, &observed), []);
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
        let steps = planned(&desired, Scope::All, &observed);
        assert_eq!(
            steps,
            [
                Step::Remove {
                    id: "2".into(),
                    sidecar: "gone".into()
                },
                Step::Replace {
                    old: "1".into(),
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
        let steps = planned(&desired, Scope::BeforeTasks, &[]);
        assert_eq!(steps.len(), 1);
        assert_eq!(planned(&desired, Scope::All, &[]).len(), 2);
        // One that runs already is left running.
        let observed = [container("2", &sidecars[1], true)];
        assert_eq!(planned(&desired, Scope::BeforeTasks, &observed).len(), 1);
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

    #[test]
    fn one_waits_for_what_it_depends_on_to_be_up() {
        let logs = sidecar("logs", false);
        let shipper = Sidecar {
            depends_on: vec!["logs".into()],
            ..sidecar("shipper", false)
        };
        let desired = Desired::all(&[logs.clone(), shipper]);
        let created = |observed: &[Container], now| {
            let steps = plan(&desired, Scope::All, observed, &Failed::new(), now);
            let created = steps.into_iter().filter_map(|step| match step {
                Step::Create { sidecar, .. } => Some(sidecar.name),
                Step::Remove { .. } | Step::Start { .. } | Step::Replace { .. } => None,
            });
            created.collect::<Vec<_>>()
        };
        assert_eq!(created(&[], later()), ["logs"]);
        let observed = [container("1", &logs, true)];
        assert_eq!(
            created(&observed, Timestamp::UNIX_EPOCH),
            [""; 0],
            "it has only just started"
        );
        assert_eq!(created(&observed, later()), ["shipper"]);
    }

    #[test]
    fn what_did_not_come_up_is_not_tried_again_and_the_old_one_runs_on() {
        let old = sidecar("logs", false);
        let new = Sidecar {
            image: "example/logs:2".into(),
            ..old.clone()
        };
        let desired = Desired::all(std::slice::from_ref(&new));
        let failure = Failure {
            spec: spec(&new),
            why: "it is stopped".into(),
        };
        let failed = Failed::from([("logs".to_owned(), failure)]);
        let observed = [container("1", &old, true)];
        assert_eq!(plan(&desired, Scope::All, &observed, &failed, later()), []);
        let told = report(&desired, &observed, later());
        assert_eq!(told[0].state, State::Outdated);
        let observed = [container("1", &old, false)];
        let steps = plan(&desired, Scope::All, &observed, &failed, later());
        assert!(matches!(&steps[..], [Step::Start { .. }]), "{steps:?}");
    }

    #[test]
    fn a_health_check_says_when_a_sidecar_is_up() {
        let mut logs = sidecar("logs", false);
        logs.container.health_check = Some(fleet_agent_config::HealthCheck {
            command: vec!["true".into()],
            interval_seconds: 1,
            timeout_seconds: 1,
            retries: 1,
            start_period_seconds: 0,
        });
        let desired = Desired::all(std::slice::from_ref(&logs));
        let mut observed = container("1", &logs, true);
        for (healthy, state) in [
            (None, State::Unproven),
            (Some(false), State::Unhealthy),
            (Some(true), State::Up),
        ] {
            observed.healthy = healthy;
            let told = report(&desired, std::slice::from_ref(&observed), later());
            assert_eq!(told[0].state, state);
        }
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
            // One is replaced in each round, and the last one's old container goes after that.
            for _ in 0..5 {
                for step in planned(&desired, Scope::All, &world) {
                    world.retain(|container| match &step {
                        Step::Remove { id, .. } | Step::Replace { old: id, .. } => container.id != *id,
                        Step::Start { .. } | Step::Create { .. } => true,
                    });
                    match step {
                        Step::Remove { .. } => {}
                        Step::Start { id, .. } => {
                            for container in world.iter_mut().filter(|c| c.id == id) {
                                container.running = true;
                            }
                        }
                        Step::Create { sidecar, .. } | Step::Replace { sidecar, .. } => {
                            world.push(container("new", &sidecar, true));
                        }
                    }
                }
            }
            prop_assert_eq!(planned(&desired, Scope::All, &world), vec![]);
            prop_assert_eq!(world.len(), desired.len());
        }
    }
}
