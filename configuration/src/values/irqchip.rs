//! Who has a machine's interrupt controllers.

use crate::schema::Allowed;

/// Who has a machine's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Irqchip {
    /// KVM.
    Kernel,
    /// KVM the CPUs' local ones, the VMM the IOAPIC.
    Split,
}

impl Allowed for Irqchip {
    fn allowed() -> String {
        "\"kernel\" or \"split\"".into()
    }
}
