//! The sandbox itself, its images and the demo shop: what the other suites stand on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use skep_tests::load::{self, Load};
use skep_tests::sandbox::{Sandbox, Stack, eventually, repository, unique, unique_port};

const PATIENCE: Duration = Duration::from_secs(120);

/// The demo shop under a name of its own, answering.
struct Shop<'a> {
    sandbox: &'a Sandbox,
    stack: Stack<'a>,
    port: u16,
}

impl Shop<'_> {
    async fn open() -> Shop<'static> {
        let sandbox = Sandbox::shared().await;
        sandbox.secret("shop-db-password", "a password of the tests").await;
        let port = unique_port();
        let variables = [("SHOP_PORT", &*port.to_string()), ("SHOP_SEED_ORDERS", "10")];
        let stack = sandbox.deploy(&repository("manifests/shop.yml"), &unique("shop"), &variables).await;
        let shop = Shop { sandbox, stack, port };
        shop.answers("/orders/last", 200, "\"id\":10").await;
        shop
    }

    /// Waits for an answer of the shop's own with this status and this in its body.
    async fn answers(&self, path: &str, status: u16, text: &str) -> String {
        eventually(&format!("{status} with {text} from {path}"), PATIENCE, async || {
            let answer = self.sandbox.http_get(self.port, path).await?;
            let is_own = answer.headers.contains_key("x-shop");
            let is_wanted = is_own && answer.status == status && answer.body.contains(text);
            if is_wanted { Ok(answer.body) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    async fn sql(&self, database: &str, statement: &str) -> String {
        let psql = ["psql", "-U", "shop", "-d", database, "-Atqc", statement];
        self.sandbox.exec_in_service(&self.stack.service("db"), &psql).await
    }

    async fn scale(&self, replicas: u32) {
        let scale = format!("{}={replicas}", self.stack.service("app"));
        self.sandbox.docker(&["service", "scale", "-d", &scale]).await;
        let label = format!("label=com.docker.swarm.service.name={}", self.stack.service("app"));
        eventually(&format!("{replicas} healthy replicas"), PATIENCE, async || {
            let shown = self.sandbox.docker(&["ps", "--filter", &label, "--format", "{{.Status}}"]).await;
            let all = u32::try_from(shown.lines().count()).unwrap_or(u32::MAX);
            let is_reached = all == replicas && shown.lines().all(|status| status.contains("(healthy)"));
            if is_reached { Ok(()) } else { Err(shown) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the sandbox"]
async fn the_shop_is_what_the_other_suites_stand_on() {
    let shop = Shop::open().await;
    the_worker_books_each_order_once(&shop).await;
    the_proxy_loses_no_request_while_the_application_goes_and_comes_back(&shop).await;
    the_shop_goes_on_as_soon_as_its_sessions_were_ended(&shop).await;
    // The last: nobody mends it.
    a_dropped_table_stays_dropped_and_shows_in_the_metrics(&shop).await;
    shop.stack.remove().await;
}

async fn the_proxy_loses_no_request_while_the_application_goes_and_comes_back(shop: &Shop<'_>) {
    shop.scale(2).await;
    let target = (shop.sandbox.address(), shop.port).into();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let load = Load { target, path: "/".to_owned(), rate: 100, order_every: 20, patience: load::PATIENCE };
    let load = tokio::spawn(load::run(load, async move { drop(stopped.await) }));
    shop.scale(0).await;
    eventually("the proxy's page", PATIENCE, async || {
        let answer = shop.sandbox.http_get(shop.port, "/").await?;
        let is_page = answer.status == 503 && answer.headers.contains_key("x-skep-page");
        if is_page { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    shop.scale(2).await;
    shop.answers("/", 200, "orders").await;
    drop(stop);
    let report = load.await.expect("the load ran");
    assert_eq!(report.totals.wrong, 0, "{:?}", report.wrong);
    assert_eq!(report.totals.app_error, 0, "{:?}", report.seconds);
    assert!(report.totals.app > 0 && report.totals.page > 0, "{:?}", report.totals);
}

async fn the_shop_goes_on_as_soon_as_its_sessions_were_ended(shop: &Shop<'_>) {
    shop.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false").await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'shop'";
    shop.sql("postgres", end).await;
    shop.answers("/", 503, "not currently accepting connections").await;
    shop.sql("postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS true").await;
    let answer = shop.sandbox.http_get(shop.port, "/").await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    // Reading is repeated on a fresh connection: nobody notices that all sessions ended between two requests.
    let ended = shop.sql("postgres", end).await;
    assert_ne!(ended, "0");
    let answer = shop.sandbox.http_get(shop.port, "/").await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn a_dropped_table_stays_dropped_and_shows_in_the_metrics(shop: &Shop<'_>) {
    shop.answers("/metrics", 200, "\nshop_orders_table_ok 1\n").await;
    shop.sql("shop", "DROP TABLE orders CASCADE").await;
    shop.answers("/metrics", 200, "\nshop_orders_table_ok 0\n").await;
    shop.answers("/", 500, "orders").await;
    // Its health check is about the process and its database: replacing tasks would mend nothing.
    shop.answers("/health", 200, "ok").await;
    shop.scale(0).await;
    shop.scale(1).await;
    shop.answers("/metrics", 200, "\nshop_orders_table_ok 0\n").await;
}

async fn the_worker_books_each_order_once(shop: &Shop<'_>) {
    let insert = "INSERT INTO orders (product, quantity) SELECT 1, 2 FROM generate_series(1, 120)";
    shop.sql("shop", insert).await;
    eventually("all orders to be booked", PATIENCE, async || {
        let left = shop.sql("shop", "SELECT count(*) FROM orders WHERE NOT is_done").await;
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await;
    let booked =
        shop.sql("shop", "SELECT count(*), sum(amount_cents) FROM sales.ledger WHERE order_id > 10").await;
    assert_eq!(booked, format!("120|{}", 120 * 2 * 3490));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the sandbox"]
async fn images_keep_the_official_images_contract() {
    let sandbox = Sandbox::shared().await;
    for (image, format, wanted) in [
        (
            "postgres:15",
            "{{.Config.Volumes}} {{.Config.StopSignal}}",
            "map[/var/lib/postgresql/data:{}] SIGINT",
        ),
        (
            "postgres:17",
            "{{.Config.Volumes}} {{.Config.StopSignal}}",
            "map[/var/lib/postgresql/data:{}] SIGINT",
        ),
        ("redis:7", "{{.Config.Volumes}} {{.Config.WorkingDir}}", "map[/data:{}] /data"),
        ("nginx:1", "{{.Config.StopSignal}} {{.Config.Cmd}}", "SIGQUIT [nginx -g daemon off;]"),
    ] {
        let image = format!("skep-test/{image}");
        assert_eq!(sandbox.docker(&["image", "inspect", "-f", format, &image]).await, wanted, "{image}");
    }
    for version in ["15", "17"] {
        let image = format!("skep-test/postgres:{version}");
        let show = "id -u postgres; echo $PGDATA; for tool in pg_dump pg_restore psql createdb initdb; do $tool -V; done";
        let shown = sandbox.docker(&["run", "--rm", &image, "sh", "-c", show]).await;
        assert!(shown.starts_with("999\n/var/lib/postgresql/data\n"), "{shown}");
        assert_eq!(shown.matches(&format!("(PostgreSQL) {version}.")).count(), 5, "{shown}");
        let refused = sandbox.try_docker(&["run", "--rm", &image]).await;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains("superuser password is not specified"), "{message}");
        let both = ["run", "--rm", "-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_PASSWORD_FILE=/b", &image];
        let refused = sandbox.try_docker(&both).await;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(message.contains("(but are exclusive)"), "{message}");
    }
    let redis = ["run", "--rm", "skep-test/redis:7", "sh", "-c", "id -u redis; redis-server --version"];
    let shown = sandbox.docker(&redis).await;
    assert!(shown.starts_with("999\nRedis server v=7."), "{shown}");
}

/// A sandbox on a state directory of its own, wiped at the end.
struct Own(PathBuf);

impl Own {
    fn run(&self, script: &str, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(repository("tests/sandbox").join(script));
        let output =
            command.args(args).env("SKEP_SANDBOX_DIR", &self.0).output().expect("the script can be run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Output of a script that must succeed.
    fn must(&self, script: &str, args: &[&str]) -> String {
        let (is_ok, text) = self.run(script, args);
        assert!(is_ok, "{script} {args:?}: {text}");
        text
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.0.exists() {
            self.run("nodes.sh", &["down"]);
            self.run("engine.sh", &["wipe"]);
        }
    }
}

/// What of a sandbox is left on the host: links, mounts and processes that name its directory or its tag.
fn left_behind(state: &Path, tag: &str) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).expect("/proc can be read");
    let state = state.to_str().expect("a text path");
    let mut left: Vec<String> =
        read("/proc/net/dev").lines().filter(|l| l.contains(tag)).map(str::to_owned).collect();
    left.extend(read("/proc/mounts").lines().filter(|l| l.contains(state)).map(str::to_owned));
    for process in std::fs::read_dir("/proc").expect("/proc can be listed").flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(state) {
            left.push(command);
        }
    }
    left
}

#[test]
#[ignore = "needs the sandbox"]
fn sandboxes_run_side_by_side_and_leave_nothing_behind() {
    let root = std::env::temp_dir().join(unique("skep"));
    // The second one's path is too long for a socket in it.
    let sandboxes = [Own(root.join("short")), Own(root.join("long".repeat(30)))];
    for sandbox in &sandboxes {
        sandbox.must("engine.sh", &["up"]);
    }
    let tags = sandboxes.each_ref().map(|sandbox| {
        sandbox.must("engine.sh", &["status"]);
        sandbox.must("engine.sh", &["exec", "cat", "/proc/sys/kernel/hostname"]).trim().replace('-', "")
    });
    assert_ne!(tags[0], tags[1]);
    for (sandbox, tag) in sandboxes.iter().zip(&tags) {
        assert_ne!(
            left_behind(&sandbox.0, tag),
            Vec::<String>::new(),
            "the search for remains finds nothing at all"
        );
        sandbox.must("engine.sh", &["wipe"]);
        assert_eq!(left_behind(&sandbox.0, tag), Vec::<String>::new());
        assert!(!sandbox.0.exists(), "{} is left", sandbox.0.display());
    }
    std::fs::remove_dir(&root).expect("nothing is left in it");
}

#[test]
#[ignore = "needs the sandbox"]
fn a_node_that_lost_its_power_or_its_cable_comes_back() {
    let sandbox = Own(std::env::temp_dir().join(unique("skep")));
    let nodes = |args: &[&str]| sandbox.must("nodes.sh", args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = |wanted: &str| {
        runtime.block_on(eventually(&format!("node 2 to be {wanted}"), PATIENCE, async || {
            let list = nodes(&["docker", "1", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
            if list.contains(&format!("n2 {wanted}")) { Ok(()) } else { Err(list) }
        }));
    };
    nodes(&["up", "1", "1", "--dispatcher-heartbeat", "1s"]);
    seen("Ready");
    for (fault, mending) in [("crash", "boot"), ("part", "heal"), ("killd", "start")] {
        nodes(&[fault, "2"]);
        seen("Down");
        nodes(&[mending, "2"]);
        seen("Ready");
    }
    nodes(&["down"]);
    assert_eq!(nodes(&["status"]), "");
}

#[tokio::test]
#[ignore = "needs the sandbox"]
async fn engines_that_have_their_images_from_another_run_them() {
    let lender = Sandbox::shared().await.environment()["SKEP_SANDBOX_DIR"].clone();
    // Beside it: links lead to no other file system.
    let sandbox = Own(PathBuf::from(format!("{lender}.{}", unique("own"))));
    sandbox.must("engine.sh", &["up", "--like", &lender]);
    let env = sandbox.must("engine.sh", &["env"]);
    let run = format!("{env}\nexec docker run --rm skep-test/redis:7 redis-server --version");
    let ran = Command::new("sh").args(["-c", &run]).output().expect("sh can be run");
    let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
    assert!(said.starts_with("Redis server v=7."), "{said}");
    sandbox.must("nodes.sh", &["up", "1", "0"]);
    let args = ["docker", "1", "run", "--rm", "skep-test/redis:7", "redis-server", "--version"];
    assert!(sandbox.must("nodes.sh", &args).contains("Redis server v=7."));
}
