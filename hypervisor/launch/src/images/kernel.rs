//! What a kernel's ELF file says about loading it.

use std::ops::Range;

use nacre_stage0_abi::AddressRange;
use thiserror::Error;

/// A kernel's loadable segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The physical address of the 64-bit entry.
    pub entry: u64,
    /// The segments that have bytes in the file.
    pub segments: Vec<KernelSegment>,
    /// The end of the highest segment, with those that are only zeros: what is loaded behind it is safe.
    pub end: u64,
}

/// A segment that has bytes in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSegment {
    /// Where its bytes are in the file.
    pub file: Range<usize>,
    /// Where it is in memory, with the zeros behind the bytes.
    pub target: AddressRange,
}

/// ELF-64, little endian, current version (System V ABI, "ELF Header").
const IDENTIFICATION: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
const TYPE_EXECUTABLE: u16 = 2;
const MACHINE_X86_64: u16 = 62;
/// The size of a program header.
const PROGRAM_HEADER: u16 = 56;
const LOADABLE: u32 = 1;

impl Kernel {
    /// Reads an ELF file's header and program headers.
    ///
    /// # Errors
    /// It is no executable for x86-64, or says something impossible.
    pub fn parse(file: &[u8]) -> Result<Self, KernelError> {
        let header = Bytes(file);
        let known = file.starts_with(&IDENTIFICATION)
            && header.u16(16) == Some(TYPE_EXECUTABLE)
            && header.u16(18) == Some(MACHINE_X86_64)
            && header.u16(54) == Some(PROGRAM_HEADER);
        if !known {
            return Err(KernelError::NotAKernel);
        }
        let entry = header.u64(24).ok_or(KernelError::Truncated)?;
        let table = header.u64(32).ok_or(KernelError::Truncated)?;
        let count = header.u16(56).ok_or(KernelError::Truncated)?;
        let mut kernel = Self { entry, segments: Vec::new(), end: 0 };
        for index in 0..u64::from(count) {
            let place = table
                .checked_add(index * u64::from(PROGRAM_HEADER))
                .and_then(|place| usize::try_from(place).ok())
                .ok_or(KernelError::Truncated)?;
            let program = file.get(place..).map(Bytes).ok_or(KernelError::Truncated)?;
            kernel.add(&ProgramHeader::read(program).ok_or(KernelError::Truncated)?, file.len())?;
        }
        if kernel.segments.is_empty() {
            return Err(KernelError::NotAKernel);
        }
        Ok(kernel)
    }

    fn add(&mut self, program: &ProgramHeader, file_len: usize) -> Result<(), KernelError> {
        if program.kind != LOADABLE || program.memory_size == 0 {
            return Ok(());
        }
        let impossible = KernelError::Segment { address: program.address };
        let target = AddressRange::new(program.address, program.memory_size).ok_or(impossible.clone())?;
        self.end = self.end.max(target.end());
        if program.file_size == 0 {
            return Ok(());
        }
        let start = usize::try_from(program.offset).map_err(|_| KernelError::Truncated)?;
        let len = usize::try_from(program.file_size).map_err(|_| KernelError::Truncated)?;
        let end = start.checked_add(len).filter(|end| *end <= file_len).ok_or(KernelError::Truncated)?;
        if program.file_size > program.memory_size {
            return Err(impossible);
        }
        self.segments.push(KernelSegment { file: start..end, target });
        Ok(())
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    address: u64,
    file_size: u64,
    memory_size: u64,
}

impl ProgramHeader {
    fn read(bytes: Bytes<'_>) -> Option<Self> {
        Some(Self {
            kind: bytes.u32(0)?,
            offset: bytes.u64(8)?,
            // The physical address: the kernel maps itself.
            address: bytes.u64(24)?,
            file_size: bytes.u64(32)?,
            memory_size: bytes.u64(40)?,
        })
    }
}

/// Little-endian numbers in bytes that may be too few.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(self, place: usize) -> Option<[u8; N]> {
        self.0.get(place..)?.first_chunk().copied()
    }

    fn u16(self, place: usize) -> Option<u16> {
        self.array(place).map(u16::from_le_bytes)
    }

    fn u32(self, place: usize) -> Option<u32> {
        self.array(place).map(u32::from_le_bytes)
    }

    fn u64(self, place: usize) -> Option<u64> {
        self.array(place).map(u64::from_le_bytes)
    }
}

/// Why a file is no kernel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KernelError {
    /// It is no executable ELF file for x86-64 with something to load.
    #[error("not an uncompressed kernel: no executable ELF file for x86-64")]
    NotAKernel,
    /// The file ends before what its headers speak of.
    #[error("the file is cut off")]
    Truncated,
    /// A segment can't be where it says.
    #[error("segment at {address:#x} is impossible")]
    Segment {
        /// Its physical address.
        address: u64,
    },
}
