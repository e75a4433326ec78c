//! What is kept on disk: only what the world cannot tell after a restart. Versioned; of another
//! instance (an AMI made from a running node) it is discarded.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result, bail};
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
    moment::Moment,
};

const VERSION: u32 = 1;

/// A moment on both clocks: the machine's own holds whatever is done to the wall's, the wall's holds
/// over a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Time {
    wall: Timestamp,
    boot_ms: u64,
}

/// A state file of any version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// `state.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    version: u32,
    instance: String,
    zone: String,
    spot: bool,
    boot: String,
    container_instance: Option<String>,
    /// It was us who set DRAINING.
    ours: bool,
    launch: FileLaunch,
    drain: Option<FileDrain>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileLaunch {
    began: Option<Time>,
    abandoned: bool,
    warm: bool,
    seen_open: bool,
    answered: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileDrain {
    causes: Vec<FileCause>,
    began: Time,
    since: Time,
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
    began: Time,
    end: Option<Time>,
}

/// # Errors
/// Naming the file.
pub(crate) fn save(path: &Path, saved: &Saved, clock: &Clock) -> Result<()> {
    let time = |moment: Moment| Time {
        wall: clock.wall_of(moment),
        boot_ms: moment.as_millis(),
    };
    let file = File {
        version: VERSION,
        instance: saved.instance.clone(),
        zone: saved.zone.clone(),
        spot: saved.spot,
        boot: saved.boot.clone(),
        container_instance: saved.container_instance.clone(),
        ours: saved.ours,
        launch: FileLaunch {
            began: saved.launch.began.map(time),
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
                    began: time(cause.began),
                    end: cause.end.map(time),
                })
                .collect(),
            began: time(drain.began),
            since: time(drain.since),
            held: drain.held,
            set: drain.set,
            seen_open: drain.seen_open,
            answered: drain.answered,
            phase: drain.phase.as_str().to_owned(),
        }),
    };
    atomic::write(path, serde_json::to_string_pretty(&file)?.as_bytes())
}

/// What was saved, of whichever instance. What cannot be read is nothing: the world is read afresh,
/// and a node must not hang on a file it can do without.
pub(crate) fn load(path: &Path, boot: &str, clock: &Clock) -> Option<Saved> {
    match read(path) {
        Ok(file) => file.map(|file| saved(file, boot, clock)),
        Err(error) => {
            sink::write(&Entry::CallFailed {
                call: "read the state, going on without",
                error: format!("{error:#}"),
            });
            None
        }
    }
}

/// Whether this agent could go on from what another has saved: an upgrade asks the new one before it
/// takes the old one's place.
///
/// # Errors
/// Naming the file, and why not.
pub(crate) fn check(path: &Path) -> Result<()> {
    read(path).map(drop)
}

fn read(path: &Path) -> Result<Option<File>> {
    let parse = || {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Versioned { version } = serde_json::from_str(&text)?;
        if version > VERSION {
            bail!(
                "its version is {version}, and this fleet-agent reads {VERSION}: a newer one wrote it"
            );
        }
        Ok(Some(serde_json::from_str(&text)?))
    };
    parse().with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
pub(crate) fn read_anything(text: &str) {
    let _ = serde_json::from_str::<File>(text).map(|file| {
        saved(
            file,
            "boot",
            &Clock::booted(
                std::time::Duration::from_secs(9),
                jiff::Timestamp::UNIX_EPOCH,
            ),
        )
    });
}

fn saved(file: File, boot: &str, clock: &Clock) -> Saved {
    let is_same_boot = file.boot == boot;
    let own = |time: &Time| is_same_boot.then(|| Moment::from_millis(time.boot_ms));
    let past = |time: Time| own(&time).unwrap_or_else(|| clock.moment_at(time.wall));
    let any = |time: Time| own(&time).unwrap_or_else(|| clock.moment_of(time.wall));
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
                    began: past(cause.began),
                    end: cause.end.map(any),
                })
            })
            .collect();
        (!causes.is_empty()).then_some(SavedDrain {
            causes,
            began: past(drain.began),
            since: past(drain.since),
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
        zone: file.zone,
        spot: file.spot,
        boot: file.boot,
        container_instance: file.container_instance,
        ours: file.ours,
        launch: SavedLaunch {
            began: file.launch.began.map(past),
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
            zone: "z".into(),
            spot: true,
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
    async fn times_hold_over_a_restart_and_what_cannot_be_read_is_nothing() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state.json");
        let clock = Clock::paused();
        assert_eq!(load(&path, "b1", &clock), None, "absent");
        let saved = sample(&clock);
        save(&path, &saved, &clock).expect("save");
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(load(&path, "b1", &clock), Some(saved));
        check(&path).expect("can be read");
        for (broken, told) in [
            ("{", "EOF while parsing"),
            (
                r#"{"version":2}"#,
                "its version is 2, and this fleet-agent reads 1: a newer one wrote it",
            ),
        ] {
            fs::write(&path, broken).expect("write");
            assert_eq!(load(&path, "b1", &clock), None, "{broken}");
            let why = format!("{:#}", check(&path).expect_err("cannot be read"));
            assert!(why.contains("state.json: ") && why.contains(told), "{why}");
        }
    }

    #[test]
    fn within_a_boot_the_walls_clock_may_be_set() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("state.json");
        let wall = Timestamp::from_second(1_763_712_000).expect("in range");
        let before = Clock::booted(Duration::from_secs(100), wall);
        save(&path, &sample(&before), &before).expect("save");
        for hours in [-3, 3] {
            let wall = wall + jiff::SignedDuration::from_hours(hours);
            let after = Clock::booted(Duration::from_secs(107), wall);
            let saved = load(&path, "b1", &after).expect("saved");
            let began = saved.drain.expect("drains").began;
            assert_eq!(after.now().since(began), Duration::from_secs(7));
        }
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
        let saved = load(&path, "b2", &after).expect("saved");
        let began = saved.drain.expect("drains").began;
        assert_eq!(after.now().since(began), Duration::from_secs(3_000));
    }

    /// The first version ever shipped: it must stay readable for good.
    #[test]
    fn the_golden_file_is_read() {
        let golden = include_str!("../corpora/state/golden.json");
        let file: File = serde_json::from_str(golden).expect("golden");
        assert_eq!(serde_json::to_string(&file).expect("writes"), golden);
    }
}
