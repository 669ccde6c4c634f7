//! The managed services: what each is doing, and when its data was last safe.

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::out::Tone;
use super::progress::{current, title};
use super::session::Session;
use super::table::{Cell, Table};
use crate::http::gather::{self, Tally};
use crate::http::view::{Condition, OperationView};
use crate::operation::catalogue::Finding;
use crate::operation::record::{OpId, State};
use crate::plan::words::ago;
use crate::plan::{World, standing, step_names};
use crate::policy::{Level, Policies};
use crate::swarm::object::{OP, Service};

/// `ps`
#[derive(Clone, Debug, clap::Args)]
pub struct PsArgs {
    /// Only services of this stack.
    #[arg(value_name = "STACK")]
    pub stack: Option<String>,
}

/// One managed service.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    service: String,
    state: Condition,
    running: usize,
    /// None for global services.
    wanted: Option<u64>,
    /// Whether users see Skep's maintenance page.
    page: bool,
    /// Whether its door stands, by which alone users reach it; none where it has none.
    door: Option<bool>,
    /// The operation that has it.
    operation: Option<Holder>,
    engine: Option<&'static str>,
    last_backup: Option<Timestamp>,
    last_verified: Option<Timestamp>,
    last_proved: Option<Timestamp>,
    /// When a backup was last loaded where no check could prove anything.
    last_loaded: Option<Timestamp>,
    /// How the newest backup failed its drill, if it was not proved since.
    drill_failed: Option<Finding>,
    /// How many seconds a restore is expected to load.
    expected_restore_s: Option<f64>,
    /// When the next scheduled backup is due; none while the service is paused.
    next_backup: Option<Timestamp>,
    /// When the next scheduled drill is due; none while the service is paused.
    next_drill: Option<Timestamp>,
    problems: usize,
    warnings: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Holder {
    id: OpId,
    title: String,
    state: State,
    step: String,
}

/// `skep ps`
pub(super) async fn ps(session: &Session, args: &PsArgs) -> Result<Exit, Failure> {
    let world = session.world().await?;
    let rows = rows(&world, args.stack.as_deref(), session.now());
    if session.out.is_json() {
        session.out.json_whole(&rows);
    } else if rows.is_empty() {
        session.out.say("no service has the label skep.enable=true");
    } else {
        session.out.say(table(&rows, session.now()).render(session.out.paint));
        if rows.iter().any(|r| r.problems + r.warnings > 0) {
            session.out.aside(format!("`{} check SERVICE` explains the problems", session.command));
        }
    }
    Ok(Exit::Fine)
}

fn rows(world: &World, stack: Option<&str>, now: Timestamp) -> Vec<Row> {
    let policies = Policies::of(&world.services);
    let managed = policies.iter().filter(|(_, parsed)| parsed.policy.enabled);
    let services = managed.filter_map(|(name, parsed)| Some((world.service(name)?, parsed)));
    let rows = services.filter(|(s, _)| stack.is_none_or(|stack| s.stack() == Some(stack)));
    rows.map(|(service, parsed)| {
        let backups = standing::backups(service, parsed, &world.backups, &world.operations, now);
        let backups = backups.unwrap_or_default();
        let problems = parsed.problems.iter().filter(|p| p.code.level() == Level::Problem).count();
        Row {
            service: service.name().to_owned(),
            state: condition(world, service),
            running: world.running(service),
            wanted: gather::wanted(service),
            page: has_page(service),
            door: world.door(service, parsed.policy.scale.as_ref().is_some_and(|s| s.door().is_some())),
            operation: world.holder(service.name()).map(|op| {
                let view = OperationView::of(op, &step_names(op), None);
                Holder { id: op.id.clone(), title: title(&view), state: view.state, step: current(&view) }
            }),
            engine: parsed.policy.data.as_ref().map(|d| d.engine.as_str()),
            last_backup: backups.last_success,
            last_verified: backups.last_verified,
            last_proved: backups.last_proved,
            last_loaded: backups.last_loaded,
            drill_failed: backups.drill_failed,
            expected_restore_s: backups.expected_s,
            next_backup: backups.next.filter(|_| !parsed.policy.paused),
            next_drill: backups.next_drill.filter(|_| !parsed.policy.paused),
            problems,
            warnings: parsed.problems.len() - problems,
        }
    })
    .collect()
}

fn condition(world: &World, service: &Service) -> Condition {
    let holder = world.holder(service.name());
    let holder = holder.filter(|op| matches!(op.journal.state, State::Running | State::Stuck));
    gather::condition(service, holder, &world.sleepers, Tally::of(service, &world.tasks)).0
}

/// Its task template is a page of Skep's.
fn has_page(service: &Service) -> bool {
    service.spec["TaskTemplate"]["ContainerSpec"]["Labels"].get(OP).is_some()
}

fn table(rows: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "STATE",
        "REPLICAS",
        "PAGE",
        "OPERATION",
        "BACKUP",
        "VERIFIED",
        "PROVED",
        "NEXT",
        "PROBLEMS",
    ]);
    for row in rows {
        let time = |at: Option<Timestamp>| match (at, row.engine) {
            (Some(at), _) => Cell::from(ago(at, now)),
            (None, Some(_)) => Cell::new(Tone::Mind, "never"),
            (None, None) => Cell::from(""),
        };
        let wanted = row.wanted.map_or_else(|| "global".to_owned(), |w| w.to_string());
        let operation =
            row.operation.as_ref().map(|o| format!("{} {} {}", o.title, o.state.as_str(), o.step));
        table.row(vec![
            row.service.as_str().into(),
            match row.door {
                Some(false) => Cell::new(Tone::Bad, format!("{}, no door", row.state.as_str())),
                Some(true) | None => Cell::new(tone(row.state), row.state.as_str()),
            },
            format!("{}/{wanted}", row.running).into(),
            if row.page { Cell::new(Tone::Mind, "on") } else { "".into() },
            operation.unwrap_or_default().trim_end().into(),
            time(row.last_backup),
            time(row.last_verified),
            proved(row, now),
            row.next_backup.map_or_else(|| Cell::from(""), |at| ago(at, now).into()),
            problems(row),
        ]);
    }
    table
}

fn proved(row: &Row, now: Timestamp) -> Cell {
    match (&row.drill_failed, row.last_proved, row.last_loaded) {
        (Some(failed), _, _) => Cell::new(Tone::Bad, format!("drill failed {}", ago(failed.at, now))),
        (None, Some(at), _) => ago(at, now).into(),
        (None, None, Some(at)) => Cell::new(Tone::Mind, format!("no; loaded {}", ago(at, now))),
        (None, None, None) => "".into(),
    }
}

fn problems(row: &Row) -> Cell {
    match (row.problems, row.warnings) {
        (0, 0) => "".into(),
        (0, warnings) => Cell::new(Tone::Mind, format!("{warnings} to mind")),
        (problems, 0) => Cell::new(Tone::Bad, problems.to_string()),
        (problems, warnings) => Cell::new(Tone::Bad, format!("{problems}, {warnings} to mind")),
    }
}

const fn tone(state: Condition) -> Tone {
    match state {
        Condition::Healthy => Tone::Good,
        Condition::Degraded | Condition::Down | Condition::Stuck => Tone::Bad,
        Condition::Operating | Condition::Waking => Tone::Live,
        Condition::Maintenance | Condition::Asleep | Condition::Reduced => Tone::Mind,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::out::Paint;
    use super::*;
    use crate::operation::record::Work;
    use crate::plan::testing::{op, service, task};
    use crate::swarm::object::TaskState;

    #[test]
    fn a_door_that_does_not_stand_is_told() {
        let mut app = service("shop_app");
        for (key, value) in [
            ("skep.scale.wake", "true"),
            ("skep.scale.wake.port", "80"),
            ("skep.scale.wake.door", "app-door"),
        ] {
            app.spec["Labels"][key] = json!(value);
        }
        app.spec["TaskTemplate"]["Networks"] = json!([{ "Target": "net" }]);
        let now = "2026-03-02T00:00:00Z".parse().unwrap();
        let mut world = World { services: vec![app], ..World::default() };
        let told = |world: &World| {
            let rows = rows(world, None, now);
            (rows[0].door, table(&rows, now).render(Paint::NONE).contains(", no door"))
        };
        assert_eq!(told(&world), (Some(false), true), "it is still to come");
        let mut door = service(&crate::operation::door::name("shop_app"));
        door.spec["Labels"] = json!({ "skep.kind": "door" });
        world.tasks.push(task(&door, TaskState::Running));
        world.services.push(door);
        assert_eq!(told(&world), (Some(true), false));
        world.tasks.clear();
        assert_eq!(told(&world), (Some(false), true));
    }

    #[test]
    fn a_row_says_what_the_service_does_and_when_its_data_was_last_safe() {
        let mut db = service("shop_db");
        db.spec["Labels"]["skep.data"] = json!("postgres");
        db.spec["Labels"]["skep.backup.schedule"] = json!("0 2 * * *");
        db.spec["Mode"] = json!({ "Replicated": { "Replicas": 1 } });
        let mut app = service("shop_app");
        app.spec["TaskTemplate"]["ContainerSpec"]["Labels"] = json!({ OP: "x" });
        app.spec["Labels"]["skep.nonsense"] = json!("1");
        let mut other = service("other");
        other.spec["Labels"] = json!({});
        let maintenance =
            op("shop_app", Work::Maintenance { until: None }, "2026-03-01T00:00:00Z", State::Running);
        let world =
            World { services: vec![db, app, other], operations: vec![maintenance], ..World::default() };
        let now = "2026-03-02T00:00:00Z".parse().unwrap();
        let rows = rows(&world, None, now);
        let states: Vec<_> = rows.iter().map(|r| (r.service.as_str(), r.state)).collect();
        assert_eq!(states, [("shop_app", Condition::Maintenance), ("shop_db", Condition::Down)]);
        let text = table(&rows, now).render(Paint::NONE);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("0/global") && lines[1].contains("on    maintenance of shop_app running"),
            "{text}"
        );
        assert!(lines[1].ends_with('1'), "one problem: {text}");
        assert!(lines[2].contains("0/1") && lines[2].ends_with("never   never             in 2 h"), "{text}");
    }
}
