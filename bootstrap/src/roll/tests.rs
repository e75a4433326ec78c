//! Rolls of a group that behaves as Auto Scaling and ECS do together, with everything that may come
//! between.

use proptest::prelude::*;

use super::*;
use crate::{cloud::ContainerInstance, inventory::Instance};

/// Version that cannot work.
const BROKEN: i64 = 13;

fn settings(surge: Surge, canary: bool) -> Settings {
    Settings { surge, canary }
}

fn node(number: u32, version: i64, state: &str) -> Node {
    let attributes = [(attribute::HEALTH, "ok"), (attribute::AGENT, "1.0.0")];
    Node {
        instance: Instance {
            id: format!("i-{number:03}"),
            state: state.to_owned(),
            protected: true,
            template_version: Some(version),
            ..Instance::default()
        },
        container_instance: (state == "InService").then(|| ContainerInstance {
            status: "ACTIVE".to_owned(),
            connected: true,
            attributes: attributes
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..ContainerInstance::default()
        }),
    }
}

/// A group of Auto Scaling that one can put questions to.
struct Group {
    nodes: Nodes,
    launched: u32,
    /// What ECS wants of it, surge aside.
    ecs: u32,
}

impl Group {
    fn new(size: u32, old: i64, new: i64) -> Self {
        Self {
            nodes: Nodes {
                group: "g".to_owned(),
                min: 1,
                max: 10,
                wanted: size,
                template_version: Some(new),
                roll: None,
                protects_new: true,
                nodes: (0..size)
                    .map(|number| node(number, old, "InService"))
                    .collect(),
            },
            launched: size,
            ecs: size,
        }
    }

    /// What Auto Scaling does in a while.
    fn tick(&mut self) {
        let wanted = self.nodes.wanted as usize;
        self.nodes
            .nodes
            .retain(|node| node.instance.state != "Terminating:Wait");
        let version = self.nodes.template_version.unwrap_or_default();
        for node in &mut self.nodes.nodes {
            if node.instance.state == "Pending:Wait" {
                let number = node.instance.id[2..].parse().expect("number");
                let version = node.instance.template_version.unwrap_or_default();
                if version != BROKEN {
                    *node = self::node(number, version, "InService");
                    node.instance.protected = self.nodes.protects_new;
                }
            }
        }
        while self.nodes.count(Node::is_wanted) < wanted {
            self.nodes
                .nodes
                .push(node(self.launched, version, "Pending:Wait"));
            self.launched += 1;
        }
        while self.nodes.count(Node::is_wanted) > wanted {
            let mut nodes = self.nodes.nodes.iter_mut();
            let may_go = |node: &&mut Node| !node.instance.protected && node.is_running();
            let Some(goes) = nodes.find(may_go) else {
                break;
            };
            goes.instance.state = "Terminating:Wait".to_owned();
        }
    }

    /// Broken nodes are given up by their hook, as their agent abandons it.
    fn give_up_the_broken(&mut self) -> bool {
        let is_broken = |node: &Node| {
            node.instance.template_version == Some(BROKEN) && node.instance.state == "Pending:Wait"
        };
        let before = self.nodes.nodes.len();
        self.nodes.nodes.retain(|node| !is_broken(node));
        self.nodes.nodes.len() < before
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::Note(mark) => self.nodes.roll = Some(mark.to_string()),
            Write::Version(version) => self.nodes.template_version = Some(*version),
            Write::Unprotect(ids) => {
                for node in &mut self.nodes.nodes {
                    node.instance.protected &= !ids.contains(&node.instance.id);
                }
            }
            Write::Protect(ids) => {
                for node in &mut self.nodes.nodes {
                    node.instance.protected |= ids.contains(&node.instance.id);
                }
            }
            Write::Resize(change) => {
                let nodes = &mut self.nodes;
                nodes.min = change.min.unwrap_or(nodes.min);
                nodes.max = change.max.unwrap_or(nodes.max);
                nodes.wanted = change
                    .desired
                    .unwrap_or(nodes.wanted)
                    .clamp(nodes.min, nodes.max);
            }
        }
    }

    fn ready(&self) -> usize {
        self.nodes.count(Node::is_ready)
    }

    fn versions(&self) -> Vec<i64> {
        let nodes = self.nodes.nodes.iter();
        nodes
            .filter_map(|node| node.instance.template_version)
            .collect()
    }
}

/// Rolls to the end, and returns what it came to.
fn roll(
    group: &mut Group,
    settings: &Settings,
    mut between: impl FnMut(&mut Group, usize) -> bool,
) -> (Next, Vec<String>) {
    let mut story = Vec::new();
    let mut failure = None;
    for step in 0..500 {
        let told = Told {
            failure: failure.as_deref(),
            is_baked: true,
            ..Told::default()
        };
        let next = decide(&group.nodes, settings, told);
        match &next {
            Next::Write(write) => {
                if between(group, step) {
                    story.push(said(write));
                    group.write(write);
                }
            }
            Next::Wait(_) => {
                between(group, step);
                group.tick();
                if group.give_up_the_broken() {
                    failure = Some("given up".to_owned());
                }
            }
            Next::Done { .. } | Next::Stuck(_) => {
                group.nodes.roll = None;
                return (next, story);
            }
        }
    }
    panic!("never done: {:?}\n{}", group.nodes, story.join("\n"));
}

fn said(write: &Write) -> String {
    match write {
        Write::Note(mark) => format!("note `{mark}`"),
        Write::Resize(change) => {
            let sizes = [change.min, change.desired, change.max];
            format!("resize to {:?}", sizes.map(Option::unwrap_or_default))
        }
        Write::Version(version) => format!("use version {version}"),
        Write::Unprotect(ids) => format!("unprotect {}", ids.join(" ")),
        Write::Protect(ids) => format!("protect {}", ids.join(" ")),
    }
}

fn told(story: &[String]) -> String {
    story.join("\n")
}

#[test]
fn one_first_and_then_waves() {
    let mut group = Group::new(4, 1, 2);
    let (next, story) = roll(&mut group, &settings(Surge::Nodes(2), true), |_, _| true);
    assert_eq!(next, Next::Done { went_back: false });
    assert_eq!(group.versions(), [2; 4]);
    insta::assert_snapshot!(told(&story));
}

#[test]
fn the_whole_group_at_once_moves_no_task_twice() {
    let mut group = Group::new(4, 1, 2);
    let mut old_beside_leaving = false;
    let (next, _) = roll(
        &mut group,
        &settings(Surge::Percent(100), true),
        |group, _| {
            let old = |state: &str| {
                group.nodes.count(|node| {
                    node.instance.template_version == Some(1)
                        && node.instance.state.starts_with(state)
                })
            };
            old_beside_leaving |= old("Terminating") > 0 && old("InService") > 0;
            true
        },
    );
    assert_eq!(next, Next::Done { went_back: false });
    assert!(
        !old_beside_leaving,
        "an old node that serves gets tasks of one that leaves"
    );
}

#[test]
fn a_version_that_does_not_get_ready_is_taken_back() {
    let mut group = Group::new(3, 1, BROKEN);
    let (next, story) = roll(&mut group, &settings(Surge::Nodes(1), true), |_, _| true);
    assert_eq!(next, Next::Done { went_back: true }, "{}", told(&story));
    assert_eq!(group.versions(), [1; 3]);
    assert_eq!(group.nodes.template_version, Some(1));
    insta::assert_snapshot!(told(&story));
}

#[test]
fn nodes_of_earlier_waves_are_taken_back_as_well() {
    let mut group = Group::new(4, 1, 2);
    let slow = settings(Surge::Nodes(1), true);
    let mut done = 0;
    // Two waves go well, then the version turns out to be bad.
    for _ in 0..100 {
        match decide(
            &group.nodes,
            &slow,
            Told {
                failure: (done >= 2).then_some("ill"),
                is_baked: true,
                ..Told::default()
            },
        ) {
            Next::Write(write) => group.write(&write),
            Next::Wait(_) => group.tick(),
            Next::Done { went_back } => {
                assert!(went_back);
                break;
            }
            Next::Stuck(why) => panic!("{why}"),
        }
        done = group
            .nodes
            .count(|node| node.instance.template_version == Some(2) && node.is_ready());
        if done >= 2 {
            // The failure stands from here on.
            let (next, _) = roll_back(&mut group, &slow);
            assert_eq!(next, Next::Done { went_back: true });
            break;
        }
    }
    assert_eq!(group.versions(), [1; 4]);
}

fn roll_back(group: &mut Group, settings: &Settings) -> (Next, usize) {
    for step in 0..500 {
        let ready = group.ready();
        let base = group.ecs as usize;
        match decide(
            &group.nodes,
            settings,
            Told {
                failure: Some("ill"),
                is_baked: true,
                ..Told::default()
            },
        ) {
            Next::Write(write) => group.write(&write),
            Next::Wait(_) => group.tick(),
            done @ (Next::Done { .. } | Next::Stuck(_)) => return (done, step),
        }
        assert!(group.ready() >= ready.min(base));
    }
    panic!("never done");
}

#[test]
fn a_pause_writes_nothing_and_a_cancel_ends_the_wave() {
    let slow = settings(Surge::Nodes(1), true);
    let mut group = Group::new(3, 1, 2);
    let mut asked = false;
    let (next, _) = roll(&mut group, &slow, |group, _| {
        let is_new = |node: &Node| node.instance.template_version == Some(2);
        if !asked && group.nodes.count(is_new) == 1 {
            asked = true;
            let mark = group
                .nodes
                .roll
                .as_deref()
                .and_then(Mark::read)
                .expect("rolls");
            for state in [State::Paused, State::Cancelled] {
                group.nodes.roll = Some(Mark { state, ..mark }.to_string());
                if state == State::Paused {
                    let next = decide(&group.nodes, &slow, Told::default());
                    assert_eq!(next, Next::Wait(Wait::Paused));
                }
            }
        }
        true
    });
    assert_eq!(next, Next::Done { went_back: false });
    let mut versions = group.versions();
    versions.sort_unstable();
    assert_eq!(versions, [1, 1, 2], "the wave that was out is brought home");
    assert_eq!(
        (group.nodes.min, group.nodes.max, group.nodes.wanted),
        (1, 10, 3)
    );
    assert_eq!(group.nodes.roll, None);
}

#[test]
fn what_an_operator_set_aside_is_left_alone() {
    let mut group = Group::new(2, 1, 2);
    let aside = &mut group.nodes.nodes[0];
    let found = aside.container_instance.as_mut().expect("in ECS");
    found.status = "DRAINING".to_owned();
    found
        .attributes
        .insert(attribute::INTENT.to_owned(), "drain".to_owned());
    let id = aside.instance.id.clone();
    let (next, _) = roll(&mut group, &settings(Surge::Nodes(1), true), |_, _| true);
    assert_eq!(next, Next::Done { went_back: false });
    assert!(group.nodes.nodes.iter().any(|node| node.instance.id == id));
    assert_eq!(
        group
            .versions()
            .iter()
            .filter(|version| **version == 1)
            .count(),
        1
    );
}

#[test]
fn a_roll_that_another_run_has_ended_does_not_begin_anew() {
    let group = Group::new(2, 1, 2);
    let told = Told {
        has_begun: true,
        ..Told::default()
    };
    let next = decide(&group.nodes, &settings(Surge::Nodes(1), true), told);
    assert_eq!(next, Next::Done { went_back: false });
}

#[test]
fn a_tag_of_another_hand_is_not_guessed_at() {
    let mut group = Group::new(2, 1, 2);
    group.nodes.roll = Some("by hand".to_owned());
    let next = decide(
        &group.nodes,
        &settings(Surge::Nodes(1), true),
        Told::default(),
    );
    assert!(matches!(next, Next::Stuck(why) if why.contains("`by hand`")));
}

#[test]
fn a_surge_is_a_number_or_a_share() {
    for (text, wanted, nodes) in [("3", 10, 3), ("25%", 10, 3), ("100%", 7, 7), ("1%", 3, 1)] {
        assert_eq!(
            Surge::read(text).expect("reads").of(wanted),
            nodes,
            "{text}"
        );
    }
    for text in ["", "0", "0%", "101%", "-1", "many", "%"] {
        assert!(Surge::read(text).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes between: ECS wants more or less, a schedule sets the lower bound, calls fail before or after they had their
    /// effect, the program is killed and run again.
    #[test]
    fn capacity_is_kept_and_it_comes_to_an_end(
        size in 1_u32..7,
        surge in prop_oneof![(1_u32..9).prop_map(Surge::Nodes), (1_u32..=100).prop_map(Surge::Percent)],
        canary: bool,
        is_broken in prop::bool::weighted(0.2),
        protects in prop::bool::weighted(0.7),
        troubles in prop::collection::vec((0_u8..6, 0_u32..7), 0..40),
    ) {
        let mut group = Group::new(size, 1, if is_broken { BROKEN } else { 2 });
        group.nodes.protects_new = protects;
        for node in &mut group.nodes.nodes {
            node.instance.protected = protects;
        }
        let settings = settings(surge, canary);
        let mut failure = None;
        let mut troubles = troubles.into_iter();
        let mut ended = None;
        let mut min = None;
        for _ in 0..800 {
            let told = Told { failure, is_baked: true, ..Told::default() };
            let ready = group.ready();
            let next = decide(&group.nodes, &settings, told);
            let (trouble, number) = troubles.next().unwrap_or((0, 0));
            match next {
                // The call was lost on its way.
                Next::Write(_) if trouble == 1 => {}
                Next::Write(write) => {
                    group.write(&write);
                }
                Next::Wait(_) => {
                    if trouble == 2 {
                        // ECS scales out: it only ever raises what it finds.
                        let nodes = &mut group.nodes;
                        let more = (nodes.wanted + number).min(nodes.max);
                        group.ecs += more - nodes.wanted;
                        nodes.wanted = more;
                    }
                    if trouble == 3 && protects {
                        // ECS protects what has tasks.
                        for node in &mut group.nodes.nodes {
                            node.instance.protected = true;
                        }
                    }
                    if trouble == 4
                        && let Some(node) = group.nodes.nodes.last_mut()
                    {
                        // ECS frees one without tasks, which is a new one.
                        node.instance.protected = false;
                    }
                    let mark = group.nodes.mark().expect("rolls");
                    // A bound that the surge could have made is taken for that.
                    let is_raised = (mark.base..=mark.base + mark.surge).contains(&number);
                    if trouble == 5 && !is_raised {
                        let nodes = &mut group.nodes;
                        nodes.min = number;
                        nodes.wanted = nodes.wanted.max(number);
                        min = Some(number);
                    }
                    group.tick();
                    if group.give_up_the_broken() {
                        failure = Some("given up");
                    }
                }
                Next::Done { went_back } => {
                    ended = Some(went_back);
                    break;
                }
                Next::Stuck(why) => prop_assert!(false, "{}", why),
            }
            // ECS's size, or what there was of it.
            prop_assert!(
                group.ready() >= ready.min(group.ecs as usize),
                "{} ready of {} wanted, {} before: {:?}", group.ready(), group.ecs, ready, group.nodes
            );
        }
        prop_assert_eq!(ended, Some(is_broken));
        let version = if is_broken { 1 } else { 2 };
        let running = group.nodes.nodes.iter().filter(|node| node.is_running());
        for node in running {
            prop_assert_eq!(node.instance.template_version, Some(version));
            prop_assert!(protects || !node.instance.protected, "nobody could be taken any more");
        }
        // Where a schedule had a say, what was added is the group's, and ECS takes it back.
        let max = if min.is_some() { group.nodes.wanted.max(10) } else { 10 };
        if min.is_none() {
            prop_assert_eq!(group.nodes.wanted, group.ecs, "the surge is given back, all of it");
        }
        prop_assert_eq!((group.nodes.min, group.nodes.max), (min.unwrap_or(1), max));
    }
}
