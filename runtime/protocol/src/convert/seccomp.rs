//! System call filters.

use oci_spec::runtime;
use oci_spec::runtime::LinuxSeccompOperator;

use super::{ConvertError, Result, built, each, each_if_any, name, named, nonzero, number, refuse_if};
use crate::oci;
use crate::oci::linux_syscall::ErrnoRet;

impl TryFrom<&runtime::LinuxSeccomp> for oci::LinuxSeccomp {
    type Error = ConvertError;

    fn try_from(seccomp: &runtime::LinuxSeccomp) -> Result<Self> {
        refuse_if(seccomp.listener_path().is_some(), "linux.seccomp.listenerPath")?;
        refuse_if(seccomp.listener_metadata().is_some(), "linux.seccomp.listenerMetadata")?;
        let architectures = seccomp.architectures().iter().flatten();
        let flags = seccomp.flags().iter().flatten();
        Ok(Self {
            DefaultAction: name("linux.seccomp.defaultAction", &seccomp.default_action())?,
            DefaultErrnoRet: seccomp.default_errno_ret(),
            Architectures: architectures
                .map(|one| name("linux.seccomp.architectures", one))
                .collect::<Result<_>>()?,
            Flags: flags.map(|one| name("linux.seccomp.flags", one)).collect::<Result<_>>()?,
            Syscalls: each(seccomp.syscalls().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxSeccomp> for runtime::LinuxSeccomp {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxSeccomp) -> Result<Self> {
        let architectures: Vec<runtime::Arch> = wire
            .Architectures
            .iter()
            .map(|one| named("linux.seccomp.architectures", one))
            .collect::<Result<_>>()?;
        let flags: Vec<runtime::LinuxSeccompFilterFlag> =
            wire.Flags.iter().map(|one| named("linux.seccomp.flags", one)).collect::<Result<_>>()?;
        let mut seccomp = Self::default();
        seccomp
            .set_default_action(named("linux.seccomp.defaultAction", &wire.DefaultAction)?)
            .set_default_errno_ret(wire.DefaultErrnoRet)
            .set_architectures(Some(architectures).filter(|all| !all.is_empty()))
            .set_flags(Some(flags).filter(|all| !all.is_empty()))
            .set_syscalls(each_if_any(&wire.Syscalls)?);
        Ok(seccomp)
    }
}

impl TryFrom<&runtime::LinuxSyscall> for oci::LinuxSyscall {
    type Error = ConvertError;

    fn try_from(syscall: &runtime::LinuxSyscall) -> Result<Self> {
        Ok(Self {
            Names: syscall.names().clone(),
            Action: name("linux.seccomp.syscalls.action", &syscall.action())?,
            ErrnoRet: syscall.errno_ret().map(ErrnoRet::Errnoret),
            Args: each(syscall.args().as_ref())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxSyscall> for runtime::LinuxSyscall {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxSyscall) -> Result<Self> {
        let errno = wire.ErrnoRet.as_ref().map(|ErrnoRet::Errnoret(errno)| *errno);
        let mut syscall = Self::default();
        syscall
            .set_names(wire.Names.clone())
            .set_action(named("linux.seccomp.syscalls.action", &wire.Action)?)
            .set_errno_ret(errno)
            .set_args(each_if_any(&wire.Args)?);
        Ok(syscall)
    }
}

impl TryFrom<&runtime::LinuxSeccompArg> for oci::LinuxSeccompArg {
    type Error = ConvertError;

    fn try_from(arg: &runtime::LinuxSeccompArg) -> Result<Self> {
        let index = u32::try_from(arg.index()).map_err(|_| ConvertError::OutOfRange {
            field: "linux.seccomp.syscalls.args.index",
            value: i128::MAX,
        })?;
        Ok(Self {
            Index: index.into(),
            Value: arg.value(),
            ValueTwo: arg.value_two().unwrap_or_default(),
            Op: name("linux.seccomp.syscalls.args.op", &arg.op())?,
            ..Default::default()
        })
    }
}

impl TryFrom<&oci::LinuxSeccompArg> for runtime::LinuxSeccompArg {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxSeccompArg) -> Result<Self> {
        let op: LinuxSeccompOperator = named("linux.seccomp.syscalls.args.op", &wire.Op)?;
        // Only a masked comparison has a second value, and there zero is one.
        let second = match op {
            LinuxSeccompOperator::ScmpCmpMaskedEq => Some(wire.ValueTwo),
            _ => nonzero(wire.ValueTwo),
        };
        let index: usize = number("linux.seccomp.syscalls.args.index", wire.Index)?;
        let mut arg = runtime::LinuxSeccompArgBuilder::default().index(index).value(wire.Value).op(op);
        if let Some(second) = second {
            arg = arg.value_two(second);
        }
        built("linux.seccomp.syscalls.args", arg.build())
    }
}
