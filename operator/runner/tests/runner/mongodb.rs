//! MongoDB there and back, refused, redacted; against a stand-in of its tools (`support/mongo.rs`): none of it was ever run
//! with a real MongoDB.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::support::mongo::{self, Collections, Field, Scratch, State, document};
use crate::support::{Bench, Outcome, PASSWORD};
use skep_runner::line::FaultKind;
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    CommandDrill, CommandDump, CommandExamine, CommandLoad, CommandSeal, Connect, DataEngine, DirDumped,
    Means, Reading, Report, ScratchServer, Stored, Task,
};

/// What the tools of a test really are.
#[test]
#[ignore = "the tools that tests start"]
fn stand_in() {
    if let Some(code) = mongo::play() {
        std::process::exit(code);
    }
}

fn documents(count: i64) -> Vec<Vec<u8>> {
    (0..count).map(|n| document(&[("_id", Field::Long(n)), ("what", Field::Text("planted"))])).collect()
}

fn bench() -> Bench {
    let bench = Bench::new(DataEngine::Volume);
    mongo::install(&bench.dir, &bench.dir.join("bin"));
    let shop = Collections::from([("orders".into(), documents(500)), ("users".into(), documents(3))]);
    let more = Collections::from([("empty".into(), Vec::new())]);
    let accounts = Collections::from([("system.users".into(), documents(2))]);
    let state = State {
        version: "6.0.5".into(),
        password: Some(PASSWORD.into()),
        databases: [("shop", shop), ("more", more), ("admin", accounts)]
            .map(|(n, c)| (n.to_owned(), c))
            .into(),
        ..State::default()
    };
    state.write(&bench.dir);
    bench
}

fn change(bench: &Bench, change: impl FnOnce(&mut State)) {
    let mut state = State::read(&bench.dir);
    change(&mut state);
    state.write(&bench.dir);
}

fn connect(bench: &Bench) -> Connect {
    bench.connect("root", 27017)
}

fn dump(bench: &Bench, dir: &str) -> Outcome {
    let means = Means::Mongodb(connect(bench));
    bench.run(Task::CommandDump(CommandDump { means, dir: dir.into() }))
}

fn dumped(bench: &Bench, dir: &str) -> DirDumped {
    match dump(bench, dir).done() {
        Report::DirDump(dumped) => *dumped,
        other => panic!("{other:?}"),
    }
}

fn back_up(bench: &Bench, dir: &str) -> Stored {
    let manifest = Manifest { engine: "mongodb".into(), ..bench.manifest(dir, dumped(bench, dir)) };
    let seal = CommandSeal { reading: Reading::Mongodb, dir: dir.into(), manifest };
    match bench.run(Task::CommandSeal(seal)).done() {
        Report::DirSeal { manifest_sha256, .. } => {
            Stored { id: dir.into(), dir: dir.into(), manifest_sha256 }
        }
        other => panic!("{other:?}"),
    }
}

fn load(bench: &Bench, stored: &Stored) -> Outcome {
    let (means, engine) = (Means::Mongodb(connect(bench)), "mongodb".into());
    bench.run(Task::CommandLoad(CommandLoad { means, engine, stored: stored.clone() }))
}

fn examine(bench: &Bench, stored: &Stored) -> Outcome {
    let (reading, engine) = (Reading::Mongodb, "mongodb".into());
    bench.run(Task::CommandExamine(CommandExamine { reading, engine, stored: stored.clone() }))
}

fn drill(bench: &Bench, stored: &Stored) -> Outcome {
    let (server, engine) = (ScratchServer::Mongodb, "mongodb".into());
    bench.run(Task::CommandDrill(CommandDrill { server, engine, stored: stored.clone() }))
}

/// Nothing of a scratch server is left: it does not answer, and its files are gone.
fn nothing_is_left(bench: &Bench) {
    let files = fs::read_dir(&bench.dir).unwrap().flatten();
    let started = files.filter(|file| file.file_name().to_str().unwrap().starts_with("scratch-"));
    for file in started {
        let name = file.file_name().into_string().unwrap();
        let port: u16 = name.strip_prefix("scratch-").unwrap().parse().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "a scratch server is still there");
        let data = fs::read_to_string(file.path()).unwrap();
        assert!(!fs::exists(Path::new(&data).parent().unwrap()).unwrap(), "{data} is left");
    }
}

/// Loses a collection and documents, and gets others.
fn spoil(state: &mut State) {
    let shop = state.databases.get_mut("shop").unwrap();
    shop.remove("users");
    shop.get_mut("orders").unwrap().truncate(7);
    shop.insert("intruder".into(), documents(1));
    state.databases.remove("more");
    state.databases.insert("other".into(), Collections::from([("x".into(), documents(9))]));
}

#[test]
fn all_databases_come_back_and_nothing_else_is_left_and_accounts_stay_as_they_are() {
    let bench = bench();
    let before = State::read(&bench.dir);
    let dumped = dumped(&bench, "zero");
    assert_eq!(
        (dumped.server_version.as_str(), dumped.tool_version.as_str()),
        ("6.0.5", "mongodump 100.9.4")
    );
    assert_eq!(dumped.contents.entries, 505);
    assert_eq!(fs::read(bench.dir.join("store/zero/mongodb.archive")).unwrap(), mongo::archive(&before));
    let stored = back_up(&bench, "one");
    examine(&bench, &stored).done();
    change(&bench, |state| {
        spoil(state);
        state.databases.get_mut("admin").unwrap().insert("system.users".into(), documents(5));
    });
    let outcome = load(&bench, &stored);
    assert!(!outcome.text.contains(PASSWORD), "{}", outcome.text);
    outcome.done();
    let mut wanted = before.clone();
    wanted.databases.get_mut("admin").unwrap().insert("system.users".into(), documents(5));
    assert_eq!(State::read(&bench.dir), wanted);
    // Again changes nothing.
    load(&bench, &stored).done();
    assert_eq!(State::read(&bench.dir), wanted);

    let calls = mongo::calls(&bench.dir);
    assert!(calls.iter().all(|call| !call.contains("S3kret")), "{calls:#?}");
    let plain = |call: &&String| call.replace(|c: char| c.is_ascii_digit(), "");
    let login =
        "--host=... --port= --username=root --authenticationDatabase=admin --config=/dev/shm/skep-/tools.yml";
    let calls: Vec<String> = calls.iter().take(7).map(|call| plain(&call)).collect();
    assert_eq!(
        calls,
        [
            "mongosh --quiet --norc --nodb /dev/shm/skep-/script.js".to_owned(),
            format!("mongodump {login} --archive"),
            "mongosh --quiet --norc --nodb /dev/shm/skep-/script.js".to_owned(),
            format!("mongodump {login} --archive"),
            "mongosh --quiet --norc --nodb /dev/shm/skep-/script.js".to_owned(),
            format!(
                "mongorestore {login} --archive --drop --stopOnError --nsExclude=admin.* --nsExclude=config.*"
            ),
            "mongosh --quiet --norc --nodb /dev/shm/skep-/script.js".to_owned(),
        ]
    );
}

#[test]
fn without_accounts_no_login_is_given() {
    let bench = bench();
    change(&bench, |state| state.password = None);
    let nobody = Connect { user: String::new(), password_file: None, ..connect(&bench) };
    let dump = CommandDump { means: Means::Mongodb(nobody), dir: "one".into() };
    bench.run(Task::CommandDump(dump)).done();
    let calls = mongo::calls(&bench.dir);
    assert!(calls[0].starts_with("mongosh "), "{calls:?}");
    assert_eq!(calls[1..], ["mongodump --host=127.0.0.1 --port=27017 --archive"]);
}

#[test]
fn what_is_cut_or_altered_is_refused_before_the_server_is_touched() {
    let bench = bench();
    let stored = back_up(&bench, "one");
    let path = bench.dir.join("store/one/mongodb.archive");
    let whole = fs::read(&path).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    let (state, before) = (State::read(&bench.dir), mongo::calls(&bench.dir).len());
    for bytes in [&altered[..], &whole[..whole.len() - 4], &whole[..whole.len() / 3]] {
        fs::write(&path, bytes).unwrap();
        examine(&bench, &stored).refused();
        load(&bench, &stored).refused();
    }
    assert_eq!(
        (State::read(&bench.dir), mongo::calls(&bench.dir).len()),
        (state, before),
        "no tool was started"
    );
}

#[test]
fn a_dump_that_fails_or_is_none_makes_no_backup_and_its_tool_says_why() {
    let bench = bench();
    change(&bench, |state| state.dump_fails = true);
    let why = dump(&bench, "one").refused();
    assert!(why.contains("mongodump") && why.contains("connection reset by peer"), "{why}");
    change(&bench, |state| (state.dump_fails, state.is_down) = (false, true));
    let why = dump(&bench, "one").put_off();
    assert!(why.contains("cannot be reached"), "{why}");
    change(&bench, |state| (state.is_down, state.password) = (false, Some("another".into())));
    let why = dump(&bench, "one").refused();
    assert!(why.contains("refuses the login"), "{why}");
    change(&bench, |state| state.password = Some(PASSWORD.into()));
    // A tool that says that it is done, and printed something else.
    fs::write(bench.dir.join("bin/mongodump"), "#!/bin/sh\necho hello\n").unwrap();
    let why = dump(&bench, "one").refused();
    assert!(why.contains("no whole archive of mongodump"), "{why}");
    fs::remove_file(bench.dir.join("bin/mongodump")).unwrap();
    let why = dump(&bench, "one").refused();
    assert!(why.contains("this image has no mongodump"), "{why}");
    let left = fs::read_dir(bench.dir.join("store/one"))
        .unwrap()
        .flatten()
        .map(|f| f.file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| name.ends_with(".part")), "half a dump looks whole");
}

#[test]
fn a_load_that_fails_half_way_is_told_and_can_be_repeated() {
    let bench = bench();
    let before = State::read(&bench.dir);
    let stored = back_up(&bench, "one");
    change(&bench, |state| {
        spoil(state);
        state.restore_fails = true;
    });
    let why = load(&bench, &stored).refused();
    assert!(why.contains("mongorestore") && why.contains("connection reset by peer"), "{why}");
    change(&bench, |state| (state.restore_fails, state.restore_loses) = (false, true));
    let why = load(&bench, &stored).refused();
    assert!(why.contains("shop.orders has 499 documents instead of 500"), "{why}");
    change(&bench, |state| state.restore_loses = false);
    load(&bench, &stored).done();
    assert_eq!(State::read(&bench.dir), before);
}

#[test]
fn without_a_shell_or_on_an_older_server_nothing_is_loaded() {
    let bench = bench();
    let stored = back_up(&bench, "one");
    change(&bench, |state| state.version = "5.0.1".into());
    let why = load(&bench, &stored).refused();
    assert!(why.contains("it is of MongoDB 6.0.5, the server is 5.0.1"), "{why}");
    fs::remove_file(bench.dir.join("bin/mongosh")).unwrap();
    let why = load(&bench, &stored).refused();
    assert!(why.contains("this image has no mongosh, no mongo"), "{why}");
    assert!(mongo::calls(&bench.dir).iter().all(|call| !call.starts_with("mongorestore")));
}

#[test]
fn what_has_expired_since_the_backup_may_be_gone_once_it_is_loaded() {
    let bench = bench();
    change(&bench, |state| state.fading = vec!["orders".into()]);
    let stored = back_up(&bench, "one");
    load(&bench, &stored).done();
    assert_eq!(State::read(&bench.dir).databases["shop"]["orders"].len(), 1);
    change(&bench, |state| state.fading.clear());
    load(&bench, &stored).done();
    change(&bench, |state| state.restore_loses = true);
    load(&bench, &stored).refused();
}

#[test]
fn a_drill_loads_into_a_server_of_its_own_and_compares_every_document_and_leaves_nothing() {
    let bench = bench();
    // In the scratch server nothing expires.
    change(&bench, |state| state.fading = vec!["orders".into()]);
    let stored = back_up(&bench, "one");
    // It needs nothing of the live server.
    change(&bench, |state| (state.is_down, state.password) = (true, Some("another".into())));
    let live = State::read(&bench.dir);
    let already = mongo::calls(&bench.dir).len();
    match drill(&bench, &stored).done() {
        Report::CommandDrill { left_out, seconds } => {
            assert_eq!(left_out, Vec::<String>::new());
            assert!(seconds > 0.0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(State::read(&bench.dir), live, "the live server was touched");
    nothing_is_left(&bench);
    let plain = |call: &String| call.replace(|c: char| c.is_ascii_digit(), "");
    let calls: Vec<String> = mongo::calls(&bench.dir)[already..].iter().map(plain).collect();
    let shell = "mongosh --quiet --norc --nodb /tmp/skep-/script.js";
    assert_eq!(
        calls,
        [
            "mongod --dbpath=/tmp/skep-/data --logpath=/tmp/skep-/log --bind_ip=... --port= \
             --wiredTigerCacheSizeGB=. --nounixsocket --setParameter=ttlMonitorEnabled=false",
            shell,
            "mongorestore --host=... --port= --archive --drop --stopOnError --nsExclude=admin.* --nsExclude=config.*",
            shell,
            "mongodump --host=... --port= --archive",
        ]
    );
}

#[test]
fn a_drill_tells_what_does_not_load_and_what_came_back_otherwise() {
    let bench = bench();
    let stored = back_up(&bench, "one");
    change(&bench, |state| state.restore_loses = true);
    let why = drill(&bench, &stored).refused();
    assert!(why.contains("shop.orders has 499 documents instead of 500"), "{why}");
    change(&bench, |state| (state.restore_loses, state.restore_fails) = (false, true));
    let why = drill(&bench, &stored).refused();
    assert!(why.contains("mongorestore") && why.contains("connection reset by peer"), "{why}");
    change(&bench, |state| (state.restore_fails, state.restore_alters) = (false, true));
    match drill(&bench, &stored).done() {
        Report::CommandDrill { left_out, .. } => {
            assert_eq!(left_out.len(), 2, "{left_out:?}");
            assert!(
                left_out[0].contains("shop.orders") && left_out[1].contains("shop.users"),
                "{left_out:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    nothing_is_left(&bench);
}

#[test]
fn a_scratch_server_that_fails_blames_no_backup_and_is_not_left() {
    let bench = bench();
    let stored = back_up(&bench, "one");
    let restores = |bench: &Bench| {
        mongo::calls(&bench.dir).iter().filter(|call| call.starts_with("mongorestore")).count()
    };
    let cases = [
        (Scratch::Ends, 0, "has ended (exit status: 14):  Fatal assertion: illegal instruction"),
        (Scratch::Elsewhere, 0, "is not the scratch server"),
        (Scratch::Dies, 1, "the scratch server"),
        (Scratch::Dumb, 1, "mongodump failed"),
    ];
    for (how, loaded, wanted) in cases {
        change(&bench, |state| state.scratch = how);
        let before = restores(&bench);
        let outcome = drill(&bench, &stored);
        let fault = outcome.fault.unwrap();
        assert!(fault.message.contains(wanted), "{how:?}: {}", fault.message);
        assert_eq!(fault.kind, FaultKind::Circumstance, "{how:?}: {}", fault.message);
        assert_eq!(restores(&bench) - before, loaded, "{how:?}");
        nothing_is_left(&bench);
    }
    change(&bench, |state| (state.scratch, state.version) = (Scratch::Works, "5.0.1".into()));
    let older = drill(&bench, &stored).fault.unwrap();
    assert!(
        older.message.contains("it is of MongoDB 6.0.5") && older.kind == FaultKind::Circumstance,
        "{older:?}"
    );
    for program in ["mongosh", "mongod", "mongorestore"] {
        fs::remove_file(bench.dir.join("bin").join(program)).unwrap();
        let lacking = drill(&bench, &stored).fault.unwrap();
        assert!(lacking.message.contains(program) && lacking.kind == FaultKind::Circumstance, "{lacking:?}");
    }
}

#[test]
fn a_drill_of_what_is_altered_starts_nothing() {
    let bench = bench();
    let stored = back_up(&bench, "one");
    let path = bench.dir.join("store/one/mongodb.archive");
    let mut altered = fs::read(&path).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(&path, altered).unwrap();
    let before = mongo::calls(&bench.dir).len();
    drill(&bench, &stored).refused();
    assert_eq!(mongo::calls(&bench.dir).len(), before);
}

/// A member of a replica set, to which is written while it is dumped.
fn member() -> Bench {
    let bench = bench();
    change(&bench, |state| {
        let written = |n: i64| [("_id", Field::Long(n)), ("what", Field::Text("meanwhile"))];
        (state.member, state.replays) = (true, true);
        state.oplog = vec![
            mongo::change("n", "", &[("msg", Field::Text("periodic noop"))]),
            mongo::change("i", "shop.orders", &written(1000)),
            mongo::change("i", "admin.system.users", &written(1001)),
            mongo::change("i", "config.system.sessions", &written(1002)),
            mongo::change("i", "more.empty", &written(1003)),
        ];
    });
    bench
}

#[test]
fn a_member_of_a_replica_set_is_backed_up_as_it_was_at_one_moment() {
    let bench = member();
    let before = State::read(&bench.dir);
    let dumped = dumped(&bench, "zero");
    assert_eq!(dumped.contents.not_held, Vec::<String>::new());
    assert_eq!(dumped.contents.entries, 505, "the oplog is no collection");
    let written = fs::read(bench.dir.join("store/zero/mongodb.archive")).unwrap();
    assert_eq!(written, mongo::archive_with_oplog(&before));
    let stored = back_up(&bench, "one");
    examine(&bench, &stored).done();
    change(&bench, spoil);
    let already = mongo::calls(&bench.dir).len();
    match load(&bench, &stored).done() {
        Report::CommandLoad { left } => assert_eq!(left, Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
    let after = State::read(&bench.dir).databases;
    assert_eq!((after["shop"]["orders"].len(), after["more"]["empty"].len()), (501, 1));
    assert_eq!(after["admin"], before.databases["admin"], "accounts stay as they are");
    assert!(!after.contains_key("config"));
    let calls = mongo::calls(&bench.dir);
    assert_eq!(calls[already..].len(), 4);
    let last = &calls[already + 3];
    assert!(last.ends_with(" --archive --oplogReplay --stopOnError"), "{last}");
    // Again changes nothing.
    load(&bench, &stored).done();
    assert_eq!(State::read(&bench.dir).databases, after);
}

#[test]
fn a_login_that_may_not_replay_is_found_out_before_and_told() {
    let bench = member();
    change(&bench, |state| state.replays = false);
    let before = State::read(&bench.dir);
    let stored = back_up(&bench, "one");
    change(&bench, spoil);
    match load(&bench, &stored).done() {
        Report::CommandLoad { left } => {
            assert!(
                left.len() == 1 && left[0].contains("2 changes") && left[0].contains("anyAction"),
                "{left:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(State::read(&bench.dir).databases, before.databases, "as the dump found each collection");
    assert!(mongo::calls(&bench.dir).iter().all(|call| !call.contains("--oplogReplay")));
    // Nothing that a load would bring needs no right.
    change(&bench, |state| {
        state.oplog.retain(|change| !change.windows(5).any(|part| part == b"shop." || part == b"more."))
    });
    let stored = back_up(&bench, "two");
    match load(&bench, &stored).done() {
        Report::CommandLoad { left } => assert_eq!(left, Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_oplog_that_cannot_be_had_makes_a_backup_that_is_not_of_one_moment_and_says_so() {
    let bench = member();
    change(&bench, |state| state.oplog_overflows = true);
    let found = dumped(&bench, "one");
    let [why] = found.contents.not_held.try_into().unwrap();
    assert!(why.contains("one moment") && why.contains("oplog overflow"), "{why}");
    let names = fs::read_dir(bench.dir.join("store/one")).unwrap().flatten().map(|f| f.file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["mongodb.archive"]);
    // What fails for another reason is no backup.
    change(&bench, |state| (state.oplog_overflows, state.dump_fails) = (false, true));
    dump(&bench, "two").refused();
    assert!(!fs::exists(bench.dir.join("store/two/mongodb.archive")).unwrap());
    // Without a shell nobody can be asked.
    change(&bench, |state| state.dump_fails = false);
    fs::remove_file(bench.dir.join("bin/mongosh")).unwrap();
    assert_eq!(dumped(&bench, "three").contents.not_held.len(), 1);
}

#[test]
fn an_altered_oplog_is_refused_and_one_that_cannot_be_replayed_fails_load_and_drill() {
    let bench = member();
    let stored = back_up(&bench, "one");
    match drill(&bench, &stored).done() {
        Report::CommandDrill { left_out, .. } => assert_eq!(left_out, Vec::<String>::new()),
        other => panic!("{other:?}"),
    }
    assert!(mongo::calls(&bench.dir).last().unwrap().contains("--oplogReplay"));
    change(&bench, |state| state.replay_fails = true);
    for outcome in [drill(&bench, &stored), load(&bench, &stored)] {
        let why = outcome.refused();
        assert!(why.contains("error applying oplog"), "{why}");
    }
    nothing_is_left(&bench);
    let path = bench.dir.join("store/one/mongodb.archive");
    let mut altered = fs::read(&path).unwrap();
    let at = altered.windows(9).rposition(|part| part == b"meanwhile").unwrap();
    altered[at] ^= 1;
    fs::write(&path, altered).unwrap();
    examine(&bench, &stored).refused();
    let before = mongo::calls(&bench.dir).len();
    load(&bench, &stored).refused();
    assert_eq!(mongo::calls(&bench.dir).len(), before);
}
