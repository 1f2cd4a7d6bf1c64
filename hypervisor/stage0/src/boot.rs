//! The order of things, from the entry to the kernel's.

use nacre_stage0_abi::step::Step;
use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{
    AddressRange, Image, Images, ImagesError, PAGE_SIZE, PageBit, Parameters, ParametersError,
    ParametersPage, layout, snp, tdx,
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::guest::{Guest, Platform};
use crate::{images, linux, memory, page_tables};

/// A kernel that may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its 64-bit entry.
    pub entry: u64,
    /// Its `boot_params`.
    pub boot_params: u64,
}

/// Does everything but the jump.
///
/// # Errors
/// Something is not as it was measured, or a host tries something. There is no way on.
pub fn prepare(guest: &mut impl Guest, platform: Platform) -> Result<Kernel, Stop> {
    if !guest.is_platform(platform) {
        return Err(Stop::OtherPlatform);
    }
    let parameters = parameters(guest, platform)?;
    let root = page_tables::build(guest, &parameters);
    guest.use_page_tables(root);
    guest.did(Step::Tables);
    memory::take_into_use(guest, platform, &parameters)?;
    guest.did(Step::Memory);
    let images = hashes(guest, &parameters)?;
    for image in images.iter() {
        images::load(guest, image)?;
        // SEV-SNP has no such registers. A simulated machine may have.
        if platform != Platform::Snp {
            extend(guest, image)?;
        }
    }
    linux::describe(guest, platform, &parameters, &images)?;
    guest.did(Step::Done);
    Ok(Kernel { entry: images.entry(), boot_params: layout::BOOT_PARAMS })
}

/// The page at a fixed address, as a structure. It is private, so nobody changes it; a copy would need the stack.
fn page<T: FromBytes + KnownLayout + Immutable>(
    guest: &mut impl Guest,
    address: u64,
    otherwise: Stop,
) -> Result<&T, Stop> {
    let range = AddressRange::new(address, PAGE_SIZE).ok_or(otherwise)?;
    T::ref_from_bytes(guest.memory(range)).map_err(|_| otherwise)
}

fn parameters(guest: &mut impl Guest, platform: Platform) -> Result<Parameters, Stop> {
    let bytes: &ParametersPage = page(guest, layout::PARAMETERS_PAGE, Stop::Parameters)?;
    let parameters = Parameters::parse(bytes).map_err(|error| match error {
        ParametersError::Memory(_) => Stop::MemoryMap,
        _ => Stop::Parameters,
    })?;
    let expected = match platform {
        Platform::Plain => PageBit::None,
        Platform::Snp => PageBit::Private(processors_encryption_bit(guest)?),
        Platform::Tdx => PageBit::Shared(guest.address_width().wrapping_sub(1)),
    };
    if parameters.page_bit == expected { Ok(parameters) } else { Err(Stop::EncryptionBit) }
}

/// The encryption bit that the security processor vouches for: it checks this leaf of the CPUID page.
fn processors_encryption_bit(guest: &mut impl Guest) -> Result<u32, Stop> {
    const ENCRYPTION: u32 = 0x8000_001f;
    let cpuid: &snp::CpuidPage = page(guest, layout::CPUID_PAGE, Stop::EncryptionBit)?;
    let leaf = cpuid.find(ENCRYPTION, 0).ok_or(Stop::EncryptionBit)?;
    Ok(leaf.ebx & 0x3f)
}

/// Notes an image that is right in the runtime measurement register that it belongs to.
fn extend(guest: &mut impl Guest, image: &Image) -> Result<(), Stop> {
    // Free until the kernel's structures are made; 64 divides it.
    const PLACE: u64 = layout::HANDOVER_PAGE;
    let digest = tdx::extension(&image.sha256);
    let range = AddressRange::new(PLACE, 48).ok_or(Stop::RuntimeMeasurement)?;
    guest.memory(range).copy_from_slice(&digest);
    let extended = guest.extend(tdx::register_of(image.kind), PLACE);
    if extended { Ok(()) } else { Err(Stop::RuntimeMeasurement) }
}

fn hashes(guest: &mut impl Guest, parameters: &Parameters) -> Result<Images, Stop> {
    let bytes = page(guest, layout::HASHES_PAGE, Stop::Hashes)?;
    Images::parse(bytes, &parameters.memory).map_err(|_: ImagesError| Stop::Hashes)
}

#[cfg(test)]
mod tests;
