//! Who has the interrupt controllers: KVM all of them, or KVM the CPUs' local ones and we the IOAPIC.
//!
//! KVM makes TDX guests only with a split: an IOAPIC in the kernel would have to know when a guest is done with an interrupt,
//! and nobody hears of that who is not inside. Devices here raise edges only, so the IOAPIC is a table of messages, which
//! [`IoApic`] keeps and KVM sends: an interrupt takes no longer than with the IOAPIC in the kernel.

mod ioapic;
mod registers;

use std::sync::Arc;

use kvm_bindings::KVM_CAP_SPLIT_IRQCHIP;
use kvm_ioctls::VmFd;
use nacre_control::Irqchip;
use nix::errno::Errno;

pub use ioapic::IoApic;
pub use registers::{Message, PINS, Registers};

use crate::machine::MachineError;
use crate::private::enable;
use crate::reports::Reporter;
use crate::wired::failed;

/// Gives the machine, which has no CPUs yet, its interrupt controllers. The IOAPIC comes back where it is ours.
///
/// # Errors
/// KVM refuses.
pub fn create(vm: &Arc<VmFd>, irqchip: Irqchip, reporter: &Reporter) -> Result<Option<IoApic>, MachineError> {
    match irqchip {
        Irqchip::Kernel => vm.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP")).map(|()| None),
        Irqchip::Split => {
            split(vm)
                .map_err(|errno| kvm_ioctls::Error::new(errno as i32))
                .map_err(failed("KVM_CAP_SPLIT_IRQCHIP"))?;
            Ok(Some(IoApic::new(Arc::clone(vm), reporter.clone())))
        }
    }
}

/// Has KVM leave the IOAPIC to us.
///
/// # Errors
/// The kernel's.
pub fn split(vm: &VmFd) -> Result<(), Errno> {
    enable(vm, KVM_CAP_SPLIT_IRQCHIP, PINS.into())
}
