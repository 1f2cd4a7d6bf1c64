//! The moments T0 to T12 of a launch, all `CLOCK_MONOTONIC` in nanoseconds.
//!
//! T0 Create received, T1 VMM about to be exec'd, T2 its files received, T3 memory filled, T4 measurement finished, T5
//! first `KVM_RUN`, T6 stage0 done, T7 kernel entry, T8 init, T9 the guest's first vsock packet, T10 agent ready, T11 the
//! container's process runs, T12 Start answered. T4 and T6 are of measured machines only.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nacre_control::Moment;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::size::Size;

/// The last moment.
const LAST: u8 = 12;

/// The moments of one launch.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Guards the moments; `None` once the line was taken.
    moments: Mutex<Option<BTreeMap<u8, u64>>>,
}

/// One launch, as it is written.
#[derive(Debug, Serialize)]
pub struct Launch {
    id: String,
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u32>,
    moments: BTreeMap<String, u64>,
    /// What kept the pod from running.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Now.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Timeline {
    /// A timeline that begins at `t0`.
    pub fn begin(t0: u64) -> Self {
        Self { moments: Mutex::new(Some(BTreeMap::from([(0, t0)]))) }
    }

    /// Records that a moment is now. Only the first time counts.
    pub fn reach(&self, t: u8) {
        self.record(Moment { t, ns: now() });
    }

    /// Records a moment that the VMM reported. Only the first time counts.
    pub fn record(&self, moment: Moment) {
        if let Ok(mut moments) = self.moments.lock()
            && let Some(moments) = moments.as_mut()
            // The VMM is not trusted to bound the number of its moments.
            && moment.t <= LAST
        {
            moments.entry(moment.t).or_insert(moment.ns);
        }
    }

    /// The moments that are reached, by their names.
    pub fn so_far(&self) -> BTreeMap<String, u64> {
        let Ok(moments) = self.moments.lock() else { return BTreeMap::new() };
        named(moments.as_ref().unwrap_or(&BTreeMap::new()))
    }

    /// The whole launch; only the first call gets it. One that failed may have no size.
    pub fn finish(
        &self,
        id: &str,
        namespace: &str,
        size: Option<Size>,
        error: Option<String>,
    ) -> Option<Launch> {
        let moments = self.moments.lock().ok()?.take()?;
        Some(Launch {
            id: id.into(),
            namespace: namespace.into(),
            vcpus: size.map(|size| size.vcpus),
            memory_mib: size.map(|size| size.memory_mib),
            moments: named(&moments),
            error,
        })
    }
}

fn named(moments: &BTreeMap<u8, u64>) -> BTreeMap<String, u64> {
    let measured = moments.contains_key(&4);
    // The kernel's first instruction is the guest's own, or the one after stage0's last.
    let entry = moments.get(if measured { &6 } else { &5 }).map(|ns| (7, *ns));
    let all = moments.iter().map(|(t, ns)| (*t, *ns)).chain(entry);
    all.map(|(t, ns)| (format!("T{t}"), ns)).collect()
}

impl Launch {
    /// The launch as one line of JSON.
    ///
    /// # Errors
    /// None in practice: all keys are strings.
    pub fn line(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Appends the launch to a file that all pods share: one `write`, so that lines stay whole.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().append(true).create(true).open(path)?.write_all(self.line()?.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_is_one_line_with_each_moment_once() {
        let timeline = Timeline::begin(5);
        timeline.record(Moment { t: 10, ns: 20 });
        timeline.record(Moment { t: 10, ns: 30 });
        timeline.record(Moment { t: 13, ns: 40 });

        let size = Some(Size { vcpus: 1, memory_mib: 256 });
        let launch = timeline.finish("web", "default", size, None).unwrap();

        assert_eq!(
            launch.line().unwrap(),
            "{\"id\":\"web\",\"namespace\":\"default\",\"vcpus\":1,\"memory_mib\":256,\
             \"moments\":{\"T0\":5,\"T10\":20}}\n"
        );
        assert!(timeline.finish("web", "default", size, None).is_none());
    }

    #[test]
    fn a_launch_that_failed_says_why() {
        let timeline = Timeline::begin(5);
        timeline.record(Moment { t: 1, ns: 7 });
        let launch = timeline.finish("web", "default", None, Some("no kernel".into())).unwrap();
        let line = "{\"id\":\"web\",\"namespace\":\"default\",\"moments\":{\"T0\":5,\"T1\":7},\"error\":\"no kernel\"}\n";
        assert_eq!(launch.line().unwrap(), line);
    }

    #[test]
    fn the_kernel_is_entered_by_the_vmm_or_by_stage0() {
        let entered = |moments: &[(u8, u64)]| named(&moments.iter().copied().collect()).get("T7").copied();
        assert_eq!(entered(&[(0, 1), (5, 2)]), Some(2));
        assert_eq!(entered(&[(0, 1), (4, 2), (5, 3), (6, 4)]), Some(4));
        assert_eq!(entered(&[(0, 1), (4, 2), (5, 3)]), None);
    }
}
