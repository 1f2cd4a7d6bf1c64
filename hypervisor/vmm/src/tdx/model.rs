//! A model of KVM's interface for TDX with the module behind it: it refuses what they refuse (Linux 6.16,
//! `arch/x86/kvm/vmx/tdx.c`).

use std::collections::BTreeMap;
use std::sync::Mutex;

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use nacre_launch::{Measurement, Mrtd};
use nacre_stage0_abi::AddressRange;
use nix::errno::Errno;

use super::abi::{Capabilities, CpuidHead, InitVm, Listed, MemRegion};
use super::kernel::{CpuCommand, Kernel, MachineCommand, TdxStatus};
use crate::cpu::CpuError;
use crate::private::Capability;
use crate::private::model::{MemoryModel, read};

/// Commands that can be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Capabilities,
    InitVm,
    InitCpu,
    AddPages,
    Cpuid,
    Finalize,
}

/// What a test wants of the machine.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// A capability that is not there.
    pub lacks: Option<Capability>,
    /// All keys are taken.
    pub no_key: bool,
    /// Attributes that the module does not have.
    pub without_attributes: u64,
    /// Extended state that it does not have.
    pub without_xfam: u64,
    /// How many pages a call takes; zero for all.
    pub batch: u64,
    /// How often each command fails at first, and how.
    pub failures: BTreeMap<Call, (u32, TdxStatus)>,
    /// How many CPUs a machine can have; zero for 64.
    pub most_cpus: u32,
    /// The host's frequency in kHz; zero for 2.1 GHz and a bit.
    pub tsc_khz: u32,
    /// So many more values that can be configured.
    pub more_cpuid: u32,
}

/// What has become of the machine.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    pub attributes: u64,
    pub xfam: u64,
    pub config_id: Vec<u8>,
    pub cpuid: Vec<kvm_cpuid_entry2>,
    pub tsc_khz: u32,
    pub most_cpus: u32,
    pub pages: Vec<(u64, bool)>,
    pub cpus: Vec<Cpu>,
    pub measurement: Option<Measurement>,
}

/// A CPU.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    pub cpuid: Vec<kvm_cpuid_entry2>,
    pub rcx: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    split: bool,
    bus_cycle: u64,
    initialised: bool,
    mrtd: Mrtd,
    guest: Guest,
    calls: BTreeMap<Call, u32>,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Model {
    memory: MemoryModel,
    wishes: Wishes,
    state: Mutex<State>,
}

pub const ATTRIBUTES: u64 = 1 << 28 | 1 << 63;
pub const XFAM: u64 = 0xe7 | 1 << 9 | 3 << 11 | 1 << 15 | 3 << 17;
/// What the module puts into a leaf, whatever was configured.
pub const FIXED: u32 = 0x8000_0000;

fn status(errno: Errno) -> TdxStatus {
    TdxStatus { errno, module: 0 }
}

/// TDX_OPERAND_INVALID with an operand's number.
fn invalid(operand: u64) -> TdxStatus {
    TdxStatus { errno: Errno::EINVAL, module: 0xc000_0100_0000_0000 | operand }
}

fn leaf(function: u32, index: u32, value: u32) -> kvm_cpuid_entry2 {
    let (eax, ebx, ecx, edx) = (value, value, value, value);
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

impl Model {
    pub fn new(wishes: Wishes) -> Self {
        let memory = MemoryModel::without(wishes.lacks);
        Self { memory, wishes, state: Mutex::default() }
    }

    pub fn guest(&self) -> Guest {
        self.state.lock().unwrap().guest.clone()
    }

    pub fn calls(&self, call: Call) -> u32 {
        self.state.lock().unwrap().calls.get(&call).copied().unwrap_or_default()
    }

    pub fn is_prepared(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.split && state.bus_cycle == 40 && self.memory.hypercalls() == 1 << 12
    }

    /// As KVM reports it: no flags, index 0 where there are no sub-leaves.
    fn configurable(&self) -> Vec<kvm_cpuid_entry2> {
        let mut list =
            vec![leaf(1, 0, 0x00ff_ffff), leaf(7, 0, 0x0fff_ffff), leaf(7, 1, 0xff), leaf(0x1f, 0, 0xff)];
        list.push(kvm_cpuid_entry2 { eax: 0x00ff_0000, ..leaf(0x8000_0008, 0, 0) });
        list.extend((0..self.wishes.more_cpuid).map(|number| leaf(0x2000_0000 + number, 0, 0)));
        list
    }

    /// Fails the first calls of a command as the test wants.
    fn interrupted(&self, state: &mut State, call: Call) -> Result<(), TdxStatus> {
        let count = state.calls.entry(call).or_default();
        *count += 1;
        match self.wishes.failures.get(&call) {
            Some((times, status)) if *count <= *times => Err(*status),
            _ => Ok(()),
        }
    }

    fn init(&self, state: &mut State, list: &Listed) -> Result<(), TdxStatus> {
        let head: InitVm = list.head();
        if state.initialised || !state.guest.cpus.is_empty() {
            return Err(status(Errno::EINVAL));
        }
        if head.reserved != [0; 12] || head.nent > 256 {
            return Err(status(Errno::EINVAL));
        }
        let supported = ATTRIBUTES & !self.wishes.without_attributes;
        if head.attributes & !supported != 0 {
            return Err(status(Errno::EINVAL));
        }
        if head.xfam & !(XFAM & !self.wishes.without_xfam) != 0 || head.xfam & 3 != 3 {
            return Err(status(Errno::EINVAL));
        }
        // All of AVX-512, CET and AMX or nothing, and AVX-512 not without AVX.
        let group = |mask: u64| head.xfam & mask == 0 || head.xfam & mask == mask;
        if !group(7 << 5)
            || !group(3 << 11)
            || !group(3 << 17)
            || head.xfam & 7 << 5 != 0 && head.xfam & 4 == 0
        {
            return Err(invalid(2));
        }
        let entries = list.entries(head.nent);
        self.take_cpuid(&entries)?;
        if self.wishes.no_key {
            return Err(status(Errno::ENOSPC));
        }
        state.initialised = true;
        state.guest.attributes = head.attributes;
        state.guest.xfam = head.xfam;
        state.guest.config_id = head.mrconfigid.to_vec();
        state.guest.cpuid = entries;
        Ok(())
    }

    /// KVM looks each value up that can be configured, and wants to have used every entry. Its search takes the first entry
    /// of a function whose flag is not set, whatever the index.
    fn take_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), TdxStatus> {
        let mut used = 0;
        let mut width = 0;
        for mask in self.configurable() {
            let found = entries.iter().find(|entry| {
                let flagged = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
                entry.function == mask.function && (!flagged || entry.index == mask.index)
            });
            let Some(entry) = found else { continue };
            used += 1;
            let beyond =
                [entry.eax & !mask.eax, entry.ebx & !mask.ebx, entry.ecx & !mask.ecx, entry.edx & !mask.edx];
            if beyond != [0; 4] {
                return Err(invalid(u64::from(entry.function)));
            }
            if entry.function == 0x8000_0008 {
                width = entry.eax >> 16 & 0xff;
            }
        }
        if used != entries.len() || !matches!(width, 48 | 52) {
            return Err(status(Errno::EINVAL));
        }
        Ok(())
    }

    fn add_pages(&self, state: &mut State, region: &mut MemRegion, measure: bool) -> Result<(), TdxStatus> {
        let range = region.nr_pages.checked_mul(4096).and_then(|len| AddressRange::new(region.gpa, len));
        let range =
            range.filter(|range| range.is_page_aligned() && range.len() != 0).ok_or(status(Errno::EINVAL))?;
        let source = region.source_addr;
        if !state.initialised
            || state.guest.measurement.is_some()
            || source == 0
            || !source.is_multiple_of(4096)
        {
            return Err(status(Errno::EINVAL));
        }
        if !self.memory.has(range) || range.end() > 1 << 47 {
            return Err(status(Errno::EINVAL));
        }
        let mut done = 0;
        while region.nr_pages > 0 {
            if self.wishes.batch != 0 && done == self.wishes.batch {
                return Err(status(Errno::EINTR));
            }
            if !self.memory.is_private(region.gpa) {
                return Err(status(Errno::EFAULT));
            }
            if state.guest.pages.iter().any(|(gpa, _)| *gpa == region.gpa) {
                return Err(TdxStatus { errno: Errno::EIO, module: 0xc000_0b0a_0000_0000 });
            }
            let content: [u8; 4096] = read(region.source_addr);
            state.mrtd.add_page(region.gpa, measure.then_some(&content));
            state.guest.pages.push((region.gpa, measure));
            region.gpa += 4096;
            region.source_addr += 4096;
            region.nr_pages -= 1;
            done += 1;
        }
        Ok(())
    }
}

/// Fills a list, or says how long it would be.
fn fill<H>(list: &mut Listed, room: u32, entries: &[kvm_cpuid_entry2], head: &H) -> Result<(), TdxStatus>
where
    H: zerocopy::FromBytes + zerocopy::IntoBytes + zerocopy::Immutable,
{
    if usize::try_from(room).unwrap() < entries.len() {
        return Err(status(Errno::E2BIG));
    }
    assert!(room <= list.room(), "KVM would write behind the list");
    *list = Listed::new(head, entries);
    Ok(())
}

impl Kernel for Model {
    type Cpu = usize;
    type Memory = MemoryModel;

    fn memory(&self) -> &MemoryModel {
        &self.memory
    }

    fn split_irqchip(&self) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        if state.split || !state.guest.cpus.is_empty() {
            return Err(Errno::EEXIST);
        }
        state.split = true;
        Ok(())
    }

    fn set_apic_bus_cycle(&self, nanoseconds: u64) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        if nanoseconds == 0 || !state.guest.cpus.is_empty() || !state.split {
            return Err(Errno::EINVAL);
        }
        state.bus_cycle = nanoseconds;
        Ok(())
    }

    fn tsc_khz(&self) -> Result<u32, Errno> {
        Ok(if self.wishes.tsc_khz == 0 { 2_112_003 } else { self.wishes.tsc_khz })
    }

    fn set_tsc_khz(&self, khz: u32) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        if state.initialised || !(100_000..=10_000_000).contains(&khz) || !khz.is_multiple_of(25_000) {
            return Err(Errno::EINVAL);
        }
        state.guest.tsc_khz = khz;
        Ok(())
    }

    fn most_cpus(&self) -> u32 {
        if self.wishes.most_cpus == 0 { 64 } else { self.wishes.most_cpus }
    }

    fn set_most_cpus(&self, count: u32) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap();
        if count == 0 || count > self.most_cpus() || !state.guest.cpus.is_empty() {
            return Err(Errno::EINVAL);
        }
        state.guest.most_cpus = count;
        Ok(())
    }

    fn machine(&self, command: MachineCommand<'_>) -> Result<(), TdxStatus> {
        let mut state = self.state.lock().unwrap();
        match command {
            MachineCommand::Capabilities(list) => {
                self.interrupted(&mut state, Call::Capabilities)?;
                let asked: Capabilities = list.head();
                let entries = self.configurable();
                let mut head = Capabilities::with_room(u32::try_from(entries.len()).unwrap());
                head.supported_attrs = ATTRIBUTES & !self.wishes.without_attributes;
                head.supported_xfam = XFAM & !self.wishes.without_xfam;
                head.user_tdvmcallinfo_1_r11 = 2;
                fill(list, asked.nent, &entries, &head)
            }
            MachineCommand::Init(list) => {
                self.interrupted(&mut state, Call::InitVm)?;
                self.init(&mut state, list)
            }
            MachineCommand::Finalize => {
                self.interrupted(&mut state, Call::Finalize)?;
                if !state.initialised || state.guest.measurement.is_some() {
                    return Err(status(Errno::EINVAL));
                }
                state.guest.measurement = Some(state.mrtd.clone().finish());
                Ok(())
            }
        }
    }

    fn cpuid(&self, id: u8) -> Result<Vec<kvm_cpuid_entry2>, CpuError> {
        let flag = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        let mut list = vec![leaf(1, 0, 0x0020_1234), leaf(2, 0, u32::MAX)];
        list.extend([0, 1].map(|index| kvm_cpuid_entry2 { flags: flag, ..leaf(7, index, u32::MAX) }));
        list.push(kvm_cpuid_entry2 { flags: flag, ..leaf(0xb, 0, id.into()) });
        list.push(leaf(0x8000_0008, 0, 0x0034));
        Ok(list)
    }

    fn create_cpu(&self, id: u8) -> Result<usize, CpuError> {
        let failed = |errno| CpuError::new(id, "KVM_CREATE_VCPU", errno);
        let mut state = self.state.lock().unwrap();
        if !state.split || !state.initialised {
            return Err(failed(Errno::EINVAL));
        }
        if u32::from(id) >= state.guest.most_cpus {
            return Err(failed(Errno::E2BIG));
        }
        state.guest.cpus.push(Cpu::default());
        Ok(state.guest.cpus.len() - 1)
    }

    fn set_cpuid(&self, cpu: &usize, _id: u8, entries: &[kvm_cpuid_entry2]) -> Result<(), CpuError> {
        self.state.lock().unwrap().guest.cpus[*cpu].cpuid = entries.to_vec();
        Ok(())
    }

    fn cpu(&self, cpu: &usize, command: CpuCommand<'_>) -> Result<(), TdxStatus> {
        let mut state = self.state.lock().unwrap();
        if !state.initialised {
            return Err(status(Errno::EINVAL));
        }
        match command {
            CpuCommand::Init(rcx) => {
                self.interrupted(&mut state, Call::InitCpu)?;
                let finished = state.guest.measurement.is_some();
                let this = &mut state.guest.cpus[*cpu];
                let x2apic = this.cpuid.iter().any(|entry| entry.function == 1 && entry.ecx & 1 << 21 != 0);
                if this.rcx.is_some() || finished || !x2apic {
                    return Err(status(Errno::EINVAL));
                }
                this.rcx = Some(rcx);
                Ok(())
            }
            CpuCommand::AddPages { region, measure } => {
                self.interrupted(&mut state, Call::AddPages)?;
                if state.guest.cpus[*cpu].rcx.is_none() {
                    return Err(status(Errno::EINVAL));
                }
                self.add_pages(&mut state, region, measure)
            }
            CpuCommand::Cpuid(list) => {
                self.interrupted(&mut state, Call::Cpuid)?;
                let fix = |entry: &kvm_cpuid_entry2| kvm_cpuid_entry2 { eax: entry.eax | FIXED, ..*entry };
                let mut entries: Vec<kvm_cpuid_entry2> = state.guest.cpuid.iter().map(fix).collect();
                entries.extend((0..self.wishes.more_cpuid).map(|number| leaf(0x2000_0000 + number, 0, 0)));
                let asked: CpuidHead = list.head();
                fill(list, asked.nent, &entries, &CpuidHead::new(u32::try_from(entries.len()).unwrap()))
            }
        }
    }
}
