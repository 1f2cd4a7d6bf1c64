//! `nacre logs`: what a pod's shim logged.

use std::io::{self, Write};

use nacre_operator::{Call, Chunk};

use crate::pods::{AskError, Connection, PodError, Wanted};
use crate::printable;

/// Options of `nacre logs`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Waits for more
    #[arg(long, short)]
    follow: bool,
    /// Prints the lines as they are in the log, in JSON
    #[arg(long)]
    json: bool,
}

/// Prints the shim's last messages; with the shim gone those of its file, if the configuration had it keep one.
///
/// # Errors
/// There is no such pod, or nobody to ask.
pub fn run(arguments: &Arguments) -> Result<(), PodError> {
    let pod = arguments.wanted.find()?;
    let show = |text: &str| show(text, arguments.json);
    match pod.ask(Call::Log { follow: arguments.follow }) {
        Ok(connection) => print(connection, arguments.follow, show),
        Err(error) => match std::fs::read_to_string(pod.folder.join("shim.log")) {
            Ok(text) => write(&show(&text)),
            Err(_) => Err(error.into()),
        },
    }
}

/// Prints all that comes, each part as `show` makes it.
///
/// # Errors
/// The shim stops answering.
pub fn print(
    mut connection: Connection,
    follow: bool,
    show: impl Fn(&str) -> String,
) -> Result<(), PodError> {
    if follow {
        connection = connection.patient()?;
    }
    // A line may come in two parts.
    let mut rest = String::new();
    while let Some(Chunk { text }) = connection.next::<Chunk>()? {
        rest.push_str(&text);
        let whole = rest.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = rest.drain(..whole).collect();
        write(&show(&lines))?;
    }
    write(&show(&rest))
}

/// A reader that has seen enough ends the program, as it should.
fn write(text: &str) -> Result<(), PodError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(PodError::io("writing the output"))
}

fn show(lines: &str, json: bool) -> String {
    lines.lines().map(|line| if json { printable::text(line) + "\n" } else { one(line) }).collect()
}

/// A line of JSON for people; another one as it is.
fn one(line: &str) -> String {
    let Ok(message) = serde_json::from_str::<nacre_operator::Message>(line) else {
        return printable::word(line) + "\n";
    };
    let own = ["namespace", "sandbox"];
    let keys = message.keys.iter().filter(|(key, _)| !own.contains(&key.as_str()));
    let keys: String = keys
        .map(|(key, value)| match value.as_str() {
            Some(text) => format!("  {key}={text}"),
            None => format!("  {key}={value}"),
        })
        .collect();
    printable::word(&format!("{} {} {}{keys}", message.time, message.level, message.text)) + "\n"
}

/// Why a shim gives nothing, when something else may help.
pub fn is_about_the_guest(error: &PodError) -> bool {
    matches!(error, PodError::Ask(AskError::Refused { .. } | AskError::Silent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_made_readable_and_harmless() {
        let line = "{\"msg\":\"VM ended\",\"level\":\"INFO\",\"ts\":\"2026\",\"sandbox\":\"w\",\"reason\":\"\\u001b[0m\"}\n";
        assert_eq!(show(line, false), "2026 INFO VM ended  reason=\\u{1b}[0m\n");
        assert_eq!(show("no json\x07\n", false), "no json\\u{7}\n");
        assert_eq!(show(line, true), line);
    }
}
