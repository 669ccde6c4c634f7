//! S16: a store whose mount is lost, or that is another bucket, takes everything and is none.

use std::collections::BTreeMap;
use std::time::Duration;

use skep::operation::record::{Operation, State, Work};
use skep_runner::store::MARK;
use skep_tests::saga::{CLOUD_SHELF, Scene};
use skep_tests::sim::postgres::Store;
use skep_tests::sim::shop::{Shop, ShopOptions};

use super::{catalogue, driven, failed_with, remarks, with_labels, with_settings};

const NAS: &str = "nas";
/// A directory of the host, as the model names it.
const DIR: &str = "/mnt/nas";

/// What the store of this source holds is gone: another place is under its name.
fn lose(shop: &Shop, source: &str) -> Store {
    shop.data.with(|world| world.others.get_mut(source).map(std::mem::take).expect("it was written to"))
}

fn bring_back(shop: &Shop, source: &str, held: Store) {
    shop.data.with(|world| world.others.insert(source.to_owned(), held));
}

fn held(shop: &Shop, source: &str) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    shop.data.with(|world| world.others.get(source).map(|s| s.dirs.clone()).unwrap_or_default())
}

async fn later(shop: Shop) -> Shop {
    tokio::time::sleep(Duration::from_secs(5)).await;
    shop
}

/// Backs up once more, with the store `dir` in a directory of the host.
async fn again(shop: Shop) -> (Shop, Operation) {
    let scene = Scene::ask(later(shop).await, Work::Backup).await;
    let env = with_settings(scene.driver("driver").await, |settings| {
        settings.stores.insert("dir".to_owned(), format!("bind:{DIR}").parse().unwrap());
    });
    scene.drive(&env).await;
    let op = scene.operation().await;
    (scene.shop, op)
}

fn to(store: &str) -> ShopOptions {
    with_labels(&[("skep.backup.store", store)], &[])
}

#[tokio::test(start_paused = true)]
async fn s16_where_a_store_is_another_one_than_it_was_no_backup_is_made_and_the_message_says_why() {
    for (store, source) in [(NAS, NAS), ("dir", DIR), ("cloud", CLOUD_SHELF)] {
        let (shop, op) = again(Shop::start(to(store)).await).await;
        assert_eq!(op.journal.state, State::Succeeded, "{store}, the first ever: {:#?}", op.journal);
        let (shop, op) = again(shop).await;
        assert_eq!(op.journal.state, State::Succeeded, "{store}: {:#?}", op.journal);
        let before = catalogue(&shop).await;
        let newest = before.last().unwrap().entry.dir.clone();

        let was = lose(&shop, source);
        let (shop, op) = again(shop).await;
        assert_eq!(op.journal.state, State::Failed, "{store}: {:#?}", op.journal);
        let why = format!("the store `{store}` does not hold the backup {newest}, nor any other");
        assert!(failed_with(&op, &why) && failed_with(&op, "its mount is lost"), "{:#?}", op.journal);
        assert_eq!(held(&shop, source), BTreeMap::new(), "{store}: something was written there");
        assert_eq!(catalogue(&shop).await, before);
        assert_eq!(shop.data.with(|world| world.staged()), [] as [String; 0]);

        // Mounted again, all goes on.
        bring_back(&shop, source, was);
        let (shop, op) = again(shop).await;
        assert_eq!(op.journal.state, State::Succeeded, "{store}: {:#?}", op.journal);
        assert_eq!(catalogue(&shop).await.len(), before.len() + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_on_purpose_takes_backups_once_a_person_says_so() {
    let (shop, _) = again(Shop::start(to("dir")).await).await;
    lose(&shop, DIR);
    let (shop, op) = again(shop).await;
    assert!(failed_with(&op, &format!("put a file named `{MARK}`")), "{:#?}", op.journal);
    shop.data.with(|world| world.others.get_mut(DIR).unwrap().write("", MARK, Vec::new()));
    let (shop, op) = again(shop).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    // From now on the new one vouches for it.
    shop.data.with(|world| world.others.get_mut(DIR).unwrap().dirs.remove(""));
    let (_, op) = again(shop).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
}

#[tokio::test(start_paused = true)]
async fn a_second_store_whose_mount_is_lost_gets_no_copies_and_the_backup_is_made_all_the_same() {
    let options = with_labels(&[("skep.backup.store", "cloud"), ("skep.backup.copies", "dir")], &[]);
    let (shop, op) = again(Shop::start(options).await).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    lose(&shop, DIR);
    let (shop, op) = again(shop).await;
    assert_eq!(op.journal.state, State::Succeeded, "{:#?}", op.journal);
    assert!(remarks(&op, "the store `dir` does not hold the backup"), "{:#?}", op.journal.remarks);
    assert_eq!(held(&shop, DIR), BTreeMap::new());
    let copied: Vec<usize> = catalogue(&shop).await.iter().map(|b| b.copies.len()).collect();
    assert_eq!(copied, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_the_engine_that_was_removed_is_filled_again() {
    let shop = Scene::back_up(Shop::start(ShopOptions::default()).await).await;
    shop.data.with(|world| world.store = Store::default());
    let scene = Scene::ask(later(shop).await, Work::Backup).await;
    let op = driven(&scene).await;
    assert_eq!(op.journal.state, State::Succeeded, "nothing is mounted there: {:#?}", op.journal);
}
