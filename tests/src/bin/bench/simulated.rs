//! What no handful of real nodes can show: five hundred drains, and a thousand at once of ten thousand
//! nodes, told in virtual time by the agent's own lifecycle.

use std::time::{Duration, Instant};

use fleet_agent::simulation::{FleetOptions, Flip, Load, fleet, flips, idle_hour};

use crate::{Figure, float};

const DRAINS: usize = 500;
const IDLE_NODES: u32 = 20;
const SEED: u64 = 1;
const FLEET: u32 = 10_000;
const DRAINING: u32 = 1_000;

pub(crate) fn measure() -> Vec<Figure> {
    let mut figures = single();
    figures.extend(together("scale-in", false));
    figures.extend(together("spot", true));
    figures
}

fn single() -> Vec<Figure> {
    let flips = flips(DRAINS, SEED);
    let drains = |value: fn(&Flip) -> Duration| p99(flips.drains.iter().map(value));
    let calls = flips.drains.iter().map(|flip| flip.calls).max();
    let idle = idle_hour(IDLE_NODES, SEED).into_iter().max();
    let (number, warm) = (flips.drains.len(), flips.warm.len());
    let figure = |name: String, value, unit, goal| Figure::new(&name, value, unit, goal);
    vec![
        figure(
            format!("simulated: IMDS flip -> DRAINING, p99 of {number}"),
            drains(|flip| flip.set),
            "s",
            "<= 2.25",
        ),
        figure(
            "simulated: last task gone -> answered beyond sidecars, p99".to_owned(),
            drains(|flip| flip.answered),
            "s",
            "<= 1",
        ),
        figure(
            format!("simulated: warm InService -> ecs.service, p99 of {warm}"),
            p99(flips.warm.iter().copied()),
            "s",
            "<= 5",
        ),
        figure(
            "simulated: AWS calls of a drain beside heartbeats, most".to_owned(),
            float(calls.unwrap_or_default()),
            "calls",
            "<= 8",
        ),
        figure(
            format!("simulated: AWS calls of an idle hour, most of {IDLE_NODES}"),
            float(idle.unwrap_or_default()),
            "calls",
            "<= 12",
        ),
    ]
}

/// A thousand nodes that have to go within ten seconds.
fn together(what: &str, spot: bool) -> Vec<Figure> {
    let began = Instant::now();
    let report = fleet(FleetOptions {
        nodes: FLEET,
        draining: DRAINING,
        spot,
        seed: SEED,
    });
    let took = began.elapsed();
    let mut figures = Vec::new();
    let mut note = |name: &str, value, unit, goal| {
        let name = format!("{DRAINING} of {FLEET}, {what}: {name}");
        figures.push(Figure::new(&name, value, unit, goal));
    };
    let count = |number: usize| float(number as u64);
    if spot {
        note(
            "not DRAINING 10 s before the end",
            count(report.late_draining),
            "nodes",
            "0",
        );
        note(
            "sidecars run 10 s before the end",
            count(report.late_sidecars),
            "nodes",
            "0",
        );
    } else {
        note("hooks missed", count(report.hooks_missed), "hooks", "0");
    }
    note("promises broken", count(report.violations), "promises", "0");
    note(
        "slowest DRAINING",
        report.slowest_draining.as_secs_f64(),
        "s",
        "",
    );
    note(
        "slowest completion",
        report.slowest_completion.as_secs_f64(),
        "s",
        "",
    );
    // ECS's steady rates. Auto Scaling publishes none.
    for (
        bucket,
        limit,
        Load {
            mean,
            peak,
            refused,
        },
    ) in [
        ("ECS modify", "<= 40", report.modify),
        ("ECS read", "<= 20", report.read),
        ("Auto Scaling", "", report.autoscaling),
    ] {
        let name = |what: &str| format!("{bucket}, {what}");
        let taken = mean - float(refused) / float(report.seconds);
        note(&name("taken, mean"), taken, "calls/s", limit);
        note(&name("asked, mean"), mean, "calls/s", "");
        note(&name("asked, peak"), float(peak), "calls/s", "");
        note(&name("refused"), float(refused), "calls", "");
    }
    let beside = "AWS calls of a drain beside heartbeats";
    note(&format!("{beside}, mean"), report.calls_mean, "calls", "");
    note(
        &format!("{beside}, most"),
        float(report.calls_most),
        "calls",
        "",
    );
    note("simulated time", float(report.seconds), "s", "");
    note("real time", took.as_secs_f64(), "s", "");
    figures
}

fn p99(values: impl Iterator<Item = Duration>) -> f64 {
    let mut values: Vec<Duration> = values.collect();
    values.sort_unstable();
    let last = (values.len() * 99).div_ceil(100).saturating_sub(1);
    values.get(last).map_or(f64::NAN, Duration::as_secs_f64)
}
