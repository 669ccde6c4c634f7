//! What is in a directory, exactly.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, lchown, symlink,
};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, SeekFrom, Timespec, Timestamps, XattrFlags};

use super::cluster::is_root;

/// Everything below a directory, by path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// All that is to be the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    kind: String,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Path of the first of its names.
    first_name: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    content: Vec<u8>,
    extents: Vec<(u64, u64)>,
}

/// Reads a tree; what Skep keeps in it does not count.
pub fn read(root: &Path) -> Tree {
    let (mut tree, mut names) = (Tree::new(), BTreeMap::new());
    walk(root, root, &mut tree, &mut names);
    tree
}

fn walk(root: &Path, at: &Path, tree: &mut Tree, names: &mut BTreeMap<u64, Vec<u8>>) {
    let name = at.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    if name.starts_with(b".skep-") {
        return;
    }
    let meta = fs::symlink_metadata(at).unwrap();
    let kind = meta.file_type();
    let is_several = meta.nlink() > 1 && !kind.is_dir();
    let first_name =
        if is_several { names.entry(meta.ino()).or_insert(name.clone()).clone() } else { vec![] };
    let mut node = Node {
        kind: if kind.is_fifo() { "fifo".into() } else { format!("{kind:?}") },
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        // That of the top is the last move's.
        mtime: if name.is_empty() { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) },
        first_name,
        attributes: vec![],
        content: vec![],
        extents: vec![],
    };
    if kind.is_symlink() {
        node.content = fs::read_link(at).unwrap().into_os_string().into_vec();
    } else if kind.is_file() || kind.is_dir() {
        let file = File::open(at).unwrap();
        node.attributes = attributes(&file);
        if kind.is_file() {
            node.extents = extents(&file, meta.len());
            for (offset, length) in &node.extents {
                let mut bytes = vec![0; *length as usize];
                file.read_exact_at(&mut bytes, *offset).unwrap();
                node.content.extend(bytes);
            }
        }
    }
    tree.insert(name, node);
    if kind.is_dir() {
        let mut inner: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        inner.sort();
        inner.iter().for_each(|path| walk(root, path, tree, names));
    }
}

fn attributes(file: &File) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; 65_536];
    let length = rustix::fs::flistxattr(file, &mut buffer).unwrap_or(0);
    let keys: Vec<Vec<u8>> =
        buffer[..length].split(|b| *b == 0).filter(|k| !k.is_empty()).map(<[u8]>::to_vec).collect();
    let mut found: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::fgetxattr(file, key.as_slice(), &mut value).unwrap();
            value.truncate(length);
            (key, value)
        })
        .collect();
    found.sort();
    found
}

fn extents(file: &File, size: u64) -> Vec<(u64, u64)> {
    let (mut found, mut at) = (vec![], 0);
    while at < size {
        let Ok(offset) = rustix::fs::seek(file, SeekFrom::Data(at)) else { break };
        at = rustix::fs::seek(file, SeekFrom::Hole(offset)).unwrap();
        found.push((offset, at.min(size) - offset));
    }
    found.push((size, 0));
    found
}

/// One of everything that a volume can hold and a backup can restore.
pub fn rich_tree(root: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).unwrap();
    for dir in ["uploads", "uploads/2024", "empty", "closed"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    write("plain.txt", b"hello\n");
    write("empty.txt", b"");
    write("uploads/2024/photo", &(0..3_000_000_u32).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>());
    write("uploads/one", b"one file, three names");
    fs::hard_link(root.join("uploads/one"), root.join("uploads/2024/two")).unwrap();
    fs::hard_link(root.join("uploads/one"), root.join("a-three")).unwrap();
    for (name, target) in
        [("up", "uploads"), ("out", "/etc/passwd"), ("gone", "../../nowhere"), ("uploads/back", "..")]
    {
        symlink(target, root.join(name)).unwrap();
    }
    symlink("t".repeat(300), root.join("far")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    write("closed/inside", b"x");
    let odd = root.join(OsStr::from_bytes(b"latin \xe9\n%41"));
    fs::write(&odd, b"odd name").unwrap();
    let mut deep = root.to_path_buf();
    for _ in 0..3 {
        deep.push("d".repeat(120));
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("f".repeat(255)), b"deep").unwrap();
    sparse(&root.join("sparse-middle"), &[(0, b"begin"), (40 << 20, b"middle"), (90 << 20, b"end")], 0);
    sparse(&root.join("sparse-ends"), &[(10 << 20, &[7; 5000])], 64 << 20);
    sparse(&root.join("hole"), &[], 1 << 20);
    for (name, mode) in
        [("plain.txt", 0o4751), ("empty", 0o1777), ("closed", 0o500), ("closed/inside", 0o000)]
    {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, key, value) in [
        ("uploads/one", "user.a=b%", &b"\0\n="[..]),
        ("uploads", "user.dir", b"d"),
        ("empty.txt", "user.e", b""),
    ] {
        let file = File::open(root.join(name)).unwrap();
        rustix::fs::fsetxattr(&file, key, value, XattrFlags::empty()).unwrap();
    }
    if is_root() {
        chown(root.join("uploads/2024"), Some(33), Some(3_000_000)).unwrap();
        chown(&odd, Some(u32::MAX - 1), Some(1)).unwrap();
        lchown(root.join("out"), Some(7), Some(8)).unwrap();
        fs::set_permissions(root.join("plain.txt"), fs::Permissions::from_mode(0o4751)).unwrap();
    }
    let names = [
        "closed/inside",
        "closed",
        "up",
        "uploads/one",
        "uploads/2024",
        "uploads",
        "plain.txt",
        "empty",
        "pipe",
        "",
    ];
    for (name, second) in names.iter().zip([0, 1, -5, 1_000_000_000, 9_000_000_000, 3, 4, 5, 6, 7]) {
        let time = Timespec { tv_sec: second, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn sparse(path: &Path, parts: &[(u64, &[u8])], size: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
}
