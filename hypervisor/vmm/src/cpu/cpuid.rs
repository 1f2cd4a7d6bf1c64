//! CPUID as the guest sees it: what KVM supports, with one socket of `count` cores of one thread each.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Where a CPU is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    /// Its number and APIC id.
    pub(super) id: u8,
    /// How many there are.
    pub(super) count: u8,
}

/// How fast it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) tsc_khz: u32,
    pub(super) apic_bus_khz: u32,
}

impl Topology {
    /// Bits of an APIC id that number a core.
    fn core_bits(self) -> u32 {
        u32::from(self.count).next_power_of_two().trailing_zeros()
    }

    fn last(self) -> u32 {
        u32::from(self.count).saturating_sub(1)
    }
}

const LEAF_FEATURES: u32 = 0x1;
const LEAF_INTEL_CACHES: u32 = 0x4;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
/// Frequencies in kHz, a convention that began with VMware and that BSDs and newer Linux read.
const LEAF_FREQUENCIES: u32 = 0x4000_0010;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

const ECX_X2APIC: u32 = 1 << 21;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_MANY_THREADS: u32 = 1 << 28;
const AMD_ECX_MANY_CORES: u32 = 1 << 1;

/// The table for one CPU.
///
/// # Errors
/// There are more entries than KVM takes.
pub(super) fn for_guest(
    supported: &CpuId,
    topology: Topology,
    clocks: Clocks,
    deadline_timer: bool,
) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let mut entries: Vec<kvm_cpuid_entry2> = supported
        .as_slice()
        .iter()
        .filter(|entry| !replaced(entry.function))
        .map(|entry| adjust(*entry, topology, deadline_timer))
        .collect();
    entries.extend(core_topology(topology));
    entries.push(kvm_cpuid_entry2 {
        function: LEAF_FREQUENCIES,
        eax: clocks.tsc_khz,
        ebx: clocks.apic_bus_khz,
        ..Default::default()
    });
    CpuId::from_entries(&entries)
}

/// Leaves that describe the host's topology, or that [`for_guest`] makes anew.
fn replaced(leaf: u32) -> bool {
    matches!(leaf, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_AMD_TOPOLOGY_V2 | LEAF_FREQUENCIES)
}

fn adjust(mut entry: kvm_cpuid_entry2, topology: Topology, deadline_timer: bool) -> kvm_cpuid_entry2 {
    let (id, last) = (u32::from(topology.id), topology.last());
    match entry.function {
        LEAF_FEATURES => {
            entry.ebx = entry.ebx & 0xff00 | id << 24 | u32::from(topology.count) << 16 | entry.ebx & 0xff;
            entry.ecx |= ECX_HYPERVISOR | ECX_X2APIC;
            set(&mut entry.ecx, ECX_TSC_DEADLINE, deadline_timer);
            set(&mut entry.edx, EDX_MANY_THREADS, topology.count > 1);
        }
        // No sub-leaf type means that the list of caches has ended.
        LEAF_INTEL_CACHES if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 7 >= 3 { last } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14 | last << 26;
        }
        LEAF_AMD_CACHES if entry.eax & 0x1f != 0 => {
            let sharing = if entry.eax >> 5 & 7 >= 3 { last } else { 0 };
            entry.eax = entry.eax & 0x3fff | sharing << 14;
        }
        LEAF_HYPERVISOR => entry.eax = entry.eax.max(LEAF_FREQUENCIES),
        LEAF_AMD_FEATURES => set(&mut entry.ecx, AMD_ECX_MANY_CORES, topology.count > 1),
        LEAF_AMD_SIZES => entry.ecx = last | topology.core_bits() << 12,
        LEAF_AMD_TOPOLOGY => {
            entry.eax = id;
            entry.ebx = id;
            entry.ecx = 0;
        }
        _ => {}
    }
    entry
}

/// Leaf 0xB: a level of threads (one for each core), a level of cores, the end.
fn core_topology(topology: Topology) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    let level = |index: u32, kind: u32, shift: u32, processors: u32| kvm_cpuid_entry2 {
        function: LEAF_TOPOLOGY,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: processors,
        ecx: index | kind << 8,
        edx: u32::from(topology.id),
        ..Default::default()
    };
    [
        level(0, THREADS, 0, 1),
        level(1, CORES, topology.core_bits(), u32::from(topology.count)),
        level(2, 0, 0, 0),
    ]
}

fn set(register: &mut u32, bit: u32, on: bool) {
    if on { *register |= bit } else { *register &= !bit }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const CLOCKS: Clocks = Clocks { tsc_khz: 2_500_000, apic_bus_khz: 1_000_000 };

    fn host() -> CpuId {
        let leaf = |function, eax, ebx| kvm_cpuid_entry2 { function, eax, ebx, ..Default::default() };
        CpuId::from_entries(&[
            leaf(0x1, 0x0080_0f12, 0x3f10_0877),
            leaf(0xb, 1, 2),
            leaf(0x1f, 1, 2),
            leaf(0x4000_0000, 0x4000_0001, 0x4b4d_564b),
            leaf(0x8000_0008, 0x3030, 0),
            leaf(0x8000_001e, 99, 99),
            leaf(0x8000_001d, 0x0000_0163, 0),
        ])
        .unwrap()
    }

    fn find(table: &CpuId, leaf: u32, index: u32) -> kvm_cpuid_entry2 {
        *table.as_slice().iter().find(|entry| entry.function == leaf && entry.index == index).unwrap()
    }

    #[rstest]
    #[case(1, 0, 0)]
    #[case(2, 1, 1)]
    #[case(3, 2, 2)]
    #[case(64, 63, 6)]
    fn every_leaf_agrees_on_the_topology(#[case] count: u8, #[case] id: u8, #[case] bits: u32) {
        let table = for_guest(&host(), Topology { id, count }, CLOCKS, true).unwrap();
        let features = find(&table, 1, 0);
        assert_eq!(features.ebx, u32::from(id) << 24 | u32::from(count) << 16 | 0x0877);
        assert_eq!(features.ecx, ECX_X2APIC | ECX_TSC_DEADLINE | ECX_HYPERVISOR);
        assert_eq!(features.edx & EDX_MANY_THREADS != 0, count > 1);
        let cores = find(&table, 0xb, 1);
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (bits, u32::from(count), 0x201));
        assert_eq!(cores.edx, u32::from(id));
        assert_eq!(find(&table, 0x8000_0008, 0).ecx, (u32::from(count) - 1) | (bits << 12));
        assert_eq!(find(&table, 0x8000_001e, 0).eax, u32::from(id));
        assert_eq!(find(&table, 0x8000_001d, 0).eax >> 14, u32::from(count) - 1);
        assert!(!table.as_slice().iter().any(|entry| entry.function == 0x1f));
    }

    #[test]
    fn frequencies_are_within_the_hypervisor_leaves() {
        let table = for_guest(&host(), Topology { id: 0, count: 1 }, CLOCKS, false).unwrap();
        assert_eq!(find(&table, 0x4000_0000, 0).eax, 0x4000_0010);
        assert_eq!(find(&table, 0x4000_0000, 0).ebx, 0x4b4d_564b);
        let frequencies = find(&table, 0x4000_0010, 0);
        assert_eq!((frequencies.eax, frequencies.ebx), (2_500_000, 1_000_000));
        assert_eq!(find(&table, 1, 0).ecx & ECX_TSC_DEADLINE, 0);
    }
}
