//! Does what the machine says. Every job runs as a task of its own, so that a remote that hangs
//! holds up nothing else; what comes of it returns as an event.

use std::{rc::Rc, time::Duration};

use anyhow::Result;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinHandle, spawn_local},
};

pub(crate) use super::perform::Context;
use super::{
    event::{Action, Event, Job, Work},
    perform::{bound, late},
    schedule::{LAST_RETRY, backoff, is_news, jitter},
};
use crate::{
    clients::{
        Clients,
        autoscaling::{AutoScaling, HookAnswer, Verb},
        disk::Disk,
    },
    journal::{self, event::Entry},
    moment::Moment,
};

/// Until the action has opened, its heartbeat is tried after this long, then later and later.
const OPENING: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Driver<C> {
    context: Rc<Context<C>>,
    events: mpsc::Sender<Event>,
    heartbeats: Option<AbortHandle>,
    converging: Option<AbortHandle>,
    unkept: bool,
}

impl<C: Clients + 'static> Driver<C> {
    /// Must be used within a [`tokio::task::LocalSet`].
    pub(crate) fn new(context: Rc<Context<C>>, events: mpsc::Sender<Event>) -> Self {
        Self {
            context,
            events,
            heartbeats: None,
            converging: None,
            unkept: false,
        }
    }

    /// Does the actions in their order; jobs are only begun.
    pub(crate) fn run(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Save(saved) => {
                    // A full disk must not keep a node from draining: only a restart would miss it.
                    let kept = self.context.clients.disk().save(&saved);
                    let is_news = kept.is_err() || self.unkept;
                    self.unkept = kept.is_err();
                    if is_news {
                        let kept = kept.map_err(|error| format!("{error:#}"));
                        self.tell(Event::Kept(kept));
                    }
                }
                Action::Start(work) => self.start(work),
                Action::StartHeartbeats { until } => {
                    self.stop_heartbeats();
                    let beat = heartbeats(self.context.clone(), self.events.clone(), until);
                    self.heartbeats = Some(spawn_local(beat).abort_handle());
                }
                Action::StopHeartbeats => self.stop_heartbeats(),
                Action::Record(entry) => journal::sink::write(&entry),
                Action::Console(text) => {
                    let said = self.context.clients.disk().say(&text);
                    report("speak on the console", said);
                }
            }
        }
    }

    fn start(&mut self, work: Work) {
        let job = work.job();
        if job == Job::StopSidecars
            && let Some(converging) = self.converging.take()
        {
            // A pull that goes on would start a sidecar after the last was stopped. It is told as
            // ended: a node that comes back from a stop converges again.
            if !converging.is_finished() {
                converging.abort();
                let error = "given up: sidecars are to stop".to_owned();
                self.tell(Event::Finished(Job::ConvergeSidecars, Err(error)));
            }
        }
        let task = self.spawn(work);
        if job == Job::ConvergeSidecars {
            self.converging = Some(task.abort_handle());
        }
    }

    /// The machine is not to be entered again while it is listened to.
    fn tell(&self, event: Event) {
        let events = self.events.clone();
        spawn_local(async move {
            // The receiver is gone only when the process is about to end.
            let _ = events.send(event).await;
        });
    }

    fn spawn(&self, work: Work) -> JoinHandle<()> {
        let context = self.context.clone();
        let events = self.events.clone();
        spawn_local(async move {
            let job = work.job();
            let limit = bound(&work, context.container_stop);
            // Boxed: it has room for the largest of all kinds of work, and a task is moved a lot before
            // it runs.
            let performed = Box::pin(context.perform(work));
            let result = match tokio::time::timeout(limit, performed).await {
                Ok(result) => result,
                Err(_) => Err(late(limit)),
            };
            let result = result.map_err(|error| format!("{error:#}"));
            // The receiver is gone only when the process is about to end.
            let _ = events.send(Event::Finished(job, result)).await;
        })
    }

    fn stop_heartbeats(&mut self) {
        if let Some(task) = self.heartbeats.take() {
            task.abort();
        }
    }
}

impl<C> Drop for Driver<C> {
    fn drop(&mut self) {
        if let Some(task) = self.heartbeats.take() {
            task.abort();
        }
    }
}

/// Keeps the terminating action open: a heartbeat at a third of the hook's time-out, more often
/// until the first is taken. Independent of Docker and of the drain's own work.
async fn heartbeats<C: Clients>(
    context: Rc<Context<C>>,
    events: mpsc::Sender<Event>,
    until: Moment,
) {
    let third = Duration::from_secs(context.settings.drain_timeout_seconds.into()) / 3;
    let hook = &context.settings.drain_hook;
    let mut beats = Beats::new(third, context.seed);
    while context.clock.now() < until {
        let Some(identity) = context.identity.get() else {
            return;
        };
        let answer = context
            .clients
            .autoscaling()
            .answer(hook, &identity.instance, Verb::Heartbeat)
            .await;
        let wait = match answer {
            Ok(answer) => {
                let _ = events.send(Event::Heartbeat(answer)).await;
                beats.answered(answer)
            }
            Err(error) => {
                let (wait, is_news) = beats.failed(&format!("{error:#}"));
                if is_news {
                    report("send a heartbeat", Err(error));
                }
                wait
            }
        };
        context.clock.sleep(wait).await;
    }
}

/// How heartbeats follow one another.
#[derive(Debug)]
struct Beats {
    third: Duration,
    seed: u64,
    opened: bool,
    /// Attempts in a row that were not taken.
    misses: u32,
    failures: u32,
    error: Option<String>,
}

impl Beats {
    fn new(third: Duration, seed: u64) -> Self {
        Self {
            third,
            seed,
            opened: false,
            misses: 0,
            failures: 0,
            error: None,
        }
    }

    fn answered(&mut self, answer: HookAnswer) -> Duration {
        self.failures = 0;
        self.error = None;
        if answer == HookAnswer::Taken {
            self.opened = true;
            self.misses = 0;
        }
        if self.opened {
            return jitter(self.third, self.seed);
        }
        self.miss()
    }

    /// The wait, and whether the error is news.
    fn failed(&mut self, error: &str) -> (Duration, bool) {
        self.failures = self.failures.saturating_add(1);
        let is_news = is_news(self.error.as_deref(), error, self.failures);
        self.error = Some(error.to_owned());
        (self.miss(), is_news)
    }

    fn miss(&mut self) -> Duration {
        let wait = backoff(OPENING, LAST_RETRY.min(self.third), self.misses, self.seed);
        self.misses = self.misses.saturating_add(1);
        wait
    }
}

fn report(call: &'static str, result: Result<()>) {
    if let Err(error) = result {
        journal::sink::write(&Entry::CallFailed {
            call,
            error: format!("{error:#}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_that_are_not_taken_come_later_and_later_and_news_is_told_once() {
        let third = Duration::from_secs(20);
        let mut beats = Beats::new(third, 7);
        let first = beats.answered(HookAnswer::NotOpen);
        assert!(first <= OPENING);
        let mut told = 0;
        for _ in 0..50 {
            let (wait, is_news) = beats.failed("throttled");
            told += u32::from(is_news);
            assert!(wait <= third);
        }
        assert_eq!(told, 2, "the first and the tenth");
        assert!(beats.answered(HookAnswer::NotOpen) >= third / 2);
        assert!(beats.answered(HookAnswer::Taken) >= third / 2);
        assert!(beats.failed("throttled").1, "news again");
    }
}
