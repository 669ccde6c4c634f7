//! Volumes: files as they are, in one PAX archive each.

mod archive;
mod compare;
mod dump;
mod load;

pub(crate) use dump::dump;
pub(crate) use load::load;

use crate::error::Result;
use crate::store::Whole;
use crate::tar::{Archive, Kind};

/// What is never in such a backup, for people.
pub(crate) const NOT_HELD: [&str; 2] = [
    "sockets, device nodes and mounts inside the volume",
    "one moment: files that changed while they were read are named",
];

/// Reads every header and every byte; refuses what a load would refuse, but for a name that is there twice and a hard link to
/// nothing: whoever looks for those has to keep every name. Yields the number of entries and the
/// bytes of their content.
pub(crate) fn read_in_full(whole: &Whole) -> Result<(u64, u64)> {
    let mut archive = Archive::new(whole.reader());
    let mut buffer = vec![0; 256 << 10];
    let (mut links, mut directories) = (archive::Links::default(), archive::Directories::default());
    let (mut entries, mut bytes) = (0, 0);
    while let Some(entry) = archive.next()? {
        links.check(&entry)?;
        directories.check(&entry)?;
        loop {
            match archive.data(&mut buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        if entry.kind != Kind::Directory || !entry.path.is_empty() {
            entries += 1;
        }
    }
    Ok((entries, bytes))
}
