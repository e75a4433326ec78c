//! What the agent keeps, reads and writes on the node itself: its own state, the file that releases
//! ecs.service, ecs.config, the ECS agent's checkpoint, the console.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context, Result};

use crate::{
    clock::Clock,
    console,
    ecs_config::{apply::apply, render::Layers},
    lifecycle::saved::Saved,
    paths::Paths,
    state,
};

pub(crate) trait Disk {
    /// Differs from boot to boot.
    fn boot(&self) -> Result<String>;
    /// What was saved, maybe of another instance, whose disk this may once have been.
    fn load(&self, boot: &str) -> Option<Saved>;
    /// Atomic, and lasting over a power cut.
    fn save(&self, saved: &Saved) -> Result<()>;
    /// Whether ecs.service has been released in this boot.
    fn is_released(&self) -> bool;
    /// Opens the gate of ecs.service; false if it was open.
    fn release(&self) -> Result<bool>;
    fn shut(&self) -> Result<()>;
    /// Brings ecs.config to `layers`. True if whoever runs with an older one has not been told yet:
    /// see [`Disk::settled`].
    fn write_ecs_config(&self, layers: &Layers) -> Result<bool>;
    /// Whoever runs reads the ecs.config that stands.
    fn settled(&self);
    /// Removes what an ECS agent keeps of its registration: one that came with the image, or from a
    /// machine that this one was made of, would join as somebody else.
    fn clear_checkpoint(&self) -> Result<()>;
    /// Keeps what a sidecar is given to read, by name, where no power cut leaves it and nobody but its
    /// container and root reads it.
    fn keep_secrets(
        &self,
        sidecar: &str,
        spec: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<()>;
    /// Removes what no container reads any more; `used` are sidecars with the hashes of their
    /// definitions.
    fn forget_secrets(&self, used: &BTreeSet<(String, String)>) -> Result<()>;
    /// Where an operator without access to the node can read it.
    fn say(&self, text: &str) -> Result<()>;
}

#[derive(Debug)]
pub(crate) struct NodeDisk {
    paths: Paths,
    clock: Clock,
    /// ecs.config has changed, and whoever runs with the old one has not been restarted yet.
    owed: Cell<bool>,
}

impl NodeDisk {
    pub(crate) fn new(paths: Paths, clock: Clock) -> Self {
        Self {
            paths,
            clock,
            owed: Cell::new(false),
        }
    }
}

impl Disk for NodeDisk {
    fn boot(&self) -> Result<String> {
        let path = &self.paths.boot_id;
        let id = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(id.trim().to_owned())
    }

    fn load(&self, boot: &str) -> Option<Saved> {
        state::load(&self.paths.state, boot, &self.clock)
    }

    fn save(&self, saved: &Saved) -> Result<()> {
        state::save(&self.paths.state, saved, &self.clock)
    }

    fn is_released(&self) -> bool {
        self.paths.released.exists()
    }

    fn release(&self) -> Result<bool> {
        let path = &self.paths.released;
        let name = || format!("create {}", path.display());
        let opens = !path.exists();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(name)?;
        }
        fs::write(path, "").with_context(name)?;
        Ok(opens)
    }

    fn shut(&self) -> Result<()> {
        let path = &self.paths.released;
        unless_missing(fs::remove_file(path)).with_context(|| format!("remove {}", path.display()))
    }

    fn write_ecs_config(&self, layers: &Layers) -> Result<bool> {
        // Owed until it is done: a retry finds the files as they must be.
        if apply(layers, &self.paths)? {
            self.owed.set(true);
        }
        Ok(self.owed.get())
    }

    fn settled(&self) {
        self.owed.set(false);
    }

    fn clear_checkpoint(&self) -> Result<()> {
        for path in &self.paths.checkpoint {
            unless_missing(fs::remove_file(path))
                .with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }

    fn keep_secrets(
        &self,
        sidecar: &str,
        spec: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<()> {
        let directory = self.paths.secrets.join(sidecar).join(spec);
        let name = || format!("keep the secrets of {sidecar} in {}", directory.display());
        fs::create_dir_all(&directory).with_context(name)?;
        // Nobody gets to it but through the container's own mount: there, who runs may be anybody.
        mode(&self.paths.secrets, 0o700).with_context(name)?;
        mode(&directory, 0o755).with_context(name)?;
        for (key, value) in values {
            let path = directory.join(key);
            let whole = directory.join(format!(".{key}"));
            fs::write(&whole, value).with_context(name)?;
            mode(&whole, 0o444).with_context(name)?;
            fs::rename(&whole, &path).with_context(name)?;
        }
        Ok(())
    }

    fn forget_secrets(&self, used: &BTreeSet<(String, String)>) -> Result<()> {
        for sidecar in names_in(&self.paths.secrets)? {
            let directory = self.paths.secrets.join(&sidecar);
            for spec in names_in(&directory)? {
                if !used.contains(&(sidecar.clone(), spec.clone())) {
                    let path = directory.join(spec);
                    fs::remove_dir_all(&path)
                        .with_context(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    fn say(&self, text: &str) -> Result<()> {
        console::say(&self.paths.console, text)
    }
}

/// None if there is no such directory.
fn names_in(directory: &Path) -> Result<Vec<String>> {
    let name = || format!("read {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(name)?,
    };
    entries
        .map(|entry| {
            let entry = entry.with_context(name)?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_cleared_whole_and_its_absence_is_no_fault() {
        let root = tempfile::tempdir().expect("tempdir");
        let paths = Paths::under(root.path());
        let disk = NodeDisk::new(paths.clone(), Clock::system(1));
        disk.clear_checkpoint().expect("none there");
        for path in &paths.checkpoint {
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(path, "x").expect("write");
        }
        disk.clear_checkpoint().expect("there");
        assert!(paths.checkpoint.iter().all(|path| !path.exists()));
    }

    #[test]
    fn the_gate_opens_once_and_shuts() {
        let root = tempfile::tempdir().expect("tempdir");
        let disk = NodeDisk::new(Paths::under(root.path()), Clock::system(1));
        assert!(!disk.is_released());
        assert!(disk.release().expect("opens"));
        assert!(!disk.release().expect("open already"));
        disk.shut().expect("shuts");
        disk.shut().expect("shut already");
        assert!(!disk.is_released());
    }
}
