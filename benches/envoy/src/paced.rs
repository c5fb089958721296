//! An open loop: requests are sent at a fixed rate, whatever became of the earlier ones, and latency counts
//! from when a request was due, so that waiting is included (no coordinated omission).
//!
//! Not oha or wrk2, because bodies rotate through prompts and are new each time in the cold case, and the
//! slices of all cases share one schedule.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::bodies::Source;
use crate::load::{response, send, Taken};
use crate::BoxError;

/// Idle connections.
type Idle = Rc<RefCell<Vec<TcpStream>>>;

/// Loads the listener at `port` for `length` with `rate` requests per second.
pub async fn slice(
    port: u16,
    rate: u64,
    length: Duration,
    source: &mut Source,
) -> Result<Taken, BoxError> {
    let taken = Rc::new(RefCell::new(Taken {
        succeeded: 0,
        failed: 0,
        elapsed: length,
        latency: Histogram::new_with_max(60_000_000, 3)?,
    }));
    let idle = Idle::default();
    let set = LocalSet::new();
    let started = Instant::now();
    set.run_until(async {
        let count = (length.as_secs_f64() * rate as f64) as u64;
        for number in 0..count {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            // The runtime's timers have a resolution of a millisecond.
            while Instant::now() < due {
                tokio::task::yield_now().await;
            }
            let (idle, taken, request) = (idle.clone(), taken.clone(), source.next());
            set.spawn_local(async move {
                let good = one(port, &request, &idle).await.unwrap_or(false);
                let mut taken = taken.borrow_mut();
                let waited = due.elapsed().as_micros() as u64;
                taken.latency.saturating_record(waited);
                *(if good {
                    &mut taken.succeeded
                } else {
                    &mut taken.failed
                }) += 1;
            });
        }
    })
    .await;
    set.await;
    let mut taken = Rc::try_unwrap(taken)
        .map_err(|_| "a request is still under way")?
        .into_inner();
    taken.elapsed = started.elapsed();
    Ok(taken)
}

async fn one(port: u16, request: &[u8], idle: &Idle) -> Result<bool, BoxError> {
    let waiting = idle.borrow_mut().pop();
    let mut stream = match waiting {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    let mut buffer = vec![0; 4 << 10];
    send(&mut stream, request).await?;
    let good = response(&mut stream, &mut buffer).await?;
    idle.borrow_mut().push(stream);
    Ok(good)
}
