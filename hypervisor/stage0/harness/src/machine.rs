//! A virtual machine with memory as stage0 must see it.

use kvm_bindings::{
    CpuId, KVM_CAP_X86_USER_SPACE_MSR, KVM_MAX_CPUID_ENTRIES, KVM_MSR_EXIT_REASON_FILTER, kvm_enable_cap,
};
use kvm_ioctls::{Kvm, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use nacre_stage0_abi::layout;

use crate::error::{Error, kvm};
use crate::launch::HIGH;
use crate::model::{Memory, Technology};

/// EFER, whose writes show when paging comes.
pub const EFER: u32 = 0xc000_0080;
/// The GHCB's MSR.
pub const GHCB: u32 = 0xc001_0130;
/// What says whether a guest is one of SEV-SNP's.
pub const SEV_STATUS: u32 = 0xc001_0131;

/// KVM and a machine of it.
pub struct Machine {
    pub kvm: Kvm,
    pub vm: VmFd,
    /// The bit that marks pages.
    pub bit: u32,
}

fn supported(kvm_fd: &Kvm) -> Result<CpuId, Error> {
    kvm_fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(kvm("KVM_GET_SUPPORTED_CPUID"))
}

/// The memory slots. Those with `Early` are what SEV-SNP's 32-bit code sees: everything is private without paging.
#[derive(Clone, Copy)]
enum Slot {
    Low,
    High,
    Image,
    Window,
    EarlyBeforeRoot,
    EarlyRoot,
    EarlyBehindRoot,
    EarlyImage,
}

const ROOT: usize = 0x9000;
const EARLY: usize = 2 << 20;
const PAGE: usize = 4096;

impl Machine {
    /// A machine without memory, at whose MSR accesses that matter KVM stops.
    pub fn new() -> Result<Self, Error> {
        let kvm_fd = Kvm::new().map_err(kvm("/dev/kvm"))?;
        let vm = kvm_fd.create_vm().map_err(kvm("KVM_CREATE_VM"))?;
        let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..Default::default() };
        cap.args[0] = KVM_MSR_EXIT_REASON_FILTER.into();
        vm.enable_cap(&cap).map_err(kvm("KVM_CAP_X86_USER_SPACE_MSR"))?;
        let range = |base, msr_count| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base,
            msr_count,
            bitmap: &[0; 0x400],
        };
        let ranges = [range(0, 0x800), range(EFER, 0x100), range(GHCB, 2)];
        vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges).map_err(kvm("KVM_X86_SET_MSR_FILTER"))?;
        // The highest address bit, so that memory can be there with it and without it.
        let cpuid = supported(&kvm_fd)?;
        let width = cpuid.as_slice().iter().find(|entry| entry.function == 0x8000_0008);
        let width = width.map_or(36, |entry| entry.eax & 0xff);
        Ok(Self { kvm: kvm_fd, vm, bit: width.min(52) - 1 })
    }

    /// What the processor says of itself to the guest.
    pub fn cpuid(&self) -> Result<CpuId, Error> {
        supported(&self.kvm)
    }

    /// Shows the memory as the technology has it at the reset vector.
    pub fn show(&self, memory: &Memory, technology: Technology) -> Result<(), Error> {
        let mark = 1 << self.bit;
        let (private, shared) = match technology {
            Technology::Plain => (0, 0),
            Technology::Snp => (mark, 0),
            Technology::Tdx => (0, mark),
        };
        let vm = &self.vm;
        let window = layout::SHARED_WINDOW.start();
        memory.low.show(vm, Slot::Low as u32, private, 0, memory.low.len())?;
        memory.high.show(vm, Slot::High as u32, HIGH.0 | private, 0, memory.high.len())?;
        memory.image.show(vm, Slot::Image as u32, memory.image_start() | private, 0, memory.image.len())?;
        memory.window.show(vm, Slot::Window as u32, window | shared, 0, memory.window.len())?;
        if technology == Technology::Snp {
            memory.low.show(vm, Slot::EarlyBeforeRoot as u32, 0, 0, ROOT)?;
            memory.low.show(vm, Slot::EarlyRoot as u32, ROOT as u64, ROOT, PAGE)?;
            let behind = ROOT + PAGE;
            memory.low.show(vm, Slot::EarlyBehindRoot as u32, behind as u64, behind, EARLY - behind)?;
            self.show_early_image(memory)?;
        }
        Ok(())
    }

    /// What 32-bit code of SEV-SNP still needs when paging is about to be turned on: the image, and the first page
    /// table, which the processor reads as private memory whatever CR3 says.
    pub fn hide_early_memory(&self, memory: &Memory) -> Result<(), Error> {
        memory.low.show(&self.vm, Slot::EarlyBeforeRoot as u32, 0, 0, 0)?;
        memory.low.show(&self.vm, Slot::EarlyBehindRoot as u32, 0, 0, 0)
    }

    /// From here on only private addresses lead to private memory.
    pub fn hide_early_rest(&self, memory: &Memory) -> Result<(), Error> {
        memory.low.show(&self.vm, Slot::EarlyRoot as u32, 0, 0, 0)?;
        memory.image.show(&self.vm, Slot::EarlyImage as u32, 0, 0, 0)
    }

    /// The image as a CPU without paging sees it.
    pub fn show_early_image(&self, memory: &Memory) -> Result<(), Error> {
        let image = &memory.image;
        image.show(&self.vm, Slot::EarlyImage as u32, memory.image_start(), 0, image.len())
    }
}
