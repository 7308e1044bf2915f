//! A thread of its own for each connection: batches come in through a channel, answers go out one by one.

use std::{
    any::Any,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    limits::CLOSE_TIMEOUT,
    service::{Reply, Request, Unavailable},
    store::OpenError,
};

type Answer = Result<Vec<Reply>, Unavailable>;

struct Job<S> {
    batch: Arc<[Request<S>]>,
    answer: oneshot::Sender<Answer>,
}

/// What a lane's thread does.
pub(super) trait Work: Sized {
    /// The commands of its service.
    type Command: Send + Sync + 'static;

    /// Runs one batch.
    fn answer(&mut self, batch: &[Request<Self::Command>]) -> Answer;

    /// Called after a panic, so that nothing half done is used again.
    fn reset(&mut self);

    /// When there is something to do beside batches.
    fn next_chore(&self) -> Option<Instant>;

    /// Does what is due beside batches.
    fn do_chores(&mut self);
}

/// The sending side of a thread. When this is dropped, the thread ends after the batch in hand, and is waited for: the last
/// connection to a database moves the log into it and removes the log.
pub(super) struct Lane<S> {
    /// There until it is dropped.
    jobs: Option<Sender<Job<S>>>,
    end: End,
}

impl<S> Drop for Lane<S> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        self.end.wait();
    }
}

/// The end of a thread, which holds the sender until it has dropped everything else.
pub(super) struct End(Mutex<Receiver<Infallible>>);

impl End {
    pub(super) fn of_thread() -> (Sender<Infallible>, Self) {
        let (held, end) = mpsc::channel();
        (held, Self(Mutex::new(end)))
    }

    /// Waits for it, but not for ever: another process may be frozen while it holds the write lock.
    pub(super) fn wait(&mut self) {
        let end = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent.
        let _ = end.recv_timeout(CLOSE_TIMEOUT);
    }
}

impl<S: Send + Sync + 'static> Lane<S> {
    /// Starts a thread and waits until it is ready to work.
    ///
    /// If the future is dropped, the thread ends as soon as it is.
    pub(super) async fn start<W: Work<Command = S>>(
        name: &str,
        open: impl FnOnce() -> Result<W, OpenError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel();
        let (opened, is_open) = oneshot::channel();
        let (held, end) = End::of_thread();
        let work = move || {
            let _held = held;
            match open() {
                Err(error) => drop(opened.send(Err(error))),
                Ok(worker) => {
                    if opened.send(Ok(())).is_ok() {
                        run(worker, &queue);
                    }
                }
            }
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| OpenError::Unavailable(Unavailable(error.into())))?;
        is_open.await.map_err(|_| OpenError::Unavailable(ended()))??;
        Ok(Self { jobs: Some(jobs), end })
    }

    /// Queues a batch. If the future is dropped, the batch is left out unless it has begun.
    pub(super) async fn ask(&self, batch: Arc<[Request<S>]>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { batch, answer }).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn ended() -> Unavailable {
    Unavailable("the database's thread has ended".into())
}

fn run<W: Work>(mut worker: W, queue: &Receiver<Job<W::Command>>) {
    loop {
        match next(queue, worker.next_chore()) {
            // Its caller has given up, and may have asked again.
            Ok(job) if job.answer.is_closed() => continue,
            Ok(job) => {
                let answer = contained(&mut worker, |worker| worker.answer(&job.batch));
                // Nobody waits for an answer whose future was dropped.
                let _ = job.answer.send(answer.and_then(|answer| answer));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if worker.next_chore().is_some_and(|due| due <= Instant::now())
            && let Err(error) = contained(&mut worker, Work::do_chores)
        {
            tracing::error!(%error, "a chore of the database failed");
        }
    }
}

fn next<S>(queue: &Receiver<Job<S>>, chore: Option<Instant>) -> Result<Job<S>, RecvTimeoutError> {
    match chore {
        Some(due) => {
            queue.recv_timeout(due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
        }
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// A panic is a fault of ours; it must not end the thread, and with it the store.
fn contained<W: Work, T>(worker: &mut W, work: impl FnOnce(&mut W) -> T) -> Result<T, Unavailable> {
    catch_unwind(AssertUnwindSafe(|| work(worker))).map_err(|panic| {
        worker.reset();
        Unavailable(format!("the database's thread panicked: {}", message(panic.as_ref())).into())
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::service::{Fingerprint, Payload, Spec};

    /// Does what it is told for each batch, and tells the sizes of the batches that it was given.
    struct Scripted {
        script: Receiver<fn() -> Answer>,
        seen: Sender<usize>,
        chore: Option<Instant>,
    }

    impl Work for Scripted {
        type Command = ();

        fn answer(&mut self, batch: &[Request<()>]) -> Answer {
            self.seen.send(batch.len()).unwrap();
            self.script.recv().unwrap()()
        }

        fn reset(&mut self) {
            self.seen.send(usize::MAX).unwrap();
        }

        fn next_chore(&self) -> Option<Instant> {
            self.chore
        }

        fn do_chores(&mut self) {
            self.chore = None;
            self.seen.send(0).unwrap();
        }
    }

    struct Stage {
        lane: Lane<()>,
        script: Sender<fn() -> Answer>,
        seen: Receiver<usize>,
    }

    async fn stage(chore: Option<Instant>) -> Stage {
        let (script, told) = mpsc::channel();
        let (tell, seen) = mpsc::channel();
        let open = move || Ok(Scripted { script: told, seen: tell, chore });
        let lane = Lane::start("scripted", open).await.unwrap();
        Stage { lane, script, seen }
    }

    fn batch(size: usize) -> Arc<[Request<()>]> {
        let request = || Request {
            command: Spec::read("list"),
            id: None,
            deadline: None,
            fingerprint: Fingerprint([0; 16]),
            payload: Payload::One(()),
        };
        (0..size).map(|_| request()).collect()
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_not_the_end() {
        let stage = stage(None).await;
        stage.script.send(|| panic!("scripted")).unwrap();
        stage.script.send(|| Ok(Vec::new())).unwrap();
        let error = stage.lane.ask(batch(1)).await.unwrap_err();
        assert!(error.to_string().ends_with("panicked: scripted"), "{error}");
        stage.lane.ask(batch(2)).await.unwrap();
        drop(stage.lane);
        assert_eq!(stage.seen.iter().collect::<Vec<_>>(), [1, usize::MAX, 2], "batch, reset, batch");
    }

    #[tokio::test]
    async fn a_batch_that_nobody_waits_for_is_left_out_unless_it_has_begun() {
        let stage = stage(None).await;
        let mut begun = Box::pin(stage.lane.ask(batch(1)));
        assert!(begun.as_mut().now_or_never().is_none());
        assert_eq!(stage.seen.recv().unwrap(), 1);
        let mut queued = Box::pin(stage.lane.ask(batch(2)));
        assert!(queued.as_mut().now_or_never().is_none());
        drop((begun, queued));
        stage.script.send(|| Ok(Vec::new())).unwrap();
        stage.script.send(|| Ok(Vec::new())).unwrap();
        stage.lane.ask(batch(3)).await.unwrap();
        assert_eq!(stage.seen.recv().unwrap(), 3);
    }

    #[tokio::test]
    async fn chores_are_done_when_they_are_due_without_any_batch() {
        let stage = stage(Some(Instant::now())).await;
        assert_eq!(stage.seen.recv().unwrap(), 0);
        drop(stage.lane);
    }

    #[tokio::test]
    async fn what_hinders_opening_is_reported() {
        let open = || Err::<Scripted, _>(OpenError::Refused("no".to_owned()));
        let refused = Lane::start("refused", open).await.err().unwrap();
        assert_eq!(refused.to_string(), "no");
        let panicked = Lane::start("panicked", || -> Result<Scripted, _> { panic!("scripted") }).await;
        assert!(matches!(panicked.err().unwrap(), OpenError::Unavailable(_)));
    }
}
