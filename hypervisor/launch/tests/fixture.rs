//! A plan for foreign calculators: all kinds of things that a plan has, with stand-ins for the programs.

#![allow(clippy::unwrap_used)]

#[path = "stand_in/kernel.rs"]
mod kernel;

use nacre_launch::{GuestImages, LaunchPlan, Machine, Policy, Stage0Image, memory_of};

/// The numbers of vCPUs that are compared.
pub const VCPUS: [u32; 4] = [1, 2, 4, 8];

/// The plan of an SEV-SNP guest with this many vCPUs.
pub fn plan(vcpus: u32) -> LaunchPlan {
    LaunchPlan::snp(&stage0(), &images(), &machine(vcpus), Policy::default()).unwrap()
}

/// The plan of a TDX guest with this many vCPUs.
#[allow(dead_code)] // Not every calculator knows TDX.
pub fn tdx_plan(vcpus: u32) -> LaunchPlan {
    LaunchPlan::tdx(&stage0(), &images(), &machine(vcpus)).unwrap()
}

fn stage0() -> Stage0Image {
    Stage0Image::new((0..0x4000u32).map(|place| u8::try_from(place % 251).unwrap()).collect()).unwrap()
}

fn images() -> GuestImages {
    GuestImages::new(&kernel::kernel_file(), b"an initrd", "console=hvc0").unwrap()
}

fn machine(vcpus: u32) -> Machine {
    Machine { vcpus, memory: memory_of(4 << 30).unwrap(), first_interrupt: 5, interrupts: 6 }
}
