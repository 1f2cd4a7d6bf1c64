//! SHA-256 (FIPS 180-4), with the processor's instructions where it has them.
//!
//! The usual crates ask the processor by CPUID what it can, which a confidential guest without exception handlers
//! must not do.

mod soft;
mod unsafe_instructions;

type State = [u32; 8];
type Block = [u8; 64];

/// FIPS 180-4, section 5.3.3.
const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4, section 4.2.2.
#[rustfmt::skip]
static ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// The hash of `bytes`. `accelerated` says that the processor has the SHA, SSSE3 and SSE4.1 instructions.
pub fn digest(bytes: &[u8], accelerated: bool) -> [u8; 32] {
    let compress = if accelerated { unsafe_instructions::compress } else { soft::compress };
    let mut state = INITIAL;
    let (blocks, rest) = bytes.as_chunks::<64>();
    compress(&mut state, blocks);

    // The last bytes, a one, zeros, and the length in bits: one block or two.
    let mut last = [0u8; 128];
    let len = if rest.len() < 56 { 64 } else { 128 };
    let (last, _) = last.split_at_mut(len);
    let marked = rest.iter().chain(&[0x80]);
    last.iter_mut().zip(marked).for_each(|(place, byte)| *place = *byte);
    if let Some(end) = last.last_chunk_mut::<8>() {
        // Slices are shorter than 2^61 bytes.
        *end = (bytes.len() as u64).wrapping_mul(8).to_be_bytes();
    }
    let (blocks, _) = last.as_chunks::<64>();
    compress(&mut state, blocks);

    let mut digest = [0; 32];
    let (places, _) = digest.as_chunks_mut::<4>();
    places.iter_mut().zip(state).for_each(|(place, word)| *place = word.to_be_bytes());
    digest
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use sha2::{Digest, Sha256};

    use super::*;

    fn has_instructions() -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
    }

    #[rstest]
    #[case::portable(false)]
    #[case::with_instructions(true)]
    fn is_the_known_hash_for_every_length_around_a_block(#[case] accelerated: bool) {
        if accelerated && !has_instructions() {
            eprintln!("this processor has no SHA instructions");
            return;
        }
        let bytes: Vec<u8> = (0..1000u32).map(|place| u8::try_from(place % 253).unwrap()).collect();
        for len in (0..260).chain([1000]) {
            let expected: [u8; 32] = Sha256::digest(&bytes[..len]).into();
            assert_eq!(digest(&bytes[..len], accelerated), expected, "{len} bytes");
        }
    }
}
