//! An environment as the file it comes to: what is laid over it in its place, every default filled in.
//! Read again it says the same, so a default can be seen, and pinned.

use serde_json::Value;

use super::{Scaling, Spec, StepScaling, Volume, wire};

/// A file that says everything of one environment.
#[derive(Debug, Clone)]
pub struct Full {
    /// As TOML.
    pub text: String,
    /// The same as JSON, with `null` where nothing is set.
    pub content: Value,
}

impl Full {
    pub(super) fn new(file: wire::File, spec: &Spec) -> anyhow::Result<Self> {
        let file = completed(file, spec);
        Ok(Self {
            text: toml::to_string(&file)?,
            content: serde_json::to_value(&file)?,
        })
    }
}

/// What `file` leaves to a default, from the `spec` that was made of it.
pub(super) fn completed(mut file: wire::File, spec: &Spec) -> wire::File {
    file.agent.launch_timeout_seconds = Some(spec.agent.launch_timeout_seconds);
    file.agent.drain_timeout_seconds = Some(spec.agent.drain_timeout_seconds);
    if let (Some(own), Some(source)) = (&mut file.agent.source, &spec.agent.source) {
        own.sha256 = Some(source.sha256.clone());
    }
    file.iam.scope = Some(file.iam.scope.unwrap_or_default());
    if spec.cluster.adopt.is_none() {
        file.cluster.fargate = Some(spec.cluster.fargate);
    }
    let shares = spec.cluster.default_strategy.iter().flatten();
    let items = file.cluster.default_strategy.iter_mut().flatten();
    for (item, share) in items.zip(shares) {
        item.weight = Some(share.weight);
    }
    file.drain = file.drain.completed();
    file.disk = file.disk.completed();
    file.health = file.health.completed();
    for sidecar in file.sidecars.values_mut() {
        *sidecar = std::mem::take(sidecar).completed();
    }
    for group in &spec.groups {
        let Some(own) = file.groups.get_mut(&group.name) else {
            continue;
        };
        own.desired = Some(group.desired);
        own.ami = Some((&group.ami).into());
        complete(&mut own.root_volume, &group.root_volume);
        if let (Some(own), Some(volume)) = (&mut own.docker_volume, &group.docker_volume) {
            complete(own, volume);
        }
        for (name, schedule) in &mut own.schedules {
            schedule.time_zone = group.schedules.get(name).map(|of| of.time_zone.clone());
        }
        match &group.scaling {
            Scaling::Managed { target_capacity } => own.target_capacity = Some(*target_capacity),
            Scaling::Steps(steps) => own.step_scaling = Some(steps.into()),
        }
        own.system_memory_mib = group.node.system_memory_mib;
        own.block_metadata_service = group.node.block_metadata_service;
        own.sidecars = Some(group.sidecars.keys().cloned().collect());
    }
    file.environments = [(spec.environment.clone(), wire::File::default())].into();
    file
}

impl From<&StepScaling> for wire::StepScaling {
    fn from(steps: &StepScaling) -> Self {
        let out = steps.out.steps.iter().map(|step| wire::StepOut {
            above: Some(step.percent),
            nodes: Some(step.nodes),
        });
        let inward = steps.inward.steps.iter().map(|step| wire::StepIn {
            below: Some(step.percent),
            nodes: Some(step.nodes),
        });
        Self {
            out: Some(out.collect()),
            out_minutes: Some(steps.out.minutes),
            inward: Some(inward.collect()),
            in_minutes: Some(steps.inward.minutes),
            warmup_seconds: Some(steps.warmup_seconds),
        }
    }
}

fn complete(own: &mut wire::Volume, volume: &Volume) {
    own.size_gib = Some(volume.gib);
    own.encrypted = Some(volume.encrypted);
}
