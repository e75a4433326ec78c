//! Private registries of Amazon ECR: the password that Docker pulls from one with.
//!
//! One call, signed by hand with what the SDKs sign with: an SDK for it would make the agent larger than
//! it may be (ARCHITECTURE.md, "Dependencies").

use std::fmt;

use anyhow::{Context as _, Result, bail};
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::{
    orchestrator::{HttpRequest, HttpResponse, OrchestratorError},
    result::SdkError,
};
use aws_smithy_types::{body::SdkBody, error::display::DisplayErrorContext};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use fleet_agent_config::EcrImage;
use serde::Deserialize;

use super::aws::{Aws, timeouts};

const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const CALL: &str = "ecr:GetAuthorizationToken";
/// It says no more than that, and twelve hours are more than a pull takes.
const BODY: &str = "{}";

/// Good for twelve hours.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Without the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("host", &self.host)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

pub(crate) trait Ecr {
    /// What Docker pulls this image with.
    async fn login(&self, image: &EcrImage) -> Result<Login>;
}

impl Ecr for Aws {
    async fn login(&self, image: &EcrImage) -> Result<Login> {
        let answered = ask(self.config().await, image).await;
        let text = answered.with_context(|| format!("{CALL} of {}", image.host))?;
        let (user, password) =
            read(&text).with_context(|| format!("{CALL} of {}: no token", image.host))?;
        Ok(Login {
            host: image.host.clone(),
            user,
            password,
        })
    }
}

async fn ask(config: &SdkConfig, image: &EcrImage) -> Result<Vec<u8>> {
    let endpoint = config.endpoint_url().unwrap_or(&image.endpoint);
    let headers = signed(config, image, endpoint).await?;
    let http = config.http_client().context("no HTTP client")?;
    let sleep = config.sleep_impl().context("no way to sleep")?;
    let operation = Operation::builder()
        .service_name("ecr")
        .operation_name("GetAuthorizationToken")
        .endpoint_url(endpoint)
        .http_client(http)
        .sleep_impl(sleep)
        .timeout_config(timeouts())
        .no_auth()
        .no_retry()
        .serializer(move |headers: Vec<(String, String)>| {
            let mut request = HttpRequest::new(SdkBody::from(BODY));
            request.set_method("POST")?;
            request.set_uri("/")?;
            for (name, value) in headers {
                request.headers_mut().try_insert(name, value)?;
            }
            Ok(request)
        })
        .deserializer(|response: &HttpResponse| {
            let body = response.body().bytes().unwrap_or_default().to_vec();
            Ok::<_, OrchestratorError<std::io::Error>>((response.status().as_u16(), body))
        })
        .build();
    let (status, body) = operation.invoke(headers).await.map_err(told)?;
    if status != 200 {
        bail!("HTTP {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}

fn told(error: SdkError<std::io::Error, HttpResponse>) -> anyhow::Error {
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}

/// Headers that are signed, and the signature.
async fn signed(
    config: &SdkConfig,
    image: &EcrImage,
    endpoint: &str,
) -> Result<Vec<(String, String)>> {
    let provider = config.credentials_provider().context("no credentials")?;
    let identity = provider.provide_credentials().await?.into();
    let time = config.time_source().context("no clock")?.now();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(&image.region)
        .name("ecr")
        .time(time)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let plain = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", TARGET),
    ];
    let uri = format!("{}/", endpoint.trim_end_matches('/'));
    let body = SignableBody::Bytes(BODY.as_bytes());
    let request = SignableRequest::new("POST", uri, plain.into_iter(), body)?;
    let (instructions, _) = sign(request, &params)?.into_parts();
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(plain
        .into_iter()
        .map(own)
        .chain(instructions.headers().map(own))
        .collect())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    authorization_data: Vec<Token>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    /// `USER:PASSWORD` in base 64.
    authorization_token: String,
}

fn read(body: &[u8]) -> Result<(String, String)> {
    let reply: Reply = serde_json::from_slice(body)?;
    let token = reply.authorization_data.first().context("an empty list")?;
    let token = BASE64_STANDARD.decode(&token.authorization_token)?;
    let token = String::from_utf8(token)?;
    let (user, password) = token.split_once(':').context("no colon in it")?;
    Ok((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_and_not_shown() {
        let reply = br#"{"authorizationData": [{
            "authorizationToken": "QVdTOnMzY3IzdDp4", "proxyEndpoint": "https://x"
        }]}"#;
        let (user, password) = read(reply).expect("a token");
        assert_eq!((user.as_str(), password.as_str()), ("AWS", "s3cr3t:x"));
        let login = Login {
            host: "x".to_owned(),
            user,
            password,
        };
        assert!(!format!("{login:?}").contains("s3cr3t"));
        for broken in [&b"{}"[..], b"{\"authorizationData\": []}", b"<html>"] {
            assert!(read(broken).is_err());
        }
    }
}
