//! Whether a server that was just started is ready.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// An address of this machine that nobody uses.
pub(crate) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Does the program behind this status address say that it is ready?
pub(crate) fn is_ready(status: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(status) else { return false };
    let mut answer = String::new();
    let request = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
