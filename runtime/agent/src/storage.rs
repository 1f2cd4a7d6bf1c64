//! What is mounted for containers: one driver each, found by its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use nacre_protocol::agent::Storage;

use crate::error::{Failure, Reply};
use crate::id::ContainerId;
use crate::teardown::Teardown;

mod block;
pub mod device;
mod ephemeral;
mod group;
mod layers;
mod local;
mod mount;
mod overlay;
mod partitions;
mod volume;

use partitions::Partitions;

/// Mounts one kind of storage.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Mounts it and adds how to undo that. `container` is the one it is for; none if it is for the whole pod.
    async fn mount(
        &self,
        storage: &Storage,
        container: Option<&ContainerId>,
        teardown: &mut Teardown,
    ) -> Reply<()>;
}

/// All drivers by name.
pub struct Drivers {
    drivers: BTreeMap<&'static str, Arc<dyn Driver>>,
    /// Block volumes.
    pub partitions: Arc<Partitions>,
}

impl Drivers {
    /// The drivers of this agent.
    pub fn new() -> Self {
        let block: Arc<dyn Driver> = Arc::new(block::Block);
        let partitions: Arc<Partitions> = Arc::default();
        let volume = volume::Volume { partitions: Arc::clone(&partitions) };
        let [roots, images] = layers::Layers::drivers();
        let drivers: [(&'static str, Arc<dyn Driver>); 8] = [
            ("blk", Arc::clone(&block)),
            ("mmioblk", block),
            ("ephemeral", Arc::new(ephemeral::Ephemeral)),
            ("local", Arc::new(local::Local)),
            ("nacre-image", Arc::new(images)),
            ("nacre-layers", Arc::new(roots)),
            ("nacre-volume", Arc::new(volume)),
            ("overlayfs", Arc::new(overlay::Overlay)),
        ];
        Self { drivers: drivers.into(), partitions }
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.drivers.keys().map(|name| (*name).to_owned()).collect()
    }

    /// Mounts all storages, in order. What was mounted before a failure is in the teardown.
    pub async fn mount(
        &self,
        storages: &[Storage],
        container: Option<&ContainerId>,
        teardown: &mut Teardown,
    ) -> Reply<()> {
        for storage in storages {
            let driver = self.drivers.get(storage.driver.as_str()).ok_or_else(|| {
                Failure::invalid(format!("no storage driver is named {:?}", storage.driver))
            })?;
            driver.mount(storage, container, teardown).await?;
        }
        Ok(())
    }
}
