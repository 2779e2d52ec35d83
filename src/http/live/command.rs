//! What clients ask for.

use serde_json::Value;

use crate::domain::{FileName, InvalidFileName};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) enum Command {
    /// To be told of this file.
    SubscribeStatus(FileName),
    /// No longer.
    UnsubscribeStatus(FileName),
    /// To be told of all.
    SubscribeAll,
    /// To be told the counters.
    SubscribeStats,
}

/// Why a message is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum InvalidCommand {
    /// An event that is not known.
    #[error(
        "there is no event of this name: subscribe_status, unsubscribe_status, subscribe_all and subscribe_stats are known"
    )]
    Unknown,
    /// No name of a file.
    #[error("filename is missing: send {{\"filename\": \"…\"}}")]
    NoFileName,
    /// One that can't be used.
    #[error("filename: {0}")]
    FileName(#[from] InvalidFileName),
    /// Not JSON.
    #[error("not a message: send {{\"event\": \"…\", \"data\": {{…}}}}")]
    NoMessage,
}

impl Command {
    /// Reads an event and its data.
    pub(in crate::http) fn read(event: &str, data: Option<&Value>) -> Result<Self, InvalidCommand> {
        let filename = || {
            let filename = data.and_then(|data| data.get("filename")).and_then(Value::as_str);
            Ok(FileName::clean(filename.ok_or(InvalidCommand::NoFileName)?)?)
        };
        match event {
            "subscribe_status" => filename().map(Self::SubscribeStatus),
            "unsubscribe_status" => filename().map(Self::UnsubscribeStatus),
            "subscribe_all" => Ok(Self::SubscribeAll),
            "subscribe_stats" => Ok(Self::SubscribeStats),
            _ => Err(InvalidCommand::Unknown),
        }
    }

    /// Reads a frame: `{"event": …, "data": …}`.
    pub(in crate::http) fn read_frame(frame: &str) -> Result<Self, InvalidCommand> {
        let message: Value = serde_json::from_str(frame).map_err(|_| InvalidCommand::NoMessage)?;
        let event = message.get("event").and_then(Value::as_str).ok_or(InvalidCommand::NoMessage)?;
        Self::read(event, message.get("data"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn odd_messages_are_told_from_good_ones() {
        let name = |name| FileName::clean(name).unwrap();
        for (frame, expected) in [
            (json!({"event": "subscribe_all"}), Ok(Command::SubscribeAll)),
            (json!({"event": "subscribe_all", "data": 7}), Ok(Command::SubscribeAll)),
            (json!({"event": "subscribe_stats", "data": {}}), Ok(Command::SubscribeStats)),
            (
                json!({"event": "subscribe_status", "data": {"filename": "../x/a b"}}),
                Ok(Command::SubscribeStatus(name("a b"))),
            ),
            (
                json!({"event": "unsubscribe_status", "data": {"filename": "a"}}),
                Ok(Command::UnsubscribeStatus(name("a"))),
            ),
            (json!({"event": "subscribe_status"}), Err(InvalidCommand::NoFileName)),
            (json!({"event": "subscribe_status", "data": "a"}), Err(InvalidCommand::NoFileName)),
            (json!({"event": "subscribe_status", "data": {"filename": 7}}), Err(InvalidCommand::NoFileName)),
            (
                json!({"event": "subscribe_status", "data": {"filename": ".."}}),
                Err(InvalidCommand::FileName(InvalidFileName::Empty)),
            ),
            (json!({"event": "frobnicate"}), Err(InvalidCommand::Unknown)),
            (json!({"event": 7}), Err(InvalidCommand::NoMessage)),
            (json!([]), Err(InvalidCommand::NoMessage)),
        ] {
            assert_eq!(Command::read_frame(&frame.to_string()), expected, "{frame}");
        }
        assert_eq!(Command::read_frame("{"), Err(InvalidCommand::NoMessage));
        assert_eq!(Command::read_frame(&"[".repeat(60_000)), Err(InvalidCommand::NoMessage));
    }
}
