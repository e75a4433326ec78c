//! What the AWS adapters share: one HTTP client, one configuration, one way to put an error.

use std::{error::Error, fmt::Debug, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{self, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::{display::DisplayErrorContext, metadata::ProvideErrorMetadata};
use tokio::sync::OnceCell;

/// The SDK's own retries are few: its quota is per process and runs dry in an outage, so the
/// lifecycle's level-triggered loop is the real retry.
const ATTEMPTS: u32 = 3;
const CONNECT: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_secs(5);
const OPERATION: Duration = Duration::from_secs(12);

/// ECS, Auto Scaling and Systems Manager, built at the first call and then kept. Credentials are the node's role,
/// from the instance metadata service through the SDK.
#[derive(Debug)]
pub(crate) struct Aws {
    region: String,
    cluster: String,
    group: String,
    clients: OnceCell<Clients>,
}

#[derive(Debug)]
struct Clients {
    ecs: aws_sdk_ecs::Client,
    autoscaling: aws_sdk_autoscaling::Client,
    ssm: aws_sdk_ssm::Client,
    config: SdkConfig,
}

impl Aws {
    pub(crate) fn new(region: &str, cluster: &str, group: &str) -> Self {
        Self {
            region: region.to_owned(),
            cluster: cluster.to_owned(),
            group: group.to_owned(),
            clients: OnceCell::new(),
        }
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    pub(super) async fn ecs(&self) -> &aws_sdk_ecs::Client {
        &self.clients().await.ecs
    }

    pub(super) async fn autoscaling(&self) -> &aws_sdk_autoscaling::Client {
        &self.clients().await.autoscaling
    }

    pub(super) async fn ssm(&self) -> &aws_sdk_ssm::Client {
        &self.clients().await.ssm
    }

    /// For what is called without a client.
    pub(super) async fn config(&self) -> &SdkConfig {
        &self.clients().await.config
    }

    async fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(|| async {
                let config = load(&self.region).await;
                Clients {
                    ecs: aws_sdk_ecs::Client::new(&config),
                    autoscaling: aws_sdk_autoscaling::Client::new(&config),
                    ssm: aws_sdk_ssm::Client::new(&config),
                    config,
                }
            })
            .await
    }
}

pub(super) fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build()
}

async fn load(region: &str) -> SdkConfig {
    let http = Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts())
        .load()
        .await
}

/// `CALL of RESOURCE: CODE: MESSAGE`, or what kept the call from being answered.
pub(super) fn explain<E, R>(call: &str, resource: &str, error: &SdkError<E, R>) -> anyhow::Error
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    match error.code() {
        Some(code) => anyhow::anyhow!(
            "{call} of {resource}: {code}: {}",
            error.message().unwrap_or("no message")
        ),
        None => anyhow::anyhow!("{call} of {resource}: {}", brief(error)),
    }
}

/// The error's kind and causes, on one line and without the SDK's debugging details.
fn brief<E, R>(error: &SdkError<E, R>) -> String
where
    E: Error + 'static,
    R: Debug + 'static,
{
    let text = DisplayErrorContext(error).to_string();
    let end = text
        .find(" (DispatchFailure")
        .or(text.find(" (TimeoutError"));
    text[..end.unwrap_or(text.len())].replace('\n', " ")
}
