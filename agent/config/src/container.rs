//! What a sidecar's container may use and do, in Docker's terms.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Network, document::nearest, secrets};

/// Of the kernel (capabilities(7)), as Docker names them.
const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
/// Signals that ask a program to end.
const STOP_SIGNALS: &[&str] = &[
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH",
];
/// Docker's own.
const LOG_DRIVERS: &[&str] = &[
    "awslogs",
    "fluentd",
    "gelf",
    "journald",
    "json-file",
    "local",
    "none",
    "splunk",
    "syslog",
];
const LOG_DRIVER_DEFAULT: &str = "journald";
/// Seconds of a health check's settings.
const SECONDS: RangeInclusive<u32> = 1..=3_600;
const RETRIES: RangeInclusive<u32> = 1..=100;
/// What Docker takes for a share of the processors: 1,024 is one, as for ECS.
const CPU_UNITS: RangeInclusive<u32> = 2..=262_144;
const PIDS: RangeInclusive<u32> = 1..=4_194_304;

/// The part of `[sidecars.NAME]` that goes to Docker nearly as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerConfig {
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) ports: Vec<String>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) privileged: Option<bool>,
    pub(crate) cpu_units: Option<u32>,
    pub(crate) pids: Option<u32>,
    pub(crate) stop_signal: Option<String>,
    pub(crate) health_check: Option<HealthCheckConfig>,
    pub(crate) log: LogConfig,
}

/// `[sidecars.NAME.health_check]`: how Docker sees whether a sidecar works, and not only runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckConfig {
    /// Run in the container; it is healthy if that exits with 0.
    pub command: Vec<String>,
    /// Seconds between two; default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<u32>,
    /// Seconds that one may take; default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
    /// Failures in a row until it counts as unhealthy; default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Seconds after its start in which failures do not count; default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_seconds: Option<u32>,
}

/// `[sidecars.NAME.log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Docker's logging driver; default `journald`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Options of that driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl LogConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether logs go where they go if nothing is said of them.
    pub(crate) fn is_usual(&self) -> bool {
        let driver = self.driver.as_deref().unwrap_or(LOG_DRIVER_DEFAULT);
        driver == LOG_DRIVER_DEFAULT && self.options.is_empty()
    }
}

/// What Docker is told of a sidecar's container, checked and complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// SSM parameters by the name under which the container finds their values.
    pub secrets: BTreeMap<String, String>,
    /// Ports of the node that lead to it; ECS gives them to no task.
    pub ports: Vec<Port>,
    /// Beyond those that Docker gives every container.
    pub capabilities: Vec<String>,
    /// May do everything that root may on the node.
    pub privileged: bool,
    /// Share of the processors when they are short: 1,024 is one.
    pub cpu_units: Option<u32>,
    /// The most processes and threads.
    pub pids: Option<u32>,
    /// What asks it to end; the image's own, or SIGTERM, if absent.
    pub stop_signal: Option<String>,
    /// How Docker sees whether it works.
    pub health_check: Option<HealthCheck>,
    /// Docker's logging driver.
    pub log_driver: String,
    /// Options of that driver.
    pub log_options: BTreeMap<String, String>,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            secrets: BTreeMap::new(),
            ports: Vec::new(),
            capabilities: Vec::new(),
            privileged: false,
            cpu_units: None,
            pids: None,
            stop_signal: None,
            health_check: None,
            log_driver: LOG_DRIVER_DEFAULT.to_owned(),
            log_options: BTreeMap::new(),
        }
    }
}

/// [`HealthCheckConfig`], checked and complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// Run in the container; it is healthy if that exits with 0.
    pub command: Vec<String>,
    /// Seconds between two.
    pub interval_seconds: u32,
    /// Seconds that one may take.
    pub timeout_seconds: u32,
    /// Failures in a row until it counts as unhealthy.
    pub retries: u32,
    /// Seconds after its start in which failures do not count.
    pub start_period_seconds: u32,
}

/// A port of the node that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port {
    /// On the node.
    pub host: u16,
    /// In the container.
    pub container: u16,
    /// TCP, or UDP.
    pub protocol: Protocol,
}

/// A port's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As in `80/tcp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Port {
    type Err = ();

    /// `9100:9100`, `8125:8125/udp`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(()),
        };
        let (host, container) = ports.split_once(':').ok_or(())?;
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or(());
        Ok(Self {
            host: port(host)?,
            container: port(container)?,
            protocol,
        })
    }
}

impl ContainerConfig {
    /// Checks every rule; `problem` is told the key below `[sidecars.NAME]` and what is wrong.
    pub(crate) fn validate(
        self,
        network: Network,
        problem: &mut impl FnMut(&str, String),
    ) -> Container {
        let mut container = Container {
            privileged: self.privileged.unwrap_or(false),
            cpu_units: self.cpu_units,
            pids: self.pids,
            ..Container::default()
        };
        for (name, reference) in self.secrets {
            if !is_variable(&name) {
                problem(
                    "secrets",
                    format!("`{name}` is no name of a variable: letters, digits and _"),
                );
            }
            match parameter(&reference) {
                Some(parameter) => drop(container.secrets.insert(name, parameter)),
                None => problem(
                    &format!("secrets.{name}"),
                    // What stands there may be the secret itself.
                    "is not `ssm:/NAME` of a parameter or `secretsmanager:NAME` of a secret".into(),
                ),
            }
        }
        for text in &self.ports {
            match text.parse::<Port>() {
                Err(()) => problem(
                    "ports",
                    format!("`{text}` is not `HOST:CONTAINER`, with `/udp` if it is UDP"),
                ),
                Ok(port) if network == Network::Host && port.host != port.container => problem(
                    "ports",
                    format!("`{text}`: in the node's own network a port is the same on both sides"),
                ),
                Ok(port) => container.ports.push(port),
            }
        }
        container.ports.sort_unstable();
        for name in self.capabilities {
            let plain = name.strip_prefix("CAP_").unwrap_or(&name);
            if !CAPABILITIES.contains(&plain) {
                problem(
                    "capabilities",
                    unknown(&name, "capability", plain, CAPABILITIES),
                );
            }
            container.capabilities.push(plain.to_owned());
        }
        container.capabilities.sort_unstable();
        let mut within = |key: &str, value: Option<u32>, range: RangeInclusive<u32>| {
            if value.is_some_and(|value| !range.contains(&value)) {
                problem(key, format!("must be {} to {}", range.start(), range.end()));
            }
        };
        within("cpu_units", self.cpu_units, CPU_UNITS);
        within("pids", self.pids, PIDS);
        if let Some(signal) = &self.stop_signal
            && !STOP_SIGNALS.contains(&signal.as_str())
        {
            problem(
                "stop_signal",
                unknown(signal, "stop signal", signal, STOP_SIGNALS),
            );
        }
        container.stop_signal = self.stop_signal;
        container.health_check = self.health_check.map(|check| check.validate(problem));
        if let Some(driver) = self.log.driver {
            if !LOG_DRIVERS.contains(&driver.as_str()) {
                problem(
                    "log.driver",
                    unknown(&driver, "logging driver", &driver, LOG_DRIVERS),
                );
            }
            container.log_driver = driver;
        }
        for (name, value) in &self.log.options {
            if let Some(why) = secrets::literal(name, value) {
                problem(
                    &format!("log.options.{name}"),
                    format!("{why}: user data must hold none"),
                );
            }
        }
        container.log_options = self.log.options;
        container
    }
}

impl From<HealthCheck> for HealthCheckConfig {
    fn from(check: HealthCheck) -> Self {
        Self {
            command: check.command,
            interval_seconds: Some(check.interval_seconds),
            timeout_seconds: Some(check.timeout_seconds),
            retries: Some(check.retries),
            start_period_seconds: Some(check.start_period_seconds),
        }
    }
}

impl HealthCheckConfig {
    fn validate(self, problem: &mut impl FnMut(&str, String)) -> HealthCheck {
        if self.command.is_empty() {
            problem(
                "health_check.command",
                "is missing: name a program in the image, and its arguments".to_owned(),
            );
        }
        let mut number =
            |key: &str, value: Option<u32>, default: u32, range: RangeInclusive<u32>| {
                let value = value.unwrap_or(default);
                if !range.contains(&value) {
                    problem(
                        &format!("health_check.{key}"),
                        format!("must be {} to {}", range.start(), range.end()),
                    );
                }
                value
            };
        HealthCheck {
            interval_seconds: number("interval_seconds", self.interval_seconds, 30, SECONDS),
            timeout_seconds: number("timeout_seconds", self.timeout_seconds, 5, SECONDS),
            retries: number("retries", self.retries, 3, RETRIES),
            start_period_seconds: number(
                "start_period_seconds",
                self.start_period_seconds,
                0,
                0..=*SECONDS.end(),
            ),
            command: self.command,
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The SSM parameter that a reference stands for. Systems Manager reads secrets of Secrets Manager, too
/// (user guide, "Referencing AWS Secrets Manager secrets from Parameter Store parameters").
fn parameter(reference: &str) -> Option<String> {
    let (store, name) = reference.split_once(':')?;
    let is_legal = |name: &str| {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"_.-/+=@".contains(&b);
        (2..=1_011).contains(&name.len()) && name.bytes().all(legal) && !name.ends_with('/')
    };
    match store {
        "ssm" if name.starts_with('/') && is_legal(name) => Some(name.to_owned()),
        "secretsmanager" if !name.starts_with('/') && is_legal(name) => {
            Some(format!("/aws/reference/secretsmanager/{name}"))
        }
        _ => None,
    }
}

fn unknown(name: &str, what: &str, plain: &str, known: &[&str]) -> String {
    match nearest(plain, known.iter().copied()) {
        Some(near) => format!("`{name}` is no {what}, did you mean `{near}`?"),
        None => format!("`{name}` is no {what}: use one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_referred_to_and_never_written_down() {
        assert_eq!(parameter("ssm:/shop/key").as_deref(), Some("/shop/key"));
        assert_eq!(
            parameter("secretsmanager:shop/key").as_deref(),
            Some("/aws/reference/secretsmanager/shop/key")
        );
        for wrong in [
            "hunter2",
            "ssm:key",
            "ssm:/",
            "ssm:/a b",
            "secretsmanager:",
            "vault:/x",
        ] {
            let config = ContainerConfig {
                secrets: [("KEY".to_owned(), wrong.to_owned())].into(),
                ..ContainerConfig::default()
            };
            let mut found = Vec::new();
            let mut problem = |key: &str, why: String| found.push(format!("{key}: {why}"));
            config.validate(Network::Bridge, &mut problem);
            assert_eq!(found.len(), 1, "{wrong}");
            assert!(found[0].starts_with("secrets.KEY: "), "{found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
    }

    #[test]
    fn every_rule_has_a_value_that_breaks_it() {
        let problems = |config: ContainerConfig, network: Network| {
            let mut found = Vec::new();
            config.validate(network, &mut |key: &str, _| found.push(key.to_owned()));
            found
        };
        let with = |change: fn(&mut ContainerConfig)| {
            let mut config = ContainerConfig::default();
            change(&mut config);
            problems(config, Network::Bridge)
        };
        assert_eq!(with(|_| ()), [""; 0]);
        assert_eq!(with(|c| c.ports = vec!["80".into()]), ["ports"]);
        assert_eq!(with(|c| c.ports = vec!["0:80".into()]), ["ports"]);
        assert_eq!(with(|c| c.ports = vec!["80:80/sctp".into()]), ["ports"]);
        assert_eq!(
            with(|c| c.capabilities = vec!["NET_ADMN".into()]),
            ["capabilities"]
        );
        assert_eq!(with(|c| c.cpu_units = Some(1)), ["cpu_units"]);
        assert_eq!(with(|c| c.pids = Some(0)), ["pids"]);
        assert_eq!(
            with(|c| c.stop_signal = Some("SIGKILL".into())),
            ["stop_signal"]
        );
        assert_eq!(
            with(|c| c.health_check = Some(HealthCheckConfig::default())),
            ["health_check.command"]
        );
        assert_eq!(
            with(|c| c.log.driver = Some("journal".into())),
            ["log.driver"]
        );
        let host = ContainerConfig {
            ports: vec!["80:8080".into()],
            ..ContainerConfig::default()
        };
        assert_eq!(problems(host, Network::Host), ["ports"]);
    }
}
