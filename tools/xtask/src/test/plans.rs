//! The launch plans of the guest that we ship, as files: unit tests have foreign calculators measure them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache;
use crate::command;
use crate::error::Error;
use crate::{guest, programs, stage0};

/// The tests that need them.
const TESTS: [&str; 3] = [
    "measures_the_real_guest_as_nacre_measure_does",
    "igvm_measures_the_real_guest_as_nacre_measure_does",
    "igvm_measures_the_real_tdx_guest_as_nacre_measure_does",
];
/// The technologies that measure.
const TEES: [&str; 2] = ["snp", "tdx"];
/// The sizes that are compared.
const VCPUS: &str = "1,2,4,8";

/// Whether tests whose names contain this need them.
pub fn wanted(filter: Option<&str>) -> bool {
    filter.is_none_or(|filter| TESTS.iter().any(|name| name.contains(filter)))
}

/// The folder with a folder for each technology, in it measurements.json and a folder for each size.
///
/// # Errors
/// A part of the guest can't be built, or `nacre measure` fails.
pub fn dump() -> Result<PathBuf, Error> {
    // Shows steps of its own when there is something to build.
    let kernel = guest::kernel()?;
    let nacre = programs::build()?.join("nacre");
    let (initrd, stage0) = (guest::image()?, stage0::image()?);
    let folder = cache::checkout().join("target/plans");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::file("can't remove", &folder))?;
    }
    let configuration = folder.join("nacre.toml");
    let text = format!("[guest]\nkernel = {kernel:?}\ninitrd = {initrd:?}\nstage0 = {stage0:?}\n");
    fs::create_dir_all(&folder).map_err(Error::file("can't make the folder", &folder))?;
    fs::write(&configuration, text).map_err(Error::file("can't write", &configuration))?;
    TEES.iter().try_for_each(|tee| measure(&nacre, &configuration, tee, &folder.join(tee)))?;
    Ok(folder)
}

fn measure(nacre: &Path, configuration: &Path, tee: &str, folder: &Path) -> Result<(), Error> {
    let mut measure = Command::new(nacre);
    measure.args(["measure", "--json", "--tee", tee, "--vcpus", VCPUS, "--config"]).arg(configuration);
    let rows = command::output(measure.arg("--dump").arg(folder))?;
    let path = folder.join("measurements.json");
    fs::write(&path, rows).map_err(Error::file("can't write", &path))
}
