//! One configuration for all clients: bounded in time, never adaptive in its retries, through a
//! proxy where the environment names one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder, Connector,
    proxy::ProxyConfig,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::SharedHttpClient,
        interceptors::{
            Intercept, context::BeforeSerializationInterceptorContextRef, dyn_dispatch_hint,
        },
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

use super::{
    autoscaling::AutoScaling, cloudwatch::CloudWatch, ec2::Ec2, ecs::Ecs, iam::Iam, s3::S3,
    ssm::Ssm, sts::Sts,
};

/// The SDK backs off between these for a few seconds altogether.
const ATTEMPTS: u32 = 5;
/// A service that has not answered by then will not.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Bounds a call with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);

/// All the services this program calls.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) sts: Sts,
    pub(crate) ec2: Ec2,
    pub(crate) autoscaling: AutoScaling,
    pub(crate) cloudwatch: CloudWatch,
    pub(crate) ecs: Ecs,
    pub(crate) iam: Iam,
    pub(crate) s3: S3,
    pub(crate) ssm: Ssm,
    calls: Calls,
    /// Where the calls go, as people would name it.
    endpoint: String,
}

impl Cloud {
    /// Credentials and endpoint come from where the SDK looks for them; the region only from the
    /// file.
    pub(crate) async fn connect(region: &str) -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(http_client())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(OPERATION_TIMEOUT)
                    .build(),
            )
            .load()
            .await;
        Self::from_config(&config)
    }

    fn from_config(config: &SdkConfig) -> Self {
        let calls = Calls::default();
        // An SdkConfig carries no interceptor: each service's own configuration does.
        Self {
            sts: Sts::new(aws_sdk_sts::config::Builder::from(config).interceptor(calls.clone())),
            ec2: Ec2::new(aws_sdk_ec2::config::Builder::from(config).interceptor(calls.clone())),
            autoscaling: AutoScaling::new(
                aws_sdk_autoscaling::config::Builder::from(config).interceptor(calls.clone()),
            ),
            cloudwatch: CloudWatch::new(
                aws_sdk_cloudwatch::config::Builder::from(config).interceptor(calls.clone()),
            ),
            ecs: Ecs::new(aws_sdk_ecs::config::Builder::from(config).interceptor(calls.clone())),
            iam: Iam::new(aws_sdk_iam::config::Builder::from(config).interceptor(calls.clone())),
            s3: S3::new(
                aws_sdk_s3::config::Builder::from(config).interceptor(calls.clone()),
                config.endpoint_url().is_some(),
            ),
            ssm: Ssm::new(aws_sdk_ssm::config::Builder::from(config).interceptor(calls.clone())),
            calls,
            endpoint: match (config.endpoint_url(), config.region()) {
                (Some(url), _) => url.to_owned(),
                (None, Some(region)) => format!("AWS in {region}"),
                (None, None) => "AWS".to_owned(),
            },
        }
    }

    /// The endpoint from the environment or the profile, else the region.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls made so far, retries not counted.
    pub(crate) fn calls(&self) -> usize {
        self.calls.0.load(Ordering::Relaxed)
    }
}

/// The stock client ignores HTTP_PROXY, which would leave users behind one stuck.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        if let Some(sleep) = components.and_then(RuntimeComponents::sleep_impl) {
            connector = connector.sleep_impl(sleep);
        }
        connector
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build()
    })
}

/// Counts calls.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<AtomicUsize>);

#[dyn_dispatch_hint]
impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "calls"
    }

    fn read_before_serialization(
        &self,
        _: &BeforeSerializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
