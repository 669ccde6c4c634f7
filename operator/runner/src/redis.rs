//! Emptying a Redis (or Valkey) cache: one database, by the plain protocol.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use skep_runner::task::{Connect, RedisFlush, Report};

use crate::error::{Error, Result};
use crate::job::{Job, read_secret};
use crate::net::resolve;

/// Longest wait for a connection or an answer.
const WITHIN: Duration = Duration::from_secs(30);

/// Flushes every address that the host name has. A replica refuses and follows its primary.
pub(crate) fn flush(job: &Job, task: &RedisFlush) -> Result<Report> {
    let Connect { host, port, user, password_file } = &task.connect;
    let password = password_file.as_deref().map(read_secret).transpose()?;
    if let Some(password) = &password {
        job.out.keep_back(password);
    }
    let addresses =
        resolve(host, *port).map_err(|error| Error::Unready(format!("{host} does not resolve: {error}")))?;
    let mut flushed = 0;
    for address in &addresses {
        let login = password.as_deref().map(|password| (user.as_str(), password));
        let answer = flush_one(*address, login)
            .map_err(|error| Error::Unready(format!("redis at {address} cannot be reached: {error}")))?;
        match answer {
            Ok(()) => flushed += 1,
            Err(refusal) if refusal.starts_with("READONLY") => {}
            Err(refusal) if is_passing(&refusal) => {
                return Err(Error::Unready(format!("redis at {address}: {refusal}")));
            }
            Err(refusal) => return Err(Error::refused(format!("redis at {address}: {refusal}"))),
        }
    }
    match flushed {
        0 => Err(Error::Unready(format!("{host} has no redis that takes writes"))),
        _ => Ok(Report::Done),
    }
}

/// States that a server leaves by itself.
fn is_passing(refusal: &str) -> bool {
    ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"].iter().any(|state| refusal.starts_with(state))
}

/// The inner result is the server's refusal.
fn flush_one(
    address: SocketAddr,
    login: Option<(&str, &str)>,
) -> io::Result<std::result::Result<(), String>> {
    let stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    let mut stream = BufReader::new(stream);
    match login {
        Some(("", password)) => say(&mut stream, &["AUTH", password])?,
        Some((user, password)) => say(&mut stream, &["AUTH", user, password])?,
        None => Ok(()),
    }
    .map_or_else(|refusal| Ok(Err(refusal)), |()| say(&mut stream, &["FLUSHDB"]))
}

fn say(stream: &mut BufReader<TcpStream>, words: &[&str]) -> io::Result<std::result::Result<(), String>> {
    stream.get_mut().write_all(&command(words))?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(match line.trim_end() {
        "+OK" => Ok(()),
        "" => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        refusal => Err(refusal.trim_start_matches('-').to_owned()),
    })
}

/// An array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_travel_with_their_length_in_bytes() {
        assert_eq!(command(&["AUTH", "pä ss"]), "*2\r\n$4\r\nAUTH\r\n$6\r\npä ss\r\n".as_bytes());
    }
}
