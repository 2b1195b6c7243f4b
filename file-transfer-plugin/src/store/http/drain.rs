//! A refusal that the client gets to see.
//!
//! Where the rest of a body is not read, the connection is closed with bytes in it, and the kernel of the client throws away
//! the answer with them: a client would see a reset where it was told that its token has expired. So the rest of what is not
//! too long is read, and forgotten.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::Service;
use crate::workers::lock;

/// No more than this is read in vain. A chunk is not longer.
const MOST: usize = 5 << 20;

/// A body that somebody else will read to its end.
struct Lent(Arc<Mutex<Body>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(context)
    }
}

/// Lets the rest of the stack answer, then reads what it left.
pub(super) async fn drain(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response {
    let (head, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(Arc::clone(&body)));
    let response = next.run(Request::from_parts(head, lent)).await;
    let _ = timeout(service.bodies.patience, rest(Lent(body))).await;
    response
}

async fn rest(mut body: Lent) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MOST {
            return;
        }
    }
}
