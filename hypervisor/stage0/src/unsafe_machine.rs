//! The processor and memory as they are.

#![allow(unsafe_code)]

mod cpus;
mod entry;
mod memory_functions;
mod tdx;

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};

use nacre_stage0::{Guest, Kernel, PageSize, Platform, Validate, Validation, Work};
use nacre_stage0_abi::snp::CpuidPage;
use nacre_stage0_abi::step::{STEP_PORT, Step};
use nacre_stage0_abi::stop::{STOP_PORT, Stop};
use nacre_stage0_abi::tdx as module;
use nacre_stage0_abi::{AddressRange, layout};

pub use cpus::platform;

/// The machine that stage0 runs on.
pub struct Machine {
    platform: Platform,
    sha: bool,
}

impl Machine {
    /// The only one there is.
    pub fn new(platform: Platform) -> Self {
        let sha = match platform {
            // A TDX module answers CPUID itself.
            Platform::Plain | Platform::Tdx => cpuid_has_sha(),
            Platform::Snp => snp_has_sha(),
        };
        Self { platform, sha }
    }
}

impl Guest for Machine {
    fn memory(&mut self, range: AddressRange) -> &mut [u8] {
        let (start, len) = (range.start() as *mut u8, usize::try_from(range.len()).unwrap_or(0));
        // SAFETY: all memory is mapped at its own address. The library asks for memory of the map and for fixed
        // pages, all apart from stage0's image and stack; the result borrows the only `Machine`.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }

    fn copy_shared(&mut self, source: AddressRange, target: u64) {
        // SAFETY: the source is in the shared window, which is mapped; the target is memory that is in use. The
        // host may write to the source meanwhile, so the bytes are moved by the processor, not read by Rust.
        unsafe {
            asm!(
                "rep movsb",
                inout("rsi") source.start() => _,
                inout("rdi") target => _,
                inout("rcx") source.len() => _,
                options(nostack, preserves_flags),
            );
        }
    }

    fn use_page_tables(&mut self, root: u64) {
        // SAFETY: the tables map stage0's image, its stack and all memory at their own addresses, as before.
        unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) }
    }

    fn is_platform(&mut self, platform: Platform) -> bool {
        match platform {
            Platform::Plain => true,
            Platform::Snp => is_snp(),
            Platform::Tdx => {
                let answer = __cpuid(module::CPUID_LEAF);
                [answer.ebx, answer.edx, answer.ecx] == module::CPUID_SIGNATURE
            }
        }
    }

    fn address_width(&mut self) -> u32 {
        tdx::address_width()
    }

    fn extend(&mut self, register: u8, digest: u64) -> bool {
        match self.platform {
            Platform::Tdx => tdx::extend(register, digest),
            Platform::Plain => extend_by_port(register, digest),
            Platform::Snp => false,
        }
    }

    fn together(&mut self, work: &Work<'_>, cpus: u32) {
        match self.platform {
            Platform::Tdx => cpus::together(work, cpus, self),
            // No other CPU is in stage0.
            Platform::Plain | Platform::Snp => work.take_part(self),
        }
    }

    fn has_sha_instructions(&self) -> bool {
        self.sha
    }

    fn did(&mut self, step: Step) {
        // Elsewhere a port access is an exception that nobody handles.
        if self.platform == Platform::Plain {
            // SAFETY: a write to the diagnostic port, which changes nothing.
            unsafe {
                asm!("out dx, al", in("dx") STEP_PORT, in("al") step as u8, options(nostack, preserves_flags));
            }
        }
    }
}

impl Validate for Machine {
    fn validate(&mut self, page: u64, size: PageSize) -> Validation {
        if self.platform == Platform::Tdx {
            return tdx::accept(page, size);
        }
        let large = u32::from(size == PageSize::Large);
        let (result, unchanged): (u64, u8);
        // SAFETY: PVALIDATE (APM volume 3) touches no memory that Rust knows: the page is not in use yet.
        unsafe {
            asm!(
                ".byte 0xf2, 0x0f, 0x01, 0xff",
                "setc {unchanged}",
                unchanged = out(reg_byte) unchanged,
                inout("rax") page => result,
                in("ecx") large,
                in("edx") 1,
                options(nostack),
            );
        }
        const SIZE_MISMATCH: u64 = 6;
        match result {
            0 if unchanged == 0 => {
                self.drop_cached_lines(page, size);
                Validation::Done
            }
            0 => Validation::DoneBefore,
            SIZE_MISMATCH => Validation::OtherSize,
            _ => Validation::Refused,
        }
    }
}

impl Machine {
    /// Lines of a page that the cache holds from before it was valid must not be used (CVE-2025-38560): reading the
    /// first and the last word of each small page makes the processor drop them.
    fn drop_cached_lines(&self, page: u64, size: PageSize) {
        for small in (page..page + size.bytes()).step_by(4096) {
            let first = small as *const u64;
            let last = (small + 4088) as *const u64;
            // SAFETY: the page was just validated and is mapped.
            unsafe {
                first.read_volatile();
                last.read_volatile();
            }
        }
    }
}

/// CPUID answers for SHA (leaf 7), and SSSE3 and SSE4.1 (leaf 1).
fn has_sha(leaf_1_ecx: u32, leaf_7_ebx: u32) -> bool {
    let (ssse3, sse41, sha) = (1 << 9, 1 << 19, 1 << 29);
    leaf_1_ecx & ssse3 != 0 && leaf_1_ecx & sse41 != 0 && leaf_7_ebx & sha != 0
}

fn cpuid_has_sha() -> bool {
    __cpuid(0).eax >= 7 && has_sha(__cpuid(1).ecx, __cpuid_count(7, 0).ebx)
}

/// Without an exception handler an SEV-SNP guest can't execute CPUID.
fn snp_has_sha() -> bool {
    // SAFETY: the page was launched, is mapped, and any bytes make a `CpuidPage`. Nobody writes to it.
    let page = unsafe { &*(layout::CPUID_PAGE as *const CpuidPage) };
    let (one, seven) = (page.find(1, 0), page.find(7, 0));
    one.zip(seven).is_some_and(|(one, seven)| has_sha(one.ecx, seven.ebx))
}

/// Has the VMM's software module extend a register, if it has one. A VMM that can't ends the machine.
fn extend_by_port(register: u8, address: u64) -> bool {
    let Some(value) = (module::Extension { register, address }).to_port() else { return false };
    // SAFETY: a write to a port, by which the VMM reads the 48 bytes and changes nothing in memory.
    unsafe {
        asm!("out dx, eax", in("dx") module::EXTEND_PORT, in("eax") value, options(nostack, preserves_flags));
    }
    true
}

/// Whether the processor runs this guest under SEV-SNP. A host can't intercept or forge the answer.
fn is_snp() -> bool {
    const SEV_STATUS: u32 = 0xc001_0131;
    const SNP_ACTIVE: u32 = 1 << 2;
    let low: u32;
    // SAFETY: reading an MSR that every processor has on which the entry's PVALIDATE worked.
    unsafe {
        asm!("rdmsr", in("ecx") SEV_STATUS, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    low & SNP_ACTIVE != 0
}

/// Jumps to the kernel (`Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol").
pub fn enter(kernel: Kernel) -> ! {
    // SAFETY: the kernel is in its place and was checked, and everything that it wants is there.
    unsafe {
        asm!(
            "jmp {entry}",
            entry = in(reg) kernel.entry,
            in("rsi") kernel.boot_params,
            options(noreturn),
        )
    }
}

/// Says why stage0 stops, and stops.
pub fn stop(platform: Platform, stop: Stop) -> ! {
    match platform {
        // SAFETY: an access to an I/O port that nothing but the VMM knows; then there is nothing more to do.
        Platform::Plain => unsafe {
            asm!(
                "out dx, eax",
                "2: hlt",
                "jmp 2b",
                in("dx") STOP_PORT,
                in("eax") stop.port_value(),
                options(noreturn),
            )
        },
        Platform::Tdx => tdx::stop(stop),
        // SAFETY: a request of the GHCB's MSR protocol to end the guest, which has no answer. A host that goes on
        // runs into the undefined instruction.
        Platform::Snp => unsafe {
            asm!(
                "wrmsr",
                ".byte 0xf3, 0x0f, 0x01, 0xd9",
                "ud2",
                in("ecx") 0xc001_0130u32,
                in("eax") stop.ghcb_request(),
                in("edx") 0,
                options(noreturn),
            )
        },
    }
}
