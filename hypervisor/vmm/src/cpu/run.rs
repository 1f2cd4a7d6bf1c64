//! A CPU's life: enter the guest, serve its exit, enter again.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nacre_control::StopReason;

use crate::devices::MmioBus;
use crate::ports::Ports;
use crate::unsafe_kernel;

/// `KVM_SYSTEM_EVENT_*`
const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;

/// Runs the CPU until something ends the machine.
pub fn run(mut vcpu: VcpuFd, ports: &Ports, bus: &Arc<MmioBus>) -> StopReason {
    loop {
        if let Some(reason) = step(&mut vcpu, ports, bus) {
            return reason;
        }
    }
}

fn step(vcpu: &mut VcpuFd, ports: &Ports, bus: &MmioBus) -> Option<StopReason> {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return None,
        Err(error) => return Some(StopReason::Failed(format!("KVM_RUN failed: {error}"))),
    };
    match exit {
        VcpuExit::MmioRead(address, data) => bus.read(address, data),
        VcpuExit::MmioWrite(address, data) => bus.write(address, data),
        VcpuExit::IoIn(port, data) => ports.read(port, data),
        VcpuExit::IoOut(port, data) => return ports.write(port, data),
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => {}
        VcpuExit::Shutdown => return Some(StopReason::TripleFault),
        VcpuExit::SystemEvent(EVENT_SHUTDOWN, _) => return Some(StopReason::PowerOff),
        VcpuExit::SystemEvent(EVENT_RESET, _) => return Some(StopReason::Reset),
        VcpuExit::InternalError => {
            let suberror = unsafe_kernel::internal_suberror(vcpu);
            return Some(StopReason::KvmInternalError { suberror });
        }
        VcpuExit::FailEntry(reason, cpu) => {
            let text = format!("the processor refused to enter the guest, reason {reason:#x} on CPU {cpu}");
            return Some(StopReason::Failed(text));
        }
        // Only a page that the host could not provide comes here in a guest without private memory.
        VcpuExit::MemoryFault { gpa, .. } => {
            let text = format!("the host has no memory for the guest's address {gpa:#x}");
            return Some(StopReason::Failed(text));
        }
        other => return Some(StopReason::Failed(format!("unexpected exit from the guest: {other:?}"))),
    }
    None
}
