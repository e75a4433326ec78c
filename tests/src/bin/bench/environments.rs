//! What reading costs in an account of many environments of many groups, with 100 ms a call.

use std::{fmt::Write as _, fs, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, bail};
use fleet_tests::{Fleet, Sandbox, agent_source};

use super::{Figure, calls_of_bootstrap, provision::FAR_AWAY, reset};

const ENVIRONMENTS: usize = 20;
const GROUPS: usize = 10;
/// So many are brought up at a time: ECS makes one capacity provider a second.
const AT_ONCE: usize = 4;
/// Between two looks at how much memory a program has taken.
const LOOK: Duration = Duration::from_millis(5);

pub(super) fn measure() -> Result<Vec<Figure>> {
    let sandbox = Sandbox::up("bench-environments")?;
    let source = agent_source(&sandbox)?;
    let mut settings = format!("[environments.dev.agent]\n{source}\n");
    for environment in 1..=ENVIRONMENTS {
        let _ = writeln!(settings, "[environments.e{environment}.agent]\n{source}");
        // The template's own is the tenth.
        for group in 1..=GROUPS {
            let name = if group == GROUPS {
                "web".to_owned()
            } else {
                format!("g{group}")
            };
            let _ = writeln!(
                settings,
                "[environments.e{environment}.groups.{name}]\ninstance_types = [\"m7i.large\"]\nmin = 0\nmax = 1"
            );
        }
    }
    let fleet = Fleet::init(&sandbox, "far", &settings)?;
    up(&fleet, &["e1".to_owned()])?;
    let alone = plan(&sandbox, &fleet)?;
    let others: Vec<String> = (2..=ENVIRONMENTS)
        .map(|number| format!("e{number}"))
        .collect();
    for some in others.chunks(AT_ONCE) {
        up(&fleet, some)?;
    }
    let among = plan(&sandbox, &fleet)?;

    let of = |what: &str| format!("no-op plan of {GROUPS} groups{what}");
    let all = format!(", {ENVIRONMENTS} such environments in the account");
    Ok(vec![
        Figure::new(&of(": calls"), alone.calls, "calls", ""),
        Figure::new(&of(&format!("{all}: calls")), among.calls, "calls", ""),
        Figure::new(
            &of(&format!("{all}: peak memory")),
            among.mib,
            "MiB",
            "<= 60",
        ),
    ])
}

fn up(fleet: &Fleet<'_>, environments: &[String]) -> Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = environments
            .iter()
            .map(|environment| scope.spawn(move || fleet.bootstrap(&["up", environment, "--yes"])))
            .collect();
        for run in running {
            let Ok(ran) = run.join() else {
                bail!("a thread panicked");
            };
            let _ = ran?.exits(0);
        }
        Ok(())
    })
}

struct Cost {
    calls: f64,
    mib: f64,
}

fn plan(sandbox: &Sandbox, fleet: &Fleet<'_>) -> Result<Cost> {
    let _ = sandbox.cli(&["faults", FAR_AWAY])?.exits(0);
    reset(sandbox)?;
    let mut program = fleet.command(&["plan", "e1"]);
    let mut program = program.stdout(Stdio::null()).spawn()?;
    let mut kib = 0;
    let status = loop {
        kib = kib.max(peak_memory(program.id()).unwrap_or_default());
        if let Some(status) = program.try_wait()? {
            break status;
        }
        thread::sleep(LOOK);
    };
    let cost = Cost {
        calls: calls_of_bootstrap(sandbox)?,
        mib: f64::from(kib) / 1024.0,
    };
    let _ = sandbox.cli(&["faults", "[]"])?.exits(0);
    if !status.success() {
        bail!("plan e1: {status}");
    }
    Ok(cost)
}

/// KiB; none once it has ended.
fn peak_memory(process: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let line = line.context("no memory")?;
    let kib = line.split_whitespace().nth(1).context("no figure")?;
    Ok(kib.parse()?)
}
