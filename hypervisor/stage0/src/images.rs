//! Copying and checking what the host gave.
//!
//! SECURITY: the host can change the shared window at any time. So everything is copied first, and only the copy
//! in private memory is hashed and used.

use nacre_stage0_abi::step::Step;
use nacre_stage0_abi::stop::Stop;
use nacre_stage0_abi::{Image, ImageKind};

use crate::guest::Guest;
use crate::sha256;

/// Copies an image to its place and checks it.
pub fn load(guest: &mut impl Guest, image: &Image) -> Result<(), Stop> {
    let accelerated = guest.has_sha_instructions();
    guest.copy_shared(image.source, image.target.start());
    guest.did(Step::Copied);
    let whole = guest.memory(image.target);
    let len = usize::try_from(image.source.len()).map_err(|_| Stop::Hashes)?;
    let (file, rest) = whole.split_at_mut_checked(len).ok_or(Stop::Hashes)?;
    if sha256::digest(file, accelerated) != image.sha256 {
        return Err(match image.kind {
            ImageKind::Kernel => Stop::KernelHash,
            ImageKind::Initrd => Stop::InitrdHash,
            ImageKind::CommandLine => Stop::CommandLineHash,
        });
    }
    // Memory that was just taken into use has whatever bytes the encryption makes of the old ones.
    rest.fill(0);
    if image.kind == ImageKind::CommandLine && file.iter().position(|byte| *byte == 0) != Some(len - 1) {
        return Err(Stop::CommandLine);
    }
    guest.did(Step::Hashed);
    Ok(())
}
