//! One message on a stream socket: its length (4 bytes, little-endian), its JSON, and descriptors beside the
//! length's first byte. Blocking; who needs a limit in time sets SO_RCVTIMEO.

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Far above any spec that we write; a peer that announces more is broken or hostile.
pub const MAX_LENGTH: usize = 4 << 20;
/// Seccomp filters, stdio, attach ends and a pidfd, with room to spare.
pub const MAX_FDS: usize = 16;

/// Send `message` and duplicates of `fds`.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_LENGTH || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
    }
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&(json.len() as u32).to_le_bytes());
    frame.extend_from_slice(&json);

    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let mut sent =
        retry(|| rustix::net::sendmsg(&socket, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL))?;
    while sent < frame.len() {
        sent += retry(|| rustix::net::send(&socket, &frame[sent..], SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receive one message and its descriptors (close-on-exec). `UnexpectedEof` when the peer has gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut head = [0u8; 4];
    let mut fds = Vec::new();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| {
        let buffer = &mut [IoSliceMut::new(&mut head)];
        rustix::net::recvmsg(&socket, buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    fill(&socket, &mut head, received.bytes)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_LENGTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "announced message too large"));
    }
    let mut json = vec![0; length];
    fill(&socket, &mut json, 0)?;
    Ok((serde_json::from_slice(&json)?, fds))
}

fn fill(socket: impl AsFd, buffer: &mut [u8], mut have: usize) -> io::Result<()> {
    if have == 0 && buffer.len() == 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    while have < buffer.len() {
        let (_, count) = retry(|| rustix::net::recv(&socket, &mut buffer[have..], RecvFlags::empty()))?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        have += count;
    }
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, Request};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn message_and_descriptors_arrive() {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        send(&here, &Request::Signal { signal: 15 }, &[writer.as_fd()]).expect("sent");
        drop(writer);

        let (message, fds): (Request, _) = receive(&there).expect("received");
        assert!(matches!(message, Request::Signal { signal: 15 }));
        let mut pipe = std::fs::File::from(fds.into_iter().next().expect("one descriptor"));
        pipe.write_all(b"x").expect("written");
        drop(pipe);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "x");
    }

    #[test]
    fn large_messages_arrive_whole() {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let cgroup = "x".repeat(1 << 20);
        let sender = std::thread::spawn(move || send(&here, &Request::Kill { cgroup }, &[]).expect("sent"));
        let (message, _): (Request, _) = receive(&there).expect("received");
        assert!(matches!(message, Request::Kill { cgroup } if cgroup.len() == 1 << 20));
        sender.join().expect("joined");
    }

    #[test]
    fn peer_that_has_gone_and_peer_that_boasts_are_errors() {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        drop(here);
        let gone = receive::<Reply>(&there).expect_err("nobody there");
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);

        let (mut here, there) = UnixStream::pair().expect("a socket pair");
        here.write_all(&u32::MAX.to_le_bytes()).expect("written");
        let boast = receive::<Reply>(&there).expect_err("too large");
        assert_eq!(boast.kind(), io::ErrorKind::InvalidData);
    }
}
