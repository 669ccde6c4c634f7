//! What goes wrong, when, and how often.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Any.
    Any,
    /// A part of an upload.
    Part,
    /// The end of an upload.
    Complete,
    /// A whole object is written.
    Put,
    /// An object is read.
    Get,
    /// An object is removed.
    Delete,
}

/// What happens instead of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This status, and nothing is done.
    Status(u16),
    /// No answer, for ever.
    Hang,
    /// The connection ends in the middle of what is sent; nothing is done.
    CutRequest,
    /// The connection ends in the middle of the answer.
    CutAnswer,
    /// The answer comes after this time.
    Slow(Duration),
    /// One bit of the answer is another one.
    Flip,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which requests.
    pub asked: Asked,
    /// So many of them go well before.
    pub skip: usize,
    /// So many of them go wrong.
    pub times: usize,
    /// How.
    pub kind: Kind,
}

/// The faults of a server, and what it was asked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    faults: Vec<Fault>,
    asked: Vec<(Method, String)>,
}

// === impl Asked ===

impl Asked {
    fn is(self, method: &Method, query: &str) -> bool {
        let part = query.contains("partNumber=");
        match self {
            Asked::Any => true,
            Asked::Part => *method == Method::PUT && part,
            Asked::Complete => *method == Method::POST && query.contains("uploadId="),
            Asked::Put => *method == Method::PUT && !part,
            Asked::Get => *method == Method::GET && !query.contains("list-type="),
            Asked::Delete => *method == Method::DELETE,
        }
    }
}

// === impl Faults ===

impl Faults {
    /// Adds one.
    pub fn add(&self, asked: Asked, skip: usize, times: usize, kind: Kind) {
        self.log().faults.push(Fault { asked, skip, times, kind });
    }

    /// Nothing goes wrong any more.
    pub fn clear(&self) {
        self.log().faults.clear();
    }

    /// How many requests of a kind there were.
    pub fn count(&self, asked: Asked) -> usize {
        self.log().asked.iter().filter(|(method, query)| asked.is(method, query)).count()
    }

    /// What goes wrong with a request, which is noted.
    pub(crate) fn strike(&self, method: &Method, query: &str) -> Option<Kind> {
        let mut log = self.log();
        log.asked.push((method.clone(), query.to_owned()));
        let fits = |f: &&mut Fault| f.times > 0 && f.asked.is(method, query);
        let fault = log.faults.iter_mut().find(fits)?;
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        fault.times -= 1;
        Some(fault.kind)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStr for Fault {
    type Err = String;

    /// `part:skip:times:503`, with `hang`, `cut`, `cut-answer` or `flip` instead of a status.
    fn from_str(text: &str) -> Result<Fault, String> {
        let wrong = || format!("`{text}`: want `request:skip:times:what`, as in `part:2:1000:503`");
        let parts: Vec<&str> = text.split(':').collect();
        let [asked, skip, times, kind] = parts.as_slice() else { return Err(wrong()) };
        let asked = match *asked {
            "any" => Asked::Any,
            "part" => Asked::Part,
            "complete" => Asked::Complete,
            "put" => Asked::Put,
            "get" => Asked::Get,
            "delete" => Asked::Delete,
            _ => return Err(wrong()),
        };
        let kind = match *kind {
            "hang" => Kind::Hang,
            "cut" => Kind::CutRequest,
            "cut-answer" => Kind::CutAnswer,
            "flip" => Kind::Flip,
            status => Kind::Status(status.parse().map_err(|_| wrong())?),
        };
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(Fault { asked, skip: number(skip)?, times: number(times)?, kind })
    }
}
