//! Containers that run on every node beside ECS, started and stopped by the agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Problem,
    container::{Container, ContainerConfig, HealthCheckConfig, LogConfig},
    drain::SIDECARS_MAX,
    secrets,
};

/// How long a sidecar has to end after its stop signal, seconds.
const STOP_TIMEOUT_DEFAULT: u32 = 10;
/// Longer stops would not fit in a spot notice of two minutes.
const STOP_TIMEOUT_MAX: u32 = SIDECARS_MAX;
/// How long a sidecar may write out what it holds, seconds.
const FLUSH_TIMEOUT_DEFAULT: u32 = 10;
/// Signals that a program can catch and that mean nothing else to Docker.
const FLUSH_SIGNALS: [&str; 6] = [
    "SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH",
];

/// `[sidecars.NAME]`, as it stands in both files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SidecarConfig {
    /// Image with tag or digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Arguments; the image's own when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment, without secrets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// By name: `ssm:/NAME` or `secretsmanager:NAME`. `NAME_FILE` in its environment says in which file
    /// it finds the value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Whether ECS must not start before this one runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_tasks: Option<bool>,
    /// Docker network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// `/host/path:/container/path`, optionally with `:ro`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Hard memory limit, MiB; also taken off what ECS may place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Share of the processors when they are short: 1,024 is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_units: Option<u32>,
    /// The most processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// `HOST:CONTAINER`, with `/udp` if it is UDP: ECS gives these of the node's ports to no task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Capabilities beyond Docker's own, as `NET_ADMIN`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whether it may do everything that root may on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,
    /// Sidecars that have to be up before this one starts; it stops before them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// What it reaches AWS with: nothing, or the node's own role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// What asks it to end; the image's own, or SIGTERM, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Signal that makes it write out what it holds, once the last task is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_signal: Option<String>,
    /// How long it is left to that, seconds; one that exits by itself is done sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_timeout_seconds: Option<u32>,
    /// Between stop signal and kill, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout_seconds: Option<u32>,
    /// How Docker sees whether it works, and not only runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheckConfig>,
    /// Where what it prints goes; the journal if absent.
    #[serde(skip_serializing_if = "LogConfig::is_empty")]
    pub log: LogConfig,
}

/// What a sidecar reaches AWS with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Credentials {
    /// Nothing: a bridge leads to no metadata service.
    #[default]
    None,
    /// The node's whole role, by the metadata service, which only the node's own network leads to.
    Instance,
}

/// A sidecar's network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "SidecarNetwork")
)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Docker's default bridge: no way to the instance metadata service.
    #[default]
    Bridge,
    /// The node's own network.
    Host,
}

/// A sidecar whose every rule has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sidecar {
    /// Its key in the file.
    pub name: String,
    /// Image with tag or digest.
    pub image: String,
    /// Arguments; the image's own when empty.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Whether ECS must not start before this one runs.
    pub before_tasks: bool,
    /// Docker network.
    pub network: Network,
    /// Bind mounts in Docker's syntax.
    pub volumes: Vec<String>,
    /// Hard memory limit, MiB.
    pub memory_mib: Option<u32>,
    /// What else Docker is told of its container.
    #[serde(flatten)]
    pub container: Container,
    /// Sidecars that have to be up before this one starts.
    pub depends_on: Vec<String>,
    /// What it does once the last task is gone, before it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush: Option<Flush>,
    /// Between stop signal and kill, seconds.
    pub stop_timeout_seconds: u32,
}

/// A signal, and the time left to what it sets off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flush {
    /// A signal's name, with `SIG`.
    pub signal: String,
    /// Seconds.
    pub timeout_seconds: u32,
}

impl SidecarConfig {
    /// The same with every default filled in: what it comes to does not change. One that breaks a
    /// rule is left as it is.
    #[must_use]
    pub fn completed(self) -> Self {
        // Its name has no part in this.
        let Some(sidecar) = self.clone().validate("any", &mut Vec::new()) else {
            return self;
        };
        let container = sidecar.container;
        Self {
            before_tasks: Some(sidecar.before_tasks),
            network: Some(sidecar.network),
            privileged: Some(container.privileged),
            credentials: Some(self.credentials.unwrap_or_default()),
            flush_timeout_seconds: sidecar.flush.map(|flush| flush.timeout_seconds),
            stop_timeout_seconds: Some(sidecar.stop_timeout_seconds),
            health_check: container.health_check.map(HealthCheckConfig::from),
            log: LogConfig {
                driver: Some(container.log_driver),
                options: container.log_options,
            },
            ..self
        }
    }

    /// Checks every rule; what is wrong is added to `problems`.
    pub fn validate(self, name: &str, problems: &mut Vec<Problem>) -> Option<Sidecar> {
        let before = problems.len();
        let mut problem = |key: &str, message: String| {
            let key = if key.is_empty() {
                format!("sidecars.{name}")
            } else {
                format!("sidecars.{name}.{key}")
            };
            problems.push(Problem::new(key, message));
        };
        if !is_name(name) {
            problem(
                "",
                "a sidecar's name is 1 to 32 of a-z, 0-9 and -, not at an end".into(),
            );
        }
        let image = self.image.unwrap_or_default();
        if image.is_empty() {
            problem(
                "image",
                "is missing: name an image with a tag or digest".into(),
            );
        } else if !is_pinned(&image) {
            problem(
                "image",
                format!(
                    "`{image}` has no tag or digest: nodes would differ by the day they were launched"
                ),
            );
        }
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0', '\n']) {
                problem(
                    "env",
                    format!("`{key}` is not a name of an environment variable"),
                );
            }
            if let Some(why) = secrets::literal(key, value) {
                problem(
                    &format!("env.{key}"),
                    format!("{why}: user data must hold none, refer to it in `secrets`"),
                );
            }
        }
        let mut previous = None;
        for (index, argument) in self.command.iter().enumerate() {
            if let Some(why) = secrets::literal_argument(previous, argument) {
                problem(
                    "command",
                    format!("argument {} {why}: user data must hold none", index + 1),
                );
            }
            previous = Some(argument.as_str());
        }
        for volume in &self.volumes {
            if !is_volume(volume) {
                problem(
                    "volumes",
                    format!(
                        "`{volume}` is not `/host/path:/container/path`, with `:ro` if it is only read"
                    ),
                );
            }
        }
        if self.memory_mib.is_some_and(|mib| mib < 6) {
            problem("memory_mib", "is below Docker's minimum of 6 MiB".into());
        }
        let stop_timeout_seconds = self.stop_timeout_seconds.unwrap_or(STOP_TIMEOUT_DEFAULT);
        if !(1..=STOP_TIMEOUT_MAX).contains(&stop_timeout_seconds) {
            problem(
                "stop_timeout_seconds",
                format!(
                    "must be 1 to {STOP_TIMEOUT_MAX}: sidecars stop last, within a spot notice"
                ),
            );
        }
        let network = self.network.unwrap_or_default();
        if self.credentials == Some(Credentials::Instance) && network != Network::Host {
            problem(
                "credentials",
                "`instance` needs network = \"host\": no other leads to the metadata service"
                    .into(),
            );
        }
        let container = ContainerConfig {
            secrets: self.secrets,
            ports: self.ports,
            capabilities: self.capabilities,
            privileged: self.privileged,
            cpu_units: self.cpu_units,
            pids: self.pids,
            stop_signal: self.stop_signal,
            health_check: self.health_check,
            log: self.log,
        };
        let container = container.validate(network, &mut problem);
        let flush = flush(self.flush_signal, self.flush_timeout_seconds, &mut problem);
        (problems.len() == before).then(|| Sidecar {
            name: name.to_owned(),
            image,
            command: self.command,
            env: self.env,
            before_tasks: self.before_tasks.unwrap_or(false),
            network,
            volumes: self.volumes,
            memory_mib: self.memory_mib,
            container,
            depends_on: self.depends_on,
            flush,
            stop_timeout_seconds,
        })
    }
}

fn flush(
    signal: Option<String>,
    timeout_seconds: Option<u32>,
    problem: &mut impl FnMut(&str, String),
) -> Option<Flush> {
    let Some(signal) = signal else {
        if timeout_seconds.is_some() {
            problem(
                "flush_timeout_seconds",
                "has no effect without flush_signal".into(),
            );
        }
        return None;
    };
    if !FLUSH_SIGNALS.contains(&signal.as_str()) {
        let known = FLUSH_SIGNALS.join(", ");
        problem("flush_signal", format!("`{signal}` is none of {known}"));
    }
    let timeout_seconds = timeout_seconds.unwrap_or(FLUSH_TIMEOUT_DEFAULT);
    if !(1..=SIDECARS_MAX).contains(&timeout_seconds) {
        problem(
            "flush_timeout_seconds",
            format!("must be 1 to {SIDECARS_MAX}: sidecars flush within a spot notice"),
        );
    }
    Some(Flush {
        signal,
        timeout_seconds,
    })
}

fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A tag stands after the last slash; `host:5000/name` has none.
fn is_pinned(image: &str) -> bool {
    let well_formed = !image.contains(char::is_whitespace);
    let last = image.rsplit('/').next().unwrap_or("");
    well_formed && (last.contains(':') || last.contains('@')) && !last.ends_with([':', '@'])
}

fn is_volume(volume: &str) -> bool {
    let parts: Vec<&str> = volume.split(':').collect();
    match parts.as_slice() {
        [host, inside] | [host, inside, "ro" | "rw"] => {
            host.starts_with('/') && inside.starts_with('/') && *inside != "/"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut SidecarConfig)) -> Vec<String> {
        let mut config = SidecarConfig {
            image: Some("registry.example:5000/logs:1".into()),
            ..SidecarConfig::default()
        };
        change(&mut config);
        let mut problems = Vec::new();
        config.validate("logs", &mut problems);
        problems.into_iter().map(|p| p.key).collect()
    }

    #[test]
    fn every_rule_has_a_value_that_breaks_it() {
        assert_eq!(problems(|_| ()), [""; 0]);
        assert_eq!(problems(|c| c.image = None), ["sidecars.logs.image"]);
        assert_eq!(
            problems(|c| c.image = Some("host:5000/logs".into())),
            ["sidecars.logs.image"]
        );
        assert_eq!(
            problems(|c| c.volumes = vec!["data:/data".into()]),
            ["sidecars.logs.volumes"]
        );
        assert_eq!(
            problems(|c| c.memory_mib = Some(1)),
            ["sidecars.logs.memory_mib"]
        );
        assert_eq!(
            problems(|c| c.stop_timeout_seconds = Some(61)),
            ["sidecars.logs.stop_timeout_seconds"]
        );
        assert_eq!(
            problems(|c| c.flush_signal = Some("SIGKILL".into())),
            ["sidecars.logs.flush_signal"]
        );
        assert_eq!(
            problems(|c| c.flush_timeout_seconds = Some(5)),
            ["sidecars.logs.flush_timeout_seconds"]
        );
        assert_eq!(
            problems(|c| {
                c.flush_signal = Some("SIGUSR1".into());
                c.flush_timeout_seconds = Some(0);
            }),
            ["sidecars.logs.flush_timeout_seconds"]
        );
        assert_eq!(
            problems(|c| c.env = [("API_KEY".into(), "x".into())].into()),
            ["sidecars.logs.env.API_KEY"]
        );
        assert_eq!(
            problems(|c| c.command = vec!["--url=https://a:b@c/".into()]),
            ["sidecars.logs.command"]
        );
        let mut found = Vec::new();
        SidecarConfig::default().validate("Bad_Name", &mut found);
        assert_eq!(found.len(), 2, "all at once: {found:?}");
    }

    #[test]
    fn what_is_filled_in_changes_nothing() {
        let least = SidecarConfig {
            image: Some("logs:1".into()),
            ..SidecarConfig::default()
        };
        let more = SidecarConfig {
            flush_signal: Some("SIGUSR1".into()),
            network: Some(Network::Host),
            health_check: Some(HealthCheckConfig {
                command: vec!["/health".into()],
                retries: Some(9),
                ..HealthCheckConfig::default()
            }),
            ..least.clone()
        };
        for config in [least, more] {
            let completed = config.clone().completed();
            let settings = |config: SidecarConfig| config.validate("logs", &mut Vec::new());
            assert!(settings(config.clone()).is_some());
            assert_eq!(settings(completed.clone()), settings(config));
            assert_eq!(completed.clone().completed(), completed);
        }
        let broken = SidecarConfig::default();
        assert_eq!(broken.clone().completed(), broken);
    }
}
