//! The shop seen from behind: its rows, its specs, and ways to break it. Tests may look into containers; Skep does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::Stage;
use crate::sandbox::eventually;

/// Specs by the short names of services.
pub type Specs = BTreeMap<&'static str, Value>;

/// Its services.
const SERVICES: [&str; 5] = ["proxy", "app", "worker", "db", "cache"];

/// The shop, from behind.
pub struct Shop<'a> {
    stage: &'a Stage,
}

// === impl Shop ===

impl<'a> Shop<'a> {
    pub(super) fn new(stage: &'a Stage) -> Shop<'a> {
        Shop { stage }
    }

    /// What a statement answers in a database, a row a line.
    pub async fn sql(&self, database: &str, statement: &str) -> String {
        let service = self.stage.service("db");
        let command = [
            "psql",
            "-X",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "shop",
            "-d",
            database,
            "-c",
            statement,
        ];
        self.stage.sandbox.exec_in_service(&service, &command).await
    }

    /// The ids of all orders.
    pub async fn orders(&self) -> BTreeSet<u64> {
        let rows = self.sql("shop", "SELECT id FROM orders").await;
        rows.lines().map(|id| id.parse().expect("ids are numbers")).collect()
    }

    /// The accident.
    pub async fn drop_orders(&self) {
        self.sql("shop", "DROP TABLE orders CASCADE").await;
    }

    /// The databases, without PostgreSQL's own.
    pub async fn databases(&self) -> BTreeSet<String> {
        let statement = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'";
        self.sql("postgres", statement).await.lines().map(str::to_owned).collect()
    }

    /// How many keys the cache holds.
    pub async fn cached(&self) -> String {
        self.stage.sandbox.exec_in_service(&self.stage.service("cache"), &["redis-cli", "dbsize"]).await
    }

    /// Puts a key into the cache that the application would not put there.
    pub async fn mark_cache(&self) {
        let command = ["redis-cli", "set", "from-the-future", "1"];
        self.stage.sandbox.exec_in_service(&self.stage.service("cache"), &command).await;
    }

    /// Whether that key is there.
    pub async fn cache_is_marked(&self) -> bool {
        let command = ["redis-cli", "exists", "from-the-future"];
        let said = self.stage.sandbox.exec_in_service(&self.stage.service("cache"), &command).await;
        said.trim_start_matches("(integer) ") == "1"
    }

    /// The specs of its services exactly as the engine has them.
    pub async fn specs(&self) -> Specs {
        let mut specs = Specs::new();
        for short in SERVICES {
            let service = self.stage.engine.service(&self.stage.service(short)).await;
            specs.insert(short, service.expect("the shop's services stay").spec);
        }
        specs
    }

    /// Waits until the application answers well through its door.
    pub async fn serves(&self) {
        eventually("the shop to serve again", Duration::from_secs(60), async || {
            let answer = self.stage.sandbox.http_get(self.stage.port, "/orders/last").await?;
            let own = answer.headers.contains_key("x-shop");
            if answer.status == 200 && own {
                Ok(())
            } else {
                Err(format!("{} {}", answer.status, answer.body))
            }
        })
        .await;
    }

    /// Waits until nothing that an operation made is left: jobs, tickets, canaries, temporary secrets, side databases.
    pub async fn is_tidy(&self) {
        let docker = async |what: &str, filter: &str| {
            self.stage.sandbox.docker(&[what, "ls", "--format", "{{.Name}}", "--filter", filter]).await
        };
        eventually("everything of the operation to be gone", Duration::from_secs(60), async || {
            let mut left = String::new();
            for label in ["label=skep.op", "label=skep.kind=ticket"] {
                left += &docker("service", label).await;
            }
            for label in ["label=skep.kind=ticket", "label=skep.kind=claim"] {
                left += &docker("config", label).await;
            }
            left += &docker("secret", "label=skep.op").await;
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}
