//! Port I/O: the few ports through which a guest speaks to its VMM without a driver.

use std::sync::atomic::{AtomicBool, Ordering};

use nacre_control::StopReason;

use crate::reports::{Report, Reporter, moment};

/// Progress markers, the PC's diagnostic port.
const MARKERS: u16 = 0x80;
const MARKER_KERNEL: u8 = 0x40;
const MARKER_INIT: u8 = 0x41;
/// QEMU's pvpanic interface (`docs/specs/pvpanic.rst` there): reading tells the supported events, and the guest's
/// init announces its power-off here. That is the end: the kernel's way down to a reset would only cost exits.
const PVPANIC: u16 = 0x505;
const PANICKED: u8 = 1;
const SHUTDOWN: u8 = 1 << 2;
/// The keyboard controller, of which only the reset line exists.
const KEYBOARD: u16 = 0x64;
const PULSE_RESET: u8 = 0xfe;
/// An empty input buffer, so that the kernel does not wait before it pulses the reset line.
const KEYBOARD_READY: u8 = 0;
/// What a bus without a device answers.
const FLOATING: u8 = 0xff;

/// The ports of one machine, shared by its CPUs.
#[derive(Debug)]
pub struct Ports {
    reporter: Reporter,
    kernel_seen: AtomicBool,
    init_seen: AtomicBool,
}

impl Ports {
    /// Ports that report to `reporter`.
    pub fn new(reporter: Reporter) -> Self {
        Self { reporter, kernel_seen: AtomicBool::new(false), init_seen: AtomicBool::new(false) }
    }

    /// The guest reads `data.len()` bytes from `port`; a string instruction's repeats look the same.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(match port {
            PVPANIC => PANICKED | SHUTDOWN,
            KEYBOARD => KEYBOARD_READY,
            _ => FLOATING,
        });
    }

    /// The guest writes; a reason comes back when that ends the machine.
    pub fn write(&self, port: u16, data: &[u8]) -> Option<StopReason> {
        let value = *data.first()?;
        match (port, value) {
            // SECURITY: the guest can write these without end. Each is worth one message per life.
            (MARKERS, MARKER_KERNEL) => self.mark(&self.kernel_seen, 7),
            (MARKERS, MARKER_INIT) => self.mark(&self.init_seen, 8),
            (PVPANIC, event) if event & PANICKED != 0 => return Some(StopReason::Reset),
            (PVPANIC, event) if event & SHUTDOWN != 0 => return Some(StopReason::PowerOff),
            (KEYBOARD, PULSE_RESET) => return Some(StopReason::Reset),
            _ => {}
        }
        None
    }

    fn mark(&self, seen: &AtomicBool, t: u8) {
        if !seen.swap(true, Ordering::Relaxed) {
            self.reporter.send(Report::Reached(moment(t)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_reported_once() {
        let (reporter, reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter);
        for _ in 0..1000 {
            assert_eq!(ports.write(0x80, &[0x41]), None);
            assert_eq!(ports.write(0x80, &[0x17]), None);
        }
        let reached: Vec<Report> = reports.try_iter().collect();
        assert!(matches!(reached[..], [Report::Reached(moment)] if moment.t == 8), "{reached:?}");
    }

    #[test]
    fn an_announced_power_off_a_panic_and_a_reset_end_the_machine() {
        let (reporter, _reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter);
        assert_eq!(ports.write(0x505, &[4]), Some(StopReason::PowerOff));
        assert_eq!(ports.write(0x505, &[1]), Some(StopReason::Reset));
        assert_eq!(ports.write(0x64, &[0xfe]), Some(StopReason::Reset));
        assert_eq!(ports.write(0x64, &[0xd1]), None);
        assert_eq!(ports.write(0x505, &[2]), None);
    }

    #[test]
    fn reads_say_what_exists_and_fill_every_byte() {
        let (reporter, _reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter);
        let read = |port| {
            let mut data = [0x55; 4];
            ports.read(port, &mut data);
            data
        };
        assert_eq!(read(0x505), [5; 4]);
        assert_eq!(read(0x64), [0; 4]);
        assert_eq!(read(0x61), [0xff; 4]);
        assert_eq!(ports.write(0x64, &[]), None);
    }
}
