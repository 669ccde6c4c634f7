//! The saga harness: drives any operation on the simulated shop, kills and disturbs whoever drives it, and says what must
//! hold at the end.
//!
//! At rest an operation has either reached its goal or left everything as it began: the users' services have the specs
//! they had, byte for byte; no job, ticket, claim, plan, page or canary is left; no user ever got an answer that was
//! neither the application's nor the page; no application ever saw a half-restored database.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep::operation::catalogue::{Backup, Origin, Purpose};
use skep::operation::client_spec;
use skep::operation::desk;
use skep::operation::drive::{self, Again};
use skep::operation::freeze::kept_by;
use skep::operation::frozen::{Kept, KeptForm, StandIn};
use skep::operation::points::{self, Head, Point};
use skep::operation::receiver;
use skep::operation::record::{
    Above, Also, Intent, Manner, OpId, Operation, SCHEMA, State, StepState, Trigger, Work, of_stack,
};
use skep::operation::rollback::{Component, with_data};
use skep::operation::saga::{Env, Runners};
use skep::operation::settings::Settings;
use skep::operation::sleeper;
use skep::swarm::engine::Engine;
use skep::swarm::error::Error;
use skep::swarm::object::{Kind, TaskState};
use skep::swarm::transport::Endpoint;
use skep_runner::task::{Binary, SideState};

use crate::sim::build::{health, on_network, service_spec};
use crate::sim::postgres::{Content, Spoils};
use crate::sim::shop::{DATABASE, PAGE_IMAGE, SKEP_IMAGE, SKEP_NETWORK, Shop, ShopOptions, USER};
use crate::sim::{Answer, Sim, Unhealthy};

/// Longest simulated time that an operation may take to come to rest.
const REST: Duration = Duration::from_secs(1800);

/// The store `cloud` as the settings of drivers have it.
const CLOUD: &str = "s3://backups/swarm,endpoint=http://s3.test:9000";
/// The store `cloud` as the simulation knows it.
pub const CLOUD_SHELF: &str = "s3://backups/swarm";

/// The directory of [`Scene::layout`].
pub const BY_HAND: &str = "old/20260101";

/// A shop with an operation that nobody drives yet.
pub struct Scene {
    /// The shop.
    pub shop: Shop,
    /// The operation.
    pub op: OpId,
    /// Simulated time when it was asked for.
    pub since: Duration,
    specs: BTreeMap<String, Value>,
    /// Specs that a rollback puts back; configs that it makes again have another id then.
    back: BTreeMap<String, Value>,
    before: Content,
    wanted: Content,
    /// What other services hold before, and what they must hold once the operation has succeeded.
    others: BTreeMap<&'static str, (Content, Content)>,
}

/// How a drive ended.
#[derive(Debug)]
pub enum Driven {
    /// The operation is at rest.
    Rest,
    /// The driver is dead.
    Dead,
}

// === impl Scene ===

impl Scene {
    /// A shop of which a backup is to be taken.
    pub async fn backup(options: ShopOptions) -> Scene {
        let shop = Shop::start(options).await;
        Scene::ask(shop, Work::Backup).await
    }

    /// A shop that was backed up and then lost a table, with more orders written in between.
    pub async fn restore(options: ShopOptions, work: Work) -> Scene {
        let (shop, wanted) = Scene::broken(options).await;
        Scene::ask(shop, work).await.wanting(wanted)
    }

    /// As [`Scene::restore`], of a server that lost a role since, which the restore is to make.
    pub async fn restore_with_roles(options: ShopOptions) -> Scene {
        let (shop, wanted) = Scene::without_a_role(options).await;
        Scene::ask(shop, RESTORE_WITH_ROLES).await.wanting(wanted)
    }

    /// The shop of [`Scene::restore_with_roles`] before anybody asks for anything: its backup needs [`LOST_ROLE`].
    pub async fn without_a_role(options: ShopOptions) -> (Shop, Content) {
        let shop = Shop::start(options).await;
        shop.data.add_role("shop_db", DATABASE, LOST_ROLE);
        let shop = Scene::back_up(shop).await;
        let wanted = live(&shop);
        shop.data.remove_role("shop_db", LOST_ROLE);
        shop.data.insert("shop_db", DATABASE, "orders", 7);
        shop.data.drop_table("shop_db", DATABASE, "users");
        tokio::time::sleep(Duration::from_secs(5)).await;
        (shop, wanted)
    }

    /// A shop whose write-ahead log is received, with the receiver at work.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub async fn receiving(mut options: ShopOptions) -> Shop {
        options.db_labels.push(("skep.backup.wal".to_owned(), "true".to_owned()));
        let shop = Shop::start(options).await;
        let keeper = env(&shop, "keeper").await;
        receiver::reconcile(&keeper, false).await.expect("the simulated engine answers");
        let received = |shop: &Shop| shop.data.with(|w| w.logs.values().any(|log| log.until().is_some()));
        shop.sim.until(Duration::from_secs(60), "the log is received", |_| received(&shop)).await;
        shop
    }

    /// A shop whose log is received, and of which a backup with a base is to be taken.
    pub async fn based(options: ShopOptions) -> Scene {
        Scene::ask(Scene::receiving(options).await, Work::Backup).await
    }

    /// A shop whose log is received and that was backed up; orders were written, and a table was lost later. It is to come back
    /// as it was between the two.
    pub async fn moment(options: ShopOptions) -> Scene {
        let (shop, to, wanted) = Scene::lost_later(options).await;
        Scene::ask(shop, to_moment(to)).await.wanting(wanted)
    }

    /// The shop of [`Scene::moment`], the moment, and what it held then.
    pub async fn lost_later(options: ShopOptions) -> (Shop, Timestamp, Content) {
        let shop = Scene::back_up(Scene::receiving(options).await).await;
        shop.data.insert("shop_db", DATABASE, "orders", 7);
        let wanted = live(&shop);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let to = shop.sim.now();
        shop.data.insert("shop_db", DATABASE, "orders", 5);
        shop.data.drop_table("shop_db", DATABASE, "users");
        tokio::time::sleep(Duration::from_secs(5)).await;
        (shop, to, wanted)
    }

    /// A shop that was backed up, and whose backup is to be proved.
    pub async fn drill(options: ShopOptions) -> Scene {
        let shop = Scene::back_up(Shop::start(options).await).await;
        Scene::ask(shop, Work::Drill { backup: None }).await
    }

    /// A shop whose application is to show the maintenance page for a while.
    pub async fn maintenance(options: ShopOptions, lasts: Duration) -> Scene {
        let shop = Shop::start(options).await;
        let work = Work::Maintenance { until: Some(shop.sim.now() + lasts) };
        Scene::ask_for(shop, "shop_app", work, person()).await
    }

    /// A shop whose database is to fall asleep, and before it what needs it.
    pub async fn sleep(options: ShopOptions) -> Scene {
        let shop = Shop::start(options).await;
        let mut scene = Scene::ask(shop, Work::Sleep { above: Above::Along }).await;
        scene.back = specs(&scene.shop);
        for service in ["shop_db", "shop_app"] {
            let spec = scene.back.get_mut(service).expect("the shop has that service");
            *spec = match spec["Labels"]["skep.scale.wake"] == "true" {
                true => client_spec::swapped(spec, &Value::Null, &WAKER),
                false => client_spec::zero(spec),
            };
        }
        scene
    }

    /// A shop whose application is to be scaled down to the replicas that it keeps.
    pub async fn reduce(options: ShopOptions, kept: u64) -> Scene {
        let shop = Shop::start(options).await;
        let work = Work::Sleep { above: Above::Refuse };
        let mut scene = Scene::ask_for(shop, "shop_app", work, person()).await;
        scene.back = specs(&scene.shop);
        let spec = scene.back.get_mut("shop_app").expect("the shop has that service");
        *spec = client_spec::scaled(spec, kept);
        scene
    }

    /// A shop whose application runs with the replicas that it keeps, and is to have all of them again.
    pub async fn enlarge(options: ShopOptions, kept: u64) -> Scene {
        let scene = Scene::reduce(options, kept).await;
        let awake = scene.specs.clone();
        let env = scene.driver("bedtime").await;
        scene.drive(&env).await;
        assert_eq!(scene.check("the sleep of the scene").await, State::Succeeded);
        let mut scene = Scene::ask_for(scene.shop, "shop_app", Work::Wake, person()).await;
        scene.back = awake;
        scene
    }

    /// A shop whose application slept behind a waker and was deployed with other labels since: another waker is to stand in.
    pub async fn sleep_again(options: ShopOptions) -> Scene {
        let labels = options.app_labels.clone();
        let shop = Shop::start(options).await;
        let work = Work::Sleep { above: Above::Refuse };
        let scene = Scene::ask_for(shop, "shop_app", work, person()).await;
        let env = scene.driver("bedtime").await;
        scene.drive(&env).await;
        assert_eq!(scene.operation().await.journal.state, State::Succeeded, "the first sleep of the scene");
        let shop = scene.shop;
        shop.sim.workload("shop-app:2", shop.application());
        shop.deploy("shop_app", |spec| {
            for (key, value) in &labels {
                spec["Labels"][key] = Value::from(value.as_str());
            }
            spec["Labels"]["skep.scale.wake.port"] = Value::from("8081");
            // Another one than the last, so that the one that is found does not stay.
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = Value::from("shop-app:2");
        })
        .await;
        // How the deploy itself went is no matter of the sleep.
        shop.sim.until(Duration::from_secs(60), "the deploy to settle", |_| shop.sees_only_app()).await;
        let work = Work::Sleep { above: Above::Alone };
        let mut scene = Scene::ask_for(shop, "shop_app", work, person()).await;
        scene.back = specs(&scene.shop);
        let spec = scene.back.get_mut("shop_app").expect("the shop has that service");
        *spec = client_spec::swapped(spec, &Value::Null, &WAKER);
        scene
    }

    /// A shop that sleeps, and whose application is to wake, and before it what it needs.
    pub async fn wake(options: ShopOptions) -> Scene {
        let shop = Shop::start(options).await;
        let awake = specs(&shop);
        let scene = Scene::ask(shop, Work::Sleep { above: Above::Along }).await;
        let env = scene.driver("bedtime").await;
        scene.drive(&env).await;
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "the sleep of the scene: {op:#?}");
        let mut scene = Scene::ask_for(scene.shop, "shop_app", Work::Wake, person()).await;
        scene.back = awake;
        scene
    }

    /// A shop of which a service is to be restarted.
    pub async fn restart(options: ShopOptions, service: &str, manner: Manner) -> Scene {
        let shop = Shop::start(options).await;
        let mut scene = Scene::ask_for(shop, service, restart(false, manner), person()).await;
        if manner == Manner::Rolling {
            scene.back = restarted(&scene.shop, &[service]);
        }
        scene
    }

    /// A shop that is to be restarted whole: what needs something, or is needed, stops; the proxy stands beside it.
    pub async fn restart_whole(options: ShopOptions) -> Scene {
        let shop = Shop::start(options).await;
        let mut scene = Scene::ask_stack(shop, restart(true, Manner::Fitting)).await;
        scene.back = restarted(&scene.shop, &["shop_proxy"]);
        scene
    }

    /// A shop of which a service is to be updated. The application has further images that work as the first one does.
    pub async fn update(options: ShopOptions, service: &str, image: &str) -> Scene {
        let shop = Shop::start(options).await;
        shop.sim.workload("shop-app:2", shop.application());
        let mut scene = Scene::ask_for(shop, service, update_to(image), person()).await;
        scene.back = specs(&scene.shop);
        let spec = scene.back.get_mut(service).expect("the shop has that service");
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        scene
    }

    /// A shop with a worker, which uses the database as the application does.
    pub async fn with_worker(options: ShopOptions) -> Shop {
        let shop = Shop::start(options).await;
        let labels = [
            ("com.docker.stack.namespace", "shop"),
            ("skep.enable", "true"),
            ("skep.depends-on", "db,cache"),
        ];
        let worker = service_spec("shop_worker", WORKER_IMAGE, &labels);
        let worker = on_network(health(worker, Duration::from_millis(500), 3), &shop.network, &["worker"]);
        let reply = shop.raw.call("POST", "/services/create", Some(&worker)).await;
        assert_eq!(reply.expect("the simulated engine answers").status, 201, "the worker");
        shop.sim
            .until(Duration::from_secs(60), "the worker runs", |sim| running(sim, "shop_worker") == 1)
            .await;
        shop
    }

    /// The application and the worker get new images as one.
    pub async fn update_together(options: ShopOptions) -> Scene {
        let shop = Scene::with_worker(options).await;
        shop.sim.workload("shop-app:2", shop.application());
        let work = together(&shop, "shop-app:2", &[("shop_worker", NEW_WORKER)], 10).await;
        let mut scene = Scene::ask_for(shop, "shop_app", work, person()).await;
        scene.back = specs(&scene.shop);
        for (service, image) in [("shop_app", "shop-app:2"), ("shop_worker", NEW_WORKER)] {
            let spec = scene.back.get_mut(service).expect("the shop has that service");
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(image);
        }
        scene
    }

    /// The same; the worker, which gets its image last, is never healthy.
    pub async fn update_together_that_fails(options: ShopOptions) -> Scene {
        let scene = Scene::update_together(options).await;
        scene.shop.sim.workload(NEW_WORKER, Unhealthy);
        scene
    }

    /// As [`Scene::update`] of the application, with which the data that it uses would go back.
    pub async fn update_with_data(mut options: ShopOptions) -> Scene {
        options.app_labels.push(("skep.update.rollback".to_owned(), "full".to_owned()));
        Scene::update(options, "shop_app", "shop-app:2").await
    }

    /// The same, to an image that spoils the data as it starts and is never healthy: both go back.
    pub async fn update_that_spoils(options: ShopOptions) -> Scene {
        let scene = Scene::update_with_data(options).await;
        scene.shop.sim.workload("shop-app:2", Spoils(scene.shop.application()));
        scene
    }

    /// A shop with a database that an earlier restore kept and that has expired.
    pub async fn expire(options: ShopOptions) -> Scene {
        let shop = Shop::start(options).await;
        let engine = connect(&shop, "asker").await;
        let restored = Scene::ask(
            shop,
            Work::Restore {
                to: None,
                backup: None,
                before: None,
                in_place: None,
                quiesce: None,
                create_roles: false,
            },
        );
        let Scene { shop, op, .. } = restored.await;
        let name = format!("skep_{op}_old");
        shop.data.add_server("shop_db", &name, USER, &live(&shop));
        let oid = shop.data.database("shop_db", &name).expect("it was added just now").oid;
        let now = shop.sim.now();
        let kept = Kept { operation: op.clone(), form: KeptForm::Database, name, oid, until: now };
        let ended = desk::edit(&engine, &op, |op| {
            op.journal.state = State::Succeeded;
            let record = op.journal.step_mut("keep", now);
            (record.state, record.out) = (StepState::Done, json!(kept));
            Ok(())
        });
        ended.await.expect("nobody else writes it");
        Scene::ask(shop, Work::Expire).await
    }

    /// A shop of which an operation has ended, whose report is to be written.
    pub async fn report(options: ShopOptions) -> Scene {
        let scene = Scene::restart(options, "shop_db", Manner::Rolling).await;
        let env = scene.driver("before").await;
        scene.drive(&env).await;
        Scene::ask(scene.shop, Work::Report).await
    }

    /// A shop with two backups, of which one was damaged since if that is wanted, to be verified.
    pub async fn verify(options: ShopOptions, damaged: bool) -> Scene {
        let shop = Scene::backed_up_twice(options).await;
        if damaged {
            shop.data.with(|world| {
                let oldest = world.store.backups().into_iter().next().expect("there are two");
                world.store.corrupt(&oldest, "shop.dump");
            });
        }
        Scene::ask(shop, Work::Verify { backup: None }).await
    }

    /// A shop with two backups in its store and none in its catalogue, to be imported.
    pub async fn import(options: ShopOptions) -> Scene {
        let shop = Scene::backed_up_twice(options).await;
        Scene::forget_catalogue(&shop).await;
        Scene::ask(shop, import()).await
    }

    /// A shop with a directory in its store that was filled by hand, to be imported; with what its dump holds.
    pub async fn layout(options: ShopOptions) -> (Scene, Content) {
        let file = if options.files.is_some() { "volumes/data.tar.gz" } else { "postgres/shop.dump" };
        let shop = Shop::start(options).await;
        let content = live(&shop);
        let dump = serde_json::to_vec(&content).expect("rows by table are JSON");
        let files = [(file, dump), ("redis/dump.rdb", b"REDIS".to_vec())];
        shop.data.with(|world| world.store.by_hand(BY_HAND, &files));
        let layout = Some(BY_HAND.to_owned());
        let work =
            Work::Import { store: "default".to_owned(), from: None, quick: false, layout, dry_run: false };
        (Scene::ask(shop, work).await, content)
    }

    /// A shop with two data services and a config, of which a restore point is to be taken.
    pub async fn point(options: ShopOptions) -> Scene {
        let shop = Scene::with_audit(options).await;
        Scene::ask_stack(shop, Work::Point { without_data: false }).await
    }

    /// A shop with a second data service, `shop_audit`, whose spec names a config and a secret.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub async fn with_audit(options: ShopOptions) -> Shop {
        let shop = Shop::start(options).await;
        let engine = connect(&shop, "deployer").await;
        let labels = BTreeMap::from([("com.docker.stack.namespace".to_owned(), "shop".to_owned())]);
        let config = engine.create_config("shop_conf_1", &labels, b"level=info").await.expect("it is new");
        let secret = engine.create_secret("shop_key", &labels, b"hush").await.expect("it is new");
        shop.data.add_server("shop_audit", "audit", USER, &Content::from([("events".to_owned(), 2)]));
        let labels = [
            ("com.docker.stack.namespace", "shop"),
            ("skep.enable", "true"),
            ("skep.data", "postgres"),
            ("skep.data.database", "audit"),
        ];
        let mut spec =
            on_network(service_spec("shop_audit", "postgres:17", &labels), &shop.network, &["audit"]);
        let container = &mut spec["TaskTemplate"]["ContainerSpec"];
        container["Env"] = json!([format!("POSTGRES_USER={USER}"), "POSTGRES_HOST_AUTH_METHOD=trust"]);
        let file = |name: &str| json!({ "Name": name, "UID": "0", "GID": "0", "Mode": 292 });
        container["Configs"] =
            json!([{ "ConfigID": config, "ConfigName": "shop_conf_1", "File": file("/etc/audit.conf") }]);
        container["Secrets"] = json!([{ "SecretID": secret, "SecretName": "shop_key", "File": file("key") }]);
        let created = shop.raw.call("POST", "/services/create", Some(&spec)).await;
        assert_eq!(created.expect("the simulated engine answers").status, 201);
        tokio::time::sleep(Duration::from_secs(5)).await;
        shop
    }

    /// A shop of which a restore point was taken, and then much was deployed: another environment and count of the
    /// application, another image of the cache, another config of the audit, whose old one is gone. It is to go back.
    pub async fn rollback(options: ShopOptions) -> Scene {
        let shop = Box::pin(Scene::point_and_deploy(options)).await;
        let engine = connect(&shop, "looker").await;
        let points = points::list(&engine, None).await.expect("the simulated engine answers");
        let point = points.last().expect("it was taken").head.clone();
        Scene::back_to(shop, &point, &ROLLED_BACK).await
    }

    /// As [`Scene::rollback`], with data, and rows were written and lost since: all of it is to go back.
    pub async fn rollback_with_data(options: ShopOptions) -> Scene {
        let (shop, point, wanted) = Box::pin(Scene::point_deploy_and_write(options)).await;
        let only: &[Component] = if shop.app_files { &ROLLED_BACK_WHOLE } else { &ROLLED_BACK_WITH_DATA };
        let mut scene = Box::pin(Scene::back_to(shop, &point, only)).await.wanting(wanted.0);
        for (service, content) in wanted.1 {
            scene.others.entry(service).and_modify(|held| held.1 = content);
        }
        scene
    }

    /// The shop of [`Scene::rollback_with_data`] before anybody asks for it, its point, and what `shop_db` and the others
    /// hold in it.
    ///
    /// # Panics
    /// When the point cannot be taken, or the engine refuses a deploy.
    pub async fn point_deploy_and_write(
        options: ShopOptions,
    ) -> (Shop, Head, (Content, BTreeMap<&'static str, Content>)) {
        let shop = Scene::with_audit(options).await;
        let wanted = (live(&shop), held_by_others(&shop));
        let shop = Box::pin(Scene::take_point_and_deploy(shop, false)).await;
        shop.data.insert("shop_db", DATABASE, "orders", 7);
        shop.data.drop_table("shop_db", DATABASE, "users");
        shop.data.insert("shop_audit", "audit", "events", 3);
        shop.data.with(|world| {
            if let Some(files) = world.files.get_mut("shop_app") {
                files.live.insert("uploads".to_owned(), 9);
            }
        });
        let points = points::list(&connect(&shop, "looker").await, None).await;
        let point = points.expect("the simulated engine answers").pop().expect("it was taken");
        (shop, point.head, wanted)
    }

    async fn back_to(shop: Shop, point: &Head, only: &[Component]) -> Scene {
        let engine = connect(&shop, "looker").await;
        let work = Work::Rollback { point: point.id.clone(), only: only.to_vec() };
        let mut scene = Scene::ask_stack(shop, work).await;
        for member in &point.services {
            let spec = member.spec.load(&engine, &point.id).await.expect("the point is whole");
            let mut spec: Value = serde_json::from_slice(&spec).expect("a spec");
            // How often a service was told to restart is not put back.
            let now = &scene.specs[&member.name]["TaskTemplate"];
            match now.get("ForceUpdate") {
                Some(count) => spec["TaskTemplate"]["ForceUpdate"] = count.clone(),
                None => drop(spec["TaskTemplate"].as_object_mut().and_then(|t| t.remove("ForceUpdate"))),
            }
            scene.back.insert(member.name.clone(), spec);
        }
        scene
    }

    /// The shop of [`Scene::rollback`] before anybody asks for it.
    ///
    /// # Panics
    /// When the point cannot be taken, or the engine refuses a deploy.
    pub async fn point_and_deploy(options: ShopOptions) -> Shop {
        let shop = Scene::with_audit(options).await;
        Scene::take_point_and_deploy(shop, true).await
    }

    async fn take_point_and_deploy(shop: Shop, without_data: bool) -> Shop {
        let scene = Scene::ask_stack(shop, Work::Point { without_data }).await;
        let env = scene.driver("taker").await;
        scene.drive(&env).await;
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "the point of the scene: {op:#?}");
        let shop = scene.shop;
        let engine = connect(&shop, "deployer").await;
        let labels = BTreeMap::from([("com.docker.stack.namespace".to_owned(), "shop".to_owned())]);
        let config = engine.create_config("shop_conf_2", &labels, b"level=debug").await.expect("it is new");
        update(&shop, "shop_app", |spec| {
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["RELEASE=2"]);
            spec["Mode"]["Replicated"]["Replicas"] = json!(3);
        })
        .await;
        update(&shop, "shop_cache", |spec| spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("redis:8"))
            .await;
        update(&shop, "shop_audit", |spec| {
            let file = &mut spec["TaskTemplate"]["ContainerSpec"]["Configs"][0];
            (file["ConfigID"], file["ConfigName"]) = (json!(config), json!("shop_conf_2"));
        })
        .await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let old = engine.config_id("shop_conf_1").await.expect("it is there");
        engine.remove_config(&old).await.expect("nobody uses it any more");
        shop
    }

    /// Asks for an operation on the whole stack.
    pub async fn ask_stack(shop: Shop, work: Work) -> Scene {
        Scene::ask_of(shop, "shop", of_stack("shop"), work, person()).await
    }

    /// A shop that was backed up twice.
    pub async fn backed_up_twice(options: ShopOptions) -> Shop {
        let shop = Scene::back_up(Shop::start(options).await).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        Scene::back_up(shop).await
    }

    /// Takes every backup out of the catalogue, as the loss of the Swarm does.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub async fn forget_catalogue(shop: &Shop) {
        let engine = connect(shop, "loss").await;
        for config in engine.configs(Kind::Backup, &[]).await.expect("the engine answers") {
            engine.remove_config(&config.id).await.expect("it is there");
        }
    }

    /// The shop of [`Scene::restore`] and what its backup holds, before anybody asks for anything.
    pub async fn broken(options: ShopOptions) -> (Shop, Content) {
        let shop = Scene::back_up(Shop::start(options).await).await;
        let wanted = live(&shop);
        shop.data.insert("shop_db", DATABASE, "orders", 7);
        shop.data.drop_table("shop_db", DATABASE, "users");
        tokio::time::sleep(Duration::from_secs(5)).await;
        (shop, wanted)
    }

    /// Backs the shop up.
    ///
    /// # Panics
    /// When that does not succeed.
    pub async fn back_up(shop: Shop) -> Shop {
        let scene = Scene::ask(shop, Work::Backup).await;
        let env = scene.driver("backup").await;
        scene.drive(&env).await;
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "the backup of the scene: {op:#?}");
        scene.shop
    }

    /// Asks for one more operation on a shop.
    pub async fn ask(shop: Shop, work: Work) -> Scene {
        Scene::ask_by(shop, work, person()).await
    }

    /// Asks for one more operation on a shop, on behalf of somebody or something.
    pub async fn ask_by(shop: Shop, work: Work, trigger: Trigger) -> Scene {
        Scene::ask_for(shop, "shop_db", work, trigger).await
    }

    /// Asks for one more operation on any service of a shop.
    pub async fn ask_for(shop: Shop, service: &str, work: Work, trigger: Trigger) -> Scene {
        let engine = connect(&shop, "asker").await;
        let id = engine.service(service).await.expect("the shop has that service").id;
        Scene::ask_of(shop, service, id, work, trigger).await
    }

    async fn ask_of(shop: Shop, service: &str, id: String, work: Work, trigger: Trigger) -> Scene {
        let op = Scene::create(&shop, service, id, work, trigger).await;
        Scene::of(shop, op)
    }

    /// Asks for another operation on a service, which nobody drives.
    pub async fn ask_besides(&self, service: &str, work: Work) -> OpId {
        let engine = connect(&self.shop, "asker").await;
        let id = engine.service(service).await.expect("the shop has that service").id;
        Scene::create(&self.shop, service, id, work, person()).await
    }

    async fn create(shop: &Shop, service: &str, id: String, work: Work, trigger: Trigger) -> OpId {
        let engine = connect(shop, "asker").await;
        let now = shop.sim.now();
        let intent = Intent {
            schema: SCHEMA,
            service: service.to_owned(),
            service_id: id,
            work,
            trigger,
            created: now,
            approval: false,
            accept_problems: false,
        };
        let op = OpId::new(now, &format!("{intent:?}"));
        desk::create(&engine, &op, intent).await.expect("the operation is stored");
        op
    }

    /// An operation that was asked for, with all that is there now as what was there before it.
    pub fn of(shop: Shop, op: OpId) -> Scene {
        let content = live(&shop);
        let specs = specs(&shop);
        let since = shop.sim.elapsed();
        let (before, wanted) = (content.clone(), content);
        let others = held_by_others(&shop).into_iter().map(|(name, held)| (name, (held.clone(), held)));
        let others = others.collect();
        Scene { shop, op, since, specs, back: BTreeMap::new(), before, wanted, others }
    }

    /// Says what the live database must hold once the operation has succeeded.
    pub fn wanting(mut self, content: Content) -> Scene {
        self.wanted = content;
        self
    }

    /// Says that the specs of the services are meant as they are now: somebody deployed them.
    pub fn meant(&mut self, service: &str, spec: Value) {
        self.specs.insert(service.to_owned(), spec);
    }

    /// Drives to rest, and looks at the shop every ten milliseconds of simulated time.
    pub async fn drive_watched(&self, env: &Env, mut look: impl FnMut(&Shop)) -> Driven {
        let drive = self.drive(env);
        tokio::pin!(drive);
        loop {
            tokio::select! {
                biased;
                driven = &mut drive => return driven,
                () = tokio::time::sleep(Duration::from_millis(10)) => look(&self.shop),
            }
        }
    }

    /// A driver, known to the simulation by its name.
    pub async fn driver(&self, name: &str) -> Env {
        env(&self.shop, name).await
    }

    /// Polls until the operation is at rest or the driver is dead. Failures are what a controller's queue would see.
    ///
    /// # Panics
    /// When it never comes to rest.
    pub async fn drive(&self, env: &Env) -> Driven {
        let limit = self.shop.sim.elapsed() + REST;
        let mut broken = 0;
        while self.shop.sim.elapsed() < limit {
            match Box::pin(drive::poll_whole(env, &self.op)).await {
                Ok(Again::Idle) => return Driven::Rest,
                Ok(Again::After(pause)) => {
                    broken = 0;
                    tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
                }
                Err(Error::Unreachable { .. } | Error::Unknown { .. }) if broken > 5 => return Driven::Dead,
                Err(_) => {
                    broken += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        panic!("it does not come to rest: {:#?}", self.operation().await.journal);
    }

    /// The operation as it stands.
    pub async fn operation(&self) -> Operation {
        let engine = connect(&self.shop, "looker").await;
        desk::find(&engine, &self.op).await.expect("the operation exists")
    }

    /// Checks what must hold when a failure after the point of no return waits for a person (S3): users see the page, the
    /// restored data is live, and the old data is kept.
    pub async fn check_stuck(&self, what: &str) {
        let op = self.operation().await;
        let told = format!("{what}: {:#?}", op.journal);
        assert!(op.journal.step("start").is_some(), "stuck before the point of no return: {told}");
        let kept = self.shop.data.databases("shop_db").iter().any(|d| d.ends_with("_old"))
            || self.sides().iter().any(|(_, state)| *state == SideState::Forward);
        let in_place = matches!(op.intent.work, Work::Restore { in_place: Some(true), .. });
        // What commands load takes the place of what was there: the safety backup is what is kept of it.
        let word = &self.specs["shop_db"]["Labels"]["skep.data"];
        let by_command = ["command", "rabbitmq", "mongodb"].iter().any(|live| word == live);
        let engine = connect(&self.shop, "looker").await;
        let backups = engine.configs(Kind::Backup, &[]).await.expect("the engine answers");
        let is_safe = backups
            .iter()
            .filter_map(Backup::read)
            .any(|b| b.entry.service == "shop_db" && b.entry.purpose == Purpose::Safety);
        assert!(kept || in_place || (by_command && is_safe), "the old data is gone: {told}");
        let live = self.shop.data.content_of("shop_db", DATABASE);
        assert_eq!(live.as_ref(), Some(&self.wanted), "the data: {told}");
        let minute = Duration::from_secs(60);
        self.shop.sim.until(minute, "users see the page", only_page).await;
    }

    /// Tries parts of the operation again that are stuck, and parts of those first, as a person does.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub async fn retry_parts(&self, env: &Env) {
        let engine = connect(&self.shop, "person").await;
        loop {
            let operations = desk::list(&engine).await.expect("the simulated engine answers");
            let is_stuck = |op: &&Operation| op.journal.state == State::Stuck && op.part_of().is_some();
            let stuck: Vec<&Operation> = operations.iter().filter(is_stuck).collect();
            let is_deepest = |op: &&&Operation| stuck.iter().all(|part| part.part_of() != Some(&op.id));
            let Some(deepest) = stuck.iter().find(is_deepest) else { return };
            let again = desk::retry(&engine, &deepest.id, self.shop.sim.now()).await;
            again.expect("it is stuck, so it can be tried again");
            self.drive(env).await;
        }
    }

    /// Tries a stuck operation again, as a person does.
    pub async fn retry(&self) {
        let engine = connect(&self.shop, "person").await;
        desk::retry(&engine, &self.op, self.shop.sim.now())
            .await
            .expect("it is stuck, so it can be tried again");
    }

    /// Checks everything that must hold at rest. `what` names the case.
    pub async fn check(&self, what: &str) -> State {
        let op = self.operation().await;
        let told = format!("{what}: {:#?}", op.journal);
        let state = op.journal.state;
        assert!(state.is_terminal(), "not at rest well: {told}");
        assert!(
            op.journal.steps.iter().all(|(_, r)| r.state != StepState::UndoFailed),
            "an undo failed: {told}"
        );
        let live = self.shop.data.content_of("shop_db", DATABASE);
        let live = live.unwrap_or_else(|| panic!("the live data is gone: {told}"));
        let succeeded = state == State::Succeeded;
        assert_eq!(live, *(if succeeded { &self.wanted } else { &self.before }), "the data: {told}");
        let held = held_by_others(&self.shop);
        for (service, (before, wanted)) in &self.others {
            let expected = if succeeded { wanted } else { before };
            assert_eq!(held.get(service), Some(expected), "of {service}: {told}");
        }
        let database = self.shop.data.database("shop_db", DATABASE);
        assert!(database.is_none_or(|d| d.allow), "nobody may connect: {told}");
        if matches!(op.intent.work, Work::Restore { create_roles: true, .. }) {
            let made = self.shop.data.with(|w| w.servers["shop_db"].roles.iter().any(|r| r == LOST_ROLE));
            assert_eq!(made, succeeded, "the role: {told}");
        }
        self.check_specs(&op, &told);
        self.check_sleepers(&op, &told).await;
        self.check_leftovers(&op, &told);
        self.check_kept(&op, &told).await;
        self.check_proved(&op, &told).await;
        self.check_catalogue(&op, &told).await;
        self.check_recovered(&op, &told).await;
        self.check_points(&op, &told).await;
        self.check_parts(&op, &told).await;
        self.check_users(&op, &told).await;
        state
    }

    /// Of each service that sleeps, and of no other, it is written down what it goes back to. A wake that did not end well
    /// leaves each service either asleep or with its own spec.
    async fn check_sleepers(&self, op: &Operation, told: &str) {
        let engine = connect(&self.shop, "looker").await;
        let sleepers = sleeper::list(&engine).await.expect("the simulated engine answers");
        let awake = if op.intent.work == Work::Wake { self.back.clone() } else { self.unchanged(op) };
        for (name, spec) in specs(&self.shop) {
            let slept = sleepers.iter().find(|s| s.sleeper.service == name);
            let written = slept.map(|s| &s.spec);
            match slept.map_or_else(|| client_spec::is_asleep(&spec), |s| s.sleeper.is_down(&spec)) {
                true => assert_eq!(written, awake.get(&name), "{name}: {told}"),
                false if op.journal.state == State::Succeeded => assert_eq!(written, None, "{name}: {told}"),
                false => assert_eq!(Some(&spec), awake.get(&name), "{name}: {told}"),
            }
        }
        // What a waker was told is there as long as the record of its sleep, which a wake ends once it stands no more.
        let stand = specs(&self.shop).values().filter(|s| client_spec::is_waker(&s["TaskTemplate"])).count();
        let written = sleepers.iter().filter(|s| s.waker.is_some()).count();
        let tasks = self.shop.sim.stored_names().into_iter().filter(|n| n.starts_with("skep-waker-")).count();
        let wanted = if op.intent.work == Work::Wake { stand } else { written };
        assert_eq!(tasks, wanted, "tasks of wakers: {told}");
    }

    /// The specs where an operation has not succeeded. A service that a restart had replaced keeps its count: its tasks are new,
    /// and putting it back would restart them again.
    fn unchanged(&self, op: &Operation) -> BTreeMap<String, Value> {
        let mut specs = self.specs.clone();
        let is_left = op.journal.step("apply").is_some_and(|r| r.out["left"] == true);
        let others = op.journal.step("apply").and_then(|r| r.out["others"].as_array());
        assert!(
            others.is_none_or(|o| o.iter().all(|r| r["left"] != true)),
            "one of several was left: {op:#?}"
        );
        let left = is_left.then(|| op.intent.service.clone());
        for name in replaced(op).into_iter().chain(left) {
            specs.extend(self.back.get_key_value(&name).map(|(name, spec)| (name.clone(), spec.clone())));
        }
        specs
    }

    fn check_specs(&self, op: &Operation, told: &str) {
        let mut found = specs(&self.shop);
        if op.intent.work == Work::Wake && op.journal.state != State::Succeeded {
            // See `check_sleepers`.
            return;
        }
        if self.back.is_empty() || op.journal.state != State::Succeeded {
            assert_eq!(found, self.unchanged(op), "the specs: {told}");
            let made = self.shop.sim.stored_names().into_iter().any(|name| name == "shop_conf_1");
            assert!(self.back.is_empty() || !made, "a config that it made is left: {told}");
            return;
        }
        let mut back = self.back.clone();
        // How a waker is told what to do is its own affair; all the rest is the service's.
        for (name, spec) in back.iter_mut().filter(|(_, spec)| spec["TaskTemplate"].is_null()) {
            let template = &found[name]["TaskTemplate"];
            assert!(client_spec::is_waker(template), "no waker stands for {name}: {told}");
            spec["TaskTemplate"] = template.clone();
        }
        for spec in found.values_mut().chain(back.values_mut()) {
            let configs = spec["TaskTemplate"]["ContainerSpec"]["Configs"].as_array_mut();
            configs.into_iter().flatten().for_each(|config| config["ConfigID"] = Value::Null);
        }
        assert_eq!(found, back, "the specs of the point: {told}");
    }

    fn check_leftovers(&self, op: &Operation, told: &str) {
        let mine = ["skep-job-", "skep-claim-", "skep-plan-", "skep-base-", "skep-page-", "skep-canary-"];
        let objects = self.shop.sim.stored_names().into_iter().chain(self.shop.sim.services());
        let left: Vec<String> = objects.filter(|n| mine.iter().any(|m| n.starts_with(m))).collect();
        assert_eq!(left, [] as [String; 0], "left behind: {told}");
        // Where the engine refuses the very job that clears it, people are told.
        let is_told = op.journal.remarks.iter().any(|r| r.contains("left in the staging volume"));
        let staged = self.shop.data.with(|world| if is_told { Vec::new() } else { world.staged() });
        assert_eq!(staged, [] as [String; 0], "left in the staging volume: {told}");
        let has_succeeded = op.journal.state == State::Succeeded;
        let may_be_kept = match &op.intent.work {
            Work::Restore { .. } => has_succeeded,
            Work::Rollback { only, .. } => has_succeeded && with_data(only),
            // By the rollback that is a part of it.
            Work::Update { .. } => op.journal.step("apply").is_some_and(|r| r.out["full"].is_string()),
            Work::Expire => !has_succeeded,
            Work::Backup
            | Work::Drill { .. }
            | Work::Maintenance { .. }
            | Work::Report
            | Work::Verify { .. }
            | Work::Import { .. }
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. } => false,
        };
        let held = |service: &str| self.shop.data.databases(service).into_iter();
        let databases = held("shop_db").chain(held("shop_audit"));
        let sides: Vec<String> =
            databases.filter(|n| n.starts_with("skep_") && !(may_be_kept && n.ends_with("_old"))).collect();
        assert_eq!(sides, [] as [String; 0], "databases left behind: {told}");
        let mut sides = self.sides();
        if may_be_kept {
            let of = |service: &str| sides.iter().filter(|(name, _)| name.starts_with(service)).count();
            assert!(of("shop_db") <= 1 && of("shop_app") <= 1, "more than one old directory: {told}");
            sides.retain(|(_, state)| *state != SideState::Forward);
        }
        assert_eq!(sides, [], "directories left behind: {told}");
    }

    /// What stands beside the live files.
    fn sides(&self) -> Vec<(String, SideState)> {
        self.shop.data.with(|world| {
            let files = world.files.iter();
            let side = |service: &String, name: &String| format!("{service}: {name}");
            files.flat_map(|(s, f)| f.sides.iter().map(move |(n, held)| (side(s, n), held.state))).collect()
        })
    }

    /// Nobody believes in a kept database that was dropped.
    async fn check_kept(&self, op: &Operation, told: &str) {
        if op.intent.work != Work::Expire || op.journal.state != State::Succeeded {
            return;
        }
        let engine = connect(&self.shop, "looker").await;
        let operations = desk::list(&engine).await.expect("the simulated engine answers");
        assert!(operations.iter().all(|op| kept_by(op).is_none()), "not forgotten: {told}");
    }

    /// A drill that succeeded showed what its backup is worth, and no other one did.
    async fn check_proved(&self, op: &Operation, told: &str) {
        if !matches!(op.intent.work, Work::Drill { .. }) {
            return;
        }
        let engine = connect(&self.shop, "looker").await;
        let configs = engine.configs(Kind::Backup, &[]).await.expect("the simulated engine answers");
        let shown = |b: &Backup| b.proved.or(b.loaded).is_some();
        let proved = configs.iter().filter_map(Backup::read).filter(shown);
        let seconds: Vec<_> = proved.map(|b| b.restore_seconds.expect("a drill measures")).collect();
        let expected = usize::from(op.journal.state == State::Succeeded);
        assert_eq!(seconds.len(), expected, "proved: {told}");
        assert!(seconds.iter().all(|s| *s > 0.0), "{seconds:?}: {told}");
    }

    /// What an import registered can be restored; one that did not succeed registered nothing.
    async fn check_catalogue(&self, op: &Operation, told: &str) {
        let engine = connect(&self.shop, "looker").await;
        let configs = engine.configs(Kind::Backup, &[]).await.expect("the simulated engine answers");
        let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
        backups.sort_by(|a, b| a.entry.dir.cmp(&b.entry.dir));
        let stored = self.shop.data.with(|world| world.store.backups());
        match op.intent.work {
            Work::Import { .. } if op.journal.state == State::Succeeded => {
                let dirs: Vec<&String> = backups.iter().map(|b| &b.entry.dir).collect();
                // What could not be read is told, not registered.
                let refused =
                    op.journal.step("take").map(|r| r.out["refused"].to_string()).unwrap_or_default();
                let is_taken = |dir: &&String| !dir.rsplit('/').next().is_some_and(|id| refused.contains(id));
                assert_eq!(dirs, stored.iter().filter(is_taken).collect::<Vec<_>>(), "{told}");
                let imported = |b: &Backup| b.entry.origin == Origin::Imported && b.verified.is_some();
                assert!(backups.iter().all(imported), "{told}");
            }
            Work::Import { ref layout, .. } => {
                assert_eq!(backups, [], "registered all the same: {told}");
                let dirs = self.shop.data.with(|w| w.store.dirs.keys().cloned().collect::<Vec<_>>());
                assert!(layout.is_none() || dirs == [BY_HAND], "a copy is left: {told}: {dirs:?}");
            }
            Work::Verify { .. } => assert_eq!(backups.len(), stored.len(), "{told}"),
            Work::Backup
            | Work::Restore { .. }
            | Work::Drill { .. }
            | Work::Maintenance { .. }
            | Work::Expire
            | Work::Report
            | Work::Point { .. }
            | Work::Sleep { .. }
            | Work::Wake
            | Work::Restart { .. }
            | Work::Update { .. }
            | Work::Rollback { .. } => {}
        }
    }

    /// What was recovered is a registered backup, or nothing of it is left.
    async fn check_recovered(&self, op: &Operation, told: &str) {
        let id = format!("{}r", op.id);
        let engine = connect(&self.shop, "looker").await;
        let configs = engine.configs(Kind::Backup, &[]).await.expect("the simulated engine answers");
        let registered = configs.iter().filter_map(Backup::read).any(|b| b.entry.id == id);
        let dirs = self.shop.data.with(|w| w.store.dirs.keys().cloned().collect::<Vec<_>>());
        assert_eq!(dirs.iter().any(|dir| dir.ends_with(&id)), registered, "what was recovered: {told}");
        let is_moment = matches!(op.intent.work, Work::Restore { to: Some(_), .. });
        let has_to_be = is_moment && op.journal.state == State::Succeeded;
        assert!(registered || !has_to_be, "a restore to a moment recovers it: {told}");
    }

    /// A point that is listed is whole; what was not registered left neither parts nor backups.
    async fn check_points(&self, op: &Operation, told: &str) {
        let engine = connect(&self.shop, "looker").await;
        let points = points::list(&engine, None).await.expect("the simulated engine answers");
        let parts = engine.configs(Kind::PointPart, &[]).await.expect("the simulated engine answers");
        let configs = engine.configs(Kind::Backup, &[]).await.expect("the simulated engine answers");
        let backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
        for point in &points {
            for part in point.head.parts() {
                part.load(&engine, &point.head.id).await.unwrap_or_else(|e| panic!("{e}: {told}"));
            }
            let there = |id: &str| backups.iter().any(|b| b.entry.id == id && b.verified.is_some());
            assert!(point.backups().all(there), "a backup is missing: {told}");
        }
        let named = |name: &str| points.iter().any(|p| p.head.parts().any(|part| part.name == name));
        assert!(parts.iter().all(|part| named(&part.name)), "parts are left: {told}");
        if matches!(op.intent.work, Work::Rollback { .. }) {
            let safety = points.iter().filter(|p| p.head.id == op.id).count();
            assert_eq!(safety, usize::from(op.journal.state == State::Succeeded), "the safety point: {told}");
        }
        if matches!(op.intent.work, Work::Point { .. }) {
            let own = |p: &&Point| p.head.id == op.id;
            let expected = usize::from(op.journal.state == State::Succeeded);
            assert_eq!(points.iter().filter(own).count(), expected, "the point: {told}");
            let mine = |dir: &String| dir.contains(op.id.as_str());
            let stored = self.shop.data.with(|w| {
                let all = std::iter::once(&w.store).chain(w.others.values());
                all.flat_map(|store| store.dirs.keys()).filter(|d| mine(d)).count()
            });
            let registered = backups.iter().filter(|b| b.entry.operation == op.id).count();
            let wanted =
                if expected == 1 { points.iter().find(own).map_or(0, |p| p.backups().count()) } else { 0 };
            assert_eq!((stored, registered), (wanted, wanted), "its backups: {told}");
        }
    }

    /// Every part of an operation that has ended has ended as well, and in the same way.
    async fn check_parts(&self, op: &Operation, told: &str) {
        let engine = connect(&self.shop, "looker").await;
        let operations = desk::list(&engine).await.expect("the simulated engine answers");
        for part in operations.iter().filter(|part| part.part_of().is_some()) {
            assert!(part.journal.state.is_terminal(), "a part goes on: {part:#?}: {told}");
        }
        // Of an update a rollback is a part which succeeds where that one does not, and it may be tried again.
        let is_update = matches!(op.intent.work, Work::Update { .. });
        for part in operations.iter().filter(|part| part.part_of() == Some(&op.id) && !is_update) {
            let is_kept = part.journal.state == State::Succeeded;
            assert_eq!(is_kept, op.journal.state == State::Succeeded, "{part:#?}: {told}");
        }
        if is_update {
            let back = operations.iter().filter(|part| {
                let is_rollback = matches!(part.intent.work, Work::Rollback { .. });
                is_rollback && part.part_of() == Some(&op.id) && part.journal.state == State::Succeeded
            });
            let is_back = op.journal.step("apply").is_some_and(|r| r.out["full"].is_string());
            assert_eq!(back.count(), usize::from(is_back), "what has put the data back: {told}");
        }
    }

    /// Whether a rollback that is a part of this update came to nothing.
    async fn left_a_release(&self, op: &Operation) -> bool {
        let engine = connect(&self.shop, "looker").await;
        let operations = desk::list(&engine).await.expect("the simulated engine answers");
        operations.iter().any(|part| {
            let is_rollback = matches!(part.intent.work, Work::Rollback { .. });
            is_rollback && part.part_of() == Some(&op.id) && part.journal.state != State::Succeeded
        })
    }

    async fn check_users(&self, op: &Operation, told: &str) {
        let minute = Duration::from_secs(60);
        let is_asleep = client_spec::is_asleep(&specs(&self.shop)["shop_app"]);
        match is_asleep {
            true => self.shop.sim.until(minute, "users see the page", only_page).await,
            false => {
                let shop = &self.shop;
                shop.sim.until(minute, "users get the application again", |_| shop.sees_only_app()).await;
            }
        }
        if op.intent.work == Work::Wake && op.journal.state != State::Succeeded {
            // The application may have been started without what it needs: told of, and left to Swarm.
            return;
        }
        // A database is replaced under its clients, its old task stopped first: that is what was asked for.
        let is_without_data = matches!(op.intent.work, Work::Update { .. }) && op.intent.service == "shop_db";
        // A release whose data did not come back at once stood as it was, up or not, until a person tried again.
        let was_left = self.left_a_release(op).await;
        let wrong = self.shop.wrong_answers(self.since);
        assert!(is_without_data || was_left || wrong.is_empty(), "users saw {wrong:?}: {told}");
        assert_eq!(self.shop.data.violations(), [] as [String; 0], "applications saw: {told}");
    }
}

/// A waker, as what stands in for a service.
const WAKER: StandIn<'static> = StandIn { image: None, stop_first: false, is_waker: true };

/// The role that [`Scene::without_a_role`] lost.
pub const LOST_ROLE: &str = "reporting";

/// Restore beside, and make the roles that are missing.
pub const RESTORE_WITH_ROLES: Work = Work::Restore {
    to: None,
    backup: None,
    before: None,
    in_place: Some(false),
    quiesce: None,
    create_roles: true,
};

/// Whether users see nothing but the page now.
fn only_page(sim: &Sim) -> bool {
    sim.timeline().last().is_some_and(|(_, seen)| seen.iter().all(|a| *a == Answer::Page))
}

/// The components of [`Scene::rollback_with_data`].
pub const ROLLED_BACK_WITH_DATA: [Component; 4] =
    [Component::Specs, Component::Configs, Component::Images, Component::Database];

/// The components of [`Scene::rollback_with_data`] where the application keeps files.
pub const ROLLED_BACK_WHOLE: [Component; 5] =
    [Component::Specs, Component::Configs, Component::Images, Component::Database, Component::Volumes];

/// The components of [`Scene::rollback`].
pub const ROLLED_BACK: [Component; 3] = [Component::Specs, Component::Configs, Component::Images];

/// What a person does with `docker service update`.
///
/// # Panics
/// When the engine refuses it.
pub async fn update(shop: &Shop, service: &str, change: impl FnOnce(&mut Value)) {
    let engine = connect(shop, "updater").await;
    let mut found = engine.service(service).await.expect("it is there");
    change(&mut found.spec);
    engine.update_service(&found.id, found.version, &found.spec).await.expect("nobody else writes it");
}

/// A restore to a moment.
pub fn to_moment(to: Timestamp) -> Work {
    let to = Some(to);
    Work::Restore {
        to,
        backup: None,
        before: None,
        in_place: Some(false),
        quiesce: None,
        create_roles: false,
    }
}

/// A restart.
pub fn restart(whole: bool, manner: Manner) -> Work {
    Work::Restart { whole, manner, force: false, flush: Vec::new(), wait_s: None }
}

/// An update that is watched for ten seconds.
pub fn update_to(image: &str) -> Work {
    update_watched(image, Some(10))
}

/// An update that is watched for so many seconds, or for as long as the labels say.
pub fn update_watched(image: &str, monitor_s: Option<u64>) -> Work {
    Work::Update { image: image.to_owned(), monitor_s, force: false, wait_s: None, also: Vec::new() }
}

/// An update of several as one.
///
/// # Panics
/// When one of them is not there.
pub async fn together(shop: &Shop, image: &str, others: &[(&str, &str)], monitor_s: u64) -> Work {
    let engine = connect(shop, "asker").await;
    let mut also = Vec::new();
    for (service, image) in others {
        let service_id = engine.service(service).await.expect("the shop has that service").id;
        also.push(Also { service: (*service).to_owned(), service_id, image: (*image).to_owned() });
    }
    let monitor_s = Some(monitor_s);
    Work::Update { image: image.to_owned(), monitor_s, force: false, wait_s: None, also }
}

/// Tasks of a service that run, and are healthy.
pub fn running(sim: &Sim, service: &str) -> usize {
    sim.tasks(service).iter().filter(|task| task.state == TaskState::Running).count()
}

/// The image of the worker of [`Scene::with_worker`].
pub const WORKER_IMAGE: &str = "shop-worker:1";
/// The image that it gets in [`Scene::update_together`].
pub const NEW_WORKER: &str = "shop-worker:2";

/// The services that a restart had replaced before it failed.
fn replaced(op: &Operation) -> Vec<String> {
    let rolled = op.journal.step("roll").and_then(|r| r.out["services"].as_object());
    let settled = rolled.into_iter().flatten().filter(|(_, rolled)| rolled["settled"] == true);
    settled.map(|(name, _)| name.clone()).collect()
}

/// The specs of a shop once these services were replaced as they ran.
fn restarted(shop: &Shop, services: &[&str]) -> BTreeMap<String, Value> {
    let mut specs = specs(shop);
    for service in services {
        let spec = specs.get_mut(*service).expect("the shop has that service");
        let count = spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
        spec["TaskTemplate"]["ForceUpdate"] = json!(count + 1);
    }
    specs
}

/// The import of everything that the store holds of the service.
pub fn import() -> Work {
    Work::Import { store: "default".to_owned(), from: None, quick: false, layout: None, dry_run: false }
}

fn person() -> Trigger {
    Trigger::Person { name: "somebody".to_owned() }
}

/// What the live database holds.
/// What services besides `shop_db` hold.
fn held_by_others(shop: &Shop) -> BTreeMap<&'static str, Content> {
    let others = [("shop_audit", "audit"), ("shop_app", "")].into_iter();
    others.filter_map(|(name, database)| Some((name, shop.data.content_of(name, database)?))).collect()
}

fn live(shop: &Shop) -> Content {
    shop.data.content_of("shop_db", DATABASE).expect("the shop has data")
}

/// Connects to the simulated engine under a name.
pub async fn connect(shop: &Shop, name: &str) -> Engine {
    let connector = shop.sim.client(name);
    let endpoint = Endpoint::in_process(move || connector());
    Engine::connect(endpoint).await.expect("the simulated engine answers")
}

/// What a driver of this name works with.
pub async fn env(shop: &Shop, name: &str) -> Env {
    let sim = shop.sim.clone();
    let mut settings =
        Settings { instance: name.to_owned(), page_image: PAGE_IMAGE.to_owned(), ..Settings::default() };
    // Stores that the default labels do not use, the same on every node.
    for (name, store) in [("cloud", CLOUD), ("nas", "volume:nas,opt.type=nfs,opt.device=:/nas")] {
        settings.stores.insert(name.to_owned(), store.parse().expect("the harness names stores"));
    }
    settings.image = Some(SKEP_IMAGE.to_owned());
    settings.wake_url = Some("http://tasks.skep_operator:9180".to_owned());
    settings.wake_network = Some(SKEP_NETWORK.to_owned());
    settings.identity = Some("skep-age-identity".to_owned());
    Env {
        engine: connect(shop, name).await,
        settings: Arc::new(settings),
        runners: runners(),
        clock: Arc::new(move || sim.now()),
        reports: Arc::new(skep::cli::written),
    }
}

/// Bytes that stand for the runners, which the simulation's jobs do not start.
pub fn runners() -> Runners {
    let Ok(runners) = Runners::read(|binary| Ok::<_, Infallible>(Arc::from(binary.name().as_bytes())));
    runners
}

/// [`runners`] as files in a directory, for command lines; the path of the first. Written once a process: another test may be
/// reading them.
///
/// # Panics
/// When the directory cannot be written to.
pub fn runner_files(dir: &str) -> &'static Path {
    static FIRST: OnceLock<PathBuf> = OnceLock::new();
    FIRST.get_or_init(|| {
        let dir = Path::new(dir).join(std::process::id().to_string());
        std::fs::create_dir_all(&dir).expect("the directory of the test can be written to");
        for binary in Binary::ALL {
            std::fs::write(dir.join(binary.name()), binary.name())
                .expect("the directory of the test can be written to");
        }
        dir.join(Binary::Databases.name())
    })
}

/// The specs of the users' services, without what only the engine changes.
fn specs(shop: &Shop) -> BTreeMap<String, Value> {
    let own = |name: &String| !name.starts_with("skep-");
    let names = shop.sim.services().into_iter().filter(own);
    names
        .map(|name| {
            let spec = shop.sim.service(&name).expect("it was listed")["Spec"].clone();
            (name, spec)
        })
        .collect()
}
