//! The model keeps what the runner keeps.

use std::time::Duration;

use serde_json::{Value, json};
use skep::swarm::object::TaskState;
use skep_runner::line::FaultKind;
use skep_runner::manifest::{MANIFEST, Manifest};
use skep_runner::task::{
    Connect, Discard, Named, NetCheck, NetChecks, PgDrop, PgDump, PgFence, PgInPlace, PgInspect, PgRestore,
    PgSeal, PgSwap, Probe, Stored,
};
use skep_runner::{Fault, Line, Report, SCHEMA, Task, Ticket};

use crate::sim::build::{file, on_network, one_shot, service_spec};
use crate::sim::shop::{DATABASE, Shop, ShopOptions, USER};
use crate::sim::{Answer, Sim};

const LONG: Duration = Duration::from_secs(300);
const DIR: &str = "v1/shop/shop_db/b1";

/// The shop, and a number for each job.
struct Rig {
    shop: Shop,
    jobs: u32,
}

impl Rig {
    async fn new() -> Rig {
        Rig { shop: Shop::start(ShopOptions::default()).await, jobs: 0 }
    }

    /// Starts a job; its service name.
    async fn begin(&mut self, step: &str, task: Task) -> String {
        use base64::Engine as _;
        self.jobs += 1;
        let name = format!("skep-job-{step}-{}", self.jobs);
        let fence = format!("skep-op-{step}-");
        let ticket =
            Ticket { schema: SCHEMA, session: format!("{fence}{}", self.jobs), fence, anchors: None, task };
        let data = base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&ticket).unwrap());
        let body = json!({ "Name": name, "Data": data });
        let config = self.post("/configs/create", &body).await;
        let spec = on_network(one_shot(service_spec(&name, "postgres:17", &[])), &self.shop.network, &[]);
        let mut spec = file(spec, "Config", &config, &name, skep_runner::TICKET_PATH);
        spec["TaskTemplate"]["ContainerSpec"]["Command"] = json!([skep_runner::RUNNER_PATH, "task"]);
        spec["TaskTemplate"]["ContainerSpec"]["Mounts"] = json!([
            { "Type": "volume", "Source": "skep-backups", "Target": skep_runner::STORE_PATH },
            { "Type": "volume", "Source": "shop_data", "Target": skep_runner::DATA_PATH, "ReadOnly": true },
        ]);
        self.post("/services/create", &spec).await;
        name
    }

    async fn post(&self, path: &str, body: &Value) -> String {
        let reply = self.shop.raw.call("POST", path, Some(body)).await.unwrap();
        assert_eq!(reply.status, 201, "{}", reply.message());
        reply.json()["ID"].as_str().unwrap().to_owned()
    }

    /// Waits for a job and reads what it said; the service goes.
    async fn end(&self, name: &str) -> Result<Report, Fault> {
        let over = |sim: &Sim| sim.tasks(name).first().is_some_and(|t| t.state.is_terminal());
        self.shop.sim.until(LONG, name, over).await;
        let complete = self.shop.sim.tasks(name)[0].state == TaskState::Complete;
        let path = format!("/services/{name}/logs?stdout=1&stderr=1");
        let log = self.shop.raw.call("GET", &path, None).await.unwrap().body;
        let mut text = String::new();
        let mut rest = &log[..];
        while rest.len() >= 8 {
            let length = usize::try_from(u32::from_be_bytes(rest[4..8].try_into().unwrap())).unwrap();
            text.push_str(std::str::from_utf8(&rest[8..8 + length]).unwrap());
            rest = &rest[8 + length..];
        }
        let mut report = String::new();
        for line in text.lines().map(|l| serde_json::from_str(l).unwrap()) {
            match line {
                Line::Progress(_) => {}
                Line::Report { text, .. } => report.push_str(&text),
                Line::Fault(fault) => return Err(fault),
            }
        }
        if !complete {
            return Err(Fault { kind: FaultKind::Transient, message: "killed".to_owned() });
        }
        Ok(serde_json::from_str(&report).unwrap())
    }

    async fn run(&mut self, step: &str, task: Task) -> Result<Report, Fault> {
        let name = self.begin(step, task).await;
        self.end(&name).await
    }

    /// Takes a backup.
    async fn backup(&mut self) -> Stored {
        let dump = Task::PgDump(PgDump { connect: connect(), database: DATABASE.into(), dir: DIR.into() });
        let Report::PgDump(dumped) = self.run("dump", dump).await.unwrap() else { panic!("not a dump") };
        let manifest = Manifest {
            schema: SCHEMA,
            id: "b1".into(),
            service: "shop_db".into(),
            engine: "postgres".into(),
            image: "postgres:17".into(),
            spec: Value::Null,
            server_version: dumped.server_version,
            tool_version: dumped.tool_version,
            started: dumped.started,
            ended: dumped.ended,
            artefacts: dumped.artefacts,
            database: Some(dumped.database),
            contents: None,
            base: None,
            roles: None,
        };
        let seal = Task::PgSeal(PgSeal { dir: DIR.into(), manifest });
        let Report::PgSeal { manifest_sha256, .. } = self.run("seal", seal).await.unwrap() else {
            panic!("not a seal")
        };
        Stored { id: "b1".into(), dir: DIR.into(), manifest_sha256 }
    }

    fn restore(stored: &Stored) -> Task {
        let side = "skep_side".to_owned();
        let (connect, live) = (connect(), DATABASE.to_owned());
        Task::PgRestore(PgRestore { connect, stored: stored.clone(), live, side })
    }

    /// Restores beside; the swap that follows.
    async fn restored(&mut self, stored: &Stored) -> PgSwap {
        let report = self.run("beside", Rig::restore(stored)).await.unwrap();
        let Report::PgRestore { live, side, .. } = report else { panic!("not a restore") };
        let name = DATABASE.to_owned();
        PgSwap { connect: connect(), name, live, new: side, away: "skep_old".to_owned(), end_sessions: true }
    }

    fn users(&self) -> Option<u64> {
        self.shop.data.database("shop_db", DATABASE).and_then(|d| d.content.get("users").copied())
    }
}

fn connect() -> Connect {
    Connect { host: "tasks.shop_db".into(), port: 5432, user: USER.into(), password_file: None }
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_restored_beside_and_swapped_in() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    rig.shop.data.drop_table("shop_db", DATABASE, "users");
    rig.shop.data.insert("shop_db", DATABASE, "orders", 7);
    let swap = rig.restored(&stored).await;
    assert_eq!(rig.users(), None, "the live database is as it was");
    let swapped = rig.run("cut", Task::PgSwap(swap.clone())).await.unwrap();
    assert!(matches!(swapped, Report::PgSwap { fenced_ms } if fenced_ms > 0));
    assert_eq!(rig.users(), Some(3));
    let old = rig.shop.data.database("shop_db", "skep_old").unwrap();
    assert_eq!((old.content["orders"], old.allow), (17, false));
    let again = rig.run("cut", Task::PgSwap(swap)).await.unwrap();
    assert_eq!(again, Report::PgSwap { fenced_ms: 0 }, "the second time it is done already");
    rig.shop.sim.until(LONG, "users see the old rows", |_| rig.shop.sees_only_app()).await;
    assert_eq!(rig.shop.data.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dump_killed_half_way_leaves_no_backup_and_can_be_repeated() {
    let mut rig = Rig::new().await;
    rig.shop.sim.faults().kill_job(1, |t| t.fence.contains("dump"));
    let dump = Task::PgDump(PgDump { connect: connect(), database: DATABASE.into(), dir: DIR.into() });
    assert!(rig.run("dump", dump).await.is_err());
    let files = rig.shop.data.with(|w| w.store.dirs[DIR].len());
    assert_eq!(files, 0, "nothing was written yet");
    let stored = rig.backup().await;
    let sealed = rig.shop.data.with(|w| w.store.open(&stored).is_ok());
    assert!(sealed);
    let discard = Task::Discard(Discard { dir: DIR.into(), sealed: false });
    assert_eq!(rig.run("discard", discard).await.unwrap_err().kind, FaultKind::Final);
}

#[tokio::test(start_paused = true)]
async fn a_restore_killed_after_any_step_leaves_a_closed_side_and_converges_when_repeated() {
    for step in 1..=2 {
        let mut rig = Rig::new().await;
        let stored = rig.backup().await;
        rig.shop.sim.faults().kill_job(step, |t| t.fence.contains("beside"));
        assert!(rig.run("beside", Rig::restore(&stored)).await.is_err());
        let side = rig.shop.data.database("shop_db", "skep_side").unwrap();
        assert!(!side.whole && !side.allow, "after step {step}: {side:?}");
        let swap = rig.restored(&stored).await;
        assert_ne!(swap.new.oid, side.oid);
        let side = rig.shop.data.database("shop_db", "skep_side").unwrap();
        assert!(side.whole && side.allow);
        let live = rig.shop.data.database("shop_db", DATABASE).unwrap();
        assert_eq!(side.properties, live.properties);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restore_in_place_killed_after_any_step_never_shows_half_a_database() {
    for step in 1..=3 {
        let mut rig = Rig::new().await;
        let stored = rig.backup().await;
        let oid = rig.shop.data.database("shop_db", DATABASE).unwrap().oid;
        let properties = rig.shop.data.database("shop_db", DATABASE).unwrap().properties;
        let live = DATABASE.to_owned();
        let task = PgInPlace { connect: connect(), stored, live, properties };
        rig.shop.sim.faults().kill_job(step, |t| t.fence.contains("inplace"));
        assert!(rig.run("inplace", Task::PgInPlace(task.clone())).await.is_err());
        assert_eq!(rig.shop.data.database("shop_db", DATABASE), None, "after step {step}");
        rig.run("inplace", Task::PgInPlace(task)).await.unwrap();
        assert_eq!(rig.shop.data.databases("shop_db"), [DATABASE]);
        let live = rig.shop.data.database("shop_db", DATABASE).unwrap();
        assert!(live.whole && live.allow && live.oid != oid);
        rig.shop.sim.until(LONG, "users see it", |_| rig.shop.sees_only_app()).await;
        assert_eq!(rig.shop.data.violations(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_database_under_the_live_name_does_not_go_unseen() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    rig.shop.sim.faults().kill_job(2, |t| t.fence.contains("beside"));
    assert!(rig.run("beside", Rig::restore(&stored)).await.is_err());
    let named = |rig: &Rig, name: &str| Named {
        name: name.to_owned(),
        oid: rig.shop.data.database("shop_db", name).unwrap().oid,
    };
    let swap = PgSwap {
        connect: connect(),
        name: DATABASE.to_owned(),
        live: Some(named(&rig, DATABASE)),
        new: named(&rig, "skep_side"),
        away: "skep_old".to_owned(),
        end_sessions: true,
    };
    let since = rig.shop.sim.elapsed();
    rig.run("cut", Task::PgSwap(swap)).await.unwrap();
    rig.shop.sim.look();
    assert!(!rig.shop.data.violations().is_empty());
    assert!(rig.shop.wrong_answers(since).iter().any(|(_, a)| matches!(a, Answer::Wrong(_))));
}

#[tokio::test(start_paused = true)]
async fn a_swap_killed_between_fence_and_rename_is_finished_by_the_next_attempt() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    let swap = rig.restored(&stored).await;
    rig.shop.sim.faults().kill_job(1, |t| t.fence.contains("cut"));
    assert!(rig.run("cut", Task::PgSwap(swap.clone())).await.is_err());
    let live = rig.shop.data.database("shop_db", DATABASE).unwrap();
    assert_eq!((Some(live.oid), live.allow), (swap.live.as_ref().map(|l| l.oid), false));
    rig.run("cut", Task::PgSwap(swap.clone())).await.unwrap();
    let live = rig.shop.data.database("shop_db", DATABASE).unwrap();
    assert_eq!((live.oid, live.allow), (swap.new.oid, true));
    let undo = PgSwap {
        live: Some(Named { name: DATABASE.into(), oid: swap.new.oid }),
        new: Named { name: "skep_old".into(), oid: swap.live.as_ref().unwrap().oid },
        away: "skep_side".into(),
        ..swap
    };
    rig.run("uncut", Task::PgSwap(undo)).await.unwrap();
    assert_eq!(rig.shop.data.databases("shop_db"), [DATABASE, "skep_side"]);
}

#[tokio::test(start_paused = true)]
async fn a_corrupted_artefact_is_refused_before_the_server_is_touched() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    rig.shop.data.with(|w| w.store.corrupt(DIR, "shop.dump"));
    let fault = rig.run("beside", Rig::restore(&stored)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Final, "{}", fault.message);
    assert_eq!(rig.shop.data.databases("shop_db"), [DATABASE]);
    rig.shop.data.with(|w| w.store.corrupt(DIR, MANIFEST));
    let fault = rig.run("examine", Task::PgExamine(stored)).await.unwrap_err();
    assert_eq!(fault.message, "the manifest of backup b1 is not the registered one");
}

#[tokio::test(start_paused = true)]
async fn databases_are_dropped_only_by_name_and_oid_and_never_with_a_slot() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    let side = rig.restored(&stored).await.new;
    let drop_it = |named: Named| Task::PgDrop(PgDrop { connect: connect(), databases: vec![named] });
    for wrong in [Named { oid: 1, ..side.clone() }, Named { name: DATABASE.into(), oid: 0 }] {
        let fault = rig.run("drop", drop_it(wrong)).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Final);
    }
    let slots = |slots: Vec<String>| {
        move |w: &mut super::World| {
            let server = w.servers.get_mut("shop_db").unwrap();
            server.databases.get_mut("skep_side").unwrap().slots = slots;
        }
    };
    rig.shop.data.with(slots(vec!["audit".into()]));
    let fault = rig.run("drop", drop_it(side.clone())).await.unwrap_err();
    assert!(fault.message.contains("audit"), "{}", fault.message);
    rig.shop.data.with(slots(Vec::new()));
    rig.run("drop", drop_it(side.clone())).await.unwrap();
    rig.run("drop", drop_it(side)).await.unwrap();
    assert_eq!(rig.shop.data.databases("shop_db"), [DATABASE]);
}

#[tokio::test(start_paused = true)]
async fn a_fence_ends_the_sessions_that_an_inspection_shows() {
    let mut rig = Rig::new().await;
    let inspect = PgInspect {
        connect: connect(),
        database: DATABASE.into(),
        backups: vec![],
        kept: vec![],
        create_roles: false,
    };
    let Report::PgInspect(seen) = rig.run("look", Task::PgInspect(inspect.clone())).await.unwrap() else {
        panic!("not an inspection")
    };
    let mut addresses: Vec<&str> = seen.sessions.iter().map(|s| s.address.as_str()).collect();
    let containers = rig.shop.sim.containers("shop_app");
    let mut wanted: Vec<&str> = containers.iter().flat_map(super::Container::addresses).collect();
    addresses.sort_unstable();
    wanted.sort_unstable();
    assert_eq!((addresses, seen.free > 0), (wanted, true));
    let databases = vec![seen.live.clone().unwrap()];
    let fence = PgFence { connect: connect(), databases, allow: false };
    rig.run("fence", Task::PgFence(fence)).await.unwrap();
    let (_, seen) = rig.shop.sim.timeline().pop().unwrap();
    assert!(seen.iter().all(|a| matches!(a, Answer::Error(_))), "{seen:?}");
    let Report::PgInspect(seen) = rig.run("look", Task::PgInspect(inspect)).await.unwrap() else {
        panic!("not an inspection")
    };
    assert_eq!(seen.sessions, []);
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_ends_the_older_one() {
    let mut rig = Rig::new().await;
    let stored = rig.backup().await;
    let first = rig.begin("beside", Rig::restore(&stored)).await;
    let running = |sim: &Sim| sim.containers(&first).len() == 1;
    rig.shop.sim.until(LONG, "the first attempt works", running).await;
    rig.run("beside", Rig::restore(&stored)).await.unwrap();
    let fault = rig.end(&first).await.unwrap_err();
    assert_eq!(fault.message, "terminating connection due to administrator command");
    assert!(rig.shop.data.database("shop_db", "skep_side").unwrap().whole);
}

#[tokio::test(start_paused = true)]
async fn network_checks_wait_for_the_application() {
    let mut rig = Rig::new().await;
    let check = |host: &str| NetCheck {
        name: "health".into(),
        host: host.into(),
        port: 8080,
        probe: Probe::Http { path: "/health".into(), status: 200, body: None },
        within_ms: 2_000,
    };
    let checks = |host: &str| Task::NetChecks(NetChecks { checks: vec![check(host)], deadline_s: 5 });
    let Report::Checks { outcomes } = rig.run("net", checks("app")).await.unwrap() else { panic!() };
    assert!(outcomes[0].passed, "{}", outcomes[0].detail);
    let Report::Checks { outcomes } = rig.run("net", checks("nobody")).await.unwrap() else { panic!() };
    assert!(!outcomes[0].passed);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_a_final_fault() {
    let mut rig = Rig::new().await;
    rig.shop.data.with(|w| w.servers.get_mut("shop_db").unwrap().password = Some("secret".into()));
    let dump = Task::PgDump(PgDump { connect: connect(), database: DATABASE.into(), dir: DIR.into() });
    let fault = rig.run("dump", dump).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Final);
}
