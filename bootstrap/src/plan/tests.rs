//! What plans look like, and that following them leads where they say.

mod adopted;
mod bucket;
mod convergence;
mod step_scaling;

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::json;

use super::{check::check, model, *};
use crate::{
    desired::Image,
    inventory::{Cluster, ClusterSettings, Ingress, Presence, Role, Source, StrategyItem, Tenancy},
    spec::{
        ContainerInsights, CpuCredits, DeletionProtection, Direction, ExecuteCommandLogging,
        Ladder, Scaling, Schedule, Spot, SpotAllocation, Step as LadderStep, StepScaling, Volume,
        VolumeKind, WarmPool, WarmPoolState, ZoneDistribution,
    },
};

fn planned(desired: &Desired, inventory: &Inventory, goal: Goal) -> Plan {
    let plan = plan(desired, inventory, goal).expect("no conflicts");
    assert_eq!(check(&plan, desired, inventory), [""; 0]);
    plan
}

fn apply_all(desired: &Desired, inventory: &mut Inventory, plan: &Plan) {
    for planned in &plan.steps {
        model::apply(inventory, desired, &planned.step)
            .unwrap_or_else(|error| panic!("{}: {error}", planned.step.title()));
    }
}

fn up(desired: &Desired) -> Inventory {
    let mut inventory = model::empty(desired);
    let plan = planned(desired, &inventory, Goal::Up);
    apply_all(desired, &mut inventory, &plan);
    inventory
}

/// Lines as users see them, then each step with what it waits for.
fn golden(plan: &Plan) -> String {
    let mut text = String::new();
    for line in &plan.lines {
        let _ = writeln!(text, "{}", line.render(plan.name_width()));
    }
    let _ = writeln!(text, "{}", plan.totals());
    for (index, planned) in plan.steps.iter().enumerate() {
        let _ = writeln!(
            text,
            "{index:>3} {} {:?}",
            planned.step.title(),
            planned.after
        );
    }
    text
}

#[test]
fn from_nothing() {
    let desired = model::desired(&["web"]);
    let plan = planned(&desired, &model::empty(&desired), Goal::Up);
    insta::assert_snapshot!(golden(&plan));
}

#[test]
fn from_everything_there_is_nothing_to_do() {
    let desired = model::desired(&["web", "batch"]);
    let plan = planned(&desired, &up(&desired), Goal::Up);
    insta::assert_snapshot!(golden(&plan));
    assert!(plan.steps.is_empty());
}

#[test]
fn what_ecs_owns_is_no_difference() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        asg.desired = 4;
        let tag = asg.tags.get_mut("AmazonECSManaged").expect("tag");
        tag.value = "true".into();
    }
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn a_changed_file() {
    let before = model::desired(&["web"]);
    let inventory = up(&before);
    let mut desired = before;
    desired.groups[0].auto_scaling_group.max = 10;
    desired.groups[0].launch_template.user_data = b"#cloud-config\n{\"a\":1}".to_vec();
    desired.groups[0].parameter.live.drain.deadline_seconds = Some(60);
    desired.groups[0].scaling = Scaling::Managed {
        target_capacity: 80,
    };
    desired.groups[0].auto_scaling_group.hooks[0].timeout_seconds = 900;
    desired.cluster.tags.insert("team".into(), "shop".into());
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!(golden(&plan));
}

/// The environment of a file, with something more at its end.
fn of_file(more: &str) -> Desired {
    let text = format!("{}\n{more}", include_str!("../../tests/fleet.toml"));
    let spec = crate::spec::FleetFile::new("fleet.toml", &text).spec("dev");
    let mut desired = crate::desired::build(&spec.expect("valid")).expect("builds");
    // The model's own account.
    let other = model::desired(&["web"]);
    desired.network = other.network;
    for group in &mut desired.groups {
        let image = other.groups[0].launch_template.image.clone();
        group.launch_template.image = image;
    }
    desired
}

const SHORTER: &str = "[environments.dev.groups.web.drain]\ndeadline_seconds = 777\n";

/// The steps of a plan that carry live settings, by their titles.
fn carrying(plan: &Plan) -> Vec<String> {
    let titles = plan.steps.iter().map(|planned| planned.step.title());
    let carries = |title: &String| !title.starts_with("update") && !title.starts_with("set");
    titles.filter(carries).collect()
}

#[test]
fn live_settings_go_to_one_node_first_and_leave_the_launch_template_alone() {
    let mut inventory = up(&of_file(""));
    let desired = of_file(SHORTER);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!(golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    // Numbers rise, also on the way back.
    let back = of_file("");
    let plan = planned(&back, &inventory, Goal::Up);
    assert!(
        carrying(&plan)[1].starts_with("try revision 2"),
        "{plan:#?}"
    );
}

#[test]
fn live_settings_that_were_interrupted_go_on_where_they_were() {
    let before = up(&of_file(""));
    let desired = of_file(SHORTER);
    let plan = planned(&desired, &before, Goal::Up);
    for stopped in 0..plan.steps.len() {
        let mut inventory = before.clone();
        for done in &plan.steps[..stopped] {
            model::apply(&mut inventory, &desired, &done.step).expect("applies");
        }
        let again = planned(&desired, &inventory, Goal::Up);
        let spreads = |step: &Planned| step.step.title().starts_with("spread revision 1");
        assert!(again.steps.iter().any(spreads), "{stopped}: {again:#?}");
        apply_all(&desired, &mut inventory, &again);
        assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    }
}

#[test]
fn a_way_back_that_was_interrupted_goes_on_too() {
    let before = up(&of_file(""));
    let there = of_file(SHORTER);
    let plan = planned(&there, &before, Goal::Up);
    let mut inventory = before;
    // Somewhere on the way there, nodes took revision 1.
    for done in &plan.steps[..3] {
        model::apply(&mut inventory, &there, &done.step).expect("applies");
    }
    let back = of_file("");
    let plan = planned(&back, &inventory, Goal::Up);
    for done in &plan.steps[..3] {
        model::apply(&mut inventory, &back, &done.step).expect("applies");
    }
    let again = planned(&back, &inventory, Goal::Up);
    let titles = carrying(&again);
    assert!(
        titles
            .iter()
            .any(|title| title.starts_with("spread revision 2")),
        "{titles:?}"
    );
}

#[test]
fn a_parameter_that_is_gone_does_not_begin_anew() {
    let mut inventory = up(&of_file(""));
    let desired = of_file(SHORTER);
    let plan = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &plan);
    inventory.groups.get_mut("web").expect("web").parameter = Presence::Absent;
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(
        carrying(&plan)
            .iter()
            .any(|title| title.starts_with("try revision 2"))
    );
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn what_nodes_may_not_take_needs_a_new_version_and_reaches_no_old_node() {
    let inventory = up(&of_file(""));
    let more = "[sidecars.more]\nimage = \"elsewhere.example/more:1\"\n";
    let plan = planned(&of_file(more), &inventory, Goal::Up);
    let titles = carrying(&plan);
    assert!(
        !titles.iter().any(|title| title.contains("revision")),
        "{titles:?}"
    );
    let told = golden(&plan);
    assert!(
        told.contains("sidecars.more.image: registry elsewhere.example"),
        "{told}"
    );
}

#[test]
fn drift() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    if let Presence::Owned(role) = &mut group.role {
        role.inline_policies
            .insert("fleet".into(), Some(json!({"allow": "*"})));
        role.inline_policies.insert("backdoor".into(), None);
        role.attached_policies
            .push("arn:aws:iam::aws:policy/AdministratorAccess".into());
    }
    if let Presence::Owned(group) = &mut group.security_group {
        group.ingress.push(Ingress {
            protocol: "tcp".into(),
            from_port: Some(22),
            to_port: Some(22),
            source: Source::Ipv4("0.0.0.0/0".into()),
        });
    }
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!(golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn other_providers_stay_on_the_cluster() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let strategy = vec![StrategyItem {
        provider: "FARGATE".into(),
        weight: 1,
        base: 0,
    }];
    if let Presence::Owned(cluster) = &mut inventory.cluster {
        cluster.providers = vec!["FARGATE".into()];
        cluster.default_strategy = strategy;
    }
    let plan = planned(&desired, &inventory, Goal::Up);
    assert_eq!(
        plan.steps[0].step,
        Step::Ecs(EcsStep::PutClusterCapacityProviders {
            cluster: "shop-dev".into(),
            add: vec!["shop-dev-web-cp".into()],
            remove: Vec::new(),
            default_strategy: None,
        })
    );
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn a_first_node_that_failed_is_tried_again() {
    let desired = model::desired(&["web"]);
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    let wait = plan
        .steps
        .iter()
        .position(|p| p.step.awaited().is_some())
        .expect("waits");
    for planned in &plan.steps[..wait] {
        model::apply(&mut inventory, &desired, &planned.step).expect("applies");
    }
    let running = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("first_node_running", golden(&running));
    let group = inventory.groups.get_mut("web").expect("web");
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        asg.desired = 0;
        asg.instances.clear();
    }
    let retried = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("first_node_retried", golden(&retried));
}

#[test]
fn a_resumed_start_keeps_what_ecs_asked_for() {
    let desired = model::desired(&["web"]);
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    let wait = plan.steps.iter().position(|p| p.step.awaited().is_some());
    for planned in &plan.steps[..wait.expect("waits")] {
        model::apply(&mut inventory, &desired, &planned.step).expect("applies");
    }
    let group = inventory.groups.get_mut("web").expect("web");
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        asg.desired = 3;
    }
    let resumed = planned(&desired, &inventory, Goal::Up);
    let open = Step::AutoScaling(AutoScalingStep::Update {
        name: "shop-dev-web-asg".into(),
        change: GroupChange {
            min: Some(1),
            desired: Some(3),
            ..GroupChange::default()
        },
    });
    assert!(resumed.steps.iter().any(|planned| planned.step == open));
}

#[test]
fn no_nodes_and_one_type_are_said_plainly() {
    let mut desired = model::desired(&["web"]);
    let wanted = &mut desired.groups[0].auto_scaling_group;
    (wanted.min, wanted.desired) = (0, 0);
    wanted.instance_types.push("m6i.xlarge".into());
    let plan = planned(&desired, &model::empty(&desired), Goal::Up);
    assert!(golden(&plan).contains("none yet"));
    let inventory = up(&desired);
    desired.groups[0].auto_scaling_group.instance_types.pop();
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(golden(&plan).contains("one type on demand, the template's"));
}

#[test]
fn a_share_of_spot_and_what_an_instance_is_made_of_are_said_and_written() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = &mut desired.groups[0];
    group.auto_scaling_group.spot = Some(Spot {
        percent: 70,
        on_demand_base: 2,
        allocation: SpotAllocation::CapacityOptimized,
    });
    let template = &mut group.launch_template;
    template.cpu_credits = Some(CpuCredits::Standard);
    template.detailed_monitoring = true;
    template.key_pair = Some("ops".into());
    template.security_groups.push("sg-1".into());
    template.root_volume = Volume {
        gib: 100,
        kind: VolumeKind::Io2,
        iops: Some(5_000),
        encrypted: true,
        kms_key: Some("alias/nodes".into()),
        ..Volume::default()
    };
    template.docker_volume = Some(Volume::default());
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!(golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    let again = planned(&desired, &inventory, Goal::Up);
    assert_eq!(again.steps, [], "{}", golden(&again));
}

#[test]
fn what_a_group_does_of_its_own_accord_is_said_and_written() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = &mut desired.groups[0].auto_scaling_group;
    group.metrics = true;
    group.max_lifetime_days = Some(30);
    group.deletion_protection = DeletionProtection::PreventAllDeletion;
    group.zone_distribution = ZoneDistribution::BalancedOnly;
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("own_accord", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let new = planned(&desired, &model::empty(&desired), Goal::Up);
    assert!(
        golden(&new).contains(
            "max lifetime 30 days, deletion protection prevent-all-deletion, zones balanced-only, metrics"
        ),
        "{}",
        golden(&new)
    );
    let plan = planned(&desired, &inventory, Goal::Down);
    assert!(golden(&plan).contains("deletion protection prevent-all-deletion is taken off"));
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
}

#[test]
fn a_warm_pool_comes_after_the_first_node_and_goes_before_the_others() {
    let mut desired = model::desired(&["web"]);
    desired.groups[0].auto_scaling_group.warm_pool = Some(WarmPool {
        min: 2,
        max_prepared: Some(12),
        state: WarmPoolState::Running,
    });
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("warm_pool", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    let pool = &mut desired.groups[0].auto_scaling_group.warm_pool;
    *pool = Some(WarmPool::default());
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(golden(&plan).contains("~ warm-pool"), "{}", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    let down = planned(&desired, &inventory, Goal::Down);
    assert!(golden(&down).contains("- warm-pool"), "{}", golden(&down));
    let mut gone = inventory.clone();
    apply_all(&desired, &mut gone, &down);
    assert!(model::is_empty(&gone));

    desired.groups[0].auto_scaling_group.warm_pool = None;
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(golden(&plan).contains("- warm-pool"), "{}", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn schedules_are_the_files_and_what_they_set_is_no_difference() {
    let mut desired = model::desired(&["web"]);
    let schedule = |min, max| Schedule {
        cron: "0 7 * * 1-5".into(),
        time_zone: "Europe/Berlin".into(),
        min,
        max,
        desired: None,
    };
    let schedules = &mut desired.groups[0].auto_scaling_group.schedules;
    schedules.insert("day".into(), schedule(Some(3), Some(20)));
    schedules.insert("night".into(), schedule(Some(0), None));
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    // Morning has come.
    let bounds = |inventory: &mut Inventory, min, max| {
        let group = inventory.groups.get_mut("web").expect("web");
        if let Presence::Owned(asg) = &mut group.auto_scaling_group {
            (asg.min, asg.max) = (min, max);
        }
    };
    bounds(&mut inventory, 3, 20);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    bounds(&mut inventory, 2, 21);
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(golden(&plan).contains("min 2 -> 1, max 21 -> 4"));
    apply_all(&desired, &mut inventory, &plan);

    let schedules = &mut desired.groups[0].auto_scaling_group.schedules;
    schedules.insert("day".into(), schedule(Some(4), None));
    schedules.remove("night");
    schedules.insert("noon".into(), schedule(None, Some(9)));
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("schedules", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn what_ecs_tells_of_a_cluster_and_where_tasks_go_is_written() {
    let mut desired = model::desired(&["web", "batch"]);
    let mut inventory = up(&desired);
    let cluster = &mut desired.cluster;
    cluster.container_insights = Some(ContainerInsights::Enhanced);
    cluster.execute_command_logging = Some(ExecuteCommandLogging {
        log_group: Some("/shop/exec".into()),
        s3_bucket: Some("shop-logs".into()),
        s3_prefix: Some("exec/".into()),
        ..ExecuteCommandLogging::default()
    });
    cluster.more_providers = vec!["FARGATE".into(), "FARGATE_SPOT".into()];
    let item = |provider: &str, weight, base| StrategyItem {
        provider: provider.into(),
        weight,
        base,
    };
    cluster.default_strategy = Some(vec![
        item("shop-dev-web-cp", 3, 1),
        item("shop-dev-batch-cp", 1, 0),
    ]);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("cluster", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    if let Presence::Owned(cluster) = &mut inventory.cluster {
        cluster.default_strategy.reverse();
    }
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let plan = planned(&desired, &inventory, Goal::Down);
    let put = Step::Ecs(EcsStep::PutClusterCapacityProviders {
        cluster: "shop-dev".into(),
        add: Vec::new(),
        remove: vec!["shop-dev-web-cp".into(), "shop-dev-batch-cp".into()],
        default_strategy: Some(Vec::new()),
    });
    assert!(plan.steps.iter().any(|planned| planned.step == put));
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
}

#[test]
fn what_bounds_a_role_and_is_attached_to_it_is_written() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let role = &mut desired.groups[0].role;
    role.permissions_boundary = Some("arn:boundary".into());
    role.managed_policies = vec!["arn:logs".into()];
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(
        golden(&plan).contains("permissions boundary none -> arn:boundary, attaches arn:logs"),
        "{}",
        golden(&plan)
    );
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let found = |inventory: &Inventory| {
        let role = inventory.groups["web"].role.owned().expect("made").clone();
        (role.permissions_boundary, role.attached_policies)
    };
    assert_eq!(
        found(&up(&desired)),
        found(&inventory),
        "made so, or brought to it"
    );
    desired.groups[0].role.permissions_boundary = None;
    let plan = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(found(&inventory).0, None);
}

#[test]
fn a_given_role_is_used_and_never_touched() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    desired.groups[0].given_role = Some("nodes".into());
    let told = |inventory: &Inventory| {
        let conflicts = plan(&desired, inventory, Goal::Up).expect_err("conflicts");
        conflicts[0].to_string()
    };
    assert_eq!(
        told(&inventory),
        "role nodes: does not exist: correct `role` in [groups.web]"
    );
    let give = |inventory: &mut Inventory, role| {
        inventory.groups.get_mut("web").expect("web").given_role = Some(role);
    };
    give(&mut inventory, Role::default());
    assert!(told(&inventory).contains("does not let ec2.amazonaws.com assume it"));
    let trusts = Role {
        trust_policy: json!({ "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "ec2.amazonaws.com" },
            "Action": "sts:AssumeRole",
        }] }),
        ..Role::default()
    };
    let of_ours = Role {
        tags: [("fleet:owner".to_owned(), "f-1".to_owned())].into(),
        ..trusts.clone()
    };
    give(&mut inventory, of_ours);
    assert!(told(&inventory).contains("is one that fleet made"));
    give(&mut inventory, trusts.clone());
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("given_role", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let plan = planned(&desired, &inventory, Goal::Down);
    let titles: Vec<String> = plan.steps.iter().map(|step| step.step.title()).collect();
    assert!(
        titles.contains(&"delete role shop-dev-web-role".to_owned()),
        "{titles:?}"
    );
    assert!(
        !titles.contains(&"delete role nodes".to_owned()),
        "{titles:?}"
    );
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
    let mut inventory = model::empty(&desired);
    give(&mut inventory, trusts);
    let plan = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(inventory.groups["web"].role, Presence::Absent);
}

#[test]
fn the_newest_image_is_taken_once_and_kept() {
    let mut desired = model::desired(&["web"]);
    let wanted = Image::Tagged {
        owner: "self".into(),
        tags: [("role".to_owned(), "node".to_owned())].into(),
    };
    desired.groups[0].launch_template.image = wanted.clone();
    let mut inventory = model::empty(&desired);
    let conflicts = plan(&desired, &inventory, Goal::Up).expect_err("there is none");
    assert_eq!(
        conflicts[0].to_string(),
        "image role=node of self: is no available x86_64 image that is not deprecated: correct `ami` in [groups.web]"
    );
    inventory
        .images
        .insert(wanted.clone(), model::image("ami-2"));
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(golden(&plan).contains("image ami-2"));
    apply_all(&desired, &mut inventory, &plan);
    inventory.images.insert(wanted, model::image("ami-3"));
    let again = planned(&desired, &inventory, Goal::Up);
    assert_eq!(again.steps, []);
    assert!(golden(&again).contains("image ami-2 kept, newer is ami-3"));
}

#[test]
fn an_image_that_is_not_fit_is_a_conflict_only_while_it_is_new() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let wanted = Image::Pinned("ami-9".into());
    desired.groups[0].launch_template.image = wanted.clone();
    let told = |desired: &Desired, inventory: &Inventory| {
        let found = plan(desired, inventory, Goal::Up).err().unwrap_or_default();
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    insta::assert_snapshot!(told(&desired, &inventory), @"image ami-9: does not exist in this region, or is not shared with this account: correct `ami` in [groups.web]");
    let unfit = crate::inventory::Image {
        architecture: Some("arm64".into()),
        is_deprecated: true,
        ..model::image("ami-9")
    };
    inventory.images.insert(wanted.clone(), unfit);
    insta::assert_snapshot!(told(&desired, &inventory), @r"
    image ami-9: is for arm64, and fleet-agent for x86_64: correct `ami` in [groups.web]
    image ami-9: is deprecated by its owner: name a newer one with `ami` in [groups.web]
    ");
    inventory
        .images
        .insert(wanted.clone(), model::image("ami-9"));
    let plan = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &plan);
    let deprecated = crate::inventory::Image {
        is_deprecated: true,
        ..model::image("ami-9")
    };
    inventory.images.insert(wanted, deprecated);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn all_conflicts_at_once() {
    let desired = model::desired(&["web", "batch"]);
    let mut inventory = up(&desired);
    inventory.cluster = Presence::Leaving;
    inventory.subnets.remove("subnet-b");
    let group = inventory.groups.get_mut("web").expect("web");
    group.security_group = Presence::Foreign("it carries no fleet:owner tag".into());
    group.auto_scaling_group = Presence::Absent;
    let conflicts = plan(&desired, &inventory, Goal::Up).expect_err("conflicts");
    let lines: Vec<String> = conflicts.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn down_from_everything() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    if let Presence::Owned(cluster) = &mut inventory.cluster {
        cluster.workload.services = vec!["api".into()];
        cluster.workload.standalone_tasks = vec!["arn:task/1".into()];
        cluster.workload.tasks = 4;
        cluster.workload.container_instances = 2;
    }
    let plan = planned(&desired, &inventory, Goal::Down);
    insta::assert_snapshot!(golden(&plan));
}

/// An environment with `web` and `batch`, of which `batch` left the file.
fn batch_removed() -> (Desired, Inventory) {
    let mut desired = model::desired(&["web", "batch"]);
    let mut inventory = up(&desired);
    inventory.removed = desired.groups.split_off(1);
    (desired, inventory)
}

#[test]
fn up_stops_before_a_group_that_left_the_file() {
    let (desired, inventory) = batch_removed();
    let conflicts = plan(&desired, &inventory, Goal::Up).expect_err("conflicts");
    assert_eq!(
        conflicts[0].to_string(),
        "group batch: is no longer in fleet.toml, but exists: put it back, or run `down`"
    );
    assert_eq!(conflicts.len(), 1);
}

#[test]
fn down_removes_a_group_that_left_the_file_like_any_other() {
    let (desired, mut inventory) = batch_removed();
    if let Presence::Owned(cluster) = &mut inventory.cluster {
        cluster.providers.push("FARGATE".to_owned());
    }
    let plan = planned(&desired, &inventory, Goal::Down);
    let put = Step::Ecs(EcsStep::PutClusterCapacityProviders {
        cluster: "shop-dev".into(),
        add: Vec::new(),
        remove: vec!["shop-dev-web-cp".into(), "shop-dev-batch-cp".into()],
        default_strategy: Some(Vec::new()),
    });
    assert!(
        plan.steps.iter().any(|planned| planned.step == put),
        "others' providers are kept"
    );
    insta::assert_snapshot!(golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
}

/// What `collect` finds of groups that are not in the file: by what they are launched from, and by their
/// providers on the cluster.
fn found_again(inventory: &mut Inventory, batch: &crate::desired::Group) {
    let found = &inventory.groups["batch"];
    let attached = inventory.cluster.owned().is_some_and(|cluster| {
        let provider = &batch.capacity_provider.name;
        found.capacity_provider.owned().is_some() && cluster.providers.contains(provider)
    });
    let is_found = attached
        || found.auto_scaling_group.owned().is_some()
        || found.launch_template.owned().is_some();
    inventory.removed = is_found.then(|| batch.clone()).into_iter().collect();
    if !is_found {
        let left = inventory.groups.remove("batch").expect("batch");
        assert_eq!(
            left,
            crate::inventory::Group::default(),
            "nobody knows of it"
        );
    }
}

#[test]
fn a_group_that_left_the_file_is_never_lost_sight_of() {
    let (desired, whole) = batch_removed();
    let batch = whole.removed[0].clone();
    let steps = planned(&desired, &whole, Goal::Down).steps;
    for cut in 0..=steps.len() {
        let mut inventory = whole.clone();
        let apply = |inventory: &mut Inventory, step: &Planned| {
            let all = Desired {
                groups: [&desired.groups[..], std::slice::from_ref(&batch)].concat(),
                ..desired.clone()
            };
            model::apply(inventory, &all, &step.step).expect("works");
        };
        for step in &steps[..cut] {
            apply(&mut inventory, step);
        }
        found_again(&mut inventory, &batch);
        for step in planned(&desired, &inventory, Goal::Down).steps {
            apply(&mut inventory, &step);
        }
        assert!(model::is_empty(&inventory), "cut after {cut}");
    }
}

#[test]
fn down_stops_before_a_cluster_that_others_use() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    if let Presence::Owned(cluster) = &mut inventory.cluster {
        let others = ["FARGATE", "somebodys"].map(str::to_owned);
        cluster.providers.extend(others);
    }
    let found = plan(&desired, &inventory, Goal::Down).expect_err("others");
    insta::assert_snapshot!(found[0].to_string(), @"cluster shop-dev: others have capacity providers on it, whose services would go with it: have them leave it (`aws ecs put-cluster-capacity-providers`), then run `down` again: somebodys");
    assert_eq!(found.len(), 1);
}

#[test]
fn schedules_go_before_the_nodes() {
    let desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        let schedule = crate::inventory::Schedule::default();
        asg.schedules = [("nightly".to_owned(), schedule)].into();
    }
    let plan = planned(&desired, &inventory, Goal::Down);
    let told = golden(&plan);
    assert!(
        told.contains("remove schedule nightly of shop-dev-web"),
        "{told}"
    );
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
}

#[test]
fn down_from_nothing_and_beside_what_is_not_ours() {
    let desired = model::desired(&["web"]);
    let mut inventory = model::empty(&desired);
    assert_eq!(planned(&desired, &inventory, Goal::Down).steps, []);
    let group = inventory.groups.get_mut("web").expect("web");
    group.auto_scaling_group = Presence::Foreign("it carries no fleet:owner tag".into());
    inventory.cluster = Presence::Foreign("it carries no fleet:owner tag".into());
    let plan = planned(&desired, &inventory, Goal::Down);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.count(Mark::Adopted), 3, "{}", golden(&plan));
}
