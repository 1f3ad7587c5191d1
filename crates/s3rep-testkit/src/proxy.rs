//! A TCP proxy that breaks connections the way networks and servers do, switchable while it runs.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What happens to connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    #[default]
    None,
    /// Bytes pass, each piece after a pause.
    Delay(Duration),
    /// After so many bytes from the client in all, that connection is cut: the server got only these.
    CutRequest(u64),
    /// After so many bytes from the server in all, that connection is cut: the server did what it was asked, and
    /// the client got only these bytes of the answer.
    CutAnswer(u64),
    /// New connections are closed at once.
    Refuse,
    /// Bytes of the client are taken and go nowhere.
    BlackHole,
    /// What a client sends is answered by `503 Service Unavailable` with S3's code `SlowDown`; the
    /// server sees nothing of it.
    Overloaded,
}

/// A proxy in front of a server. It ends when it is dropped.
///
/// A fault with [`Proxy::fault_times`] is over after so many connections or requests met it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Old connections end when the fault changes, so that pooled ones cannot hide from it.
    changed: watch::Sender<u64>,
    connections: AtomicU64,
    met: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    times: u64,
}

impl Proxy {
    /// A proxy on a free port of the loopback interface, for the server at `host:port`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(server: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            met: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, server.to_owned(), shared.clone()));
        Ok(Self { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this happens, until the next call. Connections that are open are closed.
    pub fn fault(&self, fault: Fault) {
        self.fault_times(fault, u64::MAX);
    }

    /// As [`Proxy::fault`], and after so many times nothing more happens.
    pub fn fault_times(&self, fault: Fault, times: u64) {
        *self.shared.state() = State { fault, times };
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// Connections that came in.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How often a fault was met.
    pub fn met(&self) -> u64 {
        self.shared.met.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> Fault {
        let state = self.state();
        if state.times == 0 { Fault::None } else { state.fault.clone() }
    }

    /// Uses the fault up once; false when it was over.
    fn meet(&self) -> bool {
        let mut state = self.state();
        let is_there = state.times > 0;
        state.times = state.times.saturating_sub(u64::from(state.times != u64::MAX));
        if is_there {
            self.met.fetch_add(1, Ordering::Relaxed);
        }
        is_there
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (server, shared) = (server.clone(), shared.clone());
        tokio::spawn(async move {
            let mut changed = shared.changed.subscribe();
            tokio::select! {
                _ = pass(client, &server, &shared) => {}
                _ = changed.changed() => {}
            }
        });
    }
}

async fn pass(mut client: TcpStream, server: &str, shared: &Shared) -> std::io::Result<()> {
    if shared.fault() == Fault::Refuse && shared.meet() {
        return Ok(());
    }
    let mut server = TcpStream::connect(server).await?;
    let (mut up, mut down) = (Direction::default(), Direction::default());
    // Whichever side ends, the connection does: HTTP has no half of one.
    loop {
        let flow = tokio::select! {
            read = client.read(&mut up.buffer) => up.request(read?, &mut client, &mut server, shared).await?,
            read = server.read(&mut down.buffer) => down.answer(read?, &mut client, shared).await?,
        };
        if flow == Flow::Cut {
            return Ok(());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Cut,
}

/// One direction of a connection.
struct Direction {
    buffer: Vec<u8>,
    passed: u64,
}

impl Default for Direction {
    fn default() -> Self {
        Self { buffer: vec![0; 16 * 1024], passed: 0 }
    }
}

impl Direction {
    async fn request(
        &mut self,
        read: usize,
        client: &mut TcpStream,
        server: &mut TcpStream,
        shared: &Shared,
    ) -> std::io::Result<Flow> {
        match shared.fault() {
            Fault::CutRequest(after) => self.cut(read, after, server, shared).await,
            Fault::BlackHole if read > 0 && shared.meet() => loop {
                if client.read(&mut self.buffer).await? == 0 {
                    return Ok(Flow::Cut);
                }
            },
            Fault::Overloaded if read > 0 && shared.meet() => {
                client.write_all(SLOW_DOWN).await?;
                client.shutdown().await?;
                // Closing with bytes unread would take the answer back.
                while client.read(&mut self.buffer).await? > 0 {}
                Ok(Flow::Cut)
            }
            fault => self.pass(read, server, &fault).await,
        }
    }

    async fn answer(
        &mut self,
        read: usize,
        client: &mut TcpStream,
        shared: &Shared,
    ) -> std::io::Result<Flow> {
        match shared.fault() {
            Fault::CutAnswer(after) => self.cut(read, after, client, shared).await,
            fault => self.pass(read, client, &fault).await,
        }
    }

    async fn cut(
        &mut self,
        read: usize,
        after: u64,
        to: &mut TcpStream,
        shared: &Shared,
    ) -> std::io::Result<Flow> {
        let left = usize::try_from(after.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        if read > left && shared.meet() {
            to.write_all(&self.buffer[..left]).await?;
            return Ok(Flow::Cut);
        }
        self.pass(read, to, &Fault::None).await
    }

    async fn pass(&mut self, read: usize, to: &mut TcpStream, fault: &Fault) -> std::io::Result<Flow> {
        if read == 0 {
            return Ok(Flow::Cut);
        }
        if let Fault::Delay(pause) = fault {
            tokio::time::sleep(*pause).await;
        }
        self.passed += read as u64;
        to.write_all(&self.buffer[..read]).await?;
        Ok(Flow::Go)
    }
}

const SLOW_DOWN: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n\
    Content-Length: 90\r\nConnection: close\r\n\r\n\
    <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>   ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = String::from_utf8_lossy(SLOW_DOWN);
        assert_eq!(text.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(90));
    }
}
