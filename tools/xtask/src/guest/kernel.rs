//! Kernels of our own, for guests and for the test node: Debian's source, our fragments, and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use super::fragment::{self, Wish};
use crate::cache::{self, Key};
use crate::command;
use crate::error::Error;
use crate::packages;
use crate::progress::{Note, Progress};

/// The package with the source, and the folder in its archive.
const SOURCE: &str = "linux-source-6.12";

/// What a kernel build needs.
const TOOLS: [&str; 9] =
    ["bc", "binutils", "bison", "flex", "gcc", "libc6-dev", "libelf-dev", "make", "xz-utils"];

/// About as many files are made from source with the base fragment; for the display only.
const FILES: usize = 1400;

const GUEST_STEPS: [&str; 4] = [
    "unpack the guest kernel",
    "configure the guest kernel",
    "compile the guest kernel",
    "store the guest kernel",
];
const OTHER_STEPS: [&str; 4] =
    ["unpack the kernel", "configure the kernel", "compile the kernel", "store the kernel"];

/// Changes when the way of building changes, so that older entries of the cache are not used.
const RECIPE: &str = "2";

/// Everything a kernel is built from.
struct Plan {
    /// The cache's folder for it.
    kind: &'static str,
    wishes: Vec<Wish>,
    version: String,
    compiler: String,
}

/// Builds the kernel with the base fragment and these, unless the cache has it, and returns its ELF file.
///
/// # Errors
/// A package can't be installed, a line of a fragment is wrong or did not survive, or the build fails.
pub fn build(fragments: &[String]) -> Result<PathBuf, Error> {
    let folder = cache::checkout().join("guest-kernel-config");
    let names = ["base"].into_iter().chain(fragments.iter().map(String::as_str));
    let wishes = fragment::merge(names.map(|name| fragment::read(&folder, name)).collect::<Result<_, _>>()?)?;
    build_wishes("guest-kernel", wishes)
}

/// Builds a kernel that has exactly these wishes, unless the cache has it below `kind`, and returns its ELF file.
///
/// # Errors
/// Those of [`build`].
pub fn build_wishes(kind: &'static str, wishes: Vec<Wish>) -> Result<PathBuf, Error> {
    // In this order: the tools are quick to install, the source is large.
    packages::need(&TOOLS)?;
    packages::need_version(SOURCE, "6.12")?;
    let version = packages::version(SOURCE)
        .ok_or_else(|| Error::Task(format!("{SOURCE} is not installed, though apt says so")))?;
    let compiler = command::output(Command::new("gcc").arg("--version"))?;
    let plan = Plan { kind, wishes, version, compiler };
    let entry = cache::entry_in_turn(kind, &plan.key(), |entry, work| plan.carry_out(entry, work))?;
    Ok(entry.join("vmlinux"))
}

impl Plan {
    fn key(&self) -> String {
        let mut key = Key::default();
        key.add("recipe", RECIPE).add("wishes", fragment::render(&self.wishes));
        key.add("source", &self.version).add("compiler", &self.compiler);
        key.finish()
    }

    /// Fills `entry` with `vmlinux`, `System.map` and the whole configuration, built in `folder`.
    fn carry_out(&self, entry: &Path, folder: &Path) -> Result<(), Error> {
        let mut progress = Progress::new(match self.kind {
            "guest-kernel" => &GUEST_STEPS,
            _ => &OTHER_STEPS,
        });
        let work = Work::begin(self, folder)?;
        progress.step(|| work.unpack())?;
        progress.step(|| work.configure(&self.wishes))?;
        progress.step_with_note(|note| work.compile(note))?;
        progress.step(|| work.store(entry))
    }
}

/// The folder in which a kernel is built.
struct Work {
    folder: PathBuf,
    tree: PathBuf,
    archive: PathBuf,
    date: String,
    version: String,
}

impl Work {
    fn begin(plan: &Plan, folder: &Path) -> Result<Self, Error> {
        let archive = Path::new("/usr/src").join(format!("{SOURCE}.tar.xz"));
        let changed = fs::metadata(&archive).map_err(Error::file("can't read", &archive))?.mtime();
        // The package's own date: a kernel of the same source says the same, whenever it was built.
        let date = command::output(clean("date").args(["--utc", "--date", &format!("@{changed}")]))?;
        let tree = folder.join(SOURCE);
        Ok(Self { folder: folder.to_owned(), tree, archive, date, version: plan.version.clone() })
    }

    fn unpack(&self) -> Result<(), Error> {
        // A build that was stopped leaves its tree.
        if self.tree.exists() {
            fs::remove_dir_all(&self.tree).map_err(Error::file("can't remove", &self.tree))?;
        }
        let mut tar = clean("tar");
        tar.arg("--extract").arg("--file").arg(&self.archive).arg("--directory").arg(&self.folder);
        command::run("guest-kernel-unpack", &mut tar)
    }

    fn configure(&self, wishes: &[Wish]) -> Result<(), Error> {
        let wanted = self.folder.join("wanted.config");
        fs::write(&wanted, fragment::render(wishes)).map_err(Error::file("can't write", &wanted))?;
        let mut make = self.make();
        make.env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig");
        command::run("guest-kernel-configure", &mut make)?;
        let result = self.tree.join(".config");
        fragment::check(wishes, &fs::read_to_string(&result).map_err(Error::file("can't read", &result))?)
    }

    fn compile(&self, note: &Note) -> Result<(), Error> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.make();
        make.arg(format!("--jobs={cores}")).arg("vmlinux");
        let mut files = 0;
        command::run_watched("guest-kernel-compile", &mut make, |line| {
            let line = line.trim_start();
            if line.starts_with("CC ") || line.starts_with("AS ") {
                files += 1;
                note.set(format!("{files} of about {} files", FILES.max(files)));
            } else if line.starts_with("LD ") && files >= FILES / 2 {
                note.set(line.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        })
    }

    fn store(&self, entry: &Path) -> Result<(), Error> {
        let mut strip = clean("strip");
        // Only what is loaded: symbols are in System.map. The scratch area of AMD's SME, which encrypts a kernel in place and
        // which no guest does, comes after .bss and would make a file of zeros of that, read at each start.
        strip
            .args(["--strip-all", "--remove-section=.init.scratch"])
            .arg("-o")
            .arg(entry.join("vmlinux"))
            .arg(self.tree.join("vmlinux"));
        command::run("guest-kernel-strip", &mut strip)?;
        for (from, to) in [(".config", "config"), ("System.map", "System.map")] {
            let from = self.tree.join(from);
            fs::copy(&from, entry.join(to)).map_err(Error::file("can't copy", &from))?;
        }
        fs::remove_dir_all(&self.tree).map_err(Error::file("can't remove", &self.tree))
    }

    /// `make` in the tree, at low priority, with nothing of this machine's that would show in the kernel.
    fn make(&self) -> Command {
        let mut make = clean("nice");
        make.args(["make", "ARCH=x86_64"]).current_dir(&self.tree);
        make.env("KBUILD_BUILD_TIMESTAMP", &self.date).env("KBUILD_BUILD_VERSION", "1");
        make.env("KBUILD_BUILD_USER", "nacre").env("KBUILD_BUILD_HOST", &self.version);
        make
    }
}

/// A command that sees only where programs are: variables such as `LOCALVERSION` and `KCFLAGS` change a kernel.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("LC_ALL", "C");
    command
}
