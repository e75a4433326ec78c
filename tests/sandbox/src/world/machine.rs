//! The machines, as EC2 and the metadata service know them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use jiff::Timestamp;

use super::{
    WorldOptions,
    circumstances::{Circumstances, Due},
};
use crate::machines::Metadata;

/// Every machine from its launch until it is gone.
#[derive(Debug, Default)]
pub(crate) struct Machines(BTreeMap<String, Machine>);

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) instance_id: String,
    pub(crate) image_id: String,
    pub(crate) instance_type: String,
    pub(crate) availability_zone: String,
    pub(crate) role: Option<String>,
    /// Name of the key pair, and the key as OpenSSH writes it.
    pub(crate) public_key: Option<(String, String)>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) tags_in_metadata: bool,
    pub(crate) security_groups: Vec<String>,
    /// What moto lists in the place of its address.
    pub(crate) listed_addresses: Vec<String>,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) circumstances: Circumstances,
}

impl Machines {
    pub(crate) fn insert(&mut self, machine: Machine) {
        self.0.insert(machine.instance_id.clone(), machine);
    }

    pub(super) fn remove(&mut self, instance_id: &str) {
        self.0.remove(instance_id);
    }

    pub(super) fn started(&mut self, instance_id: &str, address: Ipv4Addr) {
        if let Some(machine) = self.0.get_mut(instance_id) {
            machine.address = Some(address);
            machine.circumstances.powered_on();
        }
    }

    /// The machine is off. Whether Auto Scaling sees that.
    pub(super) fn stopped(&mut self, instance_id: &str) -> bool {
        let Some(machine) = self.0.get_mut(instance_id) else {
            return false;
        };
        machine.circumstances.powered_off();
        !machine.circumstances.unnoticed
    }

    pub(crate) fn get(&self, instance_id: &str) -> Option<&Machine> {
        self.0.get(instance_id)
    }

    pub(crate) fn get_mut(&mut self, instance_id: &str) -> Option<&mut Machine> {
        self.0.get_mut(instance_id)
    }

    pub(super) fn at(&self, address: Ipv4Addr) -> Option<&Machine> {
        self.0.values().find(|m| m.address == Some(address))
    }

    /// Whose credentials an access key is of.
    pub(crate) fn of_access_key(&self, access_key_id: &str) -> Option<&Machine> {
        let mut machines = self.0.values();
        machines.find(|machine| machine.access_key_id() == access_key_id)
    }

    /// An answer of moto's with the addresses that machines have, in the place of those that it made up.
    pub(crate) fn with_addresses(&self, mut answer: String) -> String {
        for machine in self.0.values() {
            let Some(address) = machine.address else {
                continue;
            };
            for listed in &machine.listed_addresses {
                answer = answer.replace(&format!(">{listed}<"), &format!(">{address}<"));
            }
        }
        answer
    }

    pub(crate) fn uses_security_group(&self, group_id: &str) -> bool {
        let mut groups = self.0.values().flat_map(|m| &m.security_groups);
        groups.any(|group| group == group_id)
    }

    /// Tags were put on or taken off a resource, which may be a machine.
    pub(crate) fn note_tags(&mut self, resource: &str, tags: &[(String, String)], deleted: bool) {
        let Some(machine) = self.0.get_mut(resource) else {
            return;
        };
        for (key, value) in tags {
            if deleted {
                machine.tags.remove(key);
            } else {
                machine.tags.insert(key.clone(), value.clone());
            }
        }
    }

    /// When [`Machines::due`] has something next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let machines = self.0.values();
        machines
            .filter_map(|m| m.circumstances.next_deadline())
            .min()
    }

    /// What EC2 does to which machine now. Each is named once.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(String, Due)> {
        let machines = self.0.values_mut();
        machines
            .filter_map(|m| Some((m.instance_id.clone(), m.circumstances.due(now)?)))
            .collect()
    }
}

impl Machine {
    /// Its credentials' access key: by it the gateway knows who calls.
    pub(crate) fn access_key_id(&self) -> String {
        let id = self.instance_id.trim_start_matches("i-");
        let id: String = id.chars().take(16).collect();
        format!("ASIA{:0<16}", id.to_ascii_uppercase())
    }

    pub(super) fn metadata(
        &self,
        options: &WorldOptions,
        target_lifecycle_state: Option<&'static str>,
    ) -> Metadata {
        let circumstances = &self.circumstances;
        Metadata {
            instance_id: self.instance_id.clone(),
            image_id: self.image_id.clone(),
            instance_type: self.instance_type.clone(),
            availability_zone: self.availability_zone.clone(),
            region: options.region.clone(),
            account_id: options.account_id.clone(),
            role: self.role.clone(),
            access_key_id: self.access_key_id(),
            public_key: self.public_key.clone(),
            user_data: self.user_data.clone(),
            tags: self.tags_in_metadata.then(|| self.tags.clone()),
            target_lifecycle_state: target_lifecycle_state.map(str::to_owned),
            life_cycle: circumstances.life_cycle,
            spot_action: circumstances.spot_action(),
            rebalance: circumstances.rebalance(),
            maintenance: circumstances.scheduled(),
            maintenance_history: circumstances.history(),
            imds: circumstances.imds,
            token_generation: circumstances.token_generation,
        }
    }
}
