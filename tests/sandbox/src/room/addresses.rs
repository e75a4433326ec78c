//! Which addresses of the nodes' network are free.

use std::{collections::VecDeque, net::Ipv4Addr};

/// Addresses .10 to .250, handed out in turn: as on EC2, one that has just become free is the last
/// to be used again, so that nobody takes a new machine for the old one.
#[derive(Debug)]
pub(super) struct Addresses(VecDeque<Ipv4Addr>);

impl Addresses {
    /// All of 10.213.`third_octet`.0/24.
    pub(super) fn of(third_octet: u8) -> Self {
        Self(
            (10..=250)
                .map(|host| Ipv4Addr::new(10, 213, third_octet, host))
                .collect(),
        )
    }

    /// A free address; `None` when there are no more.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        self.0.pop_front()
    }

    /// Makes an address free again.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.0.push_back(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_address_is_used_last() {
        let mut addresses = Addresses::of(7);
        let first = addresses.take().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 213, 7, 10));
        addresses.give_back(first);
        let rest: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(rest.len(), 241);
        assert_eq!(rest.last(), Some(&first));
        assert_eq!(addresses.take(), None);
    }
}
