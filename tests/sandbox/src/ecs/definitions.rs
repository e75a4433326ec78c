//! Task definitions: kept as registered, with the parts that matter here read out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Container, Model, TaskDefinition, client_error, last, paged,
    tags::{Tag, tag_list},
};
use crate::api_error::ApiError;

/// RegisterTaskDefinition. What is not read is given back as it came.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterTaskDefinition {
    family: String,
    container_definitions: Vec<ContainerDefinition>,
    network_mode: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    tags: Vec<Tag>,
    #[serde(skip)]
    document: Map<String, Value>,
}

impl RegisterTaskDefinition {
    /// Reads a request.
    ///
    /// # Errors
    /// Those of JSON.
    pub fn read(body: &[u8]) -> serde_json::Result<Self> {
        Ok(Self {
            document: serde_json::from_slice(body)?,
            ..serde_json::from_slice(body)?
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerDefinition {
    name: String,
    image: String,
    command: Vec<String>,
    environment: Vec<Variable>,
    cpu: i64,
    memory: Option<i64>,
    memory_reservation: Option<i64>,
    stop_timeout: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

/// A call that names a task definition: DescribeTaskDefinition, DeregisterTaskDefinition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DescribeTaskDefinition {
    task_definition: String,
    include: Vec<String>,
}

/// ListTaskDefinitions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListTaskDefinitions {
    family_prefix: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    next_token: Option<String>,
    max_results: Option<usize>,
}

impl Model {
    /// RegisterTaskDefinition: the family's next revision.
    ///
    /// # Errors
    /// `ClientException`.
    pub fn register_task_definition(
        &mut self,
        request: RegisterTaskDefinition,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let family = request.family.clone();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !(1..=255).contains(&family.len()) || !family.bytes().all(legal) {
            return Err(client_error("Family contains invalid characters."));
        }
        if request.container_definitions.is_empty() {
            return Err(client_error("Container definitions should not be empty."));
        }
        if request.network_mode.as_deref() == Some("awsvpc") {
            return Err(client_error(
                "fleet-sandbox does not serve networkMode awsvpc: use bridge, host or none.",
            ));
        }
        let whole = |text: &Option<String>| text.as_ref().and_then(|t| t.parse::<i64>().ok());
        let (mut cpu, mut memory) = (0, 0);
        for container in &request.container_definitions {
            if container.name.is_empty() || container.image.is_empty() {
                return Err(client_error(
                    "Container.name and Container.image should not be null or empty.",
                ));
            }
            let Some(reserved) = container.memory_reservation.or(container.memory) else {
                if whole(&request.memory).is_some() {
                    continue;
                }
                return Err(client_error(format!(
                    "Invalid setting for container '{}'. At least one of 'memory' or \
                     'memoryReservation' must be specified.",
                    container.name
                )));
            };
            cpu += container.cpu;
            memory += reserved;
        }
        let revisions = self.definitions.get(&family).map_or(0, Vec::len);
        let revision = u32::try_from(revisions + 1)
            .map_err(|_| client_error("The family has too many revisions."))?;
        let arn = self.arn(&format!("task-definition/{family}:{revision}"));
        self.set_tags(&arn, &request.tags)?;
        let mut document = request.document;
        document.remove("tags");
        let definition = TaskDefinition {
            arn,
            family: family.clone(),
            revision,
            active: true,
            cpu: whole(&request.cpu).unwrap_or(cpu),
            memory: whole(&request.memory).unwrap_or(memory),
            containers: request
                .container_definitions
                .into_iter()
                .map(ContainerDefinition::into_container)
                .collect(),
            document,
            registered_at: now,
        };
        let reply = definition.describe();
        self.definitions.entry(family).or_default().push(definition);
        Ok(json!({ "taskDefinition": reply }))
    }

    /// DescribeTaskDefinition, by ARN, `family:revision` or family (its latest active revision).
    ///
    /// # Errors
    /// `ClientException`.
    pub fn describe_task_definition(
        &self,
        request: &DescribeTaskDefinition,
    ) -> Result<Value, ApiError> {
        let definition = self.definition(&request.task_definition)?;
        let tags = request.include.iter().any(|i| i == "TAGS");
        let tags = tags.then(|| tag_list(self.tags.get(&definition.arn)));
        Ok(json!({ "taskDefinition": definition.describe(), "tags": tags }))
    }

    /// DeregisterTaskDefinition: what runs goes on running.
    ///
    /// # Errors
    /// `ClientException`.
    pub fn deregister_task_definition(
        &mut self,
        request: &DescribeTaskDefinition,
    ) -> Result<Value, ApiError> {
        let arn = self.definition(&request.task_definition)?.arn.clone();
        let mut all = self.definitions.values_mut().flatten();
        let Some(definition) = all.find(|d| d.arn == arn) else {
            return Err(client_error("Unable to describe task definition."));
        };
        definition.active = false;
        Ok(json!({ "taskDefinition": definition.describe() }))
    }

    /// ListTaskDefinitions; active ones unless asked otherwise.
    ///
    /// # Errors
    /// `InvalidParameterException`.
    pub fn list_task_definitions(&self, request: &ListTaskDefinitions) -> Result<Value, ApiError> {
        let active = request.status.as_deref() != Some("INACTIVE");
        let family = request.family_prefix.as_deref();
        let all = self.definitions.values().flatten();
        let mut arns: Vec<String> = all
            .filter(|d| d.active == active && family.is_none_or(|f| f == d.family))
            .map(|d| d.arn.clone())
            .collect();
        if request.sort.as_deref() == Some("DESC") {
            arns.reverse();
        }
        let page = paged(arns, request.next_token.as_deref(), request.max_results)?;
        Ok(json!({ "taskDefinitionArns": page.items, "nextToken": page.next_token }))
    }

    /// The task definition that an ARN, `family:revision` or family stands for.
    pub(super) fn definition(&self, name: &str) -> Result<&TaskDefinition, ApiError> {
        let name = last(name);
        let found = match name.split_once(':') {
            Some((family, revision)) => self.definitions.get(family).and_then(|revisions| {
                let revision: usize = revision.parse().ok()?;
                revisions.get(revision.checked_sub(1)?)
            }),
            None => self
                .definitions
                .get(name)
                .and_then(|revisions| revisions.iter().rev().find(|d| d.active)),
        };
        found.ok_or_else(|| client_error("Unable to describe task definition."))
    }
}

impl ContainerDefinition {
    fn into_container(self) -> Container {
        let variables = self.environment.into_iter().map(|v| (v.name, v.value));
        Container {
            name: self.name,
            image: self.image,
            command: self.command,
            environment: variables.collect::<BTreeMap<_, _>>(),
            stop_timeout: self.stop_timeout,
        }
    }
}

impl TaskDefinition {
    fn describe(&self) -> Value {
        let mut document = self.document.clone();
        let status = if self.active { "ACTIVE" } else { "INACTIVE" };
        document.insert("taskDefinitionArn".to_owned(), json!(self.arn));
        document.insert("revision".to_owned(), json!(self.revision));
        document.insert("status".to_owned(), json!(status));
        let registered = json!(self.registered_at.as_second());
        document.insert("registeredAt".to_owned(), registered);
        Value::Object(document)
    }
}
