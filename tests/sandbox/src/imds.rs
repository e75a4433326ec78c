//! The instance metadata service, version 2 only, for every machine of a sandbox at once: who asks
//! is known by the address the question comes from. Containers inside a machine come with the
//! machine's own address, as on EC2.
//!
//! What is answered is in [`tree`]; here are tokens, methods and status codes.

#![allow(
    clippy::disallowed_methods,
    reason = "tokens and credentials expire by the clock"
)]

mod tree;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
};
use fleet_sandbox::machines::Metadata;
use jiff::Timestamp;
use tokio::net::TcpListener;

use self::tree::Tree;

const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// AWS's longest token, seconds: six hours.
const TOKEN_TTL_MAX: u64 = 21_600;

/// Tokens kept before the expired ones are thrown out.
const TOKENS_MAX: usize = 4_096;

/// Serves until the listener fails. `lookup` is asked at every request, so that what it says is
/// live.
pub(crate) async fn serve(
    listener: TcpListener,
    lookup: impl Fn(Ipv4Addr) -> Option<Metadata> + Send + Sync + 'static,
) -> std::io::Result<()> {
    let service = Arc::new(Service {
        lookup: Box::new(lookup),
        tokens: Mutex::default(),
        since: Timestamp::now(),
    });
    let app = Router::new().fallback(answer).with_state(service);
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await
}

struct Service {
    lookup: Box<dyn Fn(Ipv4Addr) -> Option<Metadata> + Send + Sync>,
    /// Good until when, and for whom.
    tokens: Mutex<HashMap<String, (Ipv4Addr, Instant)>>,
    since: Timestamp,
}

async fn answer(
    State(service): State<Arc<Service>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let IpAddr::V4(caller) = peer.ip() else {
        return refusal(StatusCode::NOT_FOUND);
    };
    if method == Method::PUT && uri.path() == "/latest/api/token" {
        return service.token(caller, &headers);
    }
    if method != Method::GET && method != Method::HEAD {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !service.is_good(caller, &headers) {
        return refusal(StatusCode::UNAUTHORIZED);
    }
    let Some(metadata) = (service.lookup)(caller) else {
        // A machine nobody knows is a machine being made: clients come again after a 503.
        return refusal(StatusCode::SERVICE_UNAVAILABLE);
    };
    let tree = Tree::of(&metadata, caller, service.since, Timestamp::now());
    match tree.get(uri.path()) {
        Some(body) => plain(body),
        None => refusal(StatusCode::NOT_FOUND),
    }
}

impl Service {
    fn token(&self, caller: Ipv4Addr, headers: &HeaderMap) -> Response {
        // A forwarded request may come from anywhere; AWS refuses it a token.
        if headers.contains_key("x-forwarded-for") {
            return refusal(StatusCode::FORBIDDEN);
        }
        let ttl = headers
            .get(TOKEN_TTL)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse::<u64>().ok())
            .filter(|ttl| (1..=TOKEN_TTL_MAX).contains(ttl));
        let Some(ttl) = ttl else {
            return refusal(StatusCode::BAD_REQUEST);
        };
        let token = format!("{:016x}{:016x}==", fastrand::u64(..), fastrand::u64(..));
        let now = Instant::now();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_MAX {
            tokens.retain(|_, (_, good_until)| *good_until > now);
        }
        tokens.insert(token.clone(), (caller, now + Duration::from_secs(ttl)));
        drop(tokens);
        let mut response = plain(token.into_bytes());
        response
            .headers_mut()
            .insert(TOKEN_TTL, HeaderValue::from(ttl));
        response
    }

    fn is_good(&self, caller: Ipv4Addr, headers: &HeaderMap) -> bool {
        let Some(token) = headers.get(TOKEN).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(token)
            .is_some_and(|(owner, good_until)| *owner == caller && *good_until > Instant::now())
    }
}

fn plain(body: Vec<u8>) -> Response {
    respond(StatusCode::OK, "text/plain", body)
}

/// AWS's own page.
fn refusal(status: StatusCode) -> Response {
    let title = format!(
        "{} - {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error")
    );
    let page = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n \
         <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    respond(status, "text/html", page.into_bytes())
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::SERVER, HeaderValue::from_static("EC2ws"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(super) fn machine() -> Metadata {
        Metadata {
            instance_id: "i-0123456789abcdef0".to_owned(),
            image_id: "ami-0abc".to_owned(),
            instance_type: "t3.medium".to_owned(),
            availability_zone: "us-east-1a".to_owned(),
            region: "us-east-1".to_owned(),
            account_id: "123456789012".to_owned(),
            role: Some("web".to_owned()),
            access_key_id: "ASIAEXAMPLE".to_owned(),
            user_data: Some(b"#cloud-config\n".to_vec()),
            tags: Some(BTreeMap::from([(
                "aws:autoscaling:groupName".to_owned(),
                "dev-web".to_owned(),
            )])),
            target_lifecycle_state: Some("InService".to_owned()),
            spot_action: None,
            rebalance: None,
        }
    }

    async fn start(known: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, move |_| known.then(machine)));
        url
    }

    fn client() -> reqwest::Client {
        reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap()
    }

    async fn token(url: &str) -> String {
        let reply = client()
            .put(format!("{url}/latest/api/token"))
            .header(TOKEN_TTL.as_str(), "60")
            .send()
            .await
            .unwrap();
        assert_eq!(reply.headers()[TOKEN_TTL.as_str()], "60");
        reply.text().await.unwrap()
    }

    async fn get(url: &str, token: &str, path: &str) -> (u16, String) {
        let reply = client()
            .get(format!("{url}{path}"))
            .header(TOKEN.as_str(), token)
            .send()
            .await
            .unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    #[tokio::test]
    async fn only_a_token_opens_the_door() {
        let url = start(true).await;
        let path = "/latest/meta-data/instance-id";
        let without = client().get(format!("{url}{path}")).send().await.unwrap();
        assert_eq!(without.status().as_u16(), 401);
        assert_eq!(get(&url, "forged", path).await.0, 401);
        let token = token(&url).await;
        assert_eq!(
            get(&url, &token, path).await,
            (200, "i-0123456789abcdef0".to_owned())
        );
    }

    #[tokio::test]
    async fn a_token_needs_a_lifetime_and_no_proxy() {
        let url = format!("{}/latest/api/token", start(true).await);
        for ttl in ["0", "21601", "soon"] {
            let reply = client().put(&url).header(TOKEN_TTL.as_str(), ttl);
            assert_eq!(reply.send().await.unwrap().status().as_u16(), 400, "{ttl}");
        }
        let forwarded = client()
            .put(&url)
            .header(TOKEN_TTL.as_str(), "60")
            .header("x-forwarded-for", "10.0.0.1");
        assert_eq!(forwarded.send().await.unwrap().status().as_u16(), 403);
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_404_page() {
        let url = start(true).await;
        let token = token(&url).await;
        let (status, body) = get(&url, &token, "/latest/meta-data/spot/instance-action").await;
        assert_eq!(status, 404);
        assert!(body.contains("<title>404 - Not Found</title>"), "{body}");
    }

    #[tokio::test]
    async fn an_unknown_machine_is_asked_to_come_again() {
        let url = start(false).await;
        let token = token(&url).await;
        assert_eq!(get(&url, &token, "/latest/meta-data/").await.0, 503);
    }
}
