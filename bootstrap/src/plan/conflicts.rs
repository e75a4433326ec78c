//! What stands in the way of `up`, and the little that does of `down`: found before the first write, all
//! at once.

use std::fmt;

use fleet_agent_config::names::tag;
use serde::Serialize;

use super::down::{all, is_our_provider};
use crate::{
    desired::{Desired, Group, Image, launched_cluster},
    inventory::{Inventory, Presence, Role},
    spec::{Direction, FARGATE, PROVIDERS_MAX},
};

/// Something that `up` or `down` must not, or cannot, work around.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Conflict {
    /// `security group shop-dev-web`.
    pub(crate) resource: String,
    /// What is wrong and what to do.
    pub(crate) problem: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.problem)
    }
}

/// All of them.
pub(super) fn find(desired: &Desired, inventory: &Inventory) -> Vec<Conflict> {
    let mut found = Conflicts(Vec::new());
    found.network(desired, inventory);
    if desired.cluster.is_adopted {
        found.adopted_cluster(desired, inventory);
    } else {
        found.presence("cluster", &desired.cluster.name, &inventory.cluster);
    }
    found.bucket(desired, inventory);
    for group in &desired.groups {
        found.group(group, inventory);
        found.elsewhere(group, desired, inventory);
    }
    for group in &inventory.removed {
        found.add(
            "group",
            &group.name,
            "is no longer in fleet.toml, but exists: put it back, or run `down`",
        );
    }
    found.0
}

/// All of them on the way down: what another cluster than the file's depends on, and what only the owner
/// of an adopted one can decide.
pub(super) fn find_down(desired: &Desired, inventory: &Inventory) -> Vec<Conflict> {
    let mut found = Conflicts(Vec::new());
    if desired.cluster.is_adopted {
        found.own_cluster(desired, inventory);
        found.bound(desired, inventory);
    } else {
        found.shared(desired, inventory);
    }
    for group in all(desired, inventory) {
        found.elsewhere(group, desired, inventory);
    }
    found.0
}

struct Conflicts(Vec<Conflict>);

impl Conflicts {
    fn add(&mut self, kind: &str, name: &str, problem: impl Into<String>) {
        self.0.push(Conflict {
            resource: format!("{kind} {name}"),
            problem: problem.into(),
        });
    }

    fn network(&mut self, desired: &Desired, inventory: &Inventory) {
        for id in &desired.network.subnet_ids {
            match inventory.subnets.get(id) {
                None => self.add(
                    "subnet",
                    id,
                    format!(
                        "does not exist in {}: correct [network] subnets",
                        desired.identity.region
                    ),
                ),
                Some(subnet) if subnet.vpc_id != desired.network.vpc_id => self.add(
                    "subnet",
                    id,
                    format!(
                        "is in {}, not in {}: correct [network]",
                        subnet.vpc_id, desired.network.vpc_id
                    ),
                ),
                Some(_) => {}
            }
        }
    }

    /// Whosever it is, the file names it; but nodes must be able to join it, and our providers to fit in.
    fn adopted_cluster(&mut self, desired: &Desired, inventory: &Inventory) {
        self.own_cluster(desired, inventory);
        let name = &desired.cluster.name;
        let Some(given) = &inventory.given_cluster else {
            let problem = format!(
                "there is none in {}: correct `adopt` in [cluster], or take it out to have one made",
                desired.identity.region
            );
            return self.add("cluster", name, problem);
        };
        if given.status != "ACTIVE" {
            let problem = format!(
                "is {}, and nodes join only one that is ACTIVE: correct `adopt` in [cluster]",
                given.status
            );
            self.add("cluster", name, problem);
        }
        let ours = desired.groups.iter();
        let ours = ours.map(|group| &group.capacity_provider.name);
        let missing = ours.filter(|name| !given.providers.contains(name)).count();
        if missing > 0 && given.providers.len() + missing > PROVIDERS_MAX {
            let problem = format!(
                "has {} capacity providers, and the groups would be {missing} more: ECS takes at most {PROVIDERS_MAX}",
                given.providers.len()
            );
            self.add("cluster", name, problem);
        }
    }

    /// One that was made before the file named another, or that is the very one it names.
    fn own_cluster(&mut self, desired: &Desired, inventory: &Inventory) {
        if inventory.cluster.owned().is_none() {
            return;
        }
        let (name, own) = (&desired.cluster.name, &desired.cluster.own_name);
        let problem = if name == own {
            "is this environment's own, and goes with it at `down`: take `adopt` out of [cluster]"
                .to_owned()
        } else {
            format!(
                "is this environment's own, and would be left behind for {name}: take `adopt` out of [cluster], run `down`, then put it back"
            )
        };
        self.add("cluster", own, problem);
    }

    /// Nodes stay in the cluster that they joined, and only there it is known what runs on them.
    fn elsewhere(&mut self, group: &Group, desired: &Desired, inventory: &Inventory) {
        let Some(existing) = inventory.groups.get(&group.name) else {
            return;
        };
        if !existing.auto_scaling_group.is_ours() {
            return;
        }
        let template = existing.launch_template.owned();
        let joined = template.and_then(|template| launched_cluster(&template.latest.user_data));
        let wanted = &desired.cluster.name;
        if let Some(joined) = joined.filter(|joined| joined != wanted) {
            self.add(
                "auto scaling group",
                &group.auto_scaling_group.name,
                format!(
                    "its nodes join cluster {joined}, and not {wanted}: put `adopt` in [cluster] back as it was, run `down`, then change it"
                ),
            );
        }
    }

    /// ECS takes no provider off a cluster that a service or the default strategy names, and where tasks go
    /// instead is not ours to say.
    /// Services of all go with a cluster, and nodes of others keep it from going.
    fn shared(&mut self, desired: &Desired, inventory: &Inventory) {
        let Some(cluster) = inventory.cluster.owned() else {
            return;
        };
        let is_others = |name: &&String| {
            !FARGATE.contains(&name.as_str()) && !is_our_provider(name, desired, inventory)
        };
        let others: Vec<&str> = cluster
            .providers
            .iter()
            .filter(is_others)
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            let problem = format!(
                "others have capacity providers on it, whose services would go with it: have them leave it (`aws ecs put-cluster-capacity-providers`), then run `down` again: {}",
                others.join(", ")
            );
            self.add("cluster", &desired.cluster.name, problem);
        }
    }

    fn bound(&mut self, desired: &Desired, inventory: &Inventory) {
        let Some(given) = &inventory.given_cluster else {
            return;
        };
        let is_ours = |name: &str| is_our_provider(name, desired, inventory);
        let cluster = &desired.cluster.name;
        for item in given.default_strategy.iter() {
            if is_ours(&item.provider) {
                let provider = &item.provider;
                let problem = format!(
                    "its default strategy names capacity provider {provider}, and where its tasks go is its owner's to say: take it out (`aws ecs put-cluster-capacity-providers`), then run `down` again"
                );
                self.add("cluster", cluster, problem);
            }
        }
        let attached = given.providers.iter().filter(|name| is_ours(name));
        for provider in attached {
            if let Some(services) = inventory.tenancy.bound.get(provider) {
                let services: Vec<&str> = services.iter().map(String::as_str).collect();
                let problem = format!(
                    "services name capacity provider {provider} in their strategy, and ECS does not take it away from under them: give them another (`aws ecs update-service --capacity-provider-strategy`), or delete them, then run `down` again: {}",
                    services.join(", ")
                );
                self.add("cluster", cluster, problem);
            }
        }
    }

    fn group(&mut self, group: &Group, inventory: &Inventory) {
        let Some(existing) = inventory.groups.get(&group.name) else {
            return self.add("group", &group.name, "was not read: this is a bug");
        };
        match &group.given_role {
            Some(name) => self.given_role(name, group, existing.given_role.as_ref()),
            None => self.presence("role", &group.role.name, &existing.role),
        }
        self.presence(
            "instance profile",
            &group.instance_profile,
            &existing.instance_profile,
        );
        self.presence(
            "security group",
            &group.security_group.name,
            &existing.security_group,
        );
        self.presence(
            "launch template",
            &group.launch_template.name,
            &existing.launch_template,
        );
        self.presence(
            "auto scaling group",
            &group.auto_scaling_group.name,
            &existing.auto_scaling_group,
        );
        self.presence(
            "capacity provider",
            &group.capacity_provider.name,
            &existing.capacity_provider,
        );
        self.presence("parameter", &group.parameter.name, &existing.parameter);
        if group.scaling.steps().is_some() {
            for direction in Direction::ALL {
                self.presence("alarm", group.alarm(direction), existing.alarm(direction));
            }
        }
        self.provider(group, existing);
        self.roll(group, existing);
        self.image(group, existing, inventory);
    }

    /// What is under the agent's key is never overwritten, and nodes would refuse another.
    fn bucket(&mut self, desired: &Desired, inventory: &Inventory) {
        let bucket = &desired.bucket;
        let Some(upload) = &bucket.upload else {
            return;
        };
        self.presence("bucket", &bucket.name, &inventory.bucket);
        let found = inventory.bucket.owned();
        if let Some(sum) = found.and_then(|found| found.object.as_ref())
            && *sum != upload.sha256
        {
            let problem = match sum.as_str() {
                "" => "was put there without its SHA-256".to_owned(),
                sum => format!("has SHA-256 {sum}"),
            };
            let name = format!("s3://{}/{}", bucket.name, upload.key);
            let problem = format!("{problem}, and is not ours: remove it, then run this again");
            self.add("object", &name, problem);
        }
    }

    fn presence<T>(&mut self, kind: &str, name: &str, presence: &Presence<T>) {
        match presence {
            Presence::Absent | Presence::Owned(_) => {}
            Presence::Leaving => self.add(
                kind,
                name,
                "is still being deleted: run this again in a minute",
            ),
            Presence::Foreign(why) => self.add(
                kind,
                name,
                format!(
                    "exists and is not this environment's: {why}. Rename the fleet, the \
                         environment or the group, or remove that resource yourself"
                ),
            ),
        }
    }

    /// Nobody's of ours, and one that a node can have.
    fn given_role(&mut self, name: &str, group: &Group, found: Option<&Role>) {
        let key = format!("`role` in [groups.{}]", group.name);
        match found {
            None => self.add("role", name, format!("does not exist: correct {key}")),
            Some(role) if role.tags.contains_key(tag::OWNER) => self.add(
                "role",
                name,
                format!("is one that fleet made, and goes with what it was made for: name one of your own with {key}"),
            ),
            Some(role) if !role.lets_ec2_assume() => self.add(
                "role",
                name,
                format!("does not let ec2.amazonaws.com assume it, and so no node: correct its trust policy, or {key}"),
            ),
            Some(_) => {}
        }
    }

    /// A provider is bound to its group for life, by an ARN that a new group of the same name does
    /// not have.
    fn provider(&mut self, group: &Group, existing: &crate::inventory::Group) {
        let Some(provider) = existing.capacity_provider.owned() else {
            return;
        };
        let bound = match &existing.auto_scaling_group {
            Presence::Owned(asg) => {
                provider.auto_scaling_group == asg.arn
                    || provider.auto_scaling_group == group.auto_scaling_group.name
            }
            Presence::Absent => false,
            Presence::Leaving | Presence::Foreign(_) => return,
        };
        if !bound {
            self.add(
                "capacity provider",
                &group.capacity_provider.name,
                "is bound to an auto scaling group that is gone: run `down`, then `up`",
            );
        }
    }

    /// Its sizes are the roll's for now, and its launch template what nodes are being brought to.
    fn roll(&mut self, group: &Group, existing: &crate::inventory::Group) {
        let found = existing.auto_scaling_group.owned();
        if let Some(mark) = found.and_then(|found| found.tags.get(tag::ROLL)) {
            self.add(
                "auto scaling group",
                &group.auto_scaling_group.name,
                format!(
                    "its nodes are being replaced (`{}`): let `roll` go on, or end it with `roll --cancel`, then run this again",
                    mark.value
                ),
            );
        }
    }

    /// What a launch template has already is none of its own concern: EC2 goes on launching it.
    fn image(&mut self, group: &Group, existing: &crate::inventory::Group, inventory: &Inventory) {
        let wanted = &group.launch_template.image;
        let in_use = existing.launch_template.owned();
        if in_use.is_some() && wanted.is_kept() && !group.launch_template.newest_image {
            return;
        }
        let key = format!("`ami` in [groups.{}]", group.name);
        let Some(found) = inventory.images.get(wanted) else {
            let problem = match wanted {
                Image::Parameter(_) | Image::Release(_) => {
                    format!("is not published in this region: name an AMI with {key}")
                }
                Image::Tagged { .. } => {
                    format!("is no available x86_64 image that is not deprecated: correct {key}")
                }
                Image::Pinned(_) => format!(
                    "does not exist in this region, or is not shared with this account: correct {key}"
                ),
            };
            return self.add("image", &wanted.to_string(), problem);
        };
        match found.architecture.as_deref() {
            None | Some("x86_64") => {}
            Some(other) => self.add(
                "image",
                &found.id,
                format!("is for {other}, and fleet-agent for x86_64: correct {key}"),
            ),
        }
        let is_new = in_use.is_none_or(|template| template.latest.image_id != found.id);
        if found.is_deprecated && is_new {
            let problem = format!("is deprecated by its owner: name a newer one with {key}");
            self.add("image", &found.id, problem);
        }
    }
}
