use serde_json::json;

use super::*;

/// A plan as a version wrote it that knew of one service alone.
fn old() -> Value {
    json!({
        "schema": 2,
        "client": {
            "name": "shop_app", "id": "a", "method": { "method": "zero" }, "nodes": ["n1"], "checks": [],
            "holds_files": false,
        },
        "change": {
            "base": { "Name": "shop_app", "TaskTemplate": { "ContainerSpec": { "Image": "app:1" }, "ForceUpdate": 3 } },
            "image": "app:2",
            "order": "start-first",
        },
        "data": null,
        "monitor_s": 1800,
        "flags": { "log": "FATAL" },
        "stays": null,
        "full": { "stack": "shop", "data": ["shop_db"], "clients": ["shop_app"] },
    })
}

fn read(plan: Value) -> Frozen {
    serde_json::from_value(plan).unwrap()
}

#[test]
fn a_plan_of_one_service_is_the_same_whichever_version_wrote_it() {
    let frozen = read(old());
    assert!(!frozen.is_of_several());
    assert_eq!(frozen.held(), ["shop_app", "shop_db"]);
    let unit = frozen.units.first();
    assert_eq!((unit.client.name.as_str(), unit.change.image.as_str()), ("shop_app", "app:2"));
    let (again, mut wanted) = (serde_json::to_value(&frozen).unwrap(), old());
    for key in ["client", "change", "data", "monitor_s", "flags", "stays", "full", "schema"] {
        assert_eq!(again[key], wanted[key].take(), "{key}");
    }
    assert_eq!(again.get("others"), None);
}

#[test]
fn a_plan_of_several_is_none_that_a_version_reads_which_knows_of_one_alone() {
    let frozen = read(old());
    assert_eq!((Frozen::schema_of(false), Frozen::schema_of(true)), (2, Frozen::SCHEMA));
    let one = frozen.units.first().clone();
    let mut other = one.clone();
    other.client.name = "shop_worker".to_owned();
    let several = Frozen { units: Each::of(one, vec![other]), schema: Frozen::schema_of(true), ..frozen };
    let several = read(serde_json::to_value(&several).unwrap());
    assert_eq!((several.schema, several.units.count()), (3, 2));
    assert_eq!(several.held(), ["shop_app", "shop_db", "shop_worker"]);
    assert!(
        several
            .red_flag(several.units.first(), "it loops")
            .ends_step()
            .is_some_and(|s| s.contains("shop_app"))
    );
}
