//! Pods on a runtime of their own, for synchronous tests and for the program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::http;
use crate::pod::{Pod, Settings};

/// Running pods. Dropping the value stops them.
pub struct Sim {
    runtime: Option<Runtime>,
    pods: Vec<Running>,
}

struct Running {
    pod: Arc<Pod>,
    address: SocketAddr,
    listening: Option<Listening>,
}

/// An open port and its connections.
struct Listening {
    /// Once this is dropped, the task closes all of them and ends.
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sim {
    /// Creates a simulation without pods.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            pods: Vec::new(),
        })
    }

    /// Starts this many pods on free ports.
    pub fn start(count: usize, settings: &Settings) -> io::Result<Self> {
        let mut sim = Self::new()?;
        for _ in 0..count {
            sim.add(0, settings.clone())?;
        }
        Ok(sim)
    }

    /// Starts another pod on a port of the loopback interface, 0 for a free one. Returns its number.
    pub fn add(&mut self, port: u16, settings: Settings) -> io::Result<usize> {
        let number = self.pods.len();
        let pod = Arc::new(Pod::new(format!("pod-{}", number + 1), settings));
        let (address, listening) = self.listen(port, &pod)?;
        self.pods.push(Running {
            pod,
            address,
            listening: Some(listening),
        });
        Ok(number)
    }

    /// Returns a pod by its number, from 0.
    ///
    /// # Panics
    /// Panics if no pod has this number.
    #[allow(clippy::expect_used)]
    pub fn pod(&self, number: usize) -> &Arc<Pod> {
        &self.pods.get(number).expect("a pod of this number").pod
    }

    /// Returns all pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().map(|running| &running.pod)
    }

    /// Returns the addresses on which the pods listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|running| running.address).collect()
    }

    /// Closes a pod's port and cuts its connections. Once this returns the pod serves nothing.
    pub fn stop(&mut self, number: usize) {
        let running = self.pods.get_mut(number);
        if let Some(Listening { end, task }) = running.and_then(|pod| pod.listening.take()) {
            drop(end);
            let _: Option<Result<(), JoinError>> = self.block_on(task);
        }
    }

    /// Opens a stopped pod's port again.
    pub fn restart(&mut self, number: usize) -> io::Result<()> {
        self.stop(number);
        let Some((pod, port)) = self
            .pods
            .get(number)
            .map(|running| (running.pod.clone(), running.address.port()))
        else {
            return Ok(());
        };
        let (_, listening) = self.listen(port, &pod)?;
        if let Some(running) = self.pods.get_mut(number) {
            running.listening = Some(listening);
        }
        Ok(())
    }

    /// Runs a future on the pods' runtime. Returns `None` if that has stopped.
    pub fn block_on<F: std::future::Future>(&self, future: F) -> Option<F::Output> {
        Some(self.runtime.as_ref()?.block_on(future))
    }

    fn listen(&self, port: u16, pod: &Arc<Pod>) -> io::Result<(SocketAddr, Listening)> {
        let gone = || io::Error::other("the runtime has stopped");
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let address = listener.local_addr()?;
        let pod = pod.clone();
        let (end, mut ended) = oneshot::channel::<()>();
        let task = runtime.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = &mut ended => break,
                };
                let Ok((stream, _)) = accepted else {
                    break;
                };
                while connections.try_join_next().is_some() {}
                if !pod.faults().refuse {
                    connections.spawn(connection(pod.clone(), stream));
                }
            }
            drop(listener);
            connections.shutdown().await;
        });
        Ok((address, Listening { end, task }))
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn connection(pod: Arc<Pod>, stream: TcpStream) {
    // An error means that the peer has disconnected.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| http::serve(pod.clone(), request));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}
