//! What an agent over a fake node works with.

use std::{rc::Rc, time::Duration};

use fleet_agent_config::Settings;
use tokio::sync::OnceCell;

use super::Node;
use crate::{lifecycle::driver::Context, sidecars::plan::Desired};

/// What stops a task's container, as ECS gives it by default.
pub(crate) const CONTAINER_STOP: Duration = Duration::from_secs(30);

/// The settings that every version has to read.
pub(crate) fn golden_settings() -> Settings {
    let source = include_str!("../../config/golden/agent-v1.toml");
    Settings::read("agent.toml", source).expect("golden settings")
}

/// What work on `node` needs, with these settings.
pub(crate) fn context(node: &Node, settings: Settings) -> Rc<Context<Node>> {
    Rc::new(Context {
        sidecars: Desired::all(&settings.sidecars),
        failed: Default::default(),
        clients: node.clone(),
        settings,
        applied: Default::default(),
        container_stop: CONTAINER_STOP,
        clock: node.clock.clone(),
        identity: OnceCell::new(),
        seed: 42,
    })
}
