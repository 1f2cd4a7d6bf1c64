//! MRTDs of whole firmware images, as td-shim's own tool computed them: thousands of pages, some added and not measured.
//!
//! One image is Intel's, from the tests of the crate `tdx` 0.1.2, which cargo fetches; two are Debian's, which `cargo xtask
//! test` fetches. Where that is not possible, the test says so by its name.

#[path = "foreign/report.rs"]
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nacre_launch::Mrtd;
use report::{Outcome, Report};
use sha2::{Digest, Sha256};

const CRATE: &str = "tdx";
const VERSION: &str = "0.1.2";

/// A firmware image.
struct Image {
    /// Its file in the folder that it comes in.
    file: &'static str,
    sha256: &'static str,
    /// In upstream KVM's order: a page is extended by its content before the next one is added.
    mrtd: &'static str,
}

const INTELS: Image = Image {
    file: "tests/data/OVMF.inteltdx.fd",
    sha256: "11fe83527f079a4d8e25bca4fe66ea0bfd0cc4bda7ed462bf1d9f6fa6d181244",
    mrtd: "88c63708f207ab01a46b4d9424ea92ab11f8826be30d208afbb58f174f2a19cdcfafb2b12a6a2c98be0740b808894d55",
};
const DEBIANS: Image = Image {
    file: "OVMF.inteltdx.ms.fd",
    sha256: "a265075b4147a096109e501e76196df1ec8a18659c26f7401492c597ec88f312",
    mrtd: "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08",
};
/// Made for SEV, with the metadata that TDX wants, too.
const DEBIANS_FOR_SEV: Image = Image {
    file: "OVMF.amdsev.fd",
    sha256: "3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f",
    mrtd: "5f77220a7135b2be2087c3555b897a1c56ca84516fafc622a33fa498a46305a12597a18bb57bc50f714ffab9fe6f004d",
};

fn main() -> ExitCode {
    let mut report = Report::from_arguments();
    report.test("measures_a_whole_firmware_as_td_shims_tool_does", || judge(&INTELS, package()));
    report.test("measures_debians_firmware_as_td_shims_tool_does", || judge(&DEBIANS, debians()));
    report.test("measures_a_firmware_for_sev_as_td_shims_tool_does", || judge(&DEBIANS_FOR_SEV, debians()));
    report.finish()
}

fn judge(image: &Image, folder: Result<PathBuf, String>) -> Outcome {
    match folder.and_then(|folder| read(image, &folder)) {
        Ok(bytes) => match mrtd(&bytes) {
            Some(found) if found == image.mrtd => Outcome::Passed,
            found => Outcome::Failed(format!("{found:?}, td-shim's tool says {}", image.mrtd)),
        },
        Err(reason) => Outcome::Ignored(reason),
    }
}

/// The image's bytes, or why they can't be had.
fn read(image: &Image, folder: &Path) -> Result<Vec<u8>, String> {
    let path = folder.join(image.file);
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 == image.sha256 { Ok(bytes) } else { Err(format!("{} is another one: {sha256}", image.file)) }
}

/// The folder with Debian's firmware.
fn debians() -> Result<PathBuf, String> {
    let named = std::env::var_os("NACRE_FIRMWARE").map(PathBuf::from);
    named.ok_or_else(|| "`cargo xtask test` fetches Debian's firmware".to_owned())
}

/// Has cargo fetch the crate for a package of its own, and returns its folder.
fn package() -> Result<PathBuf, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let manifest = format!(
        "[package]\nname = \"fetches\"\nedition = \"2024\"\n[dependencies]\n{CRATE} = \"={VERSION}\"\n[workspace]\n"
    );
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text);
    write("Cargo.toml", &manifest).map_err(|error| error.to_string())?;
    fs::create_dir(folder.path().join("src")).map_err(|error| error.to_string())?;
    write("src/lib.rs", "").map_err(|error| error.to_string())?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--quiet"]).current_dir(folder.path());
    let output = cargo.output().map_err(|error| format!("can't start cargo: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let reason = text.lines().last().unwrap_or_default().to_owned();
        return Err(format!("{CRATE} {VERSION} can't be fetched: {reason}"));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let path = packages.filter(|package| package["name"] == CRATE).find_map(|package| {
        package["manifest_path"].as_str().and_then(|path| Path::new(path).parent()).map(Path::to_owned)
    });
    path.ok_or_else(|| format!("cargo does not say where {CRATE} is"))
}

/// The image's metadata (TDX virtual firmware design guide, 344991) say which parts are where in memory, and
/// which of them are measured.
fn mrtd(image: &[u8]) -> Option<String> {
    const FOOTER: usize = 0x30;
    const FOOTER_GUID: [u8; 16] =
        [0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d];
    const METADATA_GUID: [u8; 16] =
        [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];
    let word = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_le_bytes(*image.get(at..)?.first_chunk()?));
    let small = |at: usize| Some(usize::from(u16::from_le_bytes(*image.get(at..)?.first_chunk()?)));
    let guid = |at: usize| image.get(at..at + 16);

    // A table that is read from its end: each entry's length and name are behind it.
    let footer = image.len().checked_sub(FOOTER)?;
    (guid(footer)? == FOOTER_GUID).then_some(())?;
    let mut at = footer - 2;
    // The length counts the footer's own entry, too, which is a length and a name.
    let start = at.checked_sub(small(at)?.checked_sub(18)?)?;
    let offset = loop {
        (at > start).then_some(())?;
        let (name, len) = (guid(at - 16)?, small(at - 18)?);
        if name == METADATA_GUID {
            break word(at - len)?;
        }
        at = at.checked_sub(len)?;
    };
    let descriptor = image.len().checked_sub(usize::try_from(offset).ok()?)?;
    (image.get(descriptor..descriptor + 4)? == b"TDVF").then_some(())?;

    let mut mrtd = Mrtd::new();
    for section in 0..usize::try_from(word(descriptor + 12)?).ok()? {
        let entry = descriptor + 16 + 32 * section;
        let (from, gpa, len) = (usize::try_from(word(entry)?).ok()?, long(entry + 8)?, long(entry + 16)?);
        let extended = word(entry + 28)? & 1 == 1;
        for place in (0..len).step_by(4096) {
            let start = from + usize::try_from(place).ok()?;
            let page = if extended { Some(image.get(start..)?.first_chunk()?) } else { None };
            mrtd.add_page(gpa + place, page);
        }
    }
    Some(mrtd.finish().to_string())
}
