//! The kernel's messages, for an operator who asks.

mod unsafe_watch;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nacre_protocol::nacre::{KernelMessage, ReadKernelLogResponse};

const DEVICE: &str = "/dev/kmsg";
/// The longest record (`CONSOLE_EXT_LOG_MAX` in the kernel's printk); a shorter buffer fails.
const LONGEST_RECORD: usize = 8192;
/// Bytes of text in one answer.
const MOST: usize = 64 << 10;

/// Messages from the number `from` on; if there is none, waits for one.
///
/// # Errors
/// The kernel does not give its messages.
pub async fn read(from: u64, wait: Duration) -> io::Result<ReadKernelLogResponse> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    // There from its first message on: those before `from` are passed over.
    let device = unsafe_watch::readable(file)?;
    let read = async {
        loop {
            let mut ready = device.readable().await?;
            let answer = take(device.get_ref(), from)?;
            if !answer.messages.is_empty() {
                return Ok(answer);
            }
            ready.clear_ready();
        }
    };
    let nothing = || ReadKernelLogResponse { next: from, ..Default::default() };
    match wait.is_zero() {
        true => take(device.get_ref(), from),
        false => tokio::time::timeout(wait, read).await.unwrap_or_else(|_| Ok(nothing())),
    }
}

/// What there is.
fn take(mut device: &File, from: u64) -> io::Result<ReadKernelLogResponse> {
    let mut answer = ReadKernelLogResponse { next: from, ..Default::default() };
    let (mut record, mut bytes) = ([0; LONGEST_RECORD], 0);
    while bytes < MOST {
        let count = match device.read(&mut record) {
            Ok(count @ 1..) => count,
            Ok(_) => break,
            // Messages were overwritten before they were read; the next ones are there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        };
        let Some((number, message)) = record.get(..count).and_then(parse) else { continue };
        if number >= from {
            bytes += message.text.len();
            answer.next = number.saturating_add(1);
            answer.messages.push(message);
        }
    }
    Ok(answer)
}

/// A record is `<facility and level>,<number>,<microseconds>,<flags>[,…];<text>\n[ <key>=<value>\n…]`
/// (Documentation/ABI/testing/dev-kmsg).
fn parse(record: &[u8]) -> Option<(u64, KernelMessage)> {
    let record = String::from_utf8_lossy(record);
    let (prefix, rest) = record.split_once(';')?;
    let text = rest.lines().next().unwrap_or_default().to_owned();
    let mut numbers = prefix.split(',').map(|number| number.parse::<u64>().ok());
    let level = u32::try_from(numbers.next()?? & 7).ok()?;
    let number = numbers.next()??;
    Some((number, KernelMessage { microseconds: numbers.next()??, level, text, ..Default::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_its_keys_are_left_out() {
        let record = b"30,339,5140900,-,caller=T1;NET: a;b\n SUBSYSTEM=net\n";
        let (number, message) = parse(record).unwrap();
        let expected = KernelMessage {
            microseconds: 5_140_900,
            level: 6,
            text: "NET: a;b".into(),
            ..Default::default()
        };
        assert_eq!((number, message), (339, expected));
        for wrong in ["", "6,1,2,-", "x,1,2;t", "6,,2;t", "6,1;t"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
