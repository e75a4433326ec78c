//! What keeps containers from the instance metadata service, and so from the node's own role: rules in
//! the kernel's packet filter. Pure: a listing in, commands out.
//!
//! - A chain of our own, entered first of all from `DOCKER-USER`, which dockerd creates, enters before
//!   its own chains and leaves alone; where there is none (IPv6 under Docker 25), from `FORWARD`.
//! - It matches the address and no interface: `docker+` would miss networks that users create.
//! - Only what is forwarded: processes of the node itself are meant to ask, and so is the ECS agent,
//!   whose container has the node's network. 169.254.170.2, where tasks get their credentials, is
//!   another address.
//! - Nothing is ever flushed but our own chains.
//!
//! Tasks with an interface of their own (awsvpc) do not pass here: `ECS_AWSVPC_BLOCK_IMDS` is theirs.
//! Tasks in the node's network are told apart by their cgroup, where that is cgroup v2.
//!
//! Source: Docker's "Packet filtering and firewalls"; ECS developer guide, "Amazon ECS container
//! instance IAM role".

const CHAIN: &str = "FLEET-IMDS";
const HOST_CHAIN: &str = "FLEET-IMDS-HOST";
/// The slice of every task, in cgroup v2.
pub(crate) const TASKS_CGROUP: &str = "ecstasks.slice";

/// Each has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The same program as dockerd uses, hence the same back end, nft or legacy.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    const fn service(self) -> &'static str {
        match self {
            Self::V4 => "169.254.169.254/32",
            Self::V6 => "fd00:ec2::254/128",
        }
    }

    const fn refusal(self) -> &'static str {
        match self {
            Self::V4 => "icmp-port-unreachable",
            Self::V6 => "icmp6-port-unreachable",
        }
    }
}

/// What is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Open,
    /// Also for tasks in the node's own network, where they can be told apart.
    Blocked {
        host_tasks: bool,
    },
}

/// The commands that bring a filter table, as `-S` lists it, to what is wanted: their arguments. None
/// when it holds already.
pub(crate) fn plan(family: Family, listing: &str, wanted: Wanted) -> Vec<Vec<String>> {
    let table = Table { listing };
    let (forwarded, host_tasks) = match wanted {
        Wanted::Open => (false, false),
        Wanted::Blocked { host_tasks } => (true, host_tasks),
    };
    let parent = match table.has("DOCKER-USER") {
        true => "DOCKER-USER",
        false => "FORWARD",
    };
    let refused = ["-j", "REJECT", "--reject-with", family.refusal()];
    let any = [&["-d", family.service()][..], &refused].concat();
    let cgroup = [
        "-d",
        family.service(),
        "-m",
        "cgroup",
        "--path",
        TASKS_CGROUP,
    ];
    let of_tasks = [&cgroup[..], &refused].concat();
    let mut commands = Vec::new();
    for (chain, rule, parent, wanted) in [
        (CHAIN, any, parent, forwarded),
        (HOST_CHAIN, of_tasks, "OUTPUT", host_tasks),
    ] {
        if wanted {
            table.hold(chain, &rule, parent, &mut commands);
        } else {
            table.drop(chain, &mut commands);
        }
    }
    commands
}

struct Table<'l> {
    listing: &'l str,
}

impl Table<'_> {
    fn has(&self, chain: &str) -> bool {
        self.listing
            .lines()
            .any(|line| line.strip_prefix("-N ").map(str::trim) == Some(chain))
    }

    /// A chain's rules, as they would be given to `-A CHAIN`.
    fn rules(&self, chain: &str) -> Vec<&str> {
        let begin = format!("-A {chain} ");
        self.listing
            .lines()
            .filter_map(|line| line.strip_prefix(begin.as_str()))
            .map(str::trim)
            .collect()
    }

    /// The chain with this rule alone, entered first from `parent` and from nowhere else.
    fn hold(&self, chain: &str, rule: &[&str], parent: &str, commands: &mut Vec<Vec<String>>) {
        if !self.has(chain) {
            commands.push(command(&["-N", chain]));
        }
        let wanted = normal(&rule.join(" "));
        let rules = self.rules(chain);
        if !rules.iter().any(|found| normal(found) == wanted) {
            commands.push(command(&[&["-A", chain][..], rule].concat()));
        }
        let jump = format!("-j {chain}");
        let is_first = self.rules(parent).first() == Some(&jump.as_str());
        if !is_first {
            commands.push(command(&["-I", parent, "1", "-j", chain]));
        }
        // One that somebody's rule has got before, or that stands where Docker's chain was not yet.
        for (other, index) in self.jumps(chain) {
            let shift = usize::from(other == parent && !is_first);
            if other != parent || index + shift > 1 {
                let index = (index + shift).to_string();
                commands.push(command(&["-D", &other, &index]));
            }
        }
    }

    fn drop(&self, chain: &str, commands: &mut Vec<Vec<String>>) {
        if !self.has(chain) {
            return;
        }
        for (other, index) in self.jumps(chain) {
            commands.push(command(&["-D", &other, &index.to_string()]));
        }
        commands.push(command(&["-F", chain]));
        commands.push(command(&["-X", chain]));
    }

    /// Every place that a chain is entered from, the last first, counted from 1.
    fn jumps(&self, chain: &str) -> Vec<(String, usize)> {
        let jump = format!("-j {chain}");
        let mut found = Vec::new();
        let mut chains: Vec<&str> = self
            .listing
            .lines()
            .filter_map(|line| line.strip_prefix("-A ")?.split(' ').next())
            .collect();
        chains.dedup();
        for other in chains {
            let rules = self.rules(other);
            let places = rules.iter().enumerate().rev();
            let places = places.filter(|(_, rule)| **rule == jump);
            found.extend(places.map(|(index, _)| (other.to_owned(), index + 1)));
        }
        found
    }
}

/// What lists print beside what was given: `-m comment`, and quotes around a path.
fn normal(rule: &str) -> String {
    rule.replace('"', "")
}

fn command(arguments: &[&str]) -> Vec<String> {
    arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCKED: Wanted = Wanted::Blocked { host_tasks: false };
    const ALL: Wanted = Wanted::Blocked { host_tasks: true };
    const FRESH: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n";
    const DOCKER: &str = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER\n-N DOCKER-USER\n\
        -A FORWARD -j DOCKER-USER\n-A FORWARD -o docker0 -j DOCKER\n-A DOCKER-USER -j RETURN\n";

    /// As far as these commands go, what iptables makes of them.
    fn run(listing: &str, commands: &[Vec<String>]) -> String {
        let mut chains: Vec<(String, Vec<String>)> = Vec::new();
        let mut policies = Vec::new();
        for line in listing.lines() {
            let mut words = line.splitn(3, ' ');
            let (verb, chain, rest) = (words.next(), words.next().unwrap_or(""), words.next());
            match verb {
                Some("-P") => {
                    policies.push(chain.to_owned());
                    chains.push((chain.to_owned(), Vec::new()));
                }
                Some("-N") => chains.push((chain.to_owned(), Vec::new())),
                Some("-A") => chain_mut(&mut chains, chain).push(rest.unwrap_or("").to_owned()),
                _ => panic!("{line}"),
            }
        }
        for words in commands {
            let rest = |from: usize| words[from..].join(" ");
            match words[0].as_str() {
                "-N" => chains.push((words[1].clone(), Vec::new())),
                "-A" => chain_mut(&mut chains, &words[1]).push(rest(2)),
                "-I" => chain_mut(&mut chains, &words[1])
                    .insert(words[2].parse::<usize>().unwrap() - 1, rest(3)),
                "-D" => {
                    chain_mut(&mut chains, &words[1])
                        .remove(words[2].parse::<usize>().unwrap() - 1);
                }
                "-F" => chain_mut(&mut chains, &words[1]).clear(),
                "-X" => {
                    let jump = format!("-j {}", words[1]);
                    assert!(
                        chains.iter().all(|(_, rules)| !rules.contains(&jump)),
                        "still entered"
                    );
                    assert!(chain_mut(&mut chains, &words[1]).is_empty());
                    chains.retain(|(name, _)| *name != words[1]);
                }
                other => panic!("{other}"),
            }
        }
        let mut text = String::new();
        for (name, _) in &chains {
            let declares = if policies.contains(name) {
                format!("-P {name} ACCEPT\n")
            } else {
                format!("-N {name}\n")
            };
            text += &declares;
        }
        for (name, rules) in &chains {
            for rule in rules {
                text += &format!("-A {name} {rule}\n");
            }
        }
        text
    }

    fn chain_mut<'c>(chains: &'c mut [(String, Vec<String>)], name: &str) -> &'c mut Vec<String> {
        let found = chains.iter_mut().find(|(chain, _)| chain == name);
        &mut found.unwrap_or_else(|| panic!("no chain {name}")).1
    }

    fn lines(commands: &[Vec<String>]) -> String {
        commands
            .iter()
            .map(|words| words.join(" ") + "\n")
            .collect()
    }

    #[test]
    fn the_block_goes_before_everything_that_docker_and_operators_say() {
        insta::assert_snapshot!(lines(&plan(Family::V4, DOCKER, ALL)), @r"
        -N FLEET-IMDS
        -A FLEET-IMDS -d 169.254.169.254/32 -j REJECT --reject-with icmp-port-unreachable
        -I DOCKER-USER 1 -j FLEET-IMDS
        -N FLEET-IMDS-HOST
        -A FLEET-IMDS-HOST -d 169.254.169.254/32 -m cgroup --path ecstasks.slice -j REJECT --reject-with icmp-port-unreachable
        -I OUTPUT 1 -j FLEET-IMDS-HOST
        ");
        insta::assert_snapshot!(lines(&plan(Family::V6, FRESH, BLOCKED)), @r"
        -N FLEET-IMDS
        -A FLEET-IMDS -d fd00:ec2::254/128 -j REJECT --reject-with icmp6-port-unreachable
        -I FORWARD 1 -j FLEET-IMDS
        ");
    }

    #[test]
    fn what_a_restarted_docker_or_a_firewall_left_of_it_is_made_whole_again() {
        let held = run(DOCKER, &plan(Family::V4, DOCKER, BLOCKED));
        assert_eq!(lines(&plan(Family::V4, &held, BLOCKED)), "");
        let overtaken = held.replace(
            "-A DOCKER-USER -j FLEET-IMDS",
            "-A DOCKER-USER -i eth0 -j ACCEPT\n-A DOCKER-USER -j FLEET-IMDS",
        );
        insta::assert_snapshot!(lines(&plan(Family::V4, &overtaken, BLOCKED)), @r"
        -I DOCKER-USER 1 -j FLEET-IMDS
        -D DOCKER-USER 3
        ");
        let flushed = held.replace("-A DOCKER-USER -j FLEET-IMDS\n", "");
        assert_eq!(
            lines(&plan(Family::V4, &flushed, BLOCKED)),
            "-I DOCKER-USER 1 -j FLEET-IMDS\n"
        );
        let quoted = held.replace(
            "-m cgroup --path ecstasks.slice",
            "-m cgroup --path \"ecstasks.slice\"",
        );
        assert_eq!(lines(&plan(Family::V4, &quoted, BLOCKED)), "");
        // It was there before dockerd had ever run.
        let early = run(FRESH, &plan(Family::V4, FRESH, BLOCKED));
        let docker = early.replace(
            "-A FORWARD",
            "-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A FORWARD",
        );
        let now = run(&docker, &plan(Family::V4, &docker, BLOCKED));
        assert_eq!(now.matches("-j FLEET-IMDS\n").count(), 1, "{now}");
        assert!(now.contains("-A DOCKER-USER -j FLEET-IMDS"), "{now}");
    }

    #[test]
    fn switched_off_it_leaves_nothing_and_touches_nothing_else() {
        let held = run(DOCKER, &plan(Family::V4, DOCKER, ALL));
        let open = run(&held, &plan(Family::V4, &held, Wanted::Open));
        assert_eq!(open, run(DOCKER, &[]));
        assert_eq!(
            plan(Family::V4, DOCKER, Wanted::Open),
            Vec::<Vec<String>>::new()
        );
    }

    proptest! {
        /// From any mixture of rules, one pass is enough, our jump is first, and every rule of others is
        /// still there in its order.
        #[test]
        fn one_pass_is_enough(
            user in proptest::collection::vec(prop_oneof![Just("-j FLEET-IMDS"), Just("-j RETURN"), Just("-i eth0 -j DROP")], 0..5),
            forward in proptest::collection::vec(prop_oneof![Just("-j FLEET-IMDS"), Just("-j DOCKER-USER"), Just("-j ACCEPT")], 0..4),
            docker in any::<bool>(),
            ours in any::<bool>(),
        ) {
            let mut listing = FRESH.to_owned();
            let has_chain = ours || user.contains(&"-j FLEET-IMDS") || forward.contains(&"-j FLEET-IMDS");
            if has_chain { listing += "-N FLEET-IMDS\n"; }
            if docker { listing += "-N DOCKER-USER\n"; }
            for rule in forward.iter().filter(|rule| docker || !rule.contains("DOCKER")) {
                listing += &format!("-A FORWARD {rule}\n");
            }
            for rule in user.iter().filter(|_| docker) {
                listing += &format!("-A DOCKER-USER {rule}\n");
            }
            let others = |text: &str| text.lines().filter(|l| l.starts_with("-A") && !l.contains("FLEET")).map(str::to_owned).collect::<Vec<_>>();
            let listing = run(&listing, &[]);
            let held = run(&listing, &plan(Family::V4, &listing, BLOCKED));
            prop_assert_eq!(lines(&plan(Family::V4, &held, BLOCKED)), "");
            prop_assert_eq!(others(&held), others(&listing));
            let parent = if docker { "DOCKER-USER" } else { "FORWARD" };
            let table = Table { listing: &held };
            prop_assert_eq!(table.rules(parent).first().copied(), Some("-j FLEET-IMDS"));
            let open = run(&held, &plan(Family::V4, &held, Wanted::Open));
            prop_assert_eq!(others(&open), others(&listing));
            prop_assert!(!open.contains("FLEET"));
        }
    }
}
