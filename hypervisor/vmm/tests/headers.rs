//! Every structure and number that we give to KVM is what the kernel's own headers say: a small C program asks them.
//!
//! It needs headers of Linux 6.11 or later, for TDX of 6.16 or later, Debian's package `linux-libc-dev` of a recent release: those in the folder that
//! `NACRE_KERNEL_HEADERS` names (`cargo xtask test` fetches them), or the system's.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use kvm_bindings as kvm;

/// For each structure its size and its fields' offsets: as C expressions, and as we have them.
macro_rules! layouts {
    ($($structure:ident { $($field:ident $(= $c:literal)?),* $(,)? })*) => {
        vec![$(
            (
                format!("sizeof(struct {})", stringify!($structure)),
                size_of::<kvm::$structure>() as u64,
            ),
            $((
                format!(
                    "offsetof(struct {}, {})",
                    stringify!($structure),
                    // A field that is a keyword in Rust has another name there.
                    [stringify!($field) $(, $c)?].last().unwrap(),
                ),
                offset_of!(kvm::$structure, $field) as u64,
            ),)*
        )*]
    };
}

macro_rules! numbers {
    ($($name:ident),* $(,)?) => { vec![$((stringify!($name).to_owned(), u64::from(kvm::$name)),)*] };
}

fn expected() -> BTreeMap<String, u64> {
    let layouts = layouts! {
        kvm_sev_cmd { id, pad0, data, error, sev_fd }
        kvm_sev_init { vmsa_features, flags, ghcb_version, pad1, pad2 }
        kvm_sev_snp_launch_start { policy, gosvw, flags, pad0, pad1 }
        kvm_sev_snp_launch_update { gfn_start, uaddr, len, type_ = "type", pad0, flags, pad1, pad2 }
        kvm_sev_snp_launch_finish {
            id_block_uaddr, id_auth_uaddr, id_block_en, auth_key_en, vcek_disabled, host_data, pad0, flags, pad1,
        }
        kvm_userspace_memory_region2 {
            slot, flags, guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset, guest_memfd, pad1, pad2,
        }
        kvm_create_guest_memfd { size, flags, reserved }
        kvm_memory_attributes { address, size, attributes, flags }
        kvm_pre_fault_memory { gpa, size, flags, padding }
    };
    let numbers = numbers![
        KVM_CAP_VM_TYPES,
        KVM_CAP_USER_MEMORY2,
        KVM_CAP_MEMORY_FAULT_INFO,
        KVM_CAP_MEMORY_ATTRIBUTES,
        KVM_CAP_GUEST_MEMFD,
        KVM_CAP_EXIT_HYPERCALL,
        KVM_X86_SW_PROTECTED_VM,
        KVM_X86_SNP_VM,
        KVM_MEM_GUEST_MEMFD,
        KVM_MEMORY_ATTRIBUTE_PRIVATE,
        KVM_SEV_SNP_PAGE_TYPE_NORMAL,
        KVM_SEV_SNP_PAGE_TYPE_ZERO,
        KVM_SEV_SNP_PAGE_TYPE_UNMEASURED,
        KVM_SEV_SNP_PAGE_TYPE_SECRETS,
        KVM_SEV_SNP_PAGE_TYPE_CPUID,
    ];
    // Numbers that we have written down ourselves, or that have another name in the bindings.
    let own = [
        ("KVM_SEV_INIT2", u64::from(kvm::sev_cmd_id_KVM_SEV_INIT2)),
        ("KVM_SEV_SNP_LAUNCH_START", u64::from(kvm::sev_cmd_id_KVM_SEV_SNP_LAUNCH_START)),
        ("KVM_SEV_SNP_LAUNCH_UPDATE", u64::from(kvm::sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE)),
        ("KVM_SEV_SNP_LAUNCH_FINISH", u64::from(kvm::sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH)),
        ("KVM_PRE_FAULT_MEMORY", nacre_vmm::PRE_FAULT_MEMORY),
        ("KVM_HC_MAP_GPA_RANGE", nacre_vmm::private::MAP_GPA_RANGE),
        ("KVM_MAP_GPA_RANGE_ENCRYPTED", nacre_vmm::private::ENCRYPTED),
        ("KVM_MEMORY_EXIT_FLAG_PRIVATE", nacre_vmm::private::FAULT_PRIVATE),
        ("KVM_SYSTEM_EVENT_SEV_TERM", 6),
    ];
    let pages = [
        ("KVM_SEV_SNP_PAGE_TYPE_NORMAL", nacre_launch::PageKind::Normal),
        ("KVM_SEV_SNP_PAGE_TYPE_ZERO", nacre_launch::PageKind::Zero),
        ("KVM_SEV_SNP_PAGE_TYPE_UNMEASURED", nacre_launch::PageKind::Unmeasured),
        ("KVM_SEV_SNP_PAGE_TYPE_SECRETS", nacre_launch::PageKind::Secrets),
        ("KVM_SEV_SNP_PAGE_TYPE_CPUID", nacre_launch::PageKind::Cpuid),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    let pages = pages.into_iter().map(|(name, kind)| (name.to_owned(), u64::from(kind.number())));
    layouts.into_iter().chain(numbers).chain(own).chain(pages).collect()
}

/// The same for TDX, whose structures came with Linux 6.16. They are ours.
fn expected_of_tdx() -> BTreeMap<String, u64> {
    use nacre_vmm::tdx::abi;
    let size = |structure: &str, size: usize| (format!("sizeof(struct {structure})"), size as u64);
    let offset = |structure: &str, field: &str, offset: usize| {
        (format!("offsetof(struct {structure}, {field})"), offset as u64)
    };
    let layouts = [
        size("kvm_tdx_cmd", size_of::<abi::Command>()),
        offset("kvm_tdx_cmd", "flags", offset_of!(abi::Command, flags)),
        offset("kvm_tdx_cmd", "data", offset_of!(abi::Command, data)),
        offset("kvm_tdx_cmd", "hw_error", offset_of!(abi::Command, hw_error)),
        offset("kvm_tdx_capabilities", "supported_xfam", offset_of!(abi::Capabilities, supported_xfam)),
        offset(
            "kvm_tdx_capabilities",
            "user_tdvmcallinfo_1_r11",
            offset_of!(abi::Capabilities, user_tdvmcallinfo_1_r11),
        ),
        offset("kvm_tdx_capabilities", "cpuid", offset_of!(abi::Capabilities, nent)),
        offset("kvm_tdx_capabilities", "cpuid.entries", size_of::<abi::Capabilities>()),
        offset("kvm_tdx_init_vm", "xfam", offset_of!(abi::InitVm, xfam)),
        offset("kvm_tdx_init_vm", "mrconfigid", offset_of!(abi::InitVm, mrconfigid)),
        offset("kvm_tdx_init_vm", "mrowner", offset_of!(abi::InitVm, mrowner)),
        offset("kvm_tdx_init_vm", "mrownerconfig", offset_of!(abi::InitVm, mrownerconfig)),
        offset("kvm_tdx_init_vm", "reserved", offset_of!(abi::InitVm, reserved)),
        offset("kvm_tdx_init_vm", "cpuid", offset_of!(abi::InitVm, nent)),
        offset("kvm_tdx_init_vm", "cpuid.entries", size_of::<abi::InitVm>()),
        size("kvm_cpuid_entry2", 40),
        size("kvm_tdx_init_mem_region", size_of::<abi::MemRegion>()),
        offset("kvm_tdx_init_mem_region", "gpa", offset_of!(abi::MemRegion, gpa)),
        offset("kvm_tdx_init_mem_region", "nr_pages", offset_of!(abi::MemRegion, nr_pages)),
    ];
    let run = |field: &str| format!("offsetof(struct kvm_run, {field}) - offsetof(struct kvm_run, tdx)");
    let word = |index: usize| (offset_of!(abi::Exit, words) + index * size_of::<u64>()) as u64;
    let exits = [
        (run("tdx.nr"), offset_of!(abi::Exit, nr) as u64),
        (run("tdx.get_quote.ret"), word(0)),
        (run("tdx.get_quote.gpa"), word(1)),
        (run("tdx.get_quote.size"), word(2)),
        (run("tdx.get_tdvmcall_info.leaf"), word(1)),
        (run("tdx.get_tdvmcall_info.r11"), word(2)),
        (run("tdx.get_tdvmcall_info.r14"), word(5)),
        (run("tdx.setup_event_notify.vector"), word(1)),
    ];
    let numbers = [
        ("KVM_X86_TDX_VM", u64::from(abi::VM_TYPE)),
        ("KVM_CAP_X86_APIC_BUS_CYCLES_NS", u64::from(abi::CAP_APIC_BUS_CYCLES_NS)),
        ("KVM_EXIT_TDX", u64::from(abi::EXIT_TDX)),
        ("KVM_SYSTEM_EVENT_TDX_FATAL", u64::from(abi::EVENT_FATAL)),
        ("KVM_TDX_CAPABILITIES", u64::from(abi::CAPABILITIES)),
        ("KVM_TDX_INIT_VM", u64::from(abi::INIT_VM)),
        ("KVM_TDX_INIT_VCPU", u64::from(abi::INIT_VCPU)),
        ("KVM_TDX_INIT_MEM_REGION", u64::from(abi::INIT_MEM_REGION)),
        ("KVM_TDX_FINALIZE_VM", u64::from(abi::FINALIZE_VM)),
        ("KVM_TDX_GET_CPUID", u64::from(abi::GET_CPUID)),
        ("KVM_TDX_MEASURE_MEMORY_REGION", u64::from(abi::MEASURE)),
        ("KVM_MEMORY_ENCRYPT_OP", abi::MEMORY_ENCRYPT_OP),
        ("KVM_GET_TSC_KHZ", abi::GET_TSC_KHZ),
        ("KVM_SET_TSC_KHZ", abi::SET_TSC_KHZ),
    ];
    let numbers = numbers.into_iter().map(|(name, value)| (name.to_owned(), value));
    layouts.into_iter().chain(exits).chain(numbers).collect()
}

/// The folder that has `linux/kvm.h`, and the one that has `asm/kvm.h`.
fn headers(since: &str, has: &str) -> Result<[PathBuf; 2], String> {
    let named = std::env::var_os("NACRE_KERNEL_HEADERS").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| PathBuf::from("/usr/include"));
    let asm = folder.join("x86_64-linux-gnu");
    let text = fs::read_to_string(asm.join("asm/kvm.h")).unwrap_or_default();
    if text.contains(has) {
        return Ok([folder, asm]);
    }
    let folder = folder.display();
    Err(format!(
        "{folder} has no headers of Linux {since} or later (linux-libc-dev); `cargo xtask test` fetches them"
    ))
}

fn program(expressions: impl Iterator<Item = String>) -> String {
    let mut text =
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\n#include <linux/kvm_para.h>\n\
                    int main(void) {\n"
            .to_owned();
    for expression in expressions {
        let _ = writeln!(
            text,
            "    printf(\"%s=%llu\\n\", \"{expression}\", (unsigned long long)({expression}));"
        );
    }
    text + "    return 0;\n}\n"
}

fn ask(folders: &[PathBuf], text: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, binary) = (folder.path().join("ask.c"), folder.path().join("ask"));
    fs::write(&source, text).unwrap();
    let mut gcc = Command::new("gcc");
    folders.iter().for_each(|folder| {
        gcc.arg("-I").arg(folder);
    });
    let compiled = gcc.arg("-o").arg(&binary).arg(&source).output();
    let compiled = compiled.map_err(|error| format!("gcc can't be started: {error}"))?;
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    Ok(run(&binary))
}

fn run(binary: &Path) -> String {
    String::from_utf8(Command::new(binary).output().unwrap().stdout).unwrap()
}

/// What the headers say, unless there are none that are new enough.
fn compare(expected: &BTreeMap<String, u64>, since: &str, has: &str) {
    let text = program(expected.keys().cloned());
    let answer = match headers(since, has).and_then(|folders| ask(&folders, &text)) {
        Ok(answer) => answer,
        Err(why) => {
            let name = std::thread::current().name().unwrap_or("?").to_owned();
            let _ = writeln!(std::io::stderr(), "NOT RUN HERE {name}: {why}");
            return;
        }
    };
    let found: BTreeMap<String, u64> = answer
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once('=').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect();
    assert_eq!(&found, expected);
}

#[test]
fn structures_and_numbers_are_those_of_the_kernels_headers() {
    let expected = expected();
    assert!(expected.len() > 80, "{}", expected.len());
    compare(&expected, "6.11", "KVM_SEV_SNP_LAUNCH_FINISH");
}

/// What came later than in the bindings.
fn expected_of_certificates() -> BTreeMap<String, u64> {
    use nacre_vmm::snp::certificates::{Asked, ENABLE, EXIT};
    let asked = "struct kvm_exit_snp_req_certs";
    let place = "offsetof(struct kvm_run, snp_req_certs) - offsetof(struct kvm_run, tdx)";
    let layouts = [
        (format!("sizeof({asked})"), size_of::<Asked>()),
        (format!("offsetof({asked}, gpa)"), offset_of!(Asked, gpa)),
        (format!("offsetof({asked}, npages)"), offset_of!(Asked, npages)),
        (format!("offsetof({asked}, ret)"), offset_of!(Asked, ret)),
        (place.to_owned(), 0),
    ];
    let numbers = [("KVM_EXIT_SNP_REQ_CERTS", EXIT), ("KVM_SEV_SNP_ENABLE_REQ_CERTS", ENABLE)];
    let layouts = layouts.into_iter().map(|(name, value)| (name, value as u64));
    layouts.chain(numbers.map(|(name, value)| (name.to_owned(), u64::from(value)))).collect()
}

#[test]
fn those_of_certificates_are_those_of_newer_headers() {
    compare(&expected_of_certificates(), "6.16", "KVM_SEV_SNP_ENABLE_REQ_CERTS");
}

#[test]
fn those_of_tdx_are_those_of_newer_headers() {
    compare(&expected_of_tdx(), "6.16", "KVM_TDX_GET_CPUID");
}
