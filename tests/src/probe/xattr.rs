//! Reading extended attributes.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

/// The names that a container's user can have put there; the file systems' own differ between runtimes.
const SHOWN: [&[u8]; 2] = [b"user.", b"security.capability"];

/// The attributes of a file, in order of their names, links not followed.
pub fn all(path: &CString) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 * 1024];
    // SAFETY: the path ends with a zero byte, and the buffer is as long as said.
    let count = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        // Not every kind of file has attributes.
        return if error.raw_os_error() == Some(libc::ENOTSUP) { Ok(Vec::new()) } else { Err(error) };
    };
    names.truncate(count);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        if SHOWN.iter().any(|shown| name.starts_with(shown)) {
            found.push((name.to_vec(), value(path, name)?));
        }
    }
    found.sort();
    Ok(found)
}

fn value(path: &CString, name: &[u8]) -> io::Result<Vec<u8>> {
    let name = CString::new(name).map_err(io::Error::other)?;
    let mut value = vec![0; 64 * 1024];
    // SAFETY: both names end with a zero byte, and the buffer is as long as said.
    let count =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    value.truncate(count);
    Ok(value)
}
