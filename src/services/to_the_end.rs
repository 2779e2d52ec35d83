//! Work that is done to its end, whether or not somebody still waits for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Goes on as a task of its own if whoever waits for it is gone. Until then it is part of the task that waits: bytes that
/// pass through it wake one task, not two.
pub(super) struct ToTheEnd<T: Send + 'static> {
    /// `None`: it has ended.
    work: Option<Work<T>>,
    running: TaskTracker,
    /// A stop of the server waits for it from the beginning.
    _counted: TaskTrackerToken,
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Does `work` to its end. `running` waits for it.
pub(super) fn to_the_end<T: Send + 'static>(
    running: &TaskTracker,
    work: impl Future<Output = T> + Send + 'static,
) -> ToTheEnd<T> {
    ToTheEnd { work: Some(Box::pin(work)), running: running.clone(), _counted: running.token() }
}

impl<T: Send> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Not put back if it panics: it can't go on then.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let result = work.as_mut().poll(context);
        if result.is_pending() {
            self.work = Some(work);
        }
        result
    }
}

impl<T: Send> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            self.running.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_any_more() {
        let running = TaskTracker::new();
        running.close();
        let (go, gone) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let mut work = to_the_end(&running, async move {
            let number: u32 = gone.await.unwrap();
            tell.send(number).unwrap();
        });
        assert_eq!((&mut work).now_or_never(), None);
        assert_eq!(running.wait().now_or_never(), None, "a stop waits for it");
        drop(work);
        assert_eq!(running.wait().now_or_never(), None, "still");
        go.send(7).unwrap();
        assert_eq!(told.await, Ok(7));
        running.wait().await;
    }

    #[tokio::test]
    async fn what_has_ended_or_panicked_does_not_begin_again() {
        let running = TaskTracker::new();
        running.close();
        assert_eq!(to_the_end(&running, async { 5 }).await, 5);
        let failing = to_the_end(&running, async { panic!("a bug") });
        AssertUnwindSafe(failing).catch_unwind().await.unwrap_err();
        assert_eq!(running.wait().now_or_never(), Some(()));
    }
}
