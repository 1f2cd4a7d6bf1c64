//! Starting a VMM: its process and the description of its machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nacre_configuration::{Configuration, values};
use nacre_control::{
    Backing, CONTROL_FD, Channel, ConsoleConfig, DiskConfig, FileIndex, Irqchip, NetConfig, Request,
    VmConfig, VsockConfig,
};
use nacre_protocol::AGENT_PORT;

use super::{Tee, VmmError};
use crate::inherit::inherit;
use crate::network::Interface;
use crate::size::Size;

/// Each VM has its own VMM, and with it its own space of context ids.
const GUEST_CID: u32 = 3;

/// Everything that a machine is made of, open.
#[derive(Debug)]
pub struct Plan<'a> {
    size: Size,
    parameters: String,
    kvm: File,
    kernel: File,
    initrd: File,
    listener: UnixListener,
    console: Option<File>,
    interfaces: &'a [Interface],
    irqchip: Irqchip,
    tee: Option<Tee>,
}

impl<'a> Plan<'a> {
    /// Opens what the configuration names. `socket` becomes the VMM's vsock socket.
    ///
    /// # Errors
    /// A file that can't be opened, by name.
    pub fn new(
        configuration: &Configuration,
        size: Size,
        socket: &Path,
        console: Option<&Path>,
        interfaces: &'a [Interface],
        tee: Option<Tee>,
    ) -> Result<Self, VmmError> {
        let guest = &configuration.guest;
        let open = |what, path: &Path, options: &OpenOptions| {
            options.open(path).map_err(|source| VmmError::Open { what, path: path.into(), source })
        };
        let read = OpenOptions::new().read(true).clone();
        let read_write = OpenOptions::new().read(true).write(true).clone();
        let append = OpenOptions::new().append(true).create(true).clone();
        // What a pod of the same name left when its shim was killed.
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).map_err(|source| VmmError::Open {
            what: "the vsock socket",
            path: socket.into(),
            source,
        })?;
        Ok(Self {
            size,
            parameters: guest.appended_parameters(),
            kvm: open("KVM's device", Path::new("/dev/kvm"), &read_write)?,
            kernel: open("the guest kernel", &guest.kernel, &read)?,
            initrd: open("the guest image", &guest.initrd, &read)?,
            listener,
            console: console.map(|path| open("the console's file", path, &append)).transpose()?,
            interfaces,
            irqchip: match configuration.vm.irqchip {
                values::Irqchip::Kernel => Irqchip::Kernel,
                values::Irqchip::Split => Irqchip::Split,
            },
            tee,
        })
    }

    /// The first message to the VMM, and its files.
    pub fn request(&self) -> (Request, Vec<BorrowedFd<'_>>) {
        let mut files: Vec<BorrowedFd<'_>> = Vec::new();
        let mut add = |file| {
            files.push(file);
            FileIndex(u8::try_from(files.len() - 1).unwrap_or(u8::MAX))
        };
        let config = VmConfig {
            vcpus: self.size.vcpus,
            memory_mib: self.size.memory_mib,
            kvm: add(self.kvm.as_fd()),
            kernel: add(self.kernel.as_fd()),
            initrd: add(self.initrd.as_fd()),
            kernel_parameters: self.parameters.clone(),
            irqchip: self.irqchip,
            tee: self.tee.as_ref().map(|tee| tee.config(&mut add)),
            // Empty at first: layers come by GrowDisk while the guest boots.
            disks: vec![
                DiskConfig { backing: Backing::Extents(Vec::new()) },
                DiskConfig { backing: Backing::Volumes },
            ],
            nets: self
                .interfaces
                .iter()
                .map(|interface| NetConfig {
                    tap: add(interface.tap.as_fd()),
                    mac: interface.link.mac,
                    mtu: u16::try_from(interface.link.mtu).unwrap_or(u16::MAX),
                })
                .collect(),
            vsock: VsockConfig {
                guest_cid: GUEST_CID,
                listener: add(self.listener.as_fd()),
                host_ports: vec![AGENT_PORT],
            },
            console: ConsoleConfig { output: self.console.as_ref().map(|console| add(console.as_fd())) },
        };
        (Request::Start(Box::new(config)), files)
    }
}

/// Starts the VMM's program. Its other end of the control socket and its error output come back.
///
/// # Errors
/// It does not start.
pub fn spawn(program: &Path) -> Result<(u32, Channel, OwnedFd), VmmError> {
    let failed = |source| VmmError::Spawn { path: program.into(), source };
    let start = || -> io::Result<(u32, Channel, OwnedFd)> {
        let (ours, theirs) = Channel::pair()?;
        let (errors, error_output) = io::pipe()?;
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(error_output);
        inherit(&mut command, theirs.as_fd().try_clone_to_owned()?, CONTROL_FD);
        let child = command.spawn()?;
        Ok((child.id(), ours, errors.into()))
    };
    start().map_err(failed)
}
