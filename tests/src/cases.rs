//! All tests, one file for each kind of behaviour.

mod crashes;
mod execs;
mod exits;
mod faults;
mod kernels;
mod layers;
mod life;
mod limits;
mod logs;
mod many;
mod networks;
mod notices;
mod settings;
mod signals;
mod streams;
mod tee;
mod terminals;

use std::time::Duration;

use crate::context::Context;
use crate::failure::Outcome;

/// One test.
#[derive(Debug)]
pub struct Test {
    /// Its name, which its containers carry.
    pub name: &'static str,
    /// The behaviour that it shows.
    pub shows: &'static str,
    /// The test itself.
    pub run: fn(&Context) -> Outcome,
    /// Whether it needs the node for itself; then the node is compared with what it was before.
    pub alone: bool,
    /// Whether it is about something that only nacre has.
    pub only_nacre: bool,
    /// Why it can't hold where each pod is a machine, and a word of the error that says so.
    pub not_in_a_vm: Option<(&'static str, &'static str)>,
    /// When it is given up.
    pub limit: Duration,
    /// What that is later by for each of the cycles that were asked for.
    pub limit_for_each_cycle: Duration,
}

impl Test {
    pub(crate) const fn new(name: &'static str, shows: &'static str, run: fn(&Context) -> Outcome) -> Self {
        Self {
            name,
            shows,
            run,
            alone: false,
            only_nacre: false,
            not_in_a_vm: None,
            limit: Duration::from_secs(300),
            limit_for_each_cycle: Duration::ZERO,
        }
    }

    pub(crate) const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) const fn only_nacre(mut self) -> Self {
        self.only_nacre = true;
        self
    }

    /// With any runtime but runc it must fail, with this word in the error.
    pub(crate) const fn not_in_a_vm(mut self, why: &'static str, word: &'static str) -> Self {
        self.not_in_a_vm = Some((why, word));
        self
    }

    pub(crate) const fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    pub(crate) const fn limit_for_each_cycle(mut self, seconds: u64) -> Self {
        self.limit_for_each_cycle = Duration::from_secs(seconds);
        self
    }
}

/// Whether the test of this name goes through CRI: such names begin with their group.
pub fn is_cri(test: &str) -> bool {
    test.contains('/')
}

/// The test of this name, of any suite.
pub fn find(name: &str) -> Option<&'static Test> {
    all().chain(crate::cri::all()).find(|test| test.name == name)
}

/// Every test that goes through `ctr`, in the order in which they are reported.
pub fn all() -> impl Iterator<Item = &'static Test> {
    [
        exits::TESTS,
        signals::TESTS,
        streams::TESTS,
        terminals::TESTS,
        execs::TESTS,
        limits::TESTS,
        settings::TESTS,
        layers::TESTS,
        life::TESTS,
        logs::TESTS,
        notices::TESTS,
        kernels::TESTS,
        networks::TESTS,
        tee::TESTS,
        many::TESTS,
        faults::TESTS,
        crashes::TESTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_short_enough_for_a_socket_path() {
        let names: BTreeSet<&str> = super::all().chain(crate::cri::all()).map(|test| test.name).collect();
        assert_eq!(names.len(), super::all().chain(crate::cri::all()).count());
        assert!(names.iter().all(|name| name.len() <= 32), "{names:?}");
    }
}
