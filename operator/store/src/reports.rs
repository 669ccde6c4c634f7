//! Reports of operations, as texts in a directory of their own beside the backups. They are for people, and trusted with nothing.

use std::collections::BTreeSet;

use skep_runner::error::Result;
use skep_runner::task::{Place, TextFile};

use crate::shelf::{Shelf, Site};

/// Where they are.
pub const REPORTS: &str = "reports";
/// How their names end.
const ENDINGS: [&str; 2] = ["md", "json"];

/// Writes these files, over any of the same name, and removes those of the oldest reports beyond `most`.
///
/// # Errors
/// When the store does not take them.
pub fn reports(to: &Place, files: &[TextFile], most: usize, site: &Site) -> Result<()> {
    let mut shelf = Shelf::open(to, site)?;
    for file in files {
        shelf.replace(REPORTS, &file.name, file.text.as_bytes())?;
    }
    let names = shelf.names(REPORTS)?;
    beyond(&names, most).into_iter().try_for_each(|name| shelf.remove(REPORTS, name))
}

/// The files of the oldest reports; ids sort by time. What has another kind of name is nobody's report.
fn beyond(names: &[String], most: usize) -> Vec<&str> {
    let id = |name: &'_ str| {
        let (id, ending) = name.rsplit_once('.')?;
        ENDINGS.contains(&ending).then(|| id.to_owned())
    };
    let ids: BTreeSet<String> = names.iter().filter_map(|name| id(name)).collect();
    let old: BTreeSet<&String> = ids.iter().take(ids.len().saturating_sub(most)).collect();
    names.iter().map(String::as_str).filter(|name| id(name).is_some_and(|id| old.contains(&id))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> TextFile {
        TextFile { name: name.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn reports_are_written_over_and_the_oldest_go() {
        let root = std::env::temp_dir().join(format!("skep-reports-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let to = Place::Mount { path: root.display().to_string() };
        let write = |files: &[TextFile]| reports(&to, files, 2, &Site::default()).unwrap();
        write(&[file("20260101t0.md", "one"), file("20260101t0.json", "{}"), file("20260102t0.md", "two")]);
        write(&[file("20260102t0.md", "two again")]);
        std::fs::write(root.join(REPORTS).join("README.txt"), "mine").unwrap();
        write(&[file("20260103t0.md", "three")]);
        let mut names: Vec<String> = std::fs::read_dir(root.join(REPORTS))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["20260102t0.md", "20260103t0.md", "README.txt"]);
        let text = std::fs::read_to_string(root.join(REPORTS).join("20260102t0.md")).unwrap();
        assert_eq!(text, "two again");
        assert!(reports(&to, &[file("../out.md", "x")], 2, &Site::default()).is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
