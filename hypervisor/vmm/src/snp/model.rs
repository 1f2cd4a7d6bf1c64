//! A model of KVM's interface for SEV-SNP with the firmware behind it: it refuses what they refuse
//! (Linux 6.12, `arch/x86/kvm/svm/sev.c`; SEV-SNP firmware ABI 56860, section 8).

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Mutex;

use nacre_launch::{CpuState, LaunchDigest, Measurement, PageKind, SignedIdBlock};
use nacre_stage0_abi::AddressRange;
use nacre_stage0_abi::snp::CpuidPage;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Command, Kernel, SevError};
use crate::cpu::CpuError;
use crate::private::Capability;
use crate::private::model::{MemoryModel, read};

const NOT_ASKED: u32 = u32::MAX;

/// What a test wants of the machine.
#[derive(Debug, Default)]
pub struct Wishes {
    /// A capability that is not there.
    pub lacks: Option<Capability>,
    /// All ASIDs are taken.
    pub no_asid: bool,
    /// A kernel that does not know the command for certificates.
    pub no_certificates: bool,
    /// How many pages a call takes; zero for all.
    pub batch: usize,
    /// Failures of the next LAUNCH_UPDATE calls, before they do anything.
    pub interruptions: Vec<SevError>,
    /// The firmware fails LAUNCH_START with this.
    pub start_fails: Option<u32>,
    /// A CPUID value that the firmware wants: leaf, ECX.
    pub wants: Option<(u32, u32)>,
}

/// What a launched guest has become.
#[derive(Debug, Clone)]
pub struct Finished {
    pub measurement: Measurement,
    pub host_data: [u8; 32],
    pub id_block: bool,
}

#[derive(Debug, Default)]
struct State {
    initialised: bool,
    asks_for_certificates: bool,
    cpus: Vec<Option<CpuState>>,
    policy: Option<u64>,
    digest: Option<LaunchDigest>,
    assigned: BTreeMap<u64, u8>,
    finished: Option<Finished>,
    updates: u32,
}

/// The machine.
#[derive(Debug, Default)]
pub struct Model {
    memory: MemoryModel,
    wishes: Mutex<Wishes>,
    state: Mutex<State>,
}

fn kernel(errno: Errno) -> SevError {
    SevError { errno, firmware: NOT_ASKED }
}

fn firmware(status: u32) -> SevError {
    SevError { errno: Errno::EIO, firmware: status }
}

impl Model {
    pub fn new(wishes: Wishes) -> Self {
        let memory = MemoryModel::without(wishes.lacks);
        Self { memory, wishes: Mutex::new(wishes), ..Self::default() }
    }

    pub fn finished(&self) -> Option<Finished> {
        self.state.lock().unwrap().finished.clone()
    }

    /// Whether it asks for certificates.
    pub fn asks_for_certificates(&self) -> bool {
        self.state.lock().unwrap().asks_for_certificates
    }

    /// How many LAUNCH_UPDATE calls came.
    pub fn updates(&self) -> u32 {
        self.state.lock().unwrap().updates
    }

    pub fn hypercalls(&self) -> u64 {
        self.memory.hypercalls()
    }

    /// The pages that are assigned, with their type.
    pub fn assigned(&self) -> Vec<(u64, u8)> {
        self.state.lock().unwrap().assigned.iter().map(|(gfn, kind)| (gfn << 12, *kind)).collect()
    }
}

impl Kernel for Model {
    type Cpu = usize;
    type Memory = MemoryModel;

    fn memory(&self) -> &MemoryModel {
        &self.memory
    }

    fn sev(&self, command: Command<'_>) -> Result<(), SevError> {
        let (mut wishes, mut state) = (self.wishes.lock().unwrap(), self.state.lock().unwrap());
        match command {
            Command::Init2(init) => {
                let sound = init.flags == 0 && init.pad1 == 0 && init.pad2 == [0; 8];
                // KVM sets bit 0 itself. Another version of the GHCB protocol is not known.
                if !sound || init.vmsa_features & 1 != 0 || init.ghcb_version > 2 || init.ghcb_version == 1 {
                    return Err(kernel(Errno::EINVAL));
                }
                if state.initialised || !state.cpus.is_empty() {
                    return Err(kernel(Errno::EINVAL));
                }
                if wishes.no_asid {
                    return Err(kernel(Errno::EBUSY));
                }
                state.initialised = true;
                Ok(())
            }
            Command::EnableCertificates => {
                if wishes.no_certificates || !state.initialised || !state.cpus.is_empty() {
                    return Err(kernel(Errno::EINVAL));
                }
                state.asks_for_certificates = true;
                Ok(())
            }
            Command::LaunchStart(start) => {
                if !state.initialised {
                    return Err(kernel(Errno::ENOTTY));
                }
                let sound = start.flags == 0 && start.pad0 == [0; 6] && start.pad1 == [0; 4];
                let needed = 3 << 16;
                let known = 0xb_ffff;
                if !sound
                    || state.policy.is_some()
                    || start.policy & needed != needed
                    || start.policy & !known != 0
                {
                    return Err(kernel(Errno::EINVAL));
                }
                if let Some(status) = wishes.start_fails {
                    return Err(firmware(status));
                }
                state.policy = Some(start.policy);
                state.digest = Some(LaunchDigest::new());
                Ok(())
            }
            Command::LaunchUpdate(update) => {
                state.updates += 1;
                if !wishes.interruptions.is_empty() {
                    return Err(wishes.interruptions.remove(0));
                }
                state.update(update, &self.memory, &wishes)
            }
            Command::LaunchFinish(finish) => state.finish(finish),
        }
    }

    fn create_cpu(&self, id: u8) -> Result<usize, CpuError> {
        let mut state = self.state.lock().unwrap();
        assert!(state.initialised && state.finished.is_none(), "a CPU before INIT2 or after FINISH");
        assert_eq!(usize::from(id), state.cpus.len());
        state.cpus.push(None);
        Ok(usize::from(id))
    }

    fn set_cpu(&self, cpu: &usize, _id: u8, new: &CpuState) -> Result<(), CpuError> {
        let mut state = self.state.lock().unwrap();
        assert!(state.finished.is_none(), "registers can't be set after FINISH");
        state.cpus[*cpu] = Some(new.clone());
        Ok(())
    }
}

impl State {
    fn update(
        &mut self,
        update: &mut kvm_bindings::kvm_sev_snp_launch_update,
        memory: &MemoryModel,
        wishes: &Wishes,
    ) -> Result<(), SevError> {
        let invalid = kernel(Errno::EINVAL);
        if self.digest.is_none() || self.finished.is_some() {
            return Err(invalid);
        }
        let kind =
            [PageKind::Normal, PageKind::Zero, PageKind::Unmeasured, PageKind::Secrets, PageKind::Cpuid]
                .into_iter()
                .find(|kind| kind.number() == update.type_)
                .ok_or(invalid)?;
        let padding = update.pad0 == 0 && update.flags == 0 && update.pad1 == 0 && update.pad2 == [0; 4];
        let source = kind == PageKind::Zero || update.uaddr != 0;
        let len_sound = update.len != 0 && update.len.is_multiple_of(4096);
        if !padding || !source || !len_sound || !update.uaddr.is_multiple_of(4096) {
            return Err(invalid);
        }
        let range = update.gfn_start.checked_mul(4096).and_then(|start| AddressRange::new(start, update.len));
        let range = range.filter(|range| memory.has(*range)).ok_or(invalid)?;
        let mut done = 0;
        while update.len > 0 && (wishes.batch == 0 || done < wishes.batch) {
            let gpa = range.start() + done as u64 * 4096;
            let taken = if memory.is_private(gpa) {
                self.update_page(gpa, update.uaddr, kind, wishes)
            } else {
                Err(invalid)
            };
            if let Err(error) = taken {
                // Progress hides the failure; the next call meets it.
                return if done == 0 { Err(error) } else { Ok(()) };
            }
            done += 1;
            update.gfn_start += 1;
            update.len -= 4096;
            if kind != PageKind::Zero {
                update.uaddr += 4096;
            }
        }
        Ok(())
    }

    fn update_page(&mut self, gpa: u64, uaddr: u64, kind: PageKind, wishes: &Wishes) -> Result<(), SevError> {
        if self.assigned.contains_key(&(gpa >> 12)) {
            return Err(SevError { errno: Errno::EIO, firmware: NOT_ASKED });
        }
        let content = if kind == PageKind::Zero { [0; 4096] } else { read(uaddr) };
        if let (PageKind::Cpuid, Some((leaf, ecx))) = (kind, wishes.wants) {
            let mut values = CpuidPage::read_from_bytes(&content).unwrap();
            let count = usize::try_from(values.count).unwrap();
            if count > 64 {
                return Err(firmware(0x16));
            }
            let wrong =
                values.functions[..count].iter_mut().find(|entry| entry.eax_in == leaf && entry.ecx != ecx);
            if let Some(entry) = wrong {
                entry.ecx = ecx;
                write(uaddr, values.as_bytes());
                return Err(firmware(0x16));
            }
        }
        self.assigned.insert(gpa >> 12, kind.number());
        self.digest.as_mut().unwrap().add_page(gpa, kind, &content);
        Ok(())
    }

    fn finish(&mut self, finish: &kvm_bindings::kvm_sev_snp_launch_finish) -> Result<(), SevError> {
        let sound = finish.flags == 0 && finish.pad0 == [0; 3] && finish.pad1 == [0; 4];
        let (Some(digest), Some(policy)) = (self.digest.clone(), self.policy) else {
            return Err(kernel(Errno::EINVAL));
        };
        if !sound || self.finished.is_some() || finish.vcek_disabled != 0 {
            return Err(kernel(Errno::EINVAL));
        }
        let states = self.cpus.iter().map(|cpu| cpu.as_ref().expect("a CPU without a state"));
        let measurement = states.fold(digest.into_cpus(), |digest, cpu| digest.add_cpu(cpu)).finish();
        if finish.id_block_en == 1 {
            let block: [u8; 96] = read(finish.id_block_uaddr);
            let authentication: [u8; 4096] = read(finish.id_auth_uaddr);
            let signed = SignedIdBlock::from_bytes(&block, &authentication).map_err(|_| firmware(0xa))?;
            if signed.has_author() != (finish.auth_key_en == 1) {
                return Err(firmware(0xa));
            }
            if signed.block().measurement() != measurement {
                return Err(firmware(0xb));
            }
            if signed.block().policy() != policy {
                return Err(firmware(7));
            }
        }
        let (host_data, id_block) = (finish.host_data, finish.id_block_en == 1);
        self.finished = Some(Finished { measurement, host_data, id_block });
        Ok(())
    }
}

fn write(address: u64, bytes: &[u8]) {
    let remote = RemoteIoVec { base: usize::try_from(address).unwrap(), len: bytes.len() };
    let written = process_vm_writev(Pid::this(), &[IoSlice::new(bytes)], &[remote]).unwrap();
    assert_eq!(written, bytes.len());
}

/// A page of CPUID values with a few leaves.
pub fn cpuid() -> CpuidPage {
    let mut page = CpuidPage::new_zeroed();
    for (place, leaf) in page.functions.iter_mut().zip([0, 1, 7, 0x8000_001f]) {
        place.eax_in = leaf;
        place.eax = 1;
        place.ecx = leaf;
        page.count += 1;
    }
    page
}
