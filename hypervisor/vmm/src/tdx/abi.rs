//! KVM's structures and numbers for TDX (Linux 6.16, `arch/x86/include/uapi/asm/kvm.h` and `include/uapi/linux/kvm.h`),
//! which kvm-bindings does not have yet. The assertions are offsets of those headers.

use std::mem::offset_of;

use kvm_bindings::kvm_cpuid_entry2;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `KVM_X86_TDX_VM`
pub const VM_TYPE: u32 = 5;
/// `KVM_CAP_X86_APIC_BUS_CYCLES_NS`
pub const CAP_APIC_BUS_CYCLES_NS: u32 = 237;
/// `KVM_EXIT_TDX`
pub const EXIT_TDX: u32 = 40;
/// `KVM_SYSTEM_EVENT_TDX_FATAL`
pub const EVENT_FATAL: u32 = 7;

/// `KVM_MEMORY_ENCRYPT_OP`, of a machine as of a CPU.
pub const MEMORY_ENCRYPT_OP: u64 = 0xc008_aeba;
/// `KVM_SET_TSC_KHZ`, of a machine as of a CPU.
pub const SET_TSC_KHZ: u64 = 0xaea2;
/// `KVM_GET_TSC_KHZ`
pub const GET_TSC_KHZ: u64 = 0xaea3;

/// `KVM_TDX_CAPABILITIES`, of the machine.
pub const CAPABILITIES: u32 = 0;
/// `KVM_TDX_INIT_VM`, of the machine.
pub const INIT_VM: u32 = 1;
/// `KVM_TDX_INIT_VCPU`, of a CPU.
pub const INIT_VCPU: u32 = 2;
/// `KVM_TDX_INIT_MEM_REGION`, of a CPU.
pub const INIT_MEM_REGION: u32 = 3;
/// `KVM_TDX_FINALIZE_VM`, of the machine.
pub const FINALIZE_VM: u32 = 4;
/// `KVM_TDX_GET_CPUID`, of a CPU.
pub const GET_CPUID: u32 = 5;
/// `KVM_TDX_MEASURE_MEMORY_REGION`, a flag of [`INIT_MEM_REGION`].
pub const MEASURE: u32 = 1;

/// `TDVMCALL_GET_TD_VM_CALL_INFO`
pub const CALL_INFO: u64 = 0x1_0000;
/// `TDVMCALL_GET_QUOTE`
pub const GET_QUOTE: u64 = 0x1_0002;
/// `TDVMCALL_SETUP_EVENT_NOTIFY_INTERRUPT`
pub const SETUP_EVENT_NOTIFY: u64 = 0x1_0004;

/// Attribute bit: a touch of a page that the guest has not accepted ends it, instead of an exception that a host could
/// cause at any instruction.
pub const SEPT_VE_DISABLE: u64 = 1 << 28;

/// `struct kvm_tdx_cmd`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Command {
    /// Which.
    pub id: u32,
    /// Of the command.
    pub flags: u32,
    /// A number, or an address in this process.
    pub data: u64,
    /// Zero; then the module's status.
    pub hw_error: u64,
}

/// `struct kvm_tdx_capabilities` up to its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capabilities {
    /// The attributes that a guest may have.
    pub supported_attrs: u64,
    /// The extended state that it may have.
    pub supported_xfam: u64,
    /// Optional requests of a guest that KVM serves, by GetTdVmCallInfo's bits in R11.
    pub kernel_tdvmcallinfo_1_r11: u64,
    /// Those that KVM would hand on to us.
    pub user_tdvmcallinfo_1_r11: u64,
    /// The same in R12.
    pub kernel_tdvmcallinfo_1_r12: u64,
    /// The same in R12.
    pub user_tdvmcallinfo_1_r12: u64,
    reserved: [u64; 250],
    /// How many entries follow, or have room.
    pub nent: u32,
    padding: u32,
}

impl Capabilities {
    /// A question with room for `nent` entries.
    #[must_use]
    pub fn with_room(nent: u32) -> Self {
        Self { nent, ..Self::new_zeroed() }
    }
}

/// `struct kvm_tdx_init_vm` up to its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct InitVm {
    /// The guest's attributes.
    pub attributes: u64,
    /// Its extended state, as in XCR0 and IA32_XSS.
    pub xfam: u64,
    /// MRCONFIGID.
    pub mrconfigid: [u8; 48],
    /// MROWNER.
    pub mrowner: [u8; 48],
    /// MROWNERCONFIG.
    pub mrownerconfig: [u8; 48],
    /// Zero.
    pub reserved: [u64; 12],
    /// How many entries follow.
    pub nent: u32,
    padding: u32,
}

impl InitVm {
    /// For a list of `nent` entries.
    #[must_use]
    pub fn new(attributes: u64, xfam: u64, identity: &super::Identity, nent: u32) -> Self {
        let (mrconfigid, mrowner, mrownerconfig) =
            (identity.config_id, identity.owner, identity.owner_config);
        Self { attributes, xfam, mrconfigid, mrowner, mrownerconfig, reserved: [0; 12], nent, padding: 0 }
    }
}

/// `struct kvm_cpuid2` up to its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CpuidHead {
    /// How many entries follow, or have room.
    pub nent: u32,
    padding: u32,
}

/// `struct kvm_tdx_init_mem_region`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct MemRegion {
    /// Whole pages in this process.
    pub source_addr: u64,
    /// Where they go.
    pub gpa: u64,
    /// How many.
    pub nr_pages: u64,
}

/// `kvm_run.tdx`, the union's members as words: `ret` is the first of them in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Exit {
    /// Zero.
    pub flags: u64,
    /// What the guest asks for.
    pub nr: u64,
    /// Arguments and results.
    pub words: [u64; 6],
}

const _: () = {
    assert!(size_of::<Command>() == 24 && offset_of!(Command, hw_error) == 16);
    assert!(size_of::<Capabilities>() == 2056 && offset_of!(Capabilities, nent) == 2048);
    assert!(offset_of!(Capabilities, user_tdvmcallinfo_1_r11) == 24);
    assert!(size_of::<InitVm>() == 264 && offset_of!(InitVm, nent) == 256);
    assert!(offset_of!(InitVm, mrconfigid) == 16 && offset_of!(InitVm, mrowner) == 64);
    assert!(offset_of!(InitVm, mrownerconfig) == 112 && offset_of!(InitVm, reserved) == 160);
    assert!(size_of::<CpuidHead>() == 8 && size_of::<kvm_cpuid_entry2>() == 40);
    assert!(size_of::<MemRegion>() == 24 && size_of::<Exit>() == 64);
};

/// `struct kvm_cpuid_entry2`, to copy as bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    words: [u32; 10],
}

const WORD: usize = size_of::<u64>();
const ENTRY_WORDS: usize = size_of::<Entry>() / WORD;

/// A structure with its list behind it, in one piece and aligned as KVM wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    words: Vec<u64>,
    head: usize,
}

impl Listed {
    /// A structure `H` of zeros, with room for a list of `count` entries.
    #[must_use]
    pub fn with_room<H: FromBytes + IntoBytes + Immutable>(count: usize) -> Self {
        let head = size_of::<H>() / WORD;
        Self { words: vec![0; head + count * ENTRY_WORDS], head }
    }

    /// `head` with these entries.
    #[must_use]
    pub fn new<H: IntoBytes + FromBytes + Immutable>(head: &H, entries: &[kvm_cpuid_entry2]) -> Self {
        let mut listed = Self::with_room::<H>(entries.len());
        listed.set_head(head);
        let (_, list) = listed.words.split_at_mut(listed.head);
        for (place, entry) in list.chunks_mut(ENTRY_WORDS).zip(entries) {
            let kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding } = *entry;
            let [a, b, c] = padding;
            let words = [function, index, flags, eax, ebx, ecx, edx, a, b, c];
            place.as_mut_bytes().copy_from_slice(Entry { words }.as_bytes());
        }
        listed
    }

    /// The structure before the list.
    #[must_use]
    pub fn head<H: FromBytes + IntoBytes + Immutable + FromZeros>(&self) -> H {
        H::read_from_prefix(self.words.as_bytes()).map_or_else(|_| H::new_zeroed(), |(head, _)| head)
    }

    /// Changes the structure before the list.
    pub fn set_head<H: IntoBytes + Immutable>(&mut self, head: &H) {
        // It has room: `with_room` was for the same structure.
        let _ = head.write_to_prefix(self.words.as_mut_bytes());
    }

    /// The first `count` entries of the list, as far as there is room for so many.
    #[must_use]
    pub fn entries(&self, count: u32) -> Vec<kvm_cpuid_entry2> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let list = self.words.get(self.head..).unwrap_or_default();
        let read = |words: &[u64]| {
            let Entry { words: [function, index, flags, eax, ebx, ecx, edx, a, b, c] } =
                Entry::read_from_bytes(words.as_bytes()).ok()?;
            Some(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding: [a, b, c] })
        };
        list.chunks_exact(ENTRY_WORDS).take(count).filter_map(read).collect()
    }

    /// The room of the list.
    #[must_use]
    pub fn room(&self) -> u32 {
        u32::try_from((self.words.len() - self.head) / ENTRY_WORDS).unwrap_or(u32::MAX)
    }

    /// Where it is in this process, for KVM to read and write.
    pub fn address(&mut self) -> u64 {
        self.words.as_mut_ptr() as u64
    }

    /// A pointer for KVM to read and write.
    pub fn pointer(&mut self) -> *mut u64 {
        self.words.as_mut_ptr()
    }
}

impl CpuidHead {
    /// For a list with this room.
    #[must_use]
    pub fn new(nent: u32) -> Self {
        Self { nent, padding: 0 }
    }
}
