//! Identifiers in AWS's shapes without drawing a random number: a seed and a counter, so that a
//! simulation is repeated exactly by its seed.

/// A source of identifiers that never gives the same one twice.
#[derive(Debug, Clone)]
pub(crate) struct Ids {
    seed: u64,
    drawn: u64,
}

impl Ids {
    /// Two sources with different seeds give different identifiers.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// Lower-case hexadecimal digits, as in task and container-instance ids (32) or EC2 ids (17).
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            text += &format!("{:016x}", self.next());
        }
        text.truncate(digits);
        text
    }

    /// As in lifecycle action tokens and activity ids.
    pub(crate) fn uuid(&mut self) -> String {
        let hex = self.hex(32);
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): a bijection of the counter, hence no repetition.
    fn next(&mut self) -> u64 {
        self.drawn += 1;
        let mut z = self
            .seed
            .wrapping_add(self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_wanted_shape_and_repeats_by_seed() {
        let mut ids = Ids::new(7);
        assert_eq!(ids.hex(17).len(), 17);
        let uuid = ids.uuid();
        assert_eq!(uuid.len(), 36);
        assert_ne!(uuid, ids.uuid());
        let mut same = Ids::new(7);
        same.hex(17);
        assert_eq!(same.uuid(), uuid);
    }
}
