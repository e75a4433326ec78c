//! Environments in a cluster that others own.

use super::*;

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
    let text = include_str!("../../../tests/fleet.toml").replace("[environments.dev]", unset);
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
pub(super) fn others() -> impl Strategy<Value = Cluster> {
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
pub(super) fn without(cluster: Option<&Cluster>, environments: &[&Desired]) -> Option<Cluster> {
    let mut cluster = cluster?.clone();
    let is_theirs = |name: &String| {
        let mut groups = environments.iter().flat_map(|desired| &desired.groups);
        groups.any(|group| group.capacity_provider.name == *name)
    };
    cluster.providers.retain(|name| !is_theirs(name));
    Some(cluster)
}
