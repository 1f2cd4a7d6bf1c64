//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// nacre's tests, for the inside of a test node.
#[derive(Parser, Debug)]
#[command(name = "nacre-tests", disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Run the tests whose names contain one of the filters, or all.
    Run(Selection),
    /// Run tests of pods through CRI, as `run` does those through ctr.
    Cri(Selection),
    /// Measure starting and idling containers; a line of JSON for each sample.
    Bench(Measuring),
    /// Measure pods through CRI; a line of JSON for each sample.
    BenchPods(Measuring),
    /// Run one test in this process (what `run` starts for each test).
    #[command(hide = true)]
    One {
        /// Its name.
        name: String,
        #[command(flatten)]
        options: Options,
    },
}

/// Which tests, and how.
#[derive(Args, Debug)]
pub struct Selection {
    /// Parts of the names of the tests to run.
    pub filters: Vec<String>,
    /// Print the tests and what they show, and run none.
    #[arg(long)]
    pub list: bool,
    /// Tests that run at the same time.
    #[arg(long, default_value_t = 2)]
    pub jobs: usize,
    /// A folder with tar files of images, imported when containerd hasn't got them.
    #[arg(long, default_value = "/payload/images")]
    pub images: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
}

/// What is measured, and how often.
#[derive(Args, Debug)]
pub struct Measuring {
    /// Samples of what takes a start.
    #[arg(long, default_value_t = 20)]
    pub runs: u32,
    /// Samples of what takes an idle container.
    #[arg(long, default_value_t = 3)]
    pub idle_runs: u32,
    /// How long an idle container is watched.
    #[arg(long, default_value_t = 10)]
    pub idle_seconds: u64,
    /// A folder with tar files of images, imported when containerd hasn't got them.
    #[arg(long, default_value = "/payload/images")]
    pub images: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub options: Options,
}

/// What every test is told.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// The runtime under test.
    #[arg(long, default_value = NACRE)]
    pub runtime: String,
    /// containerd's namespace for the tests.
    #[arg(long, default_value = "nacre-tests")]
    pub namespace: String,
    /// How much the test of large output sends, in MiB.
    #[arg(long, default_value_t = 1024)]
    pub stdout_mib: u64,
    /// How many pods come and go in the test of that.
    #[arg(long, default_value_t = 10)]
    pub cycles: u32,
    /// Another build of nacre, as a payload has it: the test of upgrades puts it in the place of the one that is installed.
    /// Without it the same build is put there again, as other files.
    #[arg(long, value_name = "PAYLOAD")]
    pub upgrade_to: Option<PathBuf>,
    /// containerd's folder of what runs.
    #[arg(long, default_value = "/run/containerd")]
    pub containerd_state: PathBuf,
}

/// nacre's name in containerd.
pub const NACRE: &str = "io.containerd.nacre.v2";
/// runc's name in containerd.
pub const RUNC: &str = "io.containerd.runc.v2";

impl Options {
    /// These options as a command line.
    pub fn words(&self) -> Vec<String> {
        let state = self.containerd_state.display().to_string();
        let mib = self.stdout_mib.to_string();
        let cycles = self.cycles.to_string();
        let upgrade = self.upgrade_to.as_ref().map(|payload| payload.display().to_string());
        let upgrade = upgrade.into_iter().flat_map(|payload| ["--upgrade-to".to_owned(), payload]);
        [
            ["--runtime", &self.runtime],
            ["--namespace", &self.namespace],
            ["--stdout-mib", &mib],
            ["--cycles", &cycles],
            ["--containerd-state", &state],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .chain(upgrade)
        .collect()
    }
}
