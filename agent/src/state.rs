//! What is kept on disk: only what the world cannot tell after a restart. Versioned; of another
//! instance (an AMI made from a running node) it is discarded.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    atomic,
    clock::Clock,
    journal::{event::Entry, sink},
    lifecycle::event::{Cause, Phase, Saved, SavedDrain},
};

const VERSION: u32 = 1;

/// `state.json`. Times are the wall's: they must hold over a reboot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    version: u32,
    instance: String,
    container_instance: Option<String>,
    launch: FileLaunch,
    drain: Option<FileDrain>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileLaunch {
    began: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    seen_open: bool,
    answered: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileDrain {
    cause: String,
    began: Timestamp,
    set: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    seen_open: bool,
    phase: String,
}

/// # Errors
/// Naming the file.
pub(crate) fn save(path: &Path, saved: &Saved, clock: &Clock) -> Result<()> {
    let file = File {
        version: VERSION,
        instance: saved.instance.clone(),
        container_instance: saved.container_instance.clone(),
        launch: FileLaunch {
            began: saved.launch_began.map(|began| clock.wall_at(began)),
            seen_open: saved.launch_seen_open,
            answered: saved.launch_answered,
        },
        drain: saved.drain.map(|drain| FileDrain {
            cause: drain.cause.id().to_owned(),
            began: clock.wall_at(drain.began),
            set: drain.set,
            seen_open: drain.seen_open,
            phase: drain.phase.as_str().to_owned(),
        }),
    };
    atomic::write(path, serde_json::to_string_pretty(&file)?.as_bytes())
}

/// What was saved of this instance. What cannot be read is nothing: the world is read afresh, and
/// a node must not hang on a file it can do without.
///
/// # Errors
/// If the file is there and cannot be opened.
pub(crate) fn load(path: &Path, instance: &str, clock: &Clock) -> Result<Option<Saved>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    match serde_json::from_str::<File>(&text) {
        Ok(file) if file.version == VERSION && file.instance == instance => {
            Ok(Some(saved(file, clock)))
        }
        Ok(_) => Ok(None),
        Err(error) => {
            sink::write(&Entry::CallFailed {
                call: "read the state, going on without",
                error: format!("{}: {error}", path.display()),
            });
            Ok(None)
        }
    }
}

fn saved(file: File, clock: &Clock) -> Saved {
    let drain = file.drain.and_then(|drain| {
        let phase = Phase::parse(&drain.phase).unwrap_or(Phase::Draining);
        Some(SavedDrain {
            cause: Cause::parse(&drain.cause)?,
            began: clock.moment_at(drain.began),
            set: drain.set,
            seen_open: drain.seen_open,
            // Saved in the same breath as its cause, before the first step.
            phase: phase.max(Phase::Draining),
        })
    });
    Saved {
        instance: file.instance,
        container_instance: file.container_instance,
        launch_began: file.launch.began.map(|began| clock.moment_at(began)),
        launch_seen_open: file.launch.seen_open,
        launch_answered: file.launch.answered,
        drain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(clock: &Clock) -> Saved {
        Saved {
            instance: "i-1".into(),
            container_instance: Some("arn".into()),
            launch_began: Some(clock.now()),
            launch_seen_open: true,
            launch_answered: true,
            drain: Some(SavedDrain {
                cause: Cause::AutoScaling,
                began: clock.now(),
                set: true,
                seen_open: true,
                phase: Phase::Flushing,
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn times_hold_over_a_restart_and_another_instances_state_is_discarded() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state.json");
        let clock = Clock::paused();
        assert_eq!(load(&path, "i-1", &clock).expect("absent"), None);
        let saved = sample(&clock);
        save(&path, &saved, &clock).expect("save");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(load(&path, "i-1", &clock).expect("load"), Some(saved));
        assert_eq!(load(&path, "i-2", &clock).expect("other"), None);
        fs::write(&path, "{").expect("write");
        assert_eq!(load(&path, "i-1", &clock).expect("broken"), None);
    }

    #[test]
    fn a_reboot_does_not_restart_a_drains_time() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state.json");
        let wall = Timestamp::from_second(1_763_712_000).expect("in range");
        let before = Clock::booted(Duration::from_secs(86_400), wall);
        save(&path, &sample(&before), &before).expect("save");
        let later = wall + jiff::SignedDuration::from_mins(50);
        let after = Clock::booted(Duration::from_secs(30), later);
        let saved = load(&path, "i-1", &after).expect("load").expect("saved");
        let began = saved.drain.expect("drains").began;
        assert_eq!(after.now().since(began), Duration::from_secs(3_000));
    }

    /// The first version ever shipped: it must stay readable for good.
    #[test]
    fn the_golden_file_is_read() {
        let golden = r#"{"version":1,"instance":"i-1","container_instance":"arn","launch":{"began":"2026-11-21T10:00:00Z","answered":true},"drain":{"cause":"auto-scaling-termination","began":"2026-11-21T11:00:00Z","set":true,"phase":"draining"}}"#;
        let file: File = serde_json::from_str(golden).expect("golden");
        assert_eq!(serde_json::to_string(&file).expect("writes"), golden);
    }
}
