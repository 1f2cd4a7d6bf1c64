//! The host's mounts: which one a path lies on.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One mount, from proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMount {
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// What was mounted, such as a device.
    pub source: String,
    /// The file system's options.
    pub options: Vec<String>,
}

/// All mounts that this process sees.
///
/// # Errors
/// proc is not there.
pub fn read() -> io::Result<Vec<HostMount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

fn parse(text: &[u8]) -> Vec<HostMount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<HostMount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(fields.by_ref().nth(2)?.to_vec()).ok()?;
    let (major, minor) = device.split_once(':')?;
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    // Optional fields end with a dash.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let text = |field: &[u8]| OsString::from_vec(unescape(field)).to_string_lossy().into_owned();
    Some(HostMount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: OsString::from_vec(root).into(),
        point: OsString::from_vec(point).into(),
        kind: text(rest.next()?),
        source: text(rest.next()?),
        options: text(rest.next()?).split(',').map(str::to_owned).collect(),
    })
}

/// `\040` and its like are bytes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a, b, c, after @ ..]) = (*first, tail)
            && let Ok(digits) = std::str::from_utf8(&[*a, *b, *c])
            && let Ok(byte) = u8::from_str_radix(digits, 8)
        {
            bytes.push(byte);
            rest = after;
            continue;
        }
        bytes.push(*first);
        rest = tail;
    }
    bytes
}

/// The mount that `path`, which has no links, lies on: of those above it the lowest, of those in one place the last.
pub fn of<'a>(mounts: &'a [HostMount], path: &Path) -> Option<&'a HostMount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.as_os_str().as_bytes().len())
}

/// Where `path` is in its file system.
pub fn within(mount: &HostMount, path: &Path) -> Option<PathBuf> {
    Some(mount.root.join(path.strip_prefix(&mount.point).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:30 / /mnt/a\\040b rw master:3 - tmpfs tmpfs rw,size=64k\n\
        31 22 8:1 /data/sub /mnt/sub rw - ext4 /dev/sda1 rw\n\
        32 22 8:17 / /mnt/sub rw - ext4 /dev/sdb1 rw\n\
        broken line\n";

    #[test]
    fn a_path_is_found_on_the_last_and_lowest_mount() {
        let mounts = parse(TEXT.as_bytes());
        assert_eq!(mounts.len(), 4);
        let place = |path: &str| {
            let mount = of(&mounts, Path::new(path)).unwrap();
            (mount.device, within(mount, Path::new(path)).unwrap())
        };
        assert_eq!(place("/var/x"), ((8, 1), "/var/x".into()));
        assert_eq!(place("/mnt/a b/x"), ((0, 30), "/x".into()));
        assert_eq!(place("/mnt/sub/x"), ((8, 17), "/x".into()));
        assert_eq!(place("/mnt/subway"), ((8, 1), "/mnt/subway".into()));
    }

    #[test]
    fn this_process_sees_its_root() {
        assert!(of(&read().unwrap(), Path::new("/")).is_some());
    }
}
