//! CPUID of a trust domain: of what KVM would say, the part that the module leaves to us, and then what it says itself.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const ADDRESS_SIZES: u32 = 0x8000_0008;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
/// Bits 23:16 of EAX: the width of guest-physical addresses. The last bit is the shared bit, which the launch plan has.
const GUEST_WIDTH_SHIFT: u32 = 16;
const GUEST_WIDTH_MASK: u32 = 0xff << GUEST_WIDTH_SHIFT;

/// The list for KVM_TDX_INIT_VM: of `wanted` what `configurable` allows, bit by bit. What is not in `wanted` stays zero.
///
/// KVM reports what is configurable without the flag for leaves with sub-leaves, and takes the list only with it; every
/// entry must be one that it reported.
#[must_use]
pub fn configure(
    wanted: &[kvm_cpuid_entry2],
    configurable: &[kvm_cpuid_entry2],
    address_width: u32,
) -> Vec<kvm_cpuid_entry2> {
    let value = |mask: &kvm_cpuid_entry2| {
        // Leaf 0x1F has the same values as 0xB, which is the one that KVM's table has.
        let function = if mask.function == TOPOLOGY_V2 { TOPOLOGY } else { mask.function };
        let found = wanted.iter().find(|entry| (entry.function, entry.index) == (function, mask.index));
        let mut entry = match (found, mask.function) {
            (Some(entry), _) => *entry,
            (None, ADDRESS_SIZES) => kvm_cpuid_entry2::default(),
            (None, _) => return None,
        };
        entry.function = mask.function;
        if mask.function == ADDRESS_SIZES {
            entry.eax = entry.eax & !GUEST_WIDTH_MASK | address_width << GUEST_WIDTH_SHIFT;
        }
        let sub_leaves = configurable.iter().filter(|other| other.function == mask.function).count() > 1;
        let flagged = sub_leaves || mask.index != 0 || entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        Some(kvm_cpuid_entry2 {
            function: mask.function,
            index: mask.index,
            flags: if flagged { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
            eax: entry.eax & mask.eax,
            ebx: entry.ebx & mask.ebx,
            ecx: entry.ecx & mask.ecx,
            edx: entry.edx & mask.edx,
            padding: [0; 3],
        })
    };
    configurable.iter().filter_map(value).collect()
}

/// `table` with the values that the module gives the guest, where it does: KVM goes by the table when it emulates.
#[must_use]
pub fn with_module(table: &[kvm_cpuid_entry2], module: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let of_module = |entry: &kvm_cpuid_entry2| {
        module.iter().find(|other| (other.function, other.index) == (entry.function, entry.index))
    };
    let merged = table.iter().map(|entry| match of_module(entry) {
        Some(kvm_cpuid_entry2 { eax, ebx, ecx, edx, .. }) => {
            kvm_cpuid_entry2 { eax: *eax, ebx: *ebx, ecx: *ecx, edx: *edx, ..*entry }
        }
        None => *entry,
    });
    merged.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, flags: u32, eax: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, flags, eax, ecx, ..Default::default() }
    }

    #[test]
    fn only_what_is_configurable_is_passed_bit_by_bit() {
        let wanted =
            [entry(1, 0, 0, 0xffff, 0xff), entry(2, 0, 0, 1, 1), entry(0x8000_0008, 0, 0, 0x3930, 5)];
        let configurable = [
            entry(1, 0, 0, 0x0ff0, 0x0f),
            entry(3, 0, 0, u32::MAX, 0),
            entry(0x8000_0008, 0, 0, 0xff_0000, 0),
        ];
        let list = configure(&wanted, &configurable, 48);
        assert_eq!(list, [entry(1, 0, 0, 0xff0, 0xf), entry(0x8000_0008, 0, 0, 48 << 16, 0)]);
    }

    #[test]
    fn the_width_of_addresses_is_passed_even_if_kvm_has_no_leaf_for_it() {
        let list = configure(&[], &[entry(0x8000_0008, 0, 0, 0xff_00ff, 0)], 52);
        assert_eq!(list, [entry(0x8000_0008, 0, 0, 52 << 16, 0)]);
    }

    #[test]
    fn sub_leaves_are_told_apart_by_their_flag() {
        let flag = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        let wanted = [entry(7, 0, flag, 1, 0), entry(7, 1, flag, 2, 0), entry(0xb, 0, flag, 9, 0)];
        let configurable =
            [entry(7, 0, 0, u32::MAX, 0), entry(7, 1, 0, u32::MAX, 0), entry(0x1f, 0, 0, u32::MAX, 0)];
        let list = configure(&wanted, &configurable, 48);
        assert_eq!(list, [entry(7, 0, flag, 1, 0), entry(7, 1, flag, 2, 0), entry(0x1f, 0, flag, 9, 0)]);
    }

    #[test]
    fn the_modules_values_count() {
        let table = [entry(1, 0, 0, 1, 1), entry(0x4000_0000, 0, 0, 7, 7)];
        let merged = with_module(&table, &[entry(1, 0, 0, 2, 0), entry(9, 0, 0, 3, 3)]);
        assert_eq!(merged, [entry(1, 0, 0, 2, 0), entry(0x4000_0000, 0, 0, 7, 7)]);
    }
}
