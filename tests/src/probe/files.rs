//! Every file of the root file system, one line each, in a form that two runs can be compared by.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

#[path = "xattr.rs"]
mod xattr;

/// Writes a line for each file that is not under another mount.
pub fn list(output: &mut impl Write) -> io::Result<()> {
    let mut walk = Walk { mounts: mounts()?, names: HashMap::new(), output };
    walk.entry(Path::new("/"))
}

struct Walk<'a, W> {
    mounts: Vec<PathBuf>,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), PathBuf>,
    output: &'a mut W,
}

impl<W: Write> Walk<'_, W> {
    fn entry(&mut self, path: &Path) -> io::Result<()> {
        if self.mounts.iter().any(|mount| mount == path) {
            return writeln!(self.output, "{} mount", escape(path.as_os_str().as_bytes()));
        }
        let data = fs::symlink_metadata(path)?;
        self.line(path, &data)?;
        if data.is_dir() {
            let mut inside: Vec<PathBuf> =
                fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            inside.sort();
            for path in inside {
                self.entry(&path)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, data: &Metadata) -> io::Result<()> {
        let name = escape(path.as_os_str().as_bytes());
        let kind = kind(data);
        // A folder's size and link count are its file system's own affair.
        let (size, links) = if data.is_dir() { (0, 0) } else { (data.size(), data.nlink()) };
        write!(
            self.output,
            "{name} {kind} mode={:o} owner={}:{}",
            data.mode() & 0o7777,
            data.uid(),
            data.gid()
        )?;
        write!(self.output, " size={size} mtime={}.{:09} links={links}", data.mtime(), data.mtime_nsec())?;
        if data.file_type().is_char_device() || data.file_type().is_block_device() {
            write!(self.output, " device={:x}", data.rdev())?;
        }
        if data.is_symlink() {
            write!(self.output, " target={}", escape(fs::read_link(path)?.as_os_str().as_bytes()))?;
        }
        if data.is_file() {
            write!(self.output, " sha256={}", hash(path)?)?;
        }
        if !data.is_dir() && data.nlink() > 1 {
            let first = self.names.entry((data.dev(), data.ino())).or_insert_with(|| path.to_path_buf());
            write!(self.output, " same-as={}", escape(first.as_os_str().as_bytes()))?;
        }
        for (key, value) in xattr::all(&c_path(path)?)? {
            write!(self.output, " {}={}", escape(&key), escape(&value))?;
        }
        writeln!(self.output)
    }
}

fn kind(data: &Metadata) -> &'static str {
    let kind = data.file_type();
    match () {
        () if kind.is_dir() => "directory",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "symlink",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () => "socket",
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// The mount points other than the root.
fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.filter(|point| *point != "/").map(PathBuf::from).collect())
}

fn escape(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace(' ', "\\x20")
}

fn c_path(path: &Path) -> io::Result<CString> {
    let bytes: &OsStr = path.as_os_str();
    CString::new(bytes.as_bytes()).map_err(io::Error::other)
}
