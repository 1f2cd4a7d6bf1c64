use nacre_control::{ConsoleConfig, Extent, FileIndex, Irqchip, VsockConfig};
use slog::{Discard, Logger, o};

use super::*;
use crate::memory;

fn config(disks: usize) -> VmConfig {
    let extent = Extent { file: FileIndex(1) };
    let mut disks = vec![DiskConfig { backing: Backing::Extents(Vec::new()) }; disks];
    if let Some(first) = disks.first_mut() {
        first.backing = Backing::Extents(vec![extent]);
    }
    VmConfig {
        vcpus: 1,
        memory_mib: 64,
        kvm: FileIndex(9),
        kernel: FileIndex(9),
        initrd: FileIndex(9),
        kernel_parameters: String::new(),
        irqchip: Irqchip::Kernel,
        tee: None,
        disks,
        nets: Vec::new(),
        vsock: VsockConfig { guest_cid: 3, listener: FileIndex(0), host_ports: Vec::new() },
        console: ConsoleConfig { output: None },
    }
}

fn devices(config: &VmConfig) -> Result<Devices, DeviceError> {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("vsock.sock")).unwrap();
    let extent = tempfile::tempfile().unwrap();
    extent.set_len(4096).unwrap();
    let mut files = Files::new(vec![listener.into(), extent.into()]);
    let memory = Arc::new(memory::allocate(64).unwrap());
    let (reporter, _reports, _bell) = Reporter::new().unwrap();
    Devices::new(config, &mut files, &memory, None, &reporter, &Logger::root(Discard, o!()))
}

fn read(bus: &MmioBus, address: u64) -> u32 {
    let mut data = [0; 4];
    bus.read(address, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn devices_are_where_the_command_line_says_in_a_fixed_order() {
    let devices = devices(&config(2)).unwrap();
    let places = devices.places();
    assert_eq!(places.first(), Some(&(0xD000_0000, 5)));
    assert_eq!(places.last(), Some(&(0xD000_4000, 9)));
    assert_eq!((devices.disks.len(), devices.disk_workers.len(), devices.other_workers.len()), (2, 2, 3));

    let bus = MmioBus { devices: devices.slots.into_iter().map(|slot| slot.mmio).collect(), ioapic: None };
    // The magic value and the device id: block, block, socket, random numbers, console (virtio 1.2, 4.2.2 and 5).
    let ids: Vec<u32> = places.iter().map(|(address, _)| read(&bus, address + 8)).collect();
    assert_eq!(ids, [2, 2, 19, 4, 3]);
    assert!(places.iter().all(|&(address, _)| read(&bus, address) == 0x7472_6976));
}

#[test]
fn an_access_beside_the_devices_does_nothing() {
    let devices = devices(&config(0)).unwrap();
    let bus = MmioBus { devices: devices.slots.into_iter().map(|slot| slot.mmio).collect(), ioapic: None };
    for address in [0, 0xCFFF_FFFF, 0xD001_3000, 0xFEC0_0000, u64::MAX] {
        bus.write(address, &[1, 2, 3, 4]);
        assert_eq!(read(&bus, address), u32::MAX);
    }
}

#[test]
fn a_place_without_a_device_is_a_placeholder() {
    let devices = devices(&config(0)).unwrap();
    let bus = MmioBus { devices: devices.slots.into_iter().map(|slot| slot.mmio).collect(), ioapic: None };
    for place in [0xD000_3000, 0xD001_2000] {
        // Magic value, version, device id (virtio 1.2, 4.2.2).
        assert_eq!([0, 4, 8].map(|register| read(&bus, place + register)), [0x7472_6976, 2, 0]);
    }
}

#[test]
fn more_devices_than_interrupts_are_refused() {
    assert_eq!(devices(&config(16)).unwrap().places().last(), Some(&(0xD001_2000, 23)));
    let error = devices(&config(17)).unwrap_err().to_string();
    assert_eq!(error, "20 devices are configured, the machine has room for 19");
}
