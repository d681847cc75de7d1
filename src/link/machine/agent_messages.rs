//! The desk's own ids of a human agent's messages. A receipt names a message by the platform's id and by this one.

use std::collections::VecDeque;

use crate::rtm::{BotResponse, signal_frames};

/// Most messages that are known. A receipt names a message of the last minutes.
const KEPT: usize = 32;
/// Longest id, of either kind. The ids of one conversation so take 16 KiB at most.
const MAX_ID_BYTES: usize = 256;

/// The ids of an agent's newest messages.
#[derive(Debug, Default)]
pub(super) struct AgentMessages {
    ids: VecDeque<AgentMessageIds>,
}

/// The two ids of a message.
#[derive(Debug)]
struct AgentMessageIds {
    platform: Box<str>,
    desk: Box<str>,
}

impl AgentMessages {
    /// Notes a response. Most have no id of a desk.
    pub(super) fn on_response(&mut self, response: &BotResponse) {
        if !response.agent {
            return;
        }
        let Some(platform) = response.message_id.clone() else { return };
        let Some(desk) = signal_frames::agent_message_id(response.event.get()) else { return };
        if platform.len().max(desk.len()) > MAX_ID_BYTES || self.desk_id(&platform) == Some(&desk) {
            return;
        }
        if self.ids.len() == KEPT {
            self.ids.pop_front();
        }
        self.ids.push_back(AgentMessageIds { platform, desk });
    }

    /// Returns the desk's id of a message.
    pub(super) fn desk_id(&self, platform: &str) -> Option<&str> {
        self.ids.iter().rfind(|ids| *ids.platform == *platform).map(|ids| &*ids.desk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtm::{IncomingFrame, decode_frame};

    fn note(messages: &mut AgentMessages, frame: &str) {
        let IncomingFrame::Response(response) = decode_frame(frame.as_bytes()) else { panic!("{frame}") };
        messages.on_response(&response);
    }

    fn agent_frame(number: usize, id: &str) -> String {
        format!(
            r#"{{"type":"bot_response","messageId":"ms-{number}","fromAgent":true,"agent_MessageId":"{id}",
               "message":[{{"type":"text","cInfo":{{"body":"Hi"}}}}]}}"#
        )
    }

    #[test]
    fn newest_messages_of_agents_are_known() {
        let mut messages = AgentMessages::default();
        for number in 0..=KEPT {
            note(&mut messages, &agent_frame(number, &format!("a-{number}")));
        }
        assert_eq!((messages.desk_id("ms-0"), messages.desk_id("ms-1")), (None, Some("a-1")));
        note(&mut messages, &agent_frame(1, "a-1"));
        assert_eq!((messages.ids.len(), messages.desk_id("ms-32")), (KEPT, Some("a-32")));
    }

    #[test]
    fn message_without_an_id_of_the_desk_is_unknown() {
        let mut messages = AgentMessages::default();
        note(&mut messages, r#"{"type":"bot_response","messageId":"ms-1","fromAgent":true,"message":[]}"#);
        note(&mut messages, &agent_frame(2, ""));
        note(&mut messages, &agent_frame(3, &"a".repeat(MAX_ID_BYTES + 1)));
        assert!(messages.ids.is_empty(), "{messages:?}");
    }
}
