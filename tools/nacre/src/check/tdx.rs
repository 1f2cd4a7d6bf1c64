//! What a host needs for guests of Intel TDX, one thing after the other.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use kvm_bindings::KVM_CAP_VM_TYPES;
use kvm_ioctls::Kvm;
use nacre_configuration::values::QuoteService;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};

use super::Finding;
use super::kernel;
use super::limited::Limited;

/// `KVM_X86_TDX_VM` (Linux, uapi/asm/kvm.h for x86).
const TDX_VM: u32 = 5;
/// The first Linux whose KVM makes such guests.
const OLDEST: (u32, u32) = (6, 16);
/// Where newer kernels tell the module's version.
const MODULE_VERSION: &str = "sys/devices/faux/tdx_host/version";

/// What was found on a host.
#[derive(Debug)]
pub struct Host {
    /// The processor shows the flag, which the kernel takes away when the firmware has not switched TDX on.
    processor: bool,
    release: String,
    /// The parameter of KVM's module, if that is loaded.
    parameter: Option<String>,
    /// KVM makes such machines. Then the module is loaded and initialised: KVM does that itself.
    machines: bool,
    module: Option<String>,
    /// By which the processor keeps guests apart.
    keys: Option<Limited>,
    quotes: Result<(), String>,
}

impl Host {
    /// This host, with the quoting service that the configuration names.
    pub fn look(service: &QuoteService) -> Self {
        let types = Kvm::new().map_or(0, |kvm| kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()));
        let machines = types.cast_unsigned() & 1 << TDX_VM != 0;
        // Whoever has no such guests need not wait for an answer.
        let quotes = if machines { reach(service) } else { Ok(()) };
        Self { quotes, ..Self::read(Path::new("/"), machines) }
    }

    /// The host whose files are there.
    fn read(root: &Path, machines: bool) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let trimmed = |path: &str| text(path).map(|text| text.trim().to_owned());
        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        Self {
            processor: cpuinfo.split_whitespace().any(|word| word == "tdx_host_platform"),
            release: trimmed("proc/sys/kernel/osrelease").unwrap_or_default(),
            parameter: trimmed("sys/module/kvm_intel/parameters/tdx"),
            machines,
            module: trimmed(MODULE_VERSION),
            keys: Limited::read(root, "tdx"),
            quotes: Ok(()),
        }
    }

    /// What to say about it. A host that has nothing of it gets one line.
    pub fn findings(&self) -> Vec<Finding> {
        let mut list = vec![self.summary()];
        if self.processor || self.machines {
            list.extend([self.kernel(), self.parameter(), self.module()]);
            list.extend(self.keys.map(free));
        }
        if self.machines {
            list.push(self.quotes());
        }
        list
    }

    fn summary(&self) -> Finding {
        let name = "Intel TDX";
        match (self.machines, self.processor) {
            (true, _) => Finding::ok(name, "KVM can make such virtual machines"),
            (false, true) => {
                Finding::missing(name, "the processor has it, KVM does not", "see the next lines")
            }
            (false, false) => Finding::missing(
                name,
                "the processor does not show it",
                "needs a Xeon of the 5th generation or later, with TDX, memory encryption (TME-MT) and its\n\
                 number of keys switched on in the firmware",
            ),
        }
    }

    fn kernel(&self) -> Finding {
        kernel::at_least("TDX kernel", &self.release, OLDEST, "CONFIG_KVM_INTEL_TDX")
    }

    fn parameter(&self) -> Finding {
        let name = "TDX in KVM";
        let to_do = "boot with kvm_intel.tdx=1, and nohibernate where hibernation is built in";
        match self.parameter.as_deref() {
            Some("Y" | "1") => Finding::ok(name, "kvm_intel with tdx=Y"),
            Some(other) => Finding::missing(name, format!("kvm_intel with tdx={other}"), to_do),
            None => Finding::missing(name, "kvm_intel is not loaded, or too old for tdx", to_do),
        }
    }

    fn module(&self) -> Finding {
        let name = "TDX module";
        match (self.machines, &self.module) {
            (true, Some(version)) => Finding::ok(name, format!("version {version}")),
            (true, None) => Finding::ok(name, "loaded")
                .but("this kernel tells its version at boot only: dmesg | grep virt/tdx"),
            (false, _) => Finding::missing(
                name,
                "KVM has not initialised it",
                "dmesg | grep virt/tdx says why; the module comes with the BIOS, or from the boot\n\
                 partition's EFI/TDX folder",
            ),
        }
    }

    fn quotes(&self) -> Finding {
        let name = "TDX quotes";
        match &self.quotes {
            Ok(()) => Finding::ok(name, "the quoting service takes connections"),
            // Guests run without quotes.
            Err(why) => Finding::missing(
                name,
                format!("the quoting service can't be reached: {why}"),
                "start Intel's QGS (package tdx-qgs), or set confidential.quote_service",
            )
            .not_needed(),
        }
    }
}

fn free(keys: Limited) -> Finding {
    let (name, found) = ("TDX keys", keys.text());
    if keys.has_more() {
        return Finding::ok(name, found);
    }
    Finding::missing(
        name,
        found,
        "end a trust domain, or give TDX more of the processor's keys in the firmware",
    )
}

fn reach(service: &QuoteService) -> Result<(), String> {
    let reached = match service {
        QuoteService::Unix(path) => UnixStream::connect(path.as_path()).map(drop),
        QuoteService::Vsock { cid, port } => reach_vsock(*cid, *port),
    };
    reached.map_err(|error| format!("{service}: {error}"))
}

fn reach_vsock(cid: u32, port: u32) -> io::Result<()> {
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The kernel gives up after two seconds.
    Ok(connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?)
}

#[cfg(test)]
mod tests;
