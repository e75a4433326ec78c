//! Whether a caller may do what it asks for.
//!
//! An instance's credentials, known by their access key, may do what the policies of its role allow,
//! which are IAM's of that moment. A key that was limited (`fleet-sandbox allow`) may do what its policy
//! allows. Any other key is an operator of the sandbox and may do everything. Refusals are AWS's, in
//! code and words.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    form,
    request::{ANONYMOUS, ApiCall, Protocol},
    s3,
};
use crate::{
    access::{Call, Facts, Tags, TemplateFacts, requests},
    api_error::ApiError,
    autoscaling::TemplateSpec,
    grants::{Granted, Policies},
    node_protocol::Sync,
    policy::{Decision, Policy, Request},
    world::{State, World, WorldOptions},
};

/// What the access keys of temporary credentials begin with: here, an instance's.
const TEMPORARY: &str = "ASIA";

/// Refuses a call that its caller may not make.
///
/// # Errors
/// As AWS refuses it.
pub(super) async fn call(world: &World, call: &ApiCall) -> Result<(), ApiError> {
    let refused = |why: Why| why.error(call.protocol, &call.service);
    let Some(caller) = caller(world, &call.caller).await.map_err(refused)? else {
        return Ok(());
    };
    let body = match call.protocol {
        Protocol::Json | Protocol::Cbor => serde_json::from_slice(&call.body).unwrap_or_default(),
        Protocol::Query | Protocol::Ec2 => form::read(&call.body).unwrap_or_default(),
        Protocol::S3 => s3::named(call),
    };
    let asked = Call {
        service: call.service.clone(),
        operation: call.operation.clone(),
        body,
    };
    may(world, &caller, &[asked]).await.map_err(refused)
}

/// Refuses the stand-in agent's channel what the ECS agent may not do through its own: one sync is its
/// session and what it submits.
///
/// # Errors
/// As ECS refuses it.
pub(super) async fn sync(world: &World, sync: &Sync) -> Result<(), ApiError> {
    let refused = |why: Why| why.error(Protocol::Json, "ecs");
    let arn = &sync.container_instance_arn;
    let found = world.look(|state| {
        let cluster = state
            .ecs
            .clusters()
            .find(|c| c.instances.contains_key(arn))?;
        let machine = state
            .machines
            .get(&cluster.instances[arn].ec2_instance_id)?;
        Some((cluster.arn.clone(), machine.access_key_id()))
    });
    // Who is not registered hears so from ECS.
    let Some((cluster, key)) = found else {
        return Ok(());
    };
    let Some(caller) = caller(world, &key).await.map_err(refused)? else {
        return Ok(());
    };
    let mut operations = vec!["DiscoverPollEndpoint", "Poll"];
    if !sync.tasks.is_empty() {
        operations.extend(["SubmitTaskStateChange", "SubmitContainerStateChange"]);
    }
    let calls: Vec<Call> = operations
        .into_iter()
        .map(|operation| Call {
            service: "ecs".to_owned(),
            operation: operation.to_owned(),
            body: json!({ "cluster": cluster, "containerInstance": arn }),
        })
        .collect();
    may(world, &caller, &calls).await.map_err(refused)
}

/// Somebody who may not do everything.
#[derive(Debug)]
struct Caller {
    arn: String,
    /// ARN of the instance whose credentials it uses.
    instance: Option<String>,
    policies: Policies,
}

/// Why a call is refused.
#[derive(Debug)]
enum Why {
    /// It is not signed.
    Anonymous,
    /// With credentials of nobody.
    Stranger,
    NotAllowed(String),
    /// moto does not answer.
    Failed(ApiError),
}

impl From<ApiError> for Why {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Why {
    /// Each kind of protocol has codes and statuses of its own.
    fn error(self, protocol: Protocol, service: &str) -> ApiError {
        let (message, codes) = match self {
            Self::Failed(error) => return error,
            Self::Anonymous => (
                "Request is missing Authentication Token".to_owned(),
                [
                    ("MissingAuthenticationTokenException", 400),
                    ("MissingAuthenticationToken", 403),
                    ("MissingAuthenticationToken", 403),
                    ("AccessDenied", 403),
                ],
            ),
            Self::Stranger => (
                "The security token included in the request is invalid.".to_owned(),
                [
                    ("UnrecognizedClientException", 400),
                    ("InvalidClientTokenId", 403),
                    ("AuthFailure", 401),
                    ("InvalidAccessKeyId", 403),
                ],
            ),
            Self::NotAllowed(message) => (
                match service {
                    "ec2" => format!("You are not authorized to perform this operation. {message}"),
                    _ => message,
                },
                [
                    ("AccessDeniedException", 400),
                    ("AccessDenied", 403),
                    ("UnauthorizedOperation", 403),
                    ("AccessDenied", 403),
                ],
            ),
        };
        let [json, query, ec2, s3] = codes;
        let (code, status) = match protocol {
            Protocol::Json | Protocol::Cbor => json,
            Protocol::Query => query,
            Protocol::Ec2 => ec2,
            Protocol::S3 => s3,
        };
        ApiError::new(code, message).with_status(status)
    }
}

/// `None` for one who may do everything.
async fn caller(world: &World, key: &str) -> Result<Option<Caller>, Why> {
    let WorldOptions {
        region, account_id, ..
    } = world.options();
    let (limited, node) = world.look(|state| {
        let node = state.machines.of_access_key(key);
        let node = node.map(|machine| (machine.instance_id.clone(), machine.role.clone()));
        (state.grants.of_key(key), node)
    });
    match (limited, node) {
        (Some(policies), _) => Ok(Some(Caller {
            arn: format!("arn:aws:iam::{account_id}:user/{key}"),
            instance: None,
            policies,
        })),
        (None, Some((instance, Some(role)))) => Ok(Some(Caller {
            arn: format!("arn:aws:sts::{account_id}:assumed-role/{role}/{instance}"),
            instance: Some(format!(
                "arn:aws:ec2:{region}:{account_id}:instance/{instance}"
            )),
            policies: policies(world, &role).await?,
        })),
        // An instance without a profile has no credentials, and one that is gone none any more.
        (None, Some((_, None))) => Err(Why::Stranger),
        (None, None) if key.starts_with(TEMPORARY) => Err(Why::Stranger),
        (None, None) if key == ANONYMOUS => Err(Why::Anonymous),
        (None, None) => Ok(None),
    }
}

/// A role's policies, read from moto once after each change of IAM.
async fn policies(world: &World, role: &str) -> Result<Policies, Why> {
    let (known, version) = world.look(|state| state.grants.of_role(role));
    if let Some(policies) = known {
        return Ok(policies);
    }
    let unreadable = |name: &str, why: String| {
        Why::NotAllowed(format!(
            "fleet-sandbox cannot evaluate policy {name} of role {role}: {why}"
        ))
    };
    let read = |name: &str, text: &str| {
        let document: Value =
            serde_json::from_str(text).map_err(|e| unreadable(name, e.to_string()))?;
        Policy::read(&document).map_err(|e| unreadable(name, e.to_string()))
    };
    let moto = world.moto();
    let mut granted = Granted::default();
    for (name, text) in moto.inline_policies(role).await? {
        granted.identity.push(read(&name, &text)?);
    }
    for arn in moto.attached_policies(role).await? {
        granted
            .identity
            .push(read(&arn, &moto.managed_policy(&arn).await?)?);
    }
    if let Some(arn) = moto.permissions_boundary(role).await? {
        granted.boundary = Some(read(&arn, &moto.managed_policy(&arn).await?)?);
    }
    let policies = Policies::new(granted);
    world.count(|state| {
        let grants = &mut state.grants;
        grants.remember(role.to_owned(), policies.clone(), version);
    });
    Ok(policies)
}

async fn may(world: &World, caller: &Caller, calls: &[Call]) -> Result<(), Why> {
    for call in calls {
        let ec2 = Ec2Facts::read(world, call).await?;
        let options = world.options();
        let asked = world.look(|state| {
            let facts = Live {
                options,
                state,
                ec2: &ec2,
            };
            requests(call, &facts)
        });
        let Some(asked) = asked else {
            return Err(Why::NotAllowed(format!(
                "User: {} is not authorized to perform: {}:{}: fleet-sandbox does not know what authorizes it",
                caller.arn, call.service, call.operation
            )));
        };
        for request in asked {
            caller.may(request)?;
        }
    }
    Ok(())
}

impl Caller {
    fn may(&self, request: Request) -> Result<(), Why> {
        let request = match &self.instance {
            Some(arn) => request.with("ec2:SourceInstanceARN", arn),
            None => request,
        };
        let (action, resource) = (&request.action, &request.resource);
        let because = match self.policies.decide(&request) {
            Decision::Allowed => return Ok(()),
            Decision::Unmentioned => {
                format!("because no identity-based policy allows the {action} action")
            }
            Decision::Forbidden => "with an explicit deny in an identity-based policy".to_owned(),
        };
        let who = &self.arn;
        Err(Why::NotAllowed(format!(
            "User: {who} is not authorized to perform: {action} on resource: {resource} {because}"
        )))
    }
}

/// The account as it is.
struct Live<'a> {
    options: &'a WorldOptions,
    state: &'a State,
    ec2: &'a Ec2Facts,
}

impl Facts for Live<'_> {
    fn region(&self) -> &str {
        &self.options.region
    }

    fn account_id(&self) -> &str {
        &self.options.account_id
    }

    fn tags(&self, arn: &str) -> Tags {
        match arn.split(':').nth(2) {
            Some("autoscaling") => {
                let group = self.state.autoscaling.group(arn);
                let tags = group.into_iter().flat_map(|group| &group.tags);
                tags.map(|(key, tag)| (key.clone(), tag.value.clone()))
                    .collect()
            }
            Some("ec2") => {
                let id = arn.rsplit('/').next().unwrap_or_default();
                self.ec2.tags.get(id).cloned().unwrap_or_default()
            }
            Some("cloudwatch") => self.state.cloudwatch.tags_of(arn),
            Some("ecs") => self.state.ecs.tags_of(arn),
            _ => Tags::new(),
        }
    }

    fn group_arn(&self, name: &str) -> Option<String> {
        let group = self.state.autoscaling.group(name)?;
        Some(group.arn.clone())
    }

    fn group_of(&self, instance_id: &str) -> Option<String> {
        let (group, _) = self.state.autoscaling.instance(instance_id)?;
        Some(group.name.clone())
    }

    fn launch_template(&self, name_or_id: &str) -> Option<TemplateFacts> {
        self.ec2.templates.get(name_or_id).cloned()
    }
}

/// What moto has to be asked about the resources that a call names.
#[derive(Debug, Default)]
struct Ec2Facts {
    tags: BTreeMap<String, Tags>,
    templates: BTreeMap<String, TemplateFacts>,
}

impl Ec2Facts {
    async fn read(world: &World, call: &Call) -> Result<Self, ApiError> {
        let mut facts = Self::default();
        if !["autoscaling", "ec2"].contains(&call.service.as_str()) {
            return Ok(facts);
        }
        for (name, spec) in templates(&call.body) {
            // What is not there is the call's to refuse.
            let Ok(found) = world.moto().template(&spec).await else {
                continue;
            };
            let role = match found.launch_template_data.instance_profile() {
                Some(profile) => world
                    .moto()
                    .role_of_profile(profile)
                    .await
                    .unwrap_or_default(),
                None => None,
            };
            let id = found.launch_template_id;
            facts.templates.insert(name, TemplateFacts { id, role });
        }
        let named = ["GroupId", "InstanceId", "ResourceId"];
        let named = named.into_iter().flat_map(|name| match &call.body[name] {
            Value::String(id) => vec![id.as_str()],
            Value::Object(ids) => ids.values().filter_map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => Vec::new(),
        });
        let templates = facts
            .templates
            .values()
            .map(|template| template.id.as_str());
        let ids: Vec<&str> = named.chain(templates).collect();
        if !ids.is_empty() {
            facts.tags = world.moto().tags(&ids).await?;
        }
        Ok(facts)
    }
}

/// The launch templates that a call names, in whichever place it does.
fn templates(body: &Value) -> Vec<(String, TemplateSpec)> {
    let mixed = &body["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"];
    let places = [body, &body["LaunchTemplate"], mixed];
    let spec = |place: &Value| {
        let text = |name: &str| place[name].as_str().map(str::to_owned);
        let spec = TemplateSpec {
            launch_template_id: text("LaunchTemplateId"),
            launch_template_name: text("LaunchTemplateName"),
            version: text("Version"),
        };
        let name = spec.launch_template_id.clone();
        let name = name.or_else(|| spec.launch_template_name.clone())?;
        Some((name, spec))
    };
    places.into_iter().filter_map(spec).collect()
}
