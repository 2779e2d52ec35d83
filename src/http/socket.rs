//! What is set on a connection's socket.

use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Sets what is best for transfers. What can't be set stays as it was.
pub(super) fn prepare(stream: &TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if is_here(stream, peer) {
        os::prepare_for_here(stream);
    }
}

/// Whether the peer is on this machine, as a reverse proxy often is.
fn is_here(stream: &TcpStream, peer: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || stream.local_addr().is_ok_and(|local| local.ip().to_canonical() == peer)
}

#[cfg(target_os = "linux")]
mod os {
    use std::sync::LazyLock;

    use rustix::net::sockopt::{set_socket_send_buffer_size, set_tcp_congestion};
    use tokio::net::TcpStream;

    /// Bytes on their way to a peer on this machine: what it has not read yet should still be in the processor's cache.
    /// The system doubles it for its own bookkeeping (`SO_SNDBUF` in socket(7)).
    pub(super) const SEND_BUFFER: usize = 512 << 10;

    /// Whether the system allows that much. Less would make a single transfer slower, not faster.
    static IS_ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
        most.is_ok_and(|most| most.trim().parse().is_ok_and(|most: usize| most >= SEND_BUFFER))
    });

    /// Nothing is between such peers that could be congested: an algorithm that paces what it sends (BBR), or takes a
    /// growing delay for congestion (CUBIC's HyStart, RFC 9406), only costs time. Reno (RFC 5681) is in every kernel.
    pub(super) fn prepare_for_here(stream: &TcpStream) {
        if let Err(error) = set_tcp_congestion(stream, "reno") {
            tracing::debug!(%error, "TCP_CONGESTION");
        }
        if *IS_ALLOWED && let Err(error) = set_socket_send_buffer_size(stream, SEND_BUFFER) {
            tracing::debug!(%error, "SO_SNDBUF");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    pub(super) fn prepare_for_here(_: &tokio::net::TcpStream) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;

    use rustix::net::sockopt::{socket_send_buffer_size, tcp_congestion};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> io::Result<(TcpStream, TcpStream, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (server, peer) = listener.accept().await?;
        Ok((server, client, peer))
    }

    #[tokio::test]
    async fn a_peer_on_this_machine_is_not_paced() {
        let (server, _client, peer) = pair().await.expect("two ends of a connection");
        prepare(&server, peer);
        assert!(server.nodelay().expect("it is known"));
        assert_eq!(tcp_congestion(&server).expect("it is known"), "reno");
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").expect("Linux tells it");
        if most.trim().parse::<usize>().expect("a number") >= os::SEND_BUFFER {
            assert_eq!(socket_send_buffer_size(&server).expect("it is known"), 2 * os::SEND_BUFFER);
        }
    }

    #[tokio::test]
    async fn the_rest_of_the_world_has_what_the_system_is_set_to() {
        let (server, client, _) = pair().await.expect("two ends of a connection");
        prepare(&server, SocketAddr::from(([192, 0, 2, 1], 40_000)));
        assert!(server.nodelay().expect("it is known"));
        let usual = tcp_congestion(&client).expect("it is known");
        assert_eq!(tcp_congestion(&server).expect("it is known"), usual);
        let buffer = |socket| socket_send_buffer_size(socket).expect("it is known");
        assert_ne!(buffer(&server), 2 * os::SEND_BUFFER);
    }

    #[tokio::test]
    async fn here_is_what_has_the_same_address() {
        let (server, _client, peer) = pair().await.expect("two ends of a connection");
        for (address, expected) in [
            (peer.ip().to_string(), true),
            ("127.3.2.1".to_owned(), true),
            ("::1".to_owned(), true),
            ("::ffff:127.0.0.1".to_owned(), true),
            ("192.0.2.1".to_owned(), false),
            ("2001:db8::1".to_owned(), false),
        ] {
            let peer = SocketAddr::new(address.parse().expect("an address"), 1);
            assert_eq!(is_here(&server, peer), expected, "{address}");
        }
    }
}
