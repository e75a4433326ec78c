//! Whether an impaired node may be replaced now: the fleet guard. There is no coordinator; each node
//! says in its attributes that it wants to be replaced, waits until all others must have read that, reads
//! what they say, and goes only if the oldest wishes within the group's budget are its own.
//!
//! # Guarantees
//! - A fault that more than half of a group shares, or more than [`MANY`] of its nodes, replaces none: what
//!   is wrong is not with the nodes.
//! - No more nodes than the budget leave or are missing at a time, those that anybody else set to
//!   DRAINING included, as far as they were there when this node began to look.
//! - What cannot be read grants nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::moment::Moment;

/// More impaired nodes than this are a fault of nobody's own, and too many to read of.
pub(crate) const MANY: usize = 100;
/// Nobody is granted its turn before this long after its first look: who leaves meanwhile is known to be
/// missing, and whom it has not seen go has been replaced by then.
const WATCHED: Duration = Duration::from_secs(600);
/// A node that has come counts once it has been there, and well, for this long: it says the group's name a
/// moment before it takes tasks.
const PROVEN: Duration = Duration::from_secs(60);
/// A node that has gone is not waited for any longer: its group may have become smaller.
const REPLACED_WITHIN: Duration = Duration::from_secs(1_800);

/// A group's nodes as ECS lists them, by their container instances' ARNs. Only nodes that have proven
/// their permissions at launch are in it: those publish the group's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) members: BTreeSet<String>,
    pub(crate) impaired: BTreeSet<String>,
    /// Their status, whoever set it.
    pub(crate) draining: BTreeSet<String>,
    /// They say that they leave.
    pub(crate) leaving: BTreeSet<String>,
    /// They want to be replaced, and since when they are impaired: as text, which sorts by time.
    pub(crate) waiting: BTreeMap<String, String>,
}

/// What was read of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Around {
    /// More impaired nodes than [`MANY`].
    Many,
    Group(Census),
}

/// Why a node is not replaced now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// It has not looked around for long enough, or its wish cannot be read yet.
    Early,
    Shared {
        impaired: usize,
        members: usize,
    },
    Many,
    /// Others leave, are missing, or come first.
    Others {
        out: usize,
        before: usize,
        at_once: usize,
    },
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Early => f.write_str("it has to look at its group first"),
            Self::Shared { impaired, members } => write!(
                f,
                "{impaired} of the group's {members} nodes are impaired: a fault that many share replaces none"
            ),
            Self::Many => f.write_str(
                "over a hundred of the group's nodes are impaired: a fault that many share replaces none",
            ),
            Self::Others {
                out,
                before,
                at_once,
            } => write!(
                f,
                "{out} of the group's nodes leave or are missing and {before} come first, at most {at_once} at once"
            ),
        }
    }
}

/// What one node has seen of its group since it became impaired.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    began: Option<Moment>,
    /// There from the beginning.
    first: BTreeSet<String>,
    /// Those that came, and when they were first seen.
    come: BTreeMap<String, Moment>,
    /// How many it had, look by look.
    sizes: Vec<(Moment, usize)>,
}

impl Guard {
    /// Takes in what was read, and says whether it is this node's turn.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn look(
        &mut self,
        around: &Around,
        own: &str,
        at_once: usize,
        now: Moment,
    ) -> Result<(), Held> {
        let Around::Group(census) = around else {
            return Err(Held::Many);
        };
        let out = self.out(census, own, now);
        let began = *self.began.get_or_insert(now);
        let (impaired, members) = (census.impaired.len(), census.members.len());
        if impaired > 1 && impaired * 2 > members {
            return Err(Held::Shared { impaired, members });
        }
        let Some(since) = census.waiting.get(own) else {
            return Err(Held::Early);
        };
        if now.since(began) < WATCHED {
            return Err(Held::Early);
        }
        let before = census.waiting.iter();
        let before = before
            .filter(|(arn, wished)| (wished.as_str(), arn.as_str()) < (since.as_str(), own))
            .count();
        if out + before >= at_once {
            return Err(Held::Others {
                out,
                before,
                at_once,
            });
        }
        Ok(())
    }

    /// How many leave or are missing. What takes the place of one that leaves may be there before that
    /// one has gone, and after.
    fn out(&mut self, census: &Census, own: &str, now: Moment) -> usize {
        if self.began.is_none() {
            self.first.clone_from(&census.members);
            self.sizes.push((now, census.members.len()));
        }
        for arn in census.members.difference(&self.first) {
            self.come.entry(arn.clone()).or_insert(now);
        }
        let leaving = leaving(census, own);
        let stays = |arn: &&String| match self.come.get(*arn) {
            _ if leaving.contains(arn.as_str()) => false,
            Some(came) => now.since(*came) >= PROVEN && !census.impaired.contains(*arn),
            None => true,
        };
        let stay = census.members.iter().filter(stays).count();
        self.sizes
            .retain(|(seen, _)| now.since(*seen) < REPLACED_WITHIN);
        let most = self.sizes.iter().map(|(_, size)| *size).max();
        let most = most.unwrap_or_default().max(stay);
        // One that leaves is one that it had, unless another has taken its place already: else a long
        // line of replacements would make it look smaller and smaller.
        self.sizes.push((now, most.min(stay + leaving.len())));
        leaving.len().max(most - stay)
    }
}

/// A node that waits for its turn may have been drained already, as with a full disk: it is counted among
/// those that wait. One that says that it leaves has had its turn, whatever else was read of it.
fn leaving<'a>(census: &'a Census, own: &str) -> BTreeSet<&'a str> {
    let waits = |arn: &&String| census.waiting.contains_key(*arn);
    let drained = census.draining.iter().filter(|arn| !waits(arn));
    let leaving = census.leaving.iter().chain(drained).map(String::as_str);
    leaving.filter(|arn| *arn != own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Moment = Moment::from_millis(1_000_000);

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    /// Ten nodes, of which these are impaired and want to be replaced since the second of their place.
    fn group(waiting: &[&str]) -> Census {
        Census {
            members: names(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]),
            impaired: names(waiting),
            waiting: waiting
                .iter()
                .enumerate()
                .map(|(second, name)| ((*name).to_owned(), format!("2026-01-01T00:00:0{second}Z")))
                .collect(),
            ..Census::default()
        }
    }

    fn around(census: &Census) -> Around {
        Around::Group(census.clone())
    }

    /// A guard that has looked for long enough, and then.
    fn watched(census: &Census) -> (Guard, Moment) {
        let mut guard = Guard::default();
        let own = census.waiting.keys().next().expect("one waits");
        let _ = guard.look(&around(census), own, 1, EARLY);
        (guard, EARLY + WATCHED)
    }

    #[test]
    fn the_oldest_wish_comes_first_and_the_others_wait() {
        let census = group(&["c", "a", "b"]);
        let (guard, now) = watched(&census);
        let turn = |own, at_once| guard.clone().look(&around(&census), own, at_once, now);
        assert_eq!(turn("c", 1), Ok(()));
        let held = Held::Others {
            out: 0,
            before: 1,
            at_once: 1,
        };
        assert_eq!(turn("a", 1), Err(held));
        assert_eq!(turn("a", 2), Ok(()));
        assert!(turn("b", 2).is_err());
    }

    #[test]
    fn of_wishes_of_the_same_second_the_name_decides() {
        let mut census = group(&["a", "b"]);
        for since in census.waiting.values_mut() {
            "2026-01-01T00:00:00Z".clone_into(since);
        }
        let (guard, now) = watched(&census);
        let turn = |own| guard.clone().look(&around(&census), own, 1, now);
        assert_eq!(turn("a"), Ok(()));
        assert!(turn("b").is_err());
    }

    #[test]
    fn nobody_goes_who_has_just_begun_to_look_or_whose_wish_is_not_to_be_read() {
        let census = group(&["a"]);
        let mut guard = Guard::default();
        let mut look = |census: &Census, now| guard.look(&around(census), "a", 1, now);
        assert_eq!(look(&census, EARLY), Err(Held::Early));
        let unread = Census {
            waiting: BTreeMap::new(),
            ..census.clone()
        };
        assert_eq!(look(&unread, EARLY + WATCHED), Err(Held::Early));
        assert_eq!(look(&census, EARLY + WATCHED), Ok(()));
    }

    #[test]
    fn what_most_of_a_group_shares_is_no_fault_of_its_nodes() {
        let half = group(&["a", "b", "c", "d", "e"]);
        let (mut guard, now) = watched(&half);
        assert_eq!(guard.look(&around(&half), "a", 1, now), Ok(()));
        let most = group(&["a", "b", "c", "d", "e", "f"]);
        let shared = Held::Shared {
            impaired: 6,
            members: 10,
        };
        assert_eq!(guard.look(&around(&most), "a", 1, now), Err(shared));
        assert_eq!(guard.look(&Around::Many, "a", 1, now), Err(Held::Many));
        let alone = Census {
            members: names(&["a"]),
            ..group(&["a"])
        };
        let (mut guard, now) = watched(&alone);
        assert_eq!(guard.look(&around(&alone), "a", 1, now), Ok(()), "alone");
    }

    #[test]
    fn who_leaves_and_who_is_missing_is_counted_until_another_is_there() {
        let census = group(&["a", "b"]);
        let (mut guard, now) = watched(&census);
        let mut look = |census: &Census, now| guard.look(&around(census), "b", 1, now);
        for leaves in [
            Census {
                draining: names(&["c"]),
                ..group(&["b"])
            },
            Census {
                leaving: names(&["a"]),
                ..group(&["b"])
            },
            // Its step fell between two reads.
            Census {
                leaving: names(&["a"]),
                ..group(&["b", "a"])
            },
        ] {
            assert!(look(&leaves, now).is_err(), "{leaves:?}");
        }
        let mut gone = group(&["b"]);
        let _ = gone.members.remove("a");
        assert!(look(&gone, now).is_err());
        let mut ill = gone.clone();
        let _ = ill.members.insert("k".to_owned());
        let _ = ill.impaired.insert("k".to_owned());
        let mut come = ill.clone();
        let _ = come.impaired.remove("k");
        assert!(look(&come, now).is_err(), "it has just come");
        let later = now + PROVEN;
        assert!(look(&ill, later).is_err(), "what came is no better");
        assert_eq!(look(&come, later), Ok(()));
        assert!(look(&gone, later).is_err(), "and is gone again");
        let never = later + REPLACED_WITHIN;
        assert_eq!(look(&gone, never), Ok(()), "it is not coming back");
    }

    #[test]
    fn a_long_line_of_replacements_does_not_make_the_group_smaller() {
        let all = group(&["b"]);
        let (mut guard, mut now) = watched(&all);
        let mut leaves = all.clone();
        let _ = leaves.leaving.insert("a".to_owned());
        for _ in 0..10 {
            now = now + REPLACED_WITHIN / 4;
            assert!(guard.look(&around(&leaves), "b", 1, now).is_err());
        }
        let mut gone = all;
        let _ = gone.members.remove("a");
        assert!(guard.look(&around(&gone), "b", 1, now).is_err());
    }

    #[test]
    fn those_that_are_drained_and_wait_do_not_wait_for_one_another() {
        let census = Census {
            draining: names(&["a", "b"]),
            ..group(&["a", "b"])
        };
        let (guard, now) = watched(&census);
        let turn = |own| guard.clone().look(&around(&census), own, 1, now);
        assert_eq!(turn("a"), Ok(()));
        assert!(turn("b").is_err());
    }
}
