//! Whether the operator in this container is ready: for the health check of its service, without any other program.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Exit;
use super::out::Out;

/// Longest time for the answer: shorter than a health check's usual 5 s or more.
const DEADLINE: Duration = Duration::from_secs(4);

/// `healthcheck`
#[derive(Clone, Debug, clap::Args)]
pub struct HealthArgs {
    /// Address on which the operator listens; its port counts.
    #[arg(long, env = "SKEP_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9180")]
    pub listen: std::net::SocketAddr,
}

/// `skep healthcheck`
pub(super) async fn healthcheck(out: &Out, args: &HealthArgs) -> Exit {
    told(out, ask(args.listen.port(), "/readyz").await)
}

/// What `path` answers on a port of this container: the status and the text, or why there is none.
pub(super) async fn ask(port: u16, path: &str) -> Result<(StatusCode, String), String> {
    let answer = match timeout(DEADLINE, get(port, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    };
    answer.map_err(|why| format!("127.0.0.1:{port} does not answer: {why}"))
}

/// Tells the answer, and whether it was a good one.
pub(super) fn told(out: &Out, answer: Result<(StatusCode, String), String>) -> Exit {
    match answer {
        Ok((StatusCode::OK, text)) => {
            out.say(text.trim_end());
            Exit::Fine
        }
        Ok((status, text)) => {
            out.aside(format!("{}: {}", status.as_u16(), text.trim_end()));
            Exit::Failed
        }
        Err(why) => {
            out.aside(format!("skep: {why}"));
            Exit::Failed
        }
    }
}

async fn get(port: u16, path: &str) -> Result<(StatusCode, String), String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // What goes wrong with the connection is seen by the request.
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path).header("host", "127.0.0.1").body(Empty::<Bytes>::new());
    let response =
        sender.send_request(request.map_err(|e| e.to_string())?).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
