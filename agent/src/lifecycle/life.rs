//! Machine and driver together: what happens goes in, what is to be done goes out, until the end.

use std::{future::pending, rc::Rc};

use tokio::sync::mpsc;

use super::{
    driver::{Context, Driver},
    event::Event,
    machine::Machine,
};
use crate::{
    clients::Clients,
    journal::{event::Entry, sink},
};

/// Events that may wait to be handled; senders then wait in turn.
const EVENTS: usize = 64;

#[derive(Debug)]
pub(crate) struct Life<C> {
    context: Rc<Context<C>>,
    machine: Machine,
    driver: Driver<C>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
}

impl<C: Clients + 'static> Life<C> {
    /// Must be used within a [`tokio::task::LocalSet`].
    pub(crate) fn new(context: Rc<Context<C>>, machine: Machine) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self {
            machine,
            driver: Driver::new(context.clone(), sender.clone()),
            context,
            sender,
            events,
        }
    }

    /// Where further sources of events send them.
    pub(crate) fn sender(&self) -> mpsc::Sender<Event> {
        self.sender.clone()
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The next event; a tick when only time has passed. Cancel safe: an event that is not handed
    /// out stays, and the time to wait is computed anew.
    pub(crate) async fn next(&mut self) -> Event {
        let now = self.context.clock.now();
        let wake = self.machine.wake_at().map(|at| at.since(now));
        let tick = async {
            match wake {
                Some(wait) => self.context.clock.sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // In one order, so that a simulated life is told the same way each time.
            biased;
            // Ours is one of the senders, so the channel never closes.
            Some(event) = self.events.recv() => event,
            () = tick => Event::Tick,
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let now = self.context.clock.now();
        match self.machine.handle(event, now) {
            Ok(actions) => self.driver.run(actions),
            Err(illegal) => sink::write(&Entry::Impossible {
                what: illegal.to_string(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
