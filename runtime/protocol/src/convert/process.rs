//! A process: user, capabilities, limits.

use std::path::PathBuf;

use oci_spec::runtime;

use super::{
    ConvertError, Result, built, each, each_if_any, flag, list, message, name, named, number, part,
    path_text, refuse_if, text,
};
use crate::oci;

impl TryFrom<&runtime::Process> for oci::Process {
    type Error = ConvertError;

    fn try_from(process: &runtime::Process) -> Result<Self> {
        refuse_if(
            process.command_line().as_ref().is_some_and(|line| !line.is_empty()),
            "process.commandLine",
        )?;
        refuse_if(process.io_priority().is_some(), "process.ioPriority")?;
        refuse_if(process.scheduler().is_some(), "process.scheduler")?;
        refuse_if(process.exec_cpu_affinity().is_some(), "process.execCPUAffinity")?;
        Ok(Self {
            Terminal: process.terminal().unwrap_or_default(),
            ConsoleSize: message(process.console_size().as_ref())?,
            User: message(Some(process.user()))?,
            Args: process.args().clone().unwrap_or_default(),
            Env: process.env().clone().unwrap_or_default(),
            Cwd: path_text("process.cwd", process.cwd())?,
            Capabilities: message(process.capabilities().as_ref())?,
            Rlimits: each(process.rlimits().as_ref())?,
            NoNewPrivileges: process.no_new_privileges().unwrap_or_default(),
            ApparmorProfile: process.apparmor_profile().clone().unwrap_or_default(),
            OOMScoreAdj: process.oom_score_adj().unwrap_or_default().into(),
            SelinuxLabel: process.selinux_label().clone().unwrap_or_default(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Process> for runtime::Process {
    type Error = ConvertError;

    fn try_from(wire: &oci::Process) -> Result<Self> {
        let user = wire.User.as_ref().map(runtime::User::try_from).transpose()?.unwrap_or_default();
        let mut process = Self::default();
        process
            .set_terminal(flag(wire.Terminal))
            .set_console_size(part(&wire.ConsoleSize)?)
            .set_user(user)
            .set_args(list(&wire.Args))
            .set_command_line(None)
            .set_env(list(&wire.Env))
            .set_cwd(PathBuf::from(&wire.Cwd))
            .set_capabilities(part(&wire.Capabilities)?)
            .set_rlimits(each_if_any(&wire.Rlimits)?)
            .set_no_new_privileges(flag(wire.NoNewPrivileges))
            .set_apparmor_profile(text(&wire.ApparmorProfile))
            // Zero is a value here: a process must not inherit the agent's own score.
            .set_oom_score_adj(Some(number("process.oomScoreAdj", wire.OOMScoreAdj)?))
            .set_selinux_label(text(&wire.SelinuxLabel))
            .set_io_priority(None)
            .set_scheduler(None)
            .set_exec_cpu_affinity(None);
        Ok(process)
    }
}

impl TryFrom<&runtime::Box> for oci::Box {
    type Error = ConvertError;

    fn try_from(size: &runtime::Box) -> Result<Self> {
        Ok(Self {
            Height: number("process.consoleSize.height", size.height())?,
            Width: number("process.consoleSize.width", size.width())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::Box> for runtime::Box {
    type Error = ConvertError;

    fn try_from(wire: &oci::Box) -> Result<Self> {
        let size = runtime::BoxBuilder::default().height(wire.Height).width(wire.Width);
        built("process.consoleSize", size.build())
    }
}

impl TryFrom<&runtime::User> for oci::User {
    type Error = ConvertError;

    fn try_from(user: &runtime::User) -> Result<Self> {
        Ok(Self {
            UID: user.uid(),
            GID: user.gid(),
            AdditionalGids: user.additional_gids().clone().unwrap_or_default(),
            Username: user.username().clone().unwrap_or_default(),
            Umask: user.umask(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::User> for runtime::User {
    type Error = ConvertError;

    fn try_from(wire: &oci::User) -> Result<Self> {
        let mut user = Self::default();
        user.set_uid(wire.UID)
            .set_gid(wire.GID)
            .set_umask(wire.Umask)
            .set_additional_gids(list(&wire.AdditionalGids))
            .set_username(text(&wire.Username));
        Ok(user)
    }
}

impl TryFrom<&runtime::LinuxCapabilities> for oci::LinuxCapabilities {
    type Error = ConvertError;

    fn try_from(capabilities: &runtime::LinuxCapabilities) -> Result<Self> {
        let names = |set: &Option<runtime::Capabilities>| -> Result<Vec<String>> {
            let mut names: Vec<String> =
                set.iter().flatten().map(|one| name("process.capabilities", one)).collect::<Result<_>>()?;
            names.sort_unstable();
            Ok(names)
        };
        Ok(Self {
            Bounding: names(capabilities.bounding())?,
            Effective: names(capabilities.effective())?,
            Inheritable: names(capabilities.inheritable())?,
            Permitted: names(capabilities.permitted())?,
            Ambient: names(capabilities.ambient())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxCapabilities> for runtime::LinuxCapabilities {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxCapabilities) -> Result<Self> {
        // An empty set means "none of them", which is not what an absent set means.
        let set = |names: &[String]| -> Result<Option<runtime::Capabilities>> {
            names.iter().map(|one| named("process.capabilities", one)).collect::<Result<_>>().map(Some)
        };
        let mut capabilities = Self::default();
        capabilities
            .set_bounding(set(&wire.Bounding)?)
            .set_effective(set(&wire.Effective)?)
            .set_inheritable(set(&wire.Inheritable)?)
            .set_permitted(set(&wire.Permitted)?)
            .set_ambient(set(&wire.Ambient)?);
        Ok(capabilities)
    }
}

impl TryFrom<&runtime::PosixRlimit> for oci::POSIXRlimit {
    type Error = ConvertError;

    fn try_from(limit: &runtime::PosixRlimit) -> Result<Self> {
        Ok(Self {
            Type: name("process.rlimits.type", &limit.typ())?,
            Hard: limit.hard(),
            Soft: limit.soft(),
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::POSIXRlimit> for runtime::PosixRlimit {
    type Error = ConvertError;

    fn try_from(wire: &oci::POSIXRlimit) -> Result<Self> {
        let typ: runtime::PosixRlimitType = named("process.rlimits.type", &wire.Type)?;
        let limit = runtime::PosixRlimitBuilder::default().typ(typ).hard(wire.Hard).soft(wire.Soft);
        built("process.rlimits", limit.build())
    }
}
