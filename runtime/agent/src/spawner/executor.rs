//! How a container's first process turns into its program.

use std::collections::HashMap;
use std::os::fd::RawFd;

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;

use super::order::{Problem, Report};
use super::program::{Program, ProgramError};

/// Reports why a program can't be run, in a form that needs no reading of error texts.
#[derive(Clone)]
pub(super) struct ReportingExecutor {
    /// Closed by the kernel when the program is executed, which is how the agent learns that it was.
    pub(super) reports: RawFd,
}

impl ReportingExecutor {
    fn program(&self, spec: &Spec, env: &[String]) -> Result<Program, ProgramError> {
        spec.process().as_ref().ok_or(ProgramError::NoProgram).and_then(|process| Program::find(process, env))
    }

    fn report(&self, error: &ProgramError) {
        Report::Failed(Problem::Program(error.clone())).send(self.reports, None);
    }
}

impl Executor for ReportingExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let env = spec.process().as_ref().and_then(|process| process.env().clone()).unwrap_or_default();
        self.program(spec, &env).map(drop).map_err(|error| {
            self.report(&error);
            ExecutorValidationError::ArgValidationError(error.to_string())
        })
    }

    fn setup_envs(&self, env: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // libcontainer has added HOME to what the specification says.
        super::fork::replace_environment(&env);
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let env: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
        let error = match self.program(spec, &env) {
            Ok(program) => program.execute(),
            Err(error) => error,
        };
        self.report(&error);
        Err(ExecutorError::Other(error.to_string()))
    }
}
