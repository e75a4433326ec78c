//! From the launch of an instance to a node that serves, with an agent that the image carries and with one
//! that user data installs; how much of that is the agent's own; and how large the programs are.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Sandbox, Story, agent_source, eventually, program, stage::now, target};

use crate::{Figure, drains::median_and_maximum, float};

/// Launched one after the other.
const NODES: usize = 5;

pub(crate) fn measure() -> Result<Vec<Figure>> {
    let sandbox = Sandbox::up("bench-boot")?;
    let mut figures = sizes()?;
    let agent = program("fleet-agent");
    let image = sandbox.cli(&["bake", "--agent", &agent.to_string_lossy()])?;
    let image = image.exits(0).out;
    let baked = format!(
        "[environments.dev.groups.web]\nami = \"{}\"\n",
        image.trim()
    );
    figures.extend(boots(&sandbox, "baked", &baked)?);
    let installed = format!(
        "[environments.dev.agent]\n{}\n[environments.dev.groups.web]\n",
        agent_source(&sandbox)?
    );
    figures.extend(boots(&sandbox, "installed", &installed)?);
    Ok(figures)
}

fn sizes() -> Result<Vec<Figure>> {
    let size = |name: &str, file: &Path, goal| {
        let bytes = fs::metadata(file)?.len();
        let name = format!("{name}: static binary");
        anyhow::Ok(Figure::new(&name, float(bytes) / 1e6, "MB", goal))
    };
    let mut sizes = vec![size("agent", &program("fleet-agent"), "<= 9")?];
    // `make dist` builds it, which takes its time.
    let bootstrap = target().join("dist-bootstrap/fleet-bootstrap");
    if bootstrap.exists() {
        sizes.push(size("fleet-bootstrap", &bootstrap, "")?);
    } else {
        println!("fleet-bootstrap: no static binary to measure, `make bootstrap` builds one");
    }
    Ok(sizes)
}

fn boots(sandbox: &Sandbox, form: &str, settings: &str) -> Result<Vec<Figure>> {
    let settings = format!("{settings}min = 0\nmax = {NODES}\n");
    let fleet = Fleet::init(sandbox, form, &settings)?;
    let _ = fleet.bootstrap(&["up", "dev", "--yes"])?.exits(0);
    let (mut ready, mut released) = (Vec::new(), Vec::new());
    let mut known: Vec<String> = Vec::new();
    for desired in 1..=NODES {
        let wanted = now();
        let group = format!("{form}-dev-web");
        let _ = sandbox
            .cli(&["scale", &group, &desired.to_string()])?
            .exits(0);
        let (node, story) = eventually("a node that serves", 120, || {
            serving(sandbox, &fleet, &known)
        })?;
        let completed = story.first("launch-completed")?.at;
        ready.push((completed - wanted).as_secs_f64());
        released.push(beyond_docker(sandbox, &node, &story)?);
        known.push(node);
    }
    let _ = fleet.bootstrap(&["down", "dev", "--yes"])?.exits(0);
    let name = |what: &str| format!("boot, {form}: {what}");
    let mut figures = Vec::from(median_and_maximum(
        &name("wanted -> agent ready, launch hook answered"),
        ready,
        "s",
        "",
    ));
    // Before its download nothing of it can start.
    let goal = if form == "baked" { "<= 1.5" } else { "" };
    figures.extend(median_and_maximum(
        &name("Docker up -> ecs.service released"),
        released,
        "s",
        goal,
    ));
    Ok(figures)
}

/// A node that is ready and was not there before, and what its agent has written by then.
fn serving(
    sandbox: &Sandbox,
    fleet: &Fleet<'_>,
    known: &[String],
) -> Result<Option<(String, Story)>> {
    let status = fleet.status()?;
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    let is_new = |id: &&str| !known.iter().any(|known| known == id);
    let node = nodes.find_map(|node| {
        let id = node["id"].as_str().filter(is_new)?;
        (node["ready"] == true).then_some(id)
    });
    let Some(node) = node else { return Ok(None) };
    let story = sandbox.journal(node, "--boot=0")?;
    Ok(Some((node.to_owned(), story)))
}

/// Both on the clock that counts from the boot on.
fn beyond_docker(sandbox: &Sandbox, node: &str, story: &Story) -> Result<f64> {
    let docker = "systemctl show docker --property ActiveEnterTimestampMonotonic --value";
    let docker = sandbox.on(node, docker)?.exits(0).out;
    let docker: f64 = docker.trim().parse().context("when Docker was up")?;
    let released = story.first("released")?.field("__MONOTONIC_TIMESTAMP");
    let released: f64 = released.parse().context("when it was released")?;
    Ok((released - docker) / 1e6)
}
