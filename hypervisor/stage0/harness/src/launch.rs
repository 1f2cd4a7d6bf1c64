//! What a case's guest is launched with, as bytes that a hostile host can change.

use kvm_bindings::CpuId;
use nacre_launch::CpuState;
use nacre_stage0_abi::snp::{CpuidFunction, CpuidPage};
use nacre_stage0_abi::{AddressRange, Image, ImageKind, Images, MemoryMap, PageBit, Parameters, layout};
use sha2::{Digest, Sha256};
use zerocopy::{FromZeros, IntoBytes};

use crate::error::Error;
use crate::model::Technology;

const MIB: u64 = 1 << 20;
/// Memory below the gap for devices, and above.
pub const LOW: u64 = 32 * MIB;
pub const HIGH: (u64, u64) = (layout::IMAGE_END, 4 * MIB);
const KERNEL: u64 = 16 * MIB;
/// The kernel's entry, which is not its first byte.
pub const ENTRY: u64 = KERNEL + 0x234;
/// Where a case's kernel sends other CPUs.
pub const WAKEUP: u64 = KERNEL + 0x400;
/// The port by which the kernel says that it runs.
pub const KERNEL_PORT: u16 = 0xb8;
/// The port by which another CPU says that the kernel woke it.
pub const WOKEN_PORT: u16 = 0xb9;

/// What a host puts into pages whose content is not measured.
pub const HOST_CHOSEN: u8 = 0x5a;

/// A guest before it is launched.
pub struct Launch {
    pub technology: Technology,
    pub parameters: Vec<u8>,
    pub hashes: Vec<u8>,
    pub cpuid: Vec<u8>,
    pub window: Vec<u8>,
    pub images: Vec<Image>,
    pub memory: Vec<(u64, u64)>,
    /// How many CPUs the host starts: as many as were measured, if it is not changed.
    pub cpus: u32,
}

impl Launch {
    /// A guest with a small kernel whose pages are marked by `bit`.
    pub fn new(
        technology: Technology,
        bit: u32,
        processor: &CpuId,
        vcpus: u32,
        memory: Vec<(u64, u64)>,
    ) -> Result<Self, Error> {
        let wrong = |error: &dyn std::error::Error| Error::Pages(error.to_string());
        let map = MemoryMap::new(memory.iter().copied()).map_err(|error| wrong(&error))?;
        let (window, images) = images()?;
        let list = Images::new(ENTRY, images.iter().copied(), &map).map_err(|error| wrong(&error))?;
        let page_bit = match technology {
            Technology::Plain => PageBit::None,
            Technology::Snp => PageBit::Private(bit),
            Technology::Tdx => PageBit::Shared(bit),
        };
        let parameters = Parameters { vcpus, page_bit, first_interrupt: 5, interrupts: 19, memory: map };
        let mut cpuid = CpuidPage::new_zeroed();
        cpuid.count = 3;
        // What decides whether SHA instructions are used, as the processor has it.
        let leaves = processor.as_slice().iter();
        let leaves = leaves.filter(|entry| [(1, 0), (7, 0)].contains(&(entry.function, entry.index)));
        for (place, entry) in cpuid.functions.iter_mut().skip(1).zip(leaves) {
            let (eax, ebx, ecx, edx) = (entry.eax, entry.ebx, entry.ecx, entry.edx);
            let (eax_in, ecx_in) = (entry.function, entry.index);
            *place = CpuidFunction { eax_in, ecx_in, eax, ebx, ecx, edx, ..CpuidFunction::new_zeroed() };
        }
        cpuid.functions[0] = CpuidFunction {
            eax_in: 0x8000_001f,
            eax: 0x1a,
            ebx: 1 << 6 | bit,
            ..CpuidFunction::new_zeroed()
        };
        Ok(Self {
            technology,
            parameters: parameters.to_page().as_bytes().to_vec(),
            hashes: list.to_page().as_bytes().to_vec(),
            cpuid: cpuid.as_bytes().to_vec(),
            window,
            images,
            memory,
            cpus: vcpus,
        })
    }

    /// The pages that are there before the first instruction: address and bytes.
    pub fn pages(&self) -> Vec<(u64, Vec<u8>)> {
        let mut pages = vec![
            (layout::HASHES_PAGE, self.hashes.clone()),
            (layout::PARAMETERS_PAGE, self.parameters.clone()),
        ];
        // What the host chose, where stage0 must not care.
        let chosen =
            |start: u64, end: u64| (start..end).step_by(4096).map(|page| (page, vec![HOST_CHOSEN; 4096]));
        match self.technology {
            Technology::Plain => {}
            Technology::Snp => {
                pages.push((layout::SECRETS_PAGE, vec![0x77; 4096]));
                pages.push((layout::CPUID_PAGE, self.cpuid.clone()));
            }
            Technology::Tdx => {
                pages.extend(chosen(layout::PAGE_TABLES, layout::MAILBOX_PAGE));
                pages.extend(chosen(layout::FIRST_STACK.start(), layout::FIRST_STACK.end()));
            }
        }
        pages
    }

    /// The state in which a CPU starts.
    pub fn cpu(&self, index: u32) -> CpuState {
        match self.technology {
            Technology::Plain => CpuState::stage0_plain(index),
            Technology::Snp => CpuState::stage0_snp(index),
            Technology::Tdx => {
                let state = CpuState::stage0_tdx(index);
                // Only a processor with VMX has VMXE. PAE is set beforehand because QEMU's nested SVM forgets to turn
                // paging on again when it leaves a guest that has EFER.LME without CR0.PG and CR4.PAE: the node hangs.
                CpuState { cr4: state.cr4 & !0x2000 | 0x20, ..state }
            }
        }
    }
}

/// The window's bytes, and what of them goes where.
fn images() -> Result<(Vec<u8>, Vec<Image>), Error> {
    let mut window: Vec<u8> = (0..0x8000u32).map(|place| u8::try_from(place % 251).unwrap_or(0)).collect();
    let code = |port: u16| [0xe7, u8::try_from(port).unwrap_or(0), 0xf4];
    window[0x234..0x237].copy_from_slice(&code(KERNEL_PORT));
    window[0x400..0x403].copy_from_slice(&code(WOKEN_PORT));
    let line = b"console=hvc0\0";
    window[0x6000..0x6000 + line.len()].copy_from_slice(line);
    // Whole pages of the window to each, so that each page is read for one image only.
    let image = |kind, from: u64, len: u64, load: u64, memory: u64| {
        let place = usize::try_from(from).ok()?;
        let bytes = window.get(place..place.checked_add(usize::try_from(len).ok()?)?)?;
        Some(Image {
            kind,
            source: AddressRange::new(layout::SHARED_WINDOW.start() + from, len)?,
            target: AddressRange::new(load, memory)?,
            sha256: Sha256::digest(bytes).into(),
        })
    };
    let images = [
        image(ImageKind::Kernel, 0, 0x2000, KERNEL, 0x2000),
        image(ImageKind::Kernel, 0x2000, 0x800, KERNEL + 2 * MIB, 0x5000),
        image(ImageKind::Initrd, 0x3000, 0x2abc, KERNEL + 4 * MIB, 0x2abc),
        image(ImageKind::CommandLine, 0x6000, 13, layout::FIRST_LOAD, 13),
    ];
    let images: Option<Vec<Image>> = images.into_iter().collect();
    let images = images.ok_or_else(|| Error::Pages("an image is none".into()))?;
    Ok((window, images))
}
