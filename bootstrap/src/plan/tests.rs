//! What plans look like, and that following them leads where they say.

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
        cluster.providers.push("somebodys".to_owned());
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

/// An environment with these groups in somebody else's cluster, and nothing of it there yet.
fn adopted(groups: &[&str]) -> (Desired, Inventory) {
    let mut desired = model::desired(groups);
    model::adopting(&mut desired);
    let mut inventory = model::empty(&desired);
    let mut given = model::others_cluster(&["FARGATE", "theirs"]);
    given.default_strategy = vec![StrategyItem {
        provider: "theirs".into(),
        weight: 2,
        base: 1,
    }];
    inventory.given_cluster = Some(given);
    (desired, inventory)
}

fn given(inventory: &mut Inventory) -> &mut Cluster {
    inventory.given_cluster.as_mut().expect("adopted")
}

#[test]
fn an_adopted_cluster_gets_our_providers_and_loses_them_and_nothing_else() {
    let (desired, mut inventory) = adopted(&["web"]);
    let before = inventory.given_cluster.clone();
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("adopted_up", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(
        given(&mut inventory).providers,
        ["FARGATE", "theirs", "shop-dev-web-cp"]
    );
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    // Its owner goes on with it.
    given(&mut inventory).settings = ClusterSettings::default();
    given(&mut inventory).default_strategy.clear();
    given(&mut inventory).providers.insert(0, "new".into());
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    inventory.given_cluster = before.clone();
    given(&mut inventory)
        .providers
        .push("shop-dev-web-cp".into());

    inventory.tenancy.service_tasks = [("api".to_owned(), 3), ("job".to_owned(), 1)].into();
    inventory.tenancy.standalone_tasks = 2;
    let plan = planned(&desired, &inventory, Goal::Down);
    insta::assert_snapshot!("adopted_down", golden(&plan));
    assert_eq!(plan.tenants(), Some("3 of api, 1 of job, 2 of no service"));
    apply_all(&desired, &mut inventory, &plan);
    assert!(model::is_empty(&inventory));
    assert_eq!(inventory.given_cluster, before);
    inventory.tenancy = Tenancy::default();
    assert_eq!(planned(&desired, &inventory, Goal::Down).steps, []);
}

/// The checker is what proves it of every plan, so it has to see it.
#[test]
fn the_checker_sees_what_must_not_become_of_an_adopted_cluster() {
    let (desired, mut inventory) = adopted(&["web"]);
    let up = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &up);
    let main = || "main".to_owned();
    let put = |add: &[&str], remove: &[&str], default_strategy| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        EcsStep::PutClusterCapacityProviders {
            cluster: main(),
            add: names(add),
            remove: names(remove),
            default_strategy,
        }
    };
    let wrong = |step: Step| {
        let mut plan = Plan::empty(Goal::Down);
        let after = Vec::new();
        plan.steps.push(Planned { step, after });
        !check(&plan, &desired, &inventory).is_empty()
    };
    assert!(!wrong(put(&[], &["shop-dev-web-cp"], None).into()));
    assert!(!wrong(put(&["shop-dev-web-cp"], &[], None).into()));
    let settings = ClusterSettings::default();
    for step in [
        put(&[], &["shop-dev-web-cp", "theirs"], None),
        put(&["somebodys"], &[], None),
        put(&[], &["shop-dev-web-cp"], Some(Vec::new())),
        EcsStep::DeleteCluster { name: main() },
        EcsStep::UpdateCluster {
            name: main(),
            settings,
        },
        EcsStep::DeleteService {
            cluster: main(),
            service: "api".into(),
        },
        EcsStep::StopTasks {
            cluster: main(),
            tasks: Vec::new(),
        },
        EcsStep::DeregisterContainerInstances { cluster: main() },
        EcsStep::DeleteCapacityProvider {
            name: "theirs".into(),
        },
    ] {
        assert!(wrong(step.clone().into()), "{step:?}");
    }
    let tag = Step::Tag {
        resource: Taggable::Ecs(given(&mut inventory.clone()).arn.clone()),
        tags: BTreeMap::new(),
    };
    assert!(wrong(tag));
}

#[test]
fn another_fleets_cluster_is_adopted_by_name_and_its_owner_is_told() {
    let (desired, mut inventory) = adopted(&["web"]);
    let owner = ("fleet:owner".to_owned(), "f-2".to_owned());
    given(&mut inventory).tags.extend([owner]);
    let plan = planned(&desired, &inventory, Goal::Up);
    assert!(
        golden(&plan).contains("never changed, with FARGATE theirs, though it is owned by f-2"),
        "{}",
        golden(&plan)
    );
}

#[test]
fn what_an_adopted_cluster_must_be_for_up() {
    let (desired, mut inventory) = adopted(&["web", "batch"]);
    let told = |inventory: &Inventory| {
        let found = plan(&desired, inventory, Goal::Up).expect_err("conflicts");
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    let cluster = inventory.given_cluster.take();
    insta::assert_snapshot!(told(&inventory), @"cluster main: there is none in eu-central-1: correct `adopt` in [cluster], or take it out to have one made");
    inventory.given_cluster = cluster;
    "DEPROVISIONING".clone_into(&mut given(&mut inventory).status);
    given(&mut inventory).providers = (0..19).map(|n| format!("theirs-{n}")).collect();
    let own = model::others_cluster(&[]);
    inventory.cluster = Presence::Owned(own);
    insta::assert_snapshot!(told(&inventory), @r"
    cluster shop-dev: is this environment's own, and would be left behind for main: take `adopt` out of [cluster], run `down`, then put it back
    cluster main: is DEPROVISIONING, and nodes join only one that is ACTIVE: correct `adopt` in [cluster]
    cluster main: has 19 capacity providers, and the groups would be 2 more: ECS takes at most 20
    ");

    // What is on it fits, however many they are.
    inventory.cluster = Presence::Absent;
    let cluster = given(&mut inventory);
    "ACTIVE".clone_into(&mut cluster.status);
    let ours = ["shop-dev-web-cp", "shop-dev-batch-cp"].map(str::to_owned);
    cluster.providers.extend(ours);
    let _ = planned(&desired, &inventory, Goal::Up);

    // One of our name that is not ours is nobody's business, unless it is the one that is named.
    let (mut desired, mut inventory) = adopted(&["web"]);
    inventory.cluster = Presence::Foreign("it carries no fleet:owner tag".into());
    let _ = planned(&desired, &inventory, Goal::Up);
    inventory.cluster = Presence::Owned(model::others_cluster(&[]));
    desired.cluster.name.clone_from(&desired.cluster.own_name);
    let found = plan(&desired, &inventory, Goal::Up).expect_err("its own");
    insta::assert_snapshot!(found[0].to_string(), @"cluster shop-dev: is this environment's own, and goes with it at `down`: take `adopt` out of [cluster]");
    assert_eq!(
        plan(&desired, &inventory, Goal::Down).expect_err("its own"),
        found
    );
}

#[test]
fn down_leaves_to_the_owner_of_an_adopted_cluster_what_only_he_can_decide() {
    let (desired, mut inventory) = adopted(&["web"]);
    let up = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &up);
    let bound = &mut inventory.tenancy.bound;
    bound.insert("theirs".into(), ["web".to_owned()].into());
    let _ = planned(&desired, &inventory, Goal::Down);
    let bound = &mut inventory.tenancy.bound;
    let services = ["api".to_owned(), "job".to_owned()];
    bound.insert("shop-dev-web-cp".into(), services.into());
    given(&mut inventory).default_strategy.push(StrategyItem {
        provider: "shop-dev-web-cp".into(),
        weight: 1,
        base: 0,
    });
    let found = plan(&desired, &inventory, Goal::Down).expect_err("conflicts");
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    cluster main: its default strategy names capacity provider shop-dev-web-cp, and where its tasks go is its owner's to say: take it out (`aws ecs put-cluster-capacity-providers`), then run `down` again
    cluster main: services name capacity provider shop-dev-web-cp in their strategy, and ECS does not take it away from under them: give them another (`aws ecs update-service --capacity-provider-strategy`), or delete them, then run `down` again: api, job
    ");
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
}

#[test]
fn a_group_that_left_the_file_is_found_in_an_adopted_cluster_too() {
    let (mut desired, mut inventory) = adopted(&["web", "batch"]);
    let before = inventory.given_cluster.clone();
    let up = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &up);
    inventory.removed = desired.groups.split_off(1);
    let found = plan(&desired, &inventory, Goal::Up).expect_err("conflicts");
    assert!(found[0].to_string().contains("no longer in fleet.toml"));
    let down = planned(&desired, &inventory, Goal::Down);
    apply_all(&desired, &mut inventory, &down);
    assert!(model::is_empty(&inventory));
    assert_eq!(inventory.given_cluster, before);
}

#[test]
fn an_adopted_cluster_that_is_gone_is_no_obstacle_for_down() {
    let (desired, mut inventory) = adopted(&["web"]);
    let up = planned(&desired, &inventory, Goal::Up);
    apply_all(&desired, &mut inventory, &up);
    inventory.given_cluster = None;
    let down = planned(&desired, &inventory, Goal::Down);
    assert!(golden(&down).contains("is not there"), "{}", golden(&down));
    apply_all(&desired, &mut inventory, &down);
    assert!(model::is_empty(&inventory));
}

#[test]
fn nodes_that_joined_another_cluster_stop_either_way() {
    let inventory = up(&of_file(""));
    let adopts = "[environments.dev.cluster]\nadopt = \"main\"\n";
    let unset = "[environments.dev]\nunset = [\"cluster\"]";
    let text = include_str!("../../tests/fleet.toml").replace("[environments.dev]", unset);
    let spec = crate::spec::FleetFile::new("fleet.toml", format!("{text}\n{adopts}")).spec("dev");
    let mut desired = crate::desired::build(&spec.expect("valid")).expect("builds");
    desired.network = model::desired(&[]).network;
    for goal in [Goal::Up, Goal::Down] {
        let mut inventory = inventory.clone();
        inventory.given_cluster = Some(model::others_cluster(&[]));
        let found = plan(&desired, &inventory, goal).expect_err("conflicts");
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        let told = lines.join("\n");
        assert!(
            told.contains(
                "cluster shop-dev: is this environment's own, and would be left behind for main"
            ),
            "{told}"
        );
        assert!(told.contains("auto scaling group shop-dev-web: its nodes join cluster shop-dev, and not main: put"), "{told}");
        // And after that cluster was deleted by hand.
        inventory.cluster = Presence::Absent;
        let found = plan(&desired, &inventory, goal).expect_err("conflicts");
        assert!(
            found
                .iter()
                .any(|one| one.to_string().contains("its nodes join cluster shop-dev"))
        );
    }
}

/// Somebody else's cluster, with whatever on it.
fn others() -> impl Strategy<Value = Cluster> {
    const PROVIDERS: &[&str] = &[
        "FARGATE",
        "FARGATE_SPOT",
        "theirs",
        "shop-dev-webs",
        "dev-web-cp",
    ];
    let providers = proptest::sample::subsequence(PROVIDERS, 0..=PROVIDERS.len());
    (providers, any::<bool>()).prop_map(|(providers, has_strategy)| {
        let mut cluster = model::others_cluster(&providers);
        let first = cluster.providers.first().filter(|_| has_strategy).cloned();
        let item = |provider| StrategyItem {
            provider,
            weight: 1,
            base: 0,
        };
        cluster.default_strategy = first.map(item).into_iter().collect();
        cluster
    })
}

/// A cluster without the providers that belong to these environments.
fn without(cluster: Option<&Cluster>, environments: &[&Desired]) -> Option<Cluster> {
    let mut cluster = cluster?.clone();
    let is_theirs = |name: &String| {
        let mut groups = environments.iter().flat_map(|desired| &desired.groups);
        groups.any(|group| group.capacity_provider.name == *name)
    };
    cluster.providers.retain(|name| !is_theirs(name));
    Some(cluster)
}

/// Steps such as a file could have.
fn steps(above: u32) -> Scaling {
    let step = |percent, nodes| LadderStep { percent, nodes };
    Scaling::Steps(StepScaling {
        out: Ladder {
            minutes: 2,
            steps: vec![step(above, 1), step(90, 3)],
        },
        inward: Ladder {
            minutes: 15,
            steps: vec![step(30, 1)],
        },
        warmup_seconds: 300,
    })
}

#[test]
fn steps_come_in_the_place_of_managed_scaling_and_go_for_it() {
    let mut desired = model::desired(&["web"]);
    let managed = desired.groups[0].scaling.clone();
    desired.groups[0].scaling = steps(75);
    let mut inventory = model::empty(&desired);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    let again = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_again", golden(&again));
    assert_eq!(again.steps, []);
    let nodes = |inventory: &Inventory, is_protected: bool| {
        let asg = inventory.groups["web"].auto_scaling_group.owned();
        let asg = asg.expect("there").clone();
        let all = asg
            .instances
            .iter()
            .all(|node| node.protected == is_protected);
        all && asg.new_instances_protected == is_protected
    };
    assert!(nodes(&inventory, false));

    desired.groups[0].scaling = steps(80);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_changed", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);

    let down = planned(&desired, &inventory, Goal::Down);
    let mut gone = inventory.clone();
    apply_all(&desired, &mut gone, &down);
    assert!(golden(&down).contains("- alarm"), "{}", golden(&down));
    assert!(model::is_empty(&gone));

    desired.groups[0].scaling = managed;
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_ended", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    assert!(nodes(&inventory, true));
    assert_eq!(inventory.groups["web"].alarms, [].into());

    desired.groups[0].scaling = steps(75);
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_begun", golden(&plan));
    apply_all(&desired, &mut inventory, &plan);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    assert!(nodes(&inventory, false));
}

#[test]
fn what_somebody_else_did_to_steps_is_taken_back() {
    let mut desired = model::desired(&["web"]);
    desired.groups[0].scaling = steps(75);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    if let Some(Presence::Owned(alarm)) = group.alarms.get_mut(&Direction::Out) {
        alarm.settings.is_enabled = false;
        alarm.settings.cluster = None;
        alarm.settings.minutes = 5;
        alarm.tags.insert("fleet:name".into(), "other".into());
        alarm.actions.push("arn:sns".into());
    }
    if let Presence::Owned(asg) = &mut group.auto_scaling_group {
        asg.scaling_policies.remove(&Direction::In);
        let out = asg
            .scaling_policies
            .get_mut(&Direction::Out)
            .expect("there");
        out.settings.warmup_seconds = None;
        out.settings.steps.pop();
        asg.instances[1].protected = true;
    }
    let plan = planned(&desired, &inventory, Goal::Up);
    insta::assert_snapshot!("step_scaling_touched", golden(&plan));
    // The model's tags are of what has ARNs of its own.
    let retag = |step: &Step| matches!(step, Step::Tag { .. });
    for step in plan.steps.iter().filter(|planned| !retag(&planned.step)) {
        model::apply(&mut inventory, &desired, &step.step).expect("works");
    }
    let rest = planned(&desired, &inventory, Goal::Up);
    assert!(
        rest.steps.iter().all(|planned| retag(&planned.step)),
        "{}",
        golden(&rest)
    );
}

#[test]
fn an_alarm_of_somebody_else_s_stands_in_the_way_of_steps_alone() {
    let mut desired = model::desired(&["web"]);
    let mut inventory = up(&desired);
    let group = inventory.groups.get_mut("web").expect("web");
    let foreign = Presence::Foreign("it carries no fleet:owner tag".into());
    group.alarms.insert(Direction::In, foreign);
    assert_eq!(planned(&desired, &inventory, Goal::Up).steps, []);
    let down = planned(&desired, &inventory, Goal::Down);
    assert!(!golden(&down).contains("remove alarm"), "{}", golden(&down));
    desired.groups[0].scaling = steps(75);
    let conflicts = plan(&desired, &inventory, Goal::Up).expect_err("not ours");
    let told = conflicts[0].to_string();
    assert!(
        told.starts_with("alarm shop-dev-web-fleet-scale-in: exists and is not"),
        "{told}"
    );
}

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
        let mut inventory = model::empty(&desired);
        inventory.given_cluster.clone_from(&given);
        let managed = Scaling::Managed { target_capacity: 100 };
        for (goes_up, count) in cuts {
            if changes_its_mind {
                for group in &mut desired.groups {
                    group.scaling = match group.scaling {
                        Scaling::Managed { .. } => steps(60),
                        Scaling::Steps(_) => managed.clone(),
                    };
                }
            }
            let goal = if goes_up { Goal::Up } else { Goal::Down };
            // A provider whose group `down` was killed after deleting is refused, with advice.
            let Ok(plan) = plan(&desired, &inventory, goal) else { continue };
            prop_assert_eq!(check(&plan, &desired, &inventory), [""; 0]);
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
        let last = planned(&desired, &inventory, goal);
        for step in &last.steps {
            model::apply(&mut inventory, &desired, &step.step).map_err(TestCaseError::fail)?;
        }
        prop_assert_eq!(planned(&desired, &inventory, goal).steps, []);
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
