//! What came out, step by step.

use std::fmt::Write;

use serde::Serialize;

use crate::table;

/// The steps of a check.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Which technology the report claims.
    pub tee: &'static str,
    /// Whether the report, if it is accepted, is from a confidential machine.
    pub confidential: bool,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub result: StepResult,
    /// What was found, in words.
    pub found: String,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// As it must be.
    Ok,
    /// Not as it must be: the report is refused.
    Failed,
    /// Nothing was demanded.
    Skipped,
}

/// A verdict as programs see it.
#[derive(Serialize)]
struct Listed<'a> {
    accepted: bool,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Verdict {
    pub const fn new(tee: &'static str) -> Self {
        Self { tee, confidential: false, steps: Vec::new() }
    }

    /// A step that is right with the first text, or wrong with the second.
    pub fn step(
        &mut self,
        name: &'static str,
        outcome: Result<impl Into<String>, impl Into<String>>,
    ) -> bool {
        let (result, found) = match outcome {
            Ok(found) => (StepResult::Ok, found.into()),
            Err(found) => (StepResult::Failed, found.into()),
        };
        self.steps.push(Step { name, result, found });
        result == StepResult::Ok
    }

    /// A step for which nothing is demanded.
    pub fn skip(&mut self, name: &'static str, found: impl Into<String>) {
        self.steps.push(Step { name, result: StepResult::Skipped, found: found.into() });
    }

    /// A step that is right if what was found is what is wanted, where something is.
    pub fn compare(&mut self, name: &'static str, found: String, wanted: Option<String>) {
        let Some(wanted) = wanted else { return self.skip(name, found) };
        let outcome = if wanted == found { Ok(found) } else { Err(format!("{found}, expected is {wanted}")) };
        self.step(name, outcome);
    }

    /// Every step is right, and there are some.
    pub fn accepted(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.result != StepResult::Failed)
    }

    /// For people.
    pub fn text(&self) -> String {
        let rows: Vec<_> = self
            .steps
            .iter()
            .map(|step| {
                let word = match step.result {
                    StepResult::Ok => "ok",
                    StepResult::Failed => "WRONG",
                    StepResult::Skipped => "-",
                };
                Some([step.name.to_owned(), word.to_owned(), step.found.clone()])
            })
            .collect();
        let mut text = table::lay_out(&rows);
        // Writing to a String cannot fail.
        let _ = match (self.accepted(), self.confidential) {
            (true, true) => writeln!(text, "\nThe report is accepted."),
            (true, false) => {
                writeln!(text, "\nThe report is accepted, but the machine is simulated: NOT CONFIDENTIAL.")
            }
            (false, _) => writeln!(text, "\nThe report is REFUSED."),
        };
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let listed = Listed { accepted: self.accepted(), verdict: self };
        serde_json::to_string_pretty(&listed).unwrap_or_default() + "\n"
    }

    /// The names of the steps that are wrong.
    #[cfg(test)]
    pub fn wrong(&self) -> Vec<&'static str> {
        let wrong = self.steps.iter().filter(|step| step.result == StepResult::Failed);
        wrong.map(|step| step.name).collect()
    }
}
