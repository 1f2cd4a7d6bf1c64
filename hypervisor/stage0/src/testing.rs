//! A machine that keeps the rules of SEV-SNP: what a page is, and who may touch it.

use std::collections::BTreeMap;

use nacre_stage0_abi::snp::{CpuidFunction, CpuidPage};
use nacre_stage0_abi::{
    AddressRange, Image, ImageKind, Images, MemoryMap, PAGE_SIZE, PageBit, Parameters, layout,
};
use sha2::{Digest, Sha256};
use zerocopy::{FromZeros, IntoBytes};

use crate::guest::{Guest, PageSize, Platform, Validate, Validation};
use crate::memory::Work;

pub const MIB: u64 = 1 << 20;
/// All the memory that the model has bytes for.
const MEMORY: u64 = 32 * MIB;
pub const KERNEL: u64 = 16 * MIB;
pub const INITRD: u64 = 20 * MIB;

/// A guest's memory as stage0 finds it, with a host that can be told to misbehave.
pub struct Model {
    bytes: Vec<u8>,
    /// Each page that is valid, with how often it was validated by stage0.
    pub valid: BTreeMap<u64, u32>,
    pub window: Vec<u8>,
    /// Whether the host has memory in large pages.
    pub large_pages: bool,
    /// What the host makes of a page's validation.
    pub lie: fn(u64) -> Option<Validation>,
    /// What the host does with the window after each copy.
    pub after_copy: fn(&mut [u8]),
    pub root: Option<u64>,
    /// What the processor says of the machine, and the width of a TDX guest's addresses.
    pub platform: Platform,
    pub width: u32,
    /// What was extended: register and digest.
    pub extensions: Vec<(u8, [u8; 48])>,
    pub refuses_extensions: bool,
}

/// What the launched pages are made from.
pub struct Launch {
    pub parameters: Parameters,
    pub images: Vec<Image>,
    pub entry: u64,
    pub cpuid_bit: u32,
}

impl Launch {
    /// A launch with a small kernel, an initrd and a command line, and the window that belongs to it.
    pub fn new(platform: Platform) -> (Self, Vec<u8>) {
        let page_bit = match platform {
            Platform::Plain => PageBit::None,
            Platform::Snp => PageBit::Private(51),
            Platform::Tdx => PageBit::Shared(47),
        };
        let memory = MemoryMap::new([(0, MEMORY)]).unwrap();
        let parameters = Parameters { vcpus: 2, page_bit, first_interrupt: 5, interrupts: 3, memory };
        let mut window = vec![0x90; 0x3000];
        window[0x1234..0x1238].copy_from_slice(b"code");
        window.extend(b"initrd");
        window.extend(b"console=hvc0\0");
        let image = |kind, from: u64, len: u64, target: (u64, u64)| {
            let bytes = &window[usize::try_from(from).unwrap()..][..usize::try_from(len).unwrap()];
            Image {
                kind,
                source: AddressRange::new(layout::SHARED_WINDOW.start() + from, len).unwrap(),
                target: AddressRange::new(target.0, target.1).unwrap(),
                sha256: Sha256::digest(bytes).into(),
            }
        };
        let images = vec![
            image(ImageKind::Kernel, 0x1000, 0x2000, (KERNEL, 0x5000)),
            image(ImageKind::Initrd, 0x3000, 6, (INITRD, 6)),
            image(ImageKind::CommandLine, 0x3006, 13, (layout::FIRST_LOAD, 13)),
        ];
        (Self { parameters, images, entry: KERNEL + 0x234, cpuid_bit: 51 }, window)
    }
}

impl Model {
    /// Memory full of what encryption makes of nothing, with the launched pages and stage0's own in use.
    pub fn new(launch: &Launch, window: Vec<u8>, platform: Platform) -> Self {
        let mut model = Self {
            bytes: vec![0xa5; usize::try_from(MEMORY).unwrap()],
            valid: BTreeMap::new(),
            window,
            large_pages: false,
            lie: |_| None,
            after_copy: |_| {},
            root: None,
            platform,
            width: 48,
            extensions: Vec::new(),
            refuses_extensions: false,
        };
        let scratch = (layout::SCRATCH.start(), layout::SCRATCH.end());
        let launched = match platform {
            Platform::Plain => vec![(0, MEMORY)],
            Platform::Snp => vec![(0x1000, 0x3000), (0x5000, 0x7000), scratch],
            Platform::Tdx => vec![(0x1000, 0x3000), (0x9000, 0xf000), (0x1_c000, 0x2_0000)],
        };
        let pages = launched.into_iter().flat_map(|(start, end)| (start..end).step_by(4096));
        model.valid.extend(pages.map(|page| (page, 0)));
        let images = Images::new(launch.entry, launch.images.iter().copied(), &launch.parameters.memory);
        model.put(layout::HASHES_PAGE, images.unwrap().to_page().as_bytes());
        model.put(layout::PARAMETERS_PAGE, launch.parameters.to_page().as_bytes());
        let mut cpuid = CpuidPage::new_zeroed();
        cpuid.count = 1;
        cpuid.functions[0] = CpuidFunction {
            eax_in: 0x8000_001f,
            ebx: 1 << 6 | launch.cpuid_bit,
            ..CpuidFunction::new_zeroed()
        };
        model.put(layout::CPUID_PAGE, cpuid.as_bytes());
        model
    }

    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        self.bytes[usize::try_from(address).unwrap()..][..bytes.len()].copy_from_slice(bytes);
    }

    pub fn get(&self, address: u64, len: usize) -> &[u8] {
        &self.bytes[usize::try_from(address).unwrap()..][..len]
    }

    /// Touching a page that is not valid raises #VC on hardware.
    fn touch(&self, range: AddressRange) {
        let first = range.start() & !(PAGE_SIZE - 1);
        for page in (first..range.end()).step_by(4096) {
            assert!(self.valid.contains_key(&page), "stage0 touched {page:#x}, which is not in use");
        }
    }
}

impl Guest for Model {
    fn memory(&mut self, range: AddressRange) -> &mut [u8] {
        self.touch(range);
        let start = usize::try_from(range.start()).unwrap();
        &mut self.bytes[start..][..usize::try_from(range.len()).unwrap()]
    }

    fn copy_shared(&mut self, source: AddressRange, target: u64) {
        let target = AddressRange::new(target, source.len()).unwrap();
        let from = usize::try_from(source.start() - layout::SHARED_WINDOW.start()).unwrap();
        let bytes = self.window[from..][..usize::try_from(source.len()).unwrap()].to_vec();
        self.memory(target).copy_from_slice(&bytes);
        (self.after_copy)(&mut self.window);
    }

    fn is_platform(&mut self, platform: Platform) -> bool {
        self.platform == platform
    }

    fn address_width(&mut self) -> u32 {
        self.width
    }

    fn extend(&mut self, register: u8, digest: u64) -> bool {
        assert!(digest.is_multiple_of(64));
        let bytes = self.memory(AddressRange::new(digest, 48).unwrap());
        let extension = (register, bytes.try_into().unwrap());
        self.extensions.push(extension);
        !self.refuses_extensions
    }

    fn together(&mut self, work: &Work<'_>, _cpus: u32) {
        work.take_part(self);
    }

    fn use_page_tables(&mut self, root: u64) {
        self.root = Some(root);
    }

    fn has_sha_instructions(&self) -> bool {
        false
    }
}

impl Validate for Model {
    fn validate(&mut self, page: u64, size: PageSize) -> Validation {
        assert!(page.is_multiple_of(size.bytes()));
        if let Some(lie) = (self.lie)(page) {
            return lie;
        }
        if size == PageSize::Large && !self.large_pages {
            return Validation::OtherSize;
        }
        for page in (page..page + size.bytes()).step_by(4096) {
            if self.valid.contains_key(&page) {
                return Validation::DoneBefore;
            }
            self.valid.insert(page, 1);
        }
        Validation::Done
    }
}
