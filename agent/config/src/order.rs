//! What sidecars have to do with one another: who starts before whom, and who has which port.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Port, Problem, Sidecar};

/// Ports of the node that are taken already: of SSH, dockerd over TCP and the ECS agent, which
/// reserves the same.
pub const RESERVED_PORTS: [u16; 5] = [22, 2_375, 2_376, 51_678, 51_679];

/// In starting order: those needed before tasks first, each after what it depends on, else by name.
/// What is wrong is added to `problems`.
pub(crate) fn order(sidecars: Vec<Sidecar>, problems: &mut Vec<Problem>) -> Vec<Sidecar> {
    check_ports(&sidecars, problems);
    check_dependencies(&sidecars, problems);
    let mut left = sidecars;
    left.sort_by_key(|sidecar| !sidecar.before_tasks);
    let mut ordered: Vec<Sidecar> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let names: BTreeSet<&str> = left.iter().map(|sidecar| sidecar.name.as_str()).collect();
        let waits = |sidecar: &Sidecar| {
            sidecar
                .depends_on
                .iter()
                .any(|name| names.contains(name.as_str()))
        };
        let Some(next) = left.iter().position(|sidecar| !waits(sidecar)) else {
            for sidecar in &left {
                problems.push(Problem::new(
                    format!("sidecars.{}.depends_on", sidecar.name),
                    "goes round in a circle: none of them could start",
                ));
            }
            ordered.append(&mut left);
            break;
        };
        ordered.push(left.remove(next));
    }
    ordered
}

fn check_ports(sidecars: &[Sidecar], problems: &mut Vec<Problem>) {
    let mut taken: BTreeMap<(u16, &str), &str> = BTreeMap::new();
    for sidecar in sidecars {
        for Port { host, protocol, .. } in &sidecar.container.ports {
            let key = format!("sidecars.{}.ports", sidecar.name);
            if RESERVED_PORTS.contains(host) && protocol.as_str() == "tcp" {
                let message =
                    format!("{host} is the node's own: SSH's, Docker's or the ECS agent's");
                problems.push(Problem::new(key, message));
            } else if let Some(other) = taken.insert((*host, protocol.as_str()), &sidecar.name) {
                let protocol = protocol.as_str();
                let message = format!("{host}/{protocol} is sidecar `{other}`'s already");
                problems.push(Problem::new(key, message));
            }
        }
    }
}

fn check_dependencies(sidecars: &[Sidecar], problems: &mut Vec<Problem>) {
    let by_name: BTreeMap<&str, &Sidecar> = sidecars
        .iter()
        .map(|sidecar| (sidecar.name.as_str(), sidecar))
        .collect();
    for sidecar in sidecars {
        for name in &sidecar.depends_on {
            let why = match by_name.get(name.as_str()) {
                None => format!("there is no sidecar `{name}`"),
                Some(other) if sidecar.before_tasks && !other.before_tasks => {
                    format!(
                        "`{name}` is not needed before tasks, and this one is: set before_tasks of both"
                    )
                }
                Some(_) => continue,
            };
            problems.push(Problem::new(
                format!("sidecars.{}.depends_on", sidecar.name),
                why,
            ));
        }
    }
}
