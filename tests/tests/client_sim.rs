//! The operator's own client on the simulated engine: what it says to a real one it can say here.

// A helper that cannot go on fails its test.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use skep::swarm::job::{self, JobSpec, JobState, Reach};
use skep::swarm::object::{EventAction, EventKind, KIND, Kind, Labels, OP, RegistryAuth};
use skep::swarm::{Endpoint, Engine, Error, spec};
use skep_runner::task::{Connect, PgInspect};
use skep_runner::{Report, SCHEMA, Task, Ticket};
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions, USER};
use skep_tests::sim::{Cut, Fault, Trigger};

const LONG: Duration = Duration::from_secs(60);

async fn engine(shop: &Shop, name: &str) -> Engine {
    Engine::connect(Endpoint::InProcess(shop.sim.client(name))).await.unwrap()
}

fn labels(kind: Kind, op: &str) -> Labels {
    Labels::from([(KIND.to_owned(), kind.as_str().to_owned()), (OP.to_owned(), op.to_owned())])
}

#[tokio::test(start_paused = true)]
async fn it_reads_everything_that_the_shop_is_made_of() {
    let shop = Shop::start(ShopOptions::default()).await;
    let engine = engine(&shop, "skep").await;
    let services = engine.services(&[("skep.enable", Some("true"))]).await.unwrap();
    let mut names: Vec<&str> = services.iter().map(skep::swarm::object::Service::name).collect();
    names.sort_unstable();
    assert_eq!(names, ["shop_app", "shop_cache", "shop_db", "shop_proxy"]);
    let app = services.iter().find(|s| s.name() == "shop_app").unwrap();
    let tasks = engine.tasks(&[&app.id]).await.unwrap();
    assert_eq!(tasks.len(), 2);
    assert!(tasks.iter().all(|t| t.addresses.iter().any(|(n, _)| *n == shop.network)), "{tasks:?}");
    let info = engine.info().await.unwrap();
    assert!(info.active && info.manager);
    assert_eq!(engine.nodes().await.unwrap().len(), 1);
    assert!(engine.networks().await.unwrap().iter().any(|n| n.name == "shop_default"));
}

#[tokio::test(start_paused = true)]
async fn it_swaps_labels_under_a_version_and_hears_of_it() {
    let shop = Shop::start(ShopOptions::default()).await;
    let (engine, other) = (engine(&shop, "skep").await, engine(&shop, "other").await);
    let mut events = other.events().await.unwrap();
    let labels = labels(Kind::Operation, "op");
    let id = engine.create_config("skep-op-x", &labels, b"intent").await.unwrap();
    let config = engine.config("skep-op-x").await.unwrap();
    engine.relabel_config(&id, config.version, "skep-op-x", &labels).await.unwrap();
    let stale = other.relabel_config(&id, config.version, "skep-op-x", &labels).await.unwrap_err();
    assert!(matches!(stale, Error::Stale { .. }), "{stale}");
    let mut actions = Vec::new();
    while actions.len() < 2 {
        let event = tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        if event.kind == EventKind::Config {
            actions.push(event.action);
        }
    }
    assert_eq!(actions, [EventAction::Create, EventAction::Update]);
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_of_unknown_outcome() {
    let shop = Shop::start(ShopOptions::default()).await;
    let engine = engine(&shop, "skep").await;
    for (number, cut) in [(1, Cut::Before), (2, Cut::After)] {
        shop.sim.faults().on("skep", Trigger::Write(number), Fault::Cut(cut));
        let error = engine.create_config("skep-op-x", &Labels::new(), b"x").await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{cut:?}: {error}");
        assert_eq!(shop.sim.stored_names().contains(&"skep-op-x".to_owned()), cut == Cut::After);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_it_inspects_the_database() {
    let shop = Shop::start(ShopOptions::default()).await;
    let engine = engine(&shop, "skep").await;
    let db = engine.service("shop_db").await.unwrap();
    let runner = job::ensure_runner(&engine, b"the runner").await.unwrap();
    let connect =
        Connect { host: "tasks.shop_db".into(), port: 5432, user: USER.into(), password_file: None };
    let inspect =
        PgInspect { connect, database: DATABASE.into(), backups: vec![], kept: vec![], create_roles: false };
    let name = "skep-job-op-look-1";
    let (session, fence) = (name.to_owned(), "skep-job-op-look-".to_owned());
    let ticket = Ticket { schema: SCHEMA, session, fence, anchors: None, task: Task::PgInspect(inspect) };
    let of_ticket = labels(Kind::Ticket, "op");
    let ticket = job::ensure_ticket(&engine, name, &ticket, &of_ticket).await.unwrap();
    let data = json!({ "Type": "volume", "Source": "shop_data", "Target": "/skep/data", "ReadOnly": true });
    let order = JobSpec {
        name,
        ticket: &ticket,
        runner: &runner,
        service: &db,
        image: "postgres:17",
        node: None,
        mounts: vec![data],
        secrets: Vec::new(),
        reach: Reach::Service,
        user: None,
        labels: of_ticket,
    };
    let service = job::ensure(&engine, &order, RegistryAuth::Anonymous).await.unwrap();
    let report = loop {
        match job::observe(&engine, &service).await.unwrap() {
            JobState::Complete { report } => break report,
            JobState::Pending { .. } | JobState::Running { .. } => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => panic!("{other:?}"),
        }
    };
    let Report::PgInspect(seen) = *report else { panic!("not an inspection") };
    assert_eq!((seen.sessions.len(), seen.live.is_some(), seen.capacity > 0), (2, true, true));
    job::close(&engine, &service, &ticket, &[]).await.unwrap();
    shop.sim.until(LONG, "nothing is left", |sim| sim.tasks(name).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_it_wrote_reads_back_as_the_same() {
    let shop = Shop::start(ShopOptions::default()).await;
    let engine = engine(&shop, "skep").await;
    for service in engine.services(&[("skep.enable", None)]).await.unwrap() {
        engine.update_service(&service.id, service.version, &service.spec).await.unwrap();
        let again = engine.service(&service.id).await.unwrap();
        assert_eq!(again.spec, service.spec);
        assert!(spec::same_spec(&again.spec, &service.spec));
    }
    let stale = engine.service("shop_app").await.unwrap();
    engine.update_service(&stale.id, stale.version, &stale.spec).await.unwrap();
    let error = engine.update_service(&stale.id, stale.version, &stale.spec).await.unwrap_err();
    assert!(matches!(error, Error::Stale { .. }), "{error}");
}
