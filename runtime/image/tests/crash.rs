//! A maker that is killed in the middle of its work.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use nacre_image::LayerCache;

/// Set in the process that plays the maker: the folder with everything.
const MAKER: &str = "NACRE_TEST_MAKER";

#[test]
fn a_killed_maker_takes_its_tool_along_and_the_next_one_finishes() {
    if let Some(folder) = std::env::var_os(MAKER) {
        let folder = PathBuf::from(folder);
        drop(cache(&folder, "endless").layers(&[folder.join("layer")]));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("layer")).unwrap();
    nix::unistd::mkfifo(&at("started"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    script(&at("endless"), "echo half > \"$4\"; echo $$ > \"$(dirname \"$0\")/started\"; exec sleep 1000");
    script(
        &at("good"),
        "truncate -s 1024 \"$4\"; printf '\\342\\341\\365\\340' >> \"$4\"; truncate -s 8192 \"$4\"",
    );

    let name = "a_killed_maker_takes_its_tool_along_and_the_next_one_finishes";
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(MAKER, folder.path())
        .spawn()
        .unwrap();
    // A fifo: this waits until the tool has written.
    let tool = std::fs::read_to_string(at("started")).unwrap();
    let tool = Path::new("/proc").join(tool.trim());
    assert!(tool.exists());
    maker.kill().unwrap();
    maker.wait().unwrap();

    // Waits for the lock, which the tool has until it is gone.
    let images = cache(folder.path(), "good").layers(&[at("layer")]).unwrap();
    assert_eq!(images.iter().map(nacre_image::LayerImage::bytes).collect::<Vec<_>>(), [8192]);
    let state = std::fs::read_to_string(tool.join("stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z ") || state.contains(") X "),
        "the tool still runs: {state}"
    );
}

fn cache(folder: &Path, tool: &str) -> LayerCache {
    LayerCache::open(&folder.join("cache"), 1 << 40, 2).unwrap().with_tool(&folder.join(tool))
}

fn script(path: &Path, commands: &str) {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").arg("-c").arg(write).arg(path).arg(commands).status().unwrap().success());
}
