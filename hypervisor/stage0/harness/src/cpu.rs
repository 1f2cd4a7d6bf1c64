//! A CPU: its first state, and what it runs into.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use nacre_launch::{CpuState, Segment};
use nacre_stage0_abi::step::STEP_PORT;
use nacre_stage0_abi::stop::{STOP_PORT, Stop};
use nacre_stage0_abi::{layout, tdx};

use crate::error::{Error, kvm};
use crate::image::{PVALIDATE_PORT, TDCALL_PORT, VMGEXIT_PORT};
use crate::launch::{KERNEL_PORT, WOKEN_PORT};
use crate::machine::{EFER, GHCB, Machine, SEV_STATUS};
use crate::model::{Called, Model, Technology};

/// How a CPU ended.
#[derive(Debug)]
pub enum Ended {
    /// It runs the kernel, with these registers.
    Kernel(Box<(kvm_regs, kvm_sregs)>),
    /// The kernel woke it.
    Woken(Box<(kvm_regs, kvm_sregs)>),
    /// stage0 said why it stops.
    Stopped(Stop),
    /// What would end a guest on hardware.
    Fatal(String),
}

/// A CPU that can be run.
pub struct Cpu {
    index: u32,
    vcpu: VcpuFd,
    machine: Arc<Machine>,
    model: Arc<Mutex<Model>>,
    technology: Technology,
    /// What SEV-SNP's 32-bit code still sees.
    early: Early,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Early {
    All,
    Rest,
    Nothing,
}

/// What KVM stopped at, without its borrow of the CPU.
enum Stopped {
    Out(u16, u32),
    ReadMsr,
    WriteMsr(u32, u64),
    Fatal(String),
    Again,
    Closed,
}

impl Cpu {
    /// CPU `index` in a first state.
    pub fn new(
        machine: &Arc<Machine>,
        model: &Arc<Mutex<Model>>,
        index: u32,
        state: &CpuState,
    ) -> Result<Self, Error> {
        let vcpu = machine.vm.create_vcpu(index.into()).map_err(kvm("KVM_CREATE_VCPU"))?;
        let technology = lock(model).technology;
        vcpu.set_cpuid2(&cpuid(machine, technology)?).map_err(kvm("KVM_SET_CPUID2"))?;
        let early = Early::All;
        let mut cpu = Self { index, vcpu, machine: machine.clone(), model: model.clone(), technology, early };
        cpu.set(state)?;
        Ok(cpu)
    }

    /// Puts the CPU into a state; also a second time.
    pub fn set(&mut self, state: &CpuState) -> Result<(), Error> {
        let mut special = self.vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
        special.cs = segment(state.cs);
        for (place, from) in [
            (&mut special.ds, state.ds),
            (&mut special.es, state.es),
            (&mut special.fs, state.fs),
            (&mut special.gs, state.gs),
            (&mut special.ss, state.ss),
            (&mut special.ldt, state.ldtr),
            (&mut special.tr, state.tr),
        ] {
            *place = segment(from);
        }
        (special.gdt.base, special.gdt.limit) = (state.gdtr.base, state.gdtr.limit);
        (special.idt.base, special.idt.limit) = (state.idtr.base, state.idtr.limit);
        (special.cr0, special.cr3, special.cr4) = (state.cr0, state.cr3, state.cr4);
        special.efer = state.efer;
        self.vcpu.set_sregs(&special).map_err(kvm("KVM_SET_SREGS"))?;
        let general = state.general;
        let registers = kvm_regs {
            rsi: general.rsi,
            rdi: general.rdi,
            rip: state.rip,
            rflags: state.rflags,
            ..Default::default()
        };
        self.vcpu.set_regs(&registers).map_err(kvm("KVM_SET_REGS"))?;
        let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
        self.vcpu.set_fpu(&fpu).map_err(kvm("KVM_SET_FPU"))
    }

    /// Runs the CPU to its end.
    pub fn run(&mut self) -> Result<Ended, Error> {
        loop {
            let stopped = self.until_exit()?;
            let ended = match stopped {
                Stopped::Out(port, value) => self.out(port, value)?,
                Stopped::WriteMsr(number, value) => self.write_msr(number, value)?,
                Stopped::Fatal(what) => Some(Ended::Fatal(what)),
                Stopped::ReadMsr | Stopped::Again => None,
                Stopped::Closed if lock(&self.model).open_next()? => None,
                Stopped::Closed => Some(Ended::Fatal("touches memory that is not in use".into())),
            };
            match ended {
                Some(Ended::Fatal(what)) => {
                    let registers = self.vcpu.get_regs().map_err(kvm("KVM_GET_REGS"))?;
                    let special = self.vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
                    let (rip, rsp, cr0, efer) = (registers.rip, registers.rsp, special.cr0, special.efer);
                    return Ok(Ended::Fatal(format!(
                        "{what}, RIP {rip:#x}, RSP {rsp:#x}, CR0 {cr0:#x}, EFER {efer:#x}"
                    )));
                }
                Some(ended) => return Ok(ended),
                None => {}
            }
        }
    }

    fn until_exit(&mut self) -> Result<Stopped, Error> {
        let (technology, sev_status) = (self.technology, lock(&self.model).sev_status);
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let mut value = [0; 4];
                value.iter_mut().zip(data).for_each(|(place, byte)| *place = *byte);
                Ok(Stopped::Out(port, u32::from_le_bytes(value)))
            }
            Ok(VcpuExit::X86Rdmsr(exit)) if technology != Technology::Tdx => {
                *exit.data = match exit.index {
                    // As it is at the reset vector: only the first read of it is before paging.
                    EFER => 0,
                    SEV_STATUS => sev_status,
                    other => return Ok(Stopped::Fatal(format!("reads MSR {other:#x}"))),
                };
                Ok(Stopped::ReadMsr)
            }
            Ok(VcpuExit::X86Wrmsr(exit)) if technology != Technology::Tdx => {
                Ok(Stopped::WriteMsr(exit.index, exit.data))
            }
            Ok(VcpuExit::Intr) => Ok(Stopped::Again),
            // A KVM that interprets the instruction takes closed memory for a device.
            Ok(VcpuExit::MmioRead(address, data)) => {
                read_closed(&self.model, address, self.machine.bit, data)
            }
            Ok(VcpuExit::MmioWrite(address, _)) => {
                Ok(Stopped::Fatal(nowhere(&self.model, address, self.machine.bit)))
            }
            Ok(other) => Ok(Stopped::Fatal(format!("{other:?}"))),
            Err(error) if error.errno() == libc::EFAULT => Ok(Stopped::Closed),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => Ok(Stopped::Again),
            Err(source) => Err(Error::Kvm { what: "KVM_RUN", source }),
        }
    }

    fn out(&mut self, port: u16, value: u32) -> Result<Option<Ended>, Error> {
        let special = self.vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
        let mut registers = self.vcpu.get_regs().map_err(kvm("KVM_GET_REGS"))?;
        if self.early == Early::Rest && special.cr3 >> self.machine.bit & 1 == 1 {
            self.machine.hide_early_rest(&lock(&self.model).memory)?;
            self.early = Early::Nothing;
        }
        let long_mode = special.efer & 1 << 10 != 0 && special.cs.l == 1;
        let answer = match (port, self.technology) {
            (KERNEL_PORT, _) => return Ok(Some(Ended::Kernel(Box::new((registers, special))))),
            (WOKEN_PORT, _) => return Ok(Some(Ended::Woken(Box::new((registers, special))))),
            (STOP_PORT, Technology::Plain) => {
                let stop = Stop::from_port(value);
                return Ok(Some(
                    stop.map_or_else(|| Ended::Fatal(format!("stop {value:#x}")), Ended::Stopped),
                ));
            }
            (STEP_PORT, Technology::Plain) => Ok(()),
            (tdx::EXTEND_PORT, Technology::Plain) => lock(&self.model).extend_by_port(value),
            (PVALIDATE_PORT, Technology::Snp) => lock(&self.model).pvalidate(self.index, &mut registers),
            (VMGEXIT_PORT, Technology::Snp) => {
                return Ok(Some(lock(&self.model).vmgexit().map_or_else(Ended::Fatal, Ended::Stopped)));
            }
            (TDCALL_PORT, Technology::Tdx) if long_mode => {
                match lock(&self.model).tdcall(self.index, &mut registers) {
                    Ok(Called::Stopped(stop)) => return Ok(Some(Ended::Stopped(stop))),
                    Ok(Called::On) => Ok(()),
                    Err(what) => Err(what),
                }
            }
            _ => Err(format!("writes {value:#x} to port {port:#x}, long mode: {long_mode}")),
        };
        if let Err(what) = answer {
            return Ok(Some(Ended::Fatal(what)));
        }
        // RIP is left as it is: KVM knows whether it has skipped the instruction.
        self.vcpu.set_regs(&registers).map_err(kvm("KVM_SET_REGS"))?;
        Ok(None)
    }

    fn write_msr(&mut self, number: u32, value: u64) -> Result<Option<Ended>, Error> {
        let mut model = lock(&self.model);
        match number {
            EFER => {
                let mut special = self.vcpu.get_sregs().map_err(kvm("KVM_GET_SREGS"))?;
                special.efer = value;
                self.vcpu.set_sregs(&special).map_err(kvm("KVM_SET_SREGS"))?;
                // A KVM that interprets the instruction may come here twice.
                if self.technology == Technology::Snp && self.early == Early::All {
                    if let Err(what) = first_tables(&mut model, self.machine.bit) {
                        return Ok(Some(Ended::Fatal(what)));
                    }
                    self.machine.hide_early_memory(&model.memory)?;
                    self.early = Early::Rest;
                }
                Ok(None)
            }
            GHCB if self.technology == Technology::Snp => {
                model.ghcb = value;
                Ok(None)
            }
            other => Ok(Some(Ended::Fatal(format!("writes {value:#x} to MSR {other:#x}")))),
        }
    }
}

/// What touching an address means where no memory is.
fn nowhere(model: &Mutex<Model>, address: u64, bit: u32) -> String {
    let gpa = address & !(1 << bit);
    match lock(model).memory.has(gpa) {
        true => format!("touches memory that is not in use or not so marked: {address:#x}"),
        false => format!("touches {address:#x}, which is nowhere"),
    }
}

/// A read of closed memory that KVM leaves to us: the window's next page, or something fatal.
fn read_closed(shared: &Mutex<Model>, address: u64, bit: u32, data: &mut [u8]) -> Result<Stopped, Error> {
    let offset = (address & !(1 << bit)).checked_sub(layout::SHARED_WINDOW.start());
    let offset = offset.and_then(|offset| usize::try_from(offset).ok());
    let mut model = lock(shared);
    if let Some(offset) = offset.filter(|offset| *offset < model.memory.window.len())
        && model.open_next()?
        && let Some(bytes) = model.memory.window.read(offset, data.len())
    {
        data.copy_from_slice(&bytes);
        return Ok(Stopped::Again);
    }
    drop(model);
    Ok(Stopped::Fatal(nowhere(shared, address, bit)))
}

/// The entry's page tables must have the encryption bit wherever they lead.
fn first_tables(model: &mut Model, bit: u32) -> Result<(), String> {
    let len = usize::try_from(layout::PAGE_TABLE_PAGES * 4096).unwrap_or(0);
    let tables = model.memory.read(layout::PAGE_TABLES, len).ok_or("page tables are not in use")?;
    let (entries, _) = tables.as_chunks::<8>();
    let wrong = entries
        .iter()
        .map(|entry| u64::from_le_bytes(*entry))
        .find(|entry| *entry & 1 != 0 && *entry >> bit & 1 == 0);
    wrong.map_or(Ok(()), |entry| Err(format!("page table entry {entry:#x} without the encryption bit")))
}

/// The model, whatever became of a thread that had it.
pub fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cpuid(machine: &Machine, technology: Technology) -> Result<CpuId, Error> {
    let mut cpuid = machine.cpuid();
    if technology == Technology::Tdx
        && let Ok(list) = &mut cpuid
    {
        let [ebx, edx, ecx] = tdx::CPUID_SIGNATURE;
        let entry = kvm_cpuid_entry2 { function: tdx::CPUID_LEAF, ebx, ecx, edx, ..Default::default() };
        // Processors whose own list is shorter answer with their last leaf.
        if let Some(first) = list.as_mut_slice().iter_mut().find(|entry| entry.function == 0) {
            first.eax = first.eax.max(tdx::CPUID_LEAF);
        }
        list.push(entry).map_err(|error| Error::Pages(format!("CPUID: {error:?}")))?;
    }
    cpuid
}

/// A segment as KVM has it: the attributes' bits in fields of their own.
fn segment(from: Segment) -> kvm_segment {
    let bits = |low: u32, count: u32| {
        let mask = (1u16 << count) - 1;
        u8::try_from(from.attributes >> low & mask).unwrap_or(0)
    };
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: bits(0, 4),
        s: bits(4, 1),
        dpl: bits(5, 2),
        present: bits(7, 1),
        avl: bits(8, 1),
        l: bits(9, 1),
        db: bits(10, 1),
        g: bits(11, 1),
        ..Default::default()
    }
}
