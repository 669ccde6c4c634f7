//! The modules of the operator depend on each other in one direction only.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up; a module may use those before it, and itself.
const LAYERS: [&str; 11] = [
    "runtime",
    "swarm",
    "policy",
    "engines",
    "operation",
    "plan",
    "triggers",
    "notify",
    "http",
    "cli",
    "app",
];

/// Uses that go upwards for a reason.
const ALLOWED: [(&str, &str); 1] = [
    // The daemon takes its settings as the command line read them, and the command line starts the daemon.
    ("cli", "app"),
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn module_of(root: &Path, file: &Path) -> Option<String> {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
    LAYERS.contains(&name.as_str()).then_some(name)
}

fn used(text: &str) -> Vec<&str> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let after = product.split("crate::").skip(1);
    after.filter_map(|rest| LAYERS.into_iter().find(|l| rest.starts_with(&format!("{l}::")))).collect()
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 100, "only {} files were found", files.len());
    let height = |name: &str| LAYERS.iter().position(|l| *l == name).unwrap();
    let mut wrong = Vec::new();
    for file in files.iter().filter(|f| !f.to_string_lossy().contains("test") && !f.ends_with("fixture.rs")) {
        let Some(module) = module_of(&root, file) else { continue };
        for other in used(&fs::read_to_string(file).unwrap()) {
            let upwards = height(other) > height(&module);
            if upwards && !ALLOWED.contains(&(module.as_str(), other)) {
                wrong.push(format!("{} uses {other}", file.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
