//! A store as directories of files: a mounted directory or a bucket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use skep_runner::error::{Error, Result};
use skep_runner::manifest::MANIFEST;
use skep_runner::store::{Folder, MARK, discard, is_the_one};
use skep_runner::task::{Anchors, Place, S3Place};

use crate::s3::{Bucket, Manner, Upload};

/// What a half-written file is called until it is whole.
const PART: &str = ".part";

/// Where a job finds things, and how patient it is.
#[derive(Clone, Debug)]
pub struct Site {
    /// Root of the staging volume.
    pub stage: PathBuf,
    /// Longest wait for an answer of an S3 server.
    pub patience: Duration,
    /// First pause before an S3 server is asked again; it doubles.
    pub pause: Duration,
    /// Smallest part of an S3 upload in bytes.
    pub part: usize,
}

/// An open store.
pub enum Shelf {
    /// A mounted directory.
    Mount(PathBuf),
    /// A bucket.
    S3(Box<Bucket>),
}

/// A file being written; not visible under its name before [`Draft::finish`].
pub(crate) enum Draft {
    File { folder: Folder, file: File, name: String },
    Upload(Box<Upload>),
}

// === impl Site ===

impl Default for Site {
    fn default() -> Site {
        Site {
            stage: skep_runner::STAGE_PATH.into(),
            patience: Duration::from_secs(60),
            pause: crate::s3::PAUSE,
            part: 8 << 20,
        }
    }
}

impl Site {
    /// Opens a bucket, which is asked nothing yet.
    ///
    /// # Errors
    /// When it cannot be right.
    pub(crate) fn bucket(&self, place: &S3Place) -> Result<Bucket> {
        let Site { stage, patience, pause, part } = self.clone();
        Bucket::open(place, &Manner { patience, pause, part, notes: stage.join(".uploads") })
    }
}

// === impl Shelf ===

impl Shelf {
    /// Opens a store.
    ///
    /// # Errors
    /// When it cannot be right; an S3 server is asked nothing yet.
    pub fn open(place: &Place, site: &Site) -> Result<Shelf> {
        match place {
            Place::Mount { path } => Ok(Shelf::Mount(Path::new(path).to_owned())),
            Place::S3(place) => Ok(Shelf::S3(Box::new(site.bucket(place)?))),
        }
    }

    /// Refuses a store that holds none of the backups by which it is known.
    ///
    /// # Errors
    /// When it is another one, or cannot be read.
    pub fn is_the_one(&mut self, anchors: &Anchors) -> Result<()> {
        match self {
            Shelf::Mount(root) => is_the_one(root, anchors),
            Shelf::S3(bucket) => anchors.hold(|dir| {
                let key = dir.map_or_else(|| MARK.to_owned(), |dir| format!("{dir}/{MANIFEST}"));
                Ok(bucket.get(&key)?.is_some())
            }),
        }
    }

    /// The bytes of a backup's manifest; none where there is no backup.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn manifest(&mut self, dir: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Shelf::Mount(root) => match Folder::open(root, dir)? {
                Some(folder) => folder.manifest_bytes(),
                None => Ok(None),
            },
            Shelf::S3(bucket) => bucket.get(&format!("{dir}/{MANIFEST}")),
        }
    }

    /// Whether there is anything in a directory or below.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn holds(&mut self, dir: &str) -> Result<bool> {
        match self {
            Shelf::Mount(root) => Ok(Folder::open(root, dir)?.is_some()),
            Shelf::S3(bucket) => Ok(!bucket.names(dir)?.is_empty()),
        }
    }

    /// Removes all of a directory, the manifest first, and what was begun and never finished.
    ///
    /// # Errors
    /// When the store does not do it.
    pub fn clear(&mut self, dir: &str) -> Result<()> {
        match self {
            Shelf::Mount(root) => discard(root, dir, true),
            Shelf::S3(bucket) => {
                bucket.delete(&format!("{dir}/{MANIFEST}"))?;
                bucket.end_uploads(dir)?;
                for name in bucket.names(dir)? {
                    bucket.delete(&format!("{dir}/{name}"))?;
                }
                Ok(())
            }
        }
    }

    /// Writes a small file, over one of the same name.
    pub(crate) fn replace(&mut self, dir: &str, name: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Shelf::Mount(root) => {
                let folder = Folder::create(root, dir)?;
                let part = format!("{name}{PART}");
                folder.remove(&part)?;
                let mut file = folder.write_new(&part)?;
                file.write_all(bytes).map_err(Error::io(format!("cannot write {dir}/{part}")))?;
                folder.publish(&file, &part, name)
            }
            Shelf::S3(bucket) => bucket.put(&format!("{dir}/{name}"), &Bytes::copy_from_slice(bytes)),
        }
    }

    /// Names of the files in a directory.
    pub(crate) fn names(&mut self, dir: &str) -> Result<Vec<String>> {
        match self {
            Shelf::Mount(root) => match Folder::open(root, dir)? {
                Some(folder) => folder.names(),
                None => Ok(Vec::new()),
            },
            Shelf::S3(bucket) => bucket.names(dir),
        }
    }

    /// Removes a file; absent is fine.
    pub(crate) fn remove(&mut self, dir: &str, name: &str) -> Result<()> {
        match self {
            Shelf::Mount(root) => match Folder::open(root, dir)? {
                Some(folder) => folder.remove(name),
                None => Ok(()),
            },
            Shelf::S3(bucket) => bucket.delete(&format!("{dir}/{name}")),
        }
    }

    /// Begins a file of about `hint` bytes.
    pub(crate) fn draft(&mut self, dir: &str, name: &str, hint: u64) -> Result<Draft> {
        match self {
            Shelf::Mount(root) => {
                let folder = Folder::create(root, dir)?;
                let file = folder.write_new(&format!("{name}{PART}"))?;
                Ok(Draft::File { folder, file, name: name.to_owned() })
            }
            Shelf::S3(bucket) => {
                Ok(Draft::Upload(Box::new(Upload::new(bucket, &format!("{dir}/{name}"), hint)?)))
            }
        }
    }

    /// Reads a file.
    pub(crate) fn read(&mut self, dir: &str, name: &str) -> Result<Box<dyn Read + '_>> {
        match self {
            Shelf::Mount(root) => {
                let absent = || Error::refused(format!("{dir}/{name} is missing in the store"));
                let folder = Folder::open(root, dir)?.ok_or_else(absent)?;
                Ok(Box::new(folder.read(name)?.ok_or_else(absent)?))
            }
            Shelf::S3(bucket) => Ok(Box::new(bucket.read(&format!("{dir}/{name}")))),
        }
    }

    /// Writes the manifest, which makes the directory a backup.
    pub(crate) fn commit(&mut self, dir: &str, manifest: &[u8]) -> Result<()> {
        self.replace(dir, MANIFEST, manifest)
    }
}

// === impl Draft ===

impl Draft {
    /// Makes it durable and visible.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            Draft::File { folder, file, name } => folder.publish(&file, &format!("{name}{PART}"), &name),
            Draft::Upload(upload) => upload.finish(),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Draft::File { file, .. } => file.write(bytes),
            Draft::Upload(upload) => upload.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Draft::File { file, .. } => file.flush(),
            Draft::Upload(upload) => upload.flush(),
        }
    }
}
