//! The host's kernel.

use std::fs::File;
use std::path::Path;

use super::Finding;

/// The oldest kernel that nacre is tested with: Debian 12's.
const OLDEST: (u32, u32) = (6, 1);

/// Its release.
pub fn release() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge(release.trim())
}

fn judge(release: &str) -> Finding {
    let name = "kernel";
    let (major, minor) = OLDEST;
    match version(release) {
        Some(version) if version >= OLDEST => Finding::ok(name, release),
        Some(_) => Finding::missing(name, release, format!("boot a kernel {major}.{minor} or later")),
        None => Finding::ok(name, format!("{release:?}"))
            .but(format!("cannot tell its version; nacre is tested with {major}.{minor} and later")),
    }
}

/// A release that must be this one or a later one, for a technology; one without numbers is believed.
pub fn at_least(name: &'static str, release: &str, oldest: (u32, u32), option: &str) -> Finding {
    match version(release) {
        Some(version) if version < oldest => {
            let (major, minor) = oldest;
            Finding::missing(name, release, format!("boot a kernel {major}.{minor} or later, with {option}"))
        }
        _ => Finding::ok(name, release),
    }
}

/// Major and minor number of a release such as `6.12.57+deb13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a pod's network needs.
pub fn tun() -> Finding {
    let (name, path) = ("tap devices", "/dev/net/tun");
    match File::options().read(true).write(true).open(path) {
        Ok(_) => Finding::ok(name, path),
        Err(error) => {
            let to_do = match Path::new(path).exists() {
                true => "run this as root",
                false => "load the module tun: modprobe tun",
            };
            Finding::missing(name, format!("{path}: {error}"), to_do)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.57+deb13-amd64", State::Ok)]
    #[case("6.1.0-9-amd64", State::Ok)]
    #[case("7.0-rc1", State::Ok)]
    #[case("5.10.0-30-amd64", State::Missing)]
    #[case("6.0.12", State::Missing)]
    #[case("custom", State::Ok)]
    fn old_kernels_are_told_from_new_ones(#[case] release: &str, #[case] state: State) {
        assert_eq!(judge(release).state, state);
    }
}
