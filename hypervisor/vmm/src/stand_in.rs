//! A guest for the tests of whoever launches one: its plan, and its memory.

use nacre_launch::{Guest, GuestFiles, KnownHashes, LaunchPlan, Policy, Tee};
use nacre_stage0_abi::AddressRange;

use crate::private::Region;
use crate::unsafe_mapping::Mapping;

#[path = "../../launch/tests/stand_in/kernel.rs"]
mod kernel;

pub use kernel::kernel_file;

/// The guest.
pub fn guest(tee: Tee) -> Guest {
    let (stage0, kernel) = (vec![0x90; 0x3000], kernel_file());
    let files = GuestFiles {
        stage0: &stage0,
        kernel: &kernel,
        initrd: b"initrd",
        kernel_parameters: "",
        known: KnownHashes::default(),
    };
    Guest::new(tee, &files).unwrap()
}

/// Its plan with 64 MiB.
pub fn plan(tee: Tee, vcpus: u32) -> LaunchPlan {
    guest(tee).plan(vcpus, 64, Policy::default()).unwrap()
}

/// RAM of 64 MiB, and the place of stage0's image.
pub fn regions() -> (Vec<Region>, Vec<Mapping>) {
    let ranges = [(0, 64 << 20), (0xffff_4000u64, 0xc000)];
    let mappings: Vec<Mapping> =
        ranges.iter().map(|(_, len)| Mapping::zeros(usize::try_from(*len).unwrap()).unwrap()).collect();
    let regions = ranges.iter().zip(&mappings).map(|((start, len), mapping)| Region {
        range: AddressRange::new(*start, *len).unwrap(),
        shared_address: mapping.address(),
    });
    (regions.collect(), mappings)
}
