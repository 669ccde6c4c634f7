//! S7, S8, S14, S15, S19: jobs, what they may hold, and who may drive.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use skep::operation::record::{State, StepState};
use skep::operation::{desk, drive};
use skep::swarm::error::Error;
use skep::swarm::lease::{Leadership, Lease};
use skep_runner::Task;
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::shop::{Shop, ShopOptions};
use skep_tests::sim::{Cut, Fault, Loss, Trigger};
use tokio_util::sync::CancellationToken;

use super::{beside, driven, exists, live, once, step};

#[tokio::test(start_paused = true)]
async fn s7_a_driver_that_sleeps_between_ticket_and_job_cannot_bring_a_closed_job_back() {
    for nth in 1..=4 {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        let asleep = Fault::Delay(Duration::from_secs(25), Duration::ZERO);
        let creates = Trigger::Endpoint("POST /services/create".to_owned(), nth);
        scene.shop.sim.faults().on("sleepy", creates, asleep);
        let (sleepy, awake) = (scene.driver("sleepy").await, scene.driver("awake").await);
        let later = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            scene.drive(&awake).await;
        };
        tokio::join!(scene.drive(&sleepy), later);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(scene.check(&format!("s7, create {nth}")).await, State::Succeeded);
    }
}

/// A job that changes databases is on a node that goes away; the job's next attempt ends what runs on.
#[tokio::test(start_paused = true)]
async fn s8_a_job_on_a_lost_node_is_taken_up_under_a_new_name() {
    let mut options = ShopOptions::default();
    (options.sim.nodes, options.sim.managers) = (3, 3);
    let (shop, wanted) = Scene::broken(options).await;
    let scene = Scene::ask(shop, beside()).await;
    scene.shop.data.with(|w| w.pace.load = Duration::from_secs(120));
    let env = scene.driver("driver").await;
    let lost = async {
        once(&scene.shop, "the load", |shop| exists(shop, "-beside-load0-1")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let job = scene.shop.sim.services().into_iter().find(|n| n.contains("-load0-1")).unwrap();
        let node = scene.shop.sim.containers(&job)[0].node.clone();
        scene.shop.sim.faults().lose_node(&node, Loss::Unreachable);
        once(&scene.shop, "the second attempt", |shop| exists(shop, "-beside-load0-2")).await;
        scene.shop.data.with(|w| w.pace.load = Duration::from_secs(1));
        scene.shop.sim.faults().return_node(&node);
    };
    tokio::join!(scene.drive(&env), lost);
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(op.journal.step("beside").unwrap().jobs["load0"].attempt > 1);
    assert_eq!(live(&scene.shop), wanted);
    assert_eq!(scene.shop.data.violations(), [] as [String; 0]);
}

pub(super) const SECRET: &str = "planted-hunter22";

/// Everything that people and monitoring can read of Skep: configs but plans, secrets' names, specs of jobs, logs.
pub(super) async fn readable(shop: &Shop) -> String {
    let get = async |path: &str| {
        let reply = shop.raw.call("GET", path, None).await.expect("the engine answers");
        String::from_utf8_lossy(&reply.body).into_owned()
    };
    let mut text = get("/secrets").await;
    let configs: Value = serde_json::from_str(&get("/configs").await).unwrap();
    for config in configs.as_array().into_iter().flatten() {
        let data = STANDARD.decode(config["Spec"]["Data"].as_str().unwrap_or_default()).unwrap();
        let is_plan = config["Spec"]["Labels"]["skep.kind"] == "plan";
        text += &config["Spec"]["Labels"].to_string();
        text += if is_plan { "" } else { std::str::from_utf8(&data).unwrap_or_default() };
    }
    for name in shop.sim.services().iter().filter(|n| n.starts_with("skep-")) {
        text += &get(&format!("/services/{name}")).await;
        text += &get(&format!("/services/{name}/logs?stdout=true&stderr=true")).await;
    }
    shop.data.with(|world| {
        for (path, files) in &world.store.dirs {
            text += path;
            files.values().for_each(|bytes| text += &String::from_utf8_lossy(bytes));
        }
    });
    text
}

#[tokio::test(start_paused = true)]
async fn s15_a_password_of_the_environment_is_in_nothing_that_can_be_read_and_its_secret_goes() {
    let shop = Shop::start(ShopOptions::default()).await;
    super::update(&shop, "shop_db", |s| {
        let env = json!(["POSTGRES_USER=shop", "POSTGRES_DB=shop", format!("POSTGRES_PASSWORD={SECRET}")]);
        s["TaskTemplate"]["ContainerSpec"]["Env"] = env;
    })
    .await;
    shop.data.with(|w| w.servers.get_mut("shop_db").unwrap().password = Some(SECRET.to_owned()));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let shop = Scene::back_up(shop).await;
    let wanted = live(&shop);
    shop.data.drop_table("shop_db", "shop", "users");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let env = scene.driver("driver").await;
    let drive = scene.drive(&env);
    tokio::pin!(drive);
    let mut secrets = 0;
    loop {
        tokio::select! {
            biased;
            _ = &mut drive => break,
            text = readable(&scene.shop) => {
                secrets += usize::from(text.contains("skep-job-"));
                assert!(!text.contains(SECRET), "the password can be read");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    assert!(secrets > 0, "no job was looked at");
    assert_eq!(scene.check("s15").await, State::Succeeded);
    assert!(!readable(&scene.shop).await.contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn s14_a_job_brings_no_label_port_alias_or_health_check_of_its_service() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let env = scene.driver("driver").await;
    let mut jobs = std::collections::BTreeMap::new();
    scene
        .drive_watched(&env, |shop| {
            for name in shop.sim.services().into_iter().filter(|n| n.starts_with("skep-job-")) {
                let spec = super::spec(shop, &name);
                jobs.entry(name).or_insert(spec);
            }
        })
        .await;
    assert!(jobs.len() > 5, "{:?}", jobs.keys());
    for (name, spec) in jobs {
        let text = spec.to_string();
        assert!(!text.contains("com.docker.stack") && !text.contains("skep.enable"), "{name}: {text}");
        assert!(!text.contains("Aliases\":[\""), "{name}: {text}");
        assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["Test"], json!(["NONE"]), "{name}");
        assert!(spec["EndpointSpec"].get("Ports").is_none(), "{name}: {text}");
        let mounts = spec["TaskTemplate"]["ContainerSpec"]["Mounts"].as_array().cloned().unwrap_or_default();
        let data = mounts.iter().filter(|m| m["Source"] == "shop_data");
        assert!(data.clone().all(|m| m["ReadOnly"] == true), "{name} may write where the data is");
    }
}

#[tokio::test(start_paused = true)]
async fn s19_a_leader_that_was_frozen_for_half_a_lease_writes_nothing_more() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let elector = connect(&scene.shop, "elector").await;
    let sim = scene.shop.sim.clone();
    let clock = std::sync::Arc::new(move || sim.elapsed() + Duration::from_secs(100));
    let (lease, fence, mut leadership) = Lease::with_clock(&elector, "one", clock);
    let electing = tokio::spawn(lease.run(CancellationToken::new()));
    leadership.wait_for(Leadership::is_leading).await.unwrap();
    let mut env = scene.driver("one").await;
    env.engine = env.engine.with_fence(fence);
    while step(&scene.operation().await, "beside") != Some(StepState::Started) {
        drive::poll(&env, &scene.op).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The whole process stands still for longer than half of the lease.
    electing.abort();
    tokio::time::sleep(Duration::from_secs(16)).await;
    let writes = scene.shop.sim.faults().writes("one");
    for _ in 0..20 {
        if let Err(error) = drive::poll(&env, &scene.op).await {
            assert!(matches!(error, Error::Fenced { .. }), "{error}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(scene.shop.sim.faults().writes("one"), writes, "it wrote although its lease may be another's");
    driven(&scene).await;
    assert_eq!(scene.check("s19").await, State::Succeeded);
}

/// Whether a write that got no answer had an effect is not assumed: it is looked up.
#[tokio::test(start_paused = true)]
async fn s19_a_job_whose_creation_was_not_answered_is_found_and_not_made_twice() {
    // Jobs whose failure would fail the restore: the look, the load, the swap.
    for (nth, cut) in [(1, Cut::Before), (1, Cut::After), (5, Cut::After), (7, Cut::Before), (7, Cut::After)]
    {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        let creates = Trigger::Endpoint("POST /services/create".to_owned(), nth);
        scene.shop.sim.faults().on("driver", creates, Fault::Cut(cut));
        let env = scene.driver("driver").await;
        let mut at_once = 0;
        scene
            .drive_watched(&env, |shop| {
                let loads = shop.sim.services().into_iter().filter(|n| n.starts_with("skep-job-"));
                at_once = at_once.max(loads.count());
            })
            .await;
        assert_eq!(at_once, 1, "{cut:?}: two jobs at once");
        assert_eq!(scene.check(&format!("s19 {cut:?}")).await, State::Succeeded);
        let op = scene.operation().await;
        let again = op.journal.steps.iter().flat_map(|(_, r)| r.jobs.values()).filter(|j| j.attempt > 1);
        assert_eq!(again.count(), 0, "{cut:?}: an attempt was wasted");
    }
}

#[tokio::test(start_paused = true)]
async fn s7_every_job_that_is_killed_once_is_done_by_its_next_attempt() {
    let kinds: [(&str, fn(&Task) -> bool); 4] = [
        ("dump", |t| matches!(t, Task::PgDump(_))),
        ("load", |t| matches!(t, Task::PgRestore(_))),
        ("seal", |t| matches!(t, Task::PgSeal(_))),
        ("swap", |t| matches!(t, Task::PgSwap(_))),
    ];
    for (what, is) in kinds {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        scene.shop.sim.faults().kill_job(1, move |ticket| is(&ticket.task));
        let op = driven(&scene).await;
        assert_eq!(scene.check(&format!("s7 {what}")).await, State::Succeeded);
        let jobs = op.journal.steps.iter().flat_map(|(_, r)| r.jobs.values());
        assert_eq!(jobs.filter(|j| j.attempt > 1).count(), 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn s7_what_is_taken_back_in_the_middle_of_a_job_waits_until_the_job_has_ended() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    scene.shop.data.with(|w| w.pace.load = Duration::from_secs(60));
    let env = scene.driver("driver").await;
    let person = async {
        once(&scene.shop, "the load", |shop| exists(shop, "-beside-load0-")).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let engine = connect(&scene.shop, "person").await;
        desk::cancel(&engine, &scene.op, "somebody").await.unwrap();
    };
    let mut taken_back = 0;
    let watched = scene.drive_watched(&env, |shop| {
        if exists(shop, "-beside-undo-") {
            taken_back += 1;
            let load = shop.sim.containers(&format!("skep-job-{}-beside-load0-1", scene.op));
            assert!(load.is_empty(), "it drops what a job still fills");
        }
    });
    tokio::join!(watched, person);
    assert!(taken_back > 0, "nothing was taken back");
    assert_eq!(scene.check("s7 cancelled").await, State::Cancelled);
}

/// A driver that was suspended creates its job in the moment between the removal of the job and that of its ticket, and dies.
#[tokio::test(start_paused = true)]
async fn s7_a_job_that_comes_back_while_it_is_closed_is_removed_too() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let (create, delete) = ("POST /services/create".to_owned(), "DELETE /configs/{id}".to_owned());
    let asleep = Fault::Delay(Duration::from_secs(25), Duration::ZERO);
    scene.shop.sim.faults().on("sleepy", Trigger::Endpoint(create, 1), asleep);
    let slow = Fault::Delay(Duration::from_secs(24), Duration::ZERO);
    scene.shop.sim.faults().on("awake", Trigger::Endpoint(delete, 1), slow);
    let (sleepy, awake) = (scene.driver("sleepy").await, scene.driver("awake").await);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        scene.drive(&awake).await;
    };
    let back = async {
        let removed = |shop: &Shop| {
            shop.sim.faults().calls("awake").iter().any(|c| c.endpoint == "DELETE /services/{id}")
        };
        once(&scene.shop, "the job is removed", removed).await;
        once(&scene.shop, "the job is back", |shop| exists(shop, "-preflight-look-1")).await;
        scene.shop.sim.faults().kill("sleepy");
    };
    tokio::join!(scene.drive(&sleepy), later, back);
    let state = scene.check("s7 back").await;
    assert!(matches!(state, State::Succeeded | State::RolledBack | State::Failed), "{state:?}");
}

/// A renewal counts from when it was sent: those who wait for the lease to expire count from then, too.
#[tokio::test(start_paused = true)]
async fn s19_a_renewal_that_was_answered_late_holds_no_longer() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let elector = connect(&scene.shop, "elector").await;
    let sim = scene.shop.sim.clone();
    let clock = std::sync::Arc::new(move || sim.elapsed() + Duration::from_secs(100));
    let (lease, fence, mut leadership) = Lease::with_clock(&elector, "one", clock);
    let update = "POST /configs/{id}/update";
    let late = Fault::Delay(Duration::ZERO, Duration::from_secs(8));
    scene.shop.sim.faults().on("elector", Trigger::Endpoint(update.to_owned(), 1), late);
    let electing = tokio::spawn(lease.run(CancellationToken::new()));
    leadership.wait_for(Leadership::is_leading).await.unwrap();
    let sent = |shop: &Shop| {
        let calls = shop.sim.faults().calls("elector");
        calls.iter().find(|c| c.endpoint == update && c.status.is_some()).map(|c| c.at)
    };
    once(&scene.shop, "the late renewal is answered", |shop| sent(shop).is_some()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    electing.abort();
    let sent = sent(&scene.shop).unwrap();
    let until = |at: Duration| tokio::time::sleep(at.saturating_sub(scene.shop.sim.elapsed()));
    until(sent + Duration::from_secs(14)).await;
    assert!(fence.is_open());
    until(sent + Duration::from_millis(15_500)).await;
    assert!(!fence.is_open(), "it may write although others may hold the lease");
}
