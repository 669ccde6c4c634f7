//! Bodies, a frame at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::open::Busy;
use crate::pool::Lent;

/// Of a request to the application; absent where the request never had one, so that it can be sent again.
#[derive(Debug)]
pub(crate) struct Upload(pub(crate) Option<Incoming>);

/// Of a response to the client.
#[derive(Debug)]
pub(crate) enum Body {
    /// The waker's own.
    Own(Full<Bytes>),
    /// The application's.
    Passed(Box<Passed>),
}

/// What the application answers. The connection is given back when all of it has come.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) body: Incoming,
    pub(crate) lent: Option<Lent>,
    /// Dropped with the body: until then the request is open.
    pub(crate) _busy: Option<Busy>,
}

// === impl Upload ===

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

// === impl Body ===

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Body::Own(own) => Pin::new(own).poll_frame(cx).map_err(|never| match never {}),
            Body::Passed(passed) => {
                let frame = Pin::new(&mut passed.body).poll_frame(cx);
                if matches!(frame, Poll::Ready(None)) || passed.body.is_end_stream() {
                    passed.end();
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Own(own) => own.is_end_stream(),
            Body::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Own(own) => own.size_hint(),
            Body::Passed(passed) => passed.body.size_hint(),
        }
    }
}

// === impl Passed ===

impl Passed {
    /// All of it has come.
    pub(crate) fn end(&mut self) {
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}
