//! Container logs in CRI's form: `<time> <stream> <F or P> <content>`.

use std::fs;
use std::path::Path;

use crate::failure::{Failure, wrong};

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it was written, as the log has it.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether more of the same line follows.
    pub partial: bool,
    /// What was written.
    pub content: String,
}

/// All lines of a log file.
///
/// # Errors
/// It can't be read or has a line that is not in CRI's form.
pub fn read(path: &Path) -> Result<Vec<Line>, Failure> {
    let bytes = fs::read(path).map_err(Failure::io(format!("can't read {}", path.display())))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // Its last line may be under way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.split('\n').filter(|line| !line.is_empty()).map(parse).collect()
}

fn parse(line: &str) -> Result<Line, Failure> {
    let mut fields = line.splitn(4, ' ');
    match (fields.next(), fields.next(), fields.next(), fields.next()) {
        (Some(time), Some(stream @ ("stdout" | "stderr")), Some(tag @ ("F" | "P")), Some(content)) => {
            Ok(Line {
                time: time.to_owned(),
                stream: stream.to_owned(),
                partial: tag == "P",
                content: content.to_owned(),
            })
        }
        _ => wrong(format!("no line of a container's log: {line:?}")),
    }
}

/// What was written to a stream, with parts of lines joined.
pub fn join(lines: &[Line], stream: &str) -> String {
    let mut text = String::new();
    for line in lines.iter().filter(|line| line.stream == stream) {
        text.push_str(&line.content);
        if !line.partial {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{join, parse};

    #[test]
    fn parts_of_a_line_are_joined_and_streams_kept_apart() {
        let text = "t stdout P one \nt stderr F bad\nt stdout F two\nt stdout F ";
        let lines: Vec<_> = text.split('\n').map(|line| parse(line).unwrap()).collect();
        assert_eq!(join(&lines, "stdout"), "one two\n\n");
        assert_eq!(join(&lines, "stderr"), "bad\n");
        assert!(parse("t stdout X a").is_err());
    }
}
