use std::sync::{Arc, Mutex};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rstest::rstest;

use super::*;
use crate::unsafe_mapping::Mapping;

/// Attributes as KVM keeps them, which may refuse.
#[derive(Clone, Default)]
struct Kernel {
    calls: Arc<Mutex<Vec<(u64, u64, bool)>>>,
    refuse: Arc<Mutex<Option<Errno>>>,
}

impl Attributes for Kernel {
    fn set_private(&self, range: AddressRange, private: bool) -> Result<(), Errno> {
        self.calls.lock().unwrap().push((range.start(), range.end(), private));
        self.refuse.lock().unwrap().map_or(Ok(()), Err)
    }
}

struct Machine {
    memory: Arc<PrivateMemory>,
    kernel: Kernel,
    _shared: Vec<Mapping>,
}

/// RAM of 64 pages at 0 and of 64 pages at 4 GiB. A memfd stands for a guest_memfd: it has holes, too.
fn machine() -> Machine {
    let kernel = Kernel::default();
    let (mut regions, mut shared) = (Vec::new(), Vec::new());
    for start in [0, 1 << 32] {
        let private = memfd_create(c"private", MFdFlags::MFD_CLOEXEC).unwrap();
        std::fs::File::from(private.try_clone().unwrap()).set_len(64 << 12).unwrap();
        let mapping = Mapping::zeros(64 << 12).unwrap();
        let range = AddressRange::new(start, 64 << 12).unwrap();
        regions.push(PrivateRegion { range, shared_address: mapping.address(), private });
        shared.push(mapping);
    }
    let memory = Arc::new(PrivateMemory::new(regions, Box::new(kernel.clone())));
    Machine { memory, kernel, _shared: shared }
}

fn call(memory: &Arc<PrivateMemory>, gpa: u64, count: u64, attributes: u64) -> i64 {
    let call = Hypercall { number: 12, arguments: [gpa, count, attributes] };
    Asked::new(Arc::clone(memory)).hypercall(call).cast_signed()
}

#[test]
fn all_memory_is_private_at_first_and_a_device_may_touch_what_was_shared() {
    let machine = machine();
    assert!(!machine.memory.is_shared(0x3000, 16));
    assert_eq!(call(&machine.memory, 0x3000, 2, 0), 0);
    assert!(machine.memory.is_shared(0x3000, 0x2000));
    // One byte into a private page on either side is too much.
    assert!(!machine.memory.is_shared(0x2fff, 2) && !machine.memory.is_shared(0x4fff, 2));
    assert_eq!(call(&machine.memory, 0x4000, 1, 0x10), 0);
    assert!(machine.memory.is_shared(0x3000, 0x1000) && !machine.memory.is_shared(0x4000, 1));
    let calls = machine.kernel.calls.lock().unwrap();
    assert_eq!(calls[..], [(0x3000, 0x5000, false), (0x4000, 0x5000, true)]);
}

#[rstest]
#[case::unaligned(0x3001, 1, 0)]
#[case::nothing(0x3000, 0, 0)]
#[case::wraps(u64::MAX - 0xfff, 1, 0)]
#[case::wraps_by_count(0x3000, 1 << 52, 0)]
#[case::huge(0, u64::MAX, 0x10)]
#[case::beyond(63 << 12, 2, 0)]
#[case::devices(0xd000_0000, 1, 0)]
#[case::over_the_gap(0, (1 << 20) + 64, 0)]
#[case::unknown_attribute(0x3000, 1, 0x20)]
fn what_is_no_conversion_of_ram_is_refused_and_changes_nothing(
    #[case] gpa: u64,
    #[case] count: u64,
    #[case] attributes: u64,
) {
    let machine = machine();
    assert_eq!(call(&machine.memory, gpa, count, attributes), -22);
    assert_eq!(machine.kernel.calls.lock().unwrap().len(), 0);
    assert!(!machine.memory.is_shared(0x3000, 1));
}

#[test]
fn another_hypercall_is_refused() {
    let machine = machine();
    let call = Hypercall { number: 1, arguments: [0x3000, 1, 0] };
    assert_eq!(Asked::new(Arc::clone(&machine.memory)).hypercall(call).cast_signed(), -22);
}

#[rstest]
#[case(Errno::EAGAIN, -11)]
#[case(Errno::ENOMEM, -11)]
#[case(Errno::EINVAL, -22)]
fn a_kernel_that_refuses_leaves_pages_on_the_safe_side(#[case] errno: Errno, #[case] answer: i64) {
    let machine = machine();
    call(&machine.memory, 0x5000, 1, 0);
    *machine.kernel.refuse.lock().unwrap() = Some(errno);
    assert_eq!(call(&machine.memory, 0x3000, 1, 0), answer);
    assert!(!machine.memory.is_shared(0x3000, 1));
    // What was to become private is kept from devices even so.
    assert_eq!(call(&machine.memory, 0x5000, 1, 0x10), answer);
    assert!(!machine.memory.is_shared(0x5000, 1));
}

#[test]
fn a_conversion_gives_the_other_side_back() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let machine = machine();
    let region = &machine.memory.regions[0];
    let private = std::fs::File::from(region.private.try_clone().unwrap());
    private.write_all_at(&[1; 8 << 12], 0).unwrap();
    assert_eq!(private.metadata().unwrap().blocks() * 512, 8 << 12);
    call(&machine.memory, 0, 8, 0);
    assert_eq!(private.metadata().unwrap().blocks() * 512, 0);
    for _ in 0..10_000 {
        private.write_all_at(&[1; 1 << 12], 0).unwrap();
        call(&machine.memory, 0, 1, 0x10);
        call(&machine.memory, 0, 1, 0);
    }
    assert_eq!(private.metadata().unwrap().blocks() * 512, 0);
}

#[test]
fn a_fault_converts_and_a_loop_ends_the_machine() {
    let machine = machine();
    let asked = Asked::new(Arc::clone(&machine.memory));
    asked.fault(0, 0x3123, 1).unwrap();
    assert!(machine.memory.is_shared(0x3000, 0x1000));
    asked.fault(8, 0x3000, 0x1000).unwrap();
    assert!(!machine.memory.is_shared(0x3000, 1));
    // To and fro is progress; the same again is not.
    for _ in 0..5000 {
        asked.fault(0, 0x3000, 0x1000).unwrap();
        asked.fault(8, 0x3000, 0x1000).unwrap();
    }
    let end = (0..2000).find_map(|_| asked.fault(8, 0x3000, 0x1000).err()).unwrap().to_string();
    assert!(end.contains("without getting on"), "{end}");
    for (flags, gpa) in [(0, 0xd000_0000), (8, 64 << 12), (0x10, 0x3000)] {
        assert!(asked.fault(flags, gpa, 0x1000).is_err());
    }
}

#[test]
fn nothing_is_shared_before_there_is_memory() {
    let awaited = Awaited::default();
    assert!(!awaited.is_shared(0x3000, 16));
    let machine = machine();
    call(&machine.memory, 0x3000, 1, 0);
    awaited.arrived(machine.memory.clone());
    assert!(awaited.is_shared(0x3000, 16) && !awaited.is_shared(0x4000, 16));
}
