//! Who we are. The first call of every command: what is wrong with credentials or the endpoint
//! shows here, within seconds.

use std::time::Duration;

use aws_sdk_sts::{
    Client,
    config::{Builder, retry::RetryConfig, timeout::TimeoutConfig},
};

use super::error::{CallError, failed};

/// Tells a slow network from an endpoint that is down, without keeping anybody waiting.
const FIRST_CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Sts {
    client: Client,
}

impl Sts {
    pub(super) fn new(config: Builder) -> Self {
        let config = config
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(FIRST_CALL_TIMEOUT / 2)
                    .operation_timeout(FIRST_CALL_TIMEOUT)
                    .build(),
            );
        Self {
            client: Client::from_conf(config.build()),
        }
    }

    /// The account id, 12 digits.
    pub(crate) async fn account(&self) -> Result<String, CallError> {
        const CALL: &str = "sts:GetCallerIdentity";
        const WHO: &str = "of these credentials";
        let reply = self
            .client
            .get_caller_identity()
            .send()
            .await
            .map_err(failed(CALL, WHO))?;
        reply
            .account
            .ok_or_else(|| CallError::malformed(CALL, WHO, "account"))
    }
}
