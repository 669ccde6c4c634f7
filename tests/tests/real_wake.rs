//! Whoever asks for a service that sleeps wakes it, on a real Swarm: held and paged, over HTTP and over TCP, by many at once,
//! with the operator and the waker killed, and with a deploy in between.
//!
//! Run by: `make runner image && cargo test -p skep-tests --test real_wake -- --ignored --test-threads 1`. Needs root, the
//! Debian packages of `make setup`, and the image skep:dev; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use skep::operation::client_spec::{is_asleep, is_waker};
use skep::operation::desk;
use skep::operation::record::{Above, OpId, Operation, State, Trigger, Work};
use skep::operation::sleeper;
use skep_tests::sandbox::{eventually, repository, unique_port};
use skep_tests::stage::{Operator, Setting, Stage};
use tokio::net::TcpStream;

const OPERATOR: &str = env!("CARGO_BIN_EXE_operator");
/// Longest time for anything to happen by itself.
const PATIENCE: Duration = Duration::from_secs(90);

/// What one user got.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn is_of_the_application(&self) -> bool {
        self.status == 200 && self.headers.contains_key("x-shop")
    }
}

/// The stack file, with a proxy that is as patient as a request may have to be, and the labels of a waker on the application
/// and its database.
fn on_demand(text: &str, mode: &str, proxy: &std::path::Path) -> String {
    let app = format!(
        "        skep.scale.wake: \"true\"\n        skep.scale.wake.port: \"8000\"\n        skep.scale.wake.mode: {mode}\n        \
         skep.scale.wake.ignore: \"path:/health, agent:*monitor*\"\n"
    );
    let db = "        skep.scale.wake: \"true\"\n        skep.scale.wake.tcp: \"5432\"\n";
    let changed = text
        .replace("        skep.depends-on: db,cache\n", &format!("        skep.depends-on: db,cache\n{app}"))
        .replace("        skep.data: postgres\n", &format!("        skep.data: postgres\n{db}"))
        .replace("      - source: proxy\n", "      - source: patient\n")
        .replace(
            "configs:\n  proxy:\n",
            &format!("configs:\n  patient:\n    file: {}\n  proxy:\n", proxy.display()),
        );
    assert!(changed.contains(&app) && changed.contains(db), "the stack file is as this suite knows it");
    changed
}

/// A stage whose shop sleeps on demand, and where wakers reach the operator.
struct Scene {
    stage: Stage,
    heard_at: SocketAddr,
    proxy: std::path::PathBuf,
}

impl Scene {
    async fn set() -> Scene {
        let stage = Stage::set(Setting::default()).await;
        let heard_at = SocketAddr::new(stage.sandbox.host(), unique_port());
        let text = std::fs::read_to_string(repository("manifests/proxy.conf")).unwrap();
        let patient = text.replace("_timeout 4s", "_timeout 60s");
        assert_ne!(text, patient, "the proxy's file is as this suite knows it");
        let proxy = std::env::temp_dir().join(format!("{}-patient.conf", stage.name()));
        std::fs::write(&proxy, patient).unwrap();
        let scene = Scene { stage, heard_at, proxy };
        scene.deploy("hold", |text| text).await;
        scene.stage.settled().await;
        scene
    }

    async fn deploy(&self, mode: &str, change: impl Fn(String) -> String) {
        self.stage.redeploy(|text| change(on_demand(&text, mode, &self.proxy))).await;
    }

    async fn operator(&self) -> Operator {
        let url = format!("http://{}", self.heard_at);
        let network = format!("{}_default", self.stage.name());
        let more = ["--skep-image", "skep:dev", "--wake-url", &url, "--wake-network", &network];
        self.stage.operator_on(self.heard_at, OPERATOR, &more).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Got {
        let target = SocketAddr::new(self.stage.sandbox.address(), self.stage.port);
        let stream = TcpStream::connect(target).await.expect("the proxy listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "shop.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time");
        let (head, body) = answer.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole answer").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Got { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn sleep(&self, short: &str, above: Above) {
        self.fall_asleep(short, above).await;
        let service = self.stage.engine.service(&self.stage.service(short)).await.unwrap();
        assert!(is_asleep(&service.spec) && is_waker(&service.spec["TaskTemplate"]));
    }

    /// As [`Scene::sleep`], where somebody may wake it at once.
    async fn fall_asleep(&self, short: &str, above: Above) {
        let service = self.stage.engine.service(&self.stage.service(short)).await.unwrap();
        let id = self.stage.ask_of(service.name(), &service.id, Work::Sleep { above }).await;
        let ended = self.stage.ended(&id).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
    }

    /// The wakes of a service that its waker asked for.
    async fn wakes(&self, short: &str) -> Vec<Operation> {
        let name = self.stage.service(short);
        let mut all = desk::list(&self.stage.engine).await.unwrap();
        all.retain(|op| {
            op.intent.service == name
                && op.intent.work == Work::Wake
                && matches!(&op.intent.trigger, Trigger::Found { what } if what.contains("asked for it"))
        });
        all
    }

    /// The newest of these many wakes, once it has ended well.
    async fn woken(&self, short: &str, count: usize) -> Operation {
        let wakes = self.wakes(short).await;
        assert_eq!(wakes.len(), count, "{wakes:#?}");
        let newest: OpId = wakes.last().unwrap().id.clone();
        let ended = self.stage.ended(&newest).await;
        assert_eq!(ended.journal.state, State::Succeeded, "{:#?}", ended.journal);
        ended
    }

    async fn strike(self) {
        self.stage.strike().await;
        let _ = std::fs::remove_file(self.proxy);
    }
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn whoever_asks_wakes_what_sleeps_and_loses_nothing() {
    let scene = Scene::set().await;
    let operator = scene.operator().await;
    let awake = scene.stage.shop().specs().await;

    two_hundred_at_once(&scene).await;
    let specs = scene.stage.shop().specs().await;
    assert_eq!(specs["app"].to_string(), awake["app"].to_string(), "its exact spec is back");
    a_connection_to_the_database(&scene).await;
    let specs = scene.stage.shop().specs().await;
    assert_eq!(specs["db"].to_string(), awake["db"].to_string(), "its exact spec is back");
    users_all_the_while(&scene).await;
    let operator = killed(&scene, operator).await;
    deployed_over(&scene).await;
    monitors_and_pages(&scene).await;
    drop(operator);
    scene.strike().await;
}

/// All are held, all are answered by the application, which is woken once, with what it needs.
async fn two_hundred_at_once(scene: &Scene) {
    scene.sleep("db", Above::Along).await;
    let began = Instant::now();
    let all = (0..200).map(|_| scene.get("/orders/last", &[]));
    let all = futures::future::join_all(all).await;
    let others: Vec<&Got> = all.iter().filter(|got| !got.is_of_the_application()).collect();
    assert!(others.is_empty(), "{} of 200 got something else: {:?}", others.len(), others.first());
    println!("200 held requests were all answered after {:.2} s", began.elapsed().as_secs_f64());
    let woken = scene.woken("app", 1).await;
    println!("{:#?}", woken.journal.steps.iter().map(|(n, r)| (n, r.began, r.changed)).collect::<Vec<_>>());
    assert_eq!(scene.wakes("db").await.len(), 0, "it was woken along");
}

/// A client of the database waits for it and gets its rows.
async fn a_connection_to_the_database(scene: &Scene) {
    scene.sleep("db", Above::Along).await;
    let worker = scene.stage.service("worker");
    assert!(is_asleep(&scene.stage.engine.service(&worker).await.unwrap().spec), "dependents sleep as well");
    let cache = scene.stage.service("cache");
    // Nothing but a shell is needed: PostgreSQL answers a request for TLS with one letter.
    let ask = "exec 3<>/dev/tcp/db/5432; printf '\\0\\0\\0\\10\\4\\322\\026\\057' >&3; head -c 1 <&3";
    let began = Instant::now();
    let said = scene.stage.sandbox.exec_in_service(&cache, &["timeout", "60", "bash", "-c", ask]).await;
    assert!(said == "N" || said == "S", "PostgreSQL did not answer: {said:?}");
    println!(
        "a connection to the sleeping database was answered after {:.2} s",
        began.elapsed().as_secs_f64()
    );
    scene.woken("db", 1).await;
    assert_eq!(scene.wakes("app").await.len(), 1, "what needs it sleeps on");
    let app = scene.stage.engine.service(&scene.stage.service("app")).await.unwrap();
    assert!(is_asleep(&app.spec));
    assert_eq!(scene.get("/orders/last", &[]).await.status, 200);
    scene.woken("app", 2).await;
}

/// Users come all the while it falls asleep and wakes: each of them gets the application's own answer.
async fn users_all_the_while(scene: &Scene) {
    // Who comes while it falls asleep waits until that is done, and until it is awake again.
    let users = scene.stage.patient_users(20, PATIENCE);
    scene.fall_asleep("app", Above::Alone).await;
    eventually("a wake", PATIENCE, async || {
        let wakes = scene.wakes("app").await.len();
        if wakes == 3 { Ok(()) } else { Err(format!("{wakes} wakes")) }
    })
    .await;
    scene.woken("app", 3).await;
    scene.stage.settled().await;
    let report = users.leave().await;
    println!("users {:?}, slowest {:.0} ms", report.totals, report.slowest_ms);
    report.assert_nothing_wrong();
    assert_eq!(report.totals.page, 0, "nobody saw a page");
}

/// Skep dies while it sleeps and while it wakes, and the waker dies: whoever asked is answered all the same.
async fn killed(scene: &Scene, mut operator: Operator) -> Operator {
    scene.sleep("app", Above::Alone).await;
    operator.kill().await;
    let asked = scene.get("/orders/last", &[]);
    // The waker asks in vain first, and goes on asking.
    let back = scene.operator();
    let (got, mut operator) = tokio::join!(asked, back);
    assert!(got.is_of_the_application(), "{got:?}");
    scene.woken("app", 4).await;

    scene.sleep("app", Above::Alone).await;
    let asked = scene.get("/orders/last", &[]);
    let back = async {
        eventually("a wake that has begun to start it", PATIENCE, async || {
            let wakes = scene.wakes("app").await;
            let begun = wakes.get(4).is_some_and(|op| op.journal.step("start").is_some());
            if begun { Ok(()) } else { Err(format!("{} wakes", wakes.len())) }
        })
        .await;
        operator.kill().await;
        scene.operator().await
    };
    let (got, operator) = tokio::join!(asked, back);
    assert!(got.is_of_the_application(), "{got:?}");
    scene.woken("app", 5).await;

    scene.sleep("app", Above::Alone).await;
    let container = scene.stage.sandbox.container(&scene.stage.service("app")).await;
    scene.stage.sandbox.docker(&["kill", &container]).await;
    eventually("the application's answer", PATIENCE, async || {
        let got = scene.get("/orders/last", &[]).await;
        if got.is_of_the_application() { Ok(()) } else { Err(format!("{got:?}")) }
    })
    .await;
    scene.woken("app", 6).await;
    operator
}

/// A deploy over the waker: it sleeps on, and wakes as it was deployed.
async fn deployed_over(scene: &Scene) {
    scene.sleep("app", Above::Alone).await;
    scene
        .deploy("hold", |text| text.replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\""))
        .await;
    eventually("it to sleep on", PATIENCE, async || {
        let app = scene.stage.engine.service(&scene.stage.service("app")).await.map_err(|e| e.to_string())?;
        let slept = sleeper::find(&scene.stage.engine, app.name()).await.map_err(|e| e.to_string())?;
        let base = slept.map(|slept| slept.spec.to_string()).unwrap_or_default();
        match is_asleep(&app.spec) && base.contains("RELEASE=2") {
            true => Ok(()),
            false => Err(format!("asleep: {}", is_asleep(&app.spec))),
        }
    })
    .await;
    assert!(scene.get("/orders/last", &[]).await.is_of_the_application());
    scene.woken("app", 7).await;
    let app = scene.stage.shop().specs().await["app"].clone();
    assert!(app["TaskTemplate"]["ContainerSpec"]["Env"].to_string().contains("RELEASE=2"), "{app:#}");
    assert_eq!(
        app["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap().split('@').next(),
        Some("skep-test/shop:1")
    );
}

/// Monitors and robots get an answer and wake nobody; people get a page at once, which wakes it.
async fn monitors_and_pages(scene: &Scene) {
    scene
        .deploy("page", |text| text.replace("CACHE_HOST: cache", "CACHE_HOST: cache\n      RELEASE: \"2\""))
        .await;
    scene.stage.settled().await;
    scene.sleep("app", Above::Alone).await;
    for (path, agent) in [("/health", "curl"), ("/orders/last", "Some-Monitor/1.0")] {
        let got = scene.get(path, &[("user-agent", agent)]).await;
        assert_eq!(got.status, 503, "{got:?}");
    }
    assert_eq!(scene.wakes("app").await.len(), 7, "they wake nobody");
    let page = scene.get("/orders/last", &[("accept", "text/html")]).await;
    // The shop's proxy has a page of its own for 503.
    assert_eq!(page.status, 503, "{page:?}");
    eventually("the application's answer", PATIENCE, async || {
        let got = scene.get("/orders/last", &[("accept", "application/json")]).await;
        if got.is_of_the_application() { Ok(()) } else { Err(format!("{} {}", got.status, got.body)) }
    })
    .await;
    scene.woken("app", 8).await;
}
