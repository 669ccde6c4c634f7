//! Services that sleep behind a waker: what stands there is never taken for the application, and wakes nothing but it.

use std::time::Duration;

use serde_json::json;
use skep::operation::client_spec::{is_asleep, is_waker};
use skep::operation::frozen::{self, Frozen, Method};
use skep::operation::record::{Above, Operation, State, StepState, Trigger, Work};
use skep::operation::sleeper::{self, Slept};
use skep::operation::waker::{self, Granted, Request};
use skep::operation::{desk, drive, points};
use skep::swarm::object::Kind;
use skep_tests::saga::{Scene, connect, update};
use skep_tests::sim::Call;
use skep_tests::sim::shop::{SKEP_IMAGE, Shop, ShopOptions};
use skep_waker::task::Token;

use super::{beside, driven, failed_with, once, spec, step, suspended, with_labels};

const ON_DEMAND: [(&str, &str); 2] = [("skep.scale.wake", "true"), ("skep.scale.wake.port", "8080")];

fn on_demand() -> ShopOptions {
    with_labels(&[], &ON_DEMAND)
}

async fn done(shop: Shop, service: &str, work: Work) -> (Shop, Operation) {
    let scene = Scene::ask_for(shop, service, work, Trigger::Person { name: "somebody".to_owned() }).await;
    let op = driven(&scene).await;
    (scene.shop, op)
}

async fn well(shop: Shop, service: &str, work: Work) -> Shop {
    let (shop, op) = done(shop, service, work).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    shop
}

/// A shop whose service sleeps behind a waker.
async fn asleep(options: ShopOptions, service: &str, above: Above) -> Shop {
    let shop = well(Shop::start(options).await, service, Work::Sleep { above }).await;
    let found = spec(&shop, service);
    assert!(is_asleep(&found) && is_waker(&found["TaskTemplate"]));
    shop
}

async fn slept(shop: &Shop, service: &str) -> Slept {
    sleeper::find(&connect(shop, "looker").await, service).await.unwrap().expect("it sleeps")
}

fn request(slept: &Slept) -> Request {
    Request {
        service: slept.sleeper.service.clone(),
        sleep: Some(slept.sleeper.op.to_string()),
        token: slept.waker.as_ref().unwrap().token.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn however_often_and_wherever_a_waker_asks_the_service_is_woken_once() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let asked = request(&slept(&shop, "shop_app").await);
    let (one, other) = (connect(&shop, "one").await, connect(&shop, "other").await);
    let now = shop.sim.now();
    let answers = futures::future::join_all((0..10).map(|i| {
        let engine = if i % 2 == 0 { &one } else { &other };
        waker::grant(engine, &asked, now)
    }));
    let answers: Vec<Granted> = answers.await.into_iter().map(Result::unwrap).collect();
    let Granted::UnderWay(id) = &answers[0] else { panic!("{answers:?}") };
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    let scene = Scene::of(shop, id.clone());
    let op = driven(&scene).await;
    assert_eq!((op.intent.work.clone(), op.journal.state), (Work::Wake, State::Succeeded));
    assert_eq!(waker::grant(&one, &asked, scene.shop.sim.now()).await.unwrap(), Granted::Awake);
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
}

/// Swarm's name service answers from one network only, which may be the one that the waker has for itself.
#[tokio::test(start_paused = true)]
async fn a_waker_looks_for_the_application_on_its_networks_and_not_on_those_of_the_waker() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let engine = connect(&shop, "looker").await;
    let told = engine.configs(Kind::Waker, &[]).await.unwrap();
    let task = skep_waker::Task::read(&String::from_utf8(told[0].data.clone()).unwrap()).unwrap();
    assert_eq!(task.networks, [engine.network(&shop.network).await.unwrap().name]);
    let joined = spec(&shop, "shop_app")["TaskTemplate"]["Networks"].as_array().unwrap().len();
    assert_eq!(joined, 2, "it reaches Skep over another one");
}

/// Each replica goes by its own clock, and they hear of it at different moments.
#[tokio::test(start_paused = true)]
async fn replicas_that_hear_a_waker_on_two_sides_of_a_minute_wake_once() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let asked = request(&slept(&shop, "shop_app").await);
    let (one, other) = (connect(&shop, "one").await, connect(&shop, "other").await);
    let now = shop.sim.now();
    let minute = now + Duration::from_secs(u64::try_from(60 - now.as_second().rem_euclid(60)).unwrap());
    let early = minute - Duration::from_secs(1);
    let (first, second) =
        tokio::join!(waker::grant(&one, &asked, early), waker::grant(&other, &asked, minute));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(desk::list(&one).await.unwrap().iter().filter(|op| op.intent.work == Work::Wake).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_it_falls_asleep_is_heard_and_wakes_it_once_it_sleeps() {
    let shop = Shop::start(on_demand()).await;
    let work = Work::Sleep { above: Above::Refuse };
    let scene = Scene::ask_for(shop, "shop_app", work, Trigger::Person { name: "somebody".to_owned() }).await;
    let (one, other) = (connect(&scene.shop, "one").await, connect(&scene.shop, "other").await);
    let waker = scene.driver("waker").await;
    let granted = std::cell::RefCell::new(None);
    let meanwhile = async {
        let plan = one.config(&frozen::name(&scene.op)).await.unwrap();
        let plan: Frozen = serde_json::from_slice(&plan.data).unwrap();
        let Method::Waker(planned) = &plan.clients[0].method else { panic!("it has a waker") };
        let asked = Request {
            service: "shop_app".to_owned(),
            sleep: Some(scene.op.to_string()),
            token: planned.token.clone(),
        };
        let now = scene.shop.sim.now();
        let guess = Request { token: Token::new("guess"), ..asked.clone() };
        assert_eq!(waker::grant(&one, &guess, now).await.unwrap(), Granted::Stranger);
        let elsewhere = Request { service: "shop_db".to_owned(), ..asked.clone() };
        assert_eq!(
            waker::grant(&one, &elsewhere, now).await.unwrap(),
            Granted::Awake,
            "it opens nothing else"
        );
        let answers = (0..10).map(|i| waker::grant(if i % 2 == 0 { &one } else { &other }, &asked, now));
        let answers = futures::future::join_all(answers).await;
        let answers: Vec<Granted> = answers.into_iter().map(Result::unwrap).collect();
        let Granted::UnderWay(id) = &answers[0] else { panic!("{answers:?}") };
        assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
        for _ in 0..5 {
            drive::poll(&waker, id).await.unwrap();
        }
        let op = desk::find(&one, id).await.unwrap();
        assert_eq!(step(&op, "claim"), Some(StepState::Started), "it waits until the other is done");
        *granted.borrow_mut() = Some((id.clone(), asked));
    };
    let stands = |shop: &Shop, _: &[Call]| is_waker(&spec(shop, "shop_app")["TaskTemplate"]);
    assert!(Box::pin(suspended(&scene, "driver", stands, meanwhile)).await);
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    let (id, asked) = granted.into_inner().unwrap();
    let later = scene.shop.sim.now() + Duration::from_secs(60);
    assert_eq!(waker::grant(&other, &asked, later).await.unwrap(), Granted::UnderWay(id.clone()));
    let scene = Scene::of(scene.shop, id);
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
    let wakes = desk::list(&one).await.unwrap().into_iter().filter(|op| op.intent.work == Work::Wake);
    assert_eq!(wakes.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_came_to_nothing_is_tried_again_soon_and_ever_less_often() {
    let mut shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let asked = request(&slept(&shop, "shop_app").await);
    let (one, other) = (connect(&shop, "one").await, connect(&shop, "other").await);
    for (nth, pause) in [10, 20, 40].map(Duration::from_secs).into_iter().enumerate() {
        let now = shop.sim.now();
        let (first, second) =
            tokio::join!(waker::grant(&one, &asked, now), waker::grant(&other, &asked, now));
        let Granted::UnderWay(id) = first.unwrap() else { panic!("it sleeps") };
        assert_eq!(second.unwrap(), Granted::UnderWay(id.clone()), "two heard it");
        desk::cancel(&one, &id, "somebody").await.unwrap();
        let scene = Scene::of(shop, id.clone());
        assert_eq!(driven(&scene).await.journal.state, State::Cancelled);
        shop = scene.shop;
        let early = shop.sim.now() + pause - Duration::from_secs(1);
        assert_eq!(waker::grant(&other, &asked, early).await.unwrap(), Granted::UnderWay(id), "try {nth}");
        tokio::time::sleep(pause).await;
    }
    assert_eq!(desk::list(&one).await.unwrap().iter().filter(|op| op.intent.work == Work::Wake).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn s15_a_waker_shows_its_own_token_and_that_of_this_sleep_or_wakes_nothing() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let first = slept(&shop, "shop_app").await;
    let engine = connect(&shop, "one").await;
    let guess = Request { token: Token::new("guess"), ..request(&first) };
    assert_eq!(waker::grant(&engine, &guess, shop.sim.now()).await.unwrap(), Granted::Stranger);
    let shop = well(shop, "shop_app", Work::Wake).await;
    let shop = well(shop, "shop_app", Work::Sleep { above: Above::Refuse }).await;
    let late = waker::grant(&engine, &request(&first), shop.sim.now()).await.unwrap();
    assert_eq!(late, Granted::Stranger, "the waker of an earlier sleep");
    // What says so is in the plan, in what is written down of the sleeper and in the waker's own task, and nowhere else.
    let token = request(&slept(&shop, "shop_app").await).token;
    for kind in Kind::ALL.into_iter().filter(|k| *k != Kind::Canary) {
        for config in engine.configs(kind, &[]).await.unwrap() {
            let labels = format!("{:?}", config.labels);
            assert!(!labels.contains(token.reveal()), "in the labels of {}", config.name);
            let data = String::from_utf8_lossy(&config.data).contains(token.reveal());
            assert_eq!(data, matches!(kind, Kind::Sleep | Kind::Waker), "{}", config.name);
        }
    }
    assert!(!spec(&shop, "shop_app").to_string().contains(token.reveal()), "in the spec");
}

#[tokio::test(start_paused = true)]
async fn s2_a_restore_leaves_a_client_behind_its_waker_and_asks_it_nothing() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let before = spec(&shop, "shop_app");
    let shop = well(Scene::back_up(shop).await, "shop_db", beside()).await;
    assert_eq!(spec(&shop, "shop_app"), before);
    let shop = well(shop, "shop_app", Work::Wake).await;
    assert_eq!(spec(&shop, "shop_app")["Mode"]["Replicated"]["Replicas"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_waker_is_never_taken_for_the_database_whose_place_it_takes() {
    let tcp = [("skep.scale.wake", "true"), ("skep.scale.wake.tcp", "5432")];
    let shop = asleep(with_labels(&tcp, &[]), "shop_db", Above::Alone).await;
    for work in [Work::Backup, beside(), Work::Drill { backup: None }] {
        let shop = asleep(with_labels(&tcp, &[]), "shop_db", Above::Alone).await;
        let before = spec(&shop, "shop_db");
        let (shop, op) = done(shop, "shop_db", work).await;
        assert!(failed_with(&op, "shop_db is asleep"), "{:#?}", op.journal);
        assert_eq!(spec(&shop, "shop_db"), before);
    }
    let shop = well(shop, "shop_db", Work::Wake).await;
    well(shop, "shop_db", Work::Backup).await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_point_of_what_a_waker_stands_for_is_one_of_the_application() {
    let awake = spec(&Shop::start(on_demand()).await, "shop_app");
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let scene = Scene::ask_stack(shop, Work::Point { without_data: true }).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let engine = connect(&scene.shop, "looker").await;
    let point = points::list(&engine, None).await.unwrap().pop().unwrap().head;
    let app = point.services.iter().find(|s| s.name == "shop_app").unwrap();
    assert_eq!(app.image, "shop-app:1");
    let held = app.spec.load(&engine, &point.id).await.unwrap();
    let held: serde_json::Value = serde_json::from_slice(&held).unwrap();
    assert_eq!((&held["TaskTemplate"], &held["Mode"]), (&awake["TaskTemplate"], &awake["Mode"]));
    assert!(point.configs.iter().all(|c| !c.name.starts_with("skep-")), "{:?}", point.configs);
}

#[tokio::test(start_paused = true)]
async fn s12_a_deploy_over_a_waker_sleeps_on_with_the_applications_own_image() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    // The stack file names the image of the last deploy, so the one that is found stays: the waker's.
    shop.deploy("shop_app", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=1"]);
        for (key, value) in ON_DEMAND {
            spec["Labels"][key] = json!(value);
        }
    })
    .await;
    shop.deploy("shop_app", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
        for (key, value) in ON_DEMAND {
            spec["Labels"][key] = json!(value);
        }
    })
    .await;
    let shop = well(shop, "shop_app", Work::Sleep { above: Above::Alone }).await;
    assert!(is_waker(&spec(&shop, "shop_app")["TaskTemplate"]));
    let shop = well(shop, "shop_app", Work::Wake).await;
    let container = &spec(&shop, "shop_app")["TaskTemplate"]["ContainerSpec"];
    assert_eq!((&container["Image"], &container["Env"]), (&json!("shop-app:1"), &json!(["RELEASE=2"])));
}

#[tokio::test(start_paused = true)]
async fn s12_what_is_changed_on_a_waker_is_the_applications_when_it_wakes() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    update(&shop, "shop_app", |spec| {
        spec["Labels"]["team"] = json!("blue");
        spec["Mode"]["Replicated"]["Replicas"] = json!(3);
    })
    .await;
    assert!(!is_asleep(&spec(&shop, "shop_app")), "three of it are wanted");
    let shop = well(shop, "shop_app", Work::Wake).await;
    let app = spec(&shop, "shop_app");
    assert_eq!(app["TaskTemplate"]["ContainerSpec"]["Image"], "shop-app:1");
    assert_eq!((&app["Labels"]["team"], &app["Mode"]["Replicated"]["Replicas"]), (&json!("blue"), &json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_waker_gets_nothing_of_the_applications_container() {
    let shop = asleep(on_demand(), "shop_app", Above::Refuse).await;
    let found = spec(&shop, "shop_app");
    let container = found["TaskTemplate"]["ContainerSpec"].as_object().unwrap();
    let keys: Vec<&str> = container.keys().map(String::as_str).collect();
    let allowed = [
        "Args",
        "CapabilityDrop",
        "Configs",
        "Healthcheck",
        "Image",
        "Isolation",
        "Labels",
        "ReadOnly",
        "StopGracePeriod",
    ];
    assert_eq!(keys, allowed);
    assert_eq!(container["Image"], SKEP_IMAGE);
    let networks = found["TaskTemplate"]["Networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2, "its own, and the one on which it reaches Skep: {networks:?}");
}
