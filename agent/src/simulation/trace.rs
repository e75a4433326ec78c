//! What happened, for people and for the proof that the same seed tells the same story.

use std::fmt::Arguments;

/// What becomes of each line.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Whether lines are made at all: they cost more than the simulation itself.
    pub(super) wanted: bool,
    pub(super) hash: u64,
    pub(super) lines: Vec<String>,
}

impl Trace {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            hash: 0xcbf2_9ce4_8422_2325,
            lines: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, millis: u64, text: Arguments<'_>) {
        if !self.wanted {
            return;
        }
        let line = format!("{:>5}.{:03} {text}", millis / 1_000, millis % 1_000);
        // FNV-1a: the same on every machine and with every compiler.
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        self.lines.push(line);
    }
}
