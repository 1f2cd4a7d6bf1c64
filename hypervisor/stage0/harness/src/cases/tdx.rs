//! TDX: all CPUs start at once, the module's registers, and much memory.

use std::time::Instant;

use kvm_bindings::{kvm_regs, kvm_sregs};
use nacre_stage0_abi::layout;
use nacre_stage0_abi::stop::Stop;

use super::{Entry, Guest, must_stop};
use crate::checks;
use crate::cpu::{Ended, lock};
use crate::error::{Error, must};
use crate::launch::{LOW, WAKEUP};
use crate::model::{Model, Technology};

const GIB: u64 = 1 << 30;

pub const CASES: &[Entry] = &[
    ("tdx-reaches-the-kernel", |image| wakes(image, 1, 1, false)),
    ("tdx-with-large-pages", |image| wakes(image, 1, 1, true)),
    ("tdx-wakes-other-cpus", |image| wakes(image, 4, 4, true)),
    ("tdx-more-cpus-than-were-measured", |image| wakes(image, 2, 4, true)),
    ("tdx-added-page-in-low-memory", |image| added(image, 0x3000)),
    ("tdx-added-page", |image| added(image, 24 << 20)),
    ("tdx-added-page-in-high-memory", |image| added(image, (1 << 32) + 0x3f_f000)),
    ("tdx-added-mailbox", |image| added(image, layout::MAILBOX_PAGE)),
    ("tdx-another-width-of-addresses", |image| stops(image, |model| model.width += 1, Stop::EncryptionBit)),
    ("tdx-register-is-not-extended", |image| {
        stops(image, |model| model.refuses_extension = true, Stop::RuntimeMeasurement)
    }),
    ("tdx-64-gib-on-1-cpu", |image| large(image, 1)),
    ("tdx-64-gib-on-4-cpus", |image| large(image, 4)),
];

/// All CPUs start; the first reaches the kernel, which then wakes the others that were measured, one after the other.
fn wakes(image: &[u8], vcpus: u32, started: u32, large_pages: bool) -> Result<String, Error> {
    let mut guest = Guest::new(Technology::Tdx, vcpus, image)?;
    guest.launch.cpus = started;
    let mut running = guest.start(|model| {
        model.large_pages = large_pages;
        Ok(())
    })?;
    let ends = running.run_all();
    let next = || ends.recv().map_err(|_| Error::Wrong("no CPU ended".into()));
    let (index, ended) = next()?;
    must(index == 0, || format!("CPU {index} ended before the first: {ended:?}"))?;
    running.must_be_in_the_kernel(&ended?)?;
    for cpu in 1..vcpus {
        wake(&mut lock(&running.model), cpu)?;
        let (index, ended) = next()?;
        let ended = ended?;
        let long_mode = |state: &(kvm_regs, kvm_sregs)| {
            let (registers, special) = state;
            special.cs.l == 1 && special.cr3 == layout::PAGE_TABLES && registers.rflags & 1 << 9 == 0
        };
        let right =
            u32::try_from(index) == Ok(cpu) && matches!(&ended, Ended::Woken(state) if long_mode(state));
        must(right, || format!("instead of CPU {cpu}: CPU {index}, {ended:?}"))?;
        let command = lock(&running.model).memory.read(layout::MAILBOX_PAGE, 2);
        must(command.as_deref() == Some(&[0, 0]), || format!("not acknowledged: {command:?}"))?;
    }
    let taken = &lock(&running.model).taken;
    Ok(format!("pages taken by each CPU: {:?}", taken.values().collect::<Vec<_>>()))
}

/// What Linux does (`acpi_wakeup_cpu`): id and address first, then the command.
fn wake(model: &mut Model, cpu: u32) -> Result<(), Error> {
    let mailbox = layout::MAILBOX_PAGE;
    let wrote = model
        .memory
        .write(mailbox + 8, &WAKEUP.to_le_bytes())
        .and_then(|()| model.memory.write(mailbox + 4, &cpu.to_le_bytes()))
        .and_then(|()| model.memory.write(mailbox, &1u16.to_le_bytes()));
    wrote.ok_or_else(|| Error::Wrong("the mailbox is not in use".into()))
}

/// The host adds a page that is not in the plan.
fn added(image: &[u8], gpa: u64) -> Result<String, Error> {
    let mut running =
        Guest::new(Technology::Tdx, 2, image)?.start(|model| model.add_page(gpa, &[0xcc; 4096]))?;
    must_stop(&mut running, Stop::ValidatedBefore)
}

fn stops(image: &[u8], change: impl FnOnce(&mut Model), stop: Stop) -> Result<String, Error> {
    let mut running = Guest::new(Technology::Tdx, 1, image)?.start(|model| {
        change(model);
        Ok(())
    })?;
    must_stop(&mut running, stop)
}

/// 64 GiB, which the host has in large pages. The memory is only counted: accepting a page touches nothing.
fn large(image: &[u8], cpus: u32) -> Result<String, Error> {
    let memory = vec![(0, LOW), (4 * GIB, 64 * GIB)];
    let mut running = Guest::with_memory(Technology::Tdx, cpus, image, memory)?.start(|model| {
        model.large_pages = true;
        Ok(())
    })?;
    let began = Instant::now();
    let ends = running.run_all();
    let (index, ended) = ends.recv().map_err(|_| Error::Wrong("no CPU ended".into()))?;
    let ended = ended?;
    let right = index == 0 && matches!(ended, Ended::Kernel(_));
    must(right, || format!("CPU {index}: {ended:?}"))?;
    let seconds = began.elapsed().as_secs_f32();
    let model = lock(&running.model);
    checks::memory_once(&running.launch, &model)?;
    let shares: Vec<u64> = model.taken.values().map(|pages| pages / 512).collect();
    Ok(format!("{seconds:.1} s, each CPU's share in MiB / 2: {shares:?}"))
}
