//! Data that has nothing but its service's own commands: there and back, refused, redacted.

use std::fs;
use std::path::Path;

use crate::support::{Bench, Outcome};
use skep_runner::manifest::Manifest;
use skep_runner::task::{
    CommandDump, CommandExamine, CommandLoad, CommandSeal, DataEngine, DirDumped, Means, Reading, Report,
    ShellCommand, Stored, Task,
};

const SECRET: &str = "planted-hunter22";

fn bench() -> Bench {
    let bench = Bench::new(DataEngine::Volume);
    fs::write(bench.data().join("store"), (0..50_000).map(|n| format!("line {n}\n")).collect::<String>())
        .unwrap();
    bench
}

fn command(bench: &Bench, text: &str) -> ShellCommand {
    let text = text.replace("DATA", &bench.root());
    ShellCommand { text, host: "tasks.shop_store".into(), environment: None }
}

fn reading(bench: &Bench, verify: Option<&str>) -> Reading {
    verify.map_or(Reading::Checksum, |text| Reading::Shell(command(bench, text)))
}

fn dump(bench: &Bench, command: ShellCommand, dir: &str) -> Outcome {
    bench.run(Task::CommandDump(CommandDump { means: Means::Shell(command), dir: dir.into() }))
}

fn dumped(bench: &Bench, text: &str, dir: &str) -> DirDumped {
    match dump(bench, command(bench, text), dir).done() {
        Report::DirDump(dumped) => *dumped,
        other => panic!("{other:?}"),
    }
}

fn manifest(bench: &Bench, dir: &str, dumped: DirDumped) -> Manifest {
    Manifest { engine: "command".into(), ..bench.manifest(dir, dumped) }
}

fn back_up(bench: &Bench, verify: Option<&str>, dir: &str) -> Stored {
    let manifest = manifest(bench, dir, dumped(bench, "cat DATA/store", dir));
    let reading = reading(bench, verify);
    let seal = CommandSeal { reading, dir: dir.into(), manifest };
    match bench.run(Task::CommandSeal(seal)).done() {
        Report::DirSeal { manifest_sha256, .. } => {
            Stored { id: dir.into(), dir: dir.into(), manifest_sha256 }
        }
        other => panic!("{other:?}"),
    }
}

fn load(bench: &Bench, text: &str, stored: &Stored) -> Outcome {
    let means = Means::Shell(command(bench, text));
    bench.run(Task::CommandLoad(CommandLoad { means, engine: "command".into(), stored: stored.clone() }))
}

fn examine(bench: &Bench, verify: Option<&str>, stored: &Stored) -> Outcome {
    bench.run(Task::CommandExamine(CommandExamine {
        reading: reading(bench, verify),
        engine: "command".into(),
        stored: stored.clone(),
    }))
}

fn artefact(bench: &Bench, dir: &str) -> std::path::PathBuf {
    bench.dir.join("store").join(dir).join("data.dump")
}

fn is_empty(dir: &Path) -> bool {
    !dir.join("manifest.json").exists()
}

#[test]
fn what_the_dump_command_prints_is_what_the_load_command_reads() {
    let bench = bench();
    let before = fs::read(bench.data().join("store")).unwrap();
    let stored = back_up(&bench, Some("tail -n 1 | grep -qx 'line 49999'"), "one");
    assert_eq!(fs::read(artefact(&bench, "one")).unwrap(), before);
    examine(&bench, Some("tail -n 1 | grep -qx 'line 49999'"), &stored).done();
    fs::write(bench.data().join("store"), "spoilt").unwrap();
    // What it prints is none of the job's lines, and it may read the dump in any order.
    let done =
        load(&bench, "echo loading; tail -c 5 /dev/stdin >/dev/null; cat /dev/stdin >DATA/store", &stored);
    assert!(!done.text.contains("loading"), "{}", done.text);
    done.done();
    assert_eq!(fs::read(bench.data().join("store")).unwrap(), before);
}

#[test]
fn a_command_that_fails_leaves_no_backup_and_says_why() {
    let bench = bench();
    let failed = dump(&bench, command(&bench, "head -n 3 DATA/store; echo out of memory >&2; exit 3"), "one");
    let why = failed.refused();
    assert_eq!(why, "the dump command failed (exit status: 3): out of memory");
    assert!(is_empty(&bench.dir.join("store/one")));
    let nothing = dump(&bench, command(&bench, "cat DATA/store >/dev/null"), "one").refused();
    assert!(nothing.contains("printed nothing"), "{nothing}");
    let missing = dump(&bench, command(&bench, "no-such-tool"), "one").refused();
    assert!(missing.contains("exit status: 127") && missing.contains("not found"), "{missing}");
}

#[test]
fn a_dump_that_the_verify_command_does_not_take_becomes_no_backup() {
    let bench = bench();
    let manifest = manifest(&bench, "one", dumped(&bench, "head -n 7 DATA/store", "one"));
    let reading = reading(&bench, Some("tail -n 1 | grep -qx 'line 49999' || { echo cut short; exit 1; }"));
    let seal = CommandSeal { reading, dir: "one".into(), manifest };
    let why = bench.run(Task::CommandSeal(seal)).refused();
    assert_eq!(why, "the verify command failed (exit status: 1): cut short");
    assert!(is_empty(&bench.dir.join("store/one")));
}

#[test]
fn no_command_is_started_on_a_dump_that_was_cut_or_altered_or_is_of_another_engine() {
    let bench = bench();
    let stored = back_up(&bench, None, "one");
    let touch = "touch DATA/started; cat >/dev/null";
    let whole = fs::read(artefact(&bench, "one")).unwrap();
    let mut altered = whole.clone();
    altered[1000] ^= 1;
    for (bytes, why) in [(&altered[..], "checksum"), (&whole[..whole.len() - 1], "bytes, its manifest says")]
    {
        fs::write(artefact(&bench, "one"), bytes).unwrap();
        for refused in
            [load(&bench, touch, &stored).refused(), examine(&bench, Some(touch), &stored).refused()]
        {
            assert!(refused.contains(why), "{refused}");
        }
    }
    fs::write(artefact(&bench, "one"), &whole).unwrap();
    let other = Stored { manifest_sha256: "0".repeat(64), ..stored.clone() };
    assert!(load(&bench, touch, &other).refused().contains("not the registered one"));
    let volume = bench.plant("volume", "data.dump", b"x");
    assert!(load(&bench, touch, &volume).refused().contains("one of `volume`"));
    assert!(!bench.data().join("started").exists(), "a command was started");
    load(&bench, touch, &stored).done();
    assert!(bench.data().join("started").exists(), "it starts on what is whole");
}

#[test]
fn a_load_that_fails_half_way_is_told_and_a_dump_that_changes_under_it_is_refused() {
    let bench = bench();
    let stored = back_up(&bench, None, "one");
    let why = load(&bench, "head -c 10 >DATA/store; echo disk is on fire >&2; exit 9", &stored).refused();
    assert_eq!(why, "the load command failed (exit status: 9): disk is on fire");
    let path = artefact(&bench, "one").to_str().unwrap().to_owned();
    let why = load(&bench, &format!("cat >/dev/null; echo more >>{path}"), &stored).refused();
    assert!(why.contains("was changed while it was used"), "{why}");
}

#[test]
fn commands_find_the_host_and_the_secrets_of_their_service_and_repeat_none() {
    let bench = bench();
    let file = bench.dir.join("environment");
    let url = "postgres://u:inner-hunter33@db/x";
    fs::write(&file, format!("TOKEN={SECRET}\0EMPTY=\0URL={url}\0LINES=a\nb")).unwrap();
    let environment = Some(file.to_str().unwrap().to_owned());
    let with = |text: &str| ShellCommand { environment: environment.clone(), ..command(&bench, text) };
    let told = dump(&bench, with("printf '%s %s %s %s' $SKEP_HOST $TOKEN \"$EMPTY.\" \"$LINES\""), "one");
    assert!(!told.text.contains(SECRET), "{}", told.text);
    told.done();
    let printed = fs::read_to_string(artefact(&bench, "one")).unwrap();
    assert_eq!(printed, format!("tasks.shop_store {SECRET} . a\nb"));
    let failed =
        dump(&bench, with("echo bad token $TOKEN, bad login inner-hunter33 at $URL >&2; exit 1"), "one");
    for secret in [SECRET, "inner-hunter33"] {
        assert!(!failed.text.contains(secret), "{}", failed.text);
    }
    assert!(failed.refused().contains("bad token [redacted]"));
    let gone = ShellCommand { environment: Some("/nowhere/env".into()), ..command(&bench, "echo x") };
    assert!(dump(&bench, gone, "one").refused().contains("cannot read /nowhere/env"));
}
