//! The part of a node's settings that may change while it lives, and how far it may.
//!
//! User data fixes the rest: what ECS is told at registration alone, and an envelope that no revision
//! exceeds. Whoever may write the parameter gets no more of a node than its launch template gave.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    Config, Credentials, DiskConfig, DrainConfig, HealthConfig, Network, Problem, SidecarConfig,
    VERSION, config::foreign,
};

/// A standard parameter holds no more (PutParameter), bytes.
pub const LIVE_MAX: usize = 4 * 1024;
/// No revision has a higher number: numbers only rise, and one past every other would be the last.
pub const REVISION_MAX: u64 = 999_999;

/// A revision of the live settings, as the group's SSM parameter holds it, in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Version of the contract.
    pub version: u32,
    /// Nodes take a revision only from their own fleet.
    pub owner: String,
    /// 0 says the same as the user data; later revisions only rise.
    pub revision: u64,
    /// How nodes leave.
    #[serde(default)]
    pub drain: DrainConfig,
    /// When a disk counts as low or full.
    #[serde(default, skip_serializing_if = "DiskConfig::is_empty")]
    pub disk: DiskConfig,
    /// What becomes of a node that stays impaired.
    #[serde(default, skip_serializing_if = "HealthConfig::is_empty")]
    pub health: HealthConfig,
    /// Containers beside ECS.
    #[serde(default)]
    pub sidecars: BTreeMap<String, SidecarConfig>,
}

/// Of whatever shape the rest is.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Live {
    /// The live part of these settings.
    pub fn of(config: &Config, revision: u64) -> Self {
        Self {
            version: VERSION,
            owner: config.owner.clone(),
            revision,
            drain: config.drain.clone(),
            disk: config.disk,
            health: config.health,
            sidecars: config.sidecars.clone(),
        }
    }

    /// Reads the parameter's value.
    ///
    /// # Errors
    /// Why it is no such value.
    pub fn read(text: &str) -> Result<Self, Problem> {
        let refuse = |why: String| Problem::new("revision", why);
        if text.len() > LIVE_MAX {
            let size = text.len();
            return Err(refuse(format!("{size} bytes are more than {LIVE_MAX}")));
        }
        // First: what another version writes need not have this one's shape.
        let Versioned { version } = serde_json::from_str(text)
            .map_err(|error| refuse(format!("is no revision: {error}")))?;
        if let Some(why) = foreign(version) {
            return Err(refuse(format!("its version {why}")));
        }
        let live: Self = serde_json::from_str(text)
            .map_err(|error| refuse(format!("is no revision: {error}")))?;
        if live.revision > REVISION_MAX {
            return Err(refuse(format!("its number is past {REVISION_MAX}")));
        }
        Ok(live)
    }

    /// The parameter's value.
    ///
    /// # Errors
    /// None for what was read from a file; the type is serde's.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The same with another number.
    #[must_use]
    pub fn numbered(&self, revision: u64) -> Self {
        Self {
            revision,
            ..self.clone()
        }
    }

    /// Whether both say the same, whatever their revisions.
    pub fn says_the_same(&self, other: &Self) -> bool {
        *self == other.numbered(self.revision)
    }
}

impl Config {
    /// These settings with a revision's in the place of their live part.
    #[must_use]
    pub fn with(&self, live: &Live) -> Self {
        Self {
            drain: live.drain.clone(),
            disk: live.disk,
            health: live.health,
            sidecars: live.sidecars.clone(),
            ..self.clone()
        }
    }

    /// Everything that keeps a node that was launched with these settings from taking a revision.
    pub fn refusals(&self, live: &Live) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(foreign(live.version).map(|why| Problem::new("version", why)));
        if live.owner != self.owner {
            problems.push(Problem::new(
                "owner",
                "is another fleet's: its revisions are not for this node",
            ));
        }
        // What is wrong in itself.
        let _ = self.with(live).validate(&mut problems);
        self.exceeds(live, &mut problems);
        problems
    }

    /// What goes beyond the sidecars that user data describes.
    fn exceeds(&self, live: &Live, problems: &mut Vec<Problem>) {
        let ours = || self.sidecars.values();
        let images = ours().filter_map(|sidecar| sidecar.image.as_deref());
        let registries: BTreeSet<&str> = images.map(registry).collect();
        let mounts: BTreeSet<(&str, bool)> = ours()
            .flat_map(|sidecar| &sidecar.volumes)
            .map(|volume| mount(volume))
            .collect();
        let capabilities: BTreeSet<&str> = ours()
            .flat_map(|sidecar| &sidecar.capabilities)
            .map(|name| plain(name))
            .collect();
        let is_privileged = ours().any(|sidecar| sidecar.privileged == Some(true));
        let is_host = ours().any(|sidecar| sidecar.network == Some(Network::Host));
        let has_role = ours().any(|sidecar| sidecar.credentials == Some(Credentials::Instance));
        let secrets: BTreeSet<&str> = ours()
            .flat_map(|sidecar| sidecar.secrets.values())
            .map(String::as_str)
            .collect();
        for (name, sidecar) in &live.sidecars {
            let mut beyond = |key: &str, what: String| {
                problems.push(Problem::new(
                    format!("sidecars.{name}.{key}"),
                    format!("{what}: no sidecar of the launch template has it, so it needs a roll"),
                ));
            };
            let registry = sidecar.image.as_deref().map(registry);
            if let Some(registry) = registry.filter(|registry| !registries.contains(registry)) {
                beyond("image", format!("registry {registry}"));
            }
            for secret in sidecar.secrets.values() {
                if !secrets.contains(secret.as_str()) {
                    beyond("secrets", format!("`{secret}`"));
                }
            }
            for volume in &sidecar.volumes {
                let (source, writes) = mount(volume);
                // Who may write may read.
                if !mounts.contains(&(source, true)) && !mounts.contains(&(source, writes)) {
                    beyond("volumes", format!("mount `{volume}`"));
                }
            }
            for capability in &sidecar.capabilities {
                if !is_privileged && !capabilities.contains(plain(capability)) {
                    beyond("capabilities", format!("capability {capability}"));
                }
            }
            // Where logs go is where data goes.
            if !sidecar.log.is_usual() && !ours().any(|ours| ours.log == sidecar.log) {
                beyond("log", "this logging".to_owned());
            }
            if sidecar.privileged == Some(true) && !is_privileged {
                beyond("privileged", "privilege".to_owned());
            }
            if sidecar.network == Some(Network::Host) && !is_host {
                beyond("network", "the node's own network".to_owned());
            }
            if sidecar.credentials == Some(Credentials::Instance) && !has_role {
                beyond("credentials", "the node's role".to_owned());
            }
        }
        registered(self.sidecars.values(), live.sidecars.values(), problems);
    }
}

/// What ECS is told when a node registers, and never again (RegisterContainerInstance).
fn registered<'a>(
    ours: impl Iterator<Item = &'a SidecarConfig>,
    theirs: impl Iterator<Item = &'a SidecarConfig>,
    problems: &mut Vec<Problem>,
) {
    let (mut before, mut after) = (Reserved::default(), Reserved::default());
    ours.for_each(|sidecar| before.add(sidecar));
    theirs.for_each(|sidecar| after.add(sidecar));
    if before.memory != after.memory {
        problems.push(Problem::new(
            "sidecars",
            format!(
                "take {} MiB in place of {}: ECS learns that when a node registers, so it needs a roll",
                after.memory, before.memory
            ),
        ));
    }
    if before.ports != after.ports {
        problems.push(Problem::new(
            "sidecars",
            "take other ports: ECS learns that when a node registers, so it needs a roll",
        ));
    }
}

#[derive(Debug, Default)]
struct Reserved<'a> {
    /// MiB.
    memory: u64,
    ports: BTreeSet<&'a str>,
}

impl<'a> Reserved<'a> {
    fn add(&mut self, sidecar: &'a SidecarConfig) {
        self.memory += u64::from(sidecar.memory_mib.unwrap_or(0));
        self.ports.extend(sidecar.ports.iter().map(String::as_str));
    }
}

/// As Docker reads an image's name: `host/` in front only if it has a dot or a port, or is
/// `localhost`, or is not all lower case (distribution/reference).
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            host
        }
        Some(_) | None => "docker.io",
    }
}

/// What is mounted, and whether it may be written.
fn mount(volume: &str) -> (&str, bool) {
    let (source, rest) = volume.split_once(':').unwrap_or((volume, ""));
    let options = rest.split_once(':').map_or("", |(_, options)| options);
    (source, !options.split(',').any(|option| option == "ro"))
}

fn plain(capability: &str) -> &str {
    capability.strip_prefix("CAP_").unwrap_or(capability)
}

/// The settings a node goes by, as [`crate::names::attribute::CONFIG`] holds them: `HASH`, `HASH.3`,
/// `HASH.3 starting`, `HASH.3 refused 4`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Of agent.toml.
    pub hash: String,
    /// Taken since; 0 if none was.
    pub revision: u64,
    /// A newer one that cannot be taken.
    pub refused: Option<u64>,
    /// All sidecars have been up with these settings.
    pub settled: bool,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash)?;
        if self.revision > 0 {
            write!(f, ".{}", self.revision)?;
        }
        match self.refused {
            Some(refused) => write!(f, " refused {refused}"),
            None if !self.settled => f.write_str(" starting"),
            None => Ok(()),
        }
    }
}

impl Applied {
    /// The same, settled or not.
    #[must_use]
    pub fn with(&self, settled: bool) -> Self {
        Self {
            settled,
            ..self.clone()
        }
    }

    /// Reads what [`Applied`] writes; what is left out of it counts as settled.
    pub fn read(text: &str) -> Option<Self> {
        let (settings, state) = text.split_once(' ').unwrap_or((text, ""));
        let (hash, revision) = match settings.split_once('.') {
            Some((hash, revision)) => (hash, revision.parse().ok()?),
            None => (settings, 0),
        };
        let refused = match state.strip_prefix("refused ") {
            Some(refused) => Some(refused.parse().ok()?),
            None => None,
        };
        Some(Self {
            hash: hash.to_owned(),
            revision,
            refused,
            settled: refused.is_some() || state != "starting",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, LogConfig};

    fn config() -> Config {
        let source = include_str!("../golden/agent-v1.toml");
        let document = Document::parse("agent.toml", source).expect("syntax");
        let (config, problems) = document.read::<Config>();
        assert_eq!(problems, []);
        config
    }

    fn refused(change: impl FnOnce(&mut Live)) -> Vec<String> {
        let mut live = Live::of(&config(), 1);
        change(&mut live);
        let problems = config().refusals(&live);
        problems.into_iter().map(|problem| problem.key).collect()
    }

    fn of(change: impl FnOnce(&mut SidecarConfig)) -> Vec<String> {
        refused(|live| {
            change(
                live.sidecars
                    .get_mut("node-logs")
                    .expect("in the golden file"),
            )
        })
    }

    #[test]
    fn what_user_data_says_itself_is_taken_and_so_is_what_stays_within() {
        assert_eq!(refused(|_| {}), [""; 0]);
        assert_eq!(
            of(|sidecar| {
                let image = sidecar.image.as_mut().expect("an image");
                let end = image.rfind(':').expect("a tag");
                image.replace_range(end.., ":99");
                sidecar.command = vec!["--other".into()];
            }),
            [""; 0]
        );
        assert_eq!(
            refused(|live| live.drain.deadline_seconds = Some(60)),
            [""; 0]
        );
    }

    #[test]
    fn who_logs_as_everybody_does_needs_nobody_before_it() {
        let other = LogConfig {
            driver: Some("local".into()),
            ..LogConfig::default()
        };
        let mut config = config();
        for sidecar in config.sidecars.values_mut() {
            sidecar.log = other.clone();
        }
        let mut live = Live::of(&config, 1);
        for sidecar in live.sidecars.values_mut() {
            sidecar.log.driver = Some("journald".into());
        }
        assert_eq!(config.refusals(&live), []);
    }

    #[test]
    fn nothing_exceeds_the_envelope() {
        let key = |part: &str| format!("sidecars.node-logs.{part}");
        for (refused, expected) in [
            (
                of(|s| s.image = Some("evil.example/logs:1".into())),
                key("image"),
            ),
            (of(|s| s.volumes.push("/:/host:ro".into())), key("volumes")),
            (
                of(|s| s.capabilities.push("SYS_ADMIN".into())),
                key("capabilities"),
            ),
            (of(|s| s.privileged = Some(true)), key("privileged")),
            (of(|s| s.log.driver = Some("syslog".into())), key("log")),
            (
                of(|s| s.secrets = [("KEY".into(), "ssm:/others".into())].into()),
                key("secrets"),
            ),
            (of(|s| s.memory_mib = Some(4_000)), "sidecars".to_owned()),
            (
                of(|s| s.ports = vec!["80:80".into()]),
                "sidecars".to_owned(),
            ),
            (
                refused(|live| live.owner = "somebody".into()),
                "owner".to_owned(),
            ),
            (
                refused(|live| live.drain.deadline_seconds = Some(1_000_000)),
                "drain.deadline_seconds".to_owned(),
            ),
        ] {
            assert!(refused.contains(&expected), "{expected}: {refused:?}");
        }
    }

    #[test]
    fn what_a_node_goes_by_is_read_as_it_was_written() {
        for text in [
            "a1",
            "a1.3",
            "a1.3 starting",
            "a1.3 refused 4",
            "a1 refused 4",
        ] {
            let applied = Applied::read(text).expect(text);
            assert_eq!(applied.to_string(), text);
        }
        assert_eq!(Applied::read("a1.x"), None);
    }

    #[test]
    fn a_mount_that_may_be_read_may_not_be_written() {
        assert_eq!(mount("/var/log:/log:ro"), ("/var/log", false));
        assert_eq!(mount("/var/log:/log:z,ro"), ("/var/log", false));
        assert_eq!(mount("/var/log:/log"), ("/var/log", true));
    }

    #[test]
    fn an_images_registry_is_what_docker_takes_for_it() {
        assert_eq!(registry("busybox:1"), "docker.io");
        assert_eq!(registry("library/busybox:1"), "docker.io");
        assert_eq!(registry("localhost/x:1"), "localhost");
        assert_eq!(
            registry("registry.example:5000/a/b:1"),
            "registry.example:5000"
        );
    }

    /// A revision as version 0.1.0 wrote it: it stays readable for good.
    #[test]
    fn the_golden_revision_is_read_and_written_back_unchanged() {
        let golden = include_str!("../golden/live-v1.json");
        let live = Live::read(golden).expect("valid");
        assert_eq!(live.text().expect("JSON"), golden.trim_end());
    }

    #[test]
    fn the_parameter_is_read_as_it_was_written_and_nothing_else_is() {
        let live = Live::of(&config(), 7);
        let text = live.text().expect("JSON");
        assert_eq!(Live::read(&text), Ok(live));
        let long = " ".repeat(LIVE_MAX) + &text;
        for wrong in [
            "",
            "{}",
            "[1]",
            &long,
            &text.replace("\"version\":1", "\"version\":2"),
        ] {
            assert!(Live::read(wrong).is_err(), "{wrong}");
        }
        let unknown = text.replacen('{', "{\"more\":1,", 1);
        assert!(Live::read(&unknown).is_err());
    }
}
