//! Writes the two `ecs.config` files: atomically, read back, and only if something changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use fleet_agent_config::{Settings, ecs};
use serde::{Deserialize, Serialize};

use super::{
    effective::{self, Effective, Files, effective},
    render::{Layers, merge, value},
};
use crate::{atomic, paths::Paths};

const CLEANS: &str = "ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP";
const KEEPS: &str = "ECS_EXCLUDE_UNTRACKED_IMAGE=";

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

/// Every variable as the ECS agent has it once `settings` are applied.
///
/// # Errors
/// Naming the file that cannot be read.
pub(crate) fn all(settings: &Settings, paths: &Paths) -> Result<Vec<Effective>> {
    let (etc, image) = (contents(&paths.ecs_config)?, contents(&paths.ecs_defaults)?);
    let files = Files {
        etc: &etc,
        image: &image,
    };
    Ok(effective(settings, files))
}

/// What would surprise whoever wrote the ECS agent's settings, from files alone: `(code, text)`.
///
/// # Errors
/// Naming the file that cannot be read.
pub(crate) fn hazards(settings: &Settings, paths: &Paths) -> Result<Vec<(&'static str, String)>> {
    let (etc, image) = (contents(&paths.ecs_config)?, contents(&paths.ecs_defaults)?);
    let files = Files {
        etc: &etc,
        image: &image,
    };
    let registered = remembered(&paths.ours)?.registered;
    let mut found = effective::hazards(settings, files);
    found.extend(effective::outdated(
        &registered,
        &effective(settings, files),
    ));
    // Compressed user data is not text, and not JSON either.
    let user_data = contents(&paths.user_data).unwrap_or_default();
    found.extend(effective::of_cloud_init(
        &contents(&paths.cloud_init)?,
        &user_data,
    ));
    Ok(found)
}

/// The variables that count at registration alone, as the files have them.
fn registration(paths: &Paths) -> Result<BTreeMap<String, String>> {
    let etc = contents(&paths.ecs_config)?;
    let image = contents(&paths.ecs_defaults)?;
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
pub(crate) fn one(layers: &Layers, paths: &Paths, name: &str) -> Result<Option<String>> {
    let before = remembered(&paths.ours)?;
    let managed = contents(&paths.ecs_config)?;
    let managed = merge(&managed, &layers.managed, &before.managed);
    let defaults = contents(&paths.ecs_defaults)?;
    let defaults = merge(&defaults, &layers.defaults, &before.defaults);
    Ok(value(&managed, name).or_else(|| value(&defaults, name)))
}

fn write(
    path: &Path,
    ours: &BTreeMap<String, String>,
    previously: &BTreeSet<String>,
) -> Result<bool> {
    let existing = contents(path)?;
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
    Ok(matters(&existing) != matters(&wanted))
}

/// What the ECS agent has to be started again for. Which images it is to keep counts only where it
/// removes such images at all: a sidecar's new image does not restart it.
fn matters(text: &str) -> BTreeSet<&str> {
    let cleans = value(text, CLEANS).is_some_and(|value| value == "true");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| cleans || !line.starts_with(KEEPS))
        .collect()
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

/// Of a file that need not be there.
fn contents(path: &Path) -> Result<String> {
    Ok(read(path)?.unwrap_or_default())
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
    fn images_that_are_kept_restart_nobody_who_removes_none() {
        let text =
            |clean: &str, image: &str| format!("ECS_CLUSTER=a\n{CLEANS}={clean}\n{KEEPS}{image}\n");
        assert_eq!(
            matters(&text("false", "a:1")),
            matters(&text("false", "a:2"))
        );
        assert_ne!(matters(&text("true", "a:1")), matters(&text("true", "a:2")));
        assert_ne!(
            matters(&text("false", "a:1")),
            matters(&text("true", "a:1"))
        );
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
        let read = |layers: &Layers| one(layers, &paths, NAME).expect("readable");
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
        let told = || remembered(&paths.ours).expect("readable").registered["ECS_CLUSTER"].clone();
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
