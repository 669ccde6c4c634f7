//! Logs of containers, in the daemon's frames.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::mpsc;

/// Longer lines are split without a mark.
const LONGEST: usize = 16 * 1024;

/// The frame in which the daemon says why it has not everything.
pub(super) fn fault(why: &str) -> Bytes {
    let text = format!(
        "Error grabbing logs: rpc error: code = Unknown desc = warning: incomplete log stream. some logs could not be \
         retrieved for the following reasons: {why}\n"
    );
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[3, 0, 0, 0]);
    bytes.put_u32(u32::try_from(text.len()).expect("a sentence is short"));
    bytes.put_slice(text.as_bytes());
    bytes.freeze()
}

/// Which lines to read, and how to show them.
#[derive(Clone, Debug, Default)]
pub(super) struct Show {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) timestamps: bool,
    pub(super) details: bool,
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Line {
    at: Timestamp,
    text: String,
}

/// Lines of standard output by task.
#[derive(Debug, Default)]
pub(super) struct Logs {
    tasks: BTreeMap<String, Vec<Line>>,
    followers: Vec<Follower>,
}

#[derive(Debug)]
struct Follower {
    service: String,
    show: Show,
    to: mpsc::UnboundedSender<Bytes>,
}

// === impl Logs ===

impl Logs {
    /// Adds lines of a task.
    pub(super) fn add(&mut self, service: &str, task: &str, at: Timestamp, lines: &[String]) {
        for text in lines {
            let line = Line { at, text: text.clone() };
            self.followers.retain(|follower| !follower.to.is_closed());
            for follower in self.followers.iter().filter(|f| f.service == service && f.show.stdout) {
                let _ = follower.to.send(line.frames(task, &follower.show));
            }
            self.tasks.entry(task.to_owned()).or_default().push(line);
        }
    }

    /// The lines of tasks so far.
    pub(super) fn read(&self, tasks: &[String], show: &Show) -> Bytes {
        let mut bytes = BytesMut::new();
        for task in tasks.iter().filter(|_| show.stdout) {
            let lines = self.tasks.get(task).map(Vec::as_slice).unwrap_or_default();
            let lines: Vec<&Line> = lines.iter().filter(|l| show.since.is_none_or(|s| l.at >= s)).collect();
            let skip = show.tail.map_or(0, |t| lines.len().saturating_sub(t));
            for line in &lines[skip..] {
                bytes.put(line.frames(task, show));
            }
        }
        bytes.freeze()
    }

    /// The lines so far and those to come; it never ends by itself.
    pub(super) fn follow(
        &mut self,
        service: &str,
        tasks: &[String],
        show: Show,
    ) -> mpsc::UnboundedReceiver<Bytes> {
        let (to, from) = mpsc::unbounded_channel();
        let _ = to.send(self.read(tasks, &show));
        self.followers.push(Follower { service: service.to_owned(), show, to });
        from
    }
}

// === impl Line ===

impl Line {
    fn frames(&self, task: &str, show: &Show) -> Bytes {
        let mut head = String::new();
        if show.timestamps {
            head.push_str(&format!("{} ", self.at));
        }
        if show.details {
            head.push_str(&format!("com.docker.swarm.task.id={task} "));
        }
        let text = format!("{}\n", self.text);
        let mut bytes = BytesMut::new();
        for part in text.as_bytes().chunks(LONGEST) {
            let length = u32::try_from(head.len() + part.len()).expect("a part is short");
            bytes.put_slice(&[1, 0, 0, 0]);
            bytes.put_u32(length);
            bytes.put_slice(head.as_bytes());
            bytes.put_slice(part);
        }
        bytes.freeze()
    }
}
