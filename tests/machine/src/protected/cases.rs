//! What the machines must do.

use kvm_ioctls::Kvm;
use nacre_stage0_abi::AddressRange;
use nacre_vmm::cpu;

use super::machine::{Machine, RAM, WINDOW, cached_bytes, resident_bytes};
use super::program::Program;
use crate::case::{Case, Failure, contains, equal, said};

pub const CASES: &[Case] = &[
    Case { name: "protected-private-is-not-the-hosts", run: private_is_not_the_hosts },
    Case { name: "protected-10000-conversions", run: ten_thousand_conversions },
    Case { name: "protected-large-conversions", run: large_conversions },
    Case { name: "protected-hostile-hypercalls", run: hostile_hypercalls },
    Case { name: "protected-fault-outside-memory", run: fault_outside_memory },
    Case { name: "protected-fault-loop", run: fault_loop },
    Case { name: "protected-prefault", run: prefault },
];

const PAGE: u32 = 0x10_0000;

/// Private bytes stay out of the host's sight, shared ones are in it, and a conversion leaves nothing behind.
fn private_is_not_the_hosts(kvm: &Kvm) -> Result<(), Failure> {
    let mut machine = Machine::new(kvm, 1)?;
    let program = Program::new()
        .store(PAGE, 0x1111_1111)
        .store(PAGE + 0x1000, 0x2222_2222)
        .convert(PAGE + 0x2000, 1, false, 0, 1)
        .store(PAGE + 0x2000, 0x3333_3333)
        .convert(PAGE + 0x1000, 1, false, 0, 2)
        // What was private is gone, not shown.
        .expect(PAGE + 0x1000, 0, 3)
        .expect(PAGE, 0x1111_1111, 4)
        .end(0);
    equal("the program's end", machine.run(&program)?, 0)?;
    equal("a private word", machine.shared_word(PAGE.into())?, 0)?;
    equal("a word that was private", machine.shared_word(u64::from(PAGE) + 0x1000)?, 0)?;
    equal("a shared word", machine.shared_word(u64::from(PAGE) + 0x2000)?, 0x3333_3333)
}

/// The same page to and fro: the host's memory is then what it was.
fn ten_thousand_conversions(kvm: &Kvm) -> Result<(), Failure> {
    let round_trips = |count| {
        Program::new()
            .repeat(count, |body| {
                body.store(PAGE, 0x1111_1111)
                    .convert(PAGE, 1, false, 0, 1)
                    .expect(PAGE, 0, 2)
                    .store(PAGE, 0x2222_2222)
                    .convert(PAGE, 1, true, 0, 3)
                    .expect(PAGE, 0, 4)
            })
            .end(0)
    };
    let used = |count| -> Result<(u64, u64), Failure> {
        let mut machine = Machine::new(kvm, 1)?;
        equal("the program's end", machine.run(&round_trips(count))?, 0)?;
        Ok((cached_bytes()?, resident_bytes()?))
    };
    let (few, few_resident) = used(10)?;
    let (many, many_resident) = used(5_000)?;
    // What else the node does makes a difference that does not grow with the number: a page kept for each would be 20 MiB.
    for (what, few, many) in [("private memory", few, many), ("the process", few_resident, many_resident)] {
        let grown = many.saturating_sub(few);
        if grown > SLACK {
            return Err(format!("{what} grew by {grown} bytes"));
        }
    }
    Ok(())
}

/// What the rest of the node may do meanwhile.
const SLACK: u64 = 1 << 20;

/// Many pages at once: on whichever side they are, the host keeps them once.
fn large_conversions(kvm: &Kvm) -> Result<(), Failure> {
    const PAGES: u32 = 2048;
    const BYTES: u64 = PAGES as u64 * 4096;
    let first = u32::try_from(RAM - BYTES).map_err(said("an address"))?;
    let mut machine = Machine::new(kvm, 2)?;
    let other = machine.cpus.pop().ok_or("there is no second CPU")?;
    let range = AddressRange::new(first.into(), BYTES).ok_or("no range")?;
    let (empty, _) = (cached_bytes()?, resident_bytes()?);
    cpu::prefault(&other, range).map_err(said("KVM_PRE_FAULT_MEMORY"))?;
    about("private memory that is there", cached_bytes()?.saturating_sub(empty), BYTES)?;
    let resident = resident_bytes()?;
    let program = Program::new().convert(first, PAGES, false, 0, 1).touch(first, PAGES).end(0);
    equal("the program's end", machine.run(&program)?, 0)?;
    about("private memory after all was shared", cached_bytes()?.saturating_sub(empty), 0)?;
    about("shared memory that is there", resident_bytes()?.saturating_sub(resident), BYTES)?;
    equal("a word that the host sees", machine.shared_word(first.into())?, PAGES)?;
    machine.memory.convert(first.into(), PAGES.into(), true).map_err(said("the conversion back"))?;
    about("shared memory after all was private", resident_bytes()?.saturating_sub(resident), 0)?;
    equal("a word that was shared", machine.shared_word(first.into())?, 0)
}

/// Whatever a guest asks for, it gets an answer and the machine goes on.
fn hostile_hypercalls(kvm: &Kvm) -> Result<(), Failure> {
    const INVALID: i32 = -22;
    let end = u32::try_from(RAM).map_err(said("an address"))?;
    let program = Program::new()
        .convert(PAGE + 1, 1, false, INVALID, 1)
        .convert(PAGE, 0, false, INVALID, 2)
        .convert(end, 1, false, INVALID, 3)
        .convert(end - 0x1000, 2, true, INVALID, 4)
        .convert(0, u32::MAX, false, INVALID, 5)
        .convert(0xd000_0000, 1, true, INVALID, 6)
        .convert(0xffff_f000, 1, false, INVALID, 7)
        .convert(u32::try_from(WINDOW).map_err(said("an address"))?, 1, true, INVALID, 8)
        .hypercall(12, PAGE, 1, 0x20, INVALID, 9)
        // All is as before.
        .store(PAGE, 0x1111_1111)
        .expect(PAGE, 0x1111_1111, 10)
        .convert(PAGE, 1, false, 0, 11)
        .end(0);
    let mut machine = Machine::new(kvm, 1)?;
    equal("the program's end", machine.run(&program)?, 0)
}

/// Memory without a private side that is touched as private: the machine ends with a reason, not the VMM.
fn fault_outside_memory(kvm: &Kvm) -> Result<(), Failure> {
    let mut machine = Machine::new(kvm, 1)?;
    set_private(&machine, WINDOW)?;
    let address = u32::try_from(WINDOW).map_err(said("an address"))?;
    let reason = machine.run_to_end(&Program::new().store(address, 1).end(0))?.to_string();
    contains(&reason, "the guest touched 0xc0000000")?;
    contains(&reason, "is not wholly the guest's memory")
}

/// A kernel whose attributes say otherwise than ours is put right by the fault; one that keeps saying it ends the machine.
fn fault_loop(kvm: &Kvm) -> Result<(), Failure> {
    let machine = Machine::new(kvm, 1)?;
    let asked = nacre_vmm::private::Asked::new(machine.memory.clone());
    let fault = || asked.fault(8, PAGE.into(), 0x1000);
    let ended = (0..5_000).find_map(|_| fault().err()).ok_or("5000 faults at one page ended nothing")?;
    contains(&ended.to_string(), "without getting on")
}

/// Memory is there before the guest touches it, mapped by two CPUs' threads at once.
fn prefault(kvm: &Kvm) -> Result<(), Failure> {
    let mut machine = Machine::new(kvm, 3)?;
    let before = cached_bytes()?;
    let range = AddressRange::new(0x40_0000, 0x80_0000).ok_or("no range")?;
    let helpers = machine.cpus.split_off(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&helpers)
            .filter_map(|(number, vcpu)| {
                let share = cpu::share(range, number, 2)?;
                Some(scope.spawn(move || cpu::prefault(vcpu, share)))
            })
            .collect();
        equal("helpers", threads.len(), 2)?;
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| "a helper panicked".to_owned())?.map_err(said("KVM_PRE_FAULT_MEMORY"))
        })
    })?;
    about("memory that is there", cached_bytes()?.saturating_sub(before), range.len())?;
    let program = Program::new().touch(0x40_0000, 2048).end(0);
    equal("the program's end", machine.run(&program)?, 0)?;
    about("memory after it was touched", cached_bytes()?.saturating_sub(before), range.len())
}

/// The kernel counts memory in portions for each CPU, and the rest of the node goes on.
fn about(what: &str, found: u64, wanted: u64) -> Result<(), Failure> {
    if found.abs_diff(wanted) <= SLACK {
        Ok(())
    } else {
        Err(format!("{what}: {found} bytes, wanted {wanted}"))
    }
}

fn set_private(machine: &Machine, gpa: u64) -> Result<(), Failure> {
    use nacre_vmm::private::Attributes;
    let range = AddressRange::new(gpa, 0x1000).ok_or("no range")?;
    let attributes = nacre_vmm::private::KvmMemory(machine.vm.clone());
    attributes.set_private(range, true).map_err(said("KVM_SET_MEMORY_ATTRIBUTES"))
}
