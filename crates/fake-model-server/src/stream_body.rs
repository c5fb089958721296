//! A body that is sent piece by piece.
//!
//! `http_body_util::channel` has the same shape, but loses frames: it looks for a frame and then for an
//! error, and the sender's end counts as the error's. Where a last frame and the end come between the two
//! looks, the body ends without that frame (version 0.1.5). Here frames, errors and the end come through one
//! queue, in their order.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// The sender of the body's frames, or of an error that breaks it off. The body ends when this is dropped.
pub type FrameSender<E> = mpsc::Sender<Result<Frame<Bytes>, E>>;

/// The body.
#[derive(Debug)]
pub struct StreamBody<E>(mpsc::Receiver<Result<Frame<Bytes>, E>>);

impl<E> StreamBody<E> {
    /// Returns a body and its sender, which waits while this many frames have not been taken.
    pub fn new(frames: usize) -> (FrameSender<E>, Self) {
        let (sender, receiver) = mpsc::channel(frames);
        (sender, Self(receiver))
    }
}

impl<E> Body for StreamBody<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn frames_an_error_and_the_end_come_in_their_order() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let (sender, mut body) = StreamBody::new(2);
            let frame = Frame::data(Bytes::from_static(b"x"));
            sender.send(Ok(frame)).await.unwrap();
            sender.send(Err("broken off")).await.unwrap();
            drop(sender);
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "x");
            assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken off");
            assert!(body.frame().await.is_none());
        });
    }
}
