//! Descriptor chains: read once, checked, then streams of bytes.
//!
//! Where the driver puts the boundaries between its buffers means nothing (virtio 1.2, 2.7.4.1), so devices
//! see what they may read and what they may write as two streams.

mod buffers;
mod vectored;

use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions};

use crate::fault::GuestFault;
use crate::shared_memory::Guard;
pub(crate) use buffers::Buffers;
pub(crate) use vectored::{Transfer, transfer};

/// The most buffers of a chain. Less than `UIO_MAXIOV`: one system call can take a whole chain and a header.
const MAX_BUFFERS: usize = 1000;

/// A chain that the driver made available.
#[derive(Debug)]
pub(crate) struct Chain<'m> {
    /// Names it when it goes back.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers<'m>,
    /// What the device writes.
    pub writable: Buffers<'m>,
}

impl<'m> Chain<'m> {
    /// SECURITY: the guest can change its descriptors at any time. Each is read exactly once, here, and only
    /// the checked copy is used afterwards.
    pub(crate) fn read(
        raw: virtio_queue::DescriptorChain<&'m GuestMemoryMmap>,
        memory: &'m GuestMemoryMmap,
        guard: &Guard,
    ) -> Result<Self, GuestFault> {
        let head = raw.head_index();
        let mut chain = Self { head, readable: Buffers::default(), writable: Buffers::default() };
        let mut ended = false;
        let mut writable_came = false;
        for (count, descriptor) in raw.enumerate() {
            if count >= MAX_BUFFERS {
                return Err(GuestFault::MalformedChain);
            }
            let writable = descriptor.is_write_only();
            // 2.7.4.2: writable buffers come after all readable ones.
            if !writable && writable_came {
                return Err(GuestFault::MalformedChain);
            }
            writable_came = writable;
            let (buffers, access) = if writable {
                (&mut chain.writable, Permissions::Write)
            } else {
                (&mut chain.readable, Permissions::Read)
            };
            let length = usize::try_from(descriptor.len()).map_err(|_| GuestFault::MalformedChain)?;
            if !guard.allows(descriptor.addr().0, u64::from(descriptor.len())) {
                return Err(GuestFault::PrivateMemory(descriptor.addr().0));
            }
            let slices = GuestMemory::get_slices(memory, descriptor.addr(), length, access)
                .map_err(|_| GuestFault::BufferOutsideMemory)?;
            for slice in slices {
                buffers.append(slice.map_err(|_| GuestFault::BufferOutsideMemory)?);
            }
            ended = !descriptor.has_next();
        }
        // The iterator also ends where it can't go on: at a loop, a bad index or a bad indirect table.
        if ended { Ok(chain) } else { Err(GuestFault::MalformedChain) }
    }
}
