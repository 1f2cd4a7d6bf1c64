//! Bytes as hexadecimal digits.

pub use nacre_operator::digits::{parse, text};

/// A fixed number of bytes from two digits each.
///
/// # Errors
/// A sentence that says what would be right.
pub fn bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("not {} hexadecimal digits", 2 * N);
    parse(text).and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)
}

/// A fixed number of bytes from the digits of the first ones; zeros follow.
///
/// # Errors
/// A sentence that says what would be right.
pub fn padded<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("not an even number of hexadecimal digits, at most {}", 2 * N);
    let given = parse(text).ok_or_else(wrong)?;
    let mut bytes = [0; N];
    bytes.get_mut(..given.len()).ok_or_else(wrong)?.copy_from_slice(&given);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes() {
        assert_eq!(bytes("00fFa5"), Ok([0, 255, 0xa5]));
        assert_eq!(text(&[0, 255, 0xa5]), "00ffa5");
        for wrong in ["", "00ffa", "00ffa5a5", "+1ffa5", "é0ffa", "00 ffa"] {
            assert_eq!(bytes::<3>(wrong), Err("not 6 hexadecimal digits".to_owned()), "{wrong}");
        }
    }
}
