//! A TCP proxy in front of a port. While it is closed, it closes new connections at once; closing it
//! cuts the open ones.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// The proxy.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    port: AtomicU16,
    open: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// Starts a proxy that does not lead to a port yet.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        // Both threads live as long as the suite does, which is short.
        spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that cannot be passed on is dropped.
                let _ = inside.pass(stream);
            }
        });
        Ok(Self { address, shared })
    }

    /// Returns the address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the port of this machine to which it leads.
    pub fn leads_to(&self, port: u16) {
        self.shared.port.store(port, Ordering::Relaxed);
    }

    /// Closes it.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            // The connection may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Opens it again.
    pub fn reopen(&self) {
        self.shared.closed.store(false, Ordering::Relaxed);
    }
}

impl Shared {
    fn pass(&self, near: TcpStream) -> io::Result<()> {
        if self.closed.load(Ordering::Relaxed) {
            return near.shutdown(Shutdown::Both);
        }
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port.load(Ordering::Relaxed)))?;
        let mut open = self.open.lock().unwrap();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            open.push(from.try_clone()?);
            spawn(move || {
                // Whichever side ends, or fails: the other one is closed, too.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}
