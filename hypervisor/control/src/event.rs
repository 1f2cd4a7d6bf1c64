//! What the VMM reports to the shim.

use serde::{Deserialize, Serialize};

/// A message from the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// The guest runs.
    Started {
        /// T2 to T5, as far as they apply.
        moments: Vec<Moment>,
    },
    /// stage0 is done (T6), the guest's init began (T8) or sent its first vsock packet (T9).
    Reached(Moment),
    /// stage0 of a simulated guest did a part of its work: `nacre_stage0_abi::step`.
    Stage0Did {
        /// Which part.
        step: u8,
        /// `CLOCK_MONOTONIC` in nanoseconds.
        ns: u64,
    },
    /// The answer to [`crate::Request::TellConsole`].
    ConsoleTail {
        /// The last of the guest's console, made printable.
        text: String,
    },
    /// The guest connected to a port of the host. One descriptor comes along: the stream's other end.
    GuestConnected {
        /// One of [`crate::VsockConfig::host_ports`].
        port: u32,
    },
    /// The answer to [`crate::Request::GrowDisk`].
    DiskGrown {
        /// Which disk.
        disk: u8,
        /// First sector (of 512 bytes) and number of sectors of each new extent, or why there are none.
        extents: Result<Vec<(u64, u64)>, String>,
    },
    /// The last message: the machine is gone, and the process ends.
    Stopped {
        /// Why.
        reason: StopReason,
        /// The last lines of the guest's console, made printable, at most 4 KiB.
        console_tail: String,
    },
}

/// A moment of the launch: `shared/facts/perf.md`, "boundaries" T0 to T12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// The number behind the T.
    pub t: u8,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub ns: u64,
}

/// Why a VMM ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The guest's init announced it (`0x04` to port 0x505), which ends the machine at once.
    #[error("the guest powered off")]
    PowerOff,
    /// The guest reset the machine unannounced: a kernel panic does that.
    #[error("the guest reset unexpectedly, as a kernel panic does")]
    Reset,
    /// A virtual CPU shut down.
    #[error("the guest triple-faulted")]
    TripleFault,
    /// KVM could not go on.
    #[error("KVM reported an internal error, suberror {suberror}")]
    KvmInternalError {
        /// `kvm_run.internal.suberror`
        suberror: u32,
    },
    /// stage0 refused to go on: something is not as it was measured.
    #[error("stage0 stopped at stage {stage} ({stage_name}), code {code}: {why}")]
    Stage0 {
        /// The stage.
        stage: u8,
        /// Its name.
        stage_name: String,
        /// The number within the stage.
        code: u8,
        /// In words.
        why: String,
    },
    /// The guest of a confidential machine asked to be ended.
    #[error("the guest ended itself with reason set {set}, code {code}: {why}")]
    Terminated {
        /// Whose code it is.
        set: u8,
        /// The code.
        code: u8,
        /// In words.
        why: String,
    },
    /// The guest of a confidential machine reported that it can't go on.
    #[error("the guest reported a fatal error, code {code:#x}: {message}")]
    Fatal {
        /// Its code.
        code: u32,
        /// Its words, made printable.
        message: String,
    },
    /// [`crate::Request::Stop`], the shim's death, or SIGTERM.
    #[error("the VMM was told to stop ({by})")]
    Requested {
        /// Who asked.
        by: String,
    },
    /// The machine could not be made or could not go on.
    #[error("{0}")]
    Failed(String),
}
