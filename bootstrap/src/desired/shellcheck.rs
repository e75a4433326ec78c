//! What nodes' shells run is looked over by the linter that everybody else's is.
#![allow(
    clippy::disallowed_methods,
    reason = "the script is checked as what it is"
)]

use std::{fs, process::Command};

/// A script with every placeholder filled in.
#[track_caller]
pub(super) fn passes(script: &str) {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("script");
    fs::write(&path, script).expect("written");
    let checked = Command::new("shellcheck")
        .arg(&path)
        .output()
        .expect("shellcheck runs: tests/setup.sh installs it");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    assert!(
        !script.contains('@'),
        "every placeholder is filled: {script}"
    );
}
