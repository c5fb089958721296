//! A way to a port that can be closed: new connections through it are refused then, and those that are
//! open are cut off.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

/// The way.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    port: AtomicU16,
    through: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// A way to nowhere yet.
    pub fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        // Both threads live as long as the suite does, which is short.
        spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whom it cannot take through it drops.
                let _ = inside.pass(stream);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it ends.
    pub fn leads_to(&self, port: u16) {
        self.shared.port.store(port, Ordering::Relaxed);
    }

    /// Nothing passes any more.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        for stream in self.shared.through.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// It is open again.
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
        let mut through = self.through.lock().unwrap();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            through.push(from.try_clone()?);
            spawn(move || {
                // An end is an end, whoever made it.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}
