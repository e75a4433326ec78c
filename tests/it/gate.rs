//! A node that its agent has not released cannot join: with the agent missing, crashing or hanging,
//! in baked and in installed form. Each case is a group of its own, launched at once; `up` must
//! stop at the launch hook and say why.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use fleet_tests::{Fleet, Ran, Sandbox, eventually, program, target};
use serde_json::{Value, json};

const CRASHING: &str = "#!/bin/sh\necho crashing; exit 1\n";
const HANGING: &str = "#!/bin/sh\nexec sleep infinity\n";
/// How long the launch hook is open after it was last heard of.
const HOOK: Duration = Duration::from_secs(60);

#[test]
fn ecs_cannot_start_unless_the_agent_released_it_in_this_boot() {
    let sandbox = Sandbox::up("it-gate").expect("a sandbox");
    let cases = [
        Case::installed("inst-missing", None),
        Case::installed("inst-crash", Some(CRASHING)),
        Case::installed("inst-hang", Some(HANGING)),
        Case {
            is_pinned_wrong: true,
            ..Case::installed("inst-other", Some(HANGING))
        },
        Case::baked("baked-missing", None),
        Case::baked("baked-crash", Some(CRASHING)),
        Case::baked("baked-hang", Some(HANGING)),
    ];
    thread::scope(|scope| {
        let running: Vec<_> = cases
            .iter()
            .map(|case| (case, scope.spawn(|| case.play(&sandbox))))
            .collect();
        for (case, outcome) in running {
            let up = outcome
                .join()
                .expect("no panic")
                .unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
            assert_eq!(up.code, 1, "{}: {}{}", case.name, up.out, up.err);
            let said = format!("{}{}", up.out, up.err);
            assert!(said.contains("Heartbeat Timeout"), "{}: {said}", case.name);
            // Its last words.
            let why = match case.name {
                "inst-missing" => "fleet-agent: install failed: cannot download http",
                "inst-other" => "fleet.toml pins 0000",
                _ => "",
            };
            assert!(said.contains(why), "{}: {said}", case.name);
        }
    });
}

#[derive(Debug)]
struct Case {
    name: &'static str,
    baked: bool,
    agent: Option<&'static str>,
    /// What is downloaded is not what the file pins, and the image carries an agent that works.
    is_pinned_wrong: bool,
}

impl Case {
    fn installed(name: &'static str, agent: Option<&'static str>) -> Self {
        Self {
            name,
            baked: false,
            agent,
            is_pinned_wrong: false,
        }
    }

    fn baked(name: &'static str, agent: Option<&'static str>) -> Self {
        Self {
            name,
            baked: true,
            agent,
            is_pinned_wrong: false,
        }
    }

    /// Brings the case up, looks at its node while it is held, and returns how `up` ended.
    fn play(&self, sandbox: &Sandbox) -> Result<Ran> {
        let fleet = Fleet::init(sandbox, self.name, &self.settings(sandbox)?)?;
        thread::scope(|scope| {
            let up = scope.spawn(|| fleet.bootstrap(&["up", "dev", "--yes"]));
            self.look(sandbox)?;
            let up = up.join().expect("no panic")?;
            let _ = fleet.bootstrap(&["down", "dev", "--yes"])?.exits(0);
            Ok(up)
        })
    }

    fn look(&self, sandbox: &Sandbox) -> Result<()> {
        let group = format!("{}-dev-web", self.name);
        let node = eventually("a node", 60, || {
            let instance = instance_of(&sandbox.status()?, &group);
            Ok(instance["instance_id"].as_str().map(str::to_owned))
        })?;
        // Booted, user data done, and ecs.service was tried and skipped. Seven machines boot at once here,
        // beside other tests' nodes: however long that takes, the hook is kept open for it.
        let mut kept_open = Instant::now();
        eventually("the condition to have held ecs.service back", 240, || {
            if kept_open.elapsed() > HOOK / 3 {
                kept_open = Instant::now();
                self.keep_open(sandbox, &group, &node)?;
            }
            let shown = sandbox.on(
                &node,
                "cloud-init status | grep -Eq 'status: (done|error)' && systemctl show ecs -p ActiveState -p ConditionResult",
            )?;
            Ok((shown.out.contains("ActiveState=inactive") && shown.out.contains("ConditionResult=no"))
                .then_some(()))
        })
        .with_context(|| self.name)?;
        // Not by hand either.
        let by_hand = sandbox.on(
            &node,
            "systemctl start ecs; systemctl is-active ecs; pgrep -x fleet-sandbox",
        )?;
        assert_eq!(
            by_hand.out.trim(),
            "inactive",
            "{}: {}",
            self.name,
            by_hand.err
        );
        let instance = instance_of(&sandbox.status()?, &group);
        assert_eq!(
            instance["lifecycle_state"], "Pending:Wait",
            "{}: {instance}",
            self.name
        );
        assert_eq!(
            instance["ecs_status"],
            Value::Null,
            "{} joined: {instance}",
            self.name
        );
        Ok(())
    }

    fn keep_open(&self, sandbox: &Sandbox, group: &str, node: &str) -> Result<()> {
        let heartbeat = json!({
            "AutoScalingGroupName": group,
            "LifecycleHookName": "fleet-launch",
            "InstanceId": node,
        });
        sandbox
            .aws(
                "autoscaling",
                "record_lifecycle_action_heartbeat",
                &heartbeat,
            )
            .with_context(|| self.name)?;
        Ok(())
    }

    /// The group, its agent broken in this case's way.
    fn settings(&self, sandbox: &Sandbox) -> Result<String> {
        const CAPACITY: &str = "min = 0\nmax = 1\ndesired = 1\n";
        let file = target().join("dist").join(self.name);
        if let Some(script) = self.agent {
            write_program(&file, script)?;
        }
        let seconds = HOOK.as_secs();
        let hook = format!("[environments.dev.agent]\nlaunch_timeout_seconds = {seconds}\n");
        if self.baked {
            let mut bake = vec!["bake"];
            let agent = file.to_string_lossy();
            if self.agent.is_some() {
                bake.extend(["--agent", &agent]);
            }
            let image = sandbox.cli(&bake)?.exits(0).out;
            return Ok(format!(
                "{hook}[environments.dev.groups.web]\n{CAPACITY}ami = \"{}\"\n",
                image.trim()
            ));
        }
        let sum = fleet_tests::run(std::process::Command::new("sha256sum").arg(&file))?;
        let sum = sum.out.split_whitespace().next();
        let sum = sum.filter(|_| !self.is_pinned_wrong);
        let sum = sum.map_or_else(|| "0".repeat(64), str::to_owned);
        let image = if self.is_pinned_wrong {
            let agent = program("fleet-agent");
            let baked = sandbox.cli(&["bake", "--agent", &agent.to_string_lossy()])?;
            format!("ami = \"{}\"\n", baked.exits(0).out.trim())
        } else {
            String::new()
        };
        Ok(format!(
            "{hook}source = {{ url = \"{}/_sandbox/files/{}\", sha256 = \"{sum}\" }}\n[environments.dev.groups.web]\n{CAPACITY}{image}",
            sandbox.var("FLEET_SANDBOX_NODE_URL"),
            self.name,
        ))
    }
}

/// The only instance of a group, as the sandbox sees it; null while there is none.
fn instance_of(status: &Value, group: &str) -> Value {
    let groups = status["groups"].as_array();
    let group = groups
        .into_iter()
        .flatten()
        .find(|found| found["name"] == *group);
    group.map_or(Value::Null, |group| group["instances"][0].clone())
}

fn write_program(file: &Path, script: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(file, script)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o755),
    )?)
}
