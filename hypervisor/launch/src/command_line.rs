//! The kernel command line: our own choices, the devices, then what the configuration appends.

use crate::devices;

/// The longest that x86 Linux takes, without its terminator (`COMMAND_LINE_SIZE` is 2048).
pub const MAX: usize = 2047;

/// Each with its reason. They are about speed (an exit costs more than most code around it) and about every end
/// of the guest being an end of the machine.
const PARAMETERS: &[&str] = &[
    // The agent's messages and the kernel's go to the virtio console: a serial port costs an exit per byte.
    "console=hvc0",
    "8250.nr_uarts=0",
    // Only emergencies: printing costs time, and a panic still shows.
    "quiet",
    "loglevel=1",
    // A reset is a byte to port 0x64, which the VMM takes as an unannounced end; a panic resets at once.
    "reboot=k",
    "panic=-1",
    // Turning the lock prefixes off for a single CPU, one by one, was a quarter of the start in a nested guest.
    "noreplace-smp",
    // Grace periods end by interrupts to the few CPUs, not by waiting: cgroups and mounts are what containers do.
    "rcupdate.rcu_expedited=1",
    // There is no PIT against which the timer's interrupt could be checked.
    "no_timer_check",
    // The host's TSC is what KVM gives us; a watchdog against another clock only costs wake-ups.
    "tsc=reliable",
    // RDRAND seeds the generator at once: it is the only source that a confidential guest may trust anyway.
    "random.trust_cpu=on",
    // Self-tests of ciphers belong into the kernel's build, not into each start.
    "cryptomgr.notests",
];

/// No device needs bounce buffers in a guest whose memory the host may read.
const NO_BOUNCE_BUFFERS: &str = "swiotlb=noforce";

/// The kernel is the same for all machines; these parts of it are for machines whose stage0 makes ACPI's tables. Without
/// them the kernel would look through the BIOS's memory for tables, and read registers of machine checks that KVM makes up,
/// an exit for each.
const NO_TABLES: [&str; 2] = ["acpi=off", "mce=off"];

/// The line of a guest without confidential memory. It has `count` devices.
#[must_use]
pub fn plain(count: u32, appended: &str) -> String {
    line(&[&[NO_BOUNCE_BUFFERS], &NO_TABLES[..]].concat(), count, appended)
}

/// The line of a confidential guest whose devices stage0 lists in ACPI's tables.
#[must_use]
pub fn with_acpi(appended: &str) -> String {
    line(&[], 0, appended)
}

/// The line of a guest that is measured and has no ACPI. It must not depend on how many devices a pod has: all places
/// are named, and those without a device say so when the kernel looks.
#[must_use]
pub fn confidential(appended: &str) -> String {
    line(&NO_TABLES, devices::MOST, appended)
}

/// The kernel numbers the devices in the order of their places.
fn line(own: &[&str], count: u32, appended: &str) -> String {
    let mut words: Vec<String> = PARAMETERS.iter().chain(own).map(|&word| word.to_owned()).collect();
    words.extend((0..count).map(|number| {
        let (address, interrupt) = devices::place(number);
        format!("virtio_mmio.device={}K@{address:#x}:{interrupt}", devices::STRIDE / 1024)
    }));
    words.extend(appended.split_whitespace().map(str::to_owned));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_configured_words_follow_our_own() {
        let line = plain(2, "  agent.log=debug\nquiet ");
        assert!(line.starts_with("console=hvc0 "), "{line}");
        let end = "swiotlb=noforce acpi=off mce=off virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 \
                   agent.log=debug quiet";
        assert!(line.ends_with(end), "{line}");
    }

    #[test]
    fn a_confidential_guests_line_names_every_place_and_leaves_bounce_buffers_on() {
        let line = confidential("");
        assert!(line.contains("@0xd0012000:23") && !line.contains("swiotlb"), "{line}");
        assert!(line.len() < MAX - 512);
    }
}
