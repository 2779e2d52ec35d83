//! One client and what it asked for.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{Command, GREETING};
use crate::domain::{FileName, Transfer};
use crate::events::{Cursor, Event, Hub, Present, Subscription, TooSlow};

/// Files that one client may watch by name; who wants more watches all.
const NAMES: usize = 256;

/// What a client is sent.
#[derive(Debug, Clone)]
pub(in crate::http) enum Out {
    /// An event that all get; whether for who watches its file.
    Event(Arc<Event>, bool),
    /// Something for this client: the event's name and its data.
    Own(&'static str, Arc<RawValue>),
}

impl Out {
    pub(in crate::http) fn connected() -> Self {
        Self::own("connected", &json!({"message": GREETING}))
    }

    pub(in crate::http) fn error(message: &str) -> Self {
        Self::own("error", &json!({"message": message}))
    }

    fn status(transfer: &Transfer) -> Self {
        Self::own("status_update", transfer)
    }

    fn own(name: &'static str, data: &impl serde::Serialize) -> Self {
        // None of what is sent has keys that are no texts, so it can be written.
        Self::Own(name, to_raw_value(data).unwrap_or_else(|_| RawValue::NULL.to_owned()).into())
    }

    /// The event's name.
    pub(in crate::http) fn name(&self) -> &'static str {
        match self {
            Self::Event(event, watched) => event.name(*watched),
            Self::Own(name, _) => name,
        }
    }

    /// Its data: JSON in one line.
    pub(in crate::http) fn data(&self) -> &RawValue {
        match self {
            Self::Event(event, _) => event.data(),
            Self::Own(_, data) => data,
        }
    }

    /// As a frame `{"event": …, "data": …}`.
    pub(in crate::http) fn framed(&self) -> Bytes {
        match self {
            Self::Event(event, watched) => event.framed(*watched),
            Self::Own(name, data) => crate::events::frame(name, data),
        }
    }
}

/// What a client asked for.
#[derive(Debug, Default)]
struct Interest {
    all: bool,
    stats: bool,
    names: HashSet<FileName>,
}

/// A client and what it asked for. Memory: names, at most [`NAMES`], and a place in the hub's channel.
pub(in crate::http) struct Watcher {
    hub: Hub,
    interest: Interest,
    /// From the first thing that was asked for.
    subscription: Option<Subscription>,
}

impl Watcher {
    /// A client that has asked for nothing.
    pub(in crate::http) fn new(hub: Hub) -> Self {
        Self { hub, interest: Interest::default(), subscription: None }
    }

    /// How far it has come, where nothing before that is missing.
    pub(in crate::http) fn cursor(&self) -> Option<Cursor> {
        self.subscription.as_ref().and_then(Subscription::cursor)
    }

    /// Begins where an earlier client came to: what it missed since is sent first.
    pub(in crate::http) fn resume(&mut self, cursor: Cursor) {
        self.subscription = Some(self.hub.resume(cursor));
    }

    /// Does what the client asks, and gives what it is told at once.
    pub(in crate::http) fn obey(&mut self, command: Command) -> Vec<Out> {
        match command {
            Command::UnsubscribeStatus(name) => {
                self.interest.names.remove(&name);
                Vec::new()
            }
            Command::SubscribeStatus(name) => {
                if self.interest.names.len() >= NAMES && !self.interest.names.contains(&name) {
                    return vec![Out::error("too many files: subscribe to all instead")];
                }
                self.begin(
                    |interest| _ = interest.names.insert(name.clone()),
                    std::slice::from_ref(&name),
                    |_| None,
                )
            }
            Command::SubscribeAll => self.begin(
                |interest| interest.all = true,
                &[],
                |present| Some(Out::Own("status_update", Arc::clone(&present.all))),
            ),
            Command::SubscribeStats => self.begin(
                |interest| interest.stats = true,
                &[],
                |present| Some(Out::own("stats_update", &present.stats)),
            ),
        }
    }

    /// The client watches something more. It is told how that stands, after what came before.
    fn begin(
        &mut self,
        more: impl FnOnce(&mut Interest),
        names: &[FileName],
        own: impl FnOnce(&Present) -> Option<Out>,
    ) -> Vec<Out> {
        let subscription = self.subscription.get_or_insert_with(|| self.hub.subscribe());
        let present = subscription.present(names);
        let mut outs = Vec::new();
        if let Ok(present) = &present {
            present.before.iter().for_each(|batch| self.interest.pick(&batch.events, &mut outs));
        }
        more(&mut self.interest);
        // Too slow: it is told all of this once it has what it missed.
        if let Ok(present) = present {
            outs.extend(own(&present));
            outs.extend(
                names.iter().zip(&present.names).map(|(name, transfer)| status_of(name, transfer.as_deref())),
            );
        }
        outs
    }

    /// What comes next. If the client was too slow: what it missed, and then how things stand.
    ///
    /// Cancel-safe. Where nothing was asked for, nothing comes.
    pub(in crate::http) async fn next(&mut self) -> Vec<Out> {
        let Some(subscription) = &mut self.subscription else { return std::future::pending().await };
        loop {
            let mut outs = Vec::new();
            match subscription.next().await {
                Ok(batch) => self.interest.pick(&batch.events, &mut outs),
                Err(TooSlow) => {
                    let missed = subscription.missed();
                    self.interest.pick(&missed.events, &mut outs);
                    if missed.done {
                        self.interest.stand(subscription, &mut outs);
                    }
                }
            }
            if !outs.is_empty() {
                return outs;
            }
            // What was missed may be long, and nothing of it asked for: others have their turn in between.
            tokio::task::yield_now().await;
        }
    }
}

impl Interest {
    /// Those of these events that were asked for.
    fn pick(&self, events: &[Arc<Event>], outs: &mut Vec<Out>) {
        for event in events {
            match event.filename() {
                None if self.stats => outs.push(Out::Event(Arc::clone(event), false)),
                None => {}
                Some(name) => {
                    if self.all {
                        outs.push(Out::Event(Arc::clone(event), false));
                    }
                    if self.names.contains(name) {
                        outs.push(Out::Event(Arc::clone(event), true));
                    }
                }
            }
        }
    }

    /// How everything stands that was asked for.
    fn stand(&self, subscription: &mut Subscription, outs: &mut Vec<Out>) {
        let names: Vec<_> = self.names.iter().cloned().collect();
        // Too slow again: then again later.
        let Ok(present) = subscription.present(&names) else { return };
        present.before.iter().for_each(|batch| self.pick(&batch.events, outs));
        if self.all {
            outs.push(Out::Own("status_update", Arc::clone(&present.all)));
        }
        if self.stats {
            outs.push(Out::own("stats_update", &present.stats));
        }
        // What is not known by now was told of when it was asked for.
        outs.extend(present.names.iter().flatten().map(|transfer| Out::status(transfer)));
    }
}

fn status_of(name: &FileName, transfer: Option<&Transfer>) -> Out {
    match transfer {
        Some(transfer) => Out::status(transfer),
        None => Out::error(&format!("no transfer of {:?} is known yet", name.as_str())),
    }
}
