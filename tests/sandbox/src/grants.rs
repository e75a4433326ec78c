//! What callers may do: the policies of nodes' roles as IAM has them, and those that a caller was
//! given here.

use std::{collections::BTreeMap, sync::Arc};

use crate::policy::{Decision, Policy, Request, decide};

/// All policies of a caller.
pub(crate) type Policies = Arc<Granted>;

/// What a caller may do: what one of these allows, as far as the other allows it, too (IAM guide,
/// "Permissions boundaries for IAM entities").
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) identity: Vec<Policy>,
    pub(crate) boundary: Option<Policy>,
}

impl Granted {
    pub(crate) fn decide(&self, request: &Request) -> Decision {
        let bound = self.boundary.as_ref();
        match bound.map(|boundary| decide([boundary], request)) {
            None | Some(Decision::Allowed) => decide(&self.identity, request),
            Some(refused) => refused,
        }
    }
}

/// Policies by caller.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// By access key. Other callers that are no node may do everything.
    keys: BTreeMap<String, Policies>,
    /// By role, as last read.
    roles: BTreeMap<String, Policies>,
    /// Rises with everything that may have changed in IAM.
    version: u64,
}

impl Grants {
    pub(crate) fn limit(&mut self, access_key_id: String, policy: Policy) {
        let granted = Granted {
            identity: vec![policy],
            boundary: None,
        };
        self.keys.insert(access_key_id, Arc::new(granted));
    }

    pub(crate) fn lift(&mut self, access_key_id: &str) {
        self.keys.remove(access_key_id);
    }

    pub(crate) fn of_key(&self, access_key_id: &str) -> Option<Policies> {
        self.keys.get(access_key_id).cloned()
    }

    /// What is remembered of a role, and the version to remember it with.
    pub(crate) fn of_role(&self, role: &str) -> (Option<Policies>, u64) {
        (self.roles.get(role).cloned(), self.version)
    }

    /// Remembers what was read, unless IAM may have changed since.
    pub(crate) fn remember(&mut self, role: String, policies: Policies, version: u64) {
        if version == self.version {
            self.roles.insert(role, policies);
        }
    }

    /// What was read of it counts no more.
    pub(crate) fn iam_changed(&mut self) {
        self.roles.clear();
        self.version += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let mut grants = Grants::default();
        let (known, version) = grants.of_role("web");
        assert!(known.is_none());
        grants.iam_changed();
        grants.remember("web".to_owned(), Policies::default(), version);
        let (known, version) = grants.of_role("web");
        assert!(known.is_none());
        grants.remember("web".to_owned(), Policies::default(), version);
        assert!(grants.of_role("web").0.is_some());
        grants.iam_changed();
        assert!(grants.of_role("web").0.is_none());
    }
}
