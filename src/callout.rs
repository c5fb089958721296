//! Callouts, with which Envoy makes the picker's fetches.

use std::borrow::Cow;
use std::ops::Range;

use super::abi::{self, Buffer, Map};
use epp_core::body::{BodyView, OutOfMemory};
use epp_core::picker::FetchError;
use epp_envoy::fetch::{self, Call};

/// Makes a callout, which is given up after this many milliseconds. Returns its token.
pub fn begin(call: &Call<'_>, timeout: u64) -> Result<u32, FetchError> {
    abi::http_call(call.cluster, &call.headers(), timeout).map_err(|status| match status {
        abi::BAD_ARGUMENT => FetchError::WrongCluster,
        _ => FetchError::Unsent,
    })
}

/// The body of the current callout's response.
#[derive(Debug)]
pub struct CalloutBody {
    /// Its length.
    pub size: usize,
}

impl CalloutBody {
    /// Returns an error that says why the response cannot be used. Envoy passes no headers if the stream was reset.
    pub fn check(&mut self, headers: usize) -> Result<(), FetchError> {
        if headers == 0 {
            return Err(FetchError::Reset);
        }
        let status = abi::header(Map::Callout, ":status").ok().flatten();
        fetch::check(&status.unwrap_or_default(), self)
    }
}

impl BodyView for CalloutBody {
    fn available(&self) -> Range<usize> {
        0..self.size
    }

    fn read(&mut self, range: Range<usize>) -> Result<Cow<'_, [u8]>, OutOfMemory> {
        match abi::buffer(Buffer::CalloutBody, range.start, range.len()) {
            Ok(bytes) => Ok(Cow::Owned(bytes.unwrap_or_default())),
            Err(_) => Err(OutOfMemory),
        }
    }

    fn ended(&self) -> bool {
        true
    }
}
