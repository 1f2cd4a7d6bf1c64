//! Namespaces: the guest makes its own.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type};

use super::SpecError;

/// What the guest is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Namespaces {
    /// The namespaces that the agent makes for the container.
    pub kept: Vec<LinuxNamespace>,
    /// The container lives in the pod's process namespace.
    pub shares_processes: bool,
}

/// Refuses a pod that wants to share namespaces with the host, or a user namespace.
///
/// # Errors
/// The namespace.
pub fn refuse_host(given: &[LinuxNamespace]) -> Result<(), SpecError> {
    for (kind, name) in
        [(Type::Pid, "pid"), (Type::Network, "network"), (Type::Ipc, "ipc"), (Type::Mount, "mount")]
    {
        if !given.iter().any(|namespace| namespace.typ() == kind) {
            return Err(SpecError::HostNamespace(name));
        }
    }
    if given.iter().any(|namespace| namespace.typ() == Type::User) {
        return Err(SpecError::UserNamespace);
    }
    Ok(())
}

/// Maps the namespaces of a specification. A path into `/proc/<sandbox_pid>/ns` means the pod's own.
///
/// # Errors
/// A namespace of the host or of somebody else.
pub fn map(given: &[LinuxNamespace], sandbox_pid: u32) -> Result<Namespaces, SpecError> {
    refuse_host(given)?;
    let own = format!("/proc/{sandbox_pid}/ns/");
    let mut namespaces = Namespaces { kept: Vec::new(), shares_processes: false };
    for namespace in given {
        let path = namespace.path().as_deref();
        let pods = path.is_some_and(|path| path.starts_with(&own));
        match (namespace.typ(), path) {
            // The network namespace is where the pod's interfaces come from; in the guest all share its own.
            (Type::Network, _) => {}
            // Clocks are the guest's.
            (Type::Time, None) => {}
            (Type::Pid, None) => {}
            (Type::Pid, Some(_)) if pods => namespaces.shares_processes = true,
            (kind, Some(path)) if !pods => return Err(foreign(kind, path)),
            (kind, _) => {
                let mut kept = LinuxNamespace::default();
                kept.set_typ(kind);
                namespaces.kept.push(kept);
            }
        }
    }
    Ok(namespaces)
}

fn foreign(kind: Type, path: &Path) -> SpecError {
    let kind = match kind {
        Type::Mount => "mount",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "network",
        Type::Time => "time",
    };
    SpecError::ForeignNamespace { kind, path: path.into() }
}
