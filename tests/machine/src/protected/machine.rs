//! A software-protected machine that the VMM's code serves.

use std::sync::Arc;

use kvm_bindings::KVM_X86_SW_PROTECTED_VM;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nacre_control::StopReason;
use nacre_launch::CpuState;
use nacre_stage0_abi::AddressRange;
use nacre_vmm::cpu::{self, CpuModel, Exits};
use nacre_vmm::devices::MmioBus;
use nacre_vmm::ports::Ports;
use nacre_vmm::private::{self, Asked, KvmMemory, PrivateMemory, Region};
use nacre_vmm::reports::Reporter;
use nacre_vmm::unsafe_mapping::Mapping;

use super::program::{END_STAGE, Program};
use crate::case::{Failure, said};

/// RAM of 16 MiB from address 0.
pub const RAM: u64 = 16 << 20;
/// Where the program is. Its pages are shared: the host writes them.
const CODE: u64 = 0x1000;
/// Memory without a private side, as the shared window is.
pub const WINDOW: u64 = 0xc000_0000;

/// A machine.
pub struct Machine {
    pub memory: Arc<PrivateMemory>,
    pub vm: Arc<VmFd>,
    pub cpus: Vec<VcpuFd>,
    shared: Mapping,
    _window: Mapping,
}

impl Machine {
    /// A machine with this many CPUs.
    pub fn new(kvm: &Kvm, vcpus: u8) -> Result<Self, Failure> {
        let vm = kvm.create_vm_with_type(KVM_X86_SW_PROTECTED_VM.into()).map_err(said("KVM_CREATE_VM"))?;
        let vm = Arc::new(vm);
        let kernel = KvmMemory(Arc::clone(&vm));
        private::exit_on_conversions(&kernel).map_err(|(request, errno)| format!("{request}: {errno}"))?;
        vm.create_irq_chip().map_err(said("KVM_CREATE_IRQCHIP"))?;
        let shared = Mapping::zeros(usize::try_from(RAM).map_err(said("RAM"))?).map_err(said("mmap"))?;
        let range = AddressRange::new(0, RAM).ok_or("no RAM")?;
        let region = Region { range, shared_address: shared.address() };
        let region = private::add_region(&kernel, 0, &region)
            .map_err(|(request, errno)| format!("{request}: {errno}"))?;
        let memory = Arc::new(PrivateMemory::new(vec![region], Box::new(kernel)));
        let window = Mapping::zeros(4096).map_err(said("mmap"))?;
        nacre_vmm::add_mapping(&vm, 1, WINDOW, &window).map_err(said("the window"))?;
        let model = CpuModel::of_host(kvm, vcpus).map_err(said("CPUs"))?;
        let cpus =
            (0..vcpus).map(|id| model.create(&vm, id).map_err(said("a CPU"))).collect::<Result<_, _>>()?;
        Ok(Self { memory, vm, cpus, shared, _window: window })
    }

    /// Puts a program into memory and CPU 0 at its start.
    pub fn load(&mut self, program: &Program) -> Result<(), Failure> {
        let pages = (program.code().len() as u64).div_ceil(4096);
        self.memory.convert(CODE, pages, false).map_err(said("converting the program's pages"))?;
        let mut page = vec![0; usize::try_from(CODE).map_err(said("an address"))?];
        page.extend(program.code());
        self.shared.fill(&page).ok_or("the program is too long")?;
        let mut state = CpuState::stage0_plain(0);
        state.rip = CODE;
        let first = self.cpus.first().ok_or("there is no CPU")?;
        cpu::state::set(first, 0, &state).map_err(said("the first state"))
    }

    /// Runs CPU 0 until the program ends, and gives the number with which it did.
    pub fn run(&mut self, program: &Program) -> Result<u8, Failure> {
        match self.run_to_end(program)? {
            StopReason::Stage0 { stage: END_STAGE, code, .. } => Ok(code),
            other => Err(format!("the program ended otherwise: {other}")),
        }
    }

    /// Runs CPU 0 until something ends the machine.
    pub fn run_to_end(&mut self, program: &Program) -> Result<StopReason, Failure> {
        self.load(program)?;
        let (reporter, _reports, _bell) = Reporter::new().map_err(said("reports"))?;
        let exits = Exits {
            ports: Arc::new(Ports::new(reporter, true)),
            bus: Arc::new(MmioBus::default()),
            conversions: Some(Arc::new(Asked::new(Arc::clone(&self.memory)))),
            requests: None,
            certificates: None,
        };
        if self.cpus.is_empty() {
            return Err("there is no CPU".to_owned());
        }
        Ok(cpu::run(self.cpus.remove(0), 0, &exits))
    }

    /// The word that the host sees at a guest's address.
    pub fn shared_word(&self, gpa: u64) -> Result<u32, Failure> {
        let page = self.shared.page(usize::try_from(gpa & !0xfff).map_err(said("an address"))?);
        let offset = usize::try_from(gpa & 0xfff).map_err(said("an address"))?;
        let word = page.as_ref().and_then(|page| page.get(offset..)?.first_chunk());
        word.map(|word| u32::from_le_bytes(*word)).ok_or_else(|| "no such address".to_owned())
    }
}

/// Bytes of this process that are in memory: the shared side of a machine is among them.
pub fn resident_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(said("/proc/self/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map(|pages| pages * 4096).ok_or_else(|| format!("/proc/self/statm says {text}"))
}

/// Bytes of files that the host keeps in memory. Private memory is a file, and it is counted nowhere else: a guest_memfd says
/// of itself that it has no blocks.
pub fn cached_bytes() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(said("/proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Cached:")).unwrap_or_default();
    let kib = line.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| format!("/proc/meminfo says {line:?}"))
}
