//! What has to be undone, in reverse order, when a thing ends or fails halfway.

use std::fmt;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

type Step = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Steps to undo. Nothing is undone by dropping: [`Teardown::run`] must be called.
#[derive(Default)]
pub struct Teardown {
    steps: Vec<(String, Step)>,
}

impl Teardown {
    /// Adds a step that will be run before all those added until now.
    pub fn push(&mut self, what: impl Into<String>, step: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.steps.push((what.into(), Box::new(step)));
    }

    /// Adds all steps of another, which were done after all of this.
    pub fn append(&mut self, mut later: Self) {
        self.steps.append(&mut later.steps);
    }

    /// Adds the unmounting of this folder.
    pub fn push_unmount(&mut self, path: &Path) {
        let path = path.to_owned();
        self.push(format!("unmount {}", path.display()), move || unmount(&path));
    }

    /// Adds the removal of this folder and all it holds.
    pub fn push_remove(&mut self, path: &Path) {
        let path = path.to_owned();
        self.push(format!("remove {}", path.display()), move || match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
    }

    /// Runs all steps, also after one has failed. Returns what failed.
    pub fn run(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        while let Some((what, step)) = self.steps.pop() {
            if let Err(error) = step() {
                failed.push(format!("{what}: {error}"));
            }
        }
        failed
    }

    /// Runs all steps where blocking does no harm.
    pub async fn run_aside(mut self) -> Vec<String> {
        tokio::task::spawn_blocking(move || self.run()).await.unwrap_or_default()
    }
}

impl fmt::Debug for Teardown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(what, _)| what)).finish()
    }
}

/// Unmounts; what is still in use disappears from the tree now and goes when its last user does.
pub fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EBUSY) => umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?,
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        other => other?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn steps_run_in_reverse_order_even_after_a_failure() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut teardown = Teardown::default();
        for step in 0..3 {
            let order = Arc::clone(&order);
            teardown.push(format!("step {step}"), move || {
                order.lock().unwrap().push(step);
                if step == 1 { Err(io::Error::other("no")) } else { Ok(()) }
            });
        }
        assert_eq!(teardown.run(), ["step 1: no"]);
        assert_eq!(*order.lock().unwrap(), [2, 1, 0]);
        assert!(teardown.run().is_empty());
    }
}
