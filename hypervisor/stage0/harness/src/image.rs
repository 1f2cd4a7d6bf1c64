//! stage0's image with the instructions replaced that no processor here has.

use std::fs;
use std::path::Path;

use nacre_stage0_abi::layout;

use crate::error::Error;

/// The port that PVALIDATE becomes a write to.
pub const PVALIDATE_PORT: u16 = 0xb1;
/// The port that VMGEXIT becomes a write to.
pub const VMGEXIT_PORT: u16 = 0xb2;
/// The port that TDCALL becomes a write to.
pub const TDCALL_PORT: u16 = 0xb3;

/// The instructions (APM volume 3; SDM volume 2) and their ports.
const REPLACED: [([u8; 4], u16); 3] = [
    ([0xf2, 0x0f, 0x01, 0xff], PVALIDATE_PORT),
    ([0xf3, 0x0f, 0x01, 0xd9], VMGEXIT_PORT),
    ([0x66, 0x0f, 0x01, 0xcc], TDCALL_PORT),
];

/// Reads the image and replaces the instructions.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let what = || format!("can't read {}", path.display());
    let mut image = fs::read(path).map_err(|source| Error::File { what: what(), source })?;
    let whole = !image.is_empty() && image.len().is_multiple_of(4096);
    if !whole || u64::try_from(image.len()).is_ok_and(|len| len > layout::IMAGE_LIMIT) {
        return Err(Error::Image(format!("{} bytes are not 1 to 12 pages", image.len())));
    }
    for (instruction, port) in REPLACED {
        let port = u8::try_from(port).map_err(|_| Error::Image("port".into()))?;
        // `out port, eax; nop; nop`.
        if replace_all(&mut image, &instruction, &[0xe7, port, 0x90, 0x90]) == 0 {
            return Err(Error::Image(format!("no instruction {instruction:02x?}")));
        }
    }
    Ok(image)
}

/// Replaces every occurrence of `from`, and says how many there were.
pub fn replace_all(image: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    let places: Vec<usize> = (0..image.len()).filter(|place| image[*place..].starts_with(from)).collect();
    for place in &places {
        image[*place..*place + to.len()].copy_from_slice(to);
    }
    places.len()
}
