//! The kernel's interface, below `/sys/kernel/config/tsm/report`: a folder for each request, whose files are its parts.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nacre_protocol::ttrpc::Code;
use nix::mount::{MsFlags, mount};

use super::{Report, ReportData};
use crate::error::{Doing, Failure, Reply};

const CONFIGFS: &str = "/sys/kernel/config";
const REPORTS: &str = "tsm/report";
/// SECURITY: what a host can make the kernel hand out is no larger (the quote's buffer is 128 KiB).
const MOST_BYTES: usize = 1 << 20;

/// The folder of the interface, if the kernel has a provider behind it.
pub fn find() -> Option<PathBuf> {
    let root = Path::new(CONFIGFS);
    // Configured as a module or not at all where the folder is missing.
    let there = root.join(REPORTS).is_dir() || mount_configfs(root).is_ok();
    let folder = root.join(REPORTS);
    (there && has_provider(&folder)).then_some(folder)
}

fn mount_configfs(root: &Path) -> nix::Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("configfs"), root, Some("configfs"), plain, None::<&str>)
}

/// Without a provider the kernel makes no folder of requests.
fn has_provider(folder: &Path) -> bool {
    Entry::new(folder).is_ok()
}

/// A request's folder, removed at its end.
struct Entry(PathBuf);

impl Entry {
    fn new(folder: &Path) -> io::Result<Self> {
        /// Requests at the same time have folders of their own.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let entry = folder.join(format!("nacre-{}-{number}", std::process::id()));
        fs::create_dir(&entry)?;
        Ok(Self(entry))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // The kernel takes the files with the folder.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Asks the kernel for a report.
pub fn report(folder: &Path, data: &ReportData) -> Reply<Report> {
    let entry = Entry::new(folder).doing("make a request for a report")?;
    ask(&entry.0, data)
}

fn ask(entry: &Path, data: &ReportData) -> Reply<Report> {
    fs::write(entry.join("inblob"), data).map_err(|error| failure("inblob", &error))?;
    read(entry)
}

/// Reads the parts, all of the same request.
fn read(entry: &Path) -> Reply<Report> {
    let before = file(entry, "generation")?;
    let bytes = file(entry, "outblob")?;
    let certificates = optional(entry, "auxblob")?;
    let provider = file(entry, "provider")?;
    if file(entry, "generation")? != before {
        return Err(Failure::new(Code::ABORTED, "somebody else asked for a report in the same folder"));
    }
    if bytes.is_empty() {
        return Err(Failure::new(Code::UNAVAILABLE, "the kernel gave an empty report"));
    }
    let provider = String::from_utf8_lossy(&provider).trim_end().to_owned();
    Ok(Report { provider, bytes, certificates })
}

fn file(entry: &Path, name: &str) -> Reply<Vec<u8>> {
    let bytes = fs::read(entry.join(name)).map_err(|error| failure(name, &error))?;
    if bytes.len() > MOST_BYTES {
        return Err(Failure::new(
            Code::OUT_OF_RANGE,
            format!("{name} of a report has {} bytes", bytes.len()),
        ));
    }
    Ok(bytes)
}

/// Not every provider has certificates.
fn optional(entry: &Path, name: &str) -> Reply<Vec<u8>> {
    match fs::read(entry.join(name)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(Vec::new()),
        Err(error) => Err(failure(name, &error)),
        Ok(bytes) if bytes.len() > MOST_BYTES => Ok(Vec::new()),
        Ok(bytes) => Ok(bytes),
    }
}

/// A busy processor, or a quoting service that did not answer within the kernel's 30 s, is another matter than a broken one:
/// the caller may ask again.
fn failure(name: &str, error: &io::Error) -> Failure {
    let busy = matches!(
        error.kind(),
        ErrorKind::ResourceBusy | ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::TimedOut
    );
    let code = if busy { Code::UNAVAILABLE } else { Code::INTERNAL };
    Failure::new(code, format!("{name} of a report: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use super::*;

    fn entry(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    const GOOD: [(&str, &[u8]); 3] =
        [("generation", b"1\n"), ("outblob", &[1, 2]), ("provider", b"sev_guest\n")];

    #[test]
    fn a_report_is_read_with_its_provider() {
        let report = read(entry(&GOOD).path()).unwrap();
        let expected = Report { provider: "sev_guest".into(), bytes: vec![1, 2], certificates: Vec::new() };
        assert_eq!(report, expected);
        let more = entry(&[&GOOD[..], &[("auxblob", &[3][..])]].concat());
        assert_eq!(read(more.path()).unwrap().certificates, [3]);
    }

    #[test]
    fn what_is_missing_or_empty_is_named() {
        let failure = read(entry(&GOOD[..2]).path()).unwrap_err();
        assert!(failure.text().starts_with("provider of a report"), "{}", failure.text());
        let empty = entry(&[GOOD[0], ("outblob", &b""[..]), GOOD[2]]);
        assert_eq!(read(empty.path()).unwrap_err().code(), Code::UNAVAILABLE);
        let large = vec![0; MOST_BYTES + 1];
        let large = entry(&[GOOD[0], ("outblob", large.as_slice()), GOOD[2]]);
        assert_eq!(read(large.path()).unwrap_err().code(), Code::OUT_OF_RANGE);
    }

    #[test]
    fn a_quote_of_a_trust_domain_is_asked_for_with_the_data_and_comes_as_it_is() {
        let quote = [[4, 0, 2, 0, 0x81, 0, 0, 0].as_slice(), &[7; 5000]].concat();
        let folder = entry(&[GOOD[0], ("outblob", &quote), ("provider", b"tdx_guest\n")]);
        let report = ask(folder.path(), &[0xab; 64]).unwrap();
        let expected = Report { provider: "tdx_guest".into(), bytes: quote, certificates: Vec::new() };
        assert_eq!(report, expected);
        assert_eq!(fs::read(folder.path().join("inblob")).unwrap(), [0xab; 64]);
    }

    #[test]
    fn a_report_of_another_request_is_refused() {
        // A pipe is open at its other end only while it is read: after the first look at the generation.
        let folder = entry(&[GOOD[0], GOOD[2]]);
        let (outblob, generation) = (folder.path().join("outblob"), folder.path().join("generation"));
        nix::unistd::mkfifo(&outblob, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let other = thread::spawn(move || {
            let mut outblob = fs::OpenOptions::new().write(true).open(outblob).unwrap();
            fs::write(generation, "2\n").unwrap();
            outblob.write_all(&[1, 2]).unwrap();
        });
        let failure = ask(folder.path(), &[0; 64]).unwrap_err();
        other.join().unwrap();
        assert_eq!(failure.code(), Code::ABORTED, "{}", failure.text());
    }

    #[test]
    fn a_kernel_that_takes_no_data_is_named() {
        // As the kernel's files are where they can't be written.
        let folder = entry(&GOOD);
        fs::create_dir(folder.path().join("inblob")).unwrap();
        let failure = ask(folder.path(), &[0; 64]).unwrap_err();
        assert!(failure.text().starts_with("inblob of a report"), "{}", failure.text());
    }

    #[test]
    fn who_is_busy_or_late_may_be_asked_again() {
        for errno in [libc::EBUSY, libc::EINTR, libc::EAGAIN, libc::ETIMEDOUT] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(failure("outblob", &error).code(), Code::UNAVAILABLE, "{error}");
        }
        assert_eq!(failure("outblob", &io::Error::from(ErrorKind::InvalidInput)).code(), Code::INTERNAL);
    }

    #[test]
    fn each_request_has_a_folder_of_its_own_that_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Entry::new(folder.path()).unwrap(), Entry::new(folder.path()).unwrap());
        assert_ne!(one.0, two.0);
        drop((one, two));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(!has_provider(&folder.path().join("nothing")));
    }
}
