//! The specification itself, its root, mounts and hooks.

use std::path::PathBuf;

use oci_spec::runtime;

use super::{
    ConvertError, Result, each, each_if_any, flag, list, map, message, nonzero, optional_path_text, part,
    path, path_text, refuse_if, text,
};
use crate::oci;

impl TryFrom<&runtime::Spec> for oci::Spec {
    type Error = ConvertError;

    fn try_from(spec: &runtime::Spec) -> Result<Self> {
        refuse_if(spec.solaris().is_some(), "solaris")?;
        refuse_if(spec.windows().is_some(), "windows")?;
        refuse_if(spec.vm().is_some(), "vm")?;
        refuse_if(spec.zos().is_some(), "zos")?;
        Ok(Self {
            Version: spec.version().clone(),
            Process: message(spec.process().as_ref())?,
            Root: message(spec.root().as_ref())?,
            Hostname: spec.hostname().clone().unwrap_or_default(),
            Domainname: spec.domainname().clone().unwrap_or_default(),
            Mounts: each(spec.mounts().as_ref())?,
            Hooks: message(spec.hooks().as_ref())?,
            Annotations: spec.annotations().clone().unwrap_or_default(),
            Linux: message(spec.linux().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Spec> for runtime::Spec {
    type Error = ConvertError;

    fn try_from(wire: &oci::Spec) -> Result<Self> {
        refuse_if(wire.Solaris.is_some(), "solaris")?;
        refuse_if(wire.Windows.is_some(), "windows")?;
        let mut spec = Self::default();
        spec.set_version(wire.Version.clone())
            .set_process(part(&wire.Process)?)
            .set_root(part(&wire.Root)?)
            .set_hostname(text(&wire.Hostname))
            .set_domainname(text(&wire.Domainname))
            .set_mounts(each_if_any(&wire.Mounts)?)
            .set_hooks(part(&wire.Hooks)?)
            .set_annotations(map(&wire.Annotations))
            .set_linux(part(&wire.Linux)?)
            .set_solaris(None)
            .set_windows(None)
            .set_vm(None)
            .set_zos(None);
        Ok(spec)
    }
}

impl TryFrom<&runtime::Root> for oci::Root {
    type Error = ConvertError;

    fn try_from(root: &runtime::Root) -> Result<Self> {
        Ok(Self {
            Path: path_text("root.path", root.path())?,
            Readonly: root.readonly().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Root> for runtime::Root {
    type Error = ConvertError;

    fn try_from(wire: &oci::Root) -> Result<Self> {
        let mut root = Self::default();
        root.set_path(PathBuf::from(&wire.Path)).set_readonly(flag(wire.Readonly));
        Ok(root)
    }
}

impl TryFrom<&runtime::Mount> for oci::Mount {
    type Error = ConvertError;

    fn try_from(mount: &runtime::Mount) -> Result<Self> {
        refuse_if(mount.uid_mappings().as_ref().is_some_and(|all| !all.is_empty()), "mounts.uidMappings")?;
        refuse_if(mount.gid_mappings().as_ref().is_some_and(|all| !all.is_empty()), "mounts.gidMappings")?;
        Ok(Self {
            destination: path_text("mounts.destination", mount.destination())?,
            source: optional_path_text("mounts.source", mount.source().as_ref())?,
            type_: mount.typ().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Mount> for runtime::Mount {
    type Error = ConvertError;

    fn try_from(wire: &oci::Mount) -> Result<Self> {
        let mut mount = Self::default();
        mount
            .set_destination(PathBuf::from(&wire.destination))
            .set_source(path(&wire.source))
            .set_typ(text(&wire.type_))
            .set_options(list(&wire.options));
        Ok(mount)
    }
}

impl TryFrom<&runtime::Hooks> for oci::Hooks {
    type Error = ConvertError;

    fn try_from(hooks: &runtime::Hooks) -> Result<Self> {
        // Deprecated by OCI in favour of three later points; still part of the message.
        #[allow(deprecated)]
        let prestart = hooks.prestart();
        Ok(Self {
            Prestart: each(prestart.as_ref())?,
            Poststart: each(hooks.poststart().as_ref())?,
            Poststop: each(hooks.poststop().as_ref())?,
            CreateRuntime: each(hooks.create_runtime().as_ref())?,
            CreateContainer: each(hooks.create_container().as_ref())?,
            StartContainer: each(hooks.start_container().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Hooks> for runtime::Hooks {
    type Error = ConvertError;

    fn try_from(wire: &oci::Hooks) -> Result<Self> {
        let mut hooks = Self::default();
        #[allow(deprecated)]
        hooks.set_prestart(each_if_any(&wire.Prestart)?);
        hooks
            .set_poststart(each_if_any(&wire.Poststart)?)
            .set_poststop(each_if_any(&wire.Poststop)?)
            .set_create_runtime(each_if_any(&wire.CreateRuntime)?)
            .set_create_container(each_if_any(&wire.CreateContainer)?)
            .set_start_container(each_if_any(&wire.StartContainer)?);
        Ok(hooks)
    }
}

impl TryFrom<&runtime::Hook> for oci::Hook {
    type Error = ConvertError;

    fn try_from(hook: &runtime::Hook) -> Result<Self> {
        Ok(Self {
            Path: path_text("hooks.path", hook.path())?,
            Args: hook.args().clone().unwrap_or_default(),
            Env: hook.env().clone().unwrap_or_default(),
            Timeout: hook.timeout().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Hook> for runtime::Hook {
    type Error = ConvertError;

    fn try_from(wire: &oci::Hook) -> Result<Self> {
        let mut hook = Self::default();
        hook.set_path(PathBuf::from(&wire.Path))
            .set_args(list(&wire.Args))
            .set_env(list(&wire.Env))
            .set_timeout(nonzero(wire.Timeout));
        Ok(hook)
    }
}
