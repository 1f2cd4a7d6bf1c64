//! MRTD of a whole firmware image, as td-shim's own tool computed it: thousands of pages, some added and not measured.
//!
//! The image is Intel's, from the tests of the crate `tdx` 0.1.2, which cargo fetches. Where that is not possible, the test
//! says so by its name.

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
const IMAGE: &str = "tests/data/OVMF.inteltdx.fd";
const IMAGE_SHA256: &str = "11fe83527f079a4d8e25bca4fe66ea0bfd0cc4bda7ed462bf1d9f6fa6d181244";
/// In upstream KVM's order: a page is extended by its content before the next one is added.
const MRTD: &str =
    "88c63708f207ab01a46b4d9424ea92ab11f8826be30d208afbb58f174f2a19cdcfafb2b12a6a2c98be0740b808894d55";

fn main() -> ExitCode {
    let mut report = Report::from_arguments();
    report.test("measures_a_whole_firmware_as_td_shims_tool_does", || match image() {
        Ok(image) => measured(&image).map_or_else(Outcome::Failed, |()| Outcome::Passed),
        Err(reason) => Outcome::Ignored(reason),
    });
    report.finish()
}

fn measured(image: &[u8]) -> Result<(), String> {
    let found = mrtd(image).ok_or("the image has no metadata")?;
    if found == MRTD { Ok(()) } else { Err(format!("{found}, td-shim's tool says {MRTD}")) }
}

/// The image, or why it can't be had.
fn image() -> Result<Vec<u8>, String> {
    let path = package()?.join(IMAGE);
    let image = fs::read(&path).map_err(|error| format!("{CRATE} {VERSION} has no {IMAGE}: {error}"))?;
    let sha256: String = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 == IMAGE_SHA256 { Ok(image) } else { Err(format!("{IMAGE} is another one: {sha256}")) }
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
