//! What goes to whoever asked.

use std::io;

use nacre_operator::{Chunk, Fault, LONGEST_LINE, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;

/// Room for each byte of a text to need an escape of six.
const LONGEST_TEXT: usize = LONGEST_LINE / 8;

/// The lines of an answer. They fail only when nobody listens any more.
#[derive(Debug)]
pub struct Replies(OwnedWriteHalf);

impl Replies {
    /// Replies to go there.
    pub fn new(writer: OwnedWriteHalf) -> Self {
        Self(writer)
    }

    /// One line.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn good<T: Serialize + DeserializeOwned>(&mut self, answer: T) -> io::Result<()> {
        self.0.write_all(Reply::Ok(answer).line().as_bytes()).await
    }

    /// A text, in as many lines as it needs.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn text(&mut self, text: &str) -> io::Result<()> {
        for part in parts(text, LONGEST_TEXT) {
            self.good(Chunk { text: part.to_owned() }).await?;
        }
        Ok(())
    }

    /// Why there is no answer, or no more of it.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn bad(&mut self, fault: Fault, message: impl Into<String>) -> io::Result<()> {
        let reply = Reply::<Chunk>::Error { fault, message: message.into() };
        self.0.write_all(reply.line().as_bytes()).await
    }
}

/// Parts of at most so many bytes.
fn parts(mut text: &str, most: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
        let (part, rest) = text.split_at(end.unwrap_or(0));
        text = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// The beginning of a text.
pub fn cut(text: &str, most: usize) -> &str {
    parts(text, most).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_is_torn() {
        assert_eq!(parts("aäöb", 3).collect::<Vec<_>>(), ["aä", "öb"]);
        assert_eq!(parts("", 3).count(), 0);
        assert_eq!(cut("aäb", 2), "a");
    }
}
