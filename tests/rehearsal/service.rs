//! The way to the pods: endpoints that lag behind, and connections that go to any of them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::pod::Pod;
use super::spawn;

/// The time from a change of a pod until every node acts on it. In a cluster it is tenths of a second, or seconds if many
/// pods change at once.
const LAG: Duration = Duration::from_secs(1);

/// A Service: it knows connections, not requests, as kube-proxy does. An open connection stays at its pod.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    endpoints: Rc<RefCell<Vec<SocketAddr>>>,
    proxy: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

impl Service {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoints = Rc::<RefCell<Vec<_>>>::default();
        let known = Rc::clone(&endpoints);
        let proxy = spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let pod = fastrand::choice(&*known.borrow()).copied();
                drop(spawn(pass(client, pod)));
            }
        });
        Self { address, endpoints, proxy }
    }

    /// Sends connections to a pod as long as it is known as ready and not terminating.
    pub(super) fn follow(&self, pod: &Pod) {
        let (endpoints, address, mut state) = (Rc::clone(&self.endpoints), pod.api, pod.state.clone());
        drop(spawn(async move {
            let mut ended = false;
            while !ended && state.changed().await.is_ok() {
                let now = *state.borrow_and_update();
                sleep(LAG).await;
                let mut endpoints = endpoints.borrow_mut();
                endpoints.retain(|known| *known != address);
                if now.ready.is_some() && !now.terminating {
                    endpoints.push(address);
                }
                ended = now.ended;
            }
        }));
    }

    /// Returns the number of pods that get connections.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.borrow().len()
    }
}

/// Serves one connection to its end. The client's connection breaks if the pod refuses or breaks its own.
async fn pass(mut client: TcpStream, pod: Option<SocketAddr>) {
    let broken = async {
        let mut server = TcpStream::connect(pod.ok_or(std::io::ErrorKind::ConnectionRefused)?).await?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let passed = copy_bidirectional(&mut client, &mut server).await;
        if passed.is_err() {
            server.set_zero_linger().ok();
        }
        passed
    };
    if broken.await.is_err() {
        client.set_zero_linger().ok();
    }
}
