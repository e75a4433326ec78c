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
    lifecycle::{
        cause::{Cause, Kind},
        event::Phase,
        saved::{Saved, SavedDrain, SavedLaunch},
    },
};

const VERSION: u32 = 1;

/// `state.json`. Times are the wall's: they must hold over a reboot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    version: u32,
    instance: String,
    boot: String,
    container_instance: Option<String>,
    /// It was us who set DRAINING.
    ours: bool,
    launch: FileLaunch,
    drain: Option<FileDrain>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileLaunch {
    began: Option<Timestamp>,
    abandoned: bool,
    warm: bool,
    seen_open: bool,
    answered: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileDrain {
    causes: Vec<FileCause>,
    began: Timestamp,
    since: Timestamp,
    held: bool,
    set: bool,
    seen_open: bool,
    answered: bool,
    phase: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileCause {
    id: String,
    kind: String,
    detail: String,
    began: Timestamp,
    end: Option<Timestamp>,
}

/// # Errors
/// Naming the file.
pub(crate) fn save(path: &Path, saved: &Saved, clock: &Clock) -> Result<()> {
    let file = File {
        version: VERSION,
        instance: saved.instance.clone(),
        boot: saved.boot.clone(),
        container_instance: saved.container_instance.clone(),
        ours: saved.ours,
        launch: FileLaunch {
            began: saved.launch.began.map(|began| clock.wall_at(began)),
            abandoned: saved.launch.abandoned,
            warm: saved.launch.warm,
            seen_open: saved.launch.seen_open,
            answered: saved.launch.answered,
        },
        drain: saved.drain.as_ref().map(|drain| FileDrain {
            causes: drain
                .causes
                .iter()
                .map(|cause| FileCause {
                    id: cause.id.clone(),
                    kind: cause.kind.as_str().to_owned(),
                    detail: cause.detail.clone(),
                    began: clock.wall_at(cause.began),
                    end: cause.end.map(|end| clock.wall_of(end)),
                })
                .collect(),
            began: clock.wall_at(drain.began),
            since: clock.wall_at(drain.since),
            held: drain.held,
            set: drain.set,
            seen_open: drain.seen_open,
            answered: drain.answered,
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
        let causes: Vec<Cause> = drain
            .causes
            .into_iter()
            .filter_map(|cause| {
                Some(Cause {
                    kind: Kind::parse(&cause.kind)?,
                    id: cause.id,
                    detail: cause.detail,
                    began: clock.moment_at(cause.began),
                    end: cause.end.map(|end| clock.moment_of(end)),
                })
            })
            .collect();
        (!causes.is_empty()).then_some(SavedDrain {
            causes,
            began: clock.moment_at(drain.began),
            since: clock.moment_at(drain.since),
            held: drain.held,
            set: drain.set,
            seen_open: drain.seen_open,
            answered: drain.answered,
            // Saved in the same breath as its cause, before the first step.
            phase: phase.max(Phase::Draining),
        })
    });
    Saved {
        instance: file.instance,
        boot: file.boot,
        container_instance: file.container_instance,
        ours: file.ours,
        launch: SavedLaunch {
            began: file.launch.began.map(|began| clock.moment_at(began)),
            abandoned: file.launch.abandoned,
            warm: file.launch.warm,
            seen_open: file.launch.seen_open,
            answered: file.launch.answered,
        },
        drain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(clock: &Clock) -> Saved {
        let tag = Cause::tag("a1 by anna", clock.now());
        let shutdown = Cause::shutdown("b1", clock.now());
        Saved {
            instance: "i-1".into(),
            boot: "b1".into(),
            container_instance: Some("arn".into()),
            ours: true,
            launch: SavedLaunch {
                began: Some(clock.now()),
                abandoned: false,
                warm: true,
                seen_open: true,
                answered: true,
            },
            drain: Some(SavedDrain {
                causes: vec![shutdown, tag],
                began: clock.now(),
                since: clock.now(),
                held: true,
                set: true,
                seen_open: true,
                answered: false,
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
        let golden = r#"{"version":1,"instance":"i-1","boot":"b1","container_instance":"arn","ours":true,"launch":{"began":"2026-11-21T10:00:00Z","abandoned":false,"warm":false,"seen_open":true,"answered":true},"drain":{"causes":[{"id":"auto-scaling-termination","kind":"auto-scaling","detail":"","began":"2026-11-21T11:00:00Z","end":null}],"began":"2026-11-21T11:00:00Z","since":"2026-11-21T11:00:00Z","held":false,"set":true,"seen_open":false,"answered":false,"phase":"draining"}}"#;
        let file: File = serde_json::from_str(golden).expect("golden");
        assert_eq!(serde_json::to_string(&file).expect("writes"), golden);
    }
}
