use super::*;
use rstest::rstest;

/// What is wrong with a file of this text.
fn wrong(text: &str) -> String {
    Source::parse(Path::new("/f.toml"), text).unwrap_err().to_string()
}

#[rstest]
#[case::letters(
    "[vm]\ndefault_vcpu = 1",
    "/f.toml:2: unknown key `vm.default_vcpu`, did you mean `vm.default_vcpus`?"
)]
#[case::dashes(
    "[timeouts]\n\nstart-seconds = 1",
    "/f.toml:3: unknown key `timeouts.start-seconds`, did you mean `timeouts.start_seconds`?"
)]
#[case::other_table(
    "[vm]\nkernel = \"/k\"",
    "/f.toml:2: unknown key `vm.kernel`, did you mean `guest.kernel`?"
)]
#[case::no_table("kernel = \"/k\"", "/f.toml:1: unknown key `kernel`, did you mean `guest.kernel`?")]
#[case::table("[timeout]\nstart_seconds = 1", "/f.toml:1: unknown key `timeout`, did you mean `timeouts`?")]
#[case::dotted(
    "vm.defaultvcpus = 1",
    "/f.toml:1: unknown key `vm.defaultvcpus`, did you mean `vm.default_vcpus`?"
)]
#[case::nothing_near("[vm]\nzzz = 1", "/f.toml:2: unknown key `vm.zzz`")]
fn an_unknown_key_is_refused_with_the_nearest(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(wrong(text), expected);
}

#[rstest]
#[case::range("[vm]\n\nmax_vcpus = 0", "/f.toml:3: vm.max_vcpus: must be a whole number from 1 to 64, not 0")]
#[case::unit(
    "[vm]\ndefault_memory_mib = 1",
    "/f.toml:2: vm.default_memory_mib: must be a whole number of MiB from 64 to 1048576, not 1"
)]
#[case::negative(
    "[timeouts]\nstart_seconds = -1",
    "/f.toml:2: timeouts.start_seconds: must be a whole number of seconds from 1 to 3600, not -1"
)]
#[case::path("vmm.path = \"bin/vmm\"", "/f.toml:1: vmm.path: must be an absolute path, not \"bin/vmm\"")]
#[case::dots("vmm.path = \"/a/../b\"", "/f.toml:1: vmm.path: must be a path without \"..\", not \"/a/../b\"")]
#[case::line_break(
    "guest.kernel_parameters = \"quiet\\nx\"",
    "/f.toml:1: guest.kernel_parameters: must be printable ASCII, without '\\n'"
)]
fn a_wrong_value_is_refused_with_key_and_line(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(wrong(text), expected);
}

#[rstest]
#[case::kind("[guest]\nannounces = 1", "/f.toml:2: guest.announces: ")]
#[case::kind_of_number("[vm]\ndefault_vcpus = 1.5", "/f.toml:2: vm.default_vcpus: ")]
#[case::choice("[log]\nlevel = \"loud\"", "/f.toml:2: log.level: ")]
#[case::no_table("\nvm = 3", "/f.toml:2: ")]
#[case::syntax("[vm]\n\ndefault_vcpus =", "/f.toml:3: ")]
#[case::twice("[vm]\nmax_vcpus = 2\nmax_vcpus = 2", "/f.toml:3: ")]
fn other_mistakes_have_their_line(#[case] text: &str, #[case] expected: &str) {
    let message = wrong(text);
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn places_of_all_keys_are_known() {
    let source =
        Source::parse(Path::new("/f.toml"), "[vm]\nmax_vcpus = 2\n\n[log]\n\nconsole = true\n").unwrap();
    let lines: Vec<_> = source.origins.iter().map(|(key, place)| (key.as_str(), place.line)).collect();
    assert_eq!(lines, [("log.console", 6), ("vm.max_vcpus", 2)]);
}
