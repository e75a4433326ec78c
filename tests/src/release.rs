//! Releases as `make dist` packs them, but for what takes long to make: bills and licences are empty, and in the place of
//! fleet-bootstrap as it ships stands a script that runs the one that was built.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Ran, program, run, target};

/// The version of this workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What goes into a release, in a directory of its own.
#[derive(Debug)]
pub struct Release {
    version: String,
    agent: PathBuf,
    /// The program that stands for fleet-bootstrap.
    pub bootstrap: PathBuf,
    /// Man pages, completions, bills and licences.
    pub generated: PathBuf,
}

impl Release {
    /// Of another version the agent says another number, and differs in nothing else.
    ///
    /// # Errors
    /// When the programs have not been built.
    pub fn of(directory: &Path, version: &str) -> Result<Self> {
        let release = Self {
            version: version.to_owned(),
            agent: directory.join("fleet-agent"),
            bootstrap: directory.join("fleet-bootstrap"),
            generated: directory.join("generated"),
        };
        write_program(&release.agent, &numbered(version)?)?;
        let program = program("fleet-bootstrap").canonicalize()?;
        let script = format!(
            "#!/bin/sh\n[ \"$*\" != --version ] || exec echo fleet-bootstrap {version}\nexec {} \"$@\"\n",
            program.display()
        );
        write_program(&release.bootstrap, script.as_bytes())?;
        let manual = target().join("debug/examples/manual");
        let _ = run(Command::new(manual).arg(&release.generated))?.exits(0);
        for (place, names) in [
            (
                "sbom",
                &["fleet-agent.cdx.json", "fleet-bootstrap.cdx.json"][..],
            ),
            (
                "licences",
                &["crates.txt", "gcc.txt", "glibc.txt", "rust-std.html"],
            ),
        ] {
            let place = release.generated.join(place);
            fs::create_dir(&place)?;
            for name in names {
                fs::write(place.join(name), "")?;
            }
        }
        Ok(release)
    }

    /// The tarball's name, without `.tar.gz`.
    pub fn name(&self) -> String {
        format!("fleet-{}-x86_64-linux", self.version)
    }

    /// `release/pack` into a directory, under this umask.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn pack(&self, out: &Path, umask: &str) -> Result<Ran> {
        run(Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "-"])
            .arg(sources().join("release/pack"))
            .args([&self.agent, &self.bootstrap, &self.generated])
            .arg(out)
            .env("SOURCE_DATE_EPOCH", "1700000000"))
    }
}

/// Packs a release where the nodes of a sandbox download files; its name, without `.tar.gz`.
///
/// # Errors
/// When the programs have not been built, or it cannot be packed.
pub fn publish(version: &str) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let release = Release::of(scratch.path(), version)?;
    let packed = release.pack(scratch.path(), "022")?;
    ensure!(packed.code == 0, "release/pack: {}", packed.err);
    for end in ["tar.gz", "tar.gz.sha256"] {
        let file = format!("{}.{end}", release.name());
        // At once: another test may be reading the one before.
        let staged = tempfile::NamedTempFile::new_in(files())?;
        fs::copy(scratch.path().join(&file), staged.path())?;
        staged.persist(files().join(file))?;
    }
    Ok(release.name())
}

/// The agent alone, saying this version of itself, where the nodes of a sandbox download files.
///
/// # Errors
/// When it has not been built.
pub fn publish_agent(version: &str) -> Result<PathBuf> {
    let file = files().join(format!("fleet-agent-{version}"));
    write_program(&file, &numbered(version)?)?;
    Ok(file)
}

/// The repository.
pub fn sources() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::canonicalize(sources).expect("the sources are where they were")
}

fn files() -> PathBuf {
    target().join("dist")
}

fn write_program(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// The agent, saying this version of itself, which is as long as its own.
fn numbered(version: &str) -> Result<Vec<u8>> {
    let mut agent = fs::read(program("fleet-agent"))?;
    ensure!(version.len() == VERSION.len(), "as long as {VERSION}");
    let mut windows = agent.windows(VERSION.len());
    let at = windows.position(|bytes| bytes == VERSION.as_bytes());
    let at = at.context("its version in the binary")?;
    agent[at..at + VERSION.len()].copy_from_slice(version.as_bytes());
    ensure!(
        version == VERSION
            || !agent
                .windows(VERSION.len())
                .any(|b| b == VERSION.as_bytes()),
        "its version stands in the binary more than once"
    );
    Ok(agent)
}
