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
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{StatusCode, header::HeaderValue};
use serde::Deserialize;

use super::body;

const ENDPOINT: &str = "http://169.254.169.254";
/// No answer that is asked for here is longer, bytes.
const BODY_MAX: usize = 64 * 1_024;
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
    /// Whether EC2 may take it back.
    pub(crate) spot: bool,
}

/// Where Auto Scaling wants the instance to be; where it is now, IMDS does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// In service, or on the way there.
    InService,
    /// Gone: this node is to leave.
    Terminated,
    /// In a warm pool, in this state.
    Warmed(String),
    /// Standby, Detached, and whatever comes.
    Other(String),
    /// Not populated: not in a group, or not yet.
    NoGroup,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InService => "InService",
            Self::Terminated => "Terminated",
            Self::Warmed(state) | Self::Other(state) => state,
            Self::NoGroup => "not in a group yet",
        })
    }
}

/// EC2 is about to take a spot instance back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SpotNotice {
    pub(crate) action: SpotAction,
    pub(crate) time: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpotAction {
    Terminate,
    Stop,
    Hibernate,
}

/// What EC2 says of a spot instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) notice: Option<SpotNotice>,
    /// When a rebalance was recommended, as EC2 writes it.
    pub(crate) rebalance: Option<String>,
}

/// A maintenance that EC2 has scheduled and neither completed nor cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maintenance {
    pub(crate) id: String,
    /// `instance-stop`, `system-reboot`...
    pub(crate) code: String,
    pub(crate) starts: Timestamp,
    /// Not of every event.
    pub(crate) ends: Option<Timestamp>,
}

pub(crate) trait Imds {
    async fn identity(&self) -> Result<Identity>;
    async fn target(&self) -> Result<Target>;
    async fn spot(&self) -> Result<Spot>;
    async fn maintenance(&self) -> Result<Vec<Maintenance>>;
    /// ARN of this instance.
    async fn arn(&self) -> Result<String>;
    /// The value of one of this instance's tags, which may be empty.
    async fn tag(&self, key: &str) -> Result<Option<String>>;
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
                let text = body::text(reply, BODY_MAX).await.with_context(name)?;
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

    async fn rebalance(&self) -> Result<Option<String>> {
        const PATH: &str = "meta-data/events/recommendations/rebalance";
        let recommended = self.get(PATH).await?;
        recommended.as_deref().map(parse_rebalance).transpose()
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
        let reply = self
            .http
            .put(&url)
            .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(reqwest::Error::without_url)
            .with_context(name)?;
        let text = body::text(reply, BODY_MAX).await.with_context(name)?;
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
            spot: self.get("meta-data/instance-life-cycle").await?.as_deref() == Some("spot"),
        })
    }

    async fn arn(&self) -> Result<String> {
        let document = self.required("dynamic/instance-identity/document").await?;
        let partition = self.required("meta-data/services/partition").await?;
        parse_arn(&partition, &document)
    }

    async fn target(&self) -> Result<Target> {
        let state = self
            .get("meta-data/autoscaling/target-lifecycle-state")
            .await?;
        Ok(parse_target(state.as_deref()))
    }

    async fn spot(&self) -> Result<Spot> {
        let notice = self.get("meta-data/spot/instance-action").await?;
        let notice = notice.as_deref().map(parse_notice).transpose()?;
        match self.rebalance().await {
            Ok(rebalance) => Ok(Spot { notice, rebalance }),
            // Nothing else matters beside a notice.
            Err(_) if notice.is_some() => Ok(Spot {
                notice,
                rebalance: None,
            }),
            Err(error) => Err(error),
        }
    }

    async fn maintenance(&self) -> Result<Vec<Maintenance>> {
        let events = self.get("meta-data/events/maintenance/scheduled").await?;
        events.as_deref().map_or(Ok(Vec::new()), parse_maintenance)
    }

    async fn tag(&self, key: &str) -> Result<Option<String>> {
        self.get(&format!("meta-data/tags/instance/{key}")).await
    }
}

const SPOT: &str = "instance metadata service: spot/instance-action";
const REBALANCE: &str = "instance metadata service: events/recommendations/rebalance";
const MAINTENANCE: &str = "instance metadata service: events/maintenance/scheduled";

fn parse_notice(text: &str) -> Result<SpotNotice> {
    serde_json::from_str(text).context(SPOT)
}

fn parse_rebalance(text: &str) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Recommendation {
        notice_time: String,
    }
    let recommendation: Recommendation = serde_json::from_str(text).context(REBALANCE)?;
    Ok(recommendation.notice_time)
}

/// An array, empty when there is none (EC2 user guide, "viewing_scheduled_events"). Those that are
/// over, or were called off, are left out.
fn parse_maintenance(text: &str) -> Result<Vec<Maintenance>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Scheduled {
        event_id: String,
        code: String,
        not_before: String,
        #[serde(default)]
        not_after: Option<String>,
        state: String,
    }
    let scheduled: Vec<Scheduled> = serde_json::from_str(text).context(MAINTENANCE)?;
    scheduled
        .into_iter()
        .filter(|event| event.state == "active")
        .map(|event| {
            let time = |text: &str| parse_time(text).context(MAINTENANCE);
            Ok(Maintenance {
                starts: time(&event.not_before)?,
                ends: event.not_after.as_deref().map(time).transpose()?,
                id: event.event_id,
                code: event.code,
            })
        })
        .collect()
}

/// `21 Nov 2026 15:04:05 GMT`.
fn parse_time(text: &str) -> Result<Timestamp> {
    let civil = jiff::civil::DateTime::strptime("%d %b %Y %H:%M:%S GMT", text)
        .with_context(|| format!("`{text}` is no time"))?;
    Ok(civil.to_zoned(TimeZone::UTC)?.timestamp())
}

/// The ARN of the instance that an identity document is of.
fn parse_arn(partition: &str, document: &str) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        account_id: String,
        region: String,
        instance_id: String,
    }
    let Document {
        account_id,
        region,
        instance_id,
    } = serde_json::from_str(document)
        .context("instance metadata service: dynamic/instance-identity/document")?;
    Ok(format!(
        "arn:{partition}:ec2:{region}:{account_id}:instance/{instance_id}"
    ))
}

#[cfg(test)]
pub(crate) fn read_anything(text: &str) {
    // None of them may panic; what they make of it is each caller's.
    let _ = parse_notice(text);
    let _ = parse_rebalance(text);
    let _ = parse_maintenance(text);
    let _ = parse_target(Some(text)).to_string();
    let _ = parse_arn("aws", text);
}

pub(crate) fn parse_target(state: Option<&str>) -> Target {
    match state {
        None | Some("") => Target::NoGroup,
        Some("InService") => Target::InService,
        Some("Terminated" | "Warmed:Terminated") => Target::Terminated,
        Some(warm) if warm.starts_with("Warmed:") => Target::Warmed(warm.to_owned()),
        Some(other) => Target::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_knows_its_arn() {
        let document = r#"{"accountId":"123456789012","region":"cn-north-1","instanceId":"i-1"}"#;
        let arn = parse_arn("aws-cn", document).expect("an ARN");
        assert_eq!(arn, "arn:aws-cn:ec2:cn-north-1:123456789012:instance/i-1");
        assert!(parse_arn("aws", "{}").is_err());
    }

    #[test]
    fn reads_every_kind_of_target() {
        assert_eq!(parse_target(None), Target::NoGroup);
        assert_eq!(parse_target(Some("InService")), Target::InService);
        assert_eq!(parse_target(Some("Terminated")), Target::Terminated);
        assert_eq!(parse_target(Some("Warmed:Terminated")), Target::Terminated);
        let other = parse_target(Some("Warmed:Running"));
        assert_eq!(other, Target::Warmed("Warmed:Running".into()));
        let other = parse_target(Some("Standby"));
        assert_eq!(other, Target::Other("Standby".into()));
    }

    /// The examples of the EC2 user guide.
    #[test]
    fn reads_notices_as_ec2_writes_them() {
        let notice = parse_notice(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#)
            .expect("a notice");
        assert_eq!(notice.action, SpotAction::Terminate);
        assert_eq!(notice.time.as_second(), 1_505_722_920);
        assert!(parse_notice(r#"{"action": "explode", "time": "2017-09-18T08:22:00Z"}"#).is_err());
        let recommended = parse_rebalance(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#);
        assert_eq!(recommended.expect("one"), "2020-10-27T08:22:00Z");
    }

    #[test]
    fn maintenance_that_is_over_or_called_off_is_none() {
        assert_eq!(parse_maintenance("[]").expect("none"), []);
        let event = |state: &str| {
            format!(
                r#"[{{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot",
                "Description": "scheduled reboot", "EventId": "instance-event-0d59937288b749b32",
                "NotAfter": "21 Jan 2019 09:17:23 GMT", "State": "{state}"}}]"#
            )
        };
        let active = parse_maintenance(&event("active")).expect("one");
        assert_eq!(active[0].starts.as_second(), 1_548_061_243);
        assert_eq!(
            active[0].ends.map(Timestamp::as_second),
            Some(1_548_062_243)
        );
        assert_eq!(active[0].code, "system-reboot");
        for over in ["completed", "canceled"] {
            assert_eq!(parse_maintenance(&event(over)).expect("over"), []);
        }
        assert!(parse_maintenance("{}").is_err());
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
