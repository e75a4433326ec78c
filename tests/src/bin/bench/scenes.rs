//! What takes sandboxes of its own: a spot interruption, and nodes that leave a warm pool.

use std::thread;

use anyhow::Result;
use fleet_tests::{
    Sandbox,
    scenes::{Interruption, ecs_active_after, pool, resting},
    stage::{Stage, now},
};

use crate::{Figure, drains::median_and_maximum};

/// Nodes in the warm pool; each is wanted once.
const WARM: u32 = 5;

/// Both at the same time: most of the interruption is waiting.
pub(crate) fn measure() -> Result<Vec<Figure>> {
    thread::scope(|scope| {
        let spot = scope.spawn(spot);
        let mut figures = Vec::from(warm()?);
        figures.extend(spot.join().expect("no panic")?);
        Ok(figures)
    })
}

fn spot() -> Result<[Figure; 2]> {
    let sandbox = Sandbox::up("bench-spot")?;
    let stage = Interruption::stage(&sandbox)?;
    let scene = Interruption::play(&stage)?;
    let left = (scene.at - scene.draining).as_secs_f64();
    Ok([
        Figure::new("spot, 120 s: left when DRAINING", left, "s", ""),
        Figure::new(
            "spot, 120 s: to spare, sidecars flushed",
            scene.spare().as_secs_f64(),
            "s",
            ">= 10",
        ),
    ])
}

fn warm() -> Result<[Figure; 2]> {
    let sandbox = Sandbox::up("bench-warm")?;
    let stage = Stage::up(&sandbox, 0, "", "")?;
    pool(&stage, "Running", 0, WARM)?;
    let mut resting = resting(&stage, "Warmed:Running", "running", WARM as usize)?;
    let mut took = Vec::new();
    for desired in 1..=WARM {
        let wanted = now();
        stage.scale(desired)?;
        let node = stage.await_one_of(&resting, "InService", 60)?;
        stage.await_phase(&node, "in-service", 30)?;
        took.push(ecs_active_after(&sandbox, &node, wanted)?);
        resting.retain(|id| *id != node);
    }
    Ok(median_and_maximum(
        "warm pool: wanted -> ecs.service active",
        took,
        "s",
        "<= 5",
    ))
}
