//! S13 with the Swarm behind it: what the guards remember is stored by compare-and-swap.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use skep::operation::desk;
use skep::triggers::alertmanager::{Entry, read};
use skep::triggers::guard::{History, Settings};
use skep::triggers::intake::{Port as _, take};
use skep::triggers::port::AlertPort;
use skep_tests::saga::connect;
use skep_tests::sim::shop::Shop;
use skep_tests::sim::{Fault, Trigger};

use super::with_labels;

async fn port(shop: &Shop, replica: &str) -> AlertPort {
    let settings = Settings { settle: Duration::ZERO, ..Settings::default() };
    let listening_since = shop.sim.now() - Duration::from_secs(3_600);
    AlertPort { engine: connect(shop, replica).await, settings: Arc::new(settings), listening_since }
}

/// What Alertmanager posts about one alert that has begun to fire.
fn post(shop: &Shop, name: &str) -> Vec<Entry> {
    let alert = json!({
        "status": "firing",
        "labels": { "alertname": name, "skep_service": "shop_db" },
        "startsAt": (shop.sim.now() - Duration::from_secs(60)).to_string(),
        "fingerprint": name,
    });
    read(json!({ "version": "4", "alerts": [alert] }).to_string().as_bytes()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn s13_two_replicas_that_hear_two_alerts_at_once_start_one_restore() {
    let labels = with_labels(&[("skep.restore.on-alert", "ShopDataBroken,ShopDataGone")], &[]);
    let shop = Shop::start(labels).await;
    let (one, two) = (port(&shop, "one").await, port(&shop, "two").await);
    assert!(one.store(&History::new("shop_db", ""), None).await.unwrap());
    // It hears what operations there are (its second list of configs) only when the other has acted already.
    let late = Fault::Delay(Duration::ZERO, Duration::from_secs(4));
    shop.sim.faults().on("one", Trigger::Endpoint("GET /configs".to_owned(), 2), late);
    let broken = post(&shop, "ShopDataBroken");
    let slow = take(&one, &broken, shop.sim.now());
    let quick = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        take(&two, &post(&shop, "ShopDataGone"), shop.sim.now()).await
    };
    let (slow, quick) = tokio::join!(slow, quick);
    let decisions = [&quick.unwrap()[0], &slow.unwrap()[0]].map(|d| d.decision);
    assert_eq!(decisions, ["started", "busy"], "it judged on what was no longer so");
    assert_eq!(desk::list(&one.engine).await.unwrap().len(), 1);
}
