//! Many pods on a runtime of their own, for synchronous tests and for the program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::http;
use crate::pod::{Pod, Settings};

/// Running pods; they end with this value.
pub struct Sim {
    runtime: Option<Runtime>,
    pods: Vec<Running>,
}

struct Running {
    pod: Arc<Pod>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
}

impl Sim {
    /// No pods yet.
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

    /// That many pods on free ports.
    pub fn start(count: usize, settings: &Settings) -> io::Result<Self> {
        let mut sim = Self::new()?;
        for _ in 0..count {
            sim.add(0, settings.clone())?;
        }
        Ok(sim)
    }

    /// One more pod, on this port of the loopback interface (0: a free one); its number.
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

    /// A pod; its number counts from 0.
    ///
    /// # Panics
    /// Where there is none of this number: the caller counted wrong.
    #[allow(clippy::expect_used)]
    pub fn pod(&self, number: usize) -> &Arc<Pod> {
        &self.pods.get(number).expect("a pod of this number").pod
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().map(|running| &running.pod)
    }

    /// Where the pods listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.pods.iter().map(|running| running.address).collect()
    }

    /// Takes a pod off the network: connections to it are refused, those that it has are cut.
    pub fn stop(&mut self, number: usize) {
        if let Some(listening) = self
            .pods
            .get_mut(number)
            .and_then(|pod| pod.listening.take())
        {
            listening.abort();
        }
    }

    /// Puts a stopped pod back on its port.
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

    /// The runtime that the pods run on.
    pub fn block_on<F: std::future::Future>(&self, future: F) -> Option<F::Output> {
        Some(self.runtime.as_ref()?.block_on(future))
    }

    fn listen(&self, port: u16, pod: &Arc<Pod>) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let gone = || io::Error::other("the runtime has stopped");
        let runtime = self.runtime.as_ref().ok_or_else(gone)?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let address = listener.local_addr()?;
        let pod = pod.clone();
        let listening = runtime.spawn(async move {
            // Dropped together with this task, and with it every connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                if !pod.faults().refuse {
                    connections.spawn(connection(pod.clone(), stream));
                }
            }
        });
        Ok((address, listening))
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
    // A peer that goes away ends its connection; that is all there is to it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| http::serve(pod.clone(), request));
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}
