//! `fleet.toml` and one of its environments, as a [`Spec`] whose every rule has been checked.
//!
//! Wire form -> environment laid over it -> rules -> [`Spec`]. Reading never stops at the first
//! error; a spec exists only when there was none. Names and documents made from a spec are the
//! business of [`desired`](crate::desired), which alone knows how long they become.

mod ami;
mod cloud_config;
mod cluster;
mod drain;
mod full;
mod rules;
mod scaling;
mod schedule;
mod schema;
mod shapes;
mod source;
mod spot;
mod step_scaling;
mod tags;
mod user_data;
mod volume;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fleet_agent_config::{
    DiskConfig, Document, DrainConfig, HealthConfig, NodeConfig, Problem, Problems, SidecarConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ami::Ami;
pub use cluster::{Cluster, ContainerInsights, ExecuteCommandLogging, Provider, StrategyItem};
pub(crate) use cluster::{FARGATE, PROVIDERS_MAX};
pub use full::Full;
pub use scaling::{DeletionProtection, WarmPool, WarmPoolState, ZoneDistribution};
pub use schedule::Schedule;
pub use schema::schema;
pub(crate) use shapes::ec2_id;
pub(crate) use source::pinned_bytes;
pub use source::{Place, Source};
pub use spot::{Spot, SpotAllocation};
pub use step_scaling::{Direction, Ladder, Scaling, Step, StepScaling};
pub(crate) use tags::{VALUE_MAX as TAG_VALUE_MAX, value_problem as tag_value_problem};
pub use user_data::{UserData, UserDataKind};
pub use volume::{Volume, VolumeKind};

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
    /// The only account this may be applied to, if the file names one, or an adopted cluster's ARN does.
    pub account: Option<String>,
    /// Adopted network.
    pub network: Network,
    /// The cluster.
    pub cluster: Cluster,
    /// Tags of everything.
    pub tags: BTreeMap<String, String>,
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

/// `[agent]`, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Where nodes download the agent; absent when the image carries it.
    pub source: Option<Source>,
    /// Heartbeat time-out of the launching hook, seconds.
    pub launch_timeout_seconds: u32,
    /// Heartbeat time-out of the terminating hook, seconds.
    pub drain_timeout_seconds: u32,
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
    /// Which image.
    pub ami: Ami,
    /// Root volume.
    pub root_volume: Volume,
    /// Docker's own volume; on the root volume when absent.
    pub docker_volume: Option<Volume>,
    /// Whether burstable types may exceed their earned credits; EC2's default when absent.
    pub cpu_credits: Option<CpuCredits>,
    /// CloudWatch's metrics of the instance each minute, at a price, and not each five.
    pub detailed_monitoring: bool,
    /// Name of the EC2 key pair for SSH.
    pub key_pair: Option<String>,
    /// Ids of security groups beside the fleet's own; used, never changed.
    pub security_groups: Vec<String>,
    /// Name of a role of the account's own that its nodes have, adopted; one is made when absent.
    pub role: Option<String>,
    /// ARN of the policy that bounds the role that is made.
    pub permissions_boundary: Option<String>,
    /// ARNs of managed policies that the role that is made has beside the fleet's own.
    pub policies: Vec<String>,
    /// How much of it is Spot; nothing when absent.
    pub spot: Option<Spot>,
    /// Whether the group's own metrics are in CloudWatch.
    pub metrics: bool,
    /// A node is replaced after so many days.
    pub max_lifetime_days: Option<u32>,
    /// What keeps its Auto Scaling group from being deleted.
    pub deletion_protection: DeletionProtection,
    /// Nodes prepared beside it.
    pub warm_pool: Option<WarmPool>,
    /// How its bounds change by the clock.
    pub schedules: BTreeMap<String, Schedule>,
    /// How its nodes are spread over zones.
    pub zone_distribution: ZoneDistribution,
    /// Who sizes it.
    pub scaling: Scaling,
    /// When a disk of its nodes counts as low or full: its own settings over those of all groups.
    pub disk: DiskConfig,
    /// What becomes of its nodes that stay impaired: its own settings over those of all groups.
    pub health: HealthConfig,
    /// What its nodes keep for themselves, and from their tasks.
    pub node: NodeConfig,
    /// What its nodes run after fleet's own user data.
    pub user_data: Option<UserData>,
    /// How its nodes leave: its own settings over those of all groups.
    pub drain: DrainConfig,
    /// `ECS_*` settings.
    pub ecs: BTreeMap<String, String>,
    /// The sidecars it chose, or all of them.
    pub sidecars: BTreeMap<String, SidecarConfig>,
    /// Tags of everything of the group, those on everything included.
    pub tags: BTreeMap<String, String>,
}

/// What a burstable type does that has used up its credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Where the files are looked for that it names.
    directory: PathBuf,
}

impl FleetFile {
    /// Reads a file from disk.
    ///
    /// # Errors
    /// When it cannot be read as text.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Ok(Self {
                name,
                text,
                directory: directory(path),
            }),
            Err(why) => Err(LoadError::Unreadable { file: name, why }),
        }
    }

    /// A file that is not on disk yet.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            directory: directory(Path::new(&name)),
            name,
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
        let (_, spec) = self.checked(environment)?;
        Ok(spec)
    }

    /// One environment as a file of its own, every default filled in.
    ///
    /// # Errors
    /// Everything that is wrong, as a [`LoadError`].
    pub fn full(&self, environment: &str) -> anyhow::Result<Full> {
        let (file, spec) = self.checked(environment)?;
        Full::new(file, &spec)
    }

    fn checked(&self, environment: &str) -> Result<(wire::File, Spec), LoadError> {
        let document = Document::parse(&self.name, &self.text)?;
        let known = environments(&document);
        if !known.is_empty() && !known.iter().any(|name| name == environment) {
            return Err(LoadError::UnknownEnvironment {
                file: self.name.clone(),
                environment: environment.to_owned(),
                known,
            });
        }
        let (mut environments, mut problems) = environments_of(&document, &known);
        let own = environments.remove(environment).unwrap_or_default();
        let document = own.laid_over(environment, &document);
        let (file, unreadable) = document.read::<wire::File>();
        let checked = rules::check(
            file.clone(),
            environment,
            &|name| self.beside(name),
            &self.directory,
        );
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
        Ok((file, spec))
    }

    /// What another file holds that this one names, or why that cannot be told.
    fn beside(&self, name: &str) -> Result<String, String> {
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            let file = fs::File::open(path)?;
            file.take(user_data::FILE_MAX + 1).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let path = self.directory.join(name);
        let bytes = read(&path)
            .map_err(|why| format!("is looked for beside this file and cannot be read: {why}"))?;
        if bytes.len() as u64 > user_data::FILE_MAX {
            return Err(format!("is larger than {} bytes", user_data::FILE_MAX));
        }
        String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
    }
}

/// A file that is only named stands in the working directory.
fn directory(path: &Path) -> PathBuf {
    path.parent().map_or_else(PathBuf::new, Path::to_path_buf)
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

/// `[environments]`, but for what they lay over the rest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Environments {
    environments: BTreeMap<String, Environment>,
}

/// `[environments.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, expecting = "a table")]
struct Environment {
    /// Dotted keys that it takes out of what all share: what is not there has its default again.
    unset: Vec<String>,
}

impl Environment {
    /// The file as this environment has it.
    fn laid_over<'s>(&self, name: &str, document: &Document<'s>) -> Document<'s> {
        let own = format!("environments.{name}.unset");
        let out = self.unset.iter().chain([&own]);
        let shared = out.fold(document.clone(), |rest, key| {
            rest.without(key).unwrap_or(rest)
        });
        shared.overlaid(&["environments", name])
    }

    fn has_unset(&self, key: &str) -> bool {
        self.unset.iter().any(|unset| unset == key)
    }

    fn problems(&self, name: &str, document: &Document<'_>) -> Vec<Problem> {
        let is_missing =
            |key: &&String| key.starts_with("environments.") || document.without(key).is_none();
        let missing = self.unset.iter().filter(is_missing);
        missing
            .map(|key| {
                Problem::new(
                    format!("environments.{name}.unset"),
                    format!("`{key}` is not set in what all environments share: take it out of this list"),
                )
            })
            .collect()
    }
}

fn environments(document: &Document<'_>) -> Vec<String> {
    let names: BTreeSet<String> = document.keys(&["environments"]).into_iter().collect();
    names.into_iter().collect()
}

/// The environments, and what is wrong with them as such, whichever of them is asked for.
fn environments_of(
    document: &Document<'_>,
    known: &[String],
) -> (BTreeMap<String, Environment>, Vec<Problem>) {
    let (Environments { environments }, mut problems) = document.read::<Environments>();
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
    for (name, environment) in &environments {
        problems.extend(environment.problems(name, document));
    }
    problems.extend(name_clashes(document, &environments));
    // Lines belong to this document: the one with an environment laid over it has no environments.
    let problems = located(document, problems);
    (environments, problems)
}

/// `dev` with group `x-y` and `dev-x` with group `y` would share every name, and so would names
/// that differ only in case, which IAM does not tell apart.
fn name_clashes(
    document: &Document<'_>,
    environments: &BTreeMap<String, Environment>,
) -> Vec<Problem> {
    let mut taken: BTreeMap<String, (&str, String)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (environment, own) in environments {
        let groups: BTreeSet<String> = document
            .keys(&["groups"])
            .into_iter()
            .filter(|group| !own.has_unset(&format!("groups.{group}")))
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
