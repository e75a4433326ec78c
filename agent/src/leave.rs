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

/// How often in a row an agent may not answer that answered before: it is restarted at times.
const PATIENCE: u32 = 30;

/// The same for a machine that shuts down, whose agent may not run at all.
const PATIENCE_AT_SHUTDOWN: u32 = 10;

/// How the wait for ACTIVE reads.
const BACK: &str = "the container instance to be ACTIVE";

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
        match status.phase() {
            Some(Phase::Abandoning) => {
                bail!("this node did not prove itself and is being replaced")
            }
            phase if phase < Some(Phase::Drained) => Ok(None),
            _ => match status.tasks.as_deref() {
                Some([]) => Ok(Some("drained".to_owned())),
                // Counted anew, or stopped once more.
                Some(_) | None => Ok(None),
            },
        }
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
        match status.phase() {
            Some(Phase::InService) if !status.waiting_on.starts_with(BACK) => {
                Ok(Some(format!("in service: {}", status.ecs)))
            }
            Some(Phase::Gated) => Ok(Some(format!("waiting for {}", status.waiting_on))),
            Some(Phase::Abandoning) => {
                bail!("this node did not prove itself and is being replaced")
            }
            _ => Ok(None),
        }
    })
}

/// Best effort, within what systemd gives: a machine that shuts down waits for nobody else. An agent
/// that is just being restarted is asked again; saying it twice is saying it once.
///
/// # Errors
/// Only what cannot be printed.
pub(crate) fn shut_down(socket: &Path, print: Print<'_>) -> Result<()> {
    let mut left = SHUTDOWN;
    let mut unanswered = 0;
    let mut told = String::new();
    while !left.is_zero() {
        let line = match ask(socket, &Request::Shutdown) {
            Ok(status) if status.phase() == Some(Phase::Done) => return print("left\n"),
            Ok(status) => {
                unanswered = 0;
                format!("{}: waiting for {}\n", status.phase, status.waiting_on)
            }
            Err(_) if unanswered == PATIENCE_AT_SHUTDOWN => {
                return print("the agent does not answer: this node leaves without it\n");
            }
            Err(error) => {
                unanswered += 1;
                format!("{error:#}\n")
            }
        };
        if line != told {
            print(&line)?;
            told = line;
        }
        sleep(LOOK_AGAIN);
        left = left.saturating_sub(LOOK_AGAIN);
    }
    print("out of time\n")
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
        let mut unanswered = 0;
        status = loop {
            sleep(LOOK_AGAIN);
            match ask(socket, &Request::Status) {
                Ok(status) => break status,
                Err(error) if unanswered == PATIENCE => return Err(error),
                Err(_) => unanswered += 1,
            }
        };
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
