//! Replacing a group's stale nodes in waves: first the new ones, and when they are ready as many old
//! ones drain and go.
//!
//! # Expected flow
//! [`decide`] looks at a group and says the one thing to do next. It remembers nothing: what it could
//! not see is in the group's [`Mark`], so that a roll which was killed anywhere goes on when it is run
//! again, whoever runs it. A wave:
//!
//! 1. the mark: how large the group is, and how many nodes are to be added;
//! 2. one call raises size and lower bound by those (and the upper one, if need be); Auto Scaling
//!    launches. The first wave begins with one node, and grows when that one has proven itself;
//! 3. once the new nodes are ready, as many old ones lose their protection, and one call takes size and
//!    bounds back: Auto Scaling takes those that it may, which are these;
//! 4. their agents drain them, under their hook.
//!
//! # Guarantees
//! - Nodes that are ready are never fewer than the group wants for our doing.
//! - The size that ECS asks for meanwhile is kept: only the surge is added and taken away.
//! - A new node that fails takes the group back to the version it came from, by the same waves.

mod mark;
#[cfg(test)]
mod tests;

use std::fmt;

use fleet_agent_config::names::attribute;

pub(crate) use mark::{Mark, State};

use crate::{
    nodes::{Node, Nodes},
    plan::GroupChange,
};

/// How a group is rolled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Nodes of a wave.
    pub(crate) surge: Surge,
    /// Whether the first wave is one node.
    pub(crate) canary: bool,
}

/// How many nodes are new at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surge {
    Nodes(u32),
    /// Of what the group wants; at least one.
    Percent(u32),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    Write(Write),
    Wait(Wait),
    /// No node is left to replace, and the mark, if there is one, can go. True if that is so because
    /// the group went back.
    Done {
        went_back: bool,
    },
    /// Neither version gets on, or nobody knows what the mark says.
    Stuck(String),
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Note(Mark),
    /// Sizes.
    Resize(GroupChange),
    /// The launch template's version.
    Version(i64),
    /// Instances that Auto Scaling may take.
    Unprotect(Vec<String>),
    /// Instances that it may not.
    Protect(Vec<String>),
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// New nodes, so many of which are ready.
    Launching(usize),
    /// The first new node, to see whether it stays well.
    Baking,
    /// So many old nodes.
    Leaving(usize),
    Paused,
}

/// What a look at the group does not tell.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told<'a> {
    /// Why a new node is not to be trusted.
    pub(crate) failure: Option<&'a str>,
    /// The first new node has been well for long enough.
    pub(crate) is_baked: bool,
    /// Its mark was seen earlier by this run.
    pub(crate) has_begun: bool,
}

impl fmt::Display for Surge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Surge {
    /// `3`, or `25%`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text);
        let is_percent = number.len() < text.len();
        match number.parse::<u32>() {
            Ok(percent @ 1..=100) if is_percent => Ok(Self::Percent(percent)),
            Ok(nodes @ 1..) if !is_percent => Ok(Self::Nodes(nodes)),
            Ok(_) | Err(_) => Err(format!(
                "`{text}` is neither a number of nodes, 1 or more, nor a share of the group, 1% to 100%"
            )),
        }
    }

    fn of(self, wanted: u32) -> u32 {
        match self {
            Self::Nodes(nodes) => nodes,
            Self::Percent(percent) => {
                let share = (u64::from(wanted) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
        .max(1)
    }
}

/// Whether a node was made from another version than its group now launches, and can be replaced.
/// What an operator has set aside, or Auto Scaling leaves out, stays.
pub(crate) fn is_stale(node: &Node, nodes: &Nodes) -> bool {
    node.instance.template_version != nodes.template_version
        && node.is_wanted()
        && !node.is_set_aside()
}

/// The next thing to do for a group.
pub(crate) fn decide(nodes: &Nodes, settings: &Settings, told: Told<'_>) -> Next {
    let roll = Roll { nodes, settings };
    match &nodes.roll {
        // Whoever cancelled it may have brought it to its end.
        None if told.has_begun => Next::Done { went_back: false },
        None => match roll.wave(None) {
            Some(mark) => Next::Write(Write::Note(mark)),
            None => Next::Done { went_back: false },
        },
        Some(text) => match Mark::read(text) {
            Some(mark) => roll.go_on(mark, told),
            None => Next::Stuck(format!(
                "its fleet:roll tag says `{text}`, which is no roll of this program: remove the tag, then run `up`"
            )),
        },
    }
}

struct Roll<'a> {
    nodes: &'a Nodes,
    settings: &'a Settings,
}

impl Roll<'_> {
    fn go_on(&self, mark: Mark, told: Told<'_>) -> Next {
        if mark.state == State::Paused {
            return Next::Wait(Wait::Paused);
        }
        if mark.state == State::Back {
            if let Some(from) = mark.from
                && self.nodes.template_version != Some(from)
            {
                return Next::Write(Write::Version(from));
            }
        } else if let Some(why) = told.failure {
            return match mark.from {
                Some(_) => Next::Write(Write::Note(Mark {
                    state: State::Back,
                    ..mark
                })),
                None => Next::Stuck(format!(
                    "{why}\nthe version that its nodes came from is not known: correct the file, then run `up` and `roll`"
                )),
            };
        }
        if let Some(mark) = self.rebound(mark) {
            return Next::Write(Write::Note(mark));
        }
        match self.nodes.min.saturating_sub(mark.base) {
            0 => self.between(mark),
            surge if surge < mark.surge => self.launch(mark, surge),
            surge => self.surging(mark, surge, told),
        }
    }

    /// The mark, where somebody else set the bounds meanwhile, such as a schedule: they are the group's from
    /// then on, and the nodes that were added are no surplus any more.
    fn rebound(&self, mark: Mark) -> Option<Mark> {
        let (nodes, raised) = (self.nodes, mark.base + mark.surge);
        if nodes.min == mark.min || (mark.base..=raised).contains(&nodes.min) {
            return None;
        }
        let is_as_raised = nodes.max == mark.max || nodes.max == mark.max.max(raised);
        Some(Mark {
            base: nodes.wanted.max(nodes.min),
            min: nodes.min,
            max: if is_as_raised { mark.max } else { nodes.max },
            ..mark
        })
    }

    /// Adds what of the wave is not in effect yet.
    fn launch(&self, mark: Mark, surge: u32) -> Next {
        let size = self.nodes.wanted + mark.surge - surge;
        Next::Write(Write::Resize(GroupChange {
            min: Some(mark.base + mark.surge),
            max: Some(self.nodes.max.max(size)),
            desired: Some(size),
            ..GroupChange::default()
        }))
    }

    /// So many nodes have been added: once they are ready, as many others go.
    fn surging(&self, mark: Mark, surge: u32, told: Told<'_>) -> Next {
        let base = self.nodes.wanted.saturating_sub(surge);
        let victims = self.victims(surge);
        let goes = |node: &Node| {
            victims
                .iter()
                .any(|victim| victim.instance.id == node.instance.id)
        };
        let ready = self.nodes.count(Node::is_ready);
        let left = self.nodes.count(|node| node.is_ready() && !goes(node));
        let wanted = (base as usize).saturating_sub(self.nodes.count(Node::is_set_aside));
        let keeps_capacity = left >= ready.min(wanted);
        let is_back = mark.state == State::Back;
        if !(keeps_capacity && (is_back || self.new_nodes_are_ready(surge))) {
            let ready = self.new_nodes().filter(|node| node.is_ready()).count();
            return Next::Wait(Wait::Launching(ready));
        }
        let is_canary = surge == 1 && self.new_nodes().count() == 1;
        if self.settings.canary && is_canary && !is_back {
            if !told.is_baked {
                return Next::Wait(Wait::Baking);
            }
            let whole = self.whole_wave(base);
            if whole > surge && mark.state == State::Running {
                return Next::Write(Write::Note(Mark {
                    surge: whole,
                    ..mark
                }));
            }
        }
        // Auto Scaling takes any that it may, of the fullest zone first. ECS frees nodes without tasks, such
        // as new ones.
        let open = ids(self
            .nodes
            .nodes
            .iter()
            .filter(|node| node.is_running() && !node.instance.protected && !goes(node)));
        if !open.is_empty() {
            return Next::Write(Write::Protect(open));
        }
        let protected = still_protected(&victims);
        if !protected.is_empty() {
            return Next::Write(Write::Unprotect(protected));
        }
        Next::Write(Write::Resize(GroupChange {
            min: Some(mark.min),
            max: Some(mark.max.max(base)),
            desired: Some(base),
            ..GroupChange::default()
        }))
    }

    /// No surge is in effect: old nodes leave, or the next wave begins.
    fn between(&self, mark: Mark) -> Next {
        let nodes = self.nodes;
        let counted = nodes.count(Node::is_wanted);
        let surplus = counted.saturating_sub(nodes.wanted as usize);
        if surplus > 0 {
            // Somebody protected them again, such as ECS, which does so as long as they have tasks.
            let victims = self.victims(u32::try_from(surplus).unwrap_or(u32::MAX));
            let protected = still_protected(&victims);
            if !protected.is_empty() {
                return Next::Write(Write::Unprotect(protected));
            }
        }
        // Past its hooks a node has handed over its tasks; how long EC2 takes does not matter.
        let leaving = nodes.count(|node| {
            let state = node.instance.state.as_str();
            state.starts_with("Terminat") && state != "Terminating:Proceed"
        });
        // One of the version that failed may still be on its way in.
        let coming = match mark.state {
            State::Back => nodes.count(|node| is_stale(node, nodes) && !node.is_running()),
            State::Running | State::Paused | State::Cancelled => 0,
        };
        if leaving + coming + surplus.min(self.candidates().len()) > 0 {
            return Next::Wait(Wait::Leaving(leaving + coming + surplus));
        }
        let next = match mark.state {
            State::Cancelled => None,
            State::Running | State::Back | State::Paused => self.wave(Some(mark)),
        };
        match next {
            Some(next) if next != mark => Next::Write(Write::Note(next)),
            Some(next) => self.launch(next, 0),
            None => self.finish(mark),
        }
    }

    /// The next wave; `None` when no node is left to replace.
    fn wave(&self, mark: Option<Mark>) -> Option<Mark> {
        let stale = self.candidates();
        if stale.is_empty() {
            return None;
        }
        let is_first = self.new_nodes().next().is_none();
        Some(Mark {
            base: self.nodes.wanted,
            surge: match self.settings.canary && is_first {
                true => 1,
                false => self.whole_wave(self.nodes.wanted),
            },
            from: match mark {
                Some(mark) => mark.from,
                None => stale
                    .iter()
                    .filter_map(|node| node.instance.template_version)
                    .max(),
            },
            state: mark.map_or(State::Running, |mark| mark.state),
            min: mark.map_or(self.nodes.min, |mark| mark.min),
            max: mark.map_or(self.nodes.max, |mark| mark.max),
        })
    }

    fn whole_wave(&self, wanted: u32) -> u32 {
        let left = u32::try_from(self.candidates().len()).unwrap_or(u32::MAX);
        self.settings.surge.of(wanted).min(left)
    }

    /// Bounds as they were first; what ECS asked for beyond stays. Where Auto Scaling chooses who goes, it has
    /// to find nodes that may.
    fn finish(&self, mark: Mark) -> Next {
        let is_kept = |node: &&Node| node.is_running() && node.instance.protected;
        let kept = ids(self.nodes.nodes.iter().filter(is_kept));
        if !self.nodes.protects_new && !kept.is_empty() {
            return Next::Write(Write::Unprotect(kept));
        }
        let (nodes, max) = (self.nodes, mark.max.max(self.nodes.wanted));
        if nodes.min == mark.min && nodes.max == max {
            return Next::Done {
                went_back: mark.state == State::Back,
            };
        }
        Next::Write(Write::Resize(GroupChange {
            min: Some(mark.min),
            max: Some(max),
            ..GroupChange::default()
        }))
    }

    /// Old nodes that can go.
    fn candidates(&self) -> Vec<&Node> {
        let nodes = self.nodes.nodes.iter();
        nodes
            .filter(|node| node.is_running() && is_stale(node, self.nodes))
            .collect()
    }

    /// Those of them that go next: what was chosen before, what serves nobody, and then the oldest.
    fn victims(&self, count: u32) -> Vec<&Node> {
        let mut stale = self.candidates();
        stale.sort_by_key(|node| {
            let instance = &node.instance;
            (
                instance.protected,
                node.is_ready(),
                instance.template_version,
                instance.id.clone(),
            )
        });
        stale.truncate(count as usize);
        stale
    }

    fn new_nodes(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.nodes.nodes.iter();
        nodes.filter(|node| is_new(node, self.nodes))
    }

    /// All that were launched are there, and well.
    fn new_nodes_are_ready(&self, surge: u32) -> bool {
        let are_launched = self.nodes.count(Node::is_wanted) >= self.nodes.wanted as usize
            && self.new_nodes().count() >= surge as usize;
        let is_well = |node: &Node| node.is_ready() && !is_impaired(node);
        are_launched
            && self
                .new_nodes()
                .all(|node| is_well(node) || node.is_set_aside())
    }
}

fn ids<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<String> {
    nodes.map(|node| node.instance.id.clone()).collect()
}

/// Those that Auto Scaling may not take yet.
fn still_protected(victims: &[&Node]) -> Vec<String> {
    let victims = victims.iter().copied();
    ids(victims.filter(|node| node.instance.protected))
}

/// Made from the version that the group now launches.
fn is_new(node: &Node, nodes: &Nodes) -> bool {
    node.instance.template_version == nodes.template_version && node.is_wanted()
}

fn is_impaired(node: &Node) -> bool {
    node.attribute(attribute::HEALTH) == Some("impaired")
}

/// A new node that says itself that it is ill.
pub(crate) fn ill(nodes: &Nodes) -> Option<String> {
    let mut found = nodes.nodes.iter();
    let node =
        found.find(|node| is_new(node, nodes) && !node.is_set_aside() && is_impaired(node))?;
    let reason = node.attribute(attribute::REASON).unwrap_or("unknown");
    Some(format!(
        "the new node {} is impaired ({reason})",
        node.instance.id
    ))
}
