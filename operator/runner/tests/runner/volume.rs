//! Volumes: there and back, exactly.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::support::{Bench, Outcome, Tree, read_tree, rich_tree};
use rustix::process::{Pid, Signal, kill_process};
use skep_runner::task::{
    DataEngine, DirInspect, DirInspection, DirRemove, Direction, Report, SideState, Stored, Task,
};

fn rich() -> (Bench, Tree) {
    let bench = Bench::new(DataEngine::Volume);
    rich_tree(&bench.data());
    let tree = read_tree(&bench.data());
    (bench, tree)
}

fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(Command::new("rm").arg("-rf").arg(path).status().unwrap().success());
    }
}

fn inspect(bench: &Bench, backups: Vec<Stored>) -> DirInspection {
    let task = DirInspect { engine: DataEngine::Volume, connect: None, root: bench.root(), backups };
    match bench.run(Task::DirInspect(task)).done() {
        Report::DirInspect(found) => *found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_volume_comes_back_exactly_as_it_was() {
    let (bench, before) = rich();
    assert!(before.len() > 25);
    let stored = bench.back_up(None, "one");
    bench.run(bench.examine(&stored)).done();
    empty(&bench.data());
    fs::write(bench.data().join("something else"), "written later").unwrap();
    let loaded = bench.load(&stored, "r1");
    assert_eq!(loaded.entries + 1, before.len() as u64, "the root itself is not counted");
    assert_eq!(
        bench.moved("r1", Direction::Forward).renamed,
        1 + fs::read_dir(bench.data()).unwrap().count() as u64 - 2
    );
    let after = read_tree(&bench.data());
    for (name, node) in &before {
        assert_eq!(Some(node), after.get(name), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(before, after);
    let old = bench.data().join(".skep-r1/old/something else");
    assert_eq!(fs::read_to_string(old).unwrap(), "written later");
}

#[test]
fn a_sparse_file_takes_as_little_room_as_before() {
    let (bench, _) = rich();
    let dumped = bench.dump(None, "one");
    assert!(dumped.artefacts[0].size < 4 << 20, "{}", dumped.artefacts[0].size);
    let stored = bench.sealed("one", bench.manifest("one", dumped));
    bench.load(&stored, "r1");
    let blocks = |path: &str| fs::metadata(bench.data().join(path)).unwrap().blocks();
    assert!(blocks(".skep-r1/new/sparse-middle") <= blocks("sparse-middle"));
}

#[test]
fn tar_itself_reads_the_archive() {
    let (bench, before) = rich();
    bench.dump(None, "one");
    let target = bench.dir.join("by-hand");
    fs::create_dir(&target).unwrap();
    let output = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "-p", "--numeric-owner", "-xf"])
        .arg(bench.dir.join("store/one/data.tar"))
        .arg("-C")
        .arg(&target)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(before, read_tree(&target));
}

#[test]
fn the_same_archive_comes_out_twice() {
    let (bench, _) = rich();
    assert_eq!(bench.dump(None, "one").artefacts, bench.dump(None, "two").artefacts);
}

#[test]
fn what_is_left_out_is_told() {
    let (bench, _) = rich();
    let _listener = UnixListener::bind(bench.data().join("socket")).unwrap();
    fs::create_dir(bench.data().join(".skep-older")).unwrap();
    fs::create_dir(bench.data().join("lost+found")).unwrap();
    let dumped = bench.dump(None, "one");
    assert_eq!(dumped.contents.left_out.count, 1);
    assert_eq!(dumped.contents.left_out.first, ["socket (socket)"]);
    assert_eq!(dumped.contents.changed.count, 0);
    let names = Command::new("tar").arg("-tf").arg(bench.dir.join("store/one/data.tar")).output().unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(names.contains("plain.txt") && !names.contains(".skep-") && !names.contains("lost+found"));
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told_and_the_archive_stays_whole() {
    let bench = Bench::new(DataEngine::Volume);
    fs::write(bench.data().join("a-quiet"), "quiet").unwrap();
    fs::write(bench.data().join("log"), vec![b'x'; 24 << 20]).unwrap();
    fs::write(bench.data().join("z-quiet"), "quiet").unwrap();
    let runner = bench.runner(Task::DirDump(skep_runner::task::DirDump {
        engine: DataEngine::Volume,
        connect: None,
        volumes: vec![skep_runner::task::VolumeRoot { name: "data".into(), root: bench.root() }],
        dir: "one".into(),
    }));
    let child = runner.spawn();
    let folder = bench.dir.join("store/one");
    let size = || -> u64 {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    };
    crate::support::until(|| size() > 1 << 20);
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    assert!(size() < 24 << 20, "it was still at it");
    fs::OpenOptions::new().write(true).open(bench.data().join("log")).unwrap().set_len(100).unwrap();
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    let Report::DirDump(dumped) = Outcome::of(child).done() else { panic!("another report") };
    assert_eq!(dumped.contents.changed.first, ["log"]);
    let stored = bench.sealed("one", bench.manifest("one", *dumped));
    bench.run(bench.examine(&stored)).done();
}

#[test]
fn a_damaged_artefact_is_refused_before_anything_is_touched() {
    let (bench, before) = rich();
    let stored = bench.back_up(None, "one");
    let path = bench.dir.join("store/one/data.tar");
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[1 << 20] ^= 1;
    let mut longer = whole.clone();
    longer.push(0);
    for damaged in [whole[..whole.len() - 512].to_vec(), flipped, longer, Vec::new()] {
        fs::write(&path, damaged).unwrap();
        let said = bench.run(Task::DirLoad(bench.load_task(&stored, "r1"))).refused();
        assert!(said.contains("data.tar"), "{said}");
        bench.run(bench.examine(&stored)).refused();
        assert_eq!(before, read_tree(&bench.data()));
        assert!(!bench.data().join(".skep-r1").exists() && !bench.data().join(".skep-lock").exists());
    }
    fs::write(&path, whole).unwrap();
    let foreign = Stored { manifest_sha256: "0".repeat(64), ..stored.clone() };
    assert!(
        bench
            .run(Task::DirLoad(bench.load_task(&foreign, "r1")))
            .refused()
            .contains("not the registered one")
    );
    let mut redis = bench.load_task(&stored, "r1");
    redis.engine = DataEngine::Redis;
    assert!(bench.run(Task::DirLoad(redis)).refused().contains("is one of `volume`"));
    assert!(!bench.data().join(".skep-r1").exists());
}

#[test]
fn an_archive_cut_short_is_not_sealed_though_its_checksums_are_right() {
    let (bench, _) = rich();
    let mut dumped = bench.dump(None, "one");
    let path = bench.dir.join("store/one/data.tar");
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 1024);
    fs::write(&path, &bytes).unwrap();
    let planted = bench.plant("other", "data.tar", &bytes);
    let text = fs::read(bench.dir.join("store/other/manifest.json")).unwrap();
    let manifest: skep_runner::Manifest = serde_json::from_slice(&text).unwrap();
    dumped.artefacts = manifest.artefacts;
    let seal = skep_runner::task::DirSeal {
        engine: DataEngine::Volume,
        dir: "one".into(),
        manifest: bench.manifest("one", dumped),
    };
    assert!(bench.run(Task::DirSeal(seal)).refused().contains("cut short"));
    assert!(!bench.dir.join("store/one/manifest.json").exists());
    assert!(bench.run(bench.examine(&planted)).refused().contains("cut short"));
    let said = bench.run(Task::DirLoad(bench.load_task(&planted, "r1"))).refused();
    assert!(said.contains("cut short"), "{said}");
    assert!(!bench.data().join(".skep-r1").exists(), "what was unpacked is gone");
}

#[test]
fn what_a_killed_load_left_goes_first() {
    let (bench, before) = rich();
    let stored = bench.back_up(None, "one");
    let child = bench.runner(Task::DirLoad(bench.load_task(&stored, "r1"))).spawn();
    let new = bench.data().join(".skep-r1/new");
    crate::support::until(|| fs::read_dir(&new).is_ok_and(|mut names| names.next().is_some()));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait_with_output().unwrap();
    fs::write(new.join("left"), "by the killed one").unwrap();
    bench.load(&stored, "r1");
    assert!(!new.join("left").exists());
    bench.moved("r1", Direction::Forward);
    assert_eq!(before, read_tree(&bench.data()));
}

#[test]
fn one_job_at_a_time_works_in_a_directory() {
    let (bench, _) = rich();
    let stored = bench.back_up(None, "one");
    let child = bench.runner(Task::DirLoad(bench.load_task(&stored, "r1"))).spawn();
    crate::support::until(|| bench.data().join(".skep-r1").exists());
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    let remove = Task::DirRemove(DirRemove { root: bench.root(), sides: vec!["r1".into()] });
    assert!(bench.run(remove.clone()).put_off().contains("another job of Skep"));
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    Outcome::of(child).done();
    bench.run(remove).done();
    assert!(!bench.data().join(".skep-r1").exists() && !bench.data().join(".skep-lock").exists());
}

#[test]
fn a_full_disk_is_told_and_leaves_the_live_data_alone() {
    let bench = Bench::new(DataEngine::Volume);
    fs::write(bench.data().join("big"), vec![1; 8 << 20]).unwrap();
    let stored = bench.back_up(None, "one");
    let runner = bench.runner(Task::DirLoad(bench.load_task(&stored, "r1")));
    // The data is on a small file system, whose end the load reaches: another file grows meanwhile or before.
    for (size, filled, wanted) in [("12m", "5m", "must stay free"), ("4m", "0", "must stay free")] {
        let data = bench.root();
        let first = format!(
            "mount -t tmpfs -o size={size} none {data} && echo live > {data}/live && head -c {filled} /dev/zero > {data}/fill"
        );
        let after = format!(
            "; code=$?; [ \"$(cat {data}/live)\" = live ] && [ ! -e {data}/.skep-r1 ] || exit 9; exit $code"
        );
        let outcome = Outcome::of(runner.in_small_space(&first, &after).spawn().unwrap());
        let said = outcome.refused();
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_disk_that_fills_up_during_the_load_ends_it() {
    let bench = Bench::new(DataEngine::Volume);
    for n in 0..6000 {
        fs::write(bench.data().join(format!("small-{n:04}")), "x").unwrap();
    }
    let stored = bench.back_up(None, "one");
    let runner = bench.runner(Task::DirLoad(bench.load_task(&stored, "r1")));
    let data = bench.root();
    // Bytes are plenty; it is the number of files that ends.
    let first = format!("mount -t tmpfs -o size=90m,nr_inodes=2000 none {data} && echo live > {data}/live");
    let after = format!(
        "; code=$?; [ \"$(cat {data}/live)\" = live ] && [ ! -e {data}/.skep-r1 ] || exit 9; exit $code"
    );
    let said = Outcome::of(runner.in_small_space(&first, &after).spawn().unwrap()).refused();
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn a_store_that_fills_up_is_told_has_no_half_backup_and_keeps_the_earlier_one() {
    let bench = Bench::new(DataEngine::Volume);
    fs::write(bench.data().join("small"), "kept").unwrap();
    bench.back_up(None, "one");
    fs::write(bench.data().join("big"), vec![1; 4 << 20]).unwrap();
    let runner = bench.runner(bench.dump_task(None, "two"));
    let said = Outcome::of(runner.in_small_store(&bench.dir.join("store")).spawn().unwrap()).refused();
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn a_look_tells_what_is_there_and_changes_nothing() {
    let (bench, before) = rich();
    let stored = bench.back_up(None, "one");
    let found = inspect(&bench, vec![stored.clone()]);
    assert_eq!(found.entries + 1, before.len() as u64);
    assert!(found.size > 3_000_000 && found.size < 20 << 20, "{}", found.size);
    assert!(found.free > 0 && found.capacity >= found.free);
    assert!(found.sides.is_empty() && found.mounts.is_empty());
    assert_eq!(found.backups["one"], Vec::<String>::new());
    assert_eq!(before, read_tree(&bench.data()));
    assert!(!bench.data().join(".skep-lock").exists());

    bench.load(&stored, "r1");
    assert_eq!(inspect(&bench, vec![]).sides[0].state, SideState::Loaded);
    bench.moved("r1", Direction::Forward);
    let found = inspect(&bench, vec![]);
    assert_eq!((found.sides[0].side.as_str(), found.sides[0].state), ("r1", SideState::Forward));
    assert!(found.sides[0].size > 3_000_000, "the old data is there");
    assert_eq!(found.entries + 1, before.len() as u64);
    bench.moved("r1", Direction::Back);
    assert_eq!(inspect(&bench, vec![]).sides[0].state, SideState::Back);

    fs::write(bench.dir.join("store/one/data.tar"), "short").unwrap();
    assert_eq!(inspect(&bench, vec![stored.clone()]).backups["one"].len(), 1);
    fs::remove_dir_all(bench.dir.join("store/one")).unwrap();
    assert!(inspect(&bench, vec![stored]).backups["one"][0].contains("not in the store"));
}

#[test]
fn nothing_outside_of_a_removed_side_is_followed() {
    let (bench, before) = rich();
    let outside = bench.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "kept").unwrap();
    let side = bench.data().join(".skep-r1");
    fs::create_dir_all(side.join("new/inner")).unwrap();
    std::os::unix::fs::symlink(&outside, side.join("new/inner/link")).unwrap();
    std::os::unix::fs::symlink(&outside, bench.data().join(".skep-r2")).unwrap();
    let sides = vec!["r1".into(), "absent".into()];
    bench.run(Task::DirRemove(DirRemove { root: bench.root(), sides })).done();
    assert!(!side.exists());
    let r2 = Task::DirRemove(DirRemove { root: bench.root(), sides: vec!["r2".into()] });
    bench.run(r2).refused();
    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "kept");
    for side in ["", "..", "a/b", "lock", "UPPER", "../outside"] {
        let task = Task::DirRemove(DirRemove { root: bench.root(), sides: vec![side.into()] });
        assert!(bench.run(task).refused().contains("is not the name of a side"));
        let task = Task::DirLoad(
            bench.load_task(&Stored { id: "x".into(), dir: "x".into(), manifest_sha256: "x".into() }, side),
        );
        assert!(bench.run(task).refused().contains("is not the name of a side"));
    }
    assert_eq!(before, read_tree(&bench.data()));
}
