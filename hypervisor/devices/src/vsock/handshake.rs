//! The line with which a peer of the host says where it wants to go, however it arrives.

/// The longest line: `CONNECT 4294967295\n` with room to spare.
pub(super) const MAX_LINE: usize = 32;

/// A line that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
}

/// What the bytes so far make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// All bytes belong to a line that goes on.
    Incomplete,
    /// The first `consumed` of the new bytes end the line. The rest is the peer's data already.
    Port { port: u32, consumed: usize },
    /// Not what a peer says.
    Invalid,
}

impl Line {
    /// Goes on with the bytes that came next.
    pub fn push(&mut self, bytes: &[u8]) -> Parsed {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if self.bytes.len().saturating_add(part.len()) >= MAX_LINE {
            return Parsed::Invalid;
        }
        self.bytes.extend_from_slice(part);
        let Some(end) = end else { return Parsed::Incomplete };
        match port(&self.bytes) {
            Some(port) => Parsed::Port { port, consumed: end + 1 },
            None => Parsed::Invalid,
        }
    }
}

fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    // `parse` alone would take a sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(b"CONNECT 1024\n", Parsed::Port { port: 1024, consumed: 13 })]
    #[case(b"CONNECT 0\nhello\n", Parsed::Port { port: 0, consumed: 10 })]
    #[case(b"CONNECT 4294967295\n", Parsed::Port { port: u32::MAX, consumed: 19 })]
    #[case(b"CONNECT 4294967296\n", Parsed::Invalid)]
    #[case(b"CONNECT +1\n", Parsed::Invalid)]
    #[case(b"CONNECT -1\n", Parsed::Invalid)]
    #[case(b"CONNECT \n", Parsed::Invalid)]
    #[case(b"CONNECT 1 \n", Parsed::Invalid)]
    #[case(b"connect 1\n", Parsed::Invalid)]
    #[case(b"\n", Parsed::Invalid)]
    #[case(b"CONNECT 00000000000000000000000000001", Parsed::Invalid)]
    #[case(b"CONNECT", Parsed::Incomplete)]
    #[case(b"", Parsed::Incomplete)]
    fn a_line_is_taken_or_refused(#[case] bytes: &[u8], #[case] expected: Parsed) {
        assert_eq!(Line::default().push(bytes), expected);
    }

    #[test]
    fn a_line_may_come_byte_by_byte() {
        let mut line = Line::default();
        for byte in b"CONNECT 77" {
            assert_eq!(line.push(&[*byte]), Parsed::Incomplete);
        }
        assert_eq!(line.push(b"\nrest"), Parsed::Port { port: 77, consumed: 1 });
    }

    #[test]
    fn an_endless_line_is_refused_whatever_its_portions() {
        let mut line = Line::default();
        let refused = (0..MAX_LINE).any(|_| line.push(b"1") == Parsed::Invalid);
        assert!(refused);
    }
}
