//! Text from elsewhere, made harmless for a terminal.

/// SECURITY: a guest can put anything into its messages and names; escape sequences would reach the operator's
/// terminal. Line ends and tabs stay, every other control character becomes `\x..`, as do the characters that
/// change the direction of text.
pub fn text(given: &str) -> String {
    let mut text = String::with_capacity(given.len());
    for character in given.chars() {
        match character {
            '\n' | '\t' => text.push(character),
            '\r' => {}
            other if other.is_control() || turns(other) => text.extend(other.escape_unicode()),
            other => text.push(other),
        }
    }
    text
}

/// The same for what has to stay on its line.
pub fn word(given: &str) -> String {
    text(given).replace(['\n', '\t'], " ")
}

/// Unicode's embeddings, overrides and isolates.
const fn turns(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_shown_and_not_sent() {
        assert_eq!(text("a\x1b[31mb\r\n\tc\u{9b}ä"), "a\\u{1b}[31mb\n\tc\\u{9b}ä");
        assert_eq!(text("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(word("a\nb"), "a b");
    }
}
