//! What stands in the two `ecs.config` files. Pure.
//!
//! ecs-init loads `/var/lib/ecs/ecs.config` first (AWS uses it for its GPU image) and lets
//! `/etc/ecs/ecs.config` override it. systemd hands only the latter to ecs-init itself. So:
//!
//! - defaults that an operator's own line may override go to `/var/lib`: nothing that ecs-init
//!   itself reads is among them;
//! - what must hold (the cluster, the settings of agent.toml, and the switches that would have a
//!   second program drain the node or hold it back) goes to `/etc`.
//!
//! Neither file is ours alone: AWS's GPU keys stand in the first, operators' keys in the second.
//! Both keep every line that is not ours, in its order.

use std::collections::{BTreeMap, BTreeSet};

use fleet_agent_config::{Protocol, RESERVED_PORTS, Settings, ecs::INSTANCE_TAGS, names};

/// The ECS agent's own default, written down because the drain's deadline counts on it.
pub(crate) const STOP_TIMEOUT_DEFAULT: &str = "30s";

/// The variables this agent sets in each file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    /// `/var/lib/ecs/ecs.config`.
    pub(crate) defaults: BTreeMap<String, String>,
    /// `/etc/ecs/ecs.config`.
    pub(crate) managed: BTreeMap<String, String>,
}

/// `arn` is this instance's, where it is known: by a tag with it the node's role tells it from its
/// neighbours, where the settings ask for that.
pub(crate) fn layers(settings: &Settings, arn: Option<&str>) -> Layers {
    let set = |name: &str, value: String| (name.to_owned(), value);
    // ECS cannot see the sidecars: what they may use must not be promised to tasks.
    let sidecars: u32 = settings.sidecars.iter().filter_map(|s| s.memory_mib).sum();
    let reserved = settings.node.system_memory_mib + sidecars;
    let mut defaults = BTreeMap::from([
        set(
            "ECS_CONTAINER_STOP_TIMEOUT",
            STOP_TIMEOUT_DEFAULT.to_owned(),
        ),
        set("ECS_RESERVED_MEMORY", reserved.to_string()),
        // Only read where untracked images are cleaned up at all.
        set("ECS_EXCLUDE_UNTRACKED_IMAGE", kept_images(settings)),
    ]);
    for (name, protocol, always) in [
        ("ECS_RESERVED_PORTS", Protocol::Tcp, &RESERVED_PORTS[..]),
        ("ECS_RESERVED_PORTS_UDP", Protocol::Udp, &[]),
    ] {
        let of_sidecars = settings
            .sidecars
            .iter()
            .flat_map(|sidecar| &sidecar.container.ports);
        let mut ports: Vec<u16> = of_sidecars
            .filter(|port| port.protocol == protocol)
            .map(|port| port.host)
            .collect();
        if !ports.is_empty() {
            ports.extend(always);
            ports.sort_unstable();
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            defaults.insert(name.to_owned(), format!("[{}]", ports.join(",")));
        }
    }
    if settings.node.block_metadata_service {
        // The block in the node's own tables does not reach tasks with an interface of their own.
        defaults.insert("ECS_AWSVPC_BLOCK_IMDS".to_owned(), "true".to_owned());
    }
    let mut managed = BTreeMap::from([
        // This agent drains; the ECS agent's own way ignores refusals and has no deadline.
        switched_off("ECS_ENABLE_SPOT_INSTANCE_DRAINING"),
        // This agent holds ecs.service back while the node is in a warm pool, to the second.
        switched_off("ECS_WARM_POOLS_CHECK"),
    ]);
    managed.extend(settings.ecs.clone());
    managed.insert("ECS_CLUSTER".to_owned(), settings.cluster.clone());
    if settings.node.instance_tag
        && let Some(arn) = arn
    {
        let given = settings.ecs.get(INSTANCE_TAGS);
        let mut tags = given.map(|given| tags(given)).unwrap_or_default();
        tags.insert(names::tag::INSTANCE.to_owned(), arn.to_owned());
        managed.insert(
            INSTANCE_TAGS.to_owned(),
            serde_json::json!(tags).to_string(),
        );
    }
    defaults.retain(|name, _| !managed.contains_key(name));
    Layers { defaults, managed }
}

/// The ARN that an earlier run put into `/etc/ecs/ecs.config`.
pub(super) fn arn(etc: &str) -> Option<String> {
    tags(&value(etc, INSTANCE_TAGS)?).remove(names::tag::INSTANCE)
}

fn tags(json: &str) -> BTreeMap<String, String> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The agent's own images, which no task refers to.
fn kept_images(settings: &Settings) -> String {
    let mut images: Vec<&str> = settings.sidecars.iter().map(|s| s.image.as_str()).collect();
    images.push(names::PROBE_IMAGE);
    images.sort_unstable();
    images.dedup();
    images.join(",")
}

fn switched_off(name: &str) -> (String, String) {
    (name.to_owned(), "false".to_owned())
}

/// `existing` with exactly `ours` set: a variable of ours is changed where it stands, added at the
/// end, or, when it is among those `previously` ours and no longer wanted, removed. Every other
/// line is kept. Bare `KEY=value` lines ending in LF: two parsers read them, and one takes quotes
/// as part of the value.
pub(crate) fn merge(
    existing: &str,
    ours: &BTreeMap<String, String>,
    previously: &BTreeSet<String>,
) -> String {
    let mut left: BTreeMap<&str, &str> = ours
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut text = String::new();
    let mut push = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for line in existing.lines() {
        match variable(line) {
            Some(name) if ours.contains_key(name) => {
                if let Some(value) = left.remove(name) {
                    push(&format!("{name}={value}"));
                }
            }
            Some(name) if previously.contains(name) => {}
            Some(_) | None => push(line),
        }
    }
    for (name, value) in left {
        push(&format!("{name}={value}"));
    }
    text
}

/// What `text` sets `name` to: the last line wins.
pub(super) fn value(text: &str, name: &str) -> Option<String> {
    let line = text.lines().rfind(|line| variable(line) == Some(name))?;
    let (_, value) = line.split_once('=')?;
    Some(value.trim().to_owned())
}

/// The variable a line sets, as ecs-init splits it; comments and blank lines set none.
pub(super) fn variable(line: &str) -> Option<&str> {
    let (name, _) = line.trim().split_once('=')?;
    let name = name.trim();
    (!name.starts_with('#')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(extra: &str) -> Settings {
        let golden = include_str!("../../config/golden/agent-v1.toml");
        let source = golden.replace("[ecs]\n", &format!("[ecs]\n{extra}"));
        Settings::read("agent.toml", &source).expect("valid")
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn defaults_and_what_must_hold_are_apart() {
        let layers = layers(&settings(""), None);
        insta::assert_snapshot!(
            format!(
                "# /var/lib/ecs/ecs.config\n{}# /etc/ecs/ecs.config\n{}",
                merge("", &layers.defaults, &BTreeSet::new()),
                merge("", &layers.managed, &BTreeSet::new())
            ),
            @r"
        # /var/lib/ecs/ecs.config
        ECS_AWSVPC_BLOCK_IMDS=true
        ECS_CONTAINER_STOP_TIMEOUT=30s
        ECS_EXCLUDE_UNTRACKED_IMAGE=example.com/metrics@sha256:0d75c49cb22e52944027bbfbdbada39ee7a6af0ded368ab267e1d5f313d9d2f8,example.com/node-logs:1.4,fleet-agent/probe:1
        ECS_RESERVED_MEMORY=192
        # /etc/ecs/ecs.config
        ECS_CLUSTER=shop-dev
        ECS_ENABLE_SPOT_INSTANCE_DRAINING=false
        ECS_ENABLE_TASK_IAM_ROLE=true
        ECS_LOGLEVEL=info
        ECS_WARM_POOLS_CHECK=false
        "
        );
    }

    #[test]
    fn the_files_own_settings_win_over_derived_ones() {
        let layers = layers(
            &settings("ECS_RESERVED_MEMORY = \"512\"\nECS_WARM_POOLS_CHECK = \"true\"\n"),
            None,
        );
        assert!(!layers.defaults.contains_key("ECS_RESERVED_MEMORY"));
        assert_eq!(layers.managed["ECS_RESERVED_MEMORY"], "512");
        assert_eq!(layers.managed["ECS_WARM_POOLS_CHECK"], "true");
    }

    #[test]
    fn a_node_s_own_tag_stands_beside_the_file_s_tags() {
        const ARN: &str = "arn:aws:ec2:eu-central-1:123456789012:instance/i-1";
        let mut settings = settings("ECS_CONTAINER_INSTANCE_TAGS = '{\"team\":\"web\"}'\n");
        assert_eq!(
            layers(&settings, Some(ARN)).managed[INSTANCE_TAGS],
            r#"{"team":"web"}"#
        );
        settings.node.instance_tag = true;
        let layers = layers(&settings, Some(ARN));
        let expected = format!(r#"{{"fleet:instance":"{ARN}","team":"web"}}"#);
        assert_eq!(layers.managed[INSTANCE_TAGS], expected);
        let etc = merge("", &layers.managed, &BTreeSet::new());
        assert_eq!(arn(&etc).as_deref(), Some(ARN), "found again");
        assert_eq!(arn("ECS_CONTAINER_INSTANCE_TAGS=x"), None);
    }

    #[test]
    fn operators_keys_keep_their_place_and_dropped_ones_go() {
        let existing = "# mine\r\nECS_LOGFILE=/log/x\nECS_CLUSTER=\"old\"\n\nECS_CLUSTER=again\nECS_DROPPED=1\n#ECS_CLUSTER=no";
        let ours = BTreeMap::from([
            ("ECS_CLUSTER".to_owned(), "new".to_owned()),
            ("ECS_NEW".to_owned(), "1".to_owned()),
        ]);
        assert_eq!(
            merge(existing, &ours, &set(&["ECS_DROPPED"])),
            "# mine\nECS_LOGFILE=/log/x\nECS_CLUSTER=new\n\n#ECS_CLUSTER=no\nECS_NEW=1\n"
        );
    }

    proptest! {
        #[test]
        fn merging_again_changes_nothing_and_keeps_what_is_not_ours(
            lines in proptest::collection::vec("(#? ?[A-D]{1,2}=[a-z\"]{0,3}|#[a-z]*|)", 0..8),
            ours in proptest::collection::btree_map("[A-C]{1,2}", "[a-z0-9]{0,4}", 0..4),
            previously in proptest::collection::btree_set("[A-D]{1,2}", 0..3),
        ) {
            let existing = lines.join("\n");
            let once = merge(&existing, &ours, &previously);
            prop_assert_eq!(merge(&once, &ours, &previously), once.clone());
            let foreign = |text: &str| -> Vec<String> {
                text.lines()
                    .filter(|line| variable(line).is_none_or(|name| !ours.contains_key(name) && !previously.contains(name)))
                    .map(str::to_owned)
                    .collect()
            };
            prop_assert_eq!(foreign(&once), foreign(&existing));
            for (name, value) in &ours {
                let line = format!("{name}={value}");
                prop_assert_eq!(once.lines().filter(|l| variable(l) == Some(name)).collect::<Vec<_>>(), vec![line.as_str()]);
            }
        }
    }
}
