//! An upload in parts. One thread encodes, another sends: three parts are in memory at most.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use hyper::{Method, StatusCode};
use rusty_s3::S3Action as _;
use rusty_s3::actions::CreateMultipartUpload;
use serde::{Deserialize, Serialize};
use skep_runner::error::{Error, Result};
use skep_runner::store::sha256_of;

use super::{Bucket, Manner, VALID};

/// Most parts that S3 takes.
const MOST_PARTS: u64 = 10_000;

/// An object being written. Dropped unfinished, it ends its upload.
pub struct Upload {
    path: String,
    part: usize,
    buffer: Vec<u8>,
    sender: Option<Sender>,
    bucket: Option<Bucket>,
}

/// The thread that sends, once there is more than one part.
struct Sender {
    parts: Option<SyncSender<Bytes>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// An upload that was begun.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    endpoint: String,
    bucket: String,
    key: String,
    upload: String,
}

// === impl Upload ===

impl Upload {
    /// An object of about `hint` bytes; nothing is sent before there is a part of it.
    ///
    /// # Errors
    /// When the bucket cannot be opened.
    pub fn new(bucket: &Bucket, path: &str, hint: u64) -> Result<Upload> {
        let needed = usize::try_from(hint / (MOST_PARTS - 1_000)).unwrap_or(usize::MAX);
        let part = bucket.manner.part.max(needed.next_multiple_of(1 << 20));
        Ok(Upload {
            path: path.to_owned(),
            part,
            buffer: Vec::new(),
            sender: None,
            bucket: Some(bucket.again()?),
        })
    }

    /// Sends the rest and makes the object visible.
    ///
    /// # Errors
    /// What the server says; the upload is then ended.
    pub fn finish(mut self) -> Result<()> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        match (self.sender.take(), self.bucket.take()) {
            (Some(mut sender), _) => {
                let sent = rest.is_empty() || sender.send(rest).is_ok();
                let ended = sender.end();
                if sent { ended } else { Err(ended.err().unwrap_or_else(lost)) }
            }
            (None, Some(mut bucket)) => bucket.put(&self.path, &rest),
            (None, None) => Err(lost()),
        }
    }

    fn flush_part(&mut self) -> io::Result<()> {
        let part = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(self.part)));
        if let Some(bucket) = self.bucket.take() {
            let path = self.path.clone();
            let (parts, received) = sync_channel(0);
            let thread = std::thread::spawn(move || send_all(bucket, &path, &received));
            self.sender = Some(Sender { parts: Some(parts), thread: Some(thread) });
        }
        let Some(sender) = &mut self.sender else { return Err(io::Error::other(lost())) };
        sender.send(part).map_err(|()| io::Error::other(sender.end().err().unwrap_or_else(lost)))
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.part {
            self.flush_part()?;
        }
        let length = bytes.len().min(self.part - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Sender ===

impl Sender {
    fn send(&mut self, part: Bytes) -> std::result::Result<(), ()> {
        self.parts.as_ref().ok_or(())?.send(part).map_err(drop)
    }

    /// No more parts: waits for what the thread says.
    fn end(&mut self) -> Result<()> {
        // An empty part says that this is the end, and not that whoever encodes has failed.
        let _ended = self.parts.take().map(|parts| parts.send(Bytes::new()));
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent,
            Some(Err(_)) | None => Err(lost()),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        drop(self.parts.take());
        if self.thread.is_some() {
            // Whoever drops it has another error to tell.
            drop(self.join());
        }
    }
}

fn lost() -> Error {
    Error::Unready("the upload was given up".to_owned())
}

// === the sending thread ===

fn send_all(mut bucket: Bucket, path: &str, parts: &Receiver<Bytes>) -> Result<()> {
    let key = bucket.key(path);
    let upload = begin(&mut bucket, &key)?;
    let sent = send_parts(&mut bucket, &key, &upload, parts);
    if sent.is_err() {
        // What cannot be ended now is noted, and ended by whoever comes next.
        drop(abort(&mut bucket, &key, &upload));
    }
    sent
}

fn begin(bucket: &mut Bucket, key: &str) -> Result<String> {
    let url = |b: &Bucket| b.bucket.create_multipart_upload(Some(&b.credentials), key).sign(VALID);
    let answer = bucket.call("begin to write", key, &Method::POST, url, &Bytes::new(), &[])?;
    let answer = CreateMultipartUpload::parse_response(&answer.body)
        .map_err(|_| Error::refused(format!("{} begins no upload", bucket.name())))?;
    let upload = answer.upload_id().to_owned();
    let note = Note {
        endpoint: bucket.place.endpoint.clone(),
        bucket: bucket.place.bucket.clone(),
        key: key.to_owned(),
        upload: upload.clone(),
    };
    write_note(&bucket.manner, &note)?;
    Ok(upload)
}

fn send_parts(bucket: &mut Bucket, key: &str, upload: &str, parts: &Receiver<Bytes>) -> Result<()> {
    let mut etags = Vec::new();
    loop {
        let part = parts.recv().map_err(|_| lost())?;
        if part.is_empty() {
            break;
        }
        let number = u16::try_from(etags.len() + 1)
            .map_err(|_| Error::refused(format!("{key} has more parts than S3 takes")))?;
        let url = |b: &Bucket| b.bucket.upload_part(Some(&b.credentials), key, number, upload).sign(VALID);
        let answer = bucket.call("write", key, &Method::PUT, url, &part, &[])?;
        let etag =
            answer.etag.ok_or_else(|| Error::refused(format!("{} gives parts no tag", bucket.name())))?;
        etags.push(etag);
    }
    complete(bucket, key, upload, &etags)?;
    remove_note(&bucket.manner, key, upload);
    Ok(())
}

fn complete(bucket: &mut Bucket, key: &str, upload: &str, etags: &[String]) -> Result<()> {
    let tags = || etags.iter().map(String::as_str);
    let whole = |b: &Bucket| {
        let action = b.bucket.complete_multipart_upload(Some(&b.credentials), key, upload, tags());
        let url = action.sign(VALID);
        (url, Bytes::from(action.body()))
    };
    let body = whole(bucket).1;
    match bucket.call("finish", key, &Method::POST, |b| whole(b).0, &body, &[]) {
        // Where the answer to an earlier try was lost, the upload is gone because it was finished: nothing else has
        // written this key since its directory was cleared, and reading back tells what is in it.
        Err(error) if bucket.has(key)? => {
            drop(error);
            Ok(())
        }
        answer => answer.map(drop),
    }
}

/// Ends an upload; one that is gone is fine.
fn abort(bucket: &mut Bucket, key: &str, upload: &str) -> Result<()> {
    let url = |b: &Bucket| b.bucket.abort_multipart_upload(Some(&b.credentials), key, upload).sign(VALID);
    bucket.call("end the upload of", key, &Method::DELETE, url, &Bytes::new(), &[StatusCode::NOT_FOUND])?;
    remove_note(&bucket.manner, key, upload);
    Ok(())
}

// === notes ===

impl Bucket {
    /// Ends what was begun and never finished in a directory.
    ///
    /// # Errors
    /// What the server says, or when the notes cannot be read.
    pub fn end_uploads(&mut self, dir: &str) -> Result<()> {
        let prefix = format!("{}/", self.key(dir));
        for note in notes(&self.manner.notes)? {
            let is_here = note.endpoint == self.place.endpoint && note.bucket == self.place.bucket;
            if is_here && note.key.starts_with(&prefix) {
                abort(self, &note.key, &note.upload)?;
            }
        }
        Ok(())
    }
}

fn note_path(manner: &Manner, key: &str, upload: &str) -> PathBuf {
    manner.notes.join(&sha256_of(format!("{key} {upload}").as_bytes())[..24])
}

fn write_note(manner: &Manner, note: &Note) -> Result<()> {
    let wrong = || Error::io(format!("cannot note an upload in {}", manner.notes.display()));
    fs::create_dir_all(&manner.notes).map_err(wrong())?;
    let text = serde_json::to_vec(note).expect("a note has string keys only");
    fs::write(note_path(manner, &note.key, &note.upload), text).map_err(wrong())
}

fn remove_note(manner: &Manner, key: &str, upload: &str) {
    // One that stays costs a request later.
    drop(fs::remove_file(note_path(manner, key, upload)));
}

fn notes(dir: &Path) -> Result<Vec<Note>> {
    let wrong = || Error::io(format!("cannot read the notes of uploads in {}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(wrong())?,
    };
    let mut notes = Vec::new();
    for entry in entries {
        let text = fs::read(entry.map_err(wrong())?.path()).map_err(wrong())?;
        // Half a note was written before anything was sent.
        notes.extend(serde_json::from_slice::<Note>(&text).ok());
    }
    Ok(notes)
}
