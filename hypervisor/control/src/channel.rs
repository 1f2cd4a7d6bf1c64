//! A control socket: whole messages with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

/// The longest message in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The most descriptors that one message can carry (the kernel's `SCM_MAX_FD`).
pub const MAX_FILES: usize = 253;

/// One end of a control socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// Why a message did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is closed.
    #[error("the other end of the control socket is closed")]
    Closed,
    /// The message or its descriptors did not fit.
    #[error("a control message is larger than {MAX_MESSAGE} bytes or {MAX_FILES} files")]
    TooLarge,
    /// Not a message of this protocol.
    #[error("a control message can't be read")]
    Malformed(#[source] serde_json::Error),
    /// The socket failed. `WouldBlock` where it is non-blocking and there is no message.
    #[error("the control socket failed")]
    Io(#[from] io::Error),
}

impl From<nix::Error> for ChannelError {
    fn from(errno: nix::Error) -> Self {
        match errno {
            nix::Error::EPIPE | nix::Error::ECONNRESET => Self::Closed,
            nix::Error::EMSGSIZE => Self::TooLarge,
            other => Self::Io(other.into()),
        }
    }
}

impl Channel {
    /// Two ends, both close-on-exec and blocking.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Takes over an end, such as the one that a VMM was started with.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends `message` with `files`.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn send<M: Serialize>(&self, message: &M, files: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message).map_err(ChannelError::Malformed)?;
        if bytes.len() > MAX_MESSAGE || files.len() > MAX_FILES {
            return Err(ChannelError::TooLarge);
        }
        let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Receives one message with its files, which are close-on-exec.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub fn receive<M: DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut control = cmsg_space!([RawFd; MAX_FILES]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
        let mut files = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                files.extend(raw.into_iter().map(own));
            }
        }
        if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(ChannelError::TooLarge);
        }
        let length = received.bytes;
        if length == 0 {
            return Err(ChannelError::Closed);
        }
        let message = bytes.get(..length).unwrap_or_default();
        Ok((serde_json::from_slice(message).map_err(ChannelError::Malformed)?, files))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[allow(unsafe_code)]
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put this descriptor into our table for this message; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write, pipe};

    use super::*;
    use crate::{Event, Request};

    #[test]
    fn a_message_arrives_whole_with_its_files() {
        let (shim, vmm) = Channel::pair().unwrap();
        let (mut reader, writer) = pipe().unwrap();
        shim.send(&Request::Stop, &[writer.as_fd()]).unwrap();
        drop(writer);

        let (message, mut files) = vmm.receive::<Request>().unwrap();

        assert_eq!(message, Request::Stop);
        File::from(files.remove(0)).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_closed_end_is_told_apart_from_garbage() {
        let (shim, vmm) = Channel::pair().unwrap();
        shim.send(&"no event", &[]).unwrap();
        assert!(matches!(vmm.receive::<Event>(), Err(ChannelError::Malformed(_))));
        drop(shim);
        assert!(matches!(vmm.receive::<Event>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn too_many_files_are_refused_before_they_are_sent() {
        let (shim, _vmm) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let files = vec![null.as_fd(); MAX_FILES + 1];
        assert!(matches!(shim.send(&Request::Stop, &files), Err(ChannelError::TooLarge)));
    }
}
