//! PAX archives as `tar --xattrs --sparse --numeric-owner` writes and reads them.
//!
//! ```text
//! write: entry ─▶ [PAX records] header data          read: archive ─▶ entry, data; what is hostile is refused
//! ```
//!
//! Invariants: names that are read are relative and hold no `..`; an archive without its end mark is cut
//! short; a sparse file (GNU's format 1.0) is its extents only, in the archive as on disk.

mod header;
mod read;
mod write;

pub(crate) use read::Archive;
pub(crate) use write::Writer;

/// Bytes of a header; contents are padded to a multiple.
const BLOCK: usize = 512;

/// One file, directory or link, without its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root, which is empty itself.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permissions with set-id and sticky bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes, ACLs among them.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    #[default]
    Directory,
    /// A regular file.
    File {
        /// Its size.
        size: u64,
        /// Its data, in order; what lies between is a hole.
        extents: Vec<Extent>,
    },
    /// A symbolic link, as it is.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry, whose path this is.
    Hardlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// A run of a file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

// === impl Entry ===

impl Entry {
    /// Its path, for people.
    pub(crate) fn label(&self) -> String {
        match self.path.as_slice() {
            [] => ".".to_owned(),
            path => String::from_utf8_lossy(path).into_owned(),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// A file without holes.
    pub(crate) fn solid(size: u64) -> Kind {
        let extents = if size == 0 { Vec::new() } else { vec![Extent { offset: 0, length: size }] };
        Kind::File { size, extents }
    }
}

/// Whether a file has holes, as its extents tell.
fn has_holes(size: u64, extents: &[Extent]) -> bool {
    extents.iter().map(|extent| extent.length).sum::<u64>() != size
}

/// Bytes that follow `length` bytes up to the next block.
fn padding(length: u64) -> usize {
    (BLOCK - (length % BLOCK as u64) as usize) % BLOCK
}
