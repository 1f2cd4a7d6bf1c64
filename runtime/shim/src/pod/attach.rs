//! What a container needs on the VM's disks: block devices, file systems and images.

use std::sync::Arc;

use nacre_protocol::agent::{Device, Storage};
use slog::warn;

use super::Pod;
use super::create::starts;
use crate::error::{TaskError, chain};
use crate::layers;
use crate::machine::Machine;
use crate::spec::Needs;
use crate::vmm::LAYER_DISK;
use crate::volumes::{Disk, Lent};

/// What was attached for a container.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// Block devices, as the agent is told.
    pub devices: Vec<Device>,
    /// File systems and images, as the agent is told.
    pub storages: Vec<Storage>,
    /// Disks of the host.
    pub lent: Vec<Arc<Lent>>,
    /// Where images begin on the layer disk.
    pub sectors: Vec<u64>,
}

impl Pod {
    /// Attaches all that a container needs.
    ///
    /// # Errors
    /// Something can't be had; then nothing stays attached.
    pub(super) async fn attach(
        &self,
        machine: &Machine,
        disks: &[Disk],
        needs: &Needs,
    ) -> Result<Attached, TaskError> {
        let mut attached = Attached::default();
        match self.attach_to(&mut attached, machine, disks, needs).await {
            Ok(()) => Ok(attached),
            Err(error) => {
                self.detach(machine, attached).await;
                Err(error)
            }
        }
    }

    async fn attach_to(
        &self,
        attached: &mut Attached,
        machine: &Machine,
        disks: &[Disk],
        needs: &Needs,
    ) -> Result<(), TaskError> {
        for disk in disks {
            let lent = self.volumes.lend(disk, machine.vmm()).await?;
            attached.devices.push(lent.device(disk));
            attached.lent.push(lent);
        }
        for file_system in &needs.file_systems {
            let lent = self.volumes.lend(&file_system.disk, machine.vmm()).await?;
            attached.storages.push(file_system.storage(&lent));
            attached.lent.push(lent);
        }
        for image in &needs.images {
            let images = layers::images(image.layers.clone(), self.configuration()?).await?;
            let files: Vec<_> = images.iter().map(nacre_image::LayerImage::file).collect();
            let sectors = machine.vmm().grow(LAYER_DISK, &files).await?;
            attached.sectors.extend(starts(&sectors));
            attached.storages.push(layers::image_storage(&sectors, &image.guest));
        }
        Ok(())
    }

    /// Gives back what was attached for a container that is not made.
    pub(super) async fn detach(&self, machine: &Machine, attached: Attached) {
        if let Err(error) = self.volumes.give_back_all(attached.lent, machine.vmm()).await {
            warn!(self.log, "disks not released"; "error" => chain(&error));
        }
        if let Err(error) = machine.vmm().release(LAYER_DISK, attached.sectors).await {
            warn!(self.log, "images not released"; "error" => chain(&error));
        }
    }
}
