//! What must hold, judged by what the world did and saw.

use std::time::Duration;

use super::{
    node::{Node, Open, Power, State},
    world::{CONTAINER_STOP, DRAIN_HOOK, STEP, World},
};

/// The hook's answer and the last records.
const ANSWER: u64 = 15_000;
/// What a hard end keeps.
const SPARE: u64 = 12_000;
/// On top of what containers are given to end.
const LEFTOVERS: u64 = 12_000;
/// How much later than its deadline a drain may be seen to end: the machine counts from when it
/// first saw the cause, and the last stops take their time.
const MARGIN: u64 = 45_000;
/// Within this a node that is well is ACTIVE.
const SETTLES: u64 = 60_000;
/// A withdrawn cause rules on until the agent has read that it is withdrawn.
const LINGERS: u64 = 120_000;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// A node is never handed over while a task's container runs on it, before its deadline.
    HandsOverEmpty,
    /// ECS has been told of every task's end before its node is handed over: what a task ended with
    /// would be lost.
    EcsKnows,
    /// Every drain hook is answered before it expires.
    AnswersInTime,
    /// `fleet-drain` is never answered with ABANDON.
    NeverAbandonsDrain,
    /// Every drain ends by its deadline.
    DrainsInTime,
    /// No sidecar is stopped while a task's container runs, before the deadline.
    SidecarsLast,
    /// Only what we set to DRAINING is set back to ACTIVE.
    SetsBackOnlyItsOwn,
    /// Calls of AWS are few.
    FewCalls,
    /// ECS is not started on a node that waits in a warm pool.
    WarmStaysOut,
    /// Sidecars of a spot node have ended well before EC2 takes it.
    FlushedBeforeSpot,
    /// Once all is well, nodes that serve are ACTIVE.
    ServesAgain,
}

/// A promise broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in the story's time.
    pub at: Duration,
    /// On which node, in the order of their launch.
    pub node: usize,
    /// For people.
    pub what: String,
}

impl World {
    fn sidecars_ms(&self) -> u64 {
        u64::from(fleet_agent_config::sidecars_seconds(
            &self.settings.sidecars,
        )) * 1_000
    }

    /// When the last part of the nearest cause's time begins, in which even tasks that still run do
    /// not hold the node; from what the world did, not from what the machine made of it.
    pub(super) fn last_part(&self, node: &Node, now: u64) -> u64 {
        let sidecars = self.sidecars_ms();
        let causes = node.book.causes.iter();
        causes
            .filter(|made| made.withdrawn.is_none_or(|at| at + LINGERS > now))
            .map(|made| {
                let last = if made.hard {
                    SPARE + sidecars.max(15_000)
                } else {
                    ANSWER + sidecars
                };
                made.end.saturating_sub(last + 1_000)
            })
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Containers of tasks that an agent must not overlook: what ECS calls stopped while Docker is of
    /// no help, nobody can know.
    pub(super) fn runs_tasks(&self, node: &Node, now: u64) -> usize {
        let blind = node.book.docker_down_at + 60_000 > now;
        let runs = node.containers.values();
        runs.filter(|process| process.ends_at.is_none_or(|at| at > now))
            .filter(|process| !(blind && process.denied))
            .count()
    }

    pub(super) fn judge_last(&mut self, index: usize, invariant: Invariant, what: &str) {
        let now = self.millis();
        let node = &self.nodes[index];
        let running = self.runs_tasks(node, now);
        let last = self.last_part(node, now);
        // A node that could not be set to DRAINING is given tasks to its end.
        let is_cut_off = node.book.disturbed_at + 60_000 > now
            && self.instance_status(index) == Some(fleet_sandbox::ecs::InstanceStatus::Active);
        if running > 0 && now < last && !is_cut_off {
            let text = format!(
                "{what} with {running} containers of tasks, {} s early",
                last.saturating_sub(now) / 1_000
            );
            self.violate(invariant, index, text);
        }
    }

    /// Where the end is EC2's, or somebody does not answer, ECS is not waited for.
    pub(super) fn judge_known(&mut self, index: usize) {
        let now = self.millis();
        let node = &self.nodes[index];
        let is_disturbed = node.book.disturbed_at.max(node.book.docker_down_at) + 60_000 > now;
        let is_hard = node.book.causes.iter().any(|made| made.hard);
        // What had to be stopped at the deadline is reported once the ECS agent is back, if in time.
        let stop = u64::try_from(CONTAINER_STOP.as_millis()).unwrap() + LEFTOVERS;
        // One that has been silent is passed over: Docker alone decides.
        let is_silent = !node.ecs.active || node.faults.ecs != State::Works;
        if is_disturbed || is_hard || is_silent || now + stop >= self.last_part(node, now) {
            return;
        }
        let unknown = self.tasks_of(index);
        if unknown > 0 {
            let what = format!("CONTINUE while ECS knows of {unknown} tasks that have not ended");
            self.violate(Invariant::EcsKnows, index, what);
        }
    }

    /// What can only be seen from time to time.
    pub(super) fn judge(&mut self, index: usize, now: u64) {
        let step = u64::try_from(STEP.as_millis()).unwrap();
        let third = u64::from(self.settings.drain_timeout_seconds) * 1_000 / 3;
        let node = &self.nodes[index];
        if node.power == Power::Gone {
            return;
        }
        let held = self.autoscaling.instance(&node.instance);
        let target = held.and_then(|(_, known)| known.target_lifecycle_state());
        let state = held.map(|(_, known)| known.state);
        let is_open = held
            .is_some_and(|(_, known)| known.actions.iter().any(|action| action.hook == DRAIN_HOOK));
        let spans_ms = u64::from(self.settings.drain.deadline_seconds) * 1_000;
        let is_warm = target.is_some_and(|target| target.starts_with("Warmed"));
        let is_quiet = self.is_quiet_since;

        let node = &mut self.nodes[index];
        if target == Some("Terminated") {
            node.cause("auto-scaling".into(), false, now + spans_ms);
        }
        node.book.warm_since = is_warm.then(|| node.book.warm_since.unwrap_or(now));
        let serves = state == Some(fleet_sandbox::autoscaling::LifecycleState::InService);
        node.book.serving_since = serves.then(|| node.book.serving_since.unwrap_or(now));
        let faults = &node.faults;
        let is_disturbed = !node.is_agent_up()
            || [faults.imds, faults.aws, faults.disk]
                .iter()
                .any(|state| *state != State::Works);
        if is_disturbed || node.power != Power::On {
            node.book.disturbed_at = now;
        }
        if node.faults.docker == State::Works {
            node.book.docker_down_since = None;
        } else {
            node.book.docker_down_at = now;
            node.book.docker_down_since.get_or_insert(now);
        }
        match (&mut node.book.open, is_open) {
            (None, true) => {
                node.book.answered = false;
                let (disturbed, missed, excused) = (0, 0, false);
                node.book.open = Some(Open {
                    disturbed,
                    missed,
                    excused,
                });
            }
            (Some(open), true) => {
                if is_disturbed {
                    open.disturbed += step;
                }
            }
            (Some(open), false) => {
                let is_excused = open.excused
                    || open.missed >= 2
                    || open.disturbed > third
                    || node.power != Power::On;
                let answered = node.book.answered;
                node.book.open = None;
                if !answered && !is_excused {
                    let what = "the drain hook expired unanswered".to_owned();
                    self.violate(Invariant::AnswersInTime, index, what);
                }
            }
            (None, false) => {}
        }
        self.judge_deadline(index, now, is_open);
        if let Some(since) = is_quiet {
            self.judge_service(index, since, now);
        }
    }

    fn judge_deadline(&mut self, index: usize, now: u64, is_open: bool) {
        let stop = u64::try_from(CONTAINER_STOP.as_millis()).unwrap();
        let node = &self.nodes[index];
        let standing = node
            .book
            .causes
            .iter()
            .filter(|made| made.withdrawn.is_none());
        // What a machine that stayed was drained for has had its time.
        let standing = standing.filter(|made| !is_open || made.id == "auto-scaling");
        let Some(end) = standing.map(|made| made.end).min() else {
            return;
        };
        let settled = 2 * MARGIN + stop;
        let is_well = node.book.disturbed_at + settled < now
            && node.book.docker_down_at + settled < now
            && node.power == Power::On;
        if node.book.late_told || !is_well || now < end + MARGIN || self.is_stormy() {
            return;
        }
        let running = self.runs_tasks(node, now);
        let joined = node.ecs.arn.is_some();
        if running > 0 && joined || is_open {
            self.nodes[index].book.late_told = true;
            let late = (now - end) / 1_000;
            let what = format!(
                "{late} s after the deadline: {running} containers of tasks, hook held: {is_open}"
            );
            self.violate(Invariant::DrainsInTime, index, what);
        }
    }

    fn judge_service(&mut self, index: usize, quiet_since: u64, now: u64) {
        let settled =
            quiet_since.max(self.nodes[index].book.serving_since.unwrap_or(now)) + SETTLES;
        let node = &self.nodes[index];
        let stands = node
            .book
            .causes
            .iter()
            .any(|made| made.withdrawn.is_none_or(|at| at + LINGERS > now));
        let is_judged = node.power == Power::On
            && node.is_agent_up()
            && node.book.serving_since.is_some()
            && settled <= now
            && node.book.disturbed_at + SETTLES < now
            && !stands
            && !node.book.drained_by_other
            && !node.book.gave_up
            && !node.book.forgot
            && !node.book.late_told;
        if !is_judged {
            return;
        }
        let status = self.instance_status(index);
        if status != Some(fleet_sandbox::ecs::InstanceStatus::Active) {
            self.nodes[index].book.late_told = true;
            let what = format!("in service and nothing asks for a drain, yet ECS says {status:?}");
            self.violate(Invariant::ServesAgain, index, what);
        }
    }

    /// Calls go wrong so often now that nothing has a bound.
    pub(super) fn is_stormy(&self) -> bool {
        self.weather.fails + self.weather.lost + self.weather.throttled > 150
    }
}
