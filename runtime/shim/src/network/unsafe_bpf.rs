//! A program in the kernel that hands every new TCP connection inside a network namespace to one listening socket,
//! whatever its port (`BPF_PROG_TYPE_SK_LOOKUP`, Linux 5.9).
//!
//! It needs no netfilter, leaves no rule behind, and ends with its descriptor. Five system calls are all there is to
//! it, so no library that loads programs from object files is brought in.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

// linux/bpf.h
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
const CALL_MAP_LOOKUP_ELEM: i32 = 1;
const CALL_SK_RELEASE: i32 = 86;
const CALL_SK_ASSIGN: i32 = 124;
/// The offset of `protocol` in `struct bpf_sk_lookup`.
const PROTOCOL_OFFSET: i16 = 12;

/// One instruction: code, destination and source register, offset, immediate value.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_ne_bytes([code, destination | source << 4, low, high, a, b, c, d])
}

/// "If it is TCP and the map has a socket, that is the one; else whatever it would be."
const fn program(map: i32) -> [u64; 19] {
    [
        instruction(0xbf, 6, 1, 0, 0),                    // r6 = context
        instruction(0x61, 2, 1, PROTOCOL_OFFSET, 0),      // r2 = context.protocol
        instruction(0x55, 2, 0, 14, libc::IPPROTO_TCP),   // if r2 != TCP: pass
        instruction(0x62, 10, 0, -4, 0),                  // key = 0
        instruction(0xbf, 2, 10, 0, 0),                   // r2 = &key
        instruction(0x07, 2, 0, 0, -4),                   //
        instruction(0x18, 1, 1, 0, map),                  // r1 = the map
        instruction(0, 0, 0, 0, 0),                       //
        instruction(0x85, 0, 0, 0, CALL_MAP_LOOKUP_ELEM), // r0 = the socket
        instruction(0x15, 0, 0, 7, 0),                    // if none: pass
        instruction(0xbf, 7, 0, 0, 0),                    // r7 = the socket
        instruction(0xbf, 1, 6, 0, 0),                    //
        instruction(0xbf, 2, 0, 0, 0),                    //
        instruction(0xb7, 3, 0, 0, 0),                    //
        instruction(0x85, 0, 0, 0, CALL_SK_ASSIGN),       // assign(context, socket, 0)
        instruction(0xbf, 1, 7, 0, 0),                    //
        instruction(0x85, 0, 0, 0, CALL_SK_RELEASE),      // release(socket)
        instruction(0xb7, 0, 0, 0, 1),                    // pass: r0 = SK_PASS
        instruction(0x95, 0, 0, 0, 0),                    // return
    ]
}

/// As much of `union bpf_attr` as any of the commands here uses.
#[repr(C, align(8))]
#[derive(Default)]
struct Attributes([u32; 18]);

impl Attributes {
    fn of(words: &[(usize, u32)]) -> Self {
        let mut attributes = Self::default();
        for (index, word) in words {
            if let Some(place) = attributes.0.get_mut(*index) {
                *place = *word;
            }
        }
        attributes
    }

    /// A pointer or another number of 64 bits, at the word `index`.
    fn with_wide(mut self, index: usize, value: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
        let words = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
        if let Some(place) = self.0.get_mut(index..index + 2) {
            place.copy_from_slice(&words);
        }
        self
    }
}

/// # Safety
/// Pointers in the attributes must lead to what the command reads there, for as long as the call takes.
unsafe fn bpf(command: libc::c_int, attributes: &Attributes) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are as large as said; what they lead to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<Attributes>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        libc::c_int::try_from(result).map_err(io::Error::other)
    }
}

/// # Safety
/// That of [`bpf`], and the command must be one that returns a descriptor.
unsafe fn bpf_descriptor(command: libc::c_int, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// Leads all new TCP connections inside `namespace` to `listener`, as long as the result lives.
///
/// # Errors
/// The kernel is too old or has no BPF, or this process may not use it.
pub fn take_all_connections(namespace: BorrowedFd<'_>, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // Key and value have four bytes, and there is one entry.
    let create = Attributes::of(&[(0, MAP_TYPE_SOCKMAP), (1, 4), (2, 4), (3, 1)]);
    // SAFETY: no pointers.
    let map = unsafe { bpf_descriptor(MAP_CREATE, &create) }?;

    let (key, value) = (0_u32, number(listener));
    let update = Attributes::of(&[(0, number(map.as_fd()))])
        .with_wide(2, (&raw const key) as u64)
        .with_wide(4, (&raw const value) as u64);
    // SAFETY: both lead to four bytes, which the kernel reads during the call.
    unsafe { bpf(MAP_UPDATE_ELEM, &update) }?;

    let instructions = program(map.as_raw_fd());
    let count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let license = c"Apache-2.0";
    let load = Attributes::of(&[(0, PROG_TYPE_SK_LOOKUP), (1, count), (17, ATTACH_SK_LOOKUP)])
        .with_wide(2, instructions.as_ptr() as u64)
        .with_wide(4, license.as_ptr() as u64);
    // SAFETY: the instructions are as many as said and the text ends with a zero; both outlive the call.
    let program = unsafe { bpf_descriptor(PROG_LOAD, &load) }?;

    let link = Attributes::of(&[(0, number(program.as_fd())), (1, number(namespace)), (2, ATTACH_SK_LOOKUP)]);
    // SAFETY: no pointers.
    unsafe { bpf_descriptor(LINK_CREATE, &link) }
}
