//! Storages of the whole pod: mounted once, used by any of its containers, gone with the pod or by request.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;

use nacre_protocol::agent::Storage;

use crate::error::{Failure, Reply};
use crate::lock::lock;
use crate::storage::Drivers;
use crate::teardown::Teardown;

/// The pod's storages by their mount points.
#[derive(Default)]
pub struct Volumes {
    mounted: Mutex<BTreeMap<String, Volume>>,
}

enum Volume {
    /// Being mounted or unmounted.
    Busy,
    Mounted {
        storage: Box<Storage>,
        teardown: Teardown,
    },
}

impl Volumes {
    /// Mounts storages that are not mounted yet.
    pub async fn add(&self, drivers: &Drivers, storages: &[Storage]) -> Reply<()> {
        for storage in storages {
            if self.is_there(storage)? {
                continue;
            }
            let point = &storage.mount_point;
            let mut teardown = Teardown::default();
            let mounted = drivers.mount(std::slice::from_ref(storage), None, &mut teardown).await;
            match mounted {
                Ok(()) => {
                    let volume = Volume::Mounted { storage: Box::new(storage.clone()), teardown };
                    lock(&self.mounted).insert(point.clone(), volume);
                }
                Err(failure) => {
                    teardown.run_aside().await;
                    lock(&self.mounted).remove(point);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Whether this storage is mounted; if not, its mount point is taken.
    fn is_there(&self, storage: &Storage) -> Reply<bool> {
        let point = &storage.mount_point;
        match lock(&self.mounted).entry(point.clone()) {
            Entry::Vacant(place) => {
                place.insert(Volume::Busy);
                Ok(false)
            }
            Entry::Occupied(place) => match place.get() {
                Volume::Mounted { storage: there, .. } if **there == *storage => Ok(true),
                Volume::Mounted { .. } => {
                    Err(Failure::precondition(format!("another storage is mounted on {point}")))
                }
                Volume::Busy => Err(Failure::precondition(format!("{point} is being mounted or unmounted"))),
            },
        }
    }

    /// Unmounts storages; one that is not mounted is no failure.
    pub async fn remove(&self, points: &[String]) -> Reply<()> {
        let mut failed = Vec::new();
        for point in points {
            let teardown = match lock(&self.mounted).entry(point.clone()) {
                Entry::Occupied(mut place) if matches!(place.get(), Volume::Mounted { .. }) => {
                    match place.insert(Volume::Busy) {
                        Volume::Mounted { teardown, .. } => teardown,
                        Volume::Busy => continue,
                    }
                }
                _ => continue,
            };
            failed.extend(teardown.run_aside().await);
            lock(&self.mounted).remove(point);
        }
        if failed.is_empty() {
            return Ok(());
        }
        Err(Failure::new(nacre_protocol::ttrpc::Code::INTERNAL, failed.join("; ")))
    }

    /// Unmounts all.
    pub async fn remove_all(&self) -> Reply<()> {
        let points: Vec<String> = lock(&self.mounted).keys().cloned().collect();
        self.remove(&points).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(point: &str, mode: &str) -> Storage {
        Storage {
            driver: "local".into(),
            options: vec![format!("mode={mode}")],
            mount_point: point.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_mount_point_belongs_to_one_storage_until_it_is_removed() {
        let base = "/run/kata-containers";
        if std::fs::create_dir_all(base).is_err() {
            eprintln!("NOT RUN HERE: needs root");
            return;
        }
        let folder = tempfile::tempdir_in(base).unwrap();
        let point = folder.path().join("volume").display().to_string();
        let (volumes, drivers) = (Volumes::default(), Drivers::new());

        volumes.add(&drivers, &[storage(&point, "755")]).await.unwrap();
        std::fs::write(format!("{point}/kept"), "").unwrap();
        volumes.add(&drivers, &[storage(&point, "755")]).await.unwrap();
        assert!(std::path::Path::new(&point).join("kept").exists());
        assert!(volumes.add(&drivers, &[storage(&point, "700")]).await.is_err());
        volumes.remove(&[point.clone(), "/never".into()]).await.unwrap();
        assert!(!std::path::Path::new(&point).exists());
        volumes.add(&drivers, &[storage(&point, "700")]).await.unwrap();
        volumes.remove_all().await.unwrap();
    }
}
