//! A simulated Swarm of nothing but databases, and leaders who keep them: they ask for what is due and drive it.
//!
//! No user and no health check makes a simulated second busy here, so that weeks pass in seconds.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use skep::operation::catalogue::Backup;
use skep::operation::desk;
use skep::operation::drive::{self, Again};
use skep::operation::record::{Intent, OpId, Operation, SCHEMA, Trigger, Work};
use skep::operation::saga::Env;
use skep::operation::settings::Settings;
use skep::plan::scheduled::Rules;
use skep::swarm::engine::Engine;
use skep::swarm::error::Error;
use skep::swarm::object::Kind;
use skep::swarm::transport::Endpoint;
use skep::triggers::cron;
use skep::triggers::registry::{self, Memory};

use crate::raw::Raw;
use crate::saga::runners;
use crate::sim::build::{on_network, service_spec};
use crate::sim::postgres::{Content, Data};
use crate::sim::shop::{DATABASE, USER};
use crate::sim::{Plain, Sim, SimOptions};

/// The Swarm.
pub struct Farm {
    /// The engine.
    pub sim: Sim,
    /// What the databases hold, and the store.
    pub data: Data,
    raw: Raw,
}

/// Somebody who leads.
pub struct Leader {
    /// What operations work with.
    pub env: Env,
    /// What runs by itself.
    pub rules: Rules,
    /// How often it looks for what is due.
    pub looks_every: Duration,
    live: Vec<OpId>,
    looked: Option<Timestamp>,
    memory: Memory,
}

// === impl Farm ===

impl Farm {
    /// Starts databases with these labels besides those that every one has, at a time.
    ///
    /// # Panics
    /// When the simulated engine refuses one.
    pub async fn start(start: &str, databases: &[(&str, &[(&str, &str)])]) -> Farm {
        Farm::spread(1, start, databases).await
    }

    /// Like [`Farm::start`], on so many nodes.
    ///
    /// # Panics
    /// When the simulated engine refuses a database.
    pub async fn spread(nodes: usize, start: &str, databases: &[(&str, &[(&str, &str)])]) -> Farm {
        let start: Timestamp = start.parse().expect("the test gives a time");
        let sim = Sim::new(SimOptions { start, nodes, ..SimOptions::default() });
        let data = Data::default();
        sim.workload("postgres:17", Plain);
        sim.jobs(data.clone());
        let network = sim.network("farm_default");
        let raw = Raw::sim(sim.client("people"));
        let farm = Farm { sim, data, raw };
        for (name, labels) in databases {
            let content = Content::from([("users".to_owned(), 3)]);
            farm.data.add_server(name, DATABASE, USER, &content);
            let own = [("skep.enable", "true"), ("skep.data", "postgres"), ("skep.data.database", DATABASE)];
            let spec = service_spec(name, "postgres:17", &[&own, *labels].concat());
            let mut spec = on_network(spec, &network, &[name]);
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!([
                format!("POSTGRES_USER={USER}"),
                format!("POSTGRES_DB={DATABASE}"),
                "POSTGRES_HOST_AUTH_METHOD=trust"
            ]);
            let reply = farm.raw.call("POST", "/services/create", Some(&spec)).await;
            let reply = reply.expect("the simulated engine answers");
            assert_eq!(reply.status, 201, "{}", reply.message());
        }
        farm.sim
            .until(Duration::from_secs(60), "the databases run", |sim| {
                databases.iter().all(|(name, _)| sim.containers(name).len() == 1)
            })
            .await;
        farm
    }

    /// A service that keeps nothing, with these labels besides that which every one has.
    ///
    /// # Panics
    /// When the simulated engine refuses it.
    pub async fn serve(&self, name: &str, image: &str, labels: &[(&str, &str)]) {
        let stack = name.split('_').next().unwrap_or(name);
        let own = [("skep.enable", "true"), ("com.docker.stack.namespace", stack)];
        let spec = service_spec(name, image, &[&own, labels].concat());
        let reply = self.raw.call("POST", "/services/create", Some(&spec)).await;
        let reply = reply.expect("the simulated engine answers");
        assert_eq!(reply.status, 201, "{}", reply.message());
        let minute = Duration::from_secs(60);
        self.sim.until(minute, "the service runs", |sim| sim.containers(name).len() == 1).await;
    }

    /// A connection to the engine under a name.
    pub async fn connect(&self, name: &str) -> Engine {
        let connector = self.sim.client(name);
        let endpoint = Endpoint::in_process(move || connector());
        Engine::connect(endpoint).await.expect("the simulated engine answers")
    }

    /// Somebody who may lead, known to the simulation by this name.
    pub async fn leader(&self, name: &str) -> Leader {
        let sim = self.sim.clone();
        let settings = Settings { instance: name.to_owned(), ..Settings::default() };
        let env = Env {
            engine: self.connect(name).await,
            settings: Arc::new(settings),
            runners: runners(),
            clock: Arc::new(move || sim.now()),
            reports: Arc::new(skep::cli::written),
        };
        let rules = Rules { spread: Duration::ZERO, ..Rules::default() };
        Leader {
            env,
            rules,
            looks_every: Duration::from_secs(300),
            live: Vec::new(),
            looked: None,
            memory: Memory::default(),
        }
    }

    /// Sets a label of a service, as a deploy does.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub async fn relabel(&self, service: &str, key: &str, value: &str) {
        self.change(service, |spec| spec["Labels"][key] = json!(value)).await;
    }

    /// Changes a service, as a deploy does.
    ///
    /// # Panics
    /// When the engine refuses it.
    pub async fn change(&self, service: &str, change: impl FnOnce(&mut Value)) {
        let found = self.sim.service(service).expect("the service is there");
        let mut spec = found["Spec"].clone();
        change(&mut spec);
        let path = format!("/services/{service}/update?version={}", found["Version"]["Index"]);
        let reply = self.raw.call("POST", &path, Some(&spec)).await.expect("the engine answers");
        assert_eq!(reply.status, 200, "{}", reply.message());
    }

    /// Asks for an operation as a person does.
    ///
    /// # Panics
    /// When there is no such service, or the operation cannot be stored.
    pub async fn ask(&self, service: &str, work: Work) -> OpId {
        self.store(service, work, false).await
    }

    /// Asks for an operation that waits for a person's approval.
    ///
    /// # Panics
    /// When there is no such service, or the operation cannot be stored.
    pub async fn ask_approval(&self, service: &str, work: Work) -> OpId {
        self.store(service, work, true).await
    }

    async fn store(&self, service: &str, work: Work, approval: bool) -> OpId {
        let engine = self.connect("people").await;
        let service = engine.service(service).await.expect("the service is there");
        let now = self.sim.now();
        let id = OpId::new(now, &format!("{work:?} by hand"));
        let intent = Intent {
            schema: SCHEMA,
            service: service.name().to_owned(),
            service_id: service.id.clone(),
            work,
            trigger: Trigger::Person { name: "somebody".to_owned() },
            created: now,
            approval,
            accept_problems: false,
        };
        desk::create(&engine, &id, intent).await.expect("the operation can be stored");
        id
    }

    /// All operations, oldest first.
    pub async fn operations(&self) -> Vec<Operation> {
        desk::list(&self.connect("looker").await).await.expect("the engine answers")
    }

    /// The catalogue, oldest first.
    pub async fn backups(&self) -> Vec<Backup> {
        let configs = self.connect("looker").await.configs(Kind::Backup, &[]).await;
        let configs = configs.expect("the engine answers");
        let mut backups: Vec<Backup> = configs.iter().filter_map(Backup::read).collect();
        backups.sort_by_key(|b| b.entry.taken);
        backups
    }

    /// Lets time pass with nobody leading.
    pub async fn leaderless(&self, to: &str) {
        let left = until(&self.sim, to);
        tokio::time::sleep(left).await;
    }
}

// === impl Leader ===

impl Leader {
    /// Leads until a time, or until this process is dead.
    pub async fn lead(&mut self, to: &str) {
        self.lead_until(to.parse().expect("the test gives a time")).await;
    }

    /// Leads for a while, or until this process is dead.
    pub async fn lead_for(&mut self, time: Duration) {
        self.lead_until(self.env.now() + time).await;
    }

    async fn lead_until(&mut self, to: Timestamp) {
        let Ok(open) = desk::list(&self.env.engine).await else { return };
        self.live = open.into_iter().filter(|o| o.journal.state.is_live()).map(|o| o.id).collect();
        self.looked = None;
        while self.env.now() < to {
            match self.look().await {
                Ok(Some(pause)) => tokio::time::sleep(pause.max(Duration::from_millis(1))).await,
                Ok(None) => tokio::time::sleep(self.looks_every).await,
                Err(Error::Unreachable { .. }) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Asks for what is due, as often as a leader does, and drives what is live.
    async fn look(&mut self) -> Result<Option<Duration>, Error> {
        let now = self.env.now();
        if self.looked.is_none_or(|at| now.duration_since(at).unsigned_abs() >= self.looks_every) {
            let created = cron::ask(&self.env, &self.rules).await?;
            let updates = registry::look(&self.env, &mut self.memory).await?;
            self.live.extend(created.into_iter().chain(updates).map(|o| o.id));
            self.looked = Some(now);
        }
        let (mut next, mut live) = (None, Vec::new());
        for id in &self.live {
            let pause = match Box::pin(drive::poll(&self.env, id)).await {
                Ok(Again::Idle) => continue,
                Ok(Again::After(pause)) => pause,
                Err(error @ Error::Unreachable { .. }) => return Err(error),
                Err(_) => Duration::from_millis(200),
            };
            next = Some(next.map_or(pause, |n: Duration| n.min(pause)));
            live.push(id.clone());
        }
        self.live = live;
        Ok(next)
    }
}

fn until(sim: &Sim, to: &str) -> Duration {
    let to: Timestamp = to.parse().expect("the test gives a time");
    to.duration_since(sim.now()).max(SignedDuration::ZERO).unsigned_abs()
}
