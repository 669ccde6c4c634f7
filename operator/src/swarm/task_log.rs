//! What a task has printed, on both of its streams, read in bounded parts.
//!
//! A frame is one line, `timestamp text`, of which the engine cuts long ones into parts of 16 KiB without a mark; each part counts as a
//! line here. A container with a terminal has no frames. What the engine cannot get at it tells in a frame of its own kind; a container
//! whose log driver keeps nothing looks like one that has printed nothing ([`spec::keeps_no_log`](super::spec::keeps_no_log)).

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use super::engine::Engine;
use super::error::{Effect, Error, Failure};
use super::transport::{Call, READ_DEADLINE, chain, encode};

/// Stream, three zeros, length.
const HEAD: usize = 8;
/// The stream on which the engine speaks for itself.
const ENGINE: u8 = 3;
/// No frame is longer: a part of a line, and what stands before it.
const LONGEST_FRAME: usize = 64 * 1024;

/// Which part of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogPart {
    /// From this moment on, by the clock of the task's node.
    pub since: Option<Timestamp>,
    /// At most so many lines, the last ones.
    pub lines: u32,
    /// Not much more than so many bytes, the first ones of these.
    pub bytes: usize,
    /// Whether the container has a terminal.
    pub terminal: bool,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was printed, by the clock of the task's node; none where the engine does not say so.
    pub at: Option<Timestamp>,
    /// Without its end.
    pub text: String,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskLog {
    /// The lines, as they were printed.
    pub lines: Vec<LogLine>,
    /// Whether there is more than may be read at once.
    pub cut: bool,
    /// Why the engine could not read all of it, empty where it could.
    pub fault: String,
}

/// Takes bytes as they come.
#[derive(Default)]
struct Decoder {
    terminal: bool,
    rest: BytesMut,
    log: TaskLog,
}

// === impl Engine ===

impl Engine {
    /// What a task has printed.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the task is gone; when it takes too long.
    pub async fn task_log(&self, task_id: &str, part: LogPart) -> Result<TaskLog, Error> {
        let what = format!("reading the log of task {task_id}");
        let since = part.since.map(|at| format!("&since={}.{:09}", at.as_second(), at.subsec_nanosecond()));
        let path = format!(
            "/tasks/{}/logs?stdout=1&stderr=1&timestamps=1&tail={}{}",
            encode(task_id),
            part.lines,
            since.unwrap_or_default()
        );
        let failed = |failure| Error::from_failure(&what, Effect::Read, failure);
        let answer = self.transport().open(Call::get(path)).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut decoder = Decoder { terminal: part.terminal, ..Decoder::default() };
        let (mut read, mut refusal) = (0, Vec::new());
        while let Some(chunk) = next(&mut body).await.map_err(failed)? {
            read += chunk.len();
            if status != 200 {
                refusal.extend_from_slice(&chunk);
            } else {
                decoder.take(&chunk).map_err(|message| Error::Malformed { what: what.clone(), message })?;
            }
            if read > part.bytes {
                decoder.log.cut = true;
                break;
            }
        }
        if status != 200 {
            let message = serde_json::from_slice::<Value>(&refusal).unwrap_or_default();
            let message = message["message"].as_str().unwrap_or_default();
            return Err(Error::from_answer(&what, Effect::Read, status, message));
        }
        Ok(decoder.end())
    }
}

async fn next(body: &mut hyper::body::Incoming) -> Result<Option<bytes::Bytes>, Failure> {
    loop {
        let frame = timeout(READ_DEADLINE, body.frame()).await.map_err(|_| silent(READ_DEADLINE))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Failure::NoAnswer(chain(&error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn silent(after: Duration) -> Failure {
    Failure::NoAnswer(format!("no answer within {} s", after.as_secs()))
}

// === impl Decoder ===

impl Decoder {
    fn take(&mut self, chunk: &[u8]) -> Result<(), String> {
        self.rest.extend_from_slice(chunk);
        match self.terminal {
            true => {
                self.take_lines();
                Ok(())
            }
            false => self.take_frames(),
        }
    }

    fn take_frames(&mut self) -> Result<(), String> {
        while self.rest.len() >= HEAD {
            let [stream, _, _, _, length @ ..] = [0, 1, 2, 3, 4, 5, 6, 7].map(|at| self.rest[at]);
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if stream > ENGINE || length > LONGEST_FRAME {
                return Err("it does not come in frames".to_owned());
            }
            if self.rest.len() < HEAD + length {
                break;
            }
            self.rest.advance(HEAD);
            let frame = self.rest.split_to(length);
            match stream {
                ENGINE => self.log.fault = String::from_utf8_lossy(&frame).trim().to_owned(),
                _ => self.log.lines.push(line(&frame)),
            }
        }
        Ok(())
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let whole = self.rest.split_to(end + 1);
            self.log.lines.push(line(&whole));
        }
        if self.rest.len() > LONGEST_FRAME {
            let part = self.rest.split();
            self.log.lines.push(line(&part));
        }
    }

    /// With the last line, which may lack its end.
    fn end(mut self) -> TaskLog {
        if self.terminal && !self.rest.is_empty() {
            self.log.lines.push(line(&self.rest));
        }
        self.log
    }
}

fn line(bytes: &[u8]) -> LogLine {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\r', '\n']);
    let stamped = text.split_once(' ').unwrap_or((text, ""));
    match stamped.0.parse::<Timestamp>() {
        Ok(at) => LogLine { at: Some(at), text: stamped.1.to_owned() },
        Err(_) => LogLine { at: None, text: text.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame
    }

    fn texts(log: &TaskLog) -> Vec<&str> {
        log.lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn frames_are_put_together_however_they_come() {
        let all = [
            frame(2, "2026-11-28T11:51:34.722753431Z FATAL: no\n"),
            frame(1, "2026-11-28T11:51:34.722792208Z \n"),
            frame(1, "2026-11-28T11:51:35Z the last one"),
        ]
        .concat();
        for size in [1, 7, 8, 9, 50, all.len()] {
            let mut decoder = Decoder::default();
            for chunk in all.chunks(size) {
                decoder.take(chunk).unwrap();
            }
            let log = decoder.end();
            assert_eq!(texts(&log), ["FATAL: no", "", "the last one"], "{size}");
            assert_eq!(log.lines[0].at.unwrap().subsec_nanosecond(), 722_753_431);
        }
    }

    #[test]
    fn what_the_engine_says_itself_is_no_line() {
        let mut decoder = Decoder::default();
        decoder.take(&frame(3, "Error grabbing logs: it has not been scheduled\n")).unwrap();
        let log = decoder.end();
        assert_eq!(
            (texts(&log).len(), log.fault.as_str()),
            (0, "Error grabbing logs: it has not been scheduled")
        );
    }

    #[test]
    fn a_terminal_has_lines_and_no_frames() {
        let mut decoder = Decoder { terminal: true, ..Decoder::default() };
        decoder.take(b"2026-11-28T11:52:21.954767506Z started\r\n2026-11-28T11:").unwrap();
        decoder.take(b"52:22Z FATAL").unwrap();
        assert_eq!(texts(&decoder.end()), ["started", "FATAL"]);
        let mut wrong = Decoder::default();
        assert!(wrong.take(b"2026-11-28T11:52:21.954767506Z started\r\n").is_err());
    }

    #[test]
    fn a_frame_of_any_length_is_not_waited_for() {
        let mut decoder = Decoder::default();
        assert!(decoder.take(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
