//! Releases as they are packed and checked. A script stands for fleet-bootstrap, which is what one must not hold.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use fleet_tests::{
    release::{Release, VERSION, sources},
    run,
};

#[test]
fn a_release_is_the_same_from_the_same_files_and_runs_anywhere() -> Result<()> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let first = Release::of(here.path(), VERSION)?
        .pack(&here.path().join("out"), "022")?
        .exits(0);
    let second = Release::of(there.path(), VERSION)?
        .pack(&there.path().join("out"), "077")?
        .exits(0);
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
    let packed = release.pack(&directory.path().join("out"), "022")?.exits(0);
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
    let mut release = Release::of(directory.path(), VERSION)?;
    let other = directory.path().join("other");
    fs::create_dir(&other)?;
    release.bootstrap = Release::of(&other, "9.9.9")?.bootstrap;
    let packed = release.pack(directory.path(), "022")?.exits(1);
    assert!(packed.err.contains("fleet-bootstrap 9.9.9"), "{packed:?}");
    Ok(())
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
