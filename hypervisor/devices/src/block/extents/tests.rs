use std::io::Write;

use proptest::prelude::*;

use super::*;

fn file(length: usize) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![7; length]).unwrap();
    file
}

#[test]
fn an_extent_begins_on_a_block_and_ends_with_its_sector() {
    let (map, placed) = ExtentMap::default().grow(vec![file(1), file(4096), file(5000)]).unwrap();
    assert_eq!(placed, [(0, 1), (8, 8), (16, 10)]);
    assert_eq!(map.capacity(), 32);
}

#[test]
fn nothing_is_appended_if_one_file_is_empty() {
    let error = ExtentMap::default().grow(vec![file(1), file(0)]).unwrap_err();
    assert!(matches!(error, GrowError::Empty(1)));
}

#[test]
fn released_space_stays_where_it_is_and_can_not_be_read() {
    let (map, placed) = ExtentMap::default().grow(vec![file(4096), file(4096)]).unwrap();
    let rest = map.release(&[placed[0].0]).unwrap();
    assert!(rest.piece(0, 512).is_none());
    assert!(matches!(rest.piece(4096, 512), Some(Piece::Data { offset: 0, length: 512, .. })));
    assert_eq!(rest.capacity(), map.capacity());
    assert_eq!(rest.release(&[0]).unwrap_err(), 0);
    assert_eq!(rest.release(&[1]).unwrap_err(), 1);
    let (grown, placed) = rest.grow(vec![file(1)]).unwrap();
    assert_eq!((placed, grown.capacity()), (vec![(16, 1)], 24));
}

#[test]
fn sectors_beyond_all_numbers_are_unknown() {
    assert_eq!(ExtentMap::default().release(&[u64::MAX]).unwrap_err(), u64::MAX);
    assert!(ExtentMap::default().piece(u64::MAX, u64::MAX).is_none());
}

proptest! {
    #[test]
    fn pieces_cover_a_disk_without_gap_and_without_overlap(
        lengths in prop::collection::vec(1usize..20_000, 1..12),
        step in 1u64..9000,
    ) {
        let files = lengths.iter().map(|length| file(*length)).collect();
        let (map, placed) = ExtentMap::default().grow(files).unwrap();
        let mut data = 0;
        let mut at = 0;
        let end = map.capacity() * SECTOR;
        while at < end {
            let length = match map.piece(at, step).unwrap() {
                Piece::Data { offset, length, .. } => {
                    let within = placed.iter().zip(&lengths).any(|(place, size)| {
                        place.0 * SECTOR + offset == at && offset + length <= *size as u64
                    });
                    prop_assert!(within);
                    data += length;
                    length
                }
                Piece::Zeros { length } => length,
            };
            prop_assert!(length > 0 && length <= step);
            at += length;
        }
        prop_assert_eq!(at, end);
        prop_assert_eq!(data, lengths.iter().map(|length| *length as u64).sum::<u64>());
        prop_assert!(map.piece(end, 1).is_none());
    }
}
