//! Removing what restores left beside the live data.

use super::files;
use super::root::Root;
use super::side::{Side, dir_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::task::{DirRemove, Report, SideState};

/// Removes sides; the lock's file goes with the last one.
pub(crate) fn remove(_job: &Job, task: &DirRemove) -> Result<Report> {
    let DirRemove { root, sides } = task;
    let root = Root::open(root)?;
    let lock = root.lock()?;
    for side in sides {
        let dir = dir_of(side)?;
        if let Some(found) = Side::open(&root, side)?
            && found.state()? == SideState::Moving
        {
            return Err(Error::refused(format!("`{side}` is moved half way: it holds live data")));
        }
        files::remove(&root.fd, &dir)?;
    }
    files::sync(&root.fd)?;
    if root.sides()?.is_empty() {
        root.unlock_for_good(lock)?;
    }
    Ok(Report::Done)
}
