//! `local`: a folder in the guest.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use async_trait::async_trait;
use nacre_protocol::agent::Storage;

use super::Driver;
use super::mount::check_point;
use crate::error::{Doing, Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

/// The driver.
pub struct Local;

#[async_trait]
impl Driver for Local {
    async fn mount(&self, storage: &Storage, _: Option<&ContainerId>, teardown: &mut Teardown) -> Reply<()> {
        let point = check_point(&storage.mount_point)?;
        if point.exists() {
            return Ok(());
        }
        let value = |key: &str| storage.options.iter().find_map(|option| option.strip_prefix(key));
        let number = |key: &str, radix| {
            value(key)
                .map(|text| u32::from_str_radix(text, radix))
                .transpose()
                .map_err(|_| Failure::invalid(format!("the option {key} of local storage is not a number")))
        };
        let (mode, group) = (number("mode=", 8)?, number("fsgid=", 10)?);
        fs::create_dir_all(point).doing("make the folder")?;
        teardown.push_remove(point);
        if let Some(group) = group {
            chown(point, None, Some(group)).doing("set the folder's group")?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(point, Permissions::from_mode(mode & 0o7777))
                .doing("set the folder's mode")?;
        }
        Ok(())
    }
}
