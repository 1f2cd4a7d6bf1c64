//! A pod's processes, by what its shim wrote for whoever cleans up.

use std::fs;
use std::path::Path;

/// The file with them. The shim's has more; what this command needs has not changed since the first version.
pub const STATE_FILE: &str = "state.json";

/// A process that is known again by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
struct Process {
    pid: u32,
    /// In clock ticks since the boot.
    started: u64,
}

/// Shim and VMM, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub struct Processes {
    shim: Option<Process>,
    vmm: Option<Process>,
}

impl Processes {
    pub(super) fn read(folder: &Path) -> Self {
        let text = fs::read(folder.join(STATE_FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Whether the shim runs.
    pub fn shim_runs(&self) -> bool {
        self.shim().is_some()
    }

    /// Whether the shim is known to have ended.
    pub fn shim_is_gone(&self) -> bool {
        self.shim.is_some() && !self.shim_runs()
    }

    /// Whether the VMM runs.
    pub fn vmm_runs(&self) -> bool {
        self.vmm().is_some()
    }

    /// The shim, while it runs.
    pub fn shim(&self) -> Option<u32> {
        self.shim.filter(Process::runs).map(|process| process.pid)
    }

    /// The VMM, while it runs.
    pub fn vmm(&self) -> Option<u32> {
        self.vmm.filter(Process::runs).map(|process| process.pid)
    }
}

impl Process {
    /// Numbers are reused, but not with the same start; a dead process that nobody waited for does not run.
    fn runs(&self) -> bool {
        start(self.pid)
            .is_some_and(|(state, started)| started == self.started && state != "Z" && state != "X")
    }
}

/// The state and the start of the process that has this number now (proc(5), fields 3 and 22).
pub(super) fn start(pid: u32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(18)?.parse().ok()?))
}
