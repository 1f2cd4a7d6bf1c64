//! The driver's side of one split queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BUFFERS, MEMORY, RINGS};

/// Flags of a descriptor.
pub(crate) mod flags {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

/// One buffer of a chain.
#[derive(Debug, Clone)]
pub(crate) enum Buffer {
    /// The device reads these bytes.
    Out(Vec<u8>),
    /// The device writes up to this many.
    In(u32),
}

/// A queue as a driver keeps it.
pub(crate) struct Ring {
    pub memory: Arc<GuestMemoryMmap>,
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next_descriptor: u16,
    available_index: u16,
    used_index: u16,
    next_buffer: u64,
    buffers_end: u64,
    /// Where the writable buffers of a chain are, by its head.
    chains: HashMap<u16, Vec<(u64, u32)>>,
}

impl Ring {
    pub fn new(memory: &Arc<GuestMemoryMmap>, number: u64, size: u16) -> Self {
        let base = RINGS + number * 0x1_0000;
        let share = (MEMORY - BUFFERS) / 4;
        let first_buffer = BUFFERS + number * share;
        let ring = Self {
            memory: Arc::clone(memory),
            size,
            descriptors: base,
            available: base + 0x4000,
            used: base + 0x8000,
            next_descriptor: 0,
            available_index: 0,
            used_index: 0,
            next_buffer: first_buffer,
            buffers_end: first_buffer + share,
            chains: HashMap::new(),
        };
        memory.write_slice(&[0; 0x1_0000], GuestAddress(base)).unwrap();
        ring
    }

    /// Makes a chain available and returns its head. At most the queue's size may be under way.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        let mut writable = Vec::new();
        for (index, buffer) in buffers.iter().enumerate() {
            let length = match buffer {
                Buffer::Out(bytes) => u32::try_from(bytes.len()).unwrap(),
                Buffer::In(length) => *length,
            };
            let address = self.place(length);
            let mut flags = if index + 1 < buffers.len() { flags::NEXT } else { 0 };
            match buffer {
                Buffer::Out(bytes) => self.memory.write_slice(bytes, GuestAddress(address)).unwrap(),
                Buffer::In(_) => {
                    flags |= flags::WRITE;
                    writable.push((address, length));
                }
            }
            let next = (self.next_descriptor + 1) % self.size;
            self.write_descriptor(self.next_descriptor, address, length, flags, next);
            self.next_descriptor = next;
        }
        self.chains.insert(head, writable);
        self.publish(head);
        head
    }

    /// Where the last writable byte of a chain is.
    pub fn last_writable(&self, head: u16) -> u64 {
        let (address, length) = self.chains[&head].last().unwrap();
        address + u64::from(*length) - 1
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Where `length` bytes may go. Places are used again after a round.
    pub fn place(&mut self, length: u32) -> u64 {
        if self.next_buffer + u64::from(length) > self.buffers_end {
            self.next_buffer -= (MEMORY - BUFFERS) / 4 - 0x10_0000;
        }
        let address = self.next_buffer;
        self.next_buffer += u64::from(length).next_multiple_of(16);
        address
    }

    pub fn write_descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        self.write_descriptor_at(self.descriptors + 16 * u64::from(index), address, length, flags, next);
    }

    pub fn write_descriptor_at(&self, at: u64, address: u64, length: u32, flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Makes the chain that begins at `head` available.
    pub fn publish(&mut self, head: u16) {
        let slot = self.available + 4 + 2 * u64::from(self.available_index % self.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        self.set_available_index(self.available_index.wrapping_add(1));
    }

    pub fn set_available_index(&mut self, index: u16) {
        self.available_index = index;
        self.memory.store(index, GuestAddress(self.available + 2), Ordering::Release).unwrap();
    }

    pub fn available_index(&self) -> u16 {
        self.available_index
    }

    pub fn set_available_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(self.available)).unwrap();
    }

    /// All of the used ring as it is.
    pub fn used_ring(&self) -> Vec<u8> {
        let mut bytes = vec![0; 6 + 8 * usize::from(self.size)];
        self.memory.read_slice(&mut bytes, GuestAddress(self.used)).unwrap();
        bytes
    }

    /// How many chains came back so far.
    pub fn used_index(&self) -> u16 {
        self.used_index
    }

    /// Whether the device wants to hear of chains up to now, of which the last `added` are new (2.7.10).
    pub fn wants_bell(&self, added: u16) -> bool {
        fence(Ordering::SeqCst);
        let event: u16 =
            self.memory.read_obj(GuestAddress(self.used + 4 + 8 * u64::from(self.size))).unwrap();
        let new = self.available_index;
        new.wrapping_sub(event).wrapping_sub(1) < added
    }

    /// The next chain that came back, with the bytes that the device says it wrote. Asks for an interrupt if none did.
    pub fn take_used(&mut self) -> Option<(u16, Vec<u8>)> {
        let (head, length) = self.take_used_raw()?;
        let mut left = usize::try_from(length).unwrap();
        let mut bytes = Vec::new();
        // What a test published by hand it looks at by itself.
        let Some(chain) = self.chains.remove(&head) else { return Some((head, bytes)) };
        for (address, length) in chain {
            let part = left.min(usize::try_from(length).unwrap());
            bytes.resize(bytes.len() + part, 0);
            let start = bytes.len() - part;
            self.memory.read_slice(&mut bytes[start..], GuestAddress(address)).unwrap();
            left -= part;
        }
        assert_eq!(left, 0, "the device says that it wrote more than there is room for");
        Some((head, bytes))
    }

    fn take_used_raw(&mut self) -> Option<(u16, u32)> {
        let event = self.available + 4 + 2 * u64::from(self.size);
        self.memory.store(self.used_index, GuestAddress(event), Ordering::Relaxed).unwrap();
        fence(Ordering::SeqCst);
        let index: u16 = self.memory.load(GuestAddress(self.used + 2), Ordering::Acquire).unwrap();
        if index == self.used_index {
            return None;
        }
        let slot = self.used + 4 + 8 * u64::from(self.used_index % self.size);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        self.used_index = self.used_index.wrapping_add(1);
        Some((u16::try_from(head).unwrap(), length))
    }
}
