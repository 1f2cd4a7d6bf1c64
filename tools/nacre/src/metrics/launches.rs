//! The phases of launches, from the file to which every pod appends its timeline.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::exposition::Histogram;

/// From one moment to another.
pub const PHASES: [(&str, &str, &str); 8] = [
    ("vmm_start", "T0", "T1"),
    ("files", "T1", "T2"),
    ("memory", "T2", "T3"),
    ("first_instruction", "T3", "T5"),
    ("guest_kernel", "T5", "T8"),
    ("agent", "T8", "T10"),
    ("container", "T10", "T11"),
    ("total", "T0", "T12"),
];

/// All launches that were read so far.
#[derive(Debug, Default)]
pub struct Launches {
    path: PathBuf,
    /// The file's number and how much of it was read: a file that was rotated is another one.
    read: (u64, u64),
    /// One for each of [`PHASES`].
    pub phases: [Histogram; PHASES.len()],
}

#[derive(serde::Deserialize)]
struct Launch {
    moments: BTreeMap<String, u64>,
}

impl Launches {
    /// None yet, to be read from `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }

    /// Reads what is new in the file. A file that is not there has nothing.
    pub fn update(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let Ok(metadata) = file.metadata() else { return };
        let (inode, offset) = self.read;
        let mut offset = if metadata.ino() == inode && offset <= metadata.len() { offset } else { 0 };
        if file.seek(SeekFrom::Start(offset)).is_ok() {
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while let Ok(count @ 1..) = reader.read_until(b'\n', &mut line) {
                // A line that is still being written is read the next time.
                if !line.ends_with(b"\n") {
                    break;
                }
                if let Ok(launch) = serde_json::from_slice::<Launch>(&line) {
                    self.add(&launch);
                }
                offset += u64::try_from(count).unwrap_or(0);
                line.clear();
            }
        }
        self.read = (metadata.ino(), offset);
    }

    fn add(&mut self, launch: &Launch) {
        for (histogram, (_, from, to)) in self.phases.iter_mut().zip(PHASES) {
            if let (Some(from), Some(to)) = (launch.moments.get(from), launch.moments.get(to)) {
                #[allow(clippy::cast_precision_loss)] // 2^53 ns are a hundred days
                histogram.add(to.saturating_sub(*from) as f64 / 1e9);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn each_launch_counts_once_also_over_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("launches.jsonl");
        let mut launches = Launches::new(path.clone());
        launches.update();
        let line = "{\"id\":\"a\",\"moments\":{\"T0\":0,\"T1\":2000000000,\"T12\":3000000000}}\n";
        let append = |text: &str| {
            File::options()
                .append(true)
                .create(true)
                .open(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        };
        let counts = |launches: &mut Launches| {
            launches.update();
            let twos = |histogram: &Histogram| {
                let mut expected = Histogram::default();
                (0..10).find(|_| {
                    *histogram == expected || {
                        expected.add(2.0);
                        false
                    }
                })
            };
            twos(&launches.phases[0])
        };
        append(line);
        append("garbage\n");
        append(&line[..20]);
        assert_eq!(counts(&mut launches), Some(1));
        append(&line[20..]);
        assert_eq!(counts(&mut launches), Some(2));
        assert_eq!(counts(&mut launches), Some(2));
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        append(line);
        assert_eq!(counts(&mut launches), Some(3));
        assert_eq!(launches.phases[1], Histogram::default());
    }
}
