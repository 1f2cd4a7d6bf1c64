//! Making an image with mkfs.erofs, of erofs-utils 1.5 (Debian 12) or later.

mod parent;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::LayerError;
use crate::survey::Survey;

/// How much of what the tool says is kept, from the end.
const OUTPUT_BYTES: usize = 1000;

/// The size of chunks in images with holes: a chunk of zeros takes no space. Smaller ones make larger tables (4 bytes
/// for each), larger ones find fewer holes.
const CHUNK: &str = "--chunksize=65536";

/// The reproducible date that mkfs.erofs writes into the superblock, and to which it sets all times after it. With the
/// largest one (2^64 - 1 means none), it sets none, not even those before 1970, which are large numbers to it; and
/// the same layer becomes the same bytes.
const DATE: &str = "18446744073709551614";

/// Tried: erofs-utils 1.5 does fail, 1.8 does not.
const LONGEST_NAME: &str = "; the layer has a file name of 255 bytes, for which erofs-utils 1.5 is too old";

/// Writes the image of the layer in `folder` to `path`, an open and locked file. `lock` is a handle of it that the
/// tool holds as its standard input, so that the lock outlives us until the tool has ended.
pub(crate) fn make(
    tool: &Path,
    folder: &Path,
    survey: &Survey,
    path: &Path,
    lock: File,
) -> Result<(), LayerError> {
    let mut command = Command::new(tool);
    command
        .arg("--quiet")
        // Times to the nanosecond, in the large inodes that have room for 32 bits of user and group.
        .arg("--preserve-mtime")
        .arg("-U00000000-0000-0000-0000-000000000000")
        .args(survey.holes.then_some(CHUNK))
        .arg(path)
        .arg(folder)
        .env("SOURCE_DATE_EPOCH", DATE)
        .env("LC_ALL", "C")
        .stdin(Stdio::from(lock))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    parent::end_with_parent(&mut command);

    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => LayerError::ToolMissing,
        _ => LayerError::ToolStart(error),
    })?;
    let mut output = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        // Whatever is lost here is only missing from a message.
        let _ = pipe.read_to_end(&mut output);
    }
    let status = child.wait().map_err(LayerError::ToolStart)?;
    if status.success() {
        return Ok(());
    }
    let kept = output.get(output.len().saturating_sub(OUTPUT_BYTES)..).unwrap_or_default();
    let output = String::from_utf8_lossy(kept).trim().replace('\n', "; ");
    let hint = if survey.longest_name { LONGEST_NAME } else { "" };
    Err(LayerError::ToolFailed { layer: folder.to_owned(), status, output, hint })
}
