//! The stack of the story on the simulated Swarm: `proxy` → `app` (two replicas) → `db` and `cache`.

use std::time::Duration;

use serde_json::{Value, json};

use super::build::{health, on_network, replicas, service_spec};
use super::postgres::{Application, Content, Data, Holder, PageServer};
use super::{Answer, Front, Plain, Sim, SimOptions};
use crate::raw::Raw;

/// Image of the maintenance page's server.
pub const PAGE_IMAGE: &str = "nginx";
/// Skep's own image.
pub const SKEP_IMAGE: &str = "skep:test";
/// The network on which Skep is reached.
pub const SKEP_NETWORK: &str = "skep-monitoring";
/// Image of a service that keeps files.
pub const FILES_IMAGE: &str = "mariadb:10";
/// Name of the database.
pub const DATABASE: &str = "shop";
/// Where `docker stack deploy` notes the image that the stack file names.
const STACK_IMAGE: &str = "com.docker.stack.image";
/// Its owner.
pub const USER: &str = "shop";

/// A running shop.
pub struct Shop {
    /// The Swarm.
    pub sim: Sim,
    /// What the services hold.
    pub data: Data,
    /// A client for what people do beside Skep: `docker stack deploy`, looking.
    pub raw: Raw,
    /// Id of the stack's network.
    pub network: String,
    /// What `shop_db` keeps instead of a PostgreSQL's database: the word of `skep.data`.
    pub files: Option<&'static str>,
    /// Whether `shop_app` keeps files of its own besides.
    pub app_files: bool,
}

/// Secrets of the administrator: credentials of an S3 store, and the identity that decrypts backups.
pub const SECRETS: [&str; 2] = ["skep-s3", "skep-age-identity"];

/// How a shop is set up.
#[derive(Clone, Debug)]
pub struct ShopOptions {
    /// The Swarm.
    pub sim: SimOptions,
    /// More labels of `shop_db`.
    pub db_labels: Vec<(String, String)>,
    /// More labels of `shop_app`.
    pub app_labels: Vec<(String, String)>,
    /// Whether the proxy shows its own page when the application is away (mode `proxy`).
    pub own_page: bool,
    /// What `shop_db` keeps instead of a PostgreSQL's database: the word of `skep.data`.
    pub files: Option<&'static str>,
    /// Whether `shop_app` keeps files of its own besides.
    pub app_files: bool,
}

// === impl ShopOptions ===

impl Default for ShopOptions {
    fn default() -> ShopOptions {
        let pair = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        let db = [
            ("skep.data", "postgres"),
            ("skep.data.database", DATABASE),
            ("skep.restore.on-alert", "ShopDataBroken"),
            ("skep.restore.mode", "auto"),
            ("skep.check.users.sql", "SELECT count(*) FROM users"),
            ("skep.check.users.expect", "ge 1"),
        ];
        let app = [
            ("skep.depends-on", "db,cache"),
            ("skep.maintenance", "true"),
            ("skep.maintenance.port", "8080"),
            ("skep.check.health.http", "http://:8080/health"),
        ];
        ShopOptions {
            sim: SimOptions::default(),
            db_labels: db.into_iter().map(pair).collect(),
            app_labels: app.into_iter().map(pair).collect(),
            own_page: false,
            files: None,
            app_files: false,
        }
    }
}

impl ShopOptions {
    /// A shop whose `shop_db` keeps files: `mariadb` (with a server on them) or `volume`, or what only a `command`
    /// dumps, or a `rabbitmq` or a `mongodb`.
    pub fn files(word: &'static str) -> ShopOptions {
        let mut options = ShopOptions { files: Some(word), ..ShopOptions::default() };
        let of_volume = ["skep.data", "skep.restore.on-alert"];
        options.db_labels.retain(|(key, _)| word == "mariadb" || of_volume.contains(&key.as_str()));
        for (_, value) in options.db_labels.iter_mut().filter(|(key, _)| key == "skep.data") {
            word.clone_into(value);
        }
        if word == "command" {
            let pair = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
            let commands =
                [("skep.data.dump.command", "store save"), ("skep.data.load.command", "store load")];
            options.db_labels.extend(commands.map(pair));
        }
        options
    }
}

impl ShopOptions {
    /// A shop whose application keeps files, in a volume of its own, besides what is in its database.
    pub fn app_with_files() -> ShopOptions {
        let mut options = ShopOptions { app_files: true, ..ShopOptions::default() };
        options.app_labels.push(("skep.data".to_owned(), "volume".to_owned()));
        options
    }
}

// === impl Shop ===

impl Shop {
    /// Starts the shop and waits until users get the application's answer.
    pub async fn start(options: ShopOptions) -> Shop {
        let sim = Sim::new(options.sim);
        let data = Data::default();
        let content: Content = [("orders", 10), ("products", 5), ("users", 3)]
            .into_iter()
            .map(|(table, rows)| (table.to_owned(), rows))
            .collect();
        match options.files {
            None => data.add_server("shop_db", DATABASE, USER, &content),
            Some(_) => data.add_files("shop_db", "shop_data", &content),
        }
        if options.app_files {
            data.add_files("shop_app", "shop_uploads", &Content::from([("uploads".to_owned(), 4)]));
        }
        data.add_cache("shop_cache", &["product:1"]);
        sim.workload("shop-app:1", application(&data));
        sim.workload("postgres:17", Plain);
        sim.workload(FILES_IMAGE, Holder(data.clone()));
        sim.workload(PAGE_IMAGE, PageServer);
        // A waker, whose page is all that the users of this model can tell from the application.
        sim.workload(SKEP_IMAGE, PageServer);
        sim.network(SKEP_NETWORK);
        sim.jobs(data.clone());
        let (proxy, upstream) = ("shop_proxy".to_owned(), "app".to_owned());
        sim.front(Front { proxy, upstream, own_page: options.own_page });
        let network = sim.network("shop_default");
        let raw = Raw::sim(sim.client("people"));
        let shop = Shop { sim, data, raw, network, files: options.files, app_files: options.app_files };
        for spec in shop.specs(&options.db_labels, &options.app_labels) {
            let reply = shop.raw.call("POST", "/services/create", Some(&spec)).await;
            let reply = reply.expect("the simulated engine answers");
            assert_eq!(reply.status, 201, "{}", reply.message());
        }
        for name in SECRETS {
            let reply =
                shop.raw.call("POST", "/secrets/create", Some(&json!({"Name": name, "Data": "eA=="}))).await;
            assert_eq!(reply.expect("the simulated engine answers").status, 201, "secret {name}");
        }
        let minute = Duration::from_secs(60);
        shop.sim.until(minute, "the shop answers", |_| shop.sees_only_app()).await;
        shop
    }

    /// The program of `shop_app`.
    pub fn application(&self) -> Application {
        application(&self.data)
    }

    /// Whether users get the application's own answer and no other now.
    pub fn sees_only_app(&self) -> bool {
        let timeline = self.sim.timeline();
        timeline.last().is_some_and(|(_, seen)| seen.iter().all(|a| matches!(a, Answer::App(_))))
    }

    /// Answers that users could get since `from` and should not have: neither the application's own nor the page.
    pub fn wrong_answers(&self, from: Duration) -> Vec<(Duration, Answer)> {
        let timeline = self.sim.timeline();
        let begin = timeline.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        let seen = timeline[begin..].iter().flat_map(|(at, seen)| seen.iter().map(move |a| (*at, a.clone())));
        seen.filter(|(_, answer)| !matches!(answer, Answer::App(_) | Answer::Error(_) | Answer::Page))
            .collect()
    }

    /// What `docker stack deploy` does to one service: the stack file's spec, changed, over whatever is there.
    ///
    /// # Panics
    /// When the service is not there, or changes all the time.
    pub async fn deploy(&self, service: &str, change: impl Fn(&mut Value)) {
        let specs = self.specs(&[], &[]);
        let mut spec = specs.into_iter().find(|s| s["Name"] == service).expect("the stack has that service");
        change(&mut spec);
        spec["Labels"][STACK_IMAGE] = spec["TaskTemplate"]["ContainerSpec"]["Image"].clone();
        for _ in 0..10 {
            let found = self.raw.call("GET", &format!("/services/{service}"), None).await;
            let found = found.expect("the simulated engine answers").json();
            let (found_spec, named) = (&found["Spec"], &spec["Labels"][STACK_IMAGE]);
            // As with `--resolve-image changed` (or `never`): where the file names the same image, the one found stays.
            if *named == found_spec["Labels"][STACK_IMAGE] {
                spec["TaskTemplate"]["ContainerSpec"]["Image"] =
                    found_spec["TaskTemplate"]["ContainerSpec"]["Image"].clone();
            }
            spec["TaskTemplate"]["ForceUpdate"] = found_spec["TaskTemplate"]["ForceUpdate"].clone();
            let path = format!("/services/{service}/update?version={}", found["Version"]["Index"]);
            let reply = self.raw.call("POST", &path, Some(&spec)).await;
            if reply.expect("the simulated engine answers").status == 200 {
                return;
            }
        }
        panic!("{service} changes all the time");
    }

    /// The specs as `docker stack deploy` would post them.
    pub fn specs(&self, db_labels: &[(String, String)], app_labels: &[(String, String)]) -> Vec<Value> {
        let second = Duration::from_millis(500);
        let image = if self.files.is_some() { FILES_IMAGE } else { "postgres:17" };
        let mut db = health(self.spec("db", image, db_labels), second, 3);
        db["TaskTemplate"]["ContainerSpec"]["Env"] = json!([
            format!("POSTGRES_USER={USER}"),
            format!("POSTGRES_DB={DATABASE}"),
            "POSTGRES_HOST_AUTH_METHOD=trust"
        ]);
        let target = match self.files {
            Some("rabbitmq") => {
                db["TaskTemplate"]["ContainerSpec"]["Hostname"] = json!("db");
                "/var/lib/rabbitmq"
            }
            Some("mongodb") => "/data/db",
            Some(_) => "/var/lib/mysql",
            None => "/var/lib/postgresql/data",
        };
        db["TaskTemplate"]["ContainerSpec"]["Mounts"] = json!([
            { "Type": "volume", "Source": "shop_data", "Target": target }
        ]);
        let mut app = self.spec("app", "shop-app:1", app_labels);
        if self.app_files {
            app["TaskTemplate"]["ContainerSpec"]["Mounts"] =
                json!([{ "Type": "volume", "Source": "shop_uploads", "Target": "/var/uploads" }]);
        }
        let mut app = replicas(health(app, second, 3), 2);
        app["UpdateConfig"] = json!({ "Parallelism": 1, "Order": "start-first" });
        vec![db, self.spec("cache", "redis:7", &[]), app, self.spec("proxy", "shop-proxy:1", &[])]
    }

    fn spec(&self, name: &str, image: &str, labels: &[(String, String)]) -> Value {
        let mut all =
            vec![("com.docker.stack.namespace", "shop"), (STACK_IMAGE, image), ("skep.enable", "true")];
        all.extend(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())));
        on_network(service_spec(&format!("shop_{name}"), image, &all), &self.network, &[name])
    }
}

fn application(data: &Data) -> Application {
    Application {
        data: data.clone(),
        host: "db".to_owned(),
        database: DATABASE.to_owned(),
        user: USER.to_owned(),
    }
}
