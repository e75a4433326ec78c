//! Amazon ECS.

use super::{Account, Call, Tags, service_linked_role, tag_list, tagging};
use crate::policy::Request;

pub(super) fn requests(call: &Call, account: Account<'_>) -> Option<Vec<Request>> {
    let here = Here::of(call, account);
    let one = |request| Some(vec![request]);
    match call.operation.as_str() {
        "DiscoverPollEndpoint" => one(call.on("*")),
        "ListServices" => one(here.within(call.on("*"))),
        "ListTasks" => one(match call.text("containerInstance") {
            "" => here.within(call.on("*")),
            id => here.member("container-instance", id),
        }),

        "DeleteCluster"
        | "DeregisterContainerInstance"
        | "UpdateCluster"
        | "ListAttributes"
        | "ListContainerInstances"
        | "SubmitAttachmentStateChanges"
        | "SubmitContainerStateChange"
        | "SubmitTaskStateChange" => one(here.cluster(call.text("cluster"))),
        "CreateCluster" => {
            let ecs = "ecs.amazonaws.com";
            let mut asked = here.created(here.cluster_arn(call.text("clusterName")));
            asked.push(service_linked_role(account, ecs, "AWSServiceRoleForECS"));
            Some(asked)
        }
        "DescribeClusters" => Some(call.each(&call.texts("clusters"), |name| here.cluster(name))),
        "PutClusterCapacityProviders" => {
            let put = here.cluster(call.text("cluster"));
            let providers = call.texts("capacityProviders").into_iter();
            one(providers.fold(put, |put, name| {
                put.with("ecs:capacity-provider", here.provider_arn(name))
            }))
        }

        "RegisterContainerInstance" => {
            let tags = here.tags();
            let mut asked = vec![tagging(here.cluster(call.text("cluster")), &tags)];
            // It has no id yet, or the one that it had.
            let arn = account.arn("ecs", &format!("container-instance/{}/*", here.name));
            asked.extend(here.tags_created(arn, &tags));
            Some(asked)
        }
        "DescribeContainerInstances" | "UpdateContainerInstancesState" => {
            let ids = call.texts("containerInstances");
            Some(call.each(&ids, |id| here.member("container-instance", id)))
        }
        "DeleteAttributes" | "PutAttributes" => {
            let targets = super::items(&call.body["attributes"]);
            let mut targets: Vec<&str> = targets
                .filter_map(|attribute| attribute["targetId"].as_str())
                .collect();
            targets.sort_unstable();
            targets.dedup();
            Some(call.each(&targets, |id| here.member("container-instance", id)))
        }
        // The agent's sessions, which no SDK opens: their resource cannot be asked for its tags.
        "Poll" | "StartTelemetrySession" => {
            let arn = here.member_arn("container-instance", call.text("containerInstance"));
            one(here.within(call.on(arn)))
        }
        "DescribeTasks" => Some(call.each(&call.texts("tasks"), |id| here.member("task", id))),
        "StopTask" => one(here.member("task", call.text("task"))),
        "DescribeServices" => {
            Some(call.each(&call.texts("services"), |id| here.member("service", id)))
        }
        "DeleteService" => one(here.member("service", call.text("service"))),

        "CreateCapacityProvider" => {
            let mut asked = here.created(here.provider_arn(call.text("name")));
            // ECS marks the group as its own in the caller's name.
            let group = &call.body["autoScalingGroupProvider"]["autoScalingGroupArn"];
            let group = super::autoscaling::group_arn(account, group.as_str().unwrap_or_default());
            let mark = Tags::from([("AmazonECSManaged".to_owned(), String::new())]);
            let marks = account.tagged(Request::new("autoscaling:CreateOrUpdateTags", group));
            asked.push(tagging(marks, &mark));
            Some(asked)
        }
        "UpdateCapacityProvider" => one(here.provider(call.text("name"))),
        "DeleteCapacityProvider" => one(here.provider(call.text("capacityProvider"))),
        "DescribeCapacityProviders" => {
            let names = call.texts("capacityProviders");
            Some(call.each(&names, |name| here.provider(name)))
        }

        "TagResource" => one(tagging(
            account.tagged(call.on(call.text("resourceArn"))),
            &here.tags(),
        )),
        "UntagResource" => {
            let untags = account.tagged(call.on(call.text("resourceArn")));
            let keys = call.texts("tagKeys").into_iter();
            one(keys.fold(untags, |untags, key| untags.with("aws:TagKeys", key)))
        }
        "ListTagsForResource" => one(account.tagged(call.on(call.text("resourceArn")))),
        _ => None,
    }
}

/// A call, and the cluster that it is about.
struct Here<'a> {
    call: &'a Call,
    account: Account<'a>,
    /// Of the cluster.
    name: &'a str,
}

impl<'a> Here<'a> {
    fn of(call: &'a Call, account: Account<'a>) -> Self {
        let name = match call.text("cluster") {
            "" => "default",
            name => last(name),
        };
        Self {
            call,
            account,
            name,
        }
    }

    fn cluster_arn(&self, name: &str) -> String {
        match name {
            "" => self.cluster_arn("default"),
            arn if arn.starts_with("arn:") => arn.to_owned(),
            name => self.account.arn("ecs", &format!("cluster/{name}")),
        }
    }

    fn cluster(&self, name: &str) -> Request {
        self.account.tagged(self.call.on(self.cluster_arn(name)))
    }

    /// A task, a service or a container instance of the cluster, by its id or its ARN.
    fn member_arn(&self, kind: &str, id: &str) -> String {
        match id {
            arn if arn.starts_with("arn:") => arn.to_owned(),
            id => self
                .account
                .arn("ecs", &format!("{kind}/{}/{id}", self.name)),
        }
    }

    fn member(&self, kind: &str, id: &str) -> Request {
        self.within(self.account.tagged(self.call.on(self.member_arn(kind, id))))
    }

    fn within(&self, request: Request) -> Request {
        request.with("ecs:cluster", self.cluster_arn(self.name))
    }

    fn provider_arn(&self, name: &str) -> String {
        match name {
            arn if arn.starts_with("arn:") => arn.to_owned(),
            name => self
                .account
                .arn("ecs", &format!("capacity-provider/{name}")),
        }
    }

    fn provider(&self, name: &str) -> Request {
        self.account.tagged(self.call.on(self.provider_arn(name)))
    }

    fn tags(&self) -> Tags {
        tag_list(&self.call.body["tags"])
    }

    fn created(&self, arn: String) -> Vec<Request> {
        let tags = self.tags();
        let mut asked = vec![tagging(self.call.on(arn.as_str()), &tags)];
        asked.extend(self.tags_created(arn, &tags));
        asked
    }

    /// ECS developer guide, "Grant permission to tag resources on creation".
    fn tags_created(&self, arn: String, tags: &Tags) -> Option<Request> {
        let request = || Request::new("ecs:TagResource", arn);
        (!tags.is_empty())
            .then(request)
            .map(|request| tagging(request, tags).with("ecs:CreateAction", &self.call.operation))
    }
}

fn last(name_or_arn: &str) -> &str {
    name_or_arn.rsplit('/').next().unwrap_or(name_or_arn)
}
