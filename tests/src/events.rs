//! containerd's events, as `ctr events` prints them.

use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::process::Running;
use crate::wait::{SECONDS, eventually};

/// A subscription to all events from now on.
#[derive(Debug)]
pub struct Events {
    running: Running,
}

/// One event of a container.
#[derive(Debug, Clone)]
pub struct Event {
    /// For example `/tasks/exit`.
    pub topic: String,
    /// Its fields.
    pub fields: Value,
}

impl Events {
    /// Subscribes, and returns when events arrive for sure.
    ///
    /// # Errors
    /// No event arrives.
    pub fn subscribe(context: &Context) -> Result<Self, Failure> {
        let running = Running::start(context.ctr().arg("events"))?;
        let namespace = context.options.namespace.clone();
        let mut count = 0;
        // Nothing says when the subscription is made, so events are caused until one arrives.
        eventually(SECONDS, || {
            count += 1;
            let mark = format!("nacre-tests/mark={}-{count}", std::process::id());
            context.run_ctr(&["namespaces", "label", &namespace, &mark])?.exited(0)?;
            running.stdout.wait_for("/namespaces/update", std::time::Duration::from_millis(500))
        })?;
        Ok(Self { running })
    }

    /// The events so far that name this container, in their order.
    pub fn of(&self, id: &str) -> Vec<Event> {
        events_of(&self.running.stdout.text(), id)
    }

    /// The topics of the task events so far that name this container, with the process they name.
    pub fn of_task(&self, id: &str) -> Vec<String> {
        let events = self.of(id).into_iter().filter(|event| event.topic.starts_with("/tasks/"));
        events
            .map(|event| {
                let process = field(&event.fields, &["exec_id", "id"]);
                let process = if process == id { String::new() } else { process };
                format!("{} {process}", event.topic).trim_end().to_owned()
            })
            .collect()
    }

    /// Waits until an event of this topic names the container.
    ///
    /// # Errors
    /// None arrives, within seconds.
    pub fn wait_for(&self, id: &str, topic: &str) -> Result<Event, Failure> {
        let find = |text: &str| events_of(text, id).into_iter().find(|event| event.topic == topic);
        let output = &self.running.stdout;
        output.wait_until(&format!("{topic} of {id}"), SECONDS, |text| find(text).is_some())?;
        find(&output.text()).ok_or_else(|| Failure::Wrong(format!("no {topic} of {id}")))
    }
}

fn events_of(text: &str, id: &str) -> Vec<Event> {
    let events = text.lines().filter_map(parse);
    events.filter(|event| field(&event.fields, &["container_id", "id"]) == id).collect()
}

/// `<time> <namespace> <topic> <fields>`, where the time has blanks.
fn parse(line: &str) -> Option<Event> {
    let (_, rest) = line.split_once(" /")?;
    let (topic, fields) = rest.split_once(' ')?;
    Some(Event { topic: format!("/{topic}"), fields: serde_json::from_str(fields).ok()? })
}

fn field(fields: &Value, names: &[&str]) -> String {
    let value = names
        .iter()
        .find_map(|name| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()));
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ctr_is_understood() {
        let line = r#"2026-01-01 00:00:00.5 +0000 UTC tests /tasks/exit {"container_id":"a","id":"b","exit_status":3}"#;
        let event = parse(line).unwrap();
        assert_eq!(event.topic, "/tasks/exit");
        assert_eq!(field(&event.fields, &["exec_id", "id"]), "b");
        assert!(parse("no event").is_none());
    }
}
