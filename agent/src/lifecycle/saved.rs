//! What the world cannot tell after a restart.

use super::{cause::Cause, event::Phase};
use crate::{clients::imds::Identity, moment::Moment};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) instance: String,
    pub(crate) zone: String,
    pub(crate) spot: bool,
    /// The boot in which this was saved.
    pub(crate) boot: String,
    pub(crate) container_instance: Option<String>,
    pub(crate) launch: SavedLaunch,
    /// It was us who took the container instance from ACTIVE to DRAINING, or are about to.
    pub(crate) ours: bool,
    pub(crate) drain: Option<SavedDrain>,
}

impl Saved {
    pub(crate) fn identity(&self, region: &str) -> Identity {
        Identity {
            instance: self.instance.clone(),
            region: region.to_owned(),
            zone: self.zone.clone(),
            spot: self.spot,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SavedLaunch {
    /// When Auto Scaling was first seen to want it.
    pub(crate) began: Option<Moment>,
    /// Whether it was given up.
    pub(crate) abandoned: bool,
    /// Whether it is a launch into a warm pool.
    pub(crate) warm: bool,
    /// Whether the launch action was ever seen open: only then can it be abandoned.
    pub(crate) seen_open: bool,
    pub(crate) answered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedDrain {
    pub(crate) causes: Vec<Cause>,
    pub(crate) began: Moment,
    /// When this node was last set out to be emptied.
    pub(crate) since: Moment,
    /// Whether it has been drained once, on a machine that stayed.
    pub(crate) held: bool,
    /// Whether the container instance was set to DRAINING.
    pub(crate) set: bool,
    /// Whether the terminating action was ever seen open.
    pub(crate) seen_open: bool,
    /// Whether it was answered.
    pub(crate) answered: bool,
    pub(crate) phase: Phase,
}
