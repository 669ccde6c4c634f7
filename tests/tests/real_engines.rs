//! Volumes, a Redis with append-only files, a MariaDB, a RabbitMQ, and what only commands dump and load on a real Swarm:
//! backed up, spoilt, restored; and the same when the driver dies in the middle, and when what is restored fails a check once it is
//! live. And drilled: what a drill proves and catches, and that nothing of it stays.
//!
//! Run by: `make runner && cargo test -p skep-tests --test real_engines -- --ignored --test-threads 1`. Needs root and the
//! Debian packages of `make setup`; it fails without them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use skep::operation::catalogue::Backup;
use skep::operation::claim::gave_way;
use skep::operation::desk;
use skep::operation::record::{Operation, State, Work};
use skep::operation::settings::{Settings, Store};
use skep::swarm::object::Kind;
use skep_tests::sandbox::{eventually, unique};
use skep_tests::yard::{RESTORE, Yard, told};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the stack holds: for each service how its content is read, and how it is spoilt.
const SERVICES: [Kept; 6] = [
    Kept {
        service: "files",
        // Owners, permissions, times and targets of links as well as what is in the files.
        content: "cd /srv/uploads && find . -name '.skep-*' -prune -o -printf '%P %y %m %U %G %l\\n' | sort \
                  && find . -name '.skep-*' -prune -o -type f -printf '%P %s %t\\n' | sort \
                  && find . -name '.skep-*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum",
        spoil: "cd /srv/uploads && rm -r a && echo other >b/two && touch new",
        root: "/srv/uploads",
        breaks: None,
        cut: "move",
    },
    Kept {
        service: "cache",
        content: "for key in $(redis-cli --raw keys '*' | sort); do echo $key $(redis-cli type $key) \
                  $(redis-cli --no-raw dump $key); done; redis-cli --raw pttl forever",
        spoil: "redis-cli del cart:7 && redis-cli set other 1 && redis-cli lpush list z",
        root: "/data",
        breaks: Some(("redis-cli flushall && redis-cli set other 1", "check `keys`")),
        cut: "move",
    },
    Kept {
        service: "db",
        content: "export MYSQL_PWD=correct-horse; mariadb-dump -u root --skip-comments --skip-dump-date --databases shop \
                  && mariadb -u root -BN -e 'SELECT User, Host, Priv FROM mysql.global_priv ORDER BY 1, 2'",
        spoil: "export MYSQL_PWD=correct-horse; mariadb -u root shop -e \"DELETE FROM orders WHERE id < 50; \
                DROP TABLE users; CREATE USER intruder\"",
        cut: "move",
        root: "/var/lib/mysql",
        breaks: Some((
            "export MYSQL_PWD=correct-horse; mariadb -u root shop -e 'DELETE FROM orders WHERE id < 50'",
            "check `orders`",
        )),
    },
    // A server that its own tools reach over the network, with a password from the environment.
    Kept {
        service: "tool",
        content: "export MYSQL_PWD=correct-horse; mariadb-dump -u root --skip-comments --skip-dump-date --databases shop",
        spoil: "export MYSQL_PWD=correct-horse; mariadb -u root shop -e \"DELETE FROM orders WHERE id < 50; DROP TABLE users\"",
        cut: "replace",
        root: "",
        breaks: None,
    },
    // Files that a command sees in the volume of its service.
    Kept {
        service: "tree",
        content: "cd /srv/tree && find . -printf '%P %y %m %U %G %l\\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum",
        spoil: "cd /srv/tree && rm -r a && echo other >b/two && touch new",
        cut: "replace",
        root: "",
        breaks: None,
    },
    // Definitions, a queue with messages among them, of a node that runs all the time. Its own export is in no order, and
    // tells empty lists and tables of an operator's policy in two ways.
    Kept {
        service: "queue",
        content: "set -o pipefail; rabbitmqctl -q export_definitions /tmp/all >&2 \
                  && sed 's/\\[\\[\"max-length\",10\\]\\]/{\"max-length\":10}/' /tmp/all | tr '{' '\\n' \
                  | sed 's/\"tags\":\\(\"\"\\|\\[\\]\\)//; s/[],}]*$//' | sort \
                  && rabbitmqctl -q list_queues -p shop name messages | sort \
                  && rabbitmqctl -q eval '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"shop\">>, queue, <<\"orders\">>)), \
                  rabbit_policy:get(<<\"max-length\">>, Q).'",
        spoil: "rabbitmqctl -q eval 'rabbit_exchange:delete(rabbit_misc:r(<<\"shop\">>, exchange, <<\"in\">>), false, <<\"x\">>), \
                rabbit_amqqueue:declare(rabbit_misc:r(<<\"shop\">>, queue, <<\"more\">>), true, false, [], none, <<\"x\">>), \
                {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"shop\">>, queue, <<\"idle\">>)), rabbit_amqqueue:delete(Q, false, false, <<\"x\">>), \
                rabbit_amqqueue:declare(rabbit_misc:r(<<\"shop\">>, queue, <<\"idle\">>), true, false, [{<<\"x-max-length\">>, long, 9}], none, <<\"x\">>).' \
                && rabbitmqctl -q change_password app other && rabbitmqctl -q clear_operator_policy -p shop limit \
                && rabbitmqctl -q set_global_parameter mqtt_port_to_vhost_mapping '{\"1883\":\"/\"}' && rabbitmqctl -q clear_policy -p shop ttl \
                && { rabbitmqctl -q add_user intruder x; rabbitmqctl -q set_permissions -p shop intruder .* .* .*; \
                rabbitmqctl -q add_vhost more; true; }",
        cut: "replace",
        root: "",
        breaks: None,
    },
];

/// One service with data.
#[derive(Clone, Copy)]
struct Kept {
    service: &'static str,
    content: &'static str,
    spoil: &'static str,
    /// Where its data is.
    root: &'static str,
    /// After which a backup is whole and does not pass its checks, and which one it fails.
    breaks: Option<(&'static str, &'static str)>,
    /// The step in which the driver of the first restore dies.
    cut: &'static str,
}

/// The stack on the sandbox's Swarm.
struct Place {
    yard: Yard,
    store: String,
}

// === impl Place ===

impl Place {
    async fn set() -> Place {
        let store = unique("engines-backups");
        let volume = Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
        let settings =
            Settings { stores: BTreeMap::from([("default".to_owned(), volume)]), ..Settings::default() };
        let place = Place { yard: Yard::deploy("engines", stack_file(), settings).await, store };
        for (service, fill) in FILLS {
            eventually(&format!("{service} to take its data"), PATIENCE, async || {
                place.yard.try_sh(service, fill).await.map(drop)
            })
            .await;
        }
        place
    }

    async fn content(&self, kept: Kept) -> String {
        self.yard.sh(kept.service, kept.content).await
    }

    /// The newest backup of a service.
    async fn newest(&self, service: &str) -> Backup {
        self.yard.backups(service).await.pop().expect("there is a backup")
    }

    /// Changes one byte in the middle of the artefact of a backup.
    async fn alter(&self, backup: &Backup) {
        let script = format!(
            "cd /store/{} && file=$(ls | grep -v manifest.json) && at=$(($(stat -c %s \"$file\") / 2)) \
             && byte=$(od -An -tu1 -j $at -N 1 \"$file\") \
             && printf \"\\x$(printf %02x $((byte ^ 16)))\" | dd of=\"$file\" bs=1 seek=$at conv=notrunc status=none",
            backup.entry.dir
        );
        let mount = format!("{}:/store", self.store);
        let image = "skep-test/redis:7";
        self.yard
            .sandbox
            .docker(&[
                "run",
                "--rm",
                "--network",
                "none",
                "--user",
                "0",
                "-v",
                &mount,
                image,
                "bash",
                "-c",
                &script,
            ])
            .await;
    }

    /// Nothing of a drill is left beside the live files, which are as they were, and the service was not restarted.
    async fn undisturbed(&self, kept: Kept, content: &str, container: &str, op: &Operation) {
        let beside = self.yard.try_sh(kept.service, &format!("ls -A {}", kept.root)).await.unwrap();
        assert!(!beside.contains(".skep-drill"), "left behind: {beside}\n{}", told(op));
        assert_eq!(self.content(kept).await, content, "{} was changed: {}", kept.service, told(op));
        assert_eq!(
            self.yard.sandbox.container(&self.yard.stack.service(kept.service)).await,
            container,
            "it was restarted"
        );
    }

    async fn strike(self) {
        let sandbox = self.yard.sandbox;
        self.yard.strike().await;
        sandbox.remove_volume(&self.store).await;
    }
}

/// What is written into each service at the beginning.
const FILLS: [(&str, &str); 6] = [
    (
        "files",
        "cd /srv/uploads && rm -rf a b odd && mkdir -p a/deep b && seq 100000 >a/deep/one && echo two >b/two \
         && ln -s ../b/two a/link && ln b/two b/hard && truncate -s 1M b/sparse && chown -R 1234:5678 a && chmod 2750 a \
         && printf x >\"odd name $(printf '\\t')\" && chmod 0601 b/two",
    ),
    (
        "cache",
        "redis-cli flushall && for i in $(seq 40); do echo set cart:$i value-$i; done | redis-cli >/dev/null \
         && redis-cli rpush list a b c && redis-cli hset hash f 1 g 2 && redis-cli zadd zset 1 one 2 two \
         && redis-cli set forever x && redis-cli config get appendonly | grep yes",
    ),
    (
        "db",
        "export MYSQL_PWD=correct-horse; mariadb -u root shop -e \"CREATE OR REPLACE TABLE orders (id INT PRIMARY KEY, what BLOB) \
         SELECT seq AS id, UNHEX(SHA2(seq, 256)) AS what FROM seq_1_to_500; CREATE OR REPLACE TABLE users (name VARCHAR(20)); \
         INSERT INTO users VALUES ('ä'), ('b'); CREATE OR REPLACE USER app IDENTIFIED BY 'x'\"",
    ),
    (
        "tool",
        "export MYSQL_PWD=correct-horse; mariadb -u root shop -e \"CREATE OR REPLACE TABLE orders (id INT PRIMARY KEY, what BLOB) \
         SELECT seq AS id, UNHEX(SHA2(seq, 256)) AS what FROM seq_1_to_500; CREATE OR REPLACE TABLE users (name VARCHAR(20)); \
         INSERT INTO users VALUES ('ä'), ('b')\"",
    ),
    (
        "tree",
        "cd /srv/tree && rm -rf a b && mkdir -p a/deep b && seq 100000 >a/deep/one && echo two >b/two && ln -s ../b/two a/link \
         && chown -R 1234:5678 a && chmod 2750 a",
    ),
    (
        "queue",
        "rabbitmqctl -q await_startup && { rabbitmqctl -q add_vhost shop; rabbitmqctl -q add_user app secret1; \
         rabbitmqctl -q set_permissions -p shop app '^a' '.*' '.*'; rabbitmqctl -q set_topic_permissions -p shop app amq.topic '^x' '.*'; \
         rabbitmqctl -q set_policy -p shop ttl '^tmp' '{\"message-ttl\":60000}' --priority 3 --apply-to queues; \
         rabbitmqctl -q set_operator_policy -p shop limit '^o' '{\"max-length\":10}'; \
         rabbitmqctl -q set_global_parameter mqtt_port_to_vhost_mapping '{\"1883\":\"shop\"}'; \
         rabbitmqctl -q set_vhost_limits -p shop '{\"max-connections\": 64}'; rabbitmqctl -q set_user_limits app '{\"max-channels\": 5}'; } \
         && rabbitmqctl -q eval 'R = fun(K, N) -> rabbit_misc:r(<<\"shop\">>, K, N) end, \
         rabbit_amqqueue:declare(R(queue, <<\"orders\">>), true, false, [{<<\"x-max-priority\">>, long, 5}], none, <<\"x\">>), \
         rabbit_amqqueue:declare(R(queue, <<\"idle\">>), true, false, [], none, <<\"x\">>), \
         rabbit_exchange:declare(R(exchange, <<\"in\">>), topic, true, false, false, [], <<\"x\">>), \
         rabbit_binding:add({binding, R(exchange, <<\"in\">>), <<\"k.#\">>, R(queue, <<\"orders\">>), [{<<\"n\">>, long, 1}]}, <<\"x\">>), \
         rabbit_basic:publish(R(exchange, <<\"in\">>), <<\"k.1\">>, [], <<\"hello\">>).' && rabbitmqctl -q list_queues -p shop name messages | grep -P 'orders\\t1'",
    ),
];

fn stack_file() -> &'static str {
    r#"
version: "3.8"
services:
  files:
    image: skep-test/redis:7
    command: ["sleep", "infinity"]
    init: true
    volumes: ["uploads:/srv/uploads"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: volume
        skep.restore.keep-old: 1h
  cache:
    image: skep-test/redis:7
    command: ["redis-server", "--appendonly", "yes"]
    volumes: ["cache:/data"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: redis
        skep.check.keys.sql: DBSIZE
        skep.check.keys.expect: ge 40
  db:
    image: skep-test/mariadb:10
    environment: { MARIADB_ROOT_PASSWORD: correct-horse, MARIADB_DATABASE: shop }
    volumes: ["db:/var/lib/mysql"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: mariadb
        skep.check.orders.sql: SELECT count(*) FROM orders
        skep.check.orders.expect: eq 500
  tool:
    image: skep-test/mariadb:10
    environment: { MARIADB_ROOT_PASSWORD: correct-horse, MARIADB_DATABASE: shop }
    volumes: ["tool:/var/lib/mysql"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: command
        skep.data.dump.command: |
          export MYSQL_PWD="$$MARIADB_ROOT_PASSWORD"
          mariadb-dump -h "$$SKEP_HOST" -u root --single-transaction --add-drop-database --databases shop
        skep.data.load.command: MYSQL_PWD="$$MARIADB_ROOT_PASSWORD" mariadb -h "$$SKEP_HOST" -u root
        skep.data.verify.command: "tail -n 1 | grep -q '^-- Dump completed'"
        skep.check.answers.tcp: "3306"
  tree:
    image: skep-test/redis:7
    command: ["sleep", "infinity"]
    init: true
    volumes: ["tree:/srv/tree"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: command
        skep.data.volumes: tree
        skep.data.dump.command: tar -C /srv/tree --numeric-owner -cf - .
        skep.data.load.command: find /srv/tree -mindepth 1 -delete && tar -C /srv/tree --numeric-owner -xpf -
        skep.data.verify.command: tar -tf - >/dev/null
  queue:
    image: skep-test/rabbitmq:3
    hostname: mq
    volumes: ["queue:/var/lib/rabbitmq"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: rabbitmq
        skep.check.answers.tcp: "5672"
volumes: { uploads: {}, cache: {}, db: {}, tool: {}, tree: {}, queue: {} }
"#
}

/// The story of one service: restored although its driver dies in the middle; then restored in vain, and taken back.
async fn play(place: &Place, kept: Kept) {
    let service = place.yard.stack.service(kept.service);
    let spec = place.yard.engine.service(&service).await.unwrap().spec;
    let good = place.content(kept).await;
    let op = place.yard.run(kept.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));

    // Whoever drives dies while the data is being exchanged, and another one goes on.
    place.yard.try_sh(kept.service, kept.spoil).await.unwrap();
    assert_ne!(place.content(kept).await, good);
    let id = place.yard.ask(kept.service, RESTORE).await;
    place.yard.drive(&id, "one", |op| op.journal.step(kept.cut).is_some()).await;
    let op = place.yard.drive(&id, "two", |_| false).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert_eq!(place.content(kept).await, good, "{service} after a restore: {}", told(&op));
    let now = place.yard.engine.service(&service).await.unwrap().spec;
    assert_eq!(now.to_string(), spec.to_string(), "the exact spec of {service} is back");

    // What is restored fails a check that only a live service can fail: everything goes back. What the first restore kept
    // has gone by then.
    place.yard.try_sh(kept.service, kept.spoil).await.unwrap();
    let spoilt = place.content(kept).await;
    place
        .yard
        .sandbox
        .docker(&["service", "update", "-d", "--label-add", "skep.check.gone.tcp=9", &service])
        .await;
    let op = place.yard.run_within(Duration::from_secs(3), kept.service, RESTORE).await;
    assert_eq!(op.journal.state, State::RolledBack, "{}", told(&op));
    assert_eq!(place.content(kept).await, spoilt, "{service} after going back: {}", told(&op));
    println!("{service}: {}", told(&op));
}

const DRILL: Work = Work::Drill { backup: None };

/// The drills of one service: one that proves, although its driver dies; one that gives way; those that catch what is wrong.
async fn drill(place: &Place, kept: Kept) {
    let service = place.yard.stack.service(kept.service);
    let container = place.yard.sandbox.container(&service).await;
    let good = place.content(kept).await;
    let op = place.yard.run(kept.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));

    let id = place.yard.ask(kept.service, DRILL).await;
    place.yard.drive(&id, "one", |op| op.journal.step("load").is_some()).await;
    let op = place.yard.drive(&id, "two", |_| false).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let proved = place.newest(kept.service).await;
    assert!(proved.proved.is_some() && proved.restore_seconds.is_some_and(|s| s > 0.0), "{proved:?}");
    place.undisturbed(kept, &good, &container, &op).await;

    let id = place.yard.ask(kept.service, DRILL).await;
    place.yard.drive(&id, "one", |op| op.journal.step("load").is_some()).await;
    let restore = place.yard.ask(kept.service, RESTORE).await;
    let op = place.yard.drive(&id, "two", |_| false).await;
    assert!(gave_way(&op), "{}", told(&op));
    desk::cancel(&place.yard.engine, &restore, "suite").await.unwrap();
    place.yard.drive(&restore, "two", |_| false).await;
    place.undisturbed(kept, &good, &container, &op).await;

    if let Some((breaks, fails)) = kept.breaks {
        place.yard.try_sh(kept.service, breaks).await.unwrap();
        let broken = place.content(kept).await;
        let op = place.yard.run(kept.service, Work::Backup).await;
        assert_eq!(op.journal.state, State::Succeeded, "it is whole: {}", told(&op));
        let op = place.yard.run(kept.service, DRILL).await;
        assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
        let found = place.newest(kept.service).await.drill_failed;
        assert!(found.as_ref().is_some_and(|f| f.why.contains(fails)), "{found:?}");
        place.undisturbed(kept, &broken, &container, &op).await;
    }

    let op = place.yard.run(kept.service, Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    place.alter(&place.newest(kept.service).await).await;
    let live = place.content(kept).await;
    let op = place.yard.run(kept.service, DRILL).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    let found = place.newest(kept.service).await.drill_failed;
    assert!(found.as_ref().is_some_and(|f| f.why.contains("checksum")), "{found:?}");
    place.undisturbed(kept, &live, &container, &op).await;
    println!("{service}: loaded in {:?} s, caught {found:?}", proved.restore_seconds);
}

/// What makes a broker reach for others is not loaded by a drill, which then says so and proves nothing; a plugin that only
/// adds a type of exchange is there.
async fn links(place: &Place) {
    let link = "rabbitmq-plugins -q enable rabbitmq_shovel rabbitmq_consistent_hash_exchange \
                && rabbitmqctl -q set_parameter -p shop shovel away '{\"src-protocol\":\"amqp091\",\"src-uri\":\"amqp://localhost:1\",\
                \"src-queue\":\"orders\",\"dest-protocol\":\"amqp091\",\"dest-uri\":\"amqp://localhost:1\",\"dest-queue\":\"idle\"}' \
                && rabbitmqctl -q eval 'rabbit_exchange:declare(rabbit_misc:r(<<\"shop\">>, exchange, <<\"hash\">>), \
                list_to_atom(\"x-consistent-hash\"), true, false, false, [], <<\"x\">>).'";
    place.yard.try_sh("queue", link).await.unwrap();
    let op = place.yard.run("queue", Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let op = place.yard.run("queue", DRILL).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    let named = "parameter shovel shop away was not loaded";
    assert!(op.journal.remarks.iter().any(|remark| remark.starts_with(named)), "{}", told(&op));
    let backup = place.newest("queue").await;
    assert!(backup.loaded.is_some() && backup.proved.is_none(), "{backup:?}");
    println!("queue: {}", told(&op));
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn drills_prove_what_restores_catch_what_does_not_and_leave_nothing() {
    let place = Place::set().await;
    let [files, cache, db, .., queue] = SERVICES;
    tokio::join!(drill(&place, files), drill(&place, cache), drill(&place, db), drill(&place, queue));
    links(&place).await;
    place.strike().await;
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn every_engine_comes_back_exactly_and_goes_back_exactly() {
    let place = Place::set().await;
    let [files, cache, db, tool, tree, queue] = SERVICES;
    tokio::join!(
        play(&place, queue),
        play(&place, files),
        play(&place, cache),
        play(&place, db),
        play(&place, tool),
        play(&place, tree)
    );
    let left = place.yard.engine.configs(Kind::Claim, &[]).await.unwrap().len()
        + place.yard.engine.configs(Kind::Ticket, &[]).await.unwrap().len()
        + place.yard.engine.configs(Kind::Plan, &[]).await.unwrap().len();
    assert_eq!(left, 0, "claims, tickets or plans are left");
    place.strike().await;
}

/// A definition is not worth a message: what holds one stays, or the restore does not begin.
#[tokio::test]
#[ignore = "needs the sandbox"]
async fn a_queue_that_holds_messages_is_never_removed() {
    let place = Place::set().await;
    let [.., queue] = SERVICES;
    let publish = async |to: &str| {
        let message = format!(
            "rabbitmqctl -q eval 'rabbit_basic:publish(rabbit_misc:r(<<\"shop\">>, exchange, <<>>), <<\"{to}\">>, [], <<\"m\">>).' \
             && rabbitmqctl -q list_queues -p shop name messages | grep -P '{to}\\t1'"
        );
        eventually("the message", PATIENCE, async || place.yard.try_sh("queue", &message).await.map(drop))
            .await;
    };
    let op = place.yard.run("queue", Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));

    place.yard.try_sh("queue", queue.spoil).await.unwrap();
    publish("more").await;
    let op = place.yard.run("queue", RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    assert!(op.journal.remarks.iter().any(|r| r.starts_with("queue shop more")), "{}", told(&op));
    let content = place.content(queue).await;
    assert!(content.contains("\nmore\t1\n") && !content.contains("intruder"), "{content}");

    place.yard.try_sh("queue", queue.spoil).await.unwrap();
    publish("idle").await;
    let before = place.content(queue).await;
    let op = place.yard.run("queue", RESTORE).await;
    assert_eq!(op.journal.state, State::RolledBack, "{}", told(&op));
    let why = &op.journal.step("replace").unwrap().reason;
    assert!(why.contains("nothing was changed") && why.contains("queue shop idle"), "{why}");
    assert_eq!(place.content(queue).await, before, "{}", told(&op));
    println!("refused: {why}");
    place.strike().await;
}

/// A broker with its messages: its files, read while it is stopped, and found again by a node of the same name.
#[tokio::test]
#[ignore = "needs the sandbox"]
async fn messages_come_back_with_the_files_of_a_stopped_broker() {
    let store = unique("messages-backups");
    let volume = Store::Volume { name: store.clone(), driver: None, options: BTreeMap::new() };
    let settings =
        Settings { stores: BTreeMap::from([("default".to_owned(), volume)]), ..Settings::default() };
    let yard = Yard::deploy("messages", BROKER, settings).await;
    let service = yard.stack.service("queue");
    let scaled = async |replicas: &str| {
        yard.sandbox.docker(&["service", "scale", &format!("{service}={replicas}")]).await;
    };
    let queues = "rabbitmqctl -q await_startup && rabbitmqctl -q list_queues name durable messages_persistent && echo all";
    let fill = "rabbitmqctl -q await_startup && rabbitmqctl -q eval 'Q = rabbit_misc:r(<<\"/\">>, queue, <<\"orders\">>), \
                rabbit_amqqueue:declare(Q, true, false, [], none, <<\"x\">>), Out = rabbit_misc:r(<<\"/\">>, exchange, <<>>), \
                [rabbit_basic:publish(Out, <<\"orders\">>, [{delivery_mode, 2}], integer_to_binary(N)) || N <- lists:seq(1, 100)].' \
                && rabbitmqctl -q list_queues messages_persistent | grep 100";
    eventually("the messages", PATIENCE, async || yard.try_sh("queue", fill).await.map(drop)).await;
    let good = yard.sh("queue", queues).await;

    let op = yard.run("queue", Work::Backup).await;
    assert_eq!(op.journal.state, State::Failed, "{}", told(&op));
    scaled("0").await;
    let op = yard.run("queue", Work::Backup).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    scaled("1").await;

    // Everything it has is gone.
    let destroy = "rabbitmqctl -q await_startup && rabbitmqctl -q stop_app && rabbitmqctl -q force_reset && rabbitmqctl -q start_app";
    eventually("its end", PATIENCE, async || yard.try_sh("queue", destroy).await.map(drop)).await;
    assert!(!yard.sh("queue", queues).await.contains("orders"));

    let op = yard.run("queue", RESTORE).await;
    assert_eq!(op.journal.state, State::Succeeded, "{}", told(&op));
    eventually("the node", PATIENCE, async || yard.try_sh("queue", queues).await.map(drop)).await;
    let now = yard.sh("queue", queues).await;
    assert_eq!(now, good, "{}", told(&op));
    println!("queue: {now} {}", told(&op));
    let sandbox = yard.sandbox;
    yard.strike().await;
    sandbox.remove_volume(&store).await;
}

const BROKER: &str = r#"
version: "3.8"
services:
  queue:
    image: skep-test/rabbitmq:3
    hostname: mq
    volumes: ["queue:/var/lib/rabbitmq"]
    deploy:
      labels:
        skep.enable: "true"
        skep.data: volume
        skep.check.answers.tcp: "5672"
volumes: { queue: {} }
"#;
