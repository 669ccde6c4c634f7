//! What several labels of one service must agree on.

use skep_runner::task::{Expect, REDIS_READING};

use super::door::DOOR;
use super::keys;
use super::parse::Read;
use super::problem::{Code, Problem, Section};
use super::types::{Engine, GoBack, MaintenanceMode, Phase, RestoreMode, Strategy};
use crate::swarm::object::ENABLE;

/// Kinds of checks.
const CHECK_KINDS: [&str; 5] = ["http", "sql", "tcp", "command", "log"];
/// Settings of checks, with the kinds that they belong to.
const CHECK_SETTINGS: [(&str, &[&str]); 6] = [
    ("status", &["http"]),
    ("body", &["http"]),
    ("within", &["http", "tcp"]),
    ("expect", &["sql", "command", "log"]),
    ("timeout", &["command"]),
    ("phase", &CHECK_KINDS),
];

/// Looks at all labels together and adds the problems found.
pub(super) fn apply(read: &mut Read<'_>) {
    for rule in [
        enabled,
        scale,
        maintenance,
        needs_data,
        commands,
        fits_the_engine,
        restore,
        auto_has_a_data_check,
        encryption,
        write_ahead_log,
        update,
        checks,
    ] {
        let found = rule(read);
        read.problems.extend(found);
    }
}

fn enabled(read: &Read<'_>) -> Vec<Problem> {
    let Some(other) = read.first_under("skep") else { return Vec::new() };
    if read.has(ENABLE) {
        return Vec::new();
    }
    let want = format!("`true` (or `false`) beside `{other}`: without it no label has an effect");
    vec![Problem::new(Code::NotEnabled, Section::Common, ENABLE).want(want).hint(keys::example(ENABLE))]
}

/// What falls asleep by the clock has to wake by it or when somebody asks, and what wakes by it has to fall asleep by it.
fn scale(read: &Read<'_>) -> Vec<Problem> {
    let wakes = read.draft.scale.wake == Some(true);
    let pair = [("skep.scale.down", "skep.scale.up"), ("skep.scale.up", "skep.scale.down")];
    let is_undone = |one: &str| match one {
        "skep.scale.down" => wakes,
        _ => read.has("skep.scale.idle.query"),
    };
    let lone = pair.into_iter().filter(|(one, other)| read.has(one) && !read.has(other) && !is_undone(one));
    let problem = |(one, other): (&str, &str)| {
        Problem::new(Code::MissingKey, Section::Scale, other)
            .want(format!("a schedule beside `{one}`: alone it would be done once and never undone"))
            .hint(keys::example(other))
    };
    let lone = lone.map(problem);
    lone.chain(wake_on_demand(read)).chain(idle(read)).chain(kept(read)).chain(door(read)).collect()
}

/// Data goes back to what was backed up before.
fn update(read: &Read<'_>) -> Vec<Problem> {
    let key = "skep.update.backup";
    let is_off = read.draft.update.backup == Some(false);
    let problem = (read.draft.update.rollback == Some(GoBack::Full) && is_off).then(|| {
        Problem::new(Code::Conflict, Section::Update, key)
            .got("false")
            .want("`true` beside `skep.update.rollback=full`: data can go back only to a backup from before")
    });
    let [watch, window] = ["skep.update.watch", "skep.update.window"];
    let unwatched = (read.has(window) && read.draft.update.watch != Some(true)).then(|| {
        Problem::new(Code::MissingKey, Section::Update, watch)
            .want(format!(
                "`true` beside `{window}`: without it nothing is looked up, and the window is of no use"
            ))
            .hint(keys::example(watch))
    });
    problem.into_iter().chain(unwatched).collect()
}

/// What keeps replicas is in reach: nobody has to wake it.
fn kept(read: &Read<'_>) -> Option<Problem> {
    let key = "skep.scale.min";
    let keeps = read.draft.scale.min.is_some_and(|min| min > 0);
    (keeps && read.draft.scale.wake == Some(true)).then(|| {
        Problem::new(Code::Conflict, Section::Scale, key)
            .got(read.labels.get(key).copied().unwrap_or_default())
            .want("`0` beside `skep.scale.wake`: a service that keeps replicas is in reach, and no waker stands in for it")
    })
}

/// Sessions tell whom they are of by their addresses, and through a door all are of one.
fn door(read: &Read<'_>) -> Option<Problem> {
    let engine =
        read.draft.data.engine.filter(|engine| !matches!(engine, Engine::Volume | Engine::Command))?;
    read.has(DOOR).then(|| {
        let want = format!(
            "no such label beside `skep.data={engine}`: through a door all sessions are of one address, and a restore could not \
             tell whose they are; a waker does without (`skep.scale.wake`)"
        );
        Problem::new(Code::Conflict, Section::Scale, DOOR)
            .got(read.labels.get(DOOR).copied().unwrap_or_default())
            .want(want)
    })
}

/// What falls asleep for want of use has to wake again.
fn idle(read: &Read<'_>) -> Vec<Problem> {
    let [query, after] = ["skep.scale.idle.query", "skep.scale.idle.after"];
    let missing = |key: &str, want: String| {
        Problem::new(Code::MissingKey, Section::Scale, key).want(want).hint(keys::example(key))
    };
    let mut problems = Vec::new();
    if read.has(query) && !read.has(after) {
        problems.push(missing(after, format!("a value beside `{query}`")));
    }
    let has_door = read.has(DOOR) && read.draft.scale.wake == Some(true);
    if read.has(after) && !read.has(query) && !has_door {
        let want = format!("a value beside `{after}`, or a door that sees whether it is used (`{DOOR}`)");
        problems.push(missing(query, want));
    }
    // What keeps replicas is scaled up again by the same expression.
    let keeps = read.draft.scale.min.is_some_and(|min| min > 0);
    if read.has(query) && !keeps && read.draft.scale.wake != Some(true) && !read.has("skep.scale.up") {
        let want =
            format!("`true` beside `{query}`, or times in `skep.scale.up`: otherwise nothing would wake it");
        problems.push(missing("skep.scale.wake", want));
    }
    problems
}

/// Whoever stands in for a service has to know where it is asked.
fn wake_on_demand(read: &Read<'_>) -> Vec<Problem> {
    let missing = |key: &str, want: String| Problem::new(Code::MissingKey, Section::Scale, key).want(want);
    let mut problems = Vec::new();
    if let Some(other) = read.first_under("skep.scale.wake.").filter(|_| !read.has("skep.scale.wake")) {
        problems.push(missing("skep.scale.wake", format!("`true` (or `false`) beside `{other}`")));
    }
    let [http, tcp] = ["skep.scale.wake.port", "skep.scale.wake.tcp"];
    let draft = &read.draft.scale;
    if draft.wake == Some(true) && !read.has(http) && !read.has(tcp) {
        let want = "the port that the application listens on: the waker takes its place there; `skep.scale.wake.tcp` where \
                    it does not speak HTTP";
        problems.push(missing(http, want.to_owned()).hint(keys::example(http)));
    }
    let both = draft.wake_http.iter().flatten().find(|p| draft.wake_tcp.iter().flatten().any(|t| t == *p));
    if let Some(port) = both {
        let want =
            format!("`{port}` in one of `{http}` and `{tcp}`: it is asked over HTTP or by another protocol");
        let got = read.labels.get(tcp).copied().unwrap_or_default();
        problems.push(Problem::new(Code::Conflict, Section::Scale, tcp).got(got).want(want));
    }
    problems
}

fn maintenance(read: &Read<'_>) -> Vec<Problem> {
    let missing =
        |key: &str, want: String| Problem::new(Code::MissingKey, Section::Maintenance, key).want(want);
    let mut problems = Vec::new();
    if let Some(other) = read.first_under("skep.maintenance.").filter(|_| !read.has("skep.maintenance")) {
        problems.push(missing("skep.maintenance", format!("`true` (or `false`) beside `{other}`")));
    }
    let draft = &read.draft.maintenance;
    let in_place = matches!(draft.mode, Some(MaintenanceMode::Swap | MaintenanceMode::StandIn));
    if draft.on == Some(true) && in_place && !read.has("skep.maintenance.port") {
        let want = "the port that the application listens on: the page takes its place there".to_owned();
        problems.push(missing("skep.maintenance.port", want));
    }
    problems
}

/// Labels that speak of data need `skep.data`.
fn needs_data(read: &Read<'_>) -> Vec<Problem> {
    if read.has("skep.data") {
        return Vec::new();
    }
    let missing = |section: Section, other: &str| {
        let want =
            format!("`skep.data` beside it, as in `skep.data=postgres`; without it `{other}` has no meaning");
        Problem::new(Code::MissingKey, section, other).got(read.labels[other]).want(want)
    };
    let groups = [
        (Section::Data, "skep.data."),
        (Section::Backup, "skep.backup."),
        (Section::Restore, "skep.restore."),
        (Section::Drill, "skep.drill."),
    ];
    let first = groups.into_iter().filter_map(|(section, prefix)| Some((section, read.first_under(prefix)?)));
    let sql = read.check_names().into_iter().map(|name| format!("skep.check.{name}.sql"));
    let asked = sql.filter(|key| read.has(key)).map(|key| missing(Section::Check, &key));
    first.map(|(section, other)| missing(section, other)).chain(asked).collect()
}

/// Commands are the data's only way out and in.
fn commands(read: &Read<'_>) -> Vec<Problem> {
    let Some(engine) = read.draft.data.engine else { return Vec::new() };
    let [dump, load] = ["skep.data.dump.command", "skep.data.load.command"];
    if engine == Engine::Command {
        let missing = [dump, load].into_iter().filter(|key| !read.has(key));
        let problem = |key| {
            let want = "a command beside `skep.data=command`: nothing else dumps and loads such data";
            Problem::new(Code::MissingKey, Section::Data, key).want(want).hint(keys::example(key))
        };
        return missing.map(problem).collect();
    }
    let given = [dump, load, "skep.data.verify.command"].into_iter().filter(|key| read.has(key));
    let problem = |key| {
        let want =
            format!("no such label with `skep.data={engine}`: Skep knows how that is dumped and loaded");
        Problem::new(Code::Conflict, Section::Data, key).got(read.labels[key]).want(want)
    };
    given.map(problem).collect()
}

/// What one engine has and another one has not.
fn fits_the_engine(read: &Read<'_>) -> Vec<Problem> {
    let Some(engine) = read.draft.data.engine else { return Vec::new() };
    let conflict = |section: Section, key: String, want: &str| {
        let got = read.labels.get(key.as_str()).copied().unwrap_or_default();
        Problem::new(Code::Conflict, section, key.clone())
            .got(got)
            .want(want.replace("ENGINE", engine.as_str()))
    };
    let mut problems = Vec::new();
    let mut unfit = |is_so: bool, section: Section, key: &str, want: &str| {
        if is_so {
            problems.push(conflict(section, key.to_owned(), want));
        }
    };
    let (data, restore) = (&read.draft.data, &read.draft.restore);
    let (is_files, is_live) = (engine == Engine::Volume, engine.is_loaded_live());
    let has_volumes = data.volumes.is_some();
    let want = "no such label with `skep.data=ENGINE`: its data is where the server has it";
    unfit(has_volumes && !is_files && engine != Engine::Command, Section::Data, "skep.data.volumes", want);
    let want = "no such label with `skep.data=ENGINE`: it has no database";
    unfit(data.database.is_some() && (is_files || is_live), Section::Data, "skep.data.database", want);
    let is_number = data.database.as_ref().is_none_or(|d| d.parse::<u16>().is_ok());
    let want = "the number of a database: those of Redis have no names";
    unfit(engine == Engine::Redis && !is_number, Section::Data, "skep.data.database", want);
    if is_live {
        let want = "`in-place`, or no such label: `ENGINE` is loaded into the live service";
        let beside = restore.strategy == Some(Strategy::Beside) && read.has("skep.restore.strategy");
        unfit(beside, Section::Restore, "skep.restore.strategy", want);
        let want = "`true`: `ENGINE` is loaded into the live service, which nobody may use meanwhile";
        unfit(restore.quiesce == Some(false), Section::Restore, "skep.restore.quiesce", want);
        let want =
            "no such label with `skep.data=ENGINE`: it is loaded into the live service, and nowhere else";
        let key = "skep.drill.schedule";
        unfit(read.has(key) && !engine.has_drill(), Section::Drill, key, want);
    } else if engine != Engine::Postgres {
        let want = "`beside`: data of `ENGINE` is built beside the live data and then moved";
        let in_place = restore.strategy == Some(Strategy::InPlace);
        unfit(in_place, Section::Restore, "skep.restore.strategy", want);
        let want = "`true`: while the files of `ENGINE` are exchanged the service itself is stopped";
        unfit(restore.quiesce == Some(false), Section::Restore, "skep.restore.quiesce", want);
    }
    for (name, check) in read.check_names().into_iter().filter_map(|n| Some((n, read.draft.checks.get(n)?))) {
        let Some(sql) = &check.sql else { continue };
        let key = format!("skep.check.{name}.sql");
        let want = "a check over the network: Skep has no server to ask in `skep.data=ENGINE`";
        unfit(is_files || is_live, Section::Check, &key, want);
        let verb = sql.split_ascii_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let want = "a command of Redis that reads one value, such as `DBSIZE` or `GET key`";
        unfit(engine == Engine::Redis && !REDIS_READING.contains(&verb.as_str()), Section::Check, &key, want);
        let matches = matches!(check.expect, Some(Expect::Matches(_)));
        let want = "another comparison: Redis knows no regular expressions";
        unfit(engine == Engine::Redis && matches, Section::Check, &format!("skep.check.{name}.expect"), want);
    }
    problems
}

fn restore(read: &Read<'_>) -> Vec<Problem> {
    let draft = &read.draft.restore;
    let conflict = |key: &str, got: String, want: &str| {
        Problem::new(Code::Conflict, Section::Restore, key).got(got).want(want)
    };
    let mut problems = Vec::new();
    let both =
        draft.clients.iter().flatten().filter(|c| draft.ignore_clients.iter().flatten().any(|i| i == *c));
    for client in both {
        let want = "a service either in `skep.restore.clients` or here, not in both";
        problems.push(conflict("skep.restore.ignore-clients", client.clone(), want));
    }
    if draft.quiesce == Some(false) && draft.strategy == Some(Strategy::InPlace) {
        let want =
            "`true`, or `skep.restore.strategy=beside`: in place, the data is gone while it is restored";
        problems.push(conflict("skep.restore.quiesce", "false".to_owned(), want));
    }
    if draft.quiesce == Some(false) && draft.canary == Some(true) && read.has("skep.restore.canary") {
        let want =
            "`false`, or no `skep.restore.quiesce=false`: clients that never stop cannot wait for a canary";
        problems.push(conflict("skep.restore.canary", "true".to_owned(), want));
    }
    problems
}

/// S9: what restores on its own must be able to tell sound data from broken data.
fn auto_has_a_data_check(read: &Read<'_>) -> Vec<Problem> {
    let is_asked = |name: &str| {
        let draft = read.draft.checks.get(name);
        draft.is_none_or(|check| check.phase != Some(Phase::Before))
    };
    let names = read.check_names();
    let has_check = names.iter().any(|name| is_asked(name) && read.has(&format!("skep.check.{name}.sql")));
    if read.draft.restore.mode != Some(RestoreMode::Auto) || has_check {
        return Vec::new();
    }
    if let Some(engine @ (Engine::Volume | Engine::Command | Engine::Rabbitmq | Engine::Mongodb)) =
        read.draft.data.engine
    {
        let want = match engine {
            Engine::Volume => {
                "`approve` or `observe`: nothing can tell whether files are sound before they are live"
            }
            _ => "`approve` or `observe`: nothing can tell whether what is loaded is sound before it is live",
        };
        return vec![
            Problem::new(Code::AutoWithoutCheck, Section::Restore, "skep.restore.mode")
                .got("auto")
                .want(want),
        ];
    }
    let want = "an SQL check on the same service: a backup of broken data has perfect checksums";
    let hint = "as in `skep.check.rows.sql=SELECT count(*) FROM users` with `skep.check.rows.expect=ge 1`"
        .to_owned();
    vec![
        Problem::new(Code::AutoWithoutCheck, Section::Restore, "skep.restore.mode")
            .got("auto")
            .want(want)
            .hint(hint),
    ]
}

/// S16: whoever restores unattended must be able to decrypt unattended. Whether Skep can is known to its configuration
/// alone, which takes this back ([`super::Policies::known_to`]).
fn encryption(read: &Read<'_>) -> Vec<Problem> {
    let Some(recipient) = read.labels.get("skep.backup.encrypt") else { return Vec::new() };
    let auto = read.draft.restore.mode == Some(RestoreMode::Auto);
    let unattended =
        [(auto, "skep.restore.mode=auto"), (read.has("skep.drill.schedule"), "skep.drill.schedule")];
    let found = unattended.into_iter().filter(|(is_set, _)| *is_set).map(|(_, other)| {
        let want = format!(
            "the age identity in Skep's configuration, or no `{other}`: it restores without a person"
        );
        Problem::new(Code::EncryptWithoutIdentity, Section::Backup, "skep.backup.encrypt")
            .got(*recipient)
            .want(want)
            .hint("name the Swarm secret that holds it in SKEP_AGE_IDENTITY".to_owned())
    });
    found.collect()
}

/// The log is written by the server's own tool, as it comes, and only PostgreSQL has one.
fn write_ahead_log(read: &Read<'_>) -> Vec<Problem> {
    let key = "skep.backup.wal";
    if read.draft.backup.wal != Some(true) {
        return Vec::new();
    }
    let conflict = |want: &str| Problem::new(Code::Conflict, Section::Backup, key).got("true").want(want);
    let mut problems = Vec::new();
    if read.draft.data.engine.is_some_and(|engine| engine != Engine::Postgres) {
        problems.push(conflict(
            "`false`, or no such label: only `skep.data=postgres` has a log that is received",
        ));
    }
    if read.has("skep.backup.encrypt") {
        problems
            .push(conflict("`false`, or no `skep.backup.encrypt`: what is received cannot be encrypted yet"));
    }
    problems
}

fn checks(read: &Read<'_>) -> Vec<Problem> {
    read.check_names().into_iter().flat_map(|name| check(read, name)).collect()
}

/// What a kind of check cannot be told.
fn unfit_check(read: &Read<'_>, name: &str, kind: &str) -> Option<Problem> {
    let draft = read.draft.checks.get(name)?;
    let (setting, want, hint) = match (kind, &draft.expect, draft.phase) {
        ("command", Some(Expect::Matches(_)), _) => (
            "expect",
            "another comparison: what a command prints is compared without regular expressions",
            "let the command itself look, as in `… | grep -qE '…'`",
        ),
        ("log", Some(Expect::Matches(_)), _) => {
            ("expect", "a comparison of how many lines there are a minute", "as in `le 5`")
        }
        ("log", _, Some(Phase::Before)) => (
            "phase",
            "`after`, or no such label: lines are counted from the beginning of an operation on",
            "",
        ),
        _ => return None,
    };
    let key = format!("skep.check.{name}.{setting}");
    let got = read.labels.get(key.as_str()).copied().unwrap_or_default();
    let hint = (!hint.is_empty()).then(|| hint.to_owned());
    Some(Problem::new(Code::Conflict, Section::Check, key).got(got).want(want).hint(hint))
}

fn check(read: &Read<'_>, name: &str) -> Vec<Problem> {
    let kinds: Vec<&str> =
        CHECK_KINDS.into_iter().filter(|kind| read.has(&format!("skep.check.{name}.{kind}"))).collect();
    let [kind] = kinds.as_slice() else {
        let got = kinds.iter().map(|kind| format!(".{kind}")).collect::<Vec<_>>().join(" and ");
        let want = "exactly one of `.http`, `.sql`, `.tcp`, `.command` and `.log` for each name";
        let hint = (!kinds.is_empty()).then(|| "give each check a name of its own".to_owned());
        return vec![
            Problem::new(Code::CheckKinds, Section::Check, format!("skep.check.{name}"))
                .got(got)
                .want(want)
                .hint(hint),
        ];
    };
    let mut problems = Vec::new();
    for (setting, belongs_to) in CHECK_SETTINGS {
        let key = format!("skep.check.{name}.{setting}");
        if let Some(text) = read.labels.get(key.as_str()).filter(|_| !belongs_to.contains(kind)) {
            let want =
                format!("no `.{setting}` here: it belongs to checks of kind `.{}`", belongs_to.join("`, `."));
            problems.push(Problem::new(Code::CheckSetting, Section::Check, key).got(*text).want(want));
        }
    }
    problems.extend(unfit_check(read, name, kind));
    problems
}
