//! `fleet.toml` and one of its environments, as a [`Spec`] whose every rule has been checked.
//!
//! Wire form -> environment laid over it -> rules -> [`Spec`]. Reading never stops at the first
//! error; a spec exists only when there was none. Names and documents made from a spec are the
//! business of [`desired`](crate::desired), which alone knows how long they become.

mod drain;
mod rules;
mod shapes;
mod tags;
mod volume;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use fleet_agent_config::{
    DiskConfig, Document, DrainConfig, HealthConfig, NodeConfig, Problem, Problems, SidecarConfig,
};
use serde::{Deserialize, de::IgnoredAny};

pub(crate) use shapes::ec2_id;
pub(crate) use tags::{VALUE_MAX as TAG_VALUE_MAX, value_problem as tag_value_problem};

/// One environment of a `fleet.toml`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The file, as the user named it.
    pub file: String,
    /// The environment.
    pub environment: String,
    /// `fleet.name`.
    pub fleet: String,
    /// AWS region.
    pub region: String,
    /// `fleet.id`: only what carries it is ever changed or deleted.
    pub owner: String,
    /// The only account this may be applied to, if the file names one.
    pub account: Option<String>,
    /// Adopted network.
    pub network: Network,
    /// Tags of the cluster, those on everything included.
    pub cluster_tags: BTreeMap<String, String>,
    /// The agent.
    pub agent: Agent,
    /// At least one, sorted by name.
    pub groups: Vec<Group>,
    /// Things that work, but perhaps not as meant; each with its line.
    pub warnings: Vec<Problem>,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// VPC id.
    pub vpc_id: String,
    /// Subnet ids, at least one.
    pub subnet_ids: Vec<String>,
}

/// `[agent]`. What is absent has the agent's own default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Where nodes download the agent; absent when the image carries it.
    pub source: Option<Source>,
    /// Heartbeat time-out of the launching hook, seconds.
    pub launch_timeout_seconds: Option<u32>,
    /// Heartbeat time-out of the terminating hook, seconds.
    pub drain_timeout_seconds: Option<u32>,
}

/// A pinned download of the agent's binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `https://`, or `http://` within a private network; safe within single quotes of a shell.
    pub url: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// `[groups.NAME]` with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its key in the file.
    pub name: String,
    /// Line of its table, for problems that show only in what is made from it.
    pub line: usize,
    /// At least one, all x86_64.
    pub instance_types: Vec<String>,
    /// Least number of nodes.
    pub min: u32,
    /// Greatest number of nodes, at least 1.
    pub max: u32,
    /// Number of nodes at creation, within min and max.
    pub desired: u32,
    /// AMI id; the current ECS-optimized image when absent.
    pub ami: Option<String>,
    /// Root volume.
    pub root_volume: Volume,
    /// Whether burstable types may exceed their earned credits; EC2's default when absent.
    pub cpu_credits: Option<CpuCredits>,
    /// CloudWatch's metrics of the instance each minute, at a price, and not each five.
    pub detailed_monitoring: bool,
    /// Name of the EC2 key pair for SSH.
    pub key_pair: Option<String>,
    /// Ids of security groups beside the fleet's own; used, never changed.
    pub security_groups: Vec<String>,
    /// How much of it is Spot; nothing when absent.
    pub spot: Option<Spot>,
    /// Target capacity of the capacity provider, per cent.
    pub target_capacity: u32,
    /// When a disk of its nodes counts as low or full: its own settings over those of all groups.
    pub disk: DiskConfig,
    /// What becomes of its nodes that stay impaired: its own settings over those of all groups.
    pub health: HealthConfig,
    /// What its nodes keep for themselves, and from their tasks. What is absent has the agent's own
    /// default.
    pub node: NodeConfig,
    /// How its nodes leave: its own settings over those of all groups. What is absent has the
    /// agent's own default.
    pub drain: DrainConfig,
    /// `ECS_*` settings.
    pub ecs: BTreeMap<String, String>,
    /// The sidecars it chose, or all of them.
    pub sidecars: BTreeMap<String, SidecarConfig>,
    /// Tags of everything of the group, those on everything included.
    pub tags: BTreeMap<String, String>,
}

/// A volume that each node has of its own, deleted with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// GiB.
    pub gib: u32,
    /// Its type.
    pub kind: VolumeKind,
    /// I/O operations a second; the type's own when absent.
    pub iops: Option<u32>,
    /// MiB a second, of gp3 alone; 125 when absent.
    pub throughput_mib: Option<u32>,
    /// Whether EBS encrypts it.
    pub encrypted: bool,
    /// With this KMS key: id, ARN or alias. The account's own for EBS when absent.
    pub kms_key: Option<String>,
}

/// What a file has that says nothing of it.
impl Default for Volume {
    fn default() -> Self {
        Self {
            gib: volume::ROOT_MIN,
            kind: VolumeKind::default(),
            iops: None,
            throughput_mib: None,
            encrypted: true,
            kms_key: None,
        }
    }
}

/// EBS's types that a node can boot from (EBS guide, "Amazon EBS volume types").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// General purpose, performance beside size.
    #[default]
    Gp3,
    /// General purpose, performance by size.
    Gp2,
    /// Provisioned IOPS.
    Io1,
    /// Provisioned IOPS, more durable.
    Io2,
}

impl VolumeKind {
    /// As EC2 writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io1 => "io1",
            Self::Io2 => "io2",
        }
    }
}

/// What a burstable type does that has used up its credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuCredits {
    /// It slows down.
    Standard,
    /// It goes on, at a price.
    Unlimited,
}

impl CpuCredits {
    /// As EC2 writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Unlimited => "unlimited",
        }
    }
}

/// `[groups.NAME.spot]`; none of it by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spot {
    /// Of the nodes beyond the base, 0 to 100; Auto Scaling rounds in favour of on demand.
    pub percent: u32,
    /// So many nodes are on demand before any is Spot.
    pub on_demand_base: u32,
    /// How the pool of a node is chosen.
    pub allocation: SpotAllocation,
}

/// From which of the pools that a group's types and zones make a Spot node is taken (Auto Scaling
/// guide, "Allocation strategies for multiple instance types").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpotAllocation {
    /// The least likely to be interrupted, and of these the cheapest: what AWS recommends.
    #[default]
    PriceCapacityOptimized,
    /// The one with the most to spare.
    CapacityOptimized,
    /// The same, with the order of types where it makes little difference.
    CapacityOptimizedPrioritized,
    /// The cheapest, and the first to be interrupted.
    LowestPrice,
}

impl SpotAllocation {
    /// As Auto Scaling writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PriceCapacityOptimized => "price-capacity-optimized",
            Self::CapacityOptimized => "capacity-optimized",
            Self::CapacityOptimizedPrioritized => "capacity-optimized-prioritized",
            Self::LowestPrice => "lowest-price",
        }
    }
}

/// Why there is no [`Spec`]. Its text names every problem, one a line.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read at all.
    #[error(
        "{file}: cannot be read: {why}; `fleet-bootstrap init` writes a new one, --file names another"
    )]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said; part of the text, and so no source that is printed again.
        why: io::Error,
    },
    /// The file has no such environment.
    #[error(
        "{file}: has no environment `{environment}`: {}",
        known_environments(known)
    )]
    UnknownEnvironment {
        /// The file.
        file: String,
        /// What was asked for.
        environment: String,
        /// What the file has.
        known: Vec<String>,
    },
    /// The file breaks rules.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

fn known_environments(known: &[String]) -> String {
    if known.is_empty() {
        "add a table such as [environments.dev]".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    }
}

/// Reads one environment of a file.
///
/// # Errors
/// Everything that is wrong with the file in this environment.
pub fn load(file: &Path, environment: &str) -> Result<Spec, LoadError> {
    FleetFile::open(file)?.spec(environment)
}

/// A `fleet.toml` in memory.
#[derive(Debug, Clone)]
pub struct FleetFile {
    name: String,
    text: String,
}

impl FleetFile {
    /// Reads a file from disk.
    ///
    /// # Errors
    /// When it cannot be read as text.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text }),
            Err(why) => Err(LoadError::Unreadable { file: name, why }),
        }
    }

    /// A file that is not on disk yet.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// The environments' names, sorted.
    ///
    /// # Errors
    /// When the file is not TOML.
    pub fn environments(&self) -> Result<Vec<String>, Problems> {
        let document = Document::parse(&self.name, &self.text)?;
        Ok(environments(&document))
    }

    /// One environment, checked. A file without any environment is checked as it stands, so that
    /// its other problems show as well.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn spec(&self, environment: &str) -> Result<Spec, LoadError> {
        let document = Document::parse(&self.name, &self.text)?;
        let known = environments(&document);
        if !known.is_empty() && !known.iter().any(|name| name == environment) {
            return Err(LoadError::UnknownEnvironment {
                file: self.name.clone(),
                environment: environment.to_owned(),
                known,
            });
        }
        let mut problems = environment_problems(&document, &known);
        let document = document.overlaid(&["environments", environment]);
        let (file, unreadable) = document.read::<wire::File>();
        let checked = rules::check(file, environment);
        problems.extend(
            checked
                .problems
                .into_iter()
                .filter(|problem| !follows_from(problem, &unreadable)),
        );
        let is_outermost = |inner: &&Problem| {
            !unreadable
                .iter()
                .any(|outer| is_below(&inner.key, &outer.key))
        };
        let outermost = unreadable.iter().filter(is_outermost).cloned();
        problems.extend(outermost.map(drain::explain_old_key));
        document.check(problems)?;
        let mut spec = checked.spec;
        spec.file.clone_from(&self.name);
        spec.warnings = located(&document, checked.warnings);
        for group in &mut spec.groups {
            group.line = line_of(&document, &format!("groups.{}", group.name));
        }
        Ok(spec)
    }
}

/// A value that could not be read is reported once, not a second time as missing.
fn follows_from(problem: &Problem, unreadable: &[Problem]) -> bool {
    unreadable
        .iter()
        .any(|cause| problem.key == cause.key || is_below(&problem.key, &cause.key))
}

/// Whether `key` stands somewhere in `table`.
fn is_below(key: &str, table: &str) -> bool {
    key.strip_prefix(table)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// `[environments]`, for its shape alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Environments {
    environments: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
}

fn environments(document: &Document<'_>) -> Vec<String> {
    let names: BTreeSet<String> = document.keys(&["environments"]).into_iter().collect();
    names.into_iter().collect()
}

/// What is wrong with the environments as such, whichever of them is asked for.
fn environment_problems(document: &Document<'_>, known: &[String]) -> Vec<Problem> {
    let (_, mut problems) = document.read::<Environments>();
    if known.is_empty() && problems.is_empty() {
        problems.push(Problem::new(
            "environments",
            "is missing: add at least one table such as [environments.dev], it may be empty",
        ));
    }
    for name in known {
        let wrong = shapes::name(name);
        problems.extend(wrong.map(|why| Problem::new(format!("environments.{name}"), why)));
    }
    problems.extend(name_clashes(document, known));
    // Lines belong to this document: the one with an environment laid over it has no environments.
    located(document, problems)
}

/// `dev` with group `x-y` and `dev-x` with group `y` would share every name, and so would names
/// that differ only in case, which IAM does not tell apart.
fn name_clashes(document: &Document<'_>, known: &[String]) -> Vec<Problem> {
    let mut taken: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut problems = Vec::new();
    for environment in known {
        let groups: BTreeSet<String> = document
            .keys(&["groups"])
            .into_iter()
            .chain(document.keys(&["environments", environment, "groups"]))
            .collect();
        for group in groups {
            let joined = format!("{environment}-{group}").to_ascii_lowercase();
            if let Some((other, other_group)) = taken.get(&joined) {
                problems.push(Problem::new(
                    format!("environments.{environment}"),
                    format!(
                        "its group `{group}` would have the names of group `{other_group}` in `{other}`: rename one"
                    ),
                ));
            } else {
                taken.insert(joined, (environment, group));
            }
        }
    }
    problems
}

/// Problems with the lines of their keys.
fn located(document: &Document<'_>, problems: Vec<Problem>) -> Vec<Problem> {
    match document.check(problems) {
        Ok(()) => Vec::new(),
        Err(located) => located.problems,
    }
}

fn line_of(document: &Document<'_>, key: &str) -> usize {
    located(document, vec![Problem::new(key, "")])
        .first()
        .map_or(0, |problem| problem.line)
}

#[cfg(test)]
mod tests;
