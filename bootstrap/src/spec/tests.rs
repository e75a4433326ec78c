use std::fmt::Write as _;

use super::*;

const FILE: &str = include_str!("../../tests/fleet.toml");

fn problems_in(text: &str, environment: &str) -> String {
    match FleetFile::new("fleet.toml", text).spec(environment) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The example file with one part replaced.
fn problems_with(old: &str, new: &str) -> String {
    assert!(FILE.contains(old), "{old}");
    problems_in(&FILE.replacen(old, new, 1), "dev")
}

#[test]
fn the_example_is_valid_in_each_environment() {
    let file = FleetFile::new("fleet.toml", FILE);
    assert_eq!(file.environments().expect("TOML"), ["dev", "prod"]);
    let dev = file.spec("dev").expect("valid");
    let prod = file.spec("prod").expect("valid");
    assert_eq!(dev.warnings, []);
    assert_eq!(dev.groups[0].name, "batch");
    assert_eq!(dev.groups[0].line, 49);
    assert_eq!(dev.groups[0].sidecars.len(), 1);
    assert_eq!(dev.groups[0].tags["cost-centre"], "43");
    assert_eq!((dev.groups[1].min, dev.groups[1].desired), (1, 2));
    assert_eq!(dev.groups[1].sidecars.len(), 2);
    assert_eq!(prod.groups[1].min, 2, "laid over");
}

#[test]
fn each_mistake_has_its_message() {
    let mut table = String::new();
    for (old, new) in [
        ("[fleet]", "[fleet"),
        ("name = \"shop\"", "name = 3"),
        ("name = \"shop\"", "nmae = \"shop\""),
        ("name = \"shop\"", "name = \"ecs-shop\""),
        ("name = \"shop\"", "name = \"sg\""),
        ("name = \"shop\"", "name = \"my shop\""),
        ("region = \"eu-central-1\"", "region = \"eu-central-1a\""),
        ("id = \"f-0123456789abcdef\"", "id = \"f-1\""),
        ("account = \"123456789012\"", "account = \"1234\""),
        ("account = \"123456789012\"", "account = 123456789012"),
        ("vpc = \"vpc-0123456789abcdef0\"", ""),
        ("\"subnet-0123456789abcdef1\"", "\"sbnet-1\""),
        (
            "\"subnet-0123456789abcdef1\"",
            "\"subnet-0123456789abcdef0\"",
        ),
        ("tags = { purpose = \"the shop\" }", "adopt = \"main\""),
        (
            "tags = { purpose = \"the shop\" }",
            "adopt = \"arn:aws:ecs:eu-central-1:cluster/main\"",
        ),
        ("\"enhanced\"", "true"),
        ("s3_prefix = \"exec/\"", "s3_prefx = \"exec/\""),
        ("s3_bucket = \"shop-logs\"", "s3_encrypted = true"),
        ("base = 1", "base = -1"),
        ("{ group = \"batch\" }", "{ group = \"bach\" }"),
        ("{ group = \"batch\" }", "{ provider = \"FARGATE\" }"),
        ("purpose =", "\"aws:purpose\" ="),
        ("cost-centre = \"42\"", "\"cost centre\" = \"42\""),
        ("cost-centre = \"42\"", "db-password = \"hunter2\""),
        (
            "cost-centre = \"42\"",
            "cost-centre = \"AKIAIOSFODNN7EXAMPLE\"",
        ),
        ("https://example.com", "http://example.com"),
        ("https://example.com", "https://me:pw@example.com"),
        ("sha256 = \"abab", "sha256 = \"ab"),
        (
            "launch_timeout_seconds = 900",
            "launch_timeout_seconds = 10",
        ),
        ("launch_timeout_seconds = 900", "drain_timeout_seconds = 30"),
        ("[groups.web]", "[groups.\"web nodes\"]"),
        ("\"m7a.large\"", "\"m7g.large\""),
        ("\"m7a.large\"", "\"m7i.large\""),
        ("[\"m7i.large\", \"m7a.large\"]", "[]"),
        ("[\"m7i.large\", \"m7a.large\"]", "\"m7i.large\""),
        ("min = 1", ""),
        ("min = 1", "min = -1"),
        ("min = 1", "min = 7"),
        ("max = 6", ""),
        ("max = 6", "max = 0"),
        ("desired = 2", "desired = 9"),
        ("deadline_seconds = 1800", "deadline_seconds = 99999"),
        (
            "[groups.web.drain]\ndeadline_seconds = 1800",
            "drain_deadline_seconds = 1800\n[groups.web.drain]",
        ),
        ("deadline_seconds = 1800", "deadline_second = 1800"),
        ("deadline_seconds = 1800", "deadline_seconds = 300"),
        ("rebalance = \"drain\"", "rebalance = \"replace\""),
        (
            "maintenance_lead_seconds = 600",
            "maintenance_lead_seconds = 5",
        ),
        ("maintenance_lead_seconds = 600", "deadline_seconds = 500"),
        ("policy = \"stop\"", ""),
        ("policy = \"stop\"", "policy = \"wait\""),
        ("policy = \"stop\"", "policy = \"kill\""),
        ("after_seconds = 600", "after_seconds = 3600"),
        (
            "[drain.standalone.nightly]",
            "[drain.standalone.\"night ly\"]",
        ),
        ("impaired = \"drain\"", "standalone.nightly = {}"),
        (
            "flush_signal = \"SIGUSR1\"",
            "flush_signal = \"SIGUSR1\"\nstop_timeout_seconds = 46",
        ),
        ("flush_timeout_seconds = 15", "flush_timeout_seconds = 45"),
        ("flush_signal = \"SIGUSR1\"", "flush_signal = \"SIGKILL\""),
        ("flush_signal = \"SIGUSR1\"", ""),
        ("ECS_LOGLEVEL = \"warn\"", "ECS_LOGLEVEL = \"loud\""),
        ("ECS_LOGLEVEL = \"warn\"", "ECS_LOGLEVL = \"warn\""),
        ("ECS_LOGLEVEL = \"warn\"", "ECS_CLUSTER = \"other\""),
        ("ECS_LOGLEVEL = \"warn\"", "ECS_ENGINE_AUTH_DATA = \"{}\""),
        (
            "ECS_LOGLEVEL = \"warn\"",
            "HTTP_PROXY = \"http://me:pw@proxy:3128\"",
        ),
        ("ami = \"ami-0123456789abcdef0\"", "ami = \"al2023\""),
        (
            "ami = \"ami-0123456789abcdef0\"",
            "ami = { family = \"al2023\", tag = \"x\" }",
        ),
        ("ami = \"ami-0123456789abcdef0\"", "ami = 2023"),
        ("size_gib = 100", "size_gib = 8"),
        (
            "docker_volume = { size_gib = 200",
            "docker_volume = { size_gib = 4",
        ),
        ("type = \"io2\"", "type = \"st1\""),
        ("iops = 5000", "iops = \"many\""),
        ("key_pair = \"ops\"", "key_pair = \"\""),
        (
            "security_groups = [\"sg-0123456789abcdef0\"]",
            "security_groups = [\"default\"]",
        ),
        ("detailed_monitoring = true", "cpu_credits = \"standard\""),
        ("percent = 70", "percent = 101"),
        ("percent = 70, ", ""),
        ("\"capacity-optimized\"", "\"cheapest\""),
        (
            "arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy",
            "CloudWatchAgentServerPolicy",
        ),
        (
            "arn:aws:iam::123456789012:policy/boundary",
            "arn:aws:iam::123456789012:role/boundary",
        ),
        ("metrics = true", "role = \"nodes\""),
        ("detailed_monitoring = true", "role = \"/nodes\""),
        ("max_lifetime_days = 30", "max_lifetime_days = 366"),
        ("\"prevent-force-deletion\"", "true"),
        ("state = \"running\"", "state = \"hibernated\""),
        ("max_prepared = 12", "max_prepare = 12"),
        ("metrics = true", "spot = { percent = 50 }"),
        ("cron = \"0 7 * * 1-5\"", "cron = \"7:00\""),
        (
            "time_zone = \"Europe/Berlin\", min = 4",
            "time_zone = \"Europe/Berlin\"",
        ),
        ("\"balanced-only\"", "\"balanced\""),
        ("target_capacity = 80", "target_capacity = 101"),
        ("[\"node-logs\"]", "[\"nodelogs\"]"),
        (
            "image = \"example.com/metrics:2\"",
            "image = \"example.com/metrics\"",
        ),
        ("network = \"host\"", "network = \"none\""),
        ("network = \"host\"", "env = { API_KEY = \"x\" }"),
        ("rebalance = \"drain\"", "rebalance = \"drian\""),
        ("type = \"io2\"", "type = \"io3\""),
        ("policy = \"stop\"", "polcy = \"stop\""),
        ("percent = 70", "precent = 70"),
        ("size_gib = 100", "size_gb = 100"),
        ("min = 1", "min = 1\nuser_data = \"none.sh\""),
        (
            "[environments.dev]",
            "[environments.dev]\nunset = [\"groups.web.spott\"]",
        ),
        (
            "[environments.dev]",
            "[environments.dev]\nunset = \"groups.web.spot\"",
        ),
        ("[environments.dev]", "[environments.dev.group.web]"),
        ("[environments.dev]", "[environments.dev.environments.more]"),
        ("[environments.prod.", "[environment.prod."),
        ("[environments.dev]", "[environments]\ndev = true"),
        (
            "[environments.dev]",
            "[environments.\"d e v\"]\n[environments.dev]",
        ),
    ] {
        let _ = writeln!(table, "{old}  =>  {new}\n{}\n", problems_with(old, new));
    }
    insta::assert_snapshot!("mistakes", table);
}

/// Auto Scaling ends a hook after a hundred time-outs, whatever the node still does.
#[test]
fn a_deadline_longer_than_the_hook_can_be_kept_open_is_refused() {
    let with = |timeout: u32| {
        let text = FILE
            .replace(
                "launch_timeout_seconds = 900",
                &format!("drain_timeout_seconds = {timeout}"),
            )
            .replace("deadline_seconds = 1800", "deadline_seconds = 3600");
        problems_in(&text, "dev")
    };
    assert_eq!(with(36), "ok");
    let problems = with(35);
    assert_eq!(problems.lines().count(), 2, "{problems}");
    assert!(
        problems.contains(
            "groups.web.drain.deadline_seconds: must be 1 to 3500: Auto Scaling holds a hook of 35 s no longer"
        ),
        "{problems}"
    );
}

#[test]
fn an_environment_overrides_how_nodes_leave() {
    let text = format!(
        "{FILE}\n[environments.prod.drain]\nmaintenance_lead_seconds = 120\n\
         [environments.prod.groups.web.drain]\ndeadline_seconds = 700\n"
    );
    let file = FleetFile::new("fleet.toml", text);
    let of = |environment: &str| file.spec(environment).expect("valid").groups;
    let (dev, prod) = (of("dev"), of("prod"));
    assert_eq!(dev[1].drain.deadline_seconds, Some(1_800));
    assert_eq!(prod[1].drain.deadline_seconds, Some(700));
    assert_eq!(prod[1].drain.rebalance, dev[1].drain.rebalance);
    assert_eq!(prod[0].drain.maintenance_lead_seconds, Some(120));
    assert_eq!(prod[0].drain.standalone.len(), 1, "inherited");
}

#[test]
fn an_environment_takes_out_what_all_others_have() {
    let text = format!(
        "{FILE}\n[environments.spare]\n\
         unset = [\"groups.batch\", \"cluster.default_strategy\", \"groups.web.spot\", \"groups.web.ecs.ECS_LOGLEVEL\", \"fleet.account\"]\n\
         [environments.spare.groups.web.spot]\npercent = 10\n"
    );
    let file = FleetFile::new("fleet.toml", text);
    let spare = file.spec("spare").expect("valid");
    assert_eq!(spare.groups.len(), 1);
    assert_eq!(spare.account, None);
    assert_eq!(spare.groups[0].ecs.len(), 0);
    let spot = spare.groups[0].spot.expect("its own");
    assert_eq!(
        (spot.percent, spot.on_demand_base),
        (10, 0),
        "nothing is left of the shared table"
    );
    assert_eq!(file.spec("dev").expect("valid").groups.len(), 2);
}

#[test]
fn all_mistakes_are_reported_at_once_by_line() {
    let text = FILE
        .replace("name = \"shop\"", "name = \"\"")
        .replace("vpc = \"vpc-0123456789abcdef0\"\n", "")
        .replace("max = 6", "max = \"six\"")
        .replace("target_capacity", "target_capcity")
        .replace("ECS_LOGLEVEL = \"warn\"", "ECS_LOGLEVEL = \"loud\"")
        .replace("image = \"example.com/metrics:2\"\n", "");
    insta::assert_snapshot!("all_at_once", problems_in(&text, "dev"));
}

#[test]
fn an_empty_file_says_what_is_needed() {
    insta::assert_snapshot!("empty", problems_in("", ""));
}

#[test]
fn an_unknown_environment_names_the_known_ones() {
    assert_eq!(
        problems_in(FILE, "staging"),
        "fleet.toml: has no environment `staging`: it has dev, prod"
    );
}

#[test]
fn a_mistake_in_an_environment_is_found_where_it_stands() {
    let text = FILE.replace("min = 2", "min = 9");
    assert_eq!(problems_in(&text, "dev"), "ok");
    assert_eq!(
        problems_in(&text, "prod"),
        "fleet.toml:85: groups.web.min: 9 is above max, 6"
    );
}

/// Without what says where in a file it stood.
fn said(mut spec: Spec) -> Spec {
    spec.file.clear();
    spec.warnings.clear();
    for group in &mut spec.groups {
        group.line = 0;
    }
    spec
}

#[test]
fn the_full_file_says_the_same_and_is_its_own_full_file() {
    let least = "fleet = { name = \"s\", region = \"eu-central-1\", id = \"f-0123456789abcdef\" }\n\
                 network = { vpc = \"vpc-01234567\", subnets = [\"subnet-01234567\"] }\n\
                 sidecars.a = { image = \"a:1\", ports = [\"90:90/tcp\"], flush_signal = \"SIGHUP\" }\n\
                 drain.standalone.\"*\".policy = \"stop\"\n\
                 groups.g = { instance_types = [\"t3.small\"], min = 1, max = 2 }\n\
                 environments.dev = {}\n";
    let sparse = least.replace(
        "max = 2 }",
        "max = 2, ami.tags = { a = \"b\" }, docker_volume = {}, warm_pool = {}, schedules.s = { cron = \"0 7 * * *\", min = 1 } }\n\
         cluster = { fargate = true, default_strategy = [{ provider = \"FARGATE\" }] }\n\
         iam.scope = \"instance\"",
    );
    let adopts = least.replace(
        "environments.dev = {}",
        "environments.dev.cluster.adopt = \"arn:aws:ecs:eu-central-1:123456789012:cluster/main\"",
    );
    let without = format!(
        "{FILE}\n[environments.spare]\nunset = [\"groups.batch\", \"cluster.default_strategy\", \"groups.web.spot\"]\n"
    );
    for (text, environment) in [
        (FILE, "dev"),
        (FILE, "prod"),
        (least, "dev"),
        (&sparse, "dev"),
        (&adopts, "dev"),
        (&without, "spare"),
    ] {
        let file = FleetFile::new("fleet.toml", text);
        let full = file.full(environment).expect("valid");
        let again = FleetFile::new("full.toml", full.text.as_str());
        assert_eq!(again.environments().expect("TOML"), [environment]);
        let (before, after) = (file.spec(environment), again.spec(environment));
        let (before, after) = (before.expect("valid"), after.expect("valid"));
        let desired = |spec: &Spec| crate::desired::build(spec).expect("builds");
        assert_eq!(desired(&before), desired(&after));
        assert_eq!(said(before), said(after));
        assert_eq!(again.full(environment).expect("valid").text, full.text);
    }
    let spare = FleetFile::new("fleet.toml", without).full("spare");
    let spare = spare.expect("valid").text;
    for taken_out in ["batch", "default_strategy", "spot", "unset"] {
        assert!(!spare.contains(taken_out), "{taken_out}: {spare}");
    }
    let full = FleetFile::new("fleet.toml", FILE).full("prod");
    insta::assert_snapshot!("full", full.expect("valid").text);
}

#[test]
fn a_file_with_steps_says_all_of_them_when_it_is_full() {
    let (head, _) = FILE.split_once("[groups.web]").expect("a group");
    let head = head.replace("default_strategy", "# default_strategy");
    let text = format!(
        "{head}[groups.web]\ninstance_types = [\"m7i.large\"]\nmin = 1\nmax = 3\nstep_scaling = {{ in = [{{ below = 20 }}] }}\n\n[environments.dev]\n"
    );
    let file = FleetFile::new("fleet.toml", text);
    let full = file.full("dev").expect("valid");
    assert!(!full.text.contains("target_capacity"), "{}", full.text);
    for part in ["above = 75", "below = 20", "in_minutes = 15"] {
        assert!(full.text.contains(part), "{part}: {}", full.text);
    }
    let again = FleetFile::new("fleet.toml", full.text.clone());
    let groups = |file: &FleetFile| file.spec("dev").expect("valid").groups;
    assert_eq!(groups(&again)[0].scaling, groups(&file)[0].scaling);
    assert_eq!(again.full("dev").expect("valid").text, full.text);
}

/// A default that is written down is the default still: no node hears of it.
#[test]
fn what_is_left_out_and_what_says_the_same_come_to_the_same() {
    let spelt = format!(
        "{FILE}\n[disk]\nsoft_percent = 80\n\
         [environments.dev.sidecars.metrics]\nbefore_tasks = false\nstop_timeout_seconds = 10\n"
    );
    let of = |text: &str| {
        FleetFile::new("fleet.toml", text)
            .spec("dev")
            .expect("valid")
    };
    let desired = |text: &str| crate::desired::build(&of(text)).expect("builds");
    assert_eq!(desired(&spelt), desired(FILE));
}

#[test]
fn groups_whose_names_would_be_one_are_refused() {
    let text = format!(
        "{FILE}\n[environments.prod-web]\n[environments.DEV]\n[environments.prod.groups.web-batch]\n"
    );
    let problems = problems_in(&text, "dev");
    assert!(
        problems.contains(
            "environments.prod-web: its group `batch` would have the names of group `web-batch` in `prod`"
        ),
        "{problems}"
    );
    assert!(
        problems.contains(
            "environments.dev: its group `batch` would have the names of group `batch` in `DEV`"
        ),
        "{problems}"
    );
}

proptest::proptest! {
    #[test]
    fn no_part_of_a_file_that_is_missing_makes_it_panic(from in 0..60_usize, lines in 1..20_usize) {
        let kept = |(index, _): &(usize, &str)| !(from..from + lines).contains(index);
        let text: String = FILE.lines().enumerate().filter(kept).map(|(_, l)| format!("{l}\n")).collect();
        let _ = problems_in(&text, "dev");
    }
}

#[test]
fn what_works_but_perhaps_not_as_meant_is_a_warning() {
    let text = FILE
        .replace("ECS_LOGLEVEL", "ECS_BRAND_NEW")
        .replace("source =", "# source =");
    let spec = FleetFile::new("fleet.toml", text)
        .spec("dev")
        .expect("valid");
    let warnings: Vec<_> = spec
        .warnings
        .iter()
        .map(|w| (w.line, w.key.as_str()))
        .collect();
    assert_eq!(
        warnings,
        [(35, "groups.web"), (40, "groups.web.ecs.ECS_BRAND_NEW")]
    );
}

#[test]
fn a_cluster_takes_twenty_groups() {
    let with = |extra: usize| {
        let mut text = FILE.to_owned();
        for n in 0..extra {
            let _ = write!(
                text,
                "\n[groups.g{n}]\ninstance_types = [\"m7i.large\"]\nmin = 0\nmax = 1\n"
            );
        }
        problems_in(&text, "prod")
    };
    assert_eq!(with(18), "ok");
    assert!(
        with(19).ends_with(
            "groups: holds 21: each is a capacity provider, of which a cluster takes at most 20"
        ),
        "{}",
        with(19)
    );
}

/// `key: message; ...`, for the tests of single rules.
pub(super) fn told(problems: &[Problem]) -> String {
    let told = problems.iter();
    let told: Vec<String> = told
        .map(|problem| format!("{}: {}", problem.key, problem.message))
        .collect();
    told.join("; ")
}
