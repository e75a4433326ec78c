//! `fleet.toml` as it stands in the file, one environment laid over it. Every field has a default,
//! so that all problems can be reported at once; what is required is a rule in `rules`.

use std::collections::BTreeMap;

use fleet_agent_config::{DiskConfig, DrainConfig, HealthConfig, SidecarConfig};
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) fleet: Fleet,
    pub(super) network: Network,
    pub(super) cluster: Cluster,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) agent: Agent,
    /// What every group inherits, field by field.
    pub(super) drain: DrainConfig,
    /// What every group inherits, field by field.
    pub(super) disk: DiskConfig,
    /// What every group inherits, field by field.
    pub(super) health: HealthConfig,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) sidecars: BTreeMap<String, SidecarConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fleet {
    pub(super) name: String,
    pub(super) region: String,
    pub(super) id: String,
    pub(super) account: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Network {
    pub(super) vpc: String,
    pub(super) subnets: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) source: Option<Source>,
    pub(super) launch_timeout_seconds: Option<u32>,
    pub(super) drain_timeout_seconds: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Source {
    pub(super) url: String,
    pub(super) sha256: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Group {
    pub(super) instance_types: Vec<String>,
    pub(super) min: Option<u32>,
    pub(super) max: Option<u32>,
    pub(super) desired: Option<u32>,
    pub(super) ami: Option<String>,
    pub(super) root_volume_gib: Option<u32>,
    pub(super) target_capacity: Option<u32>,
    pub(super) system_memory_mib: Option<u32>,
    pub(super) block_metadata_service: Option<bool>,
    pub(super) drain: DrainConfig,
    pub(super) disk: DiskConfig,
    pub(super) health: HealthConfig,
    pub(super) sidecars: Option<Vec<String>>,
    pub(super) ecs: BTreeMap<String, String>,
    pub(super) tags: BTreeMap<String, String>,
}
