//! One question to one resolver: by UDP, and by TCP when the answer did not fit.
//!
//! Invariant: only an answer with our id and our question is taken, and it takes at most `TIMEOUT` per transport.

use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Fits into one packet on every path.
pub const MAX_UDP_BYTES: u16 = 1232;

pub async fn ask(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_BYTES).set_version(0);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(Error::other)?;
    let answer = within(by_udp(server, &bytes, &message)).await?;
    if answer.metadata.truncation { within(by_tcp(server, &bytes, &message)).await } else { Ok(answer) }
}

async fn within(answer: impl Future<Output = io::Result<Message>>) -> io::Result<Message> {
    tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| Error::from(ErrorKind::TimedOut))?
}

async fn by_udp(server: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let count = socket.recv(&mut buffer).await?;
        // Anything else is somebody guessing: wait on for the real one.
        if let Ok(answer) = Message::from_vec(&buffer[..count])
            && belongs(&answer, question)
        {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(Error::other)?;
    if belongs(&answer, question) {
        Ok(answer)
    } else {
        Err(Error::new(ErrorKind::InvalidData, "the answer is to another question"))
    }
}

fn belongs(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries
}
