//! Port I/O: the few ports through which a guest speaks to its VMM without a driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use nacre_control::StopReason;
use nacre_stage0_abi::step::{STEP_PORT, Step};
use nacre_stage0_abi::stop::{STOP_PORT, Stop};
use nacre_stage0_abi::tdx::EXTEND_PORT;

use crate::reports::{Report, Reporter, moment};
use crate::simulated::RunningModule;

/// The PC's diagnostic port, where the agent tells that it begins.
const MARKERS: u16 = 0x80;
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
    init_seen: AtomicBool,
    /// Whether stage0 runs first, which has ports of its own.
    stage0: bool,
    steps_seen: AtomicU8,
    module: Option<Arc<RunningModule>>,
}

impl Ports {
    /// Ports that report to `reporter`. With `stage0` they take its steps and the code with which it stops.
    pub fn new(reporter: Reporter, stage0: bool) -> Self {
        Self {
            reporter,
            init_seen: AtomicBool::new(false),
            stage0,
            steps_seen: AtomicU8::new(0),
            module: None,
        }
    }

    /// The same ports, with the one through which a guest has its software module extend registers.
    #[must_use]
    pub fn with_module(self, module: Option<Arc<RunningModule>>) -> Self {
        Self { module, ..self }
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
        if self.stage0 {
            match (port, Step::from_number(value)) {
                (STEP_PORT, Some(step)) => self.step(step),
                (STOP_PORT, _) => return Some(stage0_stop(data)),
                _ => {}
            }
        }
        match (port, value) {
            // SECURITY: the guest can write this without end. It is worth one message per life.
            (MARKERS, MARKER_INIT) => self.init_began(),
            (PVPANIC, event) if event & PANICKED != 0 => return Some(StopReason::Reset),
            (PVPANIC, event) if event & SHUTDOWN != 0 => return Some(StopReason::PowerOff),
            (KEYBOARD, PULSE_RESET) => return Some(StopReason::Reset),
            (EXTEND_PORT, _) => return self.extend(data),
            _ => {}
        }
        None
    }

    /// A port has no answer, so what the hardware would answer with a status ends the machine.
    fn extend(&self, data: &[u8]) -> Option<StopReason> {
        let module = self.module.as_ref()?;
        let word = data.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let wrong = module.extend(word).err()?;
        Some(StopReason::Failed(format!("the guest {wrong}, which its software TDX module can't do")))
    }

    /// SECURITY: the kernel can write these as well, without end.
    fn step(&self, step: Step) {
        if self
            .steps_seen
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seen| seen.checked_add(1))
            .is_err()
        {
            return;
        }
        let now = moment(6);
        self.reporter.send(Report::Stage0Did { step: step as u8, ns: now.ns });
        if step == Step::Done {
            self.reporter.send(Report::Reached(now));
        }
    }

    fn init_began(&self) {
        if !self.init_seen.swap(true, Ordering::Relaxed) {
            self.reporter.send(Report::Reached(moment(8)));
        }
    }
}

/// What stage0 wrote when it stopped, in words.
fn stage0_stop(data: &[u8]) -> StopReason {
    let value = data.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    let known = Stop::from_port(value);
    let [code, stage, ..] = value.to_le_bytes();
    StopReason::Stage0 {
        stage,
        stage_name: known.map_or("unknown", Stop::stage_name).to_owned(),
        code,
        why: known
            .map_or_else(|| "a code that this version does not know".to_owned(), |stop| stop.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_reported_once() {
        let (reporter, reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter, false);
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
        let ports = Ports::new(reporter, false);
        assert_eq!(ports.write(0x505, &[4]), Some(StopReason::PowerOff));
        assert_eq!(ports.write(0x505, &[1]), Some(StopReason::Reset));
        assert_eq!(ports.write(0x64, &[0xfe]), Some(StopReason::Reset));
        assert_eq!(ports.write(0x64, &[0xd1]), None);
        assert_eq!(ports.write(0x505, &[2]), None);
    }

    #[test]
    fn stage0s_code_ends_a_measured_machine_with_its_words() {
        let (reporter, reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter.clone(), true);
        let reason = ports.write(0xf4, &0x502u32.to_le_bytes()).unwrap();
        let text = "stage0 stopped at stage 5 (images), code 2: the initrd is not the one that was measured";
        assert_eq!(reason.to_string(), text);
        let unknown = ports.write(0xf4, &0xffffu32.to_le_bytes()).unwrap().to_string();
        assert!(unknown.contains("stage 255 (unknown), code 255"), "{unknown}");
        assert!(ports.write(0xf4, &[1]).is_some());
        assert_eq!(Ports::new(reporter, false).write(0xf4, &0x502u32.to_le_bytes()), None);
        assert_eq!(reports.try_iter().count(), 0);
    }

    #[test]
    fn stage0s_steps_are_reported_a_bounded_number_of_times() {
        let (reporter, reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter, true);
        ports.write(0x80, &[0x31]);
        ports.write(0x80, &[0x30]);
        let reported: Vec<Report> = reports.try_iter().collect();
        assert!(
            matches!(
                reported[..],
                [Report::Stage0Did { step: 0x31, .. }, Report::Stage0Did { step: 0x30, .. }, Report::Reached(at)] if at.t == 6
            ),
            "{reported:?}"
        );
        for _ in 0..1000 {
            ports.write(0x80, &[0x33]);
        }
        assert_eq!(reports.try_iter().count(), 253);
    }

    #[test]
    fn a_guests_module_extends_its_registers_where_there_is_one() {
        let (reporter, _reports, _bell) = Reporter::new().unwrap();
        let module = Arc::new(crate::simulated::module());
        let ports = Ports::new(reporter.clone(), true).with_module(Some(Arc::clone(&module)));
        assert_eq!(ports.write(EXTEND_PORT, &0x8002u32.to_le_bytes()), None);
        assert_ne!(module.registers()[2], [0; 48]);
        let reason = ports.write(EXTEND_PORT, &0x8005u32.to_le_bytes()).unwrap().to_string();
        assert!(reason.contains("the guest extends register 5"), "{reason}");
        assert_eq!(Ports::new(reporter, true).write(EXTEND_PORT, &0x8005u32.to_le_bytes()), None);
    }

    #[test]
    fn reads_say_what_exists_and_fill_every_byte() {
        let (reporter, _reports, _bell) = Reporter::new().unwrap();
        let ports = Ports::new(reporter, false);
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
