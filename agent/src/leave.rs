//! `fleet-agent drain` and `undrain`: tells the running agent, and shows what it does about it.
#![allow(
    clippy::disallowed_methods,
    reason = "an edge: a command that waits for the running agent"
)]

use std::{path::Path, thread::sleep, time::Duration};

use anyhow::{Result, bail};

use crate::{
    lifecycle::{
        cause::{Kind, SHUTDOWN},
        event::Phase,
    },
    status::{Request, Status, ask},
};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where lines for people go.
type Print<'a> = &'a dyn Fn(&str) -> Result<()>;

/// Drains, and waits until the tasks are gone.
///
/// # Errors
/// If the agent does not answer, or the drain was called off.
pub(crate) fn drain(socket: &Path, reason: String, no_wait: bool, print: Print<'_>) -> Result<()> {
    let status = ask(socket, &Request::Drain { reason })?;
    if no_wait {
        return print(
            "draining: `fleet-agent status` shows how far, `fleet-agent undrain` ends it\n",
        );
    }
    watch(socket, status, print, |status| {
        if !status.is_held_by(Kind::Operator) {
            bail!("the drain was called off");
        }
        let phase = status.phase();
        Ok((phase >= Some(Phase::Drained)).then(|| "drained".to_owned()))
    })
}

/// Withdraws a drain, and waits until the node serves again.
///
/// # Errors
/// If the agent does not answer.
pub(crate) fn undrain(socket: &Path, print: Print<'_>) -> Result<()> {
    let status = ask(socket, &Request::Undrain)?;
    watch(socket, status, print, |status| {
        if let Some(drain) = &status.drain {
            let causes: Vec<_> = drain.causes.iter().map(|c| c.cause.as_str()).collect();
            return Ok(Some(format!(
                "still leaving, for another reason: {}",
                causes.join("; ")
            )));
        }
        let serves = status.phase() == Some(Phase::InService) && status.waiting_on == "nothing";
        Ok(serves.then(|| format!("in service: {}", status.ecs)))
    })
}

/// Best effort, within what systemd gives: a machine that shuts down waits for nobody else.
///
/// # Errors
/// Only what cannot be printed.
pub(crate) fn shut_down(socket: &Path, print: Print<'_>) -> Result<()> {
    let status = match ask(socket, &Request::Shutdown) {
        Ok(status) => status,
        Err(error) => return print(&format!("no drain before this shutdown: {error:#}\n")),
    };
    let mut left = SHUTDOWN;
    let watched = watch(socket, status, print, |status| {
        left = left.saturating_sub(LOOK_AGAIN);
        let is_over = status.phase() == Some(Phase::Done);
        Ok(if is_over {
            Some("left".to_owned())
        } else {
            left.is_zero().then(|| "out of time".to_owned())
        })
    });
    watched.or_else(|error| print(&format!("left to itself: {error:#}\n")))
}

/// Prints what is waited for whenever that changes, until `over` says that it is over.
fn watch(
    socket: &Path,
    mut status: Status,
    print: Print<'_>,
    mut over: impl FnMut(&Status) -> Result<Option<String>>,
) -> Result<()> {
    let mut told = String::new();
    loop {
        if let Some(end) = over(&status)? {
            return print(&format!("{end}\n"));
        }
        let line = format!("{}: waiting for {}\n", status.phase, status.waiting_on);
        if line != told {
            print(&line)?;
            told = line;
        }
        sleep(LOOK_AGAIN);
        status = ask(socket, &Request::Status)?;
    }
}

impl Status {
    fn phase(&self) -> Option<Phase> {
        Phase::parse(&self.phase)
    }

    fn is_held_by(&self, kind: Kind) -> bool {
        let mut causes = self.drain.iter().flat_map(|drain| &drain.causes);
        causes.any(|cause| cause.kind == kind.as_str())
    }
}
