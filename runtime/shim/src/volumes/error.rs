//! What can't be brought into the guest.

use std::io;
use std::path::PathBuf;

use ttrpc::Code;

/// Why a bind mount's source can't be brought into the guest.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It can't be read.
    #[error("bind mount source {} can't be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device, socket or fifo.
    #[error("bind mount source {} is a {kind}, which can't be given to a VM", path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file over the limit.
    #[error("bind mount source {} has {bytes} bytes; binds.max_file_kib of nacre.toml allows {most}, since a VM gets a copy: raise it or use a block volume", path.display())]
    FileTooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A folder over a limit.
    #[error("bind mount source {} has more than {most} {unit}, the limit {key} of nacre.toml, since a VM gets a copy: raise it or use a block volume", path.display())]
    FolderTooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        most: u64,
        /// Of what.
        unit: &'static str,
        /// The configuration's key.
        key: &'static str,
    },
    /// A disk that the host uses.
    #[error("disk {} is in use on the host; unmount it there before a pod gets it", path.display())]
    DiskInUse {
        /// Which.
        path: PathBuf,
    },
    /// A file where a disk should be.
    #[error("{} is no block device; a file can be made one by losetup", path.display())]
    NoDisk {
        /// Which.
        path: PathBuf,
    },
    /// A file system that the guest lacks.
    #[error("the file system {kind:?} on {} can't be mounted: the guest kernel has ext4, ext3, ext2 and erofs", path.display())]
    FileSystem {
        /// On which disk.
        path: PathBuf,
        /// Its type.
        kind: String,
    },
    /// What a storage driver asks for.
    #[error("the volume that {} assigns can't be had: {why}", path.display())]
    Assignment {
        /// The storage driver's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A disk that the pod has for reading.
    #[error("the disk on {} is read-only for another container of the pod", path.display())]
    ReadOnlyDisk {
        /// Where.
        path: PathBuf,
    },
    /// A name that the guest's protocol can't carry.
    #[error("bind mount source {} has a name that is not UTF-8", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// No instance of inotify.
    #[error("changes of volumes can't be watched; is fs.inotify.max_user_instances used up?")]
    Watch(#[source] io::Error),
    /// The thread that reads is gone.
    #[error("reading a bind mount's source was cut short")]
    Cut,
}

impl VolumeError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Code::NOT_FOUND,
            Self::Read { .. } | Self::Cut => Code::INTERNAL,
            Self::Watch(_) => Code::RESOURCE_EXHAUSTED,
            Self::Name { .. } | Self::NoDisk { .. } => Code::INVALID_ARGUMENT,
            Self::Kind { .. } | Self::FileSystem { .. } | Self::Assignment { .. } => Code::UNIMPLEMENTED,
            Self::DiskInUse { .. } | Self::ReadOnlyDisk { .. } => Code::FAILED_PRECONDITION,
            Self::FileTooLarge { .. } | Self::FolderTooLarge { .. } => Code::FAILED_PRECONDITION,
        }
    }
}
