//! Worlds and their watcher against the simulated engine: what a refresh makes of events is what a fresh look finds.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use proptest::prelude::*;
use skep::runtime::source::{Happening, Options};
use skep::runtime::{Snapshots, Source, Watcher};
use skep::swarm::object::{ENABLE, KIND, Kind, Labels, OP, RegistryAuth};
use skep::swarm::{Endpoint, Engine, Lease, World, WorldSource};
use skep_tests::sim::build::{replicas, service_spec};
use skep_tests::sim::{Sim, SimOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

async fn sim() -> (Sim, Engine) {
    let sim = Sim::new(SimOptions::default());
    let engine = client(&sim, "test").await;
    (sim, engine)
}

async fn client(sim: &Sim, name: &str) -> Engine {
    Engine::connect(Endpoint::InProcess(sim.client(name))).await.unwrap()
}

fn labels(kind: Kind) -> Labels {
    Labels::from([(KIND.to_owned(), kind.as_str().to_owned())])
}

/// One change to a swarm, to one of a few objects of its kind.
#[derive(Clone, Debug)]
enum Deed {
    Store(Kind, u8),
    Relabel(u8, u8),
    RemoveConfig(u8),
    Deploy { name: u8, enabled: bool, job: bool },
    Label { name: u8, enabled: bool },
    Scale(u8, u64),
    RemoveService(u8),
    Refresh,
}

fn deed() -> impl Strategy<Value = Deed> {
    let kind = prop::sample::select(&Kind::ALL[..]);
    prop_oneof![
        3 => (kind, 0..6_u8).prop_map(|(k, n)| Deed::Store(k, n)),
        2 => (0..6_u8, any::<u8>()).prop_map(|(n, v)| Deed::Relabel(n, v)),
        1 => (0..6_u8).prop_map(Deed::RemoveConfig),
        3 => (0..4_u8, any::<bool>(), any::<bool>())
            .prop_map(|(name, enabled, job)| Deed::Deploy { name, enabled, job }),
        2 => (0..4_u8, any::<bool>()).prop_map(|(name, enabled)| Deed::Label { name, enabled }),
        1 => (0..4_u8, 0..3_u64).prop_map(|(n, r)| Deed::Scale(n, r)),
        1 => (0..4_u8).prop_map(Deed::RemoveService),
        3 => Just(Deed::Refresh),
    ]
}

/// Does it, if it can be done.
async fn act(engine: &Engine, deed: &Deed) {
    let name = |n: &u8| format!("skep-x{n}");
    let service = |n: &u8| format!("shop_s{n}");
    match deed {
        Deed::Store(kind, n) => drop(engine.create_config(&name(n), &labels(*kind), b"data").await),
        Deed::Relabel(n, value) => {
            if let Ok(config) = engine.config(&name(n)).await {
                let mut labels = config.labels.clone();
                labels.insert("value".to_owned(), value.to_string());
                engine.relabel_config(&config.id, config.version, &config.name, &labels).await.unwrap();
            }
        }
        Deed::RemoveConfig(n) => {
            if let Ok(config) = engine.config(&name(n)).await {
                engine.remove_config(&config.id).await.unwrap();
            }
        }
        Deed::Deploy { name, enabled, job } => {
            let mut labels = vec![(ENABLE, if *enabled { "true" } else { "false" })];
            labels.extend(job.then_some((OP, "op1")));
            let spec = service_spec(&service(name), "app:1", &labels);
            drop(engine.create_service(&spec, RegistryAuth::Anonymous).await);
        }
        Deed::Label { name, enabled } => {
            if let Ok(mut found) = engine.service(&service(name)).await {
                found.spec["Labels"][ENABLE] = enabled.to_string().into();
                engine.update_service(&found.id, found.version, &found.spec).await.unwrap();
            }
        }
        Deed::Scale(n, count) => {
            if let Ok(found) = engine.service(&service(n)).await {
                let spec = replicas(found.spec.clone(), *count);
                engine.update_service(&found.id, found.version, &spec).await.unwrap();
            }
        }
        Deed::RemoveService(n) => {
            if let Ok(found) = engine.service(&service(n)).await {
                engine.remove_service(&found.id).await.unwrap();
            }
        }
        Deed::Refresh => {}
    }
}

async fn refreshed_is_loaded(deeds: &[Deed]) {
    let (sim, engine) = sim().await;
    let source = WorldSource::new(engine.clone());
    let mut events = source.subscribe().await.unwrap();
    let mut world = source.list().await.unwrap();
    for deed in deeds.iter().chain([&Deed::Refresh]) {
        act(&engine, deed).await;
        if matches!(deed, Deed::Refresh) {
            // Long enough for tasks to come to rest: two looks must not see them at different moments.
            sleep(Duration::from_secs(60)).await;
            let mut nudges = Vec::new();
            while let Ok(Some(event)) = timeout(Duration::from_millis(100), events.next()).await {
                nudges.push(event.unwrap());
            }
            world = source.refresh(&world, &nudges).await.unwrap();
            let fresh = World::load(&engine, sim.now()).await.unwrap();
            assert_eq!(world, fresh);
            for id in world.services.keys() {
                assert!(world.tasks_of(id).iter().all(|t| t.service == *id));
            }
            let found: usize = world
                .services
                .keys()
                .chain(world.jobs.keys().filter(|j| !world.services.contains_key(*j)))
                .map(|id| world.tasks_of(id).len())
                .sum();
            assert_eq!(found, world.tasks.len(), "every task belongs to a service of the world");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_refreshed_world_is_the_one_that_a_fresh_look_finds(deeds in prop::collection::vec(deed(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(refreshed_is_loaded(&deeds));
    }
}

#[tokio::test(start_paused = true)]
async fn a_world_holds_no_plans_data_and_no_runner() {
    let (sim, engine) = sim().await;
    for kind in Kind::ALL {
        engine.create_config(&format!("skep-{}", kind.as_str()), &labels(kind), b"hunter22").await.unwrap();
    }
    let world = World::load(&engine, sim.now()).await.unwrap();
    assert_eq!(world.plans.len(), 1);
    assert!(world.plans[0].data.is_empty());
    assert_eq!(world.operations[0].data, b"hunter22");
    assert!(world.configs(Kind::Runner).is_empty() && world.configs(Kind::Lease).is_empty());
}

type Told = Arc<Mutex<Vec<Happening>>>;

async fn watcher(sim: &Sim) -> (Snapshots<World>, Told) {
    let told = Told::default();
    let to = told.clone();
    let source = WorldSource::new(client(sim, "watcher").await);
    let observer = Arc::new(move |happening| to.lock().unwrap().push(happening));
    let (watcher, mut worlds) = Watcher::new(source, Options::default(), Some(observer));
    tokio::spawn(watcher.run(CancellationToken::new()));
    timeout(Duration::from_secs(5), worlds.ready()).await.unwrap().unwrap();
    (worlds, told)
}

/// How long it takes until the watcher has seen it.
async fn seen(worlds: &mut Snapshots<World>, wanted: impl Fn(&World) -> bool) -> Duration {
    let began = Instant::now();
    let wait = async {
        while !worlds.latest().is_some_and(|w| wanted(&w)) {
            worlds.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(120), wait).await.expect("it is seen");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_seen_within_the_debounce() {
    let (sim, engine) = sim().await;
    let (mut worlds, _) = watcher(&sim).await;
    let spec = service_spec("shop_app", "app:1", &[(ENABLE, "true")]);
    engine.create_service(&spec, RegistryAuth::Anonymous).await.unwrap();
    let took = seen(&mut worlds, |w| w.service_named("shop_app").is_some()).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    let heat = worlds.heat();
    let took = seen(&mut worlds, |w| w.services.keys().any(|id| w.running(id) == 1)).await;
    assert!(
        took < Duration::from_secs(10),
        "tasks have no events, but while hot they are looked at: {took:?}"
    );
    drop(heat);
}

#[tokio::test(start_paused = true)]
async fn a_lost_event_is_made_good_by_the_next_listing() {
    let (sim, engine) = sim().await;
    let (mut worlds, _) = watcher(&sim).await;
    sim.faults().lose_events(1);
    engine.create_config("skep-op-1", &labels(Kind::Operation), b"x").await.unwrap();
    let took = seen(&mut worlds, |w| !w.operations.is_empty()).await;
    assert!(took > Duration::from_secs(1) && took <= Duration::from_secs(31), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_swarm_leader_is_outlived() {
    let (sim, engine) = sim().await;
    let (mut worlds, _) = watcher(&sim).await;
    sim.faults().freeze_leader(Duration::from_secs(14));
    engine.create_config("skep-op-1", &labels(Kind::Operation), b"x").await.unwrap();
    let took = seen(&mut worlds, |w| !w.operations.is_empty()).await;
    assert!(took < Duration::from_secs(45), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn renewals_of_the_lease_make_nobody_look() {
    let (sim, engine) = sim().await;
    let (_worlds, told) = watcher(&sim).await;
    let (lease, _, mut leads) = Lease::new(&engine, "me");
    let stop = CancellationToken::new();
    let running = tokio::spawn(lease.run(stop.clone()));
    timeout(Duration::from_secs(5), leads.changed()).await.unwrap().unwrap();
    told.lock().unwrap().clear();
    sleep(Duration::from_secs(65)).await;
    let happened = told.lock().unwrap().clone();
    assert_eq!(
        happened,
        [Happening::Listed, Happening::Listed],
        "only the listing of everything, twice a minute"
    );
    stop.cancel();
    running.await.unwrap();
}
