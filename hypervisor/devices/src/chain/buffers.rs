//! A stream of bytes over buffers in guest memory.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

use super::vectored::{Transfer, transfer};
use crate::fault::GuestFault;

const ZEROS: [u8; 4096] = [0; 4096];

/// Bytes of guest memory that are taken from the front.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buffers<'m> {
    slices: VecDeque<VolatileSlice<'m>>,
    length: usize,
}

impl<'m> Buffers<'m> {
    pub(super) fn append(&mut self, slice: VolatileSlice<'m>) {
        if !slice.is_empty() {
            // A chain is at most 2^32 bytes.
            self.length = self.length.saturating_add(slice.len());
            self.slices.push_back(slice);
        }
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The buffers, for a system call over several streams.
    pub fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.slices.iter()
    }

    /// Copies bytes to the host.
    pub fn read(&mut self, to: &mut [u8]) -> Result<(), GuestFault> {
        self.need(to.len())?;
        let mut rest = to;
        while !rest.is_empty() {
            let Some(slice) = self.slices.front() else { break };
            let count = slice.copy_to(rest);
            rest = rest.get_mut(count..).unwrap_or_default();
            self.skip(count);
        }
        Ok(())
    }

    /// Copies bytes to the guest.
    pub fn write(&mut self, from: &[u8]) -> Result<(), GuestFault> {
        self.need(from.len())?;
        let mut rest = from;
        while !rest.is_empty() {
            let Some(slice) = self.slices.front() else { break };
            let count = slice.len().min(rest.len());
            slice.copy_from(rest);
            rest = rest.get(count..).unwrap_or_default();
            self.skip(count);
        }
        Ok(())
    }

    /// Gives the guest zeros.
    pub fn write_zeros(&mut self, count: usize) -> Result<(), GuestFault> {
        self.need(count)?;
        let mut left = count;
        while left > 0 {
            let portion = ZEROS.get(..left.min(ZEROS.len())).unwrap_or(&ZEROS);
            self.write(portion)?;
            left -= portion.len();
        }
        Ok(())
    }

    /// Takes the first `count` bytes off as a stream of their own.
    pub fn split_to(&mut self, count: usize) -> Result<Self, GuestFault> {
        self.need(count)?;
        let mut front = Self::default();
        while front.length < count {
            let Some(slice) = self.slices.pop_front() else { break };
            let missing = count - front.length;
            if slice.len() > missing {
                let (taken, rest) = slice.split_at(missing).map_err(|_| GuestFault::MalformedChain)?;
                front.append(taken);
                self.slices.push_front(rest);
            } else {
                front.append(slice);
            }
        }
        self.length -= front.length;
        Ok(front)
    }

    /// Moves at most `limit` bytes between the guest and a file without a copy in between.
    pub fn transfer(&mut self, file: BorrowedFd<'_>, how: Transfer, limit: usize) -> io::Result<usize> {
        let moved = transfer(file, how, &[], self.slices(), limit)?;
        self.skip(moved);
        Ok(moved)
    }

    /// Drops bytes off the front.
    pub fn skip(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let Some(slice) = self.slices.pop_front() else { break };
            let part = slice.len().min(left);
            self.length -= part;
            left -= part;
            if let Ok(rest) = slice.offset(part)
                && !rest.is_empty()
            {
                self.slices.push_front(rest);
            }
        }
    }

    fn need(&self, needed: usize) -> Result<(), GuestFault> {
        if needed <= self.length {
            Ok(())
        } else {
            Err(GuestFault::ShortChain { available: self.length, needed })
        }
    }
}
