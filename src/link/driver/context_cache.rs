//! The context of the conversation's connections, between them.
//!
//! The machine names the message that a connection's context comes from. This cache keeps the data of that message for
//! the frames of the session. It also keeps what messages told about the user, for the next grant.

use std::rc::Rc;

use crate::domain::{AcceptedMessage, MessageId, UserDetails};
use crate::link::calls::ContextSource;
use crate::link::input::SocketRequest;
use crate::rtm::ConnectContext;

pub(super) struct ContextCache {
    /// The context of the connection, or of the last one.
    current: Rc<ConnectContext>,
    /// The message that its data comes from.
    message: Option<MessageId>,
    /// The same of the running connect.
    requested: Option<MessageId>,
    /// The newest details of the user.
    details: Option<Box<UserDetails>>,
    /// The message that told details last. It tells them once.
    told_by: Option<MessageId>,
}

impl ContextCache {
    /// Creates the cache of a conversation without a context.
    pub(super) const fn new(empty: Rc<ConnectContext>) -> Self {
        Self { current: empty, message: None, requested: None, details: None, told_by: None }
    }

    /// Returns the context of the open connection.
    pub(super) const fn current(&self) -> &Rc<ConnectContext> {
        &self.current
    }

    /// Returns the context for a connect.
    pub(super) fn source(&mut self, request: &SocketRequest) -> ContextSource {
        if let Some(opener) = &request.opener {
            self.on_sent(opener);
        }
        self.requested = request.context;
        let details = self.details.as_deref().cloned().unwrap_or_default();
        let opener = request.opener.as_ref().filter(|opener| Some(opener.id) == request.context);
        let context = match (opener, request.context) {
            (Some(opener), _) => ConnectContext::new(Some(&opener.new.content), details),
            (None, None) => ConnectContext::new(None, details),
            (None, kept) if kept == self.message => ConnectContext { details, ..(*self.current).clone() },
            (None, Some(stored)) => return ContextSource::Stored(stored, details),
        };
        ContextSource::Known(if context == *self.current {
            Rc::clone(&self.current)
        } else {
            Rc::new(context)
        })
    }

    /// Notes that the connection of the last request is open. Its grant has merged the identities.
    pub(super) fn on_connected(&mut self, context: Rc<ConnectContext>) {
        // A grant that a read of history renews must not merge once more: that would end the session.
        self.current = if context.details.merge_with.is_none() {
            context
        } else {
            let details = UserDetails { merge_with: None, ..context.details.clone() };
            Rc::new(ConnectContext { details, ..(*context).clone() })
        };
        self.message = self.requested;
        if let Some(details) = &mut self.details {
            details.merge_with = None;
        }
    }

    /// Notes what a message tells about the user. A name or an identity that it leaves out stays.
    pub(super) fn on_sent(&mut self, message: &AcceptedMessage) {
        let Some(told) = message.new.user_details.as_deref() else { return };
        if self.told_by.replace(message.id) == Some(message.id) {
            return;
        }
        let details = self.details.get_or_insert_default();
        if !told.profile.is_empty() {
            details.profile = told.profile.clone();
        }
        if told.merge_with.is_some() {
            details.merge_with.clone_from(&told.merge_with);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::fixtures::{accepted_message, conversation, new_message};
    use crate::domain::{NewMessage, Timestamp, UserId, UserProfile};
    use crate::rtm::ConnectMode;

    fn message(number: u128, data: Option<&str>, merge: Option<&str>) -> Arc<AcceptedMessage> {
        let mut new = new_message(conversation("support", "alice"), "hi");
        new.content.custom_data = data.map(|data| serde_json::from_str(data).unwrap());
        let profile = UserProfile { first_name: Some("Zoë".into()), last_name: None };
        let details = UserDetails { profile, merge_with: merge.map(|user| UserId::new(user).unwrap()) };
        let user_details = merge.map(|_| Box::new(details));
        let id = MessageId::new(Timestamp::from_millis(1), number);
        Arc::new(AcceptedMessage { id, ..accepted_message(NewMessage { user_details, ..new }) })
    }

    fn request(
        opener: Option<&Arc<AcceptedMessage>>,
        context: Option<&Arc<AcceptedMessage>>,
    ) -> SocketRequest {
        SocketRequest {
            mode: ConnectMode::Reconnect,
            opener: opener.map(Arc::clone),
            context: context.map(|message| message.id),
        }
    }

    fn known(source: ContextSource) -> Rc<ConnectContext> {
        match source {
            ContextSource::Known(context) => context,
            ContextSource::Stored(..) => panic!("it is in memory"),
        }
    }

    fn data(context: &ConnectContext) -> Option<&str> {
        context.custom_data.as_ref().map(|data| data.raw().get())
    }

    #[test]
    fn context_stays_for_reconnects_of_its_session() {
        let mut cache = ContextCache::new(Rc::default());
        let (first, second) = (message(1, Some("{\"a\":1}"), None), message(2, None, None));
        let context = known(cache.source(&request(Some(&first), Some(&first))));
        assert_eq!((data(&context), data(cache.current())), (Some("{\"a\":1}"), None));
        cache.on_connected(Rc::clone(&context));
        for opener in [None, Some(&second)] {
            let kept = known(cache.source(&request(opener, Some(&first))));
            assert!(Rc::ptr_eq(&kept, &context), "the grant serves it");
            cache.on_connected(kept);
        }
        let none = known(cache.source(&request(Some(&second), None)));
        assert_eq!(data(&none), None);
    }

    #[test]
    fn context_of_an_earlier_owner_is_read_from_the_store() {
        let mut cache = ContextCache::new(Rc::default());
        let (first, second) = (message(1, None, None), message(2, None, Some("visitor")));
        let ContextSource::Stored(id, details) = cache.source(&request(Some(&second), Some(&first))) else {
            panic!("it is not in memory")
        };
        assert_eq!((id, details.merge_with.unwrap().as_str()), (first.id, "visitor"));
    }

    #[test]
    fn identity_is_merged_once_and_the_name_stays() {
        let mut cache = ContextCache::new(Rc::default());
        let first = message(1, None, Some("visitor"));
        let merges = |context: &ConnectContext| {
            assert_eq!(context.details.profile.first_name.as_deref(), Some("Zoë"));
            context.details.merge_with.as_ref().map(|user| user.as_str().to_owned())
        };
        let context = known(cache.source(&request(Some(&first), None)));
        assert_eq!(merges(&context).as_deref(), Some("visitor"));
        cache.on_connected(context);
        assert_eq!(merges(cache.current()), None, "a grant for a read of history merges nothing");
        cache.on_sent(&first);
        assert_eq!(merges(&known(cache.source(&request(Some(&first), None)))), None);
        cache.on_sent(&message(2, None, Some("guest")));
        assert_eq!(merges(&known(cache.source(&request(None, None)))).as_deref(), Some("guest"));
    }
}
