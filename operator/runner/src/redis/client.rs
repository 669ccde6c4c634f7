//! The plain protocol, as far as it is needed.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::job::{Job, read_secret};
use crate::net::resolve;
use crate::task::Connect;

/// Longest wait for a connection or an answer.
const WITHIN: Duration = Duration::from_secs(30);
/// Longest text that is read, in bytes.
const LONGEST: u64 = 64 << 20;

/// What carries the protocol.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// A connection.
pub(super) struct Client(BufReader<Box<dyn Stream>>);

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// Several answers.
    List(Vec<Answer>),
}

/// An answer, or the server's refusal.
pub(super) type Said = std::result::Result<Answer, String>;

// === impl Client ===

impl Client {
    /// Connects over TCP.
    pub(super) fn tcp(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, WITHIN)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        Ok(Client(BufReader::new(Box::new(stream))))
    }

    /// Connects to a socket in the file system.
    pub(super) fn unix(path: &Path) -> io::Result<Client> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_write_timeout(Some(WITHIN))?;
        Ok(Client(BufReader::new(Box::new(stream))))
    }

    /// Connects to the first address of a server that answers, and logs in.
    pub(super) fn open(job: &Job, connect: &Connect) -> Result<Client> {
        let Connect { host, port, user, password_file } = connect;
        let password = password_of(job, password_file.as_deref())?;
        let addresses = resolve(host, *port)
            .map_err(|error| Error::Unready(format!("{host} does not resolve: {error}")))?;
        let mut last = Error::Unready(format!("{host} has no address"));
        for address in addresses {
            match Client::tcp(address) {
                Ok(mut client) => {
                    if let Some(password) = &password {
                        client.ask(&login(user, password))?;
                    }
                    return Ok(client);
                }
                Err(error) => last = away(&error),
            }
        }
        Err(last)
    }

    /// Says a command; a refusal is an error, which passes by itself or not.
    pub(super) fn ask(&mut self, words: &[&str]) -> Result<Answer> {
        match self.say(words).map_err(|error| away(&error))? {
            Ok(answer) => Ok(answer),
            Err(refusal) if is_passing(&refusal) => Err(Error::Unready(format!("redis answered: {refusal}"))),
            Err(refusal) => Err(Error::refused(format!("redis answered: {refusal}"))),
        }
    }

    /// As [`Client::ask`], of a command that answers with a text.
    pub(super) fn text(&mut self, words: &[&str]) -> Result<String> {
        match self.ask(words)? {
            Answer::Text(text) => Ok(text),
            answer => Err(Error::refused(format!("redis answered {} with {answer:?}", words.join(" ")))),
        }
    }

    /// The value of a setting, none where this server has no such setting.
    pub(super) fn setting(&mut self, name: &str) -> Result<Option<String>> {
        match self.ask(&["CONFIG", "GET", name])? {
            Answer::List(pair) => match pair.as_slice() {
                [_, Answer::Text(value)] => Ok(Some(value.clone())),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The values of a section of INFO.
    pub(super) fn info(&mut self, section: &str) -> Result<Vec<(String, String)>> {
        let text = self.text(&["INFO", section])?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// Number of keys in all databases.
    pub(super) fn keys(&mut self) -> Result<u64> {
        let count = |value: &str| value.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok();
        Ok(self.info("keyspace")?.iter().filter_map(|(_, value)| count(value)).sum())
    }

    /// Says a command.
    pub(super) fn say(&mut self, words: &[&str]) -> io::Result<Said> {
        self.0.get_mut().write_all(&command(words))?;
        self.0.get_mut().flush()?;
        self.answer(0)
    }

    fn answer(&mut self, depth: u32) -> io::Result<Said> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let number =
            || line.get(1..).and_then(|text| text.parse::<i64>().ok()).ok_or(io::ErrorKind::InvalidData);
        Ok(Ok(match line.as_bytes().first() {
            Some(b'+') => Answer::Text(line[1..].to_owned()),
            Some(b'-') => return Ok(Err(line[1..].to_owned())),
            Some(b':') => Answer::Number(number()?),
            Some(b'$') => match u64::try_from(number()?) {
                Ok(length) if length <= LONGEST => Answer::Text(self.bulk(length)?),
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(_) => Answer::Nil,
            },
            Some(b'*') if depth < 8 => {
                let mut list = Vec::new();
                for _ in 0..number()? {
                    match self.answer(depth + 1)? {
                        Ok(answer) => list.push(answer),
                        Err(refusal) => list.push(Answer::Text(refusal)),
                    }
                }
                Answer::List(list)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }))
    }

    fn bulk(&mut self, length: u64) -> io::Result<String> {
        let mut bytes = vec![0; length as usize + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length as usize);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The password of a login, which from here on no line shows.
pub(super) fn password_of(job: &Job, file: Option<&str>) -> Result<Option<String>> {
    let password = match file {
        Some(conf) if conf.ends_with(crate::REDIS_CONF) => required(conf)?,
        file => file.map(read_secret).transpose()?,
    };
    if let Some(password) = &password {
        job.out.keep_back(password);
    }
    Ok(password)
}

/// The password that a configuration file sets. One that is not in this container, or sets none, leaves the server to say
/// that it wants one.
fn required(conf: &str) -> Result<Option<String>> {
    let text = match std::fs::read_to_string(conf) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(Error::io(format!("cannot read {conf}")))?,
    };
    Ok(set_in(&text))
}

/// The last line counts, as for the server.
fn set_in(conf: &str) -> Option<String> {
    let value = |line: &str| {
        let (name, value) = line.trim().split_once(char::is_whitespace)?;
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q));
        name.eq_ignore_ascii_case("requirepass").then(|| quoted.unwrap_or(value).to_owned())
    };
    conf.lines().filter_map(value).next_back().filter(|password| !password.is_empty())
}

/// The command that logs in; servers before 6 know no users.
pub(super) fn login<'a>(user: &'a str, password: &'a str) -> Vec<&'a str> {
    if user.is_empty() { vec!["AUTH", password] } else { vec!["AUTH", user, password] }
}

/// States that a server leaves by itself.
pub(super) fn is_passing(refusal: &str) -> bool {
    ["LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN"].iter().any(|state| refusal.starts_with(state))
}

fn away(error: &io::Error) -> Error {
    Error::Unready(format!("redis cannot be reached: {error}"))
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
    fn a_configuration_sets_the_password_in_its_last_line_of_that_name() {
        let conf =
            "# requirepass no\nport 6379\nrequirepass first\nRequirePass \"the last\"\nmasterauth other\n";
        assert_eq!(set_in(conf).as_deref(), Some("the last"));
        assert_eq!(set_in("port 6379\nrequirepass \"\"\n"), None);
    }

    #[test]
    fn words_travel_with_their_length_in_bytes() {
        assert_eq!(command(&["AUTH", "pä ss"]), "*2\r\n$4\r\nAUTH\r\n$6\r\npä ss\r\n".as_bytes());
    }
}
