//! `skep check` on stack files: each `check/<name>.yml` (with `<name>.over.yml` on top of it, where there is one)
//! must give exactly `check/<name>.txt`. `UPDATE=1 cargo test -p skep --test check` rewrites the texts.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

use skep::policy::lint::{CheckReport, Source, check_files, check_sources};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check")
}

fn source(name: &str) -> Option<Source> {
    let text = fs::read_to_string(folder().join(name)).ok()?;
    Some((name.to_owned(), Ok(text)))
}

fn check(name: &str) -> CheckReport {
    let sources: Vec<Source> =
        [format!("{name}.yml"), format!("{name}.over.yml")].iter().filter_map(|n| source(n)).collect();
    assert!(!sources.is_empty(), "{name}.yml is missing");
    check_sources(&sources, &|_| None, None)
}

/// Files whose lines need not be looked at one by one.
fn names() -> Vec<String> {
    let files =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter_map(|file| file.strip_suffix(".yml").map(str::to_owned))
        .filter(|n| !n.contains('.'))
        .collect();
    names.sort();
    names
}

#[test]
fn every_stack_file_gives_its_expected_report() {
    let mut stale = Vec::new();
    for name in names() {
        let report = check(&name);
        let text = format!("{report}exit code {}\n", report.exit_code());
        let path = folder().join(format!("{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            stale.push(format!("--- {name}.txt should be\n{text}"));
        }
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn ten_mistakes_are_ten_problems_each_with_its_line_of_help() {
    let report = check("ten-mistakes");
    assert_eq!((report.problems(), report.warnings(), report.exit_code()), (10, 0, 1));
    let mut codes: Vec<&str> = report.findings.iter().map(|f| f.problem.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), 10, "ten different ones: {codes:?}");
    assert_eq!(report.to_string().lines().filter(|line| line.trim_start().starts_with("help  ")).count(), 10);
    // Each is found on the very line that is marked with its number.
    let Some((_, Ok(text))) = source("ten-mistakes.yml") else { panic!("the file is missing") };
    let marked = |line: &&str| {
        line.contains(" # ")
            && line.contains(": ")
            && line.split(" # ").nth(1).is_some_and(|c| c.starts_with(|d: char| d.is_ascii_digit()))
    };
    let wanted: Vec<u64> =
        (1_u64..).zip(text.lines()).filter(|(_, line)| marked(line)).map(|(n, _)| n).collect();
    let mut found: Vec<u64> = report.findings.iter().filter_map(|f| f.line).collect();
    found.sort_unstable();
    assert_eq!(wanted.len(), 10);
    let off: Vec<_> = wanted.iter().filter(|line| !found.contains(line)).collect();
    assert_eq!(off, Vec::<&u64>::new(), "found on {found:?}");
}

#[test]
fn a_sound_file_has_no_problem_and_warnings_alone_do_not_fail() {
    let sound = check("sound");
    assert_eq!((sound.problems(), sound.warnings(), sound.exit_code()), (0, 0, 0), "{sound}");
    let warnings = check("warnings");
    assert_eq!((warnings.problems(), warnings.exit_code()), (0, 0), "{warnings}");
    assert_eq!(warnings.warnings(), 9);
}

/// The stack files of a folder, by path.
fn stack_files(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "yml")).collect();
    files.sort();
    files
}

#[test]
fn the_stack_files_that_are_shipped_have_neither_problems_nor_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let mut labelled = 0;
    for path in stack_files(&folder) {
        let report = check_files(&[&path], &|_| None, Some("shop"));
        assert!(report.findings.is_empty(), "{report}");
        labelled += report.services.len();
    }
    assert!(labelled >= 4, "the demo's services carry labels");
}

#[test]
fn the_examples_have_neither_problems_nor_warnings_whatever_the_stack_is_called() {
    let files = stack_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples"));
    let labelled: Vec<(String, usize)> = files
        .iter()
        .map(|path| {
            for name in [None, Some("shop")] {
                let report = check_files(&[path], &|_| None, name);
                assert!(report.findings.is_empty(), "{report}");
            }
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, check_files(&[path], &|_| None, None).services.len())
        })
        .collect();
    let wanted = [("devstack", 13), ("hosting", 6), ("nautobot", 5), ("odoo", 3), ("single", 1)];
    assert_eq!(labelled, wanted.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn the_report_for_programs_holds_the_same() {
    let report = check("ten-mistakes");
    let json = serde_json::to_value(&report).unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 10);
    for finding in findings {
        assert_eq!(finding["level"], "problem");
        assert_eq!(finding["file"], "ten-mistakes.yml");
        assert!(
            finding["line"].is_u64() && finding["code"].is_string() && finding["want"].is_string(),
            "{finding}"
        );
        assert!(finding["key"].is_string() && finding["blocks_destructive"].is_boolean(), "{finding}");
    }
    assert_eq!(json["services"], serde_json::json!(["app", "db", "proxy"]));
}

#[test]
fn files_are_read_from_where_they_lie_and_missing_ones_are_problems() {
    let (ten, missing) = (folder().join("ten-mistakes.yml"), folder().join("no-such-file.yml"));
    let report = check_files(&[&ten, &missing], &|_| None, Some("shop"));
    assert_eq!(report.problems(), 11);
    assert!(report.to_string().contains("no-such-file.yml"), "{report}");
}

#[test]
fn a_known_stack_name_is_used_for_full_names() {
    let text = "services:\n  app:\n    deploy:\n      labels:\n        skep.enable: \"true\"\n        skep.depends-on: shop_db, shop_cache\n  db:\n    image: postgres\n";
    let report = check_sources(&[("x.yml".to_owned(), Ok(text.to_owned()))], &|_| None, Some("shop"));
    let told: Vec<_> =
        report.findings.iter().map(|f| (f.problem.code.as_str(), f.problem.got.as_str())).collect();
    assert_eq!(told, [("L030", "shop_cache")]);
}
