//! Whatever was interrupted, changed or there before: the end is what the file says.

use super::{
    adopted::{others, without},
    bucket::{read, sends},
    step_scaling::steps,
    *,
};

/// Some of what a file can say of a group, in any combination.
fn keys() -> impl Strategy<Value = String> {
    const KEYS: &[&str] = &[
        "max = 7",
        "min = 1",
        "target_capacity = 70",
        "detailed_monitoring = true",
        "metrics = true",
        "max_lifetime_days = 30",
        "deletion_protection = \"prevent-force-deletion\"",
        "zone_distribution = \"balanced-only\"",
        "spot = { percent = 40 }",
        "key_pair = \"ops\"",
        "security_groups = [\"sg-0123456789abcdef0\"]",
        "policies = [\"arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy\"]",
        "permissions_boundary = \"arn:aws:iam::aws:policy/AdministratorAccess\"",
        "docker_volume = { size_gib = 50 }",
        "schedules = { night = { cron = \"0 20 * * *\", min = 0 } }",
        "ecs = { ECS_LOGLEVEL = \"debug\" }",
        "system_memory_mib = 256",
    ];
    let some = proptest::sample::subsequence(KEYS, 0..=KEYS.len());
    some.prop_map(|keys| format!("[environments.dev.groups.web]\n{}\n", keys.join("\n")))
}

/// What somebody else does to it.
fn touched(group: &mut crate::inventory::Group, how: usize) {
    match (how, group) {
        (1, group) => {
            if let Presence::Owned(asg) = &mut group.auto_scaling_group {
                asg.max = 99;
                asg.desired = 5;
            }
        }
        (2, group) => {
            if let Presence::Owned(template) = &mut group.launch_template {
                template.latest_version += 1;
                template.latest.instance_type = "x9.large".into();
            }
        }
        (3, group) => {
            if let Presence::Owned(role) = &mut group.role {
                role.attached_policies
                    .push("arn:aws:iam::aws:policy/AdministratorAccess".into());
                role.inline_policies.insert("by-hand".into(), None);
            }
        }
        _ => {}
    }
}

/// Without what depends on the way.
fn lasting(mut inventory: Inventory) -> Inventory {
    for group in inventory.groups.values_mut() {
        if let Presence::Owned(asg) = &mut group.auto_scaling_group {
            asg.desired = 0;
            asg.template_version = None;
            asg.instances.clear();
        }
        if let Presence::Owned(template) = &mut group.launch_template {
            template.latest_version = 0;
        }
    }
    inventory
}

proptest! {
    /// Killed after any number of steps, in either direction, the next run ends where one without
    /// interruption would have.
    #[test]
    fn every_interruption_converges(
        groups in 1..3_usize,
        cuts in proptest::collection::vec((any::<bool>(), 0..60_usize), 0..4),
        desired_nodes in 0..4_u32,
        end_up in any::<bool>(),
        forgets in any::<bool>(),
        given in proptest::option::of(others()),
        has_steps in any::<bool>(),
        changes_its_mind in any::<bool>(),
        has_binary in any::<bool>(),
    ) {
        let mut desired = model::desired(&["web", "batch"][..groups]);
        if given.is_some() {
            model::adopting(&mut desired);
        }
        let all = desired.clone();
        let untouched = |inventory: &Inventory| without(inventory.given_cluster.as_ref(), &[&all]) == given;
        for group in &mut desired.groups {
            group.auto_scaling_group.desired = desired_nodes;
            group.auto_scaling_group.min = desired_nodes.min(1);
            if has_steps {
                group.scaling = steps(75);
            }
        }
        sends(&mut desired, has_binary);
        let mut inventory = model::empty(&desired);
        inventory.given_cluster.clone_from(&given);
        let managed = Scaling::Managed { target_capacity: 100 };
        for (goes_up, count) in cuts {
            if changes_its_mind {
                let has_binary = desired.bucket.upload.is_none();
                sends(&mut desired, has_binary);
                for group in &mut desired.groups {
                    group.scaling = match group.scaling {
                        Scaling::Managed { .. } => steps(60),
                        Scaling::Steps(_) => managed.clone(),
                    };
                }
            }
            let goal = if goes_up { Goal::Up } else { Goal::Down };
            // A provider whose group `down` was killed after deleting is refused, with advice.
            let found = read(&desired, &inventory, goal);
            let Ok(plan) = plan(&desired, &found, goal) else { continue };
            prop_assert_eq!(check(&plan, &desired, &found), [""; 0]);
            for planned in plan.steps.iter().take(count) {
                model::apply(&mut inventory, &desired, &planned.step)
                    .map_err(TestCaseError::fail)?;
                prop_assert!(untouched(&inventory), "{}", planned.step.title());
            }
        }
        let goal = if end_up { Goal::Up } else { Goal::Down };
        if goal == Goal::Down && forgets {
            inventory.removed = desired.groups.split_off(1);
        }
        let last = planned(&desired, &read(&desired, &inventory, goal), goal);
        for step in &last.steps {
            model::apply(&mut inventory, &desired, &step.step).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(planned(&desired, &read(&desired, &inventory, goal), goal).steps, []);
        prop_assert!(untouched(&inventory));
        if goal == Goal::Down {
            prop_assert!(model::is_empty(&inventory));
            prop_assert_eq!(inventory.given_cluster, given);
        }
    }

    /// Each plans by what it saw, and acts when the other has acted since.
    #[test]
    fn environments_in_one_adopted_cluster_never_touch_each_other(
        given in others(),
        turns in proptest::collection::vec((0..2_usize, any::<bool>(), 1..30_usize), 0..12),
        ends_up in (any::<bool>(), any::<bool>()),
    ) {
        let mut worlds: Vec<(Desired, Inventory, Vec<Planned>)> = ["dev", "prod"].map(|name| {
            let mut desired = model::environment(name, &["web", "batch"]);
            model::adopting(&mut desired);
            let inventory = model::empty(&desired);
            (desired, inventory, Vec::new())
        }).into();
        let all: Vec<Desired> = worlds.iter().map(|(desired, ..)| desired.clone()).collect();
        let mut cluster = Some(given.clone());
        for (index, goes_up, steps) in turns {
            let (desired, inventory, open) = &mut worlds[index];
            inventory.given_cluster.clone_from(&cluster);
            if open.is_empty() {
                let goal = if goes_up { Goal::Up } else { Goal::Down };
                let Ok(plan) = plan(desired, inventory, goal) else { continue };
                prop_assert_eq!(check(&plan, desired, inventory), [""; 0]);
                *open = plan.steps;
            }
            for planned in open.drain(..steps.min(open.len())) {
                let others = without(cluster.as_ref(), &[&all[index]]);
                model::apply(inventory, desired, &planned.step).map_err(TestCaseError::fail)?;
                cluster.clone_from(&inventory.given_cluster);
                prop_assert_eq!(without(cluster.as_ref(), &[&all[index]]), others);
            }
        }
        let goals = [ends_up.0, ends_up.1].map(|up| if up { Goal::Up } else { Goal::Down });
        for ((desired, inventory, _), goal) in worlds.iter_mut().zip(goals) {
            inventory.given_cluster.clone_from(&cluster);
            let last = planned(desired, inventory, goal);
            for step in &last.steps {
                model::apply(inventory, desired, &step.step).map_err(TestCaseError::fail)?;
            }
            cluster.clone_from(&inventory.given_cluster);
        }
        for ((desired, inventory, _), goal) in worlds.iter_mut().zip(goals) {
            inventory.given_cluster.clone_from(&cluster);
            prop_assert_eq!(planned(desired, inventory, goal).steps, []);
            let ours = desired.groups.iter().map(|group| &group.capacity_provider.name);
            let attached = |name: &String| {
                cluster.as_ref().is_some_and(|cluster| cluster.providers.contains(name))
            };
            prop_assert_eq!(ours.filter(|name| attached(name)).count(), if goal == Goal::Up { 2 } else { 0 });
            prop_assert_eq!(model::is_empty(inventory), goal == Goal::Down);
        }
        prop_assert_eq!(without(cluster.as_ref(), &[&all[0], &all[1]]), Some(given));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the file said before: what counts is what it says now. What stays on purpose is left out: tags that
    /// nobody removes, the size that is ECS's, and numbers of versions and revisions.
    #[test]
    fn what_a_file_said_before_leaves_no_trace(
        before in keys(),
        now in keys(),
        meanwhile in 0..4_usize,
    ) {
        let (before, now) = (of_file(&before), of_file(&now));
        let mut inventory = up(&before);
        if let Some(group) = inventory.groups.get_mut("web") {
            touched(group, meanwhile);
        }
        let plan = planned(&now, &inventory, Goal::Up);
        for step in &plan.steps {
            model::apply(&mut inventory, &now, &step.step).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(planned(&now, &inventory, Goal::Up).steps, []);
        prop_assert_eq!(lasting(inventory), lasting(up(&now)));
    }
}
