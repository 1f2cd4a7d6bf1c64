//! What the launch code on the host and stage0, the guest's first code, agree on: where things are, the two
//! measured pages that stage0 reads, the state in which a CPU enters it, and the codes with which it stops.
//!
//! The rules of each page are here beside its layout, so that the host refuses to launch what stage0 would
//! refuse to start, with the same words. There is no I/O and no allocation.
//!
//! ```
//! use nacre_stage0_abi::{MemoryMap, PageBit, Parameters};
//!
//! let memory = MemoryMap::new([(0, 256 << 20)])?;
//! let page_bit = PageBit::Private(51);
//! let parameters = Parameters { vcpus: 2, page_bit, first_interrupt: 5, interrupts: 6, memory };
//! assert_eq!(Parameters::parse(&parameters.to_page())?, parameters);
//! # Ok::<(), nacre_stage0_abi::ParametersError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod entry;
pub mod images;
pub mod layout;
mod memory_map;
pub mod mp_table;
mod parameters;
mod range;
pub mod snp;
pub mod step;
pub mod stop;
pub mod tdx;

pub use images::{Image, ImageKind, Images, ImagesError};
pub use memory_map::{MAX_RANGES, MemoryMap, MemoryMapError};
pub use parameters::{MAX_VCPUS, PageBit, Parameters, ParametersError, ParametersPage};
pub use range::AddressRange;

/// The size of a page, of the launch commands and of the tables.
pub const PAGE_SIZE: u64 = 4096;

// The pages are defined as little endian and read as they are.
const _: () = assert!(cfg!(target_endian = "little"));
