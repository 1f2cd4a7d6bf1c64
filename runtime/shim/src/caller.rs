//! Who waits for an answer.
//!
//! containerd gives its requests a deadline, and the server drops a request's future when that has passed: between two
//! lines, wherever it waits. What must not be left half done runs as a task of its own, and learns here that nobody waits
//! for it any more.

use tokio::sync::watch;

/// The waiting itself; dropping it is giving up.
#[derive(Debug)]
pub struct Waiting {
    _gone: watch::Sender<()>,
}

/// What the work knows of whoever waits for it.
#[derive(Debug, Clone)]
pub struct Caller(watch::Receiver<()>);

impl Caller {
    /// Somebody who waits until the first of the two is dropped.
    pub fn new() -> (Waiting, Self) {
        let (gone, caller) = watch::channel(());
        (Waiting { _gone: gone }, Self(caller))
    }

    /// Returns when nobody waits any more.
    pub async fn gone(&self) {
        let mut caller = self.0.clone();
        while caller.changed().await.is_ok() {}
    }

    /// Whether nobody waits any more.
    pub fn is_gone(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

/// Work that comes to its end also when nobody waits for its result any more.
pub async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(result) => result,
        // Nothing aborts it: it panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits() {
        let (done, wait) = tokio::sync::oneshot::channel();
        let (go, signal) = tokio::sync::oneshot::channel::<()>();
        let work = to_its_end(async move {
            signal.await.unwrap();
            done.send(()).unwrap();
        });
        // Polled once, and dropped.
        tokio::select! {
            biased;
            () = work => panic!("it ended by itself"),
            () = tokio::task::yield_now() => {}
        }
        go.send(()).unwrap();
        wait.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_is_gone_when_the_waiting_is_dropped() {
        let (waiting, caller) = Caller::new();
        assert!(!caller.is_gone());
        let gone = tokio::spawn({
            let caller = caller.clone();
            async move { caller.gone().await }
        });
        drop(waiting);
        gone.await.unwrap();
        assert!(caller.is_gone());
    }
}
