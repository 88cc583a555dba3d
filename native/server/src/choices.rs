//! The generations behind one answer: their events in the order they come, each with its choice's index.

use std::pin::Pin;

use futures_util::stream::{self, SelectAll};
use futures_util::{Stream, StreamExt};
use specula_engine::Event;

use crate::errors::Fault;
use crate::running::Running;

/// `Sync` because warp's streamed bodies must be.
type Indexed = Pin<Box<dyn Stream<Item = (usize, Result<Event, Fault>)> + Send + Sync>>;

/// Several generations read as one; dropping it cancels them all.
pub(crate) struct Choices {
    streams: SelectAll<Indexed>,
}

impl Choices {
    pub(crate) fn new(running: Vec<Running>) -> Self {
        let mut all = SelectAll::new();
        for (index, running) in running.into_iter().enumerate() {
            all.push(Box::pin(indexed(index, running)) as Indexed);
        }
        Self { streams: all }
    }

    /// The next event of any choice; `None` once all have ended. A choice that fails says so by its last item.
    pub(crate) async fn next(&mut self) -> Option<(usize, Result<Event, Fault>)> {
        self.streams.next().await
    }
}

fn indexed(index: usize, running: Running) -> impl Stream<Item = (usize, Result<Event, Fault>)> {
    stream::unfold(Some(running), move |state| async move {
        let mut running = state?;
        Some(match running.next().await {
            None => ((index, Err(Fault::Internal("the engine ended without a last event"))), None),
            Some(Event::Failed(failure)) => ((index, Err(failure.into())), None),
            Some(event @ Event::Finished(_)) => ((index, Ok(event)), None),
            Some(event) => ((index, Ok(event)), Some(running)),
        })
    })
}
