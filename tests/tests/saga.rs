//! Every kind of operation under every single failure: each write of a driver fails, is cut, is its last; two drivers at once.
//!
//! Every kind is tried at every third write, variants at every fifth, rollbacks with data at every thirteenth or twenty-ninth,
//! and each test of a kind begins at another one; all at every one with `SKEP_SAGA=all`, which `make soak` does.

use std::time::Duration;

use skep::operation::record::{Manner, State, Work};
use skep_tests::saga::{Driven, Scene};
use skep_tests::sim::shop::ShopOptions;
use skep_tests::sim::{Cut, Fault, Trigger, Unhealthy};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Backup,
    Beside,
    BesideZero,
    Roles,
    Hot,
    InPlace,
    Drill,
    FilesDrill,
    BrokerDrill,
    MongodbDrill,
    VolumeDrill,
    Maintenance,
    Sleep,
    Wake,
    Restart,
    RestartZero,
    RestartWhole,
    Rolling,
    Update,
    DataUpdate,
    UpdateBack,
    Together,
    TogetherBack,
    FullUpdate,
    FullBack,
    WakerSleep,
    WakerAgain,
    WakerWake,
    Reduce,
    Enlarge,
    Expire,
    FilesBackup,
    Files,
    Volume,
    CommandBackup,
    Command,
    Broker,
    Mongodb,
    Report,
    Verify,
    Import,
    Layout,
    FilesLayout,
    Point,
    Rollback,
    DataRollback,
    FilesRollback,
    CommandRollback,
    WholeRollback,
    Staged,
    StagedBeside,
    StagedInPlace,
    StagedFiles,
    StagedDrill,
    StagedFilesDrill,
    StagedCommand,
    Based,
    Moment,
}

impl Kind {
    /// How it ends where nothing disturbs it.
    fn end(self) -> State {
        if matches!(self, Kind::UpdateBack | Kind::TogetherBack | Kind::FullBack) {
            State::RolledBack
        } else {
            State::Succeeded
        }
    }

    fn stride(self) -> usize {
        if std::env::var("SKEP_SAGA").is_ok_and(|v| v == "all") {
            return 1;
        }
        match self {
            Kind::Backup | Kind::Beside | Kind::Drill | Kind::FilesDrill | Kind::Files => 3,
            Kind::Restart | Kind::RestartWhole | Kind::Rolling | Kind::Update | Kind::UpdateBack => 3,
            Kind::DataUpdate | Kind::Together | Kind::TogetherBack => 5,
            Kind::Maintenance | Kind::Sleep | Kind::Wake | Kind::WakerSleep | Kind::WakerWake => 3,
            Kind::Reduce | Kind::Enlarge => 3,
            Kind::WakerAgain => 5,
            Kind::Expire | Kind::Command | Kind::Staged => 3,
            Kind::Report | Kind::Verify | Kind::Import | Kind::Layout | Kind::Point | Kind::Rollback => 3,
            // Each is several operations in one, and has as many writes.
            Kind::DataRollback | Kind::FullUpdate => 13,
            Kind::FullBack => 29,
            Kind::FilesRollback | Kind::CommandRollback | Kind::WholeRollback => 29,
            Kind::RestartZero | Kind::BesideZero | Kind::Roles | Kind::Hot | Kind::InPlace => 5,
            Kind::Broker
            | Kind::Mongodb
            | Kind::FilesBackup
            | Kind::Volume
            | Kind::VolumeDrill
            | Kind::BrokerDrill
            | Kind::MongodbDrill
            | Kind::FilesLayout
            | Kind::CommandBackup => 5,
            Kind::StagedBeside | Kind::StagedInPlace | Kind::StagedFiles | Kind::StagedDrill => 5,
            Kind::StagedFilesDrill | Kind::StagedCommand | Kind::Based | Kind::Moment => 5,
        }
    }
}

const KINDS: [Kind; 55] = [
    Kind::Backup,
    Kind::Beside,
    Kind::BesideZero,
    Kind::Roles,
    Kind::Hot,
    Kind::InPlace,
    Kind::Drill,
    Kind::FilesDrill,
    Kind::BrokerDrill,
    Kind::MongodbDrill,
    Kind::VolumeDrill,
    Kind::Maintenance,
    Kind::Sleep,
    Kind::Wake,
    Kind::Restart,
    Kind::RestartZero,
    Kind::RestartWhole,
    Kind::Rolling,
    Kind::Update,
    Kind::DataUpdate,
    Kind::Together,
    Kind::FullUpdate,
    Kind::WakerSleep,
    Kind::WakerAgain,
    Kind::WakerWake,
    Kind::Reduce,
    Kind::Enlarge,
    Kind::Expire,
    Kind::FilesBackup,
    Kind::Files,
    Kind::Volume,
    Kind::CommandBackup,
    Kind::Command,
    Kind::Broker,
    Kind::Mongodb,
    Kind::Report,
    Kind::Verify,
    Kind::Import,
    Kind::Layout,
    Kind::FilesLayout,
    Kind::Point,
    Kind::Rollback,
    Kind::DataRollback,
    Kind::FilesRollback,
    Kind::CommandRollback,
    Kind::WholeRollback,
    Kind::Staged,
    Kind::StagedBeside,
    Kind::StagedInPlace,
    Kind::StagedFiles,
    Kind::StagedDrill,
    Kind::StagedFilesDrill,
    Kind::StagedCommand,
    Kind::Based,
    Kind::Moment,
];

fn restore(in_place: bool, quiesce: Option<bool>) -> Work {
    Work::Restore {
        to: None,
        backup: None,
        before: None,
        in_place: Some(in_place),
        quiesce,
        create_roles: false,
    }
}

fn proxy_mode() -> ShopOptions {
    let mut options = ShopOptions { own_page: true, ..ShopOptions::default() };
    options.app_labels.push(("skep.maintenance.mode".to_owned(), "proxy".to_owned()));
    options
}

/// Whoever asks for the application wakes it.
fn waker() -> ShopOptions {
    let mut options = ShopOptions::default();
    for (key, value) in [("wake", "true"), ("wake.port", "8080")] {
        options.app_labels.push((format!("skep.scale.{key}"), value.to_owned()));
    }
    options
}

/// The application keeps one of its two replicas.
fn keeps_one() -> ShopOptions {
    let mut options = ShopOptions::default();
    options.app_labels.push(("skep.scale.min".to_owned(), "1".to_owned()));
    options
}

/// Backups go to a bucket, encrypted, and are copied to a second store.
fn staged(mut options: ShopOptions) -> ShopOptions {
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    for (key, value) in [("store", "cloud"), ("encrypt", recipient), ("copies", "nas")] {
        options.db_labels.push((format!("skep.backup.{key}"), value.to_owned()));
    }
    options
}

async fn scene(kind: Kind) -> Scene {
    match kind {
        Kind::Staged => Scene::backup(staged(ShopOptions::default())).await,
        Kind::StagedBeside => Scene::restore(staged(ShopOptions::default()), restore(false, None)).await,
        Kind::StagedInPlace => Scene::restore(staged(ShopOptions::default()), restore(true, None)).await,
        Kind::StagedFiles => {
            Scene::restore(staged(ShopOptions::files("mariadb")), restore(false, None)).await
        }
        Kind::StagedDrill => Scene::drill(staged(ShopOptions::default())).await,
        Kind::StagedFilesDrill => Scene::drill(staged(ShopOptions::files("mariadb"))).await,
        Kind::StagedCommand => {
            Scene::restore(staged(ShopOptions::files("command")), restore(true, None)).await
        }
        Kind::Based => Scene::based(ShopOptions::default()).await,
        Kind::Moment => Scene::moment(ShopOptions::default()).await,
        Kind::Backup => Scene::backup(ShopOptions::default()).await,
        Kind::Beside => Scene::restore(ShopOptions::default(), restore(false, None)).await,
        Kind::BesideZero => Scene::restore(proxy_mode(), restore(false, None)).await,
        Kind::Roles => Scene::restore_with_roles(ShopOptions::default()).await,
        Kind::Hot => Scene::restore(ShopOptions::default(), restore(false, Some(false))).await,
        Kind::InPlace => Scene::restore(ShopOptions::default(), restore(true, None)).await,
        Kind::Drill => Scene::drill(ShopOptions::default()).await,
        Kind::FilesDrill => Scene::drill(ShopOptions::files("mariadb")).await,
        Kind::VolumeDrill => Scene::drill(ShopOptions::files("volume")).await,
        Kind::BrokerDrill => Scene::drill(ShopOptions::files("rabbitmq")).await,
        Kind::MongodbDrill => Scene::drill(ShopOptions::files("mongodb")).await,
        Kind::Maintenance => Scene::maintenance(ShopOptions::default(), Duration::from_secs(20)).await,
        Kind::Sleep => Scene::sleep(proxy_mode()).await,
        Kind::Wake => Scene::wake(proxy_mode()).await,
        Kind::Restart => Scene::restart(ShopOptions::default(), "shop_db", Manner::Fitting).await,
        Kind::RestartZero => Scene::restart(proxy_mode(), "shop_db", Manner::Fitting).await,
        Kind::RestartWhole => Scene::restart_whole(ShopOptions::default()).await,
        Kind::Rolling => Scene::restart(ShopOptions::default(), "shop_app", Manner::Rolling).await,
        Kind::Update => Scene::update(ShopOptions::default(), "shop_app", "shop-app:2").await,
        Kind::DataUpdate => Scene::update(ShopOptions::default(), "shop_db", "postgres:17.1").await,
        Kind::UpdateBack => {
            let scene = Scene::update(ShopOptions::default(), "shop_app", "shop-app:2").await;
            scene.shop.sim.workload("shop-app:2", Unhealthy);
            scene
        }
        Kind::Together => Scene::update_together(ShopOptions::default()).await,
        Kind::TogetherBack => Scene::update_together_that_fails(ShopOptions::default()).await,
        Kind::FullUpdate => Scene::update_with_data(ShopOptions::default()).await,
        Kind::FullBack => Scene::update_that_spoils(ShopOptions::default()).await,
        Kind::WakerSleep => Scene::sleep(waker()).await,
        Kind::WakerAgain => Scene::sleep_again(waker()).await,
        Kind::WakerWake => Scene::wake(waker()).await,
        Kind::Reduce => Scene::reduce(keeps_one(), 1).await,
        Kind::Enlarge => Scene::enlarge(keeps_one(), 1).await,
        Kind::Expire => Scene::expire(ShopOptions::default()).await,
        Kind::FilesBackup => Scene::backup(ShopOptions::files("mariadb")).await,
        Kind::Files => Scene::restore(ShopOptions::files("mariadb"), restore(false, None)).await,
        Kind::Volume => Scene::restore(ShopOptions::files("volume"), restore(false, None)).await,
        Kind::CommandBackup => Scene::backup(ShopOptions::files("command")).await,
        Kind::Command => Scene::restore(ShopOptions::files("command"), restore(true, None)).await,
        Kind::Broker => Scene::restore(ShopOptions::files("rabbitmq"), restore(true, None)).await,
        Kind::Mongodb => Scene::restore(ShopOptions::files("mongodb"), restore(true, None)).await,
        Kind::Report => Scene::report(ShopOptions::default()).await,
        Kind::Verify => Scene::verify(ShopOptions::default(), false).await,
        Kind::Import => Scene::import(ShopOptions::default()).await,
        Kind::Layout => Scene::layout(ShopOptions::default()).await.0,
        Kind::FilesLayout => Scene::layout(ShopOptions::files("volume")).await.0,
        Kind::Point => Scene::point(ShopOptions::default()).await,
        Kind::DataRollback => Box::pin(Scene::rollback_with_data(ShopOptions::default())).await,
        Kind::FilesRollback => Box::pin(Scene::rollback_with_data(ShopOptions::files("mariadb"))).await,
        Kind::CommandRollback => Box::pin(Scene::rollback_with_data(ShopOptions::files("command"))).await,
        Kind::WholeRollback => Box::pin(Scene::rollback_with_data(ShopOptions::app_with_files())).await,
        Kind::Rollback => Box::pin(Scene::rollback(ShopOptions::default())).await,
    }
}

async fn writes_of_a_clean_run(kind: Kind) -> usize {
    let scene = scene(kind).await;
    let env = scene.driver("clean").await;
    assert!(matches!(scene.drive(&env).await, Driven::Rest));
    assert_eq!(scene.check(&format!("clean {kind:?}")).await, kind.end());
    scene.shop.sim.faults().writes("clean")
}

/// Runs one case for every write of a clean run, or for so many as its kind says: `start` tells where to begin.
async fn for_every_write<F>(kind: Kind, start: usize, case: impl Fn(usize) -> F)
where
    F: Future<Output = State>,
{
    let writes = Box::pin(writes_of_a_clean_run(kind)).await;
    assert!(writes > 10, "{kind:?} makes only {writes} writes");
    let mut ends = std::collections::BTreeMap::<&str, usize>::new();
    for write in (1 + start % kind.stride()..=writes).step_by(kind.stride()) {
        *ends.entry(case(write).await.as_str()).or_default() += 1;
    }
    println!("{kind:?}: {writes} writes, ends {ends:?}");
}

async fn dies(kind: Kind, write: usize, cut: Cut) -> State {
    let scene = scene(kind).await;
    scene.shop.sim.faults().on("first", Trigger::Write(write), Fault::Kill(cut));
    let first = scene.driver("first").await;
    assert!(matches!(scene.drive(&first).await, Driven::Dead), "{kind:?}: the driver outlives write {write}");
    // Another one takes over after a lease's time.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let second = scene.driver("second").await;
    scene.drive(&second).await;
    let what = format!("{kind:?} dies {cut:?} write {write}");
    let state = scene.check(&what).await;
    assert_eq!(state, kind.end(), "{what}: a driver's death is no reason to end otherwise");
    state
}

async fn disturbed(kind: Kind, write: usize, fault: Fault) -> State {
    let scene = scene(kind).await;
    let what = format!("{kind:?} with {fault:?} at write {write}");
    scene.shop.sim.faults().on("driver", Trigger::Write(write), fault);
    let env = scene.driver("driver").await;
    scene.drive(&env).await;
    if scene.operation().await.journal.state == State::Stuck {
        scene.check_stuck(&what).await;
        scene.retry().await;
        scene.drive(&env).await;
        assert_eq!(scene.check(&what).await, State::Succeeded, "{what}, tried again");
        return State::Stuck;
    }
    scene.check(&what).await
}

/// The same on a way that itself goes back: there a write that is refused leaves all as it was before, or a person is needed,
/// who tries again.
async fn fails_on_the_way_back(kind: Kind, write: usize) -> State {
    let scene = scene(kind).await;
    let what = format!("{kind:?} is refused write {write}");
    scene.shop.sim.faults().on("driver", Trigger::Write(write), Fault::Fail(400, "refused".to_owned()));
    let env = scene.driver("driver").await;
    scene.drive(&env).await;
    let was_stuck = scene.operation().await.journal.state == State::Stuck;
    if was_stuck {
        scene.retry_parts(&env).await;
        scene.retry().await;
        scene.drive(&env).await;
    }
    let end = scene.check(&what).await;
    assert!(matches!(end, State::RolledBack | State::Failed), "{what}: {end:?}");
    assert!(end == State::RolledBack || !was_stuck, "{what}, tried again: {end:?}");
    if was_stuck { State::Stuck } else { end }
}

macro_rules! for_each_kind {
    ($($name:ident: $kind:expr, $case:expr;)*) => { $(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            for_every_write($kind, stringify!($name).len(), |write| $case($kind, write)).await;
        }
    )* };
}

fn dies_before(kind: Kind, write: usize) -> impl Future<Output = State> {
    dies(kind, write, Cut::Before)
}

fn dies_after(kind: Kind, write: usize) -> impl Future<Output = State> {
    dies(kind, write, Cut::After)
}

/// The write takes effect, its answer is lost, and the same driver goes on: every effect happens twice.
fn repeats(kind: Kind, write: usize) -> impl Future<Output = State> {
    disturbed(kind, write, Fault::Cut(Cut::After))
}

/// The engine refuses the write for good: the step fails.
fn fails(kind: Kind, write: usize) -> impl Future<Output = State> {
    disturbed(kind, write, Fault::Fail(400, "refused on purpose".to_owned()))
}

for_each_kind! {
    a_backup_survives_death_before_every_write: Kind::Backup, dies_before;
    a_backup_survives_death_after_every_write: Kind::Backup, dies_after;
    a_backup_survives_every_write_twice: Kind::Backup, repeats;
    a_backup_goes_back_when_any_write_fails: Kind::Backup, fails;
    a_staged_backup_survives_death_before_every_write: Kind::Staged, dies_before;
    a_staged_backup_survives_death_after_every_write: Kind::Staged, dies_after;
    a_staged_backup_survives_every_write_twice: Kind::Staged, repeats;
    a_staged_backup_goes_back_when_any_write_fails: Kind::Staged, fails;
    a_staged_restore_survives_death_after_every_write: Kind::StagedBeside, dies_after;
    a_staged_restore_goes_back_when_any_write_fails: Kind::StagedBeside, fails;
    a_staged_restore_in_place_goes_back_when_any_write_fails: Kind::StagedInPlace, fails;
    a_staged_restore_of_a_directory_goes_back_when_any_write_fails: Kind::StagedFiles, fails;
    a_staged_drill_survives_death_after_every_write: Kind::StagedDrill, dies_after;
    a_staged_drill_goes_back_when_any_write_fails: Kind::StagedDrill, fails;
    a_staged_drill_of_a_directory_survives_death_after_every_write: Kind::StagedFilesDrill, dies_after;
    a_staged_drill_of_a_directory_goes_back_when_any_write_fails: Kind::StagedFilesDrill, fails;
    a_staged_restore_by_a_command_survives_death_after_every_write: Kind::StagedCommand, dies_after;
    a_staged_restore_by_a_command_goes_back_when_any_write_fails: Kind::StagedCommand, fails;
    a_restore_survives_death_before_every_write: Kind::Beside, dies_before;
    a_restore_survives_death_after_every_write: Kind::Beside, dies_after;
    a_restore_survives_every_write_twice: Kind::Beside, repeats;
    a_restore_goes_back_when_any_write_fails: Kind::Beside, fails;
    a_backup_with_a_base_survives_death_after_every_write: Kind::Based, dies_after;
    a_backup_with_a_base_goes_back_when_any_write_fails: Kind::Based, fails;
    a_restore_to_a_moment_survives_death_before_every_write: Kind::Moment, dies_before;
    a_restore_to_a_moment_survives_death_after_every_write: Kind::Moment, dies_after;
    a_restore_to_a_moment_survives_every_write_twice: Kind::Moment, repeats;
    a_restore_to_a_moment_goes_back_when_any_write_fails: Kind::Moment, fails;
    a_restore_at_zero_survives_death_after_every_write: Kind::BesideZero, dies_after;
    a_restore_at_zero_goes_back_when_any_write_fails: Kind::BesideZero, fails;
    a_restore_that_makes_roles_survives_death_before_every_write: Kind::Roles, dies_before;
    a_restore_that_makes_roles_survives_death_after_every_write: Kind::Roles, dies_after;
    a_restore_that_makes_roles_goes_back_when_any_write_fails: Kind::Roles, fails;
    a_hot_restore_survives_death_after_every_write: Kind::Hot, dies_after;
    a_restore_in_place_survives_death_before_every_write: Kind::InPlace, dies_before;
    a_restore_in_place_survives_death_after_every_write: Kind::InPlace, dies_after;
    a_restore_in_place_goes_back_when_any_write_fails: Kind::InPlace, fails;
    a_drill_survives_death_before_every_write: Kind::Drill, dies_before;
    a_drill_survives_death_after_every_write: Kind::Drill, dies_after;
    a_drill_survives_every_write_twice: Kind::Drill, repeats;
    a_drill_goes_back_when_any_write_fails: Kind::Drill, fails;
    a_drill_of_a_directory_survives_death_before_every_write: Kind::FilesDrill, dies_before;
    a_drill_of_a_directory_survives_death_after_every_write: Kind::FilesDrill, dies_after;
    a_drill_of_a_directory_survives_every_write_twice: Kind::FilesDrill, repeats;
    a_drill_of_a_directory_goes_back_when_any_write_fails: Kind::FilesDrill, fails;
    a_drill_of_a_volume_survives_death_after_every_write: Kind::VolumeDrill, dies_after;
    a_drill_of_a_volume_goes_back_when_any_write_fails: Kind::VolumeDrill, fails;
    a_drill_of_a_broker_survives_death_after_every_write: Kind::BrokerDrill, dies_after;
    a_drill_of_a_broker_goes_back_when_any_write_fails: Kind::BrokerDrill, fails;
    a_drill_of_a_mongodb_survives_death_after_every_write: Kind::MongodbDrill, dies_after;
    a_drill_of_a_mongodb_goes_back_when_any_write_fails: Kind::MongodbDrill, fails;
    maintenance_survives_death_before_every_write: Kind::Maintenance, dies_before;
    maintenance_survives_death_after_every_write: Kind::Maintenance, dies_after;
    maintenance_survives_every_write_twice: Kind::Maintenance, repeats;
    maintenance_goes_back_when_any_write_fails: Kind::Maintenance, fails;
    a_sleep_survives_death_before_every_write: Kind::Sleep, dies_before;
    a_sleep_survives_death_after_every_write: Kind::Sleep, dies_after;
    a_sleep_survives_every_write_twice: Kind::Sleep, repeats;
    a_sleep_goes_back_when_any_write_fails: Kind::Sleep, fails;
    a_wake_survives_death_before_every_write: Kind::Wake, dies_before;
    a_wake_survives_death_after_every_write: Kind::Wake, dies_after;
    a_wake_survives_every_write_twice: Kind::Wake, repeats;
    a_wake_loses_nothing_when_any_write_fails: Kind::Wake, fails;
    a_restart_survives_death_before_every_write: Kind::Restart, dies_before;
    a_restart_survives_death_after_every_write: Kind::Restart, dies_after;
    a_restart_survives_every_write_twice: Kind::Restart, repeats;
    a_restart_leaves_everything_up_when_any_write_fails: Kind::Restart, fails;
    a_restart_at_zero_survives_death_after_every_write: Kind::RestartZero, dies_after;
    a_restart_at_zero_leaves_everything_up_when_any_write_fails: Kind::RestartZero, fails;
    a_restart_of_a_stack_survives_death_before_every_write: Kind::RestartWhole, dies_before;
    a_restart_of_a_stack_survives_death_after_every_write: Kind::RestartWhole, dies_after;
    a_restart_of_a_stack_survives_every_write_twice: Kind::RestartWhole, repeats;
    a_restart_of_a_stack_leaves_everything_up_when_any_write_fails: Kind::RestartWhole, fails;
    a_rolling_restart_survives_death_before_every_write: Kind::Rolling, dies_before;
    a_rolling_restart_survives_death_after_every_write: Kind::Rolling, dies_after;
    a_rolling_restart_survives_every_write_twice: Kind::Rolling, repeats;
    a_rolling_restart_goes_back_when_any_write_fails: Kind::Rolling, fails;
    an_update_survives_death_before_every_write: Kind::Update, dies_before;
    an_update_survives_death_after_every_write: Kind::Update, dies_after;
    an_update_survives_every_write_twice: Kind::Update, repeats;
    an_update_goes_back_when_any_write_fails: Kind::Update, fails;
    an_update_of_data_survives_death_after_every_write: Kind::DataUpdate, dies_after;
    an_update_of_data_goes_back_or_stays_when_any_write_fails: Kind::DataUpdate, fails;
    an_update_that_goes_back_survives_death_before_every_write: Kind::UpdateBack, dies_before;
    an_update_that_goes_back_survives_death_after_every_write: Kind::UpdateBack, dies_after;
    an_update_that_goes_back_survives_every_write_twice: Kind::UpdateBack, repeats;
    an_update_of_two_as_one_survives_death_before_every_write: Kind::Together, dies_before;
    an_update_of_two_as_one_survives_death_after_every_write: Kind::Together, dies_after;
    an_update_of_two_as_one_survives_every_write_twice: Kind::Together, repeats;
    an_update_of_two_as_one_goes_back_when_any_write_fails: Kind::Together, fails;
    an_update_of_two_of_which_one_fails_survives_death_before_every_write: Kind::TogetherBack, dies_before;
    an_update_of_two_of_which_one_fails_survives_death_after_every_write: Kind::TogetherBack, dies_after;
    an_update_of_two_of_which_one_fails_survives_every_write_twice: Kind::TogetherBack, repeats;
    an_update_with_data_survives_death_before_every_write: Kind::FullUpdate, dies_before;
    an_update_with_data_survives_death_after_every_write: Kind::FullUpdate, dies_after;
    an_update_with_data_goes_back_when_any_write_fails: Kind::FullUpdate, fails;
    an_update_that_goes_back_with_its_data_survives_death_before_every_write: Kind::FullBack, dies_before;
    an_update_that_goes_back_with_its_data_survives_death_after_every_write: Kind::FullBack, dies_after;
    an_update_that_goes_back_with_its_data_survives_every_write_twice: Kind::FullBack, repeats;
    an_update_that_goes_back_with_its_data_is_back_or_stuck_when_any_write_fails: Kind::FullBack, fails_on_the_way_back;
    a_sleep_behind_a_waker_survives_death_before_every_write: Kind::WakerSleep, dies_before;
    a_sleep_behind_a_waker_survives_death_after_every_write: Kind::WakerSleep, dies_after;
    a_sleep_behind_a_waker_survives_every_write_twice: Kind::WakerSleep, repeats;
    a_sleep_behind_a_waker_goes_back_when_any_write_fails: Kind::WakerSleep, fails;
    a_waker_in_place_of_another_survives_death_before_every_write: Kind::WakerAgain, dies_before;
    a_waker_in_place_of_another_survives_death_after_every_write: Kind::WakerAgain, dies_after;
    a_waker_in_place_of_another_survives_every_write_twice: Kind::WakerAgain, repeats;
    a_waker_in_place_of_another_goes_back_when_any_write_fails: Kind::WakerAgain, fails;
    a_scale_down_survives_death_before_every_write: Kind::Reduce, dies_before;
    a_scale_down_survives_death_after_every_write: Kind::Reduce, dies_after;
    a_scale_down_survives_every_write_twice: Kind::Reduce, repeats;
    a_scale_down_goes_back_when_any_write_fails: Kind::Reduce, fails;
    a_scale_up_survives_death_before_every_write: Kind::Enlarge, dies_before;
    a_scale_up_survives_death_after_every_write: Kind::Enlarge, dies_after;
    a_scale_up_survives_every_write_twice: Kind::Enlarge, repeats;
    a_scale_up_loses_nothing_when_any_write_fails: Kind::Enlarge, fails;
    a_wake_from_behind_a_waker_survives_death_before_every_write: Kind::WakerWake, dies_before;
    a_wake_from_behind_a_waker_survives_death_after_every_write: Kind::WakerWake, dies_after;
    a_wake_from_behind_a_waker_survives_every_write_twice: Kind::WakerWake, repeats;
    a_wake_from_behind_a_waker_loses_nothing_when_any_write_fails: Kind::WakerWake, fails;
    a_backup_of_a_directory_survives_death_after_every_write: Kind::FilesBackup, dies_after;
    a_backup_of_a_directory_goes_back_when_any_write_fails: Kind::FilesBackup, fails;
    a_restore_of_a_directory_survives_death_before_every_write: Kind::Files, dies_before;
    a_restore_of_a_directory_survives_death_after_every_write: Kind::Files, dies_after;
    a_restore_of_a_directory_survives_every_write_twice: Kind::Files, repeats;
    a_restore_of_a_directory_goes_back_when_any_write_fails: Kind::Files, fails;
    a_restore_of_a_volume_survives_death_after_every_write: Kind::Volume, dies_after;
    a_restore_of_a_volume_goes_back_when_any_write_fails: Kind::Volume, fails;
    a_backup_by_a_command_survives_death_after_every_write: Kind::CommandBackup, dies_after;
    a_backup_by_a_command_goes_back_when_any_write_fails: Kind::CommandBackup, fails;
    a_restore_into_a_broker_survives_death_before_every_write: Kind::Broker, dies_before;
    a_restore_into_a_broker_goes_back_when_any_write_fails: Kind::Broker, fails;
    a_restore_into_a_mongodb_survives_death_after_every_write: Kind::Mongodb, dies_after;
    a_restore_into_a_mongodb_goes_back_when_any_write_fails: Kind::Mongodb, fails;
    a_restore_by_a_command_survives_death_before_every_write: Kind::Command, dies_before;
    a_restore_by_a_command_survives_death_after_every_write: Kind::Command, dies_after;
    a_restore_by_a_command_survives_every_write_twice: Kind::Command, repeats;
    a_restore_by_a_command_goes_back_when_any_write_fails: Kind::Command, fails;
    an_expiry_survives_death_before_every_write: Kind::Expire, dies_before;
    an_expiry_survives_death_after_every_write: Kind::Expire, dies_after;
    an_expiry_survives_every_write_twice: Kind::Expire, repeats;
    an_expiry_goes_back_when_any_write_fails: Kind::Expire, fails;
    a_report_survives_death_before_every_write: Kind::Report, dies_before;
    a_report_survives_death_after_every_write: Kind::Report, dies_after;
    a_report_survives_every_write_twice: Kind::Report, repeats;
    a_report_leaves_nothing_when_any_write_fails: Kind::Report, fails;
    a_verification_survives_death_before_every_write: Kind::Verify, dies_before;
    a_verification_survives_death_after_every_write: Kind::Verify, dies_after;
    a_verification_survives_every_write_twice: Kind::Verify, repeats;
    a_verification_leaves_nothing_when_any_write_fails: Kind::Verify, fails;
    an_import_survives_death_before_every_write: Kind::Import, dies_before;
    an_import_survives_death_after_every_write: Kind::Import, dies_after;
    an_import_survives_every_write_twice: Kind::Import, repeats;
    an_import_goes_back_when_any_write_fails: Kind::Import, fails;
    a_point_survives_death_before_every_write: Kind::Point, dies_before;
    a_point_survives_death_after_every_write: Kind::Point, dies_after;
    a_point_survives_every_write_twice: Kind::Point, repeats;
    a_point_leaves_nothing_when_any_write_fails: Kind::Point, fails;
    a_rollback_survives_death_before_every_write: Kind::Rollback, dies_before;
    a_rollback_survives_death_after_every_write: Kind::Rollback, dies_after;
    a_rollback_survives_every_write_twice: Kind::Rollback, repeats;
    a_rollback_goes_back_when_any_write_fails: Kind::Rollback, fails;
    a_rollback_with_data_survives_death_before_every_write: Kind::DataRollback, dies_before;
    a_rollback_with_data_survives_death_after_every_write: Kind::DataRollback, dies_after;
    a_rollback_with_data_survives_every_write_twice: Kind::DataRollback, repeats;
    a_rollback_with_data_goes_back_when_any_write_fails: Kind::DataRollback, fails;
    a_rollback_with_files_survives_death_after_every_write: Kind::FilesRollback, dies_after;
    a_rollback_with_files_goes_back_when_any_write_fails: Kind::FilesRollback, fails;
    a_rollback_of_an_application_and_its_files_survives_death_before_every_write: Kind::WholeRollback, dies_before;
    a_rollback_of_an_application_and_its_files_survives_death_after_every_write: Kind::WholeRollback, dies_after;
    a_rollback_of_an_application_and_its_files_survives_every_write_twice: Kind::WholeRollback, repeats;
    a_rollback_of_an_application_and_its_files_goes_back_when_any_write_fails: Kind::WholeRollback, fails;
    a_rollback_with_a_command_survives_death_after_every_write: Kind::CommandRollback, dies_after;
    a_rollback_with_a_command_goes_back_when_any_write_fails: Kind::CommandRollback, fails;
    an_import_by_hand_survives_death_before_every_write: Kind::Layout, dies_before;
    an_import_by_hand_survives_death_after_every_write: Kind::Layout, dies_after;
    an_import_by_hand_survives_every_write_twice: Kind::Layout, repeats;
    an_import_by_hand_goes_back_when_any_write_fails: Kind::Layout, fails;
    an_import_of_files_by_hand_survives_death_after_every_write: Kind::FilesLayout, dies_after;
    an_import_of_files_by_hand_goes_back_when_any_write_fails: Kind::FilesLayout, fails;
}

#[tokio::test(start_paused = true)]
async fn two_drivers_at_once_end_as_one_would() {
    for kind in KINDS {
        let scene = scene(kind).await;
        let (one, two) = (scene.driver("one").await, scene.driver("two").await);
        tokio::join!(scene.drive(&one), scene.drive(&two));
        assert_eq!(scene.check(&format!("{kind:?} by two")).await, State::Succeeded);
    }
}

#[tokio::test(start_paused = true)]
async fn two_drivers_at_once_take_an_update_back_as_one_would() {
    for kind in [Kind::FullBack, Kind::TogetherBack] {
        let scene = scene(kind).await;
        let (one, two) = (scene.driver("one").await, scene.driver("two").await);
        tokio::join!(scene.drive(&one), scene.drive(&two));
        assert_eq!(scene.check(&format!("{kind:?} by two")).await, State::RolledBack);
    }
}
