//! Checks of an application over the network. Names are resolved anew on each try (Docker's answers say
//! that they keep for ten minutes, and do not), and every address that a name has is asked.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::thread;
use std::time::{Duration, Instant};

use crate::task::{CheckOutcome, NetCheck, NetChecks, Probe, Report};

use crate::error::{Error, Result};
use crate::job::Job;
use crate::stop;

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// An HTTP answer as far as the checks need it.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Tries the checks that have not passed yet until all have, or the deadline comes.
pub(crate) fn run(job: &Job, task: &NetChecks) -> Result<Report> {
    let NetChecks { checks, deadline_s } = task;
    let until = Instant::now() + Duration::from_secs(*deadline_s);
    let mut outcomes: Vec<CheckOutcome> = checks.iter().map(|check| failed(check, "not asked yet")).collect();
    let mut pause = Duration::from_millis(50);
    loop {
        for (check, outcome) in checks.iter().zip(&mut outcomes) {
            if !outcome.passed {
                *outcome = try_once(check);
            }
        }
        let passed = outcomes.iter().filter(|outcome| outcome.passed).count();
        job.out.progress("check", passed as u64, Some(checks.len() as u64));
        if passed == checks.len() || Instant::now() >= until {
            return Ok(Report::Checks { outcomes });
        }
        if stop::is_stopping() {
            return Err(Error::Stopped);
        }
        thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The addresses that a name has now.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn failed(check: &NetCheck, detail: impl Into<String>) -> CheckOutcome {
    CheckOutcome { name: check.name.clone(), passed: false, detail: detail.into() }
}

fn try_once(check: &NetCheck) -> CheckOutcome {
    let addresses = match resolve(&check.host, check.port) {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return failed(check, format!("{} has no address", check.host)),
        Err(error) => return failed(check, format!("{} does not resolve: {error}", check.host)),
    };
    for address in &addresses {
        if let Err(why) = ask(check, *address) {
            return failed(check, format!("{address}: {why}"));
        }
    }
    let told: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    CheckOutcome { name: check.name.clone(), passed: true, detail: format!("asked {}", told.join(", ")) }
}

/// Asks one address; an error is a sentence for people.
fn ask(check: &NetCheck, address: SocketAddr) -> std::result::Result<(), String> {
    let until = Instant::now() + Duration::from_millis(check.within_ms.max(1));
    let within = Duration::from_millis(check.within_ms.max(1));
    let stream = TcpStream::connect_timeout(&address, within).map_err(|error| error.to_string())?;
    let Probe::Http { path, status, body } = &check.probe else { return Ok(()) };
    if !path.starts_with('/') || path.contains(|char: char| char.is_whitespace() || char.is_control()) {
        return Err(format!("`{path}` is not a path"));
    }
    let answer = get(stream, &check.host, check.port, path, until).map_err(|error| error.to_string())?;
    if answer.status != *status {
        return Err(format!("answered {} instead of {status}", answer.status));
    }
    match body {
        Some(text) if !String::from_utf8_lossy(&answer.body).contains(text.as_str()) => {
            Err(format!("the body does not contain `{text}`"))
        }
        _ => Ok(()),
    }
}

fn get(mut stream: TcpStream, host: &str, port: u16, path: &str, until: Instant) -> io::Result<Answer> {
    stream.set_write_timeout(Some(left(until)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}:{port}\r\nUser-Agent: skep\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        called(host)
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        let read = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(late()),
            read => read?,
        };
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(answer) = parse(&bytes, read == 0)? {
            return Ok(answer);
        }
        if read == 0 || bytes.len() as u64 > LONGEST_ANSWER {
            return Err(io::Error::other("the answer is cut short or too long"));
        }
    }
}

/// What a host is called in the request. The names of a service's own tasks hold its full name, and an underscore makes a name
/// that no host can have: Django and others refuse it whatever they allow. So tasks are asked as their own health check asks.
fn called(host: &str) -> &str {
    if host.starts_with("tasks.") || host.contains('_') { "localhost" } else { host }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// The answer, if `bytes` hold all of it; `closed` tells that no more will come.
fn parse(bytes: &[u8], closed: bool) -> io::Result<Option<Answer>> {
    let wrong = || io::Error::other("the answer is not HTTP");
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let is_http = first.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let status: u16 = first.next().and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
    if !is_http {
        return Err(wrong());
    }
    if (100..200).contains(&status) {
        return parse(rest, closed);
    }
    let field = |name: &str| {
        head.split("\r\n").skip(1).filter_map(|line| line.split_once(':')).find_map(|(field, value)| {
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let body = if field("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        unchunked(rest)?
    } else if matches!(status, 204 | 304) {
        Some(Vec::new())
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().map_err(|_| wrong())?;
        rest.get(..length).map(<[u8]>::to_vec)
    } else {
        closed.then(|| rest.to_vec())
    };
    Ok(body.map(|body| Answer { status, body }))
}

/// A chunked body, if it is complete.
fn unchunked(mut bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let wrong = || io::Error::other("the answer's chunks are malformed");
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&bytes[..end]).map_err(|_| wrong())?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| wrong())?;
        if size == 0 {
            return Ok(Some(body));
        }
        let start = end + 2;
        let stop = start.checked_add(size).ok_or_else(wrong)?;
        let Some(chunk) = bytes.get(start..stop) else { return Ok(None) };
        body.extend_from_slice(chunk);
        let Some(rest) = bytes.get(stop + 2..) else { return Ok(None) };
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Option<Answer> {
        parse(text.as_bytes(), false).unwrap()
    }

    #[test]
    fn a_body_ends_by_its_length_its_last_chunk_or_the_close() {
        let body = |body: &str| Some(Answer { status: 200, body: body.as_bytes().to_vec() });
        assert_eq!(whole("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), body("ok"));
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), None);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(whole(chunked), body("ok0123456789"));
        for cut in 50..chunked.len() - 4 {
            assert_eq!(whole(&chunked[..cut]), None, "{cut}");
        }
        let open = "HTTP/1.0 200 OK\r\n\r\nok";
        assert_eq!(whole(open), None);
        assert_eq!(parse(open.as_bytes(), true).unwrap(), body("ok"));
    }

    #[test]
    fn tasks_are_asked_as_their_own_health_check_asks() {
        for (host, wanted) in [
            ("tasks.shop_app", "localhost"),
            ("tasks.skep-canary-20260101t000000abcdef-0", "localhost"),
            ("shop_app", "localhost"),
            ("proxy", "proxy"),
            ("www.example.org", "www.example.org"),
            ("127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(called(host), wanted);
        }
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let text = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(whole(text), Some(Answer { status: 503, body: Vec::new() }));
    }

    #[test]
    fn garbage_is_an_error_and_not_a_wait() {
        assert!(parse(b"220 mail ESMTP\r\n\r\n", false).is_err());
        assert!(unchunked(b"zz\r\n").is_err());
        assert!(unchunked(b"ffffffffffffffff\r\nx").is_err());
    }
}
