//! A directory beside the live data: what is built there, what was moved there, and how far it is.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::files;
use super::root::{OURS, Owner, Root};
use crate::error::{Error, Result};
use crate::task::{DataEngine, SideState};

/// Written when `new` is complete and verified.
const LOADED: &str = "loaded.json";
/// The list of a move.
const MOVES: &str = "moves.json";

/// An open side.
pub(crate) struct Side {
    /// The directory.
    pub(crate) fd: OwnedFd,
    /// Its name under the root.
    pub(crate) dir: OsString,
}

/// What stands in `loaded.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// The engine.
    pub(crate) engine: DataEngine,
    /// The backup.
    pub(crate) backup: String,
    /// Which live entries give way.
    pub(crate) replaces: Replaces,
}

/// Which live entries give way to the loaded ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Replaces {
    /// All.
    Everything,
    /// Those that Redis reads and writes; its configuration or access list may lie beside them, and stays.
    Redis(crate::task::RedisFiles),
}

/// What stands in `moves.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moves {
    /// Whether it is the list of a move forward.
    pub(crate) is_forward: bool,
    /// Whether all of it was done.
    pub(crate) is_done: bool,
    /// Live entries that leave, to `old` forward, to `new` back.
    pub(crate) leave: Vec<Item>,
    /// Entries that become live.
    pub(crate) enter: Vec<Item>,
    /// Owner and permissions of the live directory itself, before and after.
    pub(crate) before: Top,
    /// See `before`.
    pub(crate) after: Top,
}

/// One entry of a list. A rename keeps the inode and the time of its birth, so they tell whether a name is still
/// what the list means (the number of an inode alone is soon given to another file).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its name, escaped.
    pub(crate) name: String,
    /// Its inode.
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds, where the file system tells.
    pub(crate) born: Option<i128>,
}

/// Owner and permissions of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Top {
    /// Permissions.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

// === impl Side ===

impl Side {
    /// Opens a side, none where it does not exist.
    pub(crate) fn open(root: &Root, side: &str) -> Result<Option<Side>> {
        let dir = dir_of(side)?;
        match files::open_dir(&root.fd, &dir) {
            Ok(fd) => Ok(Some(Side { fd, dir })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(files::wrong("open", &dir)(error)),
        }
    }

    /// Makes an empty side that belongs to `owner`; what a load left there goes, what a move has to do with stays.
    pub(crate) fn create(root: &Root, side: &str, owner: Owner) -> Result<Side> {
        if let Some(found) = Side::open(root, side)?
            && found.moves()?.is_some()
        {
            return Err(Error::refused(format!("`{side}` was moved already: load under another name")));
        }
        let dir = dir_of(side)?;
        files::remove(&root.fd, &dir)?;
        rustix::fs::mkdirat(&root.fd, &dir, Mode::RWXU).map_err(files::wrong("make", &dir))?;
        let fd = files::open_dir(&root.fd, &dir).map_err(files::wrong("open", &dir))?;
        for inner in ["new", "old"] {
            rustix::fs::mkdirat(&fd, inner, Mode::RWXU).map_err(files::wrong("make", OsStr::new(inner)))?;
        }
        owner.take(&root.fd, &dir)?;
        Ok(Side { fd, dir })
    }

    /// A directory in it.
    pub(crate) fn inner(&self, name: &str) -> Result<OwnedFd> {
        files::open_dir(&self.fd, OsStr::new(name)).map_err(files::wrong("open", OsStr::new(name)))
    }

    /// What was loaded, none before the load has ended.
    pub(crate) fn loaded(&self) -> Result<Option<Loaded>> {
        files::read_json(&self.fd, LOADED)
    }

    /// Declares `new` complete.
    pub(crate) fn declare(&self, loaded: &Loaded) -> Result<()> {
        files::write_json(&self.fd, LOADED, loaded)
    }

    /// The list of the last move.
    pub(crate) fn moves(&self) -> Result<Option<Moves>> {
        files::read_json(&self.fd, MOVES)
    }

    /// Writes the list of a move, durably.
    pub(crate) fn note(&self, moves: &Moves) -> Result<()> {
        files::write_json(&self.fd, MOVES, moves)
    }

    /// Forgets a move that was undone half way.
    pub(crate) fn forget(&self) -> Result<()> {
        files::remove(&self.fd, OsStr::new(MOVES))?;
        files::sync(&self.fd)
    }

    /// How far it is.
    pub(crate) fn state(&self) -> Result<SideState> {
        Ok(match (self.loaded()?, self.moves()?) {
            (None, None) => SideState::Loading,
            (Some(_), None) => SideState::Loaded,
            (_, Some(Moves { is_done: false, .. })) => SideState::Moving,
            (_, Some(Moves { is_forward: true, .. })) => SideState::Forward,
            (_, Some(_)) => SideState::Back,
        })
    }
}

// === impl Replaces ===

impl Replaces {
    /// Whether a live entry gives way.
    pub(crate) fn includes(&self, name: &OsStr) -> bool {
        match self {
            Replaces::Everything => true,
            Replaces::Redis(files) => crate::redis::files::is_data(files, name),
        }
    }
}

/// The directory's name of a side.
pub(crate) fn dir_of(side: &str) -> Result<OsString> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if side.is_empty() || side.len() > 40 || side == "lock" || !side.bytes().all(is_plain) {
        return Err(Error::refused(format!("`{side}` is not the name of a side")));
    }
    Ok(format!("{OURS}{side}").into())
}
