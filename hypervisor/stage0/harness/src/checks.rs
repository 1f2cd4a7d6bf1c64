//! What must be true when the kernel's first instruction runs.

use kvm_bindings::{kvm_regs, kvm_sregs};
use nacre_stage0_abi::{layout, tdx};

use crate::error::{Error, must};
use crate::launch::{HOST_CHOSEN, Launch};
use crate::model::{Model, Technology, extended};

/// Everything.
pub fn kernel(
    launch: &Launch,
    model: &mut Model,
    bit: u32,
    registers: &kvm_regs,
    special: &kvm_sregs,
) -> Result<(), Error> {
    processor(model.technology, bit, registers, special)?;
    memory_once(launch, model)?;
    images(launch, model)?;
    tables(launch, model, bit)?;
    boot_params(model)?;
    if model.technology == Technology::Tdx {
        stacks(launch, model)?;
    }
    let expected = if model.technology == Technology::Snp { [[0; 48]; 4] } else { runtime_registers(launch) };
    must(model.registers == expected, || format!("registers are {:02x?}", model.registers))
}

/// `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol".
fn processor(
    technology: Technology,
    bit: u32,
    registers: &kvm_regs,
    special: &kvm_sregs,
) -> Result<(), Error> {
    let root =
        if technology == Technology::Snp { layout::PAGE_TABLES | 1 << bit } else { layout::PAGE_TABLES };
    let state = (registers.rsi, special.cr3, special.cs.selector, special.ds.selector, special.ss.selector);
    must(state == (layout::BOOT_PARAMS, root, 0x10, 0x18, 0x18), || {
        format!("the CPU's state is {state:x?}")
    })?;
    let flags = registers.rflags & (1 << 9 | 1 << 10);
    let long = special.cs.l == 1 && special.efer & 1 << 10 != 0 && flags == 0;
    must(long, || format!("RFLAGS {:#x}, CS {:?}", registers.rflags, special.cs))?;
    must(special.idt.limit == 0, || format!("there is an IDT: {:?}", special.idt))
}

/// All memory is in use, and stage0 took each page once that was not launched.
pub fn memory_once(launch: &Launch, model: &Model) -> Result<(), Error> {
    if model.technology == Technology::Plain {
        return Ok(());
    }
    for (start, len) in &launch.memory {
        let (mut at, end) = (*start, start + len);
        while at < end {
            let (next, count) = model.in_use.get(&at).copied().unwrap_or_default();
            must(next > at, || format!("{at:#x} is not in use"))?;
            let launched = launch.pages().iter().any(|(gpa, _)| *gpa == at);
            must(count == u32::from(!launched), || format!("{at:#x} was taken {count} times"))?;
            at = next;
        }
    }
    Ok(())
}

/// Kernel, initrd and command line are what was measured, though the host changed each page of the window as soon as
/// the next one was read: stage0 reads each byte once.
fn images(launch: &Launch, model: &mut Model) -> Result<(), Error> {
    if model.window_changes {
        let pages: u64 = launch.images.iter().map(|image| image.source.len().div_ceil(4096)).sum();
        let read = u64::try_from(model.window_page).unwrap_or(u64::MAX);
        must(read == pages, || format!("{read} pages of the window were read, not {pages}"))?;
    }
    for image in &launch.images {
        let (start, end) = (image.source.start() - layout::SHARED_WINDOW.start(), image.source.len());
        let from = usize::try_from(start).unwrap_or(0);
        let bytes = &launch.window[from..from + usize::try_from(end).unwrap_or(0)];
        let len = usize::try_from(image.target.len()).unwrap_or(0);
        let found = model.memory.read(image.target.start(), len).unwrap_or_default();
        let (file, rest) = found.split_at_checked(bytes.len()).unwrap_or_default();
        let right = file == bytes && rest.iter().all(|byte| *byte == 0);
        must(right, || format!("{:?} at {:#x} is another one", image.kind, image.target.start()))?;
    }
    Ok(())
}

/// Every entry of the page tables that leads to memory says private, and those of the window say shared.
fn tables(launch: &Launch, model: &mut Model, bit: u32) -> Result<(), Error> {
    let len = usize::try_from(layout::PAGE_TABLE_PAGES * 4096).unwrap_or(0);
    let bytes = model.memory.read(layout::PAGE_TABLES, len).unwrap_or_default();
    let (entries, _) = bytes.as_chunks::<8>();
    let mut windows = 0;
    for entry in entries.iter().map(|entry| u64::from_le_bytes(*entry)).filter(|entry| entry & 1 != 0) {
        let (address, marked) = (entry & ((1 << bit) - 1) & !0xfff, entry >> bit & 1 == 1);
        let window = layout::SHARED_WINDOW.start() <= address && address < layout::SHARED_WINDOW.end();
        windows += u32::from(window);
        let right = match launch.technology {
            Technology::Plain => !marked,
            Technology::Snp => marked != window,
            Technology::Tdx => marked == window,
        };
        must(right, || format!("page table entry {entry:#x}"))?;
    }
    must(windows == 128, || format!("{windows} entries lead to the window"))
}

fn boot_params(model: &mut Model) -> Result<(), Error> {
    let page = model.memory.read(layout::BOOT_PARAMS, 4096).unwrap_or_default();
    let number = |at: usize| {
        page.get(at..at + 8).and_then(|bytes| bytes.first_chunk().copied()).map(u64::from_le_bytes)
    };
    let tables = if model.technology == Technology::Plain { 0 } else { layout::ACPI_TABLES };
    let blob = if model.technology == Technology::Snp { layout::HANDOVER_PAGE } else { 0 };
    let found = (number(0x70), number(0x250));
    must(found == (Some(tables), Some(blob)), || format!("boot_params lead to {found:x?}"))?;
    let (at, signature): (u64, &[u8]) = match model.technology {
        Technology::Plain => (layout::MP_TABLE, b"_MP_"),
        Technology::Snp | Technology::Tdx => (layout::ACPI_TABLES, b"RSD PTR "),
    };
    let there = model.memory.read(at, signature.len());
    must(there.as_deref() == Some(signature), || format!("no table at {at:#x}"))
}

/// A quarter of each stack was never written. The first one still has the bytes that the host chose, the other CPUs'
/// are as clear as the module made them, but for the command line at the start of the first of these.
fn stacks(launch: &Launch, model: &mut Model) -> Result<(), Error> {
    let size = usize::try_from(layout::HELPER_STACK_SIZE).unwrap_or(0);
    for index in 1..launch.cpus.max(1) {
        let start = layout::HELPER_STACKS + u64::from(index - 1) * layout::HELPER_STACK_SIZE;
        let bytes = model.memory.read(start, size).unwrap_or_default();
        let clear = bytes.iter().skip(64).take(size / 4).all(|byte| *byte == 0);
        must(!bytes.is_empty() && clear, || {
            format!("CPU {index} used more than three quarters of its stack")
        })?;
    }
    let stack = layout::FIRST_STACK;
    let len = usize::try_from(stack.len()).unwrap_or(0);
    let bytes = model.memory.read(stack.start(), len).unwrap_or_default();
    let free = bytes.iter().take_while(|byte| **byte == HOST_CHOSEN).count();
    must(free >= len / 4, || format!("{free} of {len} bytes of the stack are left"))
}

/// What the runtime measurement registers hold in the end.
fn runtime_registers(launch: &Launch) -> [[u8; 48]; 4] {
    let mut registers = [[0; 48]; 4];
    for image in &launch.images {
        if let Some(place) = registers.get_mut(usize::from(tdx::register_of(image.kind))) {
            *place = extended(place, &[&image.sha256[..], &[0; 16]].concat());
        }
    }
    registers
}
