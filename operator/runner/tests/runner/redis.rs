//! Redis: an RDB of a running server, and data that the live server really reads.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use crate::support::{Bench, PASSWORD, Server, free_port};
use rustix::process::{Pid, Signal, kill_process};
use skep_runner::task::{
    CheckOutcome, DataChecks, DataEngine, DirInspect, DirInspection, DirMove, Direction, Expect, RedisFiles,
    Report, ServerSettings, SqlCheck, Stored, Task,
};

/// A server with a password, on the bench's data.
struct Redis {
    bench: Bench,
    port: u16,
    args: Vec<String>,
    server: Option<Server>,
}

impl Redis {
    fn start(more: &[&str]) -> Redis {
        let bench = Bench::new(DataEngine::Redis);
        let port = free_port();
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]
            .iter()
            .map(|arg| (*arg).to_owned())
            .collect();
        args.extend([
            "--dir".to_owned(),
            bench.root(),
            "--repl-diskless-sync-delay".to_owned(),
            "0".to_owned(),
        ]);
        args.extend(["--requirepass".to_owned(), PASSWORD.to_owned()]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let mut redis = Redis { bench, port, args, server: None };
        redis.up();
        redis.say(&["ACL", "SETUSER", "skep", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
        redis
    }

    fn up(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.server = Some(self.bench.serve("redis-server", &args));
        crate::support::until(|| self.try_say(&["PING"]) == "PONG");
    }

    fn down(&mut self) {
        self.server.take().unwrap().stop();
    }

    fn try_say(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .env("REDISCLI_AUTH", PASSWORD)
            .args(["-p", &self.port.to_string(), "--no-auth-warning"])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn say(&self, words: &[&str]) -> String {
        let said = self.try_say(words);
        assert!(
            !said.starts_with("ERR") && !said.starts_with("NOAUTH"),
            "{words:?}: {said} {}",
            self.bench.log()
        );
        said
    }

    /// One key of each type, in two databases, some of which expire.
    fn fill(&self) {
        for line in [
            "SET text hello",
            "SET number 42",
            "SET brief x EX 100000",
            "PSETEX brief2 200000000 y",
            "RPUSH list a b c",
            "SADD set a b c 1 2 3",
            "SADD ints 1 2 3",
            "ZADD sorted 1 a 2.5 b",
            "HSET hash f1 v1 f2 v2",
            "XADD stream 1-1 k v",
            "XGROUP CREATE stream group 0",
            "PFADD visitors a b c",
            "SETBIT bits 1000 1",
            "GEOADD geo 13.361389 38.115556 Palermo",
        ] {
            self.say(&line.split(' ').collect::<Vec<_>>());
        }
        self.say(&["-n", "3", "SET", "elsewhere", "in database 3"]);
        let mut many = String::new();
        for n in 0..2000 {
            many += &format!("SET many:{n} value-{n}\r\n");
        }
        self.pipe(&many);
    }

    fn pipe(&self, commands: &str) {
        use std::io::Write as _;
        let mut cli = Command::new("redis-cli")
            .env("REDISCLI_AUTH", PASSWORD)
            .args(["-p", &self.port.to_string(), "--no-auth-warning", "--pipe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        cli.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(cli.wait().unwrap().success());
    }

    /// Every key of both databases: type, time of expiry, and content, as the server itself serialises it where
    /// that has an order.
    fn content(&self) -> Vec<String> {
        let script = "local all = {} \
             for _, db in ipairs({0, 3}) do redis.call('SELECT', db) \
               for _, key in ipairs(redis.call('KEYS', '*')) do \
                 local kind, what = redis.call('TYPE', key)['ok'], redis.call('DUMP', key) \
                 if kind == 'set' then what = redis.call('SMEMBERS', key) table.sort(what) what = table.concat(what, ',') end \
                 table.insert(all, db .. ' ' .. key .. ' ' .. kind .. ' ' .. redis.call('PEXPIRETIME', key) .. ' ' .. redis.sha1hex(what)) \
               end end \
             return all";
        let mut lines: Vec<_> = self.say(&["EVAL", script, "0"]).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Fails with what differs.
    fn holds(&self, wanted: &[String]) {
        let found = self.content();
        let only = |these: &[String], those: &[String]| {
            these.iter().filter(|line| !those.contains(line)).take(5).cloned().collect::<Vec<_>>()
        };
        assert_eq!((only(&found, wanted), only(wanted, &found)), (vec![], vec![]), "{}", self.bench.log());
    }

    fn connect(&self) -> skep_runner::task::Connect {
        self.bench.connect("", self.port)
    }

    fn inspect(&self, backups: Vec<Stored>) -> DirInspection {
        let task = DirInspect {
            engine: DataEngine::Redis,
            connect: Some(self.connect()),
            root: self.bench.root(),
            backups,
        };
        match self.bench.run(Task::DirInspect(task)).done() {
            Report::DirInspect(found) => *found,
            other => panic!("{other:?}"),
        }
    }

    fn there_and_back(mut self) -> Redis {
        self.fill();
        let before = self.content();
        assert!(before.len() > 2010);
        let stored = self.bench.back_up(Some(self.connect()), "one");
        self.say(&["FLUSHALL"]);
        self.say(&["SET", "later", "1"]);
        let loaded = self.bench.load(&stored, "r1");
        assert_eq!(loaded.entries, before.len() as u64);
        assert_eq!(self.say(&["DBSIZE"]), "1", "the live server is as it was");
        self.down();
        self.bench.moved("r1", Direction::Forward);
        self.up();
        self.holds(&before);
        self.say(&["SET", "after", "1"]);
        self.down();
        self.up();
        assert_eq!(self.say(&["GET", "after"]), "1", "it keeps what is written after");
        self.down();
        self.bench.moved("r1", Direction::Back);
        self.up();
        assert_eq!(self.say(&["KEYS", "*"]), "later");
        self
    }
}

fn check(name: &str, command: &str, expect: Expect) -> SqlCheck {
    SqlCheck { name: name.into(), sql: command.into(), expect }
}

#[test]
fn a_server_with_an_rdb_comes_back_exactly() {
    Redis::start(&["--appendonly", "no", "--save", "3600 1"]).there_and_back();
}

#[test]
fn a_server_with_append_only_files_reads_what_was_restored() {
    let redis = Redis::start(&["--appendonly", "yes", "--save", "3600 1"]);
    let redis = redis.there_and_back();
    assert!(redis.bench.data().join("appendonlydir").exists());
}

#[test]
fn other_names_and_numbers_of_files_are_the_servers_own() {
    Redis::start(&[
        "--appendonly",
        "yes",
        "--appendfilename",
        "journal.aof",
        "--appenddirname",
        "journals",
        "--dbfilename",
        "snapshot.rdb",
        "--databases",
        "5",
    ])
    .there_and_back();
}

#[test]
fn the_new_files_belong_to_the_owner_of_the_old_ones_and_others_stay() {
    let mut redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    let data = redis.bench.data();
    fs::write(data.join("users.acl"), "user default on nopass ~* +@all\n").unwrap();
    let owner = fs::metadata(data.join("appendonlydir")).unwrap().uid();
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    redis.bench.load(&stored, "r1");
    redis.down();
    redis.bench.moved("r1", Direction::Forward);
    assert!(data.join("users.acl").exists(), "what is not Redis's data stays where it is");
    for entry in fs::read_dir(data.join("appendonlydir")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().uid(), owner);
    }
    assert_eq!(fs::metadata(data.join("appendonlydir")).unwrap().uid(), owner);
    assert!(data.join(".skep-r1/old/appendonlydir").exists());
    redis.up();
}

#[test]
fn keys_that_expired_meanwhile_are_not_missed() {
    let mut redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    for n in 0..50 {
        redis.say(&["SET", &format!("short:{n}"), "x", "PX", "1500"]);
    }
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    crate::support::until(|| redis.say(&["EXISTS", "short:49"]) == "0");
    let loaded = redis.bench.load(&stored, "r1");
    redis.down();
    redis.bench.moved("r1", Direction::Forward);
    redis.up();
    assert_eq!(redis.content().len() as u64, loaded.entries);
}

#[test]
fn no_password_is_in_an_argument_and_a_wrong_one_is_told() {
    let redis = Redis::start(&["--appendonly", "no"]);
    redis.fill();
    // A client that tells its arguments instead of dumping.
    let shim = redis.bench.dir.join("bin/redis-cli");
    fs::write(&shim, "#!/bin/sh\necho \"$0 $*\" >> \"${0%/*}/argv\"\nexec /usr/bin/redis-cli \"$@\"\n")
        .unwrap();
    assert!(Command::new("chmod").arg("755").arg(&shim).status().unwrap().success());
    let with_user = redis.bench.connect("skep", redis.port);
    redis.bench.dump(Some(with_user), "acl");
    let argv = fs::read_to_string(redis.bench.dir.join("bin/argv")).unwrap();
    assert!(argv.contains("--rdb") && argv.contains("--user skep"), "{argv}");
    assert!(!argv.contains("S3kret"), "{argv}");
    fs::write(redis.bench.dir.join("password"), "wrong-password-9\n").unwrap();
    let task = Task::DirInspect(DirInspect {
        engine: DataEngine::Redis,
        connect: Some(redis.connect()),
        root: redis.bench.root(),
        backups: vec![],
    });
    let outcome = redis.bench.run(task);
    assert!(!outcome.text.contains("wrong-password-9"), "{}", outcome.text);
    assert!(outcome.refused().contains("WRONGPASS"));
}

#[test]
fn a_look_tells_which_files_count() {
    let redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    let found = redis.inspect(vec![stored]);
    assert!(found.server_version.unwrap().starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(
        found.settings,
        Some(ServerSettings::Redis(RedisFiles {
            append_only: true,
            rdb: "dump.rdb".into(),
            aof: "appendonly.aof".into(),
            aof_dir: Some("appendonlydir".into()),
            databases: 16,
        }))
    );
    assert_eq!(found.backups["one"], Vec::<String>::new());
}

#[test]
fn a_damaged_rdb_is_refused_though_its_checksums_are_right() {
    let redis = Redis::start(&["--appendonly", "no"]);
    redis.fill();
    redis.bench.dump(Some(redis.connect()), "one");
    let whole = fs::read(redis.bench.dir.join("store/one/dump.rdb")).unwrap();
    let settings = redis.inspect(vec![]).settings;
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (n, damaged) in
        [whole[..whole.len() / 2].to_vec(), flipped, b"not an RDB at all".to_vec()].iter().enumerate()
    {
        let stored = redis.bench.plant(&format!("bad{n}"), "dump.rdb", damaged);
        let said = redis.bench.run(redis.bench.examine(&stored)).refused();
        assert!(said.contains("RDB"), "{said}");
        let mut load = redis.bench.load_task(&stored, "r1");
        load.settings.clone_from(&settings);
        let said = redis.bench.run(Task::DirLoad(load)).refused();
        assert!(said.contains("RDB"), "{said}");
        assert!(!redis.bench.data().join(".skep-r1").exists());
    }
    assert_eq!(redis.content().len() as u64, redis.bench.dump(Some(redis.connect()), "two").contents.entries);
}

#[test]
fn without_knowing_the_servers_files_nothing_is_built() {
    let redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    redis.bench.dump(Some(redis.connect()), "one");
    let bytes = fs::read(redis.bench.dir.join("store/one/dump.rdb")).unwrap();
    let stored = redis.bench.plant("unknown", "dump.rdb", &bytes);
    let said = redis.bench.run(Task::DirLoad(redis.bench.load_task(&stored, "r1"))).refused();
    assert!(said.contains("not known which files"), "{said}");
    assert!(!redis.bench.data().join(".skep-r1").exists());
}

#[test]
fn a_killed_load_is_done_anew_and_its_server_keeps_the_next_one_out() {
    let mut redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    let before = redis.content();
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    let child = redis.bench.runner(Task::DirLoad(redis.bench.load_task(&stored, "r1"))).spawn();
    let side = redis.bench.data().join(".skep-r1");
    crate::support::until(|| side.join("s").exists());
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    let scratch = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let id: i32 = path.file_name()?.to_str()?.parse().ok()?;
        let arguments = fs::read(path.join("cmdline")).ok()?;
        String::from_utf8_lossy(&arguments).contains(side.to_str()?).then_some(id)
    });
    let scratch: Vec<i32> = scratch.collect();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait_with_output().unwrap();
    // The server, and what it may just have forked.
    assert!(!scratch.is_empty());
    let said = redis.bench.run(Task::DirLoad(redis.bench.load_task(&stored, "r1"))).put_off();
    assert!(said.contains("another job of Skep"), "{said}");
    // One that it has forked may have ended.
    let killed = scratch.into_iter().map(|id| kill_process(Pid::from_raw(id).unwrap(), Signal::KILL));
    assert!(killed.filter(Result::is_ok).count() > 0);
    redis.bench.load(&stored, "r1");
    redis.down();
    redis.bench.moved("r1", Direction::Forward);
    redis.up();
    redis.holds(&before);
}

#[test]
fn a_move_of_redis_killed_at_every_rename_is_ended_or_taken_back() {
    let mut redis = Redis::start(&["--appendonly", "yes"]);
    redis.fill();
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    redis.say(&["FLUSHALL"]);
    redis.down();
    let mut deaths = 0;
    for (at, direction) in (1..=6).flat_map(|at| [(at, Direction::Forward), (at, Direction::Back)]) {
        let side = format!("k{at}-{}", u8::from(direction == Direction::Back));
        redis.bench.load(&stored, &side);
        let forward = || redis.bench.runner(redis.bench.move_task(&side, Direction::Forward));
        deaths += u32::from(forward().env("SKEP_RUNNER_DIE_AT", at.to_string()).run().code.is_none());
        redis.bench.moved(&side, direction);
        redis.bench.moved(&side, Direction::Back);
        assert!(redis.bench.data().join("appendonlydir").exists());
    }
    assert!(deaths >= 8, "{deaths}");
    redis.up();
    assert_eq!(redis.say(&["DBSIZE"]), "0");
}

#[test]
fn checks_read_and_do_nothing_else() {
    let redis = Redis::start(&["--appendonly", "no"]);
    redis.fill();
    let checks = vec![
        check("alive", "ping", Expect::Eq("PONG".into())),
        check("keys", "DBSIZE", Expect::Ge(2000.0)),
        check("few", "DBSIZE", Expect::Lt(10.0)),
        check("value", "GET number", Expect::Eq("42".into())),
        check("nothing", "GET absent", Expect::Ne("x".into())),
        check("wrong type", "GET list", Expect::Any),
        check("writes", "FLUSHALL", Expect::Any),
        check("script", "EVAL return(1) 0", Expect::Any),
    ];
    let task = DataChecks {
        engine: DataEngine::Redis,
        connect: redis.connect(),
        database: None,
        checks: checks.clone(),
        deadline_s: 0,
    };
    let Report::Checks { outcomes } = redis.bench.run(Task::DataChecks(task)).done() else {
        panic!("another report")
    };
    let passed =
        |outcomes: &[CheckOutcome]| outcomes.iter().map(|outcome| outcome.passed).collect::<Vec<_>>();
    assert_eq!(passed(&outcomes), [true, true, false, true, false, false, false, false], "{outcomes:?}");
    let third = DataChecks {
        engine: DataEngine::Redis,
        connect: redis.connect(),
        database: Some("3".into()),
        checks: vec![check("keys", "DBSIZE", Expect::Eq("1".into()))],
        deadline_s: 0,
    };
    let Report::Checks { outcomes: third } = redis.bench.run(Task::DataChecks(third)).done() else {
        panic!("another")
    };
    assert!(third[0].passed);
    let stored = redis.bench.back_up(Some(redis.connect()), "one");
    let mut load = redis.bench.load_task(&stored, "r1");
    load.checks = checks;
    let Report::DirLoad(loaded) = redis.bench.run(Task::DirLoad(load)).done() else {
        panic!("another report")
    };
    assert_eq!(passed(&loaded.checks), passed(&outcomes));
    assert!(redis.content().len() > 2010, "nothing was flushed");
}

#[test]
fn a_server_that_is_away_is_worth_another_attempt() {
    let mut redis = Redis::start(&["--appendonly", "no"]);
    redis.down();
    let task = DataChecks {
        engine: DataEngine::Redis,
        connect: redis.connect(),
        database: None,
        checks: vec![],
        deadline_s: 0,
    };
    assert!(redis.bench.run(Task::DataChecks(task)).put_off().contains("cannot be reached"));
    let moves = DirMove { root: "relative".into(), side: "r1".into(), direction: Direction::Back };
    assert!(redis.bench.run(Task::DirMove(moves)).refused().contains("not an absolute path"));
}
