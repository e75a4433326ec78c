//! Live settings on their way to nodes: one first, then all others a few at a time.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, anyhow, bail};
use fleet_agent_config::{Applied, names::attribute, names::tag};

use super::{Apply, Duration};
use crate::{
    inventory::Tags,
    nodes::{Node, Nodes},
    watch::POLL,
};

/// From a node's tag to all sidecars up: metadata may lag by a minute, an image has to be pulled.
const LIMIT: Duration = Duration::from_secs(300);
/// Nodes that are told at a time. Each asks SSM once, which answers 40 such calls a second (Systems
/// Manager quotas, GetParameter's default throughput).
const AT_ONCE: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// How far a node is with a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Behind,
    Refused,
    Done,
}

fn stand(node: &Node, revision: u64) -> Stand {
    let applied = node.attribute(attribute::CONFIG).and_then(Applied::read);
    match applied {
        Some(applied) if applied.revision >= revision && applied.settled => Stand::Done,
        Some(applied) if applied.refused >= Some(revision) => Stand::Refused,
        Some(_) | None => Stand::Behind,
    }
}

fn serves(node: &Node, version: i64) -> bool {
    node.instance.template_version == Some(version) && node.is_ready() && !node.is_draining()
}

impl Apply<'_> {
    pub(super) async fn try_revision(
        &self,
        group: &str,
        version: i64,
        revision: u64,
    ) -> Result<()> {
        let Some(nodes) = self.watch.nodes(group).await? else {
            bail!("auto scaling group {group} is gone: somebody deleted it meanwhile");
        };
        // Always the same one, so that a run that is repeated does not try the next.
        let serving = nodes.nodes.iter().filter(|node| serves(node, version));
        let Some(node) = serving.map(|node| node.instance.id.as_str()).min() else {
            return Ok(());
        };
        self.cloud.ec2.tag(&[node], &tags(revision)).await?;
        let label = format!("revision {revision} on {node}");
        self.follow(group, &label, async |nodes| {
            let found = nodes.nodes.iter().find(|found| found.instance.id == node);
            let Some(found) = found else {
                bail!("{node} is gone: run this again, and another node tries revision {revision}");
            };
            let stand = stand(found, revision);
            refused(found, stand, revision)?;
            Ok((usize::from(stand == Stand::Done), 1))
        })
        .await
        .map_err(|error| {
            anyhow!("{error:#}\nno other node was told of revision {revision}: correct the file, and run this again")
        })
    }

    pub(super) async fn spread_revision(
        &self,
        group: &str,
        version: i64,
        revision: u64,
    ) -> Result<()> {
        let told = tokio::sync::Mutex::new(BTreeSet::new());
        let label = format!("revision {revision} on {group}");
        self.follow(group, &label, async |nodes| {
            let of_version = || {
                let nodes = nodes.nodes.iter();
                nodes.filter(|node| node.instance.template_version == Some(version))
            };
            let mut told = told.lock().await;
            let new = of_version().filter(|node| stand(node, revision) == Stand::Behind);
            let new: Vec<&str> = new
                .map(|node| node.instance.id.as_str())
                .filter(|id| !told.contains(*id))
                .collect();
            for some in new.chunks(AT_ONCE) {
                self.cloud.ec2.tag(some, &tags(revision)).await?;
                told.extend(some.iter().map(|id| (*id).to_owned()));
                self.watch.pause(PAUSE).await?;
            }
            // One that does not serve takes it when it can: nobody waits for that.
            let serving: Vec<&Node> = of_version().filter(|node| serves(node, version)).collect();
            let mut done = 0;
            for node in &serving {
                let stand = stand(node, revision);
                refused(node, stand, revision)?;
                done += usize::from(stand == Stand::Done);
            }
            Ok((done, serving.len()))
        })
        .await
    }

    /// Looks until all that count are done; `look` tells how many are, of how many.
    async fn follow(
        &self,
        group: &str,
        label: &str,
        look: impl AsyncFn(&Nodes) -> Result<(usize, usize)>,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let Some(nodes) = self.watch.nodes(group).await? else {
                bail!("auto scaling group {group} is gone: somebody deleted it meanwhile");
            };
            let (done, all) = look(&nodes).await?;
            if done >= all {
                self.progress.settled(label);
                return Ok(());
            }
            if began.elapsed() >= LIMIT {
                let late = nodes.nodes.iter().map(described).collect::<Vec<_>>();
                bail!(
                    "{done} of {all} nodes run {label} after {} s:\n{}",
                    LIMIT.as_secs(),
                    late.join("\n")
                );
            }
            self.progress.live(label, &format!("{done}/{all} nodes"));
            self.watch.pause(POLL).await?;
        }
    }
}

fn refused(node: &Node, stand: Stand, revision: u64) -> Result<()> {
    if stand == Stand::Refused {
        let id = &node.instance.id;
        bail!(
            "{id} refuses revision {revision}: `journalctl -u fleet-agent` there says why \
             (FLEET_EVENT=revision-refused)"
        );
    }
    Ok(())
}

/// `i-1: a1b2.2 starting, degraded (sidecars)`
fn described(node: &Node) -> String {
    let told = |name| node.attribute(name).unwrap_or("unknown");
    format!(
        "{}: {}, {} ({})",
        node.instance.id,
        told(attribute::CONFIG),
        told(attribute::HEALTH),
        told(attribute::REASON)
    )
}

fn tags(revision: u64) -> Tags {
    [(tag::REVISION.to_owned(), revision.to_string())].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::ContainerInstance;

    #[test]
    fn a_node_is_done_once_its_sidecars_are_up_with_the_revision() {
        let with = |config: &str| {
            let attributes = [(attribute::CONFIG.to_owned(), config.to_owned())];
            let node = Node {
                instance: Default::default(),
                container_instance: Some(ContainerInstance {
                    attributes: attributes.into(),
                    ..ContainerInstance::default()
                }),
            };
            stand(&node, 3)
        };
        for (config, expected) in [
            ("a1", Stand::Behind),
            ("a1.2", Stand::Behind),
            ("a1.3 starting", Stand::Behind),
            ("a1.3", Stand::Done),
            ("a1.4", Stand::Done),
            ("a1.2 refused 3", Stand::Refused),
            ("a1.1 refused 2", Stand::Behind),
            ("a1.3 refused 4", Stand::Done),
            ("what?", Stand::Behind),
        ] {
            assert_eq!(with(config), expected, "{config}");
        }
    }
}
