//! What a call asks of IAM: actions on resources, with the context that conditions can name. Pure.
//!
//! A call that creates something with tags also asks for the action that tags, and one that hands a
//! role on for iam:PassRole, as on AWS. The account is taken for a new one: what needs a service-linked
//! role asks whether the caller may make it.
//!
//! Source: AWS service authorization reference, one page a service. An operation that is on no list
//! here is not known to be authorized by anything.

mod autoscaling;
mod cloudwatch;
mod ec2;
mod ecs;
mod iam;
mod s3;
mod ssm;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::policy::Request;

/// Tags of a resource.
pub type Tags = BTreeMap<String, String>;

/// A call, whatever the protocol it came by.
#[derive(Debug, Clone)]
pub struct Call {
    /// As in the signature: `ecs`.
    pub service: String,
    /// `PutAttributes`.
    pub operation: String,
    /// Its parameters. A list of a form is a map by number, in order.
    pub body: Value,
}

/// What authorization has to know of the account beside the call.
pub trait Facts {
    /// Region of every resource.
    fn region(&self) -> &str;
    /// Owner of every resource.
    fn account_id(&self) -> &str;
    /// Tags of a resource; none of one that is not there.
    fn tags(&self, arn: &str) -> Tags;
    /// ARN of an Auto Scaling group.
    fn group_arn(&self, name: &str) -> Option<String>;
    /// Name of the Auto Scaling group of an instance.
    fn group_of(&self, instance_id: &str) -> Option<String>;
    /// A launch template by its name or its id.
    fn launch_template(&self, name_or_id: &str) -> Option<TemplateFacts>;
}

/// What authorization has to know of a launch template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateFacts {
    /// `lt-…`.
    pub id: String,
    /// The role that its instances get.
    pub role: Option<String>,
}

/// Everything that a call asks, all of which has to be allowed; `None` where that is not known.
pub fn requests(call: &Call, facts: &dyn Facts) -> Option<Vec<Request>> {
    let account = Account(facts);
    match call.service.as_str() {
        "autoscaling" => autoscaling::requests(call, account),
        "cloudwatch" => cloudwatch::requests(call, account),
        "ec2" => ec2::requests(call, account),
        "ecs" => ecs::requests(call, account),
        "iam" => iam::requests(call, account),
        "s3" => s3::requests(call),
        "ssm" => ssm::requests(call, account),
        "ecr" if call.operation == "GetAuthorizationToken" => Some(vec![call.on("*")]),
        // Nobody needs a permission to ask who he is (STS API reference).
        "sts" if call.operation == "GetCallerIdentity" => Some(Vec::new()),
        _ => None,
    }
}

impl Call {
    fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        items(&self.body[name]).filter_map(Value::as_str).collect()
    }

    /// The call's own action on a resource.
    fn on(&self, arn: impl Into<String>) -> Request {
        Request::new(format!("{}:{}", self.service, self.operation), arn)
    }

    /// One request for each that is named. To name none is to mean all.
    fn each(&self, names: &[&str], request: impl Fn(&str) -> Request) -> Vec<Request> {
        match names {
            [] => vec![self.on("*")],
            names => names.iter().map(|name| request(name)).collect(),
        }
    }
}

/// The members of a list, which is a map in a form.
fn items(list: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match list {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(numbered) => Box::new(numbered.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Box::new(std::iter::empty())
        }
    }
}

/// Tags given as a list of keys and values, however the service spells those.
fn tag_list(list: &Value) -> Tags {
    let text = |tag: &Value, names: [&str; 2]| {
        let found = names.iter().find_map(|name| tag[*name].as_str());
        found.unwrap_or_default().to_owned()
    };
    items(list)
        .map(|tag| (text(tag, ["key", "Key"]), text(tag, ["value", "Value"])))
        .collect()
}

/// The account, and how its resources are called.
#[derive(Clone, Copy)]
struct Account<'a>(&'a dyn Facts);

impl Account<'_> {
    fn arn(self, service: &str, resource: &str) -> String {
        let (region, account) = (self.0.region(), self.0.account_id());
        format!("arn:aws:{service}:{region}:{account}:{resource}")
    }

    /// The same request, which conditions may also ask for the tags that the resource has.
    fn tagged(self, request: Request) -> Request {
        let tags = self.0.tags(&request.resource);
        let with = |request: Request, (key, value): (String, String)| {
            request.with(&format!("aws:ResourceTag/{key}"), value)
        };
        tags.into_iter().fold(request, with)
    }
}

/// The same request, which gives a resource these tags or takes them off.
fn tagging(request: Request, tags: &Tags) -> Request {
    tags.iter().fold(request, |request, (key, value)| {
        request
            .with(&format!("aws:RequestTag/{key}"), value)
            .with("aws:TagKeys", key)
    })
}

/// A role given to a service.
fn pass_role(account: Account<'_>, role: &str, service: &str) -> Request {
    Request::new("iam:PassRole", iam::role_arn(account, role)).with("iam:PassedToService", service)
}

/// The role that a service makes for itself in the caller's name, with an account's first resource.
fn service_linked_role(account: Account<'_>, service: &str, role: &str) -> Request {
    let role = iam::role_arn(account, &format!("aws-service-role/{service}/{role}"));
    Request::new("iam:CreateServiceLinkedRole", role).with("iam:AWSServiceName", service)
}

#[cfg(test)]
mod tests;
