//! Request bodies on their way to whoever reads them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use super::shared::Hold;
use crate::grpc;

/// Where a body goes that was not read to its end.
pub(super) type Left<B> = Arc<Mutex<Option<B>>>;

/// A body that comes back if whoever got it drops it unread.
pub(super) struct Lent<B: Body> {
    body: Option<B>,
    left: Left<B>,
}

impl<B: Body> Lent<B> {
    pub fn new(body: B, left: &Left<B>) -> Lent<B> {
        Lent {
            body: Some(body),
            left: Arc::clone(left),
        }
    }
}

impl<B: Body> Drop for Lent<B> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.left.lock() = Some(body);
        }
    }
}

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// Reads on what was left and forgets it, for as long as that is reasonable.
pub(super) async fn forget<B>(left: &Left<B>, limit_bytes: usize, arrival: Duration)
where
    B: Body<Data = Bytes> + Unpin,
{
    let Some(mut body) = left.lock().take() else {
        return;
    };
    let read = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen / 2 > limit_bytes {
                return;
            }
        }
    };
    // Whether it ended or not: the reply is not to wait longer.
    let _ = tokio::time::timeout(arrival.min(Duration::from_secs(2)), read).await;
}

/// A gRPC body whose bytes are counted while it is read.
pub(super) struct Counted<B> {
    pub body: B,
    pub hold: Hold,
}

impl<B> Body for Counted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            if let Some(data) = frame.data_ref() {
                self.hold.more(data.len()).map_err(grpc::status)?;
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
