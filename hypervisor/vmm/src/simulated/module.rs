//! The software TDX module: it measures a launch, and keeps the guest's registers while it runs.
//!
//! SECURITY: registers and reports are the guest's to ask for, as a TDX guest may at any time. The address that it names is
//! looked up in its memory; what it can spoil is what is said about itself.

use std::sync::{Arc, Mutex, PoisonError};

use nacre_attestation::tdx::{QuotingEnclave, ReportKey, TrustDomain};
use nacre_launch::{LaunchPlan, Mrtd, PageKind};
use nacre_stage0_abi::tdx::Extension;
use vm_memory::{Bytes, GuestAddress};

use super::SoftwareProcessorError;
use crate::memory::GuestMemory;
use crate::tdx::{self, Identity};

/// A launch that the module carries out.
#[derive(Debug, Default)]
pub struct SoftwareModule {
    mrtd: Mrtd,
}

impl SoftwareModule {
    /// Takes the next page.
    pub fn add_page(&mut self, gpa: u64, kind: PageKind, page: &[u8; 4096]) {
        self.mrtd.add_page(gpa, kind.is_measured().then_some(page));
    }

    /// Ends the launch. The guest that runs then has this memory.
    ///
    /// # Errors
    /// The measurement is not the plan's.
    pub fn finish(
        self,
        plan: &LaunchPlan,
        memory: Arc<GuestMemory>,
    ) -> Result<RunningModule, SoftwareProcessorError> {
        let (expected, actual) = (plan.measurement(), self.mrtd.finish());
        if actual != expected {
            return Err(SoftwareProcessorError::Measurement { expected, actual });
        }
        let Identity { config_id, .. } = Identity::of(plan.host_data());
        // As a guest on the hardware has them where the module can do nothing but what it must.
        let (attributes, xfam) = (tdx::abi::SEPT_VE_DISABLE, tdx::XFAM_NEEDED);
        let domain = TrustDomain::new(actual.0, config_id, attributes, xfam);
        Ok(RunningModule { domain: Mutex::new(domain), key: ReportKey::generate(), memory })
    }
}

/// The module of a guest that runs.
#[derive(Debug)]
pub struct RunningModule {
    /// What is known of the guest: CPUs extend its registers, connections ask for reports.
    domain: Mutex<TrustDomain>,
    key: ReportKey,
    memory: Arc<GuestMemory>,
}

impl RunningModule {
    /// Extends a register as the guest asked with a word to its port.
    ///
    /// # Errors
    /// There is no such register, or no memory at the address.
    pub fn extend(&self, word: u32) -> Result<(), String> {
        let Extension { register, address } = Extension::from_port(word);
        let mut digest = [0; 48];
        self.memory
            .read_slice(&mut digest, GuestAddress(address))
            .map_err(|_| format!("extends a register by what is at {address:#x}, where no memory is"))?;
        let mut domain = self.domain.lock().unwrap_or_else(PoisonError::into_inner);
        domain.extend(register.into(), &digest).ok_or_else(|| format!("extends register {register}"))
    }

    /// A quote with the guest's own 64 bytes.
    pub fn quote(&self, enclave: &QuotingEnclave, data: &[u8; 64]) -> Option<Vec<u8>> {
        let report = self.domain.lock().unwrap_or_else(PoisonError::into_inner).report(data, &self.key);
        enclave.quote(&report, &self.key)
    }

    /// The registers.
    #[cfg(test)]
    pub fn registers(&self) -> [[u8; 48]; 4] {
        *self.domain.lock().unwrap().registers()
    }
}

#[cfg(test)]
pub mod tests {
    use nacre_launch::{HostData, RuntimeMeasurements, Tee};

    use super::*;
    use crate::memory;
    use crate::stand_in;

    fn launched(changed: Option<u64>) -> Result<RunningModule, SoftwareProcessorError> {
        let plan = stand_in::plan(Tee::SimulatedTdx, 2).with_host_data(HostData([9; 32]));
        let mut module = SoftwareModule::default();
        for range in plan.pages() {
            for (gpa, page) in range.pages() {
                let mut page = *page;
                page[4095] ^= u8::from(changed == Some(gpa));
                module.add_page(gpa, range.kind(), &page);
            }
        }
        module.finish(&plan, Arc::new(memory::allocate(64).unwrap()))
    }

    /// The module of a guest that was launched as planned.
    pub fn module() -> RunningModule {
        launched(None).unwrap()
    }

    #[test]
    fn a_launch_as_planned_is_known_by_its_measurement_and_host_data() {
        let module = module();
        let domain = module.domain.lock().unwrap();
        assert_eq!(domain.mr_td, stand_in::plan(Tee::SimulatedTdx, 2).measurement().0);
        assert_eq!(domain.mr_config_id, [[9; 32].as_slice(), &[0; 16]].concat().as_slice());
        assert_eq!(domain.registers(), &[[0; 48]; 4]);
    }

    #[test]
    fn a_bit_of_a_page_that_is_not_as_planned_ends_the_launch() {
        for range in stand_in::plan(Tee::SimulatedTdx, 2).pages() {
            let error = launched(Some(range.gpa())).unwrap_err();
            assert!(matches!(error, SoftwareProcessorError::Measurement { .. }), "{error}");
        }
    }

    #[test]
    fn registers_are_extended_by_what_is_in_the_guests_memory() {
        let module = module();
        module.memory.write_slice(&[7; 48], GuestAddress(0x8000)).unwrap();
        module.extend(0x8001).unwrap();
        let mut expected = TrustDomain::new([0; 48], [0; 48], 0, 0);
        expected.extend(1, &[7; 48]).unwrap();
        assert_eq!(module.registers(), *expected.registers());
        assert_eq!(module.extend(0x8004).unwrap_err(), "extends register 4");
        assert!(module.extend(0xffff_ffc0).unwrap_err().contains("0xffffffc0"));
        assert_eq!(module.registers(), *expected.registers());
    }

    #[test]
    fn stage0s_extensions_lead_to_the_registers_that_a_verifier_expects() {
        use nacre_stage0_abi::tdx::{extension, register_of};
        let guest = stand_in::guest(Tee::SimulatedTdx);
        let module = module();
        for image in guest.images().all() {
            module.memory.write_slice(&extension(&image.sha256), GuestAddress(0x8000)).unwrap();
            let operands = Extension { register: register_of(image.kind), address: 0x8000 };
            module.extend(operands.to_port().unwrap()).unwrap();
        }
        let RuntimeMeasurements { rtmr1, rtmr2 } = guest.runtime_measurements();
        assert_eq!(module.registers(), [[0; 48], rtmr1.0, rtmr2.0, [0; 48]]);
    }
}
