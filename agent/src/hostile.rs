//! Whatever comes from outside, broken in every way: nothing panics, and nothing takes for ever.
//!
//! `corpora/TARGET/` holds inputs as they really come, and each that once broke something. `cargo test`
//! replays them and a fixed number of mutations of them; `FLEET_FUZZ_SECONDS=600 cargo test -p
//! fleet-agent --lib hostile` goes on with others, and prints what it was reading if something breaks.
#![allow(
    clippy::disallowed_methods,
    reason = "how long to look is the caller's choice"
)]

use std::{
    collections::BTreeSet,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::{Duration, Instant},
};

use fleet_agent_config::{Applied, Config, Live};

use crate::{
    clients::{docker, imds, introspection},
    ecs_config::{effective, render},
    health::{disk, kernel},
    lifecycle::cause::Cause,
    metadata_block::{Family, Wanted, plan},
    moment::Moment,
    state,
};

const ROUNDS: u32 = 300;
/// What a mutation puts in, beside what it moves about.
const SPLINTERS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    "=",
    "\n",
    "\0",
    "\u{2028}",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "9999-12-31T23:59:59Z",
    "\\ud800",
    "'''",
    "[[a]]",
    ",",
    ":",
    "/",
    " ",
];
/// Reads its input, whatever comes of it.
type Target = fn(&str);
/// One reading, however long its input is.
const SLOW: Duration = Duration::from_secs(2);

#[test]
fn whatever_is_read_is_refused_in_good_order() {
    let targets: [(&str, Target); 10] = [
        ("agent-toml", agent_toml),
        ("revision", revision),
        ("cause", cause),
        ("metadata", imds::read_anything),
        ("introspection", introspection::read_anything),
        ("docker", docker::read_anything),
        ("state", state::read_anything),
        ("ecs-config", ecs_config),
        ("packet-filter", packet_filter),
        ("kernel-log", kernel_log),
    ];
    let seconds = env::var("FLEET_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("FLEET_FUZZ_SECONDS is a number"));
    for (name, target) in targets {
        let corpus = corpus(name);
        for input in &corpus {
            read(name, target, input);
        }
        let began = Instant::now();
        let mut rng = fastrand::Rng::with_seed(seconds.unwrap_or(7));
        let share = seconds.map(|seconds| Duration::from_secs(seconds) / 10);
        for round in 0.. {
            if share.map_or(round >= ROUNDS, |share| began.elapsed() >= share) {
                break;
            }
            read(name, target, &mutated(&corpus, &mut rng));
        }
    }
}

fn read(name: &str, target: Target, input: &str) {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(
        outcome.is_ok() && began.elapsed() < SLOW,
        "{name}: put this into agent/corpora/{name}: {input:?}"
    );
}

fn corpus(name: &str) -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpora")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no corpus");
    let read = files.iter().map(|file| fs::read(file).expect("readable"));
    read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

/// A few small changes to one of them.
fn mutated(corpus: &[String], rng: &mut fastrand::Rng) -> String {
    let mut bytes = corpus[rng.usize(..corpus.len())].clone().into_bytes();
    for _ in 0..rng.u8(1..=6) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..64)).min(bytes.len());
        match rng.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, part);
            }
            3 => {
                let other = corpus[rng.usize(..corpus.len())].as_bytes();
                let from = rng.usize(..=other.len());
                bytes.splice(at..end, other[from..].iter().copied().take(64));
            }
            4 => {
                let part = bytes[at..end].repeat(rng.usize(1..200));
                bytes.splice(at..at, part);
            }
            _ => {
                let splinter = SPLINTERS[rng.usize(..SPLINTERS.len())];
                bytes.splice(at..end.min(at + 8), splinter.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn golden() -> Config {
    let text = include_str!("../config/golden/agent-v1.toml");
    Config::read("agent.toml", text).expect("valid").0
}

/// What is accepted is written back as the same.
fn agent_toml(text: &str) {
    if let Ok((config, settings)) = Config::read("agent.toml", text) {
        let again = fleet_agent_config::render(&config).expect("renders");
        let (_, same) = Config::read("agent.toml", &again).expect("what was read can be read");
        assert_eq!(settings, same);
        let _ = render::layers(&settings, Some("arn"));
    }
}

/// What is taken keeps to the envelope, whatever else it says.
fn revision(text: &str) {
    let base = golden();
    if let Ok(live) = Live::read(text)
        && base.refusals(&live).is_empty()
    {
        let settings = base.with(&live).validate(&mut Vec::new()).expect("valid");
        assert!(
            settings
                .sidecars
                .iter()
                .all(|sidecar| !sidecar.container.privileged)
        );
    }
    let _ = Applied::read(text);
}

/// A value of the tag `fleet:drain`.
fn cause(text: &str) {
    let now = Moment::from_millis(1_000_000);
    let _ = Cause::tag(text, now).to_string();
}

fn ecs_config(text: &str) {
    let (_, settings) =
        Config::read("agent.toml", include_str!("../config/golden/agent-v1.toml")).expect("valid");
    let files = effective::Files {
        etc: text,
        image: text,
    };
    let _ = effective::hazards(&settings, files);
    let layers = render::layers(&settings, None);
    let merged = render::merge(text, &layers.managed, &BTreeSet::new());
    let again = render::merge(&merged, &layers.managed, &BTreeSet::new());
    assert_eq!(merged, again, "what was written is left alone");
    let _ = effective::of_cloud_init(text, text);
}

fn packet_filter(text: &str) {
    for family in Family::ALL {
        for wanted in [Wanted::Open, Wanted::Blocked { host_tasks: true }] {
            let _ = plan(family, text, wanted);
        }
    }
}

fn kernel_log(text: &str) {
    let _ = text.lines().filter_map(kernel::complaint).count();
    let _ = disk::is_read_only(text, "/var/lib/docker");
}
