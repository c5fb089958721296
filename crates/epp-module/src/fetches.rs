//! What pickers fetch, by callouts from a configuration. All on the main thread.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::abi::{CalloutRefused, Config};
use super::body::Body;
use super::guard::{self, lock, lock_soon, Callback};
use super::pool::Pool;
use super::seat::Seat;
use epp_core::picker::{Fetch, FetchError, FetchId};
use epp_envoy::fetch::{self, Call};

/// A callout under way.
#[derive(Debug)]
pub struct Callout {
    /// Whose picker waits for it.
    worker: usize,
    id: FetchId,
    fetch: Fetch,
}

/// A response to a callout.
#[derive(Debug)]
pub struct Response<'a> {
    /// Its status.
    pub status: &'a [u8],
    /// Its body.
    pub body: Body<'a>,
}

impl Pool {
    /// Begins the fetches that wait, as callouts of the configuration of this number.
    pub fn begin_fetches(&self, config: &Config, number: u64) {
        for (worker, seat) in self.seats.iter().enumerate() {
            // What one waits for that is stuck, or busy, is begun another time.
            let Some(mut waiting) = lock_soon(seat) else {
                continue;
            };
            let orders = waiting.orders();
            drop(waiting);
            for (id, fetch, timeout) in orders {
                let callout = Callout { worker, id, fetch };
                match begin(config, seat, &callout.fetch, timeout) {
                    Ok(call) => {
                        lock(&self.callouts).insert((number, call), callout);
                    }
                    Err(error) => self.end(&callout, Err(error)),
                }
            }
        }
    }

    /// A callout of the configuration of this number has ended, with a response if there is one.
    pub fn called_back(&self, number: u64, call: u64, response: Result<Response<'_>, FetchError>) {
        let callout = lock(&self.callouts).remove(&(number, call));
        if let Some(callout) = callout {
            self.end(&callout, response);
        }
    }

    /// The callouts of the configuration of this number end with it.
    pub fn fail_callouts(&self, number: u64) {
        let mut callouts = lock(&self.callouts);
        let all = std::mem::take(&mut *callouts).into_iter();
        let (ended, others): (HashMap<_, _>, HashMap<_, _>) =
            all.partition(|((configuration, _), _)| *configuration == number);
        *callouts = others;
        drop(callouts);
        for callout in ended.values() {
            self.end(callout, Err(FetchError::Reset));
        }
    }

    fn end(&self, callout: &Callout, response: Result<Response<'_>, FetchError>) {
        let Some(seat) = self.seats.get(callout.worker) else {
            return;
        };
        let mut seat = lock(seat);
        let handed = guard::catch(|| hand(&mut seat, callout, response));
        if handed.is_none() {
            seat.count_panic(Callback::CalloutResponse);
        }
    }
}

/// Makes a callout. Returns its number.
fn begin(
    config: &Config,
    seat: &Mutex<Seat>,
    fetch: &Fetch,
    timeout: Duration,
) -> Result<u64, FetchError> {
    let seat = lock(seat);
    let call = Call::new(seat.picker.plan(), fetch)?;
    let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let begun = config.call(call.cluster, &call.headers(), timeout);
    begun.map_err(|refused| match refused {
        CalloutRefused::NoCluster => FetchError::WrongCluster,
        CalloutRefused::Other => FetchError::Unsent,
    })
}

/// Hands the result of a callout to the picker that waits for it.
fn hand(seat: &mut Seat, callout: &Callout, response: Result<Response<'_>, FetchError>) {
    #[cfg(any(test, feature = "fault-injection"))]
    super::fault::inject(Callback::CalloutResponse.name(), super::fault::ANYWHERE);
    let now = seat.read_clock();
    let mut body = Body::default();
    let checked = response.and_then(|response| {
        body = response.body;
        fetch::check(response.status, &mut body)
    });
    let plan = seat.picker.plan();
    let result = checked.and_then(|()| fetch::fetched(plan, &callout.fetch, &mut body));
    seat.picker.fetched(now, callout.id, result);
    seat.settle();
}
