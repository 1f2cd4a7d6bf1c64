//! Block volumes that a container gets as devices.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nacre_protocol::agent::Device;
use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxDeviceType, Spec};

use super::partitions::Partitions;
use crate::error::{Doing, Failure, Reply};
use crate::teardown::Teardown;

/// The type of a device that is a part of the disk of volumes.
const VOLUME: &str = "nacre-volume";

// <linux/fs.h>
nix::ioctl_write_ptr_bad!(set_read_only, 0x125d, libc::c_int);

/// Makes the devices, and the specification name them by their numbers here.
pub async fn add_all(
    partitions: &Arc<Partitions>,
    devices: &[Device],
    spec: &mut Spec,
    teardown: &mut Teardown,
) -> Reply<()> {
    for device in devices {
        if device.type_ != VOLUME {
            return Err(Failure::new(
                nacre_protocol::ttrpc::Code::UNIMPLEMENTED,
                format!("a device of type {:?}", device.type_),
            ));
        }
        let path = partitions.add(&device.vm_path, &device.options, teardown).await?;
        if device.options.iter().any(|option| option == "ro") {
            let file = File::open(&path).doing("open the volume")?;
            let yes: libc::c_int = 1;
            // SAFETY: BLKROSET reads one int, which lives until the call returns.
            unsafe { set_read_only(file.as_raw_fd(), &raw const yes) }.doing("make the volume read-only")?;
        }
        let numbers = path.metadata().doing("look at the volume")?.rdev();
        name(spec, &device.container_path, (major(numbers), minor(numbers)))?;
    }
    Ok(())
}

fn name(spec: &mut Spec, path: &str, (major, minor): (u64, u64)) -> Reply<()> {
    let devices = spec.linux_mut().as_mut().and_then(|linux| linux.devices_mut().as_mut());
    let device =
        devices.and_then(|devices| devices.iter_mut().find(|device| device.path() == Path::new(path)));
    let device =
        device.ok_or_else(|| Failure::invalid(format!("the specification has no device {path:?}")))?;
    let number = |number: u64| i64::try_from(number).unwrap_or_default();
    device.set_typ(LinuxDeviceType::B).set_major(number(major)).set_minor(number(minor));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_its_numbers_here() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"linux": {"devices": [{"path": "/dev/x", "type": "b", "major": 7, "minor": 1}]}}"#,
        )
        .unwrap();
        name(&mut spec, "/dev/x", (254, 17)).unwrap();
        let device = &spec.linux().as_ref().unwrap().devices().as_ref().unwrap()[0];
        assert_eq!((device.major(), device.minor()), (254, 17));
        assert!(name(&mut spec, "/dev/y", (1, 1)).is_err());
    }
}
