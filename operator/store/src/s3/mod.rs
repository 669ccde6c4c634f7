//! A bucket of an S3-compatible server, as a store of files.
//!
//! Invariants: what fails in passing (no answer, a cut connection, 5xx, 429) is tried again a few times, and nothing else; a
//! part is the unit of trying again, so memory holds few of them; an upload is noted beside the staged files before its
//! first part is sent, so that whoever comes next can end it; URLs are signed and are never in a message.

mod http;
mod upload;

use std::io::{self, Read};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::Incoming;
use hyper::header::ETAG;
use hyper::{Method, StatusCode};
use rusty_s3::{Credentials, S3Action as _, UrlStyle};
use skep_runner::error::{Error, Result};
use skep_runner::task::S3Place;
use url::Url;

use self::http::{Away, Http};
pub use self::upload::Upload;

/// How often something that fails in passing is tried.
const TRIES: u32 = 5;
/// First pause between two of them; it doubles.
pub(crate) const PAUSE: Duration = Duration::from_millis(400);
/// The end of an upload may take so many times longer than anything else.
const LONGER: u32 = 9;
/// How long a signed URL is valid: longer than any one request.
const VALID: Duration = Duration::from_secs(3600);
/// Largest answer that is read whole, in bytes.
const LARGEST: usize = 32 << 20;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Longest wait for an answer, or for more of it.
    pub patience: Duration,
    /// First pause before something is tried again; it doubles.
    pub pause: Duration,
    /// Smallest part of an upload in bytes; S3 wants 5 MiB at least.
    pub part: usize,
    /// Where unfinished uploads are noted.
    pub notes: PathBuf,
}

/// An open bucket.
pub struct Bucket {
    http: Http,
    place: S3Place,
    bucket: rusty_s3::Bucket,
    credentials: Credentials,
    manner: Manner,
}

/// An answer whose body was read.
pub(crate) struct Answer {
    status: StatusCode,
    etag: Option<String>,
    body: Vec<u8>,
}

/// What is read of an object; goes on where a connection was cut.
pub struct Download<'a> {
    bucket: &'a mut Bucket,
    key: String,
    at: u64,
    rest: Bytes,
    open: Option<Incoming>,
}

// === impl Bucket ===

impl Bucket {
    /// Reads the credentials; asks the server nothing yet.
    ///
    /// # Errors
    /// When the place or the credentials cannot be right.
    pub fn open(place: &S3Place, manner: &Manner) -> Result<Bucket> {
        let wrong = |why: &str| Error::Barred(format!("store s3://{}: {why}", place.bucket));
        let file = &place.credentials_file;
        let text = std::fs::read_to_string(file)
            .map_err(Error::io(format!("cannot read the S3 credentials from {file}")))?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (Some(key), Some(secret), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(wrong("want two lines in its credentials: access key id, secret access key"));
        };
        let endpoint: Url = place.endpoint.parse().map_err(|_| wrong("its endpoint is no URL"))?;
        let style = if place.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket = rusty_s3::Bucket::new(endpoint, style, place.bucket.clone(), place.region.clone())
            .map_err(|_| wrong("its endpoint is no URL of a server"))?;
        let url = bucket.object_url("x").map_err(|_| wrong("its endpoint is no URL of a server"))?;
        let http =
            Http::new(&url, manner.patience).map_err(Error::io(format!("store s3://{}", place.bucket)))?;
        let credentials = Credentials::new(key, secret);
        Ok(Bucket { http, place: place.clone(), bucket, credentials, manner: manner.clone() })
    }

    /// One more connection to the same.
    fn again(&self) -> Result<Bucket> {
        Bucket::open(&self.place, &self.manner)
    }

    /// The key of a file below the prefix.
    pub fn key(&self, path: &str) -> String {
        match self.place.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    /// Reads a small object whole; none where there is none.
    ///
    /// # Errors
    /// What the server says.
    pub fn get(&mut self, path: &str) -> Result<Option<Vec<u8>>> {
        let key = self.key(path);
        let url = |b: &Bucket| b.bucket.get_object(Some(&b.credentials), &key).sign(VALID);
        let answer = self.call("read", &key, &Method::GET, url, &Bytes::new(), &[StatusCode::NOT_FOUND])?;
        if answer.status == StatusCode::NOT_FOUND {
            // A missing bucket is a missing object too, and is not the same.
            return if answer.says("NoSuchBucket") {
                Err(self.refusal("read", &key, &answer))
            } else {
                Ok(None)
            };
        }
        Ok(Some(answer.body))
    }

    /// Writes a small object in one go.
    ///
    /// # Errors
    /// What the server says.
    pub fn put(&mut self, path: &str, body: &Bytes) -> Result<()> {
        let key = self.key(path);
        let url = |b: &Bucket| b.bucket.put_object(Some(&b.credentials), &key).sign(VALID);
        self.call("write", &key, &Method::PUT, url, body, &[]).map(drop)
    }

    /// Removes an object; absent is fine.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete(&mut self, path: &str) -> Result<()> {
        let key = self.key(path);
        let url = |b: &Bucket| b.bucket.delete_object(Some(&b.credentials), &key).sign(VALID);
        let answer =
            self.call("remove", &key, &Method::DELETE, url, &Bytes::new(), &[StatusCode::NOT_FOUND])?;
        if answer.says("NoSuchBucket") { Err(self.refusal("remove", &key, &answer)) } else { Ok(()) }
    }

    /// The names of the objects in a directory.
    ///
    /// # Errors
    /// What the server says.
    pub fn names(&mut self, dir: &str) -> Result<Vec<String>> {
        let prefix = format!("{}/", self.key(dir));
        let keys = self.keys(&prefix)?;
        Ok(keys.iter().filter_map(|key| key.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    /// Whether there is an object of exactly this key.
    fn has(&mut self, key: &str) -> Result<bool> {
        Ok(self.keys(key)?.iter().any(|found| found == key))
    }

    /// All keys that begin so.
    fn keys(&mut self, prefix: &str) -> Result<Vec<String>> {
        let (mut names, mut token) = (Vec::new(), None::<String>);
        loop {
            let url = |b: &Bucket| {
                let mut list = b.bucket.list_objects_v2(Some(&b.credentials));
                list.with_prefix(prefix);
                if let Some(token) = &token {
                    list.with_continuation_token(token.as_str());
                }
                list.sign(VALID)
            };
            let answer = self.call("list", prefix, &Method::GET, url, &Bytes::new(), &[])?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if !text.contains("<ListBucketResult") {
                return Err(Error::Barred(format!("{} answers no list of objects", self.name())));
            }
            names.extend(elements(&text, "Key"));
            token = elements(&text, "NextContinuationToken").pop();
            if token.is_none() {
                return Ok(names);
            }
        }
    }

    /// Reads an object as a stream.
    pub fn read(&mut self, path: &str) -> Download<'_> {
        let key = self.key(path);
        Download { bucket: self, key, at: 0, rest: Bytes::new(), open: None }
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("s3://{} at {}", self.place.bucket, self.place.endpoint)
    }

    /// Sends a request, again where that may help, and reads the answer whole. Answers of `fine` are not failures.
    fn call(
        &mut self,
        verb: &str,
        key: &str,
        method: &Method,
        url: impl Fn(&Bucket) -> Url,
        body: &Bytes,
        fine: &[StatusCode],
    ) -> Result<Answer> {
        // A server that puts an upload together copies all of it.
        let longer = if *method == Method::POST && !body.is_empty() {
            self.manner.patience * LONGER
        } else {
            Duration::ZERO
        };
        let mut pause = self.manner.pause;
        for left in (0..TRIES).rev() {
            let url = url(self);
            let answer = self.http.send(method, &url, None, body, longer).and_then(|head| self.whole(head));
            let why = match answer {
                Ok(answer) if answer.is_success() || fine.contains(&answer.status) => return Ok(answer),
                Ok(answer) if !answer.may_pass() => return Err(self.refusal(verb, key, &answer)),
                Ok(answer) => answer.told(),
                Err(Away(why)) => why,
            };
            if left == 0 {
                return Err(Error::Unready(format!("cannot {verb} {key} in {}: {why}", self.name())));
            }
            sleep(pause);
            pause *= 2;
        }
        Err(Error::Unready(format!("cannot {verb} {key} in {}", self.name())))
    }

    fn whole(&mut self, head: hyper::Response<Incoming>) -> std::result::Result<Answer, Away> {
        let (parts, mut incoming) = head.into_parts();
        let etag = parts.headers.get(ETAG).and_then(|e| e.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(more) = self.http.next(&mut incoming)? {
            if body.len() + more.len() > LARGEST {
                return Err(Away("its answer is too long".to_owned()));
            }
            body.extend_from_slice(&more);
        }
        Ok(Answer { status: parts.status, etag, body })
    }

    /// What a refusal means, and what to do.
    fn refusal(&self, verb: &str, key: &str, answer: &Answer) -> Error {
        let hint = match (answer.status.as_u16(), answer.code()) {
            (_, "NoSuchBucket") => "; make the bucket, or correct its name in the store's setting",
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch") => {
                "; correct the secret with its credentials (access key id, then secret access key, a line each)"
            }
            (401 | 403, _) => "; let these credentials list, read, write and delete below the prefix",
            (301 | 307 | 308, _) => "; correct the region or the endpoint of the store",
            (404, _) => "; it is gone from the store",
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => "; make room in the store",
            _ => "",
        };
        let text = format!("cannot {verb} {key} in {}: {}{hint}", self.name(), answer.told());
        // Only an object that is missing says something about a backup.
        let is_missing = answer.status == StatusCode::NOT_FOUND && answer.code() != "NoSuchBucket";
        if is_missing { Error::Refused(text) } else { Error::Barred(text) }
    }
}

// === impl Answer ===

impl Answer {
    /// An error may come with 200: the server had begun to answer before it knew.
    fn is_success(&self) -> bool {
        self.status.is_success() && !self.body.starts_with(b"<Error>") && !self.has_error()
    }

    fn has_error(&self) -> bool {
        let head = &self.body[..self.body.len().min(256)];
        head.starts_with(b"<?xml") && String::from_utf8_lossy(head).contains("<Error>")
    }

    fn may_pass(&self) -> bool {
        let passing = ["InternalError", "SlowDown", "RequestTimeout", "ServiceUnavailable"];
        (self.status.is_server_error() && self.status.as_u16() != 501 && self.status.as_u16() != 507)
            || matches!(self.status.as_u16(), 408 | 429)
            || passing.contains(&self.code())
    }

    fn says(&self, code: &str) -> bool {
        self.code() == code
    }

    /// The code of an S3 error.
    fn code(&self) -> &str {
        let text = std::str::from_utf8(&self.body).unwrap_or_default();
        text.split_once("<Code>")
            .and_then(|(_, rest)| rest.split_once("</Code>"))
            .map_or("", |(code, _)| code)
    }

    fn told(&self) -> String {
        match self.code() {
            "" => format!("the server answers {}", self.status),
            code => format!("the server answers {} ({code})", self.status.as_u16()),
        }
    }
}

// === impl Download ===

impl Download<'_> {
    fn reopen(&mut self) -> std::result::Result<Incoming, Trouble> {
        let credentials = &self.bucket.credentials;
        let url = self.bucket.bucket.get_object(Some(credentials), &self.key).sign(VALID);
        let head = self.bucket.http.send(&Method::GET, &url, Some(self.at), &Bytes::new(), Duration::ZERO);
        let head = head.map_err(|Away(why)| Trouble::Passing(why))?;
        if head.status() == StatusCode::PARTIAL_CONTENT || (head.status() == StatusCode::OK && self.at == 0) {
            return Ok(head.into_body());
        }
        if head.status() == StatusCode::OK {
            return Err(Trouble::Final(Error::Barred(format!(
                "{} cannot go on with an object where it was cut",
                self.bucket.name()
            ))));
        }
        let answer = self.bucket.whole(head).map_err(|Away(why)| Trouble::Passing(why))?;
        Err(match answer.may_pass() {
            true => Trouble::Passing(answer.told()),
            false => Trouble::Final(self.bucket.refusal("read", &self.key, &answer)),
        })
    }

    fn more(&mut self) -> std::result::Result<Option<Bytes>, Trouble> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        let more = self.bucket.http.next(&mut open).map_err(|Away(why)| Trouble::Passing(why))?;
        self.open = Some(open);
        Ok(more)
    }
}

enum Trouble {
    Passing(String),
    Final(Error),
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut pause = self.bucket.manner.pause;
        let mut left = TRIES;
        while self.rest.is_empty() {
            match self.more() {
                Ok(None) => return Ok(0),
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.rest = bytes;
                }
                Err(Trouble::Final(error)) => return Err(io::Error::other(error)),
                Err(Trouble::Passing(why)) => {
                    left -= 1;
                    if left == 0 {
                        let text = format!("cannot read {} in {}: {why}", self.key, self.bucket.name());
                        return Err(io::Error::other(Error::Unready(text)));
                    }
                    sleep(pause);
                    pause *= 2;
                }
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(length)
    }
}

/// The texts of all elements of a name. Servers differ in what else they put into their lists, so nothing else is read.
fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inside = xml.split(open.as_str()).skip(1).filter_map(|rest| rest.split_once(close.as_str()));
    inside.map(|(text, _)| plain(text)).collect()
}

/// The text without XML's entities, and without the encoding that lists are asked for.
fn plain(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    let text = entities.iter().fold(text.to_owned(), |text, (entity, is)| text.replace(entity, is));
    percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whatever_else_is_in_it() {
        let xml = "<?xml version=\"1.0\"?><ListBucketResult><Prefix>a/</Prefix><Contents><Key>a/b%20c&amp;d</Key><Odd/></Contents>\
                   <Contents><Size>1</Size><Key>a/e</Key></Contents></ListBucketResult>";
        assert_eq!(elements(xml, "Key"), ["a/b c&d", "a/e"]);
        assert_eq!(elements(xml, "NextContinuationToken"), [] as [String; 0]);
    }
}
