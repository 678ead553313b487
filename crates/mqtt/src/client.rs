//! The client's end of a conversation.
