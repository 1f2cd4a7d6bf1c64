//! A CPU's life: enter the guest, serve its exit, enter again.

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use nacre_control::StopReason;

use crate::devices::MmioBus;
use crate::ports::Ports;
use crate::private::{Asked, Hypercall};
use crate::snp::certificates::Certificates;
use crate::{snp, tdx, unsafe_kernel, unsafe_tdx};

/// `KVM_SYSTEM_EVENT_*`
const EVENT_SHUTDOWN: u32 = 1;
const EVENT_RESET: u32 = 2;
const EVENT_SEV_TERMINATION: u32 = 6;

/// Who serves a CPU's exits.
#[derive(Debug, Clone)]
pub struct Exits {
    /// Port accesses.
    pub ports: Arc<Ports>,
    /// Accesses to devices.
    pub bus: Arc<MmioBus>,
    /// Conversions, if the guest has private memory.
    pub conversions: Option<Arc<Asked>>,
    /// What only a trust domain asks for.
    pub requests: Option<Arc<tdx::Requests>>,
    /// What goes with an SEV-SNP guest's reports.
    pub certificates: Option<Arc<Certificates>>,
}

/// Runs the CPU, whose number is `id`, until something ends the machine.
pub fn run(mut vcpu: VcpuFd, id: u8, exits: &Exits) -> StopReason {
    loop {
        if let Some(reason) = step(&mut vcpu, id, exits) {
            return reason;
        }
    }
}

fn step(vcpu: &mut VcpuFd, id: u8, exits: &Exits) -> Option<StopReason> {
    let Exits { ports, bus, conversions, requests, certificates } = exits;
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return None,
        Err(error) => return Some(StopReason::Failed(failed_run(error, requests.is_some()))),
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
        VcpuExit::Hypercall(call) if conversions.is_some() => {
            let arguments = [call.args[0], call.args[1], call.args[2]];
            let asked = Hypercall { number: call.nr, arguments };
            *call.ret = conversions.as_ref().map_or(0, |conversions| conversions.hypercall(asked));
        }
        VcpuExit::MemoryFault { flags, gpa, size } => match conversions {
            Some(conversions) => return conversions.fault(flags, gpa, size).err(),
            // Only a page that the host could not provide comes here in a guest without private memory.
            None => {
                let text = format!("the host has no memory for the guest's address {gpa:#x}");
                return Some(StopReason::Failed(text));
            }
        },
        VcpuExit::SystemEvent(EVENT_SEV_TERMINATION, data) => {
            return Some(snp::termination(data.first().copied().unwrap_or_default()));
        }
        VcpuExit::SystemEvent(tdx::abi::EVENT_FATAL, registers) => return Some(tdx::fatal_error(registers)),
        VcpuExit::Unsupported(tdx::abi::EXIT_TDX) => match requests {
            Some(requests) => unsafe_tdx::serve_exit(vcpu, |exit| requests.serve(id, exit)),
            None => {
                return Some(StopReason::Failed(
                    "a request of a trust domain, which the guest is not".into(),
                ));
            }
        },
        VcpuExit::Unsupported(snp::certificates::EXIT) => match certificates {
            Some(certificates) => return hand_over(vcpu, certificates),
            None => {
                return Some(StopReason::Failed("a request for certificates, which nobody enabled".into()));
            }
        },
        // An interrupt called a level, which the IOAPIC does not make.
        VcpuExit::IoapicEoi(_) => {}
        other => return Some(StopReason::Failed(format!("unexpected exit from the guest: {other:?}"))),
    }
    None
}

/// Answers a request for certificates, and has KVM make the report before they may change.
fn hand_over(vcpu: &mut VcpuFd, certificates: &Certificates) -> Option<StopReason> {
    let unchanged = unsafe_kernel::serve_certificates(vcpu, |asked| certificates.serve(asked));
    // KVM ends what it has begun, and comes back before it enters the guest.
    vcpu.set_kvm_immediate_exit(1);
    let ended = vcpu.run().map(drop);
    vcpu.set_kvm_immediate_exit(0);
    drop(unchanged);
    match ended {
        Ok(()) => None,
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => None,
        Err(error) => Some(StopReason::Failed(failed_run(error, false))),
    }
}

fn failed_run(error: kvm_ioctls::Error, trust_domain: bool) -> String {
    // With SEPT_VE_DISABLE there is no other answer to such a touch.
    let why = if trust_domain && error.errno() == libc::EIO {
        ": the guest touched a page that it had not accepted, or the TDX module failed"
    } else {
        ""
    };
    format!("KVM_RUN failed: {error}{why}")
}
