//! State that outlives a packet.
