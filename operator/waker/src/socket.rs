//! TCP sockets: listening, connecting, and seeing that the other side has gone while nothing is read.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// How many connections wait to be accepted; the kernel may allow less.
const BACKLOG: i32 = 4_096;
/// After how long of silence the other side is asked whether it is still there, and how often.
const ALIVE: Duration = Duration::from_secs(60);
/// How often is looked whether a client that has sent more than was read is still there.
const GONE: Duration = Duration::from_millis(200);

/// A connection that can be watched while somebody else reads it.
#[derive(Clone, Debug)]
pub(crate) struct Socket(Arc<TcpStream>);

/// Listens on all addresses: IPv6 and IPv4 together, or IPv4 alone where there is no IPv6.
pub(crate) fn listen(port: u16) -> io::Result<TcpListener> {
    let both = bound(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into());
    match both {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bound(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        both => both,
    }
}

/// Listens on the loopback interface.
pub(crate) fn listen_to_oneself(port: u16) -> io::Result<TcpListener> {
    bound(Domain::IPV4, (Ipv4Addr::LOCALHOST, port).into())
}

fn bound(domain: Domain, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects, or gives up after so long.
pub(crate) async fn connect(to: SocketAddr, longest: Duration) -> io::Result<TcpStream> {
    let stream = timeout(longest, TcpStream::connect(to)).await??;
    prepare(&stream);
    Ok(stream)
}

/// Sends at once, and notices a dead other side. Without either it works, too.
pub(crate) fn prepare(stream: &TcpStream) {
    drop(stream.set_nodelay(true));
    let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE / 4);
    drop(SockRef::from(stream).set_tcp_keepalive(&alive));
}

/// Waits until the other side will send no more, whether what it sent was read or not.
pub(crate) async fn no_more(stream: &TcpStream) {
    loop {
        match stream.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => sleep(GONE).await,
            _ => return,
        }
    }
}

// === impl Socket ===

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Socket {
        Socket(Arc::new(stream))
    }

    /// See [`no_more`].
    pub(crate) async fn no_more(&self) {
        no_more(&self.0).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}
