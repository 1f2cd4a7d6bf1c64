//! The answers.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nacre_operator::{AgentInfo, Call, Container, Fault, Phase, Report, Status, digits};

use super::replies::{Replies, cut};
use crate::annotations::Role;
use crate::container;
use crate::error::{TaskError, chain};
use crate::pod::Pod;
use crate::process;

/// How long the agent waits for a message of the kernel before it is asked again. Not a poll: it bounds how long a
/// question is left in the guest after its asker went.
const KERNEL_WAIT: Duration = Duration::from_secs(20);
/// SECURITY: a guest that always has one more message does not hold up an operator who wants those there are.
const MOST_KERNEL_TEXT: usize = 8 << 20;
/// SECURITY: what a guest says about itself is cut, and one message of its kernel, too.
const MOST_AGENT_TEXT: usize = 64 << 10;

/// The bytes of report data.
const REPORT_DATA: usize = 64;
/// SECURITY: no guest's report makes a line longer than it may be.
const MOST_REPORT: usize = 128 << 10;

/// Answers a call.
///
/// # Errors
/// Nobody listens any more.
pub async fn answer(pod: &Arc<Pod>, call: Call, replies: &mut Replies) -> io::Result<()> {
    let answered = match call {
        Call::Status => return replies.good(status(pod)).await,
        Call::Log { follow } => return log(pod, follow, replies).await,
        Call::Agent => match agent(pod).await {
            Ok(info) => return replies.good(info).await,
            Err(error) => Err(error),
        },
        Call::Report { data } => match report(pod, &data).await {
            Ok(report) => return replies.good(report).await,
            Err(error) => Err(error),
        },
        Call::Console => match console(pod).await {
            Ok(text) => return replies.text(&text).await,
            Err(error) => Err(error),
        },
        Call::Kernel { follow } => kernel(pod, follow, replies).await?,
        Call::Shell { .. } => Ok(()),
    };
    match answered {
        Ok(()) => Ok(()),
        Err(error) => replies.bad(fault(&error), chain(&error)).await,
    }
}

/// What kind of reason an error is.
pub fn fault(error: &TaskError) -> Fault {
    match error {
        TaskError::NoMachine(_) | TaskError::Vmm(_) => Fault::Unavailable,
        TaskError::Agent(error) if error.is_unimplemented() => Fault::Unknown,
        TaskError::Agent(_) => Fault::Unavailable,
        TaskError::Unsupported(_) | TaskError::WrongState { .. } => Fault::Refused,
        _ => Fault::Failed,
    }
}

/// What the shim knows without asking anybody.
pub fn status(pod: &Pod) -> Status {
    let machine = pod.machine().ok();
    let stopped = machine.as_ref().and_then(|machine| machine.vmm().watch().borrow().clone());
    let phase = match (&machine, &stopped) {
        (_, Some(_)) => Phase::Stopped,
        (Some(_), None) => Phase::Running,
        (None, None) => Phase::Starting,
    };
    let mut containers: Vec<_> = pod.all_containers().iter().map(|made| describe(made)).collect();
    containers.sort_by_key(|container| container.role == "member");
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        phase,
        end: stopped.map(|stopped| stopped.reason.to_string()),
        containers,
        moments: pod.moments(),
        calls: machine.map(|machine| machine.agent().calls()).unwrap_or_default(),
        errors: pod
            .desk()
            .recent()
            .errors()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    }
}

fn describe(made: &container::Container) -> Container {
    let (state, exit_status) = match made.init.phase() {
        process::Phase::Created | process::Phase::Starting(_) => ("created", None),
        process::Phase::Running if made.is_paused() => ("paused", None),
        process::Phase::Running => ("running", None),
        process::Phase::Stopped(exit) => ("stopped", Some(exit.status)),
    };
    let role = match made.role {
        Role::Lone => "lone",
        Role::Sandbox => "sandbox",
        Role::Member { .. } => "member",
    };
    Container { id: made.id.to_string(), role: role.into(), state: state.into(), exit_status }
}

async fn agent(pod: &Pod) -> Result<AgentInfo, TaskError> {
    let machine = pod.machine()?;
    let version = machine.agent().version().await?;
    // Kata's agent may have none.
    let metrics = machine.agent().metrics().await.unwrap_or_default();
    Ok(AgentInfo { version: cut(&version, 256).into(), metrics: cut(&metrics, MOST_AGENT_TEXT).into() })
}

async fn report(pod: &Pod, data: &str) -> Result<Report, TaskError> {
    let wrong = || TaskError::Unsupported("report data that is not 128 hexadecimal digits");
    let data = digits::parse(data).filter(|data| data.len() == REPORT_DATA).ok_or_else(wrong)?;
    let machine = pod.machine()?;
    let answer = machine.agent().report(&data).await?;
    // Both fit into one line: the agent's are smaller, unless it is hostile.
    let part = |bytes: &[u8]| digits::text(bytes.get(..MOST_REPORT).unwrap_or(bytes));
    Ok(Report {
        provider: cut(&answer.provider, 256).into(),
        report: part(&answer.report),
        certificates: part(&answer.certificates),
    })
}

async fn console(pod: &Pod) -> Result<String, TaskError> {
    Ok(pod.machine()?.vmm().console_tail().await?)
}

async fn log(pod: &Pod, follow: bool, replies: &mut Replies) -> io::Result<()> {
    let (recent, mut next) = (pod.desk().recent(), 0);
    loop {
        let (text, after) = recent.from(next);
        next = after;
        replies.text(&text).await?;
        if !follow {
            return Ok(());
        }
        recent.reached(next).await;
    }
}

/// The inner result is the agent's failure.
async fn kernel(pod: &Pod, follow: bool, replies: &mut Replies) -> io::Result<Result<(), TaskError>> {
    let (mut next, mut sent) = (0, 0);
    let wait = if follow { KERNEL_WAIT } else { Duration::ZERO };
    loop {
        let read = async { Ok(pod.machine()?.agent().kernel_log(next, wait).await?) };
        let answer = match read.await {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let mut text = String::new();
        for message in &answer.messages {
            let (seconds, rest) = (message.microseconds / 1_000_000, message.microseconds % 1_000_000);
            // Writing into a string does not fail.
            let _ = writeln!(text, "[{seconds:5}.{rest:06}] {}", cut(&message.text, MOST_AGENT_TEXT));
        }
        sent += text.len();
        replies.text(&text).await?;
        // SECURITY: a guest that answers at once and says nothing would keep the shim busy.
        let over = answer.messages.is_empty() || answer.next <= next || sent > MOST_KERNEL_TEXT;
        if over && !follow {
            return Ok(Ok(()));
        }
        if answer.messages.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        next = answer.next.max(next);
    }
}
