//! WebSockets (RFC 6455), as far as one that sends everything back needs them: whole frames, no extension.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a server adds to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest frame that is taken.
const LONGEST: u64 = 1 << 20;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: u8,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What a server answers to a client's key.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{GUID}")))
}

/// Sends every message back, until the client closes or is gone.
///
/// # Errors
/// When the connection breaks, or what comes is no frame.
pub async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let frame = read(&mut stream).await?;
        let is_last = frame.opcode == CLOSE;
        let opcode = if frame.opcode == PING { PONG } else { frame.opcode };
        write(&mut stream, &Frame { opcode, ..frame }).await?;
        if is_last {
            return stream.shutdown().await;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let (first, second) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = match second & !MASKED {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    if first & FINAL == 0 || second & MASKED == 0 || length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no whole frame of a client"));
    }
    let mask = stream.read_u32().await?.to_be_bytes();
    let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut payload).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Frame { opcode: first & 0xF, payload })
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = vec![FINAL | frame.opcode];
    let length = frame.payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => bytes.push(short),
        (_, Ok(medium)) => {
            bytes.push(126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(&frame.payload);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.3.
    #[test]
    fn a_key_is_accepted_as_the_standard_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// The masked message of RFC 6455, 5.7, a ping, and a goodbye.
    #[tokio::test]
    async fn what_comes_goes_back_and_a_ping_is_answered() {
        let (mut client, server) = tokio::io::duplex(1_024);
        let echoing = tokio::spawn(echo(server));
        client.write_all(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]).await.unwrap();
        client.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'?', 0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x81\x05Hello\x8a\x01?\x88\x00");
        echoing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn long_messages_go_back_whole() {
        for length in [125_usize, 126, 65_535, 65_536] {
            let (mut client, server) = tokio::io::duplex(1 << 18);
            tokio::spawn(echo(server));
            let mut sent = vec![0x82, 0xff];
            sent.extend((length as u64).to_be_bytes());
            sent.extend([0; 4]);
            sent.extend(vec![7; length]);
            client.write_all(&sent).await.unwrap();
            let head = if length < 126 {
                2
            } else if length < 65_536 {
                4
            } else {
                10
            };
            let mut all = vec![0; head + length];
            client.read_exact(&mut all).await.unwrap();
            assert!(all[head..].iter().all(|b| *b == 7), "{length}");
        }
    }
}
