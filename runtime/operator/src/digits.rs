//! Bytes as hexadecimal digits, two for each.

use std::fmt::Write as _;

/// Bytes from their digits; none for anything else.
pub fn parse(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

/// The digits of bytes.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_bytes_and_bytes_are_digits() {
        assert_eq!(parse("00Ffa5"), Some(vec![0, 255, 0xa5]));
        assert_eq!(text(&[0, 255, 0xa5]), "00ffa5");
        assert!([parse("0"), parse("+1"), parse("é")].iter().all(Option::is_none));
    }
}
