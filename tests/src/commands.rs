//! What the command line asks for.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::bench;
use crate::cases::{self, Test};
use crate::context::{Context, ctr, prefix};
use crate::cri;
use crate::failure::{Failure, chain};
use crate::leftovers;
use crate::listing::Listing;
use crate::options::{Action, Arguments, NACRE, Options, RUNC, Selection};
use crate::patience;
use crate::process;
use crate::runner::{self, CANNOT_RUN, Summary, Verdict};

/// The name of what is run once before all tests, so that what a first container makes is there.
const FIRST: &str = "first-container";
/// The same for pods.
const FIRST_POD: &str = "first/pod";

/// Does what the command line says.
///
/// # Errors
/// The tests could not be started.
pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.action {
        Action::Run(selection) => tests(&selection, &mut cases::all()),
        Action::Cri(mut selection) => {
            // Where CRI looks for images.
            "k8s.io".clone_into(&mut selection.options.namespace);
            tests(&selection, &mut cri::all())
        }
        Action::Bench(measuring) => {
            import(&measuring.images, &measuring.options)?;
            let result = bench::run(&measuring);
            leftovers::remove_containers(&measuring.options, |name| name.starts_with(&prefix("bench")));
            result.map(|()| ExitCode::SUCCESS)
        }
        Action::BenchPods(mut measuring) => {
            "k8s.io".clone_into(&mut measuring.options.namespace);
            import(&measuring.images, &measuring.options)?;
            patience::begin()?;
            let result = cri::first(&Context::new(&measuring.options, bench::pods::NAME))
                .and_then(|()| bench::pods::run(&measuring));
            leftovers::remove(&measuring.options, bench::pods::NAME);
            cri::Traces::of(bench::pods::NAME).remove_folder();
            patience::end();
            result.map(|()| ExitCode::SUCCESS)
        }
        Action::One { name, options } => Ok(one(&name, &options)),
    }
}

fn tests(selection: &Selection, all: &mut dyn Iterator<Item = &'static Test>) -> Result<ExitCode, Failure> {
    let wanted = |test: &&'static Test| {
        let any = selection.filters.is_empty();
        any || selection.filters.iter().any(|filter| test.name.contains(filter.as_str()))
    };
    let chosen: Vec<&'static Test> = all.filter(wanted).collect();
    if selection.list {
        for test in chosen {
            println!("{:32} {}", test.name, test.shows);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // The other suite may have it.
    if chosen.is_empty() {
        println!("no test here is called like {}", selection.filters.join(", "));
        return Ok(ExitCode::SUCCESS);
    }
    let options = &selection.options;
    import(&selection.images, options)?;

    if options.namespace != "k8s.io" {
        leftovers::remove_containers(options, of_any_test);
    }
    patience::begin()?;
    let mut summary = Summary::default();
    let (possible, not_here): (Vec<&Test>, Vec<&Test>) =
        chosen.into_iter().partition(|test| !test.only_nacre || options.runtime == NACRE);
    for test in not_here {
        summary.note(
            test.name,
            Verdict::Skipped("only nacre has what it tests".to_owned()),
            std::time::Duration::ZERO,
        );
    }
    let through_cri = possible.iter().any(|test| cases::is_cri(test.name));
    if through_cri {
        first_pod(options);
    } else {
        first_containers(options);
    }
    let before = Listing::now(options);
    let (alone, beside): (Vec<&Test>, Vec<&Test>) = possible.into_iter().partition(|test| test.alone);
    runner::beside(&beside, selection.jobs, options, &mut summary);
    runner::alone(&alone, options, &mut summary);
    if !through_cri {
        leftovers::remove_containers(options, of_any_test);
    }
    if let Err(failure) = leftovers::compare(options, &before) {
        let verdict = runner::left_behind(options, &failure);
        summary.note("node-as-before", verdict, std::time::Duration::ZERO);
    }
    patience::end();
    Ok(report(&summary))
}

/// Whether a container has the name of a test's, of this or of an earlier run.
fn of_any_test(container: &str) -> bool {
    cases::all().any(|test| container.starts_with(&prefix(test.name)))
}

fn report(summary: &Summary) -> ExitCode {
    for (what, names) in [("skipped", &summary.skipped), ("failed", &summary.failed)] {
        for name in names {
            println!("{what}: {name}");
        }
    }
    let (failed, skipped) = (summary.failed.len(), summary.skipped.len());
    println!("{} passed, {failed} failed, {skipped} skipped", summary.passed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a container of each runtime before anything is compared: containerd and the runtimes make folders that stay.
fn first_containers(options: &Options) {
    for (name, runtime) in [("runc", RUNC), ("tested", options.runtime.as_str())] {
        let context = Context::new(options, FIRST).with_runtime(runtime);
        let ran = context.container(name).command(&["true"]).run();
        if let Err(failure) = ran.and_then(|finished| finished.exited(0)) {
            println!("the first container of {runtime} does not run: {}", chain(&failure));
        }
    }
    leftovers::remove(options, FIRST);
    let _ = leftovers::search(options, FIRST);
}

/// Runs a pod before anything is compared: CNI makes a bridge that stays.
fn first_pod(options: &Options) {
    let context = Context::new(options, FIRST_POD);
    if let Err(failure) = cri::first(&context) {
        println!("the first pod of {} does not run: {}", options.runtime, chain(&failure));
    }
    leftovers::remove(options, FIRST_POD);
    let _ = leftovers::search(options, FIRST_POD);
    cri::Traces::of(FIRST_POD).remove_folder();
}

fn one(name: &str, options: &Options) -> ExitCode {
    let Some(test) = cases::find(name) else {
        eprintln!("there is no test {name}");
        return ExitCode::FAILURE;
    };
    match (test.run)(&Context::new(options, name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::CannotRun(why)) => {
            println!("{why}");
            ExitCode::from(CANNOT_RUN)
        }
        Err(failure) => {
            println!("{}", chain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Imports those images of the folder that containerd hasn't got.
fn import(folder: &Path, options: &Options) -> Result<(), Failure> {
    let known = process::run(ctr(options).args(["image", "ls", "--quiet"]))?.exited(0)?.stdout;
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(name) = path.file_stem().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let reference = format!("nacre.test/{name}:1");
        if path.extension().is_some_and(|end| end == "tar") && !known.lines().any(|line| line == reference) {
            process::run(ctr(options).args(["image", "import"]).arg(&path))?.exited(0)?;
        }
    }
    Ok(())
}
