//! What Linux is told at its 64-bit entry (`Documentation/arch/x86/boot.rst`), all of it made from measured values.

mod acpi;
mod boot_params;
mod memory_map;

use nacre_stage0_abi::snp::{CcBlob, CcSetupData};
use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{AddressRange, Images, PAGE_SIZE, Parameters, layout, mp_table};
use zerocopy::IntoBytes;

use crate::guest::{Guest, Platform};

/// Where the [`CcBlob`] is, behind the node that leads to it.
const CC_BLOB: u32 = 0x8040;
const CC_NODE: u64 = layout::HANDOVER_PAGE;
const _: () = assert!(CC_BLOB as u64 == layout::HANDOVER_PAGE + 0x40);

/// Writes `boot_params` and everything that it leads to.
pub fn describe(
    guest: &mut impl Guest,
    platform: Platform,
    parameters: &Parameters,
    images: &Images,
) -> Result<(), Stop> {
    // Nothing of what a host may have left there is for the kernel.
    guest.memory(layout::LEGACY_HOLE).fill(0);
    let rsdp = match platform {
        Platform::Plain => {
            let table = guest.memory(range(layout::MP_TABLE, layout::LEGACY_HOLE.end())?);
            let pins = parameters.first_interrupt..parameters.first_interrupt + parameters.interrupts;
            mp_table::write(table, parameters.vcpus, pins).ok_or(Stop::Tables)?;
            0
        }
        Platform::Snp | Platform::Tdx => {
            let tables = guest.memory(range(layout::ACPI_TABLES, layout::MP_TABLE)?);
            acpi::write(tables, platform, parameters).ok_or(Stop::Tables)?;
            layout::ACPI_TABLES
        }
    };

    let handover = guest.memory(range(CC_NODE, CC_NODE + PAGE_SIZE)?);
    handover.fill(0);
    let setup_data = match platform {
        Platform::Plain | Platform::Tdx => 0,
        Platform::Snp => {
            let (node, blob) = handover.split_at_mut_checked(0x40).ok_or(Stop::Tables)?;
            let cc_blob = CcBlob::new(layout::SECRETS_PAGE, layout::CPUID_PAGE);
            CcSetupData::new(CC_BLOB).write_to_prefix(node).map_err(|_| Stop::Tables)?;
            cc_blob.write_to_prefix(blob).map_err(|_| Stop::Tables)?;
            CC_NODE
        }
    };
    let page = guest.memory(range(layout::BOOT_PARAMS, layout::BOOT_PARAMS + PAGE_SIZE)?);
    boot_params::write(page, images, rsdp, setup_data, memory_map::entries(&parameters.memory))
}

fn range(start: u64, end: u64) -> Result<AddressRange, Stop> {
    AddressRange::new(start, end - start).ok_or(Stop::Tables)
}
