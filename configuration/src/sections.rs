//! The tables of the file and their keys. The doc comments here are the documentation in the reference file.

use crate::schema::{SectionDoc, section};
use crate::values::{
    AbsolutePath, Count, HostDataSource, Irqchip, KernelParameters, Kibibytes, LogLevel, Mebibytes,
    OptionalPath, QuoteService, Seconds, SimulatedPlatform, SnpPolicy, Steps, Tee,
};

/// Everything that can be configured; what is not in a file has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// The VMM's program.
    pub vmm: Vmm,
    /// What a VM boots.
    pub guest: Guest,
    /// The size of a VM.
    pub vm: Vm,
    /// What is particular to confidential VMs.
    pub confidential: Confidential,
    /// The cache of image layers.
    pub image: Image,
    /// Limits for what is copied into a guest.
    pub binds: Binds,
    /// How long is waited.
    pub timeouts: Timeouts,
    /// Logs and the timeline.
    pub log: Log,
    /// The folder of running pods.
    pub state: State,
    /// What operators may do and see.
    pub operator: Operator,
}

pub(crate) const SECTIONS: &[SectionDoc] = &[
    Vmm::DOC,
    Guest::DOC,
    Vm::DOC,
    Confidential::DOC,
    Image::DOC,
    Binds::DOC,
    Timeouts::DOC,
    Log::DOC,
    State::DOC,
    Operator::DOC,
];

section! {
    /// The program that runs a virtual machine.
    struct Vmm = "vmm" {
        /// The VMM's program file.
        path: AbsolutePath = AbsolutePath::known("/usr/local/bin/nacre-vmm"),
    }
}

section! {
    /// What a virtual machine boots.
    struct Guest = "guest" {
        /// The guest kernel, an uncompressed ELF file.
        kernel: AbsolutePath = AbsolutePath::known("/usr/share/nacre/vmlinux"),
        /// The guest image: an initrd whose /init is the agent.
        initrd: AbsolutePath = AbsolutePath::known("/usr/share/nacre/initrd.img"),
        /// The first code of a confidential guest, which checks the kernel, the initrd and the command line.
        stage0: AbsolutePath = AbsolutePath::known("/usr/share/nacre/stage0.bin"),
        /// Words added at the end of the guest kernel's command line.
        kernel_parameters: KernelParameters = KernelParameters::default(),
        /// The guest's agent connects to the host when it is ready, as nacre's does. With false the shim dials the
        /// agent until it answers, for agents that only listen, as Kata's does. It must know nacre's layers, which Kata's
        /// does not.
        announces: bool = true,
    }
}

section! {
    /// A virtual machine: its kind, and its size where a pod does not ask for one.
    struct Vm = "vm" {
        /// The technology that keeps the VM from its host. "simulated" starts a VM by the same plan and stage0, on any machine,
        /// with a software model of what measures it. It is for tests and never confidential.
        tee: Tee = Tee::None,
        /// Who has the VM's interrupt controllers: "kernel", KVM all of them, or "split", KVM those of the CPUs and the VMM
        /// the IOAPIC. A "tdx" VM has them split whatever this says.
        irqchip: Irqchip = Irqchip::Kernel,
        /// CPUs of a VM whose pod has no CPU limit.
        default_vcpus: Count<1, 64> = Count(1),
        /// The most CPUs that a VM gets, whatever its pod's limit.
        max_vcpus: Count<1, 64> = Count(32),
        /// Memory of a VM whose pod has no memory limit.
        default_memory_mib: Mebibytes<64, 1048576> = Mebibytes(256),
        /// The most memory that a VM gets; a pod that needs more is refused.
        max_memory_mib: Mebibytes<64, 1048576> = Mebibytes(131072),
        /// Memory added to a pod's memory limit, for the guest's kernel and agent. Where the pod's control group has a
        /// limit, give the pod this and host_overhead_mib as overhead in its RuntimeClass, or the VM is smaller.
        memory_overhead_mib: Mebibytes<0, 4096> = Mebibytes(64),
        /// Memory of a pod's control group that is not for the guest but for the host's processes of the pod, the VMM and
        /// the shim. A VM gets no more than the limit of its pod's control group, less this, less 1/128 of the limit
        /// for page tables.
        host_overhead_mib: Mebibytes<0, 4096> = Mebibytes(16),
    }
}

section! {
    /// Confidential VMs: with any vm.tee but "none". Size and policy are known to whoever checks a report, and CPUs and
    /// memory are measured: few sizes mean few measurements.
    struct Confidential = "confidential" {
        /// Numbers of CPUs that a VM can have. A pod's number is rounded up.
        vcpus: Steps<1, 64> = Steps::known(&[1, 2, 4, 8, 16, 32]),
        /// Memory in MiB that a VM can have. A pod's memory is rounded up.
        memory_mib: Steps<64, 1048576> =
            Steps::known(&[256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072]),
        /// The policy of an SEV-SNP guest.
        policy: SnpPolicy = SnpPolicy::portable(),
        /// An SEV-SNP ID block of 96 bytes, as `nacre id-block` makes it: the firmware starts nothing else.
        id_block: OptionalPath = OptionalPath::default(),
        /// The authentication of the ID block, 4096 bytes. Needed if there is an ID block.
        id_auth: OptionalPath = OptionalPath::default(),
        /// Certificates that the host hands to SEV-SNP guests with their reports, in one file with the table of AMD's GHCB
        /// specification. It may be replaced in place by whoever has a lock (flock) on it. Recent kernels ask for it;
        /// elsewhere it is of no use, and a verifier gets the certificates from AMD.
        certificates: OptionalPath = OptionalPath::default(),
        /// What a "simulated" VM is measured by, and whose reports it gives: a software security processor as SEV-SNP's, or a
        /// software TDX module, whose runtime measurement registers stage0 extends and whose reports become quotes.
        simulated_platform: SimulatedPlatform = SimulatedPlatform::Snp,
        /// The key with which the simulated platform "snp" signs reports, as `nacre keys` makes it. Without the file there are
        /// no reports.
        simulated_key: AbsolutePath = AbsolutePath::known("/var/lib/nacre/simulated/vcek.key"),
        /// The key of the simulated platform "tdx" and the key's certificates, as `nacre keys` makes them. Without the file
        /// there are no quotes.
        simulated_tdx_key: AbsolutePath = AbsolutePath::known("/var/lib/nacre/simulated/tdx/pck.key"),
        /// The host's quoting service for Intel TDX, Intel's QGS. Without one a guest has no quotes.
        quote_service: QuoteService = QuoteService::known("/var/run/tdx-qgs/qgs.socket"),
        /// Where the 32 bytes of host data come from, which are in the guest's reports and not in its measurement.
        host_data: HostDataSource = HostDataSource::None,
    }
}

section! {
    /// The node's cache of image layers, which a VM gets as read-only EROFS images.
    struct Image = "image" {
        /// The folder of the cache. It is made when it is missing.
        cache_path: AbsolutePath = AbsolutePath::known("/var/lib/nacre/layers"),
        /// The most space that layers not in use may take; the least recently used go first. Layers of running pods
        /// stay, even beyond this.
        cache_limit_mib: Mebibytes<64, 16777216> = Mebibytes(16384),
        /// How many layers one pod's shim converts at the same time.
        conversions: Count<1, 16> = Count(2),
    }
}

section! {
    /// Bind mounts of files and folders are copied into the guest; these are the limits. A larger one is refused.
    struct Binds = "binds" {
        /// The largest single file.
        max_file_kib: Kibibytes<1, 65536> = Kibibytes(4096),
        /// The largest folder, with all files in it.
        max_folder_kib: Kibibytes<1, 262144> = Kibibytes(16384),
        /// The most files, folders and links in a folder.
        max_folder_entries: Count<1, 65536> = Count(1024),
    }
}

section! {
    /// How long the shim waits, at the longest.
    struct Timeouts = "timeouts" {
        /// From the start of the VMM until the guest's agent is ready.
        start_seconds: Seconds<1, 3600> = Seconds(30),
        /// For the answer to a request to the agent.
        request_seconds: Seconds<1, 3600> = Seconds(60),
        /// For a guest to write what it still holds to the host's disks when its pod ends, before its VMM is killed.
        stop_seconds: Seconds<1, 600> = Seconds(5),
        /// For the rest of a process's output after its exit, when another process still holds its output open.
        drain_seconds: Seconds<1, 600> = Seconds(2),
    }
}

section! {
    /// Logs and the timeline of launches.
    struct Log = "log" {
        /// The least severe messages that are logged.
        level: LogLevel = LogLevel::Info,
        /// Keeps the guest's console as console.log in the folder of its pod, while the pod exists.
        console: bool = false,
        /// Keeps the shim's messages as shim.log in the folder of its pod, beside containerd's log.
        pod_file: bool = false,
        /// The file to which each launch appends one line of JSON with its timeline.
        timeline_path: AbsolutePath = AbsolutePath::known("/var/log/nacre/launches.jsonl"),
    }
}

section! {
    /// Where running pods keep what has to be found again.
    struct State = "state" {
        /// The folder with one folder for each namespace and pod. It should not survive a reboot.
        path: AbsolutePath = AbsolutePath::known("/run/nacre"),
    }
}

/// The port on which the agent takes stdio streams. Kata's agent reads the same word.
const STDIO_PARAMETER: &str = "agent.passfd_listener_port=1027";

impl Guest {
    /// What is appended to the VMM's own kernel command line: the same for all pods, so that it can be measured.
    #[must_use]
    pub fn appended_parameters(&self) -> String {
        format!("{STDIO_PARAMETER} {}", self.kernel_parameters.as_str()).trim_end().to_owned()
    }
}

section! {
    /// What operators may do and see with the command nacre.
    struct Operator = "operator" {
        /// `nacre console --shell` may start a shell in a pod's containers. Never in VMs with vm.tee = "snp" or "tdx".
        shell: bool = false,
        /// The unix socket on which `nacre metrics` serves Prometheus' text format, for root.
        metrics_socket: AbsolutePath = AbsolutePath::known("/run/nacre-metrics.sock"),
        /// The port on 127.0.0.1 on which `nacre metrics` serves the same, for everybody on the node; 0 for none.
        metrics_port: Count<0, 65535> = Count(0),
    }
}
