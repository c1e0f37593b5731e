//! A future that wakes itself goes on at once.
//!
//! hyper asks for a request's body when somebody wants it, and does so by waking its own task. On the way through the
//! scheduler that costs a turn of the queue, and mostly a system call as well, for another thread is woken to help.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::task::{Context, Poll, Wake, Waker};

/// Turns in a row, after which others have theirs.
const MOST: usize = 4;

/// Gives one future its turns.
#[derive(Debug, Default)]
pub(super) struct Turns(Option<(Arc<Bell>, Waker)>);

/// Rings through to the task only while nobody polls.
#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    task: Waker,
}

const QUIET: u8 = 0;
const POLLED: u8 = 1;
const RUNG: u8 = 2;

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(RUNG, AcqRel) == QUIET {
            self.task.wake_by_ref();
        }
    }
}

impl Turns {
    /// Polls the future, and again when it woke itself meanwhile.
    pub(super) fn poll<F: Future>(&mut self, mut future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.0.as_ref().is_none_or(|(bell, _)| !bell.task.will_wake(cx.waker())) {
            let bell = Arc::new(Bell { state: AtomicU8::new(QUIET), task: cx.waker().clone() });
            self.0 = Some((Arc::clone(&bell), bell.into()));
        }
        let Some((bell, waker)) = &self.0 else { return Poll::Pending };
        for _ in 0..MOST {
            // A swap and no store: who rang before it is heard by this poll, who rings after it by the next one.
            bell.state.swap(POLLED, AcqRel);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if bell.state.compare_exchange(POLLED, QUIET, AcqRel, Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        bell.state.swap(QUIET, AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A future that is ready after it woke itself so often.
    fn restless(mut times: usize) -> impl Future<Output = ()> {
        poll_fn(move |cx| {
            if times == 0 {
                return Poll::Ready(());
            }
            times -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn what_wakes_itself_goes_on_without_the_task_being_woken() {
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        let mut future = pin!(restless(MOST - 1));
        assert!(Turns::default().poll(future.as_mut(), &mut Context::from_waker(&waker)).is_ready());
        assert_eq!(count.0.load(Relaxed), 0);
    }

    #[test]
    fn what_never_rests_lets_others_have_their_turn() {
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        let (mut turns, mut future) = (Turns::default(), pin!(restless(2 * MOST)));
        for round in 1..=2 {
            assert!(turns.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_pending());
            assert_eq!(count.0.load(Relaxed), round);
        }
        assert!(turns.poll(future.as_mut(), &mut Context::from_waker(&waker)).is_ready());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_wakes_it_from_elsewhere_is_heard() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for number in 0..2000 {
                sender.send(number).await.unwrap();
            }
        });
        let mut turns = Turns::default();
        let mut receiving = pin!(async {
            let mut sum = 0;
            while let Some(number) = receiver.recv().await {
                sum += number;
            }
            sum
        });
        let sum = poll_fn(|cx| turns.poll(receiving.as_mut(), cx));
        let sum = tokio::time::timeout(Duration::from_secs(60), sum).await.unwrap();
        sending.await.unwrap();
        assert_eq!(sum, 1999 * 1000);
    }
}
