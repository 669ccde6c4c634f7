//! The cut-over: live entries leave, loaded ones enter, by renames that follow a list written beforehand.
//!
//! ```text
//! forward   note list ▶ live ─▶ old ▶ new ─▶ live ▶ owner of the directory ▶ note done
//! back      half done: the same list in reverse ▶ forget it;  done: a list of its own, live ─▶ new ▶ old ─▶ live
//! ```
//!
//! Invariants: each entry of a list is in one of its two places, known by its inode, and nothing else is where
//! the list moves things; whatever is found otherwise is refused before the first rename. So a run may be killed
//! at any rename, and the next one, of either direction, goes on from there.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::fs::{AtFlags, Gid, Mode, RenameFlags, StatxFlags, Uid};
use rustix::io::Errno;

use super::files;
use super::root::Root;
use super::side::{Item, Moves, Replaces, Side, Top};
use crate::death;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{DirMove, DirMoved, Direction, Report};

/// The three directories between which entries move.
struct Places<'a> {
    root: &'a Root,
    side: &'a Side,
    old: OwnedFd,
    new: OwnedFd,
}

/// One rename of a list.
struct Rename<'a> {
    item: &'a Item,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    is_done: bool,
}

/// Moves forward or back, or goes on with a move.
pub(crate) fn run(_job: &Job, task: &DirMove) -> Result<Report> {
    let DirMove { root, side, direction } = task;
    let began = Instant::now();
    let root = Root::open(root)?;
    let _lock = root.lock()?;
    let found = Side::open(&root, side)?;
    let renamed = match (found, direction) {
        (Some(side), _) => {
            let (old, new) = (side.inner("old")?, side.inner("new")?);
            let places = Places { root: &root, side: &side, old, new };
            match direction {
                Direction::Forward => places.forward()?,
                Direction::Back => places.back()?,
            }
        }
        (None, Direction::Forward) => {
            return Err(Error::refused(format!("nothing was loaded as `{side}`")));
        }
        (None, Direction::Back) => 0,
    };
    Ok(Report::DirMove(DirMoved { renamed, ms: began.elapsed().as_millis() as u64 }))
}

// === impl Places ===

impl Places<'_> {
    fn forward(&self) -> Result<u64> {
        match self.side.moves()? {
            Some(moves) if !moves.is_forward => Err(Error::refused(
                "it was live and moved back since: what is there may have been changed, load it anew",
            )),
            Some(moves) if moves.is_done => Ok(0),
            Some(moves) => self.follow(moves),
            None => {
                let unfinished = || Error::refused("what was loaded is not complete");
                let loaded = self.side.loaded()?.ok_or_else(unfinished)?;
                self.begin(true, &loaded.replaces)
            }
        }
    }

    fn back(&self) -> Result<u64> {
        match self.side.moves()? {
            None => Ok(0),
            Some(moves) if !moves.is_forward && moves.is_done => Ok(0),
            Some(moves) if !moves.is_forward => self.follow(moves),
            Some(moves) if !moves.is_done => self.undo(&moves),
            Some(_) => {
                let unknown = || Error::refused("it is not known what was loaded");
                let loaded = self.side.loaded()?.ok_or_else(unknown)?;
                self.begin(false, &loaded.replaces)
            }
        }
    }

    /// Writes a list of what is there now and follows it.
    fn begin(&self, is_forward: bool, replaces: &Replaces) -> Result<u64> {
        let (away, source) = if is_forward { (&self.old, &self.new) } else { (&self.new, &self.old) };
        if let [name, ..] = files::names(away)?.as_slice() {
            return Err(unexpected(name, "where the live data is to go"));
        }
        if let [mount, ..] = self.root.mounts()?.as_slice() {
            return Err(Error::refused(format!("`{mount}` is a mount of its own, which cannot be renamed")));
        }
        let mut live = self.root.live()?;
        live.retain(|name| replaces.includes(name));
        let before = top(&self.root.fd)?;
        let after = match (is_forward, self.side.moves()?) {
            (false, Some(forward)) => forward.before,
            _ => top(&self.new)?,
        };
        let (leave, enter) = (items(&self.root.fd, &live)?, items(source, &files::names(source)?)?);
        if let Some(item) = enter.iter().find(|item| !is_movable(item, replaces)) {
            return Err(unexpected(&files::unescaped(&item.name), "among what was loaded"));
        }
        let moves = Moves { is_forward, is_done: false, leave, enter, before, after };
        self.side.note(&moves)?;
        self.follow(moves)
    }

    /// Does the renames of a list that were not done yet.
    fn follow(&self, moves: Moves) -> Result<u64> {
        let renames = self.renames(&moves)?;
        let mut renamed = 0;
        for rename in renames.iter().filter(|rename| !rename.is_done) {
            rename.there()?;
            renamed += 1;
        }
        set_top(&self.root.fd, moves.after)?;
        self.sync()?;
        drop(renames);
        self.side.note(&Moves { is_done: true, ..moves })?;
        Ok(renamed)
    }

    /// Does the reverse of the renames of a list that were done.
    fn undo(&self, moves: &Moves) -> Result<u64> {
        let mut renamed = 0;
        for rename in self.renames(moves)?.iter().rev().filter(|rename| rename.is_done) {
            rename.back()?;
            renamed += 1;
        }
        set_top(&self.root.fd, moves.before)?;
        self.sync()?;
        self.side.forget()?;
        Ok(renamed)
    }

    /// How far each rename is. Refuses what is neither before, between nor after.
    fn renames<'a>(&'a self, moves: &'a Moves) -> Result<Vec<Rename<'a>>> {
        let root = &self.root.fd;
        let (away, source) = if moves.is_forward { (&self.old, &self.new) } else { (&self.new, &self.old) };
        let leave = moves.leave.iter().map(|item| (item, root, away));
        let enter = moves.enter.iter().map(|item| (item, source, root));
        let mut renames = Vec::new();
        for (item, from, to) in leave.chain(enter) {
            let is_done = match (is_at(item, from)?, is_at(item, to)?) {
                (true, false) => false,
                (false, true) => true,
                _ => {
                    return Err(unexpected(
                        &files::unescaped(&item.name),
                        "of the list of the move, elsewhere or changed",
                    ));
                }
            };
            renames.push(Rename { item, from, to, is_done });
        }
        let replaces = self.side.loaded()?.map_or(Replaces::Everything, |loaded| loaded.replaces);
        let mut live = self.root.live()?;
        live.retain(|name| replaces.includes(name));
        for (dir, names) in [(root, live), (away, files::names(away)?), (source, files::names(source)?)] {
            for name in names {
                let is_ours = |rename: &Rename<'_>| {
                    let here = if rename.is_done { rename.to } else { rename.from };
                    std::ptr::eq(here, dir) && files::unescaped(&rename.item.name) == name
                };
                if !renames.iter().any(is_ours) {
                    return Err(unexpected(&name, "which the list of the move does not know"));
                }
            }
        }
        Ok(renames)
    }

    fn sync(&self) -> Result<()> {
        [&self.root.fd, &self.old, &self.new].into_iter().try_for_each(files::sync)
    }
}

// === impl Rename ===

impl Rename<'_> {
    fn there(&self) -> Result<()> {
        rename(self.item, self.from, self.to)
    }

    fn back(&self) -> Result<()> {
        rename(self.item, self.to, self.from)
    }
}

fn rename(item: &Item, from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let name = files::unescaped(&item.name);
    death::may_come();
    let renamed = match rustix::fs::renameat_with(from, &name, to, &name, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; that nothing is there was looked at just before.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(from, &name, to, &name),
        renamed => renamed,
    };
    death::may_come();
    renamed.map_err(files::wrong("rename", &name))
}

fn is_at(item: &Item, dir: &OwnedFd) -> Result<bool> {
    let found = identity(dir, &files::unescaped(&item.name))?;
    Ok(found.as_ref() == Some(item))
}

fn items(dir: &OwnedFd, names: &[OsString]) -> Result<Vec<Item>> {
    let vanished = |name: &OsStr| Error::Unready(format!("{} vanished", files::escaped(name)));
    names.iter().map(|name| identity(dir, name)?.ok_or_else(|| vanished(name))).collect()
}

/// What bears a name now.
fn identity(dir: &OwnedFd, name: &OsStr) -> Result<Option<Item>> {
    let Some(stat) = files::look(dir, name)? else { return Ok(None) };
    let born = match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) {
        Ok(told) if told.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            Some(i128::from(told.stx_btime.tv_sec) * 1_000_000_000 + i128::from(told.stx_btime.tv_nsec))
        }
        _ => None,
    };
    Ok(Some(Item { name: files::escaped(name), inode: stat.st_ino, born }))
}

/// What enters must be what would give way again.
fn is_movable(item: &Item, replaces: &Replaces) -> bool {
    let name = files::unescaped(&item.name);
    super::root::is_data(&name) && replaces.includes(&name)
}

fn top(dir: &OwnedFd) -> Result<Top> {
    let stat = rustix::fs::fstat(dir).map_err(Error::errno("cannot look at a directory"))?;
    Ok(Top { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid })
}

fn set_top(dir: &OwnedFd, wanted: Top) -> Result<()> {
    if top(dir)? == wanted {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
    rustix::fs::fchown(dir, Some(uid), Some(gid))
        .and_then(|()| rustix::fs::fchmod(dir, Mode::from_raw_mode(wanted.mode)))
        .map_err(Error::errno("cannot give the data directory its owner"))
}

fn unexpected(name: &OsStr, what: &str) -> Error {
    Error::refused(format!("`{}` is found, {what}: this run moved nothing", files::escaped(name)))
}
