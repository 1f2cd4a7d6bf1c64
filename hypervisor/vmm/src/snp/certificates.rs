//! Certificates for the reports of SEV-SNP guests, which the host hands over where the kernel asks it to: with its extended
//! request a guest then gets its report and all that a verifier needs in one answer.
//!
//! The table's format is that of the GHCB specification (AMD 56421, "SNP Extended Guest Request"); the exit is that of Linux's
//! `Documentation/virt/kvm/api.rst`, `KVM_EXIT_SNP_REQ_CERTS`.
//!
//! SECURITY: the guest chooses where the table goes. Nothing in the table is secret, and nobody trusts it unverified.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nacre_devices::SharedMemory;
use nix::errno::Errno;
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// `KVM_EXIT_SNP_REQ_CERTS`
pub const EXIT: u32 = 43;
/// `KVM_SEV_SNP_ENABLE_REQ_CERTS`
pub const ENABLE: u32 = 103;

const PAGE: usize = 4096;
/// More than a table with a whole chain has: some 6 KiB.
const LARGEST: usize = 64 << 10;
/// A GUID, an offset and a length.
const ENTRY: usize = 24;

/// `struct kvm_exit_snp_req_certs`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Asked {
    /// Where the guest wants the table.
    pub gpa: u64,
    /// How many pages it has for it; with [`Errno::ENOSPC`] in `ret`, how many it needs.
    pub npages: u64,
    /// Zero or an error's number.
    pub ret: u64,
}

const _: () = assert!(
    size_of::<Asked>() == 24
        && std::mem::offset_of!(Asked, npages) == 8
        && std::mem::offset_of!(Asked, ret) == 16
);

/// Why a file has no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// It can't be read.
    #[error("the file of certificates can't be read")]
    Read(#[from] io::Error),
    /// It is too large.
    #[error("the file of certificates has more than {LARGEST} bytes")]
    TooLarge,
    /// It is no table.
    #[error("the file of certificates is no table of the GHCB specification: {0}")]
    Table(&'static str),
}

/// The host's certificates, in a file that may change while guests run.
#[derive(Debug)]
pub struct Certificates {
    file: File,
    memory: Arc<GuestMemory>,
    shared: Arc<dyn SharedMemory>,
    log: slog::Logger,
}

/// Keeps whoever writes new certificates waiting, until the guest's report is made: both must be of the same firmware.
#[derive(Debug)]
pub struct Unchanged<'a>(&'a File);

impl Drop for Unchanged<'_> {
    fn drop(&mut self) {
        // An unlock can't fail on an open file.
        let _ = self.0.unlock();
    }
}

impl Certificates {
    /// Those in `file`, for a guest with this memory.
    ///
    /// # Errors
    /// There are none.
    pub fn new(
        file: File,
        memory: Arc<GuestMemory>,
        shared: Arc<dyn SharedMemory>,
        log: slog::Logger,
    ) -> Result<Self, CertificatesError> {
        read(&file)?;
        Ok(Self { file, memory, shared, log })
    }

    /// Says that guests get none, because the host's kernel does not ask for them.
    pub fn not_asked_for(&self) {
        slog::warn!(self.log, "no certificates for guests: the kernel has no KVM_SEV_SNP_ENABLE_REQ_CERTS");
    }

    /// Answers a request. What comes back has to live until KVM has gone on with it.
    pub fn serve(&self, asked: &mut Asked) -> Option<Unchanged<'_>> {
        let unchanged = match self.file.try_lock_shared() {
            Ok(()) => Unchanged(&self.file),
            // Somebody writes new ones; the guest asks again.
            Err(_) => {
                asked.ret = Errno::EAGAIN as u64;
                return None;
            }
        };
        asked.ret = match self.answer(asked) {
            Ok(()) => 0,
            Err(errno) => errno as u64,
        };
        Some(unchanged)
    }

    fn answer(&self, asked: &mut Asked) -> Result<(), Errno> {
        let table = read(&self.file).map_err(|error| {
            slog::warn!(self.log, "no certificates for the guest"; "error" => crate::chain_text(&error));
            Errno::EIO
        })?;
        let needed = (table.len() / PAGE) as u64;
        if asked.npages < needed {
            asked.npages = needed;
            return Err(Errno::ENOSPC);
        }
        // What the guest has not shared it would not see.
        if !self.shared.is_shared(asked.gpa, table.len() as u64) {
            return Err(Errno::EIO);
        }
        self.memory.write_slice(&table, GuestAddress(asked.gpa)).map_err(|_| Errno::EIO)
    }
}

/// The table in a file, on whole pages.
fn read(file: &File) -> Result<Vec<u8>, CertificatesError> {
    let mut table = Vec::new();
    loop {
        let mut part = [0; PAGE];
        let count = file.read_at(&mut part, table.len() as u64)?;
        if count == 0 {
            break;
        }
        table.extend_from_slice(part.get(..count).unwrap_or_default());
        if table.len() > LARGEST {
            return Err(CertificatesError::TooLarge);
        }
    }
    check(&table).map_err(CertificatesError::Table)?;
    table.resize(table.len().next_multiple_of(PAGE), 0);
    Ok(table)
}

/// Entries up to one of zeros, each of which names a range behind them.
fn check(table: &[u8]) -> Result<(), &'static str> {
    let (entries, _) = table.as_chunks::<ENTRY>();
    let count = entries.iter().position(|entry| entry == &[0; ENTRY]).ok_or("it has no last entry")?;
    if count == 0 {
        return Err("it has no entry");
    }
    let first = (count + 1) * ENTRY;
    for [.., o0, o1, o2, o3, l0, l1, l2, l3] in entries.iter().take(count) {
        let number = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (offset, len) = (number([*o0, *o1, *o2, *o3]), number([*l0, *l1, *l2, *l3]));
        let inside = offset.checked_add(len).is_some_and(|end| end <= table.len());
        if offset < first || len == 0 || !inside {
            return Err("an entry's range is not behind the entries or not in the file");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first MiB is shared.
    #[derive(Debug)]
    struct FirstMib;

    impl SharedMemory for FirstMib {
        fn is_shared(&self, address: u64, length: u64) -> bool {
            address.checked_add(length).is_some_and(|end| end <= 1 << 20)
        }
    }

    fn table(content: &[u8]) -> Vec<u8> {
        let mut bytes = [0x63; 16].to_vec();
        bytes.extend(48_u32.to_le_bytes());
        bytes.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        bytes.extend([0; ENTRY]);
        [bytes, content.to_vec()].concat()
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn certificates(file: File) -> (Result<Certificates, CertificatesError>, Arc<GuestMemory>) {
        let memory = Arc::new(crate::memory::allocate(64).unwrap());
        let log = slog::Logger::root(slog::Discard, slog::o!());
        (Certificates::new(file, memory.clone(), Arc::new(FirstMib), log), memory)
    }

    fn ask(certificates: &Certificates, gpa: u64, npages: u64) -> Asked {
        let mut asked = Asked { gpa, npages, ret: u64::MAX };
        certificates.serve(&mut asked);
        asked
    }

    #[test]
    fn a_guest_with_room_gets_the_table_and_one_without_hears_how_much_it_needs() {
        let bytes = table(&[7; 5000]);
        let (certificates, memory) = certificates(file(&bytes));
        let certificates = certificates.unwrap();
        assert_eq!(ask(&certificates, 0x4000, 1), Asked { gpa: 0x4000, npages: 2, ret: 28 });
        assert_eq!(ask(&certificates, 0x4000, 0).npages, 2);
        memory.write_slice(&[0xff; 3 * PAGE], GuestAddress(0x4000)).unwrap();
        assert_eq!(ask(&certificates, 0x4000, 3), Asked { gpa: 0x4000, npages: 3, ret: 0 });
        let mut seen = vec![0; 3 * PAGE];
        memory.read_slice(&mut seen, GuestAddress(0x4000)).unwrap();
        assert_eq!(seen[..bytes.len()], bytes);
        assert!(seen[bytes.len()..2 * PAGE].iter().all(|byte| *byte == 0), "the rest of the page is zero");
        assert!(seen[2 * PAGE..].iter().all(|byte| *byte == 0xff), "no other page is touched");
    }

    #[test]
    fn private_and_missing_memory_are_not_written_to() {
        let (certificates, _memory) = certificates(file(&table(&[7; 100])));
        let certificates = certificates.unwrap();
        for gpa in [1 << 20, (1 << 20) - 1, 0xffff_f000, u64::MAX - 10] {
            assert_eq!(ask(&certificates, gpa, 1).ret, Errno::EIO as u64, "{gpa:#x}");
        }
    }

    #[test]
    fn new_certificates_are_seen_and_never_half_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let path = folder.path().join("certificates");
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let writer = open();
        writer.write_all_at(&table(&[7; 100]), 0).unwrap();
        let (certificates, memory) = certificates(open());
        let certificates = certificates.unwrap();
        writer.lock().unwrap();
        assert_eq!(ask(&certificates, 0x4000, 1).ret, Errno::EAGAIN as u64);
        writer.write_all_at(&table(&[9; 100]), 0).unwrap();
        writer.unlock().unwrap();

        let mut asked = Asked { gpa: 0x4000, npages: 1, ret: u64::MAX };
        let unchanged = certificates.serve(&mut asked);
        assert_eq!((asked.ret, unchanged.is_some()), (0, true));
        assert!(writer.try_lock().is_err(), "the report is not made yet");
        drop(unchanged);
        writer.try_lock().unwrap();
        writer.set_len(30).unwrap();
        writer.unlock().unwrap();
        let byte: u8 = memory.read_obj(GuestAddress(0x4000 + 60)).unwrap();
        assert_eq!(byte, 9);
        assert_eq!(ask(&certificates, 0x4000, 1).ret, Errno::EIO as u64);
    }

    #[test]
    fn what_is_no_table_is_refused_at_the_start() {
        let refused = |bytes: &[u8]| certificates(file(bytes)).0.unwrap_err().to_string();
        let whole = table(&[7; 100]);
        assert!(refused(&[]).ends_with("it has no last entry"));
        assert!(refused(&[0; 48]).ends_with("it has no entry"));
        assert!(refused(&whole[..whole.len() - 1]).ends_with("not in the file"));
        for (place, value) in [(16, 47), (19, 0xff), (23, 0xff)] {
            let mut wrong = whole.clone();
            wrong[place] = value;
            assert!(refused(&wrong).ends_with("not in the file"), "{place}");
        }
        assert!(refused(&vec![1; LARGEST + 1]).ends_with("more than 65536 bytes"));
    }
}
