//! SHA-256 with the processor's instructions (Intel SDM volume 2, SHA256RNDS2, SHA256MSG1, SHA256MSG2).

#![allow(unsafe_code)]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
    _mm_storeu_si128,
};

use super::{Block, ROUND_CONSTANTS, State};

/// The caller knows that the processor has the instructions.
pub(super) fn compress(state: &mut State, blocks: &[Block]) {
    // SAFETY: `digest` takes this function only if its caller says that the processor has all these features.
    // Were that wrong, the instructions would raise an exception, which ends stage0.
    unsafe { compress_blocks(state, blocks) }
}

/// # Safety
/// The processor must have the SHA, SSSE3 and SSE4.1 instructions.
#[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
unsafe fn compress_blocks(state: &mut State, blocks: &[Block]) {
    let (low, high) = state.split_at_mut(4);
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // The instructions want the eight words as ABEF and CDGH.
    // SAFETY: both halves of the state have 16 bytes.
    let (dcba, hgfe) = unsafe { (load(low.as_ptr()), load(high.as_ptr())) };
    let cdab = _mm_shuffle_epi32(dcba, 0xb1);
    let efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    let mut abef = _mm_alignr_epi8(cdab, efgh, 8);
    let mut cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);

    for block in blocks {
        let (abef_before, cdgh_before) = (abef, cdgh);
        // SAFETY: each of the four quarters of a block has 16 bytes.
        let mut words = block.as_chunks::<16>().0.iter().map(|quarter| unsafe { load(quarter.as_ptr()) });
        let mut next = || words.next().map_or(cdgh, |bytes| _mm_shuffle_epi8(bytes, big_endian));
        let mut schedule = [next(), next(), next(), next()];
        for constants in &ROUND_CONSTANTS {
            let [now, second, third, fourth] = schedule;
            // SAFETY: four constants have 16 bytes.
            let sum = _mm_add_epi32(now, unsafe { load(constants.as_ptr()) });
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
            // The words of four rounds later; those behind the last round are not used.
            let mixed = _mm_add_epi32(_mm_sha256msg1_epu32(now, second), _mm_alignr_epi8(fourth, third, 4));
            schedule = [second, third, fourth, _mm_sha256msg2_epu32(mixed, fourth)];
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    let feba = _mm_shuffle_epi32(abef, 0x1b);
    let dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    let dcba = _mm_blend_epi16(feba, dchg, 0xf0);
    let hgfe = _mm_alignr_epi8(dchg, feba, 8);
    // SAFETY: both halves of the state have 16 bytes.
    unsafe {
        _mm_storeu_si128(low.as_mut_ptr().cast(), dcba);
        _mm_storeu_si128(high.as_mut_ptr().cast(), hgfe);
    }
}

/// # Safety
/// There must be 16 bytes.
#[target_feature(enable = "sse2")]
unsafe fn load<T>(bytes: *const T) -> __m128i {
    // SAFETY: the caller's promise; the instruction needs no alignment.
    unsafe { _mm_loadu_si128(bytes.cast()) }
}
