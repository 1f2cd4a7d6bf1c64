//! What a specification can ask for in vain.

use std::path::PathBuf;

use nacre_protocol::ConvertError;
use ttrpc::Code;

use crate::volumes::VolumeError;

/// Why a specification can't be honoured.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Hooks run on the host.
    #[error("hook {} can't be run: hooks belong to the host", .0.display())]
    Hook(PathBuf),
    /// A device of the host.
    #[error("device {} of the host can't be given to a VM; block devices can", .0.display())]
    Device(PathBuf),
    /// A namespace of the host.
    #[error(
        "the host's {0} namespace can't be used from a VM (a pod with hostNetwork, hostPID or hostIPC needs another \
         runtime class)"
    )]
    HostNamespace(&'static str),
    /// Somebody else's namespace.
    #[error("the {kind} namespace {} can't be joined from a VM", path.display())]
    ForeignNamespace {
        /// Which kind.
        kind: &'static str,
        /// Which one.
        path: PathBuf,
    },
    /// A file system that can't be mounted in the guest.
    #[error("a mount of type {kind:?} on {} is not supported", destination.display())]
    MountType {
        /// The type.
        kind: String,
        /// Where.
        destination: PathBuf,
    },
    /// Mounts of the guest would have to appear on the host.
    #[error("the mount on {} can't be {option}: mounts made in a VM can't appear on the host; HostToContainer or None can be had", destination.display())]
    Propagation {
        /// As it was asked for.
        option: String,
        /// Where.
        destination: PathBuf,
    },
    /// The source of a bind mount.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A bind mount without a source.
    #[error("the bind mount on {} has no source", .0.display())]
    NoSource(PathBuf),
    /// The pod is too large.
    #[error("the pod needs a VM of {wanted_mib} MiB, and vm.max_memory_mib is {most_mib}")]
    TooMuchMemory {
        /// What it needs.
        wanted_mib: u64,
        /// What it may have.
        most_mib: u32,
    },
    /// The pod's control group has no room for a VM.
    #[error(
        "the pod's control group {} is limited to {limit_mib} MiB, which leaves {left_mib} MiB for a VM after \
         vm.host_overhead_mib, and a VM needs at least {least_mib} MiB",
        group.display()
    )]
    CgroupTooSmall {
        /// The group with the limit.
        group: PathBuf,
        /// Its limit.
        limit_mib: u64,
        /// What is left for the guest.
        left_mib: u64,
        /// What the smallest VM needs.
        least_mib: u32,
    },
    /// A user namespace.
    #[error(
        "user namespaces are not supported: the pod runs in a virtual machine, which separates its users from the \
         host's (leave out hostUsers: false)"
    )]
    UserNamespace,
    /// The agent's protocol has no room for it.
    #[error("the specification can't be honoured")]
    NotCarried(#[from] ConvertError),
}

impl SpecError {
    /// The code that containerd gets.
    pub fn code(&self) -> Code {
        match self {
            Self::Hook(_)
            | Self::Device(_)
            | Self::HostNamespace(_)
            | Self::ForeignNamespace { .. }
            | Self::UserNamespace
            | Self::Propagation { .. }
            | Self::MountType { .. } => Code::UNIMPLEMENTED,
            Self::Volume(error) => error.code(),
            Self::NotCarried(ConvertError::NotCarried { .. }) => Code::UNIMPLEMENTED,
            Self::NoSource(_) | Self::NotCarried(_) => Code::INVALID_ARGUMENT,
            Self::TooMuchMemory { .. } | Self::CgroupTooSmall { .. } => Code::FAILED_PRECONDITION,
        }
    }
}
