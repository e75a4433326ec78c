//! The instance metadata service: version 2 only, one session whose token is used until shortly
//! before it expires. The service throttles per instance, so nothing is asked twice.
#![allow(
    clippy::disallowed_methods,
    reason = "an edge: the token's age is of this client alone, the endpoint is the SDK's setting"
)]

use std::{
    cell::RefCell,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::{StatusCode, header::HeaderValue};

const ENDPOINT: &str = "http://169.254.169.254";
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a token lives; IMDS allows six hours.
const TOKEN_SECONDS: u64 = 21_600;
/// A token is renewed this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) instance: String,
    pub(crate) region: String,
    pub(crate) zone: String,
}

/// Where Auto Scaling wants the instance to be; where it is now, IMDS does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// In service, or on the way there.
    InService,
    /// Gone: this node is to leave.
    Terminated,
    /// A warm pool's states, Standby, Detached, and whatever comes.
    Other(String),
    /// Not populated: not in a group, or not yet.
    NoGroup,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InService => "InService",
            Self::Terminated => "Terminated",
            Self::Other(state) => state,
            Self::NoGroup => "not in a group yet",
        })
    }
}

pub(crate) trait Imds {
    async fn identity(&self) -> Result<Identity>;
    async fn target(&self) -> Result<Target>;
}

#[derive(Debug)]
pub(crate) struct Metadata {
    endpoint: String,
    http: reqwest::Client,
    token: RefCell<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    value: HeaderValue,
    renew_at: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Metadata {
    /// The endpoint is what the SDK's own setting names, so that agent and SDK ask the same.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub(crate) fn from_environment() -> Result<Self> {
        let endpoint = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or_else(|_| ENDPOINT.to_owned());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            http: reqwest::Client::builder()
                .no_proxy()
                .connect_timeout(TIMEOUT)
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(1)
                .build()
                .context("no HTTP client for the instance metadata service")?,
            token: RefCell::new(None),
        })
    }

    /// The text at `path`, `None` where nothing stands.
    async fn get(&self, path: &str) -> Result<Option<String>> {
        let url = format!("{}/latest/{path}", self.endpoint);
        let name = || format!("instance metadata service: GET {url}");
        let token = self.token().await?;
        let reply = self
            .http
            .get(&url)
            .header("x-aws-ec2-metadata-token", token)
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(name)?;
        match reply.status() {
            StatusCode::OK => {
                let text = reply.text().await.with_context(name)?;
                Ok(Some(text.trim().to_owned()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => {
                // 401 says that the token is no longer known, after a stop and start for one.
                self.token.take();
                bail!("{}: HTTP {status}", name())
            }
        }
    }

    async fn required(&self, path: &str) -> Result<String> {
        self.get(path)
            .await?
            .with_context(|| format!("instance metadata service: {path}: not found"))
    }

    async fn token(&self) -> Result<HeaderValue> {
        if let Some(token) = &*self.token.borrow()
            && Instant::now() < token.renew_at
        {
            return Ok(token.value.clone());
        }
        let url = format!("{}/latest/api/token", self.endpoint);
        let name = || format!("instance metadata service: PUT {url}");
        let asked = Instant::now();
        let text = self
            .http
            .put(&url)
            .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(reqwest::Error::without_url)
            .with_context(name)?
            .text()
            .await
            .with_context(name)?;
        let mut value = HeaderValue::from_str(text.trim()).with_context(name)?;
        value.set_sensitive(true);
        self.token.replace(Some(Token {
            value: value.clone(),
            renew_at: asked + Duration::from_secs(TOKEN_SECONDS) - TOKEN_MARGIN,
        }));
        Ok(value)
    }
}

impl Imds for Metadata {
    async fn identity(&self) -> Result<Identity> {
        Ok(Identity {
            instance: self.required("meta-data/instance-id").await?,
            region: self.required("meta-data/placement/region").await?,
            zone: self
                .required("meta-data/placement/availability-zone")
                .await?,
        })
    }

    async fn target(&self) -> Result<Target> {
        let state = self
            .get("meta-data/autoscaling/target-lifecycle-state")
            .await?;
        Ok(parse_target(state.as_deref()))
    }
}

fn parse_target(state: Option<&str>) -> Target {
    match state {
        None | Some("") => Target::NoGroup,
        Some("InService") => Target::InService,
        Some("Terminated" | "Warmed:Terminated") => Target::Terminated,
        Some(other) => Target::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_target() {
        assert_eq!(parse_target(None), Target::NoGroup);
        assert_eq!(parse_target(Some("InService")), Target::InService);
        assert_eq!(parse_target(Some("Terminated")), Target::Terminated);
        assert_eq!(parse_target(Some("Warmed:Terminated")), Target::Terminated);
        let other = parse_target(Some("Warmed:Running"));
        assert_eq!(other, Target::Other("Warmed:Running".into()));
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let token = Token {
            value: HeaderValue::from_static("secret"),
            renew_at: Instant::now(),
        };
        assert!(!format!("{token:?}").contains("secret"));
    }
}
