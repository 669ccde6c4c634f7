//! MariaDB: a dump of all databases of a running server, and a data directory that the live server starts on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use crate::support::{Bench, PASSWORD, Server, free_port};
use skep_runner::task::{
    Connect, DataChecks, DataEngine, DirInspect, Direction, Expect, MysqlSettings, Report, ServerSettings,
    SqlCheck, Task,
};

/// What is in the server: schemas, rows, programs, accounts.
const SCHEMA: &str = r#"
CREATE DATABASE shop CHARACTER SET utf8mb4; USE shop;
CREATE TABLE users (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100) NOT NULL, doc JSON, pic LONGBLOB,
  price DECIMAL(20,6), at DATETIME(6), flag BIT(5), UNIQUE (name)) AUTO_INCREMENT=1000;
CREATE TABLE orders (id INT PRIMARY KEY, user INT, FOREIGN KEY (user) REFERENCES users (id) ON DELETE CASCADE);
CREATE TABLE log (line TEXT) ENGINE=Aria;
CREATE SEQUENCE numbers START WITH 7;
INSERT INTO users (name, doc, pic, price, at, flag) VALUES
  ('zoë \'quoted\' \\ \n 🐝', '{"a": [1, 2]}', UNHEX('00FF0A0D1A5C2722'), 1234.567891, '2026-01-02 03:04:05.678901', b'10101'),
  ('second', NULL, REPEAT(UNHEX('00'), 70000), -0.000001, '0001-01-01', b'0');
INSERT INTO orders VALUES (1, 1000), (2, 1001);
INSERT INTO log VALUES ('first'), ('second');
CREATE VIEW names AS SELECT name FROM users;
CREATE TRIGGER told AFTER INSERT ON orders FOR EACH ROW INSERT INTO log VALUES (CONCAT('order ', NEW.id));
DELIMITER //
CREATE PROCEDURE p(IN x INT) BEGIN SELECT x + 1; END//
CREATE FUNCTION twice(x INT) RETURNS INT DETERMINISTIC BEGIN DECLARE y INT; SET y = x * 2; RETURN y; END//
DELIMITER ;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM log;
CREATE DATABASE `od``d näme`; CREATE TABLE `od``d näme`.`t t` (`c c` INT); INSERT INTO `od``d näme`.`t t` VALUES (1);
CREATE USER app@'%' IDENTIFIED BY 'app-password'; GRANT SELECT, INSERT ON shop.* TO app@'%';
CREATE ROLE readers; GRANT SELECT ON shop.names TO readers; GRANT readers TO app@'%';
"#;

/// A server on the bench's data, with a root that has a password.
struct Mysql {
    bench: Bench,
    port: u16,
    more: Vec<String>,
    server: Option<Server>,
}

impl Mysql {
    fn start(more: &[&str]) -> Mysql {
        let bench = Bench::new(DataEngine::Mysql);
        let more: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        let mut install = Command::new("mariadb-install-db");
        install
            .env("PATH", bench.path())
            .env("TMPDIR", bench.tmp())
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--rpm"])
            .arg(format!("--datadir={}", bench.root()))
            .args(more.iter().filter(|arg| arg.contains("innodb")));
        let mut install = as_nobody(install);
        assert!(install.stdout(Stdio::null()).status().unwrap().success());
        let mut mysql = Mysql { port: free_port(), bench, more, server: None };
        mysql.up();
        let quoted = PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
        mysql.sql_as(
            "root",
            None,
            &format!(
                "CREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '{quoted}'; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
                 ALTER USER root@localhost IDENTIFIED BY '{quoted}'"
            ),
        );
        mysql
    }

    fn up(&mut self) {
        let (data, socket) =
            (format!("--datadir={}", self.bench.root()), format!("--socket={}", self.socket()));
        let (port, pid) = (format!("--port={}", self.port), format!("--pid-file={}/pid", self.bench.root()));
        let mut args = vec![
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            &data,
            &socket,
            &port,
            &pid,
        ];
        args.extend(self.more.iter().map(String::as_str));
        self.server = Some(self.bench.serve("mariadbd", &args));
        let began = std::time::Instant::now();
        while !fs::exists(self.socket()).unwrap() {
            assert!(began.elapsed().as_secs() < 60, "{}", self.bench.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn down(&mut self) {
        self.server.take().unwrap().stop();
        assert!(!fs::exists(self.socket()).unwrap());
    }

    fn socket(&self) -> String {
        format!("{}/mysqld.sock", self.bench.root())
    }

    fn sql(&self, sql: &str) -> String {
        self.sql_as("root", Some(PASSWORD), sql)
    }

    fn sql_as(&self, user: &str, password: Option<&str>, sql: &str) -> String {
        use std::io::Write as _;
        let mut client = Command::new("mariadb");
        client.args([
            "--no-defaults",
            "-S",
            &self.socket(),
            "-u",
            user,
            "-N",
            "--default-character-set=utf8mb4",
        ]);
        if let Some(password) = password {
            client.env("MYSQL_PWD", password);
        }
        let mut client =
            client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        client.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn connect(&self) -> Connect {
        self.bench.connect("root", self.port)
    }

    /// Everything that is to be the same, told by the server. (Which collation the schema `mysql` has depends on who
    /// made the data directory, and means nothing: its tables have their own.)
    fn content(&self) -> String {
        [
            "SELECT * FROM shop.users ORDER BY id; SELECT id, HEX(pic), HEX(name), BIN(flag) FROM shop.users ORDER BY id",
            "SELECT * FROM shop.orders ORDER BY id; SELECT * FROM shop.log; SELECT * FROM shop.names ORDER BY 1",
            "SELECT * FROM `od``d näme`.`t t`",
            "SHOW CREATE TABLE shop.users; SHOW CREATE TABLE shop.orders; SHOW CREATE TABLE shop.log",
            "SHOW CREATE VIEW shop.names;
             SELECT trigger_name, action_statement, sql_mode, definer FROM information_schema.triggers ORDER BY 1",
            "SHOW CREATE PROCEDURE shop.p; SHOW CREATE FUNCTION shop.twice; SHOW CREATE EVENT shop.nightly",
            "SHOW CREATE SEQUENCE shop.numbers",
            "SELECT user, host, JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv ORDER BY 1, 2",
            "SHOW GRANTS FOR app@'%'; SHOW GRANTS FOR readers; SHOW GRANTS FOR root@'127.0.0.1'",
            "SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata
             WHERE schema_name NOT LIKE '#mysql50#%' AND schema_name <> 'mysql' ORDER BY 1",
            "SELECT table_schema, table_name, engine FROM information_schema.tables
             WHERE table_schema NOT IN ('information_schema', 'performance_schema') AND table_schema NOT LIKE '#mysql50#%'
             ORDER BY 1, 2",
        ]
        .iter()
        .map(|sql| self.sql(&format!("USE shop; {sql}")))
        .collect()
    }

    fn there_and_back(mut self) {
        self.sql(SCHEMA);
        // Times in it are those of its making, to the second.
        let before = self.content();
        let stored = self.bench.back_up(Some(self.connect()), "one");
        self.sql("DROP DATABASE shop; DROP USER app@'%'; CREATE DATABASE later");
        let loaded = self.bench.load(&stored, "r1");
        assert_eq!(loaded.entries, 5);
        assert!(self.sql("SHOW DATABASES").contains("later"), "the live server is as it was");
        self.down();
        self.bench.moved("r1", Direction::Forward);
        self.up();
        same(&before, &self.content());
        assert_eq!(self.sql("SELECT shop.twice(21); CALL shop.p(1)"), "42\n2\n");
        let app = self.sql_as("app", Some("app-password"), "SELECT COUNT(*) FROM shop.users");
        assert_eq!(app, "2\n");
        self.sql("INSERT INTO shop.orders VALUES (3, 1000)");
        assert!(self.sql("SELECT * FROM shop.log").contains("order 3"));
        assert_eq!(self.sql("SELECT NEXT VALUE FOR shop.numbers"), "7\n");
        self.down();
        self.bench.moved("r1", Direction::Back);
        self.up();
        assert!(self.sql("SHOW DATABASES").contains("later"));
        assert!(!self.sql("SHOW DATABASES").contains("shop"));
    }
}

fn as_nobody(command: Command) -> Command {
    if !rustix::process::geteuid().is_root() {
        return command;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap());
    }
    wrapped
}

/// Fails with the first line that differs.
fn same(wanted: &str, found: &str) {
    for (wanted, found) in wanted.lines().zip(found.lines()) {
        assert_eq!(wanted.get(..500).unwrap_or(wanted), found.get(..500).unwrap_or(found));
    }
    assert!(wanted == found);
}

#[test]
fn all_of_a_server_comes_back_exactly() {
    Mysql::start(&[]).there_and_back();
}

#[test]
fn what_the_data_was_made_with_stays() {
    Mysql::start(&[
        "--innodb-page-size=8k",
        "--lower-case-table-names=1",
        "--character-set-server=latin1",
        "--collation-server=latin1_german1_ci",
        "--innodb-data-file-path=ibdata7:12M:autoextend",
    ])
    .there_and_back();
}

#[test]
fn the_new_files_belong_to_the_owner_of_the_old_ones() {
    let mysql = Mysql::start(&[]);
    mysql.sql(SCHEMA);
    let stored = mysql.bench.back_up(Some(mysql.connect()), "one");
    mysql.bench.load(&stored, "r1");
    let new = mysql.bench.data().join(".skep-r1/new");
    let owner = fs::metadata(mysql.bench.data().join("ibdata1")).unwrap().uid();
    for name in ["", "ibdata1", "shop", "shop/users.ibd", "mysql"] {
        assert_eq!(fs::metadata(new.join(name)).unwrap().uid(), owner, "{name}");
    }
}

#[test]
fn a_look_tells_how_the_data_was_made() {
    let mysql = Mysql::start(&[]);
    mysql.sql(SCHEMA);
    let dumped = mysql.bench.dump(Some(mysql.connect()), "one");
    assert_eq!(dumped.contents.entries, 5);
    assert!(
        dumped.contents.not_held.iter().any(|text| text.contains("1 tables without transactions")),
        "{dumped:?}"
    );
    let stored = mysql.bench.sealed("one", mysql.bench.manifest("one", dumped));
    let task = DirInspect {
        engine: DataEngine::Mysql,
        connect: Some(mysql.connect()),
        root: mysql.bench.root(),
        backups: vec![stored],
    };
    let Report::DirInspect(found) = mysql.bench.run(Task::DirInspect(task)).done() else {
        panic!("another report")
    };
    assert!(found.server_version.unwrap().contains("MariaDB"));
    let Some(ServerSettings::Mysql(MysqlSettings { page_size, data_file_path, .. })) = found.settings else {
        panic!()
    };
    assert_eq!((page_size, data_file_path.as_str()), (16384, "ibdata1:12M:autoextend"));
    assert_eq!(found.backups["one"], Vec::<String>::new());
}

#[test]
fn a_dump_that_is_cut_short_or_does_not_load_is_refused() {
    let mysql = Mysql::start(&[]);
    mysql.sql(SCHEMA);
    let dumped = mysql.bench.dump(Some(mysql.connect()), "one");
    let whole = fs::read(mysql.bench.dir.join("store/one/all.sql")).unwrap();
    let short = mysql.bench.plant("short", "all.sql", &whole[..whole.len() - 200]);
    for task in [mysql.bench.examine(&short), {
        let mut load = mysql.bench.load_task(&short, "r1");
        load.settings.clone_from(&dumped.contents.settings);
        Task::DirLoad(load)
    }] {
        let said = mysql.bench.run(task).refused();
        assert!(said.contains("cut short"), "{said}");
    }
    let text = String::from_utf8_lossy(&whole).replacen("CREATE TABLE `orders`", "CREATE TABLES `orders`", 1);
    let odd = mysql.bench.plant("odd", "all.sql", text.as_bytes());
    let mut load = mysql.bench.load_task(&odd, "r1");
    load.settings.clone_from(&dumped.contents.settings);
    let said = mysql.bench.run(Task::DirLoad(load)).refused();
    assert!(said.contains("error in your SQL syntax"), "{said}");
    assert!(!mysql.bench.data().join(".skep-r1").exists());
    assert_eq!(mysql.sql("SELECT COUNT(*) FROM shop.users"), "2\n");
}

#[test]
fn checks_read_and_do_nothing_else() {
    let mysql = Mysql::start(&[]);
    mysql.sql(SCHEMA);
    let check = |name: &str, sql: &str, expect| SqlCheck { name: name.into(), sql: sql.into(), expect };
    let checks = vec![
        check("users", "SELECT COUNT(*) FROM shop.users", Expect::Eq("2".into())),
        check("many", "SELECT COUNT(*) FROM shop.users;", Expect::Gt(5.0)),
        check("name", "SELECT name FROM shop.users WHERE id = 1001", Expect::Matches("^sec".into())),
        check("none", "SELECT name FROM shop.users WHERE id = 7", Expect::Ne("x".into())),
        check("null", "SELECT doc FROM shop.users WHERE id = 1001", Expect::Ne("x".into())),
        check("absent", "SELECT 1 FROM shop.absent", Expect::Any),
        check("writes", "DELETE FROM shop.users", Expect::Any),
        check("two", "SELECT 1; DELETE FROM shop.users", Expect::Any),
        check("hidden", "SELECT shop.wipe()", Expect::Any),
    ];
    mysql.sql(
        "DELIMITER //\nCREATE FUNCTION shop.wipe() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM shop.users; RETURN 1; END//",
    );
    let passes = [true, false, true, false, false, false, false, false, false];
    let task = DataChecks {
        engine: DataEngine::Mysql,
        connect: mysql.connect(),
        database: Some("shop".into()),
        checks: checks.clone(),
        deadline_s: 0,
    };
    let Report::Checks { outcomes } = mysql.bench.run(Task::DataChecks(task)).done() else {
        panic!("another report")
    };
    assert_eq!(outcomes.iter().map(|o| o.passed).collect::<Vec<_>>(), passes, "{outcomes:?}");
    let stored = mysql.bench.back_up(Some(mysql.connect()), "one");
    let mut load = mysql.bench.load_task(&stored, "r1");
    load.checks = checks;
    let Report::DirLoad(loaded) = mysql.bench.run(Task::DirLoad(load)).done() else {
        panic!("another report")
    };
    assert_eq!(loaded.checks.iter().map(|o| o.passed).collect::<Vec<_>>(), passes, "{:?}", loaded.checks);
    assert_eq!(mysql.sql("SELECT COUNT(*) FROM shop.users"), "2\n");
}

#[test]
fn no_password_is_in_an_argument_and_a_wrong_one_is_told() {
    let mut mysql = Mysql::start(&[]);
    for tool in ["mariadb", "mariadb-dump"] {
        let shim = mysql.bench.dir.join("bin").join(tool);
        let text = format!("#!/bin/sh\necho \"$0 $*\" >> \"${{0%/*}}/argv\"\nexec /usr/bin/{tool} \"$@\"\n");
        fs::write(&shim, text).unwrap();
        assert!(Command::new("chmod").arg("755").arg(&shim).status().unwrap().success());
    }
    mysql.bench.dump(Some(mysql.connect()), "one");
    let argv = fs::read_to_string(mysql.bench.dir.join("bin/argv")).unwrap();
    assert!(argv.contains("mariadb-dump --no-defaults") && !argv.contains("S3kret"), "{argv}");
    let task = || {
        let connect = mysql.connect();
        Task::DataChecks(DataChecks {
            engine: DataEngine::Mysql,
            connect,
            database: None,
            checks: vec![],
            deadline_s: 0,
        })
    };
    let wrong = task();
    fs::write(mysql.bench.dir.join("password"), "wrong-password-9\n").unwrap();
    let outcome = mysql.bench.run(wrong);
    assert!(!outcome.text.contains("wrong-password-9"));
    assert!(outcome.refused().contains("Access denied"));
    let away = task();
    mysql.down();
    assert!(mysql.bench.run(away).put_off().contains("cannot be reached"));
}
