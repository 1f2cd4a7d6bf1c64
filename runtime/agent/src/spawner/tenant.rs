//! One more process in a container that runs.
//!
//! Not by libcontainer's tenant builder, which leaves out the container's system call filter and tells its errors
//! only as text. The order of the steps is that of runc's `setns_init_linux.go`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;

use libcontainer::capabilities::{drop_privileges, reset_effective};
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::syscall::Syscall;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::tty::setup_console;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getcwd, setgroups, setsid};
use oci_spec::runtime::Process;

use super::fork_child;
use super::helper::{Made, master_from};
use super::order::{ExecOrder, Problem, Report, Stdio};
use super::program::Program;
use crate::error::chain;
use crate::stdio::{set_size, wanted_size};

/// Makes the process. `init` is the process descriptor of the container's first process.
pub(super) fn spawn(report: &OwnedFd, order: &ExecOrder, init: &OwnedFd, stdio: Stdio) -> Made {
    let step =
        |what: &'static str| move |error: &dyn std::fmt::Display| Problem::Other(format!("{what}: {error}"));
    if let Some(score) = order.process.oom_score_adj() {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .map_err(|e| step("set the OOM score")(&e))?;
    }
    let user_namespace =
        own_user_namespace(order.init).map_err(|e| step("look at the user namespace")(&e))?;
    fs::write(order.cgroup.join("cgroup.procs"), "0").map_err(|e| step("enter the cgroup")(&e))?;
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    // The kernel refuses to enter the user namespace that one is in.
    if user_namespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    setns(init, flags).map_err(|e| step("enter the namespaces")(&e))?;

    let console = match stdio {
        Stdio::Terminal => Some(UnixStream::pair().map_err(|e| step("make a socket")(&e))?),
        Stdio::Streams(_) => None,
    };
    let pid = match fork_child().map_err(|e| step("fork")(&e))? {
        Some(pid) => pid,
        None => {
            let problem = become_program(&order.process, order, stdio, console);
            Report::Failed(problem).send(report.as_raw_fd(), None);
            process::exit(127);
        }
    };
    drop(stdio);
    let terminal = console.map(|(ours, theirs)| {
        drop(theirs);
        master_from(ours.as_raw_fd())
    });
    let terminal = terminal.transpose().map_err(|e| step("get the terminal")(&e))?;
    Ok((pid, terminal))
}

fn own_user_namespace(init: i32) -> io::Result<bool> {
    let ours = fs::read_link("/proc/self/ns/user")?;
    let theirs = fs::read_link(format!("/proc/{init}/ns/user"))?;
    Ok(ours != theirs)
}

/// Turns this process into the program; returns only the reason why that failed.
fn become_program(
    process: &Process,
    order: &ExecOrder,
    stdio: Stdio,
    console: Option<(UnixStream, UnixStream)>,
) -> Problem {
    match prepare(process, order, stdio, console) {
        Ok(program) => Problem::Program(program.execute()),
        Err(problem) => problem,
    }
}

fn prepare(
    process: &Process,
    order: &ExecOrder,
    stdio: Stdio,
    console: Option<(UnixStream, UnixStream)>,
) -> Result<Program, Problem> {
    let syscall = create_syscall();
    let syscall = syscall.as_ref();
    setsid().map_err(|e| failed("make a session", &e))?;
    match (stdio, console) {
        (Stdio::Streams([stdin, stdout, stderr]), _) => {
            let joined = dup2_stdin(&stdin).and(dup2_stdout(&stdout)).and(dup2_stderr(&stderr));
            joined.map_err(|e| failed("join the standard streams", &e))?;
        }
        (Stdio::Terminal, Some((_, theirs))) => {
            // It closes the socket itself.
            let socket = std::os::fd::IntoRawFd::into_raw_fd(theirs);
            setup_console(syscall, socket, false).map_err(|e| failed("make the terminal", &e))?;
            if let Some((rows, columns)) = wanted_size(process.console_size().as_ref()) {
                set_size(io::stdin().as_fd(), rows, columns)
                    .map_err(|e| failed("set the terminal's size", &e))?;
            }
        }
        (Stdio::Terminal, None) => {
            return Err(Problem::Other("a terminal without a way to hand it out".into()));
        }
    }
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit).map_err(|e| failed("set a resource limit", &e))?;
    }
    let no_new_privileges = process.no_new_privileges() == Some(true);
    if no_new_privileges {
        set_no_new_privs().map_err(|e| failed("forbid new privileges", &e))?;
    }
    if let Some(mask) = process.user().umask() {
        umask(Mode::from_bits_truncate(mask));
    }
    enter_folder(process)?;
    become_user(process, order, syscall, no_new_privileges)?;
    let env = environment(process);
    let program = Program::find(process, &env).map_err(Problem::Program)?;
    if no_new_privileges {
        filter_system_calls(order)?;
    }
    Ok(program)
}

fn become_user(
    process: &Process,
    order: &ExecOrder,
    syscall: &dyn Syscall,
    no_new_privileges: bool,
) -> Result<(), Problem> {
    let user = process.user();
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).map_err(|e| failed("set the additional groups", &e))?;
    // Without no_new_privs a filter can only be set while the process still has CAP_SYS_ADMIN.
    if !no_new_privileges {
        filter_system_calls(order)?;
    }
    set_ids(Uid::from_raw(user.uid()), Gid::from_raw(user.gid()))?;
    reset_effective(syscall).map_err(|e| failed("reset the capabilities", &e))?;
    if let Some(capabilities) = process.capabilities() {
        drop_privileges(capabilities, syscall).map_err(|e| failed("drop capabilities", &e))?;
    }
    Ok(())
}

/// As libcontainer's `set_id`, which takes ids of another version of nix.
fn set_ids(uid: Uid, gid: Gid) -> Result<(), Problem> {
    use nix::sys::prctl::set_keepcaps;
    use nix::unistd::{setresgid, setresuid};
    set_keepcaps(true).map_err(|e| failed("keep the capabilities", &e))?;
    setresgid(gid, gid, gid).map_err(|e| failed("set the group", &e))?;
    setresuid(uid, uid, uid).map_err(|e| failed("set the user", &e))?;
    set_keepcaps(false).map_err(|e| failed("keep the capabilities", &e))
}

fn filter_system_calls(order: &ExecOrder) -> Result<(), Problem> {
    let Some(filter) = &order.seccomp else { return Ok(()) };
    initialize_seccomp(filter).map(drop).map_err(|e| failed("filter the system calls", &e))
}

fn enter_folder(process: &Process) -> Result<(), Problem> {
    let folder = if process.cwd().as_os_str().is_empty() { Path::new("/") } else { process.cwd() };
    chdir(folder).map_err(|e| failed(&format!("enter the working directory {}", folder.display()), &e))?;
    // A folder outside of the root shows as a path that does not begin at it.
    match getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(Problem::Other("the working directory is outside of the container".into())),
    }
}

/// The process's variables, with a HOME from the container's user list if it has none.
fn environment(process: &Process) -> Vec<String> {
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let home = home_of(&users, process.user().uid()).unwrap_or("/");
        env.push(format!("HOME={home}"));
    }
    env
}

fn home_of(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse() == Ok(uid);
        if found { fields.nth(2).filter(|home| !home.is_empty()) } else { None }
    })
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::Other(format!("{what}: {}", chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_that_of_the_user() {
        let users = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nbad\n:::";
        assert_eq!(home_of(users, 0), Some("/root"));
        assert_eq!(home_of(users, 1000), Some("/home/app"));
        assert_eq!(home_of(users, 7), None);
    }
}
