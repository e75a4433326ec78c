//! What the process says with its exit code. Scripts rely on these: they never change.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or there was nothing to do.
    Done,
    /// 1: an error, wrong usage included; what it is stands on standard error.
    Error,
    /// 2: `plan` found changes.
    Changes,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Changes => 2,
        })
    }
}
