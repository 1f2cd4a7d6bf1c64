//! What the shim tells the VMM.

use serde::{Deserialize, Serialize};

use crate::TeeConfig;

/// The place of a file among the descriptors that came with the message, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIndex(pub u8);

/// A message to the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The first message, once: make this machine and run it. Answered by [`crate::Event::Started`] or
    /// [`crate::Event::Stopped`].
    Start(Box<VmConfig>),
    /// Appends extents to a disk that has [`Backing::Extents`] or [`Backing::Volumes`]; its capacity grows and the guest is told.
    /// Answered by [`crate::Event::DiskGrown`].
    GrowDisk {
        /// Which of [`VmConfig::disks`].
        disk: u8,
        /// Placed behind what the disk has already, in this order.
        extents: Vec<Extent>,
    },
    /// Gives the space of extents at the end of their use back: reads of it fail from now on, and their files
    /// are closed. Later extents stay where they are.
    ReleaseExtents {
        /// Which of [`VmConfig::disks`].
        disk: u8,
        /// The first sector of each extent to release.
        starts: Vec<u64>,
    },
    /// What did the guest print last? Answered by [`crate::Event::ConsoleTail`].
    TellConsole,
    /// Stop now, without asking the guest.
    Stop,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Virtual CPUs, 1 to 64.
    pub vcpus: u8,
    /// Guest memory in MiB, at least 64.
    pub memory_mib: u32,
    /// The opened `/dev/kvm`.
    pub kvm: FileIndex,
    /// The guest kernel: an ELF `vmlinux`.
    pub kernel: FileIndex,
    /// The initrd that holds the agent.
    pub initrd: FileIndex,
    /// Appended to the VMM's own kernel command line.
    pub kernel_parameters: String,
    /// Who has its interrupt controllers.
    pub irqchip: Irqchip,
    /// How it starts if it is measured; `None` starts the kernel directly.
    pub tee: Option<TeeConfig>,
    /// The guest's `/dev/vda`, `/dev/vdb`, … in this order.
    pub disks: Vec<DiskConfig>,
    /// Network interfaces, in this order.
    pub nets: Vec<NetConfig>,
    /// The socket device.
    pub vsock: VsockConfig,
    /// The guest kernel's messages.
    pub console: ConsoleConfig,
}

/// Who has a machine's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Irqchip {
    /// KVM.
    #[default]
    Kernel,
    /// KVM the local APICs, the VMM the IOAPIC. Intel TDX has nothing else.
    Split,
}

/// A virtio block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// What is behind it.
    pub backing: Backing,
}

/// What is behind a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Backing {
    /// Read-only files one after the other; may be empty, and grows by [`Request::GrowDisk`].
    Extents(Vec<Extent>),
    /// Volumes, of which there are none at first: files or block devices that come and go by
    /// [`Request::GrowDisk`] and [`Request::ReleaseExtents`]. What is open for writing can be written.
    Volumes,
    /// One file.
    File {
        /// Its descriptor, open for writing unless `read_only`.
        file: FileIndex,
        /// Writes by the guest are refused.
        read_only: bool,
    },
}

/// A whole file as a part of a disk. Each begins on a boundary of 4096 bytes; the gap reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Open for reading; of volumes also for writing, unless they are read-only.
    pub file: FileIndex,
}

/// A virtio network interface over a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetConfig {
    /// A tap with `IFF_NO_PI | IFF_VNET_HDR`.
    pub tap: FileIndex,
    /// The guest's MAC address.
    pub mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub mtu: u16,
}

/// The virtio socket device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context id, at least 3.
    pub guest_cid: u32,
    /// A listening unix stream socket: a peer sends `CONNECT <port>\n`, gets `OK <host port>\n`, then is
    /// joined to the guest's port. It is closed when the guest does not listen.
    pub listener: FileIndex,
    /// Ports on which the guest may connect to the host. For each connection the VMM makes a socket pair,
    /// joins the guest to one end and sends the other with [`crate::Event::GuestConnected`].
    pub host_ports: Vec<u32>,
}

/// Where the guest's console goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Output is appended here as well; the VMM always keeps the last lines for its [`crate::Event::Stopped`].
    pub output: Option<FileIndex>,
}
