//! The directory with the live data, and the lock that jobs which change it hold.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, FdFlags};

use super::files::{self, Measure};
use crate::error::{Error, Result};
use crate::job::Room;
use crate::stop;

/// Beginning of the names of everything that Skep keeps in a data directory.
pub(crate) const OURS: &str = ".skep-";
/// Locked by whoever changes the directory.
const LOCK: &str = ".skep-lock";
/// What a file system keeps at its top, which nobody moves.
const NOT_DATA: &str = "lost+found";
/// Longest wait for an older attempt to end.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

/// An open data directory.
pub(crate) struct Root {
    /// The directory.
    pub(crate) fd: OwnedFd,
    /// Its path in the job.
    pub(crate) path: String,
    device: u64,
}

/// Held until dropped. Tools that the job starts hold it too, so that the tools of a killed job keep the next
/// one from building where they still write.
pub(crate) struct Lock(#[allow(dead_code)] OwnedFd);

/// User and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

// === impl Root ===

impl Root {
    /// Opens a directory given by its absolute path.
    pub(crate) fn open(path: &str) -> Result<Root> {
        if !path.starts_with('/') {
            return Err(Error::refused(format!("`{path}` is not an absolute path")));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let wrong = |error: Errno| Error::io(format!("cannot open the data at {path}"))(error.into());
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(wrong)?;
        let device = rustix::fs::fstat(&fd).map_err(wrong)?.st_dev;
        Ok(Root { fd, path: path.trim_end_matches('/').to_owned(), device })
    }

    /// Waits for older attempts to end, then keeps others out.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let began = Instant::now();
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if stop::is_stopping() {
                return Err(Error::Stopped);
            }
            if began.elapsed() > LOCK_WITHIN {
                return Err(Error::Unready(format!("another job of Skep is at work in {}", self.path)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_lock(&self) -> Result<Option<Lock>> {
        let wrong = |error: Errno| Error::io(format!("cannot lock {}", self.path))(error.into());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, LOCK, flags, Mode::RUSR | Mode::WUSR).map_err(wrong)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(wrong(error)),
        }
        // Who held it may have removed the file that was opened here.
        let found = files::look(&self.fd, OsStr::new(LOCK))?;
        if found.map(|stat| stat.st_ino) != Some(rustix::fs::fstat(&file).map_err(wrong)?.st_ino) {
            return Ok(None);
        }
        rustix::io::fcntl_setfd(&file, FdFlags::empty()).map_err(wrong)?;
        Ok(Some(Lock(file)))
    }

    /// Removes the lock's file while it is held.
    pub(crate) fn unlock_for_good(&self, lock: Lock) -> Result<()> {
        files::remove(&self.fd, OsStr::new(LOCK))?;
        drop(lock);
        Ok(())
    }

    /// Names of the top-level entries of the live data.
    pub(crate) fn live(&self) -> Result<Vec<OsString>> {
        let mut names = files::names(&self.fd)?;
        names.retain(|name| is_data(name));
        Ok(names)
    }

    /// Names of the sides that are there.
    pub(crate) fn sides(&self) -> Result<Vec<String>> {
        let names = files::names(&self.fd)?;
        let names = names.iter().filter_map(|name| name.to_str()).filter(|name| *name != LOCK);
        Ok(names.filter_map(|name| name.strip_prefix(OURS)).map(str::to_owned).collect())
    }

    /// Top-level entries that are file systems of their own.
    pub(crate) fn mounts(&self) -> Result<Vec<String>> {
        let mut mounts = Vec::new();
        for name in self.live()? {
            if files::look(&self.fd, &name)?.is_some_and(|stat| stat.st_dev != self.device) {
                mounts.push(files::escaped(&name));
            }
        }
        Ok(mounts)
    }

    /// What the live data takes.
    pub(crate) fn measure(&self) -> Result<Measure> {
        let mut sum = Measure::default();
        for name in self.live()? {
            let Measure { size, entries } = files::measure(&self.fd, &name)?;
            sum = Measure { size: sum.size + size, entries: sum.entries + entries };
        }
        Ok(sum)
    }

    /// Room of its file system.
    pub(crate) fn room(&self) -> Result<Room> {
        let stat = rustix::fs::fstatvfs(&self.fd);
        let wrong =
            |error: Errno| Error::io(format!("cannot measure the room of {}", self.path))(error.into());
        Ok(Room::of(&stat.map_err(wrong)?))
    }

    /// Refuses to go on when, with `more` bytes written, less than a tenth would be left to the live data.
    pub(crate) fn has_room(&self, more: u64) -> Result<()> {
        let Room { free, capacity } = self.room()?;
        let least = capacity / 10;
        if free >= least.saturating_add(more) {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        Err(Error::NoRoom(format!(
            "only {} MiB are free at {}, {} MiB are needed and {} MiB must stay free",
            mib(free),
            self.path,
            mib(more),
            mib(least)
        )))
    }

    /// Who owns most of the top-level entries, else the directory itself.
    pub(crate) fn owner(&self) -> Result<Owner> {
        let mut counts = BTreeMap::new();
        for name in self.live()? {
            if let Some(stat) = files::look(&self.fd, &name)? {
                *counts.entry(Owner { uid: stat.st_uid, gid: stat.st_gid }).or_insert(0) += 1;
            }
        }
        match counts.into_iter().max_by_key(|(_, count)| *count) {
            Some((owner, _)) => Ok(owner),
            None => Ok(Owner::of(
                &rustix::fs::fstat(self.fd.as_fd()).map_err(Error::errno("cannot look at the data"))?,
            )),
        }
    }
}

// === impl Owner ===

impl Owner {
    /// Of a file.
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Owner {
        Owner { uid: stat.st_uid, gid: stat.st_gid }
    }

    /// Gives a name in a directory, and all below it, to this owner.
    pub(crate) fn take(self, at: impl std::os::fd::AsFd, name: &OsStr) -> Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid), rustix::fs::Gid::from_raw(self.gid));
        rustix::fs::chownat(&at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(files::wrong("give to its owner", name))?;
        let Some(stat) = files::look(&at, name)? else { return Ok(()) };
        if files::kind(&stat) == rustix::fs::FileType::Directory {
            let dir = files::open_dir(&at, name).map_err(files::wrong("open", name))?;
            for inner in files::names(&dir)? {
                self.take(&dir, &inner)?;
            }
        }
        Ok(())
    }
}

/// Whether a top-level name is the service's.
pub(crate) fn is_data(name: &OsStr) -> bool {
    name != NOT_DATA && !name.as_bytes().starts_with(OURS.as_bytes())
}
