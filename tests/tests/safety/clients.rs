//! S1, S2, S3, S12: who is stopped, how, and what happens when that goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use skep::operation::desk;
use skep::operation::drive::{self, Again};
use skep::operation::record::{State, StepState, Trigger, Work};
use skep_tests::saga::{Scene, connect};
use skep_tests::sim::Answer;
use skep_tests::sim::build::{on_network, service_spec};
use skep_tests::sim::postgres::Application;
use skep_tests::sim::shop::{DATABASE, Shop, ShopOptions};
use skep_tests::sim::{Container, Run, Serve, View, Workload};

use super::{
    SHORT_LOOKBACK, alert, app_runs, beside, driven, exists, live, once, page_runs, remarks, spec, step,
    update, with_labels,
};

#[tokio::test(start_paused = true)]
async fn s1_nothing_is_cut_over_while_a_task_of_a_client_may_still_run() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let env = scene.driver("driver").await;
    let mut cuts = 0;
    scene
        .drive_watched(&env, |shop| {
            if exists(shop, "-cut-swap-") {
                cuts += 1;
                assert!(!app_runs(shop), "the names are swapped under a client that has not ended");
            }
        })
        .await;
    assert!(cuts > 0, "the cut-over was not seen");
    assert_eq!(scene.check("s1").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s1_a_canary_that_fails_its_checks_takes_everything_back_before_a_client_starts() {
    // The old data has no such table, the restored data has: only an application on the old data would pass.
    let options = with_labels(&[], &[("skep.check.health.body", "orders=17")]);
    let scene = Scene::restore(options, beside()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::RolledBack, "{:#?}", op.journal);
    assert_eq!(step(&op, "start"), None, "{:#?}", op.journal);
    scene.check("s1 canary").await;
    let on_new_data = |a: &Answer| matches!(a, Answer::App(data) if data.contains("users="));
    let seen = scene.shop.sim.timeline();
    let seen = seen.iter().filter(|(at, _)| *at > scene.since).flat_map(|(_, answers)| answers);
    assert_eq!(seen.filter(|a| on_new_data(a)).count(), 0, "users reached a client on the new data");
}

#[tokio::test(start_paused = true)]
async fn s1_what_is_deployed_while_the_canary_is_out_has_a_canary_of_its_own() {
    let mut scene = Scene::restore(ShopOptions::default(), beside()).await;
    let env = scene.driver("driver").await;
    let mut tried = BTreeSet::new();
    let meddle = async {
        once(&scene.shop, "the canary", |shop| exists(shop, "skep-canary-")).await;
        let release = |s: &mut serde_json::Value| {
            s["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["VERSION=2"]);
        };
        scene.shop.deploy("shop_app", release).await;
        spec(&scene.shop, "shop_app")
    };
    let watched = scene.drive_watched(&env, |shop| {
        for canary in shop.sim.services().iter().filter(|name| name.contains("skep-canary-")) {
            if !shop.sim.containers(canary).is_empty() {
                tried.insert(spec(shop, canary)["TaskTemplate"]["ContainerSpec"]["Env"].to_string());
            }
        }
    });
    let (_, mut deployed) = tokio::join!(watched, meddle);
    deployed["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:1");
    scene.meant("shop_app", deployed);
    assert_eq!(scene.check("s1 deployed").await, State::Succeeded);
    assert!(tried.contains(r#"["VERSION=2"]"#), "only this was tried on the new data: {tried:?}");
}

#[tokio::test(start_paused = true)]
async fn s1_a_client_that_sleeps_at_zero_needs_no_page_and_sleeps_on() {
    let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
    update(&shop, "shop_app", |s| s["Mode"]["Replicated"]["Replicas"] = json!(0)).await;
    once(&shop, "the application is at zero", |shop| !app_runs(shop)).await;
    let before = spec(&shop, "shop_app");
    let scene = Scene::ask(shop, beside()).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert_eq!(live(&scene.shop), wanted);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

async fn with_report_service(options: ShopOptions) -> Scene {
    let (shop, wanted) = Scene::broken(options).await;
    let data = shop.data.clone();
    let (database, user) = (DATABASE.to_owned(), "shop".to_owned());
    shop.sim.workload("bi:1", Application { data, host: "db".to_owned(), database, user });
    let service = on_network(service_spec("bi_report", "bi:1", &[]), &shop.network, &["report"]);
    let reply = shop.raw.call("POST", "/services/create", Some(&service)).await.expect("the engine answers");
    assert_eq!(reply.status, 201, "{}", reply.message());
    once(&shop, "the report service runs", |shop| !shop.sim.containers("bi_report").is_empty()).await;
    let trigger = alert(&shop);
    Scene::ask_by(shop, beside(), trigger).await.wanting(wanted)
}

#[tokio::test(start_paused = true)]
async fn s2_an_undeclared_service_in_the_database_makes_an_alert_wait_for_a_person() {
    let scene = with_report_service(with_labels(&[SHORT_LOOKBACK], &[])).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::AwaitingApproval, "{:#?}", op.journal);
    assert!(remarks(&op, "bi_report uses the database"), "{:?}", op.journal.remarks);
    assert_eq!(step(&op, "safety"), None);
    let engine = connect(&scene.shop, "person").await;
    desk::approve(&engine, &scene.op, "somebody").await.unwrap();
    driven(&scene).await;
    assert_eq!(scene.check("s2 approved").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s2_a_declared_service_in_the_database_stops_no_alert() {
    let options = with_labels(&[SHORT_LOOKBACK, ("skep.restore.ignore-clients", "bi_report")], &[]);
    let scene = with_report_service(options).await;
    driven(&scene).await;
    assert_eq!(scene.check("s2 declared").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s2_what_only_reaches_the_data_through_a_client_is_never_stopped() {
    let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
    shop.deploy("shop_proxy", |s| s["Labels"]["skep.depends-on"] = json!("app")).await;
    once(&shop, "the proxy is allocated", |shop| shop.sees_only_app()).await;
    let tasks =
        |shop: &Shop| shop.sim.containers("shop_proxy").into_iter().map(|c| c.task).collect::<BTreeSet<_>>();
    let first = tasks(&shop);
    let scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let env = scene.driver("driver").await;
    scene.drive_watched(&env, |shop| assert_eq!(tasks(shop), first, "the proxy was touched")).await;
    assert_eq!(scene.check("s2 proxy").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s3_a_failure_after_a_client_started_keeps_both_databases_behind_the_page_until_a_person_retries() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let env = scene.driver("driver").await;
    let (mut canary, mut harmed) = (false, false);
    scene
        .drive_watched(&env, |shop| {
            canary |= exists(shop, "skep-canary-");
            if canary && !harmed && app_runs(shop) {
                shop.data.drop_table("shop_db", DATABASE, "users");
                harmed = true;
            }
        })
        .await;
    let op = scene.operation().await;
    assert_eq!(op.journal.state, State::Stuck, "{:#?}", op.journal);
    assert_eq!(step(&op, "verify"), Some(StepState::Failed));
    assert!(page_runs(&scene.shop) && !app_runs(&scene.shop), "users do not see the page");
    assert_eq!(scene.shop.data.databases("shop_db").len(), 2, "a database was thrown away");
    // A person mends the data and lets it go on.
    scene.shop.data.insert("shop_db", DATABASE, "users", 3);
    let engine = connect(&scene.shop, "person").await;
    desk::retry(&engine, &scene.op, scene.shop.sim.now()).await.unwrap();
    driven(&scene).await;
    assert_eq!(scene.check("s3 retried").await, State::Succeeded);
}

fn is_cut_over(shop: &Shop) -> bool {
    shop.data.databases("shop_db").iter().any(|d| d.ends_with("_old"))
}

type Moment = (&'static str, fn(&Shop) -> bool);

const MOMENTS: [Moment; 4] = [
    ("the stop", page_runs),
    ("the cut", |shop| exists(shop, "-cut-swap-")),
    ("the canary", |shop| exists(shop, "skep-canary-")),
    ("the start", |shop| {
        let template = &spec(shop, "shop_app")["TaskTemplate"]["ContainerSpec"];
        is_cut_over(shop) && template["Image"] == "shop-app:1"
    }),
];

#[tokio::test(start_paused = true)]
async fn s12_a_stack_deploy_in_the_middle_is_kept_and_never_meets_the_cut() {
    for (what, moment) in MOMENTS {
        let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
        update(&shop, "shop_app", |s| s["TaskTemplate"]["ForceUpdate"] = json!(3)).await;
        let restarted = |shop: &Shop| {
            shop.sim.service("shop_app").expect("it is there")["UpdateStatus"]["State"] == "completed"
        };
        once(&shop, "the application was restarted", restarted).await;
        let mut scene = Scene::ask(shop, beside()).await.wanting(wanted);
        let env = scene.driver("driver").await;
        let meddle = async {
            once(&scene.shop, what, moment).await;
            let version = |s: &mut serde_json::Value| {
                s["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["VERSION=2"]);
                s["Mode"]["Replicated"]["Replicas"] = json!(3);
            };
            scene.shop.deploy("shop_app", version).await;
            spec(&scene.shop, "shop_app")
        };
        let watched = scene.drive_watched(&env, |shop| {
            let cutting = exists(shop, "-cut-swap-") && !is_cut_over(shop);
            assert!(!(what == "the stop" && cutting && app_runs(shop)), "{what}: it meets the cut");
        });
        let (_, mut deployed) = tokio::join!(watched, meddle);
        assert_eq!(deployed["TaskTemplate"]["ContainerSpec"]["Env"], json!(["VERSION=2"]), "{what}");
        assert_eq!(deployed["TaskTemplate"]["ForceUpdate"], 3, "{what}");
        // On the page, the deploy keeps the image that it finds there: that is not the one that the stack file names.
        deployed["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:1");
        scene.meant("shop_app", deployed);
        assert_eq!(scene.check(what).await, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn s12_an_image_and_a_number_changed_on_the_page_go_to_the_application() {
    let mut scene = Scene::restore(ShopOptions::default(), beside()).await;
    let data = scene.shop.data.clone();
    let (database, user) = (DATABASE.to_owned(), "shop".to_owned());
    scene.shop.sim.workload("shop-app:2", Application { data, host: "db".to_owned(), database, user });
    let mut wanted = spec(&scene.shop, "shop_app");
    wanted["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:2");
    wanted["Mode"]["Replicated"]["Replicas"] = json!(3);
    let env = scene.driver("driver").await;
    let meddle = async {
        once(&scene.shop, "the page", page_runs).await;
        update(&scene.shop, "shop_app", |s| {
            s["TaskTemplate"]["ContainerSpec"]["Image"] = json!("shop-app:2");
            s["Mode"]["Replicated"]["Replicas"] = json!(3);
        })
        .await;
    };
    tokio::join!(scene.drive(&env), meddle);
    scene.meant("shop_app", wanted);
    assert_eq!(scene.check("s12 on the page").await, State::Succeeded);
    assert!(remarks(&scene.operation().await, "was changed by somebody"));
}

#[tokio::test(start_paused = true)]
async fn s12_a_client_that_a_person_scales_up_at_zero_is_stopped_again_and_comes_back_at_that_number() {
    let mut options = with_labels(&[], &[("skep.maintenance.mode", "proxy")]);
    options.own_page = true;
    let mut scene = Scene::restore(options, beside()).await;
    let mut wanted = spec(&scene.shop, "shop_app");
    wanted["Mode"]["Replicated"]["Replicas"] = json!(3);
    let env = scene.driver("driver").await;
    let meddle = async {
        let at_zero =
            |shop: &Shop| spec(shop, "shop_app")["Mode"]["Replicated"]["Replicas"].as_u64() == Some(0);
        once(&scene.shop, "it is at zero", at_zero).await;
        update(&scene.shop, "shop_app", |s| s["Mode"]["Replicated"]["Replicas"] = json!(3)).await;
    };
    let watched = scene.drive_watched(&env, |shop| {
        assert!(!exists(shop, "-cut-swap-") || !app_runs(shop), "the cut-over under a client");
    });
    tokio::join!(watched, meddle);
    scene.meant("shop_app", wanted);
    assert_eq!(scene.check("s12 scaled").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s12_a_client_that_is_removed_and_made_anew_is_stopped_too_and_stays_as_it_was_made() {
    for (what, moment) in MOMENTS {
        let scene = Scene::restore(ShopOptions::default(), beside()).await;
        let env = scene.driver("driver").await;
        let mut made = spec(&scene.shop, "shop_app");
        made["Mode"]["Replicated"]["Replicas"] = json!(3);
        made["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["VERSION=2"]);
        let meddle = async {
            once(&scene.shop, what, moment).await;
            for (method, path, body) in
                [("DELETE", "/services/shop_app", None), ("POST", "/services/create", Some(&made))]
            {
                let reply = scene.shop.raw.call(method, path, body).await.expect("the engine answers");
                assert!(reply.status < 300, "{what}: {}", reply.message());
            }
        };
        let watched = scene.drive_watched(&env, |shop| {
            let cutting = exists(shop, "-cut-swap-") && !is_cut_over(shop);
            assert!(!(what == "the stop" && cutting && app_runs(shop)), "{what}: it meets the cut");
        });
        tokio::join!(watched, meddle);
        let op = scene.operation().await;
        assert_eq!(op.journal.state, State::Succeeded, "{what}: {:#?}", op.journal);
        let found = spec(&scene.shop, "shop_app");
        assert_eq!(found["Mode"], made["Mode"], "{what}");
        assert_eq!(found["TaskTemplate"], made["TaskTemplate"], "{what}");
        once(&scene.shop, "users get the application", Shop::sees_only_app).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s1_a_check_that_names_its_own_client_asks_the_canary() {
    let options = with_labels(&[], &[("skep.check.health.http", "http://app:8080/health")]);
    let scene = Scene::restore(options, beside()).await;
    driven(&scene).await;
    assert_eq!(scene.check("s1 own name").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s14_what_runs_in_a_clients_image_runs_where_that_image_is_and_bears_the_operations_labels() {
    let mut options = ShopOptions::default();
    (options.sim.nodes, options.sim.managers) = (5, 3);
    let scene = Scene::restore(options, beside()).await;
    let had: BTreeSet<String> =
        scene.shop.sim.containers("shop_app").into_iter().map(|c| format!("node.id=={}", c.node)).collect();
    let env = scene.driver("driver").await;
    let mut seen = std::collections::BTreeMap::new();
    scene
        .drive_watched(&env, |shop| {
            let ours = |n: &String| n.starts_with("skep-canary-") || n.contains("-canary-check");
            for name in shop.sim.services().into_iter().filter(|n| ours(n) || n.contains("-verify-net")) {
                let found = spec(shop, &name);
                seen.entry(name).or_insert(found);
            }
        })
        .await;
    assert_eq!(scene.check("s14 image").await, State::Succeeded);
    assert_eq!(seen.len(), 3, "{:?}", seen.keys());
    for (name, spec) in seen {
        let constraints = &spec["TaskTemplate"]["Placement"]["Constraints"];
        assert!(had.iter().any(|node| constraints == &json!([node])), "{name}: {constraints}");
        let labels = &spec["Labels"];
        assert_eq!(labels["skep.op"], scene.op.as_str(), "{name}");
        assert_eq!(labels["skep.service"], "shop_db", "{name}");
        let kind = if name.contains("-job-") { "ticket" } else { "canary" };
        assert_eq!(labels["skep.kind"], kind, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn maintenance_of_a_service_whose_labels_are_faulty_is_refused() {
    let work = Work::Maintenance { until: None };
    let person = Trigger::Person { name: "somebody".to_owned() };
    let shop = Shop::start(with_labels(&[], &[("skep.maintenance.port", "eighty")])).await;
    let before = spec(&shop, "shop_app");
    let scene = Scene::ask_for(shop, "shop_app", work, person).await;
    let op = driven(&scene).await;
    assert!(super::failed_with(&op, "skep.maintenance.port"), "{:#?}", op.journal);
    assert_eq!(step(&op, "stop"), None);
    assert_eq!(spec(&scene.shop, "shop_app"), before);
}

#[tokio::test(start_paused = true)]
async fn s11_going_back_is_two_writes_and_the_engines_own_rollback_leads_to_the_application() {
    let scene = Scene::restore(ShopOptions::default(), beside()).await;
    let writes = |client: &str| {
        let id = scene.shop.sim.service("shop_app").expect("it is there")["ID"].clone();
        let path = format!("/services/{}/update", id.as_str().unwrap_or_default());
        let calls = scene.shop.sim.faults().calls(client);
        calls.iter().filter(|c| c.path.starts_with(&path) && c.status == Some(200)).count()
    };
    let (before, env) = (spec(&scene.shop, "shop_app"), scene.driver("driver").await);
    let (mut paged, mut back) = (false, false);
    scene
        .drive_watched(&env, |shop| {
            paged |= page_runs(shop);
            if paged && !back && spec(shop, "shop_app") == before {
                let up =
                    shop.sim.containers("shop_app").into_iter().filter(|c| c.in_dns && c.image() != "nginx");
                assert_eq!(up.count(), 2, "the last write interrupts the rollout of the one before");
                back = true;
            }
        })
        .await;
    assert!(back, "the exact spec was not seen");
    assert_eq!(scene.check("s11").await, State::Succeeded);
    assert_eq!(writes("driver"), 3, "the page on, the template back, the exact spec");
    let service = scene.shop.sim.service("shop_app").expect("it is there");
    let previous = &service["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"];
    assert_eq!(previous, "shop-app:1", "a rollback would bring the page");
}

/// An application that takes its time to end, unless it is of the quick release.
struct Slow(Application);

impl Workload for Slow {
    fn start(&self, container: &Container, view: &View<'_>) -> Run {
        self.0.start(container, view);
        let is_quick = container.spec["ContainerSpec"]["Env"].to_string().contains("QUICK=1");
        let stop = if is_quick { Duration::from_millis(100) } else { Duration::from_secs(30) };
        Run::Serve(Serve { exits: None, stop })
    }

    fn healthy(&self, container: &Container, view: &View<'_>) -> bool {
        self.0.healthy(container, view)
    }

    fn answer(&self, container: &Container, view: &View<'_>) -> Answer {
        self.0.answer(container, view)
    }
}

/// Whatever is written to a service at zero makes Swarm forget the tasks that are ending; their containers run on.
#[tokio::test(start_paused = true)]
async fn s1_a_client_that_swarm_has_forgotten_is_waited_for_all_the_same() {
    let mut options = with_labels(&[], &[("skep.maintenance.mode", "proxy")]);
    options.own_page = true;
    let (shop, wanted) = Scene::broken(options).await;
    let data = shop.data.clone();
    let (database, user) = (DATABASE.to_owned(), "shop".to_owned());
    shop.sim.workload("shop-app:1", Slow(Application { data, host: "db".to_owned(), database, user }));
    // Longer than a rollout of somebody else delays the second stop.
    update(&shop, "shop_app", |s| {
        s["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] = json!(40_000_000_000u64);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    let mut scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let mut meant = spec(&scene.shop, "shop_app");
    let quick = |s: &mut serde_json::Value| {
        s["Mode"]["Replicated"]["Replicas"] = json!(1);
        s["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["QUICK=1"]);
    };
    let noted = |s: &mut serde_json::Value| s["Labels"]["note"] = json!("1");
    quick(&mut meant);
    noted(&mut meant);
    let env = scene.driver("driver").await;
    let meddle = async {
        once(&scene.shop, "it is being stopped", |shop| {
            shop.sim.containers("shop_app").iter().any(|c| c.stopping)
        })
        .await;
        // What this starts ends before those that are forgotten.
        update(&scene.shop, "shop_app", quick).await;
        let zero = |shop: &Shop| spec(shop, "shop_app")["Mode"]["Replicated"]["Replicas"] == 0;
        once(&scene.shop, "it is stopped again", zero).await;
        update(&scene.shop, "shop_app", noted).await;
        assert!(app_runs(&scene.shop), "nothing is left that could be forgotten");
        assert_eq!(scene.shop.sim.tasks("shop_app").len(), 0, "Swarm still knows what is ending");
    };
    let watched = scene.drive_watched(&env, |shop| {
        let cutting = exists(shop, "-cut-swap-") && !is_cut_over(shop);
        assert!(!cutting || !app_runs(shop), "the names are swapped under a client that has not ended");
    });
    tokio::join!(watched, meddle);
    scene.meant("shop_app", meant);
    assert_eq!(scene.check("s1 forgotten").await, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s1_a_client_that_is_deployed_between_the_stop_and_the_cut_is_stopped_again() {
    let mut scene = Scene::restore(ShopOptions::default(), beside()).await;
    let mut deployed = spec(&scene.shop, "shop_app");
    deployed["Mode"]["Replicated"]["Replicas"] = json!(3);
    let env = scene.driver("driver").await;
    while step(&scene.operation().await, "stop") != Some(StepState::Done) {
        match drive::poll(&env, &scene.op).await.unwrap() {
            Again::After(pause) => tokio::time::sleep(pause).await,
            Again::Idle => panic!("it came to rest before it stopped the clients"),
        }
    }
    // A deploy that names the application's own image, whatever it finds.
    update(&scene.shop, "shop_app", |s| s.clone_from(&deployed)).await;
    once(&scene.shop, "the application is back", app_runs).await;
    // S6: what it writes then is, like all that was written since the backup, in the database that is kept.
    scene.shop.data.insert("shop_db", DATABASE, "orders", 5);
    let written = live(&scene.shop);
    scene
        .drive_watched(&env, |shop| {
            let cutting = exists(shop, "-cut-swap-") && !is_cut_over(shop);
            assert!(!cutting || !app_runs(shop), "the names are swapped under a client");
        })
        .await;
    scene.meant("shop_app", deployed);
    assert_eq!(scene.check("s1 deployed").await, State::Succeeded);
    let kept = scene.shop.data.database("shop_db", &format!("skep_{}_old", scene.op)).unwrap();
    assert_eq!(kept.content, written, "what was written before the cut is gone");
}

/// A service with a port of the host cannot run twice: the page comes after the application has ended, and may fail to.
#[tokio::test(start_paused = true)]
async fn s1_where_the_page_can_come_only_after_the_application_the_cut_waits_for_the_page() {
    let (shop, wanted) = Scene::broken(ShopOptions::default()).await;
    update(&shop, "shop_app", |s| {
        s["EndpointSpec"]["Ports"] =
            json!([{"TargetPort": 8080, "PublishedPort": 8080, "Protocol": "tcp", "PublishMode": "host"}]);
        s["Mode"]["Replicated"]["Replicas"] = json!(1);
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let scene = Scene::ask(shop, beside()).await.wanting(wanted);
    let env = scene.driver("driver").await;
    let (mut cuts, mut gaps) = (0, 0);
    scene
        .drive_watched(&env, |shop| {
            gaps += usize::from(!app_runs(shop) && !page_runs(shop));
            if exists(shop, "-cut-swap-") && !is_cut_over(shop) {
                cuts += 1;
                assert!(page_runs(shop), "users see nothing while the names are swapped");
            }
        })
        .await;
    assert!(cuts > 0 && gaps > 0, "{cuts} looks at the cut, {gaps} with neither application nor page");
    assert_eq!(scene.operation().await.journal.state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn s3_a_start_is_done_only_when_every_task_of_a_client_is_healthy() {
    let mut options = with_labels(&[], &[("skep.maintenance.mode", "proxy")]);
    options.own_page = true;
    let scene = Scene::restore(options, beside()).await;
    let env = scene.driver("driver").await;
    while step(&scene.operation().await, "start") != Some(StepState::Done) {
        match drive::poll(&env, &scene.op).await.unwrap() {
            Again::After(pause) => tokio::time::sleep(pause).await,
            Again::Idle => panic!("{:#?}", scene.operation().await.journal),
        }
    }
    let healthy = scene.shop.sim.containers("shop_app").iter().filter(|c| c.in_dns).count();
    assert_eq!(healthy, 2, "a client that is not up yet was called started");
    scene.drive(&env).await;
    assert_eq!(scene.check("s3 healthy").await, State::Succeeded);
}
