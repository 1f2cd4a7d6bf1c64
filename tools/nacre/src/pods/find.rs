//! The one pod that an operator means.

use std::path::Path;

use thiserror::Error;

use super::{Pod, all};

/// Why no single pod is meant.
#[derive(Debug, Error)]
pub enum FindError {
    /// None.
    #[error("there is no pod {given:?}; `nacre ps` lists all")]
    None {
        /// What was given.
        given: String,
    },
    /// Several.
    #[error("{given:?} means {}; give more of the id", names.join(", "))]
    Several {
        /// What was given.
        given: String,
        /// All that it can mean.
        names: Vec<String>,
    },
}

/// The pod with this id, beginning of an id, or name: `<namespace>/<name>` as in Kubernetes, `<namespace>/<id>` as in
/// containerd. A whole id wins over the beginning of others.
///
/// # Errors
/// There is none, or several.
pub fn one(root: &Path, given: &str) -> Result<Pod, FindError> {
    let mut pods = all(root);
    if pods.iter().any(|pod| is_whole(pod, given)) {
        pods.retain(|pod| is_whole(pod, given));
    } else {
        pods.retain(|pod| !given.is_empty() && pod.id.starts_with(given));
    }
    match pods.len() {
        0 => Err(FindError::None { given: given.to_owned() }),
        1 => Ok(pods.remove(0)),
        _ => {
            let names = pods.iter().map(|pod| format!("{} ({})", pod.name(), pod.id)).collect();
            Err(FindError::Several { given: given.to_owned(), names })
        }
    }
}

fn is_whole(pod: &Pod, given: &str) -> bool {
    pod.id == given || pod.name() == given || format!("{}/{}", pod.namespace, pod.id) == given
}
