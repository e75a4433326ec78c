//! The instance metadata service, version 2 only, for every machine of a sandbox at once: who asks
//! is known by the address the question comes from. Containers inside a machine come with the
//! machine's own address, as on EC2.
//!
//! What is answered is in [`tree`]; here are tokens, methods, status codes, and the service's own
//! troubles.

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
use fleet_sandbox::{machines::Metadata, notices::ImdsFault};
use jiff::Timestamp;
use tokio::{net::TcpListener, time::sleep};

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
    tokens: Mutex<HashMap<String, Token>>,
    since: Timestamp,
}

/// What a token is good for.
struct Token {
    owner: Ipv4Addr,
    good_until: Instant,
    /// Of the machine's tokens; an older one is forgotten.
    generation: u32,
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
    let honest = || service.answer(caller, &method, uri.path(), &headers);
    let fault = (service.lookup)(caller).map(|metadata| metadata.imds);
    match fault.unwrap_or_default() {
        ImdsFault::Ok => honest(),
        // Whoever asked hangs up some time, which drops this.
        ImdsFault::Down => std::future::pending().await,
        ImdsFault::Slow { ms } => {
            sleep(Duration::from_millis(ms.into())).await;
            honest()
        }
        ImdsFault::Late { ms } => {
            let stale = honest();
            sleep(Duration::from_millis(ms.into())).await;
            stale
        }
        ImdsFault::Status { code } => {
            refusal(StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE))
        }
    }
}

impl Service {
    fn answer(
        &self,
        caller: Ipv4Addr,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Response {
        let metadata = (self.lookup)(caller);
        let generation = metadata.as_ref().map_or(0, |m| m.token_generation);
        if method == Method::PUT && path == "/latest/api/token" {
            return self.token(caller, generation, headers);
        }
        if method != Method::GET && method != Method::HEAD {
            return refusal(StatusCode::METHOD_NOT_ALLOWED);
        }
        if !self.is_good(caller, generation, headers) {
            return refusal(StatusCode::UNAUTHORIZED);
        }
        let Some(metadata) = metadata else {
            // A machine nobody knows is a machine being made: clients come again after a 503.
            return refusal(StatusCode::SERVICE_UNAVAILABLE);
        };
        let tree = Tree::of(&metadata, caller, self.since, Timestamp::now());
        match tree.get(path) {
            Some(body) => plain(body),
            None => refusal(StatusCode::NOT_FOUND),
        }
    }

    fn token(&self, caller: Ipv4Addr, generation: u32, headers: &HeaderMap) -> Response {
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
            tokens.retain(|_, token| token.good_until > now);
        }
        let good = Token {
            owner: caller,
            good_until: now + Duration::from_secs(ttl),
            generation,
        };
        tokens.insert(token.clone(), good);
        drop(tokens);
        let mut response = plain(token.into_bytes());
        response
            .headers_mut()
            .insert(TOKEN_TTL, HeaderValue::from(ttl));
        response
    }

    fn is_good(&self, caller: Ipv4Addr, generation: u32, headers: &HeaderMap) -> bool {
        let Some(token) = headers.get(TOKEN).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).is_some_and(|token| {
            token.owner == caller
                && token.generation == generation
                && token.good_until > Instant::now()
        })
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

    use fleet_sandbox::notices::LifeCycle;

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
            public_key: Some(("ops".to_owned(), "ssh-rsa AAAA ops".to_owned())),
            user_data: Some(b"#cloud-config\n".to_vec()),
            tags: Some(BTreeMap::from([(
                "aws:autoscaling:groupName".to_owned(),
                "dev-web".to_owned(),
            )])),
            target_lifecycle_state: Some("InService".to_owned()),
            life_cycle: LifeCycle::OnDemand,
            spot_action: None,
            rebalance: None,
            maintenance: Vec::new(),
            maintenance_history: Vec::new(),
            imds: ImdsFault::Ok,
            token_generation: 0,
        }
    }

    async fn start(known: bool) -> String {
        start_with(move || known.then(machine)).await
    }

    async fn start_with(metadata: impl Fn() -> Option<Metadata> + Send + Sync + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, move |_| metadata()));
        url
    }

    /// A machine that can be changed while the service runs.
    async fn start_live() -> (Arc<Mutex<Metadata>>, String) {
        let live = Arc::new(Mutex::new(machine()));
        let looked_up = live.clone();
        let url = start_with(move || Some(looked_up.lock().unwrap().clone())).await;
        (live, url)
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
    async fn forgotten_tokens_are_refused_and_new_ones_are_good() {
        let (live, url) = start_live().await;
        let path = "/latest/meta-data/instance-id";
        let old = token(&url).await;
        live.lock().unwrap().token_generation += 1;
        assert_eq!(get(&url, &old, path).await.0, 401);
        let new = token(&url).await;
        assert_eq!(get(&url, &new, path).await.0, 200);
    }

    #[tokio::test]
    async fn a_status_is_everybody_s_answer_until_it_is_taken_back() {
        let (live, url) = start_live().await;
        let path = "/latest/meta-data/instance-id";
        let token = token(&url).await;
        live.lock().unwrap().imds = ImdsFault::Status { code: 503 };
        assert_eq!(get(&url, &token, path).await.0, 503);
        let asked = client().put(format!("{url}/latest/api/token"));
        let asked = asked.header(TOKEN_TTL.as_str(), "60");
        assert_eq!(asked.send().await.unwrap().status().as_u16(), 503);
        live.lock().unwrap().imds = ImdsFault::Ok;
        assert_eq!(get(&url, &token, path).await.0, 200);
    }

    #[tokio::test]
    async fn a_service_that_is_down_answers_nothing() {
        let (live, url) = start_live().await;
        live.lock().unwrap().imds = ImdsFault::Down;
        let asked = client().get(format!("{url}/latest/meta-data/"));
        let asked = asked.timeout(Duration::from_millis(200)).send().await;
        assert!(asked.unwrap_err().is_timeout());
    }

    /// The state of the machine that a question has for its answer, if the machine goes from
    /// `InService` to `Terminated` while the answer is under way.
    async fn answer_during_a_change(fault: ImdsFault) -> String {
        let (live, url) = start_live().await;
        let token = token(&url).await;
        live.lock().unwrap().imds = fault;
        let path = "/latest/meta-data/autoscaling/target-lifecycle-state";
        let (answer, ()) = tokio::join!(get(&url, &token, path), async {
            sleep(Duration::from_millis(300)).await;
            live.lock().unwrap().target_lifecycle_state = Some("Terminated".to_owned());
        });
        answer.1
    }

    #[tokio::test]
    async fn a_slow_answer_is_fresh_and_a_late_one_is_stale() {
        let slow = answer_during_a_change(ImdsFault::Slow { ms: 1_000 });
        let late = answer_during_a_change(ImdsFault::Late { ms: 1_000 });
        let (slow, late) = tokio::join!(slow, late);
        assert_eq!(slow, "Terminated");
        assert_eq!(late, "InService");
    }

    #[tokio::test]
    async fn an_unknown_machine_is_asked_to_come_again() {
        let url = start(false).await;
        let token = token(&url).await;
        assert_eq!(get(&url, &token, "/latest/meta-data/").await.0, 503);
    }
}
