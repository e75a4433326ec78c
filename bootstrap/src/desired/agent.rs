//! What a group's nodes read: agent.toml.

use std::collections::BTreeSet;

use fleet_agent_config::{
    AutoScalingConfig, Config, EcrImage, ParameterConfig, Problem, Replacement, VERSION,
    names as fixed, render, sidecars_seconds,
};

use super::{Drain, names::GroupNames};
use crate::spec;

/// A group's settings for the agent. A spec has every default filled in, and so have they: what a node
/// does must not change with the agent's version.
#[derive(Debug)]
pub(super) struct AgentSettings {
    config: Config,
    pub(super) launch_timeout_seconds: u32,
    pub(super) drain_timeout_seconds: u32,
    pub(super) drain: Drain,
    pub(super) replacement: Replacement,
    /// SSM parameters that sidecars refer to.
    secrets: BTreeSet<String>,
}

impl AgentSettings {
    /// # Errors
    /// What the agent would refuse. The spec's rules are the agent's own, so there is nothing in
    /// practice; but a node that cannot read its settings is worth a second look.
    pub(super) fn new(
        spec: &spec::Spec,
        group: &spec::Group,
        cluster: &str,
        names: &GroupNames,
    ) -> Result<Self, Vec<Problem>> {
        let config = wire(spec, group, cluster, names);
        let mut problems = Vec::new();
        let Some(settings) = config.clone().validate(&mut problems) else {
            return Err(problems);
        };
        let secrets = settings.sidecars.iter();
        let secrets = secrets.flat_map(|sidecar| sidecar.container.secrets.values());
        Ok(Self {
            config,
            replacement: settings.health.replacement,
            secrets: secrets.cloned().collect(),
            launch_timeout_seconds: settings.launch_timeout_seconds,
            drain_timeout_seconds: settings.drain_timeout_seconds,
            drain: Drain {
                deadline_seconds: settings.drain.deadline_seconds,
                sidecars_seconds: sidecars_seconds(&settings.sidecars),
            },
        })
    }

    /// agent.toml.
    pub(super) fn text(&self) -> Result<String, String> {
        render(&self.config).map_err(|error| error.to_string())
    }

    pub(super) fn secrets(&self) -> BTreeSet<&str> {
        self.secrets.iter().map(String::as_str).collect()
    }

    /// Private images of its sidecars.
    pub(super) fn images(&self) -> BTreeSet<EcrImage> {
        let sidecars = self.config.sidecars.values();
        let images = sidecars.filter_map(|sidecar| sidecar.image.as_deref());
        images.filter_map(EcrImage::parse).collect()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

fn wire(spec: &spec::Spec, group: &spec::Group, cluster: &str, names: &GroupNames) -> Config {
    Config {
        version: VERSION,
        fleet: spec.fleet.clone(),
        environment: spec.environment.clone(),
        group: group.name.clone(),
        owner: spec.owner.clone(),
        cluster: cluster.to_owned(),
        region: spec.region.clone(),
        auto_scaling: AutoScalingConfig {
            group: names.long.clone(),
            launch_hook: Some(fixed::LAUNCH_HOOK.to_owned()),
            launch_timeout_seconds: Some(spec.agent.launch_timeout_seconds),
            drain_hook: Some(fixed::DRAIN_HOOK.to_owned()),
            drain_timeout_seconds: Some(spec.agent.drain_timeout_seconds),
        },
        drain: group.drain.clone(),
        disk: group.disk,
        health: group.health,
        node: group.node,
        parameter: ParameterConfig {
            name: names.parameter.clone(),
        },
        ecs: group.ecs.clone(),
        sidecars: group.sidecars.clone(),
    }
}
