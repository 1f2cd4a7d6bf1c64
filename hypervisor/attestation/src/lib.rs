//! Attestation reports of the software security processor and of the software TDX module: in the hardware's formats, signed
//! by development keys, and never confidential.
//!
//! - [`SoftwareVcek`] is the key in place of the processor's; [`SoftwareVcek::sign_report`] makes a report about a
//!   [`ReportedGuest`].
//! - [`layout`] is the report as it is in memory.
//! - [`tdx`] is the same for TDX: reports of a module, and their quotes.
//! - [`wire`] is what guest and VMM say to each other about reports.
//!
//! Making the key's certificates and checking reports is not here; that is `nacre`'s part.
//!
//! A report says in its `CHIP_ID` what it is: it begins with [`CHIP_ID_PREFIX`]. Nobody who trusts AMD's roots accepts it,
//! because the chain of certificates begins with a root that is made where nacre is installed.
//!
//! ```
//! use nacre_attestation::{ReportedGuest, SoftwareVcek};
//!
//! let guest = ReportedGuest { measurement: [7; 48], policy: 0x3_0000, ..ReportedGuest::default() };
//! let report = SoftwareVcek::generate().sign_report(&guest, &[1; 64]);
//! assert_eq!(report.get(0x90..0xc0), Some(&[7; 48][..]));
//! ```

#![deny(clippy::indexing_slicing)]

pub mod layout;
mod software;
pub mod tdx;
pub mod wire;

pub use software::{
    CHIP_ID_PREFIX, ChipId, IdBlockFields, KeyError, ReportedGuest, SoftwareVcek, Tcb, is_simulated,
};
