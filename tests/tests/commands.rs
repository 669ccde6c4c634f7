//! The command line against a simulated Swarm: what it does, what it prints, what it exits with.

#![allow(clippy::unwrap_used)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use skep::cli::{self, Exit, Out};
use skep::operation::desk;
use skep::operation::drive::{self, Again};
use skep::operation::receiver;
use skep::operation::record::{Intent, OpId, SCHEMA, Trigger, Work};
use skep::operation::saga::Env;
use skep::operation::settings::Settings;
use skep::swarm::object::{KIND, Kind, Labels, OP};
use skep::swarm::transport::Endpoint;
use skep::triggers::guard::History;
use skep::triggers::guard::history::Circuit;
use skep::triggers::intake::Port as _;
use skep::triggers::port::AlertPort;
use skep_tests::saga::{connect, runner_files, runners};
use skep_tests::sim::Unhealthy;
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::{DATABASE, PAGE_IMAGE, Shop, ShopOptions};
use tokio::task::JoinHandle;

/// A value of the database's environment that nobody may ever see.
const PASSWORD: &str = "correct-horse-battery-staple";

/// A shop, and somebody at the command line.
struct Desk {
    shop: Shop,
    runner: PathBuf,
    printed: Arc<Mutex<String>>,
}

/// What a command printed.
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

/// Something like an operator: drives whatever there is, as long as this is held.
struct Operator(JoinHandle<()>);

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Desk {
    async fn open() -> Desk {
        Desk::open_with(("skep.restore.flush", "cache")).await
    }

    async fn open_with((key, value): (&str, &str)) -> Desk {
        let mut options = ShopOptions::default();
        options.db_labels.push((key.to_owned(), value.to_owned()));
        let shop = Shop::start(options).await;
        let env = json!([
            "POSTGRES_USER=shop",
            format!("POSTGRES_DB={DATABASE}"),
            format!("POSTGRES_PASSWORD={PASSWORD}"),
        ]);
        let labels = shop.sim.service("shop_db").unwrap()["Spec"]["Labels"].clone();
        shop.deploy("shop_db", |spec| {
            spec["Labels"] = labels.clone();
            spec["TaskTemplate"]["ContainerSpec"]["Env"] = env.clone();
        })
        .await;
        let minute = Duration::from_secs(60);
        tokio::time::sleep(Duration::from_secs(5)).await;
        shop.sim.until(minute, "the shop answers again", |_| shop.sees_only_app()).await;
        let runner = runner_files(env!("CARGO_TARGET_TMPDIR")).to_owned();
        Desk { shop, runner, printed: Arc::default() }
    }

    async fn say(&self, words: &[&str]) -> Said {
        let line = std::iter::once("skep").chain(words.iter().copied());
        let cli = cli::parse(line.map(Into::into)).unwrap_or_else(|_| panic!("no command: {words:?}"));
        let (out, err) = (Paper::default(), Paper::default());
        let connector = self.shop.sim.client("people");
        let endpoint = Endpoint::in_process(move || connector());
        let sim = self.shop.sim.clone();
        let console = Out::to(cli.out.output, out.clone(), err.clone());
        let exit = cli.run_with(console, Some(endpoint), Arc::new(move || sim.now())).await;
        let said = Said { exit, out: out.text(), err: err.text() };
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.push_str(&said.out);
        printed.push_str(&said.err);
        said
    }

    /// With `--drive`, and everything that it needs here.
    async fn drive(&self, words: &[&str]) -> Said {
        let runner = self.runner.to_str().unwrap();
        self.say(&[words, &["--drive", "--runner", runner]].concat()).await
    }

    async fn operator(&self) -> Operator {
        let sim = self.shop.sim.clone();
        let settings = Settings { page_image: PAGE_IMAGE.to_owned(), ..Settings::default() };
        let env = Env {
            engine: connect(&self.shop, "operator").await,
            settings: Arc::new(settings),
            runners: runners(),
            clock: Arc::new(move || sim.now()),
            reports: Arc::new(cli::written),
        };
        Operator(tokio::spawn(async move {
            loop {
                for op in desk::list(&env.engine).await.unwrap_or_default() {
                    while let Ok(Again::After(pause)) = drive::poll(&env, &op.id).await {
                        if !pause.is_zero() {
                            break;
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }

    fn spec(&self, service: &str) -> Value {
        let mut spec = self.shop.sim.service(service).unwrap()["Spec"].clone();
        spec["TaskTemplate"]["ForceUpdate"] = Value::Null;
        spec
    }

    async fn app_answers(&self) {
        let minute = Duration::from_secs(60);
        self.shop.sim.until(minute, "users get the application", |_| self.shop.sees_only_app()).await;
    }

    /// What all commands so far printed held no secret.
    fn kept_the_secret(&self) {
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!printed.contains(PASSWORD), "{printed}");
    }
}

/// The first word of the last line of a table.
fn last_id(table: &str) -> String {
    table.lines().last().and_then(|l| l.split_whitespace().next()).unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn where_no_operator_runs_the_command_line_backs_up_and_restores_by_itself() {
    let desk = Desk::open().await;
    let (app, before) =
        (desk.spec("shop_app"), desk.shop.data.database("shop_db", DATABASE).unwrap().content);
    let said = desk.drive(&["backup", "db"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(
        said.out.contains("dump done in") && said.out.contains("backup of shop_db succeeded"),
        "{}",
        said.out
    );
    let backups = desk.say(&["backups", "shop_db"]).await.out;
    assert!(backups.contains("regular") && backups.lines().count() == 2, "{backups}");

    desk.shop.data.drop_table("shop_db", DATABASE, "users");
    let plan = desk.say(&["plan", "restore", "db"]).await;
    assert!(plan.exit == Exit::Fine && plan.out.contains(&last_id(&backups)), "{}", plan.out);
    let since = desk.shop.sim.elapsed();
    let said = desk.drive(&["restore", "db"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.contains("cut done in") && said.out.contains("to go back by hand"), "{}", said.out);
    assert_eq!(desk.shop.data.database("shop_db", DATABASE).unwrap().content, before);
    assert_eq!(desk.spec("shop_app"), app);
    assert_eq!(desk.shop.wrong_answers(since), []);

    let ops = desk.say(&["ops"]).await.out;
    assert!(ops.lines().count() == 3 && ops.contains("restore"), "{ops}");
    let shown = desk.say(&["ops", "show", &last_id(&ops)]).await.out;
    assert!(shown.contains("✔ canary") && shown.contains("restore of shop_db succeeded"), "{shown}");
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn what_would_be_refused_is_refused_before_anything_is_stored() {
    let desk = Desk::open().await;
    for words in
        [["restore", "db"].as_slice(), &["restore", "db", "--backup", "none"], &["backup", "shop_app"]]
    {
        let said = desk.say(words).await;
        assert_eq!((said.exit, said.out.as_str()), (Exit::Refused, ""), "{}", said.err);
    }
    assert!(desk.say(&["restore", "db"]).await.err.contains("there is no verified backup of shop_db"));
    let said = desk.say(&["restore", "shop_bd"]).await;
    assert!(said.exit == Exit::Refused && said.err.contains("did you mean `shop_db`?"), "{}", said.err);
    let said = desk.say(&["ops", "show", "2026"]).await;
    assert!(said.exit == Exit::Refused && said.err.contains("`skep ops` lists them"), "{}", said.err);
    let dry = desk.say(&["backup", "db", "--dry-run"]).await;
    assert!(dry.exit == Exit::Fine && dry.out.starts_with("backup of shop_db\n"), "{}", dry.out);
    assert_eq!(desk.say(&["ops"]).await.out, "no operations\n");
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn maintenance_goes_on_and_off_and_leaves_the_exact_spec() {
    let desk = Desk::open().await;
    let operator = desk.operator().await;
    let app = desk.spec("shop_app");
    let since = desk.shop.sim.elapsed();
    let on = desk.say(&["maintenance", "on", "app"]).await;
    assert_eq!(on.exit, Exit::Fine, "{}{}", on.out, on.err);
    assert!(on.out.contains("`skep maintenance off shop_app` ends it"), "{}", on.out);
    let ps = desk.say(&["ps"]).await.out;
    let row = ps.lines().find(|l| l.starts_with("shop_app")).unwrap();
    assert!(row.contains("maintenance") && row.contains(" on "), "{ps}");
    let again = desk.say(&["maintenance", "off", "shop_db"]).await;
    assert!(again.exit == Exit::Refused && again.err.contains("is not in maintenance"), "{}", again.err);

    let off = desk.say(&["maintenance", "off", "app"]).await;
    assert_eq!(off.exit, Exit::Fine, "{}{}", off.out, off.err);
    assert_eq!(desk.spec("shop_app"), app);
    desk.app_answers().await;
    assert_eq!(desk.shop.wrong_answers(since), []);
    drop(operator);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_waits_for_a_person_is_approved_or_ended_from_here() {
    let desk = Desk::open().await;
    let operator = desk.operator().await;
    let engine = connect(&desk.shop, "asker").await;
    let ask = async |text: &str| {
        let now = desk.shop.sim.now();
        let intent = Intent {
            schema: SCHEMA,
            service: "shop_db".to_owned(),
            service_id: engine.service("shop_db").await.unwrap().id,
            work: Work::Backup,
            trigger: Trigger::Person { name: "ann".to_owned() },
            created: now,
            approval: true,
            accept_problems: false,
        };
        let id = OpId::new(now, text);
        desk::create(&engine, &id, intent).await.unwrap();
        id.to_string()
    };
    let id = ask("one").await;
    let waits = desk.say(&["ops", "show", "--follow", &id]).await;
    assert_eq!(waits.exit, Exit::Approval);
    assert!(waits.out.contains(&format!("skep ops approve {id}")), "{}", waits.out);
    let approved = desk.say(&["ops", "approve", &id]).await;
    assert_eq!(approved.exit, Exit::Fine, "{}", approved.out);
    let late = desk.say(&["ops", "approve", &id]).await;
    assert!(late.exit == Exit::Refused && late.err.contains("does not wait for approval"), "{}", late.err);

    let id = ask("two").await;
    let cancelled = desk.say(&["ops", "cancel", &id]).await;
    assert_eq!(cancelled.exit, Exit::Fine, "{}", cancelled.out);
    assert!(cancelled.out.contains("was cancelled"), "{}", cancelled.out);
    drop(operator);
}

#[tokio::test(start_paused = true)]
async fn programs_get_one_object_a_change_and_the_id_at_once_where_they_detach() {
    let desk = Desk::open().await;
    let operator = desk.operator().await;
    let said = desk.say(&["backup", "db", "-o", "json"]).await;
    let lines: Vec<Value> = said.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(said.exit == Exit::Fine && lines.len() > 2, "{}", said.out);
    assert_eq!(lines.last().unwrap()["state"], "succeeded");
    let said = desk.say(&["backup", "db", "--detach"]).await;
    let id = said.out.trim();
    assert!(OpId::parse(id).is_some() && said.err.contains(id), "{}{}", said.out, said.err);
    assert_eq!(desk.say(&["ops", "show", "--follow", id]).await.exit, Exit::Fine);
    for words in [["ps"].as_slice(), &["ops"], &["backups"], &["plan", "backup", "db"], &["ops", "sweep"]] {
        let said = desk.say(&[words, &["--output", "json"]].concat()).await;
        assert!(serde_json::from_str::<Value>(&said.out).is_ok(), "{words:?}: {}", said.out);
    }
    desk.kept_the_secret();
    drop(operator);
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_nobody_drives_says_so() {
    let desk = Desk::open().await;
    let waits = async { desk.say(&["backup", "db"]).await };
    let drives = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        desk.operator().await
    };
    let (said, operator) = tokio::join!(waits, drives);
    assert_eq!(said.exit, Exit::Fine);
    assert!(said.err.contains("no operator seems to be running"), "{}", said.err);
    drop(operator);
}

#[tokio::test(start_paused = true)]
async fn release_gives_everything_back_also_when_the_operator_is_gone() {
    let desk = Desk::open().await;
    let app = desk.spec("shop_app");
    let operator = desk.operator().await;
    assert_eq!(desk.say(&["maintenance", "on", "app"]).await.exit, Exit::Fine);
    assert_eq!(desk.say(&["backup", "db", "--detach"]).await.exit, Exit::Fine);
    drop(operator);
    // What it had sent before it died has come to an end.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_ne!(desk.spec("shop_app"), app);
    let runner = desk.runner.to_str().unwrap();
    let said = desk.say(&["release", "--all", "--runner", runner]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!(desk.spec("shop_app"), app);
    desk.app_answers().await;
    let again = desk.say(&["release", "--all", "--runner", runner]).await;
    assert!(again.out.contains("nothing to give back"), "{}", again.out);
    let left: Vec<String> =
        desk.shop.sim.stored_names().into_iter().filter(|n| n.starts_with("skep-claim")).collect();
    assert_eq!(left, [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_service_sleeps_and_wakes_and_release_wakes_what_sleeps() {
    let desk = Desk::open().await;
    let (app, db) = (desk.spec("shop_app"), desk.spec("shop_db"));
    let operator = desk.operator().await;
    let refused = desk.say(&["scale", "down", "db"]).await;
    assert!(refused.exit == Exit::Refused && refused.err.contains("--with-dependents"), "{}", refused.err);
    assert_eq!(desk.say(&["scale", "down", "db", "--with-dependents"]).await.exit, Exit::Fine);
    let ps = desk.say(&["ps"]).await.out;
    let asleep = |name: &str| ps.lines().any(|l| l.starts_with(name) && l.contains("asleep"));
    assert!(asleep("shop_app") && asleep("shop_db"), "{ps}");
    assert_eq!(desk.say(&["scale", "up", "app"]).await.exit, Exit::Fine);
    assert_eq!((desk.spec("shop_app"), desk.spec("shop_db")), (app.clone(), db.clone()));
    let awake = desk.say(&["scale", "up", "app"]).await;
    assert!(awake.exit == Exit::Refused && awake.err.contains("does not sleep"), "{}", awake.err);
    assert_eq!(desk.say(&["scale", "down", "db", "--with-dependents"]).await.exit, Exit::Fine);
    drop(operator);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let runner = desk.runner.to_str().unwrap();
    let said = desk.say(&["release", "--all", "--runner", runner]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!((desk.spec("shop_app"), desk.spec("shop_db")), (app, db));
    desk.app_answers().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_or_a_stack_restarts_and_says_beforehand_what_stops() {
    let desk = Desk::open().await;
    let (app, db) = (desk.spec("shop_app"), desk.spec("shop_db"));
    let plan = desk.say(&["plan", "restart", "db"]).await;
    assert!(plan.exit == Exit::Fine && plan.out.contains("Stops        shop_app"), "{}", plan.out);
    let dry = desk.say(&["restart", "shop", "--dry-run"]).await;
    assert!(dry.exit == Exit::Fine && dry.out.contains("Replaces     shop_proxy"), "{}", dry.out);
    let unknown = desk.say(&["restart", "shopp"]).await;
    assert_eq!(unknown.exit, Exit::Refused, "{}", unknown.err);
    let _operator = desk.operator().await;
    let said = desk.say(&["restart", "db"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    let said = desk.say(&["restart", "shop"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!((desk.spec("shop_app"), desk.spec("shop_db")), (app, db));
    let proxy = desk.shop.sim.service("shop_proxy").unwrap();
    assert_eq!(proxy["Spec"]["TaskTemplate"]["ForceUpdate"], 1);
    desk.app_answers().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_given_back_only_where_that_is_asked_for() {
    let desk = Desk::open_with(("skep.restore.canary", "false")).await;
    let operator = desk.operator().await;
    assert_eq!(desk.say(&["backup", "db"]).await.exit, Exit::Fine);
    let app = desk.spec("shop_app");
    desk.shop.sim.workload("shop-app:1", Unhealthy);
    let stuck = desk.say(&["restore", "db"]).await;
    assert_eq!(stuck.exit, Exit::Stuck, "{}", stuck.out);
    assert!(
        stuck.out.contains("a person is needed") && stuck.out.contains("skep ops retry"),
        "{}",
        stuck.out
    );
    let ps = desk.say(&["ps"]).await.out;
    assert!(ps.lines().any(|l| l.starts_with("shop_db") && l.contains("stuck")), "{ps}");

    let application = Application {
        data: desk.shop.data.clone(),
        host: "db".to_owned(),
        database: DATABASE.to_owned(),
        user: "shop".to_owned(),
    };
    desk.shop.sim.workload("shop-app:1", application);
    let runner = desk.runner.to_str().unwrap();
    let said = desk.say(&["release", "--all", "--runner", runner]).await;
    assert!(said.exit == Exit::Stuck && said.err.contains("shop_app still shows the page"), "{}", said.err);
    assert_ne!(desk.spec("shop_app"), app);
    desk.say(&["release", "--all", "--stuck", "--runner", runner]).await;
    assert_eq!(desk.spec("shop_app"), app);
    desk.app_answers().await;
    drop(operator);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_removes_what_nobody_owns_and_nothing_else() {
    let desk = Desk::open().await;
    let engine = connect(&desk.shop, "past").await;
    let labels = |kind: Kind, op: &str| {
        Labels::from([(KIND.to_owned(), kind.as_str().to_owned()), (OP.to_owned(), op.to_owned())])
    };
    let gone = "20260101t000000aaaaaa";
    engine.create_config("skep-claim-old", &labels(Kind::Claim, gone), b"-").await.unwrap();
    engine.create_secret("skep-job-old", &labels(Kind::Ticket, gone), b"-").await.unwrap();
    let waiting = desk.say(&["backup", "db", "--detach"]).await.out;
    engine.create_config("skep-claim-new", &labels(Kind::Claim, waiting.trim()), b"-").await.unwrap();

    let dry = desk.say(&["ops", "sweep", "--dry-run"]).await;
    assert!(dry.out.contains("skep-claim-old") && dry.out.contains("skep-job-old"), "{}", dry.out);
    assert!(!dry.out.contains("skep-claim-new") && dry.err.contains("nothing was removed"), "{}", dry.out);
    assert_eq!(desk.say(&["ops", "sweep"]).await.exit, Exit::Fine);
    let left = desk.shop.sim.stored_names();
    assert!(left.iter().any(|n| n == "skep-claim-new"), "{left:?}");
    assert!(!left.iter().any(|n| n.ends_with("-old")), "{left:?}");
    assert_eq!(desk.say(&["ops", "sweep"]).await.out, "nothing to sweep\n");
}

#[tokio::test(start_paused = true)]
async fn a_person_lets_alerts_restore_a_service_again() {
    let desk = Desk::open().await;
    let now = desk.shop.sim.now();
    let engine = connect(&desk.shop, "guards").await;
    let port = AlertPort { engine, settings: Arc::default(), listening_since: now };
    let mut history = History::new("shop_db", "");
    history.circuit = Some(Circuit { opened: now, why: "the limit was reached".to_owned() });
    assert!(port.store(&history, None).await.unwrap());
    let said = desk.say(&["ops", "reset", "db"]).await;
    assert!(
        said.exit == Exit::Fine && said.out.contains("may restore shop_db again"),
        "{}{}",
        said.out,
        said.err
    );
    let stored = port.engine.config(&History::config_name("shop_db")).await.unwrap();
    let stored = History::read(&stored).unwrap();
    assert_eq!((stored.circuit, stored.reset.is_some()), (None, true));
    let again = desk.say(&["ops", "reset", "shop_db"]).await;
    assert!(again.exit == Exit::Fine && again.out.contains("nothing to do"), "{}{}", again.out, again.err);
    assert_eq!(desk.say(&["ops", "reset", "shop_bd"]).await.exit, Exit::Refused);
}

/// Flips a bit of the newest backup.
fn damage_newest(desk: &Desk) {
    desk.shop.data.with(|world| {
        let newest = world.store.backups().into_iter().next_back().unwrap();
        world.store.corrupt(&newest, "shop.dump");
    });
}

#[tokio::test(start_paused = true)]
async fn backups_are_read_back_from_here_and_one_that_is_spoilt_is_no_success() {
    let desk = Desk::open().await;
    for words in [["backups", "verify"].as_slice(), &["backups", "verify", "db"]] {
        let said = desk.drive(words).await;
        let nothing = (said.out.trim() == "no backups" && said.exit == Exit::Fine)
            || (said.err.contains("there is no backup of shop_db") && said.exit == Exit::Refused);
        assert!(nothing, "{}{}", said.out, said.err);
    }
    assert_eq!(desk.drive(&["backup", "db"]).await.exit, Exit::Fine);
    let id = last_id(&desk.say(&["backups"]).await.out);
    for words in [["backups", "verify"].as_slice(), &["backups", "verify", "db"], &["backups", "verify", &id]]
    {
        let said = desk.drive(words).await;
        assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
        assert!(said.out.contains("verify of shop_db succeeded"), "{}", said.out);
    }
    let dry = desk.say(&["backups", "verify", "--dry-run"]).await;
    assert!(dry.exit == Exit::Fine && dry.out.contains(&format!("{id}, ")), "{}", dry.out);
    for (wrong, said) in
        [("shop_bd", "did you mean `shop_db`?"), ("20990101t000000abcdef", "no backup `2099")]
    {
        let refused = desk.say(&["backups", "verify", wrong]).await;
        assert!(refused.exit == Exit::Refused && refused.err.contains(said), "{}", refused.err);
    }

    damage_newest(&desk);
    let said = desk.drive(&["backups", "verify", "db"]).await;
    assert_eq!(said.exit, Exit::Failed, "{}{}", said.out, said.err);
    assert!(said.out.contains("1 of 1 spoilt") && said.out.contains("checksum"), "{}", said.out);
    let listed = desk.say(&["backups"]).await;
    assert!(listed.exit == Exit::Failed && listed.out.contains("spoilt"), "{}", listed.out);
    assert!(listed.err.contains(&format!("{id} was found spoilt")), "{}", listed.err);
    let listed = desk.say(&["backups", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&listed.out).unwrap();
    assert!(all[0]["spoilt"]["why"].as_str().unwrap().contains("checksum"), "{all}");
    let refused = desk.say(&["restore", "db"]).await;
    assert!(refused.exit == Exit::Refused && refused.err.contains("no verified backup"), "{}", refused.err);
    let refused = desk.say(&["restore", "db", "--backup", &id]).await;
    assert!(refused.exit == Exit::Refused && refused.err.contains("is spoilt: "), "{}", refused.err);
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn what_a_store_holds_is_taken_into_a_catalogue_that_was_lost() {
    let desk = Desk::open().await;
    assert_eq!(desk.drive(&["backup", "db"]).await.exit, Exit::Fine);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(desk.drive(&["backup", "db"]).await.exit, Exit::Fine);
    skep_tests::saga::Scene::forget_catalogue(&desk.shop).await;
    assert_eq!(desk.say(&["backups"]).await.out, "no backups\n");
    let unknown = desk.drive(&["backups", "import", "nas"]).await;
    assert!(
        unknown.exit == Exit::Failed && unknown.out.contains("there is no store `nas`"),
        "{}",
        unknown.out
    );

    let dry = desk.drive(&["backups", "import", "default", "--dry-run"]).await;
    assert!(dry.exit == Exit::Fine && dry.out.matches("not yet").count() == 2, "{}{}", dry.out, dry.err);
    assert_eq!(desk.say(&["backups"]).await.out, "no backups\n");
    let said = desk.drive(&["backups", "import", "default", "--service", "db"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.matches("registered").count() >= 2, "{}", said.out);
    assert!(said.out.contains("only a restore that passes its checks"), "{}", said.out);
    let listed = desk.say(&["backups"]).await;
    assert!(listed.exit == Exit::Fine && listed.out.matches("imported").count() == 2, "{}", listed.out);
    let again = desk.drive(&["backups", "import", "default"]).await;
    assert!(again.exit == Exit::Fine && again.out.contains("2 registered already"), "{}", again.out);

    skep_tests::saga::Scene::forget_catalogue(&desk.shop).await;
    damage_newest(&desk);
    let said = desk.drive(&["backups", "import", "default"]).await;
    assert!(said.exit == Exit::Failed && said.out.contains("no: "), "one was left out: {}", said.out);
    assert_eq!(desk.say(&["backups"]).await.out.lines().count(), 2);
    let said = desk.drive(&["restore", "db"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn a_restore_point_is_taken_and_listed_without_telling_a_value() {
    let desk = Desk::open().await;
    let said = desk.say(&["points"]).await;
    assert_eq!((said.exit, said.out.trim()), (Exit::Fine, "no restore points"));
    let said = desk.say(&["point", "shpo"]).await;
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("there is no stack `shpo`") && said.err.contains("shop"), "{}", said.err);
    let said = desk.say(&["plan", "point", "shop"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.contains("database `shop` of shop_db"), "{}", said.out);
    let said = desk.drive(&["point", "shop"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.contains("point of shop succeeded"), "{}", said.out);
    let said = desk.say(&["points", "shop"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    let id = last_id(&said.out);
    let said = desk.say(&["points", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&all[0]["id"], &all[0]["stack"]), (&json!(id), &json!("shop")));
    let backup = all[0]["services"].as_array().unwrap().iter().find_map(|s| s["backup"].as_str()).unwrap();
    assert!(desk.say(&["backups"]).await.out.contains(backup), "its backup is an ordinary one");

    // A backup that somebody removes is missed.
    let engine = connect(&desk.shop, "somebody").await;
    let config = engine.config(&format!("skep-backup-{backup}")).await.unwrap();
    engine.remove_config(&config.id).await.unwrap();
    let said = desk.say(&["points"]).await;
    assert_eq!(said.exit, Exit::Failed, "{}{}", said.out, said.err);
    assert!(said.err.contains("cannot come back") && said.err.contains("shop_db"), "{}", said.err);
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn a_stack_goes_back_to_a_point_and_the_plan_tells_no_value() {
    let desk = Desk::open().await;
    let before = desk.spec("shop_app");
    assert_eq!(desk.drive(&["point", "shop", "--without-data"]).await.exit, Exit::Fine);
    let id = last_id(&desk.say(&["points"]).await.out);
    skep_tests::saga::update(&desk.shop, "shop_app", |spec| {
        spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!([format!("TOKEN={PASSWORD}")]);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let said = desk.say(&["plan", "rollback", "shop", "--to", &id[..12]]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.contains("shop_app: environment: TOKEN goes"), "{}", said.out);
    let said = desk.say(&["rollback", "shop", "--to", &id, "--only", "db"]).await;
    assert_eq!(said.exit, Exit::Refused, "{}{}", said.out, said.err);
    assert!(said.err.contains("holds no data of the component database"), "{}", said.err);
    let said = desk.say(&["rollback", "shop", "--to", "2019"]).await;
    assert!(said.err.contains("there is no restore point `2019`"), "{}", said.err);
    let said = desk.drive(&["rollback", "shop", "--to", &id]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!(desk.spec("shop_app"), before);
    let said = desk.say(&["plan", "rollback", "shop", "--to", &id]).await;
    assert!(said.out.contains("nothing differs from the point"), "{}", said.out);

    // Nobody takes a point away from whoever goes back to it.
    let said = desk.say(&["rollback", "shop", "--to", &id, "--detach"]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    let rollback = said.out.trim().to_owned();
    let said = desk.say(&["points", "remove", &id]).await;
    assert_eq!(said.exit, Exit::Refused, "{}{}", said.out, said.err);
    assert!(said.err.contains("uses restore point"), "{}", said.err);
    desk.drive(&["ops", "cancel", &rollback]).await;
    let said = desk.say(&["points", "remove", &id]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(!desk.say(&["points"]).await.out.contains(&id));
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn a_stack_goes_back_with_its_data_driven_from_the_command_line() {
    let desk = Desk::open().await;
    assert_eq!(desk.drive(&["point", "shop"]).await.exit, Exit::Fine);
    let id = last_id(&desk.say(&["points"]).await.out);
    let then = desk.shop.data.content_of("shop_db", DATABASE).unwrap();
    desk.shop.data.insert("shop_db", DATABASE, "orders", 7);
    let said = desk.say(&["plan", "rollback", "shop", "--to", &id]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.out.contains("is not in what comes back"), "{}", said.out);
    let said = desk.drive(&["rollback", "shop", "--to", &id]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!(desk.shop.data.content_of("shop_db", DATABASE).unwrap(), then);
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn a_database_goes_back_to_a_moment_and_a_release_leaves_no_slot() {
    let desk = Desk::open_with(("skep.backup.wal", "true")).await;
    let env = skep_tests::saga::env(&desk.shop, "operator").await;
    receiver::reconcile(&env, false).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(desk.drive(&["backup", "db"]).await.exit, Exit::Fine);
    desk.shop.data.insert("shop_db", DATABASE, "orders", 7);
    let wanted = desk.shop.data.content_of("shop_db", DATABASE);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let to = desk.shop.sim.now().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    desk.shop.data.drop_table("shop_db", DATABASE, "users");
    tokio::time::sleep(Duration::from_secs(5)).await;

    let listed = desk.say(&["backups"]).await;
    assert!(listed.out.contains("shop_db can be restored as it was at any moment from "), "{}", listed.out);
    let listed: Value = serde_json::from_str(&desk.say(&["backups", "--output", "json"]).await.out).unwrap();
    assert!(
        listed[0]["moments"]["from"].is_string() && listed[0]["moments"]["until"].is_string(),
        "{listed}"
    );
    for (text, why) in [
        ("2020-01-01 00:00:00", "before the oldest base backup"),
        ("2126-01-01T00:00:00Z", "still to come"),
        ("2026-03-29 02:30:00 Europe/Paris", "does not exist in Europe/Paris"),
        ("noon", "is no moment"),
    ] {
        let said = desk.say(&["restore", "db", "--to", text]).await;
        assert_eq!(said.exit, Exit::Refused, "{text}: {}{}", said.out, said.err);
        assert!(said.err.contains(why), "{text}: {}", said.err);
    }
    let plan = desk.say(&["plan", "restore", "db", "--to", &to]).await;
    assert_eq!(plan.exit, Exit::Fine, "{}{}", plan.out, plan.err);
    assert!(plan.out.contains("recover") && plan.out.contains("replay the log up to"), "{}", plan.out);
    let said = desk.drive(&["restore", "db", "--to", &to]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!(desk.shop.data.content_of("shop_db", DATABASE), wanted);
    desk.app_answers().await;

    let runner = desk.runner.to_str().unwrap();
    let said = desk.say(&["release", "--all", "--runner", runner]).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert!(said.err.contains("dropping replication slot skep_"), "{}", said.err);
    assert_eq!(desk.shop.data.with(|world| world.servers["shop_db"].slots.len()), 0);
    let own = |name: &String| name.starts_with("skep-wal") || name.starts_with("skep-unwal");
    assert!(!desk.shop.sim.services().iter().any(own) && !desk.shop.sim.stored_names().iter().any(own));
    desk.kept_the_secret();
}

#[tokio::test(start_paused = true)]
async fn a_service_is_updated_and_says_beforehand_what_becomes_of_it() {
    let desk = Desk::open().await;
    desk.shop.sim.workload("shop-app:2", desk.shop.application());
    let to_2 = ["update", "app", "--image", "shop-app:2", "--monitor", "5s"];
    let plan = desk.say(&["plan", "update", "app", "--image", "shop-app:2", "--monitor", "5s"]).await;
    assert!(plan.exit == Exit::Fine && plan.out.contains("Then         shop-app:2"), "{}", plan.out);
    let same = desk.say(&["update", "app", "--image", "shop-app:1", "--dry-run"]).await;
    assert!(same.exit == Exit::Refused && same.out.contains("has image shop-app:1 already"), "{}", same.out);
    let _operator = desk.operator().await;
    let said = desk.say(&to_2).await;
    assert_eq!(said.exit, Exit::Fine, "{}{}", said.out, said.err);
    assert_eq!(desk.spec("shop_app")["TaskTemplate"]["ContainerSpec"]["Image"], "shop-app:2");
    let again = desk.say(&to_2).await;
    assert_eq!(again.exit, Exit::Refused, "{}{}", again.out, again.err);
    desk.app_answers().await;
}
