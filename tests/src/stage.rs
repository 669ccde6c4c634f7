//! The stage of the end-to-end suites: the demo shop on the sandbox's Swarm, users at its door, and operators as
//! processes that can be killed.
//!
//! One stage stands at a time in a process: all share one engine, and its one lease. What an earlier stage left there is
//! swept when the next begins, so a suite that failed spoils nothing.

mod door;
mod operator;
mod people;
mod post;
mod shop;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use skep::swarm::engine::Engine;
use skep::swarm::object::TaskState;
use skep::swarm::transport::Endpoint;
use tokio::sync::{Mutex, MutexGuard};

pub use door::{Door, Write, in_the_middle_of};
pub use operator::{Operator, Posted, TOKEN};
pub use people::Users;
pub use post::{PostOffice, Received};
pub use shop::{Shop, Specs};

use witness::Witness;

use crate::sandbox::{Sandbox, Stack, eventually, repository, unique, unique_port};

/// Longest time for a stack to come up, a backup, a restore.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The lease of the operators: short, so that another takes over soon.
pub const LEASE: &str = "4s";

/// How the shop is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `skep.maintenance.mode` of the application.
    pub mode: &'static str,
    /// `skep.restore.strategy`.
    pub strategy: &'static str,
    /// `skep.restore.quiesce`.
    pub quiesce: bool,
    /// Image of the database.
    pub postgres: &'static str,
    /// Where the database finds its password in the environment, instead of in a secret.
    pub password: Option<&'static str>,
    /// Orders at the beginning.
    pub orders: u32,
}

/// The shop, its operators' settings, and the engine.
pub struct Stage {
    /// The sandbox.
    pub sandbox: &'static Sandbox,
    /// Its engine, as Skep sees it.
    pub engine: Engine,
    /// Where users come in.
    pub port: u16,
    setting: Setting,
    // Before the stack: what is dropped first sees it stand.
    _witness: Witness,
    stack: Stack<'static>,
    file: std::path::PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            mode: "swap",
            strategy: "beside",
            quiesce: true,
            postgres: "skep-test/postgres:15",
            password: None,
            orders: 1000,
        }
    }
}

// === impl Stage ===

impl Stage {
    /// Deploys the shop and waits until it serves.
    pub async fn set(setting: Setting) -> Stage {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let sandbox = Sandbox::shared().await;
        let engine = Engine::connect(Endpoint::Unix(sandbox.socket().to_owned())).await;
        let engine = engine.expect("the sandbox's engine answers");
        sweep(sandbox).await;
        sandbox.secret("shop-db-password", "correct-horse").await;
        let (port, name) = (unique_port(), unique("shop"));
        let file = manifest(&setting, &name);
        let variables = variables(&setting, port);
        let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let stack = sandbox.deploy(&file, &name, &variables).await;
        let _witness = Witness::of(sandbox.environment(), &name);
        let stage = Stage { sandbox, engine, port, setting, _witness, stack, file, _alone: alone };
        stage.open().await;
        stage
    }

    /// Waits until the application runs as often as its spec says, and the shop serves.
    pub async fn settled(&self) {
        let app = self.service("app");
        eventually("the application to settle", PATIENCE, async || {
            let service = self.engine.service(&app).await.map_err(|e| e.to_string())?;
            let tasks = self.engine.tasks(&[&service.id]).await.map_err(|e| e.to_string())?;
            let running = tasks.iter().filter(|t| !t.state.is_terminal()).count();
            let wanted = service.replicas().unwrap_or(0);
            if u64::try_from(running) == Ok(wanted) && !service.is_rolling() {
                Ok(())
            } else {
                Err(format!("{running} of {wanted} run"))
            }
        })
        .await;
        self.shop().serves().await;
    }

    async fn open(&self) {
        eventually("the shop to serve", PATIENCE, async || {
            let answer = self.sandbox.http_get(self.port, "/orders/last").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.body)) }
        })
        .await;
        let app = self.service("app");
        eventually("both tasks of the application", PATIENCE, async || {
            let service = self.engine.service(&app).await.map_err(|e| e.to_string())?;
            let tasks = self.engine.tasks(&[&service.id]).await.map_err(|e| e.to_string())?;
            let running = tasks.iter().filter(|t| t.state == TaskState::Running).count();
            if running == 2 { Ok(()) } else { Err(format!("{running} run")) }
        })
        .await;
    }

    /// Name of the stack.
    pub fn name(&self) -> &str {
        self.stack.name()
    }

    /// Full name of one of the shop's services.
    pub fn service(&self, short: &str) -> String {
        self.stack.service(short)
    }

    /// Name of the volume with the backups.
    pub fn store(&self) -> String {
        format!("{}-backups", self.stack.name())
    }

    /// A directory of the backups as this host sees it; for spoiling them.
    pub fn stored(&self, directory: &str) -> std::path::PathBuf {
        let sandbox = self.sandbox.environment()["SKEP_SANDBOX_DIR"].as_str();
        let volume = format!("{sandbox}/engine/data/volumes/{}/_data", self.store());
        std::path::Path::new(&volume).join(directory)
    }

    /// The shop, looked at and broken from behind.
    pub fn shop(&self) -> Shop<'_> {
        Shop::new(self)
    }

    /// Another way of working, as far as labels tell it: deployed over what stands, which restarts nothing.
    ///
    /// # Panics
    /// When it asks for more than labels.
    pub async fn turn(&mut self, setting: Setting) {
        let same = Setting {
            mode: self.setting.mode,
            strategy: self.setting.strategy,
            quiesce: self.setting.quiesce,
            ..setting.clone()
        };
        assert_eq!(same, self.setting, "that takes another stage");
        self.setting = setting;
        self.redeploy(|text| text).await;
    }

    /// Deploys the stack file again, changed.
    pub async fn redeploy(&self, change: impl Fn(String) -> String) {
        let text = std::fs::read_to_string(&self.file).expect("it was written");
        let file = self.file.with_extension("changed.yml");
        std::fs::write(&file, change(text)).expect("its directory can be written");
        let variables = variables(&self.setting, self.port);
        let variables: Vec<_> = variables.iter().map(|(k, v)| (*k, v.as_str())).collect();
        // The stack stands under its name already: this handle must not take it down.
        std::mem::forget(self.sandbox.deploy(&file, self.stack.name(), &variables).await);
    }

    /// Takes everything down.
    pub async fn strike(self) {
        let (sandbox, store) = (self.sandbox, self.store());
        for file in [self.file.clone(), self.file.with_extension("changed.yml")] {
            let _ = std::fs::remove_file(file);
        }
        self.stack.remove().await;
        sweep(sandbox).await;
        sandbox.remove_volume(&store).await;
    }

    /// The runner that jobs run, compiled already by `make runner`.
    pub fn runner() -> std::path::PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository("target"), Into::into);
        let path = target.join("x86_64-unknown-linux-musl/runner/skep-runner");
        assert!(path.exists(), "there is no {}: run `make runner`", path.display());
        path
    }

    /// The runner's bytes.
    pub fn runner_bytes() -> Arc<[u8]> {
        std::fs::read(Stage::runner()).expect("it exists").into()
    }
}

/// The demo's stack file, with the password where the setting wants it.
fn manifest(setting: &Setting, name: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(repository("manifests/shop.yml")).expect("it is in the repository");
    let text = match setting.password {
        None => text,
        // The database's own entry only: the application keeps its secret.
        Some(password) => text.replace(
            "POSTGRES_PASSWORD_FILE: /run/secrets/db-password\n    secrets: [db-password]",
            &format!("POSTGRES_PASSWORD: {password}"),
        ),
    };
    // What Skep must wait for when somebody deploys in the middle: the old tasks' grace, and the engine's watch over the new.
    let text = text
        .replace("    environment: &app\n", "    stop_grace_period: 3s\n    environment: &app\n")
        .replace("    command: worker\n", "    command: worker\n    stop_grace_period: 3s\n")
        .replace("        order: start-first\n", "        order: start-first\n        monitor: 1s\n")
        // All backups of a suite are of one day.
        .replace("skep.backup.keep: 7 daily, 4 weekly\n", "skep.backup.keep: 20 last\n");
    let text =
        text.replace("file: proxy.conf", &format!("file: {}", repository("manifests/proxy.conf").display()));
    let file = std::env::temp_dir().join(format!("{name}.yml"));
    std::fs::write(&file, text).expect("the temporary directory can be written");
    file
}

fn variables(setting: &Setting, port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("SHOP_PORT", port.to_string()),
        ("SHOP_MAINTENANCE_MODE", setting.mode.to_owned()),
        ("SHOP_RESTORE_STRATEGY", setting.strategy.to_owned()),
        ("SHOP_RESTORE_QUIESCE", setting.quiesce.to_string()),
        ("POSTGRES_IMAGE", setting.postgres.to_owned()),
        ("SHOP_SEED_ORDERS", setting.orders.to_string()),
    ]
}

/// Removes what Skep keeps in the Swarm, and services that it made: no operator runs now.
async fn sweep(sandbox: &Sandbox) {
    for (what, label) in
        [("service", "skep.op"), ("config", "skep.kind"), ("secret", "skep.op"), ("secret", "skep.kind")]
    {
        let filter = format!("label={label}");
        let left = sandbox.docker(&[what, "ls", "-q", "--filter", &filter]).await;
        for id in left.lines() {
            sandbox.try_docker(&[what, "rm", id]).await;
        }
    }
}
