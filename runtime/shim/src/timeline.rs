//! The moments T0 to T12 of a launch, all `CLOCK_MONOTONIC` in nanoseconds.
//!
//! T0 Create received, T1 VMM exec'd, T2 its files received, T3 memory filled, T5 first `KVM_RUN`, T7 kernel entry,
//! T8 init, T9 the guest's first vsock packet, T10 agent ready, T11 the container's process runs, T12 Start
//! answered.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use nacre_control::Moment;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

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
    vcpus: u8,
    memory_mib: u32,
    moments: BTreeMap<String, u64>,
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

    /// The whole launch; only the first call gets it.
    pub fn finish(&self, id: &str, namespace: &str, vcpus: u8, memory_mib: u32) -> Option<Launch> {
        let moments = self.moments.lock().ok()?.take()?;
        Some(Launch {
            id: id.into(),
            namespace: namespace.into(),
            vcpus,
            memory_mib,
            moments: named(&moments),
        })
    }
}

fn named(moments: &BTreeMap<u8, u64>) -> BTreeMap<String, u64> {
    moments.iter().map(|(t, ns)| (format!("T{t}"), *ns)).collect()
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

        let launch = timeline.finish("web", "default", 1, 256).unwrap();

        assert_eq!(
            launch.line().unwrap(),
            "{\"id\":\"web\",\"namespace\":\"default\",\"vcpus\":1,\"memory_mib\":256,\
             \"moments\":{\"T0\":5,\"T10\":20}}\n"
        );
        assert!(timeline.finish("web", "default", 1, 256).is_none());
    }
}
