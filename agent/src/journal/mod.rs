//! What the agent tells in the journal: [`event`] holds every event with its text, [`sink`] brings
//! records to journald without ever waiting for it.

pub(crate) mod event;
pub(crate) mod sink;
