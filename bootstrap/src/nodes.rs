//! The nodes of a group as Auto Scaling and ECS see them together.

use std::collections::BTreeMap;

use fleet_agent_config::names::{attribute, tag};

use crate::{
    cloud::{CallError, Cloud, ContainerInstance, Kind},
    inventory::{AutoScalingGroup, Instance},
    roll::Mark,
};

/// A group with all its instances.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Nodes {
    /// Name of the Auto Scaling group.
    pub(crate) group: String,
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Its desired capacity.
    pub(crate) wanted: u32,
    /// Version of the launch template that new nodes get.
    pub(crate) template_version: Option<i64>,
    /// What its `fleet:roll` tag says.
    pub(crate) roll: Option<String>,
    /// Whether nodes are kept from scale-in as they come into service.
    pub(crate) protects_new: bool,
    pub(crate) nodes: Vec<Node>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) instance: Instance,
    /// Absent until it has registered, and after it was deregistered.
    pub(crate) container_instance: Option<ContainerInstance>,
}

impl Node {
    /// Auto Scaling counts on it: its agent has proven it.
    pub(crate) fn is_running(&self) -> bool {
        self.instance.state == "InService"
    }

    /// Auto Scaling counts it among those its group wants, or soon will. What it holds in reserve or
    /// was told to leave out (`Warmed:*`, `Standby`) is neither missing nor late, and what it
    /// terminates is replaced already.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = &self.instance.state;
        let elsewhere = ["Warmed:", "Standby", "EnteringStandby"];
        !self.instance.is_leaving() && !elsewhere.iter().any(|other| state.starts_with(other))
    }

    /// In service and emptied by its own agent: nobody is to wait for it. An operator asked for that,
    /// or a cause that Auto Scaling does not know of.
    pub(crate) fn is_set_aside(&self) -> bool {
        self.is_running()
            && self.is_draining()
            && matches!(self.attribute(attribute::INTENT), Some("drain" | "replace"))
    }

    /// ECS can place tasks on it.
    pub(crate) fn is_in_ecs(&self) -> bool {
        self.container_instance
            .as_ref()
            .is_some_and(|found| found.status == "ACTIVE" && found.connected)
    }

    /// Its agent reports.
    pub(crate) fn has_agent(&self) -> bool {
        self.attribute(attribute::HEALTH).is_some() && self.attribute(attribute::AGENT).is_some()
    }

    /// All of it.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_running() && self.is_in_ecs() && self.has_agent()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.container_instance
            .as_ref()
            .is_some_and(|found| found.status == "DRAINING")
            || self.instance.state.starts_with("Terminating")
    }

    /// A container-instance attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let attributes = &self.container_instance.as_ref()?.attributes;
        attributes.get(name).map(String::as_str)
    }

    /// What it still lacks to be ready, as people say it.
    pub(crate) fn lacks(&self) -> String {
        match &self.container_instance {
            None => format!("{}, not in ECS", self.instance.state),
            Some(found) if found.status != "ACTIVE" => {
                format!("{}, {} in ECS", self.instance.state, found.status)
            }
            Some(found) if !found.connected => {
                format!("{}, ECS agent disconnected", self.instance.state)
            }
            Some(_) if !self.has_agent() => {
                format!("{}, in ECS, no fleet-agent report", self.instance.state)
            }
            Some(_) => format!("{}, in ECS, agent ready", self.instance.state),
        }
    }
}

impl Nodes {
    /// What its roll has noted; `None` without one, or where that cannot be read.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.roll.as_deref().and_then(Mark::read)
    }

    pub(crate) fn count(&self, is_it: impl Fn(&Node) -> bool) -> usize {
        self.nodes.iter().filter(|node| is_it(node)).count()
    }

    /// Nodes that stay, made from another version of the launch template than new ones would be.
    pub(crate) fn stale(&self) -> usize {
        self.count(|node| node.instance.is_stale(self.template_version))
    }

    /// Whether all that the group wants are ready.
    pub(crate) fn is_complete(&self) -> bool {
        self.has_ready(self.wanted)
    }

    /// Whether this many are ready.
    pub(crate) fn has_ready(&self, wanted: u32) -> bool {
        self.count(Node::is_ready) >= wanted as usize
    }

    /// Nodes of a group that would be ready if nobody had emptied them.
    pub(crate) fn set_aside(&self) -> u32 {
        u32::try_from(self.count(Node::is_set_aside)).unwrap_or(u32::MAX)
    }

    /// Nodes that can take tasks and are wanted for that.
    pub(crate) fn in_ecs(&self) -> usize {
        self.count(|node| node.is_wanted() && node.is_in_ecs())
    }

    /// `nodes 1/2 running . 1/2 in ECS . 0/2 agent ready`
    pub(crate) fn progress(&self, wanted: u32) -> String {
        let mut text = format!(
            "nodes {}/{wanted} running . {}/{wanted} in ECS . {}/{wanted} agent ready",
            self.count(Node::is_running),
            self.in_ecs(),
            self.count(|node| node.is_wanted() && node.is_in_ecs() && node.has_agent()),
        );
        let set_aside = self.set_aside();
        if set_aside > 0 {
            text += &format!(" . {set_aside} drained on purpose");
        }
        text
    }
}

/// Reads all nodes of these Auto Scaling groups; groups that do not exist are left out. The number
/// of calls does not depend on the number of groups.
///
/// # Errors
/// The first read that failed.
pub(crate) async fn observe(
    cloud: &Cloud,
    cluster: &str,
    groups: &[String],
) -> Result<Vec<Nodes>, CallError> {
    let (found, instances) = tokio::try_join!(cloud.autoscaling.groups(groups), async {
        match cloud.ecs.container_instances(cluster).await {
            // Without a cluster there are none.
            Err(error) if error.kind == Kind::NotFound => Ok(Vec::new()),
            other => other,
        }
    })?;
    let by_id: BTreeMap<String, ContainerInstance> = instances
        .into_iter()
        .map(|instance| (instance.instance_id.clone(), instance))
        .collect();
    Ok(groups
        .iter()
        .filter_map(|name| Some(join(name, found.get(name)?.as_ref()?, &by_id)))
        .collect())
}

fn join(
    name: &str,
    group: &AutoScalingGroup,
    by_id: &BTreeMap<String, ContainerInstance>,
) -> Nodes {
    Nodes {
        group: name.to_owned(),
        min: group.min,
        max: group.max,
        wanted: group.desired,
        template_version: group.template_version,
        roll: group.tags.get(tag::ROLL).map(|tag| tag.value.clone()),
        protects_new: group.new_instances_protected,
        nodes: group
            .instances
            .iter()
            .map(|instance| Node {
                instance: instance.clone(),
                container_instance: by_id.get(&instance.id).cloned(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(state: &str, ecs: Option<(&str, bool)>, attributes: &[&str]) -> Node {
        Node {
            instance: Instance {
                id: "i-1".into(),
                state: state.into(),
                template_version: Some(2),
                ..Instance::default()
            },
            container_instance: ecs.map(|(status, connected)| ContainerInstance {
                status: status.into(),
                connected,
                attributes: attributes
                    .iter()
                    .map(|name| ((*name).to_owned(), "x".to_owned()))
                    .collect(),
                ..ContainerInstance::default()
            }),
        }
    }

    #[test]
    fn a_node_is_ready_only_when_everybody_says_so() {
        let all = [attribute::HEALTH, attribute::AGENT];
        let ready = node("InService", Some(("ACTIVE", true)), &all);
        assert!(ready.is_ready());
        for not in [
            node("Pending:Wait", Some(("ACTIVE", true)), &all),
            node("InService", Some(("DRAINING", true)), &all),
            node("InService", Some(("ACTIVE", false)), &all),
            node("InService", Some(("ACTIVE", true)), &all[..1]),
            node("InService", None, &[]),
        ] {
            assert!(!not.is_ready(), "{}", not.lacks());
        }
    }

    #[test]
    fn what_is_in_reserve_or_standby_is_neither_wanted_nor_counted() {
        let all = [attribute::HEALTH, attribute::AGENT];
        let states = [
            ("InService", true),
            ("Pending:Wait", true),
            ("Standby", false),
            ("EnteringStandby", false),
            ("Warmed:Stopped", false),
            ("Warmed:Pending:Wait", false),
            ("Terminating:Wait", false),
            ("Terminating:Proceed", false),
        ];
        let mut nodes = Nodes {
            group: "web".into(),
            min: 1,
            max: 4,
            wanted: 1,
            template_version: Some(3),
            roll: None,
            protects_new: true,
            nodes: Vec::new(),
        };
        for (state, is_wanted) in states {
            let node = node(state, Some(("ACTIVE", true)), &all);
            assert_eq!(node.is_wanted(), is_wanted, "{state}");
            nodes.nodes.push(node);
        }
        assert_eq!(
            nodes.progress(1),
            "nodes 1/1 running . 2/1 in ECS . 2/1 agent ready"
        );
        assert!(nodes.has_ready(1) && !nodes.has_ready(2));
        let stale = nodes.stale();
        assert_eq!(stale, 6, "of another version, but for the two that leave");
    }

    #[test]
    fn a_node_that_its_agent_emptied_in_service_is_set_aside() {
        let with = |state: &str, status: &str, intent: &str| {
            let mut node = node(state, Some((status, true)), &[]);
            let instance = node.container_instance.as_mut().expect("in ECS");
            let intent = (attribute::INTENT.to_owned(), intent.to_owned());
            instance.attributes.extend([intent]);
            node
        };
        assert!(with("InService", "DRAINING", "drain").is_set_aside());
        assert!(
            with("InService", "DRAINING", "replace").is_set_aside(),
            "a full disk"
        );
        for not in [
            with("InService", "DRAINING", "serve"),
            with("InService", "ACTIVE", "drain"),
            with("Terminating:Wait", "DRAINING", "leave"),
        ] {
            assert!(!not.is_set_aside(), "{}", not.lacks());
        }
    }

    #[test]
    fn progress_counts_each_stage() {
        let all = [attribute::HEALTH, attribute::AGENT];
        let nodes = Nodes {
            group: "web".into(),
            min: 1,
            max: 4,
            wanted: 2,
            template_version: Some(3),
            roll: None,
            protects_new: true,
            nodes: vec![
                node("InService", Some(("ACTIVE", true)), &all),
                node("Pending:Wait", Some(("ACTIVE", true)), &[]),
            ],
        };
        assert_eq!(
            nodes.progress(2),
            "nodes 1/2 running . 2/2 in ECS . 1/2 agent ready"
        );
        assert!(nodes.has_ready(1) && !nodes.has_ready(2));
        assert_eq!(nodes.stale(), 2);
    }
}
