use jiff::{SignedDuration, Timestamp};

use super::{requests::*, *};

const GROUP: &str = "web";

/// A model with a clock and an EC2 that always works.
struct Bench {
    model: Model,
    now: Timestamp,
    machines: u32,
}

impl Bench {
    fn new(change: impl FnOnce(&mut GroupRequest)) -> Self {
        let mut bench = Self {
            model: Model::new(Options {
                region: "eu-west-1".into(),
                account_id: "123456789012".into(),
                imds_lead: SignedDuration::ZERO,
                seed: 1,
            }),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            machines: 0,
        };
        let mut request = request();
        change(&mut request);
        let subnets = ["a", "b"].map(|zone| Subnet {
            id: format!("subnet-{zone}"),
            availability_zone: format!("eu-west-1{zone}"),
        });
        bench
            .model
            .create_group(request, subnets.to_vec(), bench.now)
            .unwrap();
        bench
    }

    /// Runs what is to be launched; machines are terminated only by [`Bench::bury`].
    fn launch(&mut self) -> Vec<String> {
        let mut ids = Vec::new();
        for effect in self.model.take_effects() {
            let Effect::Launch(order) = effect else {
                continue;
            };
            self.machines += 1;
            let id = format!("i-{}", self.machines);
            let launched = Launched {
                instance_id: id.clone(),
                instance_type: order.instance_type.unwrap_or("t3.micro".into()),
                image_id: "ami-1".into(),
                template: order.template,
            };
            self.model.launched(&order.launch_id, launched, self.now);
            self.model.machine_started(&id, self.now);
            ids.push(id);
        }
        ids
    }

    /// Ends the machines that are to be terminated.
    fn bury(&mut self) -> Vec<String> {
        let mut ids = Vec::new();
        for effect in self.model.take_effects() {
            if let Effect::Terminate { instance_id } = effect {
                self.model.machine_gone(&instance_id, self.now);
                ids.push(instance_id);
            }
        }
        ids
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.model.advance(self.now);
    }

    fn state(&self, id: &str) -> Option<LifecycleState> {
        self.model.instance(id).map(|(_, i)| i.state)
    }

    fn group(&self) -> &Group {
        self.model.group(GROUP).unwrap()
    }

    fn hook(&mut self, name: &str, transition: &str, default: &str) {
        self.model
            .put_hook(&HookRequest {
                lifecycle_hook_name: name.into(),
                auto_scaling_group_name: GROUP.into(),
                lifecycle_transition: Some(format!("autoscaling:EC2_INSTANCE_{transition}")),
                heartbeat_timeout: Some(60),
                default_result: Some(default.into()),
                notification_metadata: None,
            })
            .unwrap();
    }

    fn complete(&mut self, hook: &str, id: &str, result: &str) -> Result<(), ApiError> {
        let request = action(hook, id, Some(result));
        self.model.complete_lifecycle_action(&request, self.now)
    }

    fn desire(&mut self, desired: u32) -> Result<(), ApiError> {
        let request = SetDesiredCapacity {
            auto_scaling_group_name: GROUP.into(),
            desired_capacity: desired,
            honor_cooldown: None,
        };
        self.model.set_desired_capacity(request, self.now)
    }

    fn terminate(&mut self, id: &str, decrement: bool) -> Result<Activity, ApiError> {
        let request = TerminateInstance {
            instance_id: id.into(),
            should_decrement_desired_capacity: decrement,
        };
        self.model.terminate_instance(&request, self.now)
    }
}

fn request() -> GroupRequest {
    GroupRequest {
        auto_scaling_group_name: GROUP.into(),
        launch_template: Some(TemplateSpec {
            launch_template_name: Some("web".into()),
            ..TemplateSpec::default()
        }),
        min_size: Some(0),
        max_size: Some(4),
        ..GroupRequest::default()
    }
}

fn action(hook: &str, id: &str, result: Option<&str>) -> LifecycleAction {
    LifecycleAction {
        lifecycle_hook_name: hook.into(),
        auto_scaling_group_name: GROUP.into(),
        lifecycle_action_token: None,
        lifecycle_action_result: result.map(str::to_owned),
        instance_id: Some(id.into()),
    }
}

#[test]
fn beyond_the_base_a_share_is_spot() {
    let mut bench = Bench::new(|r| {
        let mut policy = MixedInstancesPolicy::default();
        policy.launch_template.launch_template_specification = r.launch_template.take().unwrap();
        policy.instances_distribution = Some(InstancesDistribution {
            on_demand_base_capacity: Some(1),
            on_demand_percentage_above_base_capacity: Some(30),
            ..InstancesDistribution::default()
        });
        r.mixed_instances_policy = Some(policy);
        (r.max_size, r.desired_capacity) = (Some(10), Some(5));
    });
    bench.launch();
    let spot = |bench: &Bench| bench.group().instances.iter().map(|one| one.spot).collect();
    let wanted: Vec<bool> = spot(&bench);
    assert_eq!(
        wanted,
        [false, false, true, true, false],
        "1 and 30 % of 4, rounded up"
    );
}

#[test]
fn an_empty_group_launches_nothing_and_its_name_is_taken() {
    let mut bench = Bench::new(|_| ());
    assert!(bench.model.take_effects().is_empty());
    let again = bench.model.create_group(request(), vec![], bench.now);
    assert_eq!(again.unwrap_err().code, "AlreadyExists");
}

#[test]
fn bounds_are_kept() {
    let mut bench = Bench::new(|_| ());
    assert_eq!(bench.desire(5).unwrap_err().code, "ValidationError");
    let update = |min, max, desired| GroupRequest {
        auto_scaling_group_name: GROUP.into(),
        min_size: min,
        max_size: max,
        desired_capacity: desired,
        ..GroupRequest::default()
    };
    let mut change = |request| bench.model.update_group(request, None, bench.now);
    assert_eq!(
        change(update(None, None, Some(5))).unwrap_err().code,
        "ValidationError"
    );
    assert_eq!(
        change(update(Some(5), None, None)).unwrap_err().code,
        "ValidationError"
    );
    change(update(Some(2), None, None)).unwrap();
    assert_eq!(bench.group().desired, 2, "moved inside the new bounds");
}

#[test]
fn launches_spread_over_zones() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(4));
    bench.launch();
    let zones: Vec<_> = bench
        .group()
        .instances
        .iter()
        .map(|i| &i.availability_zone[..])
        .collect();
    assert_eq!(zones.iter().filter(|z| **z == "eu-west-1a").count(), 2);
    assert_eq!(zones.len(), 4);
}

#[test]
fn a_launching_hook_holds_until_it_is_answered() {
    let mut bench = Bench::new(|_| ());
    bench.hook("launch", "LAUNCHING", "ABANDON");
    bench.hook("second", "LAUNCHING", "ABANDON");
    bench.desire(1).unwrap();
    let id = bench.launch().remove(0);
    assert_eq!(bench.state(&id), Some(LifecycleState::PendingWait));
    assert_eq!(bench.model.target_lifecycle_state(&id), Some("InService"));
    bench.complete("launch", &id, "CONTINUE").unwrap();
    assert_eq!(
        bench.state(&id),
        Some(LifecycleState::PendingWait),
        "the other one holds"
    );
    let error = bench.complete("launch", &id, "CONTINUE").unwrap_err();
    assert_eq!(
        error.message,
        format!("No active Lifecycle Action found with instance ID {id}")
    );
    bench.complete("second", &id, "CONTINUE").unwrap();
    assert_eq!(bench.state(&id), Some(LifecycleState::InService));
    assert_eq!(bench.group().activities[0].status_code, "Successful");
}

#[test]
fn a_launch_out_of_time_is_abandoned_with_its_reason_and_replaced() {
    let mut bench = Bench::new(|_| ());
    bench.hook("launch", "LAUNCHING", "ABANDON");
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.desire(1).unwrap();
    let id = bench.launch().remove(0);
    bench.wait(59);
    assert_eq!(bench.state(&id), Some(LifecycleState::PendingWait));
    bench.wait(1);
    assert_eq!(bench.state(&id), Some(LifecycleState::TerminatingProceed));
    let activity = bench
        .group()
        .activities
        .iter()
        .find(|a| a.status_code == "Cancelled")
        .unwrap();
    let message = activity.status_message.as_deref().unwrap();
    assert!(message.starts_with("Instance failed to complete user's Lifecycle Action: "));
    assert!(
        message.ends_with("was abandoned: Heartbeat Timeout"),
        "{message}"
    );
    assert_eq!(bench.launch(), ["i-2"], "the first failure delays nothing");
    bench.complete("launch", "i-2", "ABANDON").unwrap();
    let activity = bench
        .group()
        .activities
        .iter()
        .find(|a| a.status_code == "Cancelled")
        .unwrap();
    let message = activity.status_message.as_deref().unwrap();
    assert!(
        message.ends_with("Lifecycle Action Completed with ABANDON Result"),
        "{message}"
    );
    assert!(bench.launch().is_empty(), "the second does");
    bench.wait(5);
    assert_eq!(bench.launch(), ["i-3"]);
}

#[test]
fn heartbeats_restart_the_time_out_up_to_the_global_one() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.terminate(&id, true).unwrap();
    let mut beats = 0;
    while bench
        .model
        .record_heartbeat(&action("drain", &id, None), bench.now)
        .is_ok()
    {
        beats += 1;
        bench.wait(50);
    }
    assert_eq!(beats, 120, "100 time-outs of 60 s hold 120 beats of 50 s");
    assert_eq!(bench.bury().len(), 1);
    assert_eq!(bench.state(&id), None);
}

#[test]
fn the_metadata_service_leads_the_api() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    bench.model.context.options.imds_lead = SignedDuration::from_secs(3);
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.terminate(&id, true).unwrap();
    assert_eq!(bench.model.target_lifecycle_state(&id), Some("Terminated"));
    assert!(
        bench.complete("drain", &id, "CONTINUE").is_err(),
        "too early"
    );
    bench.wait(3);
    assert_eq!(bench.state(&id), Some(LifecycleState::TerminatingWait));
    bench.complete("drain", &id, "CONTINUE").unwrap();
    assert_eq!(bench.bury(), [id]);
}

#[test]
fn abandoning_a_termination_skips_the_other_hooks() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.hook("other", "TERMINATING", "CONTINUE");
    bench.terminate(&id, true).unwrap();
    bench.complete("drain", &id, "ABANDON").unwrap();
    assert_eq!(bench.bury(), [id]);
}

#[test]
fn deleting_a_hook_lets_go_what_it_holds() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.terminate(&id, true).unwrap();
    let request = DeleteHook {
        lifecycle_hook_name: "drain".into(),
        auto_scaling_group_name: GROUP.into(),
    };
    bench.model.delete_hook(&request, bench.now).unwrap();
    assert_eq!(bench.bury(), [id]);
}

#[test]
fn scale_in_never_takes_a_protected_instance() {
    let mut bench = Bench::new(|r| {
        r.desired_capacity = Some(2);
        r.new_instances_protected_from_scale_in = Some(true);
    });
    bench.launch();
    bench.desire(0).unwrap();
    assert!(bench.bury().is_empty());
    assert_eq!(bench.group().capacity(), 2, "above desired, as on AWS");
    let release = SetInstanceProtection {
        instance_ids: vec!["i-1".into()],
        auto_scaling_group_name: GROUP.into(),
        protected_from_scale_in: false,
    };
    bench
        .model
        .set_instance_protection(&release, bench.now)
        .unwrap();
    assert_eq!(bench.bury(), ["i-1"]);
    let unknown = SetInstanceProtection {
        instance_ids: vec!["i-9".into()],
        ..release
    };
    let error = bench
        .model
        .set_instance_protection(&unknown, bench.now)
        .unwrap_err();
    assert!(error.message.contains("is not part of Auto Scaling group"));
}

#[test]
fn termination_through_the_group_replaces_or_decrements() {
    let mut bench = Bench::new(|r| {
        r.min_size = Some(1);
        r.desired_capacity = Some(2);
    });
    bench.launch();
    bench.terminate("i-1", true).unwrap();
    assert_eq!(bench.group().desired, 1);
    assert_eq!(bench.bury(), ["i-1"]);
    let error = bench.terminate("i-2", true).unwrap_err();
    assert!(error.message.contains("desiredSize equals minSize"));
    bench.terminate("i-2", false).unwrap();
    assert_eq!(
        bench.terminate("i-2", false).unwrap_err().code,
        "ScalingActivityInProgress"
    );
    assert_eq!(bench.launch(), ["i-3"]);
}

#[test]
fn a_machine_that_goes_by_itself_is_replaced_and_its_hook_waits() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    bench.model.machine_gone(&id, bench.now);
    assert_eq!(bench.state(&id), Some(LifecycleState::TerminatingWait));
    assert_eq!(bench.launch(), ["i-2"]);
    bench.wait(60);
    assert_eq!(bench.state(&id), None, "nobody answered");
    assert!(
        bench.bury().is_empty(),
        "there is nothing left to terminate"
    );
}

#[test]
fn an_unhealthy_instance_is_replaced_unless_in_grace() {
    let mut bench = Bench::new(|r| {
        r.desired_capacity = Some(1);
        r.health_check_grace_period = Some(100);
    });
    let id = bench.launch().remove(0);
    let sick = |respect| SetInstanceHealth {
        instance_id: id.clone(),
        health_status: "Unhealthy".into(),
        should_respect_grace_period: respect,
    };
    bench
        .model
        .set_instance_health(&sick(None), bench.now)
        .unwrap();
    assert_eq!(bench.state(&id), Some(LifecycleState::InService));
    bench
        .model
        .set_instance_health(&sick(Some(false)), bench.now)
        .unwrap();
    assert!(bench.state(&id).unwrap().is_terminating());
    assert_eq!(bench.launch(), ["i-2"]);
    let unknown = SetInstanceHealth {
        instance_id: "i-9".into(),
        ..sick(None)
    };
    let error = bench
        .model
        .set_instance_health(&unknown, bench.now)
        .unwrap_err();
    assert_eq!(error.code, "ValidationError");
}

#[test]
fn a_group_is_deleted_when_empty_or_by_force() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let delete = |force| DeleteGroup {
        auto_scaling_group_name: GROUP.into(),
        force_delete: force,
    };
    let order = bench.model.clone();
    let refused = bench.model.delete_group(delete(None), bench.now);
    assert_eq!(refused.unwrap_err().code, "ScalingActivityInProgress");
    bench.model = order;
    let id = bench.launch().remove(0);
    bench.hook("drain", "TERMINATING", "CONTINUE");
    let refused = bench.model.delete_group(delete(None), bench.now);
    assert_eq!(refused.unwrap_err().code, "ResourceInUse");
    bench
        .model
        .delete_group(delete(Some(true)), bench.now)
        .unwrap();
    assert_eq!(bench.bury(), [id], "without its hook");
    assert!(bench.model.group(GROUP).is_none());
}

#[test]
fn a_launch_that_ec2_refuses_is_a_failed_activity() {
    let mut bench = Bench::new(|r| r.desired_capacity = Some(1));
    let Some(Effect::Launch(order)) = bench.model.take_effects().pop() else {
        panic!("a launch was expected");
    };
    bench
        .model
        .launch_failed(&order.launch_id, "no such profile.", bench.now);
    let failed = &bench
        .group()
        .activities
        .iter()
        .find(|a| a.status_code == "Failed")
        .unwrap();
    assert_eq!(failed.status_message.as_deref(), Some("no such profile."));
    assert_eq!(bench.launch(), ["i-1"]);
}

#[test]
fn groups_are_paged_and_filtered() {
    let mut bench = Bench::new(|r| {
        r.tags = vec![TagSpec {
            key: "fleet:owner".into(),
            value: Some("me".into()),
            ..TagSpec::default()
        }];
    });
    let second = GroupRequest {
        auto_scaling_group_name: "other".into(),
        ..request()
    };
    let subnets = bench.group().subnets.clone();
    bench
        .model
        .create_group(second, subnets, bench.now)
        .unwrap();
    let mut ask = DescribeGroups {
        max_records: Some(1),
        ..DescribeGroups::default()
    };
    let xml = |ask: &DescribeGroups| {
        let reply = bench.model.describe_groups(ask).unwrap();
        quick_xml::se::to_string_with_root("R", &reply).unwrap()
    };
    let first = xml(&ask);
    assert!(first.contains("<AutoScalingGroupName>other</"), "{first}");
    assert!(first.contains("<NextToken>page-1</"), "{first}");
    ask.next_token = Some("page-1".into());
    assert!(!xml(&ask).contains("NextToken"));
    let owned = DescribeGroups {
        filters: vec![Filter {
            name: "tag:fleet:owner".into(),
            values: vec!["me".into()],
        }],
        ..DescribeGroups::default()
    };
    assert_eq!(xml(&owned).matches("<AutoScalingGroupARN>").count(), 1);
    let lost = DescribeGroups {
        next_token: Some("?".into()),
        ..DescribeGroups::default()
    };
    assert_eq!(
        bench.model.describe_groups(&lost).unwrap_err().code,
        "InvalidNextToken"
    );
}

mod pool;
mod properties;

#[test]
fn a_fifth_of_a_group_of_five_thousand_is_replaced() {
    let mut bench = Bench::new(|r| {
        (r.max_size, r.desired_capacity) = (Some(5_000), Some(5_000));
    });
    bench.hook("drain", "TERMINATING", "CONTINUE");
    let ids = bench.launch();
    let leaving = &ids[..1_000];
    for id in leaving {
        bench.terminate(id, false).unwrap();
        bench.now += SignedDuration::from_millis(1);
        bench.model.advance(bench.now);
    }
    assert_eq!(bench.launch().len(), leaving.len());
    for id in leaving {
        let beat = action("drain", id, None);
        bench.model.record_heartbeat(&beat, bench.now).unwrap();
        assert!(bench.model.next_deadline() > Some(bench.now));
        bench.complete("drain", id, "CONTINUE").unwrap();
    }
    assert_eq!(bench.bury(), leaving);
    assert_eq!(bench.group().instances.len(), 5_000);
    assert_eq!(bench.group().capacity(), 5_000);
}

#[test]
fn what_a_group_does_of_its_own_accord_reads_back() {
    let mut bench = Bench::new(|r| {
        r.availability_zone_distribution = Some(ZoneDistribution {
            capacity_distribution_strategy: "balanced-only".into(),
        });
    });
    let metrics = |bench: &Bench| bench.group().stored.metrics.len();
    let mut request = MetricsCollection {
        auto_scaling_group_name: GROUP.into(),
        ..MetricsCollection::default()
    };
    assert!(bench.model.enable_metrics(&request).is_err(), "granularity");
    request.granularity = Some("1Minute".into());
    bench.model.enable_metrics(&request).unwrap();
    assert_eq!(metrics(&bench), 8);
    request.metrics = vec!["GroupMinSize".into()];
    bench.model.disable_metrics(&request).unwrap();
    assert_eq!(metrics(&bench), 7);
    request.metrics = vec!["GroupMood".into()];
    assert!(bench.model.enable_metrics(&request).is_err());

    let found = bench.model.describe_groups(&DescribeGroups::default());
    let found = serde_json::to_value(found.unwrap()).unwrap();
    let found = &found["AutoScalingGroups"]["member"][0];
    let zones = &found["AvailabilityZoneDistribution"];
    assert_eq!(zones["CapacityDistributionStrategy"], "balanced-only");
    let metrics = found["EnabledMetrics"]["member"].as_array().unwrap();
    assert_eq!(metrics[0]["Granularity"], "1Minute");
}

#[test]
fn a_schedule_keeps_what_a_change_does_not_say() {
    let mut bench = Bench::new(|_| ());
    let put = |change: fn(&mut PutSchedule)| {
        let mut request = PutSchedule {
            auto_scaling_group_name: GROUP.into(),
            scheduled_action_name: "day".into(),
            ..PutSchedule::default()
        };
        change(&mut request);
        request
    };
    let refused = [
        put(|r| r.min_size = Some(1)),
        put(|r| r.recurrence = Some("0 7 * * *".into())),
        put(|r| {
            r.recurrence = Some("0 7 * *".into());
            r.min_size = Some(1);
        }),
        put(|r| {
            r.recurrence = Some("0 7 * * *".into());
            (r.min_size, r.max_size) = (Some(2), Some(1));
        }),
    ];
    for request in refused {
        assert!(bench.model.put_schedule(request).is_err());
    }
    let whole = put(|r| {
        r.recurrence = Some("0 7 * * *".into());
        r.time_zone = Some("Europe/Berlin".into());
        r.min_size = Some(1);
    });
    bench.model.put_schedule(whole).unwrap();
    let more = put(|r| r.max_size = Some(3));
    bench.model.put_schedule(more).unwrap();
    let found = bench
        .model
        .describe_schedules(&DescribeSchedules::default());
    let found = serde_json::to_value(found.unwrap()).unwrap();
    let found = &found["ScheduledUpdateGroupActions"]["member"];
    assert_eq!(
        (&found[0]["MinSize"], &found[0]["MaxSize"]),
        (&1.into(), &3.into())
    );
    assert_eq!(found[0]["TimeZone"], "Europe/Berlin");
    let delete = DeleteSchedule {
        auto_scaling_group_name: GROUP.into(),
        scheduled_action_name: "day".into(),
    };
    bench.model.delete_schedule(&delete).unwrap();
    assert!(bench.model.delete_schedule(&delete).is_err());
}
