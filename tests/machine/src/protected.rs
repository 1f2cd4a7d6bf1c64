//! Private memory as the VMM handles it, without the hardware: KVM's software-protected machines have guest_memfd,
//! attributes, conversions by hypercall, memory faults and prefaulting, but no encryption. Small guest programs use them,
//! and the VMM's own code serves them.

mod cases;
mod machine;
mod program;

use kvm_bindings::KVM_X86_SW_PROTECTED_VM;
use kvm_ioctls::Kvm;

pub use cases::CASES;

/// Why the cases can't run here, if they can't.
pub fn missing(kvm: &Kvm) -> Option<String> {
    let why = "KVM offers no software-protected machines: use `cargo xtask node up --kernel protected`";
    (!nacre_vmm::private::offers(kvm, KVM_X86_SW_PROTECTED_VM)).then(|| why.to_owned())
}
