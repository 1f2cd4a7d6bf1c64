//! SHA-256 for any processor: FIPS 180-4, section 6.2.2.

use super::{Block, ROUND_CONSTANTS, State};

pub(super) fn compress(state: &mut State, blocks: &[Block]) {
    for block in blocks {
        compress_block(state, block);
    }
}

fn compress_block(state: &mut State, block: &Block) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    // The last sixteen words of the schedule, the oldest first.
    let mut words = [0u32; 16];
    let (bytes, _) = block.as_chunks::<4>();
    words.iter_mut().zip(bytes).for_each(|(word, bytes)| *word = u32::from_be_bytes(*bytes));
    for constant in ROUND_CONSTANTS.as_flattened() {
        let [word, second, .., tenth, _, _, _, _, fifteenth, _] = words;
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let choice = (e & f) ^ (!e & g);
        let one = h.wrapping_add(sum1).wrapping_add(choice).wrapping_add(*constant).wrapping_add(word);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let two = sum0.wrapping_add(majority);
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, one.wrapping_add(two));

        let small0 = second.rotate_right(7) ^ second.rotate_right(18) ^ (second >> 3);
        let small1 = fifteenth.rotate_right(17) ^ fifteenth.rotate_right(19) ^ (fifteenth >> 10);
        let next = word.wrapping_add(small0).wrapping_add(tenth).wrapping_add(small1);
        words.rotate_left(1);
        if let Some(last) = words.last_mut() {
            *last = next;
        }
    }
    let sums = [a, b, c, d, e, f, g, h];
    state.iter_mut().zip(sums).for_each(|(word, sum)| *word = word.wrapping_add(sum));
}
