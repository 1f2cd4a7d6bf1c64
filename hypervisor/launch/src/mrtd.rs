//! A TDX guest's measurement, as the module computes it for upstream KVM, and what stage0 adds to it at run time.

use nacre_stage0_abi::{Image, tdx};
use sha2::{Digest, Sha384};
use zerocopy::{Immutable, IntoBytes};

use crate::digest::Measurement;

/// The bytes that one MR.EXTEND covers.
const CHUNK: usize = 256;

/// MRTD while pages are added. Upstream KVM adds a page and extends by its content before the next one; older stacks
/// did that section by section, with another result.
#[derive(Debug, Clone, Default)]
pub struct Mrtd(Sha384);

/// What is hashed for a command, before its data (TDX module ABI specification 348551, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Record {
    operation: [u8; 16],
    gpa: u64,
    zeros: [u8; 104],
}

const PAGE_ADD: [u8; 16] = *b"MEM.PAGE.ADD\0\0\0\0";
const EXTEND: [u8; 16] = *b"MR.EXTEND\0\0\0\0\0\0\0";

const _: () = assert!(size_of::<Record>() == 128);

impl Mrtd {
    /// The measurement before the first page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a page; its content counts if it is given.
    pub fn add_page(&mut self, gpa: u64, measured: Option<&[u8; 4096]>) {
        self.record(PAGE_ADD, gpa);
        let (chunks, _) = measured.map_or((&[][..], &[][..]), |page| page.as_chunks::<CHUNK>());
        for (place, chunk) in (gpa..).step_by(CHUNK).zip(chunks) {
            self.record(EXTEND, place);
            self.0.update(chunk);
        }
    }

    /// The measurement after the last page: `MRTD` of reports and quotes.
    #[must_use]
    pub fn finish(self) -> Measurement {
        Measurement(self.0.finalize().into())
    }

    fn record(&mut self, operation: [u8; 16], gpa: u64) {
        self.0.update(Record { operation, gpa, zeros: [0; 104] }.as_bytes());
    }
}

/// The registers RTMR1 (kernel and initrd) and RTMR2 (command line) when the kernel starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeMeasurements {
    /// RTMR1.
    pub rtmr1: Measurement,
    /// RTMR2.
    pub rtmr2: Measurement,
}

impl RuntimeMeasurements {
    /// What stage0 makes of the images, in the order of the hashes page.
    #[must_use]
    pub fn of<'a>(images: impl IntoIterator<Item = &'a Image>) -> Self {
        let mut registers = Self { rtmr1: Measurement([0; 48]), rtmr2: Measurement([0; 48]) };
        for image in images {
            let register = match tdx::register_of(image.kind) {
                1 => &mut registers.rtmr1,
                _ => &mut registers.rtmr2,
            };
            let hash = Sha384::new().chain_update(register.0).chain_update(tdx::extension(&image.sha256));
            *register = Measurement(hash.finalize().into());
        }
        registers
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::digest::test_vectors::{FILLED, ZEROS, pattern};

    type Page = (u64, Option<[u8; 4096]>);

    #[rstest]
    #[case::t0(&[], "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b")]
    #[case::t1(&[(0xffff_f000, Some(ZEROS))], "07f08f558c5e2593b33452cf00c12a165c07b027a36424ecfa15ebf39b5415e0ed62418458e4bfd77f16fec0f1568dc9")]
    #[case::t2(&[(0xffff_f000, Some(pattern()))], "cd9d793217c8e5918ad18eca449ba10dcfc5faafc19ceeae46b925d054f3b68f85127312438aeba5bc187d9dc73a20fa")]
    #[case::t3(&[(0x1000, None)], "fcdabf6fdf38b87d2e3a89b1ab68c242abb261dffa70ef6f1dc2220c2752d2729cdf1be92afc2e0e4297f04e2b629552")]
    #[case::t4(&[(0xffff_e000, Some(FILLED)), (0xffff_f000, Some(pattern())), (0x80_0000, None)], "9d6d776ffca6bb09599e6e9cc93fa00cf2237cb89b45442ce34bd999b75c8101d535062f625ec043908764c1423dcbc7")]
    fn measures_as_the_module_does(#[case] pages: &[Page], #[case] expected: &str) {
        let mut mrtd = Mrtd::new();
        for (gpa, content) in pages {
            mrtd.add_page(*gpa, content.as_ref());
        }
        assert_eq!(mrtd.finish().to_string(), expected);
    }

    #[test]
    fn registers_are_extended_in_the_order_of_the_images() {
        let images = crate::plan::tests::images();
        let memory = crate::memory_of(256 << 20).unwrap();
        let list: Vec<Image> = images.list(&memory).unwrap().iter().copied().collect();
        let [text, data, initrd, line] = list[..] else { panic!("{list:?}") };
        let extend = |before: [u8; 48], image: &Image| -> [u8; 48] {
            let mut bytes = [0; 96];
            bytes[..48].copy_from_slice(&before);
            bytes[48..80].copy_from_slice(&image.sha256);
            Sha384::digest(bytes).into()
        };
        let expected = RuntimeMeasurements {
            rtmr1: Measurement(extend(extend(extend([0; 48], &text), &data), &initrd)),
            rtmr2: Measurement(extend([0; 48], &line)),
        };
        assert_eq!(RuntimeMeasurements::of(&list), expected);
    }
}
