//! Writes the two `ecs.config` files: atomically, read back, and only if something changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use fleet_agent_config::ecs;
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
    /// What the ECS agent registered with: values that it never tells again.
    #[serde(default)]
    registered: BTreeMap<String, String>,
}

/// Brings both files to `layers`; true if any of them changed.
///
/// # Errors
/// Naming the file. Nothing is ever half-written.
pub(crate) fn apply(layers: &Layers, paths: &Paths) -> Result<bool> {
    let before = remembered(&paths.ours)?;
    let has_registered = paths.checkpoint.iter().any(|path| path.exists());
    let registered = if has_registered && before.registered.is_empty() {
        // With what stands there, whoever wrote it.
        registration(paths)?
    } else {
        before.registered
    };
    // Before a file holds a new variable, it must be known to be ours.
    let mut ours = Ours {
        version: 1,
        defaults: before
            .defaults
            .union(&keys(&layers.defaults))
            .cloned()
            .collect(),
        managed: before
            .managed
            .union(&keys(&layers.managed))
            .cloned()
            .collect(),
        registered,
    };
    remember(&paths.ours, &ours)?;
    let mut changed = write(&paths.ecs_defaults, &layers.defaults, &before.defaults)?;
    changed |= write(&paths.ecs_config, &layers.managed, &before.managed)?;
    ours.defaults = keys(&layers.defaults);
    ours.managed = keys(&layers.managed);
    if !has_registered {
        ours.registered = registration(paths)?;
    }
    remember(&paths.ours, &ours)?;
    Ok(changed)
}

/// What the ECS agent registered with, as far as that is known.
///
/// # Errors
/// Naming the file that cannot be read.
pub(crate) fn registered(paths: &Paths) -> Result<BTreeMap<String, String>> {
    Ok(remembered(&paths.ours)?.registered)
}

/// The variables that count at registration alone, as the files have them.
fn registration(paths: &Paths) -> Result<BTreeMap<String, String>> {
    let etc = read(&paths.ecs_config)?.unwrap_or_default();
    let image = read(&paths.ecs_defaults)?.unwrap_or_default();
    let set = ecs::AT_REGISTRATION.iter().filter_map(|&name| {
        let found = value(&etc, name).or_else(|| value(&image, name));
        let default = || ecs::variable(name).map(|(_, default)| default.to_owned());
        Some((name.to_owned(), found.or_else(default)?))
    });
    Ok(set.collect())
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

fn remember(path: &Path, ours: &Ours) -> Result<()> {
    let text = serde_json::to_string(ours)?;
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
    fn what_it_registered_with_is_remembered_from_then_on() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        let told = || registered(&paths).expect("readable")["ECS_CLUSTER"].clone();
        apply(&layers(&[("ECS_CLUSTER", "a")]), &paths).expect("written");
        apply(&layers(&[("ECS_CLUSTER", "b")]), &paths).expect("written");
        assert_eq!(told(), "b", "it has not registered yet");
        fs::create_dir_all(paths.checkpoint[0].parent().expect("parent")).expect("mkdir");
        fs::write(&paths.checkpoint[0], "x").expect("write");
        apply(&layers(&[("ECS_CLUSTER", "c")]), &paths).expect("written");
        assert_eq!(told(), "b");
        // An image with a checkpoint in it, from before this agent.
        fs::remove_file(&paths.ours).expect("remove");
        apply(&layers(&[("ECS_CLUSTER", "d")]), &paths).expect("written");
        assert_eq!(told(), "c");
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
