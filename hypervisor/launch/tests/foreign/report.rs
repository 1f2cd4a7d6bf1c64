//! A report of tests as Rust's own runner prints it, for tests that may find out that they can't run.

use std::process::ExitCode;

/// How a test ended.
pub enum Outcome {
    Passed,
    Failed(String),
    /// It could not run, and why.
    Ignored(String),
}

/// The tests so far.
pub struct Report {
    filters: Vec<String>,
    failed: Vec<(String, String)>,
    passed: usize,
    ignored: usize,
}

impl Report {
    /// A report on the tests whose names contain one of the program's arguments, if there are any.
    pub fn from_arguments() -> Self {
        let filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
        Self { filters, failed: Vec::new(), passed: 0, ignored: 0 }
    }

    /// Runs a test and prints its line.
    pub fn test(&mut self, name: &str, run: impl FnOnce() -> Outcome) {
        if !self.filters.is_empty() && !self.filters.iter().any(|filter| name.contains(filter)) {
            return;
        }
        match run() {
            Outcome::Passed => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Outcome::Failed(text) => {
                self.failed.push((name.to_owned(), text));
                println!("test {name} ... FAILED");
            }
            Outcome::Ignored(reason) => {
                self.ignored += 1;
                println!("test {name} ... ignored, {reason}");
            }
        }
    }

    /// Prints the rest of the report.
    pub fn finish(self) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n");
        }
        for (name, text) in &self.failed {
            println!("---- {name} stdout ----\n{text}\n");
        }
        let (result, code) = if self.failed.is_empty() { ("ok", 0) } else { ("FAILED", 101) };
        let Self { passed, ignored, .. } = self;
        println!(
            "\ntest result: {result}. {passed} passed; {} failed; {ignored} ignored\n",
            self.failed.len()
        );
        ExitCode::from(code)
    }
}
