//! Services with a door: it stands for good, nothing sleeps that it does not see unused, and nothing sleeps that nobody could wake.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use skep::operation::client_spec::{is_asleep, is_waker};
use skep::operation::door;
use skep::operation::record::{Above, OpId, Operation, State, StepState, Work};
use skep::operation::saga::Env;
use skep::operation::waker::{self, Granted, Request};
use skep::operation::{desk, drive, receiver, sleeper};
use skep::swarm::engine::Engine;
use skep::swarm::object::{Kind, TaskState};
use skep::triggers::doors::{self, Lulled, Unused};
use skep_tests::saga::{Scene, connect, env};
use skep_tests::sim::shop::{SKEP_IMAGE, Shop, ShopOptions};
use skep_tests::sim::{Cut, Fault, Trigger as When};
use skep_waker::task::Token;

use super::{app_runs, driven, failed_with, once, person, spec, step, suspended, update, with_labels};

/// After how long without use the application falls asleep here.
const AFTER: Duration = Duration::from_secs(15 * 60);
/// How often a leader looks at doors.
const LOOK: Duration = Duration::from_secs(10);

const DOOR: [(&str, &str); 4] = [
    ("skep.scale.wake", "true"),
    ("skep.scale.wake.port", "8080"),
    ("skep.scale.wake.door", "app-door"),
    ("skep.scale.idle.after", "15m"),
];

fn with_door() -> ShopOptions {
    with_labels(&[], &DOOR)
}

fn name() -> String {
    door::name("shop_app")
}

fn stands(shop: &Shop) -> bool {
    let runs = |state: TaskState| state == TaskState::Running;
    shop.sim.services().contains(&name())
        && shop.sim.tasks(&name()).iter().any(|t| runs(t.state) && runs(t.desired))
}

/// Everything of doors that is in the Swarm.
fn left(shop: &Shop) -> Vec<String> {
    let all = shop.sim.services().into_iter().chain(shop.sim.stored_names());
    all.filter(|name| name.starts_with(door::PREFIX)).collect()
}

async fn look(leader: &Env, times: usize) {
    for _ in 0..times {
        // One that is dead is refused everything.
        let _looked = door::reconcile(leader, false).await;
        tokio::time::sleep(LOOK).await;
    }
}

/// A shop whose application has a door that stands.
async fn standing() -> Shop {
    let shop = Shop::start(with_door()).await;
    look(&env(&shop, "keeper").await, 1).await;
    once(&shop, "the door stands", stands).await;
    shop
}

async fn token(engine: &Engine) -> Token {
    door::token(engine, "shop_app").await.unwrap().expect("it has a door")
}

/// What the door says when it saw nobody.
async fn unused(engine: &Engine, now: Timestamp) -> Unused {
    Unused { service: "shop_app".to_owned(), asked: now, token: token(engine).await }
}

/// What it says when somebody comes.
async fn asked(engine: &Engine) -> Request {
    Request { service: "shop_app".to_owned(), sleep: None, token: token(engine).await }
}

async fn lull(env: &Env) -> Lulled {
    let now = env.now();
    doors::lull(&env.engine, &env.settings, &unused(&env.engine, now).await, now).await.unwrap()
}

fn under_way(lulled: Lulled) -> OpId {
    match lulled {
        Lulled::UnderWay(id) => id,
        other => panic!("{other:?}"),
    }
}

/// A shop whose door saw nobody for long enough, and the sleep that it was granted.
async fn unused_for_long() -> Scene {
    let shop = standing().await;
    tokio::time::sleep(AFTER).await;
    let operator = env(&shop, "operator").await;
    let id = under_way(lull(&operator).await);
    Scene::of(shop, id)
}

async fn done(shop: Shop, work: Work) -> (Shop, Operation) {
    let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
    let op = driven(&scene).await;
    (scene.shop, op)
}

#[tokio::test(start_paused = true)]
async fn a_door_stands_on_the_networks_of_its_service_under_its_own_name_and_is_left_alone_then() {
    let before = spec(&Shop::start(with_door()).await, "shop_app");
    let shop = standing().await;
    assert_eq!(spec(&shop, "shop_app"), before, "the service itself is not touched");
    let made = spec(&shop, &name());
    let networks = made["TaskTemplate"]["Networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2, "{networks:#?}");
    assert_eq!(networks[0]["Aliases"], json!(["app-door"]));
    assert_eq!(networks[0]["Target"], json!(shop.network));
    assert!(networks[1].get("Aliases").is_none(), "it reaches Skep over another one");
    let container = &made["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["Image"], SKEP_IMAGE);
    assert!(!is_waker(&made["TaskTemplate"]) && container.get("Env").is_none(), "{container:#}");
    assert_eq!(left(&shop).len(), 2, "itself, and what it was told: {:?}", left(&shop));
    look(&env(&shop, "another").await, 3).await;
    assert_eq!(spec(&shop, &name()), made);
    let engine = connect(&shop, "looker").await;
    let told = engine.configs(Kind::Door, &[]).await.unwrap();
    let task = skep_waker::Task::read(&String::from_utf8(told[0].data.clone()).unwrap()).unwrap();
    assert_eq!(task.networks, [engine.network(&shop.network).await.unwrap().name]);
    let wish = task.door.unwrap().unused.unwrap();
    assert_eq!(
        (wish.after_s, wish.url.as_str()),
        (AFTER.as_secs(), "http://tasks.skep_operator:9180/v1/sleep")
    );
    assert_eq!(task.ask.url, "http://tasks.skep_operator:9180/v1/wake");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_at_any_write_leaves_one_door_and_no_more_than_it_needs() {
    for write in 1..=4 {
        let shop = Shop::start(with_door()).await;
        let (first, second) = (env(&shop, "first").await, env(&shop, "second").await);
        shop.sim.faults().on("first", When::Write(write), Fault::Kill(Cut::After));
        look(&first, 1).await;
        update(&shop, "shop_app", |spec| spec["Labels"]["skep.scale.wake.timeout"] = json!("30s")).await;
        look(&first, 2).await;
        look(&second, 3).await;
        once(&shop, "the door stands", stands).await;
        assert_eq!(left(&shop).len(), 2, "died at write {write}: {:?}", left(&shop));
    }
}

/// What leaves holds whoever came to it, and still has to be heard.
#[tokio::test(start_paused = true)]
async fn a_door_that_is_made_otherwise_keeps_its_token() {
    let shop = standing().await;
    let engine = connect(&shop, "looker").await;
    let (before, made) = (token(&engine).await, spec(&shop, &name()));
    update(&shop, "shop_app", |spec| spec["Labels"]["skep.scale.wake.mode"] = json!("page")).await;
    look(&env(&shop, "keeper").await, 3).await;
    assert_ne!(spec(&shop, &name()), made);
    assert_eq!(token(&engine).await, before);
    assert_eq!(left(&shop).len(), 2, "{:?}", left(&shop));
}

#[tokio::test(start_paused = true)]
async fn a_door_that_nobody_wants_any_more_goes_and_one_with_wrong_labels_stays() {
    let shop = standing().await;
    let keeper = env(&shop, "keeper").await;
    let made = left(&shop);
    update(&shop, "shop_app", |spec| spec["Labels"]["skep.scale.wake.port"] = json!("many")).await;
    look(&keeper, 3).await;
    assert_eq!(left(&shop), made);
    update(&shop, "shop_app", |spec| {
        spec["Labels"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("skep.scale."));
    })
    .await;
    look(&keeper, 3).await;
    assert_eq!(left(&shop), [] as [String; 0]);

    let shop = standing().await;
    let engine = connect(&shop, "people").await;
    engine.remove_service(&engine.service("shop_app").await.unwrap().id).await.unwrap();
    look(&env(&shop, "keeper").await, 3).await;
    assert_eq!(left(&shop), [] as [String; 0], "its service was removed");
}

#[tokio::test(start_paused = true)]
async fn while_a_service_sleeps_behind_its_door_the_door_stays() {
    let scene = unused_for_long().await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    let shop = scene.shop;
    update(&shop, "shop_app", |spec| {
        spec["Labels"].as_object_mut().unwrap().retain(|key, _| !key.starts_with("skep.scale."));
    })
    .await;
    let keeper = env(&shop, "keeper").await;
    look(&keeper, 3).await;
    assert!(stands(&shop), "nobody else could wake it");
    let granted = waker::grant(&keeper.engine, &asked(&keeper.engine).await, keeper.now()).await.unwrap();
    let Granted::UnderWay(id) = granted else { panic!("{granted:?}") };
    let scene = Scene::of(shop, id);
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    look(&env(&scene.shop, "keeper").await, 3).await;
    assert_eq!(left(&scene.shop), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_falls_asleep_behind_a_door_that_does_not_stand() {
    let shop = Shop::start(with_door()).await;
    let before = spec(&shop, "shop_app");
    let (shop, op) = done(shop, Work::Sleep { above: Above::Refuse }).await;
    assert!(failed_with(&op, "does not stand"), "{:#?}", op.journal);
    assert_eq!(spec(&shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn what_its_door_saw_unused_sleeps_at_zero_and_whoever_comes_to_the_door_wakes_it() {
    let scene = unused_for_long().await;
    let before = spec(&scene.shop, "shop_app");
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    let shop = scene.shop;
    let found = spec(&shop, "shop_app");
    assert!(is_asleep(&found) && !is_waker(&found["TaskTemplate"]), "{found:#}");
    let (one, other) = (connect(&shop, "one").await, connect(&shop, "other").await);
    let request = asked(&one).await;
    let now = shop.sim.now();
    let guess = Request { token: Token::new("guess"), ..request.clone() };
    assert_eq!(waker::grant(&one, &guess, now).await.unwrap(), Granted::Stranger);
    let elsewhere = Request { service: "shop_db".to_owned(), ..request.clone() };
    assert_eq!(waker::grant(&one, &elsewhere, now).await.unwrap(), Granted::Stranger);
    let answers = (0..10).map(|i| waker::grant(if i % 2 == 0 { &one } else { &other }, &request, now));
    let answers: Vec<Granted> =
        futures::future::join_all(answers).await.into_iter().map(Result::unwrap).collect();
    let Granted::UnderWay(id) = &answers[0] else { panic!("{answers:?}") };
    assert!(answers.iter().all(|a| *a == answers[0]), "{answers:?}");
    let scene = Scene::of(shop, id.clone());
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
    assert_eq!(waker::grant(&one, &request, scene.shop.sim.now()).await.unwrap(), Granted::Awake);
}

#[tokio::test(start_paused = true)]
async fn a_door_is_believed_with_its_token_when_it_stands_alone_and_the_time_has_come() {
    let shop = standing().await;
    let operator = env(&shop, "operator").await;
    assert!(matches!(lull(&operator).await, Lulled::NotNow(_)), "the service is young");
    tokio::time::sleep(AFTER).await;
    let now = operator.now();
    let said = unused(&operator.engine, now).await;
    let ask =
        async |said: Unused| doors::lull(&operator.engine, &operator.settings, &said, now).await.unwrap();
    assert_eq!(ask(Unused { token: Token::new("guess"), ..said.clone() }).await, Lulled::Stranger);
    assert_eq!(ask(Unused { service: "shop_db".to_owned(), ..said.clone() }).await, Lulled::Stranger);
    // The one before may still have a WebSocket open of which this one knows nothing.
    update(&shop, &name(), |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(2)).await;
    let two = |shop: &Shop| shop.sim.tasks(&name()).iter().filter(|t| !t.state.is_terminal()).count() == 2;
    once(&shop, "two tasks", two).await;
    assert!(matches!(ask(said.clone()).await, Lulled::NotNow(_)), "two of them");
    update(&shop, &name(), |spec| spec["Mode"]["Replicated"]["Replicas"] = json!(1)).await;
    once(&shop, "one task", |shop| !two(shop) && stands(shop)).await;
    update(&shop, "shop_app", |spec| spec["Labels"]["skep.paused"] = json!("true")).await;
    assert!(matches!(ask(said.clone()).await, Lulled::NotNow(_)), "it is paused");
    update(&shop, "shop_app", |spec| spec["Labels"]["skep.paused"] = json!("false")).await;
    assert!(matches!(ask(said).await, Lulled::UnderWay(_)));
}

/// The answer may be lost, and the other replica be asked next.
#[tokio::test(start_paused = true)]
async fn however_often_and_wherever_a_door_asks_the_service_falls_asleep_once() {
    let shop = standing().await;
    tokio::time::sleep(AFTER).await;
    let (one, other) = (env(&shop, "one").await, env(&shop, "other").await);
    let now = shop.sim.now();
    let said = unused(&one.engine, now).await;
    let later = now + Duration::from_secs(2);
    let (first, second) = tokio::join!(
        doors::lull(&one.engine, &one.settings, &said, now),
        doors::lull(&other.engine, &other.settings, &said, later)
    );
    let id = under_way(first.unwrap());
    assert_eq!(under_way(second.unwrap()), id);
    assert_eq!(under_way(doors::lull(&one.engine, &one.settings, &said, later).await.unwrap()), id);
    assert_eq!(desk::list(&one.engine).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expression_beside_the_door_has_to_say_so_as_well() {
    let shop = standing().await;
    update(&shop, "shop_app", |spec| spec["Labels"]["skep.scale.idle.query"] = json!("sum(x)")).await;
    tokio::time::sleep(AFTER).await;
    // There is no Prometheus to ask.
    assert!(matches!(lull(&env(&shop, "operator").await).await, Lulled::NotNow(_)));
}

/// Held at the door from before it asked, and let through when it is known that the service stays up.
#[tokio::test(start_paused = true)]
async fn who_comes_before_anything_is_stopped_calls_the_sleep_off() {
    for begun in [false, true] {
        let scene = unused_for_long().await;
        let before = spec(&scene.shop, "shop_app");
        let engine = connect(&scene.shop, "one").await;
        let come = async {
            let now = scene.shop.sim.now();
            let granted = waker::grant(&engine, &asked(&engine).await, now).await.unwrap();
            assert_eq!(granted, Granted::UnderWay(scene.op.clone()), "it is not yet let through");
        };
        if begun {
            let planned =
                |shop: &Shop, _: &[_]| shop.sim.stored_names().iter().any(|n| n.starts_with("skep-plan-"));
            assert!(Box::pin(suspended(&scene, "driver", planned, come)).await);
        } else {
            come.await;
            driven(&scene).await;
        }
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
        assert_eq!(step(&op, "stop"), None, "nothing was stopped");
        assert_eq!(spec(&scene.shop, "shop_app"), before);
        let now = scene.shop.sim.now();
        let granted = waker::grant(&engine, &asked(&engine).await, now).await.unwrap();
        assert_eq!(granted, Granted::Awake, "whoever is held is let through");
        assert_eq!(desk::list(&engine).await.unwrap().len(), 1, "there is nothing to wake");
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_it_stops_wakes_it_once_it_sleeps() {
    let scene = unused_for_long().await;
    let engine = connect(&scene.shop, "one").await;
    let waker = scene.driver("waker").await;
    let woken = std::cell::RefCell::new(None);
    let meanwhile = async {
        let now = scene.shop.sim.now();
        let granted = waker::grant(&engine, &asked(&engine).await, now).await.unwrap();
        let Granted::UnderWay(id) = granted else { panic!("{granted:?}") };
        assert_ne!(id, scene.op);
        for _ in 0..5 {
            drive::poll(&waker, &id).await.unwrap();
        }
        let op = desk::find(&engine, &id).await.unwrap();
        assert_eq!(step(&op, "claim"), Some(StepState::Started), "it waits until the other is done");
        *woken.borrow_mut() = Some(id);
    };
    let is_down = |shop: &Shop, _: &[_]| is_asleep(&spec(shop, "shop_app"));
    assert!(Box::pin(suspended(&scene, "driver", is_down, meanwhile)).await);
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
    let scene = Scene::of(scene.shop, woken.into_inner().unwrap());
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    once(&scene.shop, "users reach the application", Shop::sees_only_app).await;
}

/// A door that can ask nobody lets people through after a while. By then nothing may stop the service on its word.
#[tokio::test(start_paused = true)]
async fn a_sleep_that_begins_too_late_stops_nothing() {
    let scene = unused_for_long().await;
    let before = spec(&scene.shop, "shop_app");
    tokio::time::sleep(door::PROMPT + Duration::from_secs(1)).await;
    let env = scene.driver("driver").await;
    scene.drive_watched(&env, |shop| assert!(app_runs(shop), "it was stopped")).await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Cancelled, "{:#?}", op.journal);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
    assert!(skep_waker::Settings::default().held >= door::PROMPT * 2, "a door holds for longer than that");
    // Nor does one whose driver was suspended in between.
    let scene = unused_for_long().await;
    let late = tokio::time::sleep(door::PROMPT + Duration::from_secs(1));
    let planned = |shop: &Shop, _: &[_]| shop.sim.stored_names().iter().any(|n| n.starts_with("skep-plan-"));
    assert!(Box::pin(suspended(&scene, "driver", planned, late)).await);
    assert_eq!(scene.operation().await.journal.state, State::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_person_puts_it_to_sleep_however_much_it_is_used() {
    let (shop, op) = done(standing().await, Work::Sleep { above: Above::Refuse }).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(is_asleep(&spec(&shop, "shop_app")));
    let (shop, op) = done(shop, Work::Wake).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(sleeper::find(&connect(&shop, "looker").await, "shop_app").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn s15_the_token_of_a_door_is_in_its_task_and_nowhere_else() {
    let scene = unused_for_long().await;
    assert_eq!(driven(&scene).await.journal.state, State::Succeeded);
    let engine = connect(&scene.shop, "looker").await;
    let token = token(&engine).await;
    for kind in Kind::ALL.into_iter().filter(|k| *k != Kind::Canary) {
        for config in engine.configs(kind, &[]).await.unwrap() {
            assert!(
                !format!("{:?}", config.labels).contains(token.reveal()),
                "in the labels of {}",
                config.name
            );
            let data = String::from_utf8_lossy(&config.data).contains(token.reveal());
            assert_eq!(data, kind == Kind::Door, "{}", config.name);
        }
    }
    for service in scene.shop.sim.services() {
        assert!(
            !spec(&scene.shop, &service).to_string().contains(token.reveal()),
            "in the spec of {service}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn s20_release_removes_every_door_and_a_leader_that_was_there_makes_none_again() {
    let shop = standing().await;
    let leader = env(&shop, "leader").await;
    let started = shop.sim.now();
    tokio::time::sleep(LOOK).await;
    let person = connect(&shop, "person").await;
    receiver::release(&person).await.unwrap();
    assert_eq!(door::retire(&person).await.unwrap(), ["shop_app"]);
    for _ in 0..3 {
        let released = receiver::honour(&leader.engine, started).await.unwrap();
        door::reconcile(&leader, released).await.unwrap();
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(left(&shop), [] as [String; 0]);
    // One that is deployed later begins anew.
    let released = receiver::honour(&leader.engine, shop.sim.now()).await.unwrap();
    door::reconcile(&leader, released).await.unwrap();
    assert_eq!(left(&shop).len(), 2);
}
