//! A release as `make dist` packs it, but for two things that take long to make: bills and licences are empty,
//! and for fleet-bootstrap as it ships stands a script, which is what a release must not hold.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use fleet_tests::{Ran, program, run, target};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn a_release_is_the_same_from_the_same_files_and_runs_anywhere() -> Result<()> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = Release::of(here.path(), VERSION)?.pack("022")?.exits(0);
    let second = Release::of(there.path(), VERSION)?.pack("077")?.exits(0);
    let [first, second] = [first, second].map(|packed| PathBuf::from(packed.out.trim_end()));
    assert!(fs::read(&first)? == fs::read(second)?, "they differ");
    assert_eq!(
        failures(&first)?,
        [
            "fleet-bootstrap is static and stripped, and wants no version of glibc",
            "fleet-bootstrap names neither a path of this machine nor a build",
        ]
    );
    Ok(())
}

#[test]
fn what_is_wrong_with_a_release_is_found() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let release = Release::of(directory.path(), VERSION)?;
    fs::write(release.generated.join("man/man8/other.8"), ".NO SUCH\n")?;
    fs::write(
        release
            .generated
            .join("completions/bash/fleet-bootstrap.bash"),
        "f() {\n",
    )?;
    let packed = release.pack("022")?.exits(0);
    let tarball = PathBuf::from(packed.out.trim_end());
    fs::write(tarball.with_extension("gz.sha256"), "")?;
    let failed = failures(&tarball)?;
    for text in [
        "the sum beside ",
        "it holds exactly ",
        "other.8 reads ",
        "completions of fleet-bootstrap ",
    ] {
        assert!(
            failed.iter().any(|failure| failure.starts_with(text)),
            "{text}: {failed:?}"
        );
    }
    Ok(())
}

#[test]
fn what_is_hidden_is_not_offered() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let release = Release::of(directory.path(), VERSION)?;
    for file in [
        "bash/fleet-agent.bash",
        "zsh/_fleet-agent",
        "fish/fleet-agent.fish",
    ] {
        let offered = fs::read_to_string(release.generated.join("completions").join(file))?;
        assert!(offered.contains("undrain"), "{file}: {offered}");
        assert!(!offered.contains("shutdown"), "{file}: {offered}");
        assert!(!offered.contains("probe"), "{file}: {offered}");
    }
    Ok(())
}

#[test]
fn programs_of_two_versions_are_no_release() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let packed = Release::of(directory.path(), "9.9.9")?
        .pack("022")?
        .exits(1);
    assert!(packed.err.contains("fleet-bootstrap 9.9.9"), "{packed:?}");
    Ok(())
}

/// What goes into a release, in a directory of its own.
struct Release {
    bootstrap: PathBuf,
    generated: PathBuf,
    out: PathBuf,
}

impl Release {
    fn of(directory: &Path, version: &str) -> Result<Self> {
        let release = Self {
            bootstrap: directory.join("fleet-bootstrap"),
            generated: directory.join("generated"),
            out: directory.join("out"),
        };
        let script = format!(
            "#!/bin/sh\n# made in {}/\necho fleet-bootstrap {version}\n",
            sources().display()
        );
        fs::write(&release.bootstrap, script)?;
        fs::set_permissions(&release.bootstrap, fs::Permissions::from_mode(0o755))?;
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

    fn pack(&self, umask: &str) -> Result<Ran> {
        run(Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$@\""), "-"])
            .arg(sources().join("release/pack"))
            .args([&program("fleet-agent"), &self.bootstrap, &self.generated])
            .arg(&self.out)
            .env("SOURCE_DATE_EPOCH", "1700000000"))
    }
}

fn sources() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::canonicalize(sources).expect("the sources are where they were")
}

/// What `release/check` finds wrong, taking both programs for such as ship.
fn failures(tarball: &Path) -> Result<Vec<String>> {
    let checked = run(Command::new(sources().join("release/check"))
        .arg(tarball)
        .args(["fleet-agent", "fleet-bootstrap"]))?
    .exits(1);
    let failed = checked.out.lines().filter_map(|line| {
        let text = line.strip_prefix("FAIL ")?;
        Some(text.to_owned())
    });
    Ok(failed.collect())
}
