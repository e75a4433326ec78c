//! What a roll notes on its Auto Scaling group: all that it could not tell again by looking.

use std::fmt;

/// The value of a group's `fleet:roll` tag, `base=4 surge=2 min=1 max=10 from=7 running`. It is there from before
/// the first change until after the last, so that whoever comes later knows what the group is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The group's size when the wave began.
    pub(crate) base: u32,
    /// Nodes that the wave is to add to it. They are added to the group's lower bound as well: so ECS
    /// takes none away before it has tasks, and the bound tells how many of them are in effect.
    pub(crate) surge: u32,
    /// The group's bounds before the roll, which it has again in the end: the file's, or what a schedule
    /// made of them.
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Version of the launch template to go back to; absent where it is not known.
    pub(crate) from: Option<i64>,
    pub(crate) state: State,
}

/// What an operator, or a failure, has made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// Nothing is written until it is resumed.
    Paused,
    /// No further wave begins.
    Cancelled,
    /// A new node failed: to the version it came from.
    Back,
}

const STATES: [(State, &str); 4] = [
    (State::Running, "running"),
    (State::Paused, "paused"),
    (State::Cancelled, "cancelled"),
    (State::Back, "back"),
];

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base,
            surge,
            min,
            max,
            ..
        } = self;
        write!(f, "base={base} surge={surge} min={min} max={max} ")?;
        if let Some(from) = self.from {
            write!(f, "from={from} ")?;
        }
        f.write_str(self.state.as_str())
    }
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        let found = STATES.iter().find(|(state, _)| *state == self);
        found.map_or("", |(_, text)| text)
    }
}

impl Mark {
    /// `None` where it says something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (mut base, mut surge, mut from, mut state) = (None, None, None, None);
        let (mut min, mut max) = (None, None);
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("base", value)) => base = Some(value.parse().ok()?),
                Some(("surge", value)) => surge = Some(value.parse().ok()?),
                Some(("min", value)) => min = Some(value.parse().ok()?),
                Some(("max", value)) => max = Some(value.parse().ok()?),
                Some(("from", value)) => from = Some(value.parse().ok()?),
                Some(_) => return None,
                None => state = Some(STATES.iter().find(|(_, text)| *text == word)?.0),
            }
        }
        Some(Self {
            base: base?,
            surge: surge?,
            min: min?,
            max: max?,
            from,
            state: state?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again() {
        for (state, _) in STATES {
            for from in [None, Some(4)] {
                let mark = Mark {
                    base: 4,
                    surge: 2,
                    min: 1,
                    max: 10,
                    from,
                    state,
                };
                assert_eq!(Mark::read(&mark.to_string()), Some(mark));
            }
        }
        for other in [
            "",
            "running",
            "base=4 surge=2 min=1 max=10",
            "base=4 surge=2 running",
            "base=four surge=2 min=1 max=10 running",
        ] {
            assert_eq!(Mark::read(other), None, "{other}");
        }
    }
}
