//! A network that cuts, resets and stalls, at random from a seed: a TCP proxy before a real server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::random::Random;

/// How bad it is. Every connection breaks sooner or later.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// It carries fewer bytes than this, in both directions together.
    pub within: u64,
    /// A connection that stalls carries nothing for so long before it breaks.
    pub stall: Duration,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It ends as if the other end had closed it.
    Cut(u64),
    /// It ends with a reset: what is on its way is lost.
    Reset(u64),
    /// Nothing moves any more, then it is reset.
    Stall(u64, Duration),
}

/// The proxy; it ends with the test's runtime.
pub struct Flaky {
    pub address: SocketAddr,
    broken: Arc<AtomicUsize>,
}

impl Flaky {
    pub async fn before(server: SocketAddr, trouble: Trouble, mut random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let broken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&broken);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let fate = fate(&mut random, trouble);
                tokio::spawn(pass(client, server, fate, Arc::clone(&counted)));
            }
        });
        Self { address, broken }
    }

    /// Connections that have broken.
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }
}

fn fate(random: &mut Random, trouble: Trouble) -> Fate {
    let after = random.within(0..trouble.within);
    match random.within(0..5) {
        0 | 1 => Fate::Cut(after),
        2 | 3 => Fate::Reset(after),
        _ => Fate::Stall(after, trouble.stall),
    }
}

/// How many bytes may still pass, of both directions; who takes the last tells the other.
struct Budget {
    left: std::sync::Mutex<u64>,
    spent: Notify,
}

impl Budget {
    /// What of so many bytes may pass.
    fn take(&self, bytes: usize) -> usize {
        let mut left = self.left.lock().expect("nothing panics with it");
        let taken = (bytes as u64).min(*left);
        *left -= taken;
        taken as usize
    }
}

async fn pass(client: TcpStream, server: SocketAddr, fate: Fate, broken: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (bytes, reset, stall) = match fate {
        Fate::Cut(bytes) => (bytes, false, Duration::ZERO),
        Fate::Reset(bytes) => (bytes, true, Duration::ZERO),
        Fate::Stall(bytes, stall) => (bytes, true, stall),
    };
    let budget = Budget { left: std::sync::Mutex::new(bytes), spent: Notify::new() };
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let both = async {
        tokio::join!(
            copy(&mut client_reads, &mut server_writes, &budget),
            copy(&mut server_reads, &mut client_writes, &budget),
        );
    };
    tokio::select! {
        () = both => return,
        () = budget.spent.notified() => (),
    }
    broken.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(stall).await;
    if reset {
        for stream in [client_reads.as_ref(), server_reads.as_ref()] {
            // A system that can't reset closes.
            _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn copy(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, budget: &Budget) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let passed = budget.take(read);
        if to.write_all(&buffer[..passed]).await.is_err() {
            break;
        }
        if passed < read {
            budget.spent.notify_one();
            // Dropped by whoever was told.
            std::future::pending::<()>().await;
        }
    }
    _ = to.shutdown().await;
}
