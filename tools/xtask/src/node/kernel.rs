//! The node's kernel without its compression: QEMU starts an ELF kernel by its PVH entry, which saves what
//! unpacking costs under emulation.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::Error;

/// Writes the ELF kernel that is packed in the only `vmlinuz-*` of `boot`.
///
/// # Errors
/// There is none, or it is not packed with zstd as Debian's kernels are.
pub fn extract(boot: &Path, to: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(boot).map_err(Error::file("can't read", boot))?;
    let image = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))
        .ok_or_else(|| Error::Task(format!("{} holds no kernel", boot.display())))?;
    let bytes = fs::read(&image).map_err(Error::file("can't read", &image))?;
    let packed = payload(&bytes)
        .ok_or_else(|| Error::Task(format!("{} is not a bzImage packed with zstd", image.display())))?;
    let file = to.with_extension("zst");
    fs::write(&file, packed).map_err(Error::file("can't write", &file))?;
    command::run(
        "node-kernel",
        Command::new("zstd").args(["-d", "-q", "-f", "--rm", "-o"]).arg(to).arg(&file),
    )
}

/// The compressed kernel in a bzImage (Linux, Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`,
/// `payload_length`). The last four bytes of the payload are the unpacked size, which zstd does not know.
fn payload(image: &[u8]) -> Option<&[u8]> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        count => usize::from(count),
    };
    let start = (sectors + 1) * 512 + word(0x248)?;
    let payload = image.get(start..start.checked_add(word(0x24c)?)?.checked_sub(4)?)?;
    payload.starts_with(&ZSTD).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::payload;

    fn image(magic: [u8; 4]) -> Vec<u8> {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[1040..1044].copy_from_slice(&magic);
        image
    }

    #[test]
    fn finds_the_payload_without_its_size() {
        let image = image([0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!(payload(&image).unwrap(), [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0]);
    }

    #[test]
    fn refuses_another_compression_and_a_short_file() {
        assert!(payload(&image(*b"BZh9")).is_none());
        assert!(payload(&[0; 100]).is_none());
        let mut long = image([0x28, 0xb5, 0x2f, 0xfd]);
        long[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&long).is_none());
    }
}
