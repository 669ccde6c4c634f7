//! Emptying a cache: one database.

use std::io;
use std::net::SocketAddr;

use super::client::{Client, Said, is_passing, login, password_of};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::net::resolve;
use crate::task::{Connect, RedisFlush, Report};

/// Flushes every address that the host name has. A replica refuses and follows its primary.
pub(crate) fn flush(job: &Job, task: &RedisFlush) -> Result<Report> {
    let Connect { host, port, user, password_file } = &task.connect;
    let password = password_of(job, password_file.as_deref())?;
    let addresses =
        resolve(host, *port).map_err(|error| Error::Unready(format!("{host} does not resolve: {error}")))?;
    let mut flushed = 0;
    for address in &addresses {
        let login = password.as_deref().map(|password| login(user, password));
        let answer = flush_one(*address, login.as_deref())
            .map_err(|error| Error::Unready(format!("redis at {address} cannot be reached: {error}")))?;
        match answer {
            Ok(_) => flushed += 1,
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

/// The inner result is the server's refusal.
fn flush_one(address: SocketAddr, login: Option<&[&str]>) -> io::Result<Said> {
    let mut client = Client::tcp(address)?;
    if let Some(login) = login
        && let Err(refusal) = client.say(login)?
    {
        return Ok(Err(refusal));
    }
    client.say(&["FLUSHDB"])
}
