//! The files that are installed with nacre.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nacre_configuration::sections::{Guest, Vmm};

use super::Finding;

/// The name by which containerd looks for the shim of `io.containerd.nacre.v2`.
const SHIM: &str = "containerd-shim-nacre-v2";

/// Where containerd may find it: its service has systemd's search path.
const SHIM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// The shim.
pub fn shim() -> Finding {
    let name = "shim";
    let own_path = std::env::var_os("PATH").unwrap_or_default();
    let folders = SHIM_FOLDERS.iter().map(PathBuf::from).chain(std::env::split_paths(&own_path));
    match folders.map(|folder| folder.join(SHIM)).find(|path| executable(path).is_ok()) {
        Some(path) => Finding::ok(name, path.display().to_string()),
        None => Finding::missing(
            name,
            format!("{SHIM} not found"),
            "install it into /usr/local/bin, or another folder on containerd's PATH",
        ),
    }
}

/// The VMM.
pub fn vmm(vmm: &Vmm) -> Finding {
    match executable(&vmm.path) {
        Ok(()) => Finding::ok("VMM", vmm.path.display().to_string()),
        Err(error) => Finding::missing(
            "VMM",
            format!("{}: {error}", vmm.path.display()),
            "install nacre-vmm there, or set vmm.path in the configuration",
        ),
    }
}

fn executable(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    match metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(io::Error::other("is no program file")),
    }
}

/// The guest's kernel.
pub fn kernel(guest: &Guest) -> Finding {
    let to_do = "install vmlinux there, or set guest.kernel in the configuration";
    guest_file("guest kernel", &guest.kernel, is_kernel, "is no ELF program for x86-64", to_do)
}

/// The guest's image.
pub fn initrd(guest: &Guest) -> Finding {
    let to_do = "install initrd.img there, or set guest.initrd in the configuration";
    guest_file("guest image", &guest.initrd, is_initrd, "is no initrd", to_do)
}

fn guest_file(
    name: &'static str,
    path: &Path,
    right: fn(&[u8]) -> bool,
    wrong: &str,
    to_do: &str,
) -> Finding {
    match start_and_size(path) {
        Ok((start, bytes)) if right(&start) => {
            Finding::ok(name, format!("{} ({} KiB)", path.display(), bytes.div_ceil(1024)))
        }
        Ok(_) => Finding::missing(name, format!("{} {wrong}", path.display()), to_do),
        Err(error) => Finding::missing(name, format!("{}: {error}", path.display()), to_do),
    }
}

fn start_and_size(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut start = Vec::new();
    file.take(64).read_to_end(&mut start)?;
    Ok((start, bytes))
}

/// ELF, 64 bits, for x86-64 (`e_machine` 62).
fn is_kernel(start: &[u8]) -> bool {
    start.starts_with(b"\x7fELF\x02") && start.get(18..20) == Some(&[62, 0])
}

/// A cpio archive ("newc"), as it is or compressed in a way that kernels know.
fn is_initrd(start: &[u8]) -> bool {
    let beginnings: [&[u8]; 6] =
        [b"070701", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18"];
    beginnings.iter().any(|beginning| start.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    #[test]
    fn files_are_judged_by_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        let state = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            guest_file("kernel", &path, is_kernel, "is wrong", "").state
        };
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec();
        assert_eq!(state(&elf), State::Ok);
        elf[18] = 0xb7;
        assert_eq!(state(&elf), State::Missing);
        assert_eq!(state(b""), State::Missing);
        assert!(is_initrd(b"070701000") && is_initrd(b"\x28\xb5\x2f\xfd\x04") && !is_initrd(b"hello"));
    }

    #[test]
    fn a_program_must_be_executable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        assert!(executable(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(executable(&path).is_err());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(executable(&path).is_ok());
        assert!(executable(folder.path()).is_err());
    }
}
