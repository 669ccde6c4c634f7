//! An engine behind ssh: each connection is `ssh … docker system dial-stdio`, as the docker command does it.

use std::io;
use std::process::Stdio;

use tokio::io::{AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::process::Command;

use crate::swarm::transport::Endpoint;

/// Bytes in flight in either direction.
const BUFFER: usize = 64 * 1024;

/// Where to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

// === impl Destination ===

impl Destination {
    /// Reads `ssh://[user@]host[:port]`; none for anything else.
    pub(super) fn parse(url: &str) -> Option<Destination> {
        let rest = url.strip_prefix("ssh://")?.trim_end_matches('/');
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(u, r)| (Some(u.to_owned()), r));
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (rest, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // What begins with a dash would be an option of ssh.
        let fine = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains('/');
        let sound = fine(host) && user.as_deref().is_none_or(fine);
        sound.then(|| Destination { user, host: host.to_owned(), port })
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["-T", "-o", "ConnectTimeout=30"].map(str::to_owned).into();
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--", &self.host, "docker", "system", "dial-stdio"].map(str::to_owned));
        arguments
    }
}

/// The engine at a destination.
pub(super) fn endpoint(destination: Destination) -> Endpoint {
    Endpoint::in_process(move || {
        let destination = destination.clone();
        async move { dial("ssh", &destination.arguments()) }
    })
}

/// Runs a program whose standard input and output are the stream.
fn dial(program: &str, arguments: &[String]) -> io::Result<DuplexStream> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("{program} cannot be run: {e}")))?;
    let pipes = child.stdout.take().zip(child.stdin.take());
    let (mut stdout, mut stdin) = pipes.ok_or_else(|| io::Error::other("its pipes are missing"))?;
    let (near, far) = duplex(BUFFER);
    let (mut from, mut to) = split(far);
    tokio::spawn(async move {
        let up = async {
            drop(copy(&mut from, &mut stdin).await);
            // Only closing the pipe tells the program that nothing more comes.
            drop(stdin);
            std::future::pending::<()>().await;
        };
        // Whoever reads the near end sees the stream end; the program says on stderr what is wrong.
        tokio::select! {
            _ = copy(&mut stdout, &mut to) => {}
            () = up => {}
        }
        drop(to.shutdown().await);
        drop(child);
    });
    Ok(near)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn destinations_are_read_as_the_docker_command_reads_them() {
        let full = Destination::parse("ssh://ann@host.example:2222").unwrap();
        assert_eq!(
            full.arguments(),
            [
                "-T",
                "-o",
                "ConnectTimeout=30",
                "-l",
                "ann",
                "-p",
                "2222",
                "--",
                "host.example",
                "docker",
                "system",
                "dial-stdio"
            ]
        );
        let v6 = Destination::parse("ssh://[fd00::1]").unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("fd00::1", None));
        for bad in
            ["ssh://", "ssh://-oProxyCommand=x", "ssh://host:port", "ssh://-l@host", "ssh://h/x", "tcp://h"]
        {
            assert_eq!(Destination::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_seen() {
        let mut stream = dial("cat", &[]).unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let error = dial("no-such-ssh", &[]).unwrap_err();
        assert!(error.to_string().contains("no-such-ssh cannot be run"), "{error}");
    }
}
