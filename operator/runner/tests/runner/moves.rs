//! The cut-over by renames, killed at each of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::{Bench, read_tree};
use skep_runner::task::{DataEngine, DirRemove, Direction, Stored, Task};

/// Live data and a loaded backup with other data; several names are in both.
fn ready() -> (Bench, Stored) {
    let bench = Bench::new(DataEngine::Volume);
    for name in ["a", "b", "only-new", "%41 odd"] {
        fs::write(bench.data().join(name), format!("new {name}")).unwrap();
    }
    fs::create_dir(bench.data().join("dir")).unwrap();
    let stored = bench.back_up(None, "one");
    for name in ["only-new", "%41 odd"] {
        fs::remove_file(bench.data().join(name)).unwrap();
    }
    for name in ["a", "b", "only-old", "dir/inner"] {
        fs::write(bench.data().join(name), format!("old {name}")).unwrap();
    }
    bench.load(&stored, "r1");
    (bench, stored)
}

/// Names and contents of the live data.
fn live(bench: &Bench) -> BTreeMap<String, String> {
    let entries = fs::read_dir(bench.data()).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let data = named.filter(|(name, _)| !name.starts_with(".skep-"));
    data.map(|(name, path)| {
        (name, if path.is_dir() { "directory".into() } else { fs::read_to_string(path).unwrap() })
    })
    .collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn dies_at(bench: &Bench, direction: Direction, at: u32) -> bool {
    let runner = bench.runner(bench.move_task("r1", direction)).env("SKEP_RUNNER_DIE_AT", at.to_string());
    match runner.run().code {
        None => true,
        Some(0) => false,
        code => panic!("{code:?}"),
    }
}

#[test]
fn there_and_back_is_exactly_as_before() {
    let (bench, _) = ready();
    let (before, old) = (read_tree(&bench.data()), live(&bench));
    assert_eq!(bench.moved("r1", Direction::Forward).renamed, 9);
    let new = live(&bench);
    assert_eq!(new["a"], "new a");
    assert_eq!(new["%41 odd"], "new %41 odd");
    assert!(!new.contains_key("only-old"));
    assert_eq!(bench.moved("r1", Direction::Forward).renamed, 0, "a repeated move finds all done");
    assert_eq!(live(&bench), new);
    assert_eq!(bench.moved("r1", Direction::Back).renamed, 9);
    assert_eq!(bench.moved("r1", Direction::Back).renamed, 0);
    assert_eq!(live(&bench), old);
    assert_eq!(read_tree(&bench.data()), before);
}

#[test]
fn killed_at_every_rename_the_next_run_ends_it() {
    let mut deaths = 0;
    for at in 1.. {
        let (bench, _) = ready();
        let old = live(&bench);
        let has_died = dies_at(&bench, Direction::Forward, at);
        bench.moved("r1", Direction::Forward);
        let new = live(&bench);
        assert_eq!(new["a"], "new a");
        assert_eq!(names(&bench.data().join(".skep-r1/old")), ["a", "b", "dir", "only-old"]);
        assert!(names(&bench.data().join(".skep-r1/new")).is_empty());
        assert!(!has_died || !dies_at(&bench, Direction::Back, 99));
        assert!(!has_died || live(&bench) == old);
        if !has_died {
            break;
        }
        deaths += 1;
    }
    assert_eq!(deaths, 18, "before and after each of nine renames");
}

#[test]
fn killed_at_every_rename_a_move_can_be_taken_back_and_done_again() {
    for at in 1..=18 {
        let (bench, _) = ready();
        let old = live(&bench);
        assert!(dies_at(&bench, Direction::Forward, at));
        bench.moved("r1", Direction::Back);
        assert_eq!(live(&bench), old, "killed at {at}");
        assert!(names(&bench.data().join(".skep-r1/old")).is_empty());
        bench.moved("r1", Direction::Forward);
        assert_eq!(live(&bench)["only-new"], "new only-new");
    }
}

#[test]
fn the_way_back_may_be_killed_at_every_rename_too() {
    for at in 1..=18 {
        let (bench, _) = ready();
        let old = live(&bench);
        bench.moved("r1", Direction::Forward);
        assert!(dies_at(&bench, Direction::Back, at));
        bench.moved("r1", Direction::Back);
        assert_eq!(live(&bench), old, "killed at {at}");
    }
}

#[test]
fn the_undoing_of_half_a_move_may_be_killed_at_every_rename_too() {
    for at in 1..=10 {
        let (bench, _) = ready();
        let old = live(&bench);
        assert!(dies_at(&bench, Direction::Forward, 10), "five renames are done");
        let has_died = dies_at(&bench, Direction::Back, at);
        assert!(has_died || at > 9, "{at}");
        bench.moved("r1", Direction::Back);
        assert_eq!(live(&bench), old, "killed at {at}");
    }
}

#[test]
fn what_a_server_made_of_the_new_data_does_not_hinder_the_way_back() {
    let (bench, stored) = ready();
    let old = live(&bench);
    bench.moved("r1", Direction::Forward);
    fs::remove_file(bench.data().join("a")).unwrap();
    fs::write(bench.data().join("a"), "rewritten").unwrap();
    fs::write(bench.data().join("server.pid"), "1").unwrap();
    bench.moved("r1", Direction::Back);
    assert_eq!(live(&bench), old);
    assert_eq!(fs::read_to_string(bench.data().join(".skep-r1/new/a")).unwrap(), "rewritten");
    let again = bench.run(bench.move_task("r1", Direction::Forward)).refused();
    assert!(again.contains("load it anew"), "{again}");
    let load = bench.run(Task::DirLoad(bench.load_task(&stored, "r1"))).refused();
    assert!(load.contains("was moved already"), "{load}");
    assert_eq!(live(&bench), old);
    bench.load(&stored, "r2");
    bench.moved("r2", Direction::Forward);
    assert_eq!(live(&bench)["a"], "new a");
}

#[test]
fn what_is_neither_before_nor_between_nor_after_is_refused() {
    for (at, disturb, told) in [
        (0, "touch old/foreign", "foreign"),
        (5, "touch ../foreign", "foreign"),
        (5, "rm old/a", "`a`"),
        (5, "rm new/b; echo other > new/b", "`b`"),
        (10, "echo other > ../a.new; mv ../a.new ../a", "`a`"),
        (5, "touch old/foreign", "foreign"),
    ] {
        for direction in [Direction::Forward, Direction::Back] {
            let (bench, _) = ready();
            if at > 0 {
                assert!(dies_at(&bench, Direction::Forward, at), "{disturb}");
            }
            let side = bench.data().join(".skep-r1");
            let status =
                std::process::Command::new("sh").args(["-c", disturb]).current_dir(&side).status().unwrap();
            assert!(status.success(), "{disturb}");
            let found = (read_tree(&bench.data()), names(&side.join("old")), names(&side.join("new")));
            if at == 0 && direction == Direction::Back {
                assert_eq!(bench.moved("r1", direction).renamed, 0, "there is nothing to take back");
            } else {
                let said = bench.run(bench.move_task("r1", direction)).refused();
                assert!(said.contains(told), "{disturb}: {said}");
            }
            assert_eq!(found, (read_tree(&bench.data()), names(&side.join("old")), names(&side.join("new"))));
        }
    }
}

#[test]
fn only_complete_data_is_moved() {
    let (bench, _) = ready();
    let old = live(&bench);
    assert!(
        bench.run(bench.move_task("absent", Direction::Forward)).refused().contains("nothing was loaded")
    );
    assert_eq!(bench.moved("absent", Direction::Back).renamed, 0);
    fs::remove_file(bench.data().join(".skep-r1/loaded.json")).unwrap();
    assert!(bench.run(bench.move_task("r1", Direction::Forward)).refused().contains("not complete"));
    assert_eq!(live(&bench), old);
}

#[test]
fn a_side_that_is_moved_half_way_is_not_removed() {
    let (bench, _) = ready();
    assert!(dies_at(&bench, Direction::Forward, 5));
    let remove = Task::DirRemove(DirRemove { root: bench.root(), sides: vec!["r1".into()] });
    assert!(bench.run(remove.clone()).refused().contains("half way"));
    bench.moved("r1", Direction::Forward);
    bench.run(remove).done();
    assert_eq!(live(&bench)["a"], "new a");
    assert!(!bench.data().join(".skep-r1").exists());
}

#[test]
fn a_mount_in_the_data_is_refused_before_anything_moves() {
    let (bench, _) = ready();
    let data = bench.root();
    let first = format!("mount -t tmpfs none {data}/dir");
    let runner = bench.runner(bench.move_task("r1", Direction::Forward));
    let old = live(&bench);
    let outcome = crate::support::Outcome::of(runner.apart(&["--mount"], &first).spawn().unwrap());
    assert!(outcome.refused().contains("`dir` is a mount"));
    assert_eq!(live(&bench), old);
}
