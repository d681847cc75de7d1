//! The trace of a failing run.

use rtm_bridge::domain::EntryBody;
use rtm_bridge::link::{Effect, Input};
use rtm_bridge::rtm::{BotResponse, IncomingFrame};
use rtm_bridge::store::ConversationChange;

use super::platform::PlatformEvent;

fn tell_response(response: &BotResponse) -> String {
    let stream =
        response.stream.as_ref().map_or("", |stream| if stream.last { " last piece" } else { " piece" });
    let more = if response.more_follows { " more follows" } else { "" };
    format!("reply {}{stream}{more}", response.message_id.as_deref().unwrap_or("without id"))
}

pub(crate) fn tell_said(said: &PlatformEvent) -> String {
    match said {
        PlatformEvent::Frame(IncomingFrame::Response(response)) => tell_response(response),
        other => format!("{other:?}"),
    }
}

pub(crate) fn tell_input(input: &Input) -> String {
    match input {
        Input::Accepted(message) => format!("Accepted {}", message.id),
        Input::Lane(open) => format!("Lane of {}", open.lane.len()),
        Input::Frame(IncomingFrame::Response(response)) => tell_response(response),
        Input::History(Ok(page)) => {
            let ids: Vec<_> = page.records.iter().filter_map(|record| record.id.as_deref()).collect();
            format!("History {ids:?} more {}", page.more)
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn tell_effect(effect: &Effect) -> String {
    match effect {
        Effect::Write(write) => {
            let changes: Vec<_> = write.changes.iter().map(tell_change).collect();
            format!("Write {} {changes:?}", write.record.write)
        }
        Effect::Send(message) => format!("Send {}", message.id),
        Effect::Complete { message, .. } => {
            format!("Tell {} {:?}", message.accepted.id, message.progress.outcome)
        }
        other => format!("{other:?}"),
    }
}

fn tell_change(change: &ConversationChange) -> String {
    match change {
        ConversationChange::Append(entry) => match &entry.body {
            EntryBody::Reply(reply) => {
                let to = reply.in_reply_to.map(|id| id.to_string()).unwrap_or_default();
                let late = if reply.late { " late" } else { "" };
                format!(
                    "{} {:?}{late} to {to}",
                    reply.message_id.as_deref().unwrap_or("-"),
                    reply.correlation
                )
            }
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}
