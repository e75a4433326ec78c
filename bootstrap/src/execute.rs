//! Runs a plan's steps, each as soon as what it waits for is done.
//!
//! Guarantees: at most [`PARALLEL`] steps run at once; after a failure, or when a stop was asked
//! for, nothing new starts and what runs is waited for, so that no write is cut in the middle.

use std::{fmt, future::Future};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use crate::plan::{Plan, Step};

/// Steps in flight: enough for a group's independent writes, few enough for AWS's write limits.
const PARALLEL: usize = 8;

/// Whatever can carry out steps.
pub(crate) trait Runner {
    /// Carries out one step, waiting until its result can be relied on.
    fn run(&self, step: &Step) -> impl Future<Output = anyhow::Result<()>>;
    /// Told when a step begins and when it is done.
    fn progress(&self, event: Event<'_>);
}

/// How far a step is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    Started(&'a Step),
    Done(&'a Step),
}

/// Why a plan was not carried out to its end.
#[derive(Debug)]
pub(crate) struct Halt {
    /// What failed, with the step it was.
    pub(crate) failures: Vec<(String, anyhow::Error)>,
    /// Steps that were done, and how many there were.
    pub(crate) done: usize,
    pub(crate) total: usize,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, error) in &self.failures {
            writeln!(f, "failed to {title}: {error:#}")?;
        }
        if self.failures.is_empty() {
            write!(f, "stopped on request ")?;
        }
        write!(f, "after {} of {} steps", self.done, self.total)
    }
}

impl std::error::Error for Halt {}

/// A wish to stop, that everything which waits can see.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The wish, and the means to utter it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once a stop is wished for; never when nobody can any more.
    pub(crate) async fn requested(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A wait that was cut short by a [`Stop`]: what it waited for is not done, and has not failed.
#[derive(Debug, thiserror::Error)]
#[error("stopped on request")]
pub(crate) struct Stopped;

/// Runs all steps of `plan`.
///
/// # Errors
/// When a step failed or a stop was asked for; everything that ran has ended then.
pub(crate) async fn execute<R: Runner>(plan: &Plan, runner: &R, stop: &Stop) -> Result<(), Halt> {
    let mut waiting: Vec<usize> = (0..plan.steps.len()).collect();
    let mut is_done = vec![false; plan.steps.len()];
    let mut failures = Vec::new();
    let mut running = FuturesUnordered::new();
    loop {
        if failures.is_empty() && !stop.is_requested() {
            waiting.retain(|&index| {
                let planned = &plan.steps[index];
                let is_ready = planned.after.iter().all(|&before| is_done[before]);
                if !is_ready || running.len() >= PARALLEL {
                    return true;
                }
                runner.progress(Event::Started(&planned.step));
                running.push(async move { (index, run(runner, &planned.step, stop).await) });
                false
            });
        }
        // Cancel-safe: the set keeps what is not finished.
        let Some((index, result)) = running.next().await else {
            break;
        };
        let step = &plan.steps[index].step;
        match result {
            Some(Ok(())) => {
                is_done[index] = true;
                runner.progress(Event::Done(step));
            }
            Some(Err(error)) if error.is::<Stopped>() => {}
            Some(Err(error)) => failures.push((step.title(), error)),
            None => {}
        }
    }
    let done = is_done.iter().filter(|done| **done).count();
    if done == plan.steps.len() {
        return Ok(());
    }
    Err(Halt {
        failures,
        done,
        total: plan.steps.len(),
    })
}

/// A step that only waits is given up on a stop: `None`.
async fn run<R: Runner>(runner: &R, step: &Step, stop: &Stop) -> Option<anyhow::Result<()>> {
    if step.awaited().is_none() {
        return Some(runner.run(step).await);
    }
    tokio::select! {
        // The wait may end by the same stop, which is then no failure.
        biased;
        () = stop.requested() => None,
        // Cancel-safe: a wait has no effect of its own.
        result = runner.run(step) => Some(result),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use anyhow::bail;

    use super::*;
    use crate::plan::{AutoScalingStep, Goal, IamStep, Planned};

    /// Records what ran; fails at one step, and can ask for a stop at another; a step `waits`
    /// ends by a stop.
    #[derive(Default)]
    struct Recorder {
        ran: RefCell<Vec<String>>,
        fails: Option<&'static str>,
        stops: Option<(&'static str, Option<watch::Sender<bool>>)>,
        running: Cell<usize>,
        most: Cell<usize>,
    }

    impl Runner for Recorder {
        async fn run(&self, step: &Step) -> anyhow::Result<()> {
            self.running.set(self.running.get() + 1);
            self.most.set(self.most.get().max(self.running.get()));
            // The longer the name, the longer it takes.
            let name = step.title();
            for _ in 0..name.len() {
                tokio::task::yield_now().await;
            }
            self.running.set(self.running.get() - 1);
            let Step::Iam(IamStep::DeleteRole { name }) = step else {
                return std::future::pending().await;
            };
            if let Some((at, Some(sender))) = &self.stops
                && at == name
            {
                sender.send_replace(true);
            }
            if name == "waits" {
                return Err(anyhow::Error::from(Stopped).context("while it waited"));
            }
            if self.fails == Some(name) {
                bail!("no");
            }
            self.ran.borrow_mut().push(name.clone());
            Ok(())
        }

        fn progress(&self, _: Event<'_>) {}
    }

    #[tokio::test]
    async fn a_wait_that_was_stopped_is_no_failure() {
        let plan = steps(&[("first", &[]), ("waits", &[0]), ("after", &[1])]);
        let recorder = Recorder::default();
        let (_sender, stop) = Stop::new();
        let halt = execute(&plan, &recorder, &stop).await.expect_err("stops");
        assert_eq!(halt.to_string(), "stopped on request after 1 of 3 steps");
    }

    fn steps(names: &[(&str, &[usize])]) -> Plan {
        Plan {
            steps: names
                .iter()
                .map(|(name, after)| Planned {
                    step: Step::Iam(IamStep::DeleteRole {
                        name: (*name).to_owned(),
                    }),
                    after: after.to_vec(),
                })
                .collect(),
            ..Plan::empty(Goal::Up)
        }
    }

    #[tokio::test]
    async fn steps_run_after_what_they_wait_for_and_never_too_many_at_once() {
        let names: Vec<String> = (0..30).map(|n| format!("leaf {n}")).collect();
        let mut plan = steps(&[("c", &[]), ("b", &[0]), ("a", &[1])]);
        for name in &names {
            plan.steps.extend(steps(&[(name, &[2])]).steps);
        }
        let recorder = Recorder::default();
        let (_sender, stop) = Stop::new();
        execute(&plan, &recorder, &stop).await.expect("runs");
        let ran = recorder.ran.borrow();
        assert_eq!(ran[..3], ["c", "b", "a"]);
        assert_eq!(ran.len(), 33);
        assert_eq!(recorder.most.get(), PARALLEL);
    }

    #[tokio::test]
    async fn a_failure_lets_others_finish_and_starts_nothing_new() {
        let plan = steps(&[("bad", &[]), ("beside", &[]), ("after", &[1])]);
        let recorder = Recorder {
            fails: Some("bad"),
            ..Recorder::default()
        };
        let (_sender, stop) = Stop::new();
        let halt = execute(&plan, &recorder, &stop).await.expect_err("fails");
        assert_eq!(*recorder.ran.borrow(), ["beside"]);
        assert_eq!(
            halt.to_string(),
            "failed to delete role bad: no\nafter 1 of 3 steps"
        );
    }

    #[tokio::test]
    async fn a_stop_ends_waits_and_starts_nothing_new() {
        let mut plan = steps(&[("first", &[]), ("second", &[0])]);
        plan.steps.push(Planned {
            step: Step::AutoScaling(AutoScalingStep::AwaitFirstNode { group: "g".into() }),
            after: vec![],
        });
        let (sender, stop) = Stop::new();
        let recorder = Recorder {
            stops: Some(("first", Some(sender))),
            ..Recorder::default()
        };
        let halt = execute(&plan, &recorder, &stop).await.expect_err("stops");
        assert_eq!(*recorder.ran.borrow(), ["first"]);
        assert_eq!(halt.to_string(), "stopped on request after 1 of 3 steps");
    }
}
