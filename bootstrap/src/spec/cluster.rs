//! `[cluster]`: what ECS tells of it and keeps of it, and where its tasks go that do not say; or which
//! one is adopted.

use std::collections::BTreeSet;

use fleet_agent_config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    rules::{listed, outside},
    shapes, wire,
};

/// What Fargate's capacity providers are called.
pub(crate) const FARGATE: [&str; 2] = ["FARGATE", "FARGATE_SPOT"];
/// API reference, CapacityProviderStrategyItem.
const WEIGHT_MAX: u32 = 1_000;
const BASE_MAX: u32 = 100_000;

/// Capacity providers of one cluster (ECS service quotas).
pub(crate) const PROVIDERS_MAX: usize = 20;
/// A cluster's name has as many characters (CreateCluster).
const NAME_MAX: usize = 255;

/// `[cluster]`, but for its tags. What is absent is left as the account has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Name of a cluster of the account's own that is used in the place of one that is made. Nothing else
    /// is said of it then.
    pub adopt: Option<String>,
    /// CloudWatch's Container Insights.
    pub container_insights: Option<ContainerInsights>,
    /// Where sessions of ECS Exec are written down.
    pub execute_command_logging: Option<ExecuteCommandLogging>,
    /// Whether tasks may run on Fargate, too.
    pub fargate: bool,
    /// Where tasks go that name neither a launch type nor a strategy; to all groups alike when absent.
    pub default_strategy: Option<Vec<StrategyItem>>,
}

/// How much CloudWatch is told of a cluster, at a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerInsights {
    /// Nothing.
    Disabled,
    /// Of clusters, services and tasks.
    Enabled,
    /// Of containers as well.
    Enhanced,
}

impl ContainerInsights {
    /// As ECS writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Enhanced => "enhanced",
        }
    }
}

/// ECS's ExecuteCommandConfiguration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExecuteCommandLogging {
    /// Encrypts what goes between the caller and the container.
    pub kms_key: Option<String>,
    /// CloudWatch log group.
    pub log_group: Option<String>,
    /// Whether that one is encrypted.
    pub log_group_encrypted: bool,
    /// S3 bucket.
    pub s3_bucket: Option<String>,
    /// Begins the names of the objects in it.
    pub s3_prefix: Option<String>,
    /// Whether they are encrypted.
    pub s3_encrypted: bool,
}

/// One part of a capacity-provider strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategyItem {
    /// Whose nodes.
    pub provider: Provider,
    /// Its share of the tasks beyond the base.
    pub weight: u32,
    /// So many tasks go there first.
    pub base: u32,
}

/// A capacity provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// That of a group, by the group's key in the file.
    Group(String),
    /// One of Fargate's, by its name.
    Fargate(String),
}

/// An adopted cluster, as the file names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    name: &'a str,
    /// Its ARN's region and account.
    at: Option<(&'a str, &'a str)>,
}

impl<'a> Named<'a> {
    /// `None` for what is neither a name nor an ARN.
    fn read(text: &'a str) -> Option<Self> {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_name =
            |name: &str| (1..=NAME_MAX).contains(&name.len()) && name.chars().all(of_name);
        let parts: Vec<&str> = text.split(':').collect();
        let (name, at) = match parts[..] {
            [name] => (name, None),
            ["arn", partition, "ecs", region, account, cluster]
                if partition.starts_with("aws")
                    && shapes::region(region).is_none()
                    && shapes::account(account).is_none() =>
            {
                (cluster.strip_prefix("cluster/")?, Some((region, account)))
            }
            _ => return None,
        };
        is_name(name).then_some(Self { name, at })
    }
}

/// The account of an adopted cluster that is named by its ARN: the only one that it can be in.
pub(super) fn account(cluster: &wire::Cluster) -> Option<String> {
    let (_, account) = Named::read(cluster.adopt.as_deref()?)?.at?;
    Some(account.to_owned())
}

/// What is wrong with the name of an adopted cluster, or with what else is said of it.
fn adopt_problems(cluster: &wire::Cluster, fleet: &wire::Fleet) -> Vec<(&'static str, String)> {
    let Some(text) = &cluster.adopt else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    match Named::read(text) {
        None => problems.push((
            "adopt",
            format!("`{text}` is neither a cluster's name nor its ARN such as arn:aws:ecs:eu-central-1:123456789012:cluster/main"),
        )),
        Some(Named { at: Some((region, account)), .. }) => {
            if region != fleet.region {
                let wanted = &fleet.region;
                problems.push(("adopt", format!("is in {region}, and this fleet in {wanted}: nodes join no cluster of another region")));
            }
            if let Some(wanted) = fleet.account.as_deref().filter(|wanted| *wanted != account) {
                problems.push(("adopt", format!("is of account {account}, and [fleet] account is {wanted}")));
            }
        }
        Some(Named { at: None, .. }) => {}
    }
    for (key, is_set) in [
        ("container_insights", cluster.container_insights.is_some()),
        (
            "execute_command_logging",
            cluster.execute_command_logging.is_some(),
        ),
        ("fargate", cluster.fargate.is_some()),
        ("default_strategy", cluster.default_strategy.is_some()),
        ("tags", !cluster.tags.is_empty()),
    ] {
        if is_set {
            problems.push((key, format!("is of a cluster that fleet makes, and `adopt` names one that it never changes: leave it out (an environment: `unset = [\"cluster.{key}\"]`)")));
        }
    }
    problems
}

/// The table, and what is wrong with it.
pub(super) fn read<'a>(
    cluster: wire::Cluster,
    fleet: &wire::Fleet,
    groups: impl Iterator<Item = &'a String> + Clone,
    problems: &mut Vec<Problem>,
) -> Cluster {
    let mut wrong = |field: &str, why: Option<String>| {
        problems.extend(why.map(|why| Problem::new(format!("cluster.{field}"), why)));
    };
    if let Some(adopted) = &cluster.adopt {
        for (field, why) in adopt_problems(&cluster, fleet) {
            wrong(field, Some(why));
        }
        let named = Named::read(adopted);
        return Cluster {
            adopt: named.map(|named| named.name.to_owned()),
            ..Cluster::default()
        };
    }
    if let Some(logging) = &cluster.execute_command_logging {
        for (field, why) in logging_problems(logging) {
            wrong(&format!("execute_command_logging{field}"), Some(why));
        }
    }
    let fargate = cluster.fargate.unwrap_or_default();
    let strategy = cluster.default_strategy.map(|items| {
        let mut found = Vec::new();
        for item in items {
            match provider(&item, fargate, groups.clone()) {
                Ok(provider) => found.push(StrategyItem {
                    provider,
                    weight: item.weight.unwrap_or(1),
                    base: item.base,
                }),
                Err(why) => wrong("default_strategy", Some(why)),
            }
        }
        for why in strategy_problems(&found) {
            wrong("default_strategy", Some(why));
        }
        found
    });
    Cluster {
        adopt: None,
        container_insights: cluster.container_insights,
        execute_command_logging: cluster.execute_command_logging,
        fargate,
        default_strategy: strategy,
    }
}

fn logging_problems(logging: &ExecuteCommandLogging) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if let Some(why) = logging.kms_key.as_deref().and_then(shapes::kms_key) {
        problems.push((".kms_key", why));
    }
    let is_empty = |text: &Option<String>| text.as_deref().is_some_and(str::is_empty);
    for (field, is_wrong, why) in [
        (
            ".log_group",
            is_empty(&logging.log_group),
            "is empty: name a log group",
        ),
        (
            ".s3_bucket",
            is_empty(&logging.s3_bucket),
            "is empty: name a bucket",
        ),
        (
            ".log_group_encrypted",
            logging.log_group_encrypted && logging.log_group.is_none(),
            "goes with `log_group`",
        ),
        (
            ".s3_prefix",
            logging.s3_prefix.is_some() && logging.s3_bucket.is_none(),
            "goes with `s3_bucket`",
        ),
        (
            ".s3_encrypted",
            logging.s3_encrypted && logging.s3_bucket.is_none(),
            "goes with `s3_bucket`",
        ),
        (
            "",
            *logging == ExecuteCommandLogging::default(),
            "is empty: say `log_group` or `s3_bucket`",
        ),
    ] {
        if is_wrong {
            problems.push((field, why.to_owned()));
        }
    }
    problems
}

fn provider<'a>(
    item: &wire::StrategyItem,
    fargate: bool,
    groups: impl Iterator<Item = &'a String> + Clone,
) -> Result<Provider, String> {
    match (&item.group, &item.provider) {
        (Some(group), None) if groups.clone().any(|known| known == group) => {
            Ok(Provider::Group(group.clone()))
        }
        (Some(group), None) => Err(format!(
            "`{group}` has no [groups.{group}]{}",
            listed(groups)
        )),
        (None, Some(name)) if !FARGATE.contains(&name.as_str()) => Err(format!(
            "`{name}` is neither FARGATE nor FARGATE_SPOT: a group's own provider is named by `group`"
        )),
        (None, Some(name)) if !fargate => Err(format!(
            "`{name}` is not in the cluster: set `fargate = true`"
        )),
        (None, Some(name)) => Ok(Provider::Fargate(name.clone())),
        (Some(_), Some(_)) | (None, None) => {
            Err("holds an item that does not name one of `group` and `provider`".to_owned())
        }
    }
}

/// Of the items together (ECS guide, "Capacity provider strategy").
fn strategy_problems(items: &[StrategyItem]) -> Vec<String> {
    let mut problems = Vec::new();
    let on_fargate = items
        .iter()
        .filter(|item| matches!(item.provider, Provider::Fargate(_)));
    let on_fargate = on_fargate.count();
    if on_fargate > 0 && on_fargate < items.len() {
        problems.push("holds groups and Fargate: ECS takes the one or the other".to_owned());
    }
    let mut seen = BTreeSet::new();
    let mut twice = items.iter().filter(|item| !seen.insert(&item.provider));
    if let Some(StrategyItem {
        provider: Provider::Group(name) | Provider::Fargate(name),
        ..
    }) = twice.next()
    {
        problems.push(format!("holds `{name}` twice"));
    }
    for item in items {
        problems.extend(outside(
            item.weight,
            0,
            WEIGHT_MAX,
            "it is a share of the tasks",
        ));
        problems.extend(outside(item.base, 0, BASE_MAX, "it is a number of tasks"));
    }
    if items.iter().filter(|item| item.base > 0).count() > 1 {
        problems.push("has more than one `base`: ECS takes one".to_owned());
    }
    if !items.is_empty() && items.iter().all(|item| item.weight == 0) {
        problems.push("has no `weight` above 0: no task could be placed".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::told;

    fn of(text: &str) -> String {
        let cluster: wire::Cluster = toml::from_str(text).expect("a table");
        let groups = ["batch".to_owned(), "web".to_owned()];
        let mut problems = Vec::new();
        let fleet = wire::Fleet {
            region: "eu-central-1".into(),
            account: Some("123456789012".into()),
            ..wire::Fleet::default()
        };
        let _ = read(cluster, &fleet, groups.iter(), &mut problems);
        told(&problems)
    }

    #[test]
    fn an_adopted_cluster_is_named_and_nothing_else_is_said_of_it() {
        for named in [
            "main",
            "default",
            "arn:aws:ecs:eu-central-1:123456789012:cluster/main_1",
        ] {
            assert_eq!(of(&format!("adopt = \"{named}\"")), "", "{named}");
        }
        for malformed in [
            "",
            "my cluster",
            "main:1",
            &"x".repeat(256),
            "arn:aws:ecs:eu-central-1:123456789012:service/main/web",
            "arn:aws:ecs:eu-central-1:12345:cluster/main",
            "arn:aws:ecs::123456789012:cluster/main",
            "arn:aws:eks:eu-central-1:123456789012:cluster/main",
            "arn:aws:ecs:eu-central-1:123456789012:cluster/",
        ] {
            let told = of(&format!("adopt = \"{malformed}\""));
            assert!(
                told.contains("neither a cluster's name nor its ARN"),
                "{told}"
            );
        }
        assert_eq!(
            of("adopt = \"arn:aws:ecs:us-east-1:210987654321:cluster/main\""),
            "cluster.adopt: is in us-east-1, and this fleet in eu-central-1: nodes join no cluster of another region; \
             cluster.adopt: is of account 210987654321, and [fleet] account is 123456789012"
        );
        for key in [
            "container_insights = \"enabled\"",
            "execute_command_logging = {}",
            "fargate = false",
            "default_strategy = []",
            "tags = { a = \"b\" }",
        ] {
            let told = of(&format!("adopt = \"main\"\n{key}"));
            assert!(
                told.contains("leave it out") && !told.contains(';'),
                "{told}"
            );
        }
    }

    #[test]
    fn what_ecs_takes_is_taken() {
        for text in [
            "",
            "container_insights = \"enhanced\"",
            "execute_command_logging = { log_group = \"/exec\", log_group_encrypted = true }",
            "execute_command_logging = { kms_key = \"alias/exec\", s3_bucket = \"b\", s3_prefix = \"exec/\" }",
            "default_strategy = []",
            "default_strategy = [{ group = \"web\", base = 2 }, { group = \"batch\", weight = 0 }]",
            "fargate = true\ndefault_strategy = [{ provider = \"FARGATE_SPOT\" }]",
        ] {
            assert_eq!(of(text), "", "{text}");
        }
    }

    #[test]
    fn what_ecs_would_refuse_is_refused() {
        for (text, part) in [
            (
                "execute_command_logging = {}",
                "execute_command_logging: is empty",
            ),
            (
                "execute_command_logging = { s3_prefix = \"x\" }",
                "execute_command_logging.s3_prefix: goes with `s3_bucket`",
            ),
            (
                "execute_command_logging = { kms_key = \"x\" }",
                "execute_command_logging.kms_key: `x` is not a KMS key",
            ),
            (
                "default_strategy = [{ group = \"webb\" }]",
                "`webb` has no [groups.webb]: the file has batch, web",
            ),
            (
                "default_strategy = [{ provider = \"FARGATE\" }]",
                "set `fargate = true`",
            ),
            (
                "default_strategy = [{ provider = \"web\" }]",
                "named by `group`",
            ),
            (
                "default_strategy = [{ weight = 1 }]",
                "one of `group` and `provider`",
            ),
            (
                "fargate = true\ndefault_strategy = [{ group = \"web\" }, { provider = \"FARGATE\" }]",
                "holds groups and Fargate",
            ),
            (
                "default_strategy = [{ group = \"web\" }, { group = \"web\" }]",
                "holds `web` twice",
            ),
            (
                "default_strategy = [{ group = \"web\", base = 1 }, { group = \"batch\", base = 1 }]",
                "more than one `base`",
            ),
            (
                "default_strategy = [{ group = \"web\", weight = 0 }]",
                "no `weight` above 0",
            ),
            (
                "default_strategy = [{ group = \"web\", weight = 1001 }]",
                "1001 is outside 0 to 1000",
            ),
        ] {
            assert!(of(text).contains(part), "{text}: {}", of(text));
        }
    }
}
