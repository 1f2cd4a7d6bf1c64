//! A state folder with pods of every kind.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use nacre_operator::{KubernetesName, Reply, Size};
use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// A pod's folder with its files. The processes are this one, or none.
pub fn pod(root: &Path, id: &str, name: Option<(&str, &str)>, lives: bool) -> PathBuf {
    let folder = root.join("k8s.io").join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let pid = std::process::id();
    let (_, started) = processes::start(pid).unwrap();
    let process = serde_json::json!({"pid": pid, "started": if lives { started } else { 1 }});
    let state = serde_json::json!({"shim": process, "vmm": process, "socket": "/s", "more": 1});
    std::fs::write(folder.join(processes::STATE_FILE), state.to_string()).unwrap();
    let kubernetes = name.map(|(namespace, name)| KubernetesName {
        namespace: namespace.into(),
        name: name.into(),
        uid: String::new(),
    });
    let size = Size { vcpus: 2, memory_mib: 512 };
    let about = About { kubernetes, size, tee: "simulated".into(), created: 1000, ..Default::default() };
    std::fs::write(folder.join(ABOUT_FILE), serde_json::to_vec(&about).unwrap()).unwrap();
    folder
}

/// A shim that answers one request with one line, or only listens.
pub fn shim(folder: &Path, answer: Option<String>) -> JoinHandle<()> {
    let listener = UnixListener::bind(folder.join(SOCKET_FILE)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
            // Until the other side gives up.
            None => drop(reader.read_line(&mut String::new())),
        }
    })
}

fn node() -> TempDir {
    let node = tempfile::tempdir().unwrap();
    pod(node.path(), "abc1", Some(("shop", "web")), true);
    pod(node.path(), "abc2", Some(("shop", "db")), false);
    pod(node.path(), "abc", None, true);
    node
}

#[rstest]
#[case("shop/web", "abc1")]
#[case("abc2", "abc2")]
#[case::a_whole_id_wins("abc", "abc")]
#[case("k8s.io/abc1", "abc1")]
fn a_pod_is_found_by_id_beginning_and_name(#[case] given: &str, #[case] id: &str) {
    assert_eq!(one(node().path(), given).unwrap().id, id);
}

#[test]
fn what_means_none_or_several_is_refused_with_the_names() {
    let node = node();
    assert!(matches!(one(node.path(), "x"), Err(FindError::None { .. })));
    assert!(matches!(one(node.path(), ""), Err(FindError::None { .. })));
    assert!(matches!(one(Path::new("/nowhere"), "x"), Err(FindError::None { .. })));
    let error = one(node.path(), "ab").unwrap_err().to_string();
    assert!(error.contains("shop/web (abc1)") && error.contains("shop/db (abc2)"), "{error}");
}

#[test]
fn the_condition_follows_from_processes_and_answer() {
    let node = tempfile::tempdir().unwrap();
    let status = Status { phase: Phase::Running, ..Default::default() };
    let running = pod(node.path(), "running", None, true);
    let answering = shim(&running, Some(Reply::Ok(status).line()));
    let hung = pod(node.path(), "hung", None, true);
    let hanging = shim(&hung, None);
    pod(node.path(), "old", None, true);
    pod(node.path(), "gone", None, false);
    std::fs::create_dir(node.path().join("k8s.io/empty")).unwrap();
    let refusing = pod(node.path(), "refusing", None, true);
    let refused = Reply::<Status>::Error { fault: nacre_operator::Fault::Unknown, message: "\x1b[2J".into() };
    let refuser = shim(&refusing, Some(refused.line()));

    let all = all(node.path());
    let conditions: Vec<_> = all.iter().map(|pod| (pod.id.as_str(), pod.condition(&pod.status()))).collect();

    let expected = [
        ("empty", Condition::Leftover),
        ("gone", Condition::Leftover),
        ("hung", Condition::Silent),
        ("old", Condition::NotAsked),
        ("refusing", Condition::NotAsked),
        ("running", Condition::Running),
    ];
    assert_eq!(conditions, expected);
    for thread in [answering, hanging, refuser] {
        thread.join().unwrap();
    }
}

#[test]
fn garbage_for_an_answer_is_an_error() {
    let node = tempfile::tempdir().unwrap();
    for garbage in ["\n", "{\"ok\":3}\n", "\u{0}"] {
        let folder = pod(node.path(), "web", None, true);
        let thread = shim(&folder, Some(garbage.into()));
        assert!(
            matches!(one(node.path(), "web").unwrap().status(), Err(AskError::Unreadable)),
            "{garbage:?}"
        );
        thread.join().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
