//! The IOAPIC of a machine whose interrupt controllers are split: the guest writes registers, KVM gets routes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use nacre_control::StopReason;

use super::registers::{Message, PINS, Registers};
use crate::reports::{Report, Reporter};

/// The physical address of its registers, as every table for the guest has it.
const ADDRESS: u64 = 0xfec0_0000;
const SIZE: u64 = 0x1000;

/// One route for each pin that is not masked.
type Routes = [Option<Message>; PINS as usize];

/// The IOAPIC.
pub struct IoApic {
    vm: Arc<VmFd>,
    reporter: Reporter,
    /// Held while KVM takes new routes, so that they come there in the order in which the guest made them.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    registers: Registers,
    /// What KVM has.
    routes: Routes,
}

impl fmt::Debug for IoApic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IoApic").field("state", &self.state).finish_non_exhaustive()
    }
}

impl IoApic {
    /// The IOAPIC of `vm`, with all pins masked. `reporter` hears when KVM takes no routes any more, which ends the
    /// machine.
    pub fn new(vm: Arc<VmFd>, reporter: Reporter) -> Self {
        let state = State { registers: Registers::default(), routes: [None; PINS as usize] };
        Self { vm, reporter, state: Mutex::new(state) }
    }

    /// Where an address is in the IOAPIC's page, if it is.
    #[must_use]
    pub fn offset(address: u64) -> Option<u64> {
        address.checked_sub(ADDRESS).filter(|offset| *offset < SIZE)
    }

    /// The guest reads at an [`offset`](Self::offset). Registers have 32 bits; what is beyond reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = self.lock().registers.read(offset).to_le_bytes();
        data.fill(0);
        data.iter_mut().zip(value).for_each(|(place, byte)| *place = byte);
    }

    /// The guest writes. A write of another size than 32 bits is lost.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let mut state = self.lock();
        let Some(pin) = state.registers.write(offset, u32::from_le_bytes(bytes)) else { return };
        let message = state.registers.message(pin);
        let Some(route) = usize::try_from(pin).ok().and_then(|pin| state.routes.get_mut(pin)) else { return };
        // A kernel writes masked entries often; that costs it nothing.
        if *route == message {
            return;
        }
        *route = message;
        let sent = table(&state.routes).and_then(|table| self.vm.set_gsi_routing(&table));
        if let Err(error) = sent {
            let text = format!("KVM_SET_GSI_ROUTING failed: {error}");
            self.reporter.send(Report::Ended(StopReason::Failed(text)));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes in KVM's form. An interrupt without a route is lost, as an edge at a masked pin is.
fn table(routes: &Routes) -> Result<KvmIrqRouting, kvm_ioctls::Error> {
    let entries: Vec<kvm_irq_routing_entry> = (0..)
        .zip(routes)
        .filter_map(|(gsi, message)| {
            let Message { address, data } = (*message)?;
            let msi = kvm_irq_routing_msi { address_lo: address, data, ..Default::default() };
            let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
            Some(kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, u, ..Default::default() })
        })
        .collect();
    KvmIrqRouting::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_page_ends() {
        assert_eq!(IoApic::offset(0xfec0_0010), Some(0x10));
        assert_eq!(IoApic::offset(0xfec0_0fff), Some(0xfff));
        for beside in [0, 0xfebf_ffff, 0xfec0_1000, u64::MAX] {
            assert_eq!(IoApic::offset(beside), None);
        }
    }

    #[test]
    fn kvm_gets_the_pins_that_are_not_masked() {
        let mut routes = [None; PINS as usize];
        routes[5] = Some(Message { address: 0xfee0_1000, data: 0x31 });
        routes[23] = Some(Message { address: 0xfee0_0000, data: 0x32 });
        let table = table(&routes).unwrap();
        let gsis: Vec<(u32, u32)> = table.as_slice().iter().map(|entry| (entry.gsi, entry.type_)).collect();
        assert_eq!(gsis, [(5, KVM_IRQ_ROUTING_MSI), (23, KVM_IRQ_ROUTING_MSI)]);
    }
}
