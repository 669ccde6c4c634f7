//! Golden plans: each file of `plan/` holds a world and a question above a line, and below it what `skep plan` says.
//! `UPDATE=1 cargo test -p skep --test plan` rewrites the lower parts. A world may be a stack of `manifests/examples/`.

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use skep::operation::catalogue::{Backup, Entry, Finding, Origin, Purpose};
use skep::operation::frozen::{Kept, KeptForm};
use skep::operation::points::{self, Head, Member, Part, Point};
use skep::operation::receiver::Standing;
use skep::operation::record::{Intent, Journal, OpId, Operation, SCHEMA, State, Trigger, Work};
use skep::operation::rollback::Now;
use skep::operation::sleeper::Sleeper;
use skep::plan::{World, explain};
use skep::swarm::object::{Service, Task, TaskState, UpdateState, UpdateStatus};
use skep::swarm::spec::{image, set_image};
use skep_runner::task::PgBase;

/// Stands between the question and the answer.
const LINE: &str = "\n------------------------------------------------------------\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    ask: Work,
    service: String,
    now: Timestamp,
    #[serde(default)]
    accept_problems: bool,
    #[serde(default)]
    services: BTreeMap<String, Spec>,
    /// A stack of the examples that is deployed.
    #[serde(default)]
    stack: Option<Example>,
    #[serde(default)]
    backups: Vec<Stored>,
    #[serde(default)]
    operations: Vec<Op>,
    #[serde(default)]
    pages: Vec<String>,
    /// What sleeps, with the replicas that it goes back to.
    #[serde(default)]
    sleepers: BTreeMap<String, Option<u64>>,
    /// How many replicas of them go on.
    #[serde(default)]
    left: u64,
    /// How far the receiver of the service is.
    #[serde(default)]
    received: Option<Timestamp>,
    /// Specs of a restore point, whose id is `20260301t020000abcdef`; those of the example's file where none are given.
    #[serde(default)]
    then: BTreeMap<String, Spec>,
    /// Other points of the stack `shop`, with data of these ids.
    #[serde(default)]
    points: Vec<Taken>,
    /// Engines of services of the point whose data it holds.
    #[serde(default)]
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    /// As it is deployed.
    name: String,
    file: String,
    /// Images that services have instead of those in the file, by short names.
    #[serde(default)]
    images: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    id: String,
    taken: Timestamp,
    #[serde(default)]
    safety: bool,
    #[serde(default)]
    backup: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Spec {
    image: String,
    labels: BTreeMap<String, String>,
    env: Vec<String>,
    /// `source:target`.
    volumes: Vec<String>,
    replicas: u64,
    running: usize,
    health: bool,
    host_port: bool,
    /// On a network, and without ports.
    by_name: bool,
    rolling: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    /// Of the service that is asked about, where none is named.
    #[serde(default)]
    service: Option<String>,
    taken: Timestamp,
    #[serde(default)]
    unverified: bool,
    #[serde(default)]
    safety: bool,
    #[serde(default)]
    proved: Option<Timestamp>,
    #[serde(default)]
    seconds: Option<f64>,
    #[serde(default)]
    drill_failed: Option<Timestamp>,
    #[serde(default)]
    spoilt: Option<String>,
    /// When its base backup had ended.
    #[serde(default)]
    base: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Op {
    work: Work,
    service: String,
    state: State,
    created: Timestamp,
    #[serde(default)]
    claimed: Vec<String>,
    #[serde(default)]
    kept_until: Option<Timestamp>,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            image: "app:1".to_owned(),
            labels: BTreeMap::new(),
            env: Vec::new(),
            volumes: Vec::new(),
            replicas: 1,
            running: 1,
            health: false,
            host_port: false,
            by_name: false,
            rolling: false,
        }
    }
}

impl Spec {
    fn service(&self, name: &str) -> Service {
        let mut labels = self.labels.clone();
        let stack = name.split('_').next().unwrap_or_default().to_owned();
        labels.insert("com.docker.stack.namespace".to_owned(), stack);
        let mut container = json!({ "Image": self.image, "Env": self.env });
        let mounts = self.volumes.iter().filter_map(|v| v.split_once(':'));
        let mounts = mounts.map(|(s, t)| json!({ "Type": "volume", "Source": s, "Target": t }));
        container["Mounts"] = mounts.collect();
        if self.health {
            container["Healthcheck"] = json!({ "Test": ["CMD", "true"] });
        }
        let mode = if self.host_port { "host" } else { "ingress" };
        let mut spec = json!({
            "Name": name,
            "Labels": labels,
            "TaskTemplate": { "ContainerSpec": container },
            "Mode": { "Replicated": { "Replicas": self.replicas } },
            "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishMode": mode }] },
        });
        if self.by_name {
            spec["TaskTemplate"]["Networks"] = json!([{ "Target": "net" }]);
            spec["EndpointSpec"] = json!({ "Mode": "vip" });
        }
        Service {
            id: format!("{name}-id"),
            version: 1,
            spec,
            update: self
                .rolling
                .then(|| UpdateStatus { state: UpdateState::Updating, message: String::new() }),
            created: Timestamp::UNIX_EPOCH,
        }
    }

    fn tasks<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Task> + 'a {
        (0..self.running).map(move |slot| task(name, slot, &self.image))
    }
}

fn task(service: &str, slot: usize, image: &str) -> Task {
    Task {
        id: format!("{service}-{slot}"),
        service: format!("{service}-id"),
        node: Some("n1".to_owned()),
        slot: slot as u64 + 1,
        state: TaskState::Running,
        desired: TaskState::Running,
        error: String::new(),
        exit_code: None,
        image: image.to_owned(),
        spec_version: None,
        spec: Value::Null,
        addresses: Vec::new(),
        created: Timestamp::UNIX_EPOCH,
        changed: Timestamp::UNIX_EPOCH,
    }
}

impl Example {
    /// As the file has it.
    fn written(&self) -> Vec<Service> {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples").join(&self.file);
        stack::services(&file, &self.name)
    }

    fn deployed(&self) -> Vec<Service> {
        let mut services = self.written();
        for (short, image) in &self.images {
            let name = format!("{}_{short}", self.name);
            let service = services.iter_mut().find(|s| s.name() == name).expect("the stack has it");
            set_image(&mut service.spec, image);
        }
        services
    }
}

impl Stored {
    fn backup(&self, service: &str) -> Backup {
        let service = self.service.as_deref().unwrap_or(service);
        Backup {
            config: self.id.clone(),
            version: 1,
            verified: (!self.unverified).then_some(self.taken),
            proved: self.proved,
            loaded: None,
            restore_seconds: self.seconds,
            drill_failed: self
                .drill_failed
                .map(|at| Finding { at, why: "check `users`: 0, want ge 1".to_owned() }),
            removing: None,
            spoilt: self.spoilt.as_ref().map(|why| Finding { at: self.taken, why: why.clone() }),
            copies: Vec::new(),
            entry: Entry {
                schema: Entry::version(None),
                id: self.id.clone(),
                operation: OpId::new(self.taken, &self.id),
                service: service.to_owned(),
                service_id: format!("{service}-id"),
                engine: "postgres".to_owned(),
                database: "shop".to_owned(),
                store: "default".to_owned(),
                dir: format!("v1/shop/{service}/{}", self.id),
                manifest_sha256: String::new(),
                size: 12_582_912,
                taken: self.taken,
                purpose: if self.safety { Purpose::Safety } else { Purpose::Regular },
                node: None,
                origin: Origin::Made,
                inner: None,
                base: self.base.map(|ended| PgBase {
                    dir: format!("v1/shop/{service}/wal"),
                    system: "7".to_owned(),
                    segment_size: 16 << 20,
                    start: "0/1".to_owned(),
                    end: "0/2".to_owned(),
                    ended: ended.to_string(),
                    size: 52_428_800,
                }),
            },
        }
    }
}

impl Op {
    fn operation(&self) -> Operation {
        let id = OpId::new(self.created, &self.service);
        let mut journal = Journal::new(self.state);
        if !self.claimed.is_empty() {
            journal.step_mut("claim", self.created).out = json!({ "services": self.claimed });
        }
        if let Some(until) = self.kept_until {
            let kept = Kept {
                operation: id.clone(),
                form: KeptForm::Database,
                name: format!("skep_{id}_old"),
                oid: 17_000,
                until,
            };
            journal.step_mut("keep", self.created).out = json!(kept);
        }
        let intent = Intent {
            schema: SCHEMA,
            service: self.service.clone(),
            service_id: format!("{}-id", self.service),
            work: self.work.clone(),
            trigger: Trigger::Person { name: "ann".to_owned() },
            created: self.created,
            approval: false,
            accept_problems: false,
        };
        Operation { config: id.config_name(), id, version: 1, intent, journal }
    }
}

impl Taken {
    fn point(&self) -> Point {
        let id = OpId::parse(&self.id).expect("an id");
        let data = |backup: &String| points::Data { engine: "postgres".to_owned(), backup: backup.clone() };
        let member = Member {
            name: "shop_db".to_owned(),
            id: "shop_db-id".to_owned(),
            spec: Part::of(&id, b"shop_db"),
            image: "postgres:17".to_owned(),
            nodes: Vec::new(),
            data: self.backup.as_ref().map(data),
        };
        let head = Head {
            schema: Head::VERSION,
            taken: self.taken,
            id,
            stack: "shop".to_owned(),
            purpose: if self.safety { points::Purpose::Safety } else { points::Purpose::Regular },
            services: vec![member],
            configs: Vec::new(),
            secrets: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
        };
        Point { config: head.config_name(), head }
    }
}

impl Case {
    /// What there was at the point.
    fn then(&self) -> Vec<Service> {
        match &self.stack {
            Some(stack) if self.then.is_empty() => stack.written(),
            _ => self.then.iter().map(|(name, spec)| spec.service(name)).collect(),
        }
    }

    /// What there is now.
    fn services(&self) -> Vec<Service> {
        let example = self.stack.iter().flat_map(Example::deployed);
        example.chain(self.services.iter().map(|(name, spec)| spec.service(name))).collect()
    }

    fn tasks(&self) -> Vec<Task> {
        let example = self.stack.iter().flat_map(Example::deployed).flat_map(|service| {
            let count = usize::try_from(service.replicas().unwrap_or(1)).expect("a small number");
            let image = image(&service.spec).to_owned();
            (0..count).map(move |slot| task(service.name(), slot, &image)).collect::<Vec<_>>()
        });
        example.chain(self.services.iter().flat_map(|(name, spec)| spec.tasks(name))).collect()
    }

    fn point(&self) -> Option<Point> {
        let id = OpId::parse("20260301t020000abcdef").expect("an id");
        let then = self.then();
        let member = |service: &Service| Member {
            name: service.name().to_owned(),
            id: service.id.clone(),
            spec: Part::of(&id, service.name().as_bytes()),
            image: image(&service.spec).to_owned(),
            nodes: vec!["n1".to_owned()],
            data: self
                .data
                .get(service.name())
                .map(|engine| points::Data { engine: engine.clone(), backup: format!("{id}p0") }),
        };
        let head = Head {
            schema: Head::VERSION,
            id: id.clone(),
            stack: self.stack.as_ref().map_or("shop", |stack| stack.name.as_str()).to_owned(),
            taken: "2026-03-01T02:00:00Z".parse().expect("a time"),
            purpose: points::Purpose::Regular,
            services: then.iter().map(member).collect(),
            configs: Vec::new(),
            secrets: Vec::new(),
            networks: Vec::new(),
            volumes: Vec::new(),
        };
        (!then.is_empty()).then(|| Point { config: head.config_name(), head })
    }

    /// Configs, secrets and networks that services of an example name are there, under ids of their own.
    fn named(&self, list: &str, id: &str, name: &str) -> BTreeMap<String, String> {
        let services = self.services();
        let entries = services.iter().filter_map(|s| s.spec.pointer(list)?.as_array());
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        entries.flatten().map(|entry| (text(entry, id), text(entry, name))).collect()
    }

    fn there(&self) -> Now {
        Now {
            networks: self.named("/TaskTemplate/Networks", "Target", "Target"),
            secrets: self.named("/TaskTemplate/ContainerSpec/Secrets", "SecretID", "SecretName"),
            services: self.services(),
            swarm: self.services(),
            then: self.then().into_iter().map(|s| (s.name().to_owned(), s.spec)).collect(),
            ready: ["n1".to_owned()].into(),
            ..Now::default()
        }
    }

    /// Those that are named, and those of an example, whose file defines them.
    fn pages(&self) -> BTreeSet<String> {
        let services = self.stack.iter().flat_map(Example::deployed);
        let pages = services.filter_map(|s| s.labels().remove("skep.maintenance.page"));
        pages.chain(self.pages.iter().cloned()).collect()
    }

    fn answer(&self) -> String {
        let world = World {
            services: self.services(),
            tasks: self.tasks(),
            backups: self.backups.iter().map(|b| b.backup(&self.service)).collect(),
            sleepers: self
                .sleepers
                .iter()
                .map(|(name, replicas)| sleeper(name, *replicas, self.left))
                .collect(),
            points: self.point().into_iter().chain(self.points.iter().map(Taken::point)).collect(),
            there: Some(self.there()),
            received: self
                .received
                .map(|until| Standing { service: self.service.clone(), until: Some(until), fault: None })
                .map(|standing| (self.service.clone(), standing))
                .into_iter()
                .collect(),
            operations: self.operations.iter().map(Op::operation).collect(),
            pages: self.pages(),
        };
        explain(&world, &self.service, &self.ask, self.accept_problems, self.now).to_string()
    }
}

fn sleeper(name: &str, replicas: Option<u64>, left: u64) -> Sleeper {
    Sleeper {
        config: format!("skep-sleep-{name}"),
        service: name.to_owned(),
        service_id: format!("{name}-id"),
        op: OpId::parse("20260301t200000abcdef").expect("an id"),
        since: "2026-03-01T20:00:00Z".parse().expect("a time"),
        replicas,
        left,
    }
}

#[test]
fn every_plan_reads_as_its_file_says() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plan");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "the cases are there");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (question, wanted) = text.split_once(LINE).unwrap_or((text.trim_end(), ""));
        let case: Case =
            serde_saphyr::from_str(question).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let answer = case.answer();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, format!("{question}{LINE}{answer}")).unwrap();
        } else if answer != wanted {
            wrong.push(format!("{}: it says\n{answer}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
