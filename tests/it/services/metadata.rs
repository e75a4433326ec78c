//! Containers are kept from the instance metadata service, whatever becomes of the packet filter.

use anyhow::Result;
use fleet_tests::{
    Sandbox, eventually,
    stage::{Stage, await_event},
};

/// The rule that sends what containers say through ours.
const BLOCKED: &str = "-A DOCKER-USER -j FLEET-IMDS";

/// Whether a container of this network can connect.
fn reaches(sandbox: &Sandbox, node: &str, network: &str) -> Result<bool> {
    let connect = format!(
        "docker run --rm --network {network} fleet-sandbox/busybox:1 \
         sh -c 'nc -w 3 169.254.169.254 80 </dev/null'"
    );
    Ok(sandbox.on(node, &connect)?.code == 0)
}

fn rules(sandbox: &Sandbox, node: &str, program: &str) -> Result<String> {
    Ok(sandbox.on(node, &format!("{program} -S"))?.exits(0).out)
}

#[test]
fn no_container_reaches_the_metadata_service() {
    let sandbox = Sandbox::up("it-metadata").expect("a sandbox");
    let stage = Stage::up(&sandbox, 2, "", "").expect("up");
    stage.play(&[nf_tables, legacy]);
}

fn nf_tables(stage: &Stage<'_>, node: &str) -> Result<()> {
    stage.hurry(node, 5)?;
    blocked(stage, node)?;
    switched_off(stage, node)
}

fn blocked(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let _ = sandbox.on(node, "docker network create users")?.exits(0);
    for network in ["bridge", "users"] {
        assert!(!reaches(sandbox, node, network)?, "from {network}");
    }
    assert!(reaches(sandbox, node, "host")?, "the node itself may");
    let told = rules(sandbox, node, "iptables")?;
    assert!(told.contains(BLOCKED), "{told}");
    let told = rules(sandbox, node, "ip6tables")?;
    assert!(told.contains("-d fd00:ec2::254/128 -j REJECT"), "{told}");

    // A firewall that takes everything away, and a Docker that builds its own anew.
    let journal = sandbox.follow_journal(node)?;
    let _ = sandbox.on(node, "iptables -F DOCKER-USER")?.exits(0);
    eventually("the block to stand again", 75, || {
        let told = rules(sandbox, node, "iptables")?;
        Ok(told.contains(BLOCKED).then_some(()))
    })?;
    assert!(!reaches(sandbox, node, "users")?);
    let _ = sandbox.on(node, "systemctl restart docker")?.exits(0);
    eventually("the block to stand after dockerd's restart", 30, || {
        Ok((!reaches(sandbox, node, "users")?).then_some(()))
    })?;
    await_event(&journal, "metadata-blocked", 10)?;
    // 169.254.170.2, where tasks get their credentials, is none of it.
    let told = rules(sandbox, node, "iptables")?;
    assert!(!told.contains("169.254.170.2"), "{told}");
    Ok(())
}

fn switched_off(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let set = "sed -i 's/^block_metadata_service = true/block_metadata_service = false/' /etc/fleet/agent.toml \
               && systemctl restart fleet-agent";
    let _ = sandbox.on(node, set)?.exits(0);
    eventually("the block to be gone", 30, || {
        Ok(reaches(sandbox, node, "users")?.then_some(()))
    })?;
    for program in ["iptables", "ip6tables"] {
        let told = rules(sandbox, node, program)?;
        assert!(!told.contains("FLEET"), "{told}");
    }
    Ok(())
}

/// What dockerd and the agent run is whatever `iptables` is on the node.
fn legacy(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let change = "for program in iptables ip6tables; do \
                      update-alternatives --set $program /usr/sbin/$program-legacy; done \
                  && systemctl restart docker fleet-agent";
    let _ = sandbox.on(node, change)?.exits(0);
    stage.await_phase(node, "in-service", 60)?;
    eventually("the block by the legacy back end", 30, || {
        let told = rules(sandbox, node, "iptables-legacy")?;
        Ok(told.contains(BLOCKED).then_some(()))
    })?;
    assert!(!reaches(sandbox, node, "bridge")?);
    Ok(())
}
