//! RegisterContainerInstance, as the real agent calls it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, anyhow};
use aws_config::{
    BehaviorVersion, Region, imds, provider_config::ProviderConfig, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_ecs::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{Attribute, Resource, Tag, VersionInfo},
};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use serde::Deserialize;

use super::{AGENT_HASH, AGENT_VERSION, config::Settings};

/// Capabilities worth showing of those a real agent on Amazon Linux registers.
const CAPABILITIES: &[(&str, Option<&str>)] = &[
    ("com.amazonaws.ecs.capability.privileged-container", None),
    ("com.amazonaws.ecs.capability.docker-remote-api.1.25", None),
    (
        "com.amazonaws.ecs.capability.logging-driver.json-file",
        None,
    ),
    ("com.amazonaws.ecs.capability.logging-driver.none", None),
    ("ecs.capability.container-ordering", None),
    ("ecs.capability.full-sync", None),
    ("ecs.os-type", Some("linux")),
    ("ecs.os-family", Some("LINUX")),
    ("ecs.os-type-detailed", Some("LINUX")),
];

/// CPU units of one processor.
const CPU_UNITS: usize = 1_024;

/// Who this instance is, from the metadata service.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) instance_id: String,
    region: String,
    document: String,
    signature: String,
}

/// What the node has, before reservations.
#[derive(Debug, Clone)]
pub(super) struct Hardware {
    pub(super) processors: usize,
    /// MiB
    pub(super) memory: i32,
    pub(super) docker_version: String,
}

/// Why there was no registration.
#[derive(Debug)]
pub(super) enum Refused {
    /// Trying again cannot help: the real agent exits with 5.
    ForGood(anyhow::Error),
    /// A later try may succeed.
    ForNow(anyhow::Error),
}

impl Identity {
    /// Reads the identity document from IMDS.
    pub(super) async fn read() -> anyhow::Result<Self> {
        let provider = ProviderConfig::without_region().with_http_client(http_client());
        let client = imds::Client::builder().configure(&provider).build();
        let get = async |name: &str| {
            let path = format!("/latest/dynamic/instance-identity/{name}");
            client
                .get(path.clone())
                .await
                .map(String::from)
                .with_context(|| format!("IMDS: GET {path}"))
        };
        let document = get("document").await?;
        let signature = get("signature").await?;
        let fields: Fields =
            serde_json::from_str(&document).context("IMDS: read the identity document")?;
        Ok(Self {
            instance_id: fields.instance_id,
            region: fields.region,
            document,
            signature,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    instance_id: String,
    region: String,
}

/// A client with the instance's own credentials; AWS_ENDPOINT_URL leads it to the sandbox.
pub(super) async fn client(identity: &Identity) -> Client {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(30))
        .build();
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(identity.region.clone()))
        .http_client(http_client())
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts)
        .load()
        .await;
    Client::new(&config)
}

fn http_client() -> aws_sdk_ecs::config::SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

/// Registers, or registers again under `known_arn`; the container instance's ARN.
pub(super) async fn register(
    client: &Client,
    settings: &Settings,
    identity: &Identity,
    hardware: &Hardware,
    known_arn: Option<&str>,
) -> Result<String, Refused> {
    // Operators' attributes are taken at the first registration only.
    let own = if known_arn.is_none() {
        settings.attributes.clone()
    } else {
        BTreeMap::new()
    };
    let wanted = attributes(&own);
    let reply = client
        .register_container_instance()
        .cluster(&settings.cluster)
        .instance_identity_document(&identity.document)
        .instance_identity_document_signature(&identity.signature)
        .set_container_instance_arn(known_arn.map(str::to_owned))
        .set_attributes(Some(wanted.clone()))
        .set_total_resources(Some(
            resources(settings, hardware).map_err(Refused::ForGood)?,
        ))
        .set_tags((!settings.tags.is_empty()).then(|| tags(&settings.tags)))
        .version_info(
            VersionInfo::builder()
                .agent_version(AGENT_VERSION)
                .agent_hash(AGENT_HASH)
                .docker_version(format!("DockerVersion: {}", hardware.docker_version))
                .build(),
        )
        .send()
        .await
        .map_err(|error| {
            let terminal = is_terminal(error.code());
            let error = anyhow::Error::new(error).context(format!(
                "ECS: RegisterContainerInstance in cluster {}",
                settings.cluster
            ));
            if terminal {
                Refused::ForGood(error)
            } else {
                Refused::ForNow(error)
            }
        })?;
    let instance = reply.container_instance.ok_or_else(|| {
        Refused::ForNow(anyhow!("ECS: RegisterContainerInstance answered nothing"))
    })?;
    let is_missing = |wanted: &&Attribute| {
        let same = |got: &Attribute| got.name() == wanted.name() && got.value() == wanted.value();
        !instance.attributes().iter().any(same)
    };
    if let Some(missing) = wanted.iter().find(is_missing) {
        return Err(Refused::ForGood(anyhow!(
            "ECS: attribute {} was not registered",
            missing.name()
        )));
    }
    instance
        .container_instance_arn
        .ok_or_else(|| Refused::ForNow(anyhow!("ECS: RegisterContainerInstance answered no ARN")))
}

/// What the real agent takes for the end of it.
fn is_terminal(code: Option<&str>) -> bool {
    matches!(
        code,
        Some(
            "ClientException"
                | "InvalidParameterException"
                | "ClusterNotFoundException"
                | "AttributeLimitExceededException"
        )
    )
}

fn attributes(own: &BTreeMap<String, String>) -> Vec<Attribute> {
    let attribute = |name: &str, value: Option<&str>| {
        Attribute::builder()
            .name(name)
            .set_value(value.map(str::to_owned))
            .build()
            .ok()
    };
    CAPABILITIES
        .iter()
        .filter_map(|(name, value)| attribute(name, *value))
        .chain(
            own.iter()
                .filter_map(|(name, value)| attribute(name, Some(value))),
        )
        .collect()
}

fn tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

fn resources(settings: &Settings, hardware: &Hardware) -> anyhow::Result<Vec<Resource>> {
    let cpu = i32::try_from(hardware.processors * CPU_UNITS).context("count CPU units")?;
    let memory = hardware.memory - i32::from(settings.reserved_memory);
    if memory <= 0 {
        return Err(anyhow!(
            "ECS_RESERVED_MEMORY={} leaves nothing of {} MiB",
            settings.reserved_memory,
            hardware.memory
        ));
    }
    Ok(vec![
        integer("CPU", cpu),
        integer("MEMORY", memory),
        port_set("PORTS", &settings.reserved_ports),
        port_set("PORTS_UDP", &settings.reserved_ports_udp),
    ])
}

fn integer(name: &str, value: i32) -> Resource {
    Resource::builder()
        .name(name)
        .r#type("INTEGER")
        .integer_value(value)
        .build()
}

fn port_set(name: &str, ports: &[u16]) -> Resource {
    Resource::builder()
        .name(name)
        .r#type("STRINGSET")
        .set_string_set_value(Some(ports.iter().map(u16::to_string).collect()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hardware() -> Hardware {
        Hardware {
            processors: 2,
            memory: 4_096,
            docker_version: "20.10".to_owned(),
        }
    }

    fn settings(operator: &str) -> Settings {
        Settings::of(&super::super::config::variables("", operator)).unwrap()
    }

    #[test]
    fn reservations_are_taken_off() {
        let resources = resources(&settings("ECS_RESERVED_MEMORY=96"), &hardware()).unwrap();
        let value = |name: &str| {
            let found = resources
                .iter()
                .find(|resource| resource.name() == Some(name));
            found.unwrap().integer_value()
        };
        assert_eq!((value("CPU"), value("MEMORY")), (2_048, 4_000));
    }

    #[test]
    fn reserving_all_memory_is_refused() {
        assert!(resources(&settings("ECS_RESERVED_MEMORY=4096"), &hardware()).is_err());
    }

    #[test]
    fn an_operator_s_attributes_join_the_agent_s() {
        let own = BTreeMap::from([("stack".to_owned(), "blue".to_owned())]);
        let names: Vec<String> = attributes(&own)
            .iter()
            .map(|attribute| attribute.name().to_owned())
            .collect();
        assert!(names.contains(&"stack".to_owned()));
        assert!(names.contains(&"ecs.os-type".to_owned()));
    }
}
