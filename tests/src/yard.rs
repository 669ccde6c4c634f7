//! A stack of data services on the sandbox's Swarm, whose operations this process drives itself: so a driver dies where a
//! test says, by being dropped, and another one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep::operation::catalogue::Backup;
use skep::operation::desk;
use skep::operation::drive::{self, Again};
use skep::operation::record::{Intent, OpId, Operation, SCHEMA, Trigger, Work};
use skep::operation::saga::{Env, Runners};
use skep::operation::settings::Settings;
use skep::runtime::clock;
use skep::swarm::engine::Engine;
use skep::swarm::object::Kind;
use skep::swarm::transport::Endpoint;

use crate::sandbox::{Sandbox, Stack, eventually, unique};
use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(60);

/// The stack.
pub struct Yard {
    /// The sandbox.
    pub sandbox: &'static Sandbox,
    /// Its engine, as Skep sees it.
    pub engine: Engine,
    /// The stack.
    pub stack: Stack<'static>,
    /// What operations run under.
    pub settings: Settings,
}

/// Restore the newest backup, as the labels say.
pub const RESTORE: Work = Work::Restore {
    to: None,
    backup: None,
    before: None,
    in_place: None,
    quiesce: None,
    create_roles: false,
};

// === impl Yard ===

impl Yard {
    /// Deploys a stack file.
    ///
    /// # Panics
    /// When the sandbox does not take it.
    pub async fn deploy(prefix: &str, stack_file: &str, settings: Settings) -> Yard {
        let sandbox = Sandbox::shared().await;
        let socket = sandbox.socket().to_owned();
        let engine = Engine::connect(Endpoint::Unix(socket)).await.expect("the sandbox answers");
        let name = unique(prefix);
        let file = std::env::temp_dir().join(format!("{name}.yml"));
        std::fs::write(&file, stack_file).expect("temporary files can be written");
        let stack = sandbox.deploy(&file, &name, &[]).await;
        std::fs::remove_file(file).expect("it was written");
        Yard { sandbox, engine, stack, settings }
    }

    /// A script in the container of a service: what it printed, or what it complained of.
    ///
    /// # Errors
    /// When the script fails.
    pub async fn try_sh(&self, service: &str, script: &str) -> Result<String, String> {
        let container = self.sandbox.container(&self.stack.service(service)).await;
        let done = self.sandbox.try_docker(&["exec", &container, "bash", "-c", script]).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }

    /// What a script prints, once it succeeds and prints something: services take their time to come up.
    pub async fn sh(&self, service: &str, script: &str) -> String {
        eventually(&format!("`{script}` in {service}"), PATIENCE, async || {
            let printed = self.try_sh(service, script).await?;
            if printed.trim().is_empty() { Err("it printed nothing".to_owned()) } else { Ok(printed) }
        })
        .await
    }

    /// What drivers of operations work with.
    ///
    /// # Panics
    /// When the runners were not built.
    pub fn env(&self, settings: Settings) -> Env {
        Env {
            engine: self.engine.clone(),
            settings: Arc::new(settings),
            runners: Runners::read(|binary| {
                std::fs::read(Stage::runner().with_file_name(binary.name())).map(Into::into)
            })
            .expect("`make runner` builds the runners"),
            clock: Arc::new(clock::now),
            reports: Arc::new(skep::cli::written),
        }
    }

    /// Asks for an operation, which nobody drives yet.
    ///
    /// # Panics
    /// When there is no such service, or the engine refuses it.
    pub async fn ask(&self, service: &str, work: Work) -> OpId {
        let service = self.engine.service(&self.stack.service(service)).await.expect("it was deployed");
        let now = clock::now();
        let id = OpId::new(now, &format!("{now} {}", service.name()));
        let intent = Intent {
            schema: SCHEMA,
            service: service.name().to_owned(),
            service_id: service.id.clone(),
            work,
            trigger: Trigger::Person { name: "suite".to_owned() },
            created: now,
            approval: false,
            accept_problems: false,
        };
        desk::create(&self.engine, &id, intent).await.expect("the engine takes it");
        id
    }

    /// Drives until the operation is at rest, or this is true of it; then the driver dies.
    ///
    /// # Panics
    /// When the operation is not there.
    pub async fn drive(&self, id: &OpId, instance: &str, until: impl Fn(&Operation) -> bool) -> Operation {
        let settings = Settings { instance: instance.to_owned(), ..self.settings.clone() };
        self.drive_under(settings, id, until).await
    }

    async fn drive_under(
        &self,
        settings: Settings,
        id: &OpId,
        until: impl Fn(&Operation) -> bool,
    ) -> Operation {
        let env = self.env(settings);
        loop {
            let op = desk::find(&self.engine, id).await.expect("it was asked for");
            if op.journal.state.is_terminal() || until(&op) {
                return op;
            }
            if let Ok(Again::After(pause)) = Box::pin(drive::poll_whole(&env, id)).await {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Asks for an operation and drives it to its end.
    pub async fn run(&self, service: &str, work: Work) -> Operation {
        let id = self.ask(service, work).await;
        self.drive(&id, "driver", |_| false).await
    }

    /// The same, with so much time for the application's checks to pass.
    pub async fn run_within(&self, checks: Duration, service: &str, work: Work) -> Operation {
        let settings = Settings { check_deadline: checks, ..self.settings.clone() };
        self.run_under(settings, service, work).await
    }

    /// The same, under other settings.
    pub async fn run_under(&self, settings: Settings, service: &str, work: Work) -> Operation {
        let id = self.ask(service, work).await;
        self.drive_under(settings, &id, |_| false).await
    }

    /// The same, although whoever drives it dies as soon as this is true of it.
    ///
    /// # Panics
    /// When it never is.
    pub async fn run_killed(
        &self,
        when: impl Fn(&Operation) -> bool,
        service: &str,
        work: Work,
    ) -> Operation {
        let id = self.ask(service, work).await;
        let op = self.drive(&id, "first", when).await;
        assert!(!op.journal.state.is_terminal(), "it ended before anybody died: {}", told(&op));
        self.drive(&id, "second", |_| false).await
    }

    /// The backups of a service, the oldest first.
    ///
    /// # Panics
    /// When the engine does not answer.
    pub async fn backups(&self, service: &str) -> Vec<Backup> {
        let service = self.stack.service(service);
        let configs = self.engine.configs(Kind::Backup, &[]).await.expect("the sandbox answers");
        let mut backups: Vec<Backup> =
            configs.iter().filter_map(Backup::read).filter(|b| b.entry.service == service).collect();
        backups.sort_by_key(|b| b.entry.taken);
        backups
    }

    /// Removes the stack, and all that Skep has written into the Swarm.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn strike(self) {
        for kind in [Kind::Operation, Kind::Backup, Kind::Point, Kind::PointPart] {
            for config in self.engine.configs(kind, &[]).await.expect("the sandbox answers") {
                self.engine.remove_config(&config.id).await.expect("nobody uses it");
            }
        }
        self.stack.remove().await;
    }
}

/// What an operation did, for messages of failed assertions.
pub fn told(op: &Operation) -> String {
    let steps: BTreeMap<_, _> =
        op.journal.steps.iter().map(|(n, r)| (n.to_string(), format!("{:?} {}", r.state, r.note))).collect();
    let remarks = &op.journal.remarks;
    format!("{} {:?}: {steps:#?}\nremarks: {remarks:#?}", op.intent.service, op.journal.state)
}
