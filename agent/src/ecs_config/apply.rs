//! Writes the two `ecs.config` files: atomically, read back, and only if something changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::render::{Layers, merge, value};
use crate::{atomic, paths::Paths};

/// Which variables were ours in each file the last time, so that one dropped from agent.toml is
/// taken out again.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ours {
    version: u32,
    defaults: BTreeSet<String>,
    managed: BTreeSet<String>,
}

/// Brings both files to `layers`; true if any of them changed.
///
/// # Errors
/// Naming the file. Nothing is ever half-written.
pub(crate) fn apply(layers: &Layers, paths: &Paths) -> Result<bool> {
    let before = remembered(&paths.ours)?;
    // Before a file holds a new variable, it must be known to be ours.
    remember(
        &paths.ours,
        before.defaults.union(&keys(&layers.defaults)).cloned(),
        before.managed.union(&keys(&layers.managed)).cloned(),
    )?;
    let mut changed = write(&paths.ecs_defaults, &layers.defaults, &before.defaults)?;
    changed |= write(&paths.ecs_config, &layers.managed, &before.managed)?;
    remember(
        &paths.ours,
        keys(&layers.defaults).into_iter(),
        keys(&layers.managed).into_iter(),
    )?;
    Ok(changed)
}

/// What `name` is for the ECS agent once `layers` are applied; the agent reads the operator's own
/// lines too, and `/etc` wins.
///
/// # Errors
/// Naming the file that cannot be read.
pub(crate) fn effective(layers: &Layers, paths: &Paths, name: &str) -> Result<Option<String>> {
    let before = remembered(&paths.ours)?;
    let managed = read(&paths.ecs_config)?.unwrap_or_default();
    let managed = merge(&managed, &layers.managed, &before.managed);
    let defaults = read(&paths.ecs_defaults)?.unwrap_or_default();
    let defaults = merge(&defaults, &layers.defaults, &before.defaults);
    Ok(value(&managed, name).or_else(|| value(&defaults, name)))
}

fn write(
    path: &Path,
    ours: &BTreeMap<String, String>,
    previously: &BTreeSet<String>,
) -> Result<bool> {
    let existing = read(path)?.unwrap_or_default();
    let wanted = merge(&existing, ours, previously);
    if wanted == existing {
        return Ok(false);
    }
    atomic::write(path, wanted.as_bytes())?;
    let written = read(path)?;
    ensure!(
        written.as_deref() == Some(wanted.as_str()),
        "write {}: it reads back different: does another program write it?",
        path.display()
    );
    Ok(true)
}

fn keys(layer: &BTreeMap<String, String>) -> BTreeSet<String> {
    layer.keys().cloned().collect()
}

fn remembered(path: &Path) -> Result<Ours> {
    let text = read(path)?;
    // Forgetting only means that a dropped variable stays: no reason to hold the node back.
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

fn remember(
    path: &Path,
    defaults: impl Iterator<Item = String>,
    managed: impl Iterator<Item = String>,
) -> Result<()> {
    let ours = Ours {
        version: 1,
        defaults: defaults.collect(),
        managed: managed.collect(),
    };
    let text = serde_json::to_string(&ours)?;
    if read(path)?.as_deref() == Some(text.as_str()) {
        return Ok(());
    }
    atomic::write(path, text.as_bytes())
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn layers(managed: &[(&str, &str)]) -> Layers {
        Layers {
            managed: managed
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Layers::default()
        }
    }

    #[test]
    fn writes_once_and_takes_dropped_variables_out_again() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        fs::create_dir_all(paths.ecs_config.parent().expect("parent")).expect("mkdir");
        fs::write(&paths.ecs_config, "MINE=1\n").expect("write");
        let first = layers(&[("ECS_CLUSTER", "a"), ("ECS_LOGLEVEL", "debug")]);
        assert!(apply(&first, &paths).expect("first"));
        assert!(!apply(&first, &paths).expect("again"));
        assert!(apply(&layers(&[("ECS_CLUSTER", "a")]), &paths).expect("dropped"));
        let text = fs::read_to_string(&paths.ecs_config).expect("read");
        assert_eq!(text, "MINE=1\nECS_CLUSTER=a\n");
        let mode = fs::metadata(&paths.ecs_config)
            .expect("stat")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_operators_own_line_is_what_the_ecs_agent_reads() {
        const NAME: &str = "ECS_CONTAINER_STOP_TIMEOUT";
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        let ours = Layers {
            defaults: BTreeMap::from([(NAME.to_owned(), "30s".to_owned())]),
            ..Layers::default()
        };
        let read = |layers: &Layers| effective(layers, &paths, NAME).expect("readable");
        assert_eq!(read(&ours).as_deref(), Some("30s"));
        fs::create_dir_all(paths.ecs_config.parent().expect("parent")).expect("mkdir");
        fs::write(&paths.ecs_config, format!("#{NAME}=1m\n{NAME} = 10m\n")).expect("write");
        assert_eq!(read(&ours).as_deref(), Some("10m"));
        assert_eq!(read(&layers(&[(NAME, "2m")])).as_deref(), Some("2m"));
    }

    #[test]
    fn an_error_names_the_file() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        fs::create_dir_all(&paths.ecs_config).expect("a directory in its place");
        let error = apply(&layers(&[("ECS_CLUSTER", "a")]), &paths).expect_err("refused");
        assert!(
            format!("{error:#}").contains("etc/ecs/ecs.config"),
            "{error:#}"
        );
    }
}
