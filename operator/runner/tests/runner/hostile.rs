//! Archives that were made to do harm. Their checksums are right: somebody registered them.

use std::fs;

use crate::support::{Bench, read_tree};
use skep_runner::task::{DataEngine, Task};

const SYMLINK: u8 = b'2';
const HARDLINK: u8 = b'1';
const FILE: u8 = b'0';
const DIRECTORY: u8 = b'5';

/// One entry in the old form, which every reader knows.
fn entry(kind: u8, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// PAX records that say another name.
fn renamed(path: &str) -> Vec<u8> {
    let body = format!("path={path}\n");
    let length = (body.len() + 3..).find(|n| n.to_string().len() + 1 + body.len() == *n).unwrap();
    entry(b'x', "PaxHeader", "", format!("{length} {body}").as_bytes())
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

#[test]
fn what_would_leave_the_directory_is_refused_and_leaves_nothing() {
    let bench = Bench::new(DataEngine::Volume);
    fs::write(bench.data().join("live"), "live").unwrap();
    let outside = bench.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "kept").unwrap();
    let (before, outside_before) = (read_tree(&bench.data()), read_tree(&outside));
    let outside = outside.to_str().unwrap();
    let file = |name: &str| entry(FILE, name, "", b"harm");
    let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("absolute", vec![file(&format!("{outside}/precious"))], "no relative name"),
        ("dots", vec![file("../../../outside/precious")], "leads out"),
        ("dots inside", vec![entry(DIRECTORY, "a", "", b""), file("a/../../x")], "leads out"),
        ("dots in PAX", vec![[renamed("../x"), file("harmless")].concat()], "leads out"),
        ("absolute in PAX", vec![[renamed("/tmp/x"), file("harmless")].concat()], "no relative name"),
        (
            "through a link",
            vec![entry(SYMLINK, "l", outside, b""), file("l/precious")],
            "through a symbolic link",
        ),
        (
            "through a link within",
            vec![entry(SYMLINK, "l", ".", b""), file("l/x")],
            "through a symbolic link",
        ),
        (
            "through a link further down",
            vec![entry(DIRECTORY, "d", "", b""), entry(SYMLINK, "d/l", "..", b""), file("d/l/x")],
            "through a symbolic link",
        ),
        ("over a link", vec![entry(SYMLINK, "l", &format!("{outside}/precious"), b""), file("l")], "twice"),
        (
            "directory over a link",
            vec![entry(SYMLINK, "l", outside, b""), entry(DIRECTORY, "l", "", b"")],
            "twice",
        ),
        (
            "hard link outside",
            vec![entry(HARDLINK, "h", &format!("{outside}/precious"), b"")],
            "no relative name",
        ),
        ("hard link by dots", vec![entry(HARDLINK, "h", "../../../outside/precious", b"")], "leads out"),
        (
            "hard link through a link",
            vec![entry(SYMLINK, "l", outside, b""), entry(HARDLINK, "h", "l/precious", b"")],
            "through a symbolic link",
        ),
        ("hard link to nothing", vec![entry(HARDLINK, "h", "absent", b"")], "not in the archive before"),
        (
            "hard link to a directory",
            vec![entry(DIRECTORY, "d", "", b""), entry(HARDLINK, "h", "d", b"")],
            "not in the archive",
        ),
        ("block device", vec![entry(b'4', "disk", "", b"")], "device node"),
        ("character device", vec![entry(b'3', "mem", "", b"")], "device node"),
        ("unknown kind", vec![entry(b'V', "volume", "", b"")], "unknown kind"),
        ("twice", vec![file("x"), file("x")], "twice"),
        ("below a file", vec![file("x"), file("x/y")], "no directory"),
        ("without its directory", vec![file("x/y")], "does not have"),
        ("root as a link", vec![entry(SYMLINK, "./", outside, b"")], "not a directory"),
        ("empty link", vec![entry(SYMLINK, "l", "", b"")], "unknown kind"),
        ("link with data", vec![entry(SYMLINK, "l", "x", b"data")], "has data"),
    ];
    for (number, (case, entries, told)) in cases.into_iter().enumerate() {
        let stored = bench.plant(&format!("b{number}"), "data.tar", &archive(&entries));
        let said = bench.run(Task::DirLoad(bench.load_task(&stored, "r1"))).refused();
        assert!(said.contains(told), "{case}: {said}");
        assert!(!bench.data().join(".skep-r1").exists(), "{case}");
        assert_eq!(read_tree(&bench.data()), before, "{case}");
        assert_eq!(read_tree(outside.as_ref()), outside_before, "{case}");
        if !["twice", "not in the archive", "no directory"].iter().any(|late| told.contains(late)) {
            assert!(bench.run(bench.examine(&stored)).refused().contains(told), "{case}");
        }
    }
}

#[test]
fn a_link_may_lead_anywhere_as_long_as_nobody_follows_it() {
    let bench = Bench::new(DataEngine::Volume);
    let entries = [entry(SYMLINK, "log", "/dev/stdout", b""), entry(SYMLINK, "up", "../../..", b"")];
    let stored = bench.plant("links", "data.tar", &archive(&entries));
    bench.run(bench.examine(&stored)).done();
    bench.load(&stored, "r1");
    assert_eq!(fs::read_link(bench.data().join(".skep-r1/new/log")).unwrap().to_str(), Some("/dev/stdout"));
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    let bench = Bench::new(DataEngine::Volume);
    let sparse = |map: &str, size: &str, data: &[u8]| {
        let record = |key: &str, value: &str| {
            let body = format!("{key}={value}\n");
            let length = (body.len() + 3..).find(|n| n.to_string().len() + 1 + body.len() == *n).unwrap();
            format!("{length} {body}")
        };
        let records = [
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.name", "s"),
            record("GNU.sparse.realsize", size),
        ]
        .concat();
        let mut map = map.as_bytes().to_vec();
        map.resize(map.len().next_multiple_of(512), 0);
        archive(&[
            entry(b'x', "PaxHeader", "", records.as_bytes()),
            entry(FILE, "s", "", &[map, data.to_vec()].concat()),
        ])
    };
    for (n, bytes) in [
        sparse("1\n0\n4\n", "3", b"data"),
        sparse("1\n0\n400\n", "1000", b"data"),
        sparse("2\n10\n2\n5\n2\n", "100", b"data"),
        sparse("1\n18446744073709551615\n4\n", "18446744073709551615", b"data"),
        sparse("99999999\n", "100", b"data"),
        sparse("x\n", "100", b"data"),
        sparse("", "100", b"data"),
    ]
    .iter()
    .enumerate()
    {
        let stored = bench.plant(&format!("s{n}"), "data.tar", bytes);
        assert!(bench.run(bench.examine(&stored)).refused().contains("damaged"), "{n}");
        assert!(
            bench.run(Task::DirLoad(bench.load_task(&stored, "r1"))).refused().contains("damaged"),
            "{n}"
        );
    }
}
