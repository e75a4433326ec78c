//! Which jobs are under way, and when each may be started again. Pure.

use std::time::Duration;

use super::event::Job;
use crate::moment::Moment;

const FIRST_RETRY: Duration = Duration::from_secs(1);
pub(super) const LAST_RETRY: Duration = Duration::from_secs(30);
/// For what is asked on this node itself, costs nothing, and must not be noticed late.
const LAST_LOCAL_RETRY: Duration = Duration::from_secs(1);
const LAST_IMDS_RETRY: Duration = Duration::from_secs(4);
/// For what only informs, once AWS has had enough of it: a fault that five thousand nodes share is not to
/// take the ten calls a second that others' drains need.
const LAST_SPREAD_RETRY: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Schedule {
    /// By job.
    jobs: [State; Job::COUNT],
    seed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    under_way: bool,
    /// What it comes to may be old news already: it is to run once more, at once.
    again: bool,
    due: Moment,
    failures: u32,
    error: Option<String>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            jobs: Default::default(),
            seed,
        }
    }

    /// When the job may be started; `None` while it is under way.
    pub(super) fn due(&self, job: Job) -> Option<Moment> {
        let state = self.of(job);
        (!state.under_way).then_some(state.due)
    }

    pub(super) fn is_under_way(&self, job: Job) -> bool {
        self.of(job).under_way
    }

    pub(super) fn start(&mut self, job: Job) {
        self.of_mut(job).under_way = true;
    }

    /// The job went well and may run again at `due`. Returns whether it had failed before.
    pub(super) fn succeed(&mut self, job: Job, due: Moment) -> bool {
        let before = std::mem::take(self.of_mut(job));
        if !before.again {
            self.of_mut(job).due = due;
        }
        before.error.is_some()
    }

    /// The job failed and runs again after a growing, jittered wait. Returns whether the error is
    /// news: another one than before, or the same for the 10th, 100th... time.
    pub(super) fn fail(&mut self, job: Job, error: &str, now: Moment) -> bool {
        let wait = self.retry(job, error);
        let state = self.of_mut(job);
        state.under_way = false;
        state.failures = state.failures.saturating_add(1);
        state.due = now + wait;
        let news = is_news(state.error.as_deref(), error, state.failures);
        state.error = Some(error.to_owned());
        news
    }

    pub(super) fn error(&self, job: Job) -> Option<&str> {
        self.of(job).error.as_deref()
    }

    /// Whatever waited for its next turn may go now: another phase has begun.
    pub(super) fn hurry(&mut self) {
        for state in &mut self.jobs {
            state.due = Moment::default();
        }
    }

    /// There is news for this job, also if it is under way and may have missed it.
    pub(super) fn hurry_one(&mut self, job: Job) {
        let state = self.of_mut(job);
        if state.error.is_none() {
            state.due = Moment::default();
            state.again = state.under_way;
        }
    }

    /// Between half and the whole of a span that doubles with each failure.
    fn retry(&self, job: Job, error: &str) -> Duration {
        backoff(
            FIRST_RETRY,
            last_retry(job, error),
            self.of(job).failures,
            self.seed ^ job as u64,
        )
    }

    fn of(&self, job: Job) -> &State {
        &self.jobs[job as usize]
    }

    fn of_mut(&mut self, job: Job) -> &mut State {
        &mut self.jobs[job as usize]
    }
}

fn last_retry(job: Job, error: &str) -> Duration {
    match job {
        Job::Publish | Job::LookAround if error.contains("ThrottlingException") => {
            LAST_SPREAD_RETRY
        }
        Job::ReadEcsAgent | Job::CountTasks => LAST_LOCAL_RETRY,
        Job::Identify | Job::ReadTarget | Job::ReadSpot => LAST_IMDS_RETRY,
        Job::WriteEcsConfig
        | Job::ReadMaintenance
        | Job::ReadTag
        | Job::ClearCheckpoint
        | Job::ConvergeSidecars
        | Job::Release
        | Job::HealEcs
        | Job::Describe
        | Job::Publish
        | Job::OpenLaunch
        | Job::CompleteLaunch
        | Job::AbandonLaunch
        | Job::SetDraining
        | Job::SetActive
        | Job::ReadGroups
        | Job::StopStandalone
        | Job::ConfirmEmpty
        | Job::ShutGate
        | Job::StopLeftovers
        | Job::StopSidecars
        | Job::CompleteDrain
        | Job::ProbeDrain
        | Job::LookAround
        | Job::Condemn
        | Job::PowerOff
        | Job::Keep => LAST_RETRY,
    }
}

/// Whether a failure is worth a record: another error than before, or the same for the 10th, 100th...
/// time in a row.
pub(crate) fn is_news(before: Option<&str>, error: &str, failures: u32) -> bool {
    before != Some(error) || (failures >= 10 && 10_u32.pow(failures.ilog10()) == failures)
}

/// A jittered wait that doubles with each round, from `first` to `last`.
pub(crate) fn backoff(first: Duration, last: Duration, round: u32, seed: u64) -> Duration {
    let span = first.saturating_mul(1 << round.min(10)).min(last);
    jitter(span, seed ^ (u64::from(round) << 32))
}

/// Between half and the whole of `span`, drawn from `seed` (splitmix64's finalizer).
pub(crate) fn jitter(span: Duration, seed: u64) -> Duration {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    let half = span / 2;
    let millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
    half + Duration::from_millis(bits % (millis + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_come_later_and_later_within_bounds_and_news_is_told_once() {
        let mut schedule = Schedule::new(7);
        let now = Moment::from_millis(1_000);
        let mut news = Vec::new();
        let mut waits = Vec::new();
        for round in 1..=100 {
            schedule.start(Job::Publish);
            if schedule.fail(Job::Publish, "no", now) {
                news.push(round);
            }
            waits.push(
                schedule
                    .due(Job::Publish)
                    .expect("not under way")
                    .since(now),
            );
        }
        assert_eq!(news, [1, 10, 100]);
        assert!(waits[0] >= FIRST_RETRY / 2 && waits[0] <= FIRST_RETRY);
        assert!(
            waits[50..]
                .iter()
                .all(|wait| *wait >= LAST_RETRY / 2 && *wait <= LAST_RETRY)
        );
        assert!(schedule.succeed(Job::Publish, now));
        assert!(!schedule.succeed(Job::Publish, now));
    }

    #[test]
    fn what_only_informs_leaves_the_rate_to_others_once_aws_has_had_enough() {
        let mut schedule = Schedule::new(7);
        let now = Moment::from_millis(1_000);
        let mut longest = |job, error| {
            for _ in 0..12 {
                schedule.start(job);
                let _ = schedule.fail(job, error, now);
            }
            schedule.due(job).expect("not under way").since(now)
        };
        let throttled = "ecs:PutAttributes of x: ThrottlingException: Rate exceeded";
        assert!(longest(Job::Publish, throttled) >= LAST_SPREAD_RETRY / 2);
        assert!(longest(Job::Publish, "no route") <= LAST_RETRY);
        assert!(longest(Job::SetDraining, throttled) <= LAST_RETRY);
    }

    #[test]
    fn news_that_comes_while_a_job_is_under_way_has_it_run_again() {
        let mut schedule = Schedule::new(7);
        let (now, due) = (Moment::from_millis(1_000), Moment::from_millis(2_000));
        schedule.start(Job::CountTasks);
        schedule.hurry_one(Job::CountTasks);
        schedule.succeed(Job::CountTasks, due);
        assert!(schedule.due(Job::CountTasks) <= Some(now));
        schedule.start(Job::CountTasks);
        schedule.succeed(Job::CountTasks, due);
        assert_eq!(schedule.due(Job::CountTasks), Some(due), "once");
    }

    #[test]
    fn nodes_with_different_seeds_do_not_retry_in_step() {
        let waits: std::collections::BTreeSet<_> =
            (0..50).map(|seed| jitter(LAST_RETRY, seed)).collect();
        assert!(waits.len() > 45);
    }
}
