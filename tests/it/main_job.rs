//! Up, up again, a node that leaves, down: on real nodes, with the agent as it ships.

use std::{process::Command, thread};

use anyhow::{Context, Result};
use fleet_tests::{Fleet, Sandbox, agent_source, eventually, program, run};
use serde_json::{Value, json};

use crate::refusals::writes;

#[test]
fn an_environment_comes_up_serves_loses_a_node_and_goes_away() {
    let sandbox = Sandbox::up("it-main").expect("a sandbox");
    let source = agent_source(&sandbox).expect("a built agent");
    let security_group = foreign_security_group(&sandbox).expect("EC2");
    let key_pair = json!({ "KeyName": "ops" });
    let _ = sandbox
        .aws("ec2", "create_key_pair", &key_pair)
        .expect("EC2");
    let fleet = Fleet::init(
        &sandbox,
        "shop",
        &format!(
            "[environments.dev.agent]\n{source}\n\
             [environments.dev.groups.web]\nmin = 1\nmax = 4\ndesired = 2\n\
             instance_types = [\"t3.large\", \"t3a.large\"]\n\
             spot = {{ percent = 100, on_demand_base = 1, allocation = \"lowest-price\" }}\n\
             root_volume = {{ size_gib = 40, type = \"gp3\", iops = 4000, throughput_mib = 300, kms_key = \"alias/nodes\" }}\n\
             cpu_credits = \"standard\"\ndetailed_monitoring = true\n\
             key_pair = \"ops\"\nsecurity_groups = [{security_group}]\n\
             metrics = true\nmax_lifetime_days = 30\ndeletion_protection = \"prevent-all-deletion\"\n\
             zone_distribution = \"balanced-only\"\n\
             policies = [\"arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy\"]\n\
             permissions_boundary = \"arn:aws:iam::aws:policy/AdministratorAccess\"\n\
             schedules = {{ evening = {{ cron = \"0 20 * * *\", time_zone = \"Europe/Berlin\", min = 1 }} }}\n\
             [environments.dev.cluster]\ncontainer_insights = \"enhanced\"\nfargate = true\n\
             execute_command_logging = {{ log_group = \"/shop/exec\" }}\n\
             default_strategy = [{{ group = \"web\", base = 1 }}]\n\
             [environments.dev.sidecars.node-logs]\nimage = \"fleet-sandbox/busybox:1\"\n\
             command = [\"sleep\", \"infinity\"]\nbefore_tasks = true\nmemory_mib = 16\nstop_timeout_seconds = 1\n"
        ),
    )
    .expect("init");

    interrupted_up_is_resumed(&fleet).expect("up");
    a_second_up_writes_nothing(&sandbox, &fleet);

    let nodes = ready(&fleet.status().expect("status"));
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    one_node_is_spot(&sandbox, &nodes).expect("nodes");
    the_node_is_as_promised(&sandbox, &nodes[0]).expect("a node");
    operators_keys_are_kept(&sandbox, &nodes[0]).expect("a node");
    docker_gone_is_told_not_fatal(&sandbox, &nodes[0]).expect("a node");
    a_release_lasts_for_one_boot(&sandbox, &nodes[1]).expect("a node");

    let _ = sandbox
        .cli(&["run-tasks", "shop-dev", "web", "4"])
        .expect("runs")
        .exits(0);
    eventually("4 running tasks", 60, || {
        Ok((tasks(&fleet.status()?) == 4).then_some(()))
    })
    .expect("tasks");
    a_leaving_node_hands_its_tasks_over(&sandbox, &fleet, &nodes[0], &nodes[1]).expect("a drain");

    // With tasks running, in one run.
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    let plan = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(2);
    assert!(!plan.out.contains(" keep"), "{}", plan.out);
    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    let _ = fleet
        .bootstrap(&["down", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    assert_eq!(writes(&sandbox), [""; 0], "a second down has nothing to do");
}

/// One that is not the fleet's own.
fn foreign_security_group(sandbox: &Sandbox) -> Result<Value> {
    let group = json!({
        "GroupName": "monitoring",
        "Description": "reaches every node",
        "VpcId": sandbox.var("FLEET_SANDBOX_VPC"),
    });
    let made = sandbox.aws("ec2", "create_security_group", &group)?;
    Ok(made["GroupId"].clone())
}

/// The other is the base.
fn one_node_is_spot(sandbox: &Sandbox, nodes: &[String]) -> Result<()> {
    const READ: &str = "base=http://169.254.169.254/latest; \
        token=$(curl -sS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $base/api/token); \
        curl -sS -H \"X-aws-ec2-metadata-token: $token\" $base/meta-data/instance-life-cycle";
    let mut found = Vec::new();
    for node in nodes {
        found.push(sandbox.on(node, READ)?.exits(0).out);
    }
    found.sort();
    assert_eq!(found, ["on-demand", "spot"]);
    Ok(())
}

/// Killed between two writes, and run again.
fn interrupted_up_is_resumed(fleet: &Fleet<'_>) -> Result<()> {
    let killed = fleet.bootstrap_killed_after(&["up", "dev", "--yes"], "launch template")?;
    assert!(killed.code != 0, "was to be killed: {}", killed.out);
    let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    Ok(())
}

fn a_second_up_writes_nothing(sandbox: &Sandbox, fleet: &Fleet<'_>) {
    let _ = sandbox.cli(&["calls", "--reset"]).expect("runs").exits(0);
    let _ = fleet.bootstrap(&["plan", "dev"]).expect("runs").exits(0);
    let _ = fleet
        .bootstrap(&["up", "dev", "--yes"])
        .expect("runs")
        .exits(0);
    assert!(
        writes(sandbox).iter().all(|call| !is_bootstraps(call)),
        "{:?}",
        writes(sandbox)
    );
}

/// Nodes write too: attributes, lifecycle actions.
fn is_bootstraps(operation: &str) -> bool {
    ![
        "PutAttributes",
        "RecordLifecycleActionHeartbeat",
        "CompleteLifecycleAction",
    ]
    .contains(&operation)
}

fn the_node_is_as_promised(sandbox: &Sandbox, node: &str) -> Result<()> {
    let file = run(Command::new("file").arg("-L").arg(program("fleet-agent")))?.exits(0);
    assert!(file.out.contains("static"), "{}", file.out);

    let sockets = sandbox
        .on(node, "ss -Hltnup | grep fleet-agent; true")?
        .exits(0);
    assert_eq!(sockets.out, "", "the agent opens no port");
    let socket = sandbox.on(
        node,
        "stat -c '%a %U' /run/fleet-agent /run/fleet-agent/agent.sock",
    )?;
    assert_eq!(socket.out.trim(), "700 root\n600 root");

    let config = sandbox.on(node, "cat /etc/ecs/ecs.config")?.exits(0);
    assert!(
        config.out.contains("\nECS_CLUSTER=shop-dev\n")
            || config.out.starts_with("ECS_CLUSTER=shop-dev\n"),
        "{}",
        config.out
    );
    let unit = sandbox.on(
        node,
        "systemctl show fleet-agent -p ActiveState -p StatusText -p NRestarts",
    )?;
    assert!(unit.out.contains("ActiveState=active"), "{}", unit.out);
    assert!(unit.out.contains("NRestarts=0"), "{}", unit.out);
    assert!(!unit.out.contains("StatusText=\n"), "{}", unit.out);

    let journal = sandbox
        .on(node, "journalctl -u fleet-agent -o json --output-fields=MESSAGE_ID,FLEET_EVENT,MESSAGE,SYSLOG_IDENTIFIER FLEET_EVENT=launch-completed")?
        .exits(0);
    let record: Value =
        serde_json::from_str(journal.out.lines().next().context("a launch record")?)?;
    assert_eq!(
        record["MESSAGE_ID"].as_str().map(str::len),
        Some(32),
        "{record}"
    );
    assert_eq!(record["SYSLOG_IDENTIFIER"], "fleet-agent");

    let status = sandbox.on(node, "fleet-agent status")?.exits(0);
    assert!(status.out.contains("node-logs"), "{}", status.out);
    let _ = sandbox
        .on(node, "fleet-agent check && fleet-agent render")?
        .exits(0);
    let broken = sandbox.on(
        node,
        "sed 's/^cluster/cluter/; s/^version = 1/version = 7/' /etc/fleet/agent.toml > /tmp/a.toml; fleet-agent check /tmp/a.toml",
    )?;
    let broken = broken.exits(1);
    assert!(
        broken.err.contains("did you mean `cluster`"),
        "{}",
        broken.err
    );
    assert!(broken.err.contains("version"), "{}", broken.err);
    Ok(())
}

/// A key an operator adds survives the agent's restart, and neither tasks nor ECS are bounced by it.
fn operators_keys_are_kept(sandbox: &Sandbox, node: &str) -> Result<()> {
    let before = sandbox.on(node, "systemctl show ecs -p MainPID --value; docker inspect -f '{{.State.StartedAt}}' fleet-node-logs")?;
    let _ = sandbox
        .on(node, "echo ECS_LOGLEVEL=debug >> /etc/ecs/ecs.config && systemctl restart fleet-agent && fleet-agent status")?
        .exits(0);
    eventually("the restarted agent to serve", 30, || {
        Ok(sandbox
            .on(node, "fleet-agent status --json")?
            .out
            .contains("in-service")
            .then_some(()))
    })?;
    let config = sandbox.on(node, "cat /etc/ecs/ecs.config")?;
    assert!(config.out.contains("ECS_LOGLEVEL=debug"), "{}", config.out);
    let after = sandbox.on(node, "systemctl show ecs -p MainPID --value; docker inspect -f '{{.State.StartedAt}}' fleet-node-logs")?;
    assert_eq!(
        before.out, after.out,
        "nothing changed, so nothing was restarted"
    );
    Ok(())
}

fn docker_gone_is_told_not_fatal(sandbox: &Sandbox, node: &str) -> Result<()> {
    let _ = sandbox
        .on(node, "systemctl stop docker.socket docker.service")?
        .exits(0);
    eventually("the agent to say that Docker is gone", 60, || {
        Ok(sandbox
            .on(node, "fleet-agent status")?
            .out
            .contains("docker")
            .then_some(()))
    })?;
    let unit = sandbox.on(
        node,
        "systemctl show fleet-agent -p ActiveState -p NRestarts",
    )?;
    assert!(unit.out.contains("NRestarts=0"), "{}", unit.out);
    let _ = sandbox.on(node, "systemctl start docker.service")?.exits(0);
    eventually("ECS to be back", 90, || {
        Ok((sandbox.on(node, "systemctl is-active ecs")?.out.trim() == "active").then_some(()))
    })
}

/// Rebooted without its agent the node does not join, and with it again it does.
fn a_release_lasts_for_one_boot(sandbox: &Sandbox, node: &str) -> Result<()> {
    // The reboot ends the shell that asks for it, in whatever way.
    let _ = sandbox.on(node, "mv /usr/bin/fleet-agent /root/ && systemctl reboot")?;
    eventually("the rebooted node to skip ecs.service", 90, || {
        let shown = sandbox.on(
            node,
            "systemctl is-active multi-user.target; ls /run/fleet-agent/released; \
             systemctl show ecs -p ConditionResult -p ActiveState",
        )?;
        let skipped = shown.out.contains("ActiveState=inactive")
            && shown.out.contains("ConditionResult=no")
            && shown.out.starts_with("active\n");
        Ok((skipped && !shown.out.contains("released")).then_some(()))
    })?;
    let _ = sandbox
        .on(
            node,
            "mv /root/fleet-agent /usr/bin/ && systemctl restart fleet-agent",
        )?
        .exits(0);
    eventually("the node to be back in ECS", 60, || {
        let status = sandbox.on(node, "fleet-agent status --json && systemctl is-active ecs")?;
        let serves = status.out.contains("in-service") && status.code == 0;
        Ok(serves.then_some(()))
    })
}

fn a_leaving_node_hands_its_tasks_over(
    sandbox: &Sandbox,
    fleet: &Fleet<'_>,
    leaving: &str,
    staying: &str,
) -> Result<()> {
    let events = thread::scope(|scope| {
        let journal = scope.spawn(|| {
            sandbox.on(
                leaving,
                "journalctl -f -n 0 -o json -u fleet-agent --output-fields=FLEET_EVENT",
            )
        });
        // By then the follower above has begun.
        let _ = sandbox.on(leaving, "journalctl --sync; sleep 1")?;
        let _ = sandbox
            .cli(&["terminate", leaving, "--decrement"])?
            .exits(0);
        eventually("the node to be gone", 120, || {
            let status = fleet.status()?;
            let nodes = status["nodes"].as_array().context("nodes")?;
            Ok(nodes
                .iter()
                .all(|node| node["id"] != *leaving)
                .then_some(()))
        })?;
        let journal = journal.join().expect("no panic")?;
        anyhow::Ok(journal.out.lines().filter_map(event_of).collect::<Vec<_>>())
    })?;
    let story = [
        "noticed",
        "draining",
        "tasks-gone",
        "sidecars-stopped",
        "drain-completed",
    ];
    let mut told: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|event| story.contains(event))
        .collect();
    // Then the machine shuts down, which the agent notices, too.
    told.truncate(story.len());
    assert_eq!(told, story, "of {events:?}");
    eventually("4 tasks on the other node", 60, || {
        let status = fleet.status()?;
        Ok((tasks(&status) == 4 && ready(&status) == [staying]).then_some(()))
    })
}

fn event_of(record: &str) -> Option<String> {
    let record: Value = serde_json::from_str(record).ok()?;
    record["FLEET_EVENT"].as_str().map(str::to_owned)
}

fn ready(status: &Value) -> Vec<String> {
    status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| node["ready"] == true)
        .filter_map(|node| node["id"].as_str().map(str::to_owned))
        .collect()
}

fn tasks(status: &Value) -> u64 {
    status["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["tasks"].as_u64())
        .sum()
}
