//! The server.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::fault::{Faults, Kind};

/// Who may use it.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Access key id.
    pub id: String,
    /// Secret access key.
    pub secret: String,
}

/// A running server; it ends when this is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What goes wrong.
    pub faults: Faults,
    task: JoinHandle<()>,
}

/// The connection is to end here.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves the directories of `root` as buckets.
///
/// # Errors
/// When the directory or the address cannot be used.
pub async fn serve(root: &Path, keys: &Keys, address: SocketAddr, faults: Faults) -> io::Result<Server> {
    let files = FileSystem::new(root).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(keys.id.clone(), keys.secret.clone()));
    let service = builder.build();
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let struck = faults.clone();
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (service, faults) = (service.clone(), struck.clone());
            tokio::spawn(async move {
                let act = service_fn(|request| answer(service.clone(), faults.clone(), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), act);
                // Whoever cut it knows.
                drop(connection.await);
            });
        }
    });
    Ok(Server { address, faults, task })
}

async fn answer(
    service: S3Service,
    faults: Faults,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let kind = faults.strike(request.method(), request.uri().query().unwrap_or_default());
    match kind {
        Some(Kind::Status(status)) => {
            // What was sent is read, so that the sender hears the answer.
            drop(request.into_body().collect().await);
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            return Ok(answer);
        }
        Some(Kind::Hang) => std::future::pending().await,
        Some(Kind::CutRequest) => {
            let mut body = request.into_body();
            let mut read = 0;
            while read < 1 << 20 {
                match body.frame().await {
                    Some(Ok(frame)) => read += frame.into_data().map_or(0, |d| d.len()),
                    _ => break,
                }
            }
            return Err(Cut);
        }
        Some(Kind::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Kind::CutAnswer | Kind::Flip) | None => {}
    }
    let answer = service.call(request.map(Body::from)).await.map_err(|_| Cut)?;
    match kind {
        Some(Kind::CutAnswer) => cut(answer).await,
        Some(Kind::Flip) => flipped(answer).await,
        _ => Ok(answer),
    }
}

/// Half of the answer, under the length of all of it.
async fn cut(answer: Response<Body>) -> Result<Response<Body>, Cut> {
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let half = bytes.slice(..bytes.len() / 2);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Cut>>(2);
    tokio::spawn(async move {
        drop(sender.send(Ok(Frame::data(half))).await);
        // Let it go out before the end of the connection.
        tokio::task::yield_now().await;
        drop(sender.send(Err(Cut)).await);
    });
    let stream = StreamBody::new(ReceiverStream::new(receiver));
    Ok(Response::from_parts(head, Body::http_body_unsync(stream)))
}

async fn flipped(answer: Response<Body>) -> Result<Response<Body>, Cut> {
    let (head, body) = answer.into_parts();
    let mut bytes = body.collect().await.map_err(|_| Cut)?.to_bytes().to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    let body = Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {});
    Ok(Response::from_parts(head, Body::http_body_unsync(body)))
}
