//! The base backup of a whole server, as it lies beside a dump: one compressed archive.

use std::io::Seek as _;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::store::Whole;
use crate::tool::{self, Tool};

/// Its file name.
pub(crate) const BASE: &str = "base.tar.gz";

/// Unpacks a base without keeping anything.
pub(crate) fn unpack_to_nowhere(whole: &Whole) -> Result<()> {
    let mut unpack = unpacking(whole)?;
    Tool::start(unpack.arg("-t"))?.finish()
}

/// `gzip` with the very file that was checked as its input.
pub(crate) fn unpacking(whole: &Whole) -> Result<Command> {
    let mut file = whole.file.try_clone().map_err(Error::io("cannot hand the base backup to gzip"))?;
    file.rewind().map_err(Error::io("cannot rewind the base backup"))?;
    let mut command = Command::new(tool::first_of(&["gzip"])?);
    command.stdin(Stdio::from(file));
    Ok(command)
}
