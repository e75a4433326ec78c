//! What `up` had better know before its first write: whether what the file names is there, and whether
//! nodes could be launched, reach AWS and be counted.
//!
//! [`ask`] reads, [`findings`] judges. A question that may not be asked, or is not answered, is a
//! finding of its own and no reason to stop: the write itself would say.

mod ask;
mod egress;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

pub(crate) use ask::ask;
pub(crate) use egress::{Endpoint, Route, RouteTable, Target};

use crate::{
    cloud::CallError,
    desired::{AGENT_VERSION, Desired, Group, Image},
    inventory::{Inventory, Subnet},
};

/// Something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Whether nothing can come of it.
    pub(crate) is_problem: bool,
    /// The key of the file, or the resource.
    pub(crate) about: String,
    /// What is so, and what to do.
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.text)
    }
}

/// An answer, or why there is none.
pub(crate) type Answer<T> = Result<T, CallError>;

/// What AWS says about everything that a launch depends on and the fleet does not own.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Instance types by the zone that offers them.
    pub(crate) offered: Answer<BTreeMap<String, BTreeSet<String>>>,
    pub(crate) route_tables: Answer<Vec<RouteTable>>,
    pub(crate) endpoints: Answer<Vec<Endpoint>>,
    /// Names of those that exist of the file's key pairs.
    pub(crate) key_pairs: Answer<BTreeSet<String>>,
    /// The VPCs of those that exist of the file's security groups.
    pub(crate) security_groups: Answer<BTreeMap<String, String>>,
    pub(crate) quotas: Vec<Answer<Quota>>,
    /// What S3 says of somebody's object that is the agent.
    pub(crate) agent: Option<Answer<S3Answer>>,
    /// What EC2 would say to a launch, by group.
    pub(crate) dry_runs: BTreeMap<String, Answer<DryRun>>,
}

/// How much of something there may be in the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quota {
    /// `roles`.
    pub(crate) what: &'static str,
    pub(crate) used: u32,
    pub(crate) limit: u32,
    /// What `up` would add.
    pub(crate) wanted: u32,
}

/// What S3 says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum S3Answer {
    /// There, with this SHA-256 in hexadecimal digits; empty if S3 does not know it.
    Sha256(String),
    Missing,
    /// Not there, either, for whom S3 does not let list the bucket.
    Denied,
    /// Its bucket is in another region.
    Elsewhere,
}

/// What EC2 says to a launch that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DryRun {
    WouldLaunch,
    /// Not with these credentials, which may be for launches from a template only; there is none yet, and
    /// Auto Scaling tries it again with the one that is made.
    DeniedWithoutTemplate,
    /// Not with these credentials.
    Denied(String),
    /// Not these parameters.
    Refused(String),
}

/// Everything worth knowing, all at once.
pub(crate) fn findings(
    desired: &Desired,
    inventory: &Inventory,
    surroundings: &Surroundings,
) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    for group in &desired.groups {
        found.types(group, &inventory.subnets, surroundings);
        found.names(group, desired, surroundings);
        found.dry_run(group, surroundings);
        found.agent_of_image(group, inventory);
    }
    found.agent(desired, surroundings);
    found.addresses(desired, inventory);
    found.ways_out(desired, inventory, surroundings);
    for quota in &surroundings.quotas {
        found.quota(quota);
    }
    found.0
}

/// This program's version, which agents of the same release have, too.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// Major, minor and patch of a version, for comparison.
fn release(version: &str) -> Vec<Option<u64>> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    numbers.split('.').map(|part| part.parse().ok()).collect()
}

struct Findings(Vec<Finding>);

impl Findings {
    fn problem(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.add(true, about, text);
    }

    fn warning(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.add(false, about, text);
    }

    fn add(&mut self, is_problem: bool, about: impl Into<String>, text: impl Into<String>) {
        let finding = Finding {
            is_problem,
            about: about.into(),
            text: text.into(),
        };
        // What several groups have in common is said once.
        if !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    /// The answer, or the finding that there is none.
    fn answer<'a, T>(&mut self, answer: &'a Answer<T>) -> Option<&'a T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.warning(error.call, format!("could not be asked: {}", error.message));
                None
            }
        }
    }

    fn types(
        &mut self,
        group: &Group,
        subnets: &BTreeMap<String, Subnet>,
        surroundings: &Surroundings,
    ) {
        let Some(offered) = self.answer(&surroundings.offered) else {
            return;
        };
        let key = format!("groups.{}.instance_types", group.name);
        let zones: BTreeSet<&str> = subnets
            .values()
            .map(|subnet| subnet.availability_zone.as_str())
            .collect();
        let is_offered = |kind: &String, zone: &str| {
            offered
                .get(zone)
                .is_some_and(|offered| offered.contains(kind))
        };
        let types = &group.auto_scaling_group.instance_types;
        for kind in types {
            if !zones.iter().any(|zone| is_offered(kind, zone)) {
                self.problem(
                    key.as_str(),
                    format!("`{kind}` is offered in none of {}", listed(&zones)),
                );
            }
        }
        let without: BTreeSet<&str> = zones
            .iter()
            .filter(|zone| !types.iter().any(|kind| is_offered(kind, zone)))
            .copied()
            .collect();
        if !without.is_empty() && without.len() < zones.len() {
            self.warning(
                key,
                format!(
                    "none of them is offered in {}: no nodes there",
                    listed(&without)
                ),
            );
        }
    }

    /// What the file names and somebody else made.
    fn names(&mut self, group: &Group, desired: &Desired, surroundings: &Surroundings) {
        let template = &group.launch_template;
        if let Some(key_pair) = &template.key_pair
            && let Some(known) = self.answer(&surroundings.key_pairs)
            && !known.contains(key_pair)
        {
            let region = &desired.identity.region;
            self.problem(
                format!("groups.{}.key_pair", group.name),
                format!("there is no key pair `{key_pair}` in {region}: nothing would launch"),
            );
        }
        for id in &template.security_groups {
            let Some(known) = self.answer(&surroundings.security_groups) else {
                return;
            };
            let key = format!("groups.{}.security_groups", group.name);
            let vpc = &desired.network.vpc_id;
            match known.get(id) {
                None => self.problem(key, format!("there is no security group {id}")),
                Some(other) if other != vpc => {
                    self.problem(key, format!("{id} is in {other}, not in {vpc}"));
                }
                Some(_) => {}
            }
        }
    }

    /// Whether nodes could have somebody's object for their agent.
    fn agent(&mut self, desired: &Desired, surroundings: &Surroundings) {
        const KEY: &str = "agent.source.s3";
        let (Some(source), Some(answer)) = (&desired.source, &surroundings.agent) else {
            return;
        };
        let object = &source.download;
        match self.answer(answer) {
            None => {}
            Some(S3Answer::Missing) => {
                self.problem(KEY, format!("there is no {object}: no node could be installed"));
            }
            Some(S3Answer::Elsewhere) => self.problem(
                KEY,
                format!(
                    "{object} is in a bucket of another region than {}, where nodes look for it: copy it, or take its address for `url`",
                    desired.identity.region
                ),
            ),
            Some(S3Answer::Denied) => self.warning(
                KEY,
                format!(
                    "these credentials may not read {object}, or it is not there: nodes ask for it with their own role"
                ),
            ),
            Some(S3Answer::Sha256(sum)) if !sum.is_empty() && *sum != source.sha256 => {
                self.problem(
                    KEY,
                    format!(
                        "{object} has SHA-256 {sum}, and `sha256` pins {}: no node would take it",
                        source.sha256
                    ),
                );
            }
            Some(S3Answer::Sha256(_)) => {}
        }
    }

    fn dry_run(&mut self, group: &Group, surroundings: &Surroundings) {
        let Some(answer) = surroundings.dry_runs.get(&group.name) else {
            return;
        };
        match self.answer(answer) {
            None | Some(DryRun::WouldLaunch | DryRun::DeniedWithoutTemplate) => {}
            Some(DryRun::Denied(why)) => self.problem(
                format!("groups.{}", group.name),
                format!(
                    "these credentials may not launch its instances (ec2:RunInstances), and Auto Scaling checks that: {why}"
                ),
            ),
            Some(DryRun::Refused(why)) => self.warning(
                format!("groups.{}", group.name),
                format!("EC2 would not launch one in the first subnet, of the first type: {why}"),
            ),
        }
    }

    /// Whether the agent on the image is there, and reads what is written for it. One from `[agent] source` is;
    /// that Amazon's images have none is said of the file already.
    fn agent_of_image(&mut self, group: &Group, inventory: &Inventory) {
        let template = &group.launch_template;
        let baked = match &template.image {
            Image::Tagged { .. } | Image::Pinned(_) => inventory.images.get(&template.image),
            Image::Parameter(_) | Image::Release(_) => None,
        };
        let Some(image) = baked.filter(|_| template.settings.source.is_none()) else {
            return;
        };
        let existing = inventory.groups.get(&group.name);
        let in_use = existing.and_then(|existing| existing.launch_template.owned());
        if in_use.is_some() && template.image.is_kept() && !template.newest_image {
            return;
        }
        let is_new = in_use.is_none_or(|in_use| in_use.latest.image_id != image.id);
        let (id, key) = (&image.id, format!("groups.{}.ami", group.name));
        match image.agent_version.as_deref() {
            None if is_new => self.warning(
                key,
                format!(
                    "{id} has no tag `{AGENT_VERSION}`, and [agent] no source: if fleet-agent is not on that image, no node becomes ready. Tags of an image that another account shares are not seen here: tag it here, too"
                ),
            ),
            Some(version) if release(version) < release(OURS) => self.warning(
                key,
                format!(
                    "{id} has fleet-agent {version}, and this is fleet-bootstrap {OURS}: an older agent refuses settings that it does not know, and no node becomes ready then. Bake an image with {OURS}, or take fleet-bootstrap {version}"
                ),
            ),
            None | Some(_) => {}
        }
    }

    /// Whether the groups fit into their subnets.
    fn addresses(&mut self, desired: &Desired, inventory: &Inventory) {
        let free: u32 = inventory
            .subnets
            .values()
            .map(|subnet| subnet.free_addresses)
            .fold(0, u32::saturating_add);
        let wanted = desired
            .groups
            .iter()
            .map(|group| group.auto_scaling_group.max)
            .fold(0, u32::saturating_add);
        if free < wanted {
            self.warning(
                "network.subnets",
                format!("have {free} free addresses, and the groups may grow to {wanted} nodes"),
            );
        }
    }

    fn quota(&mut self, quota: &Answer<Quota>) {
        let Some(quota) = self.answer(quota) else {
            return;
        };
        if quota.used.saturating_add(quota.wanted) > quota.limit {
            self.problem(
                format!("quota of {}", quota.what),
                format!(
                    "the account has {} of {}, and {} more are wanted: have it raised (Service Quotas), or remove some",
                    quota.used, quota.limit, quota.wanted
                ),
            );
        }
    }
}

fn listed(names: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = names.iter().copied().collect();
    names.join(", ")
}
