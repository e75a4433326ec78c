//! ecs.config: what the ECS agent makes of it, and what in it would surprise.

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    stage::{Stage, await_event},
};

#[test]
fn every_value_says_where_it_comes_from_and_mistakes_are_told() {
    let sandbox = Sandbox::up("it-config").expect("a sandbox");
    let group = "system_memory_mib = 200\necs = { ECS_INSTANCE_ATTRIBUTES = \"{\\\"disk\\\":\\\"ssd\\\"}\" }";
    let stage = Stage::up(&sandbox, 1, group, "").expect("up");
    told(&stage, &stage.nodes[0]).expect("told");
}

fn told(stage: &Stage<'_>, node: &str) -> Result<()> {
    let sandbox = stage.sandbox;
    let show = |extra: &str| sandbox.on(node, &format!("fleet-agent status --config {extra}"));
    let screen = show("")?.exits(0).out;
    for part in [
        "ECS_CLUSTER ",
        "ECS_RESERVED_MEMORY ",
        "ECS_AWSVPC_BLOCK_IMDS ",
        "left to the ECS agent:",
    ] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    let json = show("--json")?.exits(0).json()?;
    let of = |name: &str| {
        let found = json.as_array().into_iter().flatten();
        found
            .clone()
            .find(|found| found["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(of("ECS_RESERVED_MEMORY")["value"], "200");
    assert_eq!(of("ECS_RESERVED_MEMORY")["source"], "fleet");
    assert_eq!(of("ECS_INSTANCE_ATTRIBUTES")["source"], "settings");
    assert_eq!(of("ECS_POLL_METRICS")["source"], "default");

    // An operator's own lines, with the mistakes that people make.
    let journal = sandbox.follow_journal(node)?;
    let lines = "printf 'ECS_LOGFILE=\"/log/x\"\\nECS_LOGLEVL=debug\\n' >>/etc/ecs/ecs.config && \
                 systemctl stop docker.socket docker && systemctl restart fleet-agent";
    let _ = sandbox.on(node, lines)?.exits(0);
    // Docker is down, and the agent may be asked nothing.
    let screen = show("")?.exits(0).out;
    assert!(
        screen.contains("ECS_LOGFILE: must not be quoted"),
        "{screen}"
    );
    assert!(screen.contains("did you mean `ECS_LOGLEVEL`?"), "{screen}");
    await_event(&journal, "hazard", 30)?;
    Ok(())
}
