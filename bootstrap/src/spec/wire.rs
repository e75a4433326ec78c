//! `fleet.toml` as it stands in the file, one environment laid over it. Every field has a default,
//! so that all problems can be reported at once; what is required is a rule in `rules`.

use std::collections::BTreeMap;

use fleet_agent_config::{DiskConfig, DrainConfig, HealthConfig, SidecarConfig};
use serde::Deserialize;

use super::{CpuCredits, SpotAllocation, VolumeKind};

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
    pub(super) root_volume: Volume,
    pub(super) cpu_credits: Option<CpuCredits>,
    pub(super) detailed_monitoring: bool,
    pub(super) key_pair: Option<String>,
    pub(super) security_groups: Vec<String>,
    pub(super) spot: Option<Spot>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Volume {
    pub(super) size_gib: Option<u32>,
    #[serde(rename = "type")]
    pub(super) kind: VolumeKind,
    pub(super) iops: Option<u32>,
    pub(super) throughput_mib: Option<u32>,
    pub(super) encrypted: Option<bool>,
    pub(super) kms_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spot {
    pub(super) percent: Option<u32>,
    pub(super) on_demand_base: u32,
    pub(super) allocation: SpotAllocation,
}
