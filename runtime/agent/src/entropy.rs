//! The guest's random numbers.
#![allow(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;

use crate::error::{Doing, Failure, Reply};

/// More than any pool mixes in at once.
const MAX_SEED: usize = 4096;

mod ioctl {
    nix::ioctl_none!(reseed, b'R', 0x07);
}

/// Mixes the host's bytes in and has the generator take a new seed. SECURITY: the bytes are mixed and not credited,
/// so a host that knows them learns nothing of the guest's random numbers.
pub fn reseed(bytes: &[u8]) -> Reply<()> {
    if bytes.len() > MAX_SEED {
        return Err(Failure::invalid(format!("a seed of {} bytes", bytes.len())));
    }
    let mut file = OpenOptions::new().write(true).open("/dev/urandom").doing("open the random generator")?;
    file.write_all(bytes).doing("mix the seed in")?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    unsafe { ioctl::reseed(file.as_raw_fd()) }.doing("reseed the random generator")?;
    Ok(())
}
