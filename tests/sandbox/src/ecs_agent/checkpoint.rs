//! What the stand-in keeps across its own restarts: who it is, and its tasks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;

/// The checkpoint file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) cluster: String,
    pub(super) ec2_instance_id: String,
    pub(super) container_instance_arn: String,
    pub(super) ledger: Ledger,
}

impl Checkpoint {
    /// # Errors
    /// A checkpoint of another cluster or instance, which ends the real agent for good: an AMI made
    /// from a running node, or `ECS_CLUSTER` changed under it.
    pub(super) fn require(&self, cluster: &str, instance_id: &str) -> anyhow::Result<()> {
        for (what, saved, actual) in [
            ("cluster", self.cluster.as_str(), cluster),
            ("instance", self.ec2_instance_id.as_str(), instance_id),
        ] {
            if saved != actual {
                bail!(
                    "Data mismatch; saved {what} {saved:?} does not match {what} {actual:?}; \
                     perhaps you want to delete the configured checkpoint file?"
                );
            }
        }
        Ok(())
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("agent.json")
}

/// The checkpoint in `data`, if there is one.
pub(super) fn load(data: &Path) -> anyhow::Result<Option<Checkpoint>> {
    let path = path(data);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("read checkpoint {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read checkpoint {}", path.display())),
    }
}

/// Replaces the checkpoint in `data` in one step.
pub(super) fn save(data: &Path, checkpoint: &Checkpoint) -> anyhow::Result<()> {
    let path = path(data);
    let new = path.with_extension("new");
    fs::create_dir_all(data)
        .and_then(|()| fs::write(&new, serde_json::to_vec(checkpoint)?))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("write checkpoint {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            cluster: "dev".to_owned(),
            ec2_instance_id: "i-1".to_owned(),
            container_instance_arn: "arn:1".to_owned(),
            ledger: Ledger::default(),
        }
    }

    #[test]
    fn another_cluster_or_instance_is_a_mismatch() {
        assert!(checkpoint().require("dev", "i-1").is_ok());
        for (cluster, instance) in [("prod", "i-1"), ("dev", "i-2")] {
            let error = checkpoint().require(cluster, instance).unwrap_err();
            assert!(error.to_string().starts_with("Data mismatch"), "{error}");
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let data = std::env::temp_dir().join(format!("checkpoint-{}", std::process::id()));
        assert!(load(&data).unwrap().is_none());
        save(&data, &checkpoint()).unwrap();
        assert_eq!(
            load(&data).unwrap().unwrap().container_instance_arn,
            "arn:1"
        );
        fs::remove_dir_all(&data).unwrap();
    }
}
