//! A guest of the simulated platform whose kernel, initrd or command line was changed after planning: stage0 refuses it, and
//! says at which stage.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use kvm_ioctls::Kvm;
use nacre_control::StopReason;
use nacre_launch::Kernel;
use nacre_vmm::measured::Planned;
use nacre_vmm::reports::Report;

use crate::case::{Case, Failure, said};
use crate::guest::{self, FOLDER, Way};

pub const CASES: &[Case] = &[
    Case { name: "tamper-nothing", run: nothing },
    Case { name: "tamper-kernel", run: kernel },
    Case { name: "tamper-initrd", run: initrd },
    Case { name: "tamper-command-line", run: command_line },
    Case { name: "tamper-command-line-end", run: command_line_end },
];

/// The same way with nothing changed leads to the agent.
fn nothing(_: &Kvm) -> Result<(), Failure> {
    let guest = guest::start(Way::Simulated, |_| Ok(()))?;
    loop {
        match guest.next()? {
            Report::Reached(at) if at.t == 8 => return Ok(()),
            Report::Ended(reason) => return Err(format!("it ended: {reason}")),
            _ => {}
        }
    }
}

fn kernel(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let bytes = fs::read(Path::new(FOLDER).join("vmlinux")).map_err(said("reading the kernel"))?;
        let kernel = Kernel::parse(&bytes).map_err(said("the kernel"))?;
        let segment = kernel.segments.last().ok_or("the kernel has no segment")?;
        planned.kernel = changed(&bytes, segment.file.end - 1)?;
        Ok(())
    };
    refuses(refused, 1, "the kernel is not the one that was measured")
}

fn initrd(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let bytes = fs::read(Path::new(FOLDER).join("initrd.img")).map_err(said("reading the initrd"))?;
        planned.initrd = changed(&bytes, bytes.len() / 2)?;
        Ok(())
    };
    refuses(refused, 2, "the initrd is not the one that was measured")
}

fn command_line(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| flip(&mut planned.command_line, 0);
    refuses(refused, 3, "the command line is not the one that was measured")
}

/// Its final zero is measured, too.
fn command_line_end(_: &Kvm) -> Result<(), Failure> {
    let refused = |planned: &mut Planned| {
        let last = planned.command_line.len() - 1;
        flip(&mut planned.command_line, last)
    };
    refuses(refused, 3, "the command line is not the one that was measured")
}

fn flip(bytes: &mut [u8], place: usize) -> Result<(), Failure> {
    *bytes.get_mut(place).ok_or("no such byte")? ^= 1;
    Ok(())
}

/// A file with these bytes, but for one bit.
fn changed(bytes: &[u8], place: usize) -> Result<File, Failure> {
    let mut bytes = bytes.to_vec();
    flip(&mut bytes, place)?;
    let file = tempfile::tempfile().map_err(said("a temporary file"))?;
    file.write_all_at(&bytes, 0).map_err(said("writing a temporary file"))?;
    Ok(file)
}

/// Fails unless stage0 stops at the images' stage with this code.
fn refuses(
    change: impl FnOnce(&mut Planned) -> Result<(), Failure> + Send,
    code: u8,
    why: &str,
) -> Result<(), Failure> {
    let (stage_name, why) = ("images".to_owned(), why.to_owned());
    guest::start(Way::Simulated, change)?.ends(StopReason::Stage0 { stage: 5, stage_name, code, why })
}
