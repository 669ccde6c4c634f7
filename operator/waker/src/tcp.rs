//! One connection of which nothing is known but its bytes.
//!
//! It is held, and nothing of it read, until the application takes it; there is no page for it. A connection from another
//! task of the service is closed by a waker: a second one can be told from the application by nothing else. A door is no task
//! of the service.

use std::future::pending;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::socket::{self, no_more};
use crate::waker::Accepted;

/// Serves a connection until it ends.
pub(crate) async fn serve(accepted: Accepted) {
    let mut busy = accepted.shared.open.begin();
    if !accepted.shared.rules.any_source(accepted.peer) {
        busy.is_use();
    }
    socket::prepare(&accepted.stream);
    if let Some(mut application) = application(&accepted).await {
        let mut client = accepted.stream;
        // Whatever ends it ends both sides.
        drop(copy_bidirectional(&mut client, &mut application).await);
    }
    drop(busy);
}

/// A connection to the application; none when it is not there in time, or nobody waits for it any more.
async fn application(accepted: &Accepted) -> Option<TcpStream> {
    let Accepted { shared, stream, peer, port, .. } = accepted;
    let gate = &shared.gate;
    let is_up = gate.is_up();
    let is_ignored = shared.rules.any_source(*peer) && (!is_up || shared.task.door.is_some());
    if is_ignored && !is_up && !shared.is_there_anyway().await {
        return None;
    }
    let mut waiting = None;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(shared.task.timeout_s);
    loop {
        let hosts = gate.hosts();
        if shared.task.door.is_none() && hosts.contains(peer) {
            return None;
        }
        for host in shared.in_turn(&hosts) {
            if let Ok(found) =
                socket::connect(shared.upstream.socket(host, *port), shared.settings.connect).await
            {
                gate.reached(true);
                return Some(found);
            }
        }
        if !hosts.is_empty() {
            gate.reached(false);
        }
        if is_ignored {
            shared.is_not_there_either();
            return None;
        }
        waiting.get_or_insert_with(|| gate.wait());
        let next = async {
            if !hosts.is_empty() {
                sleep(shared.settings.look(began.elapsed())).await;
            }
            gate.listed().await;
        };
        let next = std::pin::pin!(timeout_at(deadline, next));
        match select(next, std::pin::pin!(gone(stream))).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(_), _)) | Either::Right(_) => return None,
        }
    }
}

/// Waits until the client has gone. One that has sent something and then said that this was all still waits for an answer.
async fn gone(stream: &TcpStream) {
    no_more(stream).await;
    if stream.peek(&mut [0]).await.is_ok_and(|read| read > 0) {
        pending::<()>().await;
    }
}
