//! `overlayfs`: folders of the guest laid over one another.

use std::fs;

use async_trait::async_trait;
use nacre_protocol::agent::Storage;

use super::Driver;
use super::mount::{check_point, mount_at, options};
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

/// Asks for a writable layer in memory.
const WRITABLE: &str = "io.katacontainers.fs-opt.overlay-rw";

/// Names a folder to make first.
const CREATE: &str = "io.katacontainers.volume.overlayfs.create_directory=";

/// The driver.
pub struct Overlay;

#[async_trait]
impl Driver for Overlay {
    async fn mount(
        &self,
        storage: &Storage,
        container: Option<&ContainerId>,
        teardown: &mut Teardown,
    ) -> Reply<()> {
        let point = check_point(&storage.mount_point)?;
        for folder in storage.driver_options.iter().filter_map(|option| option.strip_prefix(CREATE)) {
            fs::create_dir_all(check_point(folder)?).doing("make a folder for the overlay")?;
        }
        let writable = storage.options.iter().any(|option| option == WRITABLE);
        let mut extra = Vec::new();
        if writable {
            let id = container.ok_or_else(|| Failure::invalid("a writable overlay without a container"))?;
            for (option, name) in [("upperdir", "upper"), ("workdir", "work")] {
                let folder = id.folder().join(name);
                fs::create_dir_all(&folder).doing("make the writable layer")?;
                teardown.push_remove(&folder);
                extra.push(format!("{option}={}", folder.display()));
            }
        }
        let plain = storage.options.iter().map(String::as_str).filter(|option| *option != WRITABLE);
        let (flags, data) = options(plain.chain(extra.iter().map(String::as_str)));
        mount_at("overlay", point, "overlay", flags, &data, teardown)
    }
}
