//! Over real sockets on loopback.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::http::fixture::{at, view};
use crate::http::webhook::LARGEST;

const WEBHOOK: &str = "token-of-alertmanager-0123456789";
const PEOPLE: &str = "token-of-people-0123456789abcdef";
const WAKER: &str = "token-of-the-waker-of-this-sleep";
const WAKE: &str = "20260301t200000abcdef";

/// Remembers what it was asked.
#[derive(Default)]
struct Book {
    alerts: Mutex<Vec<Vec<Entry>>>,
    wishes: Mutex<Vec<(String, String)>>,
    unstored: bool,
    starting: bool,
}

impl Book {
    fn note(&self, wish: &str, what: &str, who: &str) -> Result<(), Denied> {
        if what.starts_with("2020") {
            return Err(Denied::NotFound);
        }
        if what == "busy_db" {
            return Err(Denied::Conflict("it has begun already".to_owned()));
        }
        self.wishes.lock().unwrap().push((format!("{wish} {what}"), who.to_owned()));
        Ok(())
    }
}

impl Desk for Arc<Book> {
    async fn alerts(&self, entries: Vec<Entry>) -> Result<Vec<Decided>, Unstored> {
        if self.unstored {
            return Err(Unstored::NotLeader);
        }
        let decided = entries.iter().map(|entry| match entry {
            Entry::Alert(alert) => Decided {
                alert: alert.name.clone(),
                service: alert.service().map(ToOwned::to_owned),
                fingerprint: Some(alert.fingerprint.clone()),
                status: Some(alert.status),
                decision: "not-opted-in",
                sentence: "nobody asked".to_owned(),
                operation: None,
            },
            Entry::Unreadable(_) => unreachable!("the tests send whole alerts"),
        });
        let decided = decided.collect();
        self.alerts.lock().unwrap().push(entries);
        Ok(decided)
    }

    async fn approve(&self, op: &OpId, who: &str) -> Result<(), Denied> {
        self.note("approve", op.as_str(), who)
    }

    async fn cancel(&self, op: &OpId, who: &str) -> Result<(), Denied> {
        self.note("cancel", op.as_str(), who)
    }

    async fn reset_circuit(&self, service: &str, who: &str) -> Result<(), Denied> {
        self.note("reset", service, who)
    }

    async fn lull(&self, unused: &Unused) -> Result<Lulled, Denied> {
        assert!(!format!("{unused:?}").contains(WAKER));
        Ok(match (unused.service.as_str(), unused.token.reveal(), unused.asked.as_second()) {
            ("shop_app", WAKER, 1_800_000_000) => Lulled::UnderWay(OpId::parse(WAKE).unwrap()),
            ("shop_app", WAKER, _) => Lulled::NotNow("it is needed"),
            (_, _, _) => Lulled::Stranger,
        })
    }

    async fn wake(&self, request: &Request) -> Result<Granted, Denied> {
        assert!(!format!("{request:?}").contains(WAKER));
        Ok(match (request.service.as_str(), request.token.reveal()) {
            ("shop_app", WAKER) => Granted::UnderWay(OpId::parse(WAKE).unwrap()),
            ("shop_app", _) => Granted::Stranger,
            (_, _) => Granted::Awake,
        })
    }

    fn view(&self) -> Option<Arc<View>> {
        (!self.starting).then(|| Arc::new(view()))
    }

    fn ready(&self) -> Result<(), String> {
        if self.starting { Err("the Swarm is being read".to_owned()) } else { Ok(()) }
    }
}

struct Running {
    address: SocketAddr,
    book: Arc<Book>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    served: JoinHandle<io::Result<()>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn tokens(token: &str) -> Tokens {
    let path = std::env::temp_dir().join(format!(
        "skep-http-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, token).unwrap();
    let tokens = Tokens::from_file(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    tokens
}

async fn start_with(book: Book, people: Tokens) -> Running {
    let book = Arc::new(book);
    let metrics = Arc::new(Metrics::new("0.1.0", "test", &[]));
    let mut shared = Shared::new(Arc::clone(&book), Arc::clone(&metrics), tokens(WEBHOOK), people);
    shared.now = || at(25);
    let shared = Arc::new(shared);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let router = pages(Arc::clone(&shared)).merge(wakers(Arc::clone(&shared))).merge(alerts(shared));
    let served = tokio::spawn(serve(listener, router, stop.clone()));
    Running { address, book, metrics, stop, served }
}

async fn start() -> Running {
    start_with(Book::default(), tokens(PEOPLE)).await
}

impl Running {
    async fn send(&self, head: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{head}\r\nhost: skep\r\nconnection: close\r\n{length}\r\n{body}");
        // A server that refuses early may close before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1"), "").await
    }

    async fn post_alerts(&self, authorization: &str, body: &str) -> Answer {
        let head = format!(
            "POST /webhooks/alertmanager HTTP/1.1\r\ncontent-type: application/json{}",
            if authorization.is_empty() {
                String::new()
            } else {
                format!("\r\nauthorization: {authorization}")
            }
        );
        self.send(&head, body).await
    }

    async fn post_form(&self, path: &str, body: &str) -> Answer {
        let head = format!(
            "POST {path} HTTP/1.1\r\naccept: text/html,*/*\r\ncontent-type: application/x-www-form-urlencoded"
        );
        self.send(&head, body).await
    }

    fn wishes(&self) -> Vec<(String, String)> {
        self.book.wishes.lock().unwrap().clone()
    }

    fn counted(&self, outcome: &str) -> bool {
        let series = format!("skep_alert_webhook_requests_total{{outcome=\"{outcome}\"}} 1");
        self.metrics.render().contains(&series)
    }
}

fn payload() -> String {
    serde_json::json!({"version": "4", "alerts": [{
        "status": "firing", "labels": {"alertname": "DbCorrupt", "skep_service": "shop_db"},
        "startsAt": "2026-11-20T09:20:12.205697522Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": "b8e3687026fc3605"
    }]})
    .to_string()
}

#[tokio::test]
async fn health_is_of_the_process_and_readiness_of_what_it_knows() {
    let running = start().await;
    assert_eq!((running.get("/healthz").await.status, running.get("/readyz").await.status), (200, 200));
    let starting = start_with(Book { starting: true, ..Book::default() }, Tokens::default()).await;
    let ready = starting.get("/readyz").await;
    assert_eq!((starting.get("/healthz").await.status, ready.status), (200, 503));
    assert!(ready.body.contains("being read"));
    assert_eq!((starting.get("/").await.status, starting.get("/api/v1/status").await.status), (503, 503));
}

#[tokio::test]
async fn metrics_come_as_the_text_that_prometheus_reads() {
    let running = start().await;
    running.metrics.observe(&view());
    let answer = running.get("/metrics").await;
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("skep_backups{service=\"shop_db\"} 27"));
}

#[tokio::test]
async fn alerts_with_the_token_are_judged_and_the_decisions_told() {
    let running = start().await;
    let answer = running.post_alerts(&format!("Bearer {WEBHOOK}"), &payload()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(said["decided"][0]["decision"], "not-opted-in");
    assert_eq!(running.book.alerts.lock().unwrap().len(), 1);
    assert!(running.counted("accepted"));
    assert!(running.metrics.render().contains("skep_remediations_total{decision=\"not-opted-in\"} 1"));
}

#[tokio::test]
async fn a_forged_alert_is_refused_and_nothing_of_it_is_stored() {
    let running = start().await;
    for forged in [
        "",
        "Bearer",
        "Bearer wrong-token-of-some-length",
        &format!("Basic {WEBHOOK}"),
        &format!("Bearer {PEOPLE}"),
    ] {
        let answer = running.post_alerts(forged, &payload()).await;
        assert_eq!(answer.status, 401, "{forged}");
        assert!(answer.head.contains("www-authenticate: bearer"));
    }
    assert!(running.book.alerts.lock().unwrap().is_empty());
    assert!(running.metrics.render().contains("requests_total{outcome=\"unauthorized\"} 5"));
}

#[tokio::test]
async fn a_forged_alert_is_refused_before_its_body_is_read() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = "POST /webhooks/alertmanager HTTP/1.1\r\nhost: skep\r\ncontent-length: 500000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn without_a_configured_token_the_webhook_is_shut() {
    let book = Arc::new(Book::default());
    let metrics = Arc::new(Metrics::new("0.1.0", "test", &[]));
    let shared = Arc::new(Shared::new(Arc::clone(&book), metrics, Tokens::default(), Tokens::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(listener, alerts(Arc::clone(&shared)), stop.clone()));
    let running = Running { address, book, metrics: Arc::clone(&shared.metrics), stop, served };
    for authorization in ["", "Bearer ", "Bearer x"] {
        assert_eq!(running.post_alerts(authorization, &payload()).await.status, 401);
    }
}

#[tokio::test]
async fn what_is_no_payload_is_a_400_and_too_much_is_a_413() {
    let running = start().await;
    let token = format!("Bearer {WEBHOOK}");
    for body in ["{", "{\"version\":\"5\",\"alerts\":[]}", "null"] {
        assert_eq!(running.post_alerts(&token, body).await.status, 400, "{body}");
    }
    let large = format!("{{\"version\":\"4\",\"alerts\":[],\"pad\":\"{}\"}}", "x".repeat(LARGEST));
    assert_eq!(running.post_alerts(&token, &large).await.status, 413);
    let fits = format!("{{\"version\":\"4\",\"alerts\":[],\"pad\":\"{}\"}}", "x".repeat(LARGEST - 100));
    assert_eq!(running.post_alerts(&token, &fits).await.status, 200);
    assert_eq!(running.get("/webhooks/alertmanager").await.status, 405);
    assert!(running.counted("too_large") && running.counted("accepted"));
}

#[tokio::test]
async fn what_cannot_be_stored_is_a_503_so_that_it_is_sent_again() {
    let running = start_with(Book { unstored: true, ..Book::default() }, Tokens::default()).await;
    let answer = running.post_alerts(&format!("Bearer {WEBHOOK}"), &payload()).await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("does not lead") && running.counted("unstored"));
}

#[tokio::test]
async fn a_person_approves_with_the_token_in_the_form() {
    let running = start().await;
    let op = view().operations.iter().find(|o| o.state.as_str() == "awaiting-approval").unwrap().id.clone();
    let path = format!("/operations/{op}/approve");
    let answer = running.post_form(&path, &format!("who=ada+l%3Cb%3E&token={PEOPLE}")).await;
    assert_eq!(answer.status, 303);
    assert!(answer.head.contains(&format!("location: /operations/{op}")));
    assert_eq!(running.wishes(), [(format!("approve {op}"), "ada l<b> (status page)".to_owned())]);
}

#[tokio::test]
async fn scripts_do_the_same_with_json_and_a_header() {
    let running = start().await;
    let head = format!(
        "POST /api/v1/operations/20261121t092025abcdef/cancel HTTP/1.1\r\nauthorization: Bearer {PEOPLE}\r\ncontent-type: application/json"
    );
    let answer = running.send(&head, "{\"who\":\"ci\"}").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{\"done\":\"cancelled\"}"));
    let bare = format!(
        "POST /api/v1/services/shop_db/reset-circuit HTTP/1.1\r\nauthorization: Bearer {PEOPLE}\r\ncontent-length: 0"
    );
    assert_eq!(running.send(&bare, "").await.status, 200);
    let who: Vec<_> = running.wishes().into_iter().map(|(_, who)| who).collect();
    assert_eq!(who, ["ci (status page)", "somebody on the status page"]);
}

#[tokio::test]
async fn without_the_token_nothing_can_be_decided() {
    let running = start().await;
    let path = "/operations/20261121t092025abcdef/approve";
    for body in ["who=eve", "who=eve&token=", "who=eve&token=wrong", &format!("who=eve&token={WEBHOOK}")] {
        let answer = running.post_form(path, body).await;
        assert_eq!(answer.status, 401, "{body}");
        assert!(answer.body.contains("The token is not valid"));
    }
    let cookie = format!("POST {path} HTTP/1.1\r\ncookie: token={PEOPLE}\r\ncontent-length: 0");
    assert_eq!(running.send(&cookie, "").await.status, 401);
    let query = format!("POST {path}?token={PEOPLE} HTTP/1.1\r\ncontent-length: 0");
    assert_eq!(running.send(&query, "").await.status, 401);
    assert_eq!(running.get(path).await.status, 405);
    assert!(running.wishes().is_empty());
    let shut = start_with(Book::default(), Tokens::default()).await;
    assert_eq!(shut.post_form(path, "who=eve&token=").await.status, 403);
    assert!(!shut.get("/").await.body.contains("<form"));
}

#[tokio::test]
async fn a_wish_that_cannot_be_fulfilled_says_why() {
    let running = start().await;
    let token = format!("token={PEOPLE}");
    assert_eq!(running.post_form("/operations/20200101t000000abcdef/cancel", &token).await.status, 404);
    assert_eq!(running.post_form("/operations/..%2F..%2Fetc/cancel", &token).await.status, 404);
    let conflict = running.post_form("/services/busy_db/reset-circuit", &token).await;
    assert_eq!(conflict.status, 409);
    assert!(conflict.body.contains("it has begun already"));
    let long = format!("{token}&who={}", "x".repeat(20_000));
    assert_eq!(running.post_form("/services/shop_db/reset-circuit", &long).await.status, 400);
}

#[tokio::test]
async fn pages_and_json_show_the_same_view() {
    let running = start().await;
    let page = running.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    assert!(page.head.contains("cache-control: no-store") && page.head.contains("nosniff"));
    let json: serde_json::Value = serde_json::from_str(&running.get("/api/v1/status").await.body).unwrap();
    let id = json["operations"][0]["id"].as_str().unwrap().to_owned();
    assert!(page.body.contains(&id));
    assert_eq!(running.get(&format!("/operations/{id}")).await.status, 200);
    let one: serde_json::Value =
        serde_json::from_str(&running.get(&format!("/api/v1/operations/{id}")).await.body).unwrap();
    assert_eq!(one, json["operations"][0]);
    for missing in ["/operations/x", "/nothing", "/assets/passwd", "/api/v1/operations/x"] {
        assert_eq!(running.get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test]
async fn every_asset_of_a_page_is_served_and_may_be_kept() {
    let running = start().await;
    let page = running.get("/").await.body.replace("&#x2f;", "/");
    let assets: Vec<&str> = page.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert!(assets.len() >= 3, "{assets:?}");
    for asset in assets {
        let answer = running.get(asset).await;
        assert_eq!(answer.status, 200, "{asset}");
        assert!(answer.head.contains("immutable") && answer.body.len() > 100, "{asset}");
    }
}

#[tokio::test]
async fn when_it_stops_what_is_under_way_is_finished_and_nothing_new_is_taken() {
    let running = start().await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: skep\r\n").await.unwrap();
    running.get("/healthz").await; // the first connection has been accepted by now
    running.stop.cancel();
    stream.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tokio::time::timeout(Duration::from_secs(20), running.served).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_waker_wakes_its_own_service_with_the_token_of_its_sleep_and_nothing_else() {
    let running = start().await;
    let ask = async |token: &str, body: &str| {
        let head = format!(
            "POST /v1/wake HTTP/1.1\r\ncontent-type: application/json\r\nauthorization: Bearer {token}"
        );
        running.send(&head, body).await
    };
    let of = |service: &str| serde_json::json!({ "service": service, "sleep": WAKE }).to_string();
    let granted = ask(WAKER, &of("shop_app")).await;
    assert_eq!(granted.status, 202);
    assert_eq!(granted.body, format!("{{\"operation\":\"{WAKE}\"}}"));
    assert_eq!(ask(PEOPLE, &of("shop_app")).await.status, 403);
    assert_eq!(ask(WAKER, &of("shop_db")).await.status, 404);
    assert_eq!(ask(WAKER, "{").await.status, 400);
    let body = of("shop_app");
    let bare = running.send("POST /v1/wake HTTP/1.1\r\ncontent-type: application/json", &body).await;
    assert_eq!(bare.status, 401);
    assert_eq!(ask(WAKER, &format!("{{\"service\":\"{}\"}}", "a".repeat(8000))).await.status, 400);
}

#[tokio::test]
async fn a_door_lets_its_own_service_sleep_and_nothing_else() {
    let running = start().await;
    let ask = async |token: &str, body: serde_json::Value| {
        let head = format!(
            "POST /v1/sleep HTTP/1.1\r\ncontent-type: application/json\r\nauthorization: Bearer {token}"
        );
        running.send(&head, &body.to_string()).await
    };
    let of = |service: &str, asked: i64| serde_json::json!({ "service": service, "asked": asked });
    let granted = ask(WAKER, of("shop_app", 1_800_000_000)).await;
    assert_eq!((granted.status, granted.body), (202, format!("{{\"operation\":\"{WAKE}\"}}")));
    assert_eq!(ask(WAKER, of("shop_app", 1_800_000_001)).await.status, 409);
    assert_eq!(ask(PEOPLE, of("shop_app", 1_800_000_000)).await.status, 403);
    assert_eq!(ask(WAKER, of("shop_db", 1_800_000_000)).await.status, 403);
    assert_eq!(ask(WAKER, of("shop_app", i64::MAX)).await.status, 400);
    assert_eq!(ask(WAKER, serde_json::json!({ "service": "shop_app" })).await.status, 400);
    let body = of("shop_app", 1_800_000_000).to_string();
    let bare = running.send("POST /v1/sleep HTTP/1.1\r\ncontent-type: application/json", &body).await;
    assert_eq!(bare.status, 401);
}
