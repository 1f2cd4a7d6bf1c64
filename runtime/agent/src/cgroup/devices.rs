//! Which devices a container may open: a filter of its cgroup.
//!
//! SECURITY: a container has `CAP_MKNOD` by default, so without this it could make a node for any disk of the guest and
//! read other containers' layers and volumes.
//!
//! The specification's own list is the host's: its numbers mean other devices here. What it says of all devices is
//! followed (a privileged container); all others get what every container has, and the devices that are in their
//! specification under the guest's numbers.

use std::fs::File;
use std::io;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec};

use super::Cgroup;
use super::unsafe_bpf::{self, Instruction};

/// Which devices may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceAccess {
    /// All there are.
    All,
    /// Only these.
    Only(Vec<Allowed>),
}

/// Devices that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    kind: Kind,
    /// None: all.
    major: Option<i32>,
    /// None: all.
    minor: Option<i32>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Character = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Making a node only, which opens nothing.
    MakeNode = 0b001,
    All = 0b111,
}

/// What every container has: null, zero, full, random, urandom, tty, console, ptmx and its terminals.
const EVERYBODYS: [(i32, Option<i32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

impl DeviceAccess {
    /// What a specification says, its devices having the guest's numbers.
    pub fn of(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        let rules = linux.and_then(|linux| linux.resources().as_ref()).map(LinuxResources::devices);
        if rules.and_then(Option::as_ref).is_some_and(|rules| allow_all(rules)) {
            return Self::All;
        }
        let nodes = [Kind::Block, Kind::Character].map(|kind| Allowed {
            kind,
            major: None,
            minor: None,
            access: Access::MakeNode,
        });
        let everybodys = EVERYBODYS.map(|(major, minor)| Allowed {
            kind: Kind::Character,
            major: Some(major),
            minor,
            access: Access::All,
        });
        let own = linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten().filter_map(device);
        Self::Only(nodes.into_iter().chain(everybodys).chain(own).collect())
    }

    /// Limits the processes of this cgroup, now and later.
    ///
    /// # Errors
    /// The kernel has no device filters, or refuses this one.
    pub fn apply(&self, cgroup: &Cgroup) -> io::Result<()> {
        match self {
            Self::All => Ok(()),
            Self::Only(allowed) => {
                let filter = unsafe_bpf::load(&program(allowed))?;
                unsafe_bpf::attach(File::open(cgroup.path())?, &filter)
            }
        }
    }
}

/// Whether the last rule about all devices allows them.
fn allow_all(rules: &[LinuxDeviceCgroup]) -> bool {
    let is_for_all = |rule: &&LinuxDeviceCgroup| {
        matches!(rule.typ(), None | Some(LinuxDeviceType::A))
            && rule.major().is_none_or(|major| major < 0)
            && rule.minor().is_none_or(|minor| minor < 0)
    };
    rules.iter().rfind(is_for_all).is_some_and(LinuxDeviceCgroup::allow)
}

fn device(device: &LinuxDevice) -> Option<Allowed> {
    let kind = match device.typ() {
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
        LinuxDeviceType::P | LinuxDeviceType::A => return None,
    };
    let number = |number: i64| i32::try_from(number).ok().filter(|number| *number >= 0);
    let (major, minor) = (Some(number(device.major())?), Some(number(device.minor())?));
    Some(Allowed { kind, major, minor, access: Access::All })
}

const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const FORBIDDEN: u8 = 6;

/// The filter: it is given the address of kind and access, major and minor, and answers one for yes.
fn program(allowed: &[Allowed]) -> Vec<Instruction> {
    const LOAD_WORD: u8 = 0x61;
    const AND: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const COPY: u8 = 0xbc;
    const JUMP_UNLESS_EQUAL: u8 = 0x56;
    let instruction =
        |code, to, from, offset, constant| Instruction { code, registers: to | from << 4, offset, constant };
    let mut program = vec![
        instruction(LOAD_WORD, KIND, 1, 0, 0),
        instruction(COPY, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, 1, 4, 0),
        instruction(LOAD_WORD, MINOR, 1, 8, 0),
    ];
    for one in allowed {
        let mut checks = vec![(KIND, one.kind as i32)];
        checks.extend(one.major.map(|major| (MAJOR, major)));
        checks.extend(one.minor.map(|minor| (MINOR, minor)));
        if one.access != Access::All {
            program.push(instruction(COPY, FORBIDDEN, ACCESS, 0, 0));
            program.push(instruction(AND, FORBIDDEN, 0, 0, !(one.access as i32)));
            checks.push((FORBIDDEN, 0));
        }
        // To the next rule: behind the checks that are left and the answer of two instructions.
        let jumps = checks.iter().rev().zip(2..);
        let jumps: Vec<_> = jumps
            .map(|((register, value), skip)| instruction(JUMP_UNLESS_EQUAL, *register, 0, skip, *value))
            .collect();
        program.extend(jumps.into_iter().rev());
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

fn answer(value: i32) -> [Instruction; 2] {
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    [
        Instruction { code: SET, registers: 0, offset: 0, constant: value },
        Instruction { code: EXIT, registers: 0, offset: 0, constant: 0 },
    ]
}

#[cfg(test)]
mod tests;
