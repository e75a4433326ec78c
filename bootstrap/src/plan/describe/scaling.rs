//! Scaling policies and their alarms in words.

use super::on;
use crate::inventory::{AlarmSettings, PolicySettings, StepAdjustment};

/// `+1 node above 75 %, +3 nodes above 90 %`; bounds are relative to `threshold`.
fn steps(settings: &PolicySettings, threshold: f64) -> String {
    let steps = settings.steps.iter().map(|step| {
        let StepAdjustment {
            lower,
            upper,
            change,
        } = step;
        let nodes = match change.unsigned_abs() {
            1 => "node",
            _ => "nodes",
        };
        let (word, bound) = match *change < 0 {
            true => ("below", upper),
            false => ("above", lower),
        };
        match bound {
            Some(bound) => format!("{change:+} {nodes} {word} {} %", threshold + bound),
            None => format!("{change:+} {nodes} anywhere"),
        }
    });
    steps.collect::<Vec<_>>().join(", ")
}

pub(in crate::plan) fn policy(settings: &PolicySettings, threshold: f64) -> Vec<String> {
    let warmup = settings.warmup_seconds;
    let warmup = warmup.map(|seconds| format!("warm-up {seconds} s"));
    [steps(settings, threshold)]
        .into_iter()
        .chain(warmup)
        .collect()
}

/// Each with the threshold of its alarm.
pub(in crate::plan) fn scaling_policy_changes(
    (found, before): (&PolicySettings, f64),
    (wanted, threshold): (&PolicySettings, f64),
) -> Vec<String> {
    let mut changes = Vec::new();
    if found.steps != wanted.steps {
        let (old, new) = (steps(found, before), steps(wanted, threshold));
        changes.push(format!("steps {old} -> {new}"));
    }
    let mut differs = |name: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{name} {old} -> {new}"));
        }
    };
    let seconds = |warmup: Option<u32>| {
        warmup.map_or_else(
            || "the group's".to_owned(),
            |seconds| format!("{seconds} s"),
        )
    };
    differs(
        "warm-up",
        seconds(found.warmup_seconds),
        seconds(wanted.warmup_seconds),
    );
    differs(
        "adjustment",
        found.adjustment_type.clone(),
        wanted.adjustment_type.clone(),
    );
    differs("policy", on(found.is_enabled), on(wanted.is_enabled));
    changes
}

/// `more than 75 % of shop-dev reserved for 2 min`
pub(in crate::plan) fn alarm(settings: &AlarmSettings) -> String {
    let comparison = comparison(settings);
    let (threshold, minutes) = (settings.threshold, settings.minutes);
    format!(
        "{comparison} {threshold} % of {} reserved for {minutes} min",
        watched(settings)
    )
}

fn comparison(settings: &AlarmSettings) -> &str {
    match settings.comparison.as_str() {
        "GreaterThanThreshold" => "more than",
        "LessThanThreshold" => "less than",
        other => other,
    }
}

fn watched(settings: &AlarmSettings) -> &str {
    settings.cluster.as_deref().unwrap_or("something else")
}

pub(in crate::plan) fn alarm_changes(found: &AlarmSettings, wanted: &AlarmSettings) -> Vec<String> {
    let mut changes = Vec::new();
    let mut differs = |name: &str, old: String, new: String| {
        if old != new {
            changes.push(format!("{name} {old} -> {new}"));
        }
    };
    differs(
        "watches",
        watched(found).to_owned(),
        watched(wanted).to_owned(),
    );
    let bound = |of: &AlarmSettings| format!("{} {} %", comparison(of), of.threshold);
    differs("at", bound(found), bound(wanted));
    let minutes = |of: &AlarmSettings| format!("{} of {} min", of.minutes_beyond, of.minutes);
    differs("for", minutes(found), minutes(wanted));
    differs(
        "missing data",
        found.missing_data.clone(),
        wanted.missing_data.clone(),
    );
    differs("actions", on(found.is_enabled), on(wanted.is_enabled));
    changes
}
