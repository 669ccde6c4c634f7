use serde_json::json;

use super::*;
use crate::operation::record::{Also, State};
use crate::plan::testing::{deployed as service, op};

/// An application in three services, its database, and what stands before it.
fn shop() -> Vec<Service> {
    vec![
        service("shop_web", "app:1", &json!({ "skep.depends-on": "db,worker" })),
        service("shop_worker", "app:1", &json!({ "skep.depends-on": "db", "skep.update.monitor": "1h" })),
        service("shop_cron", "registry:5000/app:1", &json!({ "skep.depends-on": "db" })),
        service("shop_db", "postgres:17", &json!({ "skep.data": "postgres" })),
        service("shop_proxy", "nginx:1", &json!({})),
    ]
}

fn wanted<'a>(services: &'a [Service], names: &[&str], image: &'a str) -> Vec<Wanted<'a>> {
    let of = |name: &&str| services.iter().find(|s| s.name() == *name).unwrap();
    names.iter().map(|name| Wanted { service: of(name), image }).collect()
}

fn refused(services: &[Service], names: &[&str], operations: &[Operation], force: bool) -> String {
    let wanted = wanted(services, names, "app:2");
    refusals(&wanted, &Policies::of(services), &BTreeSet::new(), operations, force).join("; ")
}

#[test]
fn what_is_needed_gets_its_image_first_and_all_are_watched_as_long_as_one() {
    let services = shop();
    let policies = Policies::of(&services);
    let wanted = in_order(wanted(&services, &["shop_web", "shop_proxy", "shop_worker"], "app:2"), &policies);
    let names: Vec<&str> = wanted.iter().map(|one| one.service.name()).collect();
    assert!(names.iter().position(|n| *n == "shop_worker") < names.iter().position(|n| *n == "shop_web"));
    assert_eq!(names.len(), 3);
    assert_eq!(monitor(&wanted, &policies), Duration::from_secs(3600));
}

#[test]
fn of_a_stack_those_are_meant_that_have_opted_in_and_run_another_image_of_the_repository() {
    let mut services = shop();
    services.push(service("shop_old", "docker.io/library/app:2", &json!({})));
    services.push(service("shop_new", "app:2", &json!({})));
    services.push(service("shop_off", "app:1", &json!({ "skep.enable": "false" })));
    services.push(service("wiki_app", "app:1", &json!({})));
    let names = |image: &str| -> Vec<String> {
        of_stack(&services, "shop", image).iter().map(|s| s.name().to_owned()).collect()
    };
    assert_eq!(names("app:2"), ["shop_old", "shop_web", "shop_worker"]);
    assert_eq!(names("registry:5000/app:2"), ["shop_cron"]);
    assert_eq!(names("other:2"), [] as [String; 0]);
}

#[test]
fn each_of_them_has_to_be_able_to_get_it() {
    let mut services = shop();
    assert_eq!(refused(&services, &["shop_web", "shop_worker"], &[], false), "");
    assert!(refused(&services, &["shop_web", "shop_web"], &[], false).contains("shop_web is named twice"));
    services[1].spec["Labels"]["skep.enable"] = json!("false");
    assert!(
        refused(&services, &["shop_web", "shop_worker"], &[], false).contains("shop_worker has no label")
    );
}

#[test]
fn several_of_which_one_would_not_go_back_are_refused_and_one_alone_is_not() {
    let services = shop();
    let several = refused(&services, &["shop_web", "shop_db"], &[], false);
    assert!(several.contains("shop_db would not go back by itself"), "{several}");
    assert_eq!(refused(&services, &["shop_web", "shop_db"], &[], true), "", "somebody says so");
    assert_eq!(refused(&services, &["shop_db"], &[], false), "");
}

fn together(state: State) -> Operation {
    let also = |name: &str| Also {
        service: name.to_owned(),
        service_id: format!("{name}-id"),
        image: "app:2".to_owned(),
    };
    let also = vec![also("shop_web")];
    let work = Work::Update { image: "app:2".to_owned(), monitor_s: None, force: false, wait_s: None, also };
    let mut op = op("shop_worker", work, "2026-03-01T10:00:00Z", state);
    let now = op.intent.created;
    op.journal.step_mut("apply", now).out = json!({
        "at": "2026-03-01T10:00:00Z", "over": 1, "up": true,
        "others": [{ "at": "2026-03-01T10:00:10Z", "over": 2, "back": "2026-03-01T10:01:00Z" }],
    });
    op
}

#[test]
fn what_went_back_as_one_did_not_do_in_any_of_them() {
    let services = shop();
    let operations = [together(State::RolledBack)];
    for name in ["shop_web", "shop_worker"] {
        assert!(refused(&services, &[name], &operations, false).contains("did not do"), "{name}");
    }
    assert_eq!(refused(&services, &["shop_cron"], &operations, false), "");
    assert_eq!(refused(&services, &["shop_web"], &[together(State::Succeeded)], false), "");
}

#[test]
fn data_of_several_is_backed_up_as_one_where_they_are_in_one_stack() {
    let files = json!({ "skep.data": "volume" });
    let mut services = shop();
    services.push(service("shop_files", "app:1", &files));
    services.push(service("wiki_files", "app:1", &files));
    let of = |names: &[&str]| point(&wanted(&services, names, "app:2"), &Policies::of(&services));
    assert_eq!(of(&["shop_web", "shop_worker"]), Ok(None));
    assert_eq!(of(&["shop_web", "shop_files"]), Ok(None), "that of one is backed up alone");
    let scope = of(&["shop_files", "shop_web", "shop_db"]).unwrap().unwrap();
    assert_eq!((scope.stack.as_str(), scope.data.len(), scope.clients.len()), ("shop", 2, 0));
    assert!(of(&["shop_files", "wiki_files"]).unwrap_err().contains("not all of them are in one stack"));
    assert_eq!(of(&["wiki_files"]), Ok(None));
}
