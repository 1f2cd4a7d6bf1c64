use rstest::rstest;

use super::*;

/// Runs a filter as the kernel would; none when it leaves its own instructions or reads elsewhere.
fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> Option<bool> {
    let argument = [access << 16 | kind, major, minor];
    let mut registers = [0u32; 11];
    let mut next = 0usize;
    for _ in 0..program.len() {
        let Instruction { code, registers: pair, offset, constant } = *program.get(next)?;
        let (to, from) = (usize::from(pair & 0xf), usize::from(pair >> 4));
        let value = constant.cast_unsigned();
        match code {
            0x61 if from == 1 => registers[to] = *argument.get(usize::try_from(offset).ok()? / 4)?,
            0x54 => registers[to] &= value,
            0x74 => registers[to] >>= value,
            0xbc => registers[to] = registers[from],
            0xb7 => registers[to] = value,
            0x56 if registers[to] != value => next += usize::try_from(offset).ok()?,
            0x56 => {}
            0x95 => return Some(registers[0] == 1),
            _ => return None,
        }
        next += 1;
    }
    None
}

const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;

fn access(linux: &str) -> DeviceAccess {
    let text =
        format!(r#"{{"process": {{"cwd": "/", "user": {{}}}}, "root": {{"path": "/r"}}, "linux": {linux}}}"#);
    DeviceAccess::of(&serde_json::from_str(&text).unwrap())
}

fn allows(access: &DeviceAccess, kind: u32, wanted: u32, major: u32, minor: u32) -> bool {
    match access {
        DeviceAccess::All => true,
        DeviceAccess::Only(allowed) => {
            run(&program(allowed), kind, wanted, major, minor).expect("a sound filter")
        }
    }
}

#[rstest]
#[case::null(CHARACTER, READ | WRITE, 1, 3, true)]
#[case::urandom(CHARACTER, READ, 1, 9, true)]
#[case::any_terminal(CHARACTER, READ | WRITE, 136, 77, true)]
#[case::kernel_log(CHARACTER, READ, 1, 11, false)]
#[case::disk(BLOCK, READ, 254, 0, false)]
#[case::disk_with_nulls_number(BLOCK, READ, 1, 3, false)]
#[case::node_of_a_disk(BLOCK, MAKE, 254, 0, true)]
#[case::node_and_open(BLOCK, MAKE | READ, 254, 0, false)]
#[case::node_of_a_character_device(CHARACTER, MAKE, 10, 57, true)]
fn a_usual_container_has_everybodys_devices(
    #[case] kind: u32,
    #[case] wanted: u32,
    #[case] major: u32,
    #[case] minor: u32,
    #[case] expected: bool,
) {
    // The host's numbers are not believed: 254:0 is a disk of the guest.
    let usual = access(
        r#"{"resources": {"devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 254, "minor": 0, "access": "rwm"}]}}"#,
    );
    assert_eq!(allows(&usual, kind, wanted, major, minor), expected);
    assert_eq!(allows(&access("{}"), kind, wanted, major, minor), expected);
}

#[test]
fn a_device_of_the_specification_is_allowed_and_its_neighbour_is_not() {
    let with = access(r#"{"devices": [{"path": "/dev/data", "type": "b", "major": 254, "minor": 32}]}"#);
    assert!(allows(&with, BLOCK, READ | WRITE, 254, 32));
    assert!(!allows(&with, BLOCK, READ, 254, 16));
    assert!(!allows(&with, CHARACTER, READ, 254, 32));
}

#[test]
fn a_privileged_container_has_all_devices_unless_they_are_taken_back() {
    let all = r#"{"allow": true, "access": "rwm"}"#;
    let none = r#"{"allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm"}"#;
    let rules = |rules: &str| access(&format!(r#"{{"resources": {{"devices": [{rules}]}}}}"#));
    assert_eq!(rules(&format!("{none}, {all}")), DeviceAccess::All);
    assert_ne!(rules(&format!("{all}, {none}")), DeviceAccess::All);
}
